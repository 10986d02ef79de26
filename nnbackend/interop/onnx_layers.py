"""Layers as nodes of an ONNX graph, in inference mode. Imported only for exports, because it needs the package onnx.

ONNX's operators for images need channels first, so samples are transposed before the first of them and after the last.
ONNX Runtime has them for float32 only: in float64, the elements of all windows are gathered, with channels last.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from onnx import helper

from nnbackend.backends.contract import HostArray
from nnbackend.interop.exports import folded_weights, own_arrays, places
from nnbackend.interop.onnx_graph import Graph, Samples, add_activation
from nnbackend.interop.onnx_tables import add_table_layer
from nnbackend.layers import (
    Activation,
    AveragePool2D,
    BatchNormalization,
    Conv1D,
    Conv2D,
    Dense,
    Dropout,
    Embedding,
    Flatten,
    GlobalAveragePool2D,
    GlobalMaxPool2D,
    L2Pool2D,
    LayerNode,
    LayerNormalization,
    MaxAbsNorm,
    MaxPool2D,
    Normalization,
    ParametricActivation,
    PeriodicEmbedding,
    Reshape,
    Residual,
    Scale,
    ZeroPadding2D,
)
from nnbackend.layers.windows import Window

__all__ = ["add_layers"]


def add_layers(graph: Graph, nodes: Sequence[LayerNode], weights: Mapping[str, HostArray], x: Samples) -> Samples:
    """Add built-in layers in order.

    Batch normalisation directly after a dense layer or a convolution without activation becomes part of its weights.

    Parameters
    ----------
    graph : Graph
    nodes : sequence of LayerNode
    weights : dict of arrays
        The network's parameters and state by name, such as "layers.0.weight".
    x : Samples
        The input of the first layer.

    Returns
    -------
    Samples : the output of the last layer
    """
    remaining = list(reversed(nodes))
    while remaining:
        node = remaining.pop()
        own = own_arrays(node, weights)
        folded = folded_weights(node, own, remaining[-1], weights) if remaining else None
        if folded is not None:
            remaining.pop()
        x = _add_layer(graph, node, own if folded is None else folded, weights, x)
    return x


def _add_layer(
    graph: Graph, node: LayerNode, own: Mapping[str, HostArray], weights: Mapping[str, HostArray], x: Samples
) -> Samples:
    """Add one layer with these arrays of its own; `weights` are for the layers that it contains."""
    graph.scope = node.name
    match node.layer:
        case Dense() as layer:
            constants = (graph.array(f"{node.name}.{name}", values) for name, values in own.items())
            z = Samples(graph.add("Gemm", x.name, *constants), node.output_shape)
            return add_activation(graph, layer.activation, layer.alpha, z)
        case Activation() as layer:
            return add_activation(graph, layer.activation, layer.alpha, x)
        case Conv2D() as layer:
            z = _convolution(graph, node, layer, own, x)
            return add_activation(graph, layer.activation, layer.alpha, z)
        case MaxPool2D() | AveragePool2D() | L2Pool2D():
            return _pool(graph, node, x)
        case GlobalAveragePool2D() | GlobalMaxPool2D():
            operator = "ReduceMean" if isinstance(node.layer, GlobalAveragePool2D) else "ReduceMax"
            axes = [2, 3] if x.channels == "first" else [1, 2]
            return Samples(graph.add(operator, x.name, axes=axes, keepdims=0), node.output_shape)
        case BatchNormalization() as layer:
            return _batch_normalization(graph, node, layer, own, x)
        case Normalization():
            centred = graph.add("Sub", x.name, graph.per_channel(f"{node.name}.mean", own["mean"], x))
            deviation = graph.per_channel(f"{node.name}.deviation", np.sqrt(own["variance"]), x)
            return x.computed(graph.add("Div", centred, deviation))
        case LayerNormalization() as layer:
            return _layer_normalization(graph, node, layer, own, x)
        case Scale():
            factors = graph.per_channel(f"{node.name}.scale", own["scale"], x)
            return x.computed(graph.add("Mul", x.name, factors))
        case ParametricActivation() | Embedding() | PeriodicEmbedding():
            return add_table_layer(graph, node, own, x)
        case Residual():
            return _residual(graph, node, weights, x)
        case Flatten() | Reshape():
            x = graph.arranged(x, "last")
            if x.shape == node.output_shape:
                return x
            if len(node.output_shape) == 1:
                return Samples(graph.add("Flatten", x.name, axis=1), node.output_shape)
            return Samples(graph.reshaped(x.name, node.output_shape), node.output_shape)
        case ZeroPadding2D() as layer:
            (top, bottom), (left, right) = layer.padding
            before, after = (top, left), (bottom, right)
            pads = [0, 0, *before, 0, 0, *after] if x.channels == "first" else [0, *before, 0, 0, *after, 0]
            amounts = graph.array(f"{node.name}.pads", np.array(pads, np.int64))
            return x.computed(graph.add("Pad", x.name, amounts, graph.number(0.0)), node.output_shape)
        case MaxAbsNorm():
            largest = graph.add("ReduceMax", graph.add("Abs", x.name), axes=[1], keepdims=1)
            # Divide a row of zeros by 1.
            is_zero = graph.add("Equal", largest, graph.number(0.0))
            as_number = graph.add("Cast", is_zero, to=helper.np_dtype_to_tensor_dtype(graph.dtype))
            return x.computed(graph.add("Div", x.name, graph.add("Add", largest, as_number)))
        case Dropout():
            return x
        case _:
            raise AssertionError(f"{node.layer!r} has no ONNX operators")  # A test exports every built-in layer.


def _residual(graph: Graph, node: LayerNode, weights: Mapping[str, HostArray], x: Samples) -> Samples:
    assert isinstance(node.layer, Residual)
    count = len(node.layer.layers)
    result, shortcut = x, x
    result = add_layers(graph, node.nodes[:count], weights, result)
    shortcut = add_layers(graph, node.nodes[count:], weights, shortcut)
    graph.scope = node.name
    shortcut = graph.arranged(shortcut, result.channels)
    return result.computed(graph.add("Add", result.name, shortcut.name))


# ---- convolutions and pools ------------------------------------------------------------------------------------------


def _pads(node: LayerNode, window: Window) -> list[int]:
    """The padding as ONNX writes it: at the start of each axis, then at the ends."""
    place = places(node, window)
    return [place.top, place.left, place.bottom, place.right]


def _convolution(graph: Graph, node: LayerNode, layer: Conv2D, own: Mapping[str, HostArray], x: Samples) -> Samples:
    if graph.dtype != np.float32:
        return _gathered_convolution(graph, node, layer, own, x)
    x = graph.arranged(x, "first")
    window = layer.window
    weight: HostArray = own["weight"].transpose(3, 2, 0, 1)
    pads = _pads(node, window)
    sides = [1] if isinstance(layer, Conv1D) else [0, 1]
    if isinstance(layer, Conv1D):
        weight = weight[:, :, 0]
    constants = [graph.array(f"{node.name}.weight", np.ascontiguousarray(weight))]
    if "bias" in own:
        constants.append(graph.array(f"{node.name}.bias", own["bias"]))
    z = graph.add(
        "Conv", x.name, *constants, group=layer.groups,
        kernel_shape=[window.size[side] for side in sides], strides=[window.strides[side] for side in sides],
        dilations=[window.dilation[side] for side in sides],
        pads=[pads[side] for side in sides] + [pads[2 + side] for side in sides],
    )  # fmt: skip
    return x.computed(z, node.output_shape)


def _gathered_convolution(
    graph: Graph, node: LayerNode, layer: Conv2D, own: Mapping[str, HostArray], x: Samples
) -> Samples:
    """A product of (rows, [groups,] positions, elements of a window) with (elements, filters)."""
    windows, (positions, elements, channels) = _windows(graph, node, layer.window, 0.0, x)
    groups, filters = layer.groups, layer.filters
    each = elements * channels // groups
    weight: HostArray = own["weight"].reshape(each, filters)
    if groups == 1:
        windows = graph.reshaped(windows, (positions, each))
    else:
        windows = graph.reshaped(windows, (positions, elements, groups, channels // groups))
        windows = graph.add("Transpose", windows, perm=[0, 3, 1, 2, 4])
        windows = graph.reshaped(windows, (groups, positions, each))
        weight = weight.reshape(each, groups, filters // groups).transpose(1, 0, 2)
    z = graph.add("MatMul", windows, graph.array(f"{node.name}.weight", np.ascontiguousarray(weight)))
    if groups > 1:
        z = graph.reshaped(graph.add("Transpose", z, perm=[0, 2, 1, 3]), (positions, filters))
    if "bias" in own:
        z = graph.add("Add", z, graph.array(f"{node.name}.bias", own["bias"]))
    return Samples(graph.reshaped(z, node.output_shape), node.output_shape)


def _pool(graph: Graph, node: LayerNode, x: Samples) -> Samples:
    layer = node.layer
    assert isinstance(layer, MaxPool2D | AveragePool2D | L2Pool2D)
    if graph.dtype != np.float32:
        return _gathered_pool(graph, node, layer, x)
    x = graph.arranged(x, "first")
    operator, attributes = "MaxPool", {}
    if isinstance(layer, AveragePool2D):
        operator, attributes = "AveragePool", {"count_include_pad": 0}
    elif isinstance(layer, L2Pool2D):
        operator, attributes = "LpPool", {"p": 2}
    pooled = graph.add(
        operator, x.name, kernel_shape=layer.window.size, strides=layer.window.strides,
        pads=_pads(node, layer.window), **attributes,
    )  # fmt: skip
    return x.computed(pooled, node.output_shape)


def _gathered_pool(graph: Graph, node: LayerNode, layer: MaxPool2D | AveragePool2D | L2Pool2D, x: Samples) -> Samples:
    fill = -math.inf if isinstance(layer, MaxPool2D) else 0.0
    windows, _ = _windows(graph, node, layer.window, fill, x)
    if isinstance(layer, MaxPool2D):
        pooled = graph.add("ReduceMax", windows, axes=[2], keepdims=0)
    else:
        if isinstance(layer, L2Pool2D):
            windows = graph.add("Mul", windows, windows)
        axis = graph.array("axis.2", np.array([2], np.int64))
        pooled = graph.add("ReduceSum", windows, axis, keepdims=0)
        if isinstance(layer, L2Pool2D):
            pooled = graph.add("Sqrt", pooled)
        else:
            inside = (_elements(node, layer.window) >= 0).sum(axis=1, keepdims=True)
            counts = graph.array(f"{node.name}.counts", inside.astype(graph.dtype))
            pooled = graph.add("Div", pooled, counts)
    return Samples(graph.reshaped(pooled, node.output_shape), node.output_shape)


def _elements(node: LayerNode, window: Window) -> HostArray:
    """The pixel of each element of each window, (positions, elements); -1 in the padding."""
    place = places(node, window)
    (height, width, _), rows, columns = place.image, place.height, place.width
    y = np.arange(rows)[:, None] * window.strides[0] - place.top + np.arange(window.size[0]) * window.dilation[0]
    x = np.arange(columns)[:, None] * window.strides[1] - place.left + np.arange(window.size[1]) * window.dilation[1]
    y, x = y[:, None, :, None], x[None, :, None, :]
    pixels = np.where((y >= 0) & (y < height) & (x >= 0) & (x < width), y * width + x, -1)
    return pixels.reshape(rows * columns, -1).astype(np.int64)


def _windows(
    graph: Graph, node: LayerNode, window: Window, fill: float, x: Samples
) -> tuple[str, tuple[int, int, int]]:
    """The elements of all windows, and their shape without rows: (positions, elements, channels)."""
    height, width, channels = places(node, window).image
    pixels = graph.reshaped(graph.arranged(x, "last").name, (height * width, channels))
    elements: HostArray = _elements(node, window)
    if elements.min() < 0:
        # One more pixel, which stands for the padding.
        pads = graph.array("pads.pixel", np.array([0, 0, 0, 0, 1, 0], np.int64))
        pixels = graph.add("Pad", pixels, pads, graph.number(fill))
        elements = np.where(elements < 0, height * width, elements)
    chosen = graph.array(f"{node.name}.elements", elements)
    return graph.add("Gather", pixels, chosen, axis=1), (elements.shape[0], elements.shape[1], channels)


# ---- normalisation ---------------------------------------------------------------------------------------------------


def _batch_normalization(
    graph: Graph, node: LayerNode, layer: BatchNormalization, own: Mapping[str, HostArray], x: Samples
) -> Samples:
    channels = node.input_shape[-1]
    scale = own.get("scale", np.ones(channels, graph.dtype))
    shift = own.get("shift", np.zeros(channels, graph.dtype))
    mean, variance = own["running_mean"], own["running_variance"]
    if graph.dtype == np.float32:
        # Runtimes fold this operator into the convolution before it.
        x = graph.arranged(x, "first")
        named = {"scale": scale, "shift": shift, "running_mean": mean, "running_variance": variance}
        constants = [graph.array(f"{node.name}.{name}", values) for name, values in named.items()]
        return x.computed(graph.add("BatchNormalization", x.name, *constants, epsilon=layer.epsilon))
    # The operator's epsilon is a float32.
    factor = scale / np.sqrt(variance + layer.epsilon)
    centred = graph.add("Sub", x.name, graph.per_channel(f"{node.name}.running_mean", mean, x))
    scaled = graph.add("Mul", centred, graph.per_channel(f"{node.name}.factor", factor, x))
    return x.computed(graph.add("Add", scaled, graph.per_channel(f"{node.name}.shift", shift, x)))


def _layer_normalization(
    graph: Graph, node: LayerNode, layer: LayerNormalization, own: Mapping[str, HostArray], x: Samples
) -> Samples:
    # The operator LayerNormalization needs opset 17, which older runtimes do not support.
    mean = graph.add("ReduceMean", x.name, axes=[x.axis], keepdims=1)
    centred = graph.add("Sub", x.name, mean)
    variance = graph.add("ReduceMean", graph.add("Mul", centred, centred), axes=[x.axis], keepdims=1)
    deviation = graph.add("Sqrt", graph.add("Add", variance, graph.number(layer.epsilon)))
    result = graph.add("Div", centred, deviation)
    for operator, name in (("Mul", "scale"), ("Add", "shift")):
        if name in own:
            result = graph.add(operator, result, graph.per_channel(f"{node.name}.{name}", own[name], x))
    return x.computed(result)
