"""scikit-learn's SGD and Adam, computed with this package's operations; and AdamW and RMSprop, which it does not have.

scikit-learn's formulae differ from this package's in two points. The learning rates, which the host computes for every
epoch, compensate for both:

* scikit-learn's Adam adds epsilon to the root of the uncorrected second moment ("epsilon hat", the end of section 2 of
  Kingma and Ba 2015) and includes both bias corrections in the rate. So does `rates`, and the operation receives a step
  number so large that its own corrections are 1.
* scikit-learn's velocity includes the learning rates; this package's is a sum of gradients. When the rate changes,
  which happens only between epochs, the velocity is multiplied by the old rate over the new one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from nnbackend.backends.contract import Array
from nnbackend.interop.sklearn.settings import Settings
from nnbackend.network import Network
from nnbackend.optimizers import SGD, Adam, AdamW, Optimizer, RMSprop

__all__ = ["NoUpdate", "Solver"]

#: A step number at which beta ** steps is 0 for every beta below 1.
_LONG_AGO = 1 << 52

#: An adaptive rate is divided by the first number; training ends when it is at most the second.
_DIVISOR, _SMALLEST = 5.0, 1e-6


class NoUpdate(Optimizer):
    """Leaves the parameters as they are: SciPy's L-BFGS-B changes them, and reads the gradients."""

    operation = "sgd_update"

    def record(
        self,
        record: Any,
        parameters: Array,
        gradients: Array,
        slots: Any,
        counter: Array,
        learning_rates: Array,
        momenta: Array | None = None,
    ) -> None:
        """Record nothing."""

    def rule(self) -> tuple[Any, ...]:
        """It has no hyperparameters."""
        return ()


class Solver:
    """The optimiser of an estimator and its learning rate.

    Parameters
    ----------
    settings : Settings

    Attributes
    ----------
    optimizer : Optimizer
        Records the update; its learning rate is not used.
    learning_rate : float
        The current rate; for Adam without bias corrections.
    steps : int
        Number of steps taken.
    """

    def __init__(self, settings: Settings) -> None:
        self.learning_rate = self._initial = settings.learning_rate_init
        self._kind = settings.learning_rate if settings.solver == "sgd" else "constant"
        self._power = settings.power_t
        self._betas = (settings.beta_1, settings.beta_2)
        self.optimizer = _optimizer(settings)
        self.steps = 0

    def penalty(self, alpha: float) -> float:
        """The strength of the L2 penalty of the recorded step: AdamW decays the weights itself, and for L-BFGS the host
        adds the penalty."""
        return 0.0 if isinstance(self.optimizer, AdamW | NoUpdate) else alpha

    @property
    def step_counter(self) -> int:
        """The step number that the operation receives."""
        return self.steps if isinstance(self.optimizer, AdamW) else _LONG_AGO

    def rates(self, steps: int) -> npt.NDArray[np.float64]:
        """The learning rates of the next steps, (steps,)."""
        if type(self.optimizer) is not Adam:
            return np.full(steps, self.learning_rate)
        t = self.steps + np.arange(1.0, steps + 1)
        beta1, beta2 = self._betas
        corrected: npt.NDArray[np.float64] = self.learning_rate * np.sqrt(1 - beta2**t) / (1 - beta1**t)
        return corrected

    def end_epoch(self, network: Network, rows_seen: int) -> None:
        """Update the rate at the end of an epoch; `rows_seen` is the number of rows since the start of training."""
        if self._kind == "invscaling":
            self._change_rate(network, self._initial / (rows_seen + 1) ** self._power)

    def slow_down(self, network: Network) -> bool:
        """Lower the rate if it is adaptive, because training no longer improves; returns whether it was lowered."""
        if self._kind != "adaptive" or self.learning_rate <= _SMALLEST:
            return False
        self._change_rate(network, self.learning_rate / _DIVISOR)
        return True

    @property
    def adaptive(self) -> bool:
        """Whether `slow_down` may lower the rate."""
        return self._kind == "adaptive"

    def _change_rate(self, network: Network, rate: float) -> None:
        memory, backend = network.optimizer_state, network.backend
        if memory is not None and "velocity" in memory.slots:
            velocity = memory.slots["velocity"]
            backend.write(backend.to_host(velocity) * (self.learning_rate / rate), velocity)
        self.learning_rate = rate


def _optimizer(settings: Settings) -> Optimizer:
    """The optimiser that records the update."""
    rate, betas = settings.learning_rate_init, (settings.beta_1, settings.beta_2)
    match settings.solver:
        case "lbfgs":
            return NoUpdate(rate)
        case "sgd":
            return SGD(rate, settings.momentum, settings.nesterovs_momentum and settings.momentum > 0)
        case "adamw":
            return AdamW(rate, *betas, settings.epsilon, settings.alpha)
        case "rmsprop":
            return RMSprop(rate, settings.rho, settings.epsilon)
        case _:
            return Adam(rate, *betas, settings.epsilon)
