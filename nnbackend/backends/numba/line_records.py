"""The table of a program in memory, which can be changed to run the same step for another network.

Whatever depends on the address of an array is known: a word of a record that is the address, or a distance to it from
the gradients. Another network's array is then an addition to these words.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Self

import numpy as np
import numpy.typing as npt

from nnbackend.backends.arrays import overlap
from nnbackend.backends.declaration import Call
from nnbackend.backends.numba.compiled import address_of, compile_together, product_for
from nnbackend.backends.numba.lines import Line, Span, uses_of
from nnbackend.backends.numba.records import Record
from nnbackend.backends.numba.updates import UPDATE

__all__ = ["FUNCTION", "RECORD", "WAIT", "Records"]

#: Columns of the table: the address of a line's function, whether there is a barrier before it, and its record's
#: address.
FUNCTION, WAIT, RECORD = 0, 1, 2

#: Bytes of a word.
_WORD = 8


class Records:
    """The records of lines, and the table that points to them.

    Parameters
    ----------
    lines : sequence of Line
        In the order in which they run.

    Attributes
    ----------
    table : (lines, 3) int64
    by_rows : int or None
        The number of rows, if every line is split by the same rows, and nothing but its records depends on their
        number.
    """

    def __init__(self, lines: Sequence[Line]) -> None:
        sizes = [line.kind.record.size + (UPDATE.size if line.update is not None else 0) for line in lines]
        self._memory = np.zeros(sum(sizes) // _WORD, np.int64)
        #: Words that depend on the address of an array, that address, and the bytes that change the word by 1.
        self._depending: list[tuple[int, int, int]] = []
        #: Lines that use the network's seed, and the offsets of their records.
        self._seeded: list[tuple[Line, int]] = []
        #: Words that are the number of rows.
        self._rows: list[int] = []
        begin, place = self._memory.ctypes.data, 0
        table = []
        functions = [(line.kind.name, line.dtype, None if line.update is None else line.update.rule) for line in lines]
        compile_together(functions)
        for line, size, function in zip(lines, sizes, functions, strict=True):
            self._write(line, place, begin)
            table.append((address_of(*function), line.wait, begin + place))
            place += size
        self.table: npt.NDArray[np.int64] = np.array(table, np.int64).reshape(-1, 3)
        columns = np.array(self._depending, np.int64).reshape(-1, 3)
        self._words, self._addresses, self._units = columns.T.copy()
        counts = {line.split.count for line in lines}
        alike = len(counts) == 1 and all(line.split.unit == "rows" and _is_simple(line) for line in lines)
        self.by_rows = counts.pop() if alike else None
        self._spans = [span for line in lines for span in line.touched()]
        self._written = [span for line in lines for span in line.written()]

    def _write(self, line: Line, place: int, begin: int) -> None:
        record, update = line.kind.record, line.update
        values, rule = line.fields(), None
        if update is not None:
            rule = update.rule
            after = place + record.size
            values["update"] = begin + after
            UPDATE.pack(self._memory.view(np.uint8), after, update.fields())
            self._depend(UPDATE, after, "learning_rates", update.rates, 1)
            for name, buffer in zip(("to_parameters", "to_first", "to_second"), update.buffers, strict=False):
                self._depend(UPDATE, after, name, buffer, update.itemsize)
                # What serves as gradients may be weights, which are exchanged.
                self._depend(UPDATE, after, name, update.gradients, -update.itemsize)
        if line.kind.calls_product:
            values["product"] = product_for(line.dtype, rule)
            values["partial_product"] = product_for(line.dtype) if rule is not None else 0
        record.pack(self._memory.view(np.uint8), place, values)
        named = dict(record.fields)
        for name, span in line.spans.items():
            if name in named:
                self._depend(record, place, name, span, 1)
        if line.split.unit == "rows":
            self._rows.append((place + record.offset(_rows_field(line))) // _WORD)
        if "seed" in line.call.arguments:
            self._seeded.append((line, place))

    def _depend(self, record: Record, place: int, name: str, span: Span, unit: int) -> None:
        self._depending.append(((place + record.offset(name)) // _WORD, span[0], unit))

    def move(self, arrays: Sequence[tuple[Span, int]]) -> None:
        """Exchange arrays.

        Parameters
        ----------
        arrays : sequence of (old, begin)
            The memory that an array takes, and the address of its replacement.
        """
        distances = np.zeros_like(self._addresses)
        for (begin, end), new in arrays:
            distances[(self._addresses >= begin) & (self._addresses < end)] = new - begin
        # A distance depends on two arrays.
        np.add.at(self._memory, self._words, distances // self._units)
        self._addresses += distances

    def copy(self) -> Self:
        """The same table with records of its own."""
        other = copy.copy(self)
        other._memory, other._addresses = self._memory.copy(), self._addresses.copy()
        other.table = self.table.copy()
        other.table[:, RECORD] += other._memory.ctypes.data - self._memory.ctypes.data
        return other

    def set_rows(self, rows: int) -> None:
        """Let all lines compute another number of rows, not more than they were recorded for; see `by_rows`."""
        self._memory[self._rows] = rows

    def keeps_apart(self, span: Span, written: bool = True) -> bool:
        """Whether all arrays of the lines that overlap with some memory are within it; and, unless `written`, no line
        writes it."""
        inside = all(span[0] <= begin and end <= span[1] for begin, end in self._spans if overlap(span, (begin, end)))
        return inside and (written or not any(overlap(span, each) for each in self._written))

    def words_of(self, span: Span) -> npt.NDArray[np.int64]:
        """The addresses of the words that depend on an array's address, and their distances from it: (words, 2)."""
        begin, end = span
        inside = (self._addresses >= begin) & (self._addresses < end)
        words = self._memory.ctypes.data + _WORD * self._words[inside]
        return np.stack([words, self._memory[self._words[inside]] - begin], axis=1)

    def set_seed(self, seed: int) -> None:
        """Use another network's seed."""
        for line, place in self._seeded:
            record, call = line.kind.record, line.call
            line.call = Call(call.operation, {**call.arguments, "seed": seed})
            values = np.zeros(record.size // _WORD, np.int64)
            record.pack(values.view(np.uint8), 0, line.fields())
            for name in ("seed", *line.kind.values):
                word = record.offset(name) // _WORD
                self._memory[place // _WORD + word] = values[word]


def _rows_field(line: Line) -> str:
    """The field of a line's record with the number of rows of its result."""
    uses, arguments = uses_of(line.call.operation), line.call.arguments
    name = next(name for name in uses.written if arguments.get(name) is not None)
    return uses.shapes[name][arguments[name].ndim][0]


def _is_simple(line: Line) -> bool:
    """Whether its record has no number that a function computes from the call, which may depend on the rows."""
    return line.update is None and not set(line.kind.values) - {"checks", "copies"}
