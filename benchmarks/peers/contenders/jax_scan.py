"""JAX: an epoch is one compiled program, a `lax.scan` over the batches of a given order."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.contenders.base import Contender, Training
from benchmarks.peers.data import Weights
from benchmarks.peers.dry import is_dry
from benchmarks.peers.works import Layer, Work

__all__ = ["Net", "OnGpu", "Scan", "epoch", "fresh_state", "logits", "use_gpu"]

#: Weights and biases, and the optimiser's state: the moments and the number of steps taken.
State = tuple[Any, Any]

_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8


def fresh_state(work: Work, weights: Weights) -> State:
    """The initial state."""
    parameters = jax.tree.map(jnp.array, weights)
    if work.optimizer == "sgd":
        return parameters, ()
    zeros = partial(jax.tree.map, jnp.zeros_like)
    return parameters, (zeros(parameters), zeros(parameters), jnp.float32(0))


@dataclass(frozen=True)
class Net:
    """What a program is compiled for."""

    layers: tuple[Layer, ...]
    activation: str
    padding: str
    optimizer: str

    @classmethod
    def of(cls, work: Work) -> Net:
        """The net of a work."""
        return cls(work.layers, work.activation, work.padding, work.optimizer)


def logits(net: Net, parameters: Any, pixels: jax.Array) -> jax.Array:
    """The net's outputs for images in bytes."""
    act = {"relu": jax.nn.relu, "sigmoid": jax.nn.sigmoid}[net.activation]
    x = (pixels.astype(jnp.float32) * jnp.float32(1 / 255)).reshape(-1, *net.layers[0].inputs)
    remaining = iter(parameters)
    for layer in net.layers:
        if layer.kind == "pool":
            window = (1, layer.size, layer.size, 1)
            x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, window, "VALID")
            continue
        weight, bias = next(remaining)
        if layer.kind == "dense":
            x = x.reshape(len(x), -1) @ weight + bias
        else:
            groups = layer.inputs[-1] if layer.kind == "depthwise" else 1
            x = bias + jax.lax.conv_general_dilated(
                x,
                weight,
                (1, 1),
                net.padding.upper(),
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
                feature_group_count=groups,
            )
        if layer is not net.layers[-1]:
            x = act(x)
    return x


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def epoch(
    net: Net, state: State, rates: jax.Array, x: jax.Array, y: jax.Array, batches: jax.Array
) -> tuple[State, jax.Array]:
    """Train on consecutive batches.

    Parameters
    ----------
    net : Net
    state : State
        Donated: its memory is reused.
    rates : (steps,) float32
    x : (rows, 784) uint8
    y : (rows,) int32
    batches : (steps, batch_size) int32

    Returns
    -------
    state : State
    losses : (steps,) float32
    """

    def mean_loss(parameters: Any, rows: jax.Array) -> jax.Array:
        z = logits(net, parameters, x[rows])
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(z), y[rows][:, None], axis=1))

    def step(state: State, now: tuple[jax.Array, jax.Array]) -> tuple[State, jax.Array]:
        parameters, memory = state
        rate, rows = now
        loss, gradients = jax.value_and_grad(mean_loss)(parameters, rows)
        if net.optimizer == "sgd":
            return (jax.tree.map(lambda p, g: p - rate * g, parameters, gradients), memory), loss
        return _adam(parameters, gradients, memory, rate), loss

    return jax.lax.scan(step, state, (rates, batches))


def _adam(parameters: Any, gradients: Any, memory: Any, rate: jax.Array) -> State:
    first, second, steps = memory
    steps = steps + 1
    first = jax.tree.map(lambda m, g: _BETA1 * m + (1 - _BETA1) * g, first, gradients)
    second = jax.tree.map(lambda v, g: _BETA2 * v + (1 - _BETA2) * g * g, second, gradients)
    # 1 - beta**steps, computed without cancellation, which would cost half the digits of float32.
    scale = rate / -jnp.expm1(steps * jnp.log(_BETA1))
    root = jax.lax.rsqrt(-jnp.expm1(steps * jnp.log(_BETA2)))
    parameters = jax.tree.map(
        lambda p, m, v: p - scale * m / (jnp.sqrt(v) * root + _EPSILON), parameters, first, second
    )
    return parameters, (first, second, steps)


class _Run(Training):
    def __init__(self, contender: Scan, work: Work, weights: Weights) -> None:
        self._x, self._y = contender.images, contender.labels
        self._work = work
        self._state = fresh_state(work, weights)
        self._generator = np.random.default_rng(0)

    def losses(self, batches: NDArray[np.int64]) -> list[float]:
        return np.asarray(self._train(batches.astype(np.int32))).tolist()

    def shuffle(self) -> None:
        # On a CPU, NumPy draws an order several times faster than jax.random.
        self._order = self._generator.permutation(np.arange(self._work.rows, dtype=np.int32))

    def run(self, steps: int) -> None:
        batches = self._order[: steps * self._work.batch_size].reshape(steps, -1)
        self._train(batches).block_until_ready()
        jax.block_until_ready(self._state)

    def _train(self, batches: NDArray[np.int32]) -> jax.Array:
        rates = np.full(len(batches), self._work.learning_rate, np.float32)
        net = Net.of(self._work)
        self._state, losses = epoch(net, self._state, rates, self._x, self._y, jnp.asarray(batches))
        return losses


class Scan(Contender):
    """Images are stored as bytes and scaled when a batch is gathered."""

    def load(self, x: NDArray[np.uint8], y: NDArray[np.int64]) -> None:
        self.images, self.labels = jnp.asarray(x), jnp.asarray(y.astype(np.int32))

    def build(self, work: Work, weights: Weights) -> Training:
        return _Run(self, work, weights)


class OnGpu(Scan):
    """On the default device, the GPU if JAX has one. Products use full float32, as in all contenders."""

    def load(self, x: NDArray[np.uint8], y: NDArray[np.int64]) -> None:
        use_gpu()
        super().load(x, y)


def use_gpu() -> None:
    """Check that there is a GPU, and use the same precision as the other contenders."""
    if not is_dry() and jax.default_backend() != "gpu":
        raise RuntimeError(f"JAX has no GPU here, its default is {jax.default_backend()}")
    jax.config.update("jax_default_matmul_precision", "highest")
