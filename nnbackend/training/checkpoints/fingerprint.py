"""What stands for settings and data where they are compared: those of a run with its checkpoint's, those of ranks."""

from __future__ import annotations

import re
import zlib
from typing import Any

import numpy as np

from nnbackend.data.inputs import as_host_array
from nnbackend.data.rows import Rows

__all__ = ["as_text", "data_checksum"]

#: Rows that stand for all of them.
_SAMPLE = 64


def as_text(setting: Any) -> str:
    """Its `repr`, without where in memory a user's own function lies: that is elsewhere in every process."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(setting))


def data_checksum(data: Any, y: Any) -> int | None:
    """A checksum of some rows and their targets.

    Parameters
    ----------
    data : Rows, or BatchStream
        A stream has none.
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
