"""A network as a description in plain JSON, and as a file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Self

from nnbackend.backends.contract import Backend, HostArray
from nnbackend.backends.registry import get_backend
from nnbackend.errors import ModelFileError, NNBackendError
from nnbackend.layers import Layer, follow_shapes
from nnbackend.saving.config import config_of, parse_config
from nnbackend.saving.model_file import check_dtypes, read_model, write_model
from nnbackend.step.inference import NetworkInference
from nnbackend.step.parameters import ParameterLayout
from nnbackend.support.files import path_text

__all__ = ["StoredNetwork"]


class StoredNetwork(NetworkInference):
    """A network that can be written to a file, and read from one."""

    steps_trained: int
    epochs_trained: int

    def config(self) -> dict[str, Any]:
        """The network without its weights, as plain JSON for `from_config`.

        Arrays of initial values count as weights, too, and are replaced by zeros.
        """
        return config_of(self)

    @classmethod
    def from_config(
        cls,
        config: Mapping[str, Any],
        backend: str | Backend = "auto",
        custom_layers: Sequence[type[Layer]] = (),
        seed: int | None = None,
    ) -> Self:
        """Create a network from the result of `config`, with initial weights.

        Parameters
        ----------
        config : dict
            The result of `config`, possibly read from JSON. Only ``"layers"`` and ``"input_shape"`` are required.
        backend : str or Backend
        custom_layers : sequence of Layer subclasses
            User-defined layers that the configuration names.
        seed : int, optional
            A different seed, for a new network whose counts of steps and epochs start at 0. Default: the seed and
            counts of the configuration, so that training can continue after the weights are set.

        Raises
        ------
        InvalidInputError
            The configuration is invalid; the message says where.
        BackendUnavailableError
            The backend cannot run here.
        """
        parts = parse_config(config, custom_layers)
        network = cls(
            parts.layers,
            parts.input_shape,
            backend=backend,
            seed=parts.seed if seed is None else seed,
            dtype=parts.dtype,
            input_scale=parts.input_scale,
        )
        if parts.loss is not None:
            network.use_loss(network.resolve_loss(parts.loss))
        network.multilabel = parts.multilabel
        if seed is None:
            network.trained_with, network.scaled_by_dtype = parts.inputs, parts.scaled_by_dtype
            network.steps_trained, network.epochs_trained = parts.steps_trained, parts.epochs_trained
        return network

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write architecture and weights to a safetensors file, completely or not at all.

        Raises
        ------
        InvalidInputError
            `path` is not a path.
        ModelFileError
            A weight is NaN or infinite; nothing was written.
        OSError
            The file cannot be written, for example because the disk is full; an existing file is unchanged.
        """
        write_model(path_text("path", path), self.config(), self.get_weights())

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        backend: str | Backend = "auto",
        custom_layers: Sequence[type[Layer]] = (),
    ) -> Self:
        """Read a network written by `save`.

        Raises
        ------
        InvalidInputError
            `path` is not a path.
        ModelFileError
            The file is missing, damaged, or has another format. No code from the file is run, and memory is limited to
            a few times the file's size.
        BackendUnavailableError
            The backend cannot run here.
        """
        path = path_text("path", path)
        chosen = get_backend(backend)
        return cls.from_file(path, *read_model(path), chosen, custom_layers)

    @classmethod
    def from_file(
        cls,
        name: str,
        config: Mapping[str, Any],
        weights: dict[str, HostArray],
        backend: Backend,
        custom_layers: Sequence[type[Layer]] = (),
    ) -> Self:
        """Create a network from what a file holds; raises ModelFileError with the file's name."""
        try:
            # Compare the description with the arrays that were read before allocating memory for the network.
            parts = parse_config(config, custom_layers)
            shapes, _ = follow_shapes(parts.layers, parts.input_shape)
            ParameterLayout(parts.layers, shapes, 1).check(weights, parts.dtype)
            check_dtypes(weights, parts.dtype)
            network = cls.from_config(config, backend, custom_layers)
            network.set_weights(weights)
        except (NNBackendError, KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            # Other errors come from user-defined layers that do not check their arguments.
            raise ModelFileError(f"{name}: its description does not make a network: {error}") from error
        return network
