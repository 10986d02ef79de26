"""Small arrays that operations read as numbers, in host memory: counters, learning rates and momenta.

Reading a number from a GPU waits for all of its work. So the executors of recorded steps have copies of these arrays
kept in host memory, which follow what is written to the arrays, and an epoch reads nothing from the device.
"""

from __future__ import annotations

from collections.abc import Callable
from weakref import WeakValueDictionary

import numpy as np

from nnbackend.backends.arrays import Array, HostArray

__all__ = ["HostValues", "Kept"]


class Kept:
    """An array on the device and its values on the host; kept as long as somebody refers to it."""

    __slots__ = ("__weakref__", "array", "values")

    def __init__(self, array: Array, values: HostArray) -> None:
        #: Referred to, so that no other array gets its identity.
        self.array = array
        self.values = values


class HostValues:
    """The values of arrays on the host.

    Parameters
    ----------
    read : callable
        Returns the values of an array as a NumPy array: its own memory if `shared`, else a copy.
    shared : bool
        Whether NumPy uses the memory of the arrays, so that nothing has to be copied.
    """

    def __init__(self, read: Callable[[Array], HostArray], shared: bool) -> None:
        self._read, self._shared = read, shared
        self._kept: WeakValueDictionary[int, Kept] = WeakValueDictionary()

    def keep(self, array: Array) -> Kept:
        """Keep the values of an array on the host until the result is deleted."""
        kept = self._kept.get(id(array))
        if kept is None:
            kept = self._kept[id(array)] = Kept(array, self._read(array))
        return kept

    def of(self, array: Array) -> HostArray:
        """The values of an array, to be read only."""
        kept = self._kept.get(id(array))
        return self._read(array) if kept is None else kept.values

    def written(self, array: Array, values: HostArray) -> None:
        """`values` were written to an array on the device."""
        if not self._shared and (kept := self._kept.get(id(array))) is not None:
            kept.values = np.array(values)

    def copied(self, array: Array) -> None:
        """An array on the device was overwritten on the device."""
        if not self._shared and (kept := self._kept.get(id(array))) is not None:
            kept.values = self._read(array)

    def advanced(self, array: Array) -> None:
        """1 was added to an array on the device."""
        if not self._shared and (kept := self._kept.get(id(array))) is not None:
            kept.values = kept.values + 1
