"""The network: layers in order, and one flat parameter buffer on one backend."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nnbackend.backends.contract import Backend, HostArray
from nnbackend.backends.registry import get_backend
from nnbackend.errors import ModelFileError, NNBackendError
from nnbackend.layers import Layer, all_layers, follow_shapes, layers_config
from nnbackend.losses import Loss
from nnbackend.saving.config import parse_config
from nnbackend.saving.model_file import check_dtypes, read_model, write_model
from nnbackend.step.inference import NetworkInference
from nnbackend.step.parameters import ParameterLayout

if TYPE_CHECKING:
    from nnbackend.data.batch_stream import BatchStream
    from nnbackend.distributed.communicator import Communicator
    from nnbackend.optimizers import Optimizer
    from nnbackend.training.batch import BatchStep
    from nnbackend.training.callbacks import Callback
    from nnbackend.training.checkpoints.resuming import Resume
    from nnbackend.training.history import History

__all__ = ["Network"]


class Network(NetworkInference):
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
    Several threads may predict with one network. Only one may train it, and no other may predict during training. A
    copy or a pickle has the weights and the counts of steps and epochs, but not the optimiser's slots.
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
        #: Steps and epochs of training so far; they number dropout masks and batch orders.
        self.steps_trained = 0
        self.epochs_trained = 0
        #: The recorded step of `train_on_batch`, kept for the next batch of its kind.
        self.batch_step: BatchStep | None = None
        super().__init__(layers, input_shape, backend, seed, dtype, input_scale)

    def _place(self, backend: Backend, weights: Mapping[str, HostArray] | None) -> None:
        super()._place(backend, weights)
        # It was recorded on other buffers.
        self.batch_step = None

    # ---- training -----------------------------------------------------------------------------------------

    def fit(
        self,
        x: Any,
        y: Any = None,
        *,
        epochs: int = 10,
        batch_size: int | None = None,
        loss: str | Loss | None = None,
        optimizer: Optimizer | str = "adam",
        validation_data: tuple[Any, Any] | BatchStream | None = None,
        callbacks: Iterable[Callback] = (),
        sample_weight: Any = None,
        class_weight: Any = None,
        shuffle: bool = True,
        steps_per_epoch: int | None = None,
        stream: bool | None = None,
        resume: Resume = False,
        on_nan: str = "stop",
        verbose: bool | None = None,
        communicator: Communicator | None = None,
        shard: bool = False,
    ) -> History:
        """Train the network.

        Parameters
        ----------
        x : (n, *input_shape) array_like, or BatchStream
            In memory, or in a memory-mapped file or HDF5 data set. uint8 stays uint8 until a batch is gathered, and
            is then scaled by 1/255.
        y : (n,) labels or (n, outputs) values
            Not with a stream, which brings them.
        epochs : int
            How often all rows are seen, unless `steps_per_epoch` is given.
        batch_size : int, optional
            Rows of a step. If not given 32, or all rows if there are fewer. The last, shorter batch of an epoch is
            trained on as well.
        loss : str, optional
            "softmax_cross_entropy", "sigmoid_cross_entropy" or "mean_squared_error"; not needed the second time.
        optimizer : Optimizer or str
            The same object as before continues with its state; a name starts a new optimiser.
        validation_data : (x, y) or BatchStream, optional
            Evaluated after every epoch.
        callbacks : sequence of Callback
        sample_weight : (n,) array_like, optional
            Weights of the rows; only their ratios matter.
        class_weight : dict or (classes,) array_like, optional
            Weights of the classes, multiplied with those of the rows.
        shuffle : bool
            Whether every epoch has an order of its own, drawn from the network's seed.
        steps_per_epoch : int, optional
            Makes an epoch this many full batches, whatever the number of rows: passes over the rows follow each
            other, and every epoch continues where the last one ended. Useful for few rows, where one pass is too
            short to look at the metrics after it, and for very many. If not given, an epoch sees every row once.
        stream : bool, optional
            True leaves `x` where it is and brings its rows to the device in portions, while the device trains on the
            portion before. False brings all rows before training begins. If not given, data that do not fit into the
            device's memory are streamed, and files of more than a gigabyte. Results are the same, bit for bit.
        resume : bool or path-like
            True continues from the newest checkpoint in the folder of the callback :class:`nnbackend.Checkpoint`, or
            begins if there is none yet, so that one program starts a run and restarts it. A folder continues from the
            newest checkpoint there. With the same arguments, the run then ends with the same bits as if it had never
            been interrupted. `epochs` may be larger. The number of ranks may differ: then results agree to rounding.
        on_nan : "stop" or "skip"
            What to do with a step whose loss or gradients are NaN or infinite, or that would make the weights or the
            optimiser's slots so: end the run with an error, or skip the step. With "skip", the metrics of every epoch
            include "skipped", the number of skipped steps, whose step losses are NaN. Skipping checks the weights
            about ten times a second and keeps a copy of weights and slots. An epoch whose steps were all skipped ends
            the run.
        verbose : bool, optional
            True prints a line for each epoch, False nothing; if not given, lines are printed on a terminal.
        communicator : Communicator, optional
            ``nnbackend.distributed.world()`` shares each batch among the ranks that `mpiexec` started. All of them
            call `fit` with the same arguments, and get the network and the history that one rank would have got, to
            rounding. Only the first prints, and calls callbacks that write.
        shard : bool
            Whether `x`, `y` and `validation_data` are this rank's own rows, instead of the same rows on all ranks.

        Returns
        -------
        History

        Raises
        ------
        InvalidInputError, UnknownNameError
            Before anything is changed.
        ModelFileError, FolderInUseError
            All checkpoints are damaged, or another run is writing them; before anything is changed.
        OutOfMemoryError
            The host's memory or the device's is too small; the message says what needed it, and what to lower.
        TrainingDivergedError
            The loss became NaN or infinite. The network has the weights with which that epoch began.
        DistributedError
            Another rank cannot train; the message has its reason.

        Notes
        -----
        Ctrl-C ends the run after the current step: the history says so, and the network keeps what it has learned.
        With a `Checkpoint`, SIGTERM ends the program after the current step and a last checkpoint, with the exit code
        143 (SystemExit).
        """
        # Training lies above networks; a network offers it as a method.
        from nnbackend.training.fit import fit

        return fit(
            self,
            x,
            y,
            epochs=epochs,
            batch_size=batch_size,
            loss=loss,
            optimizer=optimizer,
            validation_data=validation_data,
            callbacks=callbacks,
            sample_weight=sample_weight,
            class_weight=class_weight,
            shuffle=shuffle,
            steps_per_epoch=steps_per_epoch,
            stream=stream,
            resume=resume,
            on_nan=on_nan,
            verbose=verbose,
            communicator=communicator,
            shard=shard,
        )

    def train_on_batch(
        self,
        x: Any,
        y: Any,
        *,
        loss: str | Loss | None = None,
        optimizer: Optimizer | None = None,
        sample_weight: Any = None,
    ) -> dict[str, float]:
        """Take one step on some rows.

        Parameters
        ----------
        x : (n, *input_shape) array_like
        y : (n,) labels or (n, outputs) values
        loss : str, optional
            As for `fit`; not needed the second time.
        optimizer : Optimizer, optional
            If not given, the one the network was last trained with, or Adam. The same object continues with its state.
        sample_weight : (n,) array_like, optional
            Weights of the rows; only their ratios matter.

        Returns
        -------
        dict
            "loss" (penalties included) and, where targets are classes, "accuracy" or "binary_accuracy": of these
            rows, before the step.

        Raises
        ------
        InvalidInputError, UnknownNameError
            Before anything is changed.
        TrainingDivergedError
            The loss is NaN or infinite. The network has the weights from before this step, or from before the last
            one if that broke them; the optimiser starts over.

        Notes
        -----
        The step is recorded once and replayed while batches have the same number of rows, the same types and the same
        loss and optimiser. A learning-rate schedule counts epochs, and batches make none: the rate stays the same.
        """
        from nnbackend.training.batch import train_on_batch

        return train_on_batch(self, x, y, loss=loss, optimizer=optimizer, sample_weight=sample_weight)

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

        Arrays given as initial values are weights, too: the configuration says zeros instead.
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
            A different seed from the configuration's, for a new network that counts its steps and epochs from 0. If not
            given, the counts are the configuration's, so that training continues once the weights are set, too.

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
            # The file's arrays are in memory: a description that does not fit them is refused before memory for the
            # network is allocated.
            parts = parse_config(config, custom_layers)
            shapes, _ = follow_shapes(parts.layers, parts.input_shape)
            ParameterLayout(parts.layers, shapes, 1).check(weights, parts.dtype)
            check_dtypes(weights, parts.dtype)
            network = cls.from_config(config, chosen, custom_layers)
            network.set_weights(weights)
        except (NNBackendError, KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            # The other errors come from layers from outside that do not check their arguments.
            raise ModelFileError(f"{path}: its description does not make a network: {error}") from error
        return network

    def to_onnx(self, path: str | os.PathLike[str], input_dtype: Any = None) -> None:
        """Write an ONNX file for other runtimes; see :func:`nnbackend.interop.onnx.export`."""
        from nnbackend.interop.onnx import export

        export(self, path, input_dtype)

    # A recorded step holds views of the buffers it was recorded on, so a copy is built from the configuration.

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
