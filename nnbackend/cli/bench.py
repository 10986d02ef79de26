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
from nnbackend.network import Network
from nnbackend.presets import PRESETS, Recipe
from nnbackend.support.checks import number

__all__ = ["DESCRIPTION", "add_options", "run"]

DESCRIPTION = """\
Training speed of every backend that can run here, on three nets and made-up
images of MNIST's size.

Backends take turns, and the median of their rounds counts: a machine that is
busy for a moment disturbs all alike."""

_PIXELS = 784
_CLASSES = 10
_ROWS = 60_000
#: Of MNIST's pixels so many are not black.
_INK = 0.19
_ROUNDS = 5
#: Steps of the warm-up, in which kernels are compiled and memory is touched; as many again give a first estimate.
_WARM_UP = 10
#: Steps of a round at least.
_FEWEST = 3


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--backend",
        action="append",
        metavar="NAME",
        help="only this one; may be given more than once (default: all that can run here)",
    )
    parser.add_argument(
        "--seconds",
        type=decimal,
        default=1.0,
        metavar="S",
        help="how long to measure each backend on each net (default: 1)",
    )


def run(options: argparse.Namespace) -> int:
    """Measure as the options say; the exit code."""
    seconds = number("seconds", options.seconds, low=0.01, high=3600)
    infos = _chosen(options.backend)
    x, y = _images()
    print(f"training on made-up images of {_PIXELS} pixels; medians of {_ROUNDS} rounds", flush=True)
    table = [("network", "optimizer", "batch", "backend", "samples/s", "us/step")]
    for name, recipe in PRESETS.items():
        print(f"  {name} ...", file=sys.stderr, flush=True)
        cells = {info.name: _Cell(recipe, info.name, x, y) for info in infos if info.usable}
        for _ in range(_ROUNDS):
            for cell in cells.values():
                cell.measure(seconds / _ROUNDS)
        for info in infos:
            known = (name, recipe.optimizer, str(recipe.batch_size)) if info is infos[0] else ("", "", "")
            table.append((*known, info.name, *_metrics(cells.get(info.name))))
    print(aligned(table, right=[2, 4, 5]))
    for info in infos:
        if not info.usable:
            print(f"{info.name}: n/a: {info.reason}. {info.remedy}")
    return 0


class _Cell:
    """One net on one backend: warmed up when made, measured again and again."""

    def __init__(self, recipe: Recipe, backend: str, x: npt.NDArray[Any], y: npt.NDArray[Any]) -> None:
        self.batch_size = recipe.batch_size
        self.step_seconds: list[float] = []
        self._data = x, y
        self._loss = recipe.loss
        self._network = Network(recipe.layers(_CLASSES), _PIXELS, backend)
        # Labels are noise here, and a rate that suits real ones can diverge on them; speed does not depend on it.
        self._optimizer = recipe.changed(learning_rate=1e-4, schedule="constant").make_optimizer()
        self._estimate = self._train(_WARM_UP)

    def measure(self, seconds: float) -> None:
        """Train for about so long and note the time of a step."""
        self._estimate = self._train(max(round(seconds / self._estimate), _FEWEST))
        self.step_seconds.append(self._estimate)

    def _train(self, steps: int) -> float:
        """Seconds a step, in `steps` steps after an epoch that is not counted (buffers and recordings are new)."""
        x, y = self._data
        epoch = min(steps, len(x) // self.batch_size)
        rows = epoch * self.batch_size  # whole batches only: a shorter one would blur what a step is
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


def _metrics(cell: _Cell | None) -> tuple[str, str]:
    if cell is None:
        return "n/a", "n/a"
    step = statistics.median(cell.step_seconds)
    return f"{cell.batch_size / step:,.0f}", f"{1e6 * step:,.1f}"


def _chosen(names: Sequence[str] | None) -> list[BackendInfo]:
    """The backends to measure. One that was asked for by name and cannot run is an error."""
    if not names:
        return available_backends()
    chosen = [get_backend(name).name for name in dict.fromkeys(names)]
    return [info for info in available_backends() if info.name in chosen]


def _images() -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Bytes that are black where MNIST's mostly are, and labels that mean nothing."""
    generator = np.random.default_rng(0)
    x = generator.integers(1, 256, (_ROWS, _PIXELS), dtype=np.uint8)
    x *= generator.integers(0, 256, (_ROWS, _PIXELS), dtype=np.uint8) < round(256 * _INK)
    return x, generator.integers(0, _CLASSES, _ROWS, dtype=np.int32)
