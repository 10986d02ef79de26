"""``nnbackend export``."""

from __future__ import annotations

import argparse

import numpy as np

from nnbackend.cli.models import first_network, load_model, single_network
from nnbackend.cli.run_folder import find_model
from nnbackend.cli.text import field, model_line
from nnbackend.data.scale import PIXEL_SCALE
from nnbackend.errors import InvalidInputError
from nnbackend.interop.c import function_name
from nnbackend.interop.exports import INPUT_DTYPES
from nnbackend.interop.onnx import OPSET
from nnbackend.network import Network

__all__ = ["DESCRIPTION", "add_options", "run"]

DESCRIPTION = """\
Write a trained model for programs without nnbackend: as an ONNX file, for
example for ONNX Runtime, or as a C header (C99), for example for a
microcontroller. The end of the file's name decides. The output is that of
`nnbackend predict`: probabilities, if the model was trained with softmax or
sigmoid cross-entropy."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("model", metavar="MODEL", help="a model file or the folder of a run")
    parser.add_argument("out", metavar="OUT", help="the file to write: a name that ends in .onnx or .h")
    parser.add_argument(
        "--input-dtype",
        metavar="NAME",
        help=f"data type of the input: {', '.join(INPUT_DTYPES)} (default: that of the model). "
        "The exported model scales its inputs as the training did",
    )


def run(options: argparse.Namespace) -> int:
    """Export the model and return the exit code."""
    path = find_model(options.model)
    out = options.out.lower()
    if not out.endswith((".onnx", ".h")):
        raise InvalidInputError(f"the name of the file must end in .onnx or .h, received {options.out!r}")
    model = load_model(path, "numpy")
    network = first_network(model)
    batch: tuple[object, ...]
    if out.endswith(".h"):
        single_network(model, path, "a C header has one").to_c(options.out, options.input_dtype)
        kind, batch = f"C99: {function_name(options.out)}", ()
    else:
        model.to_onnx(options.out, options.input_dtype)
        kind, batch = f"ONNX, opset {OPSET}", ("batch",)
    dtype = np.dtype(options.input_dtype or network.dtype).name
    print(field("model", f"{path}\n{model_line(model)}"))
    print(field("input", f"{dtype} {_shape(*batch, *network.input_shape)}{_scale(network, dtype)}"))
    print(field("output", f"{network.dtype.name} {_shape(*batch, *network.output_shape)}{_meaning(network)}"))
    print(f"\nwritten to {options.out} ({kind})")
    return 0


def _shape(*sizes: object) -> str:
    return f"({', '.join(map(str, sizes))})"


def _scale(network: Network, dtype: str) -> str:
    """How the input values must be scaled."""
    scale = network.scale.of(dtype)
    if scale != 1 or network.input_scale is not None:
        return f", {'divided by 255' if scale == PIXEL_SCALE else f'multiplied by {scale:g}'} in the model"
    return ", scaled as in training\n(images: bytes divided by 255, or use --input-dtype uint8)"


def _meaning(network: Network) -> str:
    return "" if network.loss is None or not network.loss.takes_probabilities else ", probabilities"
