"""An nnbackend backend on array-api-strict: the array API standard and nothing beyond it.

Written against :mod:`nnbackend.backends.contract` alone, it shows what a third party has to do. It is no faster than
NumPy and shares no code with the NumPy backend.
"""

from __future__ import annotations

import math

import array_api_strict as xp
import numpy as np

from nnbackend.backends.contract import Backend
from nnbackend.backends.philox import keep_threshold, uniform_words

__all__ = ["StrictBackend"]

_SELU, _SELU_ALPHA = 1.0507009873554805, 1.6732632423543772
_DTYPES = {"float32": xp.float32, "float64": xp.float64, "int32": xp.int32, "int64": xp.int64, "uint8": xp.uint8}


def _sigmoid(z):
    return 0.5 * (1.0 + xp.tanh(0.5 * z))


def _gelu_inner(z):
    return (2 / np.pi) ** 0.5 * (z + 0.044715 * z * z * z)


def _mish_tanh(z):
    return xp.tanh(_positive(z) + xp.log1p(xp.exp(-xp.abs(z))))


def _softmax(z):
    e = xp.exp(z - xp.max(z, axis=1, keepdims=True))
    return e / xp.sum(e, axis=1, keepdims=True)


def _positive(z):
    # Not maximum(), whose answer to NaN the standard leaves open.
    return xp.where(z < 0, xp.zeros_like(z), z)


_FORWARD = {
    "identity": lambda z, a: z,
    "relu": lambda z, a: _positive(z),
    "leaky_relu": lambda z, a: xp.where(z > 0, z, a * z),
    "elu": lambda z, a: xp.where(z > 0, z, a * xp.expm1(xp.where(z > 0, xp.zeros_like(z), z))),
    "selu": lambda z, a: _SELU * xp.where(z > 0, z, _SELU_ALPHA * xp.expm1(xp.where(z > 0, xp.zeros_like(z), z))),
    "sigmoid": lambda z, a: _sigmoid(z),
    "tanh": lambda z, a: xp.tanh(z),
    "gelu": lambda z, a: 0.5 * z * (1.0 + xp.tanh(_gelu_inner(z))),
    "silu": lambda z, a: z * _sigmoid(z),
    "mish": lambda z, a: z * _mish_tanh(z),
    "exponential": lambda z, a: xp.exp(z),
    "softplus": lambda z, a: _positive(z) + xp.log1p(xp.exp(-xp.abs(z))),
    "softmax": lambda z, a: _softmax(z),
}


def _gelu_slope(z):
    t = xp.tanh(_gelu_inner(z))
    return 0.5 * (1.0 + t + z * (1.0 - t * t) * (2 / np.pi) ** 0.5 * (1.0 + 3 * 0.044715 * z * z))


def _silu_slope(z):
    s = _sigmoid(z)
    return s * (1.0 + z * (1.0 - s))


def _mish_slope(z):
    t = _mish_tanh(z)
    return t + z * (1.0 - t * t) * _sigmoid(z)


_SLOPE = {
    "identity": lambda s, a: xp.ones_like(s),
    "relu": lambda s, a: xp.where(s > 0, xp.ones_like(s), xp.zeros_like(s)),
    "leaky_relu": lambda s, a: xp.where(s > 0, xp.ones_like(s), a * xp.ones_like(s)),
    "elu": lambda s, a: xp.where(s > 0, xp.ones_like(s), s + a),
    "selu": lambda s, a: xp.where(s > 0, _SELU * xp.ones_like(s), s + _SELU * _SELU_ALPHA),
    "sigmoid": lambda s, a: s * (1.0 - s),
    "tanh": lambda s, a: 1.0 - s * s,
    "gelu": lambda s, a: _gelu_slope(s),
    "silu": lambda s, a: _silu_slope(s),
    "mish": lambda s, a: _mish_slope(s),
    "exponential": lambda s, a: s,
    "softplus": lambda s, a: -xp.expm1(-s),
}


def _largest_magnitude(x):
    largest = xp.max(xp.abs(x), axis=1, keepdims=True)
    return xp.where(largest == 0, xp.ones_like(largest), largest)


class StrictBackend(Backend):
    """Every operation of the contract in terms of the array API standard."""

    name = "strict"
    device = "array-api-strict"

    def empty(self, shape, dtype):
        return xp.zeros(shape, dtype=_DTYPES[np.dtype(dtype).name])

    def from_host(self, array):
        return xp.asarray(np.array(array), copy=True)

    def write(self, array, out):
        out[...] = xp.asarray(np.ascontiguousarray(array))

    def to_host(self, array):
        return np.array(np.from_dlpack(array), order="C", copy=True)

    def copy(self, source, out):
        out[...] = source

    def synchronize(self):
        pass

    def view(self, buffer, offset, shape, row_stride=None):
        *leading, columns = shape
        stride = row_stride or columns
        window = buffer[offset : offset + math.prod(leading) * stride]
        return xp.reshape(window, (*leading, stride), copy=False)[..., :columns]

    def gather(self, source, order, counter, batch_size, scale, out):
        start = int(counter[0]) * batch_size
        rows = xp.take(source, order[start : start + out.shape[0]], axis=0)
        rows = xp.astype(rows, out.dtype)
        out[...] = rows if scale == 1 else rows * scale

    def advance(self, counter):
        counter += 1

    def dense_forward(self, x, weight, bias, activation, alpha, preactivation, out):
        z = x @ weight
        if bias is not None:
            z = z + bias
        if preactivation is not None:
            preactivation[...] = z
        out[...] = _FORWARD[activation](z, alpha)

    def activation_forward(self, z, activation, alpha, out):
        out[...] = _FORWARD[activation](z, alpha)

    def dropout(self, x, rate, seed, stream, counter, out, first_row=0):
        size, before = x.shape[0] * x.shape[1], first_row * x.shape[1]
        words = uniform_words(size, seed, stream, int(counter[1]), before).reshape(x.shape)
        mask = xp.astype(xp.asarray(words >= keep_threshold(rate)), x.dtype)
        out[...] = x * mask * (1 / (1 - rate))

    def max_abs_norm(self, x, out):
        out[...] = x / _largest_magnitude(x)

    def softmax_cross_entropy(self, logits, targets, weights, gradient, row_losses):
        if targets.ndim == 1:
            classes = xp.arange(logits.shape[1], dtype=targets.dtype)
            targets = xp.astype(targets[:, None] == classes[None, :], logits.dtype)
        shifted = logits - xp.max(logits, axis=1, keepdims=True)
        totals = xp.sum(targets, axis=1)
        losses = totals * xp.log(xp.sum(xp.exp(shifted), axis=1)) - xp.sum(targets * shifted, axis=1)
        correct = xp.argmax(logits, axis=1) == xp.argmax(targets, axis=1)
        delta = _softmax(logits) * totals[:, None] - targets
        self._finish(losses, correct, delta, weights, 1 / logits.shape[0], gradient, row_losses)

    def sigmoid_cross_entropy(self, logits, targets, weights, gradient, row_losses):
        losses = _positive(logits) - logits * targets + xp.log1p(xp.exp(-xp.abs(logits)))
        correct = xp.mean(xp.astype((logits > 0) == (targets > 0.5), logits.dtype), axis=1)
        delta = _sigmoid(logits) - targets
        self._finish(xp.mean(losses, axis=1), correct, delta, weights, 1 / logits.size, gradient, row_losses)

    def mean_squared_error(self, outputs, targets, weights, gradient, row_losses):
        delta = outputs - targets
        correct = xp.argmax(outputs, axis=1) == xp.argmax(targets, axis=1)
        self._finish(xp.mean(delta * delta, axis=1), correct, delta, weights, 2 / outputs.size, gradient, row_losses)

    def _finish(self, losses, correct, delta, weights, factor, gradient, rows):
        if weights is not None:
            losses, delta = losses * weights, delta * weights[:, None]
        gradient[...] = delta * factor
        rows[0, ...] = losses
        rows[1, ...] = xp.astype(correct, rows.dtype)

    def record_loss(self, row_losses, penalties, counter, trace):
        step = int(counter[0])
        sums = xp.sum(row_losses, axis=1, dtype=xp.float64)
        trace[step, 0] = sums[0]
        trace[step, 1] = sums[1]
        trace[step, 2] = 0.0 if penalties is None else row_losses.shape[1] * float(xp.sum(penalties, dtype=xp.float64))

    def activation_gradient(self, saved, activation, alpha, upstream, out):
        if activation == "softmax":
            out[...] = saved * (upstream - xp.sum(upstream * saved, axis=1, keepdims=True))
        else:
            out[...] = upstream * _SLOPE[activation](saved, alpha)

    def max_abs_norm_gradient(self, x, upstream, out):
        largest = _largest_magnitude(x)
        y = x / largest
        first = xp.argmax(xp.abs(x), axis=1, keepdims=True) == xp.arange(x.shape[1])[None, :]
        through_largest = y * xp.sum(upstream * y, axis=1, keepdims=True)
        out[...] = xp.where(first, upstream - through_largest, upstream) / largest

    def dense_input_gradient(self, delta, weight, out):
        out[...] = delta @ weight.T

    def dense_weight_gradient(self, x, delta, out):
        out[...] = x.T @ delta

    def bias_gradient(self, delta, out):
        out[...] = xp.sum(delta, axis=0)

    def weight_penalty(self, weight, l1, l2, gradient, penalties, slot):
        gradient += l1 * xp.sign(weight) + l2 * weight
        penalties[slot] = l1 * xp.sum(xp.abs(weight)) + l2 / 2 * xp.sum(weight * weight)

    def sgd_update(
        self,
        parameters,
        gradients,
        velocity,
        counter,
        learning_rates,
        momentum,
        nesterov,
        weight_decay,
        momenta=None,
    ):
        if momenta is not None:
            momentum = float(momenta[int(counter[0])])
        direction = gradients + weight_decay * parameters
        if velocity is not None:
            velocity[...] = momentum * velocity + direction
            direction = direction + momentum * velocity if nesterov else velocity
        parameters -= float(learning_rates[int(counter[0])]) * direction

    def adam_update(
        self,
        parameters,
        gradients,
        first,
        second,
        counter,
        learning_rates,
        beta1,
        beta2,
        epsilon,
        weight_decay,
        decoupled,
        momenta=None,
    ):
        if momenta is not None:
            beta1 = float(momenta[int(counter[0])])
        rate, t = float(learning_rates[int(counter[0])]), int(counter[2]) + 1
        gradient = gradients
        if decoupled:
            parameters *= 1 - rate * weight_decay
        else:
            gradient = gradients + weight_decay * parameters
        first[...] = beta1 * first + (1 - beta1) * gradient
        second[...] = beta2 * second + (1 - beta2) * gradient * gradient
        denominator = xp.sqrt(second / (1 - beta2**t)) + epsilon
        parameters -= rate / (1 - beta1**t) * first / denominator

    def rmsprop_update(self, parameters, gradients, square, counter, learning_rates, decay, epsilon, weight_decay):
        gradient = gradients + weight_decay * parameters
        square[...] = decay * square + (1 - decay) * gradient * gradient
        parameters -= float(learning_rates[int(counter[0])]) * gradient / (xp.sqrt(square) + epsilon)
