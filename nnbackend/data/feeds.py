"""How the rows of an epoch get to where the step gathers its batches from.

Either all of them lie on the device, or they stay where they are and are brought there portion by portion, in the
epoch's order, while the device works on the portion before. The batches are the same, bit for bit.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod

import numpy as np
import numpy.typing as npt

from nnbackend.backends.contract import Backend, HostArray
from nnbackend.data.rows import Rows
from nnbackend.step.recorder import Examples

__all__ = ["Feed", "Order", "Resident", "make_feed"]

#: Order of the rows in an epoch, or part of it.
Order = npt.NDArray[np.int64]

#: Files up to this size are read into the memory of the device if they fit there.
_RESIDENT_BYTES = 1 << 30

#: Share of a device's free memory that the rows may take; a network and its buffers need some, too.
_RESIDENT_SHARE = 0.8


class Feed(ABC):
    """The rows of an epoch, on their way.

    Attributes
    ----------
    examples : Examples
        The device arrays that the step gathers its batches from.
    count : int
        How many rows there are.
    accuracy_name : str or None
        What the share of correct predictions is called, as :class:`nnbackend.data.targets.Targets` has it.
    """

    examples: Examples
    count: int
    accuracy_name: str | None = None

    @abstractmethod
    def places(self, order: Order) -> Order:
        """Where the step is to gather the rows of an epoch in this order: their numbers in `examples`."""

    @abstractmethod
    def begin(self, order: Order, epoch: int, step: int = 0) -> None:
        """An epoch begins that takes the rows in this order. All work on the epoch before must be done.

        Parameters
        ----------
        order : (rows of an epoch,) int64
        epoch : int
            How many the network has been trained for.
        step : int
            The first step that will be asked for: above 0 in an epoch that is gone on with.
        """

    @abstractmethod
    def ready(self, step: int) -> int:
        """How many steps may be asked for from this one on. To be asked before each such portion, in turn."""

    def close(self) -> None:
        """Nobody will ask for more."""


class Resident(Feed):
    """All rows lie on the device."""

    def __init__(self, examples: Examples) -> None:
        self.examples = examples
        self.count = examples.count

    def places(self, order: Order) -> Order:
        return order

    def begin(self, order: Order, epoch: int, step: int = 0) -> None:
        pass

    def ready(self, step: int) -> int:
        return sys.maxsize


def make_feed(
    backend: Backend,
    rows: Rows,
    targets: HostArray,
    weights: HostArray | None,
    scale: float,
    batch_size: int,
    stream: bool | None = None,
) -> Feed:
    """Rows on the device, or on their way to it.

    Parameters
    ----------
    stream : bool, optional
        Whether to bring them portion by portion. If not given: only if they do not fit into the device's memory, or
        lie in a file of more than a gigabyte.
    """
    if stream is None:
        stream = _too_large(backend, rows, targets)
    if stream:
        # Threads are for those who stream.
        from nnbackend.data.streaming import Streamed

        return Streamed(backend, rows, targets, weights, scale, min(batch_size, rows.count))
    return Resident(Examples.on_device(backend, rows.array(), targets, weights, scale))


def _too_large(backend: Backend, rows: Rows, targets: HostArray) -> bool:
    if rows.stored and rows.nbytes > _RESIDENT_BYTES:
        return True
    free = backend.free_bytes()
    return free is not None and rows.nbytes + targets.nbytes > _RESIDENT_SHARE * free
