"""``nnbackend export``."""

from __future__ import annotations

import argparse

import numpy as np

from nnbackend.cli.run_folder import find_model
from nnbackend.cli.text import field, network_line
from nnbackend.data.scale import PIXEL_SCALE
from nnbackend.interop.onnx import INPUT_DTYPES, OPSET, export
from nnbackend.network import Network

__all__ = ["DESCRIPTION", "add_options", "run"]

DESCRIPTION = """\
Write a trained model as an ONNX file, which runs without nnbackend, for example
in ONNX Runtime. Its output is that of `nnbackend predict`: probabilities, if
the model was trained with softmax or sigmoid cross-entropy."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("model", metavar="MODEL", help="a model file or the folder of a run")
    parser.add_argument("out", metavar="OUT.onnx", help="the file to write")
    parser.add_argument(
        "--input-dtype",
        metavar="NAME",
        help=f"data type of the input: {', '.join(INPUT_DTYPES)} (default: that of the model). "
        "The exported model scales its inputs as the training did",
    )


def run(options: argparse.Namespace) -> int:
    """Export the model and return the exit code."""
    path = find_model(options.model)
    network = Network.load(path, "numpy")
    export(network, options.out, options.input_dtype)
    dtype = np.dtype(options.input_dtype or network.dtype).name
    print(field("model", f"{path}\n{network_line(network)}"))
    print(field("input", f"{dtype} {_shape(network.input_shape)}{_scale(network, dtype)}"))
    print(field("output", f"{network.dtype.name} {_shape(network.output_shape)}{_meaning(network)}"))
    print(f"\nwritten to {options.out} (ONNX, opset {OPSET})")
    return 0


def _shape(sample: tuple[int, ...]) -> str:
    return f"(batch, {', '.join(map(str, sample))})"


def _scale(network: Network, dtype: str) -> str:
    """How the input values must be scaled."""
    scale = network.scale.of(dtype)
    if scale != 1 or network.input_scale is not None:
        return f", {'divided by 255' if scale == PIXEL_SCALE else f'multiplied by {scale:g}'} in the model"
    return ", scaled as in training\n(images: bytes divided by 255, or use --input-dtype uint8)"


def _meaning(network: Network) -> str:
    return "" if network.loss is None or not network.loss.takes_probabilities else ", probabilities"
