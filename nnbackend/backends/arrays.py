"""What arrays are called in annotations."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

__all__ = ["Array", "HostArray"]

#: An array on a backend's device. Only that backend knows its type.
Array = Any
#: A NumPy array in host memory.
HostArray = npt.NDArray[Any]
