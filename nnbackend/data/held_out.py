"""Hold out some of the rows, for validation."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from nnbackend.backends.contract import HostArray
from nnbackend.data.batch_stream import BatchStream
from nnbackend.data.inputs import as_host_array
from nnbackend.data.stored import is_stored
from nnbackend.errors import InvalidInputError
from nnbackend.losses import Loss

__all__ = ["drawn_rows", "held_rows", "split_rows"]

#: Keeps the draw apart from others with the network's seed.
_STREAM = 0x5711

Part = tuple[Any, Any, Any]


def split_rows(
    x: Any, y: Any, sample_weight: Any, fraction: float, loss: Loss, outputs: int, seed: int
) -> tuple[Part, Part]:
    """Divide rows into those to train on and those to hold out, both in their order.

    Parameters
    ----------
    x, y, sample_weight : data as for `fit`
        `sample_weight` may be None.
    fraction : float
        The share to hold out; above 0 and below 1.
    loss : Loss
        Says whether `y` has classes, each of which then has this share, but keeps at least one row to train on.
    outputs : int
        The network's.
    seed : int

    Returns
    -------
    two tuples of rows, targets and weights (or None)

    Raises
    ------
    InvalidInputError
        There is nothing to divide, or no row would be left on one side.
    """
    if isinstance(x, BatchStream) or is_stored(x):
        raise InvalidInputError(
            "validation_split is for rows in memory; of a stream or a file, hold out rows yourself and give them as "
            "validation_data"
        )
    if y is None:
        raise InvalidInputError("y is missing: give one target for each row of x")
    targets = as_host_array("y", y)
    held = held_rows(targets, fraction, loss, outputs, seed)
    count = len(held)
    rows = x if hasattr(x, "shape") or hasattr(x, "iloc") else as_host_array("x", x)
    if rows.shape[:1] != (count,):
        raise InvalidInputError(f"x has {rows.shape[0]} rows but y has {count}; give one target for each row")
    weights = None if sample_weight is None else as_host_array("sample_weight", sample_weight)
    if weights is not None and weights.shape != (count,):
        raise InvalidInputError(f"sample_weight must have shape ({count},), received {weights.shape}")
    train, out = (
        (_taken(rows, part), targets[part], None if weights is None else weights[part])
        for part in (np.flatnonzero(~held), np.flatnonzero(held))
    )
    return train, out


def held_rows(targets: HostArray, fraction: float, loss: Loss, outputs: int, seed: int) -> npt.NDArray[np.bool_]:
    """Which rows `split_rows` holds out, given their targets.

    Raises
    ------
    InvalidInputError
        No row would be left on one side.
    """
    count = len(targets) if targets.ndim else 0
    held = drawn_rows(_classes(targets, loss, outputs), count, fraction, seed)
    if not 0 < held.sum() < count:
        raise InvalidInputError(
            f"validation_split={fraction:g} of {count} rows leaves none to {'train' if held.any() else 'validate'} on; "
            "give more rows, or another fraction"
        )
    return held


def _classes(targets: HostArray, loss: Loss, outputs: int) -> HostArray:
    """A number for each row, equal for rows of one class; all the same if targets are not classes."""
    count = len(targets) if targets.ndim else 0
    whole = targets.dtype.kind in "iub" or (targets.dtype.kind == "f" and loss.takes_probabilities)
    if targets.ndim == 1 and whole and (loss.takes_probabilities or (outputs > 1 and not loss.shares_target)):
        return targets
    one_hot = targets.ndim == 2 and targets.shape[1] > 1 and ((targets == 0) | (targets == 1)).all()
    if one_hot and (targets.sum(axis=1) == 1).all():
        return np.asarray(targets.argmax(axis=1))
    return np.zeros(count, np.int64)


def drawn_rows(classes: HostArray, count: int, fraction: float, seed: int) -> npt.NDArray[np.bool_]:
    """Which rows are held out; of each class, given by numbers, about this fraction."""
    # RandomState, because NumPy guarantees that its numbers never change (NEP 19).
    order = np.random.RandomState([seed & 0xFFFFFFFF, seed >> 32, _STREAM]).permutation(count)
    order = order[np.argsort(classes[order], kind="stable")]
    # Rows at equal distances in the order of their classes, so that each class gives its share, give or take one row.
    places = np.floor(np.arange(count + 1) * fraction + 0.5)
    held = np.zeros(count, np.bool_)
    held[order] = np.diff(places) > 0
    for each in np.unique(classes):
        own = classes == each
        if held[own].all():
            held[np.flatnonzero(own)[0]] = False
    return held


def _taken(rows: Any, part: npt.NDArray[np.int64]) -> Any:
    """Some rows of an array, a sparse matrix or a data frame."""
    if hasattr(rows, "iloc"):
        return rows.iloc[part]
    if hasattr(rows, "take") and not hasattr(rows, "__array_interface__") and not hasattr(rows, "tocsr"):
        return rows.take(part)
    return (rows.tocsr() if hasattr(rows, "tocsr") else rows)[part]
