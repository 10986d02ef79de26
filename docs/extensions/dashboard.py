"""Include asv's dashboard in the site, under ``asv/``, if ``asv publish`` has made one.

Pages distinguish the two cases with ``only``: the tag `asv` is set if there is a dashboard.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx


def published(app: Sphinx) -> Path | None:
    """The folder that `asv publish` writes, or None if it does not exist."""
    folder = Path(app.srcdir).parent / ".asv" / "html"
    return folder if (folder / "index.html").exists() else None


def copy(app: Sphinx, error: Exception | None) -> None:
    """Copy the dashboard into a successfully built site."""
    folder = published(app)
    if error is None and app.builder.format == "html" and folder is not None:
        shutil.copytree(folder, Path(app.outdir) / "asv", dirs_exist_ok=True)


def setup(app: Sphinx) -> dict[str, bool]:
    if published(app) is not None:
        app.tags.add("asv")
    app.connect("build-finished", copy)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
