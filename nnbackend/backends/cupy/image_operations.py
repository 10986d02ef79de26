"""The operations on images, and normalisation, on a GPU: each as kernel launches."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnbackend.backends.contract import Array
from nnbackend.backends.cupy import launches
from nnbackend.backends.cupy.augmentation import CupyAugmentation
from nnbackend.backends.cupy.launches import Launch
from nnbackend.backends.cupy.layout import extents, stride
from nnbackend.backends.cupy.tables import CupyTables
from nnbackend.backends.cupy.training import CupyTraining
from nnbackend.backends.image_operations import ImageOperations

__all__ = ["CupyImageOperations"]

_DOUBLE = np.dtype(np.float64)

#: Groups of at most this many filters (or channels, for the gradient of the input) would leave most of a tile unused.
_NARROW = 8


class CupyImageOperations(CupyAugmentation, CupyTraining, CupyTables, ImageOperations):
    """Products without a copy of the windows, and one thread for each element elsewhere."""

    # ---- convolution ---------------------------------------------------------------------------------------

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
        self._convolve(x, weight, bias, (stride_y, stride_x, dilation_y, dilation_x, top, left), out, False)

    def convolution_and_relu(
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
        """`convolution`, then ReLU of its result, in one launch."""
        self._convolve(x, weight, bias, (stride_y, stride_x, dilation_y, dilation_x, top, left), out, True)

    def _convolve(
        self, x: Array, weight: Array, bias: Array | None, steps: tuple[int, ...], out: Array, rectifies: bool
    ) -> None:
        groups, filters = _groups(x, weight)
        kernel, launch = _tiles("convolution", out.size // out.shape[3], filters, groups, out.size)
        geometry = _geometry(x, weight, out, steps)
        self._launch(kernel, out.dtype, launch, *geometry, x, weight, bias, out, int(rectifies))

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
        steps = (stride_y, stride_x, dilation_y, dilation_x, top, left)
        groups, _ = _groups(out, weight)
        positions = out.size // out.shape[3]
        kernel, launch = _tiles("convolution_input_gradient", positions, weight.shape[2], groups, out.size)
        self._launch(kernel, out.dtype, launch, *_geometry(out, weight, delta, steps), delta, weight, out)

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
        self.convolution_gradients(x, delta, stride_y, stride_x, dilation_y, dilation_x, top, left, out, None)

    def convolution_weight_step(
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
        """`convolution_weight_gradient`, added to `out`; see :mod:`nnbackend.backends.cupy.plain_sgd`."""
        self.convolution_gradients(x, delta, stride_y, stride_x, dilation_y, dilation_x, top, left, out, None, True)

    def convolution_gradients(
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
        sums: Array | None,
        adds: bool = False,
    ) -> None:
        """`convolution_weight_gradient`, and `bias_gradient` of `delta` if `sums` is given.

        With `adds`, the gradient of the weight is added to `out`.
        """
        groups, filters = _groups(x, out)
        positions, rows = delta.size // delta.shape[3], out.size // out.shape[3] + (sums is not None)
        kernel, launch = _tiles("convolution_weight_gradient", rows, filters, groups, rows * delta.shape[3])
        most = launches.MOST_PLANES // groups if len(launch.grid) == 3 else launches.MOST_PLANES
        chunks, length = launches.chunks_of_product(launch.blocks, positions, most)
        first, *others = launch.grid
        grid = (first, others[0], groups * chunks) if others else (first, chunks)
        partial = None
        if chunks > 1:
            partial = self._temporary(chunks * rows * delta.shape[3], out.dtype)
        steps = (stride_y, stride_x, dilation_y, dilation_x, top, left)
        self._launch(
            kernel,
            out.dtype,
            Launch(grid, launch.block),
            *_geometry(x, out, delta, steps), x, delta, chunks, length, partial, out, sums, int(adds),
        )  # fmt: skip
        if chunks > 1:
            self._launch(
                "convolution.add_chunks",
                out.dtype,
                launches.elements(rows * delta.shape[3]),
                partial, chunks, out.size // out.shape[3], delta.shape[3], out, stride(out), sums, int(adds),
            )  # fmt: skip

    # ---- pooling -------------------------------------------------------------------------------------------

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
        window = (*x.shape, *out.shape[1:3], pool_height, pool_width, stride_y, stride_x, top, left)
        self._launch(f"images.{kind}_pool", out.dtype, launches.elements(out.size), *map(int, window), x, out)

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
        self._pool_gradient(
            x, pooled, upstream, kind, (pool_height, pool_width, stride_y, stride_x, top, left), out, False
        )

    def pool_and_relu_gradient(
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
        """`pool_gradient`, then the gradient of ReLU, whose output is `x`, in one launch."""
        self._pool_gradient(
            x, pooled, upstream, kind, (pool_height, pool_width, stride_y, stride_x, top, left), out, True
        )

    def _pool_gradient(
        self, x: Array, pooled: Array, upstream: Array, kind: str, window: tuple[int, ...], out: Array, rectified: bool
    ) -> None:
        self._launch(
            f"images.{kind}_pool_gradient",
            out.dtype,
            launches.elements(out.size),
            *map(int, (*x.shape, *pooled.shape[1:3], *window)), x, pooled, upstream, out, int(rectified),
        )  # fmt: skip

    # ---- shapes and sums -----------------------------------------------------------------------------------

    def place(self, x: Array, top: int, left: int, out: Array) -> None:
        self._launch(
            "images.place",
            out.dtype,
            launches.elements(out.size),
            x, *x.shape, int(top), int(left), out, *out.shape[1:3],
        )  # fmt: skip

    def add(self, a: Array, b: Array, out: Array) -> None:
        rows, columns = extents(out)
        self._launch(
            "images.add",
            out.dtype,
            launches.matrix(rows, columns),
            a, stride(a), b, stride(b), out, stride(out), rows, columns,
        )  # fmt: skip

    # ---- normalisation -------------------------------------------------------------------------------------

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
        rows, columns = extents(x)
        sums, squares, chunks, length = self._chunk_sums(rows, columns)
        self._sum_columns("batch_norm.batch_statistics", x, length, x, stride(x), rows, columns, length, sums, squares)
        self._sum_columns(
            "batch_norm.finish_statistics",
            x,
            rows,
            sums, squares, rows, columns, chunks, length, float(momentum), float(epsilon),
            running_mean, running_variance, statistics, stride(statistics),
        )  # fmt: skip
        self._launch(
            "batch_norm.batch_norm",
            out.dtype,
            launches.matrix(rows, columns),
            x, stride(x), statistics, stride(statistics), scale, shift, out, stride(out), rows, columns,
        )  # fmt: skip

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
        rows, columns = extents(x)
        places = (0, 1, stride(statistics))
        sums, products = self._gradient_sums(x, statistics, places, upstream, scale_gradient, shift_gradient)
        self._launch(
            "batch_norm.batch_norm_gradient",
            out.dtype,
            launches.matrix(rows, columns),
            x, stride(x), statistics, stride(statistics), scale, upstream, stride(upstream), sums, products,
            out, stride(out), rows, columns,
        )  # fmt: skip

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
        rows, columns = extents(x)
        self._launch(
            "batch_norm.normalize",
            out.dtype,
            launches.matrix(rows, columns),
            x, stride(x), mean, variance, scale, shift, float(epsilon), out, stride(out), rows, columns,
        )  # fmt: skip

    def layer_norm(
        self, x: Array, scale: Array | None, shift: Array | None, epsilon: float, statistics: Array, out: Array
    ) -> None:
        rows, columns = extents(x)
        self._launch(
            "layer_norm.layer_norm",
            out.dtype,
            launches.warp_rows(rows),
            x, stride(x), scale, shift, float(epsilon), statistics, stride(statistics), out, stride(out), rows, columns,
        )  # fmt: skip

    def layer_norm_gradient(
        self, x: Array, statistics: Array, scale: Array | None, upstream: Array, out: Array
    ) -> None:
        rows, columns = extents(x)
        self._launch(
            "layer_norm.layer_norm_gradient",
            out.dtype,
            launches.warp_rows(rows),
            x, stride(x), statistics, stride(statistics), scale, upstream, stride(upstream), out, stride(out),
            rows, columns,
        )  # fmt: skip

    def layer_norm_scale_gradient(self, x: Array, statistics: Array, upstream: Array, scale_gradient: Array) -> None:
        self.layer_norm_parameter_gradients(x, statistics, upstream, scale_gradient, None)

    def layer_norm_parameter_gradients(
        self, x: Array, statistics: Array, upstream: Array, scale_gradient: Array, shift_gradient: Array | None
    ) -> None:
        """`layer_norm_scale_gradient`, and `bias_gradient` of `upstream` if `shift_gradient` is given."""
        places = (stride(statistics), 0, 1)
        self._gradient_sums(x, statistics, places, upstream, scale_gradient, shift_gradient)

    def scale_columns(self, x: Array, scale: Array, out: Array) -> None:
        rows, columns = extents(x)
        self._launch(
            "batch_norm.scale_columns",
            out.dtype,
            launches.matrix(rows, columns),
            x, stride(x), scale, out, stride(out), rows, columns,
        )  # fmt: skip

    def scale_columns_gradient(self, x: Array, upstream: Array, scale_gradient: Array) -> None:
        self._gradient_sums(x, None, (0, 0, 0), upstream, scale_gradient, None)

    def _gradient_sums(
        self,
        x: Array,
        statistics: Array | None,
        places: tuple[int, int, int],
        upstream: Array,
        scale_gradient: Array | None,
        shift_gradient: Array | None,
    ) -> tuple[Array, Array]:
        """The sums of `upstream`, and of its products with the normalised input, by column.

        Without `statistics`, the input is not normalised. `places` describes them: elements from one row to the next,
        from one column to the next, and from the mean to the inverse.
        """
        rows, columns = extents(x)
        sums, products, chunks, length = self._chunk_sums(rows, columns)
        self._sum_columns(
            "batch_norm.gradient_sums",
            x,
            length,
            x, stride(x), statistics, *places, upstream, stride(upstream), rows, columns, length, sums, products,
        )  # fmt: skip
        self._sum_columns(
            "batch_norm.finish_gradient_sums",
            x,
            rows,
            sums, products, columns, chunks, scale_gradient, shift_gradient,
        )  # fmt: skip
        return sums, products

    def _chunk_sums(self, rows: int, columns: int) -> tuple[Array, Array, int, int]:
        """Memory for two sums of each column and chunk, the number of chunks, and the rows of a chunk."""
        length = launches.chunk_rows(rows)
        chunks = -(-rows // length)
        memory = self._temporary(2 * chunks * columns, _DOUBLE)
        return memory[: chunks * columns], memory[chunks * columns :], chunks, length

    def _sum_columns(self, kernel: str, x: Array, rows_of_chunk: int, *arguments: Any) -> None:
        """Launch a kernel that adds up the columns of `x` in double."""
        launch = launches.column_sums(*extents(x), rows_of_chunk)
        self._launch(kernel, x.dtype, launch, *arguments, shared_bytes=launch.threads * _DOUBLE.itemsize)


def _groups(images: Array, weight: Array) -> tuple[int, int]:
    """The number of groups, and the filters of each."""
    groups = images.shape[3] // weight.shape[2]
    return groups, weight.shape[3] // groups


def _tiles(operation: str, rows: int, columns: int, groups: int, size: int) -> tuple[str, Launch]:
    """The kernel for products of this shape, one for each group, and its launch; `size` is that of the result."""
    if columns <= _NARROW:
        return f"convolution.{operation}_narrow", launches.elements(size)
    width = next((width for width in launches.TILE_COLUMNS if columns <= width), launches.TILE_COLUMNS[-1])
    return f"convolution.{operation}_{width}", launches.product_tiles(rows, columns, width, groups)


def _geometry(images: Array, weight: Array, maps: Array, steps: tuple[int, ...]) -> tuple[int, ...]:
    """The kernels' parameters that describe a convolution."""
    sizes = (*images.shape, *maps.shape[1:3], maps.shape[3], *weight.shape[:3])
    return (*(int(size) for size in sizes), *(int(step) for step in steps), stride(weight))
