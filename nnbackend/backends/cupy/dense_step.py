"""A training step of dense layers in two launches, for one network or for many equal ones at once.

A launch, and the start of a kernel after another one, take longer than the arithmetic of a small network. So one kernel
takes a few rows of the batch through the whole network, and a second computes all gradients of weights and updates
them. Each network has a line in the kernels' tables, and any number of equal networks takes the launches of one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nnbackend.backends.contract import Array, Call, Executor
from nnbackend.backends.cupy.dense_program import SHARED_BYTES, TILE, DenseProgram, UnsupportedStepError
from nnbackend.backends.cupy.dense_translation import dense_program
from nnbackend.backends.cupy.graph import GraphExecutor
from nnbackend.backends.cupy.interface import Runtime
from nnbackend.backends.cupy.launches import Launch

__all__ = ["MOST_NETWORKS", "DenseStep", "DenseStepExecutor", "dense_step", "rows_of_block"]

MOST_NETWORKS = 64
"""Networks that run as one, at most: enough to fill any GPU with small ones."""

MOST_WEIGHT_BYTES = 2 << 20
"""Most bytes of weights that a block of the first kernel reads, forward and backward: beyond, products of the whole
batch, which read weights less often, are estimated to be faster."""

MOST_BYTES_READ = 256 << 20
"""The same for all blocks together."""

#: Rows of a block of the first kernel. More rows read the weights less often, fewer rows occupy more multiprocessors.
_ROWS = (4, 2, 1)
_ENOUGH_BLOCKS = 64

_BLOCK = (32, 8)

#: Numbers for the second kernel that belong to a table of learning rates; those of penalties follow.
_NUMBERS_OF_TABLE = 7


def _fitting_rows(program: DenseProgram) -> tuple[int, ...]:
    """How many rows a block has memory for; one row if it has not enough for any."""
    return tuple(rows for rows in _ROWS if program.shared_bytes(rows) <= SHARED_BYTES) or (1,)


def rows_of_block(program: DenseProgram, networks: int = 1) -> int:
    """Rows of the batch that a block takes: four or two, if they fit into its memory and make enough blocks; otherwise
    one."""
    enough = (rows for rows in _fitting_rows(program) if -(-program.rows // rows) * networks >= _ENOUGH_BLOCKS)
    return next(enough, 1)


def dense_step(calls: Sequence[Call]) -> tuple[DenseProgram, str]:
    """The program of a recorded step that two kernels should compute, and why.

    Raises
    ------
    UnsupportedStepError
        They cannot, or other ways are estimated to be faster; the message says why.
    """
    program = dense_program(calls)
    rows, weights = _fitting_rows(program)[0], program.weights * program.dtype.itemsize
    shared, most_rows = program.shared_bytes(rows), MOST_BYTES_READ // max(weights, 1) * rows
    if shared > SHARED_BYTES:
        raise UnsupportedStepError(
            f"a row of activations takes {shared / 1024:.0f} KiB, and a block has {SHARED_BYTES >> 10} KiB of memory"
        )
    if weights > MOST_WEIGHT_BYTES:
        raise UnsupportedStepError(
            f"each block would read {weights / 2**20:.1f} MiB of weights, more than {MOST_WEIGHT_BYTES / 2**20:.0f} MiB"
        )
    if program.rows > most_rows:
        raise UnsupportedStepError(f"the batch has more than {most_rows} rows, the most for weights of this size")
    activations = "1 row of activations takes" if rows == 1 else f"{rows} rows of activations take"
    return program, (
        f"dense layers of this size take two launches a step, for batches of at most {most_rows:,} rows; "
        f"{activations} {shared / 1024:.0f} KiB of a block's memory of {SHARED_BYTES >> 10} KiB"
    )


class DenseStep:
    """The tables of equal programs on the device, and their launches.

    Parameters
    ----------
    programs : sequence of DenseProgram
        One for each network, with equal keys.
    memory : callable
        Copies a host array to the device.
    """

    def __init__(self, programs: Sequence[DenseProgram], memory: Callable[[Any], Array]) -> None:
        first, networks = programs[0], len(programs)
        self._program, self._networks = first, networks
        counters = memory(np.zeros((networks, 3), np.int64))
        numbers = memory(np.zeros((networks, _NUMBERS_OF_TABLE * first.tables + first.parts), np.float64))
        words = np.stack([program.words for program in programs])
        # The first two words are the addresses of what the first kernel hands to the second.
        for place, array in enumerate((counters, numbers)):
            words[:, place] = array.data.ptr + array.strides[0] * np.arange(networks)
        self._tables = memory(words), memory(np.stack([program.numbers for program in programs]))
        self._ints, self._tiles = memory(first.ints), memory(first.tiles)
        self._kept = counters, numbers, [program.arrays for program in programs]
        self.rows = rows_of_block(first, networks)

    def launch(self, launch: Callable[..., None]) -> None:
        """Launch both kernels.

        Parameters
        ----------
        launch : callable
            ``launch(kernel, dtype, launch, *arguments, shared_bytes=0)``.
        """
        program, networks = self._program, self._networks
        rows = Launch((-(-program.rows // self.rows) + program.parts, networks), _BLOCK)
        tiles = len(program.tiles)
        shared = program.shared_bytes(self.rows)
        launch(f"dense_step.rows_{self.rows}", program.dtype, rows, self._ints, len(program.ints), *self._tables,
               shared_bytes=shared)  # fmt: skip
        updates = Launch((tiles + 1, networks), _BLOCK)
        launch(f"dense_step.update_{program.optimizer}", program.dtype, updates, self._ints, self._tiles, tiles,
               *self._tables, shared_bytes=4 * TILE**2 * program.dtype.itemsize)  # fmt: skip


class DenseStepExecutor(GraphExecutor):
    """Replays a step of two kernels, for its network alone or together with others.

    Parameters
    ----------
    runtime : Runtime
    make : callable
        The plain executor of the step of one or several programs.
    program : DenseProgram
    reason : str

    Attributes
    ----------
    program : DenseProgram
    """

    name = "two kernels"

    def __init__(
        self, runtime: Runtime, make: Callable[[Sequence[DenseProgram]], Executor], program: DenseProgram, reason: str
    ) -> None:
        super().__init__(runtime, make([program]))
        self.reason = reason
        self.kind = program.key
        self._make, self.program = make, program
        #: The last executors that ran with this one, and the graphs of all.
        self._together: tuple[Sequence[Executor], GraphExecutor] | None = None

    def run_with(self, others: Sequence[Executor], repeats: int) -> None:
        if not others:
            self.run(repeats)
            return
        if self._together is None or list(self._together[0]) != list(others):
            programs = [self.program, *(other.program for other in others if isinstance(other, DenseStepExecutor))]
            self._together = others, GraphExecutor(self._runtime, self._make(programs))
        self._together[1].run(repeats)
