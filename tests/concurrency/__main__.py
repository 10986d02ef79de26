"""Train networks at the same time, many times; exit with 1 if one gives other bits or fails."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from functools import partial

from tests.concurrency.work import BIG, SMALL, forked, in_processes, in_threads, job
from tests.conftest import make_backend

_SECONDS = 600.0
_ON_CPU = ("numpy", "numba")


class Count:
    """The number of runs, and the failed ones."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, str, int, int, int, float]] = []

    def add(
        self, kind: str, backend: str, workers: int, rounds: list[tuple[list[str], list[str]]], begin: float
    ) -> None:
        runs = sum(len(expected) for expected, _ in rounds)
        wrong = sum(one != other for pair in rounds for one, other in zip(*pair, strict=True))
        self.rows.append((kind, backend, workers, runs, wrong, time.monotonic() - begin))
        print(self.line(self.rows[-1]), flush=True)

    @staticmethod
    def line(row: tuple[str, str, int, int, int, float]) -> str:
        kind, backend, workers, runs, wrong, seconds = row
        return f"{kind:<34}{backend:<15}{workers:>8}{runs:>7}{wrong:>13}{seconds:>9.0f}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.concurrency", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="number of repetitions (default: 20)")
    parser.add_argument("--workers", type=int, default=8, help="threads or processes at the same time (default: 8)")
    options = parser.parse_args()
    begin, count = time.monotonic(), Count()
    print(f"{'what':<34}{'backend':<15}{'at once':>8}{'runs':>7}{'other bits':>13}{'seconds':>9}")
    for backend in ("numpy", "numba", "cupy-emulated"):
        _threads(backend, options, count)
    for backend in _ON_CPU:
        for method in ("fork", "spawn"):
            _processes(method, backend, options, count)
    _empty_cache(options, count)
    runs, wrong = sum(row[3] for row in count.rows), sum(row[4] for row in count.rows)
    print(f"{runs:,} runs, {wrong} of them gave other bits than alone; {time.monotonic() - begin:.0f} s")
    return 1 if wrong else 0


def _threads(name: str, options: argparse.Namespace, count: Count) -> None:
    backend, workers = make_backend(name), options.workers
    alone = [job(backend, seed) for seed in range(workers)]
    begin = time.monotonic()
    works = [partial(job, backend, seed) for seed in range(workers)]
    count.add("threads", name, workers, [(alone, in_threads(works, _SECONDS)) for _ in range(options.rounds)], begin)
    if name in _ON_CPU:
        # Networks whose steps are divided among the backend's threads, which all of them request at once.
        shared = type(make_backend(name))(threads=3)  # type: ignore[call-arg]
        alone = [job(shared, seed, BIG) for seed in range(workers)]
        begin = time.monotonic()
        works = [partial(job, shared, seed, BIG) for seed in range(workers)]
        rounds = [(alone, in_threads(works, _SECONDS)) for _ in range(max(1, options.rounds // 4))]
        count.add("threads, with divided steps", name, workers, rounds, begin)


def _processes(method: str, name: str, options: argparse.Namespace, count: Count) -> None:
    if method == "fork" and not hasattr(os, "fork"):
        return
    arguments = [(seed, BIG if seed % 4 == 3 else SMALL) for seed in range(options.workers)]
    alone = [job(name, *one) for one in arguments]
    begin = time.monotonic()
    many = options.rounds if method == "fork" else max(1, options.rounds // 10)
    if method == "fork":
        rounds = [(alone, forked(name, arguments, _SECONDS)) for _ in range(many)]
        count.add("forked while a thread trains", name, options.workers, rounds, begin)
    else:
        rounds = [(alone, in_processes(method, name, arguments, _SECONDS)) for _ in range(many)]
        count.add("spawned", name, options.workers, rounds, begin)


def _empty_cache(options: argparse.Namespace, count: Count) -> None:
    """Processes that compile kernels for both dtypes into one empty cache at the same time."""
    before = os.environ.get("NUMBA_CACHE_DIR")
    arguments = [(seed, SMALL, ("float32", "float64")[seed % 2]) for seed in range(4)]
    alone = [job("numba", *one) for one in arguments]
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["NUMBA_CACHE_DIR"] = folder
        try:
            # The second time, they load the cached kernels.
            rounds = [(alone, in_processes("spawn", "numba", arguments, _SECONDS)) for _ in range(2)]
        finally:
            os.environ.pop("NUMBA_CACHE_DIR")
            if before is not None:
                os.environ["NUMBA_CACHE_DIR"] = before
    count.add("spawned, with an empty cache", "numba", len(arguments), rounds, begin)


if __name__ == "__main__":
    sys.exit(main())
