"""The NumPy backend: the reference. Each operation reads like its formula in :mod:`nnbackend.backends.contract`.

Formulas with temporary arrays are computed in chunks of rows. Temporaries then stay in the CPU cache, and their memory
does not grow with the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nnbackend.backends.contract import Backend, Call, Executor, HostArray, PlainExecutor
from nnbackend.backends.numpy_activations import activate, activation_gradient, sigmoid
from nnbackend.backends.numpy_images import NumpyImageOperations
from nnbackend.backends.philox import keep_threshold, uniform_words
from nnbackend.backends.products import ALONE, Products
from nnbackend.backends.staging import InPlaceStaging
from nnbackend.support.checks import positive_integer

__all__ = ["NumpyBackend"]

Real = npt.NDArray[np.floating[Any]]
Int = npt.NDArray[np.integer[Any]]

#: Elements per chunk. With fewer, the overhead of NumPy calls matters; more do not fit into a core's cache.
_CHUNK = 32_768


class NumpyBackend(NumpyImageOperations, Backend):
    """Plain NumPy, with the matrix products of the BLAS that NumPy was built with.

    Parameters
    ----------
    threads : int, optional
        Number of threads for a product. Default: all that the process may use. Results do not depend on it.
    """

    name = "numpy"

    def __init__(self, threads: int | None = None) -> None:
        self.products = Products(None if threads is None else positive_integer("threads", threads))
        self.device = f"CPU, {self.products.threads} thread{'s' if self.products.threads > 1 else ''}"

    # ---- memory --------------------------------------------------------------------------------------------

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> HostArray:
        return np.zeros(shape, dtype)

    def from_host(self, array: HostArray) -> HostArray:
        return np.array(array, order="C", copy=True)

    def asarray(self, array: HostArray) -> HostArray:
        flags = array.flags
        return array if flags.c_contiguous and flags.aligned and flags.writeable else self.from_host(array)

    def write(self, array: HostArray, out: HostArray) -> None:
        out[...] = array

    def to_host(self, array: HostArray) -> HostArray:
        return np.array(array, order="C", copy=True)

    def copy(self, source: HostArray, out: HostArray) -> None:
        out[...] = source

    def staging(
        self, halves: tuple[HostArray, HostArray], shape: tuple[int, ...], dtype: npt.DTypeLike
    ) -> InPlaceStaging:
        return InPlaceStaging(halves)

    def synchronize(self) -> None:
        pass

    # ---- batch ---------------------------------------------------------------------------------------------

    def gather(
        self, source: HostArray, order: Int, counter: Int, batch_size: int, scale: float, out: HostArray
    ) -> None:
        start = int(counter[0]) * batch_size
        rows = order[start : start + len(out)]
        for part in _chunks(out):
            if source.dtype == out.dtype:
                # No row is out of range, and with another mode NumPy would fill a copy of `out` first.
                source.take(rows[part], axis=0, out=out[part], mode="clip")
            else:
                out[part] = source.take(rows[part], axis=0)
            if scale != 1:
                out[part] *= scale

    def advance(self, counter: Int) -> None:
        counter += 1

    # ---- forward -------------------------------------------------------------------------------------------

    def dense_forward(
        self,
        x: Real,
        weight: Real,
        bias: Real | None,
        activation: str,
        alpha: float,
        preactivation: Real | None,
        out: Real,
    ) -> None:
        z = out if preactivation is None else preactivation
        self.products.matmul(x, weight, z)
        if bias is not None:
            z += bias
        if activation != "identity":
            self.activation_forward(z, activation, alpha, out)

    def activation_forward(self, z: Real, activation: str, alpha: float, out: Real) -> None:
        for part in _chunks(z):
            activate(z[part], activation, alpha, out[part])

    def dropout(
        self, x: Real, rate: float, seed: int, stream: int, counter: Int, out: Real, first_row: int = 0
    ) -> None:
        for part in _chunks(x):
            chunk = x[part]
            words = uniform_words(chunk.size, seed, stream, int(counter[1]), (first_row + part.start) * x.shape[1])
            mask = (words.reshape(chunk.shape) >= keep_threshold(rate)).astype(x.dtype)
            mask *= 1 / (1 - rate)
            np.multiply(chunk, mask, out=out[part])

    def max_abs_norm(self, x: Real, out: Real) -> None:
        for part in _chunks(x):
            _, largest = _largest_magnitudes(x[part])
            np.divide(x[part], largest, out=out[part])

    # ---- loss ----------------------------------------------------------------------------------------------

    def softmax_cross_entropy(
        self, logits: Real, targets: HostArray, weights: Real | None, gradient: Real, row_losses: Real
    ) -> None:
        n = len(logits)
        predicted = logits.argmax(axis=1)
        # Differences, exponentials and the gradient use the same memory, one after the other.
        shifted = np.subtract(logits, logits.max(axis=1, keepdims=True), out=gradient)
        if targets.ndim == 1:
            index = np.arange(n)
            at_label = shifted[index, targets]
            exponentials = np.exp(shifted, out=gradient)
            sums = exponentials.sum(axis=1)
            row_losses[0] = np.log(sums) - at_label
            row_losses[1] = predicted == targets
            np.divide(exponentials, sums[:, None], out=gradient)
            gradient[index, targets] -= 1
        else:
            totals = targets.sum(axis=1)
            product = np.vecdot(targets, shifted)
            exponentials = np.exp(shifted, out=gradient)
            sums = exponentials.sum(axis=1)
            row_losses[0] = totals * np.log(sums) - product
            row_losses[1] = predicted == targets.argmax(axis=1)
            np.multiply(exponentials, (totals / sums)[:, None], out=gradient)
            gradient -= targets
        _scale_rows(weights, 1 / n, gradient, row_losses)

    def sigmoid_cross_entropy(
        self, logits: Real, targets: Real, weights: Real | None, gradient: Real, row_losses: Real
    ) -> None:
        for part in _chunks(logits):
            z, t = logits[part], targets[part]
            row_losses[0, part] = (np.maximum(z, 0) - z * t + np.log1p(np.exp(-np.abs(z)))).mean(axis=1)
            row_losses[1, part] = ((z > 0) == (t > 0.5)).mean(axis=1)
            np.subtract(sigmoid(z), t, out=gradient[part])
        _scale_rows(weights, 1 / logits.size, gradient, row_losses)

    def mean_squared_error(
        self, outputs: Real, targets: Real, weights: Real | None, gradient: Real, row_losses: Real
    ) -> None:
        row_losses[1] = outputs.argmax(axis=1) == targets.argmax(axis=1)
        np.subtract(outputs, targets, out=gradient)
        row_losses[0] = np.vecdot(gradient, gradient) / outputs.shape[1]
        _scale_rows(weights, 2 / outputs.size, gradient, row_losses)

    def record_loss(self, row_losses: Real, penalties: Real | None, counter: Int, trace: Real) -> None:
        line = trace[counter[0]]
        row_losses.sum(axis=1, dtype=np.float64, out=line[:2])
        line[2] = 0 if penalties is None else row_losses.shape[1] * penalties.sum(dtype=np.float64)

    # ---- backward ------------------------------------------------------------------------------------------

    def activation_gradient(self, saved: Real, activation: str, alpha: float, upstream: Real, out: Real) -> None:
        for part in _chunks(saved):
            activation_gradient(saved[part], activation, alpha, upstream[part], out[part])

    def max_abs_norm_gradient(self, x: Real, upstream: Real, out: Real) -> None:
        for part in _chunks(x):
            _max_abs_norm_gradient(x[part], upstream[part], out[part])

    def dense_input_gradient(self, delta: Real, weight: Real, out: Real) -> None:
        self.products.matmul(delta, weight.T, out)

    def dense_weight_gradient(self, x: Real, delta: Real, out: Real) -> None:
        self.products.matmul(x.T, delta, out)

    def bias_gradient(self, delta: Real, out: Real) -> None:
        delta.sum(axis=0, out=out)

    def weight_penalty(self, weight: Real, l1: float, l2: float, gradient: Real, penalties: Real, slot: int) -> None:
        value = 0.0
        for part in _chunks(weight):
            w, g = weight[part], gradient[part]
            if l1:
                g += l1 * np.sign(w)
                value += l1 * float(np.abs(w).sum(dtype=np.float64))
            if l2:
                g += l2 * w
                value += l2 / 2 * float(np.square(w).sum(dtype=np.float64))
        penalties[slot] = value

    # ---- update --------------------------------------------------------------------------------------------

    def sgd_update(
        self,
        parameters: Real,
        gradients: Real,
        velocity: Real | None,
        counter: Int,
        learning_rates: Real,
        momentum: float,
        nesterov: bool,
        weight_decay: float,
        momenta: Real | None = None,
    ) -> None:
        rate = float(learning_rates[counter[0]])
        if momenta is not None:
            momentum = float(momenta[counter[0]])
        for part in _chunks(parameters):
            p, g = parameters[part], gradients[part]
            direction = g + weight_decay * p if weight_decay else g
            if velocity is not None:
                v = velocity[part]
                v *= momentum
                v += direction
                direction = direction + momentum * v if nesterov else v
            p -= rate * direction

    def adam_update(
        self,
        parameters: Real,
        gradients: Real,
        first: Real,
        second: Real,
        counter: Int,
        learning_rates: Real,
        beta1: float,
        beta2: float,
        epsilon: float,
        weight_decay: float,
        decoupled: bool,
        momenta: Real | None = None,
    ) -> None:
        rate = float(learning_rates[counter[0]])
        if momenta is not None:
            beta1 = float(momenta[counter[0]])
        t = int(counter[2]) + 1
        for part in _chunks(parameters):
            p, g, m, v = parameters[part], gradients[part], first[part], second[part]
            if weight_decay and decoupled:
                p *= 1 - rate * weight_decay
            elif weight_decay:
                g = g + weight_decay * p
            m *= beta1
            m += (1 - beta1) * g
            v *= beta2
            v += (1 - beta2) * g * g
            denominator = np.sqrt(v)
            denominator *= 1 / np.sqrt(1 - beta2**t)
            denominator += epsilon
            change = np.divide(m, denominator, out=denominator)
            change *= rate / (1 - beta1**t)
            p -= change

    def rmsprop_update(
        self,
        parameters: Real,
        gradients: Real,
        square: Real,
        counter: Int,
        learning_rates: Real,
        decay: float,
        epsilon: float,
        weight_decay: float,
    ) -> None:
        rate = float(learning_rates[counter[0]])
        for part in _chunks(parameters):
            p, g, v = parameters[part], gradients[part], square[part]
            if weight_decay:
                g = g + weight_decay * p
            v *= decay
            v += (1 - decay) * g * g
            p -= rate * g / (np.sqrt(v) + epsilon)

    # ---- running a recorded step ---------------------------------------------------------------------------

    def plain_executor(self, calls: Sequence[Call]) -> Executor:
        return _HostExecutor(self, calls)


class _HostExecutor(PlainExecutor):
    """Replays the list with BLAS limited to one thread, so that it does not compete with the pool for cores."""

    def run(self, repeats: int) -> None:
        with ALONE:
            super().run(repeats)


def _chunks(array: HostArray) -> list[slice]:
    """Consecutive slices of the first axis with at most `_CHUNK` elements, but at least one row."""
    rows = len(array)
    if array.size <= _CHUNK:
        return [slice(0, rows)]
    length = max(1, _CHUNK * rows // array.size)
    return [slice(begin, begin + length) for begin in range(0, rows, length)]


def _largest_magnitudes(x: Real) -> tuple[tuple[Int, Int], Real]:
    """Each row's column of its first largest magnitude, and the magnitudes as a column vector; 1 for a row of zeros."""
    # argmax treats NaN as the largest.
    place = np.arange(len(x)), np.abs(x).argmax(axis=1)
    largest = np.abs(x[place])
    largest[largest == 0] = 1
    return place, largest[:, None]


def _max_abs_norm_gradient(x: Real, upstream: Real, out: Real) -> None:
    place, largest = _largest_magnitudes(x)
    y = x / largest
    through_largest = y[place] * np.vecdot(upstream, y)
    out[...] = upstream
    out[place] -= through_largest
    out /= largest


def _scale_rows(weights: Real | None, factor: float, gradient: Real, rows: Real) -> None:
    """Finish a loss: apply sample weights to loss and gradient, and scale the gradient for a mean."""
    if weights is None:
        gradient *= factor
    else:
        gradient *= (weights * factor)[:, None]
        rows[0] *= weights
