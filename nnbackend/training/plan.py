"""The plan of a training run: every check of the arguments, before anything is changed."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from nnbackend.augment import Augmentation
from nnbackend.data.batch_stream import BatchStream
from nnbackend.data.batches import rows_of
from nnbackend.data.feed import Feed
from nnbackend.data.held_out import split_rows
from nnbackend.data.scale import warn
from nnbackend.data.weights import Exchange, only_here
from nnbackend.distributed.communicator import Checks, Communicator
from nnbackend.errors import InvalidInputError, UnknownNameError, shown
from nnbackend.losses import Loss, smoothed
from nnbackend.metrics.formulas import METRICS
from nnbackend.network import Network
from nnbackend.optimizers import OPTIMIZERS, Optimizer, check_not_class
from nnbackend.schedules import OneCycle
from nnbackend.step.augmentation import check_augmentations
from nnbackend.step.options import StepOptions, check_step_options
from nnbackend.support.checks import flag, number, positive_integer
from nnbackend.support.monitor import MetricNames
from nnbackend.training.callbacks.base import Callback
from nnbackend.training.callbacks.files import CSVLogger, ModelCheckpoint
from nnbackend.training.checkpoints.fingerprint import DataFingerprint, run_settings
from nnbackend.training.checkpoints.resuming import Resume, Start, find_start
from nnbackend.training.checkpoints.run_state import named
from nnbackend.training.divergence import check_weights, shown_number
from nnbackend.training.ranks import check_alike, check_settings
from nnbackend.training.validation import TrainingMetrics, Validator, make_metrics, settle_kind, validation_feed

__all__ = [
    "DEFAULT_BATCH", "Arguments", "Plan", "check_split", "check_verbose", "get_optimizer", "make_plan", "required_loss",
    "with_validation_split",
]  # fmt: skip

#: Rows of a batch if the caller does not say.
DEFAULT_BATCH = 32
_ON_NAN = ("stop", "skip")


@dataclass(frozen=True, eq=False, repr=False)
class Arguments:
    """The arguments of `Network.fit` as the caller gave them; see there."""

    x: Any
    y: Any
    epochs: int
    batch_size: int | None
    loss: str | Loss | None
    optimizer: Optimizer | str
    validation_data: tuple[Any, ...] | BatchStream | None
    validation_split: float
    metrics: Any
    train_metrics: bool
    callbacks: Iterable[Callback]
    sample_weight: Any
    class_weight: Any
    label_smoothing: float
    clip_norm: Any
    clip_value: Any
    accumulate: Any
    ema: Any
    augment: Any
    shuffle: bool
    steps_per_epoch: int | None
    stream: bool | None
    resume: Resume
    on_nan: str
    verbose: bool | None
    shard: bool


@dataclass(frozen=True, eq=False, repr=False)
class Plan:
    """A training run with checked arguments.

    Attributes
    ----------
    network : Network
    loss : Loss
    training_loss : Loss
        The same, with smoothed labels if they are wanted.
    optimizer : Optimizer
    feed : Feed
        Provides the training rows.
    validator : Validator or None
        Evaluates the validation data.
    training_metrics : TrainingMetrics or None
        Computes metrics of the training rows.
    multilabel : bool
        Whether the network learns to predict several labels for a row.
    callbacks : tuple of Callback
    augment : tuple of Augmentation
    options : StepOptions
    epochs : int
    batch_size : int
        Rows of a step, which may accumulate several batches.
    steps_per_epoch : int or None
    shuffle : bool
    skip_broken : bool
        Whether to skip steps that would break the network.
    verbose : bool or None
    start : Start
        Where the run starts.
    communicator : Communicator
    shards : list of int or None
        Rows of each rank, if each rank has its own.
    """

    network: Network
    loss: Loss
    training_loss: Loss
    optimizer: Optimizer
    feed: Feed
    validator: Validator | None
    training_metrics: TrainingMetrics | None
    multilabel: bool
    callbacks: tuple[Callback, ...]
    augment: tuple[Augmentation, ...]
    options: StepOptions
    epochs: int
    batch_size: int
    steps_per_epoch: int | None
    shuffle: bool
    skip_broken: bool
    verbose: bool | None
    start: Start
    communicator: Communicator
    shards: list[int] | None


def make_plan(network: Network, given: Arguments, communicator: Communicator, checks: Checks, held: ExitStack) -> Plan:
    """Check all arguments.

    Parameters
    ----------
    network : Network
    given : Arguments
    communicator : Communicator
    checks : Checks
        Makes the checks pass on all ranks or fail on all ranks.
    held : ExitStack
        Receives what must be closed when the run ends: feeds, and the lock of a folder.

    Raises
    ------
    InvalidInputError, UnknownNameError, ModelFileError, FolderInUseError
        As documented for `Network.fit`; nothing was changed.
    """
    epochs = positive_integer("epochs", given.epochs)
    loss = required_loss(network, given.loss)
    training_loss = smoothed(loss, given.label_smoothing)
    optimizer, callbacks = get_optimizer(given.optimizer), _check_callbacks(given.callbacks)
    augment = check_augmentations(given.augment, network.layers, network.input_shape)
    _check_modes(given.on_nan, given.stream)
    streams, shard = isinstance(given.x, BatchStream), flag("shard", given.shard)
    shuffle, verbose = flag("shuffle", given.shuffle), check_verbose(given.verbose)
    data = given.x if streams else network.intake.rows(given.x)
    counts = checks.exchange(len(data))
    options, batch_size = _check_step(given, sum(counts) if shard else len(data), communicator)
    steps_per_epoch = _check_steps_per_epoch(given.steps_per_epoch, streams)
    check_alike(checks, network, len(data), shard, _given(given), streams)
    own_batch = rows_of(batch_size, communicator.rank, communicator.size)
    exchange = checks.exchange if shard else only_here
    feed = _make_feed(network, data, given, loss, own_batch, exchange, held)
    held_out = validation_feed(network, loss, given.validation_data, feed, exchange)
    multilabel = settle_kind([feed] if held_out is None else [feed, held_out], exchange)
    if held_out is not None:
        held.enter_context(closing(held_out))
    asked = (given.metrics, given.train_metrics)
    validator, training_metrics = make_metrics(network, loss, *asked, (feed, held_out), communicator, shard, exchange)
    known = _metric_names(feed, validator, training_metrics)
    names = _check_metrics(known, optimizer, callbacks, communicator.rank)
    _warn_of_ended_cycle(network, optimizer, epochs)
    if network.batch_step is not None:
        # The weights after the last batch have not been checked yet.
        check_weights(network)
    chosen = _chosen(given, augment, feed)
    chosen |= {"batch_size": batch_size, "shuffle": shuffle, "steps_per_epoch": steps_per_epoch}
    others = {"epochs": epochs, "loss": loss.text, "optimizer": optimizer, "resume": given.resume}
    fingerprint = DataFingerprint(
        network, data, given.y, given.sample_weight, given.class_weight, given.validation_data
    )
    check_settings(checks, {**chosen, **others, "metrics": list(names)}, fingerprint, shard)
    settings = partial(
        run_settings, network, len(data), fingerprint, optimizer, loss.text, list(named(callbacks)), chosen
    )
    return Plan(
        network=network,
        loss=loss,
        training_loss=training_loss,
        optimizer=optimizer,
        feed=feed,
        validator=validator,
        training_metrics=training_metrics,
        multilabel=multilabel,
        callbacks=callbacks,
        augment=augment,
        options=options,
        epochs=epochs,
        batch_size=batch_size,
        steps_per_epoch=steps_per_epoch,
        shuffle=shuffle,
        skip_broken=given.on_nan == "skip",
        verbose=verbose,
        start=find_start(network, optimizer, given.resume, callbacks, held, settings, checks, shard),
        communicator=communicator,
        shards=counts if shard else None,
    )


def with_validation_split(network: Network, given: Arguments) -> Arguments:
    """The arguments with the rows of `validation_split` as validation data.

    Raises
    ------
    InvalidInputError
        It is no fraction, leaves no row on one side, or is given together with validation data or a stream.
    """
    fraction = check_split(given.validation_split)
    if fraction == 0:
        return given
    if given.validation_data is not None:
        raise InvalidInputError("validation_data and validation_split both name validation rows; give one of them")
    loss = required_loss(network, given.loss)
    outputs = math.prod(network.output_shape)
    train, held_out = split_rows(given.x, given.y, given.sample_weight, fraction, loss, outputs, network.seed)
    return replace(
        given, x=train[0], y=train[1], sample_weight=train[2], validation_data=held_out[: 2 + (held_out[2] is not None)]
    )


def check_split(fraction: Any) -> float:
    """The argument `validation_split`, checked; raises InvalidInputError if it is no fraction."""
    return number("validation_split", fraction, low=0, high=1, below=True)


def _chosen(given: Arguments, augment: Sequence[Augmentation], feed: Feed) -> dict[str, Any]:
    """Settings that decide how a run proceeds, as plain JSON, by the names of `fit`'s parameters."""
    return {
        "on_nan": given.on_nan,
        "label_smoothing": float(given.label_smoothing),
        "clip_norm": given.clip_norm,
        "clip_value": given.clip_value,
        "accumulate": given.accumulate,
        "ema": given.ema,
        "augment": [repr(each) for each in augment],
        "input_scale": feed.examples.scale,
        "input_dtype": feed.row_dtype.name,
    }


def required_loss(network: Network, loss: str | Loss | None) -> Loss:
    """The given loss, or the one the network was trained with."""
    if loss is None and network.loss is None:
        raise InvalidInputError(
            "training needs a loss the first time: loss='softmax_cross_entropy' for classes, "
            "'sigmoid_cross_entropy' for yes-or-no outputs, 'mean_squared_error' for numbers"
        )
    return network.resolve_loss(loss)


def get_optimizer(optimizer: Optimizer | str) -> Optimizer:
    """The given optimiser, or a new one of this name; raises InvalidInputError or UnknownNameError for others."""
    if isinstance(optimizer, Optimizer):
        return optimizer
    check_not_class(optimizer)
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
    writers: dict[str, Callback] = {}
    for callback in listed:
        if isinstance(callback, ModelCheckpoint | CSVLogger):
            other = writers.setdefault(os.path.realpath(callback.path), callback)
            if other is not callback or listed.count(callback) > 1:
                raise InvalidInputError(
                    f"two callbacks would write the same file {callback.path!r}: {other!r} and {callback!r}; give each "
                    "its own path"
                )
    return listed


def _check_modes(on_nan: Any, stream: Any) -> None:
    if on_nan not in _ON_NAN:
        raise UnknownNameError("on_nan", on_nan, _ON_NAN)
    if stream is not None:
        flag("stream", stream)


def _check_step(given: Arguments, rows: int, communicator: Communicator) -> tuple[StepOptions, int]:
    """What a step does beside the update, and the number of its rows."""
    options = check_step_options(given.clip_norm, given.clip_value, given.accumulate, given.ema)
    batch_size = _check_batch_size(given.batch_size, rows, communicator.size)
    if options.accumulate == 1:
        return options, batch_size
    part_size = rows_of(batch_size, communicator.rank, communicator.size)
    return replace(options, part_size=part_size), min(batch_size * options.accumulate, rows)


def _check_batch_size(batch_size: int | None, rows: int, ranks: int) -> int:
    size = max(DEFAULT_BATCH, ranks) if batch_size is None else positive_integer("batch_size", batch_size)
    if size < ranks:
        raise InvalidInputError(f"batch_size must be at least the {ranks} ranks that share a batch, received {size}")
    if rows < ranks:
        raise InvalidInputError(
            f"there are {rows} rows for {ranks} ranks; start at most as many ranks as there are rows"
        )
    return min(size, rows)


def check_verbose(verbose: Any) -> bool | None:
    """Whether to print, or None to decide by the output."""
    if verbose is None or verbose == "auto":
        return None
    # 2 is Keras's table without a bar.
    return True if verbose == 2 else flag("verbose", verbose)


def _check_steps_per_epoch(steps: int | None, streams: bool) -> int | None:
    if steps is None:
        return None
    checked = positive_integer("steps_per_epoch", steps)
    if streams:
        raise InvalidInputError("steps_per_epoch is for arrays; a BatchStream says itself how many rows an epoch has")
    return checked


def _make_feed(
    network: Network, data: Any, given: Arguments, loss: Loss, batch_size: int, exchange: Exchange, held: ExitStack
) -> Feed:
    feed = network.intake.feed(
        data,
        given.y,
        loss,
        batch_size,
        sample_weight=given.sample_weight,
        class_weight=given.class_weight,
        stream=given.stream,
        exchange=exchange,
        training=True,
    )
    held.enter_context(closing(feed))
    feed.describe()
    warn_of_large_targets(feed.largest_target)
    return feed


def _given(arguments: Arguments) -> dict[str, str]:
    """The forms of weights and validation data, which must be the same on all ranks: ranks with rows of their own
    exchange values for each."""
    balanced = isinstance(arguments.class_weight, str)
    classes = "none" if arguments.class_weight is None else "balanced" if balanced else "given"
    rows = "none" if arguments.sample_weight is None else "given"
    data = arguments.validation_data
    parts = f" of {len(data)}" if isinstance(data, tuple | list) else ""
    return {
        "kind of sample_weight and class_weight": f"{rows}, {classes}",
        "kind of validation_data": "none" if data is None else f"{type(data).__name__}{parts}",
    }


def _warn_of_ended_cycle(network: Network, optimizer: Optimizer, epochs: int) -> None:
    """Warn if a cycle of the learning rate ends before the training does: later steps would change almost nothing."""
    schedule, memory = optimizer.schedule, network.optimizer_state
    taken = memory.epochs if memory is not None and memory.optimizer is optimizer else 0
    if isinstance(schedule, OneCycle) and taken + epochs > schedule.epochs:
        over = f", {taken} of which are over," if taken else ""
        warn(
            f"the learning rate follows one cycle of {schedule.epochs:g} epochs{over} but training takes {epochs}, and "
            f"steps after the cycle change almost nothing: give OneCycle as many epochs as fit"
            f"{', and a new optimizer to begin another cycle' if taken else ''}"
        )


def warn_of_large_targets(largest: float | None) -> None:
    """Warn about regression targets that are too large to be learned well."""
    if largest is not None:
        warn(
            f"y holds targets up to {shown_number(largest)}, but a network starts with outputs near 0 and learns "
            "large ones slowly or not at all: train on (y - y.mean()) / y.std(), and convert predictions back with "
            "p * y.std() + y.mean()"
        )


def _metric_names(feed: Feed, validator: Validator | None, training_metrics: TrainingMetrics | None) -> list[str]:
    """The metrics of every epoch that can be monitored."""
    names = ["loss", feed.accuracy_name, *(() if training_metrics is None else training_metrics.names)]
    if validator is not None:
        names += validator.names
    return [name for name in names if name is not None]


def _check_metrics(names: Sequence[str], optimizer: Optimizer, callbacks: Sequence[Callback], rank: int) -> MetricNames:
    """Check that callbacks and the schedule find the metrics they need; returns the names of all metrics."""
    known = MetricNames.of(names, False, METRICS)
    for callback in callbacks:
        if rank == 0 or not callback.first_rank_only:
            callback.check(known)
        added = callback.adds_metrics
        if added is None:
            # Only those of the user can; the package's own add none.
            own = type(callback).__module__.partition(".")[0] == "nnbackend"
            adds = type(callback).on_epoch_end is not Callback.on_epoch_end
            known = MetricNames.of(known, known.open or (adds and not own), METRICS)
        elif isinstance(added, str) or not all(isinstance(name, str) for name in added):
            raise InvalidInputError(
                f"adds_metrics of {type(callback).__name__} must be a list of names, received {shown(added)}"
            )
        else:
            known = MetricNames.of([*known, *added], known.open, METRICS)
    optimizer.schedule.check(known)
    return known
