"""Pages of the site that stand elsewhere in the repository: one text, read in both places.

Before the build they are copied to where their page is to be. Links in them lead from there to the page that shows the
same file, or to the file in the repository on the web where no page does.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

#: ``](target)`` or ``](target#place)``, without those that lead to the web or stay on the page.
_LINK = re.compile(r"\]\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)")

#: Endings of what stands in the documentation's folder itself.
_OURS = (".md", ".png", ".svg")


def relinked(text: str, source: str, pages: dict[str, str], repository: Path, url: str) -> str:
    """The text with links that are right in the folder of the documentation.

    Parameters
    ----------
    text : str
        Markdown.
    source : str
        Where it stands in the repository.
    pages : dict of str
        The pages that show a file, by the file's place in the repository: ``{"CHANGELOG.md": "changes.md"}``.
    repository : Path
    url : str
        Of the repository on the web.

    Raises
    ------
    FileNotFoundError
        A link leads to a file that is not there.
    """

    def link(match: re.Match[str]) -> str:
        target = os.path.normpath(PurePosixPath(source).parent / match[1]).replace(os.sep, "/")
        if not (repository / target).exists():
            raise FileNotFoundError(f"{source} links to {match[1]}, which is not there")
        if target in pages:
            return f"]({pages[target]}{match[2] or ''})"
        if target.startswith("docs/") and target.endswith(_OURS):
            return f"]({target.removeprefix('docs/')})"
        return f"]({url}/blob/main/{target}{match[2] or ''})"

    return _LINK.sub(link, text)


def mirror(app: Sphinx) -> None:
    """Write all pages that stand elsewhere; one that is as it was is left alone, so that it is not read again."""
    folder = Path(app.srcdir)
    mirrored: dict[str, str] = app.config.mirrored_pages
    pages = {source: page for page, source in mirrored.items()} | app.config.mirrored_targets
    for page, source in mirrored.items():
        text = (folder.parent / source).read_text(encoding="utf-8")
        if source.endswith(".ipynb"):
            notebook = json.loads(text)
            for cell in notebook["cells"]:
                if cell["cell_type"] == "markdown":
                    lines = relinked("".join(cell["source"]), source, pages, folder.parent, app.config.repository_url)
                    cell["source"] = lines.splitlines(keepends=True)
            text = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
        else:
            text = relinked(text, source, pages, folder.parent, app.config.repository_url)
        path = folder / page
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_config_value("mirrored_pages", {}, "env")
    app.add_config_value("mirrored_targets", {}, "env")
    app.add_config_value("repository_url", "", "env")
    # Before the files of the folder are listed.
    app.connect("builder-inited", mirror, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
