"""Batches, dense layers and the three oldest losses, in terms of the array API standard."""

from __future__ import annotations

from nnbackend.backends.array_api.activations import FORWARD, GRADIENT, positive, sigmoid
from nnbackend.backends.array_api.namespace import Namespace
from nnbackend.backends.array_api.random import uniform_words
from nnbackend.backends.arrays import Array
from nnbackend.backends.philox import keep_threshold

__all__ = ["DenseOperations"]


class DenseOperations(Namespace):
    """Each operation is its formula in :mod:`nnbackend.backends.operations`, written to `out`."""

    # ---- batch -----------------------------------------------------------------------------------------------

    def gather(self, source: Array, order: Array, counter: Array, batch_size: int, scale: float, out: Array) -> None:
        start = int(self._numbers(counter)[0]) * batch_size
        rows = self.xp.take(source, order[start : start + out.shape[0]], axis=0)
        rows = self.xp.astype(rows, out.dtype)
        out[...] = rows if scale == 1 else rows * scale

    def advance(self, counter: Array) -> None:
        counter += 1
        self._host.advanced(counter)

    # ---- forward ---------------------------------------------------------------------------------------------

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
        z = x @ weight
        if bias is not None:
            z += bias
        if preactivation is not None:
            preactivation[...] = z
        out[...] = FORWARD[activation](self.xp, z, alpha)

    def activation_forward(self, z: Array, activation: str, alpha: float, out: Array) -> None:
        out[...] = FORWARD[activation](self.xp, z, alpha)

    def dropout(
        self, x: Array, rate: float, seed: int, stream: int, counter: Array, out: Array, first_row: int = 0
    ) -> None:
        self.multiply(x, self.dropout_mask(x, rate, seed, stream, counter, first_row), out)

    def multiply(self, a: Array, b: Array, out: Array) -> None:
        """``out = a * b``."""
        out[...] = a * b

    def dropout_mask(self, x: Array, rate: float, seed: int, stream: int, counter: Array, first_row: int) -> Array:
        """0 for elements that are dropped, and ``1 / (1 - rate)`` for the others."""
        rows, features = x.shape
        step, first = int(self._numbers(counter)[1]), first_row * features
        words = uniform_words(self.xp, self.library.device, rows * features, seed, stream, step, first)
        kept = self.xp.reshape(words >= keep_threshold(rate), (rows, features))
        return self.xp.astype(kept, x.dtype) * (1 / (1 - rate))

    def max_abs_norm(self, x: Array, out: Array) -> None:
        out[...] = x / self._largest_magnitudes(x)

    def _largest_magnitudes(self, x: Array) -> Array:
        """Of each row, as a column; 1 for a row of zeros."""
        largest = self.xp.max(self.xp.abs(x), axis=1, keepdims=True)
        return self.xp.where(largest == 0, self.xp.ones_like(largest), largest)

    # ---- loss ------------------------------------------------------------------------------------------------

    def softmax_cross_entropy(
        self, logits: Array, targets: Array, weights: Array | None, gradient: Array, row_losses: Array
    ) -> None:
        xp, labels = self.xp, targets.ndim == 1
        if labels:
            targets = self._one_hot(targets, logits)
        shifted = logits - xp.max(logits, axis=1, keepdims=True)
        exponentials = xp.exp(shifted)
        totals, sums = xp.sum(targets, axis=1), xp.sum(exponentials, axis=1)
        # With labels, the logits of other classes are left out: they may be infinite, and 0 times infinity is NaN.
        products = xp.where(targets == 0, xp.zeros_like(shifted), shifted) if labels else targets * shifted
        losses = totals * xp.log(sums) - xp.sum(products, axis=1)
        correct = xp.argmax(logits, axis=1) == xp.argmax(targets, axis=1)
        delta = exponentials * (totals / sums)[:, None] - targets
        self._finish(losses, correct, delta, weights, 1 / logits.shape[0], gradient, row_losses)

    def sigmoid_cross_entropy(
        self, logits: Array, targets: Array, weights: Array | None, gradient: Array, row_losses: Array
    ) -> None:
        xp, (rows, columns) = self.xp, logits.shape
        losses = positive(xp, logits) - logits * targets + xp.log1p(xp.exp(-xp.abs(logits)))
        correct = xp.mean(xp.astype((logits > 0) == (targets > 0.5), logits.dtype), axis=1)
        delta = sigmoid(xp, logits) - targets
        self._finish(xp.mean(losses, axis=1), correct, delta, weights, 1 / (rows * columns), gradient, row_losses)

    def mean_squared_error(
        self, outputs: Array, targets: Array, weights: Array | None, gradient: Array, row_losses: Array
    ) -> None:
        xp, (rows, columns) = self.xp, outputs.shape
        delta = outputs - targets
        correct = xp.argmax(outputs, axis=1) == xp.argmax(targets, axis=1)
        losses = xp.mean(delta * delta, axis=1)
        self._finish(losses, correct, delta, weights, 2 / (rows * columns), gradient, row_losses)

    def record_loss(self, row_losses: Array, penalties: Array | None, counter: Array, trace: Array) -> None:
        step = int(self._numbers(counter)[0])
        self._store(trace, (step, slice(0, 2)), self._sum(row_losses, axis=1))
        if penalties is None:
            trace[step, 2] = 0.0
        else:
            self._store(trace, (step, 2), row_losses.shape[1] * self._sum(penalties))

    # ---- backward --------------------------------------------------------------------------------------------

    def activation_gradient(self, saved: Array, activation: str, alpha: float, upstream: Array, out: Array) -> None:
        out[...] = GRADIENT[activation](self.xp, saved, alpha, upstream)

    def max_abs_norm_gradient(self, x: Array, upstream: Array, out: Array) -> None:
        xp = self.xp
        largest = self._largest_magnitudes(x)
        y = x / largest
        place = xp.argmax(xp.abs(x), axis=1, keepdims=True)
        first = place == self._range(x.shape[1], place.dtype)[None, :]
        through_largest = y * xp.sum(upstream * y, axis=1, keepdims=True)
        out[...] = xp.where(first, upstream - through_largest, upstream) / largest

    def dense_input_gradient(self, delta: Array, weight: Array, out: Array) -> None:
        out[...] = delta @ self.xp.matrix_transpose(weight)

    def dense_weight_gradient(self, x: Array, delta: Array, out: Array) -> None:
        out[...] = self.xp.matrix_transpose(x) @ delta

    def bias_gradient(self, delta: Array, out: Array) -> None:
        out[...] = self.xp.sum(delta, axis=0)

    def weight_penalty(self, weight: Array, l1: float, l2: float, gradient: Array, penalties: Array, slot: int) -> None:
        xp, value = self.xp, self.xp.zeros((), dtype=self.wide, device=self.library.device)
        if l1:
            gradient += l1 * xp.sign(weight)
            value = value + l1 * self._sum(xp.abs(weight))
        if l2:
            gradient += l2 * weight
            value = value + l2 / 2 * self._sum(weight * weight)
        penalties[slot] = xp.astype(value, penalties.dtype)
