"""``nnbackend train TABLE``: networks for a table in a file, and everything that prepares its columns, in one model."""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

import nnbackend
from nnbackend.backends.registry import get_backend
from nnbackend.cli.many import check_alone
from nnbackend.cli.run_folder import MODEL, RunFolder
from nnbackend.cli.table_files import Table, read_table
from nnbackend.cli.table_target import CLASSIFICATION, Target, read_target, scores, scores_text
from nnbackend.cli.text import aligned, backend_line, field, percent, printable
from nnbackend.data.held_out import drawn_rows
from nnbackend.distributed import Communicator
from nnbackend.errors import DataError, InvalidInputError, UnknownNameError
from nnbackend.support.checks import above_zero, number, positive_integer, real_dtype, seed_number

__all__ = ["check_table_options", "train_table"]

#: Share of the rows on which the metrics are computed, if there is no option.
_HELD_OUT = 0.2

#: Options of `nnbackend train` that do not concern tables, and those that concern nothing else.
_OF_NETWORKS = (
    "dataset", "data_dir", "no_download", "preset", "filters", "kernels", "strides", "dropout", "l1", "l2", "loss",
    "augment", "optimizer", "schedule", "decay", "decay_every", "warmup", "cycle_momentum", "momentum", "nesterov",
    "beta1", "beta2", "weight_decay", "patience", "resume", "any_target", "checkpoint_minutes",
)  # fmt: skip
_OF_TABLES = ("target", "task", "categorical", "ignore", "max_seconds", "encoding")

#: Most values that the description of a column shows, and their length.
_SHOWN, _SHOWN_LENGTH = 4, 16


def check_table_options(options: argparse.Namespace) -> None:
    """Check that all options that were given concern what is trained: a table, or a network on a data set.

    Raises
    ------
    InvalidInputError
    """
    table = options.table is not None
    for name in _OF_NETWORKS if table else _OF_TABLES:
        if getattr(options, name) != options.parser.get_default(name):
            option = f"--{name.replace('_', '-')}"
            raise InvalidInputError(
                f"{option} is not for tables, whose networks have settings of their own; leave it out"
                if table
                else f"{option} is for tables; name the file, for example nnbackend train table.csv --target price"
            )
    if not table:
        return
    if not os.path.exists(os.path.expanduser(options.table)):
        hint = "; sizes are separated by commas, such as 200,80" if options.table.isdecimal() else ""
        raise InvalidInputError(f"there is no file {options.table!r} to train on{hint}")
    seed_number(options.seed)
    real_dtype(options.dtype)
    for name in ("members", "epochs", "batch_size"):
        if getattr(options, name) is not None:
            positive_integer(name, getattr(options, name))
    for name in ("learning_rate", "max_seconds"):
        if getattr(options, name) is not None:
            above_zero(name, getattr(options, name))
    if options.validation is not None:
        number("validation", options.validation, low=0, high=1, below=True)
    if options.force and not options.out:
        raise InvalidInputError("--force needs --out: without --out every run gets a new folder")


def train_table(options: argparse.Namespace, ranks: Communicator) -> int:
    """Train on a table, print the metrics of rows that were held out, and return the exit code."""
    check_table_options(options)
    check_alone("nnbackend train TABLE", ranks)
    backend = get_backend(options.backend)
    folder = RunFolder.at(options.out, options.force) if options.out else None
    table = read_table(options.table, options.encoding)
    target = read_target(table, options.target, options.task)
    names = [name for name in table.columns if name != target.name]
    ignored = _columns("--ignore", options.ignore, names)
    names = [name for name in names if name not in ignored]
    if not names:
        raise DataError(f"{table.path} has no column besides the target {target.name!r} to learn from")
    categorical = _columns("--categorical", options.categorical, names)
    frame = table.frame(names, dict.fromkeys(categorical, True)).iloc[target.rows]
    share = _HELD_OUT if options.validation is None else options.validation
    held = drawn_rows(target.groups, len(target.values), share, options.seed)
    model = _model(options, target, categorical)
    with ExitStack() as open_folder:
        folder = folder or RunFolder.fresh(Path(table.path).stem)
        open_folder.enter_context(folder.lock())
        if not options.quiet:
            _describe(table, target, frame, held, model, backend_line(options.backend, backend), folder)
        folder.begin(_configuration(options, table, target, share, model))
        open_folder.callback(folder.discard_if_empty)
        from pandas import Series

        model.fit(frame[~held], Series(target.values[~held], name=target.name))
        model.save(folder.path / MODEL)
        found: dict[str, float] = {}
        rest = Target(target.name, target.task, target.reason, target.rows[held], target.values[held])
        if held.any():
            found = scores(model, frame[held], rest)
        history = {"columns": model.describe_columns(), "epochs": model.n_epochs_, "best_epochs": model.best_epochs_}
        folder.save_history({**history, "interrupted": False}, {k: v for k, v in found.items() if np.isfinite(v)})
        _report(options, folder, model, found, rest)
    return 0


def _columns(option: str, text: str | None, names: list[str]) -> list[str]:
    """The columns that an option names."""
    given = [name.strip() for name in (text or "").split(",") if name.strip()]
    for name in given:
        if name not in names:
            raise UnknownNameError(f"column in {option}", name, names)
    return given


def _model(options: argparse.Namespace, target: Target, categorical: list[str]) -> Any:
    """The estimator that is to be trained; options that were not given leave it its own defaults."""
    kind = nnbackend.TabularClassifier if target.task == CLASSIFICATION else nnbackend.TabularRegressor
    given = {
        "n_members": options.members,
        "hidden_layer_sizes": options.hidden,
        "activation": options.activation,
        "learning_rate": options.learning_rate,
        "epochs": options.epochs,
        "batch_size": options.batch_size,
        "max_seconds": options.max_seconds,
    }
    return kind(
        **{name: value for name, value in given.items() if value is not None},
        categorical_features=categorical or "from_dtype",
        random_state=options.seed % 2**32,
        backend=options.backend,
        dtype=options.dtype,
        verbose=not options.quiet,
    )


def _configuration(
    options: argparse.Namespace, table: Table, target: Target, share: float, model: Any
) -> dict[str, Any]:
    """What the run does, as JSON."""
    parameters = {**model.get_params(deep=False), "backend": options.backend}
    parameters["hidden_layer_sizes"] = list(parameters["hidden_layer_sizes"])
    return {
        "nnbackend": nnbackend.__version__,
        "table": os.path.abspath(table.path),
        "target": target.name,
        "task": target.task,
        "validation": share,
        "seed": options.seed,
        "parameters": parameters,
    }


def _describe(table: Table, target: Target, frame: Any, held: Any, model: Any, backend: str, folder: RunFolder) -> None:
    """Describe the table and the run before it starts."""
    count = int(held.sum())
    data = f"{table.path} ({table.form}): {table.rows:,} rows, {len(frame.columns)} columns besides the target"
    left = table.rows - len(target.values)
    notes = [*table.notes, *([f"{left:,} rows without a value of {target.name} left out"] if left else [])]
    print(field("data", printable(data)))
    for note in notes:
        print(field("NOTE", printable(note)))
    print(field("target", printable(f"{target.name}: {_column(target.values.tolist())}")))
    print(field("task", printable(f"{target.task}, because {target.reason}")))
    of = f"metrics of {count:,} rows that are held out" if count else "no row is held out, so there are no metrics"
    print(field("validate", of))
    print(field("networks", f"{model.n_members}, {model.epochs} epochs, seed {model.random_state}"))
    print(field("backend", backend))
    print(field("folder", f"{folder.path}") + "\n")
    rows = [[printable(str(name)), printable(_column(frame[name].tolist()))] for name in frame.columns]
    print(aligned([["column", "read as"], *rows]) + "\n", flush=True)


def _column(values: list[Any]) -> str:
    """What a column holds, in a line."""
    present = [value for value in values if value is not None and value == value]
    lacks = len(values) - len(present)
    missing = f", {lacks:,} missing" if lacks else ""
    if not present:
        return "nothing: all values are missing"
    distinct = list(dict.fromkeys(present))
    if len(distinct) == 1:
        return f"constant: {_short(distinct[0])}{missing}"
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in present):
        return f"numbers from {min(present):.6g} to {max(present):.6g}{missing}"
    some = ", ".join(_short(value) for value in distinct[:_SHOWN]) + (", ..." if len(distinct) > _SHOWN else "")
    what = "text" if isinstance(present[0], str) else type(present[0]).__name__
    what = "true and false" if what == "bool" else what
    return f"{what}, {len(distinct):,} different values: {some}{missing}"


def _short(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= _SHOWN_LENGTH else f"{text[:_SHOWN_LENGTH]}..."


def _report(options: argparse.Namespace, folder: RunFolder, model: Any, found: dict[str, float], rest: Target) -> None:
    """Print the metrics of the rows that were held out, and where everything is."""
    if not options.quiet:
        if found:
            metrics = scores_text(found, rest, getattr(model, "classes_", None))
            print(f"\n{len(rest.values):,} rows that were held out:\n{metrics}")
        print(f"\nsaved in {folder.path}: {', '.join(folder.files())}")
        print(f"to predict: nnbackend predict {folder.path} OTHER_TABLE")
    if not found:
        print("no metrics: no row was held out", file=sys.stderr)
    elif rest.task == CLASSIFICATION:
        print(f"test accuracy {percent(found['accuracy'])} ({len(rest.values):,} rows)", flush=True)
    else:
        print(f"test RMSE {found['rmse']:.6g}, R2 {found['r2']:.4f} ({len(rest.values):,} rows)", flush=True)
