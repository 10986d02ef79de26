"""CPU instructions and system calls that Numba does not offer."""

from __future__ import annotations

import os

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from nnbackend.backends.numba.jit import internal
from nnbackend.backends.numba.simd import calling_address

__all__ = [
    "atomic_add",
    "atomic_load",
    "call",
    "compare_exchange",
    "exchange",
    "flush_subnormals",
    "relax",
    "yield_core",
]


@intrinsic
def atomic_add(context, address, value):
    """Atomically add to the number at an address and return the old number; also a memory barrier."""

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


@intrinsic
def exchange(context, address, value):
    """Atomically replace the number at an address and return the old one; also a memory barrier."""

    def generate(target, builder, signature, arguments):
        place = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        return builder.atomic_rmw("xchg", place, arguments[1], "seq_cst")

    return types.int64(types.int64, types.int64), generate


@intrinsic
def compare_exchange(context, address, expected, value):
    """Atomically replace the number at an address if it is the expected one; returns whether it was."""

    def generate(target, builder, signature, arguments):
        place = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        found = builder.cmpxchg(place, arguments[1], arguments[2], "seq_cst", "seq_cst")
        return builder.extract_value(found, 1)

    return types.boolean(types.int64, types.int64, types.int64), generate


@intrinsic
def relax(context):
    """Let the other thread of this core go first for a moment, in a loop that waits. This has an effect only on x86."""

    def generate(target, builder, signature, arguments):
        if builder.module.triple.startswith(("x86_64", "i686")):
            kind = ir.FunctionType(ir.VoidType(), [])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.sse2.pause"), [])
        return target.get_dummy_value()

    return types.void(), generate


if os.name == "posix":
    _sched_yield = types.ExternalFunction("sched_yield", types.int32())

    @internal
    def yield_core():
        """Yield this core to other threads."""
        _sched_yield()

else:

    @internal
    def yield_core():
        """Not needed on other systems."""


@intrinsic
def flush_subnormals(context, flag):
    """Set whether this thread flushes subnormal results to 0; returns the previous setting.

    A unit that is no longer active has a gradient of 0, and running averages of its gradients become subnormal. Some
    CPUs are a hundred times slower with subnormal numbers. This has an effect only on x86.
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


@intrinsic
def call(context, address, record, state, scratch):
    """Call a compiled function; see `compiled.py`."""
    return calling_address(3)
