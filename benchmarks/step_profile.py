"""The time of each line of a training step on the Numba backend, beside its arithmetic and its bytes.

python -m benchmarks.step_profile                       # the three networks
python -m benchmarks.step_profile 784-1024-1024-10      # works whose names contain this
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numba import types
from numpy.typing import NDArray

from benchmarks.peers import data, works
from benchmarks.peers.contenders import ours, peak
from benchmarks.peers.cores import bind, usable
from benchmarks.peers.markdown import NOTHING, markdown
from benchmarks.peers.options import positive, threads
from benchmarks.peers.works import Work
from nnbackend.backends.contract import Call, Executor
from nnbackend.backends.numba import NumbaBackend
from nnbackend.backends.numba.epoch import STATE_SIZE, THREAD, THREADS, wait_at_barrier
from nnbackend.backends.numba.intrinsics import call, flush_subnormals
from nnbackend.backends.numba.jit import as_written
from nnbackend.backends.numba.lines import Line
from nnbackend.backends.numba.program import FUNCTION, RECORD, WAIT, Program, lines_of_step

__all__ = ["main", "measure"]

_clock_gettime = types.ExternalFunction("clock_gettime", types.int32(types.int32, types.intp))


@as_written
def _now(place):
    """The monotonic clock in nanoseconds; `place` is an array for its answer."""
    _clock_gettime(1, place.ctypes.data)
    return 1_000_000_000 * place[0] + place[1]


@as_written
def _run(table, counter, steps, scratch_bytes, thread, threads, barrier, spent):
    """As `epoch.run`, adding the nanoseconds of each line, waiting and computing, to `spent`, (lines, 2)."""
    before = flush_subnormals(True)
    state = np.empty(STATE_SIZE, np.int64)
    for place in range(3):
        state[place] = counter[place]
    state[THREAD], state[THREADS] = thread, threads
    scratch, answer, goal = np.empty(scratch_bytes, np.uint8), np.empty(2, np.int64), 0
    for _ in range(steps):
        begin = _now(answer)
        for line in range(len(table)):
            if table[line, WAIT] and threads > 1:
                goal += threads
                wait_at_barrier(barrier, goal)
            middle = _now(answer)
            call(table[line, FUNCTION], table[line, RECORD], state.ctypes.data, scratch.ctypes.data)
            end = _now(answer)
            spent[line, 0] += middle - begin
            spent[line, 1] += end - middle
            begin = end
        for place in range(3):
            state[place] += 1
    flush_subnormals(before)


class _Noting(NumbaBackend):
    """Notes the calls of the recorded steps, by their executors."""

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        self.steps: list[tuple[Executor, Sequence[Call]]] = []

    def executor(self, calls: Sequence[Call]) -> Executor:
        executor = super().executor(calls)
        self.steps.append((executor, calls))
        return executor


class _Ours(ours.Numba):
    def make_backend(self, threads: int) -> NumbaBackend:
        return _Noting(threads)


@dataclass(frozen=True)
class Profile:
    """The times of a step, in seconds.

    Attributes
    ----------
    work : Work
    lines : list of Line
    spent : (threads, lines, 2) array
        For which each thread waits before a line, and computes it.
    step : float
        Without the clock.
    peak : float
        That the flops of the step take at the measured peak of the cores.
    """

    work: Work
    lines: list[Line]
    spent: NDArray[np.float64]
    step: float
    peak: float


def measure(work: Work, number: int, rounds: int) -> Profile:
    """Profile a training step on a number of threads."""
    contender = _Ours(number)
    x, y, _ = data.images(work.rows)
    contender.load(x, y)
    training = contender.build(work, data.initial_weights(work))
    training.shuffle()
    training.run(work.steps)
    executor = training._run.executors[0][0]
    calls = next(calls for other, calls in contender.backend.steps if other is executor)
    lines, _ = lines_of_step(calls, number)
    limit = peak.Peak(number).build(work, [])
    spent, steps, peaks = [], [], []
    with ThreadPoolExecutor(number) as pool:
        for _ in range(rounds):
            training.shuffle()
            spent.append(_timed(executor._program, work.steps, number, pool))
            training.shuffle()
            begin = time.perf_counter()
            training.run(work.steps)
            middle = time.perf_counter()
            limit.run(work.steps)
            steps.append((middle - begin) / work.steps)
            peaks.append((time.perf_counter() - middle) / work.steps)
    return Profile(work, lines, np.median(spent, axis=0), float(np.median(steps)), float(np.median(peaks)))


def _timed(program: Program, steps: int, number: int, pool: ThreadPoolExecutor) -> NDArray[np.float64]:
    """The seconds of a step, as in `Profile`."""
    spent, barrier = np.zeros((number, len(program.table), 2), np.int64), np.zeros(2, np.int64)

    def share(thread: int) -> None:
        _run(program.table, program.counter, steps, program.scratch, thread, number, barrier.ctypes.data, spent[thread])

    list(pool.map(share, range(number)))
    return spent / (1e9 * steps)


def flops_of(line: Line) -> int:
    """Multiplications and additions of a product; 0 for other lines."""
    return 2 * line.kind.work(line.call) if line.kind.calls_product else 0


def bytes_of(line: Line) -> int:
    """Bytes that a line reads and writes, if no cache keeps any."""
    if line.call.operation == "gather":
        # It reads only some rows.
        out = line.call.out
        return int(out.nbytes + out.size * line.call.source.itemsize)
    return sum(end - begin for spans in (line.touched(), line.written()) for begin, end in {*spans})


def text(profile: Profile) -> str:
    """The table of a profile."""
    work, speed = profile.work, profile.work.flops / profile.peak
    rows: list[Sequence[str]] = [("line", "result", "split", "us", "waits", "MFLOP", "of peak", "MB", "GB/s")]
    for line, (waits, spent) in zip(profile.lines, profile.spent.mean(axis=0), strict=True):
        flops, size = flops_of(line), bytes_of(line)
        rows.append(
            (
                line.kind.name if line.update is None else f"{line.kind.name}, {line.update.call.operation}",
                " x ".join(str(extent) for extent in next(line.call.written()).shape),
                line.split.unit,
                f"{1e6 * spent:,.1f}",
                f"{1e6 * waits:,.1f}",
                f"{flops / 1e6:,.1f}" if flops else NOTHING,
                f"{100 * flops / speed / spent:.0f} %" if flops else NOTHING,
                f"{size / 1e6:.2f}",
                f"{size / spent / 1e9:.0f}",
            )
        )
    waits, whole = profile.spent.mean(axis=0)[:, 0].sum(), profile.spent.mean(axis=0).sum()
    about = (
        f"{1e6 * profile.step:,.1f} us a step, {100 * profile.peak / profile.step:.0f} % of the peak of "
        f"{speed / 1e9:,.0f} GFLOP/s; with the clock {1e6 * whole:,.1f} us, of which threads wait {1e6 * waits:,.1f} us"
    )
    return f"### {work.name}\n\n{about}\n\n{markdown(rows, right=range(3, 9))}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    known = {work.name: work for work in (*works.NETS, *works.SWEEP)}
    parser = argparse.ArgumentParser(prog="python -m benchmarks.step_profile", description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", default=[work.name for work in works.NETS], metavar="NET")
    parser.add_argument("--threads", type=threads, default=usable(), metavar="N", help="default: all cores")
    parser.add_argument("--rounds", type=positive, default=9, metavar="N")
    parser.add_argument("--quick", action="store_true", help="a few steps, to see that it works")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.names if name not in known]:
        parser.error(f"unknown networks: {', '.join(unknown)}; choose from {', '.join(known)}")
    bind(options.threads)
    for name in options.names:
        work = works.quick(known[name]) if options.quick else known[name]
        print(text(measure(work, options.threads, options.rounds)), end="\n\n", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
