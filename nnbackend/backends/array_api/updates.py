"""Optimisers and the clipping of gradients on flat buffers, in terms of the array API standard."""

from __future__ import annotations

import math

from nnbackend.backends.array_api.namespace import Namespace
from nnbackend.backends.arrays import Array

__all__ = ["UpdateOperations"]


class UpdateOperations(Namespace):
    """Each operation is its formula in :mod:`nnbackend.backends.operations`, in place."""

    def _this_step(self, values: Array, counter: Array) -> float:
        """The learning rate or the momentum of this step of the epoch."""
        return float(self._numbers(values)[int(self._numbers(counter)[0])])

    def sgd_update(
        self,
        parameters: Array,
        gradients: Array,
        velocity: Array | None,
        counter: Array,
        learning_rates: Array,
        momentum: float,
        nesterov: bool,
        weight_decay: float,
        momenta: Array | None = None,
    ) -> None:
        if momenta is not None:
            momentum = self._this_step(momenta, counter)
        direction = gradients + weight_decay * parameters if weight_decay else gradients
        if velocity is not None:
            velocity *= momentum
            velocity += direction
            direction = direction + momentum * velocity if nesterov else velocity
        parameters -= self._this_step(learning_rates, counter) * direction

    def adam_update(
        self,
        parameters: Array,
        gradients: Array,
        first: Array,
        second: Array,
        counter: Array,
        learning_rates: Array,
        beta1: float,
        beta2: float,
        epsilon: float,
        weight_decay: float,
        decoupled: bool,
        momenta: Array | None = None,
    ) -> None:
        if momenta is not None:
            beta1 = self._this_step(momenta, counter)
        rate, t = self._this_step(learning_rates, counter), int(self._numbers(counter)[2]) + 1
        if weight_decay and decoupled:
            parameters *= 1 - rate * weight_decay
        elif weight_decay:
            gradients = gradients + weight_decay * parameters
        first *= beta1
        first += (1 - beta1) * gradients
        second *= beta2
        second += (1 - beta2) * gradients * gradients
        denominator = self.xp.sqrt(second)
        denominator *= 1 / math.sqrt(1 - beta2**t)
        denominator += epsilon
        parameters -= first / denominator * (rate / (1 - beta1**t))

    def rmsprop_update(
        self,
        parameters: Array,
        gradients: Array,
        square: Array,
        counter: Array,
        learning_rates: Array,
        decay: float,
        epsilon: float,
        weight_decay: float,
    ) -> None:
        if weight_decay:
            gradients = gradients + weight_decay * parameters
        square *= decay
        square += (1 - decay) * gradients * gradients
        rate = self._this_step(learning_rates, counter)
        parameters -= rate * gradients / (self.xp.sqrt(square) + epsilon)

    def lion_update(
        self,
        parameters: Array,
        gradients: Array,
        moment: Array,
        counter: Array,
        learning_rates: Array,
        beta1: float,
        beta2: float,
        weight_decay: float,
        momenta: Array | None = None,
    ) -> None:
        if momenta is not None:
            beta1 = self._this_step(momenta, counter)
        rate = self._this_step(learning_rates, counter)
        parameters *= 1 - rate * weight_decay
        parameters -= rate * self.xp.sign(beta1 * moment + (1 - beta1) * gradients)
        moment *= beta2
        moment += (1 - beta2) * gradients

    def blend(self, source: Array, share: float, counter: Array, shares: Array | None, out: Array) -> None:
        if shares is not None:
            share = self._this_step(shares, counter)
        out *= 1 - share
        out += share * source

    # ---- clipping --------------------------------------------------------------------------------------------

    def square_sum(self, gradients: Array, squares: Array) -> None:
        exact = self.xp.astype(gradients, self.wide)
        self._store(squares, (0,), self.xp.sum(exact * exact))

    def clip_norm(self, squares: Array, norm: float, gradients: Array) -> None:
        xp = self.xp
        total = self._latest(squares)
        factor = xp.where(xp.isfinite(total), norm / xp.sqrt(total), xp.full_like(total, math.nan))
        factor = xp.where(total <= norm * norm, xp.ones_like(total), factor)
        gradients *= xp.astype(factor, gradients.dtype)

    def clip_value(self, value: float, gradients: Array) -> None:
        xp, limit = self.xp, self.xp.full_like(gradients, value)
        gradients[...] = xp.where(gradients > value, limit, xp.where(gradients < -value, -limit, gradients))
