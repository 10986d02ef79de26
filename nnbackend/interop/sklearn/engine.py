"""The network behind a fitted estimator."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from nnbackend.backends.contract import Backend, HostArray
from nnbackend.backends.registry import get_backend
from nnbackend.errors import InvalidInputError
from nnbackend.interop.sklearn.architecture import Architecture, Weights
from nnbackend.interop.sklearn.run import EpochRun, Rows
from nnbackend.interop.sklearn.solver import Solver
from nnbackend.network import Network
from nnbackend.step.recorder import OptimizerState

__all__ = ["Engine", "freeze", "outputs_of"]

#: Rows at a time when predicting: of sparse ones no more than these are ever dense.
_SLICE = 1024


class Engine:
    """A network on its backend, and what its solver remembers.

    What the weights are is for the estimator's `coefs_` and `intercepts_` to say: `place` brings them to the device
    when they are not those that came from there. A pickle or a copy holds no network, so it can be read where there is
    no such backend; the next `place` makes one.

    Parameters
    ----------
    architecture : Architecture
    solver : Solver
    seed : int
        Of the dropout masks.
    steps : int
        How many were taken before, which numbers the masks.
    """

    def __init__(self, architecture: Architecture, solver: Solver, seed: int, steps: int = 0) -> None:
        self.architecture = architecture
        self.solver = solver
        self.seed = seed
        self._steps = steps
        #: What the solver's optimiser remembers, on the host: for each slot the arrays of all parameters.
        self._slots: dict[str, dict[str, HostArray]] | None = None
        self._network: Network | None = None
        #: The backend that was last asked for.
        self._asked: str | Backend | None = None
        #: The arrays whose values are those of the network.
        self._there: tuple[HostArray, ...] = ()
        self._run: EpochRun | None = None
        # Several threads may predict with one estimator.
        self._lock = threading.Lock()

    @property
    def steps(self) -> int:
        """How many training steps were taken so far."""
        return self._steps if self._network is None else self._network.steps_trained

    def place(self, backend: str | Backend, weights: Weights) -> Network:
        """The network on that backend, with these weights.

        Raises
        ------
        InvalidInputError
            They do not fit it, or are not finite.
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
            # What can be written to may have been.
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
        """What the network has learned; the arrays cannot be written to, so that none changes behind its back."""
        assert self._network is not None
        coefs, intercepts = freeze(self.architecture.unnamed(self._network.get_weights()))
        self._there = (*coefs, *intercepts)
        return coefs, intercepts

    def run_on(self, network: Network, rows: Rows, alpha: float, batch_size: int, keep: bool) -> EpochRun:
        """A recorded step on these rows: that of the last ones if they are of the same kind and it was kept."""
        # From here on the network goes its own way.
        self._there = ()
        run = self._run
        if run is not None and run.fits(network, self.architecture, alpha, rows, batch_size):
            run.load(rows)
        else:
            run = EpochRun(network, self.architecture, self.solver, alpha, rows, batch_size)
        self._run = run if keep else None
        return run

    def forget(self) -> None:
        """Start anew with the weights that will be placed next: what the network and the solver know may be broken."""
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
        vars(self).update(state, _lock=threading.Lock())


def freeze(weights: Weights) -> Weights:
    """The same arrays, which cannot be written to any more."""
    for array in (*weights[0], *weights[1]):
        array.setflags(write=False)
    return weights


def outputs_of(network: Network, x: Any) -> HostArray:
    """The network's predictions, (n, outputs), for the rows of an array or of a sparse matrix."""
    if not hasattr(x, "tocsr"):
        return network.predict(x, _SLICE)
    rows = x.tocsr()
    parts = [network.predict(rows[at : at + _SLICE].toarray(), _SLICE) for at in range(0, rows.shape[0], _SLICE)]
    joined: HostArray = np.concatenate(parts)
    return joined
