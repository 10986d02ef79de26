"""What a network takes up from its training: a loss, an optimiser's state, and what its inputs are."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from nnbackend.data.scale import Inputs
from nnbackend.losses import Loss
from nnbackend.network import Network
from nnbackend.optimizers import Optimizer
from nnbackend.step.options import StepOptions
from nnbackend.step.recorder import OptimizerState

__all__ = ["decided_if_trained", "describe_inputs", "memory_for", "take_up"]

_log = logging.getLogger("nnbackend")


def memory_for(network: Network, optimizer: Optimizer) -> OptimizerState:
    """The state that the optimiser would train with: the network's if it belongs to this object, or a new one."""
    memory = network.optimizer_state
    if memory is None or memory.optimizer is not optimizer:
        return OptimizerState.fresh(optimizer, network.model)
    return memory


def take_up(network: Network, loss: Loss, multilabel: bool, memory: OptimizerState, options: StepOptions) -> None:
    """Give the network its loss, what it predicts, the state of its optimiser and the description of its steps, once
    the step is recorded and nothing was wrong."""
    network.use_loss(loss)
    network.multilabel = multilabel
    network.step_options = options
    if network.optimizer_state is not memory:
        memory.optimizer.schedule.start()
        network.optimizer_state = memory


def describe_inputs(network: Network, inputs: Inputs, scale: float) -> None:
    """Log what the network is trained with, and fix the factor on its inputs."""
    _log.info("training on %s", inputs.description)
    network.keep_inputs(inputs, scale)


@contextmanager
def decided_if_trained(network: Network) -> Iterator[None]:
    """A context at whose end the network is as before if no step was taken in it: it keeps no loss, optimiser, factor
    on the inputs or kind of predictions from a training that did not happen."""
    steps, decisions, memory = network.steps_trained, network.decisions, network.optimizer_state
    try:
        yield
    finally:
        if network.steps_trained == steps:
            network.take_back(decisions)
            used = network.optimizer_state
            if memory is None or (used is not None and used.optimizer is not memory.optimizer):
                network.optimizer_state = memory
