"""Model files: a safetensors file with the weights by name and the architecture as JSON in its metadata.

A checkpoint is a model file that also contains the state of a training run and a checksum of everything. No pickle is
involved, so reading an untrusted file runs no code from it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnbackend.backends.contract import HostArray
from nnbackend.errors import ModelFileError, shown
from nnbackend.support.files import atomic_write, opened_name

__all__ = [
    "FORMAT_VERSION",
    "MOST_DESCRIPTION",
    "CheckpointContents",
    "check_dtypes",
    "check_finite",
    "read_checkpoint",
    "read_description",
    "read_model",
    "write_checkpoint",
    "write_model",
]

#: Increased whenever an older reader would misinterpret the file.
FORMAT_VERSION = 1

#: Longest description that is read, in characters. A network of a thousand layers needs a tenth of it. Parsed to Python
#: objects, it takes about fifty times its size.
MOST_DESCRIPTION = 4 << 20

_KEY = "nnbackend"

#: The key that only the description of a checkpoint has.
_CHECKSUM = "checksum"
#: The array with the JSON of a run's state, which grows with its epochs; also the prefix of the run's other arrays,
#: followed by a dot.
_TRAINING = "training"


@dataclass(eq=False, repr=False)
class CheckpointContents:
    """The contents of a checkpoint.

    Attributes
    ----------
    config : dict
        Description of the network, as plain JSON.
    weights : dict of arrays
    training : dict
        State of the run, as plain JSON.
    arrays : dict of arrays
        Arrays of the run, by names that differ from those of layers.
    """

    config: dict[str, Any]
    weights: dict[str, HostArray]
    training: dict[str, Any]
    arrays: dict[str, HostArray]


_TOO_LONG = f"the limit is {MOST_DESCRIPTION:,}. Use fewer layers"


def write_model(
    path: str | os.PathLike[str], config: dict[str, Any], weights: dict[str, HostArray], follow: bool = True
) -> None:
    """Write a model file; an existing file is replaced after everything is written.

    Parameters
    ----------
    path : str or path-like
    config : dict
        Description of the network, as plain JSON.
    weights : dict of arrays
    follow : bool
        Whether to write through a symbolic link at `path`; False raises an error instead.

    Raises
    ------
    ModelFileError
        A weight is NaN or infinite, or the description is too long to be read again.
    OSError
        The file cannot be written; an existing file is unchanged.
    """
    check_finite(path, weights)
    _write(path, config, weights, follow)


def write_checkpoint(path: str | os.PathLike[str], contents: CheckpointContents) -> None:
    """Write a checkpoint, which is also a model file; raises the errors of `write_model`.

    A symbolic link at `path` is not followed: the names of checkpoints are ours, and their folder may be untrusted.
    """
    check_finite(path, contents.weights)
    import json

    training = np.frombuffer(json.dumps(contents.training).encode(), np.uint8)
    others = {f"{_TRAINING}.{name}": array for name, array in contents.arrays.items()}
    arrays = {**contents.weights, _TRAINING: training, **others}
    _write(path, {**contents.config, _CHECKSUM: _checksum(contents.config, arrays)}, arrays, follow=False)


def _write(
    path: str | os.PathLike[str], header: dict[str, Any], arrays: dict[str, HostArray], follow: bool = True
) -> None:
    import json

    from safetensors.numpy import save

    description = json.dumps({"format": FORMAT_VERSION, **header})
    if len(description) > MOST_DESCRIPTION:
        raise ModelFileError(f"not saved to {path}: its description has {len(description):,} characters; {_TOO_LONG}")
    contents = save(arrays, metadata={_KEY: description})
    with atomic_write(path, follow) as stream:
        stream.write(contents)


def _checksum(header: dict[str, Any], arrays: dict[str, HostArray]) -> str:
    """Checksum of a checkpoint: its description, and every array with its name, dtype and shape."""
    import hashlib
    import json

    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return f"sha256:{digest.hexdigest()}"


def check_finite(path: str | os.PathLike[str], weights: dict[str, HostArray]) -> None:
    """Raise ModelFileError if weights are not finite, because the network has diverged."""
    broken = [name for name, array in weights.items() if not np.isfinite(array).all()]
    if broken:
        raise ModelFileError(
            f"not saved to {path}: {', '.join(broken)} contains NaN or infinity; the network has diverged"
        )


def check_dtypes(weights: dict[str, HostArray], dtype: np.dtype[Any]) -> None:
    """Raise ModelFileError if arrays do not have the dtype of the network."""
    for name, array in weights.items():
        if array.dtype != dtype:
            raise ModelFileError(f"{name} has dtype {array.dtype}, but the network has {dtype}")


def read_model(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, HostArray]]:
    """Read a model file, or the model in a checkpoint.

    Returns
    -------
    config : dict
    weights : dict of arrays

    Raises
    ------
    ModelFileError
        There is no such file, it is not a safetensors file, was not written by nnbackend, has a newer format, or is
        damaged.
    """
    config, arrays, is_checkpoint = _read(path)
    if is_checkpoint:
        arrays = {name: array for name, array in arrays.items() if name.partition(".")[0] != _TRAINING}
    return config, arrays


def read_description(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the description in a model file or a checkpoint, and no arrays; raises the errors of `read_model`.

    The checksum of a checkpoint is not verified, because it includes the arrays.
    """
    with _opened(path) as file:
        metadata = file.metadata()
    config = _parse_config(path, metadata)
    config.pop(_CHECKSUM, None)
    return config


def read_checkpoint(path: str | os.PathLike[str]) -> CheckpointContents:
    """Read a checkpoint; raises the errors of `read_model`, and ModelFileError for a model without a run's state.

    As for `write_checkpoint`, a symbolic link is not followed.
    """
    import json

    config, arrays, is_checkpoint = _read(path, follow=False)
    if not is_checkpoint:
        raise ModelFileError(f"{path}: a model, not a checkpoint: it has no state of a training run")
    prefix = f"{_TRAINING}."
    others = {name.removeprefix(prefix): arrays.pop(name) for name in list(arrays) if name.startswith(prefix)}
    try:
        training = json.loads(arrays.pop(_TRAINING).tobytes())
        if not isinstance(training, dict):
            raise TypeError(f"a {type(training).__name__}, not a dict")
    except (ValueError, RecursionError, TypeError, KeyError) as error:
        raise ModelFileError(f"{path}: its training state is damaged ({shown(error)})") from error
    return CheckpointContents(config, arrays, training, others)


def _read(path: str | os.PathLike[str], follow: bool = True) -> tuple[dict[str, Any], dict[str, HostArray], bool]:
    """Description and arrays of a model file, and whether it is a checkpoint, whose checksum has then been verified."""
    with _opened(path, follow) as file:
        metadata = file.metadata()
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    config = _parse_config(path, metadata)
    is_checkpoint = _CHECKSUM in config
    if is_checkpoint and config.pop(_CHECKSUM) != _checksum(config, arrays):
        raise ModelFileError(f"{path}: the checkpoint is damaged (its checksum does not match its contents)")
    return config, arrays, is_checkpoint


@contextmanager
def _opened(path: str | os.PathLike[str], follow: bool = True) -> Iterator[Any]:
    """A safetensors file, whose arrays are read when they are asked for; all of its errors are ModelFileError."""
    from safetensors import SafetensorError, safe_open

    try:
        with opened_name(path, follow) as name, safe_open(name, framework="numpy") as file:
            yield file
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ModelFileError(f"{path}: there is no such file") from error
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read: {error.strerror or error}") from error
    except MemoryError as error:
        raise ModelFileError(f"{path}: its arrays do not fit into memory") from error
    except (SafetensorError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelFileError(
            f"{path}: not a readable safetensors file ({error}); it may be truncated or damaged"
        ) from error


def _parse_config(path: str | os.PathLike[str], metadata: Mapping[str, str] | None) -> dict[str, Any]:
    import json

    text = (metadata or {}).get(_KEY)
    if text is None:
        raise ModelFileError(f"{path}: a safetensors file, but not one written by nnbackend (no {_KEY!r} metadata)")
    if len(text) > MOST_DESCRIPTION:
        raise ModelFileError(f"{path}: its description of the network has {len(text):,} characters; {_TOO_LONG}")
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
