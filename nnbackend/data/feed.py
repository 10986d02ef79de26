"""The rows of an epoch on their way to the device, where the step gathers its batches from."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnbackend.backends.contract import Array, Backend, HostArray
from nnbackend.data.order import Order

__all__ = ["Examples", "Feed", "Resident"]


@dataclass(eq=False, repr=False)
class Examples:
    """Data on the device.

    Attributes
    ----------
    x : (n, features) uint8 or real
    targets : (n,) int32 or (n, outputs) real
    target_dtype : numpy dtype
        That of `targets`, as the host knows it.
    weights : (n,) real or None
    count : int
        n.
    scale : float
        Factor the gather applies to `x`.
    """

    x: Array
    targets: Array
    target_dtype: np.dtype[Any]
    weights: Array | None
    count: int
    scale: float

    @classmethod
    def on_device(
        cls, backend: Backend, x: HostArray, targets: HostArray, weights: HostArray | None, scale: float
    ) -> Examples:
        """Copy checked host arrays to the device."""
        return cls(
            x=backend.from_host(x),
            targets=backend.from_host(targets),
            target_dtype=targets.dtype,
            weights=None if weights is None else backend.from_host(weights),
            count=len(x),
            scale=scale,
        )


class Feed(ABC):
    """Brings the rows of an epoch to the device.

    Either all rows lie on the device (:class:`Resident`), or they stay where they are and are brought portion by
    portion, in the epoch's order, while the device works on the portion before (:mod:`nnbackend.data.streaming`).
    The batches are the same, bit for bit.

    Attributes
    ----------
    examples : Examples
        The device arrays that the step gathers its batches from.
    count : int
        Number of rows.
    accuracy_name : str or None
        Name of the share of correct predictions, as in `Targets`.
    """

    examples: Examples
    count: int
    accuracy_name: str | None = None

    @abstractmethod
    def places(self, order: Order) -> Order:
        """The places in `examples` where the step finds the rows of an epoch that takes them in this order."""

    @abstractmethod
    def begin(self, order: Order, epoch: int, step: int = 0) -> None:
        """Begin an epoch that takes the rows in this order. All work on the epoch before must be done.

        Parameters
        ----------
        order : (rows of an epoch,) int64
        epoch : int
            Number of epochs the network has been trained for.
        step : int
            The first step to prepare; above 0 in an epoch that is resumed.
        """

    @abstractmethod
    def ready(self, step: int) -> int:
        """Number of steps that may run from this one on. Ask before each portion of steps, in order."""

    def close(self) -> None:
        """Release threads and buffers; nothing is asked for any more."""


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
