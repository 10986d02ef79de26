"""A training step of the backend "torch:cpu", beside PyTorch's own eager step with its fused optimisers.

    python -m benchmarks.torch_step [--rounds 5] [--seconds 0.5] [--threads N]

Both train the same networks from the same weights on the same images of MNIST's size, in turns; the medians of the
rounds are printed with their ratio. First the losses of some steps must agree.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence

import numpy as np

from benchmarks.peers.contenders.base import Contender, Training
from benchmarks.peers.cores import usable
from benchmarks.peers.data import images, initial_weights
from benchmarks.peers.options import positive, threads
from benchmarks.peers.works import IMAGES, NETS, ROWS, Work

__all__ = ["main", "measure"]

#: The three dense networks, and LeNet.
WORKS = (*NETS, IMAGES[0])

#: Steps whose losses are compared, and the largest relative difference.
_CHECKED, _TOLERANCE = 3, 1e-3


def contenders(count: int) -> dict[str, Contender]:
    """Our backend and PyTorch in eager mode, by the names of their columns."""
    from benchmarks.peers.contenders.ours import Ours
    from benchmarks.peers.contenders.pytorch import Eager

    class Torch(Ours):
        def make_backend(self, threads: int):
            from nnbackend.backends.torch import TorchBackend

            return TorchBackend("cpu")

    # PyTorch first: it sets the number of its threads when it loads the images.
    return {"PyTorch": Eager(count), "nnbackend torch": Torch(count)}


def measure(work: Work, learners: dict[str, Contender], rounds: int, seconds: float) -> dict[str, float]:
    """The median seconds of a step of each contender."""
    trainings: dict[str, Training] = {}
    losses = {}
    for name, contender in learners.items():
        weights = initial_weights(work, 0)
        batches = np.arange(_CHECKED * work.batch_size).reshape(_CHECKED, -1)
        losses[name] = contender.build(work, weights).losses(batches)
        trainings[name] = contender.build(work, weights)
    one, other = losses.values()
    if not np.allclose(one, other, rtol=_TOLERANCE):
        raise SystemExit(f"{work.name}: the losses differ: {losses}")
    times: dict[str, list[float]] = {name: [] for name in trainings}
    steps = {name: _steps_for(training, work, seconds / rounds) for name, training in trainings.items()}
    for _ in range(rounds):
        for name, training in trainings.items():
            times[name].append(_timed(training, steps[name]))
    return {name: statistics.median(values) for name, values in times.items()}


def _steps_for(training: Training, work: Work, seconds: float) -> int:
    """How many steps take this long; an epoch has no more. The first ones warm up."""
    _timed(training, 3)
    return max(3, min(work.rows // work.batch_size, round(seconds / _timed(training, 3))))


def _timed(training: Training, steps: int) -> float:
    """Seconds per step."""
    training.shuffle()
    begin = time.perf_counter()
    training.run(steps)
    return (time.perf_counter() - begin) / steps


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.torch_step", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=positive, default=5, help="rounds (default: 5)")
    parser.add_argument("--seconds", type=float, default=2.5, help="of each contender on each network (default: 2.5)")
    parser.add_argument("--threads", type=threads, default=usable(), help="of PyTorch (default: one for each core)")
    options = parser.parse_args(arguments)
    learners = contenders(options.threads)
    x, y, _ = images(ROWS)
    for contender in learners.values():
        contender.load(x, y)
    names = list(learners)
    print(f"{'us/step':24}" + "".join(f"{name:>18}" for name in names) + f"{'ratio':>8}")
    for work in WORKS:
        result = measure(work, learners, options.rounds, options.seconds)
        cells = "".join(f"{1e6 * result[name]:18,.1f}" for name in names)
        print(f"{work.name:24}{cells}{result[names[1]] / result[names[0]]:8.2f}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
