"""Export networks as ONNX files, which run without nnbackend (extra ``onnx``)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nnbackend.backends.contract import HostArray
from nnbackend.errors import InvalidInputError
from nnbackend.interop.exports import INPUT_DTYPES, check_built_in, input_dtype_of
from nnbackend.network import Network
from nnbackend.saving.model_file import check_finite
from nnbackend.support.extras import install_command
from nnbackend.support.files import atomic_write, path_text

if TYPE_CHECKING:
    from onnx import ModelProto

    from nnbackend.interop.onnx_graph import Graph

__all__ = ["INPUT_DTYPES", "OPSET", "export"]

#: From December 2020 (ONNX 1.8), so that old runtimes can read it; the first opset whose Softmax is over one axis.
OPSET = 13
_IR_VERSION = 7

#: Most bytes of weights: protocol buffers are limited to 2 GiB, including nodes and names.
_LARGEST = 2**31 - 2**20


def export(network: Network | Sequence[Network], path: str | os.PathLike[str], input_dtype: Any = None) -> None:
    """Write a network as an ONNX file that computes the results of `network.predict`.

    The model has one input, "input" of shape ``(batch, *input_shape)``, and one output, "output" of shape
    ``(batch, *output_shape)`` in the network's dtype, for any number of rows. The output contains probabilities if the
    network was trained with softmax or sigmoid cross-entropy. The file is written completely or not at all.

    Parameters
    ----------
    network : Network, or sequence of Network
        Several networks take the same samples and have the same outputs; the model computes the mean of their
        predictions.
    path : str or path-like
        Ends in ".onnx". The folder is created if it is missing.
    input_dtype : str or dtype, optional
        The dtype of the input: "uint8", "float32" or "float64". Default: the network's dtype. The model multiplies
        inputs of any dtype by the network's `input_scale`, as `predict` does.

    Raises
    ------
    InvalidInputError
        A layer is user-defined, the network is too large for an ONNX file, or several have different dtypes.
    ModelFileError
        A weight is NaN or infinite; nothing was written.
    ImportError
        The package onnx is not installed.
    OSError
        The file cannot be written; an existing file is unchanged.
    """
    networks = [network] if isinstance(network, Network) else list(network)
    path = path_text("path", path)
    if not path.lower().endswith(".onnx"):
        raise InvalidInputError(f"the name of an ONNX file must end in .onnx, received {path!r}")
    own = networks[0].dtype
    if others := {network.dtype.name for network in networks} - {own.name}:
        raise InvalidInputError(f"the networks of one ONNX file must have one dtype, received {own} and {others.pop()}")
    dtype = input_dtype_of(input_dtype, networks)
    for each in networks:
        check_built_in(each, "has no ONNX operators")
    count = sum(network.model.layout.count for network in networks)
    if count * own.itemsize > _LARGEST:
        raise InvalidInputError(f"an ONNX file may have at most 2 GiB, and {count:,} {own} parameters are more")
    weights = [network.get_weights() for network in networks]
    for arrays in weights:
        check_finite(path, arrays)
    model = _make_model(networks, weights, dtype)
    with atomic_write(path) as stream:
        stream.write(model.SerializeToString())


def _make_model(
    networks: Sequence[Network], weights: Sequence[dict[str, HostArray]], input_dtype: np.dtype[Any]
) -> ModelProto:
    try:
        from onnx import checker, helper
    except ImportError as error:
        raise ImportError(f"ONNX files need the package onnx: {install_command('onnx')}") from error
    from nnbackend.interop.onnx_graph import Graph
    from nnbackend.support import VERSION

    network = networks[0]
    graph = Graph(network.dtype)
    computed = helper.np_dtype_to_tensor_dtype(network.dtype)
    outputs = []
    for place, (each, own) in enumerate(zip(networks, weights, strict=True)):
        graph.network = f"members.{place}." if len(networks) > 1 else ""
        outputs.append(_add_network(graph, each, own, input_dtype, computed))
    output, graph.network = outputs[0], ""
    if len(networks) > 1:
        output = graph.add("Mul", graph.add("Sum", *outputs), graph.number(1 / len(networks)))
    graph.finish(output, "output")

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


def _add_network(
    graph: Graph, network: Network, weights: dict[str, HostArray], input_dtype: np.dtype[Any], computed: int
) -> str:
    """Add a network, from the graph's input to its predictions, whose name is returned."""
    from nnbackend.interop.onnx_graph import Samples, add_activation
    from nnbackend.interop.onnx_layers import add_layers

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
    if network.loss is None:
        return samples.name
    # The loss sees all outputs of a sample as one row.
    flat = Samples(graph.add("Flatten", samples.name, axis=1), (1,)) if len(samples.shape) > 1 else samples
    made = add_activation(graph, network.loss.output_activation, 0.0, flat)
    return graph.reshaped(made.name, samples.shape) if flat is not samples else made.name
