"""Fingerprints of settings and data, to compare a run with its checkpoint, and ranks with each other."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nnbackend.data.inputs import as_host_array
from nnbackend.data.rows import Rows
from nnbackend.data.scale import PIXEL_SCALE
from nnbackend.errors import InvalidInputError, ModelFileError
from nnbackend.network import Network
from nnbackend.optimizers import Optimizer
from nnbackend.saving.model_file import CheckpointContents

__all__ = ["as_text", "check_same_run", "data_checksum", "run_settings"]

#: Number of rows in the sample for the checksum.
_SAMPLE = 64


def as_text(setting: Any) -> str:
    """Its `repr` with memory addresses removed, because they differ between processes."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(setting))


def data_checksum(data: Any, y: Any) -> int | None:
    """A checksum of some rows and their targets.

    Parameters
    ----------
    data : Rows, or BatchStream
        A stream has no checksum.
    y : (n,) labels or (n, outputs) values
    """
    if not isinstance(data, Rows):
        return None
    targets = as_host_array("y", y)
    found = 0
    for place in np.unique(np.linspace(0, data.count - 1, _SAMPLE).astype(int)):
        found = zlib.crc32(np.ascontiguousarray(data.part(int(place), int(place) + 1)).data, found)
        found = zlib.crc32(np.ascontiguousarray(targets[place : place + 1]).data, found)
    return found


def run_settings(
    network: Network, data: Any, y: Any, optimizer: Optimizer, loss: str, others: Mapping[str, Any]
) -> dict[str, Any]:
    """All settings that decide how a run proceeds, as plain JSON.

    Parameters
    ----------
    data : Rows, or BatchStream
        Only a sample of the values is used, and none of a stream's.
    y : (n,) labels or (n, outputs) values
    others : dict
        Other settings, by the names of `fit`'s parameters.
    """
    config = network.config()
    # What the network predicts, and the description of its inputs, follow from the data.
    for name in ("steps_trained", "epochs_trained", "multilabel", "inputs"):
        config.pop(name, None)
    settings = {
        **config,
        "loss": loss,
        "optimizer": as_text(optimizer),
        "rows": len(data),
        "data": data_checksum(data, y),
        **others,
    }
    plain: dict[str, Any] = json.loads(json.dumps(settings))
    return plain


def _inputs_of_older_version(was: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """How a run of an older version scaled the rows of this run: if it was not told, uint8 by 1/255, others not."""
    dtype, scale = settings.get("input_dtype"), was.get("input_scale")
    if scale is None:
        scale = PIXEL_SCALE if dtype == "uint8" else 1.0
    return {"input_dtype": dtype, "input_scale": scale}


def check_same_run(path: Path, saved: CheckpointContents, settings: Mapping[str, Any], callbacks: set[str]) -> None:
    """Reject a checkpoint of a run with other settings, or with callbacks that this run lacks.

    Parameters
    ----------
    path : Path
    saved : CheckpointContents
    settings : dict
        `run_settings` of this run.
    callbacks : set of str
        The names of this run's callbacks.

    Raises
    ------
    InvalidInputError
    ModelFileError
        The checkpoint does not hold settings.
    """
    was, states = saved.training.get("settings"), saved.training.get("callbacks")
    if not isinstance(was, dict) or not isinstance(states, dict):
        raise ModelFileError(f"{path}: its description of the training is damaged")
    missing = states.keys() - callbacks
    if missing:
        kinds = ", ".join(sorted(name.partition(".")[0] for name in missing))
        raise InvalidInputError(f"{path} is of a run that had the callbacks {kinds}; give them again")
    if "input_dtype" not in was:
        was = {**was, **_inputs_of_older_version(was, settings)}
    for name, value in settings.items():
        if was.get(name) != value:
            what = f"{name} was {was.get(name)!r} there and is {value!r} here"
            if name == "data":
                what = "its data had other values"
            raise InvalidInputError(
                f"{path} is of another run: {what}. Give what it had; to train on in another way, start from its "
                "weights: Network.load"
            )
