"""The network behind a fitted estimator."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnbackend.backends.contract import Backend, HostArray
from nnbackend.backends.registry import get_backend
from nnbackend.errors import InvalidInputError
from nnbackend.interop.sklearn.architecture import Architecture, Weights
from nnbackend.interop.sklearn.data import Rows
from nnbackend.interop.sklearn.run import BatchRun, BatchSteps, EpochRun
from nnbackend.interop.sklearn.solver import Solver
from nnbackend.network import Network
from nnbackend.step.recorder import OptimizerState
from nnbackend.step.recordings import Recordings
from nnbackend.support.fork_lock import ForkLock

__all__ = ["Engine", "LiveEngine", "freeze", "outputs_of"]

#: Rows per chunk of a sparse matrix in predictions, of which only one is dense at a time.
_SLICE = 1024

#: About the most bytes of a dense chunk of a sparse matrix, unless it would have too few rows for fast products.
_SLICE_BYTES, _FEWEST = 32 << 20, 200


class Engine:
    """A network on its backend, and the state of its solver.

    The estimator's `coefs_` and `intercepts_` define the weights: `place` copies them to the device unless they are the
    arrays that were read from it. Pickles and copies contain no network, so that they can be loaded on machines without
    its backend; the next `place` creates one.

    Parameters
    ----------
    architecture : Architecture
    solver : Solver
    seed : int
        Of the dropout masks.
    steps : int
        Number of steps taken before; it determines the masks.
    """

    def __init__(self, architecture: Architecture, solver: Solver, seed: int, steps: int = 0) -> None:
        self.architecture = architecture
        self.solver = solver
        self.seed = seed
        self._steps = steps
        #: The optimiser's state on the host: for each slot the arrays of all parameters.
        self._slots: dict[str, dict[str, HostArray]] | None = None
        self._network: Network | None = None
        #: The `backend` argument of the last call of `place`.
        self._asked: str | Backend | None = None
        #: The arrays that equal the network's weights.
        self._there: tuple[HostArray, ...] = ()
        #: The recorded steps of `partial_fit`.
        self._run: BatchSteps | None = None
        # Several threads may predict with one estimator.
        self._lock = ForkLock()

    @property
    def steps(self) -> int:
        """Number of training steps taken so far."""
        return self._steps if self._network is None else self._network.steps_trained

    def place(self, backend: str | Backend, weights: Weights) -> Network:
        """The network on that backend, with these weights.

        Raises
        ------
        InvalidInputError
            The weights do not fit the network, or are not finite.
        BackendUnavailableError
            The backend cannot run here.
        """
        with self._lock:
            if self._network is None:
                self._network = self._made(get_backend(backend))
            elif backend != self._asked:
                self._network.to(backend)
            self._asked = backend
            arrays = (*weights[0], *weights[1])
            same = len(arrays) == len(self._there) and all(a is b for a, b in zip(arrays, self._there, strict=True))
            # Writable arrays may have been changed.
            if not same or any(array.flags.writeable for array in arrays):
                self._there = ()
                try:
                    self._network.set_weights(self.architecture.named(weights))
                except ValueError as error:
                    raise InvalidInputError(f"coefs_ and intercepts_ do not fit what was fitted: {error}") from None
                self._there = arrays
            return self._network

    def _made(self, backend: Backend) -> Network:
        network = self.architecture.network(backend, self.seed)
        network.steps_trained = self._steps
        model, optimizer = network.model, self.solver.optimizer
        memory = network.optimizer_state = OptimizerState.fresh(optimizer, model)
        for name, values in (self._slots or {}).items():
            backend.write(model.layout.trainable.pack(values, model.dtype), memory.slots[name])
        self._slots = None
        return network

    def weights(self) -> Weights:
        """The weights of the network as read-only arrays, so that they cannot be changed unnoticed."""
        assert self._network is not None
        coefs, intercepts = freeze(self.architecture.unnamed(self._network.get_weights()))
        self._there = (*coefs, *intercepts)
        return coefs, intercepts

    def run_on(
        self,
        network: Network,
        rows: Rows,
        alpha: float,
        batch_size: int,
        keep: int = 0,
        recordings: Recordings | None = None,
    ) -> EpochRun | BatchRun:
        """Training on these rows.

        Parameters
        ----------
        network : Network
            The engine's.
        rows : Rows
        alpha : float
        batch_size : int
            At most the number of rows.
        keep : int
            If not 0: keep the recorded steps, but none of these rows, for batches of at most this many rows.
        recordings : Recordings, optional
            May have a recorded step.
        """
        # From here on the weights of the network change.
        self._there = ()
        steps, self._run = self._run, None
        if not keep and not rows.sparse:
            return EpochRun(network, self.architecture, self.solver, alpha, rows, batch_size, recordings)
        if steps is None or not steps.fits(network, self.architecture, alpha, batch_size):
            # Batches that become larger and larger are rarely recorded again.
            capacity = batch_size if steps is None else max(batch_size, min(2 * steps.capacity, keep))
            steps = BatchSteps(network, self.architecture, self.solver, alpha, rows, capacity)
        self._run = steps if keep else None
        return BatchRun(steps, rows, batch_size)

    def forget(self) -> None:
        """Discard the state of the network and the solver, which may be broken; the next `place` copies the weights
        again."""
        self._there, self._run, self.solver.steps = (), None, 0
        if self._network is not None:
            self._network.optimizer_state = OptimizerState.fresh(self.solver.optimizer, self._network.model)

    def __getstate__(self) -> dict[str, Any]:
        slots, network = self._slots, self._network
        if network is not None and network.optimizer_state is not None:
            unpack, read = network.model.layout.trainable.unpack, network.backend.to_host
            slots = {name: unpack(read(buffer)) for name, buffer in network.optimizer_state.slots.items()}
        left_out = {"_network": None, "_asked": None, "_there": (), "_run": None, "_lock": None}
        return {**vars(self), **left_out, "_slots": slots, "_steps": self.steps}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=ForkLock())


class LiveEngine:
    """Predicts with a network as it is, such as one in training."""

    def __init__(self, network: Network) -> None:
        self._network = network

    def place(self, backend: str | Backend, weights: Weights) -> Network:
        """The network, whatever the weights."""
        return self._network


def freeze(weights: Weights) -> Weights:
    """The same arrays, made read-only."""
    for array in (*weights[0], *weights[1]):
        array.setflags(write=False)
    return weights


def outputs_of(network: Network, x: Any) -> HostArray:
    """The network's predictions, (n, outputs), for the rows of an array or of a sparse matrix."""
    if not hasattr(x, "tocsr"):
        return network.predict_unchecked(x)
    rows = x.tocsr()
    size = max(_FEWEST, min(_SLICE, _SLICE_BYTES // (rows.shape[1] * rows.dtype.itemsize)))
    parts = [network.predict_unchecked(rows[at : at + size].toarray(), size) for at in range(0, rows.shape[0], size)]
    joined: HostArray = np.concatenate(parts)
    return joined
