"""PyTorch, eager: what most of its users write."""

from __future__ import annotations

import torch

import nnbackend as nn
from benchmarks.peers.contenders.pytorch import make_network, make_optimizer
from benchmarks.peers.data import initial_weights, scaled
from benchmarks.peers.learners.base import NET, Learner, Note, Recipe

__all__ = ["make"]


class _Eager(Learner):
    def load(self, data: nn.datasets.Dataset, recipe: Recipe) -> None:
        self._recipe = recipe
        self._x, self._y = torch.from_numpy(scaled(data.x_train)), torch.from_numpy(data.y_train).long()
        self._test = torch.from_numpy(scaled(data.x_test)), torch.from_numpy(data.y_test).long()
        torch.manual_seed(recipe.seed)
        self._network = self._fresh()

    def warm_up(self) -> None:
        network = self._fresh()
        optimizer = make_optimizer(NET, network)
        for rows in torch.arange(2 * NET.batch_size).split(NET.batch_size):
            self._step(network, optimizer, rows)
        self._accuracy(network)

    def train(self, note: Note) -> None:
        network, schedule = self._network, self._recipe.schedule()
        optimizer = make_optimizer(NET, network)
        (group,) = optimizer.param_groups
        for epoch in range(self._recipe.epochs):
            batches = torch.randperm(len(self._y)).split(NET.batch_size)
            rates = schedule.epoch_rates(epoch, len(batches)).tolist()
            for rate, rows in zip(rates, batches, strict=True):
                group["lr"] = rate
                self._step(network, optimizer, rows)
            if note(self._accuracy(network)):
                break

    def _fresh(self) -> torch.nn.Module:
        return make_network(NET, initial_weights(NET.sizes, self._recipe.seed))

    def _step(self, network: torch.nn.Module, optimizer: torch.optim.Optimizer, rows: torch.Tensor) -> None:
        loss = torch.nn.functional.cross_entropy(network(self._x.index_select(0, rows)), self._y.index_select(0, rows))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def _accuracy(self, network: torch.nn.Module) -> float:
        x, y = self._test
        with torch.no_grad():
            return (network(x).argmax(1) == y).float().mean().item()


def make(name: str, threads: int) -> Learner:
    """The learner."""
    torch.set_num_threads(threads)
    return _Eager()
