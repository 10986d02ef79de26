"""Jitted kernels. Each makes one pass over memory and does everything to a row while it is in cache.

* A missing optional array is passed as an array of length 0, so that a kernel has one signature per dtype.
* Where work can be shared, `begin` and `end` are the range of rows, or of elements of a flat buffer.
* Exponentials are computed by the vector code in `elementwise.py`. Its callers are compiled `as_written`.
"""

from __future__ import annotations

import numpy as np

from nnbackend.backends.numba.activations import SOFTMAX
from nnbackend.backends.numba.elementwise import (
    activate,
    differentiate,
    exponentials,
    scale_bytes,
    scale_row,
    sigmoid_cross_entropy_row,
    update,
)
from nnbackend.backends.numba.jit import as_written, internal, internal_as_written, jit
from nnbackend.backends.numba.memory import row_at, vector
from nnbackend.backends.numba.philox import philox
from nnbackend.backends.numba.records import at
from nnbackend.backends.numba.tile_shape import tile_shape_of
from nnbackend.backends.numba.updates import ADAM, LION, RECORD, RMSPROP, SGD, UPDATE

#: How many rows ahead of the gathered row the next one is prefetched.
AHEAD = 2


@as_written
def gather_rows(source, order, start, settings, out, begin, end, left, right):
    """Columns from `left` to `right`; `settings` holds the scale."""
    for i in range(begin, end):
        # The rows are scattered in memory.
        ahead = min(i + AHEAD, end - 1)
        scale_row(
            tile_shape_of(out),
            settings.ctypes.data,
            row_at(source, order[start + i]) + left * source.itemsize,
            row_at(out, i) + left * out.itemsize,
            right - left,
            row_at(source, order[start + ahead]) + left * source.itemsize,
        )


@as_written
def gather_bytes(source, order, start, settings, out, begin, end, left, right):
    """Columns from `left` to `right`; `settings` holds the scale."""
    for i in range(begin, end):
        ahead = min(i + AHEAD, end - 1)
        scale_bytes(
            tile_shape_of(out),
            settings.ctypes.data,
            row_at(source, order[start + i]) + left,
            row_at(out, i) + left * out.itemsize,
            right - left,
            row_at(source, order[start + ahead]) + left,
        )


@jit
def gather_values(source, order, start, scale, out, begin, end):
    for i in range(begin, end):
        out[i] = source[order[start + i]] * scale


@internal
def in_one_piece(a):
    """Whether there are no gaps between rows."""
    return a.strides[0] == a.shape[1] * a.itemsize


@as_written
def activation_forward(z, code, constants, out, begin, end, left, right):
    """`constants` holds alpha. Columns from `left` to `right`; softmax takes all."""
    if code == SOFTMAX:
        softmax(z, out, begin, end)
    else:
        activate_block(tile_shape_of(z), z, code, constants, out, begin, end, left, right)


@internal_as_written
def activate_block(tile_shape, z, code, constants, out, begin, end, left, right):
    """The same for every activation but softmax, or those that the tile shape's epilogue names."""
    rows, size = end - begin, right - left
    if size == z.shape[1] and in_one_piece(z) and in_one_piece(out):
        rows, size = min(rows, 1), rows * size
    skip = left * z.itemsize
    for i in range(begin, begin + rows):
        activate(tile_shape, code, constants.ctypes.data, row_at(z, i) + skip, row_at(out, i) + skip, size)


@jit
def softmax(z, out, begin, end):
    one = z.dtype.type(1)
    for i in range(begin, end):
        subtract(z[i], z[i, first_largest(z[i])], out[i])
    exponentiate(out, begin, end)
    for i in range(begin, end):
        row = out[i]
        factor = one / total_of(row)
        for j in range(row.size):
            row[j] *= factor


@internal
def first_largest(row):
    best = 0
    for j in range(1, row.size):
        if row[j] > row[best]:
            best = j
    return best


@internal
def total_of(row):
    total = row.dtype.type(0)
    for j in range(row.size):
        total += row[j]
    return total


@internal
def subtract(row, number, out):
    for j in range(row.size):
        out[j] = row[j] - number


@internal_as_written
def exponentiate(a, begin, end):
    """``a = exp(a)`` for a range of rows."""
    rows, size = end - begin, a.shape[1]
    if in_one_piece(a):
        rows, size = min(rows, 1), rows * size
    for i in range(begin, begin + rows):
        exponentials(tile_shape_of(a), row_at(a, i), row_at(a, i), size)


@jit
def bias_activation(z, bias, code, constants, out, begin, end):
    """Add the bias in place and activate, while the row is in cache."""
    for i in range(begin, end):
        row = z[i]
        if bias.size:
            for j in range(row.size):
                row[j] += bias[j]
        activation_forward(z, code, constants, out, i, i + 1, 0, row.size)


@as_written
def activation_gradient(saved, code, constants, upstream, out, begin, end, left, right):
    """`constants` holds alpha. Columns from `left` to `right`; softmax takes all."""
    if code == SOFTMAX:
        softmax_gradient(saved, upstream, out, begin, end)
    else:
        differentiate_block(tile_shape_of(saved), saved, code, constants, upstream, out, begin, end, left, right)


@internal_as_written
def differentiate_block(tile_shape, saved, code, constants, upstream, out, begin, end, left, right):
    """The same for every activation but softmax, or those that the tile shape's epilogue names."""
    rows, size = end - begin, right - left
    if size == saved.shape[1] and in_one_piece(saved) and in_one_piece(upstream) and in_one_piece(out):
        rows, size = min(rows, 1), rows * size
    skip = left * saved.itemsize
    for i in range(begin, begin + rows):
        differentiate(
            tile_shape,
            code,
            constants.ctypes.data,
            row_at(saved, i) + skip,
            row_at(upstream, i) + skip,
            row_at(out, i) + skip,
            size,
        )


@jit
def softmax_gradient(saved, upstream, out, begin, end):
    for i in range(begin, end):
        product = saved.dtype.type(0)
        for j in range(saved.shape[1]):
            product += upstream[i, j] * saved[i, j]
        for j in range(saved.shape[1]):
            out[i, j] = saved[i, j] * (upstream[i, j] - product)


@jit
def softmax_cross_entropy_labels(logits, labels, weights, gradient, rows, begin, end):
    n = logits.shape[0]
    one = logits.dtype.type(1)
    zero = logits.dtype.type(0)
    for i in range(begin, end):
        z = logits[i]
        best = first_largest(z)
        rows[0, i] = z[best] - z[labels[i]]
        rows[1, i] = one if best == labels[i] else zero
        subtract(z, z[best], gradient[i])
    exponentiate(gradient, begin, end)
    for i in range(begin, end):
        g = gradient[i]
        total = total_of(g)
        weight = weights[i] if weights.size else one
        rows[0, i] = weight * (np.log(total) + rows[0, i])
        factor = weight / (total * n)
        for j in range(g.size):
            g[j] *= factor
        g[labels[i]] -= weight / n


@jit
def softmax_cross_entropy_probabilities(logits, targets, weights, gradient, rows, begin, end):
    n, classes = logits.shape
    one = logits.dtype.type(1)
    zero = logits.dtype.type(0)
    for i in range(begin, end):
        z = logits[i]
        t = targets[i]
        best = first_largest(z)
        rows[1, i] = one if best == first_largest(t) else zero
        largest = z[best]
        product = zero
        for j in range(classes):
            product += t[j] * (z[j] - largest)
        rows[0, i] = product
        subtract(z, largest, gradient[i])
    exponentiate(gradient, begin, end)
    for i in range(begin, end):
        t = targets[i]
        g = gradient[i]
        mass = total_of(t)
        total = total_of(g)
        weight = weights[i] if weights.size else one
        rows[0, i] = weight * (mass * np.log(total) - rows[0, i])
        scale = mass / total
        factor = weight / n
        for j in range(classes):
            g[j] = factor * (g[j] * scale - t[j])


@as_written
def sigmoid_cross_entropy(logits, targets, weights, gradient, rows, begin, end):
    n, outputs = logits.shape
    one = logits.dtype.type(1)
    factor = np.empty(1)
    sums = np.empty(2, logits.dtype)
    for i in range(begin, end):
        weight = weights[i] if weights.size else one
        factor[0] = weight / (n * outputs)
        sigmoid_cross_entropy_row(
            tile_shape_of(logits),
            factor.ctypes.data,
            row_at(logits, i),
            row_at(targets, i),
            row_at(gradient, i),
            outputs,
            sums.ctypes.data,
        )
        rows[0, i] = weight * sums[0] / outputs
        rows[1, i] = sums[1] / outputs


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
        # The sum must not be in a loop that also writes: LLVM would compile that twice, and choose at run time by where
        # the arrays are in memory, so that the order of the additions, and the rounding, would depend on it.
        for j in range(features):
            g[j] = a[j] - t[j]
        loss = zero
        for j in range(features):
            loss += g[j] * g[j]
        for j in range(features):
            g[j] *= factor
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
def bias_gradient(delta, out, begin, end):
    """`begin` and `end` are a range of columns."""
    total = out[begin:end]
    for j in range(total.size):
        total[j] = 0
    for i in range(delta.shape[0]):
        row = delta[i, begin:end]
        for j in range(total.size):
            total[j] += row[j]


@as_written
def weight_penalty(weight, l1, l2, gradient):
    # `as_written`, because with fast-math flags the gradient differed between the process that compiled this and those
    # that loaded it. There are four partial sums each, so that an addition need not wait for the previous one.
    zero = weight.dtype.type(0)
    a0, a1, a2, a3 = 0.0, 0.0, 0.0, 0.0
    s0, s1, s2, s3 = 0.0, 0.0, 0.0, 0.0
    for i in range(weight.shape[0]):
        w = weight[i]
        g = gradient[i]
        for j in range(w.size):
            sign = l1 if w[j] > zero else (-l1 if w[j] < zero else zero)
            g[j] += sign + l2 * w[j]
        whole = w.size // 4 * 4
        for j in range(0, whole, 4):
            w0, w1, w2, w3 = np.float64(w[j]), np.float64(w[j + 1]), np.float64(w[j + 2]), np.float64(w[j + 3])
            a0 += abs(w0)
            a1 += abs(w1)
            a2 += abs(w2)
            a3 += abs(w3)
            s0 += w0 * w0
            s1 += w1 * w1
            s2 += w2 * w2
            s3 += w3 * w3
        for j in range(whole, w.size):
            w0 = np.float64(w[j])
            a0 += abs(w0)
            s0 += w0 * w0
    return l1 * ((a0 + a1) + (a2 + a3)) + 0.5 * l2 * ((s0 + s1) + (s2 + s3))


@jit
def prepare_update(rule, address, step, t, constants):
    """Write the constants that a rule of `updates.py` reads in a step of the epoch, the optimiser's step t, counted
    from 1. `UPDATE` is the record at the address."""
    u = at(UPDATE, address)
    rate = vector(u.learning_rates, u.steps, np.float64)[step]
    momentum = u.beta1 if rule in (ADAM, LION) else u.momentum
    if u.momenta:
        momentum = vector(u.momenta, u.steps, np.float64)[step]
    constants[0] = -rate
    constants[1] = u.weight_decay
    if rule == ADAM:
        beta1, beta2 = momentum, u.beta2
        constants[0] = -rate / (1 - beta1**t)
        constants[1] = (1 - beta2**t) ** -0.5
        constants[2], constants[3] = beta1, 1 - beta1
        constants[4], constants[5] = beta2, 1 - beta2
        constants[6] = u.epsilon
        constants[7] = (1 - u.decoupled) * u.weight_decay
        constants[8] = 1 - u.decoupled * rate * u.weight_decay
    elif rule == RMSPROP:
        constants[2], constants[3], constants[4] = u.decay, 1 - u.decay, u.epsilon
    elif rule == LION:
        constants[1] = 1 - rate * u.weight_decay
        constants[2], constants[3] = momentum, 1 - momentum
        constants[4], constants[5] = u.beta2, 1 - u.beta2
    elif rule != SGD:
        constants[2] = momentum


@as_written
def update_all(rule, constants, parameters, gradients, first, second):
    """An optimiser's step, with the `constants` that `prepare_update` writes."""
    record = np.empty(RECORD, np.int64)
    record[0] = constants.ctypes.data
    record[1] = distance(gradients, parameters)
    record[2] = distance(gradients, first)
    record[3] = distance(gradients, second)
    update(tile_shape_of(parameters), rule, record.ctypes.data, gradients.ctypes.data, parameters.size)


@internal
def distance(a, b):
    """Distance from a to b in elements."""
    return (b.ctypes.data - a.ctypes.data) // a.itemsize


#: Words that are drawn at once: enough for vectors, and few enough for the first cache.
_WORDS = 2048


@jit
def dropout(x, threshold, scale, key0, key1, stream, step, out, first_row, begin, end):
    columns = np.int64(x.shape[1])
    before = first_row * columns
    first = before + begin * columns
    last = before + end * columns
    factors = np.empty(min(_WORDS, last - first + 8), x.dtype)
    block = first // 4
    while 4 * block < last:
        blocks = min(factors.size // 4, (last + 3) // 4 - block)
        draw_factors(block, blocks, threshold, scale, key0, key1, stream, step, factors)
        # A block may begin or end in another thread's row.
        element, end_of_blocks = max(first, 4 * block), min(last, 4 * (block + blocks))
        while element < end_of_blocks:
            i = (element - before) // columns
            j = element - before - i * columns
            count = min(columns - j, end_of_blocks - element)
            offset = element - 4 * block
            for k in range(count):
                out[i, j + k] = x[i, j + k] * factors[offset + k]
            element += count
        block += blocks


@internal_as_written
def draw_factors(block, blocks, threshold, scale, key0, key1, stream, step, factors):
    """`scale` for the elements that are kept and 0 for the others, of the elements of some blocks."""
    zero, least = factors.dtype.type(0), np.uint64(threshold)
    for place in range(blocks):
        words = philox(block + place, stream, step, key0, key1)
        for k in range(4):
            factors[4 * place + k] = scale if words[k] >= least else zero
