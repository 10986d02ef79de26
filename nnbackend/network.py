"""The network: layers in order, and one flat parameter buffer on one backend."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from nnbackend.backends.contract import Backend, HostArray
from nnbackend.backends.registry import get_backend
from nnbackend.data.inputs import scaled_rows
from nnbackend.data.intake import Intake
from nnbackend.data.rows import as_rows
from nnbackend.errors import InvalidInputError, ModelFileError, NNBackendError, shown
from nnbackend.layers import (
    Layer,
    all_layers,
    check_layers,
    final_activation,
    follow_shapes,
    layers_config,
)
from nnbackend.layers.base import fixed_trainable
from nnbackend.losses import Loss, get_loss
from nnbackend.saving.config import parse_config
from nnbackend.saving.model_file import check_dtypes, read_model, write_model
from nnbackend.step.evaluation import Evaluator
from nnbackend.step.parameters import ParameterLayout, initial_values
from nnbackend.step.prediction import Predictor
from nnbackend.step.recorder import Model, OptimizerState, Snapshot
from nnbackend.support.checks import number, positive_integer, real_dtype, sample_shape, seed_number
from nnbackend.support.memory import memory_explained

if TYPE_CHECKING:
    from nnbackend.training.batch import BatchStep
    from nnbackend.training.history import History

__all__ = ["Network"]

#: Rows at a time when predicting and evaluating, unless the caller says otherwise.
_INFERENCE_BATCH = 1024


class Network:
    """Layers in order on one backend.

    Parameters
    ----------
    layers : sequence of Layer
    input_shape : int or tuple of int
        Shape of one sample.
    backend : str or Backend
        "numpy", "numba", "cupy", a plug-in's name, or "auto" (CuPy if a GPU is usable, else Numba, else NumPy).
    seed : int
        Of initial weights, batch order and dropout: the same seed gives the same ones on every backend.
        0 <= seed < 2**63.
    dtype : "float32" or "float64"
    input_scale : float, optional
        Factor on the inputs. If not given, uint8 inputs (images) are scaled by 1/255 and others are left alone.

    Raises
    ------
    InvalidInputError, UnknownNameError
        Layers that do not fit each other, unknown names, values out of range.
    BackendUnavailableError
        The backend cannot run here.
    OutOfMemoryError
        The host's memory or the device's is too small for the weights.

    Notes
    -----
    Several threads may predict with one network; only one may train it, and nobody predict meanwhile. A copy or a
    pickle has the weights and the counts of steps and epochs, but not the optimiser's slots.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        input_shape: int | Sequence[int],
        backend: str | Backend = "auto",
        seed: int = 0,
        dtype: Any = "float32",
        input_scale: float | None = None,
    ) -> None:
        self.layers = check_layers(layers)
        self.input_shape = sample_shape(input_shape)
        self.dtype = real_dtype(dtype)
        self.seed = seed_number(seed)
        self.input_scale = None if input_scale is None else number("input_scale", input_scale)
        self._input_shapes, self.output_shape = follow_shapes(self.layers, self.input_shape)
        #: The loss it was last trained with; predictions are made its way.
        self.loss: Loss | None = None
        #: Steps and epochs of training so far; they number dropout masks and batch orders.
        self.steps_trained = 0
        self.epochs_trained = 0
        #: Slots of the optimiser it was last trained with, so that training can go on with the same one.
        self.optimizer_state: OptimizerState | None = None
        #: The recorded step of `train_on_batch`, kept for the next batch of its kind.
        self.batch_step: BatchStep | None = None
        self._training = False
        self._place(get_backend(backend), None)

    def _place(self, backend: Backend, weights: Mapping[str, HostArray] | None) -> None:
        """Lay the parameters out on a backend: these, or fresh ones."""
        layout = self._layout_on(backend)
        layout.check_fits(self.dtype)
        sizes = {"weights": layout.size * self.dtype.itemsize}
        with memory_explained(backend, "the network", lambda: sizes, "Give fewer units, or dtype='float32'."):
            values = initial_values(layout, self.seed, self.dtype) if weights is None else weights
            buffer = backend.from_host(layout.pack(values, self.dtype))
        self._model = Model(backend, self.layers, layout, buffer, self.dtype, self.seed)
        self._predictor = Predictor(self._model, self.loss)

    def _layout_on(self, backend: Backend) -> ParameterLayout:
        return ParameterLayout(self.layers, self._input_shapes, backend.row_multiple)

    def _current_layout(self) -> ParameterLayout:
        """The layout that training would use: as the layers' `trainable` is now."""
        layout = self._model.layout
        return self._layout_on(self.backend) if layout.outdated else layout

    @property
    def backend(self) -> Backend:
        """Where the parameters live."""
        return self._model.backend

    @property
    def parameter_count(self) -> int:
        """How many numbers training changes: the parameters of all layers that are not frozen."""
        return self._current_layout().trainable.count

    @property
    def state_count(self) -> int:
        """How many numbers are saved but not trained: state, and the parameters of frozen layers."""
        layout = self._current_layout()
        return layout.count - layout.trainable.count

    # ---- weights -------------------------------------------------------------------------------------------

    def get_weights(self) -> dict[str, HostArray]:
        """Copies of all parameters and state on the host.

        Returns
        -------
        dict
            ``"layers.0.weight"`` of shape (inputs, outputs), ``"layers.0.bias"`` of shape (outputs,), the number
            being the layer's place in the list given to `Network`; ``"layers.3.layers.0.weight"`` for a layer within
            another one.
        """
        return self._model.layout.unpack(self.backend.to_host(self._model.parameters))

    def set_weights(self, weights: Mapping[str, Any]) -> None:
        """Replace all parameters and state, given as `get_weights` returns them.

        Raises
        ------
        InvalidInputError
            An array is missing, unknown, of the wrong shape or not finite; nothing was changed.
        """
        layout = self._model.layout
        self.backend.write(layout.pack(layout.check(weights, self.dtype), self.dtype), self._model.parameters)

    def to(self, backend: str | Backend) -> Network:
        """Move the network to another backend, in place; weights are carried over exactly. Returns itself.

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
        """Move to another backend, or to a layout with other layers frozen; drops what was recorded for the old one."""
        source = self._model
        self._place(backend, self.get_weights())
        self.batch_step = None
        if self.optimizer_state is not None:
            self.optimizer_state.move(source, self._model)

    # ---- using it ------------------------------------------------------------------------------------------

    def predict(self, x: Any, batch_size: int | None = None) -> HostArray:
        """Predictions for every row.

        Parameters
        ----------
        x : (n, *input_shape) array_like
            uint8, or numbers in the scale used for training. Memory-mapped files and HDF5 are read batch by batch.
        batch_size : int, optional
            Rows at a time.

        Returns
        -------
        (n, outputs) array of the network's dtype, on the host
            Probabilities for a network trained with softmax or sigmoid cross-entropy; the outputs otherwise.
        """
        rows = as_rows(x, self.input_shape, self.dtype)
        size = min(rows.count, _INFERENCE_BATCH if batch_size is None else positive_integer("batch_size", batch_size))
        outputs = self._room_for_outputs(rows.count)
        for start in range(0, rows.count, size):
            part = scaled_rows(rows.part(start, start + size), self.input_scale, self.dtype)
            outputs[start : start + size] = self._predictor(part)
        return outputs.reshape(rows.count, *self.output_shape)

    def _room_for_outputs(self, rows: int) -> HostArray:
        shape = (rows, math.prod(self.output_shape))
        try:
            return np.empty(shape, self.dtype)
        except (MemoryError, ValueError) as error:
            raise InvalidInputError(
                f"there is no memory for the predictions of {rows:,} rows, {shape} {self.dtype}; give fewer at a time"
            ) from error

    def predict_classes(self, x: Any, batch_size: int | None = None) -> HostArray:
        """The most likely class of every row, (n,) int64; with one output, whether it says yes."""
        scores = self.predict(x, batch_size).reshape(len(x), -1)
        if scores.shape[1] == 1:
            return (scores[:, 0] > 0.5).astype(np.int64)
        classes: HostArray = scores.argmax(axis=1)
        return classes

    def evaluate(
        self,
        x: Any,
        y: Any = None,
        *,
        loss: str | None = None,
        sample_weight: Any = None,
        batch_size: int | None = None,
    ) -> dict[str, float]:
        """Loss and metrics over some data.

        Parameters
        ----------
        x : (n, *input_shape) array_like, or BatchStream
        y : (n,) labels or (n, outputs) values
            Not with a stream, which brings them.
        loss : str, optional
            The one it was trained with if not given.
        sample_weight : (n,) array_like, optional
        batch_size : int, optional
            Rows at a time.

        Returns
        -------
        dict
            "loss" (the penalties of L1 and L2 included) and, where the targets are classes, "accuracy", or
            "binary_accuracy" where several outputs of sigmoid cross-entropy are right or wrong one by one.
        """
        chosen = self.resolve_loss(loss)
        size = _INFERENCE_BATCH if batch_size is None else positive_integer("batch_size", batch_size)
        feed = self.intake.feed(x, y, chosen, size, sample_weight=sample_weight)
        with closing(feed):
            value, correct = Evaluator(self._model, chosen, feed, size).run()
        metrics = {"loss": value + self.penalty()}
        if feed.accuracy_name is not None:
            metrics[feed.accuracy_name] = correct
        return metrics

    def penalty(self) -> float:
        """The L1 and L2 penalties of the current weights."""
        layout = self._model.layout
        return layout.penalty(self.get_weights()) if layout.regularised else 0.0

    def fit(self, x: Any, y: Any = None, **options: Any) -> History:
        """Train on some data; the options are those of :func:`nnbackend.training.fit`.

        Parameters
        ----------
        x : (n, *input_shape) array_like, or BatchStream
        y : (n,) labels or (n, outputs) values
            Not with a stream, which brings them.
        epochs : int
        batch_size : int
        loss : str
            "softmax_cross_entropy", "sigmoid_cross_entropy" or "mean_squared_error".
        optimizer : Optimizer or str
        validation_data : (x, y), optional
        callbacks : sequence of Callback
        sample_weight : (n,) array_like, optional
        class_weight : dict or (classes,) array_like, optional
        shuffle : bool
        steps_per_epoch : int, optional
        stream : bool, optional
        resume : bool or path-like
        on_nan : "stop" or "skip"
        verbose : bool, optional
        communicator : Communicator, optional
            To train on several ranks; see :mod:`nnbackend.distributed`.
        shard : bool

        Returns
        -------
        History
        """
        # The imports that go up: training stands a room above, and a network offers it as methods.
        from nnbackend.training.fit import fit

        return fit(self, x, y, **options)

    def train_on_batch(self, x: Any, y: Any, **options: Any) -> dict[str, float]:
        """Take one step on rows that the caller brings; see :func:`nnbackend.training.train_on_batch`.

        Parameters
        ----------
        x : (n, *input_shape) array_like
        y : (n,) labels or (n, outputs) values
        loss : str
            As for `fit`; not needed the second time.
        optimizer : Optimizer
            The one it was last trained with if not given, or Adam.
        sample_weight : (n,) array_like, optional

        Returns
        -------
        dict
            "loss", and "accuracy" where targets are classes, of these rows before the step.
        """
        from nnbackend.training.batch import train_on_batch

        return train_on_batch(self, x, y, **options)

    # ---- what the training loop needs ------------------------------------------------------------------------

    @property
    def model(self) -> Model:
        """The network as a step sees it."""
        return self._model

    @contextmanager
    def in_training(self) -> Iterator[None]:
        """Held by `fit`: rejects operations that would invalidate the buffers of the recorded step.

        Raises
        ------
        InvalidInputError
            The network is being trained already, or all of its layers are frozen.
        """
        if self._training:
            raise InvalidInputError("the network is being trained already; wait until that fit has ended")
        self._follow_trainable()
        self._training = True
        try:
            with fixed_trainable(all_layers(self.layers)):
                yield
        finally:
            self._training = False

    def _follow_trainable(self) -> None:
        """Lay out the parameters again if layers were frozen or unfrozen since they were laid out."""
        layout = self._current_layout()
        if not layout.trainable.entries and any(entry.parameter.trainable for entry in layout.entries):
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
            An earlier one whose memory may be overwritten.
        """
        if into is not None and into.overwrite(self._model):
            return into
        return Snapshot(self._model)

    def restore(self, snapshot: Snapshot) -> None:
        """Give the parameters and state the values of a snapshot; the optimiser's slots stay as they are.

        A snapshot from before layers were frozen or unfrozen, or from another backend, is restored by name.

        Raises
        ------
        InvalidInputError
            It is no snapshot of a network with these layers and this dtype; nothing was changed.
        """
        if not isinstance(snapshot, Snapshot) or not snapshot.restore(self._model):
            raise InvalidInputError(
                "restore takes what snapshot() of this network returned, or one with the same parameters in "
                f"{self.dtype.name}; received {shown(snapshot)}"
            )

    @property
    def intake(self) -> Intake:
        """What data have to be for this network, and their way to its device."""
        return Intake(self.backend, self.input_shape, self.output_shape, self.dtype, self.input_scale)

    def set_loss(self, loss: str | Loss) -> Loss:
        """Choose the loss; predictions are made its way from now on.

        Raises
        ------
        UnknownNameError
            There is no such loss.
        InvalidInputError
            The last layer applies the activation that the loss applies itself.
        """
        chosen = self.resolve_loss(loss)
        if chosen != self.loss:
            self.loss = chosen
            self._predictor = Predictor(self._model, chosen)
        return chosen

    def resolve_loss(self, loss: str | Loss | None) -> Loss:
        """The loss of that name, or the one it was trained with, if it fits the last layer; see `set_loss`."""
        if loss is None:
            if self.loss is None:
                raise InvalidInputError("the network was not trained yet, so say which loss: evaluate(x, y, loss=...)")
            return self.loss
        chosen = get_loss(loss)
        chosen.check_outputs(math.prod(self.output_shape))
        applied = chosen.output_activation
        if applied != "identity" and final_activation(self.layers) == applied:
            raise InvalidInputError(
                f"{chosen.name} applies {applied} itself (which is stable for large outputs), but the last layer "
                "does too; leave its activation out"
            )
        return chosen

    # ---- describing and keeping it ---------------------------------------------------------------------------

    def summary(self) -> str:
        """The layers, shapes, numbers of parameters, the backend and how it runs a step, as text to print."""
        from nnbackend.step.summary import summary

        return summary(self)

    def _repr_html_(self) -> str:
        """What `summary` tells, as a table: shown by a notebook for a network that ends a cell."""
        from nnbackend.step.summary import summary_html

        return summary_html(self)

    def config(self) -> dict[str, Any]:
        """The network without its weights, as plain JSON; `from_config` makes it again.

        Arrays given as initial values are weights too: in their place it says zeros.
        """
        return {
            "layers": layers_config(self.layers),
            "input_shape": list(self.input_shape),
            "seed": self.seed,
            "dtype": self.dtype.name,
            "input_scale": self.input_scale,
            "loss": None if self.loss is None else self.loss.name,
            "steps_trained": self.steps_trained,
            "epochs_trained": self.epochs_trained,
        }

    @classmethod
    def from_config(
        cls,
        config: Mapping[str, Any],
        backend: str | Backend = "auto",
        custom_layers: Sequence[type[Layer]] = (),
        seed: int | None = None,
    ) -> Network:
        """The network that `config` described, with first weights.

        Parameters
        ----------
        config : dict
            What `config` returned, also after a way through JSON. Only ``"layers"`` and ``"input_shape"`` are required.
        backend : str or Backend
        custom_layers : sequence of Layer subclasses
            Layers from outside that the configuration names.
        seed : int, optional
            Another one than the configuration's, for a new network that counts its steps and epochs from 0. If not
            given the counts go on, so that with the weights too (`set_weights`) so does the training.

        Raises
        ------
        InvalidInputError
            It does not describe a network; the message says where.
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
            network.set_loss(parts.loss)
        if seed is None:
            network.steps_trained, network.epochs_trained = parts.steps_trained, parts.epochs_trained
        return network

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write architecture and weights to one safetensors file; a crash never leaves half of one.

        Raises
        ------
        ModelFileError
            A weight is NaN or infinite; nothing was written.
        OSError
            The disk is full, the folder is read-only and the like; an existing file is as it was.
        """
        write_model(path, self.config(), self.get_weights())

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        backend: str | Backend = "auto",
        custom_layers: Sequence[type[Layer]] = (),
    ) -> Network:
        """Read a network that `save` wrote.

        Raises
        ------
        ModelFileError
            The file is missing, damaged, foreign or of another format. Nothing of it is run, and no more memory is
            taken than some times the file's size.
        BackendUnavailableError
            The backend cannot run here.
        """
        chosen = get_backend(backend)
        config, weights = read_model(path)
        try:
            # The file's arrays are there already: a description that does not fit them is refused before memory for
            # what it describes is asked for.
            parts = parse_config(config, custom_layers)
            shapes, _ = follow_shapes(parts.layers, parts.input_shape)
            ParameterLayout(parts.layers, shapes, 1).check(weights, parts.dtype)
            check_dtypes(weights, parts.dtype)
            network = cls.from_config(config, chosen, custom_layers)
            network.set_weights(weights)
        except (NNBackendError, KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            # The others come from layers from outside that do not check what they are given.
            raise ModelFileError(f"{path}: its description does not make a network: {error}") from error
        return network

    def to_onnx(self, path: str | os.PathLike[str], input_dtype: Any = None) -> None:
        """Write an ONNX file for other runtimes; see :func:`nnbackend.interop.onnx.export`."""
        from nnbackend.interop.onnx import export

        export(self, path, input_dtype)

    # A recorded step holds views of the buffers it was recorded on, so copies are made anew and not bit by bit.

    def __deepcopy__(self, memo: dict[int, Any]) -> Network:
        return _remake(self.backend, *self._state())

    def __reduce__(self) -> tuple[Any, ...]:
        return _remake, (self.backend.name, *self._state())

    def _state(self) -> tuple[dict[str, Any], tuple[type[Layer], ...], dict[str, HostArray]]:
        return self.config(), tuple({type(layer) for layer in all_layers(self.layers)}), self.get_weights()

    def __repr__(self) -> str:
        inner = ", ".join(repr(layer) for layer in self.layers)
        return f"<Network {self.input_shape} -> [{inner}] on {self.backend.name}, {self.parameter_count:,} parameters>"


def _remake(
    backend: str | Backend, config: dict[str, Any], layers: tuple[type[Layer], ...], weights: dict[str, HostArray]
) -> Network:
    """A network from what a copy or a pickle keeps."""
    network = Network.from_config(config, backend, layers)
    network.set_weights(weights)
    return network
