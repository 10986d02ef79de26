"""The classifier for tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import column_or_1d

from nnbackend.backends.contract import Backend, HostArray
from nnbackend.data.inputs import check_mask
from nnbackend.errors import InvalidInputError, UnknownNameError
from nnbackend.interop.tabular.base import BaseTabular
from nnbackend.interop.tabular.files import classes_from, plain_classes
from nnbackend.interop.tabular.reading import FROM_DTYPE
from nnbackend.interop.tabular.recipe import Parts, Recipe
from nnbackend.support.checks import number
from nnbackend.support.surroundings import own_error_state

__all__ = ["TabularClassifier"]

#: The label smoothing that suits what matters.
_SMOOTHINGS = {"accuracy": 0.1, "log_loss": 0.0}


class TabularClassifier(ClassifierMixin, BaseTabular):  # type: ignore[misc]
    """A classifier for tables as they are: numbers, categories, text, missing values, in any unit.

    Networks with defaults made for tables (after RealMLP of Holzmueller et al. 2024 [1]_): features are scaled robustly
    and clipped smoothly, categories become features of their own, and each network trains for 256 epochs with a
    learning rate in four waves and keeps its best epoch on rows that it holds out, in the mean over seven epochs. The
    probabilities of all networks are averaged.

    Parameters
    ----------
    n_members : int
        Networks that train at once, each from its own initial weights and with other rows held out.
    scoring : {"accuracy", "log_loss"}
        What matters: the number of correct classes, or the probabilities. The best epoch is that with the smallest loss
        for "log_loss", and with the smallest sum of the loss and the share of wrong classes for "accuracy". Labels are
        smoothed by 0.1 for "accuracy" and not at all for "log_loss", because smoothing biases probabilities. All are
        weighted with `sample_weight`.
    categorical_features : "from_dtype", None, or list of names, indices or truth values
        Columns that are categories even though they hold numbers. Columns of text and of a categorical type always
        are.
    max_categories : int
        Most categories of a column; beyond, the rarest ones share one.
    recipe : {"auto", "td-s", "td"}
        "td-s" is the simple recipe of the paper, and "td" the whole one: it adds embeddings of numbers and of columns
        with more than 8 categories, learned mixes of activations, initial weights scaled to the data, weight decay, and
        a dropout of 0.15; an epoch takes longer. "auto" is "td" without what did not reduce the errors of classes: the
        embeddings of categories, the mixes, and the dropout.
    hidden_layer_sizes : sequence of int
    activation : str, optional
        Of the hidden layers. Default: "selu".
    learning_rate : float, optional
        Of Adam, at the crests of the waves. Default: 0.04.
    epochs : int
    batch_size : int
    label_smoothing : float, optional
        Default: what `scoring` says.
    validation_fraction : float
        Share of the rows that each network holds out; at least 0 and below 1. With 0, or if there are too few rows,
        the last epoch is kept.
    max_seconds : float, optional
        After a rehearsal of an epoch, reduces `epochs` such that training takes about this time. `n_epochs_` records
        the number, with which a second run gives the same bits.
    random_state : int, RandomState or None
    backend : str or Backend
    dtype : str or dtype
    verbose : bool

    Attributes
    ----------
    classes_ : (k,) array
    ensemble_ : Ensemble
        The networks. Their inputs are features, not columns.
    n_epochs_ : int
        The epochs of the training.
    best_epochs_ : list of int
        The epoch that each network has kept, from 1.
    n_features_in_ : int
    feature_names_in_ : (columns,) array
        Only if the columns have names.
    target_name_ : str or None
        Name of the target, if `y` was a column with a name.

    Notes
    -----
    A missing number becomes the median, and a second feature says that it is missing. A category that did not occur in
    the fitted rows, and a missing one, belongs to no category.

    References
    ----------
    .. [1] D. Holzmueller, L. Grinsztajn and I. Steinwart, "Better by Default: Strong Pre-Tuned MLPs and Boosted Trees
       on Tabular Data", NeurIPS 2024, https://arxiv.org/abs/2407.04491

    Examples
    --------
    >>> import nnbackend as nn
    >>> table = [[1.5, "red"], [2.0, "blue"], [None, "red"], [8.5, "green"]] * 10
    >>> model = nn.TabularClassifier(n_members=2, epochs=20, random_state=0, backend="numpy")
    >>> model.fit(table, ["small", "small", "small", "large"] * 10).predict([[7.5, "green"]])
    array(['large'], dtype='<U5')
    """

    _task: ClassVar[Mapping[str, Any]] = {
        "activation": "selu",
        "learning_rate": 0.04,
        "loss": "softmax_cross_entropy",
        "zero_output": True,
        "parts": Parts(waves=True),
    }

    _kind = "classifier"

    classes_: HostArray

    def __init__(
        self,
        n_members: int = 8,
        *,
        scoring: str = "accuracy",
        categorical_features: Any = FROM_DTYPE,
        max_categories: int = 100,
        recipe: str = "auto",
        hidden_layer_sizes: Any = (256, 256, 256),
        activation: str | None = None,
        learning_rate: float | None = None,
        epochs: int = 256,
        batch_size: int = 256,
        label_smoothing: float | None = None,
        validation_fraction: float = 0.2,
        max_seconds: float | None = None,
        random_state: Any = None,
        backend: str | Backend = "auto",
        dtype: Any = "float32",
        verbose: bool = False,
    ) -> None:
        self._keep(locals())

    def _targets(self, y: Any, rows: int, weights: HostArray | None) -> tuple[HostArray, HostArray]:
        check_mask("y", y)
        y = column_or_1d(y, warn=True)
        if len(y) != rows:
            raise InvalidInputError(f"X has {rows} rows but y has {len(y)}; give one class for each row")
        check_classification_targets(y)
        kind = type_of_target(y, input_name="y")
        if kind not in ("binary", "multiclass"):
            raise InvalidInputError(f"y must have one class per row, received {kind} targets")
        classes, codes = np.unique(y, return_inverse=True)
        if len(classes) < 2:
            raise InvalidInputError(f"y has only one class, {classes[0]!r}; a classifier needs at least two classes")
        self.classes_ = classes
        codes = codes.reshape(-1).astype(np.int32)
        return codes, codes

    def _recipe(self) -> Recipe:
        if not isinstance(self.scoring, str) or self.scoring not in _SMOOTHINGS:
            raise UnknownNameError("scoring", self.scoring, _SMOOTHINGS)
        smoothing = _SMOOTHINGS[self.scoring]
        if self.label_smoothing is not None:
            smoothing = number("label_smoothing", self.label_smoothing, low=0, high=1, below=True)
        counts = self.scoring == "accuracy"
        own = {"label_smoothing": smoothing, "counts_errors": counts, "outputs": len(self.classes_)}
        return Recipe.of(self, **self._task, **own)

    def _target_state(self) -> dict[str, Any]:
        return {"classes": plain_classes(self.classes_)}

    def _set_target_state(self, state: Mapping[str, Any], outputs: int) -> None:
        self.classes_ = classes_from(state["classes"], outputs)

    def predict_proba(self, X: Any) -> HostArray:
        """The probability of every class, the mean over the networks.

        Parameters
        ----------
        X : (n, columns) data frame, Arrow table or array_like
            With the columns of `fit`.

        Returns
        -------
        (n, k) array
            In the order of `classes_`.

        Raises
        ------
        InvalidInputError, ValueError
            The columns are not those of `fit`.
        """
        with own_error_state():
            mean: HostArray = self._each(self._features(X)).mean(axis=0)
        return mean

    def predict(self, X: Any) -> HostArray:
        """The most probable class of every row.

        Parameters
        ----------
        X : (n, columns) data frame, Arrow table or array_like

        Returns
        -------
        (n,) array
        """
        most = self.predict_proba(X).argmax(axis=1)
        chosen: HostArray = self.classes_[most]
        return chosen
