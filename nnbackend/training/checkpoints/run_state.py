"""Converts a run to and from the contents of a checkpoint."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from nnbackend.backends.contract import HostArray
from nnbackend.errors import ModelFileError, NNBackendError, shown
from nnbackend.network import Network
from nnbackend.saving.config import epochs_count, steps_count
from nnbackend.saving.model_file import CheckpointContents
from nnbackend.schedules import Constant
from nnbackend.step.model import Model
from nnbackend.step.recorder import OptimizerState
from nnbackend.training.callbacks.base import Callback
from nnbackend.training.checkpoints.callback_state import pack_state, unpack_state
from nnbackend.training.history import History
from nnbackend.training.run import TrainingRun

__all__ = ["RunState", "SavedRun", "check_states", "named"]


#: In place of names of slots: the average of the weights of a run that averages them, and those of its last step.
_AVERAGE, _LAST = "averaged", "unaveraged"

#: Errors that occur if an undamaged file was not written by `RunState`.
_NOT_WHAT_WAS_WRITTEN = (NNBackendError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError)


@dataclass(eq=False, repr=False)
class SavedRun:
    """The checked contents of a checkpoint, from which a run can continue.

    Attributes
    ----------
    weights : (layout.size,) array
    slots : dict of (layout.trainable_size,) arrays
    trace : (steps that are done, 3) float64
        Of the current epoch.
    seconds : float
        Duration of these steps.
    epochs, losses : list
        The entries of the history.
    stopped_by : str
    network_counts, optimizer_counts : (steps, epochs)
        Taken before the current epoch.
    schedule : dict
        State of the learning-rate schedule.
    learning_rate : float or None
        The rate that a callback set.
    averaged : int
        Number of steps in the average of the weights, without those of the current epoch.
    """

    weights: HostArray
    slots: dict[str, HostArray]
    trace: npt.NDArray[np.float64]
    seconds: float
    epochs: list[dict[str, float]]
    losses: list[HostArray]
    stopped_by: str
    network_counts: tuple[int, int]
    optimizer_counts: tuple[int, int]
    schedule: dict[str, Any]
    learning_rate: float | None
    averaged: int

    @classmethod
    def of(
        cls, contents: CheckpointContents, model: Model, slots: Iterable[str], epoch_steps: int | None = None
    ) -> SavedRun:
        """Check the contents of a checkpoint; used before it is written and after it is read.

        Parameters
        ----------
        contents : CheckpointContents
        model : Model
            Of the network to train.
        slots : iterable of str
            Names of the optimiser's slots.
        epoch_steps : int, optional
            Number of steps of an epoch, if it is known.

        Raises
        ------
        ModelFileError
            A run cannot continue from them: they are incomplete, or something in them is NaN or infinite.
        """
        try:
            return cls._of(contents, model, slots, epoch_steps)
        except _NOT_WHAT_WAS_WRITTEN as error:
            raise ModelFileError(f"the checkpoint does not hold what a run needs ({shown(error)})") from error

    @classmethod
    def _of(cls, contents: CheckpointContents, model: Model, slots: Iterable[str], epoch_steps: int | None) -> SavedRun:
        layout, dtype, training, arrays = model.layout, model.dtype, contents.training, contents.arrays
        trained = layout.trainable
        trace = arrays["trace"].astype(np.float64)
        done = len(trace)
        if trace.shape != (done, 3) or (epoch_steps is not None and done > epoch_steps):
            raise ValueError(f"{trace.shape} is no trace of an epoch of {epoch_steps} steps")
        skipped = np.isnan(trace).all(axis=1)
        if not np.isfinite(trace[~skipped]).all():
            raise ValueError("the loss became NaN or infinite")
        past, taken = training["history"], training["optimizer"]
        epochs = [dict(metrics) for metrics in past["epochs"]]
        places = np.cumsum([0, *past["steps"]])
        losses = [arrays["step_losses"][start:stop] for start, stop in pairwise(places)]
        if len(epochs) != len(losses) or places[-1] != len(arrays["step_losses"]):
            raise ValueError("the history has other step losses than epochs")
        rate = taken.get("learning_rate")
        return cls(
            weights=layout.pack(layout.check(contents.weights, dtype), dtype),
            slots={
                slot: trained.pack(trained.check(_arrays_of(f"slots.{slot}", arrays), dtype), dtype) for slot in slots
            },
            trace=trace,
            seconds=float(training["seconds"]),
            epochs=epochs,
            losses=losses,
            stopped_by=str(past["stopped_by"]),
            network_counts=(
                steps_count(contents.config["steps_trained"] - done), epochs_count(contents.config["epochs_trained"])
            ),
            optimizer_counts=(steps_count(taken["steps"] - done + int(skipped.sum())), epochs_count(taken["epochs"])),
            schedule=unpack_state(training["schedule"], _arrays_of("schedule", arrays)),
            learning_rate=None if rate is None else Constant(rate).value,
            averaged=steps_count(training.get("averaged") or 0),
        )  # fmt: skip


class RunState:
    """The state of a run, as a checkpoint keeps it.

    Parameters
    ----------
    network, memory, run, history : Network, OptimizerState, TrainingRun, History
        Of the run.
    callbacks : sequence of Callback
        Their state is part of the run's state.
    settings : dict
        Plain JSON: settings that must be the same in a resumed run.
    """

    def __init__(
        self,
        network: Network,
        memory: OptimizerState,
        run: TrainingRun,
        history: History,
        callbacks: Sequence[Callback],
        settings: Mapping[str, Any],
    ) -> None:
        self._network, self._memory, self._run, self._history = network, memory, run, history
        self._callbacks, self._settings = callbacks, settings
        #: The schedule that `settings` describe; setting `learning_rate` replaces it.
        self._schedule = memory.optimizer.schedule

    @property
    def epoch_steps(self) -> int:
        """Number of steps of an epoch."""
        return self._run.batches.steps

    @property
    def _slots(self) -> list[str]:
        """Names of the buffers in a checkpoint that are laid out like the trained parameters."""
        return [*self._memory.slots, *([] if self._run.average is None else [_AVERAGE, _LAST])]

    @property
    def begun(self) -> bool:
        """Whether at least one epoch has ended."""
        return bool(len(self._history))

    def steps(self, done: int) -> int:
        """Number of steps the network has taken, with `done` steps of the current epoch."""
        return self._network.steps_trained + done

    # ---- to a checkpoint ---------------------------------------------------------------------------------------

    def contribute(self, done: int) -> None:
        """On ranks that don't write: send this rank's part to the writer, which calls `contents` at the same time."""
        if done:
            self._run.so_far(done)

    def contents(self, done: int) -> CheckpointContents:
        """The contents of a checkpoint after `done` steps of the current epoch.

        Raises
        ------
        ModelFileError
            The run could not continue from it, because it has diverged.
        InvalidInputError
            A callback's state cannot be stored.
        """
        network, memory, history = self._network, self._memory, self._history
        skipped = self._run.skipped if done else 0
        trace, seconds = self._run.so_far(done) if done else (np.empty((0, 3)), 0.0)
        arrays: dict[str, HostArray] = {
            "trace": np.ascontiguousarray(trace),
            "step_losses": np.concatenate([np.empty(0), *history.step_losses]),
        }
        for slot, buffer in memory.slots.items():
            values = network.model.layout.trainable.unpack(network.backend.to_host(buffer))
            arrays |= {f"slots.{slot}.{name}": array for name, array in values.items()}
        weights, average = network.get_weights(), self._run.average
        if average is not None:
            # The file holds the network as it is between epochs.
            between, averages, trained = average.values()
            weights |= between
            for slot, values in ((_AVERAGE, averages), (_LAST, trained)):
                arrays |= {f"slots.{slot}.{name}": array for name, array in values.items()}
        states, their_arrays = _packed_states(network, self._callbacks)
        optimizer, schedule = memory.optimizer, memory.optimizer.schedule
        packed, schedule_arrays = pack_state(type(schedule).__name__, schedule.state())
        arrays |= their_arrays | {f"schedule.{name}": array for name, array in schedule_arrays.items()}
        training = {
            "settings": self._settings,
            "backend": network.backend.name,
            "target": network.backend.target,
            "seconds": seconds,
            "optimizer": {
                "steps": memory.steps + done - skipped,
                "epochs": memory.epochs,
                "learning_rate": None if schedule is self._schedule else optimizer.learning_rate,
            },
            "schedule": packed,
            "averaged": None if average is None else average.steps,
            "history": {
                "epochs": history.epochs,
                "steps": [len(losses) for losses in history.step_losses],
                "stopped_by": history.stopped_by,
            },
            "callbacks": states,
        }
        config = {**network.config(), "steps_trained": self.steps(done)}
        contents = CheckpointContents(config, weights, training, arrays)
        SavedRun.of(contents, network.model, self._slots, self.epoch_steps)
        return contents

    def check_callbacks(self) -> None:
        """Raise InvalidInputError if a callback's state cannot be stored."""
        _packed_states(self._network, self._callbacks)

    # ---- from a checkpoint -------------------------------------------------------------------------------------

    def restore(self, saved: CheckpointContents) -> None:
        """Restore the run from a checkpoint, except for the callbacks.

        Raises
        ------
        ModelFileError
            The checkpoint is incomplete; the network is unchanged.
        """
        network, memory = self._network, self._memory
        found = SavedRun.of(saved, network.model, self._slots, self.epoch_steps)
        try:
            memory.optimizer.schedule.set_state(found.schedule)
        except _NOT_WHAT_WAS_WRITTEN as error:
            raise ModelFileError(f"the checkpoint does not hold what a run needs ({shown(error)})") from error
        if found.learning_rate is not None:
            memory.optimizer.learning_rate = found.learning_rate
        backend = network.backend
        backend.write(found.weights, network.model.parameters)
        for slot, buffer in memory.slots.items():
            backend.write(found.slots[slot], buffer)
        if self._run.average is not None:
            self._run.average.restore(found.slots[_AVERAGE], found.slots[_LAST], found.averaged)
        network.steps_trained, network.epochs_trained = found.network_counts
        memory.steps, memory.epochs = found.optimizer_counts
        for metrics, steps in zip(found.epochs, found.losses, strict=True):
            self._history.append(metrics, steps)
        self._history.stopped_by = found.stopped_by
        self._run.resume(found.trace, found.seconds)

    def restore_callbacks(self, saved: CheckpointContents) -> None:
        """Restore the state of the callbacks, after `on_train_begin`.

        Raises
        ------
        ModelFileError
            The checkpoint is incomplete.
        """
        for name, callback in named(self._callbacks):
            try:
                states = saved.training["callbacks"]
                if name in states:
                    state = unpack_state(states[name], _arrays_of(name, saved.arrays))
                    callback.set_state(self._network, state)
            except _NOT_WHAT_WAS_WRITTEN as error:
                raise ModelFileError(
                    f"the checkpoint does not hold what {name.partition('.')[0]} needs ({shown(error)})"
                ) from error


def named(callbacks: Iterable[Callback]) -> Iterator[tuple[str, Callback]]:
    """The callbacks with their names in checkpoints: the class, and a number that counts callbacks of that class."""
    seen: Counter[str] = Counter()
    for callback in callbacks:
        kind = type(callback).__name__
        yield f"{kind}.{seen[kind]}", callback
        seen[kind] += 1


def _packed_states(
    network: Network, callbacks: Iterable[Callback]
) -> tuple[dict[str, dict[str, Any]], dict[str, HostArray]]:
    """The states of the callbacks that have one, as plain JSON by their names, and arrays with these as prefixes.

    Raises
    ------
    InvalidInputError
        A state cannot be stored.
    """
    states: dict[str, dict[str, Any]] = {}
    arrays: dict[str, HostArray] = {}
    for name, callback in named(callbacks):
        plain, found = pack_state(type(callback).__name__, callback.state(network))
        if plain or found:
            states[name] = plain
            arrays |= {f"{name}.{key}": array for key, array in found.items()}
    return states, arrays


def check_states(network: Network, callbacks: Iterable[Callback]) -> None:
    """Raise InvalidInputError if a callback's state cannot be stored, as far as it is known before training begins."""
    for callback in callbacks:
        try:
            state = callback.state(network)
        except Exception:
            # It may need what on_train_begin prepares; the state is checked again after that.
            continue
        pack_state(type(callback).__name__, state)


def _arrays_of(name: str, arrays: Mapping[str, HostArray]) -> dict[str, HostArray]:
    """The arrays whose names begin with this prefix and a dot, by the rest of their names."""
    prefix = f"{name}."
    return {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}
