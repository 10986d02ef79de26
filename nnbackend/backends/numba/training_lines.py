"""Compiled functions for more losses, for metrics and for clipping. See `kinds.py`."""

from __future__ import annotations

import numpy as np

from nnbackend.backends.numba import loss_kernels
from nnbackend.backends.numba.kinds import STATE, compiled, share
from nnbackend.backends.numba.memory import matrix, vector
from nnbackend.backends.numba.records import at


@compiled("elementwise_loss", work=lambda call: 64 * call.outputs.size)
def elementwise_loss(tile_shape, real, record):
    def loss(address, state, scratch):
        line = at(record, address)
        n, columns = line.n, line.columns
        outputs, gradient = matrix(line.outputs, n, columns, real), matrix(line.gradient, n, columns, real)
        targets, weights = matrix(line.targets, n, columns, real), vector(line.weights, n if line.weights else 0, real)
        parameters, row_losses = vector(line.parameters, columns, real), matrix(line.row_losses, 2, n, real)
        begin, end = share(n, state)
        loss_kernels.elementwise_loss(
            outputs, targets, weights, line.loss, parameters, gradient, row_losses, begin, end
        )

    return loss


@compiled("focal_rows", work=lambda call: 2 * call.gradient.size + 64 * len(call.gradient))
def focal_rows(tile_shape, real, record):
    def focal_rows(address, state, scratch):
        line = at(record, address)
        n, classes = line.n, line.classes
        gradient, row_losses = matrix(line.gradient, n, classes, real), matrix(line.row_losses, 2, n, real)
        weights = vector(line.weights, n if line.weights else 0, real)
        begin, end = share(n, state)
        loss_kernels.focal_rows(weights, line.gamma, gradient, row_losses, begin, end)

    return focal_rows


@compiled("smooth_labels", work=lambda call: call.out.size, integers={"by_label": lambda call: call.targets.ndim == 1})
def smooth_labels(tile_shape, real, record):
    def smooth_labels(address, state, scratch):
        line = at(record, address)
        rows, columns = line.rows, line.columns
        labels = vector(line.targets, rows if line.by_label else 0, np.int32)
        targets = matrix(line.targets, 0 if line.by_label else rows, columns, real)
        out = matrix(line.out, rows, columns, real)
        begin, end = share(rows, state)
        loss_kernels.smooth_labels(labels, targets, line.smoothing, line.uniform, out, begin, end)

    return smooth_labels


@compiled("store_rows", work=lambda call: call.source.size)
def store_rows(tile_shape, real, record):
    def store_rows(address, state, scratch):
        s = at(STATE, state)
        if s.thread == 0:
            line = at(record, address)
            rows, columns = line.rows, line.columns
            source, out = matrix(line.source, rows, columns, real), matrix(line.out, line.N, columns, real)
            loss_kernels.store_rows(source, s.place * line.batch_size, out)

    return store_rows


@compiled("square_sum", work=lambda call: call.gradients.size)
def square_sum(tile_shape, real, record):
    def square_sum(address, state, scratch):
        # One thread, so that the order of the sum does not depend on their number.
        if at(STATE, state).thread == 0:
            line = at(record, address)
            loss_kernels.square_sum(vector(line.gradients, line.size, real), vector(line.squares, 1, np.float64))

    return square_sum


@compiled("clip_norm", work=lambda call: call.gradients.size)
def clip_norm(tile_shape, real, record):
    def clip_norm(address, state, scratch):
        line = at(record, address)
        gradients, squares = vector(line.gradients, line.size, real), vector(line.squares, 1, np.float64)
        begin, end = share(line.size, state)
        loss_kernels.clip_norm(squares[0], line.norm, gradients, begin, end)

    return clip_norm


@compiled("clip_value", work=lambda call: call.gradients.size)
def clip_value(tile_shape, real, record):
    def clip_value(address, state, scratch):
        line = at(record, address)
        begin, end = share(line.size, state)
        loss_kernels.clip_value(line.value, vector(line.gradients, line.size, real), begin, end)

    return clip_value


@compiled("blend", work=lambda call: call.out.size)
def blend(tile_shape, real, record):
    def blend(address, state, scratch):
        line = at(record, address)
        begin, end = share(line.size, state)
        taken = line.share
        if line.shares:
            taken = vector(line.shares, line.steps, np.float64)[at(STATE, state).place]
        source, out = vector(line.source, line.size, real), vector(line.out, line.size, real)
        loss_kernels.blend(source, taken, out, begin, end)

    return blend
