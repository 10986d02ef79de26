"""The training loop: for each epoch, run the steps, evaluate, record the metrics, tell the listeners."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Hashable, Iterable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

from nnbackend.augment import Augmentation
from nnbackend.data.batch_stream import BatchStream
from nnbackend.data.scale import Inputs
from nnbackend.distributed.communicator import Alone, Communicator
from nnbackend.errors import NNBackendError
from nnbackend.losses import Loss
from nnbackend.network import Network
from nnbackend.optimizers import Optimizer
from nnbackend.schedules import Schedule
from nnbackend.step.recorder import OptimizerState
from nnbackend.step.recordings import Recordings, is_ours
from nnbackend.step.replay import Requests, run_requests
from nnbackend.support.surroundings import callers_error_state, own_error_state
from nnbackend.training.callbacks.base import Callback
from nnbackend.training.checkpoints.resuming import Resume
from nnbackend.training.checkpoints.run_state import RunState
from nnbackend.training.decisions import decided_if_trained, describe_inputs, memory_for, take_up
from nnbackend.training.divergence import LastGoodWeights
from nnbackend.training.history import History
from nnbackend.training.interrupt import Interrupt
from nnbackend.training.listeners import CallbackListener, Listeners, SignalListener
from nnbackend.training.memory import training_memory
from nnbackend.training.plan import Arguments, Plan, make_plan, with_validation_split
from nnbackend.training.progress import Progress
from nnbackend.training.ranks import ReplicaListener, check_ranks
from nnbackend.training.run import EpochResult, TrainingRun

__all__ = ["Epochs", "Training", "Work", "fit", "run_alone"]

_log = logging.getLogger("nnbackend")

#: A training that waits for the results of its work.
Epochs = Generator["Work", Any, None]


def fit(
    network: Network,
    x: Any,
    y: Any = None,
    *,
    epochs: int = 10,
    batch_size: int | None = None,
    loss: str | Loss | None = None,
    optimizer: Optimizer | str = "adam",
    validation_data: tuple[Any, ...] | BatchStream | None = None,
    validation_split: float = 0.0,
    metrics: Iterable[Any] = (),
    train_metrics: bool = False,
    callbacks: Iterable[Callback] = (),
    sample_weight: Any = None,
    class_weight: Any = None,
    label_smoothing: float = 0.0,
    clip_norm: float | None = None,
    clip_value: float | None = None,
    accumulate: int = 1,
    ema: float | None = None,
    augment: Augmentation | Sequence[Augmentation] = (),
    shuffle: bool = True,
    steps_per_epoch: int | None = None,
    stream: bool | None = None,
    resume: Resume = False,
    on_nan: str = "stop",
    verbose: bool | None = None,
    communicator: Communicator | None = None,
    shard: bool = False,
) -> History:
    """Train a network; :meth:`nnbackend.Network.fit` documents the parameters and errors.

    Parameters
    ----------
    network : Network
    x, y, epochs, batch_size, loss, optimizer, validation_data, validation_split, metrics, train_metrics
        As for :meth:`nnbackend.Network.fit`.
    callbacks, sample_weight, class_weight, label_smoothing, clip_norm, clip_value, accumulate, ema
        As there.
    augment, shuffle, steps_per_epoch, stream, resume, on_nan, verbose
        As there.
    communicator, shard
        As there.

    Returns
    -------
    History
    """
    given = Arguments(
        x=x,
        y=y,
        epochs=epochs,
        batch_size=batch_size,
        loss=loss,
        optimizer=optimizer,
        validation_data=validation_data,
        validation_split=validation_split,
        metrics=metrics,
        train_metrics=train_metrics,
        callbacks=callbacks,
        sample_weight=sample_weight,
        class_weight=class_weight,
        label_smoothing=label_smoothing,
        clip_norm=clip_norm,
        clip_value=clip_value,
        accumulate=accumulate,
        ema=ema,
        augment=augment,
        shuffle=shuffle,
        steps_per_epoch=steps_per_epoch,
        stream=stream,
        resume=resume,
        on_nan=on_nan,
        verbose=verbose,
        shard=shard,
    )
    ranks = Alone() if communicator is None else communicator
    memory = training_memory(network, given)
    with own_error_state(), network.in_training(), check_ranks(ranks) as checks, memory, ExitStack() as held:
        given = with_validation_split(network, given)
        plan = make_plan(network, given, ranks, checks, held)
        checks.passed()
        training = Training(plan)
        run_alone(training.epochs())
        return training.history


@dataclass(frozen=True)
class Work:
    """Work of a training that needs none of the user's code.

    Attributes
    ----------
    call : callable
        Does the work, and returns its result.
    apart : bool
        Whether another thread may call it.
    kind : hashable
        Work of the same kind can be done as one, with `requests`; None if there is none.
    requests : callable, optional
        Instead of `call`: requests runs of executors, and returns the result.
    """

    call: Callable[[], Any]
    apart: bool
    kind: Hashable = None
    requests: Callable[[], Requests[Any]] | None = None


def run_alone(epochs: Epochs) -> None:
    """Run a training in this thread."""
    try:
        work = next(epochs)
        while True:
            try:
                result = work.call()
            except BaseException as error:
                work = epochs.throw(error)
            else:
                work = epochs.send(result)
    except StopIteration:
        pass


class Training:
    """A training run, with its loop over the epochs.

    Parameters
    ----------
    plan : Plan
    interrupt : Interrupt, optional
        Ends the run; an interrupt of its own if not given.
    recordings : Recordings, optional
        Recorded steps of other networks, and for others.

    Attributes
    ----------
    history : History
    """

    def __init__(self, plan: Plan, interrupt: Interrupt | None = None, recordings: Recordings | None = None) -> None:
        self.history = History()
        self._plan, self._interrupt, self._recordings = plan, interrupt, recordings

    def epochs(self) -> Epochs:
        """The loop.

        Yields
        ------
        Work
            The caller calls it, and sends the result or throws the error, before anything else happens to the network.
            In between, the network, its optimiser and its callbacks belong to this generator.
        """
        # A checkpoint decides everything itself.
        with decided_if_trained(self._plan.network) if self._plan.start.saved is None else nullcontext():
            yield from self._epochs()

    def _epochs(self) -> Epochs:
        plan, history = self._plan, self.history
        parts = _Parts(plan, history, self._interrupt, self._recordings)
        listeners = parts.listeners
        # A resumed run may already be complete.
        epoch = plan.epochs if history.stopped_by else len(history)
        with plan.optimizer.in_training(), listeners:
            while epoch < plan.epochs:
                epoch += 1
                listeners.epoch_begin(epoch)
                result = yield parts.steps(epoch)
                listeners.steps_end(epoch, result)
                if result.rows == 0:
                    break
                metrics = (
                    parts.evaluate(epoch, result)
                    if plan.validator is None
                    else (yield Work(partial(parts.evaluate, epoch, result), parts.evaluation_apart))
                )
                history.append(metrics, result.losses)
                # Callbacks may add metrics.
                metrics = history.epochs[-1]
                listeners.epoch_end(epoch, result, metrics)
                plan.optimizer.schedule.observe(metrics)
                stop = bool(history.stopped_by) or history.interrupted
                if not result.cut:
                    listeners.save_point(last=stop or epoch == plan.epochs)
                if stop:
                    break
            listeners.epochs_end(epoch)
        with callers_error_state():
            for callback in parts.callbacks:
                callback.on_train_end(plan.network, history)
        parts.release()


def _schedules(schedule: Schedule) -> list[Schedule]:
    """A schedule, and the schedules that it consists of."""
    inner = [each for each in vars(schedule).values() if isinstance(each, Schedule)]
    return [schedule, *(part for each in inner for part in _schedules(each))]


class _Parts:
    """The parts of a run: steps, evaluation and listeners.

    Parameters
    ----------
    plan : Plan
    history : History
    interrupt : Interrupt or None
    recordings : Recordings or None

    Attributes
    ----------
    callbacks : tuple of Callback
        The callbacks that this rank calls.
    listeners : Listeners
    evaluation_apart : bool
        Whether another thread may evaluate.
    """

    def __init__(
        self, plan: Plan, history: History, interrupt: Interrupt | None, recordings: Recordings | None
    ) -> None:
        network, ranks = plan.network, plan.communicator
        self._plan = plan
        memory = memory_for(network, plan.optimizer)
        self._run = run = TrainingRun(
            network,
            plan.training_loss,
            memory,
            plan.feed,
            plan.batch_size,
            plan.shuffle,
            plan.steps_per_epoch,
            skip_broken=plan.skip_broken,
            communicator=ranks,
            shards=plan.shards,
            augment=plan.augment,
            recordings=recordings,
            options=plan.options,
        )
        if plan.validator is not None:
            plan.validator.record(recordings)
        before = network.loss, network.optimizer_state
        take_up(network, plan.loss, plan.multilabel, memory, plan.options)
        describe_inputs(network, Inputs.of_ranks(ranks.gather(plan.feed.describe())), plan.feed.examples.scale)
        executor = run.executors[0][0]
        _log.info("training on %r with the %s executor: %s", network.backend, executor.name, executor.reason)
        for note in plan.options.notes():
            _log.info("%s", note)
        first = ranks.rank == 0
        self.callbacks = tuple(call for call in plan.callbacks if first or not call.first_rank_only)
        state = RunState(network, memory, run, history, self.callbacks, plan.start.settings)
        self._good = LastGoodWeights(network, memory, plan.feed.largest_target)
        self._begin(state, *before)
        progress = Progress(plan.verbose if first else False, plan.epochs, run.batches.steps)
        signals = Interrupt(plan.start.keeps, ranks) if interrupt is None else interrupt
        self.listeners = Listeners(
            [
                ReplicaListener(network, ranks),
                CallbackListener(network, self.callbacks, history, ranks, progress.note),
                progress,
                SignalListener(signals, history, ranks, progress.note),
                plan.start.listener(state, ranks),
            ]
        )
        # The user's schedules and, for a checkpoint within an epoch, callbacks are called in the calling thread.
        users = [*_schedules(plan.optimizer.schedule), *(self.callbacks if plan.start.keeps else ())]
        self._steps_apart = run.apart and is_ours(users)
        self.evaluation_apart = plan.validator is not None and plan.validator.apart and plan.training_metrics is None

    def _begin(self, state: RunState, loss: Loss | None, memory: OptimizerState | None) -> None:
        """Resume from a checkpoint, if there is one, and tell the callbacks that training begins.

        After an error, the network has its weights, counts, loss and optimiser from before.
        """
        plan, network = self._plan, self._plan.network
        taken = network.steps_trained, network.epochs_trained
        plan.start.restore(state, plan.communicator)
        with callers_error_state():
            for callback in self.callbacks:
                callback.on_train_begin(network, plan.epochs)
        try:
            plan.start.restore_callbacks(state)
            plan.start.check_callbacks(state)
        except NNBackendError:
            self._good.restore()
            network.steps_trained, network.epochs_trained = taken
            if plan.start.saved is None:
                network.optimizer_state = memory
            if loss is not None:
                network.use_loss(loss)
            raise

    def release(self) -> None:
        """Make the recorded steps available to others, after the last epoch."""
        self._run.release()
        if self._plan.validator is not None:
            self._plan.validator.release()

    def steps(self, epoch: int) -> Work:
        """An epoch's steps; after an error the network has the weights with which the epoch began."""
        requests = partial(self._run_steps, epoch)
        return Work(lambda: run_requests(requests()), self._steps_apart, self._run.kind, requests)

    def _run_steps(self, epoch: int) -> Requests[EpochResult]:
        self._good.begin_epoch()
        try:
            result = yield from self._run.requests(self.listeners)
        except BaseException:
            # Such as a file that can no longer be read, an error in a user-defined function, or Ctrl-C there.
            self._good.restore()
            raise
        self._good.check_steps(epoch, result.losses, result.skipped)
        return result

    def evaluate(self, epoch: int, result: EpochResult) -> dict[str, float]:
        """The metrics of an epoch, including those of the validation data."""
        plan = self._plan
        metrics: dict[str, float] = {"epoch": epoch, "loss": result.loss}
        if plan.feed.accuracy_name is not None:
            metrics[plan.feed.accuracy_name] = result.correct
        if plan.training_metrics is not None:
            metrics |= plan.training_metrics.run()
        if plan.validator is not None:
            metrics |= plan.validator.run(plan.network.penalty())
        metrics["learning_rate"] = result.learning_rate
        metrics["seconds"] = result.seconds
        metrics["samples_per_second"] = result.rows / max(result.seconds, 1e-9)
        metrics = plan.communicator.broadcast(metrics)
        if plan.skip_broken:
            metrics["skipped"] = result.skipped
        self._good.check_validation(epoch, len(result.losses), metrics)
        return metrics
