"""The table of a program in memory, which can be changed to run the same step for another network.

Whatever depends on the address of an array is known: a word of a record that is the address, or a distance to it from
the gradients. Another network's array is then an addition to these words.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from nnbackend.backends.declaration import Call
from nnbackend.backends.numba.compiled import address_of, compile_together, product_for
from nnbackend.backends.numba.lines import Line, Span
from nnbackend.backends.numba.records import Record
from nnbackend.backends.numba.updates import UPDATE

__all__ = ["Records"]

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
    """

    def __init__(self, lines: Sequence[Line]) -> None:
        sizes = [line.kind.record.size + (UPDATE.size if line.update is not None else 0) for line in lines]
        self._memory = np.zeros(sum(sizes) // _WORD, np.int64)
        #: Words that depend on the address of an array, that address, and the bytes that change the word by 1.
        self._depending: list[tuple[int, int, int]] = []
        #: Lines that use the network's seed, and the offsets of their records.
        self._seeded: list[tuple[Line, int]] = []
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
