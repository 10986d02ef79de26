"""Model files: one safetensors file, the weights by name and the architecture as JSON in its metadata.

A checkpoint is a model file that also has the state of a training run, and a checksum of everything. No pickle
anywhere: reading a file from a stranger runs none of their code.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnbackend.backends.base import HostArray
from nnbackend.errors import ModelFileError
from nnbackend.files import atomic_write

__all__ = [
    "FORMAT_VERSION",
    "CheckpointContents",
    "check_finite",
    "read_checkpoint",
    "read_model",
    "write_checkpoint",
    "write_model",
]

#: Raised by one whenever an older reader would misunderstand the file.
FORMAT_VERSION = 1

_KEY = "nnbackend"

#: What a checkpoint's description has more than a model's; its arrays are called so, with a dot behind it.
_TRAINING, _CHECKSUM = "training", "checksum"


@dataclass(eq=False, repr=False)
class CheckpointContents:
    """What a checkpoint holds.

    Attributes
    ----------
    config : dict
        Plain JSON that describes the network.
    weights : dict of arrays
    training : dict
        Plain JSON: what else the run knows.
    arrays : dict of arrays
        Its arrays, by names that start with no layer's.
    """

    config: dict[str, Any]
    weights: dict[str, HostArray]
    training: dict[str, Any]
    arrays: dict[str, HostArray]


def write_model(path: str | os.PathLike[str], config: dict[str, Any], weights: dict[str, HostArray]) -> None:
    """Write a model file; an existing file is replaced only when all is written.

    Parameters
    ----------
    path : str or path-like
    config : dict
        Plain JSON that describes the network.
    weights : dict of arrays

    Raises
    ------
    ModelFileError
        A weight is NaN or infinite.
    OSError
        As the operating system gave it; an existing file is as it was.
    """
    check_finite(path, weights)
    _write(path, config, weights)


def write_checkpoint(path: str | os.PathLike[str], contents: CheckpointContents) -> None:
    """Write a checkpoint, which is a model file too; raises as `write_model` does."""
    check_finite(path, contents.weights)
    arrays = {**contents.weights, **{f"{_TRAINING}.{name}": array for name, array in contents.arrays.items()}}
    header = {**contents.config, _TRAINING: contents.training}
    _write(path, {**header, _CHECKSUM: _checksum(header, arrays)}, arrays)


def _write(path: str | os.PathLike[str], header: dict[str, Any], arrays: dict[str, HostArray]) -> None:
    import json

    from safetensors.numpy import save

    contents = save(arrays, metadata={_KEY: json.dumps({"format": FORMAT_VERSION, **header})})
    with atomic_write(path) as stream:
        stream.write(contents)


def _checksum(header: dict[str, Any], arrays: dict[str, HostArray]) -> str:
    """Of all that a checkpoint says: its description, and every array with its name, type and shape."""
    import hashlib
    import json

    found = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name, array in sorted(arrays.items()):
        found.update(f"{name} {array.dtype.str} {array.shape}".encode())
        found.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return f"sha256:{found.hexdigest()}"


def check_finite(path: str | os.PathLike[str], weights: dict[str, HostArray]) -> None:
    """Refuse to write the weights of a network that has diverged: ModelFileError."""
    broken = [name for name, array in weights.items() if not np.isfinite(array).all()]
    if broken:
        raise ModelFileError(
            f"not saved to {path}: {', '.join(broken)} holds NaN or infinity; the network has diverged"
        )


def read_model(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, HostArray]]:
    """Read a model file, or the model that a checkpoint holds.

    Returns
    -------
    config : dict
    weights : dict of arrays

    Raises
    ------
    ModelFileError
        There is no such file, it is no safetensors file, was not written by nnbackend, is of a newer format, or
        is damaged.
    """
    contents = _read(path)
    return contents.config, contents.weights


def read_checkpoint(path: str | os.PathLike[str]) -> CheckpointContents:
    """Read a checkpoint; raises as `read_model` does, and ModelFileError for a model without a run's state."""
    contents = _read(path)
    if not contents.training:
        raise ModelFileError(f"{path}: a model, but no checkpoint: it does not say where its training was")
    return contents


def _read(path: str | os.PathLike[str]) -> CheckpointContents:
    from safetensors import SafetensorError, safe_open

    if not os.path.isfile(path):
        raise ModelFileError(f"{path}: there is no such file")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelFileError(
            f"{path}: not a readable safetensors file ({error}); it may be cut off or damaged"
        ) from error
    if _KEY not in metadata:
        raise ModelFileError(f"{path}: a safetensors file, but not one written by nnbackend (no {_KEY!r} metadata)")
    config = _parse_config(path, metadata[_KEY])
    if _TRAINING not in config:
        return CheckpointContents(config, arrays, {}, {})
    said = config.pop(_CHECKSUM, None)
    if said != _checksum(config, arrays):
        raise ModelFileError(f"{path}: the checkpoint is damaged (its checksum is not that of its contents)")
    training = config.pop(_TRAINING)
    if not isinstance(training, dict):
        raise ModelFileError(f"{path}: its description of the training is damaged")
    prefix = f"{_TRAINING}."
    extra = {name.removeprefix(prefix): arrays.pop(name) for name in list(arrays) if name.startswith(prefix)}
    return CheckpointContents(config, arrays, training, extra)


def _parse_config(path: str | os.PathLike[str], text: str) -> dict[str, Any]:
    import json

    try:
        config = json.loads(text)
        version = config.pop("format")
    except (ValueError, RecursionError, AttributeError, TypeError, KeyError) as error:
        raise ModelFileError(f"{path}: its description of the network is damaged ({error!r})") from error
    if version != FORMAT_VERSION:
        raise ModelFileError(
            f"{path}: written in model format {version!r}, this nnbackend reads format {FORMAT_VERSION}; "
            "use the version that wrote it, or save it again from there"
        )
    parsed: dict[str, Any] = config
    return parsed
