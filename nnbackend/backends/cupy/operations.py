"""The operations of the contract on a GPU: each as kernel launches and cuBLAS products."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnbackend.backends.contract import Array, Backend
from nnbackend.backends.cupy import launches
from nnbackend.backends.cupy.image_operations import CupyImageOperations
from nnbackend.backends.cupy.interface import NULL, Epilogue, Product, Runtime
from nnbackend.backends.cupy.kernels import KernelLibrary
from nnbackend.backends.cupy.launches import Launch
from nnbackend.backends.cupy.layout import extents, operands, stride
from nnbackend.backends.philox import keep_threshold

__all__ = ["CupyOperations"]

_DOUBLE = np.dtype(np.float64)
_SINGLE = np.dtype(np.float32)
_PENALTY_BLOCKS = 256


class CupyOperations(CupyImageOperations, Backend):
    """The operations of the CuPy backend; :class:`~nnbackend.backends.cupy.backend.CupyBackend` adds memory and
    executors.

    Attributes
    ----------
    runtime : Runtime
    """

    runtime: Runtime
    _kernels: KernelLibrary
    #: Memory for partial sums, by type and size.
    _scratch: dict[tuple[str, int], Array]

    # ---- batch ---------------------------------------------------------------------------------------------

    def gather(self, source: Array, order: Array, counter: Array, batch_size: int, scale: float, out: Array) -> None:
        rows, columns = extents(out)
        launch = launches.matrix(rows, columns)
        place = (source, stride(source), order, counter, int(batch_size))
        target = (out, stride(out), rows, columns)
        if out.dtype.kind != "f":
            self._launch("batch.gather_labels", _SINGLE, launch, *place, *target)
        elif source.dtype == np.uint8:
            self._launch("batch.gather_bytes", out.dtype, launch, *place, float(scale), *target)
        else:
            self._launch("batch.gather_reals", out.dtype, launch, *place, float(scale), *target)

    def gather_with_labels(
        self,
        source: Array,
        order: Array,
        counter: Array,
        batch_size: int,
        scale: float,
        out: Array,
        labels: Array,
        labels_out: Array,
    ) -> None:
        """`gather` of rows and of their labels in one launch."""
        rows, columns = extents(out)
        kind = "bytes" if source.dtype == np.uint8 else "reals"
        self._launch(
            f"batch.gather_{kind}_and_labels",
            out.dtype,
            launches.matrix(rows, columns),
            source, stride(source), order, counter, int(batch_size), float(scale), out, stride(out), rows, columns,
            labels, labels_out,
        )  # fmt: skip

    def advance(self, counter: Array) -> None:
        self._launch("batch.advance", _SINGLE, Launch((1,), counter.shape), counter)

    # ---- forward -------------------------------------------------------------------------------------------

    def dense_forward(
        self,
        x: Array,
        weight: Array,
        bias: Array | None,
        activation: str,
        alpha: float,
        preactivation: Array | None,
        out: Array,
    ) -> None:
        self._product(False, False, x, weight, out)
        if activation == "softmax":
            self._softmax(out, bias, out)
        elif bias is not None or activation != "identity" or preactivation is not None:
            self._activate(out, bias, activation, alpha, preactivation, out)

    def activation_forward(self, z: Array, activation: str, alpha: float, out: Array) -> None:
        if activation == "softmax":
            self._softmax(z, None, out)
        else:
            self._activate(z, None, activation, alpha, None, out)

    def _activate(
        self, z: Array, bias: Array | None, activation: str, alpha: float, preactivation: Array | None, out: Array
    ) -> None:
        rows, columns = extents(out)
        preactivation_stride = 0 if preactivation is None else stride(preactivation)
        self._launch(
            f"activations.{activation}_forward",
            out.dtype,
            launches.matrix(rows, columns),
            z, stride(z), bias, preactivation, preactivation_stride, out, stride(out), rows, columns, float(alpha),
        )  # fmt: skip

    def _softmax(self, z: Array, bias: Array | None, out: Array) -> None:
        rows, columns = extents(out)
        self._launch(
            "activations.softmax_forward",
            out.dtype,
            launches.warp_rows(rows),
            z, stride(z), bias, out, stride(out), rows, columns,
        )  # fmt: skip

    def dropout(
        self, x: Array, rate: float, seed: int, stream: int, counter: Array, out: Array, first_row: int = 0
    ) -> None:
        rows, columns = extents(out)
        self._launch(
            "dropout.dropout",
            out.dtype,
            launches.elements(-(-rows * columns // 4) + (first_row > 0)),
            x, stride(x), out, stride(out), int(first_row), rows, columns,
            int(seed), int(stream), counter, keep_threshold(rate), 1.0 / (1.0 - float(rate)),
        )  # fmt: skip

    def max_abs_norm(self, x: Array, out: Array) -> None:
        rows, columns = extents(out)
        self._launch(
            "normalization.max_abs_norm",
            out.dtype,
            launches.warp_rows(rows),
            x, stride(x), out, stride(out), rows, columns,
        )  # fmt: skip

    # ---- loss ----------------------------------------------------------------------------------------------

    def softmax_cross_entropy(
        self, logits: Array, targets: Array, weights: Array | None, gradient: Array, row_losses: Array
    ) -> None:
        self.loss_step("softmax_cross_entropy", logits, targets, weights, gradient, row_losses)

    def sigmoid_cross_entropy(
        self, logits: Array, targets: Array, weights: Array | None, gradient: Array, row_losses: Array
    ) -> None:
        self.loss_step("sigmoid_cross_entropy", logits, targets, weights, gradient, row_losses)

    def mean_squared_error(
        self, outputs: Array, targets: Array, weights: Array | None, gradient: Array, row_losses: Array
    ) -> None:
        self.loss_step("mean_squared_error", outputs, targets, weights, gradient, row_losses)

    def loss_step(
        self,
        loss: str,
        outputs: Array,
        targets: Array,
        weights: Array | None,
        gradient: Array,
        row_losses: Array,
        rates: Array | None = None,
        counter: Array | None = None,
    ) -> None:
        """The operation called `loss`. With `rates`, its gradient is multiplied by minus the step's learning rate."""
        n, columns = extents(outputs)
        wanted: tuple[Array, ...] = (targets, stride(targets))
        if loss == "softmax_cross_entropy":
            # Labels have one number per row.
            wanted, loss = (wanted, f"{loss}_targets") if targets.ndim == 2 else ((targets,), f"{loss}_labels")
        self._launch(
            f"losses.{loss}",
            outputs.dtype,
            launches.warp_rows(n),
            outputs, stride(outputs), *wanted, weights, gradient, stride(gradient),
            row_losses, stride(row_losses), n, columns, rates, counter,
        )  # fmt: skip

    def record_loss(self, row_losses: Array, penalties: Array | None, counter: Array, trace: Array) -> None:
        self.finish_step(row_losses, penalties, counter, trace)

    def finish_step(
        self,
        row_losses: Array,
        penalties: Array | None,
        counter: Array,
        trace: Array,
        advanced: Array | None = None,
        parameters: Array | None = None,
        steps: Array | None = None,
        ranges: Array | None = None,
    ) -> None:
        """`record_loss`; then `advance`, if `advanced` is the counter; and ``parameters += steps`` in the given
        `ranges`.

        Parameters
        ----------
        parameters, steps : (size,) real, or None
        ranges : (n, 2) int64, or None
            Offset and length of each range.
        """
        launch = launches.ONE_BLOCK
        self._launch(
            "reductions.record_loss",
            row_losses.dtype,
            launch,
            row_losses, stride(row_losses), row_losses.shape[1],
            penalties, 0 if penalties is None else penalties.shape[0],
            counter, trace, stride(trace), advanced, counter.shape[0],
            parameters, steps, ranges, 0 if ranges is None else ranges.shape[0],
            shared_bytes=launch.threads * _DOUBLE.itemsize,
        )  # fmt: skip

    # ---- backward ------------------------------------------------------------------------------------------

    def activation_gradient(self, saved: Array, activation: str, alpha: float, upstream: Array, out: Array) -> None:
        rows, columns = extents(out)
        strides = (saved, stride(saved), upstream, stride(upstream), out, stride(out), rows, columns)
        if activation == "softmax":
            self._launch("activations.softmax_gradient", out.dtype, launches.warp_rows(rows), *strides)
        elif activation != "identity" or out is not upstream:
            launch = launches.matrix(rows, columns)
            self._launch(f"activations.{activation}_gradient", out.dtype, launch, *strides, float(alpha))

    def activation_and_bias_gradient(
        self, saved: Array, activation: str, alpha: float, upstream: Array, out: Array, sums: Array
    ) -> None:
        """`activation_gradient`, then `bias_gradient` of its result; a single launch for batches of typical sizes."""
        rows, columns = extents(out)
        if activation == "softmax" or rows > launches.chunk_rows(rows):
            self.activation_gradient(saved, activation, alpha, upstream, out)
            self.bias_gradient(out, sums)
            return
        launch = launches.column_sums(rows, columns, rows)
        self._launch(
            f"activations.{activation}_gradient_with_sums",
            out.dtype,
            launch,
            saved, stride(saved), upstream, stride(upstream), out, stride(out), rows, columns, float(alpha), sums,
            shared_bytes=launch.threads * out.dtype.itemsize,
        )  # fmt: skip

    def max_abs_norm_gradient(self, x: Array, upstream: Array, out: Array) -> None:
        rows, columns = extents(out)
        self._launch(
            "normalization.max_abs_norm_gradient",
            out.dtype,
            launches.warp_rows(rows),
            x, stride(x), upstream, stride(upstream), out, stride(out), rows, columns,
        )  # fmt: skip

    def dense_input_gradient(self, delta: Array, weight: Array, out: Array) -> None:
        self._product(False, True, delta, weight, out)

    def dense_weight_gradient(self, x: Array, delta: Array, out: Array) -> None:
        self._product(True, False, x, delta, out)

    def dense_weight_step(self, x: Array, delta: Array, out: Array) -> None:
        """``out += x.T @ delta``; see :mod:`nnbackend.backends.cupy.plain_sgd`."""
        self.runtime.gemm(operands(True, False, x, delta, out, adds=True))

    def bias_gradient(self, delta: Array, out: Array) -> None:
        rows, columns = extents(delta)
        chunk = launches.chunk_rows(rows)
        if rows <= chunk:
            self._sum_rows(delta, chunk, out)
            return
        chunks = -(-rows // chunk)
        partial = self._temporary(chunks * columns, delta.dtype).reshape(chunks, columns)
        self._sum_rows(delta, chunk, partial)
        self._sum_rows(partial, chunks, out)

    def _sum_rows(self, matrix: Array, chunk: int, out: Array) -> None:
        rows, columns = extents(matrix)
        launch = launches.column_sums(rows, columns, chunk)
        self._launch(
            "reductions.sum_rows",
            matrix.dtype,
            launch,
            matrix, stride(matrix), rows, columns, chunk, out,
            shared_bytes=launch.threads * matrix.dtype.itemsize,
        )  # fmt: skip

    def weight_penalty(self, weight: Array, l1: float, l2: float, gradient: Array, penalties: Array, slot: int) -> None:
        rows, columns = extents(weight)
        launch = launches.matrix(rows, columns, max_blocks=_PENALTY_BLOCKS)
        partial = self._temporary(launch.blocks, _DOUBLE)
        self._launch(
            "reductions.weight_penalty",
            weight.dtype,
            launch,
            weight, stride(weight), gradient, stride(gradient), rows, columns, float(l1), float(l2), partial,
            shared_bytes=launch.threads * _DOUBLE.itemsize,
        )  # fmt: skip
        total = launches.ONE_BLOCK
        self._launch(
            "reductions.total_penalty",
            weight.dtype,
            total,
            partial, launch.blocks, penalties, int(slot),
            shared_bytes=total.threads * _DOUBLE.itemsize,
        )  # fmt: skip

    # ---- update --------------------------------------------------------------------------------------------

    def sgd_update(
        self,
        parameters: Array,
        gradients: Array,
        velocity: Array | None,
        counter: Array,
        learning_rates: Array,
        momentum: float,
        nesterov: bool,
        weight_decay: float,
        momenta: Array | None = None,
    ) -> None:
        size = parameters.shape[0]
        self._launch(
            "updates.sgd",
            parameters.dtype,
            launches.elements(size),
            parameters, gradients, velocity, size,
            counter, learning_rates, float(momentum), int(nesterov), float(weight_decay), momenta,
        )  # fmt: skip

    def adam_update(
        self,
        parameters: Array,
        gradients: Array,
        first: Array,
        second: Array,
        counter: Array,
        learning_rates: Array,
        beta1: float,
        beta2: float,
        epsilon: float,
        weight_decay: float,
        decoupled: bool,
        momenta: Array | None = None,
    ) -> None:
        size = parameters.shape[0]
        self._launch(
            "updates.adam",
            parameters.dtype,
            launches.elements(size),
            parameters, gradients, first, second, size,
            counter, learning_rates, float(beta1), float(beta2), float(epsilon), float(weight_decay), int(decoupled),
            momenta,
        )  # fmt: skip

    def rmsprop_update(
        self,
        parameters: Array,
        gradients: Array,
        square: Array,
        counter: Array,
        learning_rates: Array,
        decay: float,
        epsilon: float,
        weight_decay: float,
    ) -> None:
        size = parameters.shape[0]
        self._launch(
            "updates.rmsprop",
            parameters.dtype,
            launches.elements(size),
            parameters, gradients, square, size,
            counter, learning_rates, float(decay), float(epsilon), float(weight_decay),
        )  # fmt: skip

    # ---- launches and products --------------------------------------------------------------------------

    def _launch(self, kernel: str, real: np.dtype[Any], launch: Launch, *arguments: Any, shared_bytes: int = 0) -> None:
        """Launch a kernel; Python's int, float and None become its int64, double and null pointer."""
        values = [_TO_KERNEL.get(type(value), _unchanged)(value) for value in arguments]
        self.runtime.launch(self._kernels.get(kernel, real), launch.grid, launch.block, values, shared_bytes)

    def _product(self, transpose_a: bool, transpose_b: bool, a: Array, b: Array, out: Array) -> None:
        """``out = op(a) @ op(b)`` of row-major matrices."""
        self.runtime.gemm(operands(transpose_a, transpose_b, a, b, out))

    def _product_with(
        self,
        transpose_a: bool,
        transpose_b: bool,
        a: Array,
        b: Array,
        out: Array,
        epilogue: Epilogue,
        adds: bool = False,
    ) -> Product | None:
        """The same product with an epilogue, for repeated use; None if the device does not support it."""
        return self.runtime.product(operands(transpose_a, transpose_b, a, b, out, adds), epilogue)

    def run_product(self, product: Product) -> None:
        """Compute a product with an epilogue; see :mod:`nnbackend.backends.cupy.epilogues`."""
        product.launch()

    def _temporary(self, size: int, dtype: np.dtype[Any]) -> Array:
        """Temporary memory for partial sums, valid until the operation ends.

        Never freed or resized, because a captured graph contains its address; sizes are powers of two.
        """
        capacity = 1 << (size - 1).bit_length()
        key = (dtype.char, capacity)
        if key not in self._scratch:
            self._scratch[key] = self.runtime.zeros((capacity,), dtype)
        return self._scratch[key][:size]


def _unchanged(value: Any) -> Any:
    return value


_TO_KERNEL: dict[type, Any] = {int: np.int64, float: np.float64, type(None): lambda _: NULL}
