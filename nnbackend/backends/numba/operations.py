"""What a line of the table does: one function for each operation, which computes a thread's share of it.

A function is compiled when a program first needs it, for the type of the network, and kept on disk. The epoch function
has nothing but its address. All have the same arguments, addresses:

* `numbers`: the line's integers. What they are stands in :mod:`nnbackend.backends.numba.lines`, which writes them.
* `settings`: the line's float64 numbers.
* `state`: of the thread that calls; `PLACE` and so on say which integer is which.
* `scratch`: `SCRATCH` bytes to write on.

Rows of arrays follow each other without gaps. Rows of a batch are shared out among the threads, or parts of a result;
each element is computed by one thread, in an order that does not depend on which.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numba import types

from nnbackend.backends.numba import kernels, normalization, tiled
from nnbackend.backends.numba.elementwise import update
from nnbackend.backends.numba.intrinsics import flush_subnormals
from nnbackend.backends.numba.jit import as_written, compile_callback
from nnbackend.backends.numba.memory import bits_of, counts, matrix, vector
from nnbackend.backends.numba.tiling import FLOAT32, FLOAT64, Tiling
from nnbackend.backends.numba.updates import CONSTANTS, RECORD, RULES

__all__ = ["PLACE", "SCRATCH", "STATE", "STEP", "THREAD", "THREADS", "UPDATE", "address_of"]

#: The state of a thread: the step of the epoch, of the network and of the optimiser; which thread, and of how many.
PLACE, STEP, UPDATE, THREAD, THREADS = range(5)
STATE = 5

#: Of a line: at most so many integers and settings, where those of an update begin, and whether the line is shared out
#: by columns of its result.
INTEGERS, SETTINGS, UPDATES, BY_COLUMNS = 13, 8, 6, 12

#: An optimiser's constants and its record.
SCRATCH = 8 * (CONSTANTS + RECORD)


def address_of(operation: str, dtype: np.dtype[Any], rule: int | None = None) -> int:
    """Where the compiled function of an operation lies, which stays there as long as the process lives.

    Parameters
    ----------
    operation : str
        The name of a function below.
    dtype : numpy dtype
        float32 or float64.
    rule : int, optional
        The optimiser's, of `updates.py`, if the operation ends with an update.
    """
    address: int = _compiled(operation, dtype, rule).address
    return address


@functools.cache
def _compiled(operation: str, dtype: np.dtype[Any], rule: int | None) -> Any:
    tiling = FLOAT32 if dtype == np.float32 else FLOAT64
    if rule is not None:
        tiling = replace(tiling, epilogue=RULES[rule].name)
    function = _FACTORIES[operation](tiling, dtype.type)
    # The name tells the files on disk apart.
    function.__qualname__ = f"{operation}[{dtype}, {tiling.epilogue}]"
    return compile_callback(function, types.void(*[types.intp] * 4))


_FACTORIES: dict[str, Callable[[Tiling, type], Callable[..., None]]] = {}


def operation(factory):
    _FACTORIES[factory.__name__] = factory
    return factory


@as_written
def share(size, state):
    """The part of `size` things that is a thread's."""
    s = counts(state, STATE)
    return size * s[THREAD] // s[THREADS], size * (s[THREAD] + 1) // s[THREADS]


@as_written
def block(n, rows, columns, tile, state):
    """A thread's part of a matrix: from which row to which, and from which column to which.

    Columns are shared out in the width of a tile, so that only the last is narrow.
    """
    if n[BY_COLUMNS]:
        begin, end = share((columns + tile - 1) // tile, state)
        return 0, rows, begin * tile, min(end * tile, columns)
    begin, end = share(rows, state)
    return begin, end, 0, columns


@operation
def gather_bytes(tiling, real):
    def gather(numbers, settings, state, scratch):
        n = counts(numbers, INTEGERS)
        source, order = matrix(n[0], n[1], n[2], np.uint8), counts(n[3], n[4])
        out = matrix(n[6], n[7], n[2], real)
        begin, end = share(n[7], state)
        start = counts(state, STATE)[PLACE] * n[5]
        kernels.gather_bytes(source, order, start, vector(settings, 1, np.float64), out, begin, end)

    return gather


@operation
def gather_rows(tiling, real):
    def gather(numbers, settings, state, scratch):
        n = counts(numbers, INTEGERS)
        source, order = matrix(n[0], n[1], n[2], real), counts(n[3], n[4])
        out = matrix(n[6], n[7], n[2], real)
        begin, end = share(n[7], state)
        start = counts(state, STATE)[PLACE] * n[5]
        kernels.gather_rows(source, order, start, real(vector(settings, 1, np.float64)[0]), out, begin, end)

    return gather


@operation
def gather_labels(tiling, real):
    return _gather_values(np.int32)


@operation
def gather_values(tiling, real):
    return _gather_values(real)


def _gather_values(kind):
    def gather(numbers, settings, state, scratch):
        n = counts(numbers, INTEGERS)
        source, order, out = vector(n[0], n[1], kind), counts(n[3], n[4]), vector(n[6], n[7], kind)
        begin, end = share(n[7], state)
        start = counts(state, STATE)[PLACE] * n[5]
        kernels.gather_values(source, order, start, kind(vector(settings, 1, np.float64)[0]), out, begin, end)

    return gather


@operation
def dense(tiling, real):
    size, tile = tiling.size, tiling.columns

    def dense(numbers, settings, state, scratch):
        n = counts(numbers, INTEGERS)
        x, weight, bias, out, rows, inner, columns = n[0], n[1], n[2], n[3], n[4], n[5], n[6]
        begin, end, left, right = block(n, rows, columns, tile, state)
        x += begin * inner * size
        weight += left * size
        bias += left * size if bias else 0
        out += (begin * columns + left) * size
        tiled.forward(tiling, x, inner, weight, columns, bias, out, columns, end - begin, right - left, inner)

    return dense


@operation
def activation(tiling, real):
    tile = tiling.columns

    def activation(numbers, settings, state, scratch):
        n = counts(numbers, INTEGERS)
        z, out = matrix(n[0], n[2], n[3], real), matrix(n[1], n[2], n[3], real)
        begin, end, left, right = block(n, n[2], n[3], tile, state)
        kernels.activation_forward(z, n[4], vector(settings, 1, np.float64), out, begin, end, left, right)

    return activation


@operation
def dropout(tiling, real):
    def dropout(numbers, settings, state, scratch):
        n = counts(numbers, INTEGERS)
        x, out = matrix(n[0], n[2], n[3], real), matrix(n[1], n[2], n[3], real)
        begin, end = share(n[2], state)
        scale = real(vector(settings, 1, np.float64)[0])
        kernels.dropout(x, n[4], scale, n[5], n[6], n[7], counts(state, STATE)[STEP], out, n[8], begin, end)

    return dropout


@operation
def max_abs_norm(tiling, real):
    def max_abs_norm(numbers, settings, state, scratch):
        n = counts(numbers, INTEGERS)
        x, out = matrix(n[0], n[2], n[3], real), matrix(n[1], n[2], n[3], real)
        begin, end = share(n[2], state)
        bits, sign_free = bits_of(x)
        # It divides by numbers of any size.
        flush_subnormals(False)
        normalization.max_abs_norm(x, bits, sign_free, out, begin, end)
        flush_subnormals(True)

    return max_abs_norm


@operation
def softmax_cross_entropy_labels(tiling, real):
    def loss(numbers, settings, state, scratch):
        # The targets are something else here.
        outputs, _, weights, gradient, figures = loss_arrays(numbers, real)
        n = counts(numbers, INTEGERS)
        labels = vector(n[1], n[5], np.int32)
        begin, end = share(n[5], state)
        kernels.softmax_cross_entropy_labels(outputs, labels, weights, gradient, figures, begin, end)

    return loss


@operation
def softmax_cross_entropy_probabilities(tiling, real):
    def loss(numbers, settings, state, scratch):
        outputs, targets, weights, gradient, figures = loss_arrays(numbers, real)
        begin, end = share(len(outputs), state)
        kernels.softmax_cross_entropy_probabilities(outputs, targets, weights, gradient, figures, begin, end)

    return loss


@operation
def sigmoid_cross_entropy(tiling, real):
    def loss(numbers, settings, state, scratch):
        outputs, targets, weights, gradient, figures = loss_arrays(numbers, real)
        begin, end = share(len(outputs), state)
        kernels.sigmoid_cross_entropy(outputs, targets, weights, gradient, figures, begin, end)

    return loss


@operation
def mean_squared_error(tiling, real):
    def loss(numbers, settings, state, scratch):
        outputs, targets, weights, gradient, figures = loss_arrays(numbers, real)
        begin, end = share(len(outputs), state)
        kernels.mean_squared_error(outputs, targets, weights, gradient, figures, begin, end)

    return loss


@as_written
def loss_arrays(numbers, kind):
    n = counts(numbers, INTEGERS)
    rows, columns = n[5], n[6]
    return (
        matrix(n[0], rows, columns, kind),
        matrix(n[1], rows, columns, kind),
        vector(n[2], rows if n[2] else 0, kind),
        matrix(n[3], rows, columns, kind),
        matrix(n[4], 2, rows, kind),
    )


@operation
def activation_gradient(tiling, real):
    tile = tiling.columns

    def activation_gradient(numbers, settings, state, scratch):
        n = counts(numbers, INTEGERS)
        rows, columns, constants = n[3], n[4], vector(settings, 1, np.float64)
        saved, upstream = matrix(n[0], rows, columns, real), matrix(n[1], rows, columns, real)
        out = matrix(n[2], rows, columns, real)
        begin, end, left, right = block(n, rows, columns, tile, state)
        kernels.activation_gradient(saved, n[5], constants, upstream, out, begin, end, left, right)

    return activation_gradient


@operation
def max_abs_norm_gradient(tiling, real):
    def max_abs_norm_gradient(numbers, settings, state, scratch):
        n = counts(numbers, INTEGERS)
        rows, columns = n[3], n[4]
        x, upstream = matrix(n[0], rows, columns, real), matrix(n[1], rows, columns, real)
        out = matrix(n[2], rows, columns, real)
        begin, end = share(rows, state)
        bits, sign_free = bits_of(x)
        flush_subnormals(False)
        normalization.max_abs_norm_gradient(x, bits, sign_free, upstream, out, begin, end)
        flush_subnormals(True)

    return max_abs_norm_gradient


@operation
def input_gradient(tiling, real):
    size, tile = tiling.size, tiling.columns

    def input_gradient(numbers, settings, state, scratch):
        n = counts(numbers, INTEGERS)
        delta, weight, out, rows, columns, inner = n[0], n[1], n[2], n[3], n[4], n[5]
        begin, end, left, right = block(n, rows, columns, tile, state)
        delta += begin * inner * size
        weight += left * inner * size
        out += (begin * columns + left) * size
        tiled.input_gradient(tiling, delta, inner, weight, inner, out, columns, end - begin, right - left, inner)

    return input_gradient


@operation
def weight_gradient(tiling, real):
    size, tile = tiling.size, tiling.columns
    updates = tiling.epilogue != "store"

    def weight_gradient(numbers, settings, state, scratch):
        n = counts(numbers, INTEGERS)
        x, delta, out, rows, columns, inner = n[0], n[1], n[2], n[3], n[4], n[5]
        record = prepare(n, settings, state, scratch) if updates else 0
        begin, end, left, right = block(n, rows, columns, tile, state)
        x += begin * size
        delta += left * size
        out += (begin * columns + left) * size
        tiled.weight_gradient(tiling, record, x, rows, delta, columns, out, columns, end - begin, right - left, inner)

    return weight_gradient


@operation
def bias_gradient(tiling, real):
    size, tile = tiling.size, tiling.columns
    updates = tiling.epilogue != "store"

    def bias_gradient(numbers, settings, state, scratch):
        n = counts(numbers, INTEGERS)
        delta, out = matrix(n[0], n[2], n[3], real), vector(n[1], n[3], real)
        if n[BY_COLUMNS]:
            _, _, left, right = block(n, n[2], n[3], tile, state)
        else:
            left, right = share(n[3], state)
        kernels.bias_gradient(delta, out, left, right)
        if updates:
            update(tiling, n[UPDATES], prepare(n, settings, state, scratch), n[1] + left * size, right - left)

    return bias_gradient


@operation
def update_parameters(tiling, real):
    size = tiling.size

    def update_parameters(numbers, settings, state, scratch):
        n = counts(numbers, INTEGERS)
        begin, end = share(n[1], state)
        update(tiling, n[UPDATES], prepare(n, settings, state, scratch), n[0] + begin * size, end - begin)

    return update_parameters


@as_written
def prepare(n, settings, state, scratch):
    """What an update needs to know at this step; the address of its record."""
    s, u = counts(state, STATE), n[UPDATES:]
    constants, record = vector(scratch, CONSTANTS, np.float64), counts(scratch + 8 * CONSTANTS, RECORD)
    rate = vector(u[1], u[2], np.float64)[s[PLACE]]
    kernels.prepare_update(u[0], vector(settings, SETTINGS, np.float64), rate, s[UPDATE] + 1, constants)
    record[0] = scratch
    for k in range(1, RECORD):
        record[k] = u[2 + k]
    return scratch + 8 * CONSTANTS


@operation
def weight_penalty(tiling, real):
    def weight_penalty(numbers, settings, state, scratch):
        if counts(state, STATE)[THREAD] == 0:
            n, c = counts(numbers, INTEGERS), vector(settings, SETTINGS, np.float64)
            weight, gradient = matrix(n[0], n[2], n[3], real), matrix(n[1], n[2], n[3], real)
            vector(n[4], n[5], real)[n[6]] = kernels.weight_penalty(weight, real(c[0]), real(c[1]), gradient)

    return weight_penalty


@operation
def record_loss(tiling, real):
    def record_loss(numbers, settings, state, scratch):
        s = counts(state, STATE)
        if s[THREAD] == 0:
            n = counts(numbers, INTEGERS)
            rows, penalties = matrix(n[0], 2, n[1], real), vector(n[2], n[3], real)
            kernels.record_loss(rows, penalties, s[PLACE], matrix(n[4], n[5], 3, np.float64))

    return record_loss
