"""The NumPy backend: the reference. Each operation reads like its formula in :mod:`nnbackend.backends.base`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nnbackend.backends.base import Backend, Call, Executor, HostArray, PlainExecutor
from nnbackend.backends.philox import keep_threshold, uniform_words
from nnbackend.backends.products import ALONE, Products
from nnbackend.checks import positive_integer

__all__ = ["NumpyBackend"]

Real = npt.NDArray[np.floating[Any]]
Int = npt.NDArray[np.integer[Any]]

_GELU_SCALE = math.sqrt(2 / math.pi)
_GELU_CUBIC = 0.044715


class NumpyBackend(Backend):
    """Plain NumPy, with the matrix products of the BLAS that NumPy was built with.

    Parameters
    ----------
    threads : int, optional
        How many work on a product; as many as the process may use if not given. Results do not depend on it.
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

    def write(self, array: HostArray, out: HostArray) -> None:
        out[...] = array

    def to_host(self, array: HostArray) -> HostArray:
        return np.array(array, order="C", copy=True)

    def copy(self, source: HostArray, out: HostArray) -> None:
        out[...] = source

    def synchronize(self) -> None:
        pass

    # ---- batch ---------------------------------------------------------------------------------------------

    def gather(
        self, source: HostArray, order: Int, counter: Int, batch_size: int, scale: float, out: HostArray
    ) -> None:
        start = int(counter[0]) * batch_size
        rows = source[order[start : start + len(out)]]
        if scale == 1:
            out[...] = rows
        else:
            np.multiply(rows, scale, out=out, dtype=out.dtype)

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
        match activation:
            case "identity":
                out[...] = z
            case "relu":
                np.maximum(z, 0, out=out)
            case "leaky_relu":
                out[...] = np.where(z > 0, z, alpha * z)
            case "elu":
                out[...] = np.where(z > 0, z, alpha * np.expm1(np.minimum(z, 0)))
            case "sigmoid":
                _sigmoid(z, out)
            case "tanh":
                np.tanh(z, out=out)
            case "gelu":
                out[...] = 0.5 * z * (1 + np.tanh(_GELU_SCALE * (z + _GELU_CUBIC * z**3)))
            case "silu":
                out[...] = z * _sigmoid(z)
            case "softplus":
                out[...] = np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))
            case "softmax":
                np.subtract(z, z.max(axis=1, keepdims=True), out=out)
                np.exp(out, out=out)
                out /= out.sum(axis=1, keepdims=True)
            case _:
                raise AssertionError(f"no such activation: {activation}")

    def dropout(self, x: Real, rate: float, seed: int, stream: int, counter: Int, out: Real) -> None:
        words = uniform_words(x.size, seed, stream, int(counter[1])).reshape(x.shape)
        mask = (words >= keep_threshold(rate)).astype(x.dtype)
        mask *= 1 / (1 - rate)
        np.multiply(x, mask, out=out)

    def max_abs_norm(self, x: Real, out: Real) -> None:
        _, largest = _largest_magnitudes(x)
        np.divide(x, largest, out=out)

    # ---- loss ----------------------------------------------------------------------------------------------

    def softmax_cross_entropy(
        self, logits: Real, targets: HostArray, weights: Real | None, gradient: Real, rows: Real
    ) -> None:
        n = len(logits)
        predicted = logits.argmax(axis=1)
        shifted = logits - logits.max(axis=1, keepdims=True)
        exponentials = np.exp(shifted)
        sums = exponentials.sum(axis=1, keepdims=True)
        log_sums = np.log(sums[:, 0])
        if targets.ndim == 1:
            index = np.arange(n)
            rows[0] = log_sums - shifted[index, targets]
            rows[1] = predicted == targets
            np.divide(exponentials, sums, out=gradient)
            gradient[index, targets] -= 1
        else:
            totals = targets.sum(axis=1)
            rows[0] = totals * log_sums - (targets * shifted).sum(axis=1)
            rows[1] = predicted == targets.argmax(axis=1)
            np.multiply(exponentials, totals[:, None] / sums, out=gradient)
            gradient -= targets
        _scale_rows(weights, 1 / n, gradient, rows)

    def sigmoid_cross_entropy(
        self, logits: Real, targets: Real, weights: Real | None, gradient: Real, rows: Real
    ) -> None:
        losses = np.maximum(logits, 0) - logits * targets + np.log1p(np.exp(-np.abs(logits)))
        rows[0] = losses.mean(axis=1)
        rows[1] = ((logits > 0) == (targets > 0.5)).mean(axis=1)
        np.subtract(_sigmoid(logits), targets, out=gradient)
        _scale_rows(weights, 1 / logits.size, gradient, rows)

    def mean_squared_error(
        self, outputs: Real, targets: Real, weights: Real | None, gradient: Real, rows: Real
    ) -> None:
        rows[1] = outputs.argmax(axis=1) == targets.argmax(axis=1)
        np.subtract(outputs, targets, out=gradient)
        rows[0] = np.square(gradient).mean(axis=1)
        _scale_rows(weights, 2 / outputs.size, gradient, rows)

    def record_loss(self, rows: Real, penalties: Real | None, counter: Int, trace: Real) -> None:
        line = trace[counter[0]]
        rows.sum(axis=1, dtype=np.float64, out=line[:2])
        line[2] = 0 if penalties is None else rows.shape[1] * penalties.sum(dtype=np.float64)

    # ---- backward ------------------------------------------------------------------------------------------

    def activation_gradient(self, saved: Real, activation: str, alpha: float, upstream: Real, out: Real) -> None:
        match activation:
            case "identity":
                if out is not upstream:
                    out[...] = upstream
            case "relu":
                np.multiply(upstream, saved > 0, out=out)
            case "leaky_relu":
                out[...] = np.where(saved > 0, upstream, alpha * upstream)
            case "elu":
                out[...] = np.where(saved > 0, upstream, (saved + alpha) * upstream)
            case "sigmoid":
                np.multiply(upstream, saved * (1 - saved), out=out)
            case "tanh":
                np.multiply(upstream, 1 - saved * saved, out=out)
            case "gelu":
                t = np.tanh(_GELU_SCALE * (saved + _GELU_CUBIC * saved**3))
                slope = _GELU_SCALE * (1 + 3 * _GELU_CUBIC * saved * saved)
                out[...] = upstream * 0.5 * (1 + t + saved * (1 - t * t) * slope)
            case "silu":
                s = _sigmoid(saved)
                out[...] = upstream * s * (1 + saved * (1 - s))
            case "softplus":
                np.multiply(upstream, -np.expm1(-saved), out=out)
            case "softmax":
                products = (upstream * saved).sum(axis=1, keepdims=True)
                np.multiply(saved, upstream - products, out=out)
            case _:
                raise AssertionError(f"no such activation: {activation}")

    def max_abs_norm_gradient(self, x: Real, upstream: Real, out: Real) -> None:
        place, largest = _largest_magnitudes(x)
        y = x / largest
        through_largest = y[place] * (upstream * y).sum(axis=1)
        if out is not upstream:
            out[...] = upstream
        out[place] -= through_largest
        out /= largest

    def dense_input_gradient(self, delta: Real, weight: Real, out: Real) -> None:
        self.products.matmul(delta, weight.T, out)

    def dense_weight_gradient(self, x: Real, delta: Real, out: Real) -> None:
        self.products.matmul(x.T, delta, out)

    def bias_gradient(self, delta: Real, out: Real) -> None:
        delta.sum(axis=0, out=out)

    def weight_penalty(self, weight: Real, l1: float, l2: float, gradient: Real, penalties: Real, slot: int) -> None:
        value = 0.0
        if l1:
            gradient += l1 * np.sign(weight)
            value += l1 * float(np.abs(weight).sum(dtype=np.float64))
        if l2:
            gradient += l2 * weight
            value += l2 / 2 * float(np.square(weight).sum(dtype=np.float64))
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
    ) -> None:
        direction = gradients + weight_decay * parameters if weight_decay else gradients
        if velocity is not None:
            velocity *= momentum
            velocity += direction
            direction = direction + momentum * velocity if nesterov else velocity
        parameters -= float(learning_rates[counter[0]]) * direction

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
    ) -> None:
        rate = float(learning_rates[counter[0]])
        t = int(counter[2]) + 1
        gradient = gradients
        if weight_decay and decoupled:
            parameters *= 1 - rate * weight_decay
        elif weight_decay:
            gradient = gradients + weight_decay * parameters
        first *= beta1
        first += (1 - beta1) * gradient
        second *= beta2
        second += (1 - beta2) * gradient * gradient
        denominator = np.sqrt(second)
        denominator *= 1 / np.sqrt(1 - beta2**t)
        denominator += epsilon
        np.divide(first, denominator, out=denominator)
        denominator *= rate / (1 - beta1**t)
        parameters -= denominator

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
        gradient = gradients + weight_decay * parameters if weight_decay else gradients
        square *= decay
        square += (1 - decay) * gradient * gradient
        parameters -= float(learning_rates[counter[0]]) * gradient / (np.sqrt(square) + epsilon)

    # ---- running a recorded step ---------------------------------------------------------------------------

    def executor(self, calls: Sequence[Call]) -> Executor:
        return _HostExecutor(self, calls)


class _HostExecutor(PlainExecutor):
    """Replays the list while BLAS keeps to one thread, so that the pool's threads have the cores to themselves."""

    def run(self, repeats: int) -> None:
        with ALONE:
            super().run(repeats)


def _sigmoid(z: Real, out: Real | None = None) -> Real:
    """``1 / (1 + exp(-z))`` as ``(1 + tanh(z / 2)) / 2``, which cannot overflow."""
    result: Real = np.multiply(z, 0.5, out=out)
    np.tanh(result, out=result)
    result += 1
    result *= 0.5
    return result


def _largest_magnitudes(x: Real) -> tuple[tuple[Int, Int], Real]:
    """Where each row has its first largest magnitude, and a column of these magnitudes, 1 for a row of zeros."""
    # To argmax NaN is the largest.
    place = np.arange(len(x)), np.abs(x).argmax(axis=1)
    largest = np.abs(x[place])
    largest[largest == 0] = 1
    return place, largest[:, None]


def _scale_rows(weights: Real | None, factor: float, gradient: Real, rows: Real) -> None:
    """Finish a loss: sample weights on loss and gradient, and the gradient of a mean."""
    if weights is None:
        gradient *= factor
    else:
        gradient *= (weights * factor)[:, None]
        rows[0] *= weights
