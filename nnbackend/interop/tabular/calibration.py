"""Quantiles of the targets from the errors for rows that networks have held out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nnbackend.backends.contract import HostArray

__all__ = ["Calibration"]

#: Most rows that are kept for each output: more would hardly change the quantiles.
_MOST = 5000

#: The errors from which a quantile is computed: this share of all, and no fewer than this number.
_SHARE, _LEAST = 0.2, 100


@dataclass(frozen=True, eq=False)
class Calibration:
    """Predictions and errors of one output for held-out rows.

    A quantile is the prediction plus the quantile of the errors whose predictions are nearest, so it follows noise that
    grows with the target. This is split conformal prediction (Lei et al. 2018) with neighbours in the predictions.

    Attributes
    ----------
    predictions : (m,) array
        In ascending order.
    errors : (m,) array
        Target minus prediction.
    """

    predictions: HostArray
    errors: HostArray

    @classmethod
    def of(
        cls, held: npt.NDArray[np.bool_], predictions: HostArray, targets: HostArray, low: float, high: float
    ) -> Calibration:
        """From what each network predicts for all rows, of which it has held out some.

        Parameters
        ----------
        held : (members, n) array of bool
        predictions : (members, n) array
        targets : (n,) array
        low, high : float
            Limits of the mean predictions.
        """
        counts = held.sum(axis=0)
        rows = np.flatnonzero(counts)
        means = np.where(held, predictions, 0.0)[:, rows].sum(axis=0) / counts[rows]
        means = np.clip(means, low, high)
        order = np.argsort(means, kind="stable")
        if len(order) > _MOST:
            order = order[np.linspace(0, len(order) - 1, _MOST).round().astype(np.int64)]
        return cls(means[order], targets[rows][order] - means[order])

    def quantiles(self, predictions: HostArray, levels: HostArray) -> HostArray:
        """The quantiles of the targets, (n, levels).

        Parameters
        ----------
        predictions : (n,) array
        levels : (levels,) array
            Between 0 and 1.
        """
        total = len(self.errors)
        count = min(total, max(_LEAST, int(_SHARE * total)))
        begins = np.searchsorted(self.predictions, predictions) - count // 2
        begins = np.clip(begins, 0, total - count)
        # Rows with the same neighbours have the same quantiles.
        begins, places = np.unique(begins, return_inverse=True)
        # The k-th smallest of m errors is the quantile k / (m + 1) of the next one.
        each = [np.quantile(self.errors[begin : begin + count], levels, method="weibull") for begin in begins]
        result: HostArray = np.array(each)[places] + predictions[:, None]
        return result
