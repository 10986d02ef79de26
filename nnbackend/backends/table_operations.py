"""The operations of the contract for layers on tables, declared as in :mod:`nnbackend.backends.operations`.

A backend may lack these operations; a network that needs one is then refused when its step is recorded.
"""

from __future__ import annotations

from nnbackend.backends.declaration import Array, operation, reads, writes
from nnbackend.backends.training_operations import lacking

__all__ = ["TableOperations"]


_ABOUT_VECTORS = "A vector for each category of each of the last columns of x."
_ABOUT_OUTPUTS = "embedded (1 + units) + (features - embedded) columns."


class TableOperations:
    """Learned factors of features, mixes of activations, and embeddings of categories and numbers."""

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

    @operation(
        "forward",
        splits=("rows",),
        x=reads("rows", "features"),
        activated=reads("rows", "features"),
        share=reads("features"),
        out=writes("rows", "features", alias=("x", "activated")),
    )
    def mix_columns(self, x: Array, activated: Array, share: Array, out: Array) -> None:
        """``out = x + share * (activated - x)``, column by column."""
        raise lacking(self, "mix_columns")

    @operation(
        "backward",
        splits=("parts",),
        x=reads("rows", "features"),
        activated=reads("rows", "features"),
        upstream=reads("rows", "features"),
        share_gradient=writes("features"),
    )
    def mix_columns_gradient(self, x: Array, activated: Array, upstream: Array, share_gradient: Array) -> None:
        """``share_gradient = sum of upstream * (activated - x) over rows``, in float64."""
        raise lacking(self, "mix_columns_gradient")

    @operation(
        "forward",
        splits=("rows",),
        x=reads("rows", "features"),
        vectors=reads("embedded", "categories", "units", about=_ABOUT_VECTORS),
        out=writes("rows", "outputs", about="(features - embedded) + embedded units columns."),
    )
    def embed_columns(self, x: Array, vectors: Array, out: Array) -> None:
        """Replace the last columns by the vectors of their categories.

        The first columns of `out` are those of `x`. The others are ``vectors[j, c]`` for each embedded column j, where
        c is its number without the fraction; zeros if the number is negative, NaN, or `categories` and more.
        """
        raise lacking(self, "embed_columns")

    @operation(
        "backward",
        splits=("parts",),
        x=reads("rows", "features"),
        upstream=reads("rows", "outputs"),
        vectors_gradient=writes("embedded", "categories", "units"),
    )
    def embed_columns_gradient(self, x: Array, upstream: Array, vectors_gradient: Array) -> None:
        """The sum of `upstream` over the rows with each category, in float64 and in the order of the rows."""
        raise lacking(self, "embed_columns_gradient")

    @operation(
        "forward",
        splits=("rows",),
        x=reads("rows", "features"),
        frequencies=reads("embedded", "waves"),
        phases=reads("embedded", "waves"),
        weight=reads("embedded", "waves", "units"),
        bias=reads("embedded", "units"),
        cosines=writes("rows", "terms", optional=True, about="For the gradients: embedded waves columns."),
        sines=writes("rows", "terms", optional=True, about="As `cosines`."),
        out=writes("rows", "outputs", about=_ABOUT_OUTPUTS),
    )
    def periodic_columns(
        self,
        x: Array,
        frequencies: Array,
        phases: Array,
        weight: Array,
        bias: Array,
        cosines: Array | None,
        sines: Array | None,
        out: Array,
    ) -> None:
        """Periodic embeddings of the first columns; the others follow unchanged.

        Column j becomes ``x_j, bias_j + sum over k of weight_jk cos(2 pi frequencies_jk x_j + phases_jk)``, where the
        second part has `units` numbers.

        Sources: Gorishniy et al. 2022 (periodic embeddings), Holzmueller et al. 2024 (with biases and x itself).
        """
        raise lacking(self, "periodic_columns")

    @operation(
        "backward",
        splits=("parts",),
        x=reads("rows", "features"),
        cosines=reads("rows", "terms"),
        sines=reads("rows", "terms"),
        upstream=reads("rows", "outputs", about=_ABOUT_OUTPUTS),
        weight=reads("embedded", "waves", "units"),
        frequencies_gradient=writes("embedded", "waves"),
        phases_gradient=writes("embedded", "waves"),
        weight_gradient=writes("embedded", "waves", "units"),
        bias_gradient=writes("embedded", "units"),
    )
    def periodic_columns_gradient(
        self,
        x: Array,
        cosines: Array,
        sines: Array,
        upstream: Array,
        weight: Array,
        frequencies_gradient: Array,
        phases_gradient: Array,
        weight_gradient: Array,
        bias_gradient: Array,
    ) -> None:
        """The gradients of the parameters of `periodic_columns`, with what it saved.

        With u the part of `upstream` for column j without its first number, and ``g = -sin * (weight_j @ u)``, they are
        the sums over rows of ``2 pi x_j g``, ``g``, ``cos * u`` and ``u``.
        """
        raise lacking(self, "periodic_columns_gradient")

    @operation(
        "backward",
        splits=("rows",),
        sines=reads("rows", "terms"),
        upstream=reads("rows", "outputs", about=_ABOUT_OUTPUTS),
        frequencies=reads("embedded", "waves"),
        weight=reads("embedded", "waves", "units"),
        out=writes("rows", "features"),
    )
    def periodic_columns_input_gradient(
        self, sines: Array, upstream: Array, frequencies: Array, weight: Array, out: Array
    ) -> None:
        """The gradient of the input of `periodic_columns`.

        It is ``upstream_j0 + 2 pi sum over k of frequencies_jk g_jk`` with the g of `periodic_columns_gradient`, and
        `upstream` itself for the columns that were not embedded.
        """
        raise lacking(self, "periodic_columns_input_gradient")
