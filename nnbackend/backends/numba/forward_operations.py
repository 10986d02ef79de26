"""Compiled functions of the forward half of a step: gathering, layers and losses. See `kinds.py`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from nnbackend.backends.numba import dense_products, kernels, normalization
from nnbackend.backends.numba.activations import PIECEWISE_LINEAR
from nnbackend.backends.numba.intrinsics import flush_subnormals
from nnbackend.backends.numba.kinds import COPIES, STATE, block, compiled, share
from nnbackend.backends.numba.memory import bits_of, counts, matrix, vector
from nnbackend.backends.numba.records import at
from nnbackend.backends.philox import keep_threshold

# ---- batch -----------------------------------------------------------------------------------------------------------


def _is_gather(dimensions, *dtypes):
    """Whether a call gathers arrays with this number of axes and this type without scaling."""

    def accepts(call):
        source, out = call.source, call.out
        return source.ndim == dimensions and source.dtype.name in dtypes and source.dtype == out.dtype

    return accepts


@compiled(
    "gather",
    accepts=lambda call: call.source.ndim == 2 and call.source.dtype == np.uint8 and call.out.dtype.kind == "f",
    work=lambda call: call.out.size,
    integers=COPIES,
)
def gather_bytes(tile_shape, real, record):
    scale = record.offset("scale")

    def gather(address, state, scratch):
        line, s = at(record, address), at(STATE, state)
        rows, columns = line.rows, line.features
        source, order = matrix(line.source, line.N, columns, np.uint8), counts(line.order, line.M)
        start, factor = s.place * line.batch_size, vector(address + scale, 1, np.float64)
        out = matrix(line.out + s.thread * line.copies, rows, columns, real)
        begin, end = share(rows, state)
        kernels.gather_bytes(source, order, start, factor, out, begin, end, 0, columns)
        if line.copies:
            # Of the other rows, what `weight_gradient` reads.
            left, right = share(columns, state)
            kernels.gather_bytes(source, order, start, factor, out, 0, begin, left, right)
            kernels.gather_bytes(source, order, start, factor, out, end, rows, left, right)

    return gather


@compiled(
    "gather",
    accepts=_is_gather(2, "float32", "float64"),
    work=lambda call: call.out.size,
    integers=COPIES,
)
def gather_rows(tile_shape, real, record):
    scale = record.offset("scale")

    def gather(address, state, scratch):
        line, s = at(record, address), at(STATE, state)
        rows, columns = line.rows, line.features
        source, order = matrix(line.source, line.N, columns, real), counts(line.order, line.M)
        start, factor = s.place * line.batch_size, vector(address + scale, 1, np.float64)
        out = matrix(line.out + s.thread * line.copies, rows, columns, real)
        begin, end = share(rows, state)
        kernels.gather_rows(source, order, start, factor, out, begin, end, 0, columns)
        if line.copies:
            # Of the other rows, what `weight_gradient` reads.
            left, right = share(columns, state)
            kernels.gather_rows(source, order, start, factor, out, 0, begin, left, right)
            kernels.gather_rows(source, order, start, factor, out, end, rows, left, right)

    return gather


@compiled("gather", accepts=_is_gather(1, "int32"), work=lambda call: call.out.size)
def gather_labels(tile_shape, real, record):
    return _gather_values(np.int32, record)


@compiled("gather", accepts=_is_gather(1, "float32", "float64"), work=lambda call: call.out.size)
def gather_values(tile_shape, real, record):
    return _gather_values(real, record)


def _gather_values(kind, record):
    def gather(address, state, scratch):
        line = at(record, address)
        source, order = vector(line.source, line.N, kind), counts(line.order, line.M)
        out = vector(line.out, line.rows, kind)
        begin, end = share(line.rows, state)
        start = at(STATE, state).place * line.batch_size
        kernels.gather_values(source, order, start, kind(line.scale), out, begin, end)

    return gather


# ---- forward ---------------------------------------------------------------------------------------------------------


@compiled(
    "dense_forward",
    work=lambda call: call.x.size * call.out.shape[1],
    integers=COPIES,
    is_product=True,
    calls_product=True,
)
def dense(tile_shape, real, record):
    """The product and the bias; an activation is a separate line."""
    size = tile_shape.size

    def dense(address, state, scratch):
        line = at(record, address)
        inner, columns = line.inputs, line.outputs
        begin, end, left, right = block(line.rows, columns, line.by_columns, tile_shape, state)
        x = line.x + at(STATE, state).thread * line.copies + begin * inner * size
        weight = line.weight + left * size
        bias = line.bias + left * size if line.bias else 0
        out = line.out + (begin * columns + left) * size
        dense_products.forward(
            line.product, x, inner, weight, columns, bias, out, columns, end - begin, right - left, inner
        )

    return dense


@compiled(
    "dense_forward",
    # Only where a predictor has copied the weight into panels.
    accepts=lambda call: False,
    work=lambda call: call.x.size * call.out.shape[1],
    integers={"checks": lambda call: call.arguments.get("checks", 0)},
    is_product=True,
    calls_product=True,
)
def dense_panels(tile_shape, real, record):
    """As `dense`, with a weight of panels; its array has the shape of the weight, but not its order.

    If `checks` is an address, not 0, it receives a 1 if a row of `x` may hold NaN or infinity. Any such number makes
    all sums of the row NaN or infinite, whatever the weights are, so one sum of a row tells.
    """
    size, tile = tile_shape.size, tile_shape.columns
    largest = real(np.finfo(real).max)

    def dense_panels(address, state, scratch):
        line = at(record, address)
        inner, columns = line.inputs, line.outputs
        begin, end, left, right = block(line.rows, columns, line.by_columns, tile_shape, state)
        x = line.x + begin * inner * size
        # Only the last panels are narrower than a tile.
        panels = line.weight + (left + tile - 1) // tile * tile * inner * size
        bias = line.bias + left * size if line.bias else 0
        out = line.out + (begin * columns + left) * size
        dense_products.forward_panels(
            line.product, tile, x, inner, panels, inner, bias, out, columns, end - begin, right - left, inner
        )
        if line.checks and right > left:
            sums, suspect = vector(out, (end - begin) * columns - left, real), False
            for row in range(end - begin):
                # Written so that NaN counts.
                suspect |= not abs(sums[row * columns]) <= largest
            if suspect:
                counts(line.checks, 1)[0] = 1

    return dense_panels


@compiled(
    "activation_forward",
    accepts=lambda call: call.activation in PIECEWISE_LINEAR,
    work=lambda call: 8 * call.z.size,
    follows="z",
)
def piecewise_activation(tile_shape, real, record):
    return activation(replace(tile_shape, epilogue="piecewise"), real, record)


@compiled(
    "activation_forward",
    accepts=lambda call: call.activation not in (*PIECEWISE_LINEAR, "softmax"),
    work=lambda call: 8 * call.z.size,
    follows="z",
)
def activation(tile_shape, real, record):
    alpha = record.offset("alpha")

    def activation(address, state, scratch):
        line = at(record, address)
        rows, columns = line.rows, line.features
        z, out = matrix(line.z, rows, columns, real), matrix(line.out, rows, columns, real)
        begin, end, left, right = block(rows, columns, line.by_columns, tile_shape, state)
        constants = vector(address + alpha, 1, np.float64)
        kernels.activate_block(tile_shape, z, line.activation, constants, out, begin, end, left, right)

    return activation


@compiled("activation_forward", accepts=lambda call: call.activation == "softmax", work=lambda call: 8 * call.z.size)
def softmax(tile_shape, real, record):
    def softmax(address, state, scratch):
        line = at(record, address)
        z, out = matrix(line.z, line.rows, line.features, real), matrix(line.out, line.rows, line.features, real)
        begin, end = share(line.rows, state)
        kernels.softmax(z, out, begin, end)

    return softmax


@compiled(
    "dropout",
    work=lambda call: 16 * call.x.size,
    integers={
        "threshold": lambda call: keep_threshold(call.rate),
        "key0": lambda call: call.seed & 0xFFFFFFFF,
        "key1": lambda call: (call.seed >> 32) & 0xFFFFFFFF,
    },
    reals={"factor": lambda call: 1 / (1 - call.rate)},
)
def dropout(tile_shape, real, record):
    def dropout(address, state, scratch):
        line = at(record, address)
        x, out = matrix(line.x, line.rows, line.features, real), matrix(line.out, line.rows, line.features, real)
        begin, end = share(line.rows, state)
        kernels.dropout(
            x, line.threshold, real(line.factor), line.key0, line.key1, line.stream, at(STATE, state).step,
            out, line.first_row, begin, end,
        )  # fmt: skip

    return dropout


@compiled("max_abs_norm", work=lambda call: 4 * call.x.size)
def max_abs_norm(tile_shape, real, record):
    def max_abs_norm(address, state, scratch):
        line = at(record, address)
        x, out = matrix(line.x, line.rows, line.features, real), matrix(line.out, line.rows, line.features, real)
        begin, end = share(line.rows, state)
        bits, sign_free = bits_of(x)
        # The divisors may be subnormal.
        flush_subnormals(False)
        normalization.max_abs_norm(x, bits, sign_free, out, begin, end)
        flush_subnormals(True)

    return max_abs_norm


# ---- loss ------------------------------------------------------------------------------------------------------------


@compiled(
    "softmax_cross_entropy",
    accepts=lambda call: call.targets.ndim == 1,
    work=lambda call: 16 * call.logits.size,
)
def softmax_cross_entropy_labels(tile_shape, real, record):
    def loss(address, state, scratch):
        line = at(record, address)
        n, classes = line.n, line.classes
        logits, gradient = matrix(line.logits, n, classes, real), matrix(line.gradient, n, classes, real)
        labels, weights = vector(line.targets, n, np.int32), vector(line.weights, n if line.weights else 0, real)
        row_losses = matrix(line.row_losses, 2, n, real)
        begin, end = share(n, state)
        kernels.softmax_cross_entropy_labels(logits, labels, weights, gradient, row_losses, begin, end)

    return loss


@compiled(
    "softmax_cross_entropy",
    accepts=lambda call: call.targets.ndim == 2,
    work=lambda call: 16 * call.logits.size,
)
def softmax_cross_entropy_probabilities(tile_shape, real, record):
    def loss(address, state, scratch):
        line = at(record, address)
        n, classes = line.n, line.classes
        logits, gradient = matrix(line.logits, n, classes, real), matrix(line.gradient, n, classes, real)
        targets, weights = matrix(line.targets, n, classes, real), vector(line.weights, n if line.weights else 0, real)
        row_losses = matrix(line.row_losses, 2, n, real)
        begin, end = share(n, state)
        kernels.softmax_cross_entropy_probabilities(logits, targets, weights, gradient, row_losses, begin, end)

    return loss


@compiled("sigmoid_cross_entropy", work=lambda call: 16 * call.logits.size)
def sigmoid_cross_entropy(tile_shape, real, record):
    def loss(address, state, scratch):
        line = at(record, address)
        n, outputs = line.n, line.outputs
        logits, gradient = matrix(line.logits, n, outputs, real), matrix(line.gradient, n, outputs, real)
        targets, weights = matrix(line.targets, n, outputs, real), vector(line.weights, n if line.weights else 0, real)
        row_losses = matrix(line.row_losses, 2, n, real)
        begin, end = share(n, state)
        kernels.sigmoid_cross_entropy(logits, targets, weights, gradient, row_losses, begin, end)

    return loss


@compiled("mean_squared_error", work=lambda call: 16 * call.gradient.size)
def mean_squared_error(tile_shape, real, record):
    def loss(address, state, scratch):
        line = at(record, address)
        n, columns = line.n, line.outputs_count
        outputs, gradient = matrix(line.outputs, n, columns, real), matrix(line.gradient, n, columns, real)
        targets, weights = matrix(line.targets, n, columns, real), vector(line.weights, n if line.weights else 0, real)
        row_losses = matrix(line.row_losses, 2, n, real)
        begin, end = share(n, state)
        kernels.mean_squared_error(outputs, targets, weights, gradient, row_losses, begin, end)

    return loss


@compiled("record_loss", work=lambda call: 2 * call.row_losses.size)
def record_loss(tile_shape, real, record):
    def record_loss(address, state, scratch):
        s = at(STATE, state)
        if s.thread == 0:
            line = at(record, address)
            row_losses = matrix(line.row_losses, 2, line.n, real)
            penalties = vector(line.penalties, line.penalties_count, real)
            kernels.record_loss(row_losses, penalties, s.place, matrix(line.trace, line.steps, 3, np.float64))

    return record_loss
