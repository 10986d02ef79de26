"""The figure class of all plots. Importing this module imports matplotlib."""

from __future__ import annotations

import io
from typing import Any

from matplotlib.figure import Figure

__all__ = ["Picture"]

#: 1.5 times the resolution of a browser, so that lines are sharp on high-resolution screens.
_DPI = 144
_CSS_DPI = 96


class Picture(Figure):
    """A figure that a notebook displays without pyplot."""

    def _repr_png_(self) -> tuple[bytes, dict[str, Any]]:
        """The figure as a PNG file, and its display size."""
        stream = io.BytesIO()
        self.savefig(stream, format="png", dpi=_DPI)
        width, height = (round(_CSS_DPI * inches) for inches in self.get_size_inches())
        return stream.getvalue(), {"width": width, "height": height}
