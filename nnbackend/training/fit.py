"""The training loop: shuffles, runs the step over the epoch's order, evaluates, tells the callbacks."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import ExitStack, closing
from functools import partial
from typing import Any

import numpy as np

from nnbackend.data.batch_stream import BatchStream
from nnbackend.data.feeds import Feed
from nnbackend.data.rows import as_rows
from nnbackend.distributed.communicator import Alone, Communicator
from nnbackend.distributed.slices import rows_of
from nnbackend.errors import InvalidInputError, ModelFileError, UnknownNameError
from nnbackend.losses import Loss
from nnbackend.network import Network
from nnbackend.optimizers import OPTIMIZERS, Optimizer
from nnbackend.support.checks import positive_integer
from nnbackend.training.callbacks import Callback
from nnbackend.training.checkpoints.resuming import Resume, find_start, run_settings
from nnbackend.training.checkpoints.run_state import RunState
from nnbackend.training.divergence import check_finite, check_validation
from nnbackend.training.history import History
from nnbackend.training.interrupt import Interrupt
from nnbackend.training.progress import Progress
from nnbackend.training.ranks import check_alike, check_ranks, check_replicas, check_settings, mean_over
from nnbackend.training.run import EpochResult, TrainingRun
from nnbackend.training.setup import check_weights, required_loss, take_up
from nnbackend.training.sizes import training_memory
from nnbackend.training.validation import Validator

__all__ = ["fit"]

_log = logging.getLogger("nnbackend")

_DEFAULT_BATCH = 32
_ON_NAN = ("stop", "skip")


def fit(
    network: Network,
    x: Any,
    y: Any = None,
    *,
    epochs: int = 10,
    batch_size: int | None = None,
    loss: str | Loss | None = None,
    optimizer: Optimizer | str = "adam",
    validation_data: tuple[Any, Any] | BatchStream | None = None,
    callbacks: Iterable[Callback] = (),
    sample_weight: Any = None,
    class_weight: Any = None,
    shuffle: bool = True,
    steps_per_epoch: int | None = None,
    stream: bool | None = None,
    resume: Resume = False,
    on_nan: str = "stop",
    verbose: bool | None = None,
    communicator: Communicator | None = None,
    shard: bool = False,
) -> History:
    """Train a network.

    Parameters
    ----------
    network : Network
    x : (n, *input_shape) array_like, or BatchStream
        In memory, or in a memory-mapped file or HDF5 data set. uint8 stays uint8 until a batch is gathered, and is
        then scaled by 1/255.
    y : (n,) labels or (n, outputs) values
        Not with a stream, which brings them.
    epochs : int
        How often all rows are seen, unless `steps_per_epoch` says otherwise.
    batch_size : int, optional
        Rows a step, 32 if not given (or all, if there are fewer). The last, shorter batch of an epoch is
        trained on as well.
    loss : str, optional
        "softmax_cross_entropy", "sigmoid_cross_entropy" or "mean_squared_error"; not needed the second time.
    optimizer : Optimizer or str
        An object goes on where it was if the network was trained with the same object before; a name starts
        a new one.
    validation_data : (x, y) or BatchStream, optional
        Evaluated after every epoch.
    callbacks : sequence of Callback
    sample_weight : (n,) array_like, optional
        Weights of the rows; only their ratios matter.
    class_weight : dict or (classes,) array_like, optional
        Weights of the classes, times those of the rows.
    shuffle : bool
        Whether every epoch has an order of its own, drawn from the network's seed.
    steps_per_epoch : int, optional
        Makes an epoch that many full batches, whatever the number of rows: the rows are gone through again and again,
        and every epoch goes on where the last one ended. Useful for few rows, where one pass is too short to look at
        the metrics after it, and for very many. If not given, an epoch sees every row once.
    stream : bool, optional
        True leaves `x` where it is and brings its rows to the device portion by portion, while that trains on the
        portion before; False brings all of them before training begins. If not given, what does not fit into the
        device's memory is streamed, and what lies in a file of more than a gigabyte. Results are the same, bit for bit.
    resume : bool or path-like
        True goes on where the newest checkpoint in the folder of the callback :class:`nnbackend.Checkpoint` left off,
        or begins if there is none yet, so that one program starts a run and restarts it; a folder goes on from there.
        The run then ends with the same bits as if it had never ended before, where it is given what it was given then.
        `epochs` may be more, and ranks more or fewer: then it agrees to rounding.
    on_nan : "stop" or "skip"
        What to do with a step whose loss or gradients are NaN or infinite, or that would make the weights or the
        optimiser's slots so: end the run with an error, or leave the step out and go on. Then the metrics of every
        epoch have "skipped", how many were left out; their step losses are NaN. Skipping looks at the weights some
        ten times a second and keeps a copy of weights and slots; an epoch of which nothing is left ends the run.
    verbose : bool, optional
        True prints a line an epoch, False nothing; if not given, it prints on a terminal.
    communicator : Communicator, optional
        ``nnbackend.distributed.world()`` shares each batch out over the ranks that `mpiexec` started: all of them call
        `fit` with the same arguments, and get the network and the history that one rank would have got, to rounding.
        Only the first prints, and calls callbacks that write.
    shard : bool
        Whether `x`, `y` and `validation_data` are this rank's rows alone, and not the same ones on all ranks.

    Returns
    -------
    History

    Raises
    ------
    InvalidInputError, UnknownNameError
        Before anything is changed.
    ModelFileError, FolderInUseError
        All checkpoints are damaged, or another run is writing them; before anything is changed.
    OutOfMemoryError
        The host's memory or the device's is too small; the message says for what, and what to lower.
    TrainingDivergedError
        The loss became NaN or infinite. The network has the weights with which that epoch began.
    DistributedError
        Another rank cannot train; the message has its reason.

    Notes
    -----
    Ctrl-C ends the run after the step at hand: the history says so, the network keeps what it has learned. With a
    `Checkpoint`, SIGTERM ends the program after the step at hand and a last checkpoint, with the exit code 143
    (SystemExit).
    """
    communicator = Alone() if communicator is None else communicator
    memory_for = training_memory(network, x, batch_size, optimizer)
    with network.in_training(), check_ranks(communicator) as checks, memory_for, ExitStack() as held:
        epochs = positive_integer("epochs", epochs)
        chosen_loss = required_loss(network, loss)
        chosen_optimizer = _get_optimizer(optimizer)
        callbacks = _check_callbacks(callbacks)
        if on_nan not in _ON_NAN:
            raise UnknownNameError("on_nan", on_nan, _ON_NAN)
        data = x if isinstance(x, BatchStream) else as_rows(x, network.input_shape, network.dtype)
        counts = checks.exchange(len(data))
        shards = counts if shard else None
        size = _check_batch_size(batch_size, sum(counts) if shard else len(data), communicator.size)
        if steps_per_epoch is not None:
            steps_per_epoch = positive_integer("steps_per_epoch", steps_per_epoch)
            if isinstance(x, BatchStream):
                raise InvalidInputError(
                    "steps_per_epoch is for arrays; a BatchStream says itself how many rows an epoch has"
                )
        weighted = sample_weight is not None or class_weight is not None
        check_alike(checks, network, len(data), shard, weighted, isinstance(x, BatchStream))
        feed = network.intake.feed(
            data,
            y,
            chosen_loss,
            rows_of(size, communicator.rank, communicator.size),
            sample_weight=sample_weight,
            class_weight=class_weight,
            stream=stream,
            mean_weight=mean_over(checks) if shard else np.mean,
        )
        held.enter_context(closing(feed))
        validator = Validator.of(network, chosen_loss, validation_data, held, communicator, shard)
        names = _metric_names(feed, validator)
        chosen_optimizer.schedule.check(names)
        for callback in callbacks:
            callback.check(names)
        if network.batch_step is not None:
            # Nobody has looked at what the last batch made of them.
            check_weights(network)
        chosen = {
            "batch_size": size, "shuffle": bool(shuffle), "steps_per_epoch": steps_per_epoch, "on_nan": on_nan
        }  # fmt: skip
        others = {"epochs": epochs, "loss": chosen_loss.name, "optimizer": chosen_optimizer, "resume": resume}
        check_settings(checks, {**chosen, **others, "metrics": names}, data, y, shard)
        settings = partial(run_settings, network, data, y, chosen_optimizer, chosen_loss.name, chosen)
        start = find_start(resume, callbacks, held, settings, checks, shard)
        checks.passed()

        memory = take_up(network, chosen_loss, chosen_optimizer)
        run = TrainingRun(
            network,
            chosen_loss,
            memory,
            feed,
            size,
            shuffle,
            steps_per_epoch,
            skip_broken=on_nan == "skip",
            communicator=communicator,
            shards=shards,
        )
        executor = run.executors[0][0]
        _log.info("training on %r with the %s executor: %s", network.backend, executor.name, executor.reason)

        look = communicator.any(bool(callbacks))
        if communicator.rank:
            verbose, callbacks = False, tuple(call for call in callbacks if not call.first_rank_only)
        history = History()
        state = RunState(network, memory, run, history, callbacks, start.settings)
        # The weights with which this epoch and the one before it began, to go back to if the run diverges.
        before, earlier = network.snapshot(), network.snapshot()
        taken = network.steps_trained, network.epochs_trained
        start.restore(state, communicator)
        watch = start.watch(state, communicator)
        for callback in callbacks:
            callback.on_train_begin(network, epochs)
        try:
            start.restore_callbacks(state)
        except ModelFileError:
            network.restore(before)
            network.steps_trained, network.epochs_trained = taken
            network.optimizer_state = None
            raise
        network.snapshot(into=before)
        # A run that had ended already has nothing left to do.
        first = epochs + 1 if history.stopped_by else len(history) + 1
        with (
            Progress(verbose, epochs, run.batches.steps) as progress,
            Interrupt(start.keeps, communicator) as interrupt,
        ):
            for epoch in range(first, epochs + 1):
                for callback in callbacks:
                    callback.on_epoch_begin(network, epoch)
                progress.begin(epoch)
                before, earlier = network.snapshot(into=earlier), before
                rate = run.learning_rate
                try:
                    result = run.epoch(lambda: interrupt.requested, progress.advance, watch)
                except Exception:
                    # A file that cannot be read any more, say, or a layer's own function.
                    network.restore(before)
                    network.optimizer_state = None
                    raise
                # Weights that broke in the last step show in the next epoch's first loss; where somebody looks at the
                # network before that, they are read and checked at once.
                check_finite(network, (before, earlier), epoch, result, look=epoch == epochs or look)
                check_replicas(network, communicator)
                cut = result.rows < run.rows_per_epoch
                if cut:
                    interrupt.exit_if_terminated()
                history.interrupted = communicator.any(interrupt.requested)
                if result.rows == 0:
                    break
                metrics = communicator.broadcast(_metrics(network, epoch, rate, result, feed.accuracy_name, validator))
                if on_nan == "skip":
                    metrics["skipped"] = result.skipped
                check_validation(network, before, epoch, len(result.losses), metrics)
                history.append(metrics, result.losses)
                progress.end(metrics)
                chosen_optimizer.schedule.observe(metrics)
                for callback in callbacks:
                    callback.on_steps_end(network, epoch, result.losses)
                reasons = [
                    (callback, (callback.on_epoch_cut if cut else callback.on_epoch_end)(network, epoch, metrics))
                    for callback in callbacks
                ]
                own = [(type(callback).__name__, reason) for callback, reason in reasons if reason]
                stops = [stop for given in communicator.gather(own) for stop in given]
                if stops:
                    history.stopped_by = stops[0][0]
                    progress.note(f"stopped after epoch {epoch}: {stops[0][1]}")
                # Asked again: Ctrl-C may have come while validating or in a callback.
                history.interrupted = communicator.any(interrupt.requested)
                if not cut:
                    watch.epoch_ended(last=epoch == epochs or bool(stops) or history.interrupted)
                # A signal that came after it was asked for cuts the next epoch at its first step.
                if stops or history.interrupted:
                    break
            # Only here, and where an epoch was cut: the last checkpoint is written.
            interrupt.exit_if_terminated()
            if history.interrupted:
                progress.note(f"interrupted in epoch {epoch}; the network keeps what it has learned")
        for callback in callbacks:
            callback.on_train_end(network, history)
        return history


def _get_optimizer(optimizer: Optimizer | str) -> Optimizer:
    if isinstance(optimizer, Optimizer):
        return optimizer
    if not isinstance(optimizer, str) or optimizer not in OPTIMIZERS:
        raise UnknownNameError("optimizer", optimizer, OPTIMIZERS)
    made: Optimizer = OPTIMIZERS[optimizer]()
    return made


def _check_callbacks(callbacks: Iterable[Callback]) -> tuple[Callback, ...]:
    if not isinstance(callbacks, Iterable):
        raise InvalidInputError(f"callbacks must be a list of nnbackend Callback objects, received {callbacks!r}")
    listed = tuple(callbacks)
    for callback in listed:
        if not isinstance(callback, Callback):
            raise InvalidInputError(f"callbacks must be nnbackend Callback objects, received {callback!r}")
    return listed


def _metric_names(feed: Feed, validator: Validator | None) -> list[str]:
    """What every epoch will report that can be monitored."""
    names = ["loss", feed.accuracy_name]
    if validator is not None:
        names += ["val_loss", validator.accuracy_name]
    return [name for name in names if name is not None]


def _check_batch_size(batch_size: int | None, rows: int, ranks: int) -> int:
    size = min(max(_DEFAULT_BATCH, ranks), rows) if batch_size is None else positive_integer("batch_size", batch_size)
    if size < ranks:
        raise InvalidInputError(f"batch_size must be at least the {ranks} ranks that share a batch, received {size}")
    if size > rows:
        raise InvalidInputError(f"batch_size must be at most the {rows} rows there are, received {batch_size}")
    return size


def _metrics(
    network: Network,
    epoch: int,
    rate: float,
    result: EpochResult,
    accuracy_name: str | None,
    validator: Validator | None,
) -> dict[str, float]:
    metrics: dict[str, float] = {"epoch": epoch, "loss": result.loss}
    if accuracy_name is not None:
        metrics[accuracy_name] = result.correct
    if validator is not None:
        loss, correct = validator.run()
        metrics["val_loss"] = loss + network.penalty()
        if validator.accuracy_name is not None:
            metrics[validator.accuracy_name] = correct
    metrics["learning_rate"] = rate
    metrics["seconds"] = result.seconds
    metrics["samples_per_second"] = result.rows / max(result.seconds, 1e-9)
    return metrics
