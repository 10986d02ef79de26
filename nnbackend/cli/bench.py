"""``nnbackend bench``."""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nnbackend.backends.registry import BackendInfo, available_backends, get_backend
from nnbackend.cli.options import decimal
from nnbackend.cli.text import aligned
from nnbackend.data.scale import PIXEL_SCALE
from nnbackend.network import Network
from nnbackend.presets import PRESETS, Recipe
from nnbackend.support.checks import number

__all__ = ["DESCRIPTION", "add_options", "run"]

DESCRIPTION = """\
Measure the training speed of every backend that can run here, on three nets
and synthetic images of MNIST's size.

The backends take turns and the median of their rounds is reported, so a brief
disturbance affects all of them alike."""

_PIXELS = 784
_CLASSES = 10
_ROWS = 60_000
#: Share of MNIST's pixels that are not black.
_INK = 0.19
_ROUNDS = 5
#: Warm-up steps, which compile the kernels and touch the memory; as many timed steps follow, for a first estimate.
_WARM_UP = 10
#: Fewest steps in a round.
_FEWEST = 3


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--backend",
        action="append",
        metavar="NAME",
        help="measure only this backend; repeat for several (default: all that can run here)",
    )
    parser.add_argument(
        "--seconds",
        type=decimal,
        default=1.0,
        metavar="S",
        help="how long to measure each backend on each net (default: 1)",
    )


def run(options: argparse.Namespace) -> int:
    """Measure the backends and return the exit code."""
    seconds = number("seconds", options.seconds, low=0.01, high=3600)
    infos = _chosen(options.backend)
    x, y = _images()
    print(f"training on synthetic images of {_PIXELS} pixels; medians of {_ROUNDS} rounds", flush=True)
    table = [("network", "optimizer", "batch", "backend", "samples/s", "us/step")]
    for name, recipe in PRESETS.items():
        print(f"  {name} ...", file=sys.stderr, flush=True)
        cells = {info.name: _Cell(recipe, info.name, x, y) for info in infos if info.usable}
        for _ in range(_ROUNDS):
            for cell in cells.values():
                cell.measure(seconds / _ROUNDS)
        for info in infos:
            net = (name, recipe.optimizer, str(recipe.batch_size)) if info is infos[0] else ("", "", "")
            table.append((*net, info.name, *_speed(cells.get(info.name))))
    print(aligned(table, right=[2, 4, 5]))
    for info in infos:
        if not info.usable:
            print(f"{info.name}: n/a: {info.reason}. {info.remedy}")
    return 0


class _Cell:
    """One net on one backend: warmed up when created, then measured once per round."""

    def __init__(self, recipe: Recipe, backend: str, x: npt.NDArray[Any], y: npt.NDArray[Any]) -> None:
        self.batch_size = recipe.batch_size
        self.step_seconds: list[float] = []
        self._data = x, y
        self._loss = recipe.loss
        self._network = Network(recipe.layers(_CLASSES), _PIXELS, backend, input_scale=PIXEL_SCALE)
        # The labels are noise, on which the preset's learning rate may diverge. Speed does not depend on the rate.
        self._optimizer = recipe.changed(learning_rate=1e-4, schedule="constant").make_optimizer()
        self._estimate = self._train(_WARM_UP)

    def measure(self, seconds: float) -> None:
        """Train for about `seconds` and record the mean time of a step."""
        self._estimate = self._train(max(round(seconds / self._estimate), _FEWEST))
        self.step_seconds.append(self._estimate)

    def _train(self, steps: int) -> float:
        """Seconds per step over `steps` steps; the first epoch, which allocates buffers and records, is not counted."""
        x, y = self._data
        epoch = min(steps, len(x) // self.batch_size)
        rows = epoch * self.batch_size  # full batches only: a shorter one would distort the time of a step
        epochs = 1 + max(1, round(steps / epoch))
        history = self._network.fit(
            x[:rows],
            y[:rows],
            epochs=epochs,
            batch_size=self.batch_size,
            loss=self._loss,
            optimizer=self._optimizer,
            verbose=False,
        )
        if history.interrupted:
            raise KeyboardInterrupt
        return sum(history["seconds"][1:]) / (epoch * (epochs - 1))


def _speed(cell: _Cell | None) -> tuple[str, str]:
    """Samples per second and microseconds per step, as text."""
    if cell is None:
        return "n/a", "n/a"
    step = statistics.median(cell.step_seconds)
    return f"{cell.batch_size / step:,.0f}", f"{1e6 * step:,.1f}"


def _chosen(names: Sequence[str] | None) -> list[BackendInfo]:
    """The backends to measure; a backend requested by name that cannot run raises an error."""
    if not names:
        return available_backends()
    chosen = {backend.name: backend for backend in map(get_backend, names)}
    return [BackendInfo(name, usable=True, device=backend.device) for name, backend in chosen.items()]


def _images() -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Images with MNIST's share of black pixels, and random labels."""
    generator = np.random.default_rng(0)
    x = generator.integers(1, 256, (_ROWS, _PIXELS), dtype=np.uint8)
    x *= generator.integers(0, 256, (_ROWS, _PIXELS), dtype=np.uint8) < round(256 * _INK)
    return x, generator.integers(0, _CLASSES, _ROWS, dtype=np.int32)
