"""Compiled functions of layers on tables. See `kinds.py`."""

from __future__ import annotations

import numpy as np

from nnbackend.backends.numba import tables
from nnbackend.backends.numba.kinds import SCRATCH, compiled, share
from nnbackend.backends.numba.memory import matrix, vector
from nnbackend.backends.numba.records import at


@compiled("mix_columns", work=lambda call: 2 * call.x.size)
def mix_columns(tile_shape, real, record):
    def mix_columns(address, state, scratch):
        line = at(record, address)
        rows, columns = line.rows, line.features
        begin, end = share(rows, state)
        tables.mix_columns(
            matrix(line.x, rows, columns, real),
            matrix(line.activated, rows, columns, real),
            vector(line.share, columns, real),
            matrix(line.out, rows, columns, real),
            begin,
            end,
        )

    return mix_columns


@compiled("mix_columns_gradient", work=lambda call: 3 * call.x.size, scratch=lambda call: 8 * call.x.shape[1])
def mix_columns_gradient(tile_shape, real, record):
    def mix_columns_gradient(address, state, scratch):
        line = at(record, address)
        rows, columns = line.rows, line.features
        begin, end = share(columns, state)
        if begin < end:
            tables.mix_columns_gradient(
                matrix(line.x, rows, columns, real),
                matrix(line.activated, rows, columns, real),
                matrix(line.upstream, rows, columns, real),
                vector(line.share_gradient, columns, real),
                vector(scratch + SCRATCH, columns, np.float64),
                begin,
                end,
            )

    return mix_columns_gradient


@compiled("embed_columns", work=lambda call: call.out.size)
def embed_columns(tile_shape, real, record):
    def embed_columns(address, state, scratch):
        line = at(record, address)
        rows, embedded = line.rows, line.embedded
        begin, end = share(rows, state)
        tables.embed_columns(
            matrix(line.x, rows, line.features, real),
            matrix(line.vectors, embedded * line.categories, line.units, real),
            embedded,
            matrix(line.out, rows, line.outputs, real),
            begin,
            end,
        )

    return embed_columns


@compiled(
    "embed_columns_gradient",
    work=lambda call: 2 * (call.upstream.size + call.vectors_gradient.size),
    scratch=lambda call: 8 * call.vectors_gradient[0].size,
)
def embed_columns_gradient(tile_shape, real, record):
    def embed_columns_gradient(address, state, scratch):
        line = at(record, address)
        rows, embedded, categories, units = line.rows, line.embedded, line.categories, line.units
        begin, end = share(embedded, state)
        if begin < end:
            tables.embed_columns_gradient(
                matrix(line.x, rows, line.features, real),
                matrix(line.upstream, rows, line.outputs, real),
                matrix(line.vectors_gradient, embedded * categories, units, real),
                embedded,
                matrix(scratch + SCRATCH, categories, units, np.float64),
                begin,
                end,
            )

    return embed_columns_gradient


@compiled("periodic_columns", work=lambda call: len(call.x) * (20 * call.phases.size + 2 * call.weight.size))
def periodic_columns(tile_shape, real, record):
    def periodic_columns(address, state, scratch):
        line = at(record, address)
        rows, embedded, waves, units = line.rows, line.embedded, line.waves, line.units
        begin, end = share(rows, state)
        tables.periodic_columns(
            matrix(line.x, rows, line.features, real),
            matrix(line.frequencies, embedded, waves, real),
            matrix(line.phases, embedded, waves, real),
            matrix(line.weight, embedded * waves, units, real),
            matrix(line.bias, embedded, units, real),
            matrix(line.cosines, rows if line.cosines else 0, embedded * waves, real),
            matrix(line.sines, rows if line.sines else 0, embedded * waves, real),
            matrix(line.out, rows, line.outputs, real),
            begin,
            end,
        )

    return periodic_columns


def _sum_bytes(call):
    """A float64 for each parameter of a column, and a few more."""
    _, waves, units = call.weight.shape
    return 8 * (units + 2) * (waves + 1)


@compiled("periodic_columns_gradient", work=lambda call: 4 * len(call.x) * call.weight.size, scratch=_sum_bytes)
def periodic_columns_gradient(tile_shape, real, record):
    def periodic_columns_gradient(address, state, scratch):
        line = at(record, address)
        rows, embedded, waves, units = line.rows, line.embedded, line.waves, line.units
        begin, end = share(embedded, state)
        if begin < end:
            tables.periodic_columns_gradient(
                matrix(line.x, rows, line.features, real),
                matrix(line.cosines, rows, line.terms, real),
                matrix(line.sines, rows, line.terms, real),
                matrix(line.upstream, rows, line.outputs, real),
                matrix(line.weight, embedded * waves, units, real),
                matrix(line.frequencies_gradient, embedded, waves, real),
                matrix(line.phases_gradient, embedded, waves, real),
                matrix(line.weight_gradient, embedded * waves, units, real),
                matrix(line.bias_gradient, embedded, units, real),
                matrix(scratch + SCRATCH, units + 2, waves + 1, np.float64),
                begin,
                end,
            )

    return periodic_columns_gradient


@compiled("periodic_columns_input_gradient", work=lambda call: 3 * len(call.out) * call.weight.size)
def periodic_columns_input_gradient(tile_shape, real, record):
    def periodic_columns_input_gradient(address, state, scratch):
        line = at(record, address)
        rows, embedded, waves, units = line.rows, line.embedded, line.waves, line.units
        begin, end = share(rows, state)
        tables.periodic_columns_input_gradient(
            matrix(line.sines, rows, line.terms, real),
            matrix(line.upstream, rows, line.outputs, real),
            matrix(line.frequencies, embedded, waves, real),
            matrix(line.weight, embedded * waves, units, real),
            matrix(line.out, rows, line.features, real),
            begin,
            end,
        )

    return periodic_columns_input_gradient
