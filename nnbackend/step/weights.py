"""The weights of a network: storage, access, snapshots and freezing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Self

import numpy as np

from nnbackend.backends.contract import Backend, HostArray
from nnbackend.backends.registry import get_backend
from nnbackend.data.scale import warn
from nnbackend.errors import InvalidInputError, shown
from nnbackend.layers import (
    AveragePool2D,
    Conv2D,
    FixedLayers,
    L2Pool2D,
    Layer,
    MaxPool2D,
    all_layers,
    check_layers,
    follow_shapes,
)
from nnbackend.layers.base import fixed_trainable
from nnbackend.optimizers import Optimizer
from nnbackend.step.model import Model, OptimizerState, Snapshot
from nnbackend.step.parameters import ParameterLayout, initial_values
from nnbackend.support.attributes import Guarded
from nnbackend.support.checks import flag, real_dtype, sample_shape, seed_number
from nnbackend.support.memory import memory_explained
from nnbackend.support.surroundings import own_error_state

__all__ = ["NetworkWeights"]


def _looks_channels_first(first: Layer, shape: tuple[int, ...]) -> bool:
    """Whether images of this shape are more likely square, with 1, 3 or 4 channels that come first."""
    is_of_images = isinstance(first, Conv2D | MaxPool2D | AveragePool2D | L2Pool2D)
    return is_of_images and len(shape) == 3 and shape[0] in (1, 3, 4) and 4 < shape[1] == shape[2]


class NetworkWeights(Guarded):
    """Layers in order, and their parameters and state in one flat buffer on one backend.

    Parameters
    ----------
    layers : sequence of Layer
    input_shape : int or tuple of int
        Shape of one sample.
    backend : str or Backend
    seed : int
        Seed of the initial weights, 0 <= seed < 2**63.
    dtype : "float32" or "float64"
    """

    output_shape: tuple[int, ...]
    optimizer_state: OptimizerState | None
    _hints: ClassVar[dict[str, str]] = {
        "backend": "move the network with to(backend)",
        "optimizer": "give it to fit(optimizer=...)",
        "weights": "set them with set_weights(...)",
        **dict.fromkeys(
            ("learning_rate", "lr"), "Set it on the optimizer: network.optimizer.learning_rate, or Adam(learning_rate)"
        ),
        **dict.fromkeys(("batch_size", "callbacks", "epochs", "metrics", "class_weight"), "Give it to fit(...)"),
    }

    def __init__(
        self, layers: Sequence[Layer], input_shape: int | Sequence[int], backend: str | Backend, seed: int, dtype: Any
    ) -> None:
        self.layers = FixedLayers(check_layers(layers))
        self.input_shape = sample_shape(input_shape)
        self.dtype: np.dtype[Any] = real_dtype(dtype)
        self.seed = seed_number(seed)
        self._input_shapes, self.output_shape = follow_shapes(self.layers, self.input_shape)
        if _looks_channels_first(self.layers[0], self.input_shape):
            channels, height, width = self.input_shape
            warn(
                f"input_shape={self.input_shape} means images of {channels} x {height} with {width} channels, which "
                f"are last here; for {channels} channels make it ({height}, {width}, {channels}) and give "
                "np.moveaxis(x, 1, -1)"
            )
        #: State of the last optimiser, so that training can continue with the same one.
        self.optimizer_state = None
        self._training = False
        self._place(get_backend(backend), None)

    def _change(self, name: str, value: Any) -> Any:
        if name == "output_shape":
            raise self._refusal(name)
        return super()._change(name, value)

    def _instead(self, name: str) -> str:
        own = name in ("layers", "input_shape", "seed", "dtype")
        return f"make a new network: Network(layers, ..., {name}=...)" if own else super()._instead(name)

    def _place(self, backend: Backend, weights: Mapping[str, HostArray] | None) -> None:
        """Place the given or newly initialised parameters on a backend."""
        if self.dtype.name not in backend.real_dtypes:
            raise InvalidInputError(
                f"backend {backend.name!r} on {backend.device} has no {self.dtype.name}; make the network with "
                f"dtype={backend.real_dtypes[0]!r}, or use another backend, such as 'numpy'"
            )
        layout = self._layout_on(backend)
        layout.check_fits(self.dtype)
        sizes = {"weights": layout.size * self.dtype.itemsize}
        explained = memory_explained(backend, "the network", lambda: sizes, "Give fewer units, or dtype='float32'.")
        with own_error_state(), explained:
            values = initial_values(layout, self.seed, self.dtype) if weights is None else weights
            buffer = backend.from_host(layout.pack(values, self.dtype))
        self._model = Model(backend, self.layers, layout, buffer, self.dtype, self.seed)

    def _layout_on(self, backend: Backend) -> ParameterLayout:
        return ParameterLayout(self.layers, self._input_shapes, backend.row_multiple)

    def _current_layout(self) -> ParameterLayout:
        """The layout that training would use with the layers' current `trainable`."""
        layout = self._model.layout
        return self._layout_on(self.backend) if layout.outdated else layout

    @property
    def backend(self) -> Backend:
        """The backend with the parameters."""
        return self._model.backend

    @property
    def optimizer(self) -> Optimizer | None:
        """The optimiser of the current or last training; None before. A callback may set its `learning_rate`."""
        return None if self.optimizer_state is None else self.optimizer_state.optimizer

    @property
    def parameter_count(self) -> int:
        """Number of trained parameters: those of all layers that are not frozen."""
        return self._current_layout().trainable.count

    @property
    def state_count(self) -> int:
        """Number of elements that are saved but not trained: state, and the parameters of frozen layers."""
        layout = self._current_layout()
        return layout.count - layout.trainable.count

    @property
    def model(self) -> Model:
        """The parts of the network that a step needs."""
        return self._model

    # ---- values --------------------------------------------------------------------------------------------

    def get_weights(self) -> dict[str, HostArray]:
        """Copies of all parameters and state on the host.

        Returns
        -------
        dict
            ``"layers.0.weight"`` of shape (inputs, outputs), ``"layers.0.bias"`` of shape (outputs,), with the layer's
            index in the list given to `Network`; ``"layers.3.layers.0.weight"`` for a nested layer.
        """
        return self._model.layout.unpack(self.backend.to_host(self._model.parameters))

    def set_weights(self, weights: Mapping[str, Any], *, partial: bool = False) -> None:
        """Replace parameters and state, in the form that `get_weights` returns.

        Parameters
        ----------
        weights : dict
            Arrays by name.
        partial : bool
            Whether arrays may be missing, which then keep their values.

        Raises
        ------
        InvalidInputError
            An array is missing, unknown, of the wrong shape or not finite; nothing was changed.
        """
        layout = self._model.layout
        with own_error_state():
            checked = layout.check(weights, self.dtype, flag("partial", partial))
            values = layout.pack({**self.get_weights(), **checked} if partial else checked, self.dtype)
        self.backend.write(values, self._model.parameters)
        self._note_weights()

    def _note_weights(self) -> None:
        """Called when the weights are no longer the initial ones."""

    def to(self, backend: str | Backend) -> Self:
        """Move the network to another backend, in place and without changing the weights. Returns the network.

        Raises
        ------
        BackendUnavailableError
            It cannot run here; the network has not changed.
        InvalidInputError
            The network is being trained.
        """
        target = get_backend(backend)
        if self._training:
            raise InvalidInputError("the network is being trained; move it to another backend before or after fit")
        if target is not self.backend:
            self._lay_out_again(target)
        return self

    def _lay_out_again(self, backend: Backend) -> None:
        """Move to another backend, or to a layout with other layers frozen, and discard recordings."""
        source = self._model
        self._place(backend, self.get_weights())
        if self.optimizer_state is not None:
            self.optimizer_state.move(source, self._model)

    def penalty(self) -> float:
        """The L1 and L2 penalties of the current weights; those of frozen layers do not count."""
        layout = self._current_layout()
        with own_error_state():
            return layout.penalty(self.get_weights()) if layout.regularised else 0.0

    # ---- during training -----------------------------------------------------------------------------------

    @contextmanager
    def in_training(self) -> Iterator[None]:
        """Held by `fit`: rejects operations that would invalidate the buffers of the recorded step.

        Raises
        ------
        InvalidInputError
            The network is already being trained, or all of its layers are frozen.
        """
        if self._training:
            raise InvalidInputError("the network is being trained already; wait until that fit has ended")
        self._follow_trainable()
        self._note_weights()
        self._training = True
        try:
            with fixed_trainable(all_layers(self.layers)):
                yield
        finally:
            self._training = False

    def _follow_trainable(self) -> None:
        """Update the layout if layers have been frozen or unfrozen."""
        layout = self._current_layout()
        if not any(entry.parameter.trainable for entry in layout.entries):
            raise InvalidInputError(
                "no layer of the network has parameters, so there is nothing to train; add one that has, such as Dense"
            )
        if not layout.trainable.entries:
            raise InvalidInputError(
                "all layers with parameters are frozen, so there is nothing to train; "
                "set trainable = True on one of them"
            )
        if layout is not self._model.layout:
            self._lay_out_again(self.backend)

    def snapshot(self, into: Snapshot | None = None) -> Snapshot:
        """A copy of the parameters and state that stays on the device.

        Parameters
        ----------
        into : Snapshot, optional
            An earlier snapshot whose memory may be overwritten.

        Raises
        ------
        InvalidInputError
            `into` is no snapshot.
        """
        if into is not None and not isinstance(into, Snapshot):
            raise InvalidInputError(f"into must be what snapshot() returned earlier, received {shown(into)}")
        if into is not None and into.overwrite(self._model):
            return into
        return Snapshot(self._model)

    def restore(self, snapshot: Snapshot) -> None:
        """Restore parameters and state from a snapshot; the optimiser's slots are unchanged.

        A snapshot from before layers were frozen or unfrozen, or from another backend, is restored by name.

        Raises
        ------
        InvalidInputError
            It is not a snapshot of a network with these layers and this dtype; nothing was changed.
        """
        if not isinstance(snapshot, Snapshot) or not snapshot.restore(self._model):
            raise InvalidInputError(
                "restore takes what snapshot() of this network returned, or one with the same parameters in "
                f"{self.dtype.name}; received {shown(snapshot)}"
            )
        self._note_weights()
