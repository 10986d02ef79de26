"""The words that the tiles are written in: vectors, masks and loops, put down as LLVM instructions.

Numba compiles Python to LLVM's language and leaves it to LLVM to find the vector instructions. In a matrix product it
finds poor ones, so the innermost loops are written in that language here, one instruction after the other. Reading such
code takes three ideas. It runs *once*, while Numba compiles: a Python loop here writes its body down several times over,
and ``if`` chooses what is written. A value is a name for a result and is never assigned again. And a value that changes
in a loop that *is* in the program is a *phi*: this one on entry, that one when coming round again.

See https://llvm.org/docs/LangRef.html for the instructions and https://llvmlite.readthedocs.io for the builder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types

__all__ = ["INTEGER", "Simd"]

#: Addresses, strides and counts.
INTEGER = ir.IntType(types.intp.bitwidth)
_LANE = ir.IntType(32)

#: A value of the program being written.
Value = Any


class Simd:
    """Writes vector code into a function.

    Parameters
    ----------
    builder : llvmlite.ir.IRBuilder
        Where the next instruction goes.
    real : {"float32", "float64"}
    lanes : int
        Elements in a vector. LLVM splits a vector that is too wide for the CPU.
    fused : bool
        Whether the CPU multiplies and adds in one instruction.
    """

    def __init__(self, builder: ir.IRBuilder, real: str, lanes: int, fused: bool) -> None:
        self.builder = builder
        self.name = real
        self.lanes = lanes
        self.fused = fused
        self.real = {"float32": ir.FloatType(), "float64": ir.DoubleType()}[real]
        self.size = {"float32": 4, "float64": 8}[real]
        self.vector = ir.VectorType(self.real, lanes)

    # ---- integers and addresses ------------------------------------------------------------------------------

    def integer(self, value: int) -> Value:
        return ir.Constant(INTEGER, value)

    def smaller(self, a: Value, b: Value) -> Value:
        return self.builder.select(self.builder.icmp_signed("<", a, b), a, b)

    def pointer(self, address: Value) -> Value:
        """The element at an address."""
        return self.builder.inttoptr(address, self.real.as_pointer())

    def move(self, pointer: Value, elements: Value) -> Value:
        """The element that lies so many elements further on."""
        return self.builder.gep(pointer, [elements])

    def rows(self, pointer: Value, stride: Value, count: int, present: Value) -> list[Value]:
        """Pointers to `count` rows of a matrix, of which only the first `present` (at least 1) exist.

        In place of those that do not exist, the last one is pointed to again: it may be read any number of times.
        """
        last = self.builder.sub(present, self.integer(1))
        indices = [self.smaller(self.integer(i), last) for i in range(count)]
        return [self.move(pointer, self.builder.mul(i, stride)) for i in indices]

    # ---- vectors ---------------------------------------------------------------------------------------------

    def zeros(self) -> Value:
        return ir.Constant(self.vector, [0.0] * self.lanes)

    def splat(self, scalar: Value, lanes: int | None = None) -> Value:
        """A vector with the same scalar in every lane."""
        lanes = self.lanes if lanes is None else lanes
        nothing = ir.Constant(ir.VectorType(scalar.type, lanes), ir.Undefined)
        first = self.builder.insert_element(nothing, scalar, ir.Constant(_LANE, 0))
        return self._shuffle(first, nothing, [0] * lanes)

    def first(self, count: Value, lanes: int | None = None) -> Value:
        """A mask: true in the first `count` lanes."""
        lanes = self.lanes if lanes is None else lanes
        numbers = ir.Constant(ir.VectorType(_LANE, lanes), list(range(lanes)))
        return self.builder.icmp_signed("<", numbers, self.splat(self.builder.trunc(count, _LANE), lanes))

    def load_splat(self, pointer: Value) -> Value:
        return self.splat(self.builder.load(pointer))

    def load(self, pointer: Value, mask: Value | None = None) -> Value:
        """The vector that begins at an element. Lanes outside the mask are 0, and their memory is not touched."""
        place = self._vector_at(pointer, self.vector)
        if mask is None:
            # Aligned as one element is: rows may begin anywhere.
            return self.builder.load(place, align=self.size)
        align = ir.Constant(ir.IntType(32), self.size)
        return self._masked("load", self.vector, [place, align, mask, self.zeros()])

    def store(self, vector: Value, pointer: Value, mask: Value | None = None) -> None:
        """Write a vector. Memory of lanes outside the mask is not touched."""
        place = self._vector_at(pointer, vector.type)
        if mask is None:
            self.builder.store(vector, place, align=self.size)
        else:
            self._masked("store", vector.type, [vector, place, ir.Constant(ir.IntType(32), self.size), mask])

    def multiply_add(self, a: Value, b: Value, c: Value) -> Value:
        """``a * b + c``.

        Where the CPU has no instruction for it, LLVM would call the C library's fma() once a lane, which is exact and a
        hundred times slower; rounding twice is what everybody else does there.
        """
        if not self.fused:
            return self.builder.fadd(self.builder.fmul(a, b), c)
        return self._call(f"llvm.fma.{self._name(self.vector)}", self.vector, [a, b, c])

    def transposed(self, rows: list[Value]) -> list[Value]:
        """Pieces of the columns of a few rows, in the order of the columns, each a vector with a lane for each row.

        In two rows, with other lanes alike, the digits of the row's number and of the lane's are swapped, one binary
        digit after the other: that transposes every square of lanes there is in the rows.
        """
        rows, side = list(rows), len(rows)
        digit = side // 2
        while digit:
            for i in range(side):
                if not i & digit:
                    a, b = rows[i], rows[i + digit]
                    low = [n + self.lanes - digit if n & digit else n for n in range(self.lanes)]
                    rows[i], rows[i + digit] = self._shuffle(a, b, low), self._shuffle(a, b, [n + digit for n in low])
            digit //= 2
        return [
            self._shuffle(row, row, list(range(square, square + side)))
            for square in range(0, self.lanes, side)
            for row in rows
        ]

    # ---- loops and conditions that are in the program ----------------------------------------------------------

    def repeat(
        self, start: Value, stop: Value, step: int, values: list[Value], body: Callable[[Value, list[Value]], list[Value]]
    ) -> list[Value]:
        """``for k in range(start, stop, step): values = body(k, values)``, and the values after the last round."""
        builder = self.builder
        before = builder.block
        test, inside, after = (builder.append_basic_block(name) for name in ("test", "inside", "after"))
        builder.branch(test)
        builder.position_at_end(test)
        carried = [builder.phi(value.type) for value in [start, *values]]
        builder.cbranch(builder.icmp_signed("<", carried[0], stop), inside, after)
        builder.position_at_end(inside)
        results = [builder.add(carried[0], self.integer(step)), *body(carried[0], carried[1:])]
        for phi, first, again in zip(carried, [start, *values], results, strict=True):
            phi.add_incoming(first, before)
            phi.add_incoming(again, builder.block)
        builder.branch(test)
        builder.position_at_end(after)
        return carried[1:]

    def only_if(self, condition: Value, body: Callable[[], list[Value]], otherwise: list[Value]) -> list[Value]:
        """``body() if condition else otherwise``, where `body` does not run unless the condition holds."""
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

    # ---- functions -------------------------------------------------------------------------------------------

    def function(self, name: str, count: int, write: Callable[[Simd, Sequence[Value]], None]) -> Value:
        """The function of this name, which takes `count` integers; `write` writes it if it is not there yet.

        A function of its own, so that its registers are used for nothing else and that it is compiled once, however
        often it is called: where modules with the same function are linked, ``linkonce_odr`` keeps one of them.
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

    # ---- LLVM's own words --------------------------------------------------------------------------------------

    def _shuffle(self, a: Value, b: Value, lanes: list[int]) -> Value:
        """The lanes with these numbers, counted through `a` and then `b`."""
        return self.builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_LANE, len(lanes)), lanes))

    def _vector_at(self, pointer: Value, vector: ir.VectorType) -> Value:
        return self.builder.bitcast(pointer, vector.as_pointer())

    def _masked(self, what: str, vector: ir.VectorType, arguments: list[Value]) -> Value:
        result = vector if what == "load" else ir.VoidType()
        return self._call(f"llvm.masked.{what}.{self._name(vector)}.p0", result, arguments)

    def _name(self, vector: ir.VectorType) -> str:
        """As LLVM writes a type in the names of its functions."""
        return f"v{vector.count}f{8 * self.size}"

    def _call(self, name: str, result: ir.Type, arguments: list[Value]) -> Value:
        signature = ir.FunctionType(result, [argument.type for argument in arguments])
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, signature, name), arguments)
