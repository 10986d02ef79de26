"""What happens between the epochs of the recipe."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, MutableMapping

from nnbackend.network import Network
from nnbackend.schedules import Schedule
from nnbackend.training import Callback

__all__ = ["DecayWeights", "MeanOfEpochs"]


class DecayWeights(Callback):
    """Weight decay as in AdamW (Loshchilov and Hutter 2019), at the beginning of an epoch for all of its steps at once.

    Each step reduces the weights by the factor ``1 - decay * rate``. `decay` is constant for half of the epochs and
    then falls to 0 like half a cosine. `rate` is the optimiser's, times the layer's factor, but without the factors of
    the neural tangent parametrisation. Biases do not decay; all other parameters do, such as factors of features,
    vectors of categories, and frequencies and phases of waves.

    Parameters
    ----------
    decay : float
    schedule : Schedule
        Of the learning rate.
    epochs, steps : int
        Number of epochs, and of the steps of an epoch.
    """

    def __init__(self, decay: float, schedule: Schedule, epochs: int, steps: int) -> None:
        self.decay, self.schedule, self.epochs, self.steps = decay, schedule, epochs, steps

    def on_epoch_begin(self, network: Network, epoch: int) -> None:
        total = 0.0
        for step in range(self.steps):
            time = epoch - 1 + step / self.steps
            falling = max(0.0, 2 * time / self.epochs - 1)
            total += self.decay * self.schedule.rate(time) * 0.5 * (1 + math.cos(math.pi * falling))
        model = network.model
        values = model.backend.to_host(model.parameters)
        for entry in model.layout.entries:
            if entry.parameter.name != "bias":
                factor = network.layers[entry.layer].learning_rate_factor
                entry.view(values)[...] *= values.dtype.type(math.exp(-total * factor))
        model.backend.write(values, model.parameters)


class MeanOfEpochs(Callback):
    """Adds the mean of a sum of metrics over the last epochs, so that chance decides less about the best epoch.

    Parameters
    ----------
    terms : dict of float
        The factor of each metric in the sum, by name.
    epochs : int
    """

    #: The metric that it adds.
    name = "mean_of_epochs"

    adds_metrics = (name,)

    def __init__(self, terms: Mapping[str, float], epochs: int) -> None:
        self.terms, self.epochs = terms, epochs
        self._last: deque[float] = deque(maxlen=epochs)

    def on_train_begin(self, network: Network, epochs: int) -> None:
        self._last.clear()

    def on_epoch_end(self, network: Network, epoch: int, metrics: MutableMapping[str, float]) -> None:
        self._last.append(math.fsum(factor * metrics[name] for name, factor in self.terms.items()))
        try:
            metrics[self.name] = math.fsum(self._last) / len(self._last)
        except OverflowError:
            # A training in float64 that is about to diverge.
            metrics[self.name] = math.inf
