"""The forward pass, from host rows to host outputs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from nnbackend.backends.contract import Array, Executor, HostArray
from nnbackend.backends.executor import RunRows
from nnbackend.data.batches import Batches, Slice
from nnbackend.data.inputs import scaled_rows
from nnbackend.data.intake import Intake
from nnbackend.data.scale import warn
from nnbackend.errors import InvalidInputError
from nnbackend.losses import Loss
from nnbackend.step.recorder import Model, record_forward
from nnbackend.step.replay import Replay
from nnbackend.support.attributes import Guarded
from nnbackend.support.fork_lock import ForkLock
from nnbackend.support.memory import memory_explained
from nnbackend.support.surroundings import own_error_state

__all__ = ["INFERENCE_BATCH", "CompiledPredictor", "Predictor", "overflow_explained", "warn_of_overflow"]

#: Default number of rows per batch for predictions and evaluations.
INFERENCE_BATCH = 1024

#: Number of batch sizes whose recordings are kept, which limits the memory of programs that use many sizes.
_KEPT = 4

#: The types of rows that a compiled predictor converts itself.
_DIRECT = ("uint8", "float32", "float64")


@dataclass(eq=False, repr=False)
class Pass:
    """A recorded forward pass.

    Attributes
    ----------
    replay : Replay
    x, outputs : (rows, ...) arrays
        The buffers of its rows and of its results.
    run_rows : callable or None
        The pass as one call, if the backend has one and the parameters no longer change.
    """

    replay: Replay
    x: Array
    outputs: Array
    run_rows: RunRows | None


class Predictor:
    """Records the forward pass once for each batch size and replays it; a lock serialises threads.

    Parameters
    ----------
    model : Model
    loss : Loss or None
        Its output activation, such as softmax, is applied to the outputs.
    fixed : bool
        Whether the parameters no longer change.
    """

    def __init__(self, model: Model, loss: Loss | None, fixed: bool = False) -> None:
        self._model = model
        self._activation = "identity" if loss is None else loss.output_activation
        self._recorded: dict[int, Pass] = {}
        #: What passes whose parameters no longer change share; None while they may change.
        self._constants: dict[Any, Any] | None = {} if fixed else None
        self._lock = ForkLock()

    def __call__(self, rows: HostArray) -> HostArray:
        """Outputs, (n, outputs), for (n, features) rows of the network's dtype."""
        backend = self._model.backend
        with self._lock:
            if len(rows) not in self._recorded:
                if len(self._recorded) == _KEPT:
                    del self._recorded[next(iter(self._recorded))]
                self._recorded[len(rows)] = self._record(len(rows))
            recorded = self._recorded[len(rows)]
            backend.write(rows, recorded.x)
            recorded.replay.run()
            return backend.to_host(recorded.outputs)

    def record(self, rows: int) -> Pass:
        """Record a pass with buffers of its own."""
        with self._lock:
            return self._record(rows)

    def _record(self, rows: int) -> Pass:
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
        ((executor, _),) = replay.executors
        if self._constants is None or not executor.apart:
            return Pass(replay, x, outputs, None)
        return Pass(replay, x, outputs, executor.from_rows(x, outputs, self._constants))


class CompiledPredictor(Guarded):
    """Predicts a fixed number of rows; see :meth:`nnbackend.Network.compile_predictor`, which makes it.

    Attributes
    ----------
    batch_size : int
        Number of rows of each call.
    input_shape, output_shape : tuple of int
        Of one sample.
    dtype : numpy dtype
        Of the results.
    """

    batch_size: int
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __init__(self, model: Model, loss: Loss | None, intake: Intake, batch_size: int) -> None:
        self.batch_size = batch_size
        self.input_shape, self.output_shape, self.dtype = intake.input_shape, intake.output_shape, model.dtype
        self._intake = intake
        self._matrix = batch_size, math.prod(intake.input_shape)
        self._samples = batch_size, *intake.input_shape
        self._room = batch_size, math.prod(intake.output_shape)
        self._flat = len(intake.output_shape) == 1
        scalar = model.dtype.type
        self._one = scalar(1)
        self._scales = {
            np.dtype(name): scalar(intake.scale.of(name)) for name in _DIRECT if not _may_warn(intake, name)
        }
        sizes = {"a copy of the weights": model.layout.size * model.dtype.itemsize}
        explained = memory_explained(model.backend, "the predictor", lambda: sizes, "Give a smaller batch_size.")
        with own_error_state(), explained:
            self._predictor = Predictor(model.frozen(), loss, fixed=True)
            #: Passes that no thread uses. Appending to a list and popping from it are atomic.
            self._free: list[Pass] = []
            if batch_size <= INFERENCE_BATCH and (first := self._predictor.record(batch_size)).run_rows is not None:
                self._free.append(first)
            self._direct = bool(self._free)
            self._warm_up()

    def __call__(self, x: Any) -> HostArray:
        """Predictions for `batch_size` rows.

        Parameters
        ----------
        x : (batch_size, *input_shape) array_like
            Of any dtype, in the units of the training data; they are scaled as those were. Contiguous arrays of uint8,
            float32 and float64 are read without a copy.

        Returns
        -------
        (batch_size, *output_shape) array of the network's dtype, on the host
            What `predict` returns for these rows. It belongs to the caller.

        Raises
        ------
        InvalidInputError
            Another number of rows or features, no numbers, NaN or infinity.
        """
        if (
            self._direct
            and type(x) is np.ndarray
            and (x.shape == self._matrix or x.shape == self._samples)
            and (scale := self._scales.get(x.dtype)) is not None
            and x.flags.carray
        ):
            results = self._run(x if x.ndim == 2 else x.reshape(self._matrix), scale)
            if results is not None:
                return results
        with own_error_state():
            return self._checked(x)

    def _run(self, rows: HostArray, scale: Any) -> HostArray | None:
        """Predictions for rows of any of the `_DIRECT` types; None if they hold NaN or infinity."""
        try:
            free = self._free.pop()
        except IndexError:
            free = self._predictor.record(self.batch_size)
        results = np.empty(self._room, self.dtype)
        flag = free.run_rows(rows, scale, results)  # type: ignore[misc]
        self._free.append(free)
        if flag:
            if flag == 1:
                return None
            warn_of_overflow(results)
        return results if self._flat else results.reshape(self.batch_size, *self.output_shape)

    def _checked(self, x: Any) -> HostArray:
        """Predictions for rows that need a conversion, a warning or an error."""
        rows = self._intake.rows(x)
        if rows.count != self.batch_size:
            raise InvalidInputError(
                f"this predictor takes {self.batch_size} row{'' if self.batch_size == 1 else 's'} at a time, received "
                f"{rows.count}; compile_predictor(batch_size={rows.count}) makes one for them, and predict takes any "
                "number"
            )
        if self._direct:
            part = np.ascontiguousarray(scaled_rows(rows.part(0, rows.count), rows.scale, self.dtype))
            results = self._run(part if part.flags.carray else part.copy(), self._one)
            if results is not None:
                return results
        results = np.empty(self._room, self.dtype)
        for start in range(0, rows.count, INFERENCE_BATCH):
            part = scaled_rows(rows.part(start, start + INFERENCE_BATCH), rows.scale, self.dtype)
            results[start : start + INFERENCE_BATCH] = self._predictor(part)
        if not np.isfinite(results).all():
            warn_of_overflow(results)
        return results.reshape(self.batch_size, *self.output_shape)

    def _warm_up(self) -> None:
        """Compile and load what the first call needs."""
        if not self._direct:
            self._predictor(np.zeros((min(self.batch_size, INFERENCE_BATCH), self._matrix[1]), self.dtype))
            return
        trained_with = self._intake.trained_with
        results, (first,) = np.empty(self._room, self.dtype), self._free
        for name in {self.dtype.name} | ({trained_with.dtype} & {*_DIRECT} if trained_with is not None else set()):
            first.run_rows(np.zeros(self._matrix, name), self._one, results)  # type: ignore[misc]

    def _instead(self, name: str) -> str:
        return "compile another one: network.compile_predictor(batch_size=...)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a compiled predictor cannot be copied or pickled; copy the network and compile another one")

    def __repr__(self) -> str:
        rows = f"{self.batch_size} row{'' if self.batch_size == 1 else 's'}"
        return f"<CompiledPredictor of {rows} {self.input_shape} -> {self.output_shape} on {self._intake.backend.name}>"


def _may_warn(intake: Intake, dtype: str) -> bool:
    """Whether rows of this type may make :meth:`Intake.rows` warn, which depends on their values."""
    undecided = intake.scale.factor is None and dtype == "uint8"
    return undecided or (intake.trained_with is not None and intake.trained_with.other_kind(np.dtype(dtype)))


def overflow_explained(dtype: np.dtype[Any]) -> str:
    """Why results are not finite although inputs and weights are, and what to do."""
    wider = "" if dtype == np.float64 else ", or use dtype='float64'"
    return f"numbers within the network overflow {dtype.name}. Check the units of x{wider}"


def warn_of_overflow(outputs: HostArray) -> None:
    """Warn at the caller's line about predictions that are not finite."""
    bad = int((~np.isfinite(outputs.reshape(len(outputs), -1))).any(axis=1).sum())
    warn(f"predictions of {bad:,} of {len(outputs):,} rows are NaN or infinite: {overflow_explained(outputs.dtype)}")
