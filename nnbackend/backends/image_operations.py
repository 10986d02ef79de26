"""The operations of the contract on images and normalisation, declared as in :mod:`nnbackend.backends.operations`.

Images are (rows, height, width, channels). Some operations slide a window over an image: element (i, j) of the window
at output position (y, x) lies at ``(y * stride_y + i * dilation_y - top, x * stride_x + j * dilation_x - left)`` of the
image, and is 0 outside of it. The sizes of window and output follow from the arrays, so the padding at the bottom and
on the right need not be given.

A backend may lack these operations; a network that needs one is then refused when its step is recorded.
"""

from __future__ import annotations

from typing import Final

from nnbackend.backends.augmentation_operations import AugmentationOperations
from nnbackend.backends.declaration import Array, Operation, constant, operation, reads, updates, writes
from nnbackend.backends.table_operations import TableOperations
from nnbackend.backends.training_operations import TrainingOperations, lacking

__all__ = ["POOLS", "ImageOperations", "check_implemented", "implements"]

#: How a pool combines the elements of a window: their maximum (the first of equals), their mean without the padding, or
#: the square root of the sum of their squares.
POOLS: Final = ("max", "average", "l2")

_STRIDE_Y = constant("Rows from one window to the next.")
_STRIDE_X = constant("Columns from one window to the next.")
_DILATION_Y = constant("Rows from one element of a window to the next.")
_DILATION_X = constant("Columns from one element of a window to the next.")
_TOP = constant("Rows of padding above the image.")
_LEFT = constant("Columns of padding on the left.")
_IMAGE = ("rows", "height", "width", "channels")
_MAPS = ("rows", "out_height", "out_width", "filters")
_POOLED = ("rows", "out_height", "out_width", "channels")
_KERNEL = ("kernel_height", "kernel_width", "group_channels", "filters")


class ImageOperations(AugmentationOperations, TrainingOperations, TableOperations):
    """Operations on images, normalisation, and others that a backend may lack."""

    # ---- convolution -----------------------------------------------------------------------------------------

    @operation(
        "forward",
        splits=("rows",),
        x=reads(*_IMAGE),
        weight=reads(*_KERNEL),
        bias=reads("filters", optional=True),
        stride_y=_STRIDE_Y,
        stride_x=_STRIDE_X,
        dilation_y=_DILATION_Y,
        dilation_x=_DILATION_X,
        top=_TOP,
        left=_LEFT,
        out=writes(*_MAPS),
    )
    def convolution(
        self,
        x: Array,
        weight: Array,
        bias: Array | None,
        stride_y: int,
        stride_x: int,
        dilation_y: int,
        dilation_x: int,
        top: int,
        left: int,
        out: Array,
    ) -> None:
        """``out[n, y, x, f] = bias[f] + sum over i, j, c of window(n, y, x)[i, j, c] * weight[i, j, c, f]``.

        As in every neural-network library this is a cross-correlation: the kernel is not flipped. If the image has
        ``groups`` times as many channels as the kernel, filters and channels are divided into that many groups of
        equal size, in order, and the filters of a group see its channels only.
        """
        raise lacking(self, "convolution")

    @operation(
        "backward",
        splits=("rows",),
        delta=reads(*_MAPS),
        weight=reads(*_KERNEL),
        stride_y=_STRIDE_Y,
        stride_x=_STRIDE_X,
        dilation_y=_DILATION_Y,
        dilation_x=_DILATION_X,
        top=_TOP,
        left=_LEFT,
        out=writes(*_IMAGE),
    )
    def convolution_input_gradient(
        self,
        delta: Array,
        weight: Array,
        stride_y: int,
        stride_x: int,
        dilation_y: int,
        dilation_x: int,
        top: int,
        left: int,
        out: Array,
    ) -> None:
        """The gradient of a convolution's input: for each window, ``delta[n, y, x, f] * weight[i, j, c, f]`` summed
        over f is added to the elements that the window covers."""
        raise lacking(self, "convolution_input_gradient")

    @operation(
        "backward",
        splits=("parts",),
        x=reads(*_IMAGE),
        delta=reads(*_MAPS),
        stride_y=_STRIDE_Y,
        stride_x=_STRIDE_X,
        dilation_y=_DILATION_Y,
        dilation_x=_DILATION_X,
        top=_TOP,
        left=_LEFT,
        out=writes(*_KERNEL),
    )
    def convolution_weight_gradient(
        self,
        x: Array,
        delta: Array,
        stride_y: int,
        stride_x: int,
        dilation_y: int,
        dilation_x: int,
        top: int,
        left: int,
        out: Array,
    ) -> None:
        """``out[i, j, c, f] = sum over n, y, x of window(n, y, x)[i, j, c] * delta[n, y, x, f]``."""
        raise lacking(self, "convolution_weight_gradient")

    # ---- pooling ---------------------------------------------------------------------------------------------

    @operation(
        "forward",
        splits=("rows",),
        x=reads(*_IMAGE),
        kind=constant("How the elements of a window are combined.", names=POOLS),
        pool_height=constant("Rows of a window."),
        pool_width=constant("Columns of a window."),
        stride_y=_STRIDE_Y,
        stride_x=_STRIDE_X,
        top=_TOP,
        left=_LEFT,
        out=writes(*_POOLED),
    )
    def pool(
        self,
        x: Array,
        kind: str,
        pool_height: int,
        pool_width: int,
        stride_y: int,
        stride_x: int,
        top: int,
        left: int,
        out: Array,
    ) -> None:
        """Combine the elements of each window, channel by channel; padding counts for nothing.

        Every window contains at least one element of the image. A NaN in a window is its result.
        """
        raise lacking(self, "pool")

    @operation(
        "backward",
        splits=("rows",),
        x=reads(*_IMAGE, about="The input of `pool`."),
        pooled=reads(*_POOLED, about="Its output."),
        upstream=reads(*_POOLED),
        kind=constant("As in `pool`.", names=POOLS),
        pool_height=constant("Rows of a window."),
        pool_width=constant("Columns of a window."),
        stride_y=_STRIDE_Y,
        stride_x=_STRIDE_X,
        top=_TOP,
        left=_LEFT,
        out=writes(*_IMAGE),
    )
    def pool_gradient(
        self,
        x: Array,
        pooled: Array,
        upstream: Array,
        kind: str,
        pool_height: int,
        pool_width: int,
        stride_y: int,
        stride_x: int,
        top: int,
        left: int,
        out: Array,
    ) -> None:
        """The gradient of a pool's input.

        ``"max"``: `upstream` goes to the first largest element of its window, row after row. ``"average"``: an equal
        part goes to each element of the image in the window. ``"l2"``: ``upstream * x / pooled``, and 0 where `pooled`
        is 0. The contributions to an element are added in the order of their positions in the windows, from the first.
        """
        raise lacking(self, "pool_gradient")

    # ---- shapes and sums -------------------------------------------------------------------------------------

    @operation(
        "forward",
        splits=("rows",),
        x=reads(*_IMAGE),
        top=constant("Row of `out` for the first row of `x`; negative to leave rows out."),
        left=constant("Column of `out` for the first column of `x`; negative to leave columns out."),
        out=writes("rows", "out_height", "out_width", "channels"),
    )
    def place(self, x: Array, top: int, left: int, out: Array) -> None:
        """Copy images into larger ones that are zero elsewhere, or cut out a part of them."""
        raise lacking(self, "place")

    @operation(
        "forward",
        splits=("rows",),
        a=reads("rows", "features"),
        b=reads("rows", "features"),
        out=writes("rows", "features", alias=("a", "b")),
    )
    def add(self, a: Array, b: Array, out: Array) -> None:
        """``out = a + b``."""
        raise lacking(self, "add")

    # ---- normalisation ---------------------------------------------------------------------------------------

    @operation(
        "forward",
        splits=("parts",),
        x=reads("rows", "features"),
        scale=reads("features", optional=True),
        shift=reads("features", optional=True),
        momentum=constant("Share of the old running statistics, 0 <= momentum <= 1."),
        epsilon=constant("Added to the variance."),
        running_mean=updates("features"),
        running_variance=updates("features"),
        statistics=writes(2, "features", about="Receives the means, and ``1 / sqrt(variance + epsilon)``."),
        out=writes("rows", "features"),
    )
    def batch_norm(
        self,
        x: Array,
        scale: Array | None,
        shift: Array | None,
        momentum: float,
        epsilon: float,
        running_mean: Array,
        running_variance: Array,
        statistics: Array,
        out: Array,
    ) -> None:
        """Normalise each column by its mean and (biased) variance (Ioffe and Szegedy 2015).

        ``out = (x - mean) / sqrt(variance + epsilon) * scale + shift``; the running statistics become ``momentum *
        running + (1 - momentum) * statistic`` of this batch. Sums are in float64.
        """
        raise lacking(self, "batch_norm")

    @operation(
        "backward",
        splits=("parts",),
        x=reads("rows", "features"),
        statistics=reads(2, "features", about="From `batch_norm`."),
        scale=reads("features", optional=True),
        upstream=reads("rows", "features"),
        scale_gradient=writes("features", optional=True),
        shift_gradient=writes("features", optional=True),
        out=writes("rows", "features", alias="upstream"),
    )
    def batch_norm_gradient(
        self,
        x: Array,
        statistics: Array,
        scale: Array | None,
        upstream: Array,
        scale_gradient: Array | None,
        shift_gradient: Array | None,
        out: Array,
    ) -> None:
        """The gradients of :meth:`batch_norm`: with ``y = (x - mean) * inverse``, ``shift_gradient = sum(upstream)``,
        ``scale_gradient = sum(upstream * y)`` and ``out = scale * inverse * (upstream - mean(upstream) - y *
        mean(upstream * y))``, all by column."""
        raise lacking(self, "batch_norm_gradient")

    @operation(
        "forward",
        splits=("rows",),
        x=reads("rows", "features"),
        mean=reads("features", optional=True),
        variance=reads("features"),
        scale=reads("features", optional=True),
        shift=reads("features", optional=True),
        epsilon=constant("Added to the variance."),
        out=writes("rows", "features", alias="x"),
    )
    def normalize(
        self,
        x: Array,
        mean: Array | None,
        variance: Array,
        scale: Array | None,
        shift: Array | None,
        epsilon: float,
        out: Array,
    ) -> None:
        """``out = (x - mean) / sqrt(variance + epsilon) * scale + shift`` with given statistics."""
        raise lacking(self, "normalize")

    @operation(
        "forward",
        splits=("rows",),
        x=reads("rows", "features"),
        scale=reads("features", optional=True),
        shift=reads("features", optional=True),
        epsilon=constant("Added to the variance."),
        statistics=writes("rows", 2, about="Receives each row's mean, and ``1 / sqrt(variance + epsilon)``."),
        out=writes("rows", "features"),
    )
    def layer_norm(
        self, x: Array, scale: Array | None, shift: Array | None, epsilon: float, statistics: Array, out: Array
    ) -> None:
        """Normalise each row by its mean and variance (Ba et al. 2016): ``out = (x - mean) / sqrt(variance +
        epsilon) * scale + shift``. Sums are in float64."""
        raise lacking(self, "layer_norm")

    @operation(
        "backward",
        splits=("rows",),
        x=reads("rows", "features"),
        statistics=reads("rows", 2, about="From `layer_norm`."),
        scale=reads("features", optional=True),
        upstream=reads("rows", "features"),
        out=writes("rows", "features", alias="upstream"),
    )
    def layer_norm_gradient(
        self, x: Array, statistics: Array, scale: Array | None, upstream: Array, out: Array
    ) -> None:
        """The gradient of the input of :meth:`layer_norm`: with ``y = (x - mean) * inverse`` and ``g = upstream *
        scale``, ``out = inverse * (g - mean(g) - y * mean(g * y))``, all by row."""
        raise lacking(self, "layer_norm_gradient")

    @operation(
        "backward",
        splits=("parts",),
        x=reads("rows", "features"),
        statistics=reads("rows", 2, about="From `layer_norm`."),
        upstream=reads("rows", "features"),
        scale_gradient=writes("features"),
    )
    def layer_norm_scale_gradient(self, x: Array, statistics: Array, upstream: Array, scale_gradient: Array) -> None:
        """``scale_gradient = sum of upstream * (x - mean) * inverse over rows``, in float64."""
        raise lacking(self, "layer_norm_scale_gradient")


def check_implemented(backend: ImageOperations, declared: Operation) -> None:
    """Refuse an operation that a backend lacks, before a step is recorded with it.

    Raises
    ------
    MissingOperationError
    """
    if not implements(backend, declared):
        raise lacking(backend, declared.name)


def implements(backend: ImageOperations, declared: Operation) -> bool:
    """Whether a backend has an operation; only those of this class may be missing."""
    default = getattr(ImageOperations, declared.name, None)
    return default is None or getattr(type(backend), declared.name, None) is not default
