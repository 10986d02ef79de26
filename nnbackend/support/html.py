"""Tables as HTML, for notebooks."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["table"]

#: Every style stands at its element: a notebook may drop style sheets, and one would hold for its other tables too.
#: Text and ground are the notebook's own and lines are a half-transparent grey, which shows on light and on dark.
_TABLE = "border-collapse:collapse;margin:0 0 8px;table-layout:auto;color:inherit;background:transparent"
_CAPTION = "caption-side:top;text-align:left;padding:0 0 4px;color:inherit;font-weight:bold;white-space:nowrap"
_NOTE = "padding:3px 0;text-align:left;opacity:0.75"
_LINE = "1px solid rgba(128,128,128,0.6)"
_ALIGN = {"l": "left", "r": "right"}


def table(
    caption: str,
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    align: str,
    total: Sequence[str] = (),
    note: str = "",
) -> str:
    """A table as HTML that can stand anywhere and reads on any ground.

    Parameters
    ----------
    caption : str
        Above the table.
    headings : sequence of str
    rows : sequence of sequences of str
        A text for each heading.
    align : str
        "l" or "r" for each heading: where the texts of its column stand.
    total : sequence of str, optional
        A row set apart at the end.
    note : str, optional
        Below the table.

    Returns
    -------
    str
        All texts are escaped.
    """
    # Imported here: only who looks at a table needs it.
    from html import escape

    def row(kind: str, texts: Sequence[str], extra: str = "") -> str:
        cells = ""
        for column, (text, side) in enumerate(zip(texts, align, strict=True)):
            padding = "3px 0 3px 20px" if column else "3px 0"
            style = f"padding:{padding};text-align:{_ALIGN[side]};white-space:nowrap{extra}"
            cells += f'<{kind} style="{style}">{escape(text)}</{kind}>'
        return f"<tr>{cells}</tr>"

    head = row("th", headings, f";font-weight:bold;border-bottom:{_LINE}")
    body = "".join(row("td", texts) for texts in rows)
    foot = row("td", total, f";border-top:{_LINE}") if total else ""
    if note:
        foot += f'<tr><td colspan="{len(headings)}" style="{_NOTE}">{escape(note)}</td></tr>'
    return (
        f'<table style="{_TABLE}"><caption style="{_CAPTION}">{escape(caption)}</caption>'
        f"<thead>{head}</thead><tbody>{body}</tbody><tfoot>{foot}</tfoot></table>"
    )
