"""The training loop of the estimators, which ends when there is no more improvement."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.exceptions import ConvergenceWarning

from nnbackend.backends.contract import HostArray
from nnbackend.data.scale import warn
from nnbackend.ensembles.queue import run_all
from nnbackend.errors import TrainingDivergedError
from nnbackend.interop.sklearn.architecture import Weights
from nnbackend.interop.sklearn.callbacks import Follower
from nnbackend.interop.sklearn.convergence import warn_unconverged
from nnbackend.interop.sklearn.data import Rows
from nnbackend.interop.sklearn.engine import Engine, outputs_of
from nnbackend.interop.sklearn.progress import Progress
from nnbackend.interop.sklearn.run import BatchRun, EpochRun
from nnbackend.interop.sklearn.settings import Settings
from nnbackend.interop.sklearn.validation import Validation
from nnbackend.network import Network
from nnbackend.step.recordings import Recordings
from nnbackend.step.replay import Requests
from nnbackend.support.surroundings import say
from nnbackend.training.fit import Epochs, Work, run_alone
from nnbackend.training.interrupt import Interrupt

__all__ = ["DivergedFitError", "Fitting", "recordings_for", "train"]

_log = logging.getLogger("nnbackend")

Order = npt.NDArray[np.int64]

#: Default number of rows per step.
_BATCH = 200

#: Recorded steps that are kept, for each network in training. Folds may have two sizes.
_RECORDINGS = 16


class DivergedFitError(TrainingDivergedError, ValueError):
    """The loss or a weight became NaN or infinite; the estimator is unchanged.

    Also a ValueError, which scikit-learn's estimators raise.
    """


class Fitting:
    """Trains one network as scikit-learn's `fit` or `partial_fit` would.

    Parameters
    ----------
    engine : Engine
    network : Network
        The engine's.
    settings : Settings
    progress : Progress
        Metrics of earlier epochs; those of new epochs are added.
    rows : Rows
    generator : RandomState
        Shuffles the rows.
    validation : Validation or None
    once : bool
        Whether to train for only one epoch.

    Attributes
    ----------
    follower : Follower or None
        Is told about the epochs.
    attributes : callable
        Returns the estimator's attributes as if training had ended now, for callbacks.
    ended : bool
        Whether no epoch follows.
    unconverged : str or None
        The warning that it has not converged.
    seconds : float
        The time that its steps took.
    """

    def __init__(
        self,
        engine: Engine,
        network: Network,
        settings: Settings,
        progress: Progress,
        rows: Rows,
        generator: np.random.RandomState,
        validation: Validation | None,
        once: bool,
    ) -> None:
        self.engine, self.network, self.progress = engine, network, progress
        self._settings, self._rows, self._generator = settings, rows, generator
        self._validation, self._once = validation, once
        self.follower: Follower | None = None
        self.attributes: Callable[[], dict[str, Any]] = dict
        self._batch_size = len(rows) if settings.solver == "lbfgs" else _batch_size(settings, len(rows))
        self._order = np.arange(len(rows))
        self.ended, self.seconds = False, 0.0
        self.unconverged: str | None = None
        self._best = network.snapshot() if settings.early_stopping else None
        #: The last weights, while the network has the best.
        self._last: Any = None

    def epochs(self, interrupt: Interrupt, recordings: Recordings | None = None, last: float = math.inf) -> Epochs:
        """The loop.

        Parameters
        ----------
        interrupt : Interrupt
            May end it.
        recordings : Recordings, optional
            Recorded steps of other networks, and for others.
        last : int
            Pause after this epoch; calling this method again continues.

        Yields
        ------
        Work
            As :meth:`nnbackend.training.fit.Training.epochs`.

        Raises
        ------
        DivergedFitError
        """
        if self.ended or self.progress.n_iter >= last:
            return
        network, settings, once = self.network, self._settings, self._once
        if self._last is not None:
            network.restore(self._last)
            self._last = None
        keep = (settings.batch_size or _BATCH) if once else 0
        penalty = self.engine.solver.penalty(settings.alpha)
        run = self.engine.run_on(network, self._rows, penalty, self._batch_size, keep, recordings)
        if not once:
            executor = run.executor
            _log.info("training on %r with the %s executor: %s", network.backend, executor.name, executor.reason)
        most = 1 if once else settings.max_iter
        with network.in_training(), interrupt:
            while not self.ended and self.progress.n_iter < last:
                if self.follower is not None:
                    self.follower.begin()
                if settings.shuffle:
                    self._order = _shuffled(self._order, self._generator)
                epoch, requests = partial(self._epoch, run, interrupt), partial(self._requests, run, interrupt)
                loss = yield Work(epoch, run.apart, run.kind, requests)
                if loss is None:
                    self.ended = True
                    break
                self.progress.add(loss, len(self._rows))
                _say(settings, f"Iteration {self.progress.n_iter}, loss = {loss:.8f}")
                if not math.isfinite(loss):
                    self.ended = True
                    self._diverged(self._best)
                    break
                if self._validation is not None:
                    outputs = yield Work(partial(outputs_of, network, self._validation.rows.x), run.apart)
                    self._validate(outputs)
                if self._best is None:
                    self.progress.judge_loss(settings.tol)
                elif self.progress.judge_score(settings.tol):
                    self._best = network.snapshot(into=self._best)
                self.ended = self._ends(most) | self._stopped()
        run.release()

    def _epoch(self, run: EpochRun | BatchRun, interrupt: Interrupt) -> float | None:
        began = time.perf_counter()
        loss = run.epoch(self._order, interrupt)
        self.seconds += time.perf_counter() - began
        return loss

    def _validate(self, outputs: HostArray) -> None:
        """Compute the metrics of the validation data."""
        assert self._validation is not None
        loss, score = self._validation.measure(outputs)
        self.progress.add_validation(loss, score)
        _say(self._settings, f"Validation score: {score:f}")

    def _requests(self, run: EpochRun | BatchRun, interrupt: Interrupt) -> Requests[float | None]:
        """`_epoch`, together with those of other networks."""
        assert isinstance(run, EpochRun)
        began = time.perf_counter()
        loss = yield from run.requests(self._order, interrupt)
        self.seconds += time.perf_counter() - began
        return loss

    def _stopped(self) -> bool:
        """Tell the callbacks that an epoch has ended; returns whether one of them stops the training."""
        return self.follower is not None and self.follower.end(self.attributes)

    def _ends(self, most: int) -> bool:
        """Whether the epoch was the last; otherwise prepares the next."""
        settings, progress = self._settings, self.progress
        self.engine.solver.end_epoch(self.network, progress.t)
        if progress.failures > settings.n_iter_no_change and self._stops():
            return True
        if not self._once and progress.n_iter == settings.max_iter:
            self._warn(f"training has not converged after max_iter={settings.max_iter} epochs; raise max_iter")
        return progress.n_iter >= most

    def _warn(self, message: str) -> None:
        self.unconverged = message
        warn_unconverged(message)

    def _stops(self) -> bool:
        """Whether training ends because it no longer improves; an adaptive rate is lowered first."""
        settings, solver = self._settings, self.engine.solver
        what = "Validation score" if settings.early_stopping else "Training loss"
        patience = settings.n_iter_no_change
        said = f"{what} did not improve more than tol={settings.tol:f} for {patience} consecutive epochs."
        if solver.slow_down(self.network):
            self.progress.failures = 0
            _say(settings, f"{said} Setting learning rate to {solver.learning_rate:f}")
            return False
        _say(settings, f"{said} {'Learning rate too small. ' if solver.adaptive else ''}Stopping.")
        return True

    def weights(self) -> Weights:
        """The weights that have been learned: the last, or the best with early stopping.

        Raises
        ------
        DivergedFitError
        """
        if self._best is not None:
            if not self.ended:
                self._last = self.network.snapshot()
            self.network.restore(self._best)
        weights = self.engine.weights()
        if not all(np.isfinite(array).all() for array in (*weights[0], *weights[1])):
            self._diverged(None)
        return weights

    def weights_now(self) -> Weights:
        """The weights that would have been learned if training ended now, without a change of the network."""
        network, architecture = self.network, self.engine.architecture
        if self._best is None:
            return architecture.unnamed(network.get_weights())
        last = network.snapshot()
        network.restore(self._best)
        weights = architecture.unnamed(network.get_weights())
        network.restore(last)
        return weights

    def _diverged(self, best: object) -> None:
        """Handle a loss or a weight that is NaN or infinite."""
        progress = self.progress
        self.engine.forget()
        if best is not None and progress.best_validation_score not in (None, -math.inf):
            progress.add_validation(math.nan, math.nan)
            warn(
                f"training diverged in epoch {progress.n_iter}; the weights are those of the best epoch before. Lower "
                "learning_rate_init, or scale the inputs.",
                ConvergenceWarning,
            )
            return
        raise DivergedFitError(
            f"training diverged: the loss or weights became NaN or infinite in epoch {progress.n_iter}. Lower "
            "learning_rate_init, or scale the inputs (sklearn.preprocessing.StandardScaler). "
            # scikit-learn's words.
            "Solver produced non-finite parameter weights. The input data may contain large values and need to be "
            "preprocessed.",
            progress.n_iter,
            self.network.steps_trained,
        )


def train(fittings: Sequence[Fitting]) -> None:
    """Train one network, or several at once, on one backend.

    Raises
    ------
    DivergedFitError
        One of them diverged.
    KeyboardInterrupt
        Ctrl-C before the end of the first epoch.
    """
    interrupt = Interrupt()
    if len(fittings) == 1:
        run_alone(fittings[0].epochs(interrupt))
    else:
        backend, errors = fittings[0].network.backend, {}

        def ended(number: int, error: Exception | None) -> None:
            if error is not None:
                errors[number] = error

        recordings = recordings_for(backend)
        with interrupt:
            waiting = enumerate(fitting.epochs(interrupt, recordings) for fitting in fittings)
            run_all(waiting, ended, backend, interrupt)
        if errors:
            raise errors[min(errors)]
    if interrupt.requested:
        if any(fitting.progress.n_iter == 0 for fitting in fittings):
            raise KeyboardInterrupt
        warn("Training interrupted by user.")


def recordings_for(backend: Any) -> Recordings:
    """Where networks that train at once leave their recorded steps for others."""
    return Recordings(_RECORDINGS * backend.programs)


def _shuffled(order: Order, generator: np.random.RandomState) -> Order:
    """Like `sklearn.utils.shuffle`, whose argument checks take longer than a small epoch."""
    places = np.arange(len(order))
    generator.shuffle(places)
    return order[places]


def _batch_size(settings: Settings, rows: int) -> int:
    if settings.batch_size is None:
        return min(_BATCH, rows)
    if settings.batch_size > rows:
        warn(f"batch_size={settings.batch_size} is more than the {rows} rows there are; a batch is all of them")
    return min(settings.batch_size, rows)


def _say(settings: Settings, text: str) -> None:
    if settings.verbose:
        say(text)
