"""JAX, with one compiled program per epoch. A shorter last batch would need another program and is skipped."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

import nnbackend as nn
from benchmarks.peers.contenders.jax_scan import Net, epoch, fresh_state, logits, use_gpu
from benchmarks.peers.data import initial_weights
from benchmarks.peers.learners.base import Learner, Note, Recipe

__all__ = ["make"]


@partial(jax.jit, static_argnums=0)
def _accuracy(net: Net, parameters: object, x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.mean(logits(net, parameters, x).argmax(axis=1) == y)


class _Scan(Learner):
    def load(self, data: nn.datasets.Dataset, recipe: Recipe) -> None:
        self._recipe, self._net = recipe, Net.of(recipe.work)
        self._data = jnp.asarray(data.x_train), jnp.asarray(data.y_train)
        self._test = jnp.asarray(data.x_test), jnp.asarray(data.y_test)
        self._steps = len(data.y_train) // self._recipe.work.batch_size
        self._generator = np.random.default_rng(recipe.seed)
        self._state = fresh_state(self._recipe.work, initial_weights(self._recipe.work, recipe.seed))

    def warm_up(self) -> None:
        rates, batches = (
            np.zeros(self._steps, np.float32),
            np.zeros((self._steps, self._recipe.work.batch_size), np.int32),
        )
        self._epoch = epoch.lower(self._net, self._state, rates, *self._data, batches).compile()
        _accuracy(self._net, self._state[0], *self._test).block_until_ready()

    def train(self, note: Note) -> None:
        schedule, rows = self._recipe.schedule(), len(self._data[1])
        for number in range(self._recipe.epochs):
            order = self._generator.permutation(np.arange(rows, dtype=np.int32))
            batches = order[: self._steps * self._recipe.work.batch_size].reshape(
                self._steps, self._recipe.work.batch_size
            )
            rates = schedule.epoch_rates(number, self._steps).astype(np.float32)
            self._state, _ = self._epoch(self._state, rates, *self._data, batches)
            if note(float(_accuracy(self._net, self._state[0], *self._test))):
                break


def make(name: str, threads: int) -> Learner:
    """The learner; JAX uses the GPU if one is visible."""
    if name == "jax-gpu":
        use_gpu()
    return _Scan()
