"""Fingerprints of settings and data, to compare a run with its checkpoint, and ranks with each other."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nnbackend.backends.contract import Backend, HostArray
from nnbackend.data.batch_stream import BatchStream
from nnbackend.data.inputs import as_host_array
from nnbackend.data.rows import Rows, as_rows
from nnbackend.data.scale import PIXEL_SCALE
from nnbackend.data.shared import SelectedRows
from nnbackend.data.weights import without_index
from nnbackend.errors import InvalidInputError, ModelFileError, differing, shown
from nnbackend.network import Network
from nnbackend.optimizers import Optimizer
from nnbackend.saving.model_file import CheckpointContents
from nnbackend.support.attributes import constructor_arguments
from nnbackend.support.fork_lock import cached_property
from nnbackend.training.callbacks.base import Callback
from nnbackend.training.callbacks.stopping import Monitoring

__all__ = [
    "DataFingerprint",
    "as_text",
    "callback_settings",
    "check_same_run",
    "check_same_target",
    "optimizer_text",
    "run_settings",
]

_log = logging.getLogger("nnbackend")

#: Number of rows in the sample of data that are not hashed as a whole.
_SAMPLE = 64

#: Elements that are converted and hashed at a time.
_PART = 1 << 20

#: Prefix of the fingerprint of data of which only a sample was read.
_SAMPLED = "sample:"


def as_text(setting: Any) -> str:
    """Its `repr` with memory addresses removed, because they differ between processes."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(setting))


def optimizer_text(optimizer: Optimizer) -> str:
    """An optimiser with all its hyperparameters, in the form in which checkpoints have always described it."""
    if type(optimizer).__repr__ is not Optimizer.__repr__:
        return as_text(optimizer)
    values = {name: value for name, value in vars(optimizer).items() if name != "slots" and not name.startswith("_")}
    text = ", ".join(f"{name}={as_text(value)}" for name, value in values.items())
    return f"{type(optimizer).__name__}({text})".replace(", start=", ", begin=")


class DataFingerprint:
    """Fingerprints of the data of a run. Data in memory are hashed as a whole, and of data in files some rows.

    Parameters
    ----------
    network : Network
    data : Rows, or BatchStream
    y, sample_weight, class_weight, validation_data
        As the caller gave them; all have been checked.
    """

    def __init__(
        self, network: Network, data: Any, y: Any, sample_weight: Any, class_weight: Any, validation_data: Any
    ) -> None:
        self._network, self._data, self._y = network, data, y
        self._weights, self._validation = (sample_weight, class_weight), validation_data

    @cached_property
    def sample(self) -> int | None:
        """A checksum of some rows and their targets; None for a stream."""
        data = self._data
        if not isinstance(data, Rows):
            return None
        targets = as_host_array("y", self._y)
        found = 0
        for place in _places(data.count):
            found = zlib.crc32(np.ascontiguousarray(data.part(place, place + 1)).data, found)
            found = zlib.crc32(np.ascontiguousarray(targets[place : place + 1]).data, found)
        return found

    @cached_property
    def hashes(self) -> dict[str, str | None]:
        """Fingerprints by the names of `fit`'s parameters; None for what was not given."""
        return dict(self._hashes())

    def _hashes(self) -> Iterator[tuple[str, str | None]]:
        sample_weight, class_weight = self._weights
        yield from self._pair("", (self._data, self._y))
        yield "sample_weight", None if sample_weight is None else _hash(as_host_array("sample_weight", sample_weight))
        yield "class_weight", _class_weights(class_weight)
        validation = self._validation
        pair = (validation, None) if validation is None or isinstance(validation, BatchStream) else validation
        yield from self._pair("validation ", pair)

    def _pair(self, prefix: str, pair: Sequence[Any]) -> Iterator[tuple[str, str | None]]:
        """Fingerprints of rows, targets and, possibly, weights."""
        for name, value in zip(("x", "y", "sample_weight"), pair, strict=False):
            if value is None or isinstance(value, BatchStream):
                yield f"{prefix}{name}", None if value is None else f"{_SAMPLED} a stream"
            elif name == "x":
                yield f"{prefix}{name}", _hash_rows(as_rows(value, self._network.input_shape, self._network.dtype))
            else:
                yield f"{prefix}{name}", _hash(as_host_array(name, value))


def _places(count: int) -> list[int]:
    """The rows of the sample."""
    places: list[int] = np.unique(np.linspace(0, count - 1, _SAMPLE).astype(int)).tolist()
    return places


def _hash_rows(rows: Rows) -> str:
    return rows.once("hash", partial(_hash_each, rows)) if isinstance(rows, SelectedRows) else _hash_each(rows)


def _hash_each(rows: Rows) -> str:
    step = 1 if rows.stored else max(1, _PART // rows.features)
    starts = _places(rows.count) if rows.stored else range(0, rows.count, step)
    digest = hashlib.blake2b(f"{rows.count} {rows.features} {rows.dtype}".encode(), digest_size=16)
    for start in starts:
        digest.update(np.ascontiguousarray(rows.part(start, start + step)).reshape(-1).view(np.uint8).data)
    return f"{_SAMPLED} {digest.hexdigest()}" if rows.stored else digest.hexdigest()


def _hash(array: HostArray) -> str:
    """A hash of shape and values, the same for any dtype of whole numbers, and for any of others."""
    digest = hashlib.blake2b(str(array.shape).encode(), digest_size=16)
    dtype = np.dtype(np.int64 if array.dtype.kind in "bui" else np.float64)
    step = max(1, _PART // max(1, array[:1].size)) if array.ndim else 1
    for start in range(0, len(array), step) if array.ndim else ():
        digest.update(np.ascontiguousarray(array[start : start + step], dtype).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _class_weights(weights: Any) -> str | None:
    if weights is None or isinstance(weights, str):
        return weights
    weights = without_index(weights)
    pairs = weights.items() if isinstance(weights, Mapping) else enumerate(np.asarray(weights).tolist())
    return "{" + ", ".join(sorted(f"{key}: {float(value)}" for key, value in pairs)) + "}"


def callback_settings(callbacks: Sequence[tuple[str, Callback]]) -> dict[str, dict[str, Any]]:
    """The arguments of callbacks that decide which epoch is best and when a run ends, by the names of the callbacks.

    Their paths may change.
    """
    return {
        name: {key: value for key, value in constructor_arguments(callback).items() if key != "path"}
        for name, callback in callbacks
        if isinstance(callback, Monitoring)
    }


def run_settings(
    network: Network,
    rows: int,
    data: DataFingerprint,
    optimizer: Optimizer,
    loss: str,
    callbacks: Sequence[tuple[str, Callback]],
    others: Mapping[str, Any],
) -> dict[str, Any]:
    """All settings that decide how a run proceeds, as plain JSON.

    Parameters
    ----------
    network : Network
    rows : int
        Number of rows of the training data.
    data : DataFingerprint
    optimizer : Optimizer
    loss : str
    callbacks : sequence of (str, Callback)
        With their names in checkpoints.
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
        "optimizer": optimizer_text(optimizer),
        "rows": rows,
        "data": data.sample,
        "hashes": data.hashes,
        "callbacks": callback_settings(callbacks),
        **others,
    }
    plain: dict[str, Any] = json.loads(json.dumps(settings, default=as_text))
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
        raise InvalidInputError(f"{path} belongs to a run with the callbacks {kinds}; use them again")
    if "input_dtype" not in was:
        was = {**was, **_inputs_of_older_version(was, settings)}
    # Older versions had none of these.
    was = {"augment": [], "accumulate": 1, "ema": None, **was}
    # An older version did not compare everything.
    compared = [name for name in settings if name in was and (name != "data" or "hashes" not in was)]
    differences = [text for name in compared for text in _differences(name, was[name], settings[name])]
    if differences:
        raise InvalidInputError(
            f"{path} belongs to another run: {', and '.join(differences[:3])}. To resume it, use its settings; to "
            "train its network with other settings, load the file with Network.load and use another folder"
        )
    _log_sampled(path, settings["hashes"], "hashes" in was)


def check_same_target(path: Path, saved: CheckpointContents, backend: Backend) -> None:
    """Reject a checkpoint that the same backend wrote with code for another CPU.

    Raises
    ------
    InvalidInputError
    """
    was, here = saved.training.get("target"), backend.target
    # Older versions wrote no target. Another backend rounds in another way anyway.
    if not isinstance(was, str) or not was or not here or was == here or saved.training.get("backend") != backend.name:
        return
    # Code for exactly one CPU cannot be asked for on another.
    generic = re.fullmatch(r"(?!native)[\w.-]{1,40}", was)
    advice = f"set NNBACKEND_TARGET={was} in the environment to get them, or " if generic else ""
    raise InvalidInputError(
        f"{path} was written by code for {shown(was)}, and this process runs code for {here!r}, which may round "
        f"differently, so the run would not end with the bits of an uninterrupted one; {advice}accept that with "
        "Checkpoint(folder, any_target=True), or nnbackend train --any-target"
    )


def _differences(name: str, was: Any, now: Any) -> list[str]:
    """What differs between two settings of this name, as text."""
    if was == now:
        return []
    if name == "hashes" and isinstance(was, dict):
        return [_other_data(each, was.get(each), now.get(each)) for each in now if was.get(each) != now.get(each)]
    if name == "hashes" and isinstance(was, list):
        pairs = zip(was, now, strict=False)
        return [f"on rank {rank} {text}" for rank, pair in enumerate(pairs) for text in _differences(name, *pair)]
    if name == "data":
        return ["its data had other values"]
    if name == "callbacks" and isinstance(was, dict):
        added = [f"it had no {each.partition('.')[0]}" for each in now if each not in was]
        if added:
            return added
    return [f"{place} was {shown(old)} there and is {shown(new)} here" for place, old, new in differing(name, was, now)]


def _other_data(name: str, was: str | None, now: str | None) -> str:
    if was is None or now is None:
        return f"it had {'a' if now is None else 'no'} {name}"
    if name == "class_weight":
        return f"class_weight was {was} there and is {now} here"
    return f"its {name} had other values"


def _log_sampled(path: Path, hashes: Any, compared: bool) -> None:
    """Log what was not compared."""
    if not compared:
        _log.info("%s is of an older version: only %d rows of the data were compared with this run's", path, _SAMPLE)
    each = hashes if isinstance(hashes, list) else [hashes]
    names = {name for rank in each for name, value in rank.items() if value and value.startswith(_SAMPLED)}
    for name in sorted(names):
        _log.info("%s: %s is not in memory, so at most %d of its rows were compared", path, name, _SAMPLE)
