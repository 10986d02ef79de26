"""Evaluates the validation data after every epoch, a part on each rank."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

from nnbackend.data.batch_stream import BatchStream
from nnbackend.data.batches import part_of
from nnbackend.data.feed import Feed
from nnbackend.data.weights import Exchange
from nnbackend.distributed.communicator import Communicator
from nnbackend.errors import InvalidInputError
from nnbackend.losses import Loss
from nnbackend.metrics import MetricSet, Predictions, check_metrics
from nnbackend.network import Network
from nnbackend.step.evaluation import Evaluator, metrics_for, try_metrics
from nnbackend.step.recordings import Recordings
from nnbackend.support.checks import flag
from nnbackend.support.surroundings import callers_error_state

__all__ = ["TrainingMetrics", "Validator", "make_metrics", "settle_kind", "validation_feed"]

_UNWEIGHTED = "val_loss_unweighted"
_BATCH = 1024


class Validator:
    """Evaluates the validation data.

    Parameters
    ----------
    network : Network
    loss : Loss
    feed : Feed
        Brings the rows.
    communicator : Communicator
    shard : bool
        Whether this rank's rows are its own; otherwise all ranks have the same rows, and each takes a part of them. A
        stream cannot be split, so all ranks evaluate all of its rows.
    weighted : bool
        Whether the rows have different weights on any rank, so that the loss is reported without weights, too.
    metrics : MetricSet
        Those that the user asks for.

    Attributes
    ----------
    names : list of str
        Names of the metrics.
    """

    def __init__(
        self,
        network: Network,
        loss: Loss,
        feed: Feed,
        communicator: Communicator,
        shard: bool,
        weighted: bool,
        metrics: MetricSet,
    ) -> None:
        pieces = feed.streams
        part = None if pieces else _part_of_rank(feed, communicator, shard)
        self._metrics = metrics
        self._accuracy_name = None if feed.accuracy_name is None else f"val_{feed.accuracy_name}"
        self._weighted = weighted
        names = ["val_loss", _UNWEIGHTED if weighted else None, self._accuracy_name]
        self.names = [*(name for name in names if name is not None), *(f"val_{name}" for name in metrics.names)]
        self._communicator, self._alike = communicator, pieces and not shard
        self._make = partial(Evaluator, network.model, loss, feed, _BATCH, part, weighted, predicts=bool(metrics))
        self._evaluator: Evaluator | None = None

    def record(self, recordings: Recordings | None = None) -> Evaluator:
        """Record the evaluation, which allocates its buffers."""
        if self._evaluator is None:
            self._evaluator = self._make(recordings=recordings)
        return self._evaluator

    def release(self) -> None:
        """Make the recorded evaluation available to others, after the last run."""
        self.record().release()

    @property
    def apart(self) -> bool:
        """Whether another thread may evaluate; not where functions of the user are called."""
        return self.record().apart and not self._metrics

    def run(self, penalty: float) -> dict[str, float]:
        """The metrics over the rows of all ranks.

        Parameters
        ----------
        penalty : float
            The penalties of the weights, which are added to the losses.
        """
        sums = self.record().sums()
        if not self._alike:
            self._communicator.allreduce(sums.values)
        loss, correct, unweighted = sums.means()
        metrics = {"val_loss": loss + penalty}
        if self._weighted:
            metrics[_UNWEIGHTED] = unweighted + penalty
        if self._accuracy_name is not None:
            metrics[self._accuracy_name] = correct
        if self._metrics:
            metrics |= _computed(self._metrics, self.record(), self._communicator, "val_")
        return metrics


class TrainingMetrics:
    """The metrics of the training rows after an epoch, with the weights that it ended with.

    Parameters
    ----------
    network : Network
    loss : Loss
    feed : Feed
        Brings the training rows; each run passes over them once more.
    communicator : Communicator
    shard : bool
        As of :class:`Validator`.
    metrics : MetricSet
    """

    def __init__(
        self, network: Network, loss: Loss, feed: Feed, communicator: Communicator, shard: bool, metrics: MetricSet
    ) -> None:
        self.names = metrics.names
        self._metrics, self._communicator = metrics, communicator
        part = _part_of_rank(feed, communicator, shard)
        self._make = partial(Evaluator, network.model, loss, feed, feed.portion_batch or _BATCH, part, predicts=True)
        self._evaluator: Evaluator | None = None

    def run(self) -> dict[str, float]:
        """The metrics over the rows of all ranks."""
        if self._evaluator is None:
            self._evaluator = self._make()
        self._evaluator.sums()
        return _computed(self._metrics, self._evaluator, self._communicator, "")


def _part_of_rank(feed: Feed, communicator: Communicator, shard: bool) -> tuple[int, int] | None:
    """The range of rows that this rank evaluates; None for all."""
    if communicator.size == 1 or shard:
        return None
    return part_of(feed.count, communicator.rank, communicator.size)


def _computed(metrics: MetricSet, evaluator: Evaluator, communicator: Communicator, prefix: str) -> dict[str, float]:
    """Metrics of the rows of all ranks. Functions of the user get the error state that they expect."""
    rows = Predictions.joined(communicator.gather(evaluator.predictions()))
    with callers_error_state():
        return metrics(rows, prefix)


def make_metrics(
    network: Network,
    loss: Loss,
    metrics: Any,
    train_metrics: Any,
    feeds: tuple[Feed, Feed | None],
    communicator: Communicator,
    shard: bool,
    exchange: Exchange,
) -> tuple[Validator | None, TrainingMetrics | None]:
    """What computes the metrics of the validation data and, if they are asked for, of the training rows.

    Parameters
    ----------
    network : Network
    loss : Loss
    metrics, train_metrics
        The arguments of `fit`.
    feeds : (Feed, Feed or None)
        The training rows and the validation data.
    communicator : Communicator
    shard : bool
    exchange : callable
        For ranks that have rows of their own.

    Raises
    ------
    InvalidInputError, UnknownNameError
        The metrics do not suit the targets, or there are no rows to compute them on.
    """
    feed, held_out = feeds
    asked, on_training = check_metrics(metrics), flag("train_metrics", train_metrics)
    outputs = math.prod(network.output_shape)
    if asked and held_out is None and not on_training:
        raise InvalidInputError(
            "metrics are computed on validation data: give validation_data, or train_metrics=True for those of the "
            "training data"
        )
    if on_training and not asked:
        raise InvalidInputError("train_metrics=True needs metrics, such as metrics=['f1']")
    validator = training_metrics = None
    if held_out is not None:
        wanted = metrics_for(held_out, asked, outputs, any(exchange(held_out.sample_weight is not None)), loss)
        with callers_error_state():
            try_metrics(wanted, held_out, outputs, exchange)
        weighted = any(exchange(held_out.weighted))
        validator = Validator(network, loss, held_out, communicator, shard, weighted, wanted)
    if on_training:
        # The functions were tried on the validation data, if there are any.
        wanted = metrics_for(feed, asked, outputs, any(exchange(feed.sample_weight is not None)), loss)
        if held_out is None:
            with callers_error_state():
                try_metrics(wanted, feed, outputs, exchange)
        training_metrics = TrainingMetrics(network, loss, feed, communicator, shard, wanted) if wanted else None
    return validator, training_metrics


def validation_feed(network: Network, loss: Loss, data: Any, training: Feed, exchange: Exchange) -> Feed | None:
    """A feed for what the caller gave as `validation_data`.

    Parameters
    ----------
    network : Network
    loss : Loss
    data : (x, y), (x, y, sample_weight), BatchStream or None
    training : Feed
        Of the training rows, whose factor on the inputs and class weights are those of the validation data, too.
    exchange : callable
        For ranks that have rows of their own.

    Raises
    ------
    InvalidInputError
        The data do not fit the network or the loss.
    """
    if data is None:
        return None
    given = (data, None) if isinstance(data, BatchStream) else data
    if not isinstance(given, tuple | list) or len(given) not in (2, 3):
        raise InvalidInputError("validation_data must be (x, y), (x, y, sample_weight), or a BatchStream")
    x, y, *weights = given
    try:
        return network.intake.fixed(training.examples.scale, training.describe()).feed(
            x,
            y,
            loss,
            _BATCH,
            sample_weight=weights[0] if weights else None,
            class_weight=training.class_weights,
            exchange=exchange,
        )
    except InvalidInputError as error:
        raise InvalidInputError(f"validation_data: {error}") from None


def settle_kind(feeds: Sequence[Feed], exchange: Exchange) -> bool:
    """Whether the network learns to predict several labels for a row; makes all feeds count them.

    One-hot rows of some data do not tell whether a row may have several labels, if rows of other data do.

    Parameters
    ----------
    feeds : sequence of Feed
        Of the training rows and, if given, the validation data; nothing has been recorded for them.
    exchange : callable
        For ranks that have rows of their own.

    Raises
    ------
    InvalidInputError
        The training rows have class indices, and other rows several labels or none.
    """
    kinds = exchange([feed.kind for feed in feeds])
    if not any("multilabel" in each for each in kinds):
        return False
    if any(each[0] == "labels" for each in kinds):
        raise InvalidInputError(
            "y has one class for each row, but rows of validation_data or of another rank have several labels or none; "
            "give all targets in the same form: class indices, or zeros and ones for every class"
        )
    for feed in feeds:
        feed.count_labels()
    return True
