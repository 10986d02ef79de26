"""The forward pass, from host rows to host outputs."""

from __future__ import annotations

from nnbackend.backends.contract import Array, Executor, HostArray
from nnbackend.data.batches import Batches, Slice
from nnbackend.losses import Loss
from nnbackend.step.recorder import Model, record_forward
from nnbackend.step.replay import Replay
from nnbackend.support.fork_lock import ForkLock

__all__ = ["Predictor"]

#: Number of batch sizes whose recordings are kept, which limits the memory of programs that use many sizes.
_KEPT = 4


class Predictor:
    """Records the forward pass once for each batch size and replays it; a lock serialises threads.

    Parameters
    ----------
    model : Model
    loss : Loss or None
        Its output activation, such as softmax, is applied to the outputs.
    """

    def __init__(self, model: Model, loss: Loss | None) -> None:
        self._model = model
        self._activation = "identity" if loss is None else loss.output_activation
        self._recorded: dict[int, tuple[Replay, Array, Array]] = {}
        self._lock = ForkLock()

    def __call__(self, rows: HostArray) -> HostArray:
        """Outputs, (n, outputs), for (n, features) rows of the network's dtype."""
        backend = self._model.backend
        with self._lock:
            if len(rows) not in self._recorded:
                if len(self._recorded) == _KEPT:
                    del self._recorded[next(iter(self._recorded))]
                self._recorded[len(rows)] = self._record(len(rows))
            replay, x, outputs = self._recorded[len(rows)]
            backend.write(rows, x)
            replay.run()
            return backend.to_host(outputs)

    def _record(self, rows: int) -> tuple[Replay, Array, Array]:
        """A recorded pass and its input and output buffers."""
        model, backend = self._model, self._model.backend
        replay = Replay(model, Batches(rows, rows), training=False)
        buffers: list[Array] = []

        def make_executor(piece: Slice) -> Executor:
            recorder = replay.recorder(piece)
            x = recorder.input()
            outputs, _ = record_forward(recorder, model.views, x)
            if self._activation != "identity":
                logits, outputs = outputs, recorder.like(outputs)
                recorder.record("activation_forward", logits, self._activation, 0.0, outputs)
            buffers.extend((recorder.matrix(x), outputs))
            return backend.executor(recorder.calls)

        replay.record(make_executor)
        x, outputs = buffers
        return replay, x, outputs
