"""A network that predicts and evaluates: the forward pass, the loss that interprets its outputs, and metrics."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

import numpy as np

from nnbackend.backends.contract import Backend, HostArray
from nnbackend.backends.executor import INFINITE, NOTHING, SUSPECT
from nnbackend.data.inputs import scaled_rows
from nnbackend.data.intake import Intake
from nnbackend.data.scale import Inputs, InputScale, input_factor, warn
from nnbackend.errors import InvalidInputError, shown
from nnbackend.layers import Layer, final_activation
from nnbackend.losses import Loss, get_loss
from nnbackend.step.options import StepOptions
from nnbackend.step.prediction import (
    INFERENCE_BATCH,
    CompiledPredictor,
    DirectRows,
    Predictor,
    overflow_explained,
    warn_of_overflow,
)
from nnbackend.step.weights import NetworkWeights
from nnbackend.support.arguments import suggests_names
from nnbackend.support.checks import positive_integer
from nnbackend.support.surroundings import own_error_state

__all__ = ["NetworkInference"]


class NetworkInference(NetworkWeights):
    """Layers and weights that make predictions.

    Parameters
    ----------
    layers, input_shape, backend, seed, dtype
        See :class:`NetworkWeights`.
    input_scale : float, optional
        Factor on the inputs; see :class:`nnbackend.Network`.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        input_shape: int | Sequence[int],
        backend: str | Backend,
        seed: int,
        dtype: Any,
        input_scale: float | None,
    ) -> None:
        self._input_scale: float | None = None
        #: The inputs of the last training.
        self.trained_with: Inputs | None = None
        #: Older versions scaled uint8 by 1/255 and nothing else, in every call. Their files say so by leaving it open.
        self.scaled_by_dtype = False
        self._loss: Loss | None = None
        self._multilabel = False
        #: What the steps of the last training do besides the update.
        self.step_options = StepOptions()
        self._direct: tuple[Any, DirectRows] | None = None
        super().__init__(layers, input_shape, backend, seed, dtype)
        self.input_scale = input_scale

    @property
    def input_scale(self) -> float | None:
        """The factor on the inputs, whatever their dtype. None until it is given or the first training decides it.

        Raises
        ------
        InvalidInputError
            When set: it is 0 or not finite, or the network was trained with another factor.
        """
        return self._input_scale

    @input_scale.setter
    def input_scale(self, value: float | None) -> None:
        factor = None if value is None else input_factor(value, self.dtype)
        if self.trained_with is not None and factor != self._input_scale:
            raise InvalidInputError(
                f"the network was trained with input_scale={self._input_scale:g}, which belongs to its weights; "
                f"create a new network for input_scale={value}"
            )
        self._input_scale = factor

    @property
    def input_description(self) -> str | None:
        """What the network was trained with, such as "uint8 images, scaled by 1/255; 10 classes"; None before."""
        return None if self.trained_with is None else self.trained_with.description

    @property
    def scale(self) -> InputScale:
        """Determines the factor on inputs."""
        return InputScale(self._input_scale, self.input_shape, self.scaled_by_dtype)

    def keep_inputs(self, inputs: Inputs, factor: float) -> None:
        """Note what the network is trained with. From then on, the factor on its inputs is fixed."""
        self._input_scale, self.scaled_by_dtype, self.trained_with = factor, False, inputs

    @property
    def decisions(self) -> tuple[Any, ...]:
        """What training decides before its first step, for `take_back`."""
        return self._loss, self._multilabel, self._input_scale, self.scaled_by_dtype, self.trained_with

    def take_back(self, decisions: tuple[Any, ...]) -> None:
        """Restore earlier `decisions`, because no step followed."""
        loss, self._multilabel, self._input_scale, self.scaled_by_dtype, self.trained_with = decisions
        if loss != self._loss:
            self._loss = loss
            self._predictor = Predictor(self._model, loss)

    def _place(self, backend: Backend, weights: Mapping[str, HostArray] | None) -> None:
        super()._place(backend, weights)
        # Earlier recordings use the old buffers.
        self._predictor = Predictor(self._model, self.loss)

    @property
    def loss(self) -> Loss | None:
        """The loss of the last training, which determines how outputs are converted to predictions. Setting it is the
        same as `set_loss`."""
        return self._loss

    @loss.setter
    def loss(self, loss: str | Loss) -> None:
        self.set_loss(get_loss(loss))

    def predict(self, x: Any, batch_size: int | None = None) -> HostArray:
        """Predictions for every row.

        Parameters
        ----------
        x : (n, *input_shape) array_like
            Of any dtype, in the units of the training data; they are scaled as those were. Memory-mapped files, HDF5
            and sparse matrices are read batch by batch.
        batch_size : int, optional
            Rows at a time.

        Returns
        -------
        (n, outputs) array of the network's dtype, on the host
            Probabilities for a network trained with softmax or sigmoid cross-entropy, otherwise the outputs.
        """
        outputs, flags = self._predicted(x, batch_size)
        if flags & INFINITE:
            warn_of_overflow(outputs)
        return outputs

    def predict_unchecked(self, x: Any, batch_size: int | None = None) -> HostArray:
        """As `predict`, without its warning about predictions that are not finite."""
        return self._predicted(x, batch_size)[0]

    def predict_directly(self, x: Any) -> HostArray | None:
        """As `predict_unchecked`, without any check of `x` that takes time; None if it must be checked first.

        Rows are read where they are if `x` is a contiguous, writeable NumPy array of (n, features) bytes or real
        numbers, and the backend can. Others must be checked, and also those that turn out to hold NaN or infinity, or
        that overflow.
        """
        found = self._at_once(x)
        return None if found is None or found[1] & (NOTHING | SUSPECT) else self._shaped(found[0])

    def _predicted(self, x: Any, batch_size: int | None) -> tuple[HostArray, int]:
        """Predictions, and the flag INFINITE if some are not finite."""
        found = self._at_once(x) if batch_size is None else None
        if found is not None:
            outputs, flags = found
            if flags & (NOTHING | SUSPECT):
                with own_error_state():
                    # Raises an error if the rows hold NaN or infinity.
                    self.intake.rows(x)
            if not flags & NOTHING:
                return self._shaped(outputs), flags
        with own_error_state():
            rows = self.intake.rows(x)
            size = INFERENCE_BATCH if batch_size is None else positive_integer("batch_size", batch_size)
            size = min(rows.count, size)
            outputs = self._room_for_outputs(rows.count)
            for start in range(0, rows.count, size):
                part = scaled_rows(rows.part(start, start + size), rows.scale, self.dtype)
                outputs[start : start + size] = self._predictor(part)
        return self._shaped(outputs), 0 if np.isfinite(outputs).all() else INFINITE

    def _at_once(self, x: Any) -> tuple[HostArray, int] | None:
        """Outputs, (n, outputs), for rows that are read where they are, and flags; None if they cannot be."""
        found = self._direct_rows().matrix(x)
        if found is None:
            return None
        rows, scale = found
        outputs = self._room_for_outputs(len(rows))
        flags = self._predictor.run(rows, scale, outputs)
        return None if flags is None else (outputs, flags)

    def _direct_rows(self) -> DirectRows:
        """Which rows are read where they are, as long as nothing changes on which that depends."""
        key = self._predictor, self._input_scale, self.trained_with, self.scaled_by_dtype
        if self._direct is None or self._direct[0] != key:
            self._direct = key, DirectRows(self.intake)
        return self._direct[1]

    def _shaped(self, outputs: HostArray) -> HostArray:
        return outputs if len(self.output_shape) == 1 else outputs.reshape(len(outputs), *self.output_shape)

    def compile_predictor(self, batch_size: int = 1) -> CompiledPredictor:
        """A function that predicts a fixed number of rows in the shortest time, for services.

        It has a snapshot of the weights and of everything else that predictions depend on, so later training does not
        change it; compile another one to use new weights. All checks that depend only on the network are made here, and
        kernels are compiled here, so that the first call takes no longer than others.

        Parameters
        ----------
        batch_size : int
            The number of rows of each call.

        Returns
        -------
        CompiledPredictor
            Called with ``(batch_size, *input_shape)`` rows, it returns what `predict` returns for them, with the same
            bits, in a new array.

        Raises
        ------
        InvalidInputError
            `batch_size` is not a positive whole number.
        OutOfMemoryError
            There is no memory for a copy of the weights.

        Notes
        -----
        Any number of threads may call it at the same time, also while the network is being trained. On Numba they run
        in parallel, without Python's global lock, each on its own buffers. On other backends they take turns.
        """
        size = positive_integer("batch_size", batch_size)
        return CompiledPredictor(self._model, self.loss, self.intake, size)

    def _room_for_outputs(self, rows: int) -> HostArray:
        shape = (rows, math.prod(self.output_shape))
        try:
            return np.empty(shape, self.dtype)
        except (MemoryError, ValueError) as error:
            raise InvalidInputError(
                f"there is no memory for the predictions of {rows:,} rows, {shape} {self.dtype}; give fewer at a time"
            ) from error

    def predict_classes(self, x: Any, batch_size: int | None = None) -> HostArray:
        """The classes of every row.

        Parameters
        ----------
        x, batch_size
            As for `predict`.

        Returns
        -------
        (n,) or (n, outputs) int64
            The most likely class of each row; for a single output, 0 or 1. If `multilabel`, 1 for every output whose
            probability is above 0.5, and 0 for the others.

        Raises
        ------
        InvalidInputError
            The network was trained on numbers, not on classes.
        """
        self.check_predicts_classes()
        # Metrics are imported when a network is used, so that this package is imported quickly.
        from nnbackend.metrics.labels import classes_of

        return classes_of(self.predict(x, batch_size), self.predicts_several)

    def check_predicts_classes(self) -> None:
        """Raise `InvalidInputError` if the network was trained on numbers, not on classes."""
        regression = self.loss is not None and not self.loss.takes_probabilities
        if regression and self.trained_with is not None and self.trained_with.numbers_predicted:
            raise InvalidInputError(
                f"the network was trained on numbers ({self.trained_with.description}), so it predicts no classes; "
                "predict(x) returns its outputs. For classes, train it with class numbers or one-hot rows as y"
            )

    @suggests_names
    def evaluate(
        self,
        x: Any,
        y: Any = None,
        *,
        loss: str | Loss | None = None,
        sample_weight: Any = None,
        batch_size: int | None = None,
        metrics: Sequence[Any] = (),
    ) -> dict[str, float]:
        """Loss and metrics over some data.

        Parameters
        ----------
        x : (n, *input_shape) array_like, or BatchStream
        y : (n,) labels or (n, outputs) values
            Omitted for a stream, which contains the targets.
        loss : str, optional
            Default: the loss of the last training.
        sample_weight : (n,) array_like, optional
        batch_size : int, optional
            Rows at a time.
        metrics : sequence of str, callable or Metric
            More metrics, as for :meth:`nnbackend.Network.fit`, weighted with `sample_weight`.

        Returns
        -------
        dict
            "loss" (including L1 and L2 penalties, and weighted with `sample_weight`) and, if the targets are classes,
            "accuracy". If a row may have several labels, each of which is right or wrong, it is "binary_accuracy". Both
            are without weights. Then follow `metrics` by name.
        """
        from nnbackend.metrics import check_metrics
        from nnbackend.step.evaluation import Evaluator, metrics_for

        chosen, asked = self.resolve_loss(loss), check_metrics(metrics)
        size = INFERENCE_BATCH if batch_size is None else positive_integer("batch_size", batch_size)
        with own_error_state():
            feed = self.intake.feed(x, y, chosen, size, sample_weight=sample_weight)
            with closing(feed):
                others = metrics_for(feed, asked, math.prod(self.output_shape), feed.sample_weight is not None, chosen)
                evaluator = Evaluator(self._model, chosen, feed, size, predicts=bool(others))
                value, correct = evaluator.run()
                rows = evaluator.predictions() if others else None
            found = {"loss": value + self.penalty()}
            if not math.isfinite(found["loss"]):
                warn(f"the loss is {found['loss']}: {overflow_explained(self.dtype)}")
        if feed.accuracy_name is not None:
            found[feed.accuracy_name] = correct
        return found if rows is None else {**found, **others(rows)}

    @property
    def intake(self) -> Intake:
        """Checks data for this network and makes feeds of them."""
        several = self.predicts_several
        return Intake(
            self.backend, self.input_shape, self.output_shape, self.dtype, self.scale, self.trained_with, several
        )

    @property
    def multilabel(self) -> bool:
        """Whether a row may have any number of labels, so that `predict_classes` returns a 0 or 1 for every output.

        It has an effect only with sigmoid cross-entropy on several outputs. Training with (n, outputs) targets that are
        not one-hot sets it to True, class indices set it to False, and one-hot targets leave it. Set it to True before
        training if the targets may be one-hot by chance. It is saved with the network.
        """
        return self._multilabel

    @multilabel.setter
    def multilabel(self, value: bool) -> None:
        if not isinstance(value, bool | np.bool_):
            raise InvalidInputError(f"multilabel must be True or False, received {shown(value)}")
        self._multilabel = bool(value)

    @property
    def predicts_several(self) -> bool:
        """Whether predictions are any number of labels; before the first training, the loss is unknown."""
        outputs = math.prod(self.output_shape)
        return self._multilabel and (self.loss is None or self.loss.takes_several_labels(outputs))

    def set_loss(self, loss: str | Loss) -> Loss:
        """Set the loss, which also determines how predictions are computed.

        Raises
        ------
        UnknownNameError
            There is no such loss.
        InvalidInputError
            The last layer applies the activation that the loss applies itself, or the network is being trained with
            another loss.
        """
        chosen = self.resolve_loss(loss)
        if chosen != self.loss:
            if self._training:
                raise InvalidInputError("the network is being trained with its loss; set another one after fit")
            self.use_loss(chosen)
        return chosen

    def use_loss(self, loss: Loss) -> None:
        """Set a loss that `resolve_loss` returned; training does this itself."""
        if loss != self.loss:
            self._loss = loss
            self._predictor = Predictor(self._model, loss)

    def resolve_loss(self, loss: str | Loss | None) -> Loss:
        """The loss with that name, or that of the last training, if it is compatible with the last layer; see
        `set_loss`."""
        if loss is None:
            if self.loss is None:
                raise InvalidInputError("the network was not trained yet, so say which loss: evaluate(x, y, loss=...)")
            return self.loss
        chosen = get_loss(loss)
        chosen.check_outputs(math.prod(self.output_shape))
        applied = chosen.output_activation
        if chosen.shares_target and final_activation(self.layers) == "softmax":
            raise InvalidInputError(
                f"{chosen!r} predicts numbers of any size, but the softmax of the last layer makes its outputs "
                "probabilities, whose sum is 1; leave its activation out"
            )
        if applied != "identity" and final_activation(self.layers) == applied:
            raise InvalidInputError(
                f"{chosen.name} applies {applied} itself (which is stable for large outputs), but the last layer "
                "does too; leave its activation out"
            )
        return chosen
