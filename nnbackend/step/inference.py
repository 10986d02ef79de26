"""A network that predicts and evaluates: the forward pass, the loss that interprets its outputs, and metrics."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

import numpy as np

from nnbackend.backends.contract import Backend, HostArray
from nnbackend.data.inputs import scaled_rows
from nnbackend.data.intake import Intake
from nnbackend.data.rows import as_rows
from nnbackend.errors import InvalidInputError
from nnbackend.layers import Layer, final_activation
from nnbackend.losses import Loss, get_loss
from nnbackend.step.evaluation import Evaluator
from nnbackend.step.prediction import Predictor
from nnbackend.step.weights import NetworkWeights
from nnbackend.support.checks import number, positive_integer

__all__ = ["NetworkInference"]

#: Default number of rows per batch for predictions and evaluations.
_INFERENCE_BATCH = 1024


class NetworkInference(NetworkWeights):
    """Layers and weights that make predictions.

    Parameters
    ----------
    layers, input_shape, backend, seed, dtype
        See :class:`NetworkWeights`.
    input_scale : float, optional
        Factor on the inputs. Default: 1/255 for uint8 inputs (images), 1 for others.
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
        self.input_scale = _checked_scale(input_scale)
        self._loss: Loss | None = None
        super().__init__(layers, input_shape, backend, seed, dtype)

    def _change(self, name: str, value: Any) -> Any:
        # It is read for every batch and every prediction.
        return _checked_scale(value) if name == "input_scale" else super()._change(name, value)

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
            uint8, or numbers with the same scale as in training. Memory-mapped files and HDF5 are read batch by batch.
        batch_size : int, optional
            Rows at a time.

        Returns
        -------
        (n, outputs) array of the network's dtype, on the host
            Probabilities for a network trained with softmax or sigmoid cross-entropy, otherwise the outputs.
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
        """The most likely class of every row, (n,) int64; for a single output, 0 or 1."""
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
        loss: str | Loss | None = None,
        sample_weight: Any = None,
        batch_size: int | None = None,
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

        Returns
        -------
        dict
            "loss" (including L1 and L2 penalties) and, if the targets are classes, "accuracy". For sigmoid
            cross-entropy on several outputs, each of which is right or wrong, it is "binary_accuracy".
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

    @property
    def intake(self) -> Intake:
        """Checks data for this network and makes feeds of them."""
        return Intake(self.backend, self.input_shape, self.output_shape, self.dtype, self.input_scale)

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
        if applied != "identity" and final_activation(self.layers) == applied:
            raise InvalidInputError(
                f"{chosen.name} applies {applied} itself (which is stable for large outputs), but the last layer "
                "does too; leave its activation out"
            )
        return chosen


def _checked_scale(scale: Any) -> float | None:
    return None if scale is None else number("input_scale", scale)
