"""The program of each rank: ``mpiexec -n 2 python -m benchmarks.scaling.worker NET BATCH SECONDS BACKEND``.

Rank 0 prints a line of JSON: the seconds of a step; of a step without communication while all ranks run; and of the sum
over the ranks.
"""

from __future__ import annotations

import json
import statistics
import sys
import time

import numpy as np

import nnbackend as nn
from benchmarks.common import CLASSES, PIXELS, SEED, images
from nnbackend.backends.contract import Backend
from nnbackend.losses import get_loss
from nnbackend.presets import PRESETS
from nnbackend.step.recorder import OptimizerState
from nnbackend.training.run import TrainingRun

__all__ = ["main"]

_BLOCKS = 7


def main(net: str, batch: int, seconds: float, backend: str) -> None:
    """Time the steps of a network with a global batch of this size."""
    world = nn.distributed.world(timeout=120)
    recipe = PRESETS[net]
    device = nn.distributed.local_backend(backend, world)
    network = nn.Network(recipe.layers(CLASSES), PIXELS, backend=device, seed=SEED, input_scale=1 / 255)
    network.set_loss(recipe.loss)
    loss = get_loss(recipe.loss)
    own = nn.distributed.rows_of(batch, world.rank, world.size)
    feed = network.intake.feed(*images(max(10 * batch, 4000)), loss, own)
    memory = OptimizerState.fresh(recipe.make_optimizer(), network.model)
    together = TrainingRun(network, loss, memory, feed, batch, shuffle=True, communicator=world)
    result = {"net": net, "ranks": world.size, "batch": batch, "step": _step(together, world, device, seconds)}
    result["apart"], result["sum"] = result["step"], 0.0
    if world.size > 1:
        apart = TrainingRun(network, loss, memory, feed, own, shuffle=True)
        result["apart"] = _step(apart, world, device, seconds)
        result["sum"] = _sum(world, network, seconds)
    print_first(world, result)


def _step(run: TrainingRun, world: nn.distributed.Communicator, device: Backend, seconds: float) -> float:
    """Seconds of a step while all ranks run."""
    executor, most = run.executors[0]

    def block(steps: int) -> float:
        """Of steps of one epoch: beyond its end there are no more rows."""
        run.begin()
        world.barrier()
        begin = time.perf_counter()
        executor.run(steps)
        device.synchronize()
        world.barrier()
        return time.perf_counter() - begin

    block(1)
    wanted = world.broadcast(max(1, min(most, round(seconds / _BLOCKS / max(block(1), 1e-6)))))
    return statistics.median(block(wanted) / wanted for _ in range(_BLOCKS))


def print_first(world: nn.distributed.Communicator, result: dict[str, object]) -> None:
    """The result is the first rank's."""
    if world.rank == 0:
        print(json.dumps(result), flush=True)


def _sum(world: nn.distributed.Communicator, network: nn.Network, seconds: float) -> float:
    """Seconds of a sum of all gradients over all ranks, which start at the same time."""
    gradients = np.zeros(network.model.layout.trainable_size, network.dtype)
    times = []
    for _ in range(20 + int(100 * seconds)):
        world.barrier()
        begin = time.perf_counter()
        world.allreduce(gradients)
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4])
