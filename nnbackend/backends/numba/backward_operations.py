"""Compiled functions of the backward half of a step: gradients, penalties and updates. See `kinds.py`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from nnbackend.backends.numba import dense_products, kernels, normalization
from nnbackend.backends.numba.activations import PIECEWISE_LINEAR
from nnbackend.backends.numba.elementwise import update_vectors
from nnbackend.backends.numba.intrinsics import flush_subnormals
from nnbackend.backends.numba.jit import internal_as_written
from nnbackend.backends.numba.kinds import COPIES, STATE, block, compiled, share
from nnbackend.backends.numba.memory import bits_of, counts, matrix, vector
from nnbackend.backends.numba.records import INTEGER, Record, at
from nnbackend.backends.numba.updates import CONSTANTS, RECORD, RULES, UPDATE

# ---- backward --------------------------------------------------------------------------------------------------------


@compiled(
    "activation_gradient",
    accepts=lambda call: call.activation in PIECEWISE_LINEAR,
    work=lambda call: 4 * call.saved.size,
    follows="upstream",
)
def piecewise_gradient(tile_shape, real, record):
    return activation_gradient(replace(tile_shape, epilogue="piecewise"), real, record)


@compiled(
    "activation_gradient",
    accepts=lambda call: call.activation not in (*PIECEWISE_LINEAR, "softmax"),
    work=lambda call: 4 * call.saved.size,
    follows="upstream",
)
def activation_gradient(tile_shape, real, record):
    alpha = record.offset("alpha")

    def activation_gradient(address, state, scratch):
        line = at(record, address)
        rows, columns = line.rows, line.features
        saved, upstream = matrix(line.saved, rows, columns, real), matrix(line.upstream, rows, columns, real)
        out, constants = matrix(line.out, rows, columns, real), vector(address + alpha, 1, np.float64)
        begin, end, left, right = block(rows, columns, line.by_columns, tile_shape, state)
        kernels.differentiate_block(
            tile_shape, saved, line.activation, constants, upstream, out, begin, end, left, right
        )

    return activation_gradient


@compiled(
    "activation_gradient",
    accepts=lambda call: call.activation == "softmax",
    work=lambda call: 4 * call.saved.size,
)
def softmax_gradient(tile_shape, real, record):
    def softmax_gradient(address, state, scratch):
        line = at(record, address)
        rows, columns = line.rows, line.features
        saved, upstream = matrix(line.saved, rows, columns, real), matrix(line.upstream, rows, columns, real)
        begin, end = share(rows, state)
        kernels.softmax_gradient(saved, upstream, matrix(line.out, rows, columns, real), begin, end)

    return softmax_gradient


@compiled("max_abs_norm_gradient", work=lambda call: 8 * call.x.size)
def max_abs_norm_gradient(tile_shape, real, record):
    def max_abs_norm_gradient(address, state, scratch):
        line = at(record, address)
        rows, columns = line.rows, line.features
        x, upstream = matrix(line.x, rows, columns, real), matrix(line.upstream, rows, columns, real)
        out = matrix(line.out, rows, columns, real)
        begin, end = share(rows, state)
        bits, sign_free = bits_of(x)
        flush_subnormals(False)
        normalization.max_abs_norm_gradient(x, bits, sign_free, upstream, out, begin, end)
        flush_subnormals(True)

    return max_abs_norm_gradient


@compiled(
    "dense_input_gradient", work=lambda call: call.delta.size * call.out.shape[1], is_product=True, calls_product=True
)
def input_gradient(tile_shape, real, record):
    size = tile_shape.size

    def input_gradient(address, state, scratch):
        line = at(record, address)
        columns, inner = line.inputs, line.outputs
        begin, end, left, right = block(line.rows, columns, line.by_columns, tile_shape, state)
        delta = line.delta + begin * inner * size
        weight = line.weight + left * inner * size
        out = line.out + (begin * columns + left) * size
        dense_products.input_gradient(
            line.product, delta, inner, weight, inner, out, columns, end - begin, right - left, inner
        )

    return input_gradient


@compiled(
    "dense_weight_gradient",
    work=lambda call: call.x.size * call.out.shape[1],
    integers=COPIES,
    follows="delta",
    updates=True,
    calls_product=True,
)
def weight_gradient(tile_shape, real, record):
    """Shares are rows and columns of the weights."""
    size, rule = tile_shape.size, rule_code(tile_shape)

    def weight_gradient(address, state, scratch):
        line = at(record, address)
        rows, columns = line.inputs, line.outputs
        arrays = prepare(rule, line.update, state, scratch) if rule >= 0 else 0
        begin, end, left, right = block(rows, columns, line.by_columns, tile_shape, state)
        x = line.x + at(STATE, state).thread * line.copies + begin * size
        delta = line.delta + left * size
        out = line.out + (begin * columns + left) * size
        dense_products.weight_gradient(
            line.product, line.partial_product, arrays, x, rows, delta, columns, out, columns,
            end - begin, right - left, line.rows,
        )  # fmt: skip

    return weight_gradient


@compiled("bias_gradient", work=lambda call: call.delta.size, follows="delta", updates=True)
def bias_gradient(tile_shape, real, record):
    size, rule = tile_shape.size, rule_code(tile_shape)

    def bias_gradient(address, state, scratch):
        line = at(record, address)
        rows, columns = line.rows, line.outputs
        delta, out = matrix(line.delta, rows, columns, real), vector(line.out, columns, real)
        if line.by_columns:
            _, _, left, right = block(rows, columns, 1, tile_shape, state)
        else:
            left, right = share(columns, state)
        kernels.bias_gradient(delta, out, left, right)
        if rule >= 0:
            arrays = prepare(rule, line.update, state, scratch)
            update_vectors(tile_shape, arrays, line.out + left * size, right - left)

    return bias_gradient


@compiled(
    "weight_penalty",
    work=lambda call: 4 * call.weight.size,
    # A vector counts as one row.
    integers={
        "rows": lambda call: call.weight.size // call.weight.shape[-1],
        "columns": lambda call: call.weight.shape[-1],
    },
)
def weight_penalty(tile_shape, real, record):
    def weight_penalty(address, state, scratch):
        if at(STATE, state).thread == 0:
            line = at(record, address)
            weight = matrix(line.weight, line.rows, line.columns, real)
            gradient = matrix(line.gradient, line.rows, line.columns, real)
            value = kernels.weight_penalty(weight, real(line.l1), real(line.l2), gradient)
            vector(line.penalties, line.penalties_count, real)[line.slot] = value

    return weight_penalty


# ---- update ----------------------------------------------------------------------------------------------------------


@compiled(
    "sgd_update",
    "adam_update",
    "rmsprop_update",
    "lion_update",
    work=lambda call: 8 * call.gradients.size,
    record=Record.of("update_parameters", gradients=INTEGER, size=INTEGER, update=INTEGER),
)
def update_parameters(tile_shape, real, record):
    """Update the flat buffers, or part of them."""
    size, rule = tile_shape.size, rule_code(tile_shape)

    def update_parameters(address, state, scratch):
        line = at(record, address)
        begin, end = share(line.size, state)
        arrays = prepare(rule, line.update, state, scratch)
        update_vectors(tile_shape, arrays, line.gradients + begin * size, end - begin)

    return update_parameters


def rule_code(tile_shape):
    """The rule of the update at the end of a line; -1 if there is none."""
    return next((code for code, rule in enumerate(RULES) if rule.name == tile_shape.epilogue), -1)


@internal_as_written
def prepare(rule, address, state, scratch):
    """Write this step's constants of an update to `scratch`, and return the address of its record of arrays.

    `address` is that of a record `UPDATE`.
    """
    s, u = at(STATE, state), at(UPDATE, address)
    constants, arrays = vector(scratch, CONSTANTS, np.float64), counts(scratch + 8 * CONSTANTS, RECORD)
    kernels.prepare_update(rule, address, s.place, s.update + 1, constants)
    arrays[0], arrays[1], arrays[2], arrays[3] = scratch, u.to_parameters, u.to_first, u.to_second
    return scratch + 8 * CONSTANTS
