"""Loss and accuracy of a network over the rows of a feed."""

from __future__ import annotations

import numpy as np

from nnbackend.backends.contract import Executor
from nnbackend.data.batches import Batches, Slice
from nnbackend.data.feed import Feed
from nnbackend.losses import Loss
from nnbackend.step.recorder import Model, record_evaluation
from nnbackend.step.replay import Replay

__all__ = ["Evaluator"]


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

    Attributes
    ----------
    count : int
        Number of rows to evaluate.
    """

    def __init__(
        self, model: Model, loss: Loss, feed: Feed, batch_size: int, part: tuple[int, int] | None = None
    ) -> None:
        begin, end = (0, feed.count) if part is None else part
        self.count = end - begin
        batches = Batches(self.count, max(1, min(batch_size, self.count)))
        self._feed = feed
        self._order = np.arange(begin, end, dtype=np.int64)
        self._replay = replay = Replay(model, batches, training=False, feed=feed)
        replay.write_order(feed.places(self._order))

        def make_executor(piece: Slice) -> Executor:
            recorder = replay.recorder(piece)
            record_evaluation(recorder, feed.examples, replay.order, batches.size, loss, replay.trace)
            return model.backend.executor(recorder.calls)

        replay.record(make_executor)

    def run(self) -> tuple[float, float]:
        """The mean loss (without penalties) and the share of correct predictions."""
        loss, correct = self.sums()
        return loss / self.count, correct / self.count

    def sums(self) -> tuple[float, float]:
        """The sums of the losses and of the correct predictions over the rows."""
        if self.count == 0:
            return 0.0, 0.0
        self._replay.count_from(0)
        self._feed.begin(self._order, 0)
        self._replay.run()
        loss, correct, _ = self._replay.read_trace().sum(axis=0)
        return float(loss), float(correct)
