"""``nnbackend predict``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from nnbackend.backends.contract import HostArray
from nnbackend.cli.images import read_images
from nnbackend.cli.models import Model, first_network, load_model
from nnbackend.cli.options import add_backend, add_encoding
from nnbackend.cli.run_folder import class_names, dataset_name, find_model
from nnbackend.cli.table_predict import is_table_model, predict_table
from nnbackend.cli.text import aligned, error_text, percent, printable
from nnbackend.errors import InvalidInputError, NNBackendError

__all__ = ["DESCRIPTION", "add_options", "run"]

DESCRIPTION = """\
Print the predicted class of each image, or what a model for tables predicts for
each row of a CSV, Parquet or NPZ file.

Pictures may have any size, and colours are converted to grey. A picture that
does not have the size of the model's images is scaled; for digits, it is
cropped, scaled and centred like the digits of MNIST. Models expect light
objects on a dark background, so a picture with a light background is inverted,
with a note. IDX files hold any number of images of the model's size, and are
not changed.

A file that cannot be read is reported, and the others are predicted. Exit
codes: 1 if some files could not be read, 2 after another error or if none
could be read."""

#: Exit code if some of the files could not be read.
_INCOMPLETE = 1
_FAILED = 2


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("model", metavar="MODEL", help="a model file or the folder of a run")
    parser.add_argument(
        "files",
        metavar="FILE",
        nargs="+",
        help="a picture (PNG, JPEG, ...) or an IDX file; for a model for tables, a table",
    )
    parser.add_argument(
        "--invert",
        action=argparse.BooleanOptionalAction,
        help="swap black and white, or not (default: in pictures with a light background)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON with the outputs for all classes")
    parser.add_argument("--out", metavar="FILE", help="write the predictions of a table to this CSV file")
    add_encoding(parser)
    add_backend(parser)


def run(options: argparse.Namespace) -> int:
    """Predict the classes and return the exit code."""
    path = find_model(options.model)
    if is_table_model(path):
        return predict_table(options, path)
    for name in ("out", "encoding"):
        if getattr(options, name) is not None:
            raise InvalidInputError(f"--{name} is for models for tables; leave it out, --json prints all outputs")
    model = load_model(path, options.backend)
    network = first_network(model)
    if network.trained_with is not None and network.trained_with.numbers_predicted:
        raise InvalidInputError(
            f"{path} predicts numbers, and not the classes of images; use it in Python: nnbackend.Network.load(...)"
        )
    names = class_names(path, network)
    digits = dataset_name(path) != "fashion-mnist"
    entries: list[dict[str, Any]] = []
    failed = 0
    for name in options.files:
        try:
            rows = read_images(name, network.input_shape, options.invert, digits, _note, network.trained_with)
        except NNBackendError as error:
            failed += 1
            print(f"nnbackend: error: {error_text(error)}", file=sys.stderr)
            continue
        entries += _entries(model, name, rows, names)
    if failed == len(options.files):
        return _FAILED
    if options.json:
        print(json.dumps(entries, indent=1))
    else:
        _print_table(model, entries)
    return _INCOMPLETE if failed else 0


def _note(text: str) -> None:
    print(f"nnbackend: note: {printable(text)}", file=sys.stderr)


def _entries(model: Model, name: str, rows: HostArray, names: Sequence[str]) -> list[dict[str, Any]]:
    # A network that was trained with fractions gets fractions, although files have pixels of 0 to 255.
    trained_with = first_network(model).trained_with
    given = rows if trained_with is None else trained_with.in_same_units(rows)
    scores = model.predict(given).reshape(len(rows), -1).astype(float)
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


def _print_table(model: Model, entries: Sequence[dict[str, Any]]) -> None:
    probabilities = model.loss is not None and model.loss.takes_probabilities
    table = [["image", "class", "probability" if probabilities else "output"]]
    for entry in entries:
        value = percent(entry["output"]) if probabilities else f"{entry['output']:.4f}"
        table.append([entry["image"], entry["class"], value])
    print(aligned(table, right=[2]))
