"""Model files: one safetensors file, the weights by name and the architecture as JSON in its metadata.

A checkpoint is a model file that also has the state of a training run, and a checksum of everything. No pickle
anywhere: reading a file from a stranger runs none of their code.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnbackend.backends.contract import HostArray
from nnbackend.errors import ModelFileError, shown
from nnbackend.support.files import atomic_write

__all__ = [
    "FORMAT_VERSION",
    "MOST_DESCRIPTION",
    "CheckpointContents",
    "check_dtypes",
    "check_finite",
    "read_checkpoint",
    "read_model",
    "write_checkpoint",
    "write_model",
]

#: Raised by one whenever an older reader would misunderstand the file.
FORMAT_VERSION = 1

#: Letters of a description that are read. Those of a network of a thousand layers take a tenth; as Python objects they
#: take some fifty times their size.
MOST_DESCRIPTION = 4 << 20

_KEY = "nnbackend"

#: What a checkpoint's description has more than a model's.
_CHECKSUM = "checksum"
#: The array with the JSON of what a run knows, which grows with its epochs. The run's other arrays are called so too,
#: with a dot behind it.
_TRAINING = "training"


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


_TOO_LONG = f"at most {MOST_DESCRIPTION:,} are read. Make a network of fewer layers"


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
        A weight is NaN or infinite, or the description is longer than is read again.
    OSError
        As the operating system gave it; an existing file is as it was.
    """
    check_finite(path, weights)
    _write(path, config, weights)


def write_checkpoint(path: str | os.PathLike[str], contents: CheckpointContents) -> None:
    """Write a checkpoint, which is a model file too; raises as `write_model` does."""
    check_finite(path, contents.weights)
    import json

    training = np.frombuffer(json.dumps(contents.training).encode(), np.uint8)
    others = {f"{_TRAINING}.{name}": array for name, array in contents.arrays.items()}
    arrays = {**contents.weights, _TRAINING: training, **others}
    _write(path, {**contents.config, _CHECKSUM: _checksum(contents.config, arrays)}, arrays)


def _write(path: str | os.PathLike[str], header: dict[str, Any], arrays: dict[str, HostArray]) -> None:
    import json

    from safetensors.numpy import save

    description = json.dumps({"format": FORMAT_VERSION, **header})
    if len(description) > MOST_DESCRIPTION:
        raise ModelFileError(f"not saved to {path}: a description of {len(description):,} letters; {_TOO_LONG}")
    contents = save(arrays, metadata={_KEY: description})
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


def check_dtypes(weights: dict[str, HostArray], dtype: np.dtype[Any]) -> None:
    """Refuse arrays that were not saved from a network of this dtype: ModelFileError."""
    for name, array in weights.items():
        if array.dtype != dtype:
            raise ModelFileError(f"{name} holds {array.dtype}, but the network is one of {dtype}")


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
    config, arrays, is_checkpoint = _read(path)
    if is_checkpoint:
        arrays = {name: array for name, array in arrays.items() if name.partition(".")[0] != _TRAINING}
    return config, arrays


def read_checkpoint(path: str | os.PathLike[str]) -> CheckpointContents:
    """Read a checkpoint; raises as `read_model` does, and ModelFileError for a model without a run's state."""
    import json

    config, arrays, is_checkpoint = _read(path)
    if not is_checkpoint:
        raise ModelFileError(f"{path}: a model, but no checkpoint: it does not say where its training was")
    prefix = f"{_TRAINING}."
    others = {name.removeprefix(prefix): arrays.pop(name) for name in list(arrays) if name.startswith(prefix)}
    try:
        training = json.loads(arrays.pop(_TRAINING).tobytes())
        if not isinstance(training, dict):
            raise TypeError(f"a {type(training).__name__}, and no dict")
    except (ValueError, RecursionError, TypeError, KeyError) as error:
        raise ModelFileError(f"{path}: its description of the training is damaged ({shown(error)})") from error
    return CheckpointContents(config, arrays, training, others)


def _read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, HostArray], bool]:
    """Description and arrays of a model file, and whether it is a checkpoint, which is as it was written then."""
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
    is_checkpoint = _CHECKSUM in config
    if is_checkpoint and config.pop(_CHECKSUM) != _checksum(config, arrays):
        raise ModelFileError(f"{path}: the checkpoint is damaged (its checksum is not that of its contents)")
    return config, arrays, is_checkpoint


def _parse_config(path: str | os.PathLike[str], text: str) -> dict[str, Any]:
    import json

    if len(text) > MOST_DESCRIPTION:
        raise ModelFileError(f"{path}: its description of the network has {len(text):,} letters; {_TOO_LONG}")
    try:
        config = json.loads(text)
        version = config.pop("format")
    except (ValueError, RecursionError, AttributeError, TypeError, KeyError) as error:
        raise ModelFileError(f"{path}: its description of the network is damaged ({shown(error)})") from error
    if version != FORMAT_VERSION:
        raise ModelFileError(
            f"{path}: written in model format {shown(version)}, this nnbackend reads format {FORMAT_VERSION}; "
            "use the version that wrote it, or save it again from there"
        )
    parsed: dict[str, Any] = config
    return parsed
