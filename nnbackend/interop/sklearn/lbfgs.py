"""Training with SciPy's L-BFGS-B: a recorded step without an update gives it the loss and the gradient of all rows."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import OptimizeResult, minimize

from nnbackend.backends.contract import HostArray
from nnbackend.interop.sklearn.engine import outputs_of
from nnbackend.interop.sklearn.fitting import Fitting
from nnbackend.interop.sklearn.run import BatchSteps, EpochRun
from nnbackend.step.recordings import Recordings
from nnbackend.support.surroundings import say
from nnbackend.training.fit import Epochs, Work
from nnbackend.training.interrupt import Interrupt

__all__ = ["LbfgsFitting"]

#: Rows of a sparse matrix that are dense at the same time.
_CHUNK = 1024

Vector = npt.NDArray[np.float64]


class _StoppedError(Exception):
    """Ends a minimisation: Ctrl-C, or a callback."""


class LbfgsFitting(Fitting):
    """Trains one network with L-BFGS-B as scikit-learn's `fit` does; an iteration takes the place of an epoch."""

    def epochs(self, interrupt: Interrupt, recordings: Recordings | None = None, last: float = math.inf) -> Epochs:
        """As of `Fitting`; the whole minimisation is one piece of work, which cannot be paused."""
        if self.ended:
            return
        self._interrupt, self._objective = interrupt, self._new_objective()
        # Callbacks and scorers are the user's, and run in this thread.
        apart = self.follower is None and self._validation is None and self._objective.apart
        with self.network.in_training(), interrupt:
            result = yield Work(self._minimise, apart)
        self.ended = True
        progress = self.progress
        progress.n_iter = len(progress.loss_curve) - self._earlier
        if result is None:
            return
        if not progress.n_iter:
            # The first point is a minimum, or none was better.
            progress.loss_curve.append(float(result.fun))
        if not math.isfinite(progress.loss_curve[-1]):
            self._diverged(None)
        if result.status != 0:
            self._warn(
                f"lbfgs has not converged after {progress.n_iter} iterations ({_sentence(result.message)}); raise "
                f"max_iter={self._settings.max_iter} or max_fun={self._settings.max_fun}, or scale the inputs"
            )

    def _new_objective(self) -> _Dense | _Sparse:
        kind = _Sparse if self._rows.sparse else _Dense
        return kind(self)

    def _minimise(self) -> OptimizeResult | None:
        """Minimise the loss; None if it was stopped."""
        settings, began = self._settings, time.perf_counter()
        architecture = self.engine.architecture
        coefs, intercepts = architecture.unnamed(self.network.get_weights())
        self._earlier = len(self.progress.loss_curve)
        start = np.concatenate([array.ravel() for array in (*coefs, *intercepts)])
        self._shapes = [array.shape for array in (*coefs, *intercepts)]
        self._weights, self._penalised = start, sum(coef.size for coef in coefs)
        options = {"maxfun": settings.max_fun, "maxiter": settings.max_iter, "gtol": settings.tol}
        try:
            if self.follower is not None:
                self.follower.begin()
            result = minimize(
                self._evaluate, start, method="L-BFGS-B", jac=True, options=options, callback=self._iterated
            )
            self._weights = result.x
        except _StoppedError:
            result = None
        self._put(self._weights)
        self.seconds += time.perf_counter() - began
        return result

    def _put(self, weights: Vector) -> None:
        """Copy weights to the network."""
        model, count = self.network.model, len(self._shapes) // 2
        ends = np.cumsum([math.prod(shape) for shape in self._shapes])[:-1]
        arrays = [part.reshape(shape) for part, shape in zip(np.split(weights, ends), self._shapes, strict=True)]
        named = self.engine.architecture.named((arrays[:count], arrays[count:]))
        model.backend.write(model.layout.trainable.pack(named, model.dtype), model.trained)

    def _evaluate(self, weights: Vector) -> tuple[float, Vector]:
        """The loss with these weights, including the penalty, and its gradient."""
        self._put(weights)
        found = self._objective.evaluate(self._interrupt)
        if found is None:
            raise _StoppedError
        loss, gradients = found
        coefs, intercepts = self.engine.architecture.unnamed(self.network.model.layout.trainable.unpack(gradients))
        gradient = np.concatenate([array.ravel() for array in (*coefs, *intercepts)])
        strength, coef = self._settings.alpha / self._objective.total, weights[: self._penalised]
        gradient[: self._penalised] += strength * coef
        self._loss = loss + 0.5 * strength * float(coef @ coef)
        return self._loss, gradient

    def _iterated(self, weights: Vector) -> None:
        """An iteration has ended at these weights, which were the last that were evaluated."""
        progress, settings = self.progress, self._settings
        self._weights = np.array(weights)
        progress.loss_curve.append(self._loss)
        progress.n_iter += 1
        best = progress.best_loss
        progress.best_loss = self._loss if best is None else min(best, self._loss)
        if settings.verbose:
            say(f"Iteration {progress.n_iter}, loss = {self._loss:.8f}")
        if self._validation is not None:
            self._validate(outputs_of(self.network, self._validation.rows.x))
        if self.follower is not None:
            if self._stopped():
                raise _StoppedError
            if progress.n_iter < settings.max_iter:
                self.follower.begin()


class _Dense:
    """The loss of all rows, in one step."""

    def __init__(self, fitting: Any) -> None:
        engine, rows = fitting.engine, fitting._rows
        self._run = EpochRun(fitting.network, engine.architecture, engine.solver, 0.0, rows, len(rows))
        self._order = np.arange(len(rows))
        self.total = len(rows) if rows.weights is None else float(rows.weights.sum())
        self.apart = self._run.apart

    def evaluate(self, interrupt: Interrupt) -> tuple[float, HostArray] | None:
        """The loss without penalty, and the flat gradients; None after Ctrl-C."""
        loss = self._run.epoch(self._order, interrupt)
        return None if loss is None else (loss, self._run.gradients())


class _Sparse:
    """The loss of all rows, summed over chunks, of which one at a time is dense."""

    apart = False

    def __init__(self, fitting: Any) -> None:
        engine, rows = fitting.engine, fitting._rows
        chunk = min(_CHUNK, len(rows))
        self._steps = BatchSteps(fitting.network, engine.architecture, engine.solver, 0.0, rows, chunk)
        self._chunks = np.split(np.arange(len(rows)), np.arange(chunk, len(rows), chunk))
        self._rows = rows
        each = np.ones(len(rows)) if rows.weights is None else rows.weights
        self.total = float(each.sum())
        self._sums = [float(each[chunk].sum()) for chunk in self._chunks]

    def evaluate(self, interrupt: Interrupt) -> tuple[float, HostArray] | None:
        """As of `_Dense`."""
        loss, gradients = 0.0, np.zeros(self._steps.network.model.layout.trainable_size)
        for chunk, weight in zip(self._chunks, self._sums, strict=True):
            if not interrupt.allow(0, 1):
                return None
            if weight > 0:
                loss += self._steps.mean_loss(self._rows, chunk) * (weight / self.total)
                gradients += self._steps.gradients() * (weight / self.total)
        return loss, gradients


def _sentence(message: Any) -> str:
    """SciPy's message, which is bytes in some versions."""
    return (message.decode() if isinstance(message, bytes) else str(message)).strip()
