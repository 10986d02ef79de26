"""Interrupted runs, and comparisons with uninterrupted ones."""

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
#: 9 steps per epoch, the last with 6 rows.
STEPS = 9


def options(**others: Any) -> dict[str, Any]:
    """Arguments of `fit`: a schedule with state, validation data, and new objects for everything."""
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
    """Not caught by `except Exception`, like SIGKILL."""


def killed_at(monkeypatch: pytest.MonkeyPatch, steps: int, train: Callable[[], Any]) -> None:
    """Train until the checkpoint after `steps` steps is written."""
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
    """Everything that must be reproducible."""
    timings = ("seconds", "samples_per_second")
    return [{name: value for name, value in epoch.items() if name not in timings} for epoch in history.epochs]


def assert_close_end(run: tuple[nn.Network, History], other: tuple[nn.Network, History], tolerance: float) -> None:
    """Check that both runs have the same results up to rounding."""
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
    """Check that both runs have bit-identical results."""
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
    backend: Any = "numpy",
    callbacks: Any = (),
    x: Any = X,
    y: Any = Y,
    dtype: str = "float32",
    make: Callable[[Any, str], nn.Network] = rich_network,
    **others: Any,
) -> tuple[Any, Any]:
    """A run without checkpoints: the network and its history."""
    network = make(backend, dtype)
    return network, network.fit(x, y, callbacks=list(callbacks), **options(**others))


def kept(
    folder: Path,
    backend: Any = "numpy",
    callbacks: Any = (),
    x: Any = X,
    y: Any = Y,
    every: int = 1,
    dtype: str = "float32",
    make: Callable[[Any, str], nn.Network] = rich_network,
    **others: Any,
) -> tuple[Any, Any]:
    """The same run, or the rest of it, with checkpoints in this folder."""
    network = make(backend, dtype)
    checkpoint = nn.Checkpoint(folder, every_steps=every)
    settings = {"resume": True, **options(**others)}
    return network, network.fit(x, y, callbacks=[*callbacks, checkpoint], **settings)
