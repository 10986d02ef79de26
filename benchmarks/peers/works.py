"""The networks to train, the number of steps, and their arithmetic."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

__all__ = ["IMAGES", "NETS", "ROWS", "SWEEP", "Layer", "Work", "quick", "steps_for"]

#: The shape of MNIST.
SIDE = 28
PIXELS = SIDE * SIDE
CLASSES = 10
ROWS = 60_000

_FLOAT_BYTES = 4
#: State entries of an optimizer per parameter.
_SLOTS = {"sgd": 0, "adam": 2}

#: A timed run is about this much arithmetic, a tenth of a second at the peak of two cores...
_RUN_FLOPS = 40e9
#: ... within these limits of the number of steps.
_FEWEST_STEPS, _MOST_STEPS = 5, 1000


@dataclass(frozen=True)
class Layer:
    """A layer with its shapes.

    Attributes
    ----------
    kind : {"dense", "convolution", "depthwise", "pool"}
        A depthwise convolution has one kernel for each channel. A pool takes the maximum.
    inputs, outputs : tuple of int
        Shape of a sample, channels last. It is (features,) for a dense layer.
    size : int
        Height and width of a kernel or window; 0 for a dense layer.
    """

    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    size: int = 0

    @property
    def weight(self) -> tuple[int, ...]:
        """Shape of the weight, outputs last; () without one."""
        channels = {"dense": self.inputs[-1], "convolution": self.inputs[-1], "depthwise": 1}.get(self.kind)
        if channels is None:
            return ()
        window = () if self.kind == "dense" else (self.size, self.size)
        return (*window, channels, self.outputs[-1])

    @property
    def multiplications(self) -> int:
        """Multiplications of the forward pass for a sample."""
        return math.prod(self.outputs[:-1]) * math.prod(self.weight) if self.weight else 0


@dataclass(frozen=True)
class Work:
    """A network and its training settings: softmax cross-entropy, mean over the batch, float32.

    Attributes
    ----------
    name : str
    hidden : tuple of int or str
        The hidden layers: units of a dense layer; "20c5", a convolution with 20 kernels of 5 x 5; "d3", a depthwise
        convolution of 3 x 3; "p2", the maximum of windows of 2 x 2.
    activation : {"relu", "sigmoid"}
        Activation of the hidden layers, pools excepted.
    batch_size : int
    optimizer : {"sgd", "adam"}
        Adam with decays 0.9 and 0.999 and epsilon 1e-8.
    learning_rate : float
    steps : int
        Steps of a timed run.
    rows : int
        Images of an epoch.
    padding : {"valid", "same"}
        Padding of the convolutions.
    """

    name: str
    hidden: tuple[int | str, ...]
    activation: str
    batch_size: int
    optimizer: str
    learning_rate: float
    steps: int = 0
    rows: int = ROWS
    padding: str = "valid"

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of a sample: rows of pixels, or images if there is a layer for them."""
        return (SIDE, SIDE, 1) if any(isinstance(code, str) for code in self.hidden) else (PIXELS,)

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """All layers, the last one included."""
        shape, layers = self.input_shape, []
        for code in (*self.hidden, CLASSES):
            layers.append(_layer(code, shape, self.padding))
            shape = layers[-1].outputs
        return tuple(layers)

    @property
    def weights(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of all weights."""
        return tuple(layer.weight for layer in self.layers if layer.weight)

    @property
    def epoch_steps(self) -> int:
        """Full batches of an epoch; all contenders skip a shorter last one."""
        return self.rows // self.batch_size

    @property
    def epoch_share(self) -> float:
        """The share of an epoch in a timed run."""
        return self.steps * self.batch_size / self.rows

    @property
    def flops(self) -> int:
        """Multiplications and additions of one step's matrix products.

        A layer has three products: forward, for the gradient of its weights, and for the gradient of its inputs, which
        the first layer does not need.
        """
        macs = [layer.multiplications for layer in self.layers]
        return 2 * self.batch_size * (3 * sum(macs) - macs[0])

    @property
    def bytes(self) -> int:
        """The minimum number of bytes that a step moves to and from memory if no cache keeps data between steps.

        The pixels of the batch, one byte each, are read once. The weights are read for the forward pass and for the
        gradients of the inputs, which the first layer does not need. The update reads and writes the parameters and
        the optimizer state, which has two entries per parameter for Adam. Data that a cache can hold within a step are
        not counted: activations, their gradients, and the gradients of the weights, which an update can use at once.
        """
        sizes = [math.prod(shape) for shape in self.weights]
        parameters = sum(sizes) + sum(shape[-1] for shape in self.weights)
        read = sum(sizes) + sum(sizes[1:])
        updated = 2 * parameters * (1 + _SLOTS[self.optimizer])
        return self.batch_size * PIXELS + _FLOAT_BYTES * (read + updated)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Work:
        """Create a work from plain JSON."""
        return cls(**{**values, "hidden": tuple(values["hidden"])})


def _layer(code: int | str, shape: tuple[int, ...], padding: str) -> Layer:
    if isinstance(code, int):
        return Layer("dense", (math.prod(shape),), (code,))
    channels, letter, size = re.fullmatch(r"(\d*)([cdp])(\d+)", code).groups()
    *extent, inputs = shape
    if letter == "p":
        return Layer("pool", shape, (*(length // int(size) for length in extent), inputs), int(size))
    if padding == "valid":
        extent = [length - int(size) + 1 for length in extent]
    if letter == "d":
        return Layer("depthwise", shape, (*extent, inputs), int(size))
    return Layer("convolution", shape, (*extent, int(channels)), int(size))


def steps_for(work: Work) -> int:
    """The number of steps of a timed run, so that slow contenders also finish in seconds."""
    wanted = max(_FEWEST_STEPS, min(round(_RUN_FLOPS / work.flops), _MOST_STEPS))
    return min(wanted, work.epoch_steps)


def quick(work: Work) -> Work:
    """A small version, to test that everything runs."""
    small = replace(work, rows=min(work.rows, max(2_000, 3 * work.batch_size)))
    return replace(small, steps=min(3, small.epoch_steps))


def _work(
    name: str,
    hidden: tuple[int | str, ...],
    activation: str,
    batch: int,
    optimizer: str,
    rate: float,
    padding: str = "valid",
) -> Work:
    work = Work(name, hidden, activation, batch, optimizer, rate, padding=padding)
    return replace(work, steps=steps_for(work))


def _swept(hidden: tuple[int, ...], batch: int) -> Work:
    name = "-".join(str(size) for size in (PIXELS, *hidden, CLASSES))
    # A rate at which single images do not diverge: computing with NaN would not be the same work.
    return _work(f"{name} batch {batch}", hidden, "relu", batch, "sgd", 0.01)


#: The networks of the package's presets.
NETS = (
    _work("784-40-10", (40,), "sigmoid", 100, "sgd", 0.1),
    _work("784-200-80-10", (200, 80), "relu", 256, "sgd", 0.1),
    _work("784-500-1000-300-10", (500, 1000, 300), "relu", 100, "adam", 1e-3),
)

#: One network with increasing batch sizes, then one batch size with increasing widths.
SWEEP = (
    *(_swept((200, 80), batch) for batch in (1, 16, 32, 128, 1024, 8192)),
    *(_swept((width, width), 128) for width in (32, 64, 128, 256, 512, 1024, 2048)),
)

_LENET = ("20c5", "p2", "40c5", "p2", 100)
_VGG = ("32c3", "32c3", "p2", "64c3", "64c3", "p2", 128)
_SEPARABLE = ("32c3", "d3", "64c1", "p2", "d3", "64c1", "p2", 128)

#: Convolutional networks: LeNet at several batch sizes, one with small kernels, one with depthwise and 1 x 1 kernels.
IMAGES = (
    _work("LeNet", _LENET, "relu", 100, "sgd", 0.01),
    _work("VGG-like", _VGG, "relu", 64, "adam", 1e-4, "same"),
    _work("separable", _SEPARABLE, "relu", 100, "sgd", 0.005, "same"),
    *(_work(f"LeNet batch {batch}", _LENET, "relu", batch, "sgd", 0.01) for batch in (1, 16, 1000)),
)
