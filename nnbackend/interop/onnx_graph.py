"""The ONNX graph of an export, and activations. Imported only for exports, because it needs the package onnx.

If ONNX Runtime has no float64 kernel for an operator, the function is composed of operators that have one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from nnbackend.backends.activations import SELU_ALPHA, SELU_SCALE
from nnbackend.backends.contract import HostArray

__all__ = ["Graph", "Samples", "add_activation"]


@dataclass(frozen=True)
class Samples:
    """A value of the graph: a batch of samples.

    Attributes
    ----------
    name : str
    shape : tuple of int
        Of one sample, channels last, as in the network.
    channels : {"last", "first"}
        Where the value has its channels: ONNX's operators for images need them first. The same for flat samples.
    """

    name: str
    shape: tuple[int, ...]
    channels: Literal["last", "first"] = "last"

    @property
    def axis(self) -> int:
        """The axis of the channels, counting the rows of the batch."""
        return 1 if self.channels == "first" else len(self.shape)

    def computed(self, name: str, shape: tuple[int, ...] | None = None) -> Samples:
        """A value computed from this one, with its order of axes."""
        return Samples(name, self.shape if shape is None else shape, self.channels)


class Graph:
    """The nodes of a graph, in the order in which they were added, and their constants.

    ONNX identifies values by name, so the functions that add nodes take and return names.

    Parameters
    ----------
    dtype : numpy.dtype
        The dtype of the computation.
    """

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.dtype = dtype
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, TensorProto] = {}
        #: Prefix of the names of nodes: the layer they belong to.
        self.scope = ""
        #: Prefix of the names of constants, if several networks are in the graph.
        self.network = ""
        self._arranged: dict[tuple[str, str], str] = {}

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add a node and return the name of its output."""
        name = f"{self.network}{self.scope}.{operator.lower()}.{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], name, **attributes))
        return name

    def array(self, name: str, values: HostArray) -> str:
        """Add a constant array."""
        name = f"{self.network}{name}"
        self.constants[name] = numpy_helper.from_array(values, name)
        return name

    def number(self, value: float) -> str:
        """Add a constant of the graph's dtype; equal constants are shared."""
        return self.array(f"constant.{value!r}", np.array(value, self.dtype))

    def per_channel(self, name: str, values: HostArray, x: Samples) -> str:
        """Add a constant with one number per channel, to be combined with these samples."""
        after = len(x.shape) - x.axis
        return self.array(name, values.reshape(-1, *[1] * after))

    def arranged(self, x: Samples, channels: Literal["last", "first"]) -> Samples:
        """The samples with their channels there, transposed once at most."""
        axes = range(1, len(x.shape) + 1)
        if x.channels == channels or len(axes) == 1:
            return Samples(x.name, x.shape, channels)
        key = x.name, channels
        if key not in self._arranged:
            order = [0, axes[-1], *axes[:-1]] if channels == "first" else [0, *axes[1:], axes[0]]
            self._arranged[key] = self.add("Transpose", x.name, perm=order)
        return Samples(self._arranged[key], x.shape, channels)

    def reshaped(self, name: str, shape: Sequence[int]) -> str:
        """Reshape each sample of a value."""
        target = self.array(f"shape.{'x'.join(map(str, shape))}", np.array([0, *shape], np.int64))  # 0: the rows
        return self.add("Reshape", name, target)

    def finish(self, value: str, output: str) -> None:
        """Make `value` the graph's output, with the name `output`."""
        if not self.nodes or self.nodes[-1].output[0] != value:
            self.add("Identity", value)
        self.nodes[-1].output[0] = output


def add_activation(graph: Graph, activation: str, alpha: float, z: Samples) -> Samples:
    """Add an activation of the contract, :data:`nnbackend.backends.activations.ACTIVATIONS`; softmax is over the
    channels."""
    if activation == "softmax":
        return z.computed(graph.add("Softmax", z.name, axis=z.axis))
    return z.computed(_ACTIVATIONS[activation](graph, z.name, alpha))


def _leaky_relu(graph: Graph, z: str, alpha: float) -> str:
    if graph.dtype == np.float32:
        return graph.add("LeakyRelu", z, alpha=alpha)
    below = graph.add("Mul", graph.add("Min", z, graph.number(0.0)), graph.number(alpha))
    return graph.add("Add", graph.add("Relu", z), below)


def _elu(graph: Graph, z: str, alpha: float) -> str:
    if graph.dtype == np.float32:
        return graph.add("Elu", z, alpha=alpha)
    exponential = graph.add("Exp", graph.add("Min", z, graph.number(0.0)))
    below = graph.add("Mul", graph.add("Sub", exponential, graph.number(1.0)), graph.number(alpha))
    return graph.add("Add", graph.add("Relu", z), below)


def _selu(graph: Graph, z: str, alpha: float) -> str:
    if graph.dtype == np.float32:
        return graph.add("Selu", z, alpha=SELU_ALPHA, gamma=SELU_SCALE)
    return graph.add("Mul", _elu(graph, z, SELU_ALPHA), graph.number(SELU_SCALE))


def _mish(graph: Graph, z: str, alpha: float) -> str:
    # The operator Mish needs opset 18, which older runtimes do not support. With n = exp(z) (exp(z) + 2), which might
    # overflow beyond 20, tanh(log(1 + exp(z))) is n / (n + 2).
    e = graph.add("Exp", graph.add("Min", z, graph.number(20.0)))
    n = graph.add("Mul", e, graph.add("Add", e, graph.number(2.0)))
    return graph.add("Mul", z, graph.add("Div", n, graph.add("Add", n, graph.number(2.0))))


def _gelu(graph: Graph, z: str, alpha: float) -> str:
    # The operator Gelu needs opset 20, which older runtimes do not support.
    square = graph.add("Mul", graph.add("Mul", z, z), graph.number(0.044715))
    inner = graph.add("Mul", z, graph.add("Add", square, graph.number(1.0)))
    tanh = graph.add("Tanh", graph.add("Mul", inner, graph.number(math.sqrt(2 / math.pi))))
    return graph.add("Mul", graph.add("Mul", z, graph.number(0.5)), graph.add("Add", tanh, graph.number(1.0)))


def _silu(graph: Graph, z: str, alpha: float) -> str:
    if graph.dtype == np.float32:
        return graph.add("Mul", z, graph.add("Sigmoid", z))
    # ONNX Runtime 1.19 would fuse the product above into its own operator, which supports only float32.
    exponential = graph.add("Exp", graph.add("Neg", z))
    return graph.add("Div", z, graph.add("Add", exponential, graph.number(1.0)))


def _softplus(graph: Graph, z: str, alpha: float) -> str:
    if graph.dtype == np.float32:
        return graph.add("Softplus", z)
    # max(z, 0) + log(1 + exp(-|z|)), which cannot overflow.
    exponential = graph.add("Exp", graph.add("Neg", graph.add("Abs", z)))
    logarithm = graph.add("Log", graph.add("Add", exponential, graph.number(1.0)))
    return graph.add("Add", graph.add("Relu", z), logarithm)


_ACTIVATIONS: dict[str, Callable[[Graph, str, float], str]] = {
    "identity": lambda graph, z, alpha: z,
    "relu": lambda graph, z, alpha: graph.add("Relu", z),
    "leaky_relu": _leaky_relu,
    "elu": _elu,
    "selu": _selu,
    "sigmoid": lambda graph, z, alpha: graph.add("Sigmoid", z),
    "tanh": lambda graph, z, alpha: graph.add("Tanh", z),
    "gelu": _gelu,
    "silu": _silu,
    "mish": _mish,
    "softplus": _softplus,
    "exponential": lambda graph, z, alpha: graph.add("Exp", z),
}
