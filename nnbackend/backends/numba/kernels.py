"""Jitted kernels: one pass over memory each, rows kept in cache while several things are done to them.

* ``error_model="numpy"``: Numba's own check for division by zero keeps LLVM from vectorising.
* The fast-math flags allow other orders of summation and fused multiply-adds, but not the assumption that no
  value is NaN or infinite: a diverging run must show itself.
* No Numba parallelism: the threads that share out the products are the only ones. Two pools on the same cores slow
  each other down many times over.
* Optional arrays come as arrays of length 0, so that a kernel has one signature a dtype.
* Where work can be shared out, `begin` and `end` say which rows, or which elements of a flat buffer, are meant.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit


def jit(function, fastmath=frozenset({"reassoc", "contract", "nsz", "arcp", "afn"})):
    options = {"error_model": "numpy", "fastmath": set(fastmath), "nogil": True}
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:
        # Neither the package's folder nor the user's cache can be written: compile anew in every process.
        return njit(**options)(function)


IDENTITY, RELU, LEAKY_RELU, ELU, SIGMOID, TANH, GELU, SILU, SOFTPLUS, SOFTMAX = range(10)
#: Activation names to the codes the kernels branch on (once a row, outside the loop over columns).
ACTIVATION_CODES = {
    "identity": IDENTITY,
    "relu": RELU,
    "leaky_relu": LEAKY_RELU,
    "elu": ELU,
    "sigmoid": SIGMOID,
    "tanh": TANH,
    "gelu": GELU,
    "silu": SILU,
    "softplus": SOFTPLUS,
    "softmax": SOFTMAX,
}

GELU_SCALE = math.sqrt(2 / math.pi)
GELU_CUBIC = 0.044715


@jit
def gather_rows(source, order, start, scale, out, begin, end):
    for i in range(begin, end):
        row = source[order[start + i]]
        target = out[i]
        for j in range(target.size):
            target[j] = row[j] * scale


@jit
def gather_values(source, order, start, scale, out, begin, end):
    for i in range(begin, end):
        out[i] = source[order[start + i]] * scale


@jit
def activate_row(z, code, alpha, out):
    """``out = activation(z)`` on one row; `out` may be `z`."""
    one = z.dtype.type(1)
    zero = z.dtype.type(0)
    half = z.dtype.type(0.5)
    n = z.size
    if code == IDENTITY:
        for j in range(n):
            out[j] = z[j]
    elif code == RELU:
        for j in range(n):
            # Written so that NaN stays NaN.
            out[j] = zero if z[j] < zero else z[j]
    elif code == LEAKY_RELU:
        for j in range(n):
            out[j] = z[j] if z[j] > zero else alpha * z[j]
    elif code == ELU:
        for j in range(n):
            out[j] = z[j] if z[j] > zero else alpha * np.expm1(z[j])
    elif code == SIGMOID:
        for j in range(n):
            out[j] = one / (one + np.exp(-z[j]))
    elif code == TANH:
        for j in range(n):
            out[j] = np.tanh(z[j])
    elif code == GELU:
        scale = z.dtype.type(GELU_SCALE)
        cubic = z.dtype.type(GELU_CUBIC)
        for j in range(n):
            v = z[j]
            out[j] = half * v * (one + np.tanh(scale * (v + cubic * v * v * v)))
    elif code == SILU:
        for j in range(n):
            out[j] = z[j] * (one / (one + np.exp(-z[j])))
    elif code == SOFTPLUS:
        for j in range(n):
            positive = zero if z[j] < zero else z[j]
            out[j] = positive + np.log1p(np.exp(-abs(z[j])))
    else:
        largest = z[0]
        for j in range(1, n):
            largest = max(largest, z[j])
        total = zero
        for j in range(n):
            out[j] = np.exp(z[j] - largest)
            total += out[j]
        factor = one / total
        for j in range(n):
            out[j] *= factor


@jit
def bias_activation(z, bias, code, alpha, out, begin, end):
    """Add the bias in place and activate, while the row is in cache."""
    for i in range(begin, end):
        row = z[i]
        if bias.size:
            for j in range(row.size):
                row[j] += bias[j]
        if code != IDENTITY:
            activate_row(row, code, alpha, out[i])


@jit
def activation_forward(z, code, alpha, out, begin, end):
    for i in range(begin, end):
        activate_row(z[i], code, alpha, out[i])


@jit
def activation_gradient(saved, code, alpha, upstream, out, begin, end):
    for i in range(begin, end):
        _gradient_row(saved[i], code, alpha, upstream[i], out[i])


@jit
def _gradient_row(saved, code, alpha, upstream, out):
    one = saved.dtype.type(1)
    zero = saved.dtype.type(0)
    half = saved.dtype.type(0.5)
    n = saved.size
    if code == IDENTITY:
        for j in range(n):
            out[j] = upstream[j]
    elif code == RELU:
        for j in range(n):
            out[j] = upstream[j] if saved[j] > zero else upstream[j] * zero
    elif code == LEAKY_RELU:
        for j in range(n):
            out[j] = upstream[j] if saved[j] > zero else alpha * upstream[j]
    elif code == ELU:
        for j in range(n):
            out[j] = upstream[j] if saved[j] > zero else (saved[j] + alpha) * upstream[j]
    elif code == SIGMOID:
        for j in range(n):
            out[j] = upstream[j] * (saved[j] * (one - saved[j]))
    elif code == TANH:
        for j in range(n):
            out[j] = upstream[j] * (one - saved[j] * saved[j])
    elif code == GELU:
        scale = saved.dtype.type(GELU_SCALE)
        cubic = saved.dtype.type(GELU_CUBIC)
        triple = saved.dtype.type(3 * GELU_CUBIC)
        for j in range(n):
            v = saved[j]
            t = np.tanh(scale * (v + cubic * v * v * v))
            slope = scale * (one + triple * v * v)
            out[j] = upstream[j] * half * (one + t + v * (one - t * t) * slope)
    elif code == SILU:
        for j in range(n):
            s = one / (one + np.exp(-saved[j]))
            out[j] = upstream[j] * s * (one + saved[j] * (one - s))
    elif code == SOFTPLUS:
        for j in range(n):
            out[j] = upstream[j] * -np.expm1(-saved[j])
    else:
        product = zero
        for j in range(n):
            product += upstream[j] * saved[j]
        for j in range(n):
            out[j] = saved[j] * (upstream[j] - product)


@jit
def softmax_cross_entropy_labels(logits, labels, weights, gradient, rows, begin, end):
    n, classes = logits.shape
    one = logits.dtype.type(1)
    zero = logits.dtype.type(0)
    for i in range(begin, end):
        z = logits[i]
        g = gradient[i]
        label = labels[i]
        best = 0
        for j in range(1, classes):
            if z[j] > z[best]:
                best = j
        largest = z[best]
        at_label = z[label] - largest
        total = zero
        for j in range(classes):
            g[j] = np.exp(z[j] - largest)
            total += g[j]
        weight = weights[i] if weights.size else one
        rows[0, i] = weight * (np.log(total) - at_label)
        rows[1, i] = one if best == label else zero
        factor = weight / (total * n)
        for j in range(classes):
            g[j] *= factor
        g[label] -= weight / n


@jit
def softmax_cross_entropy_probabilities(logits, targets, weights, gradient, rows, begin, end):
    n, classes = logits.shape
    one = logits.dtype.type(1)
    zero = logits.dtype.type(0)
    for i in range(begin, end):
        z = logits[i]
        t = targets[i]
        g = gradient[i]
        best = 0
        wanted = 0
        for j in range(1, classes):
            if z[j] > z[best]:
                best = j
            if t[j] > t[wanted]:
                wanted = j
        largest = z[best]
        total = zero
        mass = zero
        product = zero
        for j in range(classes):
            shifted = z[j] - largest
            product += t[j] * shifted
            mass += t[j]
            g[j] = np.exp(shifted)
            total += g[j]
        weight = weights[i] if weights.size else one
        rows[0, i] = weight * (mass * np.log(total) - product)
        rows[1, i] = one if best == wanted else zero
        factor = weight / n
        for j in range(classes):
            g[j] = factor * (g[j] * mass / total - t[j])


@jit
def sigmoid_cross_entropy(logits, targets, weights, gradient, rows, begin, end):
    n, outputs = logits.shape
    one = logits.dtype.type(1)
    zero = logits.dtype.type(0)
    half = logits.dtype.type(0.5)
    for i in range(begin, end):
        weight = weights[i] if weights.size else one
        factor = weight / (n * outputs)
        loss = zero
        hits = zero
        for j in range(outputs):
            z = logits[i, j]
            t = targets[i, j]
            positive = zero if z < zero else z
            loss += positive - z * t + np.log1p(np.exp(-abs(z)))
            hits += one if (z > zero) == (t > half) else zero
            gradient[i, j] = factor * (one / (one + np.exp(-z)) - t)
        rows[0, i] = weight * loss / outputs
        rows[1, i] = hits / outputs


@jit
def mean_squared_error(outputs, targets, weights, gradient, rows, begin, end):
    n, features = outputs.shape
    one = outputs.dtype.type(1)
    zero = outputs.dtype.type(0)
    two = outputs.dtype.type(2)
    for i in range(begin, end):
        a = outputs[i]
        t = targets[i]
        g = gradient[i]
        best = 0
        wanted = 0
        for j in range(1, features):
            if a[j] > a[best]:
                best = j
            if t[j] > t[wanted]:
                wanted = j
        weight = weights[i] if weights.size else one
        factor = two * weight / (n * features)
        loss = zero
        for j in range(features):
            difference = a[j] - t[j]
            loss += difference * difference
            g[j] = factor * difference
        rows[0, i] = weight * loss / features
        rows[1, i] = one if best == wanted else zero


@jit
def record_loss(rows, penalties, step, trace):
    for k in range(2):
        total = 0.0
        for i in range(rows.shape[1]):
            total += np.float64(rows[k, i])
        trace[step, k] = total
    total = 0.0
    for i in range(penalties.size):
        total += np.float64(penalties[i])
    trace[step, 2] = rows.shape[1] * total


@jit
def bias_gradient(delta, out):
    for j in range(out.size):
        out[j] = delta[0, j]
    for i in range(1, delta.shape[0]):
        row = delta[i]
        for j in range(out.size):
            out[j] += row[j]


@jit
def weight_penalty(weight, l1, l2, gradient):
    zero = weight.dtype.type(0)
    absolute = 0.0
    squares = 0.0
    for i in range(weight.shape[0]):
        w = weight[i]
        g = gradient[i]
        for j in range(w.size):
            sign = l1 if w[j] > zero else (-l1 if w[j] < zero else zero)
            g[j] += sign + l2 * w[j]
            absolute += abs(np.float64(w[j]))
            squares += np.float64(w[j]) * np.float64(w[j])
    return l1 * absolute + 0.5 * l2 * squares


@jit
def sgd(parameters, gradients, rate, weight_decay, begin, end):
    for i in range(begin, end):
        parameters[i] -= rate * (gradients[i] + weight_decay * parameters[i])


@jit
def sgd_momentum(parameters, gradients, velocity, rate, momentum, nesterov, weight_decay, begin, end):
    for i in range(begin, end):
        g = gradients[i] + weight_decay * parameters[i]
        v = momentum * velocity[i] + g
        velocity[i] = v
        parameters[i] -= rate * (g + momentum * v if nesterov else v)


@jit
def adam(
    parameters,
    gradients,
    first,
    second,
    rate,
    correction2,
    beta1,
    rest1,
    beta2,
    rest2,
    epsilon,
    coupled,
    decoupled,
    begin,
    end,
):
    """`rate` carries 1 / (1 - beta1^t), `correction2` is 1 / sqrt(1 - beta2^t).

    `rest` is 1 - beta, subtracted in double precision: in float32, 1 - 0.999 is off by 1e-5 of itself.
    """
    for i in range(begin, end):
        p = parameters[i] * decoupled
        g = gradients[i] + coupled * parameters[i]
        m = beta1 * first[i] + rest1 * g
        v = beta2 * second[i] + rest2 * g * g
        first[i] = m
        second[i] = v
        parameters[i] = p - rate * m / (np.sqrt(v) * correction2 + epsilon)


@jit
def rmsprop(parameters, gradients, square, rate, decay, rest, epsilon, weight_decay, begin, end):
    for i in range(begin, end):
        g = gradients[i] + weight_decay * parameters[i]
        v = decay * square[i] + rest * g * g
        square[i] = v
        parameters[i] -= rate * g / (np.sqrt(v) + epsilon)


@jit
def dropout(x, threshold, scale, key0, key1, stream, step, out, begin, end):
    """Philox4x32-10, four elements a block; see :mod:`nnbackend.backends.philox` for the plain form."""
    low = np.uint64(0xFFFFFFFF)
    shift = np.uint64(32)
    multiplier0 = np.uint64(0xD2511F53)
    multiplier1 = np.uint64(0xCD9E8D57)
    weyl0 = np.uint64(0x9E3779B9)
    weyl1 = np.uint64(0xBB67AE85)
    columns = np.int64(x.shape[1])
    first = begin * columns
    last = end * columns
    words = np.empty(4, np.uint64)
    zero = x.dtype.type(0)
    for block in range(first // 4, (last + 3) // 4):
        c0 = np.uint64(block) & low
        c1 = np.uint64(stream)
        c2 = np.uint64(step) & low
        c3 = np.uint64(step) >> shift
        k0 = np.uint64(key0)
        k1 = np.uint64(key1)
        for _ in range(10):
            product0 = c0 * multiplier0
            product1 = c2 * multiplier1
            c0 = (product1 >> shift) ^ c1 ^ k0
            c1 = product1 & low
            c2 = (product0 >> shift) ^ c3 ^ k1
            c3 = product0 & low
            k0 = (k0 + weyl0) & low
            k1 = (k1 + weyl1) & low
        words[0] = c0
        words[1] = c1
        words[2] = c2
        words[3] = c3
        # A block may begin in a row that is another thread's, or end in one.
        for element in range(max(first, 4 * block), min(last, 4 * block + 4)):
            k = element - 4 * block
            i = element // columns
            j = element - i * columns
            keep = scale if words[k] >= np.uint64(threshold) else zero
            out[i, j] = x[i, j] * keep
