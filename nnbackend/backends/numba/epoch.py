"""The compiled epoch function: reads a program's table line by line, step after step, and never goes back to Python.

Several threads run it side by side, each on its own share of every line, and meet where a line has to wait. Every
element of every result is computed by one thread, in an order that does not depend on which: so the bits are the same
for any number of threads.
"""

from __future__ import annotations

import os

import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from nnbackend.backends.numba import kernels, normalization, program, tiled
from nnbackend.backends.numba.activations import IDENTITY
from nnbackend.backends.numba.elementwise import update as take
from nnbackend.backends.numba.epilogues import STORE, UPDATE
from nnbackend.backends.numba.jit import jit
from nnbackend.backends.numba.tiling import tiling_of
from nnbackend.backends.numba.updates import CONSTANTS, RECORD

# Numba takes globals of this module for constants.
CODE, WAIT, FIRST = program.CODE, program.WAIT, program.FIRST

#: How often a thread looks before it lets others run on its core.
PATIENCE = 4_000


@intrinsic
def pointer(context, address):
    """An address as a pointer."""

    def generate(target, builder, signature, arguments):
        return builder.inttoptr(arguments[0], target.get_value_type(types.voidptr))

    return types.voidptr(types.int64), generate


@intrinsic
def atomic_add(context, address, value):
    """Add to the number at an address; the old number. Nothing is moved across it."""

    def generate(target, builder, signature, arguments):
        place = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        return builder.atomic_rmw("add", place, arguments[1], "seq_cst")

    return types.int64(types.int64, types.int64), generate


@intrinsic
def atomic_load(context, address):
    def generate(target, builder, signature, arguments):
        place = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        return builder.load_atomic(place, "seq_cst", 8)

    return types.int64(types.int64), generate


if os.name == "posix":
    _sched_yield = types.ExternalFunction("sched_yield", types.int32())

    @jit
    def give_way():
        """Let other threads run on this core."""
        _sched_yield()

else:

    @jit
    def give_way():
        """Other systems take turns by themselves."""


@jit
def meet(meeting, goal):
    """Arrive, and wait until as many have arrived as `goal` says; False if somebody has called it off.

    `meeting` is the address of two numbers: how many have arrived, and whether it is called off.
    """
    atomic_add(meeting, 1)
    patience = PATIENCE
    while atomic_load(meeting) < goal:
        patience -= 1
        if patience == 0:
            if atomic_load(meeting + 8):
                return False
            give_way()
            patience = PATIENCE // 100
    return True


@intrinsic
def flush_subnormals(context, flag):
    """Let this thread take results too small for a normal number for 0, or not; whether it has done so.

    A unit that is never active any more has a gradient of 0, and an average of gradients then shrinks until it is
    subnormal. Some CPUs compute with such numbers a hundred times slower. There is nothing to be done where it is not
    known how.
    """

    def generate(target, builder, signature, arguments):
        triple = builder.module.triple
        flag = builder.zext(arguments[0], ir.IntType(32))
        if triple.startswith(("x86_64", "i686")):
            # The control register of the vector unit; bit 15.
            place = cgutils.alloca_once(builder, ir.IntType(32))
            kind = ir.FunctionType(ir.VoidType(), [place.type])
            read = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.sse.stmxcsr")
            write = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.sse.ldmxcsr")
            builder.call(read, [place])
            before = builder.load(place)
            bit = ir.IntType(32)(15)
            cleared = builder.and_(before, ir.IntType(32)(0xFFFFFFFF ^ 1 << 15))
            builder.store(builder.or_(cleared, builder.shl(flag, bit)), place)
            builder.call(write, [place])
            return builder.trunc(builder.lshr(before, bit), ir.IntType(1))
        return arguments[0]

    return types.boolean(types.boolean), generate


@jit
def matrix(address, rows, columns, real):
    return carray(pointer(address), (rows, columns), real.dtype)


@jit
def vector(address, size, real):
    return carray(pointer(address), (size,), real.dtype)


@jit
def run(tiling, integers, reals, advances, counter, steps, thread, threads, meeting, real):
    """Run the table `steps` times.

    Parameters
    ----------
    tiling : Tiling
        How matrices are cut into tiles.
    integers, reals, advances, counter : of a Program
    thread, threads : int
        Which of the threads this is, and how many there are.
    meeting : int
        Address of two int64 that were 0 before the first of them began, see `meet`.
    real : (0,) array of the network's dtype
    """
    before = flush_subnormals(True)
    steps_of(tiling, integers, reals, advances, counter, steps, thread, threads, meeting, real)
    flush_subnormals(before)


@jit
def steps_of(tiling, integers, reals, advances, counter, steps, thread, threads, meeting, real):
    """See `run`."""
    place, step, update = counter[0], counter[1], counter[2]
    scratch = np.empty(CONSTANTS), np.empty(RECORD, np.int64)
    goal = 0
    for _ in range(steps):
        for line in range(integers.shape[0]):
            if integers[line, WAIT] and threads > 1:
                goal += threads
                if not meet(meeting, goal):
                    return
            perform(tiling, integers[line], reals[line], place, step, update, thread, threads, scratch, real)
        if threads > 1:
            goal += threads
            if not meet(meeting, goal):
                return
        if advances:
            place += 1
            step += 1
            update += 1
    if thread == 0:
        counter[0], counter[1], counter[2] = place, step, update


@jit
def share(size, thread, threads):
    """The part of `size` things that is a thread's."""
    return size * thread // threads, size * (thread + 1) // threads


@jit
def perform(tiling, line, constants, place, step, update, thread, threads, scratch, real):
    """A thread's share of one line; the numbers of each are written in :mod:`nnbackend.backends.numba.program`."""
    code = line[CODE]
    n = line[FIRST:]
    if code <= program.GATHER_VALUES:
        gather(code, n, constants, place, thread, threads, real)
    elif code <= program.MAX_ABS_NORM:
        forward(tiling, code, n, constants, step, thread, threads, real)
    elif code <= program.SQUARED_ERROR:
        loss(code, n, thread, threads, real)
    elif code <= program.BIAS_GRADIENT:
        backward(tiling, code, n, constants, place, update, thread, threads, scratch, real)
    elif code <= program.RECORD_LOSS:
        if thread == 0:
            account(code, n, constants, place, real)
    else:
        optimise(n, constants, place, update, thread, threads, scratch, real)


@jit
def gather(code, n, constants, place, thread, threads, real):
    source, count, columns, order_at, order_size, batch_size, out, rows = n[0], n[1], n[2], n[3], n[4], n[5], n[6], n[7]
    begin, end = share(rows, thread, threads)
    order = carray(pointer(order_at), (order_size,), np.int64)
    start = place * batch_size
    scale = real.dtype.type(constants[0])
    if code == program.GATHER_BYTES:
        images = carray(pointer(source), (count, columns), np.uint8)
        kernels.gather_rows(images, order, start, scale, matrix(out, rows, columns, real), begin, end)
    elif code == program.GATHER_ROWS:
        examples = matrix(source, count, columns, real)
        kernels.gather_rows(examples, order, start, scale, matrix(out, rows, columns, real), begin, end)
    elif code == program.GATHER_LABELS:
        labels = carray(pointer(source), (count,), np.int32)
        kernels.gather_values(labels, order, start, np.int32(1), carray(pointer(out), (rows,), np.int32), begin, end)
    else:
        kernels.gather_values(vector(source, count, real), order, start, scale, vector(out, rows, real), begin, end)


@jit
def forward(tiling, code, n, constants, step, thread, threads, real):
    if code == program.DENSE:
        x, weight, bias, z, out, rows, inner, columns, activation = n[0], n[1], n[2], n[3], n[4], n[5], n[6], n[7], n[8]
        begin, end = share(rows, thread, threads)
        size = real.itemsize
        tiled.forward(
            tiling, x + begin * inner * size, inner, weight, columns, bias, z + begin * columns * size, columns,
            end - begin, columns, inner,
        )  # fmt: skip
        if activation != IDENTITY:
            kernels.activation_forward(
                matrix(z, rows, columns, real), activation, constants, matrix(out, rows, columns, real), begin, end
            )
        return
    x, out = matrix(n[0], n[2], n[3], real), matrix(n[1], n[2], n[3], real)
    begin, end = share(n[2], thread, threads)
    if code == program.ACTIVATION:
        kernels.activation_forward(x, n[4], constants, out, begin, end)
    elif code == program.DROPOUT:
        kernels.dropout(x, n[4], real.dtype.type(constants[0]), n[5], n[6], n[7], step, out, begin, end)
    else:
        bits, sign_free = bits_of(n[0], n[2], n[3], real)
        # It divides by numbers of any size.
        flush_subnormals(False)
        normalization.max_abs_norm(x, bits, sign_free, out, begin, end)
        flush_subnormals(True)


@jit
def loss(code, n, thread, threads, real):
    outputs_at, targets_at, weights_at, gradient_at, rows_at, rows, columns = n[0], n[1], n[2], n[3], n[4], n[5], n[6]
    begin, end = share(rows, thread, threads)
    outputs, gradient = matrix(outputs_at, rows, columns, real), matrix(gradient_at, rows, columns, real)
    weights = vector(weights_at, rows if weights_at else 0, real)
    figures = matrix(rows_at, 2, rows, real)
    if code == program.CROSS_ENTROPY_LABELS:
        labels = carray(pointer(targets_at), (rows,), np.int32)
        kernels.softmax_cross_entropy_labels(outputs, labels, weights, gradient, figures, begin, end)
        return
    targets = matrix(targets_at, rows, columns, real)
    if code == program.CROSS_ENTROPY_PROBABILITIES:
        kernels.softmax_cross_entropy_probabilities(outputs, targets, weights, gradient, figures, begin, end)
    elif code == program.SIGMOID_CROSS_ENTROPY:
        kernels.sigmoid_cross_entropy(outputs, targets, weights, gradient, figures, begin, end)
    else:
        kernels.mean_squared_error(outputs, targets, weights, gradient, figures, begin, end)


@jit
def backward(tiling, code, n, constants, place, update, thread, threads, scratch, real):
    size = real.itemsize
    if code == program.ACTIVATION_GRADIENT:
        rows, columns = n[3], n[4]
        begin, end = share(rows, thread, threads)
        saved, upstream = matrix(n[0], rows, columns, real), matrix(n[1], rows, columns, real)
        kernels.activation_gradient(saved, n[5], constants, upstream, matrix(n[2], rows, columns, real), begin, end)
    elif code == program.MAX_ABS_NORM_GRADIENT:
        rows, columns = n[3], n[4]
        begin, end = share(rows, thread, threads)
        x, upstream, out = (
            matrix(n[0], rows, columns, real), matrix(n[1], rows, columns, real), matrix(n[2], rows, columns, real)
        )  # fmt: skip
        bits, sign_free = bits_of(n[0], rows, columns, real)
        flush_subnormals(False)
        normalization.max_abs_norm_gradient(x, bits, sign_free, upstream, out, begin, end)
        flush_subnormals(True)
    elif code == program.INPUT_GRADIENT:
        delta, weight, out, rows, columns, inner = n[0], n[1], n[2], n[3], n[4], n[5]
        begin, end = share(rows, thread, threads)
        tiled.input_gradient(
            tiling, delta + begin * inner * size, inner, weight, inner, out + begin * columns * size, columns,
            end - begin, columns, inner,
        )  # fmt: skip
    elif code == program.WEIGHT_GRADIENT:
        x, delta, out, rows, columns, inner = n[0], n[1], n[2], n[3], n[4], n[5]
        epilogue = n[program.UPDATES]
        record = prepare(n, constants, place, update, scratch) if epilogue != STORE else 0
        # Along the longer side, so that every thread's part is made of whole tiles, but for its edge.
        if rows >= columns:
            begin, end = share(rows, thread, threads)
            x += begin * size
            out += begin * columns * size
            tiled.weight_gradient(
                tiling, epilogue, record, x, rows, delta, columns, out, columns, end - begin, columns, inner
            )
        else:
            begin, end = share(columns, thread, threads)
            delta += begin * size
            out += begin * size
            tiled.weight_gradient(
                tiling, epilogue, record, x, rows, delta, columns, out, columns, rows, end - begin, inner
            )
    else:
        begin, end = share(n[3], thread, threads)
        kernels.bias_gradient(matrix(n[0], n[2], n[3], real), vector(n[1], n[3], real), begin, end)
        if n[program.UPDATES] != STORE:
            update_range(n[1], n, constants, place, update, begin, end, scratch, real)


@jit
def account(code, n, constants, place, real):
    """What is summed over a whole array, by one thread."""
    if code == program.WEIGHT_PENALTY:
        weight, gradient = matrix(n[0], n[2], n[3], real), matrix(n[1], n[2], n[3], real)
        l1, l2 = real.dtype.type(constants[0]), real.dtype.type(constants[1])
        vector(n[4], n[5], real)[n[6]] = kernels.weight_penalty(weight, l1, l2, gradient)
    else:
        trace = carray(pointer(n[4]), (n[5], 3), np.float64)
        kernels.record_loss(matrix(n[0], 2, n[1], real), vector(n[2], n[3], real), place, trace)


@jit
def optimise(n, settings, place, update, thread, threads, scratch, real):
    gradient, count = n[0], n[program.UPDATES + 1]
    begin, end = share(count, thread, threads)
    update_range(gradient, n, settings, place, update, begin, end, scratch, real)


@jit
def update_range(gradient, n, settings, place, update, begin, end, scratch, real):
    """Take a part of a gradient to the parameters."""
    record = prepare(n, settings, place, update, scratch)
    at = gradient + begin * real.itemsize
    take(tiling_of(real), n[program.UPDATES] - UPDATE, record, at, end - begin)


@jit
def prepare(n, settings, place, update, scratch):
    """What the update at the end of a line needs to know at this step; the address of its record."""
    constants, record = scratch
    rate = carray(pointer(n[program.UPDATES + 2]), (n[program.UPDATES + 3],), np.float64)[place]
    kernels.prepare_update(n[program.UPDATES] - UPDATE, settings, rate, update + 1, constants)
    record[0] = constants.ctypes.data
    record[1:] = n[program.UPDATES + 4 : program.UPDATES + 4 + record.size - 1]
    return record.ctypes.data


def bits_of(address, rows, columns, real):
    """A matrix seen as integers, and the mask that takes their signs away."""
    raise NotImplementedError("for jitted code")


@overload(bits_of)
def _bits_of(address, rows, columns, real):
    integer, sign_free = (np.int32, 0x7FFFFFFF) if real.dtype == types.float32 else (np.int64, 0x7FFFFFFFFFFFFFFF)
    return lambda address, rows, columns, real: (carray(pointer(address), (rows, columns), integer), sign_free)
