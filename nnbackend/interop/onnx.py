"""Networks as ONNX files, for runtimes that know nothing of nnbackend (extra ``onnx``)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from nnbackend.backends.contract import HostArray
from nnbackend.data.inputs import input_scale_of
from nnbackend.errors import InvalidInputError, UnknownNameError
from nnbackend.layers import LAYERS
from nnbackend.network import Network
from nnbackend.saving.model_file import check_finite
from nnbackend.support.extras import install_command
from nnbackend.support.files import atomic_write

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["INPUT_DTYPES", "OPSET", "export"]

#: Of December 2020 (ONNX 1.8): runtimes of many years read it. The first in which Softmax is taken over one axis.
OPSET = 13
_IR_VERSION = 7

#: What the rows of an exported model may be given in.
INPUT_DTYPES = ("uint8", "float32", "float64")

#: Protocol buffers end at 2 GiB; the rest is for the description of nodes and names.
_LARGEST = 2**31 - 2**20


def export(network: Network, path: str | os.PathLike[str], input_dtype: Any = None) -> None:
    """Write a network as an ONNX file, which gives what `network.predict` gives; a crash never leaves half of one.

    The model has one input, "input" of shape ``(batch, *input_shape)``, and one output, "output" of shape
    ``(batch, *output_shape)`` in the network's dtype, with any number of rows. The output is probabilities if the
    network was trained with softmax or sigmoid cross-entropy.

    Parameters
    ----------
    network : Network
    path : str or path-like
        Ends in ".onnx". The folder is made if it is missing.
    input_dtype : str or dtype, optional
        What the input is given in: "uint8", "float32" or "float64"; the network's dtype if not given. As with `predict`
        it decides about the scale: bytes (images) are divided by 255, other numbers are taken as they are, and a
        network with an `input_scale` uses that for both.

    Raises
    ------
    InvalidInputError
        A layer is from outside nnbackend, or the network is too large for an ONNX file.
    ModelFileError
        A weight is NaN or infinite; nothing was written.
    ImportError
        The package onnx is missing.
    OSError
        As the operating system gave it; an existing file is as it was.
    """
    if not os.fspath(path).lower().endswith(".onnx"):
        raise InvalidInputError(f"ONNX files are given names that end in .onnx, received {os.fspath(path)!r}")
    given = network.dtype if input_dtype is None else _input_dtype(input_dtype)
    for index, layer in enumerate(network.layers):
        if type(layer) not in LAYERS.values():
            known = ", ".join(kind.__name__ for kind in LAYERS.values())
            raise InvalidInputError(
                f"layers[{index}] is {layer!r}, a layer from outside nnbackend, of which ONNX knows nothing; "
                f"only {known} can be exported"
            )
    if network.parameter_count * network.dtype.itemsize > _LARGEST:
        raise InvalidInputError(
            f"an ONNX file holds 2 GiB at most, and {network.parameter_count:,} numbers of {network.dtype} are more"
        )
    weights = network.get_weights()
    check_finite(path, weights)
    model = _make_model(network, weights, given)
    with atomic_write(path) as stream:
        stream.write(model.SerializeToString())


def _input_dtype(name: Any) -> np.dtype[Any]:
    try:
        given: np.dtype[Any] = np.dtype(np.dtype(name).name)  # By name: ONNX knows nothing of byte orders.
    except TypeError:
        raise UnknownNameError("input_dtype", name, INPUT_DTYPES) from None
    if given.name not in INPUT_DTYPES:
        raise UnknownNameError("input_dtype", given.name, INPUT_DTYPES)
    return given


def _make_model(network: Network, weights: dict[str, HostArray], given: np.dtype[Any]) -> ModelProto:
    try:
        from onnx import checker, helper
    except ImportError as error:
        raise ImportError(f"ONNX files need the package onnx: {install_command('onnx')}") from error
    from nnbackend import __version__
    from nnbackend.interop.onnx_graph import Graph, add_activation, add_layer

    graph = Graph(network.dtype)
    computed = helper.np_dtype_to_tensor_dtype(network.dtype)
    graph.scope = "input"
    x = "input"
    if given != network.dtype:
        x = graph.add("Cast", x, to=computed)
    if len(network.input_shape) > 1:
        x = graph.add("Flatten", x, axis=1)
    scale = input_scale_of(given, network.input_scale)
    if scale != 1:
        x = graph.add("Mul", x, graph.number(scale))
    for index, layer in enumerate(network.layers):
        graph.scope = f"layers.{index}"
        parameters = {name: array for name, array in weights.items() if name.startswith(f"{graph.scope}.")}
        x = add_layer(graph, layer, parameters, x)
    graph.scope = "output"
    if network.loss is not None:
        x = add_activation(graph, network.loss.output_activation, 0.0, x)
    if len(network.output_shape) > 1:
        shape = graph.array("output.shape", np.array([0, *network.output_shape], np.int64))  # 0: as many rows as came
        x = graph.add("Reshape", x, shape)
    graph.finish(x, "output")

    received = helper.np_dtype_to_tensor_dtype(given)
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "nnbackend",
            [helper.make_tensor_value_info("input", received, ["batch", *network.input_shape])],
            [helper.make_tensor_value_info("output", computed, ["batch", *network.output_shape])],
            list(graph.constants.values()),
        ),
        producer_name="nnbackend",
        producer_version=__version__,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=_IR_VERSION,
    )
    checker.check_model(model, full_check=True)
    return model
