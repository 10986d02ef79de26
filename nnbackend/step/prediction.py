"""The forward pass alone, from host rows to host outputs."""

from __future__ import annotations

import numpy as np

from nnbackend.backends.contract import Array, Executor, HostArray
from nnbackend.losses import Loss
from nnbackend.step.recorder import Model, Recorder, Workspace, record_forward
from nnbackend.support.fork_lock import ForkLock

__all__ = ["Predictor"]

#: Batch sizes whose recordings are kept, so that a program asking for many sizes keeps few buffers.
_KEPT = 4


class Predictor:
    """Records the forward pass once a batch size and replays it; callers in several threads wait for each other.

    Parameters
    ----------
    model : Model
    loss : Loss or None
        Its output activation, softmax say, is applied last.
    """

    def __init__(self, model: Model, loss: Loss | None) -> None:
        self._model = model
        self._activation = "identity" if loss is None else loss.output_activation
        self._recorded: dict[int, tuple[Executor, Array, Array]] = {}
        self._lock = ForkLock()

    def __call__(self, rows: HostArray) -> HostArray:
        """Outputs, (n, outputs), for (n, features) rows of the network's dtype."""
        backend = self._model.backend
        with self._lock:
            if len(rows) not in self._recorded:
                if len(self._recorded) == _KEPT:
                    del self._recorded[next(iter(self._recorded))]
                self._recorded[len(rows)] = self._record(len(rows))
            executor, x, outputs = self._recorded[len(rows)]
            backend.write(rows, x)
            executor.run(1)
            return backend.to_host(outputs)

    def _record(self, rows: int) -> tuple[Executor, Array, Array]:
        model, backend = self._model, self._model.backend
        counter = backend.empty((3,), np.int64)
        recorder = Recorder(model, Workspace(backend, rows), rows, counter, training=False)
        x = recorder.input()
        outputs, _ = record_forward(recorder, model.views, x)
        if self._activation != "identity":
            logits, outputs = outputs, recorder.like(outputs)
            recorder.record("activation_forward", logits, self._activation, 0.0, outputs)
        return backend.executor(recorder.calls), recorder.matrix(x), outputs
