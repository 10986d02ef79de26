"""Update docs/performance.md and its picture from the stored results.

The text between markers such as ``<!-- peers: nets -->`` and ``<!-- /peers -->`` is generated here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.peers import results, roofline, tables
from nnbackend.support.files import atomic_write

__all__ = ["NOT_MEASURED", "PAGE", "refresh", "refreshed"]

PAGE = Path(__file__).resolve().parents[2] / "docs" / "performance.md"

NOT_MEASURED = "Not measured yet."

#: The generated parts that the page must have.
_TABLES = results.KINDS
_PICTURE = "roofline"

_BLOCK = re.compile(r"<!-- peers: (\w+) -->\n(?:(?!<!-- peers: ).)*?<!-- /peers -->", re.DOTALL)


def refreshed(text: str, found: Sequence[Mapping[str, Any]]) -> str:
    """The text of the page with these results.

    Parameters
    ----------
    text : str
        The current page.
    found : sequence of dict
        Results in the order of the page.

    Raises
    ------
    ValueError
        A generated part is missing, duplicated or unknown.
    """
    places, wanted = sorted(_BLOCK.findall(text)), sorted((*_TABLES, _PICTURE))
    if places != wanted:
        raise ValueError(f"the page must have the parts {', '.join(wanted)}, and has {', '.join(places)}")
    contents = {kind: "\n\n".join(tables.text(each) for each in found if each["kind"] == kind) for kind in _TABLES}
    contents[_PICTURE] = _picture(found)

    def block(match: re.Match[str]) -> str:
        name = match[1]
        return f"<!-- peers: {name} -->\n{contents[name] or NOT_MEASURED}\n<!-- /peers -->"

    return _BLOCK.sub(block, text)


def _picture(found: Sequence[Mapping[str, Any]]) -> str:
    """The link to the picture, with a note on missing data; empty if there is nothing to draw."""
    drawn = roofline.panels(found)
    if not drawn:
        return ""
    lines = [f"![Roofline: speed over arithmetic intensity, for each contender](images/{roofline.PICTURE.name})"]
    if any(panel.bandwidth is None for panel in drawn):
        lines.append(
            "Some of these results are older than its measurement and do not include the memory bandwidth: without it, "
            "the roof has no slope."
        )
    return "\n\n".join(lines)


def refresh(folder: Path = results.FOLDER, page: Path = PAGE) -> list[str]:
    """Write the page and its picture.

    Parameters
    ----------
    folder : Path
        Folder of the results.
    page : Path
        The page; its picture is in the folder `images` beside it.

    Returns
    -------
    list of str
        A line for each action.

    Raises
    ------
    ImportError
        There is something to draw and matplotlib is not installed. The page is unchanged.
    """
    found = results.read_all(folder)
    text = refreshed(page.read_text(), found)
    drawn = roofline.panels(found)
    picture = page.parent / "images" / roofline.PICTURE.name
    if drawn:
        roofline.draw(drawn, picture)
    with atomic_write(page) as stream:
        stream.write(text.encode())
    kinds = {result["kind"] for result in found}
    missing = [kind for kind in _TABLES if kind not in kinds]
    return [
        f"{page.name}: {', '.join(kind for kind in _TABLES if kind in kinds) or 'nothing'} from the stored results",
        *([f"not measured yet: {', '.join(missing)}"] if missing else []),
        f"{picture.name}: drawn" if drawn else f"{picture.name}: nothing to draw",
        *([f"{picture.name}: {roofline.NO_BANDWIDTH}"] if any(panel.bandwidth is None for panel in drawn) else []),
    ]
