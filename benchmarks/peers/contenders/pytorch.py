"""PyTorch: images scaled once to float32, batches by `index_select`, one fused kernel for the update."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.peers.contenders.base import Contender, Training
from benchmarks.peers.data import Weights, scaled
from benchmarks.peers.works import Work

__all__ = ["Compiled", "Eager", "make_network", "make_optimizer"]

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def make_network(work: Work, weights: Weights) -> torch.nn.Sequential:
    """The network with these weights."""
    activation = {"relu": torch.nn.ReLU, "sigmoid": torch.nn.Sigmoid}[work.activation]
    layers: list[torch.nn.Module] = []
    for weight, bias in weights:
        layer = torch.nn.Linear(*weight.shape)
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(weight.T))
            layer.bias.copy_(torch.from_numpy(bias))
        layers += [layer, activation()]
    return torch.nn.Sequential(*layers[:-1])


def make_optimizer(work: Work, network: torch.nn.Module) -> torch.optim.Optimizer:
    """The fused optimiser: on CPUs as fast as the others for SGD, and faster for Adam."""
    kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[work.optimizer]
    return kind(network.parameters(), lr=work.learning_rate, fused=True)


class _Run(Training):
    def __init__(self, contender: Eager, work: Work, weights: Weights) -> None:
        self._device, self._wait = contender.device, contender.wait
        network = make_network(work, weights).to(self._device)
        self._x, self._y = contender.images, contender.labels
        self._work = work
        self._optimizer = make_optimizer(work, network)
        self._loss = contender.loss_of(network)

    def losses(self, batches: NDArray[np.int64]) -> list[float]:
        return [self._step(torch.from_numpy(rows).to(self._device)).item() for rows in batches]

    def shuffle(self) -> None:
        self._order = torch.randperm(self._work.rows, device=self._device)

    def run(self, steps: int) -> None:
        for rows in self._order[: steps * self._work.batch_size].split(self._work.batch_size):
            self._step(rows)
        self._wait()

    def _step(self, rows: torch.Tensor) -> torch.Tensor:
        loss = self._loss(self._x.index_select(0, rows), self._y.index_select(0, rows))
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        return loss.detach()


class Eager(Contender):
    """Eager mode: kernels called one by one from Python."""

    device = torch.device("cpu")

    def load(self, x: NDArray[np.uint8], y: NDArray[np.int64]) -> None:
        torch.set_num_threads(self.threads)
        self.images = torch.from_numpy(scaled(x)).to(self.device)
        self.labels = torch.from_numpy(y).to(self.device)

    def wait(self) -> None:
        """Wait for the device; not needed on the CPU."""

    def build(self, work: Work, weights: Weights) -> Training:
        return _Run(self, work, weights)

    def loss_of(self, network: torch.nn.Module) -> Loss:
        """Forward pass and loss."""
        return lambda x, y: torch.nn.functional.cross_entropy(network(x), y)


class Compiled(Eager):
    """Forward pass, loss and backward pass compiled by `torch.compile`; the update is already fused."""

    def loss_of(self, network: torch.nn.Module) -> Loss:
        # Reset, because functions compiled for earlier networks count towards a limit.
        torch.compiler.reset()
        return torch.compile(super().loss_of(network), dynamic=False)
