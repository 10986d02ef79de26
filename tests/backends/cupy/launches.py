"""The launches of a training step of the three networks: ``python -m tests.backends.cupy.launches`` prints them.

They are those of the way with cuBLAS; two kernels need two launches. The steps run on the CPU build of the kernels,
which records every launch and product by name.
"""

from __future__ import annotations

import numpy as np

import nnbackend as nn
from nnbackend.backends.cupy import CupyBackend
from nnbackend.presets import PRESETS
from tests.backends.cupy.emulator import EmulatedRuntime

__all__ = ["launched"]


def launched(layers: list[nn.Layer], optimizer: nn.Optimizer, epilogues: bool = True, inputs: int = 20) -> list[str]:
    """The names of the launches of a step after the first, without those that check its results."""
    runtime = EmulatedRuntime()
    backend = CupyBackend(runtime, epilogues=epilogues, two_kernels=False)
    network = nn.Network(layers, inputs, backend=backend, input_scale=1 / 255)
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (8, inputs)).astype(np.uint8), rng.integers(0, network.output_shape[0], 8)
    for _ in range(2):
        network.train_on_batch(x, y, loss="softmax_cross_entropy", optimizer=optimizer)
    step = network.batch_step
    step._replay.count_from(0, 2, 2)
    runtime.log = log = []
    step._executor.run(1)
    return log


def main() -> None:
    for name, recipe in PRESETS.items():
        layers, optimizer = recipe.layers(10), recipe.changed(schedule="constant").make_optimizer()
        # Layers for images need their size.
        inputs = 784 if recipe.filters else 20
        with_epilogues, without = (launched(layers, optimizer, epilogues, inputs) for epilogues in (True, False))
        print(f"{name}, {recipe.optimizer}: {len(with_epilogues)} launches a step, {len(without)} without epilogues")
        for kernel in with_epilogues:
            print(f"  {kernel}")


if __name__ == "__main__":
    main()
