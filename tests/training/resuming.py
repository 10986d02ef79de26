"""Runs that end in the middle, and how to tell that one went on as if it had not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.training import History
from nnbackend.training.checkpoints import checkpoint as checkpoint_module
from tests.helpers import images, rich_network, same_weights

X, Y = images(rows=70)
#: 9 steps an epoch, the last of 6 rows.
STEPS = 9


def options(**others: Any) -> dict[str, Any]:
    """What `fit` is given: a schedule with a memory, validation, and everything by its own new object."""
    return {
        "epochs": 3,
        "batch_size": 8,
        "loss": "softmax_cross_entropy",
        "optimizer": nn.Adam(nn.Warmup(0.5, nn.ReduceOnPlateau(0.02, patience=1))),
        "validation_data": (X, Y),
        "verbose": False,
        **others,
    }


class Killed(BaseException):
    """What no `except Exception` catches, as nothing catches a SIGKILL."""


def killed_at(monkeypatch: pytest.MonkeyPatch, steps: int, train: Callable[[], Any]) -> None:
    """Train until the checkpoint after so many steps is written, and no further."""
    write = checkpoint_module.write_checkpoint

    def write_and_die(path: Path, contents: Any) -> None:
        write(path, contents)
        if contents.config["steps_trained"] == steps:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_module, "write_checkpoint", write_and_die)
        with pytest.raises(Killed):
            train()


def metrics(history: History) -> list[dict[str, float]]:
    """All that must be the same when a run is done again."""
    timings = ("seconds", "samples_per_second")
    return [{name: value for name, value in epoch.items() if name not in timings} for epoch in history.epochs]


def assert_close_end(run: tuple[nn.Network, History], other: tuple[nn.Network, History], tolerance: float) -> None:
    """Both runs ended with the same, to rounding."""
    (network, history), (expected, wanted) = run, other
    for name, weight in expected.get_weights().items():
        np.testing.assert_allclose(network.get_weights()[name], weight, rtol=tolerance, atol=tolerance)
    assert len(history) == len(wanted)
    for found, figures_there in zip(metrics(history), metrics(wanted), strict=True):
        assert found == pytest.approx(figures_there, rel=tolerance)
    for losses, wanted_losses in zip(history.step_losses, wanted.step_losses, strict=True):
        np.testing.assert_allclose(losses, wanted_losses, rtol=tolerance)
    assert (network.steps_trained, network.epochs_trained) == (expected.steps_trained, expected.epochs_trained)


def assert_same_end(run: tuple[nn.Network, History], other: tuple[nn.Network, History]) -> None:
    """Both runs ended with the same bits."""
    (network, history), (expected, wanted) = run, other
    assert metrics(history) == metrics(wanted)
    assert [losses.tobytes() for losses in history.step_losses] == [losses.tobytes() for losses in wanted.step_losses]
    assert history.stopped_by == wanted.stopped_by
    assert same_weights(network, expected)
    counts = [(net.steps_trained, net.epochs_trained) for net in (network, expected)]
    assert counts[0] == counts[1]
    memory, other_memory = network.optimizer_state, expected.optimizer_state
    assert (memory.steps, memory.epochs) == (other_memory.steps, other_memory.epochs)
    assert memory.slots.keys() == other_memory.slots.keys()
    for name, slot in memory.slots.items():
        np.testing.assert_array_equal(
            network.backend.to_host(slot), expected.backend.to_host(other_memory.slots[name]), strict=True
        )


def undisturbed(
    backend: Any = "numpy", callbacks: Any = (), x: Any = X, y: Any = Y, dtype: str = "float32", **others: Any
) -> tuple[Any, Any]:
    """A run without checkpoints: the network and its history."""
    network = rich_network(backend, dtype)
    return network, network.fit(x, y, callbacks=list(callbacks), **options(**others))


def kept(
    folder: Path,
    backend: Any = "numpy",
    callbacks: Any = (),
    x: Any = X,
    y: Any = Y,
    every: int = 1,
    dtype: str = "float32",
    **others: Any,
) -> tuple[Any, Any]:
    """The same run with checkpoints in this folder, or the rest of it."""
    network = rich_network(backend, dtype)
    checkpoint = nn.Checkpoint(folder, every_steps=every)
    settings = {"resume": True, **options(**others)}
    return network, network.fit(x, y, callbacks=[*callbacks, checkpoint], **settings)
