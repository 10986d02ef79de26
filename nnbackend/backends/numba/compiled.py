"""What the lines of a program do: one function for each, which computes a thread's share of it.

A function is compiled when a program first needs it, for the type of the network, and kept on disk. The epoch function
knows only its address. All have the same arguments, which are addresses:

* `address`: the line's record, which has the names of the operation's declaration; see :func:`declared_record`.
* `state`: the calling thread's, a record `STATE`.
* `scratch`: `SCRATCH` bytes of temporary memory.

Arrays have no gaps between rows. Threads share the rows of a batch, or parts of a result. Each element is computed by
one thread, in an order that does not depend on which.

To compile another operation, write its function here under the decorator :func:`compiled`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numba import types

from nnbackend.backends.declaration import Call
from nnbackend.backends.numba import kernels, normalization, tiled
from nnbackend.backends.numba.elementwise import update_vectors
from nnbackend.backends.numba.intrinsics import flush_subnormals
from nnbackend.backends.numba.jit import as_written, compile_callback
from nnbackend.backends.numba.lines import LineKind, declared_record
from nnbackend.backends.numba.memory import bits_of, counts, matrix, vector
from nnbackend.backends.numba.records import INTEGER, REAL, Record, at
from nnbackend.backends.numba.tiling import FLOAT32, FLOAT64
from nnbackend.backends.numba.updates import CONSTANTS, RECORD, RULES, UPDATE
from nnbackend.backends.philox import keep_threshold

__all__ = ["KINDS", "SCRATCH", "STATE", "address_of", "compiled", "kind_of"]

#: The state of a thread: the step of the epoch, of the network and of the optimiser, as in the counter; which thread it
#: is, and how many there are.
STATE = Record.of("state", place=INTEGER, step=INTEGER, update=INTEGER, thread=INTEGER, threads=INTEGER)

#: Bytes for an optimiser's constants and where it finds its arrays.
SCRATCH = 8 * (CONSTANTS + RECORD)

#: Every compiled function by name.
KINDS: dict[str, LineKind] = {}


def kind_of(call: Call) -> LineKind | None:
    """The compiled function for a call; None if there is none."""
    for kind in _by_operation().get(call.operation, ()):
        if kind.accepts(call):
            return kind
    return None


@functools.cache
def _by_operation() -> dict[str, list[LineKind]]:
    found: dict[str, list[LineKind]] = {}
    for kind in KINDS.values():
        for operation in kind.operations:
            found.setdefault(operation, []).append(kind)
    return found


def address_of(name: str, dtype: np.dtype[Any], rule: int | None = None) -> int:
    """Address of a compiled function, which is valid as long as the process lives.

    Parameters
    ----------
    name : str
        A key of `KINDS`.
    dtype : numpy dtype
        float32 or float64.
    rule : int, optional
        The optimiser's, of `updates.py`, if the line ends with an update.
    """
    address: int = _compiled(name, dtype, rule).address
    return address


@functools.cache
def _compiled(name: str, dtype: np.dtype[Any], rule: int | None) -> Any:
    tiling = FLOAT32 if dtype == np.float32 else FLOAT64
    if rule is not None:
        tiling = replace(tiling, epilogue=RULES[rule].name)
    kind = KINDS[name]
    function = kind.make(tiling, dtype.type, kind.record)
    # The name tells the files on disk apart.
    function.__qualname__ = f"{name}[{dtype}, {tiling.epilogue}]"
    return compile_callback(function, types.void(*[types.intp] * 3))


def compiled(
    *operations: str,
    work: Callable[[Call], int],
    accepts: Callable[[Call], bool] = lambda call: True,
    integers: Mapping[str, Callable[[Call], int]] | None = None,
    reals: Mapping[str, Callable[[Call], float]] | None = None,
    follows: str = "",
    is_product: bool = False,
    updates: bool = False,
    record: Record | None = None,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a maker of compiled functions, called as ``make(tiling, real, record)``.

    Parameters
    ----------
    *operations : str
        The operation of the contract that it computes, or several with the same record.
    work, accepts, follows, is_product
        As in `LineKind`.
    integers, reals : dict of callable
        Fields of the record besides those of the declaration, from the call.
    updates : bool
        Whether the line may end with an update: its record then has the address of a record `UPDATE`, or 0.
    record : Record, optional
        In place of the one that follows from the declaration.
    """
    integers, reals = integers or {}, reals or {}
    more = [*((name, INTEGER) for name in integers), *((name, REAL) for name in reals)]
    if updates:
        more.append(("update", INTEGER))

    def register(make: Callable[..., Any]) -> Callable[..., Any]:
        name = make.__name__
        chosen = record or declared_record(operations[0], *more)
        KINDS[name] = LineKind(
            name, operations, chosen, make, accepts, {**integers, **reals}, work, follows, is_product
        )
        return make

    return register


# ---- shares ----------------------------------------------------------------------------------------------------------


@as_written
def share(size, state):
    """A thread's part of `size` things: the first, and the one behind the last."""
    s = at(STATE, state)
    return size * s.thread // s.threads, size * (s.thread + 1) // s.threads


@as_written
def block(rows, columns, by_columns, tile, state):
    """A thread's part of a matrix: from which row to which, and from which column to which.

    Columns are split into widths of a tile, so that only the last is narrow.
    """
    if by_columns:
        begin, end = share((columns + tile - 1) // tile, state)
        return 0, rows, begin * tile, min(end * tile, columns)
    begin, end = share(rows, state)
    return begin, end, 0, columns


# ---- batch -----------------------------------------------------------------------------------------------------------


def _is_gather(dimensions, *dtypes):
    """Whether a call gathers arrays with that many axes and of such a type, as they are."""

    def accepts(call):
        source, out = call.source, call.out
        return source.ndim == dimensions and source.dtype.name in dtypes and source.dtype == out.dtype

    return accepts


@compiled(
    "gather",
    accepts=lambda call: call.source.ndim == 2 and call.source.dtype == np.uint8 and call.out.dtype.kind == "f",
    work=lambda call: call.out.size,
)
def gather_bytes(tiling, real, record):
    scale = record.offset("scale")

    def gather(address, state, scratch):
        line = at(record, address)
        source = matrix(line.source, line.N, line.features, np.uint8)
        order, out = counts(line.order, line.M), matrix(line.out, line.rows, line.features, real)
        begin, end = share(line.rows, state)
        start = at(STATE, state).place * line.batch_size
        kernels.gather_bytes(source, order, start, vector(address + scale, 1, np.float64), out, begin, end)

    return gather


@compiled("gather", accepts=_is_gather(2, "float32", "float64"), work=lambda call: call.out.size)
def gather_rows(tiling, real, record):
    def gather(address, state, scratch):
        line = at(record, address)
        source = matrix(line.source, line.N, line.features, real)
        order, out = counts(line.order, line.M), matrix(line.out, line.rows, line.features, real)
        begin, end = share(line.rows, state)
        start = at(STATE, state).place * line.batch_size
        kernels.gather_rows(source, order, start, real(line.scale), out, begin, end)

    return gather


@compiled("gather", accepts=_is_gather(1, "int32"), work=lambda call: call.out.size)
def gather_labels(tiling, real, record):
    return _gather_values(np.int32, record)


@compiled("gather", accepts=_is_gather(1, "float32", "float64"), work=lambda call: call.out.size)
def gather_values(tiling, real, record):
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


@compiled("dense_forward", work=lambda call: call.x.size * call.out.shape[1], is_product=True)
def dense(tiling, real, record):
    """The product and the bias; an activation is a line of its own."""
    size, tile = tiling.size, tiling.columns

    def dense(address, state, scratch):
        line = at(record, address)
        inner, columns = line.inputs, line.outputs
        begin, end, left, right = block(line.rows, columns, line.by_columns, tile, state)
        x = line.x + begin * inner * size
        weight = line.weight + left * size
        bias = line.bias + left * size if line.bias else 0
        out = line.out + (begin * columns + left) * size
        tiled.forward(tiling, x, inner, weight, columns, bias, out, columns, end - begin, right - left, inner)

    return dense


@compiled(
    "activation_forward",
    accepts=lambda call: call.activation != "softmax",
    work=lambda call: 8 * call.z.size,
    follows="z",
)
def activation(tiling, real, record):
    tile, alpha = tiling.columns, record.offset("alpha")

    def activation(address, state, scratch):
        line = at(record, address)
        rows, columns = line.rows, line.features
        z, out = matrix(line.z, rows, columns, real), matrix(line.out, rows, columns, real)
        begin, end, left, right = block(rows, columns, line.by_columns, tile, state)
        constants = vector(address + alpha, 1, np.float64)
        kernels.activate_block(z, line.activation, constants, out, begin, end, left, right)

    return activation


@compiled("activation_forward", accepts=lambda call: call.activation == "softmax", work=lambda call: 8 * call.z.size)
def softmax(tiling, real, record):
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
def dropout(tiling, real, record):
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
def max_abs_norm(tiling, real, record):
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
def softmax_cross_entropy_labels(tiling, real, record):
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
def softmax_cross_entropy_probabilities(tiling, real, record):
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
def sigmoid_cross_entropy(tiling, real, record):
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
def mean_squared_error(tiling, real, record):
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
def record_loss(tiling, real, record):
    def record_loss(address, state, scratch):
        s = at(STATE, state)
        if s.thread == 0:
            line = at(record, address)
            row_losses = matrix(line.row_losses, 2, line.n, real)
            penalties = vector(line.penalties, line.penalties_count, real)
            kernels.record_loss(row_losses, penalties, s.place, matrix(line.trace, line.steps, 3, np.float64))

    return record_loss


# ---- backward --------------------------------------------------------------------------------------------------------


@compiled(
    "activation_gradient",
    accepts=lambda call: call.activation != "softmax",
    work=lambda call: 4 * call.saved.size,
    follows="upstream",
)
def activation_gradient(tiling, real, record):
    tile, alpha = tiling.columns, record.offset("alpha")

    def activation_gradient(address, state, scratch):
        line = at(record, address)
        rows, columns = line.rows, line.features
        saved, upstream = matrix(line.saved, rows, columns, real), matrix(line.upstream, rows, columns, real)
        out, constants = matrix(line.out, rows, columns, real), vector(address + alpha, 1, np.float64)
        begin, end, left, right = block(rows, columns, line.by_columns, tile, state)
        kernels.differentiate_block(saved, line.activation, constants, upstream, out, begin, end, left, right)

    return activation_gradient


@compiled(
    "activation_gradient",
    accepts=lambda call: call.activation == "softmax",
    work=lambda call: 4 * call.saved.size,
)
def softmax_gradient(tiling, real, record):
    def softmax_gradient(address, state, scratch):
        line = at(record, address)
        rows, columns = line.rows, line.features
        saved, upstream = matrix(line.saved, rows, columns, real), matrix(line.upstream, rows, columns, real)
        begin, end = share(rows, state)
        kernels.softmax_gradient(saved, upstream, matrix(line.out, rows, columns, real), begin, end)

    return softmax_gradient


@compiled("max_abs_norm_gradient", work=lambda call: 8 * call.x.size)
def max_abs_norm_gradient(tiling, real, record):
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


@compiled("dense_input_gradient", work=lambda call: call.delta.size * call.out.shape[1], is_product=True)
def input_gradient(tiling, real, record):
    size, tile = tiling.size, tiling.columns

    def input_gradient(address, state, scratch):
        line = at(record, address)
        columns, inner = line.inputs, line.outputs
        begin, end, left, right = block(line.rows, columns, line.by_columns, tile, state)
        delta = line.delta + begin * inner * size
        weight = line.weight + left * inner * size
        out = line.out + (begin * columns + left) * size
        tiled.input_gradient(tiling, delta, inner, weight, inner, out, columns, end - begin, right - left, inner)

    return input_gradient


@compiled("dense_weight_gradient", work=lambda call: call.x.size * call.out.shape[1], follows="delta", updates=True)
def weight_gradient(tiling, real, record):
    """Rows and columns are those of the weights."""
    size, tile, rule = tiling.size, tiling.columns, rule_code(tiling)

    def weight_gradient(address, state, scratch):
        line = at(record, address)
        rows, columns = line.inputs, line.outputs
        arrays = prepare(rule, line.update, state, scratch) if rule >= 0 else 0
        begin, end, left, right = block(rows, columns, line.by_columns, tile, state)
        x = line.x + begin * size
        delta = line.delta + left * size
        out = line.out + (begin * columns + left) * size
        tiled.weight_gradient(
            tiling, arrays, x, rows, delta, columns, out, columns, end - begin, right - left, line.rows
        )

    return weight_gradient


@compiled("bias_gradient", work=lambda call: call.delta.size, follows="delta", updates=True)
def bias_gradient(tiling, real, record):
    size, tile, rule = tiling.size, tiling.columns, rule_code(tiling)

    def bias_gradient(address, state, scratch):
        line = at(record, address)
        rows, columns = line.rows, line.outputs
        delta, out = matrix(line.delta, rows, columns, real), vector(line.out, columns, real)
        if line.by_columns:
            _, _, left, right = block(rows, columns, 1, tile, state)
        else:
            left, right = share(columns, state)
        kernels.bias_gradient(delta, out, left, right)
        if rule >= 0:
            arrays = prepare(rule, line.update, state, scratch)
            update_vectors(tiling, arrays, line.out + left * size, right - left)

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
def weight_penalty(tiling, real, record):
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
    work=lambda call: 8 * call.gradients.size,
    record=Record.of("update_parameters", gradients=INTEGER, size=INTEGER, update=INTEGER),
)
def update_parameters(tiling, real, record):
    """Of the flat buffers, or of a part of them."""
    size, rule = tiling.size, rule_code(tiling)

    def update_parameters(address, state, scratch):
        line = at(record, address)
        begin, end = share(line.size, state)
        arrays = prepare(rule, line.update, state, scratch)
        update_vectors(tiling, arrays, line.gradients + begin * size, end - begin)

    return update_parameters


def rule_code(tiling):
    """The number of the optimiser's rule that ends a line; -1 if it ends without."""
    return next((code for code, rule in enumerate(RULES) if rule.name == tiling.epilogue), -1)


@as_written
def prepare(rule, address, state, scratch):
    """Write what an update needs at this step to `scratch`, and give the address of where it finds its arrays.

    `address` is that of a record `UPDATE`.
    """
    s, u = at(STATE, state), at(UPDATE, address)
    constants, arrays = vector(scratch, CONSTANTS, np.float64), counts(scratch + 8 * CONSTANTS, RECORD)
    rate = vector(u.learning_rates, u.steps, np.float64)[s.place]
    kernels.prepare_update(rule, address, rate, s.update + 1, constants)
    arrays[0], arrays[1], arrays[2], arrays[3] = scratch, u.to_parameters, u.to_first, u.to_second
    return scratch + 8 * CONSTANTS
