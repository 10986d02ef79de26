"""Many networks on several ranks: each trains its share of them alone, and all end with all networks."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nnbackend.backends.contract import HostArray
from nnbackend.distributed.communicator import Checks, Communicator
from nnbackend.errors import InvalidInputError
from nnbackend.losses import Loss
from nnbackend.network import Network
from nnbackend.optimizers import Optimizer
from nnbackend.step.model import OptimizerState
from nnbackend.training.history import History
from nnbackend.training.interrupt import TERMINATED

__all__ = ["OwnersChecks", "Results", "check_sendable", "end_together", "owner_of", "share_results"]


def owner_of(place: int, ranks: Communicator) -> int:
    """The rank that trains a network: in turn, so that lists in the order of their sizes are shared evenly."""
    return place % ranks.size


class OwnersChecks(Checks):
    """The checks of one network, in which its owner is the first rank: only it reads and locks a checkpoint folder.

    Parameters
    ----------
    communicator : Communicator
    owner : int
    checks : Checks
        Those of all networks.
    """

    def __init__(self, communicator: Communicator, owner: int, checks: Checks) -> None:
        super().__init__(communicator)
        self._owner, self._checks = owner, checks

    @property
    def rank(self) -> int:
        return (self._communicator.rank - self._owner) % self.size

    def exchange(self, value: Any) -> list[Any]:
        values = self._checks.exchange(value)
        return values[self._owner :] + values[: self._owner]

    def alike(self, settings: Mapping[str, Any], values: bool = True) -> None:
        # Its errors name ranks by their own numbers.
        self._checks.alike(settings, values)


def check_sendable(optimizer: Any) -> None:
    """Reject an optimiser that cannot be sent to other ranks.

    Raises
    ------
    InvalidInputError
    """
    try:
        pickle.dumps(optimizer)
    except Exception as error:
        raise InvalidInputError(
            f"the optimizer is sent to the other ranks, but cannot be pickled ({error}); define its class, and that of "
            "its schedule, in a module"
        ) from error


@dataclass(eq=False, repr=False)
class Results:
    """The results of a network's training, for the ranks that have not trained it.

    Attributes
    ----------
    history : History
    new_loss, new_optimizer : bool
        Whether the network has the loss and the optimiser of this training, and not still those from before.
    decisions : tuple
        As of `Network.decisions`, without the loss.
    weights : (layout.size,) array
        All parameters and state.
    counts : (steps, epochs)
        Trained by the network.
    optimizer : Optimizer or None
        None if the network has none, such as after it has diverged.
    slots : dict of (layout.trainable_size,) arrays
    optimizer_counts : (steps, epochs)
    """

    history: History
    new_loss: bool
    new_optimizer: bool
    decisions: tuple[Any, ...]
    weights: HostArray
    counts: tuple[int, int]
    optimizer: Optimizer | None
    slots: dict[str, HostArray]
    optimizer_counts: tuple[int, int]

    @classmethod
    def of(cls, network: Network, history: History, loss: Loss, optimizer: Optimizer) -> Results:
        """The results of a network whose training was planned with this loss and this optimiser."""
        backend, memory = network.backend, network.optimizer_state
        history.error = _sendable(history.error)
        return cls(
            history=history,
            new_loss=network.loss is loss,
            new_optimizer=network.optimizer is optimizer,
            decisions=network.decisions[1:],
            weights=backend.to_host(network.model.parameters),
            counts=(network.steps_trained, network.epochs_trained),
            optimizer=network.optimizer,
            slots={} if memory is None else {name: backend.to_host(slot) for name, slot in memory.slots.items()},
            optimizer_counts=(0, 0) if memory is None else (memory.steps, memory.epochs),
        )

    def give(self, network: Network, loss: Loss, optimizer: Optimizer) -> None:
        """Bring this rank's copy of the network into the same state, with this rank's objects."""
        backend = network.backend
        network.take_back((loss if self.new_loss else network.loss, *self.decisions))
        backend.write(self.weights, network.model.parameters)
        network.steps_trained, network.epochs_trained = self.counts
        own = optimizer if self.new_optimizer else network.optimizer
        if self.optimizer is None or own is None:
            network.optimizer_state = None
            return
        vars(own).update(vars(self.optimizer))
        slots = {name: backend.from_host(values) for name, values in self.slots.items()}
        network.optimizer_state = OptimizerState(own, slots, *self.optimizer_counts)


def _sendable(error: Exception | None) -> Exception | None:
    """The error, or one that says the same if it cannot be pickled."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def end_together(ranks: Communicator, terminated: bool) -> None:
    """Wait until all ranks have trained their networks.

    Raises
    ------
    SystemExit
        On all ranks, if SIGTERM has ended the training of one.
    """
    with ranks.patient():
        ended = ranks.any(terminated)
    if ended:
        raise ranks.alike(SystemExit(TERMINATED))


def share_results(ranks: Communicator, count: int, own: Mapping[int, Results]) -> list[Results]:
    """The results of all networks, by place, from those of this rank's networks."""
    shared: list[Results] = []
    for first in range(0, count, ranks.size):
        # One of each rank at a time, because messages have a limited size.
        shared += ranks.gather(own.get(first + ranks.rank))
    return shared[:count]
