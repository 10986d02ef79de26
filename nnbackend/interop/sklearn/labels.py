"""Converts classes of any type to the numbers that a network learns, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.multiclass import check_classification_targets, type_of_target, unique_labels

from nnbackend.backends.contract import HostArray
from nnbackend.errors import InvalidInputError

__all__ = ["Labels"]


class Labels:
    """The classes of a fitted classifier.

    Parameters
    ----------
    classes : (k,) array, sorted
    multilabel : bool
        Whether a row may belong to any number of them.

    Attributes
    ----------
    outputs : int
        Outputs of the network: one for two classes, otherwise one for each class.
    loss : str
    activation : str
        scikit-learn's name of the activation of the outputs.
    """

    def __init__(self, classes: HostArray, multilabel: bool) -> None:
        self.classes = classes
        self.multilabel = multilabel
        exclusive = not multilabel and len(classes) > 2
        self.outputs = len(classes) if multilabel or exclusive else 1
        self.loss = "softmax_cross_entropy" if exclusive else "sigmoid_cross_entropy"
        self.activation = "softmax" if exclusive else "logistic"

    @classmethod
    def of(cls, y: Any) -> Labels:
        """The classes that occur in some targets.

        Raises
        ------
        InvalidInputError
            The targets are not classes, or are of an unsupported kind.
        """
        check_classification_targets(y)
        kind = type_of_target(y, input_name="y")
        if kind == "multilabel-indicator":
            return cls(np.arange(y.shape[1]), multilabel=True)
        if kind not in ("binary", "multiclass"):
            raise InvalidInputError(
                f"y must have one class per row, or 0 and 1 for every class, received {kind} targets; fit an "
                "estimator for each column (sklearn.multioutput.MultiOutputClassifier)"
            )
        # Texts get scikit-learn's dtype.
        return cls(unique_labels(y), multilabel=False)

    def encode(self, y: Any) -> HostArray:
        """Targets for the network: (n,) or (n, k) integers.

        Raises
        ------
        InvalidInputError
            A class is unknown, or the number of columns differs.
        """
        if self.multilabel:
            dense = y.toarray() if hasattr(y, "toarray") else np.asarray(y)
            if dense.ndim != 2 or dense.shape[1] != self.outputs:
                raise InvalidInputError(f"y must have {self.outputs} columns, as before, received shape {dense.shape}")
            yes: HostArray = (dense != 0).astype(np.int32)
            return yes
        found = unique_labels(y)
        unknown = np.setdiff1d(found, self.classes)
        if len(unknown):
            raise InvalidInputError(
                f"`y` has classes not in `self.classes_`. `self.classes_` has {self.classes}. 'y' has {found}."
            )
        codes: HostArray = np.searchsorted(self.classes, y).astype(np.int32)
        return codes

    def decode(self, probabilities: HostArray) -> HostArray:
        """The classes of the network's predictions, (n, outputs)."""
        codes = self.codes(probabilities)
        chosen: HostArray = codes if self.multilabel else self.classes[codes]
        return chosen

    def probabilities(self, outputs: HostArray) -> HostArray:
        """The probability of every class, (n, k), from the network's predictions."""
        if self.outputs > 1 or self.multilabel:
            return outputs
        return np.hstack([1 - outputs, outputs]) if len(self.classes) > 1 else np.ones_like(outputs)

    def codes(self, probabilities: HostArray) -> HostArray:
        """The predicted classes as numbers from 0, or as 0 and 1 for every class."""
        if self.multilabel:
            return (probabilities > 0.5).astype(np.int64)
        if self.outputs > 1:
            most: HostArray = probabilities.argmax(axis=1)
            return most
        # If there is a single class, it is always predicted.
        return ((probabilities[:, 0] > 0.5) & (len(self.classes) > 1)).astype(np.int64)
