"""Converts a run to and from the contents of a checkpoint."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from nnbackend.backends.contract import HostArray
from nnbackend.errors import ModelFileError, NNBackendError, shown
from nnbackend.network import Network
from nnbackend.saving.config import epochs_count, steps_count
from nnbackend.saving.model_file import CheckpointContents
from nnbackend.step.recorder import OptimizerState
from nnbackend.training.callbacks.base import Callback
from nnbackend.training.history import History
from nnbackend.training.run import TrainingRun

__all__ = ["RunState", "named"]


#: Errors that occur if an undamaged file was not written by `RunState`.
_NOT_WHAT_WAS_WRITTEN = (NNBackendError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError)


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

    @property
    def epoch_steps(self) -> int:
        """Number of steps of an epoch."""
        return self._run.batches.steps

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

    def contents(self, done: int) -> CheckpointContents | None:
        """The contents of a checkpoint after `done` steps of the current epoch; None if the run has diverged."""
        network, memory, history = self._network, self._memory, self._history
        skipped = self._run.skipped if done else 0
        trace, seconds = self._run.so_far(done) if done else (np.empty((0, 3)), 0.0)
        weights = network.get_weights()
        # Entries of skipped steps are NaN.
        sound = trace[~np.isnan(trace).all(axis=1)] if skipped else trace
        if not np.isfinite(sound).all() or not all(np.isfinite(array).all() for array in weights.values()):
            return None
        arrays: dict[str, HostArray] = {
            "trace": np.ascontiguousarray(trace),
            "step_losses": np.concatenate([np.empty(0), *history.step_losses]),
        }
        for slot, buffer in memory.slots.items():
            values = network.model.layout.trainable.unpack(network.backend.to_host(buffer))
            arrays |= {f"slots.{slot}.{name}": array for name, array in values.items()}
        states: dict[str, Any] = {}
        for name, callback in named(self._callbacks):
            state = callback.state(network)
            arrays |= {f"{name}.{key}": value for key, value in state.items() if isinstance(value, np.ndarray)}
            states[name] = {key: value for key, value in state.items() if not isinstance(value, np.ndarray)}
        training = {
            "settings": self._settings,
            "backend": network.backend.name,
            "seconds": seconds,
            "optimizer": {"steps": memory.steps + done - skipped, "epochs": memory.epochs},
            "schedule": memory.optimizer.schedule.state(),
            "history": {
                "epochs": history.epochs,
                "steps": [len(losses) for losses in history.step_losses],
                "stopped_by": history.stopped_by,
            },
            "callbacks": {name: state for name, state in states.items() if state or _arrays_of(name, arrays)},
        }
        config = {**network.config(), "steps_trained": self.steps(done)}
        return CheckpointContents(config, weights, training, arrays)

    # ---- from a checkpoint -------------------------------------------------------------------------------------

    def restore(self, saved: CheckpointContents) -> None:
        """Restore the run from a checkpoint, except for the callbacks.

        Raises
        ------
        ModelFileError
            The checkpoint is incomplete; the network is unchanged.
        """
        network, memory, model = self._network, self._memory, self._network.model
        try:
            layout, training = model.layout, saved.training
            weights = layout.pack(layout.check(saved.weights, network.dtype), network.dtype)
            trained, dtype = layout.trainable, network.dtype
            slots = {
                slot: trained.pack(trained.check(_arrays_of(f"slots.{slot}", saved.arrays), dtype), dtype)
                for slot in memory.slots
            }
            trace, seconds = saved.arrays["trace"].astype(np.float64), float(training["seconds"])
            done = len(trace)
            if trace.shape != (done, 3) or done > self.epoch_steps:
                raise ValueError(f"{trace.shape} is no trace of an epoch of {self.epoch_steps} steps")
            past = training["history"]
            epochs = [dict(metrics) for metrics in past["epochs"]]
            places = np.cumsum([0, *past["steps"]])
            losses = [saved.arrays["step_losses"][start:stop] for start, stop in pairwise(places)]
            if len(epochs) != len(losses) or places[-1] != len(saved.arrays["step_losses"]):
                raise ValueError("the history has other step losses than epochs")
            counts = steps_count(saved.config["steps_trained"] - done), epochs_count(saved.config["epochs_trained"])
            skipped = int(np.isnan(trace).any(axis=1).sum())
            taken = training["optimizer"]
            optimizer_counts = steps_count(taken["steps"] - done + skipped), epochs_count(taken["epochs"])
            stopped_by = str(past["stopped_by"])
            memory.optimizer.schedule.set_state(training["schedule"])
        except _NOT_WHAT_WAS_WRITTEN as error:
            raise ModelFileError(f"the checkpoint does not hold what a run needs ({shown(error)})") from error
        backend = network.backend
        backend.write(weights, model.parameters)
        for slot, values in slots.items():
            backend.write(values, memory.slots[slot])
        network.steps_trained, network.epochs_trained = counts
        memory.steps, memory.epochs = optimizer_counts
        for metrics, steps in zip(epochs, losses, strict=True):
            self._history.append(metrics, steps)
        self._history.stopped_by = stopped_by
        self._run.resume(trace, seconds)

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
                    callback.set_state(self._network, {**states[name], **_arrays_of(name, saved.arrays)})
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


def _arrays_of(name: str, arrays: Mapping[str, HostArray]) -> dict[str, HostArray]:
    """The arrays whose names begin with this prefix and a dot, by the rest of their names."""
    prefix = f"{name}."
    return {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}
