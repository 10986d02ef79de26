"""What every kind of training settles before its first step: the loss, the optimiser and its memory."""

from __future__ import annotations

import numpy as np

from nnbackend.errors import InvalidInputError
from nnbackend.losses import Loss
from nnbackend.network import Network
from nnbackend.optimizers import Optimizer
from nnbackend.step.recorder import OptimizerState

__all__ = ["check_weights", "required_loss", "take_up", "weights_are_finite"]


def required_loss(network: Network, loss: str | Loss | None) -> Loss:
    """The loss asked for, or the one the network was trained with."""
    if loss is None and network.loss is None:
        raise InvalidInputError(
            "training needs a loss the first time: loss='softmax_cross_entropy' for classes, "
            "'sigmoid_cross_entropy' for yes-or-no outputs, 'mean_squared_error' for numbers"
        )
    return network.resolve_loss(loss)


def take_up(network: Network, loss: Loss, optimizer: Optimizer) -> OptimizerState:
    """Give the network its loss and optimiser; the same optimiser as before continues from its state."""
    network.set_loss(loss)
    memory = network.optimizer_state
    if memory is None or memory.optimizer is not optimizer:
        optimizer.schedule.start()
        memory = network.optimizer_state = OptimizerState.fresh(optimizer, network.model)
    return memory


def check_weights(network: Network) -> None:
    """Refuse to train weights that are broken already: there would be nothing to go back to."""
    if not weights_are_finite(network):
        raise InvalidInputError(
            "the network has weights that are NaN or infinite; give it others with set_weights or restore"
        )


def weights_are_finite(network: Network) -> bool:
    """Whether no weight is NaN or infinite."""
    return all(np.isfinite(array).all() for array in network.get_weights().values())
