"""The training loop of the estimators, which ends when there is no more improvement."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from sklearn.exceptions import ConvergenceWarning

from nnbackend.errors import TrainingDivergedError
from nnbackend.interop.sklearn.architecture import Weights
from nnbackend.interop.sklearn.engine import Engine
from nnbackend.interop.sklearn.progress import Progress
from nnbackend.interop.sklearn.run import Rows
from nnbackend.interop.sklearn.settings import Settings
from nnbackend.network import Network
from nnbackend.support.surroundings import say
from nnbackend.training.interrupt import Interrupt

__all__ = ["DivergedFitError", "train"]

_log = logging.getLogger("nnbackend")

Order = npt.NDArray[np.int64]

#: Default number of rows per step.
_BATCH = 200


class DivergedFitError(TrainingDivergedError, ValueError):
    """The loss or a weight became NaN or infinite; the estimator is unchanged.

    Also a ValueError, which scikit-learn's estimators raise.
    """


def train(
    engine: Engine,
    network: Network,
    settings: Settings,
    progress: Progress,
    rows: Rows,
    generator: np.random.RandomState,
    validate: Callable[[], float] | None,
    once: bool,
) -> Weights:
    """Train a network as scikit-learn's `fit` or `partial_fit` would.

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
    validate : callable or None
        Scores the current network, for early stopping.
    once : bool
        Whether to train for only one epoch.

    Returns
    -------
    coefs, intercepts

    Raises
    ------
    DivergedFitError
    KeyboardInterrupt
        Ctrl-C before the end of the first epoch.
    """
    keep = (settings.batch_size or _BATCH) if once else 0
    run = engine.run_on(network, rows, settings.alpha, _batch_size(settings, len(rows)), keep)
    if not once:
        executor = run.executor
        _log.info("training on %r with the %s executor: %s", network.backend, executor.name, executor.reason)
    best = None if validate is None else network.snapshot()
    order = np.arange(len(rows))
    with network.in_training(), Interrupt() as interrupt:
        for _ in range(1 if once else settings.max_iter):
            if settings.shuffle:
                order = _shuffled(order, generator)
            loss = run.epoch(order, interrupt)
            if loss is None:
                break
            progress.add(loss, len(rows))
            _say(settings, f"Iteration {progress.n_iter}, loss = {loss:.8f}")
            if not math.isfinite(loss):
                _diverged(engine, progress, network, best)
                break
            if validate is None:
                progress.judge_loss(settings.tol)
            else:
                score = validate()
                _say(settings, f"Validation score: {score:f}")
                if progress.judge_score(score, settings.tol):
                    best = network.snapshot(into=best)
            engine.solver.end_epoch(network, progress.t)
            if progress.failures > settings.n_iter_no_change and _stops(engine, network, settings, progress):
                break
            if not once and progress.n_iter == settings.max_iter:
                warnings.warn(
                    f"training has not converged after max_iter={settings.max_iter} epochs; raise max_iter",
                    ConvergenceWarning,
                    stacklevel=4,
                )
    if interrupt.requested:
        if progress.n_iter == 0:
            raise KeyboardInterrupt
        warnings.warn("Training interrupted by user.", stacklevel=4)
    if best is not None:
        network.restore(best)
    weights = engine.weights()
    if not all(np.isfinite(array).all() for array in (*weights[0], *weights[1])):
        _diverged(engine, progress, network, None)
    return weights


def _shuffled(order: Order, generator: np.random.RandomState) -> Order:
    """Like `sklearn.utils.shuffle`, whose argument checks take longer than a small epoch."""
    places = np.arange(len(order))
    generator.shuffle(places)
    return order[places]


def _batch_size(settings: Settings, rows: int) -> int:
    if settings.batch_size is None:
        return min(_BATCH, rows)
    if settings.batch_size > rows:
        warnings.warn(
            f"batch_size={settings.batch_size} is more than the {rows} rows there are; a batch is all of them",
            stacklevel=5,
        )
    return min(settings.batch_size, rows)


def _stops(engine: Engine, network: Network, settings: Settings, progress: Progress) -> bool:
    """Whether training ends because it no longer improves; an adaptive rate is lowered first."""
    solver = engine.solver
    what = "Validation score" if settings.early_stopping else "Training loss"
    said = f"{what} did not improve more than tol={settings.tol:f} for {settings.n_iter_no_change} consecutive epochs."
    if solver.slow_down(network):
        progress.failures = 0
        _say(settings, f"{said} Setting learning rate to {solver.learning_rate:f}")
        return False
    _say(settings, f"{said} {'Learning rate too small. ' if solver.adaptive else ''}Stopping.")
    return True


def _diverged(engine: Engine, progress: Progress, network: Network, best: object) -> None:
    """Handle a loss or a weight that is NaN or infinite."""
    engine.forget()
    if best is not None and progress.best_validation_score not in (None, -math.inf):
        assert progress.validation_scores is not None
        progress.validation_scores.append(math.nan)
        warnings.warn(
            f"training diverged in epoch {progress.n_iter}; the weights are those of the best epoch before. Lower "
            "learning_rate_init, or scale the inputs.",
            ConvergenceWarning,
            stacklevel=5,
        )
        return
    raise DivergedFitError(
        f"training diverged: the loss or weights became NaN or infinite in epoch {progress.n_iter}. Lower "
        "learning_rate_init, or scale the inputs (sklearn.preprocessing.StandardScaler).",
        progress.n_iter,
        network.steps_trained,
    )


def _say(settings: Settings, text: str) -> None:
    if settings.verbose:
        say(text)
