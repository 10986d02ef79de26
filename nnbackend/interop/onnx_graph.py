"""Layers and activations as nodes of an ONNX graph. Imported only for exports, because it needs the package onnx.

If ONNX Runtime has no float64 kernel for an operator, the function is composed of operators that have one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from nnbackend.backends.contract import HostArray
from nnbackend.layers import Activation, Dense, Layer, MaxAbsNorm

__all__ = ["Graph", "add_activation", "add_layer"]


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

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add a node and return the name of its output."""
        name = f"{self.scope}.{operator.lower()}.{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], name, **attributes))
        return name

    def array(self, name: str, values: HostArray) -> str:
        """Add a constant array."""
        self.constants[name] = numpy_helper.from_array(values, name)
        return name

    def number(self, value: float) -> str:
        """Add a constant of the graph's dtype; equal constants are shared."""
        return self.array(f"constant.{value!r}", np.array(value, self.dtype))

    def finish(self, value: str, output: str) -> None:
        """Make `value` the graph's output, with the name `output`."""
        if not self.nodes or self.nodes[-1].output[0] != value:
            self.add("Identity", value)
        self.nodes[-1].output[0] = output


def add_layer(graph: Graph, layer: Layer, parameters: dict[str, HostArray], x: str) -> str:
    """Add a built-in layer in inference mode.

    Parameters
    ----------
    graph : Graph
    layer : Layer
    parameters : dict of arrays
        The layer's parameters by name, such as "layers.0.weight".
    x : str
        The layer's input, (rows, features).

    Returns
    -------
    str : the layer's output, (rows, features)
    """
    match layer:
        case Dense():
            z = graph.add("Gemm", x, *(graph.array(name, values) for name, values in parameters.items()))
            return add_activation(graph, layer.activation, layer.alpha, z)
        case Activation():
            return add_activation(graph, layer.activation, layer.alpha, x)
        case MaxAbsNorm():
            largest = graph.add("ReduceMax", graph.add("Abs", x), axes=[1], keepdims=1)
            # Divide a row of zeros by 1.
            is_zero = graph.add("Equal", largest, graph.number(0.0))
            as_number = graph.add("Cast", is_zero, to=helper.np_dtype_to_tensor_dtype(graph.dtype))
            return graph.add("Div", x, graph.add("Add", largest, as_number))
        case _:  # Flatten, because rows are already flat, and Dropout.
            return x


def add_activation(graph: Graph, activation: str, alpha: float, z: str) -> str:
    """Add an activation of the contract, :data:`nnbackend.backends.activations.ACTIVATIONS`."""
    return _ACTIVATIONS[activation](graph, z, alpha)


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
    "sigmoid": lambda graph, z, alpha: graph.add("Sigmoid", z),
    "tanh": lambda graph, z, alpha: graph.add("Tanh", z),
    "gelu": _gelu,
    "silu": _silu,
    "softplus": _softplus,
    "softmax": lambda graph, z, alpha: graph.add("Softmax", z, axis=1),
}
