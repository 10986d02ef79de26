"""nnbackend with `Network.fit`, as in ordinary use."""

from __future__ import annotations

from collections.abc import Mapping

import nnbackend as nn
from benchmarks.peers.contenders.ours import Cupy, CupyTF32, Numba, Numpy, make_network
from benchmarks.peers.data import initial_weights
from benchmarks.peers.learners.base import Learner, Note, Recipe

__all__ = ["make"]


class _Tell(nn.Callback):
    """Reports the accuracy."""

    def __init__(self, note: Note) -> None:
        self._note = note

    def on_epoch_end(self, network: nn.Network, epoch: int, figures: Mapping[str, float]) -> str | None:
        return "the accuracy was reached" if self._note(figures["val_accuracy"]) else None


class _Ours(Learner):
    def __init__(self, backend: nn.Backend) -> None:
        self._backend = backend

    def load(self, data: nn.datasets.Dataset, recipe: Recipe) -> None:
        self._data, self._recipe = data, recipe
        self._network = self._fresh()

    def warm_up(self) -> None:
        self._fit(self._fresh(), 2 * self._recipe.work.batch_size, 1, [])

    def train(self, note: Note) -> None:
        self._fit(self._network, len(self._data.x_train), self._recipe.epochs, [_Tell(note)])

    def _fresh(self) -> nn.Network:
        weights = initial_weights(self._recipe.work, self._recipe.seed)
        return make_network(self._recipe.work, weights, self._backend, seed=self._recipe.seed)

    def _fit(self, network: nn.Network, rows: int, epochs: int, callbacks: list[nn.Callback]) -> None:
        data = self._data
        network.fit(
            data.x_train[:rows],
            data.y_train[:rows],
            epochs=epochs,
            batch_size=self._recipe.work.batch_size,
            loss="softmax_cross_entropy",
            optimizer=nn.Adam(self._recipe.schedule()),
            validation_data=(data.x_test, data.y_test),
            callbacks=callbacks,
            verbose=False,
        )


def make(name: str, threads: int) -> Learner:
    """The learner on that backend."""
    kind = {"numpy": Numpy, "numba": Numba, "cupy": Cupy, "cupy-tf32": CupyTF32}[name]
    return _Ours(kind(threads).backend)
