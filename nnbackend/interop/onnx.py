"""Export networks as ONNX files, which run without nnbackend (extra ``onnx``)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from nnbackend.backends.contract import HostArray
from nnbackend.errors import InvalidInputError, UnknownNameError
from nnbackend.layers import LAYERS
from nnbackend.layers.stack import written
from nnbackend.network import Network
from nnbackend.saving.model_file import check_finite
from nnbackend.support.extras import install_command
from nnbackend.support.files import atomic_write, path_text

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["INPUT_DTYPES", "OPSET", "export"]

#: From December 2020 (ONNX 1.8), so that old runtimes can read it; the first opset whose Softmax is over one axis.
OPSET = 13
_IR_VERSION = 7

#: Possible dtypes of the input of an exported model.
INPUT_DTYPES = ("uint8", "float32", "float64")

#: Most bytes of weights: protocol buffers are limited to 2 GiB, including nodes and names.
_LARGEST = 2**31 - 2**20


def export(network: Network, path: str | os.PathLike[str], input_dtype: Any = None) -> None:
    """Write a network as an ONNX file that computes the results of `network.predict`.

    The model has one input, "input" of shape ``(batch, *input_shape)``, and one output, "output" of shape
    ``(batch, *output_shape)`` in the network's dtype, for any number of rows. The output contains probabilities if the
    network was trained with softmax or sigmoid cross-entropy. The file is written completely or not at all.

    Parameters
    ----------
    network : Network
    path : str or path-like
        Ends in ".onnx". The folder is created if it is missing.
    input_dtype : str or dtype, optional
        The dtype of the input: "uint8", "float32" or "float64". Default: the network's dtype. The model multiplies
        inputs of any dtype by the network's `input_scale`, as `predict` does.

    Raises
    ------
    InvalidInputError
        A layer is user-defined, or the network is too large for an ONNX file.
    ModelFileError
        A weight is NaN or infinite; nothing was written.
    ImportError
        The package onnx is not installed.
    OSError
        The file cannot be written; an existing file is unchanged.
    """
    path = path_text("path", path)
    if not path.lower().endswith(".onnx"):
        raise InvalidInputError(f"the name of an ONNX file must end in .onnx, received {path!r}")
    dtype = network.dtype if input_dtype is None else _input_dtype(input_dtype)
    for node in (inner for outer in network.model.layout.nodes for inner in outer.walk()):
        if type(node.layer) not in LAYERS.values():
            known = ", ".join(kind.__name__ for kind in LAYERS.values())
            raise InvalidInputError(
                f"{written(node.name)} is {node.layer!r}, a user-defined layer, which has no ONNX operators; "
                f"only {known} can be exported"
            )
    count = network.model.layout.count
    if count * network.dtype.itemsize > _LARGEST:
        raise InvalidInputError(
            f"an ONNX file may have at most 2 GiB, and {count:,} {network.dtype} parameters are more"
        )
    weights = network.get_weights()
    check_finite(path, weights)
    model = _make_model(network, weights, dtype)
    with atomic_write(path) as stream:
        stream.write(model.SerializeToString())


def _input_dtype(name: Any) -> np.dtype[Any]:
    try:
        dtype: np.dtype[Any] = np.dtype(np.dtype(name).name)  # By name, because ONNX has no byte orders.
    except TypeError:
        raise UnknownNameError("input_dtype", name, INPUT_DTYPES) from None
    if dtype.name not in INPUT_DTYPES:
        raise UnknownNameError("input_dtype", dtype.name, INPUT_DTYPES)
    return dtype


def _make_model(network: Network, weights: dict[str, HostArray], input_dtype: np.dtype[Any]) -> ModelProto:
    try:
        from onnx import checker, helper
    except ImportError as error:
        raise ImportError(f"ONNX files need the package onnx: {install_command('onnx')}") from error
    from nnbackend.interop.onnx_graph import Graph, Samples, add_activation
    from nnbackend.interop.onnx_layers import add_layers
    from nnbackend.support import VERSION

    graph = Graph(network.dtype)
    computed = helper.np_dtype_to_tensor_dtype(network.dtype)
    graph.scope = "input"
    x = "input"
    if input_dtype != network.dtype:
        x = graph.add("Cast", x, to=computed)
    scale = network.scale.of(input_dtype)
    if scale != 1:
        x = graph.add("Mul", x, graph.number(scale))
    samples = Samples(x, network.input_shape)
    samples = add_layers(graph, network.model.layout.nodes, weights, samples)
    graph.scope = "output"
    samples = graph.arranged(samples, "last")
    if network.loss is not None:
        samples = add_activation(graph, network.loss.output_activation, 0.0, samples)
    graph.finish(samples.name, "output")

    received = helper.np_dtype_to_tensor_dtype(input_dtype)
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "nnbackend",
            [helper.make_tensor_value_info("input", received, ["batch", *network.input_shape])],
            [helper.make_tensor_value_info("output", computed, ["batch", *network.output_shape])],
            list(graph.constants.values()),
        ),
        producer_name="nnbackend",
        producer_version=VERSION,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=_IR_VERSION,
    )
    checker.check_model(model, full_check=True)
    return model
