"""The class of data sets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnbackend.data.scale import Images

__all__ = ["Dataset"]


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Training and test rows.

    Attributes
    ----------
    name : str
        The data set that was loaded; for ``load("auto")``, the one that was chosen.
    x_train, x_test : ndarray, shape (rows, input_shape)
        One sample per row, in C order. Images are uint8, 0 to 255, in an array that networks recognise: they scale it
        to 0..1 when they gather a batch. Other data sets are floating point, in their own units.
    y_train, y_test : ndarray of int32, shape (rows,)
        Index of each row's class in `classes`.
    classes : tuple of str
        Names of the classes.
    input_shape : int
        Number of features, the argument `input_shape` of `Network`.
    source : str
        Where the rows came from, for people to read.
    notice : str
        A message for the user, such as why a smaller data set was chosen; usually empty.
    """

    name: str
    x_train: NDArray[Any]
    y_train: NDArray[Any]
    x_test: NDArray[Any]
    y_test: NDArray[Any]
    classes: tuple[str, ...]
    input_shape: int
    source: str
    notice: str = ""

    def __post_init__(self) -> None:
        for name in ("x_train", "x_test"):
            rows = getattr(self, name)
            if rows.dtype == np.uint8:
                object.__setattr__(self, name, rows.view(Images))

    def __repr__(self) -> str:
        return (
            f"<Dataset {self.name!r}: {len(self.x_train):,} rows to train on, {len(self.x_test):,} to test on, "
            f"{self.input_shape} features ({self.x_train.dtype}), {len(self.classes)} classes, "
            f"from {self.source}>"
        )
