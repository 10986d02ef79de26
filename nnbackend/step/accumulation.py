"""The gradients of a batch as the mean of those of its parts, which need less memory than all rows at once."""

from __future__ import annotations

from collections.abc import Sequence

from nnbackend.augment import Augmentation
from nnbackend.backends.contract import Array
from nnbackend.data.batches import Slice
from nnbackend.data.feed import Examples
from nnbackend.losses import Loss
from nnbackend.step.calls import Recorder
from nnbackend.step.recorder import record_gradients
from nnbackend.step.replay import Replay

__all__ = ["record_accumulated"]


def record_accumulated(
    replay: Replay,
    piece: Slice,
    size: int,
    examples: Examples,
    loss: Loss,
    gradients: Array,
    augment: Sequence[Augmentation],
) -> tuple[Recorder, Array]:
    """Record the gradients of a batch part by part.

    All parts use the same buffers. Random numbers depend on the place of a row in the batch, so they are those of the
    whole batch.

    Parameters
    ----------
    replay : Replay
    piece : Slice
        The batch; of several ranks, this rank's rows.
    size : int
        Rows of a part. The last one may have fewer.
    examples : Examples
    loss : Loss
    gradients : (layout.trainable_size,) array
        Receives the mean over all rows.
    augment : sequence of Augmentation

    Returns
    -------
    recorder : Recorder
        With the calls so far, for the update.
    rows : (2, rows) array
        The losses and correct predictions of all rows.
    """
    backend, dtype = replay.model.backend, replay.model.dtype
    partial, flat = backend.empty(gradients.shape, dtype), backend.empty((2 * piece.rows,), dtype)
    calls = []
    for begin in range(0, piece.rows, size):
        count = min(size, piece.rows - begin)
        recorder = replay.recorder(Slice(count, piece.first + begin, piece.batch, piece.repeats))
        # Parts of the batch have different sizes, and are weighted below.
        recorder.share = piece.rows / piece.batch
        order = backend.view(replay.order, begin, (replay.batches.own_rows - begin,)) if begin else replay.order
        own = partial if begin else gradients
        rows = record_gradients(recorder, examples, order, replay.batches.size, loss, own, augment)
        if begin:
            recorder.record("blend", partial, count / (begin + count), recorder.counter, None, gradients)
        for kind in (0, 1):
            target = backend.view(flat, kind * piece.rows + begin, (1, count))
            recorder.record("activation_forward", rows[kind : kind + 1, :], "identity", 0.0, target)
        calls += recorder.calls
    recorder.calls, recorder.gradients = calls, {}
    return recorder, backend.view(flat, 0, (2, piece.rows))
