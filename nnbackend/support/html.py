"""Tables as HTML, for notebooks."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["table"]

#: Styles are inline: a notebook may drop style sheets, and a style sheet would affect its other tables, too. Text and
#: background colours are the notebook's; lines are a half-transparent grey, visible on light and dark backgrounds.
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
    """A table as self-contained HTML, readable on light and dark backgrounds.

    Parameters
    ----------
    caption : str
        Text above the table.
    headings : sequence of str
    rows : sequence of sequences of str
        A text for each heading.
    align : str
        "l" or "r" for each column: left or right alignment.
    total : sequence of str, optional
        A last row, separated by a line.
    note : str, optional
        Text below the table.

    Returns
    -------
    str
        HTML in which all texts are escaped.
    """
    # Imported here because only tables need it.
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
