"""The regressor for tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.utils.validation import column_or_1d

from nnbackend.backends.contract import Backend, HostArray
from nnbackend.data.inputs import as_host_array, check_mask, check_not_class_names
from nnbackend.errors import InvalidInputError, shown
from nnbackend.interop.tabular.base import BaseTabular
from nnbackend.interop.tabular.calibration import Calibration
from nnbackend.interop.tabular.reading import FROM_DTYPE
from nnbackend.interop.tabular.recipe import RECIPES, Recipe
from nnbackend.support.checks import flag
from nnbackend.support.surroundings import own_error_state

__all__ = ["TabularRegressor"]

#: What is known of the targets of each output.
_OF_TARGETS = ("mean", "deviation", "low", "high")

#: The arrays of a calibration.
_OF_CALIBRATION = ("predictions", "errors")

_DOUBLE = np.dtype(np.float64)

#: Targets of larger magnitudes, and of differences below its reciprocal, have squares that overflow or are zero.
_LARGEST = 1e140


class TabularRegressor(RegressorMixin, BaseTabular):  # type: ignore[misc]
    """A regressor for tables as they are: numbers, categories, text, missing values, in any unit.

    As :class:`nnbackend.TabularClassifier`, with the recipe's settings for regression: targets are standardised, the
    squared error is minimised, and predictions stay within the range of the targets that were fitted.

    Parameters
    ----------
    n_members, categorical_features, max_categories, hidden_layer_sizes, epochs, batch_size, validation_fraction
        As of :class:`nnbackend.TabularClassifier`.
    recipe : {"auto", "td-s", "td"}
        As there, but "auto" is "td".
    activation : str, optional
        Of the hidden layers. Default: "mish".
    learning_rate : float, optional
        Of Adam, at the crests of the waves. Default: 0.02.
    max_seconds, random_state, backend, dtype, verbose
        As there.

    Attributes
    ----------
    ensemble_, n_epochs_, best_epochs_, n_features_in_, feature_names_in_, target_name_
        As of :class:`nnbackend.TabularClassifier`. The networks predict standardised targets.

    Notes
    -----
    Those of :class:`nnbackend.TabularClassifier` hold here as well.

    Examples
    --------
    >>> import nnbackend as nn
    >>> x = [[each] for each in range(40)]
    >>> model = nn.TabularRegressor(n_members=2, epochs=40, random_state=0, backend="numpy")
    >>> prediction, std = model.fit(x, [2.0 * each for (each,) in x]).predict([[10]], return_std=True)
    >>> prediction.shape, std.shape
    ((1,), (1,))
    """

    _task: ClassVar[Mapping[str, Any]] = {
        "activation": "mish",
        "learning_rate": 0.02,
        "loss": "mean_squared_error",
        "label_smoothing": 0.0,
        "counts_errors": False,
        "zero_output": False,
        "parts": RECIPES["td"],
    }

    _kind = "regressor"

    _flat: bool
    _mean: HostArray
    _deviation: HostArray
    _low: HostArray
    _high: HostArray
    _calibrations: list[Calibration]

    def __init__(
        self,
        n_members: int = 8,
        *,
        categorical_features: Any = FROM_DTYPE,
        max_categories: int = 100,
        recipe: str = "auto",
        hidden_layer_sizes: Any = (256, 256, 256),
        activation: str | None = None,
        learning_rate: float | None = None,
        epochs: int = 256,
        batch_size: int = 256,
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
        check_not_class_names(y, "TabularClassifier")
        values = as_host_array("y", y)
        if values.ndim == 2 and values.shape[1] == 1:
            values = column_or_1d(values, warn=True)
        if values.dtype.kind not in "buif" or values.ndim not in (1, 2):
            raise InvalidInputError(
                f"y must be numbers of shape (n,) or (n, outputs), received {values.dtype} of shape {values.shape}"
            )
        if len(values) != rows:
            raise InvalidInputError(f"X has {rows} rows but y has {len(values)}; give one target for each row")
        values = values.astype(np.float64)
        if not np.isfinite(values).all():
            raise InvalidInputError("y contains NaN or infinity; leave out those rows")
        self._flat = values.ndim == 1
        columns = values.reshape(rows, -1)
        # If all weights are 0, the training says so.
        shares = np.ones(rows) if weights is None or not weights.any() else weights / weights.max()
        counted = columns[shares > 0]
        self._low, self._high = counted.min(axis=0), counted.max(axis=0)
        largest, spread = float(np.abs(columns).max()), self._high / 2 - self._low / 2
        if largest > _LARGEST or ((spread > 0) & (spread < 1 / _LARGEST)).any():
            raise InvalidInputError(
                f"the squares of differences of y are too {'large' if largest > _LARGEST else 'small'} for float64: "
                f"its largest magnitude is {largest:.3g}; give y in another unit"
            )
        self._mean = np.average(columns, axis=0, weights=shares)
        deviation = np.sqrt(np.average((columns - self._mean) ** 2, axis=0, weights=shares))
        # Of equal targets, rounding may leave a deviation above 0.
        self._deviation = np.where((self._high > self._low) & (deviation > 0), deviation, 1.0)
        standardised: HostArray = (columns - self._mean) / self._deviation
        return standardised, np.zeros(rows, np.int64)

    def _recipe(self) -> Recipe:
        return Recipe.of(self, **self._task, outputs=len(self._mean))

    def _target_state(self) -> dict[str, Any]:
        return {"flat": self._flat, **{name: getattr(self, f"_{name}").tolist() for name in _OF_TARGETS}}

    def _set_target_state(self, state: Mapping[str, Any], outputs: int) -> None:
        self._flat = flag("flat", state["flat"])
        for name in _OF_TARGETS:
            values = np.array(state[name], np.float64)
            if values.shape != (outputs,) or not np.isfinite(values).all():
                raise ValueError(f"{name} of the targets is {shown(state[name])}")
            setattr(self, f"_{name}", values)

    def _validated(self, held: HostArray, each: HostArray, targets: HostArray) -> None:
        values, true = self._in_units(each), targets * self._deviation + self._mean
        self._calibrations = [
            Calibration.of(held, values[:, :, output], true[:, output], low, high)
            for output, (low, high) in enumerate(zip(self._low, self._high, strict=True))
        ]

    def _arrays(self) -> dict[str, HostArray]:
        pairs = enumerate(self._calibrations)
        return {f"{name}.{output}": getattr(each, name) for output, each in pairs for name in _OF_CALIBRATION}

    def _set_arrays(self, arrays: dict[str, HostArray]) -> None:
        self._calibrations = []
        for output in range(len(self._mean)):
            predictions, errors = (arrays.pop(f"{name}.{output}") for name in _OF_CALIBRATION)
            fits = predictions.ndim == 1 and errors.shape == predictions.shape
            fits = fits and {predictions.dtype, errors.dtype} == {_DOUBLE} and bool((np.diff(predictions) >= 0).all())
            if not fits or not np.isfinite(predictions).all() or not np.isfinite(errors).all():
                raise ValueError(f"the errors of output {output} are no calibration")
            self._calibrations.append(Calibration(predictions, errors))

    def _values(self, features: HostArray) -> HostArray:
        """The predictions of each network in the unit of the targets, (members, n, outputs)."""
        return self._in_units(self._each(features))

    def _in_units(self, each: HostArray) -> HostArray:
        values: HostArray = each * self._deviation + self._mean
        return np.clip(values, self._low, self._high, out=values)

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """The mean of the networks' predictions.

        Parameters
        ----------
        X : (n, columns) data frame, Arrow table or array_like
            With the columns of `fit`.
        return_std : bool
            Whether to return the standard deviation of the networks' predictions, too: how much they disagree. It does
            not contain the noise of the targets.

        Returns
        -------
        prediction : (n,) or (n, outputs) array
            As the targets of `fit`.
        std : array of the same shape
            Only if `return_std`; in the unit of the targets.

        Raises
        ------
        InvalidInputError, ValueError
            The columns are not those of `fit`, or `return_std` is asked of a single network.
        """
        with own_error_state():
            each = self._values(self._features(X))
        if flag("return_std", return_std) and len(each) == 1:
            raise InvalidInputError(
                "return_std=True needs several networks, and one was fitted; fit with n_members=8, or use "
                "predict_quantiles, which needs no other networks"
            )
        mean, std = each.mean(axis=0), each.std(axis=0)
        if self._flat:
            mean, std = mean[:, 0], std[:, 0]
        return (mean, std) if return_std else mean

    def predict_quantiles(self, X: Any, levels: Any = (0.05, 0.5, 0.95)) -> HostArray:
        """Quantiles of the targets: a target is below the quantile 0.95 in 95 of 100 rows.

        They are the mean prediction plus quantiles of the errors for rows that networks have held out, of those whose
        predictions are nearest. Quantiles of higher levels are never smaller. `sample_weight` has no influence.

        Parameters
        ----------
        X : (n, columns) data frame, Arrow table or array_like
            With the columns of `fit`.
        levels : float or sequence of float
            Above 0 and below 1.

        Returns
        -------
        (n, levels) or (n, outputs, levels) array
            In the unit of the targets, within their range in `fit`.

        Raises
        ------
        InvalidInputError, ValueError
            A level is out of range, the columns are not those of `fit`, or the networks have held out no rows.
        """
        given = np.atleast_1d(as_host_array("levels", levels))
        if given.ndim != 1 or not given.size or given.dtype.kind not in "fiu" or not ((given > 0) & (given < 1)).all():
            raise InvalidInputError(f"levels must be numbers above 0 and below 1, received {shown(levels)}")
        with own_error_state():
            means = self._values(self._features(X)).mean(axis=0)
        if not all(len(each.errors) for each in self._calibrations):
            raise InvalidInputError(
                "quantiles need errors for held-out rows, and none were held out; fit with validation_fraction=0.2, or "
                "with more rows"
            )
        quantiles: HostArray = np.stack(
            [
                np.clip(each.quantiles(means[:, output], given), self._low[output], self._high[output])
                for output, each in enumerate(self._calibrations)
            ],
            axis=1,
        )
        return quantiles[:, 0] if self._flat else quantiles
