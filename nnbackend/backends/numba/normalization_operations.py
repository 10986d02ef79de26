"""Compiled functions of batch and layer normalisation, and of learned factors. See `kinds.py`."""

from __future__ import annotations

import numpy as np

from nnbackend.backends.numba import normalization
from nnbackend.backends.numba.kinds import SCRATCH, compiled, share
from nnbackend.backends.numba.memory import matrix, vector
from nnbackend.backends.numba.records import at


def _column_bytes(call):
    """Two float64 for each column."""
    return 16 * call.x.shape[1]


@compiled("batch_norm", work=lambda call: 8 * call.x.size, scratch=_column_bytes)
def batch_norm(tile_shape, real, record):
    def batch_norm(address, state, scratch):
        line = at(record, address)
        rows, columns = line.rows, line.features
        begin, end = share(columns, state)
        if begin < end:
            normalization.batch_norm(
                matrix(line.x, rows, columns, real),
                vector(line.scale, columns if line.scale else 0, real),
                vector(line.shift, columns if line.shift else 0, real),
                line.momentum,
                line.epsilon,
                vector(line.running_mean, columns, real),
                vector(line.running_variance, columns, real),
                matrix(line.statistics, 2, columns, real),
                matrix(line.out, rows, columns, real),
                matrix(scratch + SCRATCH, 2, columns, np.float64),
                begin,
                end,
            )

    return batch_norm


@compiled("batch_norm_gradient", work=lambda call: 8 * call.x.size, scratch=_column_bytes)
def batch_norm_gradient(tile_shape, real, record):
    def batch_norm_gradient(address, state, scratch):
        line = at(record, address)
        rows, columns = line.rows, line.features
        begin, end = share(columns, state)
        if begin < end:
            normalization.batch_norm_gradient(
                matrix(line.x, rows, columns, real),
                matrix(line.statistics, 2, columns, real),
                vector(line.scale, columns if line.scale else 0, real),
                matrix(line.upstream, rows, columns, real),
                vector(line.scale_gradient, columns if line.scale_gradient else 0, real),
                vector(line.shift_gradient, columns if line.shift_gradient else 0, real),
                matrix(line.out, rows, columns, real),
                matrix(scratch + SCRATCH, 2, columns, np.float64),
                begin,
                end,
            )

    return batch_norm_gradient


@compiled("normalize", work=lambda call: 4 * call.x.size, scratch=_column_bytes)
def normalize(tile_shape, real, record):
    def normalize(address, state, scratch):
        line = at(record, address)
        rows, columns = line.rows, line.features
        begin, end = share(rows, state)
        normalization.normalize(
            matrix(line.x, rows, columns, real),
            vector(line.mean, columns if line.mean else 0, real),
            vector(line.variance, columns, real),
            vector(line.scale, columns if line.scale else 0, real),
            vector(line.shift, columns if line.shift else 0, real),
            line.epsilon,
            matrix(line.out, rows, columns, real),
            matrix(scratch + SCRATCH, 2, columns, real),
            begin,
            end,
        )

    return normalize


@compiled("layer_norm", work=lambda call: 8 * call.x.size)
def layer_norm(tile_shape, real, record):
    def layer_norm(address, state, scratch):
        line = at(record, address)
        rows, columns = line.rows, line.features
        begin, end = share(rows, state)
        normalization.layer_norm(
            matrix(line.x, rows, columns, real),
            vector(line.scale, columns if line.scale else 0, real),
            vector(line.shift, columns if line.shift else 0, real),
            line.epsilon,
            matrix(line.statistics, rows, 2, real),
            matrix(line.out, rows, columns, real),
            begin,
            end,
        )

    return layer_norm


@compiled("layer_norm_gradient", work=lambda call: 8 * call.x.size)
def layer_norm_gradient(tile_shape, real, record):
    def layer_norm_gradient(address, state, scratch):
        line = at(record, address)
        rows, columns = line.rows, line.features
        begin, end = share(rows, state)
        normalization.layer_norm_gradient(
            matrix(line.x, rows, columns, real),
            matrix(line.statistics, rows, 2, real),
            vector(line.scale, columns if line.scale else 0, real),
            matrix(line.upstream, rows, columns, real),
            matrix(line.out, rows, columns, real),
            begin,
            end,
        )

    return layer_norm_gradient


@compiled("layer_norm_scale_gradient", work=lambda call: 4 * call.x.size, scratch=_column_bytes)
def layer_norm_scale_gradient(tile_shape, real, record):
    def layer_norm_scale_gradient(address, state, scratch):
        line = at(record, address)
        rows, columns = line.rows, line.features
        begin, end = share(columns, state)
        if begin < end:
            normalization.layer_norm_scale_gradient(
                matrix(line.x, rows, columns, real),
                matrix(line.statistics, rows, 2, real),
                matrix(line.upstream, rows, columns, real),
                vector(line.scale_gradient, columns, real),
                matrix(scratch + SCRATCH, 2, columns, np.float64),
                begin,
                end,
            )

    return layer_norm_scale_gradient


@compiled("scale_columns", work=lambda call: call.x.size)
def scale_columns(tile_shape, real, record):
    def scale_columns(address, state, scratch):
        line = at(record, address)
        rows, columns = line.rows, line.features
        x, out = matrix(line.x, rows, columns, real), matrix(line.out, rows, columns, real)
        begin, end = share(rows, state)
        normalization.scale_columns(x, vector(line.scale, columns, real), out, begin, end)

    return scale_columns


@compiled("scale_columns_gradient", work=lambda call: 2 * call.x.size, scratch=_column_bytes)
def scale_columns_gradient(tile_shape, real, record):
    def scale_columns_gradient(address, state, scratch):
        line = at(record, address)
        rows, columns = line.rows, line.features
        begin, end = share(columns, state)
        if begin < end:
            normalization.scale_columns_gradient(
                matrix(line.x, rows, columns, real),
                matrix(line.upstream, rows, columns, real),
                vector(line.scale_gradient, columns, real),
                vector(scratch + SCRATCH, columns, np.float64),
                begin,
                end,
            )

    return scale_columns_gradient
