"""Generates vector code as LLVM instructions: vectors, masks, loops and functions.

Numba compiles Python to LLVM IR and leaves vectorisation to LLVM, which vectorises matrix products badly. So the
innermost loops are generated directly as LLVM IR. Three things help to read such code. It runs *once*, while Numba
compiles: a Python loop emits its body several times, and ``if`` selects what is emitted. A `Value` is the name of a
result and is never assigned again. A loop variable of the generated program is a *phi*: it has one value on entry and
another after each iteration.

See https://llvm.org/docs/LangRef.html for the instructions and https://llvmlite.readthedocs.io for the builder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types

__all__ = ["INTEGER", "Simd", "Value", "calling", "calling_address"]

#: The type of addresses, strides and counts.
INTEGER = cgutils.intp_t
_LANE = ir.IntType(32)

#: A value of the generated program.
Value = Any


class Simd:
    """Generates vector code in a function.

    Parameters
    ----------
    builder : llvmlite.ir.IRBuilder
        Inserts the instructions.
    real : {"float32", "float64"}
    lanes : int
        Elements in a vector.
    fused : bool
        Whether to use fused multiply-add instructions.
    """

    def __init__(self, builder: ir.IRBuilder, real: str, lanes: int, fused: bool) -> None:
        self.builder = builder
        self.name = real
        self.real, self.size = {"float32": (ir.FloatType(), 4), "float64": (ir.DoubleType(), 8)}[real]
        self.lanes = lanes
        self.fused = fused
        self.vector = ir.VectorType(self.real, lanes)
        self.suffix = f"v{lanes}f{8 * self.size}"

    @classmethod
    def of(cls, tile_shape: Any, builder: ir.IRBuilder) -> Simd:
        """Create it for a `TileShape`."""
        return cls(builder, tile_shape.real, tile_shape.lanes, tile_shape.fused)

    # ---- integers and addresses ------------------------------------------------------------------------------

    def integer(self, value: int) -> Value:
        return ir.Constant(INTEGER, value)

    def smaller(self, a: Value, b: Value) -> Value:
        return self.builder.select(self.builder.icmp_signed("<", a, b), a, b)

    def pointer(self, address: Value) -> Value:
        """The element at an address."""
        return self.builder.inttoptr(address, self.real.as_pointer())

    def move(self, pointer: Value, elements: Value) -> Value:
        """The pointer advanced by a number of elements."""
        return self.builder.gep(pointer, [elements])

    def rows(self, pointer: Value, stride: Value, numbers: list[Value], present: Value) -> list[Value]:
        """Pointers to rows of a matrix that has `present` rows, at least one.

        Rows beyond the last are replaced by the last, which is safe to read.
        """
        last = self.builder.sub(present, self.integer(1))
        return [self.move(pointer, self.builder.mul(self.smaller(number, last), stride)) for number in numbers]

    # ---- vectors ---------------------------------------------------------------------------------------------

    def zeros(self) -> Value:
        return ir.Constant(self.vector, [0.0] * self.lanes)

    def constant(self, number: float) -> Value:
        """A vector with a Python number in every lane."""
        return ir.Constant(self.vector, [float(number)] * self.lanes)

    def splat(self, scalar: Value) -> Value:
        """A vector with the same value in every lane."""
        nothing = ir.Constant(ir.VectorType(scalar.type, self.lanes), ir.Undefined)
        first = self.builder.insert_element(nothing, scalar, ir.Constant(_LANE, 0))
        return self._shuffle(first, nothing, [0] * self.lanes)

    def first(self, count: Value) -> Value:
        """A mask: the first `count` lanes."""
        numbers = ir.Constant(ir.VectorType(_LANE, self.lanes), list(range(self.lanes)))
        return self.builder.icmp_signed("<", numbers, self.splat(self.builder.trunc(count, _LANE)))

    def load_splat(self, pointer: Value) -> Value:
        return self.splat(self.builder.load(pointer))

    def load(self, pointer: Value, mask: Value | None = None) -> Value:
        """Load a vector. Lanes outside the mask are 0, and their memory is not read."""
        place = self.builder.bitcast(pointer, self.vector.as_pointer())
        if mask is None:
            # Only element alignment, because rows may begin anywhere.
            return self.builder.load(place, align=self.size)
        arguments = [place, self._alignment(), mask, self.zeros()]
        return self._call(f"llvm.masked.load.{self.suffix}.p0", self.vector, arguments)

    def store(self, vector: Value, pointer: Value, mask: Value | None = None) -> None:
        """Store a vector. Memory of lanes outside the mask is not written."""
        place = self.builder.bitcast(pointer, vector.type.as_pointer())
        if mask is None:
            self.builder.store(vector, place, align=self.size)
        else:
            self._call(f"llvm.masked.store.{self.suffix}.p0", ir.VoidType(), [vector, place, self._alignment(), mask])

    def prefetch(self, pointer: Value, offsets: Sequence[Value], write: bool) -> None:
        """Prefetch the vectors at these offsets. Any address is allowed, because a prefetch cannot fault.

        One prefetch is enough for all vectors in the same 64 bytes, the cache line of most CPUs.
        """
        for offset in offsets[:: max(1, 64 // (self.lanes * self.size))]:
            self.prefetch_byte(self.builder.bitcast(self.move(pointer, offset), ir.IntType(8).as_pointer()), write)

    def prefetch_byte(self, pointer: Value, write: bool = False) -> None:
        """Prefetch the cache line of a byte."""
        nearby = 2  # locality hint from 0 to 3: the L2 cache
        hints = [ir.Constant(_LANE, number) for number in (int(write), nearby, 1)]
        self._call("llvm.prefetch.p0", ir.VoidType(), [pointer, *hints])

    def byte_pointer(self, address: Value) -> Value:
        return self.builder.inttoptr(address, ir.IntType(8).as_pointer())

    def load_bytes(self, pointer: Value, mask: Value | None = None) -> Value:
        """Load bytes, 0 to 255, as a vector of real numbers. Bytes outside the mask are not read."""
        kind = ir.VectorType(ir.IntType(8), self.lanes)
        place = self.builder.bitcast(pointer, kind.as_pointer())
        if mask is None:
            numbers = self.builder.load(place, align=1)
        else:
            arguments = [place, ir.Constant(_LANE, 1), mask, ir.Constant(kind, [0] * self.lanes)]
            numbers = self._call(f"llvm.masked.load.v{self.lanes}i8.p0", kind, arguments)
        # Convert through integers of the lane's size, for which every CPU has instructions.
        wide = self.builder.zext(numbers, ir.VectorType(ir.IntType(8 * self.size), self.lanes))
        return self.builder.sitofp(wide, self.vector)

    def multiply_add(self, a: Value, b: Value, c: Value) -> Value:
        """``a * b + c``, rounded once if fused.

        On CPUs without such an instruction LLVM would call the C library's fma() for every lane, which is a hundred
        times slower.
        """
        if self.fused:
            return self.of_vectors("llvm.fma", a, b, c)
        return self.builder.fadd(self.builder.fmul(a, b), c)

    def of_vectors(self, name: str, *vectors: Value) -> Value:
        """Call an LLVM intrinsic that maps vectors to a vector."""
        return self._call(f"{name}.{self.suffix}", self.vector, list(vectors))

    def combined(self, vector: Value, combine: Callable[[Value, Value], Value]) -> Value:
        """Reduce all lanes to one number: combine the upper half with the lower, and so on."""
        lanes = self.lanes
        while lanes > 1:
            lanes //= 2
            upper = self._shuffle(vector, vector, list(range(lanes, 2 * lanes)))
            vector = combine(self._shuffle(vector, vector, list(range(lanes))), upper)
        return self.builder.extract_element(vector, ir.Constant(_LANE, 0))

    def lower_halves(self, a: Value, b: Value) -> Value:
        """A vector of the lower half of `a` and that of `b`."""
        half = self.lanes // 2
        return self._shuffle(a, b, [*range(half), *range(self.lanes, self.lanes + half)])

    def opaque(self, value: int) -> Value:
        """An integer that LLVM does not know to be a constant."""
        kind = ir.FunctionType(INTEGER, [INTEGER])
        return self.builder.asm(kind, "", "=r,0", [self.integer(value)], side_effect=False)

    def upper_half(self, a: Value) -> Value:
        """A vector whose lower half is the upper one of `a`; the rest is arbitrary."""
        half = self.lanes // 2
        return self._shuffle(a, a, [*range(half, self.lanes)] * 2)

    def transposed(self, rows: list[Value]) -> list[Value]:
        """Transpose a few rows, at most as many as there are lanes: the columns, as vectors with an element for each
        row.

        For each bit in turn, pairs of rows whose numbers differ only in that bit exchange it with the same bit of the
        lane number. This transposes all squares that are side by side in the rows. The columns are then parts of the
        rows.
        """
        present = len(rows)
        side = 1 << (present - 1).bit_length()
        rows = [*rows, *[rows[-1]] * (side - present)]
        digit = side // 2
        while digit:
            for i in range(side):
                if not i & digit:
                    a, b = rows[i], rows[i + digit]
                    # Lanes with the bit come from b, whose lanes are numbered after those of a.
                    low = [lane - digit + self.lanes if lane & digit else lane for lane in range(self.lanes)]
                    rows[i], rows[i + digit] = self._shuffle(a, b, low), self._shuffle(a, b, [n + digit for n in low])
            digit //= 2
        pieces = [list(range(start, start + present)) for start in range(0, self.lanes, side)]
        return [self._shuffle(row, row, piece) for piece in pieces for row in rows]

    # ---- loops, conditions and functions of the program --------------------------------------------------------

    def repeat(
        self,
        start: Value,
        stop: Value,
        step: int,
        values: list[Value],
        body: Callable[[Value, list[Value]], list[Value]],
    ) -> list[Value]:
        """``for k in range(start, stop, step): values = body(k, values)``; returns the final values."""
        builder = self.builder
        before = builder.block
        test, inside, after = (builder.append_basic_block(name) for name in ("test", "inside", "after"))
        builder.branch(test)
        builder.position_at_end(test)
        initial = [start, *values]
        k, *carried = phis = [builder.phi(value.type) for value in initial]
        builder.cbranch(builder.icmp_signed("<", k, stop), inside, after)
        builder.position_at_end(inside)
        results = [builder.add(k, self.integer(step)), *body(k, carried)]
        for phi, on_entry, again in zip(phis, initial, results, strict=True):
            phi.add_incoming(on_entry, before)
            phi.add_incoming(again, builder.block)
        builder.branch(test)
        builder.position_at_end(after)
        return carried

    def only_if(self, condition: Value, body: Callable[[], list[Value]], otherwise: list[Value]) -> list[Value]:
        """``body() if condition else otherwise``"""
        builder = self.builder
        before = builder.block
        with builder.if_then(condition):
            results = body()
            inside = builder.block
        chosen = [builder.phi(value.type) for value in results]
        for phi, result, other in zip(chosen, results, otherwise, strict=True):
            phi.add_incoming(result, inside)
            phi.add_incoming(other, before)
        return chosen

    def call_one(self, number: Value, functions: list[Value], arguments: Sequence[Value]) -> None:
        """``functions[number](*arguments)``"""
        builder = self.builder
        after = builder.append_basic_block("after")
        switch = builder.switch(number, after)
        for case, function in enumerate(functions):
            block = builder.append_basic_block("case")
            switch.add_case(case, block)
            builder.position_at_end(block)
            builder.call(function, arguments)
            builder.branch(after)
        builder.position_at_end(after)

    def function(self, name: str, count: int, write: Callable[[Simd, Sequence[Value]], None]) -> Value:
        """The function with this name and `count` integer arguments; `write` generates it if it does not exist yet.

        A separate function can use all registers, and is compiled only once. When modules that contain it are linked,
        ``linkonce_odr`` keeps one copy.
        """
        signature = ir.FunctionType(ir.VoidType(), [INTEGER] * count)
        function = cgutils.get_or_insert_function(self.builder.module, signature, name)
        if function.is_declaration:
            function.linkage = "linkonce_odr"
            function.attributes.add("noinline")
            function.attributes.add("nounwind")
            builder = ir.IRBuilder(function.append_basic_block("entry"))
            write(Simd(builder, self.name, self.lanes, self.fused), function.args)
            builder.ret_void()
        return function

    # ---- LLVM's own functions --------------------------------------------------------------------------------------

    def _shuffle(self, a: Value, b: Value, lanes: list[int]) -> Value:
        """Shuffle: the lanes with these numbers, where the lanes of `b` are numbered after those of `a`."""
        return self.builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_LANE, len(lanes)), lanes))

    def _alignment(self) -> Value:
        return ir.Constant(ir.IntType(32), self.size)

    def _call(self, name: str, result: Value, arguments: list[Value]) -> Value:
        """An LLVM intrinsic, whose name ends in its types; ``p0`` is any pointer."""
        signature = ir.FunctionType(result, [argument.type for argument in arguments])
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, signature, name), arguments)


def calling(
    tile_shape: Any, name: str, count: int, write: Callable[[Simd, Sequence[Value]], None]
) -> tuple[Any, Callable[..., Value]]:
    """The implementation of an intrinsic with a tile shape and `count` integer arguments: a call of the function with
    that name, which `write` generates."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Sequence[Value]) -> Value:
        simd = Simd.of(tile_shape.tile_shape, builder)
        builder.call(simd.function(tile_shape.tile_shape.function_name(name), count, write), arguments[1:])
        return context.get_dummy_value()

    return types.void(tile_shape, *[types.intp] * count), generate


def calling_address(count: int) -> tuple[Any, Callable[..., Value]]:
    """The implementation of an intrinsic that calls a compiled function with `count` integer arguments, whose address
    is the first of its own."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Sequence[Value]) -> Value:
        kind = ir.FunctionType(ir.VoidType(), [INTEGER] * count)
        builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), arguments[1:])
        return context.get_dummy_value()

    return types.void(*[types.intp] * (1 + count)), generate
