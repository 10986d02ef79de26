"""The forward pass, from host rows to host outputs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from nnbackend.backends.contract import Array, Executor, HostArray
from nnbackend.backends.executor import INFINITE, NOTHING, SUSPECT, Constants, RunRows
from nnbackend.data.batches import Batches, Slice
from nnbackend.data.inputs import scaled_rows
from nnbackend.data.intake import Intake
from nnbackend.data.scale import Images, warn
from nnbackend.errors import InvalidInputError
from nnbackend.losses import Loss
from nnbackend.step.recorder import Model, record_forward
from nnbackend.step.replay import Replay
from nnbackend.support.attributes import Guarded
from nnbackend.support.fork_lock import ForkLock
from nnbackend.support.memory import memory_explained
from nnbackend.support.surroundings import own_error_state

__all__ = ["INFERENCE_BATCH", "CompiledPredictor", "DirectRows", "Predictor", "overflow_explained", "warn_of_overflow"]

#: Default number of rows per batch for predictions and evaluations.
INFERENCE_BATCH = 1024

#: Up to here, each number of rows has a recording of its own.
FEW_ROWS = 15

#: A thread predicts between the first and the second number of rows at a time, limited so that their inputs and outputs
#: fit into this part of a core's cache, and a multiple of the last number, which no tile exceeds.
_SMALLEST, _LARGEST, _CACHE, _MULTIPLE = 32, 128, 512 << 10, 8

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
        The pass as one call, if the backend has one: for these rows, or for any number of them.
    """

    replay: Replay
    x: Array
    outputs: Array
    run_rows: RunRows | None


class Predictor:
    """Records the forward pass and replays it; a lock serialises threads.

    A backend may run one recording for any number of rows. Otherwise, and for a few rows, there is one for each number.

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
        self._columns = math.prod(model.layout.nodes[-1].output_shape)
        self._recorded: dict[int, Pass] = {}
        #: For any number of rows, and whether to record it.
        self._any: Pass | None = None
        self._may_take_any = model.backend.takes_any_rows
        self._constants = Constants(fixed)
        self._lock = ForkLock()
        self._portion = _portion(model)

    def __call__(self, rows: HostArray) -> HostArray:
        """Outputs, (n, outputs), for (n, features) rows of the network's dtype."""
        backend = self._model.backend
        results = np.empty((len(rows), self._columns), self._model.dtype)
        part = rows if rows.flags.carray else np.array(rows, order="C")
        with self._lock:
            flag = self._run(part, self._model.dtype.type(1), results)
            if flag is not None and not flag & NOTHING:
                return results
            recorded = self._pass(len(rows))
            backend.write(rows, recorded.x)
            recorded.replay.run()
            return backend.to_host(recorded.outputs)

    def run(self, rows: HostArray, scale: Any, results: HostArray) -> int | None:
        """Predict contiguous and writeable (n, features) rows, as :data:`nnbackend.backends.executor.RunRows`.

        Returns
        -------
        int or None
            Its flags; None if the backend has no such call.
        """
        with self._lock:
            return self._run(rows, scale, results)

    def _run(self, rows: HostArray, scale: Any, results: HostArray) -> int | None:
        count = len(rows)
        if count > FEW_ROWS and self._may_take_any:
            if self._any is None:
                self._any = self._record_any(INFERENCE_BATCH)
            if self._any is not None:
                return self._any.run_rows(rows, scale, results)  # type: ignore[misc]
        if count <= INFERENCE_BATCH:
            run_rows = self._pass(count).run_rows
            return None if run_rows is None else run_rows(rows, scale, results)
        flags = 0
        for start in range(0, count, INFERENCE_BATCH):
            stop = min(start + INFERENCE_BATCH, count)
            run_rows = self._pass(stop - start).run_rows
            if run_rows is None:
                return None
            flags |= run_rows(rows[start:stop], scale, results[start:stop])
        return flags

    def _pass(self, rows: int) -> Pass:
        found = self._recorded.get(rows)
        if found is None:
            if len(self._recorded) == _KEPT:
                del self._recorded[next(iter(self._recorded))]
            found = self._recorded[rows] = self._record(rows)
        return found

    @property
    def takes_any(self) -> bool:
        """Whether recordings for more than `FEW_ROWS` rows take any number, as far as is known."""
        return self._may_take_any

    def record(self, rows: int) -> Pass:
        """Record a pass with buffers of its own."""
        with self._lock:
            if rows > FEW_ROWS and self._may_take_any and (found := self._record_any(rows)) is not None:
                return found
            return self._record(rows)

    def _record_any(self, best: int) -> Pass | None:
        """Record a pass for any number of rows, with buffers that are large enough for the best speed at `best` rows;
        None if the backend cannot."""
        slices = self._model.backend.programs
        portion = _in_multiples(min(self._portion, -(-best // slices)))
        most = max(_MULTIPLE, INFERENCE_BATCH // slices // _MULTIPLE * _MULTIPLE)
        found = self._record(slices * min(portion, most), slices)
        if found.run_rows is not None:
            return found
        self._may_take_any = False
        return None

    def _record(self, rows: int, slices: int = 0) -> Pass:
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
        run_rows = executor.from_rows(x, outputs, self._constants, slices) if executor.apart else None
        return Pass(replay, x, outputs, run_rows)


def _in_multiples(rows: int) -> int:
    return -(-rows // _MULTIPLE) * _MULTIPLE


def _portion(model: Model) -> int:
    """The number of rows for which the inputs and outputs of a layer stay in the cache of a core."""
    widest = max((sum(view.shape) for view in model.views.values() if len(view.shape) == 2), default=1)
    return max(_SMALLEST, min(_LARGEST, _CACHE // (widest * model.dtype.itemsize)))


class DirectRows:
    """Tells which arrays are read where they are, without checks of all numbers.

    Parameters
    ----------
    intake : Intake
        Checks and reads all others.

    Attributes
    ----------
    intake : Intake
    scales : dict
        The factors on the rows, by dtype.
    """

    def __init__(self, intake: Intake) -> None:
        scalar = intake.dtype.type
        self.intake = intake
        self.scales = {np.dtype(name): scalar(intake.scale.of(name)) for name in _DIRECT if not _may_warn(intake, name)}
        self._features = math.prod(intake.input_shape)
        # Rows of data sets that are images are scaled like others if the factor is known.
        self._kinds = (np.ndarray,) if intake.scale.factor is None else (np.ndarray, Images)

    def matrix(self, x: Any) -> tuple[HostArray, Any] | None:
        """The (n, features) rows of `x` and the factor on them; None if they must be read by the intake."""
        if type(x) not in self._kinds or (scale := self.scales.get(x.dtype)) is None or not x.flags.carray:
            return None
        shape = x.shape
        if len(shape) != 2 or shape[1] != self._features:
            if shape[1:] != self.intake.input_shape:
                return None
            x = x.reshape(len(x), self._features)
        return (x, scale) if len(x) else None


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
        self._scales = DirectRows(intake).scales
        sizes = {"a copy of the weights": model.layout.size * model.dtype.itemsize}
        explained = memory_explained(model.backend, "the predictor", lambda: sizes, "Give a smaller batch_size.")
        with own_error_state(), explained:
            self._predictor = Predictor(model.frozen(), loss, fixed=True)
            #: Passes that no thread uses. Appending to a list and popping from it are atomic.
            self._free: list[Pass] = []
            first = self._predictor.record(min(batch_size, INFERENCE_BATCH))
            if first.run_rows is not None and (batch_size <= INFERENCE_BATCH or self._predictor.takes_any):
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
            results = self._run(x if x.ndim == 2 else x.reshape(self._matrix), scale, x)
            if results is not None:
                return results
        with own_error_state():
            return self._checked(x)

    def _run(self, rows: HostArray, scale: Any, given: Any) -> HostArray | None:
        """Predictions for rows of any of the `_DIRECT` types, which were `given`; None if they hold NaN or infinity
        once they are scaled."""
        try:
            free = self._free.pop()
        except IndexError:
            free = self._predictor.record(min(self.batch_size, INFERENCE_BATCH))
        results = np.empty(self._room, self.dtype)
        flag = free.run_rows(rows, scale, results)  # type: ignore[misc]
        self._free.append(free)
        if flag:
            if flag & (NOTHING | SUSPECT):
                with own_error_state():
                    self._intake.rows(given)
            if flag & NOTHING:
                return None
            if flag & INFINITE:
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
            part = scaled_rows(rows.part(0, rows.count), rows.scale, self.dtype)
            results = self._run(part if part.flags.carray else np.array(part, order="C"), self._one, rows)
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
            few = min(self.batch_size, INFERENCE_BATCH)
            first.run_rows(np.zeros((few, self._matrix[1]), name), self._one, results[:few])  # type: ignore[misc]

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
