"""Loss and accuracy of a network over the rows of a feed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from nnbackend.backends.contract import Executor, HostArray
from nnbackend.data.batches import Batches, Slice
from nnbackend.data.feed import Feed
from nnbackend.data.weights import Exchange, only_here
from nnbackend.errors import InvalidInputError
from nnbackend.losses import Loss
from nnbackend.metrics import MetricSet, Predictions
from nnbackend.metrics.formulas import Task
from nnbackend.metrics.labels import classes_of
from nnbackend.step.recorder import Model, record_evaluation
from nnbackend.step.recordings import Borrowed, Recordings
from nnbackend.step.replay import Replay

__all__ = ["Evaluator", "Sums", "metrics_for", "try_metrics"]


class Evaluator:
    """Evaluates a network repeatedly on the rows of a feed.

    Parameters
    ----------
    model : Model
    loss : Loss
    feed : Feed
        Provides the rows.
    batch_size : int
        Rows per batch; limits the memory used.
    part : (first, last + 1), optional
        The range of rows to evaluate. Default: all rows.
    unweighted : bool
        Whether to compute the losses without weights, too.
    recordings : Recordings, optional
        May have a recorded evaluation.
    predicts : bool
        Whether to keep the predictions, too.

    Attributes
    ----------
    count : int
        Number of rows to evaluate.
    """

    def __init__(
        self,
        model: Model,
        loss: Loss,
        feed: Feed,
        batch_size: int,
        part: tuple[int, int] | None = None,
        unweighted: bool = False,
        recordings: Recordings | None = None,
        predicts: bool = False,
    ) -> None:
        begin, end = (0, feed.count) if part is None else part
        self.count = end - begin
        batches = Batches(self.count, max(1, min(batch_size, self.count)))
        self._feed = feed
        self._order = np.arange(begin, end, dtype=np.int64)
        self._second = model.backend.empty((batches.steps, 3), np.float64) if unweighted else None
        outputs = math.prod(model.layout.nodes[-1].output_shape)
        self._predictions = model.backend.empty((self.count, outputs), model.dtype) if predicts else None
        self._part = slice(begin, end)
        self._backend = model.backend

        def make() -> Replay:
            replay = Replay(model, batches, training=False, feed=feed)

            def make_executor(piece: Slice) -> Executor:
                recorder = replay.recorder(piece)
                buffers = (replay.trace, self._second, self._predictions)
                record_evaluation(recorder, feed.examples, replay.order, batches.size, loss, *buffers)
                return model.backend.executor(recorder.calls)

            replay.record(make_executor)
            return replay

        # The second trace and the predictions belong to this object.
        shared = None if unweighted or predicts else recordings
        self._borrowed = Borrowed(shared, model, feed, batches, ("evaluation", loss), [], make)
        self._replay = self._borrowed.replay
        self._replay.write_order(feed.places(self._order))

    def release(self) -> None:
        """Make the recorded evaluation available to others; this object must no longer be used."""
        self._borrowed.release()

    @property
    def apart(self) -> bool:
        """Whether another thread may run it beside other executors."""
        return self._replay.apart

    def run(self) -> tuple[float, float]:
        """The weighted mean of the losses (without penalties), and the share of correct predictions."""
        return self.sums().means()[:2]

    def predictions(self) -> Predictions:
        """Targets and predictions of the rows, after `run` or `sums`."""
        weights = self._feed.sample_weight
        assert self._predictions is not None
        predicted = self._backend.to_host(self._predictions)
        true = _true(self._feed, self._part)
        own = None if weights is None else weights[self._part]
        return Predictions(true, predicted, classes_of(predicted, self._feed.accuracy_name == "binary_accuracy"), own)

    def sums(self) -> Sums:
        """The sums over the rows."""
        if self.count == 0:
            return Sums(np.zeros(5))
        self._replay.count_from(0)
        self._feed.begin(self._order, 0)
        self._replay.run()
        loss, correct, _ = self._replay.read_trace().sum(axis=0)
        plain = loss if self._second is None else self._backend.to_host(self._second)[:, 0].sum()
        total = self._feed.weight_total
        return Sums(np.array([loss, correct, plain, self.count if total is None else total, self.count], np.float64))


class Sums:
    """Sums over evaluated rows.

    Parameters
    ----------
    values : (5,) float64
        The sums of the weighted losses, of the correct predictions, of the losses without weights, and of the weights;
        and the number of rows. Those of several ranks may be added.
    """

    def __init__(self, values: HostArray) -> None:
        self.values = values

    def means(self) -> tuple[float, float, float]:
        """The weighted mean of the losses, the share of correct predictions, and the plain mean of the losses.

        Raises
        ------
        InvalidInputError
            The weights of a stream are all zero; those of arrays were checked before.
        """
        loss, correct, plain, weight, rows = self.values.tolist()
        if weight == 0:
            raise InvalidInputError("all weights of the stream are zero; at least one row must count")
        return loss / weight, correct / rows, plain / rows


def _true(feed: Feed, part: slice) -> HostArray:
    """The targets of rows as metrics take them."""
    targets = feed.targets
    assert targets is not None
    if feed.accuracy_name == "binary_accuracy":
        return (targets.values[part] > 0.5).astype(np.int64)
    if targets.accuracy_name is not None:
        assert targets.labels is not None
        return targets.labels[part].astype(np.int64)
    true: HostArray = targets.values[part]
    return true[:, 0] if true.shape[1] == 1 else true


def try_metrics(metrics: MetricSet, feed: Feed, outputs: int, exchange: Exchange = only_here) -> None:
    """Call the functions among metrics once, with predictions that are right: an error then comes before training.

    Parameters
    ----------
    metrics : MetricSet
    feed : Feed
        The rows on which they will be computed.
    outputs : int
        The network's.
    exchange : callable
        For ranks that have rows of their own. The metrics are those of all rows, so the functions are called with all
        of them: a function may fail for the rows of one rank, for example if they have only one class.

    Raises
    ------
    InvalidInputError
        A function returns something else than a number; errors of the function are not changed.
    """
    own = (_true(feed, slice(None)), feed.sample_weight) if metrics.has_functions else None
    # Also if there are no functions: ranks whose metrics differ are told so later.
    rows = [each for each in exchange(own) if each is not None]
    if not metrics.has_functions:
        return
    true = np.concatenate([labels for labels, _ in rows])
    weights = [each for _, each in rows if each is not None]
    if feed.accuracy_name == "binary_accuracy":
        predicted, classes = true.astype(np.float32), true
    elif feed.accuracy_name is not None:
        predicted, classes = np.eye(max(outputs, 2), dtype=np.float32)[true], true
        predicted = predicted[:, 1:] if outputs == 1 else predicted
    else:
        columns = true.reshape(len(true), -1)
        if columns.shape[1] != outputs:
            # Quantiles of one target, or a loss of the user's own.
            columns = np.repeat(columns[:, :1], outputs, axis=1)
        predicted = classes = np.array(columns)
    metrics.try_functions(Predictions(true, predicted, classes, np.concatenate(weights) if weights else None))


def metrics_for(feed: Feed, metrics: Sequence[Any], outputs: int, weighted: bool, loss: Loss) -> MetricSet:
    """The metrics that a user asks for, as they apply to the rows of a feed.

    Parameters
    ----------
    feed : Feed
    metrics : sequence of Metric or str
        As :func:`nnbackend.metrics.check_metrics` returns them.
    outputs : int
        The network's.
    weighted : bool
        Whether rows have weights.
    loss : Loss
        Says which output is compared with the target, if several predict the same one.

    Raises
    ------
    InvalidInputError
        They do not suit the targets or the loss, or the rows are those of a stream.
    """
    if metrics and feed.targets is None:
        raise InvalidInputError(
            "metrics need all rows at once, and a BatchStream brings them piece by piece; give arrays, or leave out "
            "metrics"
        )
    tasks: dict[str | None, Task] = {"accuracy": "classes", "binary_accuracy": "labels", None: "numbers"}
    reported = [] if feed.accuracy_name is None else [feed.accuracy_name]
    column = loss.compared_output if loss.shares_target else None
    named = next((each for each in metrics if isinstance(each, str)), None)
    if loss.shares_target and column is None and named is not None:
        raise InvalidInputError(
            f"the metric {named!r} compares predictions with targets, but none of the outputs of {loss!r} predicts the "
            "median; add the level 0.5, or give a function of the target and all quantiles"
        )
    return MetricSet(metrics, tasks[feed.accuracy_name], outputs, weighted, reported, column)
