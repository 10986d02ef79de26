"""A recorded step that predicts, as one call from rows to results.

Weights are kept in panels until they may have changed: until anything but a prediction has run on the backend, or has
written to an array of it (`Team.stamp`). It is not necessary to know what, because copying the weights again is always
right.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from nnbackend.backends.executor import INFINITE, SUSPECT, Constants, RunRows
from nnbackend.backends.numba import prediction
from nnbackend.backends.numba.executor import PIECE, Team
from nnbackend.backends.numba.lines import Array
from nnbackend.backends.numba.panels import fill_again
from nnbackend.backends.numba.program import Program
from nnbackend.backends.numba.row_chunks import RowChunks

__all__ = ["MakeProgram", "predictions"]

#: Makes the program of the step from the constants with its weights in panels, or None for weights where they are; the
#: step's input, its flags, and the number of slices. Returns whether the program sets the flag of its input, too.
MakeProgram = Callable[[Constants | None, Array, Array, int], tuple[Program, bool]]


def predictions(
    team: Team, make: MakeProgram, x: Array, outputs: Array, constants: Constants, slices: int
) -> RunRows | None:
    """The call for :meth:`nnbackend.backends.executor.Executor.from_rows`."""
    if not slices:
        return _FixedRows(team, make, x, outputs, constants)
    flags = np.zeros(2, np.int64)
    stamp = team.stamp
    program, checks = make(constants, x, flags, slices)
    if not RowChunks.fits(program, x, outputs):
        return None
    if constants.stamp is None:
        constants.stamp = stamp
    return _AnyRows(team, RowChunks(program, x, outputs, slices, flags, checks), constants)


def _update(team: Team, constants: Constants) -> None:
    """Copy the weights to their panels if they may have changed."""
    stamp = team.stamp
    if not constants.fixed and constants.stamp is not stamp:
        fill_again(constants)
        constants.stamp = stamp


class _AnyRows:
    """For any number of rows, in chunks."""

    def __init__(self, team: Team, chunks: RowChunks, constants: Constants) -> None:
        self._team, self._chunks, self._constants = team, chunks, constants
        program = chunks.program
        self._step = program.table, program.counter, program.scratch
        #: Rows of a call of compiled code, during which Ctrl-C has no effect.
        self._piece = max(1, PIECE // chunks.work)

    def __call__(self, rows: Array, scale: Any, results: Array) -> int:
        constants = self._constants
        if not constants.fixed and constants.stamp is not self._team.stamp:
            _update(self._team, constants)
        count, piece = len(rows), self._piece
        if count <= piece:
            return self._run(rows, scale, results)
        flag = 0
        for begin in range(0, count, piece):
            flag |= self._run(rows[begin : begin + piece], scale, results[begin : begin + piece])
        return flag

    def _run(self, rows: Array, scale: Any, results: Array) -> int:
        team, chunks = self._team, self._chunks
        chunks.prepare(rows, scale, results)
        program = chunks.program
        if program.work < team.worth_help:
            prediction.run_shared(*self._step, *team.alone)
            return chunks.found()

        team.share_chunks(program.work, self._step)
        return chunks.found()


class _FixedRows:
    """For the recorded number of rows.

    Copying the weights takes longer than a few rows do, so they are read where they are until a second call finds them
    unchanged.
    """

    def __init__(self, team: Team, make: MakeProgram, x: Array, outputs: Array, constants: Constants) -> None:
        self._team, self._make, self._x, self._outputs, self._constants = team, make, x, outputs, constants
        self._flags = np.zeros(2, np.int64)
        self._largest = np.finfo(x.dtype).max
        self._in_panels: tuple[Any, ...] | None = None
        self._in_place: tuple[Any, ...] | None = None
        self._seen: object = None
        if constants.fixed:
            self._step()

    def __call__(self, rows: Array, scale: Any, results: Array) -> int:
        team = self._team
        program, before = self._step()
        step = rows, scale, *before, results
        if program.work < team.worth_help:
            flag: int = prediction.predict(*step, *team.alone)
            return flag

        def together() -> int:
            # The rows were read.
            self._flags[0] = 0
            team.run_together(program, 1, team.threads)
            found = SUSPECT if self._flags[0] else 0
            return found if prediction.write_results(self._outputs, self._largest, results) else found | INFINITE

        return team.share(program.work, partial(prediction.predict, *step), together)

    def _step(self) -> tuple[Any, ...]:
        """The program to run, and the arguments of :func:`prediction.predict` between those of a call."""
        team, constants = self._team, self._constants
        stamp = team.stamp
        if constants.fixed or constants.stamp is stamp or self._seen is stamp:
            if self._in_panels is None:
                self._in_panels = self._made(constants)
            if constants.fixed:
                return self._in_panels
            _update(team, constants)
            return self._in_panels
        self._seen = stamp
        if self._in_place is None:
            self._in_place = self._made(None)
        return self._in_place

    def _made(self, constants: Constants | None) -> tuple[Any, ...]:
        program, checks = self._make(constants, self._x, self._flags, 0)
        begin = self._x.ctypes.data
        words = program.records.words_of((begin, begin + self._x.nbytes))
        inputs = self._largest, self._x, words, not checks, self._flags
        return program, (*inputs, program.table, program.counter, program.scratch, self._outputs)
