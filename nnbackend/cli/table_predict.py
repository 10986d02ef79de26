"""``nnbackend predict`` and ``evaluate`` with a model that was trained on a table."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nnbackend
from nnbackend.cli.table_files import Table, read_table
from nnbackend.cli.table_target import CLASSIFICATION, REGRESSION, read_target, scores, scores_text
from nnbackend.cli.text import aligned, backend_line, field, percent, printable
from nnbackend.errors import DataError, InvalidInputError
from nnbackend.saving.model_file import read_description
from nnbackend.support.files import write_csv

__all__ = ["evaluate_table", "is_table_model", "predict_table"]

#: The quantiles between which nine of ten targets are.
_LEVELS = (0.05, 0.95)

#: Name of the predictions of a model that does not know its target's.
_PREDICTION = "prediction"


def is_table_model(path: Path) -> bool:
    """Whether a model file has an estimator for tables.

    Raises
    ------
    ModelFileError
        The file is missing or damaged.
    """
    return "tabular" in read_description(path)


def _load(path: Path, backend: str) -> Any:
    """The estimator in a model file."""
    state = read_description(path)["tabular"]
    kind = state.get("kind") if isinstance(state, Mapping) else None
    reads = nnbackend.TabularClassifier if kind == "classifier" else nnbackend.TabularRegressor
    return reads.load(path, backend)


def predict_table(options: argparse.Namespace, path: Path) -> int:
    """Predict the rows of a table and return the exit code."""
    if len(options.files) > 1:
        raise InvalidInputError(f"a model for tables predicts one table at a time, received {len(options.files)} files")
    if options.invert is not None:
        raise InvalidInputError(f"--invert is for pictures, and {path} is a model for tables; leave it out")
    model = _load(path, options.backend)
    table = read_table(options.files[0], options.encoding)
    entries = _entries(model, _features(model, table))
    if options.out:
        write_csv(options.out, [_flat(entry, _name(model)) for entry in entries])
        print(f"{len(entries):,} predictions in {options.out}")
    elif options.json:
        print(json.dumps(entries, indent=1))
    else:
        _print(entries, _name(model))
    return 0


def evaluate_table(options: argparse.Namespace, path: Path) -> int:
    """Print the metrics of a table's rows and return the exit code."""
    if options.table is None:
        raise InvalidInputError(f"{path} is a model for tables; name the table to evaluate it on")
    for name in ("dataset", "loss", "data_dir"):
        if getattr(options, name) is not None:
            raise InvalidInputError(f"--{name.replace('_', '-')} is not for models for tables; leave it out")
    model = _load(path, options.backend)
    table = read_table(options.table, options.encoding)
    classes = getattr(model, "classes_", None)
    task = REGRESSION if classes is None else CLASSIFICATION
    text = classes is not None and classes.dtype.kind not in "biuf"
    if options.target is None and model.target_name_ and model.target_name_ not in table.columns:
        raise DataError(
            f"{table.path} has no column {model.target_name_!r}, which the model predicts, so there is nothing to "
            "compare with; use nnbackend predict, or name the column of the true values with --target"
        )
    target = read_target(table, options.target or model.target_name_, task, text)
    found = scores(model, _features(model, table).iloc[target.rows], target)
    rows = f"{len(target.values):,} rows"
    kind = type(model).__name__
    print(field("model", f"{path}\n{kind}, {len(model.ensemble_)} networks"))
    print(field("data", printable(f"{table.path} ({table.form}): {rows} with a value of {target.name}")))
    print(field("backend", backend_line(options.backend, model.ensemble_[0].backend)))
    print(f"\n{scores_text(found, target, classes)}\n")
    if task == CLASSIFICATION:
        print(f"test accuracy {percent(found['accuracy'])} ({rows})")
    else:
        print(f"test RMSE {found['rmse']:.6g}, R2 {found['r2']:.4f} ({rows})")
    return 0


def _name(model: Any) -> str:
    return model.target_name_ or _PREDICTION


def _note(text: str) -> None:
    print(f"nnbackend: note: {printable(text)}", file=sys.stderr)


def _features(model: Any, table: Table) -> Any:
    """The columns of a table that the model knows, in its order."""
    for note in table.notes:
        _note(f"{table.path}: {note}")
    columns = model.preparation_.config()["columns"]
    names = getattr(model, "feature_names_in_", None)
    if names is None:
        # The model was fitted to an array.
        found = [name for name in table.columns if name != model.target_name_]
        if len(found) != len(columns):
            raise DataError(f"{table.path} has {len(found)} columns, but the model was fitted to {len(columns)}")
        names = found
    table.check_columns(list(names))
    # Whether a column of numbers or categories holds text is known from the categories.
    text: dict[str, bool | None] = {}
    for name, column in zip(names, columns, strict=True):
        values = column.get("values")
        text[name] = False if values is None else any(isinstance(value, str) for value in values) or None
    frame = table.frame(list(names), text)
    for name, column in zip(names, columns, strict=True):
        _note_unknown(table, name, column, frame[name])
    if not hasattr(model, "feature_names_in_"):
        # scikit-learn warns about names of text that the model has not seen.
        frame.columns = range(len(columns))
    return frame


def _note_unknown(table: Table, name: str, column: Mapping[str, Any], series: Any) -> None:
    """Say which categories the model does not know: it predicts such rows as if the value were missing."""
    if column.get("values") is None or column.get("others"):
        return
    known = set(column["values"])
    unknown = [value for value in series.dropna().tolist() if value not in known]
    if unknown:
        some = ", ".join(repr(str(value)) for value in list(dict.fromkeys(unknown))[:3])
        _note(
            f"{table.path}: {len(unknown):,} rows have categories of {name!r} that the model has not seen, such as "
            f"{some}; they are taken for missing"
        )


def _entries(model: Any, features: Any) -> list[dict[str, Any]]:
    """The prediction of each row."""
    if hasattr(model, "classes_"):
        probabilities = model.predict_proba(features)
        classes = model.classes_.tolist()
        return [
            {
                "row": row + 1,
                "class": classes[int(own.argmax())],
                "probability": float(own.max()),
                "probabilities": {str(name): float(each) for name, each in zip(classes, own, strict=True)},
            }
            for row, own in enumerate(probabilities)
        ]
    values = model.predict(features)
    if values.ndim == 2:
        return [{"row": row + 1, "values": own} for row, own in enumerate(values.tolist())]
    entries: list[dict[str, Any]] = [{"row": row + 1, "value": own} for row, own in enumerate(values.tolist())]
    try:
        quantiles = model.predict_quantiles(features, _LEVELS).tolist()
    except InvalidInputError:
        # The networks have held out no rows.
        return entries
    return [{**entry, "low": low, "high": high} for entry, (low, high) in zip(entries, quantiles, strict=True)]


def _flat(entry: Mapping[str, Any], name: str) -> dict[str, Any]:
    """An entry as a row of a CSV file."""
    if "class" in entry:
        each = {f"probability of {own}": value for own, value in entry["probabilities"].items()}
        return {"row": entry["row"], name: entry["class"], **each}
    if "values" in entry:
        return {"row": entry["row"], **{f"{name} {place}": value for place, value in enumerate(entry["values"])}}
    ends = {f"{name} {end}": entry[end] for end in ("low", "high") if end in entry}
    return {"row": entry["row"], name: entry["value"], **ends}


def _print(entries: list[dict[str, Any]], name: str) -> None:
    rows = []
    for entry in entries:
        if "class" in entry:
            cells = [printable(str(entry["class"])), percent(entry["probability"])]
            header = ["row", printable(name), "probability"]
        else:
            values = entry.get("values", [entry.get("value")])
            cells = [f"{value:.6g}" for value in values]
            header = ["row", *([printable(name)] if len(cells) == 1 else [f"{name} {k}" for k in range(len(cells))])]
            if "low" in entry:
                cells.append(f"{entry['low']:.6g} to {entry['high']:.6g}")
                header.append("nine of ten are within")
        rows.append([str(entry["row"]), *cells])
    print(aligned([header, *rows], right=[0, *range(2, len(header))] if "class" in entries[0] else [0, 1]))
