"""Handling of steps that would break the network: end the run with the last good weights, or skip the step.

A step breaks the network if its loss, its gradients or the resulting weights are NaN or infinite.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from nnbackend.backends.contract import Array, Call, Executor, HostArray
from nnbackend.distributed.communicator import Communicator
from nnbackend.errors import InvalidInputError, TrainingDivergedError
from nnbackend.network import Network
from nnbackend.step.averaging import WeightAverage
from nnbackend.step.parameters import Layout
from nnbackend.step.recorder import Model, OptimizerState
from nnbackend.step.replay import Replay

__all__ = [
    "LastGoodWeights", "Skipping", "advice", "broken_part", "broken_slot", "check_weights", "shown_number",
    "weights_are_finite",
]  # fmt: skip


def weights_are_finite(network: Network) -> bool:
    """Whether no weight is NaN or infinite."""
    model = network.model
    return _all_finite(model, [model.parameters]) or _finite(model, model.layout, model.parameters)


def broken_part(network: Network, memory: OptimizerState | None) -> str:
    """The part that is NaN or infinite: "weights", the name of a layer's state or of an optimiser's slot, or "" if none
    is."""
    slots = {} if memory is None else memory.slots
    if _all_finite(network.model, [network.model.parameters, *slots.values()]):
        return ""
    if not weights_are_finite(network):
        broken = [name for name, array in network.get_weights().items() if not np.isfinite(array).all()]
        states = {entry.name for entry in network.model.layout.entries if not entry.parameter.trainable}
        return broken[0] if set(broken) <= states else "weights"
    return "" if memory is None else broken_slot(network, memory)


def broken_slot(network: Network, memory: OptimizerState) -> str:
    """The name of an optimiser's slot that is NaN or infinite; "" if none is.

    With an infinite moment, updates are 0: those weights would never change again, while all losses are finite.
    """
    model = network.model
    if _all_finite(model, list(memory.slots.values())):
        return ""
    trained = model.layout.trainable
    return next((name for name, slot in memory.slots.items() if not _finite(model, trained, slot)), "")


def _all_finite(model: Model, buffers: Sequence[Array]) -> bool:
    """Whether all elements are certainly finite: their sums are. Sums of finite numbers may overflow."""
    if not buffers:
        return True
    with np.errstate(over="ignore", invalid="ignore"):
        if isinstance(buffers[0], np.ndarray):
            return bool(all(np.isfinite(buffer.sum()) for buffer in buffers))
        # The device computes sums of a few rows, and the host reads them at once. Sums of many rows would need the
        # temporary memory that networks in other threads use.
        backend = model.backend
        shapes = [(math.gcd(int(buffer.shape[0]), 64), int(buffer.shape[0])) for buffer in buffers]
        counts = [size // rows for rows, size in shapes]
        sums = backend.empty((sum(counts),), model.dtype)
        calls, place = [], 0
        for buffer, (rows, _), count in zip(buffers, shapes, counts, strict=True):
            matrix = backend.view(buffer, 0, (rows, count))
            calls.append(Call.of("bias_gradient", matrix, backend.view(sums, place, (count,))))
            place += count
        backend.plain_executor(calls).run(1)
        return bool(np.isfinite(backend.to_host(sums)).all())


def _finite(model: Model, layout: Layout, buffer: Array) -> bool:
    values = buffer if isinstance(buffer, np.ndarray) else model.backend.to_host(buffer)
    # The padding between parameters is meaningless.
    return bool(np.isfinite(values).all()) or all(np.isfinite(entry.view(values)).all() for entry in layout.entries)


def advice(largest_target: float | None) -> str:
    """What to do about a run that diverges."""
    if largest_target is None:
        return "Lower the learning rate, or scale the inputs."
    return (
        f"Scale the targets, which are as large as {shown_number(largest_target)}: train on (y - y.mean()) / y.std(), "
        "and convert predictions back."
    )


def shown_number(value: float) -> str:
    """A large number for a message."""
    return f"{value:,.0f}" if value < 1e12 else f"{value:.3g}"


def check_weights(network: Network, memory: OptimizerState | None = None) -> None:
    """Reject weights or slots that are already broken, because there would be no good state to restore.

    Raises
    ------
    InvalidInputError
    """
    broken = broken_part(network, memory)
    if broken and (memory is None or broken not in memory.slots):
        raise InvalidInputError(
            "the network has weights that are NaN or infinite; give it others with set_weights or restore"
        )
    if broken:
        raise InvalidInputError(
            f"the {broken} of the optimizer is NaN or infinite after its earlier training, so it would no longer "
            "change those weights; give fit a new optimizer"
        )


class LastGoodWeights:
    """The weights at the start of this epoch, to restore if the run diverges.

    Parameters
    ----------
    network : Network
    memory : OptimizerState
        The slots of the run.
    largest_target : float, optional
        The largest target, if it is so large that it may be the reason why a run diverges.
    """

    def __init__(self, network: Network, memory: OptimizerState, largest_target: float | None = None) -> None:
        self._network, self._memory = network, memory
        self._advice = advice(largest_target)
        self._before = network.snapshot()

    def begin_epoch(self) -> None:
        """Copy the weights at the beginning of an epoch."""
        self._before = self._network.snapshot(into=self._before)

    def restore(self) -> None:
        """Restore the weights from the start of this epoch; the optimiser starts over."""
        self._network.restore(self._before)
        self._network.optimizer_state = None

    def check_steps(self, epoch: int, losses: HostArray, skipped: int) -> None:
        """Stop a run that has diverged in the steps of an epoch.

        Parameters
        ----------
        epoch : int
        losses : (steps,) float64
        skipped : int
            Number of skipped steps.

        Raises
        ------
        TrainingDivergedError
            The network has the weights with which the epoch began.
        """
        bad = ~np.isfinite(losses)
        steps = len(bad)
        if 0 < skipped < steps:
            # Skipped steps changed nothing, and the others were checked when they ran.
            bad[:] = False
        diverged = bool(bad.any())
        broken = "" if diverged else broken_part(self._network, self._memory)
        if not diverged and not broken:
            return
        self.restore()
        step = int(np.argmax(bad)) + 1 if diverged else steps
        if diverged:
            what = f"the loss became {losses[step - 1]} in epoch {epoch}, step {step} of {steps}"
        elif broken == "weights":
            what = f"weights became NaN or infinite in the last step of epoch {epoch}"
        elif broken not in self._memory.slots:
            what = f"{broken} became NaN or infinite in epoch {epoch}"
        else:
            what = (
                f"the optimizer's {broken} became NaN or infinite in epoch {epoch}, after which it no longer changes "
                "those weights"
            )
        raise TrainingDivergedError(
            f"{what}; the network has the weights with which that epoch began. {self._advice}",
            epoch,
            step,
        )

    def check_validation(self, epoch: int, steps: int, metrics: Mapping[str, float]) -> None:
        """Stop a run whose validation loss is not finite, which can happen with huge but finite weights.

        Raises
        ------
        TrainingDivergedError
        """
        if np.isfinite(metrics.get("val_loss", 0.0)):
            return
        self.restore()
        raise TrainingDivergedError(
            f"the validation loss became {metrics['val_loss']} after epoch {epoch}; the network has the weights with "
            f"which that epoch began. {self._advice}",
            epoch,
            steps,
        )


class Skipping:
    """Runs portions of steps, skipping those that would break the network.

    Steps run without the host, so their results are checked portion by portion. A portion with a broken step is undone,
    repeated up to that step, and continued after it, on all ranks together.

    Parameters
    ----------
    network : Network
    memory : OptimizerState
    replay : Replay
        The steps. In its trace, entries of skipped steps are meaningless.
    communicator : Communicator
        Its ranks run the same portions.
    average : WeightAverage, optional
        Which steps change, too.

    Attributes
    ----------
    skipped : list of int
        Steps of the current epoch that were skipped, from 0; the optimiser does not count them.
    """

    def __init__(
        self,
        network: Network,
        memory: OptimizerState,
        replay: Replay,
        communicator: Communicator,
        average: WeightAverage | None = None,
    ) -> None:
        self._network, self._memory, self._replay = network, memory, replay
        self._communicator, self._average = communicator, average
        self._buffers: list[Array] = [network.model.parameters, *memory.slots.values()]
        if average is not None:
            self._buffers.append(average.average)
        self._kept = [network.backend.from_host(network.backend.to_host(buffer)) for buffer in self._buffers]
        self.skipped: list[int] = []

    def run(self, executor: Executor, first: int, steps: int) -> None:
        """Run `steps` steps of the epoch from `first` on."""
        end = first + steps
        while first < end:
            for buffer, kept in zip(self._buffers, self._kept, strict=True):
                self._network.backend.copy(buffer, kept)
            executor.run(end - first)
            broken = self._broken(first, end)
            if broken is None:
                return
            # A loss depends on the weights before the step, and not every broken weight affects a loss.
            while self._again(executor, first, broken) and broken > first:
                broken -= 1
            self.skipped.append(broken)
            first = broken + 1
            self._count_from(first)
            if self._average is not None:
                self._replay.write_shares(self._average.shares(self._replay.batches.steps, self.skipped))

    def _broken(self, first: int, end: int) -> int | None:
        """The first step whose loss is not finite; the last one if the final weights are not; otherwise None."""
        losses = self._replay.read_trace()[first:end]
        # A rank knows only the losses of its own rows.
        wrong: HostArray = np.asarray(~np.isfinite(losses).all(axis=1), np.int64)
        self._communicator.allreduce(wrong)
        if wrong.any():
            return first + int(np.argmax(wrong > 0))
        return end - 1 if self._state_is_broken() else None

    def _again(self, executor: Executor, first: int, end: int) -> bool:
        """Undo the portion and repeat it up to the step `end`; returns whether the result is broken."""
        for buffer, kept in zip(self._buffers, self._kept, strict=True):
            self._network.backend.copy(kept, buffer)
        self._count_from(first)
        if end > first:
            executor.run(end - first)
        return self._state_is_broken()

    def _state_is_broken(self) -> bool:
        sound = all(np.isfinite(self._network.backend.to_host(buffer)).all() for buffer in self._buffers)
        return self._communicator.any(not sound)

    def _count_from(self, step: int) -> None:
        steps = self._memory.steps - len(self.skipped)
        self._replay.count_from(step, self._network.steps_trained, steps)
