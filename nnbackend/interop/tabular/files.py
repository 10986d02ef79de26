"""Estimators for tables as files: the networks, and everything else as JSON."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted

from nnbackend.backends.contract import Backend, HostArray
from nnbackend.backends.registry import get_backend
from nnbackend.ensembles import Ensemble
from nnbackend.errors import InvalidInputError, ModelFileError, NNBackendError, shown
from nnbackend.interop.tabular.preparation import Preparation
from nnbackend.saving.model_file import read_model, write_model
from nnbackend.support.checks import real_dtype
from nnbackend.support.files import path_text

__all__ = ["StoredTabular", "classes_from", "plain_classes"]

#: Key of the estimator's description in a file that describes an ensemble, too, and prefix of the names of its arrays.
_KEY = "tabular"

#: The recipe of files written before there was a choice; the default of the regressor has changed since.
_OLDEST_RECIPE = "td-s"

#: Parameters that are not in files: the reader chooses where the networks run.
_NOT_STORED = ("backend", "verbose")


class StoredTabular(ABC):
    """An estimator that can be written to a file, and read from one."""

    #: Name of the kind of estimator in files.
    _kind: ClassVar[str]

    ensemble_: Ensemble
    preparation_: Preparation
    n_epochs_: int
    best_epochs_: list[int]
    n_features_in_: int
    target_name_: str | None
    dtype: Any
    _categorical: list[bool]

    @abstractmethod
    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's arguments; scikit-learn's."""

    @abstractmethod
    def _target_state(self) -> dict[str, Any]:
        """What was learned of the targets, as plain JSON."""

    @abstractmethod
    def _set_target_state(self, state: Mapping[str, Any], outputs: int) -> None:
        """Restore it for networks with this number of outputs; ValueError, TypeError or KeyError if it is damaged."""

    def _arrays(self) -> dict[str, HostArray]:
        """What was learned of the targets, as arrays by name."""
        return {}

    def _set_arrays(self, arrays: dict[str, HostArray]) -> None:
        """Restore it, and remove it from `arrays`."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted estimator to one safetensors file, completely or not at all.

        The preparation of the columns is stored as JSON. A generator as `random_state` is not stored.

        Raises
        ------
        NotFittedError
            It was not fitted yet.
        InvalidInputError
            `path` is not a path, or classes are neither text nor numbers.
        ModelFileError
            A weight is NaN or infinite; nothing was written.
        OSError
            The file cannot be written; an existing file is unchanged.
        """
        check_is_fitted(self, "ensemble_")
        names = getattr(self, "feature_names_in_", None)
        state = {
            "kind": self._kind,
            "parameters": _plain_parameters(self.get_params(deep=False)),
            "columns": self.preparation_.config(),
            "names": None if names is None else [str(name) for name in names],
            "epochs": self.n_epochs_,
            "best_epochs": self.best_epochs_,
            "target": self.target_name_,
            "targets": self._target_state(),
        }
        arrays = {f"{_KEY}.{name}": array for name, array in self._arrays().items()}
        ensemble = self.ensemble_
        write_model(path_text("path", path), {_KEY: state, **ensemble.config()}, {**ensemble.get_weights(), **arrays})

    @classmethod
    def load(cls, path: str | os.PathLike[str], backend: str | Backend = "auto") -> Self:
        """Read an estimator written by `save`. On the same backend its predictions have the same bits.

        Parameters
        ----------
        path : str or path-like
        backend : str or Backend

        Raises
        ------
        InvalidInputError
            `path` is not a path.
        ModelFileError
            The file is missing or damaged, or holds something else. No code from the file is run, and memory is limited
            to a few times the file's size.
        BackendUnavailableError
            The backend cannot run here.
        """
        path = path_text("path", path)
        chosen = get_backend(backend)
        config, weights = read_model(path)
        state = config.pop(_KEY, None)
        if not isinstance(state, dict):
            raise ModelFileError(f"{path}: no estimator for tables; read it with nnbackend.Network.load")
        if state.get("kind") != cls._kind:
            raise ModelFileError(f"{path}: a {shown(state.get('kind'))}, which {cls.__name__}.load cannot read")
        prefix = f"{_KEY}."
        names = [name for name in weights if name.startswith(prefix)]
        arrays = {name.removeprefix(prefix): weights.pop(name) for name in names}
        ensemble = Ensemble.from_file(path, config, weights, chosen)
        try:
            parameters: dict[str, Any] = {"recipe": _OLDEST_RECIPE, **state["parameters"], "backend": backend}
            estimator = cls(**parameters)
            estimator._restore(state, ensemble)
            estimator._set_arrays(arrays)
            if arrays:
                raise ValueError(f"there are other arrays: {shown(list(arrays))}")
        except (NNBackendError, ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError) as error:
            raise ModelFileError(f"{path}: its description of the estimator is damaged ({shown(error)})") from error
        return estimator

    def _restore(self, state: Mapping[str, Any], ensemble: Ensemble) -> None:
        """Set the attributes of a fitted estimator."""
        real_dtype(self.dtype)
        self.preparation_ = Preparation.from_config(state["columns"])
        if ensemble.input_shape != (self.preparation_.features.count,):
            raise ValueError(f"{self.preparation_.features.count} features for networks of {ensemble.input_shape}")
        self._categorical = self.preparation_.categorical
        self.n_features_in_ = len(self._categorical)
        names = state["names"]
        if names is not None:
            if len(names) != self.n_features_in_ or not all(isinstance(name, str) for name in names):
                raise ValueError(f"{shown(names)} are no names of {self.n_features_in_} columns")
            self.feature_names_in_ = np.array(names, object)
        self.n_epochs_, self.best_epochs_ = int(state["epochs"]), [int(epoch) for epoch in state["best_epochs"]]
        # Files of older versions have no name.
        name = state.get("target")
        if name is not None and not isinstance(name, str):
            raise ValueError(f"{shown(name)} is no name of a target")
        self.target_name_ = name
        self._set_target_state(state["targets"], ensemble.output_shape[0])
        self.ensemble_ = ensemble


def _plain_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that JSON can hold; the others have their defaults when the file is read."""
    plain: dict[str, Any] = {}
    for name, value in parameters.items():
        value = np.dtype(value).name if name == "dtype" else value
        value = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
        value = list(value) if isinstance(value, tuple | range) else value
        items = value if isinstance(value, list) else [value]
        if name not in _NOT_STORED and all(
            item is None or isinstance(item, str | bool | int | float) for item in items
        ):
            plain[name] = value
    return plain


def plain_classes(classes: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Classes as plain JSON, for `classes_from`.

    Raises
    ------
    InvalidInputError
        They are neither text nor numbers.
    """
    values = classes.tolist()
    if not all(isinstance(value, str | bool | int | float) for value in values):
        raise InvalidInputError(f"classes of type {type(values[0]).__name__} cannot be saved; fit text or numbers")
    return {"dtype": "object" if classes.dtype == object else classes.dtype.str, "values": values}


def classes_from(config: Mapping[str, Any], outputs: int) -> np.ndarray[Any, Any]:
    """The classes from the result of `plain_classes`, which may come from an untrusted file."""
    values, dtype = config["values"], np.dtype(config["dtype"])
    if dtype.kind not in "OUTbiuf" or not all(isinstance(value, str | bool | int | float) for value in values):
        raise ValueError(f"{shown(config)} are no classes")
    longest = max((len(value) for value in values if isinstance(value, str)), default=1)
    if dtype.kind == "U" and dtype.itemsize > 4 * longest:
        raise ValueError(f"classes of type {dtype} for text of at most {longest} characters")
    if len(values) != outputs:
        raise ValueError(f"{len(values)} classes for networks with {outputs} outputs")
    return np.array(values, dtype)
