"""Compare gradients with finite differences."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnbackend.backends.contract import HostArray
from nnbackend.errors import InvalidInputError
from nnbackend.losses import Loss
from nnbackend.network import Network
from nnbackend.optimizers import SGD
from nnbackend.step.recorder import OptimizerState, Recorder, Workspace, record_training

__all__ = ["LossAndGradients", "check_gradients"]


class LossAndGradients:
    """The loss and gradients of a network over a whole data set.

    It records one training step with a learning rate of zero, which leaves the parameters unchanged. The gradients are
    read from the optimizer state, because executors may omit the gradient buffer: in the first step of SGD with
    momentum, the velocity is the gradient. Dropout always draws the mask of the network's first step, so that the loss
    is a function of the weights. State is updated as in training.

    Parameters
    ----------
    network : Network
    x, y : data as for `fit`
    loss : str or Loss
    sample_weight : (n,) array_like, optional
    """

    def __init__(self, network: Network, x: Any, y: Any, loss: str | Loss, sample_weight: Any = None) -> None:
        chosen = network.resolve_loss(loss)
        feed = network.intake.feed(x, y, chosen, len(x), sample_weight=sample_weight, stream=False)
        model, backend = network.model, network.backend
        examples = feed.examples
        self._network = network
        self._count = examples.count
        self._counter = backend.empty((3,), np.int64)
        self._trace = backend.empty((1, 3), np.float64)
        state = OptimizerState.fresh(SGD(0.0, momentum=0.5), model)
        self._gradients = state.slots["velocity"]
        self._zeros = np.zeros(model.layout.trainable_size, model.dtype)
        recorder = Recorder(model, Workspace(backend, examples.count), examples.count, self._counter, training=True)
        record_training(
            recorder,
            examples,
            backend.from_host(np.arange(examples.count, dtype=np.int64)),
            examples.count,
            chosen,
            state,
            backend.empty((model.layout.trainable_size,), model.dtype),
            dict.fromkeys((factor for factor, _, _ in model.layout.rate_parts), backend.empty((1,), np.float64)),
            self._trace,
        )
        self._executor = backend.executor(recorder.calls)

    def __call__(self) -> tuple[float, dict[str, HostArray]]:
        """The mean loss at the current weights, including penalties, and its gradients by name of trained parameter."""
        backend = self._network.backend
        backend.write(np.zeros(3, np.int64), self._counter)
        backend.write(self._zeros, self._gradients)
        self._executor.run(1)
        trace = backend.to_host(self._trace)[0]
        gradients = self._network.model.layout.trainable.unpack(backend.to_host(self._gradients))
        return float(trace[0] + trace[2]) / self._count, gradients


def check_gradients(
    network: Network,
    x: Any,
    y: Any,
    loss: str | Loss,
    sample_weight: Any = None,
    step: float = 1e-5,
    tolerance: float = 1e-6,
    samples: int = 25,
) -> None:
    """Compare gradients with central differences of the loss.

    Parameters
    ----------
    network : Network
        A network in float64; finite differences are too inaccurate in float32. Its weights and state are restored
        afterwards.
    x, y, loss, sample_weight
        As for `fit`.
    step : float
        Half the distance between the two points of a difference.
    tolerance : float
        Largest error allowed, relative to the largest gradient of the parameter or to 1, whichever is larger.
    samples : int
        Number of randomly chosen elements to check in each parameter.

    Raises
    ------
    AssertionError
        A gradient is wrong; the message names the element and the parameter.
    """
    if network.dtype != np.float64:
        raise InvalidInputError("check_gradients needs a network with dtype='float64'")
    evaluate = LossAndGradients(network, x, y, loss, sample_weight)
    original = network.get_weights()
    generator = np.random.default_rng(0)
    try:
        _, first = evaluate()
        network.set_weights(original)
        # In the second step the gradients' memory holds those of the first: what is not written shows.
        _, gradients = evaluate()
        for name, gradient in gradients.items():
            largest = max(1.0, float(np.abs(gradient).max()))
            for flat in generator.permutation(gradient.size)[:samples]:
                place = np.unravel_index(flat, gradient.shape)
                losses = []
                for sign in (1, -1):
                    weights = {key: value.copy() for key, value in original.items()}
                    weights[name][place] += sign * step
                    network.set_weights(weights)
                    losses.append(evaluate()[0])
                difference = (losses[0] - losses[1]) / (2 * step)
                if not abs(difference - gradient[place]) <= tolerance * largest:
                    raise AssertionError(
                        f"{name}{list(map(int, place))}: the gradient is {gradient[place]:.10g}, "
                        f"finite differences give {difference:.10g}{_hint(first[name], gradient)}"
                    )
    finally:
        network.set_weights(original)


def _hint(first: HostArray, second: HostArray) -> str:
    """What it means if the gradients of two equal steps differ."""
    if np.array_equal(first, second):
        return ""
    return (
        "; repeating the step changes the gradient, so backward may add to it, or not write all of it: its memory "
        "still holds the gradient of the step before"
    )
