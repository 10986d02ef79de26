"""Loss and metrics of a network over data that lies on the device."""

from __future__ import annotations

import numpy as np

from nnbackend.backends.contract import Executor, HostArray
from nnbackend.data.feeds import Feed
from nnbackend.losses import Loss
from nnbackend.step.recorder import Model, Recorder, Workspace, record_evaluation

__all__ = ["Batches", "Evaluator"]


class Batches:
    """How an epoch over `count` rows is cut: full batches, and a shorter last one if they do not come out even.

    Attributes
    ----------
    size : int
        Rows of a full batch.
    full : int
        Number of full batches.
    rest : int
        Rows of the last, shorter batch; 0 if there is none.
    """

    def __init__(self, count: int, size: int) -> None:
        self.size = size
        self.full, self.rest = divmod(count, size)

    @property
    def steps(self) -> int:
        """Number of batches."""
        return self.full + (self.rest > 0)

    @property
    def kinds(self) -> list[tuple[int, int]]:
        """(rows, how many) of the full batches and, if there is one, of the last."""
        return [(rows, count) for rows, count in ((self.size, self.full), (self.rest, 1)) if rows and count]


class Evaluator:
    """Replays a recorded evaluation over all rows of some examples.

    Parameters
    ----------
    model : Model
    loss : Loss
    feed : Feed
        Brings the rows.
    batch_size : int
        Rows at a time; limits the memory taken.
    part : (first, last + 1), optional
        Of the rows those that count; all if not given.

    Attributes
    ----------
    count : int
        How many rows count.
    """

    def __init__(
        self, model: Model, loss: Loss, feed: Feed, batch_size: int, part: tuple[int, int] | None = None
    ) -> None:
        backend = model.backend
        begin, end = (0, feed.count) if part is None else part
        self.count = end - begin
        batches = Batches(self.count, max(1, min(batch_size, self.count)))
        self._backend = backend
        self._counter = backend.empty((3,), np.int64)
        self._trace = backend.empty((batches.steps, 3), np.float64)
        self._feed = feed
        self._in_turn = np.arange(begin, end, dtype=np.int64)
        order = backend.from_host(feed.places(self._in_turn))
        workspace = Workspace(backend, batches.size)
        self._runs: list[tuple[Executor, int]] = []
        for rows, repeats in batches.kinds:
            recorder = Recorder(model, workspace, rows, self._counter, training=False)
            record_evaluation(recorder, feed.examples, order, batches.size, loss, self._trace)
            self._runs.append((backend.executor(recorder.calls), repeats))

    def run(self) -> tuple[float, float]:
        """The mean loss (without penalties) and the share of correct predictions."""
        loss, correct = self.sums()
        return loss / self.count, correct / self.count

    def sums(self) -> tuple[float, float]:
        """The sums of both over the rows."""
        if self.count == 0:
            return 0.0, 0.0
        self._backend.write(np.zeros(3, np.int64), self._counter)
        self._feed.begin(self._in_turn, 0)
        done = 0
        for executor, repeats in self._runs:
            end = done + repeats
            while done < end:
                steps = min(end - done, self._feed.ready(done))
                executor.run(steps)
                done += steps
        trace: HostArray = self._backend.to_host(self._trace)
        loss, correct, _ = trace.sum(axis=0)
        return float(loss), float(correct)
