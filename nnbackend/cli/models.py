"""Trained models in files: a network, or an ensemble of several."""

from __future__ import annotations

import os
from typing import TypeAlias

from nnbackend.backends.contract import Backend
from nnbackend.backends.registry import get_backend
from nnbackend.ensembles import Ensemble
from nnbackend.errors import InvalidInputError
from nnbackend.network import Network
from nnbackend.saving.model_file import read_model

__all__ = ["Model", "first_network", "load_model", "single_network"]

Model: TypeAlias = Network | Ensemble


def load_model(path: str | os.PathLike[str], backend: str | Backend) -> Model:
    """The network or the ensemble in a file.

    Raises
    ------
    ModelFileError
        The file is missing or damaged.
    BackendUnavailableError
    """
    config, weights = read_model(path)
    reads = Ensemble if "members" in config else Network
    return reads.from_file(str(path), config, weights, get_backend(backend))


def first_network(model: Model) -> Network:
    """The network, or the first of an ensemble: all have the same samples, outputs and loss."""
    return model if isinstance(model, Network) else model[0]


def single_network(model: Model, path: str | os.PathLike[str], use: str) -> Network:
    """The network, where an ensemble is of no use.

    Raises
    ------
    InvalidInputError
    """
    if isinstance(model, Network):
        return model
    raise InvalidInputError(
        f"{path} is an ensemble of {len(model)} networks, and {use}; save one of them, with "
        "nnbackend.Ensemble.load(...)[0].save(...)"
    )
