"""The classifier: a network that predicts classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils.class_weight import compute_class_weight, compute_sample_weight
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import unique_labels

from nnbackend.backends.contract import Backend, HostArray
from nnbackend.data.inputs import check_mask
from nnbackend.data.weights import check_not_negative, without_index
from nnbackend.errors import InvalidInputError
from nnbackend.interop.sklearn.architecture import Weights
from nnbackend.interop.sklearn.base import BaseMLP, takes_batches
from nnbackend.interop.sklearn.data import Given, Problem, Rows, comparable_weights
from nnbackend.interop.sklearn.labels import Labels
from nnbackend.support.checks import number
from nnbackend.support.surroundings import own_error_state

__all__ = ["MLPClassifier"]

#: Kinds of dtypes whose comparison with == has no surprises.
_PLAIN = "biuU"


class MLPClassifier(ClassifierMixin, BaseMLP):  # type: ignore[misc]
    """`sklearn.neural_network.MLPClassifier`, on any backend.

    Parameters
    ----------
    hidden_layer_sizes : int or sequence of int
    activation : str or sequence of str
        Of the hidden layers: "identity", "logistic", "tanh" or "relu", or another of this package, such as "gelu"; or
        one for each hidden layer.
    solver : {"adam", "sgd", "lbfgs", "adamw", "rmsprop"}
        "lbfgs" is SciPy's L-BFGS-B [1]_ on all rows at once, in float64, for small data sets. It ignores what belongs
        to batches, such as `batch_size` and `early_stopping`; it allows no dropout, and `partial_fit` does not exist.
        "adamw" and "rmsprop" are :class:`nnbackend.AdamW` and :class:`nnbackend.RMSprop`.
    alpha : float
        Strength of the L2 penalty: ``alpha / 2 sum W^2``, divided by the sum of the weights of the minibatch's rows, is
        added to its loss. Biases have no penalty. For "adamw" it is the decoupled weight decay instead, of biases as
        well: a step with learning rate r multiplies every parameter by ``1 - r alpha``.
    batch_size : int or "auto"
        Rows per step; "auto" is 200, or all rows if there are fewer.
    learning_rate : {"constant", "invscaling", "adaptive"}
        For "sgd": "invscaling" divides the rate by ``t_ ** power_t`` after every epoch, "adaptive" by 5 whenever
        training would end because it no longer improves, until the rate is below 1e-6.
    learning_rate_init, power_t : float
    max_iter : int
        Maximum number of epochs, or of iterations of "lbfgs".
    shuffle : bool
        Whether to shuffle the rows in every epoch.
    random_state : int, RandomState or None
        Determines initial weights, the order of rows, validation data and dropout masks.
    tol : float
    verbose : bool or int
    warm_start : bool
        Whether `fit` continues with the existing weights.
    momentum : float
        0 <= momentum < 1.
    nesterovs_momentum : bool
    early_stopping : bool
        Whether to hold out `validation_fraction` of the rows, score them after every epoch, stop when the score no
        longer improves by `tol`, and keep the weights with the best score. Otherwise training stops by the training
        loss, and the last weights are kept.
    validation_fraction : float
    beta_1, beta_2, epsilon : float
        Of "adam" and "adamw"; epsilon also of "rmsprop".
    n_iter_no_change : int or inf
        Training ends after more than this many consecutive epochs without improvement.
    max_fun : int
        Maximum number of evaluations of the loss by "lbfgs".
    backend : str or Backend
        "numpy", "numba", "cupy", "torch", a plug-in's name, or "auto". A fitted estimator whose backend is changed
        moves there with its next call.
    dropout : float or sequence of float
        Fraction of each hidden layer's outputs that is dropped in training, or one for each layer.
    dtype : {"auto", "float32", "float64"}
        "auto" uses the data of the first call of `fit`: float32 for float32 data, otherwise float64.
    class_weight : dict, "balanced" or None
        Weights of the classes, multiplied with those of the rows; "balanced" gives all classes the same total weight.
        They also weight the rows that early stopping scores. Classes missing in a dict have weight 1. For rows that may
        belong to several classes, a list with a dict for each column.
    n_members : int
        Number of networks whose probabilities are averaged. They train at once, from different random states, and each
        is an estimator with one network in `estimators_`.
    scoring : str, callable or None
        The score of validation data: None for the accuracy, "loss" for the loss with its sign changed, or a scorer as
        of scikit-learn, by name or as ``scorer(estimator, X, y)``, also with `sample_weight` if there are weights.
    rho : float
        Decay of the running mean of squared gradients of "rmsprop".

    Attributes
    ----------
    coefs_, intercepts_ : lists of (inputs, outputs) and (outputs,) arrays
        The weights. The arrays are read-only; to change the weights, assign new arrays.
    estimators_ : list of MLPClassifier
        The members, only if there are several.
    classes_ : (k,) array
    loss_, loss_curve_ : float, and a list of one for every epoch, or iteration of "lbfgs"
    best_loss_ : float, or None with early stopping
    validation_scores_, validation_loss_curve_ : list of float
        One for every epoch; None without validation data, which `fit` is given or early stopping holds out. The loss
        has no penalty.
    best_validation_score_ : float, or None without early stopping
    n_iter_, t_ : int
        Number of epochs in the last call, and number of rows seen.
    n_layers_, n_outputs_, n_features_in_ : int
    feature_names_in_ : (features,) array of str
        Only if the data have feature names.
    out_activation_ : {"logistic", "softmax"}

    Notes
    -----
    Of a sparse X, only one batch at a time is converted to a dense array, unless all of it takes at most 4 MiB. Sample
    weights must not be negative. After unpickling, `partial_fit` continues from the same state. As in scikit-learn, a
    `random_state` that is a number gives every call of `partial_fit` the same order of rows.

    If the loss becomes NaN or infinite, `fit` raises an error (a ValueError); with early stopping it warns, and keeps
    the weights of the best epoch.

    With several members, each has the bits of an estimator with one network and the member's `random_state`, which is
    drawn from that of the whole. Their initial weights, orders of rows, dropout masks and validation data differ. The
    arrays in `coefs_` and `intercepts_` get an axis for the members in front, and are copies: to change the weights,
    change those of `estimators_`. `loss_curve_` and `validation_scores_` are means over the members that have not
    ended; `loss_`, `best_loss_` and `best_validation_score_` are means over all; `n_iter_` and `t_` are the largest.
    `partial_fit` trains each member for an epoch on the same rows, and with `warm_start` each continues. If one
    diverges, none is changed.

    With scikit-learn 1.9 or newer, `set_callbacks` takes its callbacks: each epoch is a task, and those of a member are
    tasks of the member's.

    References
    ----------
    .. [1] C. Zhu, R. H. Byrd, P. Lu and J. Nocedal, "Algorithm 778: L-BFGS-B: Fortran subroutines for large-scale
       bound-constrained optimization", ACM Transactions on Mathematical Software 23 (1997), 550-560
    """

    _labels: Labels

    def __init__(
        self,
        hidden_layer_sizes: Any = (100,),
        activation: str | Sequence[str] = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool | int = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        backend: str | Backend = "auto",
        dropout: float | Sequence[float] = 0.0,
        dtype: str = "auto",
        class_weight: Any = None,
        n_members: int = 1,
        scoring: Any = None,
        rho: float = 0.9,
    ) -> None:
        self._keep(locals())

    @available_if(takes_batches)  # type: ignore[untyped-decorator]
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None) -> Self:
        """Train for one epoch on these rows, continuing from the last call.

        Parameters
        ----------
        X, y, sample_weight
            As for `fit`.
        classes : (k,) array_like
            All classes that can occur in any call; required in the first call, unless rows may belong to several
            classes.

        Raises
        ------
        InvalidInputError, UnknownNameError, DivergedFitError, BackendUnavailableError
            As `fit` does.
        """
        return self._fit_part(X, y, sample_weight, classes)

    def predict(self, X: Any) -> HostArray:
        """The most likely classes.

        Parameters
        ----------
        X : (n, features) array_like or sparse matrix

        Returns
        -------
        (n,) classes, or (n, k) of 0 and 1
        """
        outputs = self._outputs(X)
        return self._labels.decode(outputs)

    def predict_proba(self, X: Any) -> HostArray:
        """The probability of every class, (n, k), in the order of `classes_`. They are independent of each other if a
        row may belong to several classes."""
        outputs = self._outputs(X)
        return self._labels.probabilities(outputs)

    def predict_log_proba(self, X: Any) -> HostArray:
        """The logarithms of `predict_proba`."""
        probabilities = self.predict_proba(X)
        with own_error_state():
            return np.log(probabilities, out=probabilities)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The fraction of rows whose classes are predicted, all of them if there are several.

        Parameters
        ----------
        X : (n, features) array_like or sparse matrix
        y : (n,) classes, or (n, k) of 0 and 1
        sample_weight : (n,) array_like, optional
            Only their ratios matter.

        Returns
        -------
        float
        """
        check_mask("y", y)
        if sample_weight is None and type(y) is np.ndarray and y.ndim == 1 and y.dtype.kind in _PLAIN:
            predicted = self.predict(X)
            if y.shape == predicted.shape and y.dtype == predicted.dtype:
                # What scikit-learn's score returns, whose checks take longer than a small prediction.
                return float(np.average(y == predicted))
        return float(super().score(X, y, comparable_weights(sample_weight, X)))

    def _problem(self, given: Given, goes_on: bool, incremental: bool, classes: Any) -> Problem:
        if goes_on or incremental:
            labels = self._labels_of(given.y, goes_on, incremental, classes)
            targets = labels.encode(given.y)
        else:
            labels, targets = given.labels()
        weights, by_class = self._class_weights(given.y, targets, labels, incremental)
        return Problem(targets, labels.outputs, labels.loss, labels.activation, weights, labels, by_class)

    def _held_targets(self, problem: Problem, y: HostArray) -> tuple[HostArray, HostArray | None]:
        labels = problem.labels
        assert labels is not None
        targets = labels.encode(y)
        if problem.weight_by_class is not None:
            return targets, problem.weight_by_class[targets]
        if self.class_weight is None:
            return targets, None
        given = self.class_weight
        if isinstance(given, str):
            # Balanced by the rows that are trained on.
            columns = [(np.unique(column), column) for column in problem.targets.T]
            given = [
                dict(zip(values, compute_class_weight(given, classes=values, y=column), strict=True))
                for values, column in columns
            ]
        weights: HostArray = compute_sample_weight(given, y)
        return targets, weights

    def _labels_of(self, y: HostArray, goes_on: bool, incremental: bool, classes: Any) -> Labels:
        """The classes to learn: those of earlier calls, those given by the caller, or those of the targets."""
        announced = None if classes is None else unique_labels(classes)
        # The weights alone may have been set by the caller.
        if goes_on and hasattr(self, "_labels"):
            before: Labels = self._labels
            found = announced if incremental else Labels.of(y).classes
            if found is not None and not np.array_equal(found, before.classes):
                said = (
                    f"training can continue only with the same classes as before, {before.classes}, received {found}"
                    if incremental
                    else "warm_start can only be used where `y` has the same classes as in the previous call to fit. "
                    f"Previously got {before.classes}, `y` has {found}"
                )
                raise InvalidInputError(f"{said}; to start over, set warm_start=False and call fit")
            return before
        labels = Labels.of(y)
        if not incremental or labels.multilabel:
            return labels
        if announced is None:
            raise InvalidInputError(
                "classes must be given in the first call to partial_fit, because later rows may have other classes: "
                "classes=numpy.unique(all_of_y)"
            )
        return Labels(announced, multilabel=False)

    def _class_weights(
        self, y: HostArray, targets: HostArray, labels: Labels, incremental: bool
    ) -> tuple[HostArray | None, HostArray | None]:
        """The weights of the rows' classes, and of single classes where a row belongs to one."""
        by_class: HostArray | None = None
        if self.class_weight is None:
            return None, None
        if incremental and isinstance(self.class_weight, str) and self.class_weight == "balanced":
            raise InvalidInputError(
                "class_weight='balanced' needs all rows at once; for partial_fit give the weights of all classes: "
                "sklearn.utils.class_weight.compute_class_weight('balanced', classes=..., y=...)"
            )
        try:
            if labels.multilabel:
                weights: HostArray = compute_sample_weight(self.class_weight, y)
            else:
                by_class = compute_class_weight(self._checked_class_weight(labels), classes=labels.classes, y=y)
                weights = by_class[targets]
        except InvalidInputError:
            raise
        except (TypeError, ValueError) as error:
            # scikit-learn checks the forms of several columns.
            raise InvalidInputError(f"class_weight={self.class_weight!r} cannot be used: {error}") from error
        check_not_negative("the product of class_weight", weights, "row")
        return weights, by_class

    def _checked_class_weight(self, labels: Labels) -> Any:
        given, known = without_index(self.class_weight), labels.classes.tolist()
        if isinstance(given, str) and given == "balanced":
            return given
        if not isinstance(given, Mapping):
            raise InvalidInputError(
                f"class_weight must be a dict from class to weight, 'balanced' or None, received {given!r}"
            )
        for label, weight in given.items():
            number(f"the weight of class {label!r}", weight, low=0)
        unknown = [label for label in given if label not in known]
        # As in scikit-learn, a class may be absent if all others have weights.
        if unknown and not all(label in given for label in known):
            raise InvalidInputError(f"class_weight names class {unknown[0]!r}; the classes are {known}")
        return dict(given)

    def _score(self, problem: Problem, held: Rows, outputs: HostArray) -> float:
        assert problem.labels is not None
        return float(accuracy_score(held.targets, problem.labels.codes(outputs), sample_weight=held.weights))

    def _attributes(self, engine: Any, problem: Problem, weights: Weights) -> dict[str, Any]:
        assert problem.labels is not None
        learned = {"_labels": problem.labels, "classes_": problem.labels.classes}
        return {**super()._attributes(engine, problem, weights), **learned}

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags
