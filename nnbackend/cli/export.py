"""``nnbackend export``."""

from __future__ import annotations

import argparse

import numpy as np

from nnbackend.cli.run_folder import find_model
from nnbackend.cli.text import field, network_line
from nnbackend.interop.onnx import INPUT_DTYPES, OPSET, export
from nnbackend.network import Network

__all__ = ["DESCRIPTION", "add_options", "run"]

DESCRIPTION = """\
Write a trained model as an ONNX file, which runs without nnbackend, for example
in ONNX Runtime. It gives what `nnbackend predict` gives: probabilities, if the
model was trained with softmax or sigmoid cross-entropy."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("model", metavar="MODEL", help="a model file, or the folder of a run")
    parser.add_argument("out", metavar="OUT.onnx", help="the file to write")
    parser.add_argument(
        "--input-dtype",
        metavar="NAME",
        help=f"{', '.join(INPUT_DTYPES)}: what the input is given in (default: what the model computes in). "
        "uint8 is for images, whose bytes the file then divides by 255 itself",
    )


def run(options: argparse.Namespace) -> int:
    """Export as the options say; the exit code."""
    path = find_model(options.model)
    network = Network.load(path, "numpy")
    export(network, options.out, options.input_dtype)
    given = np.dtype(options.input_dtype or network.dtype).name
    print(field("model", f"{path}\n{network_line(network)}"))
    print(field("input", f"{given} {_shape(network.input_shape)}{_scale(network, given)}"))
    print(field("output", f"{network.dtype.name} {_shape(network.output_shape)}{_meaning(network)}"))
    print(f"\nwritten to {options.out} (ONNX, opset {OPSET})")
    return 0


def _shape(sample: tuple[int, ...]) -> str:
    return f"(batch, {', '.join(map(str, sample))})"


def _scale(network: Network, given: str) -> str:
    """What the numbers are to be."""
    if network.input_scale is not None:
        return f", which it multiplies by {network.input_scale:g}"
    if given == "uint8":
        return ", which it divides by 255"
    return ", in the scale of the training\n(images: bytes divided by 255, or see --input-dtype uint8)"


def _meaning(network: Network) -> str:
    return "" if network.loss is None or network.loss.output_activation == "identity" else ", probabilities"
