"""Targets: checked, and converted for a loss's operation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from nnbackend.backends.contract import HostArray
from nnbackend.errors import InvalidInputError
from nnbackend.losses import Loss

__all__ = ["Kind", "Targets"]

Kind = Literal["labels", "one-hot", "multilabel", "values"]


#: Targets above this are hard to learn: the initial outputs are near 1, and the gradients as large as the targets.
_LARGE = 1000


@dataclass(eq=False, repr=False)
class Targets:
    """Targets ready for the device.

    Attributes
    ----------
    values : (n,) int32 labels, or (n, outputs) array of the network's dtype
    labels : (n,) int32 or None
        The class of each row, if targets are classes; needed for accuracy and class weights.
    accuracy_name : str or None
        Name of the fraction of correct predictions; see :meth:`nnbackend.losses.Loss.accuracy_name`.
    kind : {"labels", "one-hot", "multilabel", "values"}
        Class indices; rows with a single one; any number of labels for each row; anything else. One-hot rows can also
        be multilabel rows that happen to have one label each.
    """

    values: HostArray
    labels: HostArray | None
    accuracy_name: str | None
    kind: Kind = "values"

    def counts_rows(self, loss: Loss) -> bool:
        """Whether rows are right or wrong, although the operation of the loss counts outputs."""
        several = self.values.ndim == 2 and loss.takes_several_labels(self.values.shape[1])
        return several and self.kind != "multilabel"

    @classmethod
    def prepare(
        cls, loss: Loss, y: HostArray, rows: int, outputs: int, dtype: npt.DTypeLike, multilabel: bool = False
    ) -> Targets:
        """Check the caller's targets and convert them for the loss's operation.

        Parameters
        ----------
        y : array of n labels, or (n, outputs) numbers
        rows : int
            How many there must be.
        outputs : int
            The network's number of outputs.
        dtype : the network's dtype
        multilabel : bool
            Whether class indices and one-hot rows are rows with one label each, if the loss takes several.

        Raises
        ------
        InvalidInputError
            Wrong number of rows or columns, labels out of range, values that are not finite.
        """
        if y.dtype == np.bool_:
            y = y.astype(np.int32)
        if y.ndim == 0:
            raise InvalidInputError(f"y must hold one target for each of {rows} rows, received the single value {y}")
        if len(y) != rows:
            raise InvalidInputError(f"x has {rows} rows but y has {len(y)}; give one target for each row")
        if y.ndim == 2 and y.shape[1] == 1:
            y = y[:, 0]
        if y.ndim not in (1, 2):
            raise InvalidInputError(f"y must be labels (n,) or values (n, {outputs}), received shape {y.shape}")
        if np.issubdtype(y.dtype, np.floating) and not np.isfinite(y).all():
            raise InvalidInputError(
                f"y holds NaN or infinity, first in row {_first_bad_row(y)} ({int((~np.isfinite(y)).sum()):,} values); "
                "remove such rows"
            )
        if loss.shares_target:
            if y.ndim != 1:
                raise InvalidInputError(
                    f"all outputs predict the same number with loss {loss.text}, so y must have one for each row, "
                    f"received shape {y.shape}"
                )
            y = np.repeat(y[:, None], outputs, axis=1)
        if y.ndim == 1 and (outputs > 1 or loss.takes_labels):
            targets = cls._from_labels(loss, y, outputs, dtype)
        else:
            targets = cls._from_values(loss, y, rows, outputs, dtype)
        several = loss.takes_several_labels(outputs)
        if several and (multilabel or targets.labels is None):
            return cls(targets.values, None, loss.accuracy_name(outputs, have_classes=False), "multilabel")
        return targets

    def describe(self, outputs: int) -> str:
        """What they are, in words: "10 classes", "3 targets"."""
        # Rows of zeros and ones are classes for the squared error, too.
        binary = self.kind == "values" and bool(((self.values == 0) | (self.values == 1)).all())
        if self.labels is not None or binary:
            return f"{max(outputs, 2)} classes"
        return f"{outputs} target{'' if outputs == 1 else 's'}"

    @property
    def largest(self) -> float | None:
        """The largest absolute value, if it is large enough to make training hard."""
        if self.labels is not None or self.values.dtype.kind != "f":
            return None
        largest = float(max(self.values.max(), -self.values.min()))
        return largest if largest > _LARGE else None

    @classmethod
    def _from_labels(cls, loss: Loss, y: HostArray, outputs: int, dtype: npt.DTypeLike) -> Targets:
        if loss.takes_probabilities and y.dtype.kind == "f" and (y == np.trunc(y)).all():
            # Numbers of classes, as a column of a data frame with missing values in other rows has them.
            y = y.astype(np.int64)
        if not np.issubdtype(y.dtype, np.integer):
            raise InvalidInputError(
                f"labels must be integers in [0, {outputs}), received dtype {y.dtype} with values such as "
                f"{y[np.argmax(y != np.trunc(y))]:g}; give class numbers (n,), or values of shape (n, {outputs})"
            )
        low, high = int(y.min()), int(y.max())
        if low < 0 or high >= outputs:
            few = low < 0 or len(np.unique(y)) <= outputs
            remedy = (
                "number the classes from 0: names, y = numpy.unique(y, return_inverse=True)"
                if few
                else f"end the network with Dense({high + 1})"
            )
            raise InvalidInputError(
                f"labels must be in [0, {outputs}) for a network with {outputs} outputs, received {low} to {high}; "
                f"{remedy}"
            )
        labels = y.astype(np.int32)
        values = labels if loss.takes_labels else _one_hot(labels, outputs, dtype)
        return cls(values, labels, loss.accuracy_name(outputs, have_classes=True), "labels")

    @classmethod
    def _from_values(cls, loss: Loss, y: HostArray, rows: int, outputs: int, dtype: npt.DTypeLike) -> Targets:
        columns = 1 if y.ndim == 1 else y.shape[1]
        if columns != outputs:
            raise InvalidInputError(f"the network has {outputs} outputs but y has shape {y.shape}")
        with np.errstate(over="ignore"):
            values = y.reshape(rows, outputs).astype(dtype)
        if not np.isfinite(values).all():
            raise InvalidInputError(
                f"y holds values beyond the range of {values.dtype}; scale it or use dtype='float64'"
            )
        # One-hot rows define classes for every loss.
        one_hot = outputs > 1 and bool(((values == 0) | (values == 1)).all() and (values.sum(axis=1) == 1).all())
        labels = values.argmax(axis=1).astype(np.int32) if one_hot else None
        name = loss.accuracy_name(outputs, have_classes=one_hot)
        kind: Kind = "one-hot" if one_hot else "values"
        if loss.takes_probabilities and (values.min() < 0 or values.max() > 1):
            raise InvalidInputError(
                f"targets of {loss.name} must be in [0, 1], received {values.min():g} to {values.max():g}"
            )
        loss.check_targets(values)
        if loss.takes_labels:
            if labels is not None:
                return cls(labels, labels, name, kind)
            sums = values.sum(axis=1)
            if not np.allclose(sums, 1, atol=1e-3):
                row = int(np.argmax(np.abs(sums - 1)))
                raise InvalidInputError(
                    f"rows of class probabilities must sum to 1, row {row} sums to {sums[row]:g}; if a row may have "
                    "several labels, use loss='sigmoid_cross_entropy'"
                )
            return cls(values, values.argmax(axis=1).astype(np.int32), name)
        if loss.takes_probabilities and outputs == 1:
            labels = (values[:, 0] > 0.5).astype(np.int32)
        return cls(values, labels, name, kind)


def _one_hot(labels: HostArray, outputs: int, dtype: npt.DTypeLike) -> HostArray:
    values = np.zeros((len(labels), outputs), dtype)
    values[np.arange(len(labels)), labels] = 1
    return values


def _first_bad_row(y: HostArray) -> int:
    return int(np.argmax(~np.isfinite(y.reshape(len(y), -1)).all(axis=1)))
