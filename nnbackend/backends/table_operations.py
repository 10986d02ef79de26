"""The operations of the contract for layers on tables, declared as in :mod:`nnbackend.backends.operations`.

A backend may lack these operations; a network that needs one is then refused when its step is recorded.
"""

from __future__ import annotations

from nnbackend.backends.declaration import Array, operation, reads, writes
from nnbackend.backends.training_operations import lacking

__all__ = ["TableOperations"]


class TableOperations:
    """Learned factors of features."""

    @operation(
        "forward",
        splits=("rows",),
        x=reads("rows", "features"),
        scale=reads("features"),
        out=writes("rows", "features", alias="x"),
    )
    def scale_columns(self, x: Array, scale: Array, out: Array) -> None:
        """``out = x * scale``, column by column."""
        raise lacking(self, "scale_columns")

    @operation(
        "backward",
        splits=("parts",),
        x=reads("rows", "features"),
        upstream=reads("rows", "features"),
        scale_gradient=writes("features"),
    )
    def scale_columns_gradient(self, x: Array, upstream: Array, scale_gradient: Array) -> None:
        """``scale_gradient = sum of upstream * x over rows``, in float64."""
        raise lacking(self, "scale_columns_gradient")
