"""What the commands that train have in common: checks, the split of the data, and the files of a trained network."""

from __future__ import annotations

import argparse
import os
import platform
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import nnbackend
from nnbackend.cli.options import check_data
from nnbackend.cli.run_folder import RunFolder
from nnbackend.cli.text import count_rows, field, percent
from nnbackend.cli.train_options import HELD_OUT
from nnbackend.datasets import Dataset
from nnbackend.datasets.split import stratified_split
from nnbackend.errors import InvalidInputError
from nnbackend.metrics import accuracy, confusion_matrix
from nnbackend.network import Network
from nnbackend.presets import DEFAULT, Recipe, get_preset
from nnbackend.support.checks import number, real_dtype, seed_number
from nnbackend.training import History

__all__ = [
    "INTERRUPTED",
    "Split",
    "base_recipe",
    "check_run",
    "configuration_of",
    "data_lines",
    "describe",
    "finish",
    "fitted",
    "held_out_share",
    "recipe_name",
    "resume_hint",
    "split_rows",
]

#: The exit code after Ctrl-C.
INTERRUPTED = 130


@dataclass(frozen=True)
class Split:
    """Training rows, validation rows, and whether the latter were held out of the training set or are the test rows."""

    x: Any
    y: Any
    validation: tuple[Any, Any]
    held_out: bool


def base_recipe(options: argparse.Namespace) -> Recipe:
    """The preset that the options name, or the default recipe."""
    return DEFAULT if options.preset is None else get_preset(options.preset)


def recipe_name(options: argparse.Namespace, recipe: Recipe) -> str:
    """The name of the recipe, and whether options changed it."""
    name = "default" if options.preset is None else f"preset {options.preset}"
    return name if recipe == base_recipe(options) else f"{name}, changed by options"


def check_run(options: argparse.Namespace) -> None:
    """Check the options that do not belong to the recipe, before data are loaded."""
    seed_number(options.seed)
    real_dtype(options.dtype)
    check_data(options.dataset, options.data_dir)
    if options.validation is not None:
        number("validation", options.validation, low=0, high=1, below=True)
    if options.force and not options.out:
        raise InvalidInputError("--force needs --out: without --out every run gets a new folder")


def held_out_share(options: argparse.Namespace, recipe: Recipe) -> float:
    """The share of rows to validate on. Rows that influence the training must not be the test rows."""
    if options.validation is not None:
        share: float = options.validation
        return share
    return HELD_OUT if recipe.patience is not None or recipe.schedule == "plateau" else 0.0


def split_rows(data: Dataset, share: float, seed: int) -> Split:
    """Hold out a share of the training rows; without one, validate on the test rows."""
    if share == 0:
        return Split(data.x_train, data.y_train, (data.x_test, data.y_test), held_out=False)
    train, held_out = stratified_split(data.y_train, share, seed % 2**32)
    if len(train) == 0 or len(held_out) == 0:
        raise InvalidInputError(
            f"holding out {share:g} of the {len(data.x_train)} rows of {data.name!r} leaves {len(train)} rows to train "
            f"on and {len(held_out)} to validate on; choose another --validation (0 validates on the test rows)"
        )
    validation = (data.x_train[held_out], data.y_train[held_out])
    return Split(data.x_train[train], data.y_train[train], validation, held_out=True)


def fitted(recipe: Recipe, rows: int, asked_for: bool) -> Recipe:
    """The recipe with its batch size limited to the number of rows; a batch size given explicitly raises instead."""
    if recipe.batch_size <= rows:
        return recipe
    if asked_for:
        raise InvalidInputError(
            f"--batch-size must be at most the {rows:,} rows to train on, received {recipe.batch_size}"
        )
    return replace(recipe, batch_size=rows)


def data_lines(data: Dataset, split: Split) -> list[str]:
    """Describe the rows to train, validate and test on."""
    test = count_rows(data, len(data.y_test))
    lines = [
        field("data", f"{data.name}: {count_rows(data, len(split.y))} to train on, {test} to test on\n{data.source}")
    ]
    if data.notice:
        lines.append(field("NOTE", data.notice))
    validation = f"{count_rows(data, len(split.validation[1]))} held out of the training set"
    rows = validation if split.held_out else "the test set, which does not influence training"
    return [*lines, field("validate", f"on {rows}")]


def describe(
    data: Dataset,
    split: Split,
    recipe: tuple[str, Recipe],
    network: str,
    backend: str,
    folder: RunFolder,
    steps: int | None,
) -> None:
    """Describe the run before it starts, or before it resumes after `steps` steps.

    Parameters
    ----------
    data : Dataset
    split : Split
    recipe : (str, Recipe)
        Its name, and whether options changed it.
    network, backend : str
        Their descriptions.
    folder : RunFolder
    steps : int or None
        None for a run that begins.
    """
    recipe_name, settings = recipe
    epochs = f"{settings.epochs} epoch{'s' if settings.epochs != 1 else ''}"
    lines = [
        *data_lines(data, split),
        field("recipe", recipe_name),
        field("network", network),
        field("training", f"{settings.loss}, {epochs} in batches of {settings.batch_size}"),
        field("", f"{settings.optimizer}, learning rate {settings.first_rate:g}, {settings.schedule}"),
        *([field("", f"augment {settings.augment}")] if settings.augment else []),
        field("backend", backend),
        field("folder", f"{folder.path}"),
    ]
    if steps is not None:
        lines.append(field("resume", f"after {steps:,} steps" if steps else "no checkpoint yet: starting over"))
    print("\n".join(lines) + "\n", flush=True)


def configuration_of(
    data: Dataset, held_out: float, recipe: Recipe, network: Network, options: argparse.Namespace, ranks: int
) -> dict[str, Any]:
    """Everything needed to repeat this run, as JSON."""
    return {
        "nnbackend": nnbackend.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "dataset": data.name,
        "source": data.source,
        "data_dir": None if options.data_dir is None else os.path.abspath(options.data_dir),
        "rows": {"train": len(data.x_train), "test": len(data.x_test)},
        "classes": list(data.classes),
        "validation": held_out,
        "preset": options.preset,
        "recipe": recipe.to_dict(),
        "seed": network.seed,
        "dtype": network.dtype.name,
        "backend": network.backend.name,
        "device": network.backend.device,
        "ranks": ranks,
        "layers": network.config()["layers"],
        "parameters": network.parameter_count,
    }


def resume_hint(folder: RunFolder) -> str:
    return f"to continue: nnbackend train --resume {folder.path}"


def finish(network: Network, data: Dataset, history: History, folder: RunFolder, pictures: bool, quiet: bool) -> None:
    """Evaluate on the test rows and save everything, the model first, because it took the longest to make."""
    folder.save_model(network)
    predicted = network.predict_classes(data.x_test)
    # Report the accuracy of the predicted classes, even if the loss measures accuracy in another way.
    metrics = {**network.evaluate(data.x_test, data.y_test), "accuracy": accuracy(data.y_test, predicted)}
    folder.save_table(history)
    notes = []
    if pictures:
        from nnbackend.plotting import plot_curves

        matrix = confusion_matrix(data.y_test, predicted, len(data.classes))
        missing = folder.save_pictures(lambda: plot_curves(history), matrix, data.classes)
        notes += [f"no pictures: {missing}"] if missing else []
    # Last: a run that is killed before is not finished.
    folder.save_history(history.to_dict(), metrics)
    notes.append(f"saved in {folder.path}: {', '.join(folder.files())}")
    if not quiet:
        print("\n" + "\n".join(notes))
    print(f"test accuracy {percent(metrics['accuracy'])} ({count_rows(data, len(data.y_test))})", flush=True)
