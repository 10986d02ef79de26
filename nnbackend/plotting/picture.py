"""The figure that all pictures are drawn on. Importing this imports matplotlib."""

from __future__ import annotations

import io
from typing import Any

from matplotlib.figure import Figure

__all__ = ["Picture"]

#: Half as many again as a browser has to an inch, so that lines stay sharp on a dense screen.
_DPI = 144
_CSS_DPI = 96


class Picture(Figure):
    """A figure that a notebook shows, also where pyplot, which teaches notebooks how to, was never imported."""

    def _repr_png_(self) -> tuple[bytes, dict[str, Any]]:
        """The picture as a PNG file, and the size in which to show it."""
        stream = io.BytesIO()
        self.savefig(stream, format="png", dpi=_DPI)
        width, height = (round(_CSS_DPI * inches) for inches in self.get_size_inches())
        return stream.getvalue(), {"width": width, "height": height}
