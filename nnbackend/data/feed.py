"""Transfers the rows of an epoch to the device, from where the step gathers its batches."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnbackend.backends.contract import Array, Backend, HostArray
from nnbackend.data.order import Order
from nnbackend.data.scale import Inputs
from nnbackend.data.targets import Kind, Targets
from nnbackend.losses import Loss

__all__ = ["Examples", "Feed", "Resident"]


@dataclass(eq=False, repr=False)
class Examples:
    """Data on the device.

    Attributes
    ----------
    x : (n, features) uint8 or real
    targets : (n,) int32 or (n, outputs) real
    target_dtype : numpy dtype
        The NumPy dtype of `targets`.
    weights : (n,) real or None
    count : int
        n.
    scale : float
        Factor the gather applies to `x`.
    by_class : bool
        Whether a row is predicted correctly if its largest output is that of its class, with a loss that would count
        every output.
    """

    x: Array
    targets: Array
    target_dtype: np.dtype[Any]
    weights: Array | None
    count: int
    scale: float
    by_class: bool = False

    @classmethod
    def on_device(
        cls,
        backend: Backend,
        x: HostArray,
        targets: HostArray,
        weights: HostArray | None,
        scale: float,
        shared: bool = False,
    ) -> Examples:
        """Copy checked host arrays to the device.

        Parameters
        ----------
        shared : bool
            Whether `x` may stay where it is, because nobody writes to it; the other arrays are copied.
        """
        return cls(
            x=backend.asarray(x) if shared else backend.from_host(x),
            targets=backend.from_host(targets),
            target_dtype=targets.dtype,
            weights=None if weights is None else backend.from_host(weights),
            count=len(x),
            scale=scale,
        )


class Feed(ABC):
    """Provides the rows of an epoch on the device.

    Either all rows are on the device (:class:`Resident`), or they are transferred in portions, in the epoch's order,
    while the device works on the previous portion (:mod:`nnbackend.data.streaming`). The batches are the same, bit for
    bit.

    Attributes
    ----------
    examples : Examples
        The device arrays that the step gathers its batches from.
    count : int
        Number of rows.
    accuracy_name : str or None
        Name of the share of correct predictions, as in `Targets`.
    kind : str
        As in `Targets`.
    class_weights : (classes,) float64 or None
        The weights of the classes that are part of the rows' weights, for other rows of the same problem.
    portion_batch : int or None
        If rows come in portions: the rows of a batch that the portions consist of.
    targets : Targets or None
        Of all rows, on the host; None for a stream.
    sample_weight : (n,) float64 or None
        The weights of the rows as the user gave them.
    streams : bool
        Whether the rows are those of a BatchStream.
    weighted : bool
        Whether the rows have different weights.
    weight_total : float or None
        If the weights of the rows have no mean of 1: their sum, over the rows that have been read in this epoch.
    inputs : callable
        Returns what a network is trained with, if this is its feed.
    row_dtype : numpy dtype
        The NumPy dtype of the rows on the device.
    largest_target : float or None
        The largest target, if targets are numbers and so large that training is hard.
    """

    examples: Examples
    count: int
    accuracy_name: str | None = None
    kind: Kind = "values"
    class_weights: HostArray | None = None
    portion_batch: int | None = None
    targets: Targets | None = None
    sample_weight: HostArray | None = None
    streams: bool = False
    weighted: bool = False
    weight_total: float | None = None
    inputs: Callable[[], Inputs]
    largest_target: float | None = None
    row_dtype: np.dtype[Any]

    def take(self, targets: Targets, loss: Loss) -> None:
        """Take over what the targets mean, before a step is recorded."""
        self.accuracy_name, self.kind, self.largest_target = targets.accuracy_name, targets.kind, targets.largest
        self.examples.by_class = targets.counts_rows(loss)

    def count_labels(self) -> None:
        """Treat classes as rows with one label each, before a step is recorded."""
        self.accuracy_name, self.kind = "binary_accuracy", "multilabel"
        self.examples.by_class = False

    def describe(self) -> Inputs:
        """What a network is trained with, if this is its feed; found once, so that the host's rows can be released."""
        inputs = self.inputs()
        self.inputs = lambda: inputs
        return inputs

    @abstractmethod
    def places(self, order: Order) -> Order:
        """The positions in `examples` of an epoch's rows, in this order."""

    @abstractmethod
    def begin(self, order: Order, epoch: int, step: int = 0) -> None:
        """Begin an epoch with the rows in this order. All work on the previous epoch must be done.

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
        """Number of steps that may run, starting with this one. Call before each portion of steps, in order."""

    def close(self) -> None:
        """Release threads and buffers, after the last call of other methods."""


class Resident(Feed):
    """All rows are on the device."""

    def __init__(self, examples: Examples) -> None:
        self.examples = examples
        self.count = examples.count

    def places(self, order: Order) -> Order:
        return order

    def begin(self, order: Order, epoch: int, step: int = 0) -> None:
        pass

    def ready(self, step: int) -> int:
        return sys.maxsize
