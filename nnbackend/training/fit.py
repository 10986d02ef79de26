"""The training loop: shuffles, runs the step over the epoch's order, evaluates, tells the callbacks."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, closing
from typing import Any

import numpy as np

from nnbackend.batch_stream import BatchStream
from nnbackend.checks import positive_integer
from nnbackend.distributed.communicator import Alone, Communicator
from nnbackend.distributed.slices import rows_of
from nnbackend.errors import InvalidInputError, TrainingDivergedError, UnknownNameError
from nnbackend.feeds import Feed
from nnbackend.losses import Loss
from nnbackend.network import Network
from nnbackend.optimizers import OPTIMIZERS, Optimizer
from nnbackend.rows import as_rows
from nnbackend.training.callbacks import Callback
from nnbackend.training.history import History
from nnbackend.training.interrupt import Interrupt
from nnbackend.training.progress import Progress
from nnbackend.training.ranks import check_alike, check_ranks, check_replicas, mean_over
from nnbackend.training.run import EpochResult, TrainingRun
from nnbackend.training.start import check_weights, required_loss, take_up, weights_are_finite
from nnbackend.training.validation import Validator

__all__ = ["fit"]

_log = logging.getLogger("nnbackend")

_DEFAULT_BATCH = 32


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
        the figures after it, and for very many. If not given, an epoch sees every row once.
    stream : bool, optional
        True leaves `x` where it is and brings its rows to the device portion by portion, while that trains on the
        portion before; False brings all of them before training begins. If not given, what does not fit into the
        device's memory is streamed, and what lies in a file of more than a gigabyte. Results are the same, bit for bit.
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
    TrainingDivergedError
        The loss became NaN or infinite. The network has the weights with which that epoch began.
    DistributedError
        Another rank cannot train; the message has its reason.

    Notes
    -----
    Ctrl-C ends the run after the step at hand: the history says so, the network keeps what it has learned.
    """
    communicator = Alone() if communicator is None else communicator
    with network.in_training(), check_ranks(communicator) as checks, ExitStack() as feeds:
        epochs = positive_integer("epochs", epochs)
        chosen_loss = required_loss(network, loss)
        chosen_optimizer = _get_optimizer(optimizer)
        callbacks = _check_callbacks(callbacks)
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
        feeds.enter_context(closing(feed))
        validator = Validator.of(network, chosen_loss, validation_data, feeds, communicator, shard)
        names = _figure_names(feed, validator)
        chosen_optimizer.schedule.check(names)
        for callback in callbacks:
            callback.check(names)
        if network.batch_step is not None:
            # Nobody has looked at what the last batch made of them.
            check_weights(network)
        settings = {"epochs": epochs, "batch_size": size, "loss": chosen_loss.name, "optimizer": chosen_optimizer}
        settings |= {"shuffle": shuffle, "steps_per_epoch": steps_per_epoch, "figures": names}
        checks.alike({name: repr(value) for name, value in settings.items()})
        checks.passed()

        memory = take_up(network, chosen_loss, chosen_optimizer)
        run = TrainingRun(network, chosen_loss, memory, feed, size, shuffle, steps_per_epoch, communicator, shards)
        executor = run.executors[0][0]
        _log.info("training on %r with the %s executor: %s", network.backend, executor.name, executor.reason)

        look = communicator.any(bool(callbacks))
        if communicator.rank:
            verbose, callbacks = False, tuple(call for call in callbacks if not call.first_rank_only)
        history = History()
        # The weights with which this epoch and the one before it began, to go back to if the run diverges.
        before, earlier = network.snapshot(), network.snapshot()
        for callback in callbacks:
            callback.on_train_begin(network, epochs)
        with Progress(verbose, epochs, run.batches.steps) as progress, Interrupt() as interrupt:
            for epoch in range(1, epochs + 1):
                for callback in callbacks:
                    callback.on_epoch_begin(network, epoch)
                progress.begin(epoch)
                before, earlier = network.snapshot(into=earlier), before
                rate = run.learning_rate
                try:
                    result = run.epoch(lambda: interrupt.requested, progress.advance)
                except Exception:
                    # A file that cannot be read any more, say, or a layer's own function.
                    network.restore(before)
                    network.optimizer_memory = None
                    raise
                # Weights that broke in the last step show in the next epoch's first loss; where somebody looks at the
                # network before that, they are read and checked at once.
                _check_finite(network, (before, earlier), epoch, result, look=epoch == epochs or look)
                check_replicas(network, communicator)
                history.interrupted = communicator.any(interrupt.requested)
                if result.rows == 0:
                    break
                figures = communicator.broadcast(_figures(network, epoch, rate, result, feed.accuracy_name, validator))
                _check_validation(network, before, epoch, len(result.losses), figures)
                history.append(figures, result.losses)
                progress.end(figures)
                chosen_optimizer.schedule.observe(figures)
                for callback in callbacks:
                    callback.on_steps_end(network, epoch, result.losses)
                cut = result.rows < run.rows_per_epoch
                reasons = [
                    (callback, (callback.on_epoch_cut if cut else callback.on_epoch_end)(network, epoch, figures))
                    for callback in callbacks
                ]
                own = [(type(callback).__name__, reason) for callback, reason in reasons if reason]
                stops = [stop for given in communicator.gather(own) for stop in given]
                if stops:
                    history.stopped_by = stops[0][0]
                    progress.note(f"stopped after epoch {epoch}: {stops[0][1]}")
                # Asked again: Ctrl-C may have come while validating or in a callback.
                history.interrupted = communicator.any(interrupt.requested)
                if stops or history.interrupted:
                    break
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


def _figure_names(feed: Feed, validator: Validator | None) -> list[str]:
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


def _check_finite(network: Network, snapshots: tuple[Any, Any], epoch: int, result: EpochResult, look: bool) -> None:
    """Stop a run that has diverged, with the last good weights in place.

    Parameters
    ----------
    snapshots : the parameters at the beginning of this epoch, and of the one before
    look : bool
        Whether to read the weights, if all losses are finite.
    """
    before, earlier = snapshots
    bad = ~np.isfinite(result.losses)
    steps = len(bad)
    if not bad.any() and (not look or weights_are_finite(network)):
        return
    network.restore(before)
    network.optimizer_memory = None
    if bad.any() and weights_are_finite(network):
        step = int(np.argmax(bad)) + 1
        what = f"the loss became {result.losses[step - 1]} in epoch {epoch}, step {step} of {steps}"
    else:
        if bad.any():
            network.restore(earlier)
            epoch -= 1
        step = steps
        what = f"weights became NaN or infinite in the last step of epoch {epoch}"
    raise TrainingDivergedError(
        f"{what}; the network has the weights with which that epoch began. "
        "Lower the learning rate, or scale the inputs.",
        epoch,
        step,
    )


def _check_validation(network: Network, before: Any, epoch: int, steps: int, figures: Mapping[str, float]) -> None:
    """Huge weights may be finite and give no finite loss all the same."""
    if np.isfinite(figures.get("val_loss", 0.0)):
        return
    network.restore(before)
    network.optimizer_memory = None
    raise TrainingDivergedError(
        f"the validation loss became {figures['val_loss']} after epoch {epoch}; the network has the weights with which "
        "that epoch began. Lower the learning rate, or scale the inputs.",
        epoch,
        steps,
    )


def _figures(
    network: Network,
    epoch: int,
    rate: float,
    result: EpochResult,
    accuracy_name: str | None,
    validator: Validator | None,
) -> dict[str, float]:
    figures: dict[str, float] = {"epoch": epoch, "loss": result.loss}
    if accuracy_name is not None:
        figures[accuracy_name] = result.hits
    if validator is not None:
        loss, hits = validator.run()
        figures["val_loss"] = loss + network.penalty()
        if validator.accuracy_name is not None:
            figures[validator.accuracy_name] = hits
    figures["learning_rate"] = rate
    figures["seconds"] = result.seconds
    figures["samples_per_second"] = result.rows / max(result.seconds, 1e-9)
    return figures
