"""Pages of the site whose files are elsewhere in the repository, so that there is only one copy of each text.

Before the build, the files are copied to the pages' places. Links in them are changed to lead to the page of the linked
file or, if it has no page, to the file in the checkout, which the site offers as a download.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

#: ``](target)`` or ``](target#place)``, except links to the web or within the page.
_LINK = re.compile(r"\]\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)")

#: Suffixes of pages and pictures in the documentation's folder.
_IN_DOCS = (".md", ".png", ".svg")


def relinked(text: str, source: str, pages: dict[str, str], repository: Path) -> str:
    """The text with links that are correct in the documentation's folder.

    Parameters
    ----------
    text : str
        Markdown.
    source : str
        Path of the text in the repository.
    pages : dict of str
        The page of each file that has one, by the file's path in the repository: ``{"CHANGELOG.md": "changes.md"}``.
    repository : Path

    Raises
    ------
    FileNotFoundError
        A link leads to a file that does not exist.
    """

    def link(match: re.Match[str]) -> str:
        target = os.path.normpath(PurePosixPath(source).parent / match[1]).replace(os.sep, "/")
        if not (repository / target).exists():
            raise FileNotFoundError(f"{source} links to {match[1]}, which does not exist")
        if target in pages:
            return f"]({pages[target]}{match[2] or ''})"
        if target.startswith("docs/") and target.endswith(_IN_DOCS):
            return f"]({target.removeprefix('docs/')})"
        return f"](../{target})"

    return _LINK.sub(link, text)


def mirror(app: Sphinx) -> None:
    """Write all mirrored pages; an unchanged page is not written, so that Sphinx does not read it again."""
    folder = Path(app.srcdir)
    mirrored: dict[str, str] = app.config.mirrored_pages
    pages = {source: page for page, source in mirrored.items()} | app.config.mirrored_targets
    for page, source in mirrored.items():
        text = (folder.parent / source).read_text(encoding="utf-8")
        if source.endswith(".ipynb"):
            notebook = json.loads(text)
            for cell in notebook["cells"]:
                if cell["cell_type"] == "markdown":
                    lines = relinked("".join(cell["source"]), source, pages, folder.parent)
                    cell["source"] = lines.splitlines(keepends=True)
            text = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
        else:
            text = relinked(text, source, pages, folder.parent)
        path = folder / page
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_config_value("mirrored_pages", {}, "env")
    app.add_config_value("mirrored_targets", {}, "env")
    # Before Sphinx lists the files of the folder.
    app.connect("builder-inited", mirror, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
