"""Escape stars in shapes such as ``x : (n, *input_shape) array_like``, which would start emphasis in docstrings."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

_STAR = re.compile(r"(?<=, )\*(?=\w)")


def escape(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Escape stars, except in lines with code, where they have no special meaning."""
    lines[:] = [line if "`" in line else _STAR.sub(r"\\*", line) for line in lines]


def setup(app: Sphinx) -> dict[str, bool]:
    # Before numpydoc turns sections into fields.
    app.connect("autodoc-process-docstring", escape, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
