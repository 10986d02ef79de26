"""What the two kernels of a training step need on a GPU, and an estimate of their time; no GPU is needed.

    python -m benchmarks.gpu_step               # the three networks, on sm_90
    python -m benchmarks.gpu_step --networks 32 # as many equal networks at once

Registers come from NVIDIA's compiler, if it is installed; everything else follows from the shapes. **Nothing here is
measured**: the estimate adds up, for an H200, what its published figures say about the bytes and the arithmetic, and
assumed latencies.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

import nnbackend as nn
from benchmarks.peers import works
from benchmarks.peers.markdown import markdown
from benchmarks.peers.options import positive
from benchmarks.peers.works import Work
from nnbackend.backends.contract import Executor
from nnbackend.backends.cupy import CupyBackend
from nnbackend.backends.cupy.dense_program import KINDS, THREADS, TILE, DenseProgram
from nnbackend.backends.cupy.dense_step import DenseStepExecutor, rows_of_block
from tests.backends.cupy import nvrtc, registers
from tests.backends.cupy.emulator import EmulatedRuntime, why_not

__all__ = ["KernelNeeds", "executor_of", "main", "needs"]

# An H200, from NVIDIA's data sheet and programming guide.
MULTIPROCESSORS = 132
CLOCK = 1.75e9  # per second, under load
THREADS_OF_MULTIPROCESSOR, BLOCKS_OF_MULTIPROCESSOR = 2048, 32
REGISTERS_OF_MULTIPROCESSOR, SHARED_OF_MULTIPROCESSOR = 65_536, 227 << 10
RESERVED_SHARED = 1 << 10  # of each block
MULTIPLICATIONS = 128  # and additions, of each multiprocessor in each cycle
L2_BYTES = 64  # that a multiprocessor reads from the L2 cache in each cycle
ALL_L2_BYTES = 5.5e12  # per second, by all of them

# Assumed.
START = 1.2e-6  # seconds from the end of a kernel of a graph to the start of the next
LATENCY = 0.35e-6  # of a first read of the L2 cache
EFFICIENCY = 0.5  # of arithmetic, because operands also come from shared memory


@dataclass(frozen=True)
class KernelNeeds:
    """A kernel's resources and work.

    Attributes
    ----------
    kernel : str
    blocks : int
    shared : int
        Bytes of shared memory of a block.
    read : int
        Bytes that all blocks read, from whichever cache.
    written : int
        Bytes.
    multiplications : int
        With an addition each, of all blocks.
    waits : int
        Reads that follow from another, one after the other.
    """

    kernel: str
    blocks: int
    shared: int
    read: int
    written: int
    multiplications: int
    waits: int

    def concurrent(self, taken: int) -> int:
        """Blocks of a multiprocessor at the same time, if a thread has `taken` registers."""
        rounded = -(-taken // 8) * 8
        return min(
            BLOCKS_OF_MULTIPROCESSOR,
            THREADS_OF_MULTIPROCESSOR // THREADS,
            REGISTERS_OF_MULTIPROCESSOR // (rounded * THREADS),
            SHARED_OF_MULTIPROCESSOR // (self.shared + RESERVED_SHARED),
        )

    def seconds(self) -> float:
        """The estimate: the start, the waits, and the longer of reading and arithmetic of the busiest multiprocessor.

        Blocks are assumed to be spread evenly, and to overlap on a multiprocessor.
        """
        busiest = math.ceil(self.blocks / MULTIPROCESSORS) / self.blocks
        reading = max(self.read / ALL_L2_BYTES, self.read * busiest / (L2_BYTES * CLOCK))
        computing = self.multiplications * busiest / (MULTIPLICATIONS * CLOCK * EFFICIENCY)
        return START + self.waits * LATENCY + max(reading, computing)


def needs(program: DenseProgram, networks: int = 1) -> tuple[KernelNeeds, KernelNeeds]:
    """Of both kernels of a step."""
    rows, size = rows_of_block(program, networks), program.dtype.itemsize
    blocks = -(-program.rows // rows)
    pairs = {(int(tile[1]), int(tile[2]), int(tile[7])) for tile in program.tiles}
    trained = sum(inputs * outputs for inputs, outputs, _ in pairs)
    sides = sum(inputs + outputs for inputs, outputs, _ in pairs)
    # A byte or a number of each input; then what the second kernel reads.
    source = int(program.ints[2]) * (1 if program.ints[4] else size)
    # Tables, counter, order, row; then the first weights of each layer, forward and backward.
    products = [stage for stage in program.stages if KINDS[stage[0]] in ("dense", "input_gradient")]
    first = KernelNeeds(
        f"rows_{rows}", networks * (blocks + program.parts), program.shared_bytes(rows),
        networks * (blocks * program.weights * size + program.rows * source),
        networks * program.rows * sides * size,
        networks * program.rows * sum(int(stage[4]) * int(stage[5]) for stage in products),
        4 + len(products),
    )  # fmt: skip
    states = {"sgd": 0, "rmsprop": 1, "lion": 1, "adam": 2}[program.optimizer]
    tiles = len(program.tiles)
    second = KernelNeeds(
        f"update_{program.optimizer}", networks * (tiles + 1), 4 * TILE**2 * size,
        networks * (tiles * program.rows * 2 * TILE + trained * (1 + states)) * size,
        networks * trained * (1 + states) * size,
        networks * tiles * program.rows * TILE**2,
        # The tile, addresses, the first rows, and parameters.
        4,
    )  # fmt: skip
    return first, second


def executor_of(work: Work) -> Executor:
    """The executor of a step, recorded on the CPU build of the kernels."""
    layers = [*(nn.Dense(units, activation=work.activation) for units in work.hidden), nn.Dense(10)]
    network = nn.Network(layers, 784, backend=CupyBackend(EmulatedRuntime()), input_scale=1 / 255)
    optimizer = nn.Adam(work.learning_rate) if work.optimizer == "adam" else nn.SGD(work.learning_rate)
    x, y = np.zeros((work.batch_size, 784), np.uint8), np.zeros(work.batch_size, np.int64)
    network.train_on_batch(x, y, loss="softmax_cross_entropy", optimizer=optimizer)
    assert network.batch_step is not None
    return network.batch_step._executor


def table(program: DenseProgram, networks: int, architecture: str) -> str:
    """Both kernels, and the step."""
    taken = {} if nvrtc.why_not() else registers.resources("dense_step", architecture, program.dtype.name)
    lines: list[Sequence[str]] = [
        ("kernel", "blocks", "registers", "spilled", "shared KiB", "blocks/SM", "occupancy", "MB read", "MB written",
         "MFLOP", "us, estimated")
    ]  # fmt: skip
    both = needs(program, networks)
    for each in both:
        used = taken.get(each.kernel)
        concurrent = None if used is None else each.concurrent(used.registers)
        lines.append(
            (
                each.kernel, f"{each.blocks:,}", "-" if used is None else str(used.registers),
                "-" if used is None else str(used.spilled), f"{each.shared / 1024:.1f}",
                "-" if concurrent is None else str(concurrent),
                "-" if concurrent is None else f"{100 * concurrent * THREADS / THREADS_OF_MULTIPROCESSOR:.0f} %",
                f"{each.read / 1e6:.1f}", f"{each.written / 1e6:.2f}", f"{2 * each.multiplications / 1e6:.1f}",
                f"{1e6 * each.seconds():.1f}",
            )
        )  # fmt: skip
    lines.append(("step", *[""] * 9, f"{1e6 * sum(each.seconds() for each in both):.1f}"))
    return markdown(lines, right=range(1, 11))


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table of each network; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu_step", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", type=positive, default=1, metavar="N", help="equal networks at once (default: 1)")
    parser.add_argument("--architecture", default="sm_90", help="for the registers (default: sm_90)")
    options = parser.parse_args(arguments)
    if reason := why_not():
        print(f"steps cannot be recorded: {reason}", file=sys.stderr)
        return 1
    print("Estimates for an H200; nothing is measured.\n")
    for work in works.NETS:
        executor = executor_of(work)
        print(f"### {work.name}, {work.optimizer}, batch {work.batch_size}, {options.networks} at once\n")
        if isinstance(executor, DenseStepExecutor):
            print(f"{table(executor.program, options.networks, options.architecture)}\n")
        else:
            print(f"{executor.name}: {executor.reason}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
