"""``nnbackend evaluate``."""

from __future__ import annotations

import argparse
import math

from nnbackend.backends.registry import get_backend
from nnbackend.cli.models import first_network, load_model, single_network
from nnbackend.cli.options import add_backend, add_data, add_encoding, check_data, load_data
from nnbackend.cli.run_folder import dataset_name, find_model
from nnbackend.cli.table_predict import evaluate_table, is_table_model
from nnbackend.cli.text import backend_line, count_rows, field, model_line, percent
from nnbackend.errors import InvalidInputError
from nnbackend.losses import get_loss
from nnbackend.metrics import accuracy

__all__ = ["DESCRIPTION", "add_options", "run"]

DESCRIPTION = """\
Print the loss and accuracy of a trained model on the test rows of a data set.

A model that was trained on a table is evaluated on a table with the same
columns, for example nnbackend evaluate runs/houses more_houses.csv."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("model", metavar="MODEL", help="a model file or the folder of a run")
    parser.add_argument("table", metavar="TABLE", nargs="?", help="for a model for tables: a CSV, Parquet or NPZ file")
    parser.add_argument("--target", metavar="COLUMN", help="of a table (default: the column of the training)")
    add_encoding(parser)
    add_data(parser, None, "default: the data set in the model's run folder, otherwise auto")
    parser.add_argument("--loss", metavar="NAME", help="default: the loss the model was trained with")
    add_backend(parser)


def run(options: argparse.Namespace) -> int:
    """Evaluate the model and return the exit code."""
    path = find_model(options.model)
    if is_table_model(path):
        return evaluate_table(options, path)
    for name in ("table", "target", "encoding"):
        if getattr(options, name) is not None:
            what = f"the table {options.table}" if name == "table" else f"--{name}"
            raise InvalidInputError(
                f"{path} is a network for the rows of a data set, not a model for tables: leave out {what}, and choose "
                "a --dataset"
            )
    # Prefer the run's own data set to "auto": a model trained on MNIST may have seen test rows of mnist-5k.
    name = options.dataset or dataset_name(path)
    check_data(name, options.data_dir)
    if options.loss is not None:
        get_loss(options.loss)
    backend = get_backend(options.backend)
    model = load_model(path, backend)
    network = first_network(model)
    if options.loss is not None:
        single_network(model, path, "--loss is for one network: an ensemble is evaluated with the loss of its training")
    if options.loss is None and network.loss is None:
        raise InvalidInputError(f"{path} was saved untrained and has no loss; choose one with --loss")
    data = load_data(name, options)
    inputs = math.prod(network.input_shape)
    if data.input_shape != inputs:
        raise InvalidInputError(
            f"{path} takes {inputs} numbers per row, but the data set {data.name!r} has {data.input_shape}; "
            "choose the --dataset it was trained on"
        )
    loss = {} if options.loss is None else {"loss": options.loss}
    metrics = model.evaluate(data.x_test, data.y_test, **loss)

    rows = count_rows(data, len(data.y_test))
    print(field("model", f"{path}\n{model_line(model)}"))
    print(field("data", f"{data.name}, {rows} to test on, from {data.source}"))
    if data.notice:
        print(field("NOTE", data.notice))
    print(field("backend", backend_line(options.backend, backend)))
    print(f"\ntest loss {metrics['loss']:.4f}")
    if "binary_accuracy" in metrics:
        # The network predicts any number of labels for a row.
        print(f"test accuracy of all outputs {percent(metrics['binary_accuracy'])} ({rows})")
        return 0
    correct = accuracy(data.y_test, model.predict_classes(data.x_test))
    print(f"test accuracy {percent(correct)} ({rows})")
    return 0
