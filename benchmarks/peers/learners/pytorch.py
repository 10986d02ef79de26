"""PyTorch in eager mode, as in ordinary use."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
import torch

import nnbackend as nn
from benchmarks.peers.contenders.pytorch import make_network, make_optimizer
from benchmarks.peers.data import initial_weights, scaled
from benchmarks.peers.dry import is_dry
from benchmarks.peers.learners.base import Learner, Note, Recipe

__all__ = ["make"]


class _Eager(Learner):
    def __init__(self, device: torch.device) -> None:
        self._device = device

    def load(self, data: nn.datasets.Dataset, recipe: Recipe) -> None:
        self._recipe = recipe
        self._x, self._y = self._there(scaled(data.x_train)), self._there(data.y_train).long()
        self._test = self._there(scaled(data.x_test)), self._there(data.y_test).long()
        torch.manual_seed(recipe.seed)
        self._network = self._fresh()

    def warm_up(self) -> None:
        network = self._fresh()
        optimizer = make_optimizer(self._recipe.work, network)
        size = self._recipe.work.batch_size
        for rows in torch.arange(2 * size, device=self._device).split(size):
            self._step(network, optimizer, rows)
        self._accuracy(network)

    def train(self, note: Note) -> None:
        network, schedule = self._network, self._recipe.schedule()
        optimizer = make_optimizer(self._recipe.work, network)
        (group,) = optimizer.param_groups
        for epoch in range(self._recipe.epochs):
            batches = torch.randperm(len(self._y), device=self._device).split(self._recipe.work.batch_size)
            rates = schedule.epoch_rates(epoch, len(batches)).tolist()
            for rate, rows in zip(rates, batches, strict=True):
                group["lr"] = rate
                self._step(network, optimizer, rows)
            if note(self._accuracy(network)):
                break

    def _fresh(self) -> torch.nn.Module:
        network = make_network(self._recipe.work, initial_weights(self._recipe.work, self._recipe.seed))
        return network.to(self._device)

    def _there(self, array: npt.NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(array).to(self._device)

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
    return _Eager(torch.device("cuda" if name == "torch-gpu" and not is_dry() else "cpu"))
