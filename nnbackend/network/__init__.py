"""The network: layers in order, and one flat parameter buffer on one backend."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nnbackend.backends.contract import Backend, HostArray
from nnbackend.layers import Layer, all_layers
from nnbackend.losses import Loss
from nnbackend.network.stored import StoredNetwork
from nnbackend.network.transfer import check_layers_are_new, note_trained, take_weights
from nnbackend.support.arguments import suggests_names

if TYPE_CHECKING:
    from nnbackend.augment import Augmentation
    from nnbackend.data.batch_stream import BatchStream
    from nnbackend.distributed.communicator import Communicator
    from nnbackend.optimizers import Optimizer
    from nnbackend.training.batch import BatchStep
    from nnbackend.training.callbacks import Callback
    from nnbackend.training.checkpoints.resuming import Resume
    from nnbackend.training.history import History

__all__ = ["Network"]


class Network(StoredNetwork):
    """Layers in order on one backend.

    Parameters
    ----------
    layers : sequence of Layer
    input_shape : int or tuple of int
        Shape of one sample.
    backend : str or Backend
        "numpy", "numba", "cupy", "torch", "torch:cuda" and other devices of PyTorch, a plug-in's name, or "auto" (CuPy
        if a GPU is usable, else Numba, else NumPy).
    seed : int
        Seed of initial weights, batch order, dropout and augmentation, which are the same on every backend.
        0 <= seed < 2**63.
    dtype : "float32" or "float64"
    input_scale : float, optional
        Factor on the inputs. Default: the first training decides it, and it then belongs to the network, whatever the
        dtype of later inputs: 1/255 for uint8 if `input_shape` has two or three axes, as images have, or for images of
        :func:`nnbackend.datasets.load`; otherwise 1.
    weights_from : Network, optional
        A network with some of these layers, of which this one gets a copy of their weights and state, and its
        `input_scale` if the first layer is shared: ``Network([*old.layers[:-1], Dense(3)], 4, weights_from=old)``. The
        others get initial weights.

    Raises
    ------
    InvalidInputError, UnknownNameError
        Incompatible layers, unknown names, or values out of range. Or some of the layers, but not all, belong to a
        network that has been trained, and `weights_from` does not say what their weights are.
    BackendUnavailableError
        The backend cannot run here.
    OutOfMemoryError
        The memory of the host or the device is too small for the weights.

    Notes
    -----
    Several threads may predict with one network. Only one may train it, and no other may predict during training. A
    copy or a pickle has the weights and the counts of steps and epochs, but not the optimiser's slots.
    """

    batch_step: BatchStep | None

    def __init__(
        self,
        layers: Sequence[Layer],
        input_shape: int | Sequence[int],
        backend: str | Backend = "auto",
        seed: int = 0,
        dtype: Any = "float32",
        input_scale: float | None = None,
        *,
        weights_from: Network | None = None,
    ) -> None:
        #: Steps and epochs of training so far, which determine dropout masks and batch orders.
        self.steps_trained = 0
        self.epochs_trained = 0
        #: The recorded step of `train_on_batch`, reused for batches of the same kind.
        self.batch_step = None
        super().__init__(layers, input_shape, backend, seed, dtype, input_scale)
        if weights_from is None:
            check_layers_are_new(self)
        else:
            take_weights(self, weights_from)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            from nnbackend.support.other_names import missing_member

            raise missing_member(self, name)

    def _note_weights(self) -> None:
        note_trained(self)

    def _place(self, backend: Backend, weights: Mapping[str, HostArray] | None) -> None:
        super()._place(backend, weights)
        # It was recorded on the old buffers.
        self.batch_step = None

    # ---- training -----------------------------------------------------------------------------------------

    @suggests_names
    def fit(
        self,
        x: Any,
        y: Any = None,
        *,
        epochs: int = 10,
        batch_size: int | None = None,
        loss: str | Loss | None = None,
        optimizer: Optimizer | str = "adam",
        validation_data: tuple[Any, ...] | BatchStream | None = None,
        validation_split: float = 0.0,
        metrics: Iterable[Any] = (),
        train_metrics: bool = False,
        callbacks: Iterable[Callback] = (),
        sample_weight: Any = None,
        class_weight: Any = None,
        label_smoothing: float = 0.0,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        accumulate: int = 1,
        ema: float | None = None,
        augment: Augmentation | Sequence[Augmentation] = (),
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
            In memory, or in a memory-mapped file or HDF5 data set; a data frame of numbers, or a sparse matrix. It must
            not be changed during training. uint8 stays uint8 until a batch is gathered; see `input_scale` for how it
            is scaled.
        y : (n,) labels or (n, outputs) values
            Omitted for a stream, which contains the targets. With sigmoid cross-entropy, values that are not one-hot
            make a network that predicts any number of labels for a row; see `multilabel`.
        epochs : int
            Number of epochs: passes over all rows, unless `steps_per_epoch` is given.
        batch_size : int, optional
            Rows per step, or all rows if there are fewer. Default: 32. A shorter last batch is included.
        loss : str or Loss, optional
            A name such as "softmax_cross_entropy" or "mse", or an object of ``nnbackend.losses``; required at first.
        optimizer : Optimizer or str
            The object of an earlier training continues with its state; a name creates a new optimiser.
        validation_data : (x, y), (x, y, sample_weight) or BatchStream, optional
            Evaluated after every epoch. "val_loss" is weighted with `class_weight` and with the weights given here; if
            that makes a difference, the history also has "val_loss_unweighted".
        validation_split : float
            The fraction of the rows, 0 <= validation_split < 1, that is not trained on but evaluated like
            `validation_data`, with their `sample_weight`. The rows are drawn with the network's seed; if `y` has
            classes, each class has the same share of them.
        metrics : sequence of str, callable or Metric
            More metrics of the validation data after every epoch, under their names with ``val_`` in front: names of
            ``nnbackend.metrics.METRICS``, such as "f1", "roc_auc", "top_5_accuracy" and "mae", or functions of
            `y_true` and `y_pred` such as those of ``sklearn.metrics``; see :class:`nnbackend.metrics.Metric`. Functions
            are called once before the training, so that errors in them come first. They are
            weighted with the `sample_weight` in `validation_data`, but not with `class_weight`. "accuracy" and
            "binary_accuracy", which are reported in any case, are without weights.
        train_metrics : bool
            Whether to compute them on the training data, too, with another pass over them after every epoch; weighted
            with `sample_weight`.
        callbacks : sequence of Callback
        sample_weight : (n,) array_like, optional
            Weights of the rows; only their ratios matter.
        class_weight : dict, (classes,) array_like or "balanced", optional
            Weights of the classes, multiplied with those of the rows. Classes missing in a dict have weight 1;
            "balanced" gives all classes the same total weight.
        label_smoothing : float
            This fraction of each target is spread over the classes in training, 0 <= label_smoothing < 1 (Szegedy et
            al. 2016): it becomes ``1 / classes`` with softmax cross-entropy, and 1/2 with sigmoid cross-entropy; other
            losses refuse it. "loss" is that of the softened targets; "val_loss" and `evaluate` use the targets as they
            are.
        clip_norm : float, optional
            The largest Euclidean norm of all gradients of a step together. They include penalties, but not the
            optimiser's weight decay, and with several ranks are summed over them first. The update then waits for all
            gradients, which takes a little longer; the log and `summary` say so.
        clip_value : float, optional
            The largest magnitude of each element of the gradients, in place of `clip_norm`.
        accumulate : int
            Number of batches whose gradients are averaged for one update, weighted with their rows: the results of a
            batch as many times as large up to rounding, with the memory of one. Where this says "step", it means an
            update with all of its batches; limits of the gradients apply to their average. Only
            :class:`nnbackend.BatchNormalization` differs, which sees one batch at a time.
        ema : float, optional
            Decay of an exponential moving average of the trained parameters, for example 0.999: after step t it is the
            weighted mean of the weights after steps 1 to t, with weights ``ema ** (t - i)``. The network has the
            average from the end of the steps of each epoch until the next epoch begins, and at the end: in validation,
            in callbacks, in files and checkpoints. Steps start from the weights of the last step, so what a callback
            does to the weights between epochs is lost. State such as running means is not averaged. Each call of `fit`
            begins a new average.
        augment : Augmentation or list of Augmentation
            Random transformations of the images of each training batch, such as ``[nn.augment.Shift(2),
            nn.augment.Rotate(10)]``, applied in this order. The samples must be images.
        shuffle : bool
            Whether to shuffle the rows in every epoch, with the network's seed.
        steps_per_epoch : int, optional
            Number of full batches in an epoch, independent of the number of rows: an epoch continues where the last one
            ended, in consecutive passes over the rows. Useful for few rows, where metrics after every pass would be too
            frequent, and for very many rows. Default: one pass over all rows.
        stream : bool, optional
            True copies the rows of `x` to the device in portions, while the device trains on the previous portion.
            False copies all rows before training. Default: stream data that do not fit into the device's memory, and
            files of more than a gigabyte. Results are bit-identical.
        resume : bool or path-like
            True continues from the newest checkpoint in the folder of the callback :class:`nnbackend.Checkpoint`, or
            starts a new run if there is none, so that the same program starts and restarts a run. A folder means the
            newest checkpoint in it. With the same arguments, the results are bit-identical to those of an uninterrupted
            run. `epochs` may be larger. With a different number of ranks, results agree up to rounding.
        on_nan : "stop" or "skip"
            What to do with a step whose loss or gradients are NaN or infinite, or that would make weights or optimiser
            slots NaN or infinite: end the run with an error, or skip the step. With "skip", the metrics of every epoch
            include "skipped", the number of skipped steps; their step losses are NaN. This mode checks the weights
            about ten times a second, and needs memory for a copy of weights and slots. The run ends with an error if
            all steps of an epoch were skipped.
        verbose : bool, optional
            Whether to print a line for each epoch. Default: only if the output is a terminal. Keras's 0, 1, 2 and
            "auto" are taken as well.
        communicator : Communicator, optional
            ``nnbackend.distributed.world()`` divides each batch among the ranks that `mpiexec` started. All ranks call
            `fit` with the same arguments, and get the same network and history as a single rank, up to rounding. Only
            the first rank prints, and calls callbacks that write.
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
            All checkpoints are damaged, or another run is using the folder; nothing was changed.
        OutOfMemoryError
            The memory of the host or the device is too small; the message says what needed it, and what to reduce.
        TrainingDivergedError
            The loss became NaN or infinite. The network has the weights from the start of that epoch.
        DistributedError
            Another rank cannot train; the message has its reason.

        Notes
        -----
        Ctrl-C ends the run after the current step; the history records this, and the network keeps what it has learned.
        With a `Checkpoint`, SIGTERM ends the program after the current step and a last checkpoint, with exit code 143
        (SystemExit).
        """
        # Imported here because training is built on networks.
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
            validation_split=validation_split,
            metrics=metrics,
            train_metrics=train_metrics,
            callbacks=callbacks,
            sample_weight=sample_weight,
            class_weight=class_weight,
            label_smoothing=label_smoothing,
            clip_norm=clip_norm,
            clip_value=clip_value,
            accumulate=accumulate,
            ema=ema,
            augment=augment,
            shuffle=shuffle,
            steps_per_epoch=steps_per_epoch,
            stream=stream,
            resume=resume,
            on_nan=on_nan,
            verbose=verbose,
            communicator=communicator,
            shard=shard,
        )

    @suggests_names
    def train_on_batch(
        self,
        x: Any,
        y: Any,
        *,
        loss: str | Loss | None = None,
        optimizer: Optimizer | None = None,
        sample_weight: Any = None,
        label_smoothing: float = 0.0,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        augment: Augmentation | Sequence[Augmentation] = (),
    ) -> dict[str, float]:
        """Take one step on some rows.

        Parameters
        ----------
        x : (n, *input_shape) array_like
        y : (n,) labels or (n, outputs) values
        loss : str, optional
            As for `fit`; needed only for the first training.
        optimizer : Optimizer, optional
            Default: the last one used for this network, or Adam. The same object continues with its state.
        sample_weight : (n,) array_like, optional
            Weights of the rows; only their ratios matter.
        label_smoothing : float
        clip_norm : float, optional
        clip_value : float, optional
        augment : Augmentation or list of Augmentation
            These as for `fit`; give them with every batch.

        Returns
        -------
        dict
            "loss" (including penalties) and, for targets that are classes, "accuracy" or "binary_accuracy", of these
            rows before the step.

        Raises
        ------
        InvalidInputError, UnknownNameError
            Before anything is changed.
        TrainingDivergedError
            The loss is NaN or infinite. The network has the weights from before this step, or from before the previous
            one if that step broke them; the optimiser starts over.

        Notes
        -----
        The step is recorded once and replayed as long as the number of rows, the types and the options stay the same.
        Learning-rate schedules depend on epochs, which single batches do not count, so the rate stays constant;
        :class:`OneCycle`, whose first rate is not meant to last, is an error.
        """
        from nnbackend.training.batch import train_on_batch

        return train_on_batch(
            self,
            x,
            y,
            loss=loss,
            optimizer=optimizer,
            sample_weight=sample_weight,
            label_smoothing=label_smoothing,
            clip_norm=clip_norm,
            clip_value=clip_value,
            augment=augment,
        )

    # ---- describing and keeping it ---------------------------------------------------------------------------

    def summary(self) -> str:
        """A description of the layers, shapes and numbers of parameters, the backend and its executor, as text."""
        from nnbackend.step.summary import summary

        return summary(self)

    def _repr_html_(self) -> str:
        """The contents of `summary` as a table, for notebooks."""
        from nnbackend.step.summary import summary_html

        return summary_html(self)

    def to_onnx(self, path: str | os.PathLike[str], input_dtype: Any = None) -> None:
        """Write an ONNX file for other runtimes; see :func:`nnbackend.interop.onnx.export`."""
        from nnbackend.interop.onnx import export

        export(self, path, input_dtype)

    def to_c(self, path: str | os.PathLike[str], input_dtype: Any = None) -> None:
        """Write a C99 header for programs without Python; see :func:`nnbackend.interop.c.export`."""
        from nnbackend.interop.c import export

        export(self, path, input_dtype)

    # A recorded step contains views of its buffers, so a copy is built from the configuration.

    def __deepcopy__(self, memo: dict[int, Any]) -> Network:
        made = _remake(self.backend, *self._state())
        if self.loss is not None:
            # A file does not contain the functions of a loss of the user.
            made.use_loss(self.loss)
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        return _remake, (self.backend, *self._state())

    def _state(self) -> tuple[dict[str, Any], tuple[type[Layer], ...], dict[str, HostArray]]:
        return self.config(), tuple({type(layer) for layer in all_layers(self.layers)}), self.get_weights()

    def __repr__(self) -> str:
        inner = ", ".join(repr(layer) for layer in self.layers)
        return f"<Network {self.input_shape} -> [{inner}] on {self.backend.name}, {self.parameter_count:,} parameters>"


def _remake(
    backend: str | Backend, config: dict[str, Any], layers: tuple[type[Layer], ...], weights: dict[str, HostArray]
) -> Network:
    """Restore a network from a copy or a pickle."""
    network = Network.from_config(config, backend, layers)
    network.set_weights(weights)
    return network
