"""The Numba backend: jitted fused kernels around the matrix products of NumPy's BLAS."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from nnbackend.backends.contract import Call, Executor, HostArray, PlainExecutor
from nnbackend.backends.executor import Constants, Division
from nnbackend.backends.numba import kernels, normalization, resampling
from nnbackend.backends.numba.activations import ACTIVATION_CODES, IDENTITY
from nnbackend.backends.numba.executor import CompiledExecutor, Team
from nnbackend.backends.numba.from_rows import predictions
from nnbackend.backends.numba.panels import WeightPanels
from nnbackend.backends.numba.program import Parts, Program, UnsupportedStepError, compile_step, parts_of
from nnbackend.backends.numba.targets import selected
from nnbackend.backends.numba.training_operations import NumbaTraining
from nnbackend.backends.numba.updates import ADAM, CONSTANTS, LION, MOMENTUM, NESTEROV, RMSPROP, SGD, UPDATE
from nnbackend.backends.numpy import NumpyBackend
from nnbackend.backends.philox import keep_threshold
from nnbackend.backends.products import ALONE

__all__ = ["NumbaBackend"]

Real = npt.NDArray[np.floating[Any]]
Int = npt.NDArray[np.integer[Any]]


class NumbaBackend(NumbaTraining, NumpyBackend):
    """Arrays and matrix products are NumPy's; every other operation is one jitted pass over memory.

    Kernels are compiled for each dtype on first use, and cached on disk.
    """

    name = "numba"
    takes_any_rows = True
    #: Of the process, not of the object: a pickled one may be read in a process with another target.
    target = selected()

    def __init__(self, threads: int | None = None) -> None:
        super().__init__(threads)
        self._team = Team(self.products.threads)
        self.programs = self._team.threads

    def write(self, array: HostArray, out: HostArray) -> None:
        super().write(array, out)
        self._team.note_change()

    def copy(self, source: HostArray, out: HostArray) -> None:
        super().copy(source, out)
        self._team.note_change()

    def plain_executor(self, calls: Sequence[Call]) -> PlainExecutor:
        return _NotingExecutor(self, calls, self._team)

    def at_most(self, threads: int) -> AbstractContextManager[None]:
        return self._team.at_most(threads)

    def executor(self, calls: Sequence[Call]) -> Executor:
        parts: dict[int, Parts] = {}
        division = self._divide(calls, parts)
        # Gradients used by other segments must be stored.
        needed = [array for segment in division.segments if not segment.known for array in _arrays(segment.calls)]

        def fast(segment: Sequence[Call]) -> Executor:
            others = [each.calls for each in division.segments if each.calls is not segment]
            elsewhere = [array for calls in others for array in _arrays(calls)]
            program = compile_step(
                segment, self._team.threads, needed, lambda call: parts[id(call)], elsewhere=elsewhere
            )
            return CompiledExecutor(
                program, self._team, partial(predictions, self._team, partial(self._for_predictions, segment))
            )

        try:
            return division.executor(fast, self.plain_executor, within=ALONE)
        except UnsupportedStepError as refused:
            plain = self.plain_executor(calls)
            plain.reason = str(refused)
            return plain

    def _for_predictions(
        self, calls: Sequence[Call], constants: Constants | None, x: HostArray, flags: HostArray, slices: int
    ) -> tuple[Program, bool]:
        """The program of a step that predicts; see `from_rows.MakeProgram`."""
        # Threads that have their own slices of the rows must not share a line in another way.
        threads = 1 if slices else self._team.threads
        if constants is None:
            return compile_step(calls, threads, few_rows=True), False
        panels = WeightPanels(calls, constants, x, flags)
        program = compile_step(calls, threads, (), lambda call: panels.replace(parts_of(call)), few_rows=True)
        return program, panels.checks

    def explain_executor(self, calls: Sequence[Call]) -> tuple[str, str]:
        division = self._divide(calls, {})
        return division.name, division.reason

    def _divide(self, calls: Sequence[Call], parts: dict[int, Parts]) -> Division:
        """The segments of a step; notes what each call becomes."""

        def refusal(call: Call) -> str | None:
            found = parts[id(call)] = parts_of(call)
            return found if isinstance(found, str) else None

        return Division(calls, refusal, CompiledExecutor.name, CompiledExecutor.reason)

    def gather(
        self, source: HostArray, order: Int, counter: Int, batch_size: int, scale: float, out: HostArray
    ) -> None:
        start = int(counter[0]) * batch_size
        if out.ndim == 2 and source.dtype in (np.uint8, out.dtype) and out.dtype.kind == "f":
            kernel = kernels.gather_bytes if source.dtype == np.uint8 else kernels.gather_rows
            kernel(source, order, start, np.array([scale]), out, 0, len(out), 0, out.shape[1])
        else:
            kernels.gather_values(source, order, start, out.dtype.type(scale), out, 0, len(out))

    def dense_forward(
        self,
        x: Real,
        weight: Real,
        bias: Real | None,
        activation: str,
        alpha: float,
        preactivation: Real | None,
        out: Real,
    ) -> None:
        z = out if preactivation is None else preactivation
        self.products.matmul(x, weight, z)
        code = ACTIVATION_CODES[activation]
        if bias is not None or code != IDENTITY:
            kernels.bias_activation(z, _optional(bias, z), code, np.array([alpha]), out, 0, len(z))

    def activation_forward(self, z: Real, activation: str, alpha: float, out: Real) -> None:
        kernels.activation_forward(z, ACTIVATION_CODES[activation], np.array([alpha]), out, 0, len(z), 0, z.shape[1])

    def dropout(
        self, x: Real, rate: float, seed: int, stream: int, counter: Int, out: Real, first_row: int = 0
    ) -> None:
        real = x.dtype.type
        kernels.dropout(
            x,
            keep_threshold(rate),
            real(1 / (1 - rate)),
            seed & 0xFFFFFFFF,
            (seed >> 32) & 0xFFFFFFFF,
            stream,
            int(counter[1]),
            out,
            first_row,
            0,
            len(x),
        )

    def draw_transforms(
        self, chain: Real, height: int, width: int, seed: int, counter: Int, out: Real, first_row: int = 0
    ) -> None:
        resampling.draw_transforms(chain, height, width, seed, int(counter[1]), out, first_row, 0, len(out))

    def draw_displacements(
        self, kernel: Real, alpha: float, seed: int, stream: int, counter: Int, out: Real, first_row: int = 0
    ) -> None:
        count, height, width, _ = out.shape
        noise, rows = (np.empty(size, out.dtype) for size in resampling.field_sizes(height, width, kernel.size))
        resampling.draw_displacements(
            kernel, out.dtype.type(alpha), seed, stream, int(counter[1]), height, width, out.reshape(-1), noise, rows,
            first_row, 0, count,
        )  # fmt: skip

    def resample(self, x: Real, transforms: Real | None, displacements: Real | None, out: Real) -> None:
        count, *shape = x.shape
        matrices = np.empty(0) if transforms is None else np.ascontiguousarray(transforms).reshape(-1)
        fields = x.reshape(-1)[:0] if displacements is None else displacements.reshape(-1)
        padded, places = np.empty(resampling.padded_size(*shape), x.dtype), np.empty(shape[1], np.int64)
        down, right = np.empty((2, shape[1]), x.dtype)
        resampling.resample(
            x.reshape(-1), *shape, matrices, fields, out.reshape(-1), padded, places, down, right, 0, count
        )

    def max_abs_norm(self, x: Real, out: Real) -> None:
        normalization.max_abs_norm(x, *_bits(x), out, 0, len(x))

    def softmax_cross_entropy(
        self, logits: Real, targets: HostArray, weights: Real | None, gradient: Real, row_losses: Real
    ) -> None:
        kernel = (
            kernels.softmax_cross_entropy_labels if targets.ndim == 1 else kernels.softmax_cross_entropy_probabilities
        )
        kernel(logits, targets, _optional(weights, row_losses), gradient, row_losses, 0, len(logits))

    def sigmoid_cross_entropy(
        self, logits: Real, targets: Real, weights: Real | None, gradient: Real, row_losses: Real
    ) -> None:
        kernels.sigmoid_cross_entropy(
            logits, targets, _optional(weights, row_losses), gradient, row_losses, 0, len(logits)
        )

    def mean_squared_error(
        self, outputs: Real, targets: Real, weights: Real | None, gradient: Real, row_losses: Real
    ) -> None:
        kernels.mean_squared_error(
            outputs, targets, _optional(weights, row_losses), gradient, row_losses, 0, len(outputs)
        )

    def record_loss(self, row_losses: Real, penalties: Real | None, counter: Int, trace: Real) -> None:
        kernels.record_loss(row_losses, _optional(penalties, row_losses), int(counter[0]), trace)

    def activation_gradient(self, saved: Real, activation: str, alpha: float, upstream: Real, out: Real) -> None:
        code = ACTIVATION_CODES[activation]
        shape = saved.shape
        kernels.activation_gradient(saved, code, np.array([alpha]), upstream, out, 0, shape[0], 0, shape[1])

    def max_abs_norm_gradient(self, x: Real, upstream: Real, out: Real) -> None:
        normalization.max_abs_norm_gradient(x, *_bits(x), upstream, out, 0, len(x))

    def bias_gradient(self, delta: Real, out: Real) -> None:
        kernels.bias_gradient(delta, out, 0, out.size)

    def weight_penalty(self, weight: Real, l1: float, l2: float, gradient: Real, penalties: Real, slot: int) -> None:
        real = weight.dtype.type
        # A vector counts as one row.
        rows, slopes = np.atleast_2d(weight), np.atleast_2d(gradient)
        penalties[slot] = kernels.weight_penalty(rows, real(l1), real(l2), slopes)

    def sgd_update(
        self,
        parameters: Real,
        gradients: Real,
        velocity: Real | None,
        counter: Int,
        learning_rates: Real,
        momentum: float,
        nesterov: bool,
        weight_decay: float,
        momenta: Real | None = None,
    ) -> None:
        rule = SGD if velocity is None else NESTEROV if nesterov else MOMENTUM
        settings = {"weight_decay": weight_decay, "momentum": momentum}
        _update(rule, settings, counter, (learning_rates, momenta), parameters, gradients, velocity)

    def adam_update(
        self,
        parameters: Real,
        gradients: Real,
        first: Real,
        second: Real,
        counter: Int,
        learning_rates: Real,
        beta1: float,
        beta2: float,
        epsilon: float,
        weight_decay: float,
        decoupled: bool,
        momenta: Real | None = None,
    ) -> None:
        settings = {
            "weight_decay": weight_decay, "beta1": beta1, "beta2": beta2, "epsilon": epsilon, "decoupled": decoupled,
        }  # fmt: skip
        _update(ADAM, settings, counter, (learning_rates, momenta), parameters, gradients, first, second)

    def rmsprop_update(
        self,
        parameters: Real,
        gradients: Real,
        square: Real,
        counter: Int,
        learning_rates: Real,
        decay: float,
        epsilon: float,
        weight_decay: float,
    ) -> None:
        settings = {"weight_decay": weight_decay, "decay": decay, "epsilon": epsilon}
        _update(RMSPROP, settings, counter, (learning_rates, None), parameters, gradients, square)

    def lion_update(
        self,
        parameters: Real,
        gradients: Real,
        moment: Real,
        counter: Int,
        learning_rates: Real,
        beta1: float,
        beta2: float,
        weight_decay: float,
        momenta: Real | None = None,
    ) -> None:
        settings = {"weight_decay": weight_decay, "beta1": beta1, "beta2": beta2}
        _update(LION, settings, counter, (learning_rates, momenta), parameters, gradients, moment)


class _NotingExecutor(PlainExecutor):
    """Notes that arrays have changed, for weights that are kept in panels."""

    def __init__(self, backend: NumbaBackend, calls: Sequence[Call], team: Team) -> None:
        super().__init__(backend, calls)
        self._team = team

    def run(self, repeats: int) -> None:
        try:
            super().run(repeats)
        finally:
            self._team.note_change()


def _update(
    rule: int,
    settings: Mapping[str, float],
    counter: Int,
    tables: tuple[Real, Real | None],
    parameters: Real,
    gradients: Real,
    first: Real | None = None,
    second: Real | None = None,
) -> None:
    """Update the parameters; `tables` are the rates and the momenta of the epoch's steps."""
    record, constants = np.zeros(UPDATE.size, np.uint8), np.empty(CONSTANTS)
    rates, momenta = tables
    places = {"learning_rates": rates.ctypes.data, "momenta": 0 if momenta is None else momenta.ctypes.data}
    UPDATE.pack(record, 0, {**settings, **places, "steps": len(rates)})
    kernels.prepare_update(rule, record.ctypes.data, int(counter[0]), int(counter[2]) + 1, constants)
    nothing = parameters[:0]
    first, second = nothing if first is None else first, nothing if second is None else second
    kernels.update_all(rule, constants, parameters, gradients, first, second)


def _arrays(calls: Sequence[Call]) -> Iterator[HostArray]:
    return (value for call in calls for value in call.arguments.values() if isinstance(value, np.ndarray))


def _bits(array: Real) -> tuple[Int, int]:
    """The array's memory viewed as integers, and a mask that clears the sign bits."""
    integer = np.dtype(f"i{array.itemsize}")
    return array.view(integer), int(np.iinfo(integer).max)


def _optional(array: Real | None, like: Real) -> Real:
    """An empty array stands for None, so that a kernel has only one signature to compile."""
    return like[0, :0] if array is None else array
