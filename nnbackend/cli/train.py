"""``nnbackend train``."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

import nnbackend
from nnbackend.cli.options import check_data, check_images, load_data
from nnbackend.cli.resume import earlier_optimizers, find_run, recipe_of
from nnbackend.cli.run_folder import MODEL, RunFolder
from nnbackend.cli.text import backend_line, count_rows, field, network_line, percent, ranks_text
from nnbackend.cli.train_options import HELD_OUT, add_options
from nnbackend.datasets import Dataset
from nnbackend.datasets.split import stratified_split
from nnbackend.distributed import Checks, Communicator, local_backend, world
from nnbackend.errors import InvalidInputError, NNBackendError, TrainingDivergedError
from nnbackend.metrics import accuracy, confusion_matrix
from nnbackend.network import Network
from nnbackend.presets import DEFAULT, Recipe, get_preset
from nnbackend.support.checks import above_zero, number, real_dtype, seed_number
from nnbackend.training import EarlyStopping, History

__all__ = ["DESCRIPTION", "add_options", "run"]

DESCRIPTION = """\
Train a network and save it in a folder, with its history, its configuration
and two pictures.

Without options, the default recipe trains on MNIST (or on 5,000 of its digits
if MNIST is not available): hidden layers of 200 and 80 ReLU units, Adam,
batches of 128, 10 epochs. --preset chooses another recipe; the preset
784-200-80-10 has the same layers but trains with SGD, in batches of 256, for
15 epochs. Each other option changes one thing in the recipe.

Ctrl-C ends the training early and saves the model. --resume continues a run
that was interrupted or killed, with the same result as if it had not stopped;
with --epochs, it trains a run on, also a finished one, up to that many epochs.
Under mpiexec, several processes share each batch, with the same result; a run
may be resumed with more or fewer processes. Exit codes: 130 after Ctrl-C, 143
after SIGTERM."""

_INTERRUPTED = 130
#: Exit code of the ranks that leave it to another rank to report the error that all of them have.
_REPORTED_ELSEWHERE = 2


def run(options: argparse.Namespace) -> int:
    """Train a network and return the exit code."""
    ranks = world(options.timeout)
    try:
        with ranks.checks() as checks:
            if options.resume is not None:
                return _resume(options, ranks, checks)
            recipe = _recipe(options)
            _check(options, recipe)
            folder = RunFolder.at(options.out, options.force) if options.out and ranks.rank == 0 else None
            return _train(options, recipe, folder, ranks, checks)
    except (NNBackendError, OSError, ImportError) as error:
        if ranks.tells(error):
            raise
        return _REPORTED_ELSEWHERE


def _resume(options: argparse.Namespace, ranks: Communicator, checks: Checks) -> int:
    """Resume a run unless it is finished. Only rank 0 reads its folder."""
    with ExitStack() as held:
        folder, found = find_run(options, held) if ranks.rank == 0 else (None, None)
        options, configuration, result = checks.exchange(found)[0]
        if result:
            if ranks.rank == 0:
                print(result)
            return 0
        recipe = recipe_of(configuration)
        _check(options, recipe)
        options.earlier_optimizers = earlier_optimizers(configuration)
        return _train(options, recipe, folder, ranks, checks)


def _train(
    options: argparse.Namespace, recipe: Recipe, folder: RunFolder | None, ranks: Communicator, checks: Checks
) -> int:
    options.quiet = options.quiet or ranks.rank > 0
    backend = local_backend(options.backend, ranks)

    if ranks.rank:
        # Wait for rank 0, which may have to download the data.
        checks.exchange(None)
    data = load_data(options.dataset, options)
    if ranks.rank == 0:
        checks.exchange(None)
    if data.notice and options.quiet and ranks.rank == 0:
        print(f"nnbackend: note: {data.notice}", file=sys.stderr)
    held_out = _held_out(options, recipe)
    split = _split(data, held_out, options.seed)
    named_recipe = _recipe_name(options, recipe)
    recipe = _fitted(recipe, len(split.y), asked_for=options.batch_size is not None)
    network = Network(
        recipe.layers(len(data.classes), data.input_shape),
        data.input_shape,
        backend,
        seed=options.seed,
        dtype=options.dtype,
    )
    if ranks.rank:
        checks.passed()
        history = _fit(network, split, recipe, None, options, ranks)
        return _INTERRUPTED if history.interrupted else 0
    with ExitStack() as held:
        if folder is None:
            folder = RunFolder.fresh(data.name)
        if options.resume is None:
            # Before anything is written. A run that is resumed was locked when it was read.
            held.enter_context(folder.lock())
        steps = folder.resume() if options.resume is not None else None
        if not options.quiet:
            named = named_recipe, recipe
            _describe(data, split, named, network, backend_line(options.backend, backend), folder, steps)
            if ranks.size > 1:
                print(f"{ranks_text(ranks)}\n", flush=True)
        if steps is None:
            folder.begin(_configuration(data, held_out, recipe, network, options, ranks.size))
            # Not when resuming: the run may have been killed before its first checkpoint, and can still be resumed.
            held.callback(folder.discard_if_empty)
        checks.passed()
        return _train_in(folder, data, split, network, recipe, options, ranks)


def _train_in(
    folder: RunFolder,
    data: Dataset,
    split: _Split,
    network: Network,
    recipe: Recipe,
    options: argparse.Namespace,
    ranks: Communicator,
) -> int:
    """Train in a folder that this process has locked, save the results, and return the exit code."""
    try:
        history = _fit(network, split, recipe, folder, options, ranks)
        if not history.epochs:
            raise ranks.alike(KeyboardInterrupt("before the first step was done"))
    except SystemExit:
        print(f"nnbackend: terminated; {_resume_hint(folder)}", file=sys.stderr)
        raise
    try:
        _finish(network, data, history, folder, pictures=not options.no_plots, quiet=options.quiet)
        if not history.interrupted:
            folder.end()
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}; {_resume_hint(folder)}", error.filename) from error
    if history.interrupted:
        print(
            f"nnbackend: interrupted; the model so far is in {folder.path}; {_resume_hint(folder)}",
            file=sys.stderr,
        )
        return _INTERRUPTED
    return 0


def _resume_hint(folder: RunFolder) -> str:
    return f"to continue: nnbackend train --resume {folder.path}"


@dataclass(frozen=True)
class _Split:
    """Training rows, validation rows, and whether the latter were held out of the training set or are the test rows."""

    x: Any
    y: Any
    validation: tuple[Any, Any]
    held_out: bool


def _recipe(options: argparse.Namespace) -> Recipe:
    """The preset or the default recipe, changed by the options that were given."""
    base = _base_recipe(options)
    given = {attribute.name: getattr(options, attribute.name) for attribute in fields(Recipe)}
    return base.changed(**{name: value for name, value in given.items() if value is not None})


def _base_recipe(options: argparse.Namespace) -> Recipe:
    return DEFAULT if options.preset is None else get_preset(options.preset)


def _recipe_name(options: argparse.Namespace, recipe: Recipe) -> str:
    """The name of the recipe, and whether options changed it."""
    name = "default" if options.preset is None else f"preset {options.preset}"
    return name if recipe == _base_recipe(options) else f"{name}, changed by options"


def _check(options: argparse.Namespace, recipe: Recipe) -> None:
    """Check everything that can be checked before data are loaded."""
    recipe.check()
    seed_number(options.seed)
    real_dtype(options.dtype)
    check_data(options.dataset, options.data_dir)
    check_images(options.dataset, recipe)
    if options.validation is not None:
        number("validation", options.validation, low=0, high=1, below=True)
    above_zero("checkpoint minutes", options.checkpoint_minutes)
    if options.force and not options.out:
        raise InvalidInputError("--force needs --out: without --out every run gets a new folder")


def _held_out(options: argparse.Namespace, recipe: Recipe) -> float:
    """The share of rows to validate on. Rows that influence the training must not be the test rows."""
    if options.validation is not None:
        share: float = options.validation
        return share
    return HELD_OUT if recipe.patience is not None or recipe.schedule == "plateau" else 0.0


def _split(data: Dataset, share: float, seed: int) -> _Split:
    if share == 0:
        return _Split(data.x_train, data.y_train, (data.x_test, data.y_test), held_out=False)
    train, held_out = stratified_split(data.y_train, share, seed % 2**32)
    if len(train) == 0 or len(held_out) == 0:
        raise InvalidInputError(
            f"holding out {share:g} of the {len(data.x_train)} rows of {data.name!r} leaves {len(train)} rows to train "
            f"on and {len(held_out)} to validate on; choose another --validation (0 validates on the test rows)"
        )
    validation = (data.x_train[held_out], data.y_train[held_out])
    return _Split(data.x_train[train], data.y_train[train], validation, held_out=True)


def _fitted(recipe: Recipe, rows: int, asked_for: bool) -> Recipe:
    """The recipe with its batch size limited to the number of rows; a batch size given explicitly raises instead."""
    if recipe.batch_size <= rows:
        return recipe
    if asked_for:
        raise InvalidInputError(
            f"--batch-size must be at most the {rows:,} rows to train on, received {recipe.batch_size}"
        )
    return replace(recipe, batch_size=rows)


def _describe(
    data: Dataset,
    split: _Split,
    recipe: tuple[str, Recipe],
    network: Network,
    backend: str,
    folder: RunFolder,
    steps: int | None,
) -> None:
    """Describe the run before it starts, or before it resumes after `steps` steps."""
    recipe_name, settings = recipe
    test = count_rows(data, len(data.y_test))
    lines = [
        field("data", f"{data.name}: {count_rows(data, len(split.y))} to train on, {test} to test on\n{data.source}")
    ]
    if data.notice:
        lines.append(field("NOTE", data.notice))
    validation = f"{count_rows(data, len(split.validation[1]))} held out of the training set"
    epochs = f"{settings.epochs} epoch{'s' if settings.epochs != 1 else ''}"
    lines += [
        field("validate", f"on {validation if split.held_out else 'the test set, which does not influence training'}"),
        field("recipe", recipe_name),
        field("network", f"{network_line(network)}, seed {network.seed}"),
        field("training", f"{settings.loss}, {epochs} in batches of {settings.batch_size}"),
        field("", f"{settings.optimizer}, learning rate {settings.first_rate:g}, {settings.schedule}"),
        *([field("", f"augment {settings.augment}")] if settings.augment else []),
        field("backend", backend),
        field("folder", f"{folder.path}"),
    ]
    if steps is not None:
        lines.append(field("resume", f"after {steps:,} steps" if steps else "no checkpoint yet: starting over"))
    print("\n".join(lines) + "\n", flush=True)


def _configuration(
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


def _fit(
    network: Network,
    split: _Split,
    recipe: Recipe,
    folder: RunFolder | None,
    options: argparse.Namespace,
    ranks: Communicator,
) -> History:
    earlier = options.earlier_optimizers if options.resume is not None else ()
    callbacks = [] if folder is None else folder.callbacks(options.checkpoint_minutes, earlier)
    if recipe.patience is not None:
        callbacks.append(EarlyStopping(patience=recipe.patience, restore_best=True))
    try:
        return network.fit(
            split.x,
            split.y,
            epochs=recipe.epochs,
            batch_size=recipe.batch_size,
            loss=recipe.loss,
            optimizer=recipe.make_optimizer(),
            validation_data=split.validation,
            callbacks=callbacks,
            augment=recipe.augmentations(),
            resume=options.resume is not None,
            verbose=not options.quiet,
            communicator=ranks,
        )
    except TrainingDivergedError as error:
        saved = f"; {folder.path} holds the model of the epoch before" if folder and MODEL in folder.files() else ""
        raise TrainingDivergedError(
            f"the loss became NaN or infinite in epoch {error.epoch}, step {error.step}: lower --learning-rate{saved}",
            error.epoch,
            error.step,
        ) from error


def _finish(network: Network, data: Dataset, history: History, folder: RunFolder, pictures: bool, quiet: bool) -> None:
    """Evaluate on the test rows and save everything, the model first, because it took the longest to make."""
    folder.save_model(network)
    predicted = network.predict_classes(data.x_test)
    # Report the accuracy of the predicted classes, even if the loss measures accuracy in another way.
    metrics = {**network.evaluate(data.x_test, data.y_test), "accuracy": accuracy(data.y_test, predicted)}
    folder.save_table(history)
    notes = []
    if pictures:
        missing = folder.save_pictures(
            history, confusion_matrix(data.y_test, predicted, len(data.classes)), data.classes
        )
        notes += [f"no pictures: {missing}"] if missing else []
    # Last: a run that is killed before is not finished.
    folder.save_history(history, metrics)
    notes.append(f"saved in {folder.path}: {', '.join(folder.files())}")
    if not quiet:
        print("\n" + "\n".join(notes))
    print(f"test accuracy {percent(metrics['accuracy'])} ({count_rows(data, len(data.y_test))})", flush=True)
