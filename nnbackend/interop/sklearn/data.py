"""Converts an estimator's data to rows for training a network."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import train_test_split
from sklearn.utils.validation import _num_samples

from nnbackend.backends.contract import HostArray
from nnbackend.data.inputs import as_host_array, check_features, check_values, is_sparse
from nnbackend.data.shared import OnDevice
from nnbackend.data.targets import Targets
from nnbackend.data.weights import multiply_weights, row_weights
from nnbackend.errors import InvalidInputError
from nnbackend.interop.sklearn.labels import Labels
from nnbackend.interop.sklearn.settings import Settings
from nnbackend.losses import get_loss
from nnbackend.network import Network

__all__ = ["Given", "Problem", "Rows", "Table", "comparable_weights", "held_rows", "split", "weights_of_rows"]

#: A sparse matrix that is dense in at most this many bytes is converted once, which is faster than batch by batch.
_SMALL = 4 << 20


@dataclass(eq=False)
class Rows:
    """Rows to train on, on the host.

    Attributes
    ----------
    x : (all rows, features) array or sparse matrix in CSR format, of the network's dtype
    targets : (n,) int32 or (n, outputs) array of the network's dtype
    weights : (n,) float64 or None
    places : (n,) int64 or None
        Which rows of `x` these are; None if all.
    on_device : OnDevice
        Has `x` on the device, if several networks train on rows of it.
    """

    x: Any
    targets: HostArray
    weights: npt.NDArray[np.float64] | None
    places: npt.NDArray[np.int64] | None = None
    on_device: OnDevice = field(default_factory=OnDevice)

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def sparse(self) -> bool:
        """Whether `x` is a sparse matrix."""
        return not isinstance(self.x, np.ndarray)

    def in_table(self, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The places in `x` of the rows with these numbers."""
        return numbers if self.places is None else self.places[numbers]

    def spread(self, values: HostArray) -> HostArray:
        """An array for all rows of `x`, in which these rows have the given values."""
        if self.places is None:
            return values
        whole = np.zeros((self.x.shape[0], *values.shape[1:]), values.dtype)
        whole[self.places] = values
        return whole

    def read(self, numbers: npt.NDArray[np.int64], out: HostArray) -> None:
        """Copy the rows with these numbers to a dense array."""
        places = self.in_table(numbers)
        if self.sparse:
            self.x[places].toarray(out=out)
        else:
            # With "clip" NumPy writes directly to `out`; the numbers are known to be in range.
            np.take(self.x, places, axis=0, out=out, mode="clip")


class Table:
    """Features that scikit-learn has checked, for one or several networks: in memory and on the device once.

    Parameters
    ----------
    x : (n, features) array or sparse matrix
    """

    def __init__(self, x: Any) -> None:
        self.x = x
        self._converted: dict[str, Any] = {}
        self._on_devices: dict[int, OnDevice] = {}

    def __len__(self) -> int:
        return int(self.x.shape[0])

    def for_device(self, network: Network, rows: Rows, problem: Problem) -> Rows:
        """Rows of this table with x and targets in the form that the network trains on.

        Raises
        ------
        InvalidInputError
            The targets or values do not fit the network.
        """
        loss, given = get_loss(problem.loss), as_host_array("y", rows.targets)
        targets = Targets.prepare(loss, given, len(rows), problem.outputs, network.dtype)
        name = network.dtype.name
        if name not in self._converted:
            self._converted[name] = self._for_network(network)
        on_device = self._on_devices.setdefault(id(network.backend), OnDevice())
        return Rows(self._converted[name], targets.values, rows.weights, rows.places, on_device)

    def _for_network(self, network: Network) -> Any:
        x = self.x
        if not is_sparse(x):
            if x.dtype == network.dtype and x.flags.c_contiguous:
                return x
            return check_features(x, network.input_shape, network.dtype)
        x = x.tocsr()
        if x.nnz:
            check_values(x.data[:, None], network.dtype)
        x = x.astype(network.dtype, copy=False)
        small = len(self) * x.shape[1] * network.dtype.itemsize <= _SMALL
        return x.toarray() if small else x


@dataclass(eq=False)
class Given:
    """Checked data for an estimator.

    Attributes
    ----------
    table : Table
    y : (n,) or (n, outputs) array
    places : (n,) int64 or None
        The rows of the table; None for all, in order.
    inputs : dict
        The attributes in which scikit-learn keeps the number and names of features.
    """

    table: Table
    y: HostArray
    places: npt.NDArray[np.int64] | None
    inputs: dict[str, Any]
    _labels: tuple[Labels, HostArray] | None = None

    def labels(self) -> tuple[Labels, HostArray]:
        """The classes in `y`, and their numbers; found once for all estimators.

        Raises
        ------
        InvalidInputError, ValueError
            As :meth:`Labels.of`.
        """
        if self._labels is None:
            labels = Labels.of(self.y)
            self._labels = labels, labels.encode(self.y)
        return self._labels

    def __len__(self) -> int:
        return len(self.table) if self.places is None else len(self.places)


@dataclass
class Problem:
    """The targets of an estimator and how to learn them.

    Attributes
    ----------
    targets : (n,) or (n, outputs) array
        In the form that `Network.fit` accepts.
    outputs : int
    loss : str
    out_activation : str
        scikit-learn's name of the activation that turns outputs into predictions.
    class_weights : (n,) float64 or None
        The weights of the rows' classes.
    weight_by_class : (k,) float64 or None
        Those of single classes.
    labels : Labels or None
        The classes, if the targets are classes.
    """

    targets: HostArray
    outputs: int
    loss: str
    out_activation: str
    class_weights: HostArray | None = None
    labels: Labels | None = None
    weight_by_class: HostArray | None = None

    @property
    def stratified(self) -> bool:
        """Whether to stratify the validation data by class; scikit-learn does so for two classes."""
        return self.loss == "sigmoid_cross_entropy" and self.outputs == 1


def weights_of_rows(sample_weight: Any, rows: int) -> HostArray | None:
    """Check the caller's weights, a number for all rows or one for each; returns them as (n,) float64.

    Raises
    ------
    InvalidInputError
        Wrong shape, or weights that are masked, negative, not finite, or all 0.
    """
    if sample_weight is None:
        return None
    if isinstance(sample_weight, int | float | np.number):
        sample_weight = np.full(rows, float(sample_weight))
    weights = row_weights(sample_weight, rows)
    if not weights.any():
        raise InvalidInputError("all of sample_weight is zero; at least one row must count")
    return weights


def comparable_weights(sample_weight: Any, X: Any) -> HostArray | None:
    """Checked weights for a score, which depends only on their ratios, of a size whose sums are finite."""
    given = weights_of_rows(sample_weight, _num_samples(X))
    return None if given is None else multiply_weights([given])[0]


def split(
    given: Given,
    problem: Problem,
    weights: HostArray | None,
    settings: Settings,
    generator: np.random.RandomState,
    held: Rows | None = None,
) -> tuple[Rows, Rows | None]:
    """The rows for training, and those for validation: the caller's `held`, or a part with early stopping.

    Both have the weights of the rows and of their classes, so that the best epoch is the best by the weights that
    training uses.

    Raises
    ------
    InvalidInputError
        There are too few rows for validation, or all rows of a part weigh zero.
    """
    weights, selected = _product(weights, problem.class_weights), given.places
    targets = problem.targets
    if settings.early_stopping and held is None:
        _check_sizes(problem, settings.validation_fraction)
        places, others = train_test_split(
            np.arange(len(given)),
            random_state=generator,
            test_size=settings.validation_fraction,
            stratify=targets if problem.stratified else None,
        )
        out = others if selected is None else selected[others]
        held = Rows(given.table.x[out], targets[others], None if weights is None else weights[others])
        selected = places if selected is None else selected[places]
        targets, weights = targets[places], None if weights is None else weights[places]
        for part, name in ((held.weights, "held out by early stopping"), (weights, "left for training")):
            if part is not None and not part.any():
                raise InvalidInputError(
                    f"all {len(part)} rows {name} weigh zero; leave out rows of weight zero, change "
                    "validation_fraction or random_state, or set early_stopping=False"
                )
    return Rows(given.table.x, targets, weights, selected), held


def held_rows(X: Any, targets: HostArray, class_weights: HostArray | None, weights: HostArray | None) -> Rows:
    """The caller's validation data as rows, with the product of the weights that there are.

    Raises
    ------
    InvalidInputError
        All rows weigh zero.
    """
    return Rows(X, targets, _product(weights, class_weights))


def _check_sizes(problem: Problem, fraction: float) -> None:
    """Reject data from which early stopping cannot hold out rows."""
    rows = len(problem.targets)
    held = math.ceil(fraction * rows)
    trained = rows - held
    few = f"{held} of {rows} rows, which leaves {trained} for training"
    counts = np.bincount(problem.targets) if problem.stratified else np.zeros(0, np.int64)
    if (counts == 1).any():
        assert problem.labels is not None
        rare = problem.labels.classes[np.argmax(counts == 1)].item()
        raise InvalidInputError(
            f"early_stopping=True holds out rows of each class, but class {rare!r} has a single row; give at least two "
            "rows of each class, or set early_stopping=False. "
            # scikit-learn's words for the same, where the two classes are False and True.
            "The least populated classes in y have only 1 member, "
            "which is too few. Classes with too few members are: "
            f"{[str(bool(number)) for number in np.flatnonzero(counts == 1)]}"
        )
    if held < 2:
        raise InvalidInputError(
            f"The validation set is too small: {few}. Raise validation_fraction, give more rows, or set "
            "early_stopping=False"
        )
    if trained < max(1, int(np.count_nonzero(counts))):
        raise InvalidInputError(f"The training set is too small: {few}. Lower validation_fraction, or give more rows")


#: Weights are at most 2 to this power, so that sums of them are finite.
_LARGEST_POWER = 900


def _product(weights: HostArray | None, class_weights: HostArray | None) -> HostArray | None:
    """The product of the weights that there are.

    Their scale matters only for the strength of the penalty, which is negligible for weights as large as those that are
    scaled down here.
    """
    factors = [factor for factor in (weights, class_weights) if factor is not None]
    if not factors:
        return None
    product, exponent = multiply_weights(factors)
    if not product.any():
        raise InvalidInputError("all rows weigh zero by sample_weight and class_weight; at least one row must count")
    scaled: HostArray = np.ldexp(product, min(exponent, _LARGEST_POWER))
    return scaled
