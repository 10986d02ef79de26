"""Model files: one safetensors file, the weights by name and the architecture as JSON in its metadata.

No pickle anywhere: reading a file from a stranger runs none of their code.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from nnbackend.backends.base import HostArray
from nnbackend.errors import ModelFileError, shown
from nnbackend.files import atomic_write

__all__ = ["FORMAT_VERSION", "MOST_DESCRIPTION", "check_dtypes", "check_finite", "read_model", "write_model"]

#: Raised by one whenever an older reader would misunderstand the file.
FORMAT_VERSION = 1

#: Letters of a description that are read. Those of a network of a thousand layers take a tenth; as Python objects they
#: take some fifty times their size.
MOST_DESCRIPTION = 4 << 20

_KEY = "nnbackend"


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
    import json

    from safetensors.numpy import save

    check_finite(path, weights)
    header = json.dumps({"format": FORMAT_VERSION, **config})
    if len(header) > MOST_DESCRIPTION:
        raise ModelFileError(f"not saved to {path}: a description of {len(header):,} letters; {_TOO_LONG}")
    contents = save(weights, metadata={_KEY: header})
    with atomic_write(path) as stream:
        stream.write(contents)


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
    """Read a model file.

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
    from safetensors import SafetensorError, safe_open

    if not os.path.isfile(path):
        raise ModelFileError(f"{path}: there is no such file")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelFileError(
            f"{path}: not a readable safetensors file ({error}); it may be cut off or damaged"
        ) from error
    if _KEY not in metadata:
        raise ModelFileError(f"{path}: a safetensors file, but not one written by nnbackend (no {_KEY!r} metadata)")
    return _parse_config(path, metadata[_KEY]), weights


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
