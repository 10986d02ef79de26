"""``nnbackend predict``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from nnbackend.backends.contract import HostArray
from nnbackend.cli.images import read_images
from nnbackend.cli.options import add_backend
from nnbackend.cli.run_folder import class_names, find_model
from nnbackend.cli.text import aligned, percent
from nnbackend.network import Network

__all__ = ["DESCRIPTION", "add_options", "run"]

DESCRIPTION = """\
Print the predicted class of each image.

Pictures must have exactly as many pixels as the model has inputs; colours are
converted to grey. Models trained on MNIST expect white digits on black: for
dark digits on white, add --invert. IDX files may hold any number of images."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("model", metavar="MODEL", help="a model file or the folder of a run")
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="a picture (PNG, JPEG, ...) or an IDX file")
    parser.add_argument("--invert", action="store_true", help="swap black and white first")
    parser.add_argument("--json", action="store_true", help="print JSON with the outputs for all classes")
    add_backend(parser)


def run(options: argparse.Namespace) -> int:
    """Predict the classes and return the exit code."""
    path = find_model(options.model)
    network = Network.load(path, options.backend)
    # Read all files before the first prediction, so that a bad one gives one error and no partial table.
    files = [(name, read_images(name, network.input_shape, options.invert)) for name in options.images]
    entries = [entry for name, rows in files for entry in _entries(network, name, rows, class_names(path, network))]
    if options.json:
        print(json.dumps(entries, indent=1))
    else:
        _print_table(network, entries)
    return 0


def _entries(network: Network, name: str, rows: HostArray, names: Sequence[str]) -> list[dict[str, Any]]:
    # A network that was trained with fractions gets fractions, although files have pixels of 0 to 255.
    given = rows if network.trained_with is None else network.trained_with.in_same_units(rows)
    scores = network.predict(given).reshape(len(rows), -1).astype(float)
    if scores.shape[1] == 1:
        scores = np.hstack([1 - scores, scores])
    return [
        {
            "image": name if len(rows) == 1 else f"{name}[{index}]",
            "class": names[int(row.argmax())],
            "class_index": int(row.argmax()),
            "output": float(row.max()),
            "outputs": [float(value) for value in row],
        }
        for index, row in enumerate(scores)
    ]


def _print_table(network: Network, entries: Sequence[dict[str, Any]]) -> None:
    probabilities = network.loss is not None and network.loss.output_activation != "identity"
    table = [["image", "class", "probability" if probabilities else "output"]]
    for entry in entries:
        value = percent(entry["output"]) if probabilities else f"{entry['output']:.4f}"
        table.append([entry["image"], entry["class"], value])
    print(aligned(table, right=[2]))
