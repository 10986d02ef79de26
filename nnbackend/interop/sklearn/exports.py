"""Fitted estimators as networks, ONNX files and pickles."""

from __future__ import annotations

import os
from typing import Any

from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from nnbackend.backends.contract import Backend
from nnbackend.ensembles.ensemble import Ensemble
from nnbackend.interop.sklearn.engine import Engine, freeze
from nnbackend.interop.sklearn.versions import take_version, with_version
from nnbackend.network import Network

__all__ = ["Exports"]


class Exports(BaseEstimator):  # type: ignore[misc]
    """The part of an estimator that leaves scikit-learn."""

    backend: str | Backend
    coefs_: Any
    intercepts_: Any

    def to_network(self) -> Network | Ensemble:
        """The fitted network with its weights, on the estimator's backend; of several members an ensemble.

        Returns
        -------
        Network or Ensemble
            A copy. It predicts (n, outputs): of two classes the probability of the second alone.

        Raises
        ------
        NotFittedError
        BackendUnavailableError
        """
        check_is_fitted(self)
        networks = []
        for each in getattr(self, "estimators_", [self]):
            engine: Engine = each._engine
            network = engine.architecture.network(self.backend, engine.seed)
            network.set_weights(engine.architecture.named((each.coefs_, each.intercepts_)))
            networks.append(network)
        return networks[0] if len(networks) == 1 else Ensemble(networks)

    def to_onnx(self, path: str | os.PathLike[str], input_dtype: Any = None) -> None:
        """Write an ONNX file that computes what `to_network` predicts; see :meth:`nnbackend.Network.to_onnx`.

        Parameters
        ----------
        path : str or path-like
        input_dtype : dtype, optional
        """
        self.to_network().to_onnx(path, input_dtype)

    def __getstate__(self) -> dict[str, Any]:
        return with_version(super().__getstate__())

    def __setstate__(self, state: Any) -> None:
        # Older versions had one network, and fewer arguments.
        super().__setstate__({"n_members": 1, "scoring": None, "rho": 0.9, **take_version(self, state)})
        if "coefs_" in state:
            freeze((self.coefs_, self.intercepts_))
