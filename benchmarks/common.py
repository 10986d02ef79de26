"""Backends, networks, data and timing of all suites.

Two properties of asv determine the design:

* asv calls ``setup`` before every timed call, so that calls are independent. These benchmarks need a warm steady state
  instead and restore everything they change, so :class:`Suite` builds only once.
* The values of a parameter come from the benchmark files, not from the machine. So the list of backends is fixed, and a
  backend that cannot run raises NotImplementedError, which the tables show as "n/a".
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import numpy.typing as npt

import nnbackend as nn
from nnbackend.backends.contract import Array, Backend, HostArray
from nnbackend.errors import BackendUnavailableError
from nnbackend.losses import get_loss
from nnbackend.presets import PRESETS
from nnbackend.step.recorder import OptimizerState
from nnbackend.training.run import TrainingRun

__all__ = [
    "BACKENDS",
    "NETS",
    "NetSuite",
    "Suite",
    "array",
    "dense_shapes",
    "images",
    "make_network",
    "matrix",
    "median_seconds",
    "parameter_count",
    "rounded",
    "training_run",
    "vector",
]

#: The same on every machine, so that results of different machines share their axes.
BACKENDS = ("numpy", "numba", "cupy", "torch")

#: The measured presets: small, so that overhead matters; medium; and limited by memory.
NETS = ("784-40-10", "784-200-80-10", "784-500-1000-300-10")

#: The shape of MNIST.
PIXELS = 784
CLASSES = 10
TRAIN_ROWS = 60_000
TEST_ROWS = 10_000

#: A third of MNIST, so that an epoch of the largest network takes seconds.
EPOCH_ROWS = 20_000

#: Their 16 MB are read from memory, as in an epoch, not from a cache.
GATHER_ROWS = 20_000

#: Seconds of a timed block; a result is the median of this many blocks.
BLOCK_SECONDS = 0.1
BLOCKS = 7

SEED = 20240229
_LIT_SHARE = 0.19
_DISTINCT_ROWS = 2_000


class Suite:
    """A benchmark class whose first parameter is the backend.

    A subclass defines `params`, `param_names` and :meth:`build`, which prepares the timed methods and calls each of
    them once, so that kernels are compiled and caches are warm.
    """

    params: tuple[tuple[str, ...], ...] = (BACKENDS,)
    param_names: tuple[str, ...] = ("backend",)

    #: asv drops older results when this changes. Without it asv hashes the source of the timed method and of `setup`,
    #: which is the one below and says little: raise it where a suite begins to measure something else.
    version = "1"

    #: (fewest samples, most samples, seconds) a round. A sample is a single call where there is a `setup`, so that many
    #: are needed; asv's own limit of ten would leave the median of short operations to chance.
    repeat: tuple[int, int, float] = (3, 300, 0.5)

    _built_for: tuple[str, ...] | None = None

    def setup(self, backend: str, *parameters: str) -> None:
        """Build what the benchmark needs; NotImplementedError, which asv takes for "n/a", if it cannot run here."""
        if self._built_for == (backend, *parameters):
            return
        try:
            device = nn.get_backend(backend)
        except BackendUnavailableError as error:
            raise NotImplementedError(str(error)) from error
        self.build(device, *parameters)
        device.synchronize()
        self._built_for = (backend, *parameters)

    def build(self, device: Backend, *parameters: str) -> None:
        raise AssertionError("a suite must define build")


class NetSuite(Suite):
    """A suite on each of the three networks."""

    params = (BACKENDS, NETS)
    param_names = ("backend", "net")


def images(rows: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Rows of the shape, type and share of lit pixels of MNIST, and labels: (rows, 784) uint8, (rows,) int64.

    The labels do not depend on the pixels, so no network can learn them and gradients keep their size: vanishing
    gradients would become subnormal numbers, which are slow on some processors.
    """
    generator = np.random.default_rng(SEED)
    few = generator.integers(1, 256, (_DISTINCT_ROWS, PIXELS), dtype=np.uint8)
    few *= generator.random(few.shape, dtype=np.float32) < _LIT_SHARE
    # Drawing all rows would take longer than many benchmarks; copies have the same effect on memory and caches.
    x = few[np.arange(rows) % len(few)]
    return x, generator.integers(0, CLASSES, rows)


def dense_shapes(net: str) -> list[tuple[int, int]]:
    """(inputs, outputs) of every dense layer of a network."""
    return list(pairwise((PIXELS, *PRESETS[net].hidden, CLASSES)))


def parameter_count(net: str) -> int:
    """The number of weights and biases of a network."""
    return sum((inputs + 1) * outputs for inputs, outputs in dense_shapes(net))


def make_network(device: Backend, net: str) -> nn.Network:
    """A network with a loss, so that its predictions are probabilities."""
    recipe = PRESETS[net]
    network = nn.Network(recipe.layers(CLASSES), PIXELS, backend=device, seed=SEED, input_scale=1 / 255)
    network.set_loss(recipe.loss)
    return network


def training_run(device: Backend, net: str, rows: int) -> TrainingRun:
    """The training run that `fit` would prepare for a network and this number of rows."""
    recipe, network = PRESETS[net], make_network(device, net)
    loss = get_loss(recipe.loss)
    feed = network.intake.feed(*images(rows), loss, recipe.batch_size)
    memory = OptimizerState.fresh(recipe.make_optimizer(), network.model)
    return TrainingRun(network, loss, memory, feed, recipe.batch_size, shuffle=True)


def median_seconds(block: Callable[[], object], before: Callable[[], object] = lambda: None) -> float:
    """The median time of several calls of `block`, which must wait for the device.

    `before` is called before each of them and is not timed.
    """
    times = []
    for _ in range(BLOCKS):
        before()
        begin = time.perf_counter()
        block()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def rounded(value: float) -> float:
    """Round to four significant digits, because of the noise."""
    return float(f"{value:.4g}")


def matrix(device: Backend, rows: int, columns: int, scale: float = 1.0) -> Array:
    """A (rows, columns) float32 device array of normal numbers, its rows padded as the backend asks."""
    stride = -(-columns // device.row_multiple) * device.row_multiple
    padded: HostArray = np.zeros((rows, stride), np.float32)
    padded[:, :columns] = _normal((rows, columns), scale)
    return device.view(device.from_host(padded.ravel()), 0, (rows, columns), stride)


def array(device: Backend, *shape: int, scale: float = 1.0) -> Array:
    """A contiguous float32 device array of normal numbers, for images and kernels."""
    return device.from_host(_normal(shape, scale))


def vector(device: Backend, size: int, scale: float = 1.0) -> Array:
    """A (size,) float32 device array of normal numbers."""
    return device.from_host(_normal((size,), scale))


def _normal(shape: tuple[int, ...], scale: float) -> HostArray:
    values: HostArray = np.random.default_rng(SEED).standard_normal(shape, np.float32)
    return values * np.float32(scale)
