"""Trains many networks as one run."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any, TypeAlias, TypeVar

from nnbackend.data.batch_stream import BatchStream
from nnbackend.data.shared import SharedData
from nnbackend.distributed.communicator import Alone, Checks, Communicator
from nnbackend.ensembles.data import ManyData, naming
from nnbackend.ensembles.per_network import (
    PerNetwork,
    callbacks_of_each,
    checkpoint_of_all,
    of_each,
    optimizers_of_each,
    rows_of_each,
    with_checkpoints,
)
from nnbackend.ensembles.progress import ManyProgress
from nnbackend.ensembles.queue import run_all
from nnbackend.ensembles.ranks import OwnersChecks, Results, check_sendable, end_together, owner_of, share_results
from nnbackend.errors import InvalidInputError, shown
from nnbackend.layers import layers_config
from nnbackend.losses import Loss
from nnbackend.network import Network
from nnbackend.optimizers import Optimizer
from nnbackend.step.recordings import Recordings
from nnbackend.support.arguments import suggests_names
from nnbackend.support.checks import flag
from nnbackend.support.surroundings import own_error_state
from nnbackend.training.callbacks.base import Callback
from nnbackend.training.checkpoints.checkpoint import Checkpoint
from nnbackend.training.fit import Epochs, Training
from nnbackend.training.history import History
from nnbackend.training.interrupt import TERMINATED, Interrupt
from nnbackend.training.memory import training_memory
from nnbackend.training.plan import Arguments, check_verbose, make_plan
from nnbackend.training.ranks import check_ranks

__all__ = ["fit_many"]

#: Recorded steps that are kept, for each network in training.
_RECORDINGS = 4

T = TypeVar("T")
#: One value for all networks or one for each; where a plain list cannot be one value, it has one for each, too.
Each: TypeAlias = "T | PerNetwork[T]"
EachOrList: TypeAlias = "T | PerNetwork[T] | Sequence[T]"


@suggests_names
def fit_many(
    networks: Sequence[Network],
    x: Any,
    y: Any,
    *,
    epochs: EachOrList[int] = 10,
    batch_size: EachOrList[int | None] = None,
    loss: EachOrList[str | Loss | None] = None,
    optimizer: EachOrList[Optimizer | str] = "adam",
    rows: Any = None,
    validation_rows: Any = None,
    validation_data: Each[tuple[Any, ...] | None] = None,
    validation_split: EachOrList[float] = 0.0,
    metrics: Each[Iterable[Any]] = (),
    train_metrics: EachOrList[bool] = False,
    callbacks: Each[Iterable[Callback]] = (),
    sample_weight: Any = None,
    class_weight: Any = None,
    label_smoothing: EachOrList[float] = 0.0,
    clip_norm: EachOrList[float | None] = None,
    clip_value: EachOrList[float | None] = None,
    accumulate: EachOrList[int] = 1,
    ema: EachOrList[float | None] = None,
    augment: Any = (),
    shuffle: EachOrList[bool] = True,
    steps_per_epoch: EachOrList[int | None] = None,
    on_nan: EachOrList[str] = "stop",
    checkpoint: str | os.PathLike[str] | Checkpoint | None = None,
    resume: bool = False,
    verbose: bool | None = None,
    communicator: Communicator | None = None,
) -> list[History]:
    """Train many networks as one run, with the results of training each alone.

    Every network gets the weights and the history that :meth:`nnbackend.Network.fit` on ``x[rows]`` gives it: on NumPy
    and Numba with the same bits, whatever the number of threads. Numba trains as many networks at a time as it has
    threads; CuPy trains small dense networks of the same structure together, with as many launches as one. On other
    backends one trains after the other. The rows are on the device once.

    Parameters
    ----------
    networks : sequence of Network
        On one backend. They may differ in layers, seeds and everything else, as long as they take the same features.
    x : (n, *input_shape) array_like
        As for :meth:`nnbackend.Network.fit`, but no stream and no sparse matrix. Files are read into memory.
    y : (n,) labels or (n, outputs) values
    epochs, batch_size, loss, optimizer
        As for :meth:`nnbackend.Network.fit`, or a list with a value for each network. Each network gets a copy of its
        optimiser, unless it was trained with that object before and continues.
    rows : (m,) array_like of int, or (n,) array_like of bool, optional
        The rows to train on, which may be repeated, or a list of such arrays, one for each network: folds, or bootstrap
        samples. Default: all rows.
    validation_rows : as `rows`, optional
        The rows to evaluate after every epoch, as if they were given to `fit` as ``validation_data=(x[validation_rows],
        y[validation_rows])``, without their sample weights.
    validation_data : (x, y) or (x, y, sample_weight), optional
        Instead of `validation_rows`: other rows; or :class:`nnbackend.PerNetwork`.
    validation_split : float, or list of float
        Instead of both: the fraction of each network's rows that it does not train on but evaluates, as for
        :meth:`nnbackend.Network.fit`, drawn with the network's own seed.
    metrics : sequence of str, callable or Metric, optional
        As for :meth:`nnbackend.Network.fit`; or :class:`nnbackend.PerNetwork`.
    callbacks : sequence of Callback, optional
        Only callbacks without attributes may serve several networks. Give others as ``PerNetwork([[...] for network in
        networks])``. All are called in the calling thread.
    sample_weight : (n,) array_like, optional
        Weights of all rows of `x`, from which each network takes those of its rows; or :class:`nnbackend.PerNetwork`.
    class_weight : dict, (classes,) array_like or "balanced", optional
        As for :meth:`nnbackend.Network.fit`; or :class:`nnbackend.PerNetwork`. "balanced" refers to the rows of each
        network.
    augment : sequence of Augmentation, optional
        As for :meth:`nnbackend.Network.fit`; or :class:`nnbackend.PerNetwork`.
    train_metrics, label_smoothing, clip_norm, clip_value, accumulate, ema, shuffle, steps_per_epoch, on_nan
        As for :meth:`nnbackend.Network.fit`, or a list with a value for each network.
    checkpoint : path-like or Checkpoint, optional
        A folder for the checkpoints of all networks, each in a folder of its own, named after its place in the list. A
        path stands for ``Checkpoint(path, every_minutes=1, keep=1)``; the last checkpoint of each network has the end
        of its training.
    resume : bool
        Whether to continue from these checkpoints, with the same networks and options: what was trained to the end is
        read, the rest continues, with the bits of a run that was not interrupted. Networks that diverged do so again.
    verbose : bool, optional
        Whether to print a line for each network that has ended. Default: only if the output is a terminal. Of several
        ranks, the first prints those of its networks.
    communicator : Communicator, optional
        The ranks that share out the networks, such as :func:`nnbackend.distributed.world`. Rank r of n trains networks
        r, r + n, r + 2n, ... as it would alone, calls their callbacks and writes their checkpoints. At the end, all
        ranks have all networks and histories. All must have the same networks, data and options.

    Returns
    -------
    list of History
        One for each network. If a network could not be trained to the end, for example because it diverged or a
        callback failed, `History.error` has the error, and the others are trained all the same.

    Raises
    ------
    InvalidInputError, UnknownNameError
        Before anything is changed; the message says which network an option does not fit.
    ModelFileError, FolderInUseError
        As for :meth:`nnbackend.Network.fit` with a checkpoint; nothing was changed.
    OutOfMemoryError
        The memory of the host or the device is too small for the rows.
    DistributedError
        Another rank cannot train; nothing was changed. Or it has failed since, and ends all ranks.

    Notes
    -----
    Ctrl-C ends all networks after their current steps. Their histories record this, and they keep what they have
    learned; networks that had not begun are unchanged. With `checkpoint`, SIGTERM does the same, and then ends the
    program with exit code 143 (SystemExit).
    """
    ranks = Alone() if communicator is None else communicator
    with own_error_state(), check_ranks(ranks) as checks, ExitStack() as held:
        trained = _check_networks(networks)
        count = len(trained)
        checks.alike({"number of networks": count})
        if isinstance(x, BatchStream):
            raise InvalidInputError(
                "networks that train together share rows on the device; give arrays, not a BatchStream"
            )
        if y is None:
            raise InvalidInputError("y is missing: give one target for each row of x")
        pattern = checkpoint_of_all(checkpoint)
        options = {
            "epochs": of_each("epochs", epochs, count),
            "batch_size": of_each("batch_size", batch_size, count),
            "loss": of_each("loss", loss, count),
            "optimizer": optimizers_of_each(optimizer, trained),
            "callbacks": with_checkpoints(callbacks_of_each(callbacks, count), pattern),
            "class_weight": of_each("class_weight", class_weight, count, lists=False),
            "metrics": of_each("metrics", metrics, count, lists=False),
            "train_metrics": of_each("train_metrics", train_metrics, count),
            "clip_norm": of_each("clip_norm", clip_norm, count),
            "clip_value": of_each("clip_value", clip_value, count),
            "accumulate": of_each("accumulate", accumulate, count),
            "ema": of_each("ema", ema, count),
            "label_smoothing": of_each("label_smoothing", label_smoothing, count),
            "augment": of_each("augment", augment, count, lists=False),
            "shuffle": of_each("shuffle", shuffle, count),
            "steps_per_epoch": of_each("steps_per_epoch", steps_per_epoch, count),
            "on_nan": of_each("on_nan", on_nan, count),
        }
        data = ManyData(
            SharedData(x, y),
            rows_of_each("rows", rows, count),
            rows_of_each("validation_rows", validation_rows, count),
            of_each("validation_data", validation_data, count, lists=False),
            of_each("sample_weight", sample_weight, count, lists=False),
        )
        if flag("resume", resume) and checkpoint is None:
            raise InvalidInputError("resume=True needs checkpoint=, the folder to resume from")
        fractions = of_each("validation_split", validation_split, count)
        shows, interrupt = check_verbose(verbose), Interrupt(terminate=checkpoint is not None)
        recordings = Recordings(_RECORDINGS * trained[0].backend.programs)
        if pattern is not None and ranks.rank == 0:
            held.enter_context(pattern.lock())
        runs = []
        for place, network in enumerate(trained):
            with naming(f"networks[{place}]"):
                own = {name: values[place] for name, values in options.items()}
                rows_of_network = data.of(place, network, own["loss"], fractions[place])
                given = Arguments(**rows_of_network, **own, resume=bool(resume), **_FIXED)
                runs.append(_Run(place, network, given, interrupt, recordings, held, ranks, checks))
        checks.passed()
        return _train(runs, interrupt, shows, ranks)


#: Arguments of `fit` that are the same for all networks.
_FIXED: dict[str, Any] = {"stream": None, "verbose": False, "shard": False, "validation_split": 0.0}


def _check_networks(networks: Any) -> list[Network]:
    """The networks, if they can train together."""
    if isinstance(networks, Network) or not isinstance(networks, Iterable):
        raise InvalidInputError(f"networks must be a list of networks, received {shown(networks)}")
    listed = list(networks)
    if not listed:
        raise InvalidInputError("there are no networks; give at least one")
    places: dict[int, int] = {}
    for place, network in enumerate(listed):
        if not isinstance(network, Network):
            raise InvalidInputError(f"networks[{place}] is not a Network, received {shown(network)}")
        first = places.setdefault(id(network), place)
        if first != place:
            raise InvalidInputError(
                f"networks[{first}] and networks[{place}] are the same network, which can be trained only once at a "
                "time; give a copy: copy.deepcopy(network)"
            )
        if network.backend is not listed[0].backend:
            raise InvalidInputError(
                f"networks[0] is on {listed[0].backend!r}, but networks[{place}] on {network.backend!r}; move all to "
                "one backend with network.to(backend)"
            )
    return listed


class _Run:
    """The training of one network: planned, and later run.

    Attributes
    ----------
    place : int
        The network's, in the list.
    network : Network
    history : History
    last : int
        Number of its epochs, if it does not end early.
    work : int
        Roughly proportional to the time that all epochs take.
    mine : bool
        Whether this rank trains it.
    kind : hashable
        Equal for networks that may be able to run together.
    """

    def __init__(
        self,
        place: int,
        network: Network,
        given: Arguments,
        interrupt: Interrupt,
        recordings: Recordings,
        held: ExitStack,
        ranks: Communicator,
        checks: Checks,
    ) -> None:
        self.place, self.network, self._given = place, network, given
        owner = owner_of(place, ranks)
        self.mine = owner == ranks.rank
        #: What must be closed when the training ends, even if it never begins.
        self._held = held.enter_context(ExitStack())
        (self._held if self.mine else held).enter_context(network.in_training())
        if ranks.size > 1:
            check_sendable(given.optimizer)
            checks = OwnersChecks(ranks, owner, checks)
        with training_memory(network, given):
            plan = make_plan(network, given, Alone(), checks, self._held)
        self._loss, self._optimizer = plan.loss, plan.optimizer
        self.last = plan.epochs
        self.work = plan.epochs * plan.feed.count * network.parameter_count
        self.kind = repr(layers_config(network.layers)), plan.batch_size, plan.feed.count, type(plan.optimizer)
        if self.mine:
            self._training: Training | None = Training(plan, interrupt, recordings)
            self.history = self._training.history
        else:
            self._held.close()

    def epochs(self) -> Epochs:
        """Its loop."""
        training, self._training = self._training, None
        assert training is not None
        with self._held, training_memory(self.network, self._given):
            yield from training.epochs()

    def results(self) -> Results:
        """For other ranks."""
        return Results.of(self.network, self.history, self._loss, self._optimizer)

    def take(self, results: Results) -> None:
        """Take over the results of the rank that has trained it."""
        if not self.mine:
            self.history = results.history
            results.give(self.network, self._loss, self._optimizer)


def _train(runs: list[_Run], interrupt: Interrupt, verbose: bool | None, ranks: Communicator) -> list[History]:
    """Run them all, and share the results."""
    own = [run for run in runs if run.mine]
    progress = ManyProgress(
        verbose if ranks.rank == 0 else False,
        {run.place: run.history for run in own},
        [run.work for run in own],
        [run.last for run in own],
    )
    waiting = deque(own)
    if own and own[0].network.backend.together > 1:
        # Those that may run together begin one after the other.
        waiting = deque(run for kind in dict.fromkeys(run.kind for run in own) for run in own if run.kind == kind)

    def beginning() -> Iterator[tuple[int, Epochs]]:
        while waiting:
            run = waiting.popleft()
            yield run.place, run.epochs()

    def ended(place: int, error: Exception | None) -> None:
        runs[place].history.error = error
        progress.ended(place)

    terminated = False
    try:
        with interrupt, progress:
            run_all(beginning(), ended, runs[0].network.backend, interrupt)
    except SystemExit as ending:
        if ranks.size == 1 or ending.code != TERMINATED:
            raise
        terminated = True
    for run in waiting:
        run.history.interrupted = True
    if ranks.size > 1:
        end_together(ranks, terminated)
        shared = share_results(ranks, len(runs), {run.place: run.results() for run in own})
        for run, results in zip(runs, shared, strict=True):
            run.take(results)
    return [run.history for run in runs]
