"""Loss and accuracy of a network over the rows of a feed."""

from __future__ import annotations

import numpy as np

from nnbackend.backends.contract import Executor, HostArray
from nnbackend.data.batches import Batches, Slice
from nnbackend.data.feed import Feed
from nnbackend.errors import InvalidInputError
from nnbackend.losses import Loss
from nnbackend.step.recorder import Model, record_evaluation
from nnbackend.step.recordings import Borrowed, Recordings
from nnbackend.step.replay import Replay

__all__ = ["Evaluator", "Sums"]


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
    ) -> None:
        begin, end = (0, feed.count) if part is None else part
        self.count = end - begin
        batches = Batches(self.count, max(1, min(batch_size, self.count)))
        self._feed = feed
        self._order = np.arange(begin, end, dtype=np.int64)
        self._second = model.backend.empty((batches.steps, 3), np.float64) if unweighted else None
        self._backend = model.backend

        def make() -> Replay:
            replay = Replay(model, batches, training=False, feed=feed)

            def make_executor(piece: Slice) -> Executor:
                recorder = replay.recorder(piece)
                record_evaluation(recorder, feed.examples, replay.order, batches.size, loss, replay.trace, self._second)
                return model.backend.executor(recorder.calls)

            replay.record(make_executor)
            return replay

        # The second trace belongs to this object.
        shared = None if unweighted else recordings
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
