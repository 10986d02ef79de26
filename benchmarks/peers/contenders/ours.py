"""nnbackend: the steps that `fit` runs, without callbacks and progress output."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

import nnbackend as nn
from benchmarks.peers.contenders.base import Contender, Predictor, Training
from benchmarks.peers.data import Weights, scaled
from benchmarks.peers.dry import is_dry
from benchmarks.peers.works import CLASSES, Work
from nnbackend.backends.numpy import NumpyBackend
from nnbackend.data.feed import Feed
from nnbackend.losses import get_loss
from nnbackend.optimizers import OPTIMIZERS
from nnbackend.step.recorder import OptimizerState
from nnbackend.training.run import TrainingRun

__all__ = ["Cupy", "CupyTF32", "Numba", "Numpy", "Ours", "Reference", "UncorrectedReference", "make_network"]

_LOSS = "softmax_cross_entropy"


def make_network(
    work: Work,
    weights: Weights,
    backend: nn.Backend,
    dtype: str = "float32",
    seed: int = 0,
    input_scale: float = 1 / 255,
) -> nn.Network:
    """The network with these weights."""
    layers = _layers(work)
    network = nn.Network(layers, work.input_shape, backend=backend, dtype=dtype, seed=seed, input_scale=input_scale)
    values = {}
    weighted = [index for index, layer in enumerate(layers) if isinstance(layer, nn.Dense | nn.Conv2D)]
    for index, (weight, bias) in zip(weighted, weights, strict=True):
        values |= {f"layers.{index}.weight": weight, f"layers.{index}.bias": bias}
    network.set_weights(values)
    return network


def _layers(work: Work) -> list[nn.Layer]:
    layers: list[nn.Layer] = []
    for layer in work.layers:
        units = layer.outputs[-1]
        if layer.kind == "pool":
            layers.append(nn.MaxPool2D(layer.size))
        elif layer.kind == "dense":
            if any(isinstance(previous, nn.Conv2D | nn.MaxPool2D) for previous in layers[-1:]):
                layers.append(nn.Flatten())
            layers.append(nn.Dense(units, activation=work.activation))
        else:
            groups = layer.inputs[-1] if layer.kind == "depthwise" else 1
            layers.append(nn.Conv2D(units, layer.size, padding=work.padding, groups=groups, activation=work.activation))
    layers[-1] = nn.Dense(CLASSES)
    return layers


class _Run(Training):
    def __init__(self, ours: Ours, work: Work, weights: Weights) -> None:
        self._ours, self._work = ours, work
        self._network = make_network(work, weights, ours.backend, ours.dtype)
        self._loss = self._network.set_loss(_LOSS)
        optimizer = OPTIMIZERS[work.optimizer](work.learning_rate)
        self._memory = OptimizerState.fresh(optimizer, self._network.model)
        self._run: TrainingRun | None = None

    def losses(self, batches: NDArray[np.int64]) -> list[float]:
        # The order of the rows cannot be set, so permute the rows instead.
        rows = batches.ravel()
        x = self._ours.x[rows].reshape(-1, *self._work.input_shape)
        feed = self._network.intake.feed(x, self._ours.y[rows], self._loss, self._work.batch_size)
        run = self._training(feed, shuffle=False)
        return run.epoch().losses.tolist()

    def shuffle(self) -> None:
        if self._run is None:
            self._run = self._training(self._ours.feed(self._network, self._work), shuffle=True)
        # The number of the network's epoch determines the order.
        self._network.epochs_trained += 1
        self._run.begin()

    def run(self, steps: int) -> None:
        executor, full_batches = self._run.executors[0]
        assert steps <= full_batches
        executor.run(steps)
        self._network.backend.synchronize()
        self._memory.steps += steps

    def _training(self, feed: Feed, shuffle: bool) -> TrainingRun:
        return TrainingRun(self._network, self._loss, self._memory, feed, self._work.batch_size, shuffle)


class Ours(Contender):
    """A network on one of our backends."""

    dtype = "float32"

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        self.backend = self.make_backend(threads)
        self._feeds: dict[tuple[int, ...], Feed] = {}

    def make_backend(self, threads: int) -> nn.Backend:
        return NumpyBackend(threads)

    def build(self, work: Work, weights: Weights) -> Training:
        return _Run(self, work, weights)

    def predictor(self, work: Work, weights: Weights) -> Predictor:
        network = make_network(work, weights, self.backend, self.dtype, input_scale=1)
        x = scaled(self.x).reshape(-1, *work.input_shape)
        return lambda rows: network.predict(x[:rows])

    def feed(self, network: nn.Network, work: Work) -> Feed:
        """Copy the images to the device once for all networks that take them in this shape."""
        shape = (work.rows, *work.input_shape)
        if shape not in self._feeds:
            x, y = self.x[: work.rows].reshape(shape), self.y[: work.rows]
            self._feeds = {shape: network.intake.feed(x, y, get_loss(_LOSS), work.rows, stream=False)}
        return self._feeds[shape]


class Numpy(Ours):
    pass


class Reference(Ours):
    """The reference for all losses, in float64."""

    dtype = "float64"


class _UncorrectedRun(_Run):
    def losses(self, batches: NDArray[np.int64]) -> list[float]:
        if self._work.optimizer != "adam":
            return super().losses(batches)
        losses = []
        for rows in batches:
            # Epsilon is added to the root of the uncorrected second moment, which is smaller by this factor.
            factor = (1 - 0.999 ** (self._memory.steps + 1)) ** 0.5
            self._memory.optimizer = nn.Adam(self._work.learning_rate, epsilon=1e-8 / factor)
            losses += super().losses(rows[None])
        return losses


class UncorrectedReference(Reference):
    """Adam with epsilon in the position that some libraries use, which matters for tiny gradients, as of dead units."""

    def build(self, work: Work, weights: Weights) -> Training:
        return _UncorrectedRun(self, work, weights)


class Numba(Ours):
    def make_backend(self, threads: int) -> nn.Backend:
        from nnbackend.backends.numba import NumbaBackend

        return NumbaBackend(threads)


class Cupy(Ours):
    precision = "float32"
    epilogues = True
    two_kernels = True

    def make_backend(self, threads: int) -> nn.Backend:
        if is_dry():
            return NumpyBackend(threads)
        from nnbackend.backends.cupy import CupyBackend

        return CupyBackend(precision=self.precision, epilogues=self.epilogues, two_kernels=self.two_kernels)


class CupyTF32(Cupy):
    precision = "tf32"


class CupyProducts(Cupy):
    """With cuBLAS also where two kernels compute the step."""

    two_kernels = False


class CupyApart(CupyProducts):
    """Without epilogues: biases, ReLU and sums in separate launches, to measure the benefit of fusing them."""

    epilogues = False
