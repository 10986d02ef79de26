"""Configurations for the parts of a network: optimisers, schedules, layers, activations, losses, weights."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import nnbackend as nn

from .common import BACKENDS, CLASSES, FEATURES, backend_of, images, numbers, rich_network, table, train
from .digest import Outcome, configuration

__all__: list[str] = []

_DTYPES = ("float32", "float64")
_PLAIN = BACKENDS[:2]

_OPTIMIZERS: dict[str, Callable[[], nn.Optimizer]] = {
    "sgd": partial(nn.SGD, 0.1),
    "sgd-momentum": partial(nn.SGD, 0.05, momentum=0.9),
    "sgd-nesterov": partial(nn.SGD, 0.05, momentum=0.9, nesterov=True),
    "sgd-weight-decay": partial(nn.SGD, 0.1, weight_decay=0.01),
    "sgd-momentum-weight-decay": partial(nn.SGD, 0.05, momentum=0.8, weight_decay=0.01),
    "adam": partial(nn.Adam, 0.01),
    "adam-weight-decay": partial(nn.Adam, 0.01, 0.8, 0.99, 1e-6, weight_decay=0.01),
    "adamw": partial(nn.AdamW, 0.01),
    "rmsprop": partial(nn.RMSprop, 0.01),
    "rmsprop-weight-decay": partial(nn.RMSprop, 0.01, 0.8, weight_decay=0.01),
}


class _Waves(nn.Schedule):
    """A user-defined schedule with state."""

    def __init__(self) -> None:
        self.seen = 0.0

    def rate(self, epoch: float) -> float:
        return 0.02 + 0.01 * float(np.sin(3 * epoch + self.seen))

    def observe(self, logs: Any) -> None:
        self.seen += logs["loss"]


_SCHEDULES: dict[str, Callable[[], nn.Schedule]] = {
    "step": partial(nn.StepDecay, 0.1, factor=0.3, every=1.5),
    "exponential": partial(nn.ExponentialDecay, 0.1, decay=0.7),
    "cosine": partial(nn.CosineDecay, 0.1, epochs=3, final=0.001),
    "warmup": lambda: nn.Warmup(1.5, nn.CosineDecay(0.1, epochs=2), start=0.05),
    "plateau": partial(nn.ReduceOnPlateau, 0.3, factor=0.5, patience=1, minimum=0.02),
    "warmup-plateau": lambda: nn.Warmup(0.5, nn.ReduceOnPlateau(0.3, patience=1, monitor="accuracy")),
    "own": _Waves,
}

_ACTIVATIONS = ("identity", "relu", "leaky_relu", "elu", "sigmoid", "tanh", "gelu", "silu", "softplus", "softmax")

_INITIALIZERS: dict[str, Any] = {
    **{name: name for name in ("zeros", "normal", "uniform", "he_normal", "he_uniform")},
    **{name: name for name in ("glorot_normal", "glorot_uniform", "lecun_normal", "lecun_uniform")},
    "Normal": nn.Normal(0.5, 0.1),
    "Uniform": nn.Uniform(-0.3, 0.1),
    "given": np.linspace(-1, 1, 12 * 5).reshape(12, 5),
}


def _optimizer(outcome: Outcome, backend: str, make: Callable[[], nn.Optimizer]) -> None:
    x, y = images()
    for dtype in _DTYPES:
        network = rich_network(backend, dtype)
        outcome.run(network, train(network, x, y, optimizer=make()))


def _schedule(outcome: Outcome, backend: str) -> None:
    x, y = table()
    for name, make in _SCHEDULES.items():
        network = rich_network(backend, "float32", seed=len(name))
        options = {"epochs": 4, "optimizer": nn.SGD(make()), "validation_data": (x[:30], y[:30])}
        outcome.run(network, train(network, x, y, **options))


for _backend in _PLAIN:
    for _name, _make in _OPTIMIZERS.items():
        configuration(f"{_backend}/optimizer-{_name}", _backend, _make)(_optimizer)
    configuration(f"{_backend}/schedules", _backend)(_schedule)
for _backend in BACKENDS[2:]:
    configuration(f"{_backend}/optimizer-adam", _backend, _OPTIMIZERS["adam"])(_optimizer)
    configuration(f"{_backend}/optimizer-sgd-nesterov", _backend, _OPTIMIZERS["sgd-nesterov"])(_optimizer)


@configuration("numpy/initializers")
def _initializers(outcome: Outcome) -> None:
    for initializer in _INITIALIZERS.values():
        dense = nn.Dense(5, weight_initializer=initializer, bias_initializer=nn.Uniform(-1, 1))
        for dtype in _DTYPES:
            outcome.network(nn.Network([dense], 12, backend=backend_of("numpy"), seed=7, dtype=dtype))


@configuration("numpy/activations", "numpy")
@configuration("numba/activations", "numba")
@configuration("numba-padded/activations", "numba-padded")
def _activations(outcome: Outcome, backend: str) -> None:
    """Each one in a dense layer and as a separate layer."""
    x, y = table(rows=40)
    for name in _ACTIVATIONS:
        alpha = {"leaky_relu": 0.2, "elu": 0.7}.get(name)
        layers = [nn.Dense(9, activation=None), nn.Activation(name, alpha=alpha), nn.Dense(CLASSES)]
        if name != "softmax":
            layers[1:1] = [nn.Dense(10, activation=name, alpha=alpha)]
        for dtype in _DTYPES:
            network = nn.Network(layers, FEATURES, backend=backend_of(backend), seed=3, dtype=dtype)
            outcome.run(network, train(network, x, y, optimizer=nn.SGD(0.1)))
            outcome.add("outputs", network.predict(x))


@configuration("numpy/layers", "numpy")
@configuration("numba/layers", "numba")
@configuration("numpy-padded/layers", "numpy-padded")
def _layers(outcome: Outcome, backend: str) -> None:
    """Flattened images, dropout of inputs and hidden layers, norms, no biases, penalties on several layers."""
    x, y = images()
    stacks: list[list[nn.Layer]] = [
        [nn.Flatten(), nn.Dense(10, activation="relu", use_bias=False), nn.Dense(CLASSES, use_bias=False)],
        [nn.Flatten(), nn.Dropout(0.1), nn.Dense(17, activation="tanh"), nn.Dropout(0.5), nn.Dense(CLASSES)],
        [nn.Flatten(), nn.MaxAbsNorm(), nn.Dense(8), nn.MaxAbsNorm(), nn.Activation("elu"), nn.Dense(CLASSES)],
        [nn.Flatten(), nn.Dense(6, l1=1e-2, l2=1e-2, activation="silu"), nn.Dense(CLASSES, l2=0.1)],
        [nn.Flatten(), nn.Dense(CLASSES, l1=1e-3)],
    ]
    for layers in stacks:
        for dtype in _DTYPES:
            network = nn.Network(layers, (3, 4), backend=backend_of(backend), seed=11, dtype=dtype)
            outcome.run(network, train(network, x.reshape(-1, 3, 4), y, optimizer=nn.Adam(0.02)))
            outcome.add("outputs", network.penalty())


class _Scale(nn.Layer):
    """A user-defined layer with one learned factor for each feature and its own functions."""

    def parameters(self, input_shape: tuple[int, ...]) -> tuple[nn.Parameter, ...]:
        return (nn.Parameter("scale", input_shape, nn.Normal(1.0, 0.1), l2=0.01),)

    def forward(self, step: nn.LayerStep, x: Any) -> tuple[Any, Any]:
        out = step.buffer(x.shape[1])
        step.call(_multiply, x, step.parameter("scale"), out)
        return out, x

    def backward(self, step: nn.LayerStep, saved: Any, upstream: Any, need_input_gradient: bool) -> Any:
        step.call(_sum_of_products, saved, upstream, step.gradient("scale"))
        if need_input_gradient:
            step.call(_multiply, upstream, step.parameter("scale"), upstream)
        return upstream


def _multiply(backend: nn.Backend, x: Any, scale: Any, out: Any) -> None:
    np.multiply(x, scale, out=out)


def _sum_of_products(backend: nn.Backend, x: Any, upstream: Any, out: Any) -> None:
    np.sum(x * upstream, axis=0, out=out)


@configuration("numpy/own-layer", "numpy")
@configuration("numba/own-layer", "numba")
def _own_layer(outcome: Outcome, backend: str) -> None:
    x, y = table()
    layers = [nn.Dense(9, activation="relu"), _Scale(), nn.Dense(CLASSES)]
    network = nn.Network(layers, FEATURES, backend=backend_of(backend), seed=2)
    outcome.run(network, train(network, x, y, optimizer=nn.Adam(0.02)))


def _losses(x: Any) -> dict[str, tuple[Any, int, dict[str, Any]]]:
    """Targets, outputs and options of `fit` by name."""
    generator = np.random.default_rng(9)
    rows = len(x)
    labels = generator.integers(0, CLASSES, rows)
    shares = generator.dirichlet(np.ones(CLASSES), rows)
    softmax, sigmoid, squared = "softmax_cross_entropy", "sigmoid_cross_entropy", "mean_squared_error"
    return {
        "softmax-labels": (labels, CLASSES, {"loss": softmax}),
        "softmax-probabilities": (shares, CLASSES, {"loss": softmax}),
        "softmax-one-hot": (np.eye(CLASSES)[labels], CLASSES, {"loss": softmax}),
        "sigmoid-labels": (labels, CLASSES, {"loss": sigmoid}),
        "sigmoid-one-output": (labels > 1, 1, {"loss": sigmoid}),
        "sigmoid-probabilities": (shares, CLASSES, {"loss": sigmoid}),
        "squared-numbers": (numbers(rows)[1], 3, {"loss": squared}),
        "squared-one-output": (numbers(rows)[1][:, 0], 1, {"loss": squared}),
        "squared-labels": (labels, CLASSES, {"loss": squared}),
    }


@configuration("numpy/losses", "numpy")
@configuration("numba/losses", "numba")
@configuration("numpy-padded/losses", "numpy-padded")
def _loss(outcome: Outcome, backend: str) -> None:
    """Each with and without sample weights; metrics and predictions."""
    x, _ = numbers()
    weights = np.linspace(0, 3, len(x))
    for y, outputs, options in _losses(x).values():
        for dtype in _DTYPES:
            for sample_weight in (None, weights):
                layers = [nn.Dense(8, activation="tanh"), nn.Dense(outputs)]
                network = nn.Network(layers, FEATURES, backend=backend_of(backend), seed=4, dtype=dtype)
                given = {"optimizer": nn.Adam(0.02), "sample_weight": sample_weight, **options}
                outcome.run(network, train(network, x, y, **given))
                outcome.add("outputs", [network.predict(x), network.predict_classes(x)])
                outcome.add("outputs", network.evaluate(x, y, sample_weight=sample_weight, batch_size=9))


@configuration("numpy/class-weights", "numpy")
@configuration("numba/class-weights", "numba")
def _class_weights(outcome: Outcome, backend: str) -> None:
    x, y = images()
    choices = [{"class_weight": {0: 2.0, 3: 0.5}}, {"class_weight": [1, 0, 2, 3], "sample_weight": np.arange(70.0)}]
    for options in choices:
        network = rich_network(backend)
        outcome.run(network, train(network, x, y, **options))


@configuration("numpy/wide", "numpy", "float32")
@configuration("numpy/wide-float64", "numpy", "float64")
@configuration("numba/wide", "numba", "float32")
@configuration("numba/wide-float64", "numba", "float64")
@configuration("numba-padded/wide", "numba-padded", "float32")
def _wide(outcome: Outcome, backend: str, dtype: str) -> None:
    """Few rows and many columns, so that the Numba backend splits layers by columns."""
    x, y = images(rows=44, features=1000, classes=10)
    layers = [nn.Dense(1000, activation="relu"), nn.Dropout(0.2), nn.Dense(600, activation="tanh"), nn.Dense(10)]
    for batch_size in (8, 20):
        network = nn.Network(layers, 1000, backend=backend_of(backend), seed=6, dtype=dtype)
        history = train(network, x, y, batch_size=batch_size, optimizer=nn.SGD(0.05, momentum=0.9))
        outcome.run(network, history)
        outcome.add("outputs", network.predict(x))


@configuration("numpy/large-batch", "numpy")
@configuration("numba/large-batch", "numba")
def _large_batch(outcome: Outcome, backend: str) -> None:
    """Many rows, which threads share; odd sizes."""
    x, y = images(rows=1501, features=131, classes=10)
    layers = [nn.Dense(203, activation="gelu"), nn.Dense(77, activation="relu"), nn.Dense(10)]
    for dtype in _DTYPES:
        network = nn.Network(layers, 131, backend=backend_of(backend), seed=8, dtype=dtype)
        outcome.run(network, train(network, x, y, batch_size=256, optimizer=nn.Adam(0.002)))
        outcome.add("outputs", network.predict(x))


@configuration("numpy/input-scale", "numpy")
@configuration("numba/input-scale", "numba")
def _input_scale(outcome: Outcome, backend: str) -> None:
    """Inputs of several types, with and without scaling."""
    x, y = images()
    for scale in (None, 0.01):
        for kind in (np.uint8, np.int64, np.float32, np.float64):
            network = nn.Network([nn.Dense(CLASSES)], FEATURES, backend=backend_of(backend), input_scale=scale)
            outcome.run(network, train(network, x.astype(kind), y, optimizer=nn.SGD(0.001)))
            outcome.add("outputs", network.evaluate(x.astype(kind), y))


@configuration("numpy/flat-bytes", "numpy")
@configuration("numba/flat-bytes", "numba")
def _flat_bytes(outcome: Outcome, backend: str) -> None:
    """uint8 that is not known to be pixels."""
    x, y = images()
    network = nn.Network([nn.Dense(CLASSES)], FEATURES, backend=backend_of(backend))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        outcome.run(network, train(network, np.asarray(x), y, optimizer=nn.SGD(0.001)))
    outcome.add("outputs", network.evaluate(np.asarray(x), y))
