"""Checkpoints."""

from __future__ import annotations

import random
import shutil
import warnings
from pathlib import Path

import numpy as np

import nnbackend as nn
from nnbackend.errors import NNBackendError
from nnbackend.saving.model_file import read_checkpoint, write_checkpoint
from tests.fuzz.mutations import mutate
from tests.fuzz.targets.base import Target
from tests.fuzz.trees import change

__all__ = ["NAME", "CheckpointTarget", "go_on"]

_WORDS = ["settings", "backend", "seconds", "optimizer", "steps", "epochs", "schedule", "history", "stopped_by"]
_WORDS += ["callbacks", "EarlyStopping.0", "best", "wait", "rate", "loss", "accuracy", "skipped"]

#: Of the one in the second epoch.
NAME = "checkpoint-000000000005.safetensors"


class CheckpointTarget(Target):
    """`fit(resume=...)` with arbitrary contents and a correct checksum."""

    name = "checkpoint"
    share = 0.5

    def mutate(self, chance: random.Random, data: bytes, other: bytes) -> bytes:
        path = self.folder / "mutated.safetensors"
        path.write_bytes(data)
        try:
            contents = read_checkpoint(path)
            way = chance.random()
            if way < 0.1:
                return mutate(chance, data, other)
            if way < 0.7:
                contents.training = change(chance, contents.training, _WORDS)
            else:
                name = chance.choice(sorted(contents.arrays))
                contents.arrays[name] = _retyped(chance, contents.arrays[name])
            write_checkpoint(path, contents)
            return path.read_bytes()
        except (NNBackendError, OSError, ValueError, TypeError, AttributeError, RecursionError):
            return mutate(chance, data, other)

    def run(self, data: bytes) -> None:
        folder = self.folder / "run"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / NAME).write_bytes(data)
        network = go_on(folder)
        assert all(np.isfinite(array).all() for array in network.get_weights().values())


def _retyped(chance: random.Random, array: np.ndarray) -> np.ndarray:
    way = chance.randrange(5)
    if way == 0:
        return array.astype(chance.choice(("float32", "float64", "int64", "uint8", "bool", "float16")))
    if way == 1:
        return array.reshape(-1)
    if way == 2:
        return array[: chance.randrange(len(array) + 1)] if array.ndim else array
    if way == 3:
        return np.concatenate([array, array]) if array.ndim else array
    return np.full_like(
        array, chance.choice((0, 1, 255)) if array.dtype.kind in "iub" else chance.choice((np.nan, np.inf, 1e300))
    )


def _begun() -> tuple[nn.Network, dict[str, object]]:
    """The run of the checkpoints: its network and the arguments of `fit`."""
    network = nn.Network(
        [nn.Dense(3, activation="tanh"), nn.Dropout(0.2), nn.Dense(2)], 2, backend="numpy", dtype="float64"
    )
    x = np.linspace(-1, 1, 24).reshape(12, 2)
    options = {
        "x": x, "y": np.arange(12) % 2, "epochs": 3, "batch_size": 4, "loss": "softmax_cross_entropy", "verbose": False,
        "optimizer": nn.Adam(nn.ReduceOnPlateau(1e-2, patience=1, monitor="loss")), "on_nan": "skip",
    }  # fmt: skip
    return network, options


def go_on(folder: Path, *others: nn.Callback) -> nn.Network:
    """Resume the run from a folder."""
    network, options = _begun()
    callbacks = [
        nn.Checkpoint(folder, every_steps=1, keep=100),
        nn.EarlyStopping(patience=5, restore_best=True, monitor="loss"),
        *others,
    ]
    with warnings.catch_warnings():
        # Extreme numbers overflow, and damaged files cause warnings.
        warnings.simplefilter("ignore")
        network.fit(**options, callbacks=callbacks, resume=True)
    return network
