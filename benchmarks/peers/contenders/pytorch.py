"""PyTorch: images scaled once to float32, batches by `index_select`, one fused kernel for the update."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.peers.contenders.base import Contender, Training
from benchmarks.peers.data import Weights, scaled
from benchmarks.peers.works import SIDE, Layer, Work

__all__ = ["ChannelsLast", "Compiled", "Eager", "make_network", "make_optimizer"]

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def make_network(work: Work, weights: Weights) -> torch.nn.Sequential:
    """The network with these weights."""
    activation = {"relu": torch.nn.ReLU, "sigmoid": torch.nn.Sigmoid}[work.activation]
    layers: list[torch.nn.Module] = []
    remaining, previous = iter(weights), work.input_shape
    for shape in work.layers:
        if shape.kind == "pool":
            layers.append(torch.nn.MaxPool2d(shape.size))
        else:
            weight, bias = next(remaining)
            if flat := shape.kind == "dense" and len(previous) == 3:
                layers.append(torch.nn.Flatten())
            layer = _linear(shape, weight, previous if flat else None, work.padding)
            with torch.no_grad():
                layer.bias.copy_(torch.from_numpy(bias))
            layers += [layer, activation()]
        previous = shape.outputs
    return torch.nn.Sequential(*layers[:-1])


def _linear(
    shape: Layer, weight: NDArray[np.float32], image: tuple[int, ...] | None, padding: str
) -> torch.nn.Linear | torch.nn.Conv2d:
    """A dense layer or a convolution; channels come first here, also in an image that becomes a row."""
    if shape.kind == "dense":
        if image is not None:
            weight = np.moveaxis(weight.reshape(*image, -1), 2, 0).reshape(weight.shape)
        layer: torch.nn.Linear | torch.nn.Conv2d = torch.nn.Linear(*weight.shape)
    else:
        inputs, outputs = shape.inputs[-1], shape.outputs[-1]
        groups = inputs if shape.kind == "depthwise" else 1
        layer = torch.nn.Conv2d(inputs, outputs, shape.size, padding=padding, groups=groups)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(np.moveaxis(weight, (-1, -2), (0, 1)).copy()))
    return layer


def make_optimizer(work: Work, network: torch.nn.Module) -> torch.optim.Optimizer:
    """The fused optimiser: on CPUs as fast as the others for SGD, and faster for Adam."""
    kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[work.optimizer]
    return kind(network.parameters(), lr=work.learning_rate, fused=True)


class _Run(Training):
    def __init__(self, contender: Eager, work: Work, weights: Weights) -> None:
        self._device, self._wait = contender.device, contender.wait
        network = contender.lay_out(make_network(work, weights).to(self._device))
        self._x, self._y = contender.images_for(work), contender.labels
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

    def images_for(self, work: Work) -> torch.Tensor:
        """All images in the shape that the network takes, channels first."""
        return self.images if len(work.input_shape) == 1 else self.images.view(-1, 1, SIDE, SIDE)

    def lay_out(self, network: torch.nn.Sequential) -> torch.nn.Sequential:
        """The network with its weights in the order of memory that is to be measured."""
        return network

    def wait(self) -> None:
        """Wait for the device; not needed on the CPU."""

    def build(self, work: Work, weights: Weights) -> Training:
        return _Run(self, work, weights)

    def loss_of(self, network: torch.nn.Module) -> Loss:
        """Forward pass and loss."""
        return lambda x, y: torch.nn.functional.cross_entropy(network(x), y)


class ChannelsLast(Eager):
    """Eager mode with images and kernels whose channels are last in memory."""

    def images_for(self, work: Work) -> torch.Tensor:
        return super().images_for(work).contiguous(memory_format=torch.channels_last)

    def lay_out(self, network: torch.nn.Sequential) -> torch.nn.Sequential:
        return network.to(memory_format=torch.channels_last)


class Compiled(Eager):
    """Forward pass, loss and backward pass compiled by `torch.compile`; the update is already fused."""

    def loss_of(self, network: torch.nn.Module) -> Loss:
        # Reset, because functions compiled for earlier networks count towards a limit.
        torch.compiler.reset()
        return torch.compile(super().loss_of(network), dynamic=False)
