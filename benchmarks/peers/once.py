"""A new process that trains a few steps and prints its start-up time and memory.

    python -m benchmarks.peers.once NAME THREADS ROWS STEPS

Prints JSON: "first_step", the seconds from the library's import to the end of the first training step, after NumPy and
the images have been loaded; and "memory", the peak memory of the process in bytes, after STEPS more steps.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from dataclasses import replace

from benchmarks.peers.cores import bind

__all__ = ["main"]


def main() -> None:
    name, threads, rows, steps = sys.argv[1], *map(int, sys.argv[2:5])
    bind(threads)
    with contextlib.redirect_stdout(sys.stderr):
        figures = measure(name, threads, rows, steps)
    print(json.dumps(figures))


def measure(name: str, threads: int, rows: int, steps: int) -> dict[str, float]:
    """Train the middle one of the three networks."""
    import resource  # Not available on every system.

    from benchmarks import common
    from benchmarks.peers.data import initial_weights
    from benchmarks.peers.entries import find
    from benchmarks.peers.works import NETS

    work = replace(NETS[1], rows=rows)
    x, y = common.images(rows)
    weights = initial_weights(work)
    begin = time.perf_counter()
    contender = find(name).make(threads)
    contender.load(x, y)
    training = contender.build(work, weights)
    training.shuffle()
    training.run(1)
    first_step = time.perf_counter() - begin
    if steps:
        training.run(min(steps, work.epoch_steps))
    # In kilobytes, except on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    return {"first_step": first_step, "memory": unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}


if __name__ == "__main__":
    main()
