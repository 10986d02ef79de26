"""Layers as blocks of an exported C function, in inference mode."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from nnbackend.backends.activations import SELU_ALPHA, SELU_SCALE
from nnbackend.backends.contract import HostArray
from nnbackend.interop.c_program import Program, Value, loop
from nnbackend.interop.c_tables import embedding_lines, periodic_lines
from nnbackend.interop.exports import folded_weights, own_arrays, places
from nnbackend.layers import (
    Activation,
    AveragePool2D,
    BatchNormalization,
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
from nnbackend.layers.stack import written
from nnbackend.layers.windows import Window

__all__ = ["add_activation", "add_copy", "add_layers"]


def add_layers(program: Program, nodes: Sequence[LayerNode], weights: Mapping[str, HostArray], x: Value) -> Value:
    """Add built-in layers in order; returns the output of the last.

    Batch normalisation directly after a dense layer or a convolution without activation becomes part of its weights.

    Parameters
    ----------
    program : Program
    nodes : sequence of LayerNode
    weights : dict of arrays
        The network's parameters and state by name, such as "layers.0.weight".
    x : Value
        The input of the first layer.
    """
    remaining = list(reversed(nodes))
    while remaining:
        node = remaining.pop()
        own = own_arrays(node, weights)
        folded = folded_weights(node, own, remaining[-1], weights) if remaining else None
        comment = _comment(node)
        if folded is not None:
            comment += f", with {_comment(remaining.pop())}"
        x = _add_layer(program, node, comment, own if folded is None else folded, weights, x)
    return x


def _comment(node: LayerNode) -> str:
    return f"{written(node.name)}: {type(node.layer).__name__} {node.input_shape} -> {node.output_shape}"


def _add_layer(
    program: Program,
    node: LayerNode,
    comment: str,
    own: dict[str, HostArray],
    weights: Mapping[str, HostArray],
    x: Value,
) -> Value:
    """Add one layer with these arrays of its own; `weights` are for the layers that it contains."""
    match node.layer:
        case Dense() as layer:
            lines = _dense_lines(program, node, own, x) + _own_activation(program, layer, 1, layer.units)
            return program.add(comment, [x], layer.units, lines, own)
        case Conv2D() as layer:
            positions = math.prod(node.output_shape[:-1])
            rows = positions if layer.activation == "softmax" else 1
            lines = _convolution_lines(program, node, layer, own, x)
            lines += _own_activation(program, layer, rows, positions * layer.filters // rows)
            return program.add(comment, [x], positions * layer.filters, lines, own)
        case Activation() as layer:
            return add_activation(program, comment, layer.activation, layer.alpha, x)
        case MaxPool2D() | AveragePool2D() | L2Pool2D() | GlobalAveragePool2D() | GlobalMaxPool2D():
            return program.add(comment, [x], math.prod(node.output_shape), _pool_lines(program, node, x))
        case BatchNormalization() as layer:
            return _add_batch_normalization(program, node, own, layer.epsilon, comment, x)
        case Normalization():
            return _add_batch_normalization(program, node, _statistics_of(own), 0.0, comment, x)
        case LayerNormalization() as layer:
            lines = _layer_normalization_lines(program, node, layer, own, x)
            return program.add(comment, [x], x.size, lines, own, elementwise=True)
        case Scale():
            channels = node.input_shape[-1]
            scaled = f"y[i] = {program.read(x, 'i')} * scale[i % {channels}];"
            return program.add(comment, [x], x.size, loop("i", x.size, [scaled]), own, elementwise=True)
        case ParametricActivation() as layer:
            body = [
                f"const {program.real} v = {program.read(x, 'i')};",
                f"const {program.real} a = {_formula(program, layer.activation, layer.alpha)};",
                f"y[i] = v + share[i % {node.input_shape[-1]}] * (a - v);",
            ]
            return program.add(comment, [x], x.size, loop("i", x.size, body), own, elementwise=True)
        case Embedding():
            return program.add(comment, [x], node.output_shape[0], embedding_lines(program, node, own, x), own)
        case PeriodicEmbedding():
            return program.add(comment, [x], node.output_shape[0], periodic_lines(program, node, own, x), own)
        case Residual() as layer:
            count = len(layer.layers)
            result = add_layers(program, node.nodes[:count], weights, x)
            shortcut = add_layers(program, node.nodes[count:], weights, x)
            added = f"y[i] = {program.read(result, 'i')} + {program.read(shortcut, 'i', 'z')};"
            return program.add(comment, [result, shortcut], result.size, loop("i", result.size, [added]), None, True)
        case ZeroPadding2D() as layer:
            return program.add(comment, [x], math.prod(node.output_shape), _padding_lines(program, node, layer, x))
        case MaxAbsNorm():
            return program.add(comment, [x], x.size, _max_abs_lines(program, x), elementwise=True)
        case Flatten() | Reshape() | Dropout():
            return x
        case _:
            raise AssertionError(f"{node.layer!r} has no C code")  # A test exports every built-in layer.


def add_copy(program: Program, x: Value) -> Value:
    """Copy a value, for a network that computes nothing."""
    return program.add("the inputs", [x], x.size, loop("i", x.size, [f"y[i] = {program.read(x, 'i')};"]))


# ---- activations -----------------------------------------------------------------------------------------------------


def add_activation(program: Program, comment: str, activation: str, alpha: float, x: Value) -> Value:
    """Add an activation of a flat sample as a block of its own."""
    if activation == "identity":
        return x
    lines = _activation_lines(program, activation, alpha, 1, x.size, program.read(x, "i"))
    return program.add(comment, [x], x.size, lines, elementwise=True)


def _own_activation(program: Program, layer: Dense | Conv2D, rows: int, columns: int) -> list[str]:
    """The activation of a layer, applied to its result in place."""
    if layer.activation == "identity":
        return []
    return _activation_lines(program, layer.activation, layer.alpha, rows, columns, "y[i]")


def _activation_lines(
    program: Program, activation: str, alpha: float, rows: int, columns: int, element: str
) -> list[str]:
    """``y[i] = activation(element)``; softmax is over each of `rows` rows."""
    if activation != "softmax":
        formula = _formula(program, activation, alpha)
        return loop("i", rows * columns, [f"const {program.real} v = {element};", f"y[i] = {formula};"])
    real, zero = program.real, program.number(0)
    row = "" if rows == 1 else f"r * {columns} + "
    at = [f"const long i = {row}j;", f"const {real} v = {element};"]
    body = [
        f"{real} largest = -INFINITY, sum = {zero};",
        *loop("j", columns, [*at, "if (v > largest) largest = v;"]),
        *loop("j", columns, [*at, f"y[i] = {program.function('exp')}(v - largest);", "sum += y[i];"]),
        *loop("j", columns, [f"y[{row}j] /= sum;"]),
    ]
    return ["{", *(f"    {line}" for line in body), "}"] if rows == 1 else loop("r", rows, body)


def _formula(program: Program, activation: str, alpha: float) -> str:
    """The activation of the number v. NaN propagates."""
    number, function = program.number, program.function
    zero, one, half, slope = number(0), number(1), number(0.5), number(alpha)
    match activation:
        case "relu":
            return f"v < {zero} ? {zero} : v"
        case "leaky_relu":
            return f"v > {zero} ? v : {slope} * v"
        case "elu":
            return f"v > {zero} ? v : {slope} * {function('expm1')}(v)"
        case "selu":
            above, below = number(SELU_SCALE), number(SELU_SCALE * SELU_ALPHA)
            return f"v > {zero} ? {above} * v : {below} * {function('expm1')}(v)"
        case "sigmoid":
            return f"{one} / ({one} + {function('exp')}(-v))"
        case "tanh":
            return f"{function('tanh')}(v)"
        case "gelu":
            inner = f"{number(math.sqrt(2 / math.pi))} * v * ({one} + {number(0.044715)} * v * v)"
            return f"{half} * v * ({one} + {function('tanh')}({inner}))"
        case "silu":
            return f"v / ({one} + {function('exp')}(-v))"
        case "mish":
            e = f"{function('exp')}(v > {number(20)} ? {number(20)} : v)"
            # With n = exp(v) (exp(v) + 2), which would overflow beyond 20, tanh(log(1 + exp(v))) is n / (n + 2), or
            # 1 / (1 + 2 / n), which names n only once and does not cancel.
            return f"v / (1 + {number(2)} / ({e} * ({e} + {number(2)})))"
        case "exponential":
            return f"{function('exp')}(v)"
        case "softplus":
            above = f"(v < {zero} ? {zero} : v)"
            return f"{above} + {function('log1p')}({function('exp')}(-{function('fabs')}(v)))"
        case _:
            raise AssertionError(f"no such activation: {activation}")


# ---- products --------------------------------------------------------------------------------------------------------


def _start(program: Program, own: Mapping[str, HostArray], place: str) -> str:
    """Sums start from the bias."""
    return f"y[{place}] = {'bias[o]' if 'bias' in own else program.number(0)};"


def _dense_lines(program: Program, node: LayerNode, own: Mapping[str, HostArray], x: Value) -> list[str]:
    inputs, outputs = own["weight"].shape
    return [
        *loop("o", outputs, [_start(program, own, "o")]),
        *loop("i", inputs, [
            f"const {program.real} v = {program.read(x, 'i')};",
            *loop("o", outputs, [f"y[o] += v * weight[i * {outputs} + o];"]),
        ]),
    ]  # fmt: skip


def _convolution_lines(
    program: Program, node: LayerNode, layer: Conv2D, own: Mapping[str, HostArray], x: Value
) -> list[str]:
    filters, groups, channels = layer.filters, layer.groups, own["weight"].shape[2]
    width, each = layer.window.size[1], layer.filters // layer.groups
    image = places(node, layer.window)
    columns = image.width
    pixel = f"(row * {image.image[1]} + column) * {image.image[2]}"
    group, offset = ("", "") if groups == 1 else (f" + g * {channels}", f"g * {each} + ")
    product = loop("c", channels, [
        f"const {program.real} v = {program.read(x, f'{pixel}{group} + c')};",
        *loop("o", each, [
            f"y[to + {offset}o] += v * weight[((i * {width} + j) * {channels} + c) * {filters} + {offset}o];"
        ]),
    ])  # fmt: skip
    body = [
        f"const long to = (p * {columns} + q) * {filters};",
        *loop("o", filters, [_start(program, own, "to + o")]),
        *_window_lines(node, layer.window, product if groups == 1 else loop("g", groups, product)),
    ]
    return loop("p", image.height, loop("q", columns, body))


def _window_lines(node: LayerNode, window: Window, body: Sequence[str]) -> list[str]:
    """The elements of the window at (p, q) that lie within the image."""
    place = places(node, window)
    height, width, _ = place.image
    row = f"const long row = p * {window.strides[0]} - {place.top} + i * {window.dilation[0]};"
    column = f"const long column = q * {window.strides[1]} - {place.left} + j * {window.dilation[1]};"
    padded_rows, padded_columns = place.top or place.bottom, place.left or place.right
    return loop("i", window.size[0], [
        row,
        *([f"if (row < 0 || row >= {height}) continue;"] if padded_rows else []),
        *loop("j", window.size[1], [
            column,
            *([f"if (column < 0 || column >= {width}) continue;"] if padded_columns else []),
            *body,
        ]),
    ])  # fmt: skip


# ---- pools and shapes ------------------------------------------------------------------------------------------------


def _pool_lines(program: Program, node: LayerNode, x: Value) -> list[str]:
    layer, real, zero = node.layer, program.real, program.number(0)
    channels = node.input_shape[2]
    if isinstance(layer, GlobalAveragePool2D | GlobalMaxPool2D):
        window = Window((node.input_shape[0], node.input_shape[1]), (1, 1), (1, 1), "valid")
    else:
        assert isinstance(layer, MaxPool2D | AveragePool2D | L2Pool2D)
        window = layer.window
    place = places(node, window)
    element = program.read(x, f"(row * {place.image[1]} + column) * {channels} + c")
    to = f"y[(p * {place.width} + q) * {channels} + c]"
    read = f"const {real} v = {element};"
    if isinstance(layer, MaxPool2D | GlobalMaxPool2D):
        start, step = [f"{real} pooled = -INFINITY;"], [read, "if (v > pooled || v != v) pooled = v;"]
        end = f"{to} = pooled;"
    elif isinstance(layer, L2Pool2D):
        start, step = [f"{real} pooled = {zero};"], [read, "pooled += v * v;"]
        end = f"{to} = {program.function('sqrt')}(pooled);"
    else:
        start, step = [f"{real} pooled = {zero};", "long inside = 0;"], [read, "pooled += v;", "inside++;"]
        end = f"{to} = pooled / ({real})inside;"
    body = [*start, *_window_lines(node, window, step), end]
    return loop("p", place.height, loop("q", place.width, loop("c", channels, body)))


def _padding_lines(program: Program, node: LayerNode, layer: ZeroPadding2D, x: Value) -> list[str]:
    height, width, channels = node.input_shape
    columns, size = node.output_shape[1], math.prod(node.output_shape)
    (top, _), (left, _) = layer.padding
    to = f"y[((p + {top}) * {columns} + {left}) * {channels} + i]"
    copied = f"{to} = {program.read(x, f'p * {width * channels} + i')};"
    zeros = loop("i", size, [f"y[i] = {program.number(0)};"])
    return zeros + loop("p", height, loop("i", width * channels, [copied]))


# ---- normalisation ---------------------------------------------------------------------------------------------------


def _add_batch_normalization(
    program: Program, node: LayerNode, own: Mapping[str, HostArray], epsilon: float, comment: str, x: Value
) -> Value:
    """``(x - mean) * inverse * scale + shift`` in the order of the contract, so that large factors overflow alike."""
    channels = node.input_shape[-1]
    with np.errstate(all="ignore"):
        inverse = (1 / np.sqrt(own["running_variance"] + np.float64(epsilon))).astype(program.dtype)
    constants = {"mean": own["running_mean"], "inverse": inverse}
    formula = f"({program.read(x, f'p * {channels} + c')} - mean[c]) * inverse[c]"
    for name, sign in (("scale", "*"), ("shift", "+")):
        if name in own:
            constants[name] = own[name]
            formula = f"{formula} {sign} {name}[c]"
    lines = loop("p", x.size // channels, loop("c", channels, [f"y[p * {channels} + c] = {formula};"]))
    return program.add(comment, [x], x.size, lines, constants, elementwise=True)


def _statistics_of(own: Mapping[str, HostArray]) -> dict[str, HostArray]:
    """The arrays of a `Normalization` under the names of a `BatchNormalization`."""
    return {"running_mean": own["mean"], "running_variance": own["variance"]}


def _layer_normalization_lines(
    program: Program, node: LayerNode, layer: LayerNormalization, own: Mapping[str, HostArray], x: Value
) -> list[str]:
    real, zero, channels = program.real, program.number(0), node.input_shape[-1]
    element = program.read(x, f"p * {channels} + c")
    count = program.number(channels)
    formula = "v * inverse"
    for name, sign in (("scale", "*"), ("shift", "+")):
        if name in own:
            formula = f"{formula} {sign} {name}[c]"
    centred = f"const {real} v = {element} - mean;"
    body = [
        f"{real} mean = {zero}, rest = {zero}, squares = {zero};",
        *loop("c", channels, [f"mean += {element};"]),
        f"mean /= {count};",
        # The mean of the differences is the rounding error of the first mean.
        *loop("c", channels, [f"rest += {element} - mean;"]),
        f"mean += rest / {count};",
        *loop("c", channels, [centred, "squares += v * v;"]),
        f"const {real} inverse = {program.number(1)} / "
        f"{program.function('sqrt')}(squares / {count} + {program.number(layer.epsilon)});",
        *loop("c", channels, [centred, f"y[p * {channels} + c] = {formula};"]),
    ]
    return loop("p", x.size // channels, body)


def _max_abs_lines(program: Program, x: Value) -> list[str]:
    real, zero, size = program.real, program.number(0), x.size
    return [
        f"{real} largest = {zero};",
        *loop("i", size, [
            f"const {real} v = {program.function('fabs')}({program.read(x, 'i')});",
            "if (v > largest || v != v) largest = v;",
        ]),
        f"if (largest == {zero}) largest = {program.number(1)};",
        *loop("i", size, [f"y[i] = {program.read(x, 'i')} / largest;"]),
    ]  # fmt: skip
