"""``nnbackend train``."""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from dataclasses import fields

from nnbackend.cli.many import check_alone
from nnbackend.cli.members import check_members, train_members
from nnbackend.cli.options import check_images, load_data
from nnbackend.cli.resume import earlier_optimizers, find_run, recipe_of
from nnbackend.cli.run_folder import MODEL, RunFolder
from nnbackend.cli.table_train import check_table_options, train_table
from nnbackend.cli.text import backend_line, network_line, ranks_text
from nnbackend.cli.train_options import add_options
from nnbackend.cli.train_setup import (
    INTERRUPTED,
    Split,
    base_recipe,
    check_run,
    configuration_of,
    describe,
    finish,
    fitted,
    held_out_share,
    recipe_name,
    resume_hint,
    split_rows,
)
from nnbackend.datasets import Dataset
from nnbackend.distributed import Checks, Communicator, local_backend, world
from nnbackend.errors import NNBackendError, TrainingDivergedError
from nnbackend.network import Network
from nnbackend.presets import Recipe
from nnbackend.support.checks import above_zero
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
--members 10 trains ten networks at once, from ten seeds, and saves them as one
model, which averages their predictions.

nnbackend train table.csv --target price trains on a table, a CSV, Parquet or
NPZ file with columns of numbers, text and missing values as they are, and saves
everything that prepares them in the model. It says what it reads in each column
and whether it predicts classes or numbers, and prints the metrics of rows that
it holds out.

Under mpiexec, several processes share each batch, with the same result; a run
may be resumed with more or fewer processes. Exit codes: 130 after Ctrl-C, 143
after SIGTERM."""

#: Exit code of the ranks that leave it to another rank to report the error that all of them have.
_REPORTED_ELSEWHERE = 2


def run(options: argparse.Namespace) -> int:
    """Train a network and return the exit code."""
    ranks = world(options.timeout)
    try:
        with ranks.checks() as checks:
            if options.table is not None:
                return train_table(options, ranks)
            check_table_options(options)
            if options.resume is not None:
                return _resume(options, ranks, checks)
            options.members = 1 if options.members is None else options.members
            recipe = _recipe(options)
            _check(options, recipe)
            if options.members > 1:
                check_alone("nnbackend train --members", ranks)
            folder = RunFolder.at(options.out, options.force) if options.out and ranks.rank == 0 else None
            if options.members > 1:
                return train_members(options, recipe, folder)
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
        if options.members > 1:
            check_alone("nnbackend train --members", ranks)
            return train_members(options, recipe, folder)
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
    held_out = held_out_share(options, recipe)
    split = split_rows(data, held_out, options.seed)
    named_recipe = recipe_name(options, recipe)
    recipe = fitted(recipe, len(split.y), asked_for=options.batch_size is not None)
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
        return INTERRUPTED if history.interrupted else 0
    with ExitStack() as held:
        if folder is None:
            folder = RunFolder.fresh(data.name)
        if options.resume is None:
            # Before anything is written. A run that is resumed was locked when it was read.
            held.enter_context(folder.lock())
        steps = folder.resume() if options.resume is not None else None
        if not options.quiet:
            named = named_recipe, recipe
            described = f"{network_line(network)}, seed {network.seed}"
            describe(data, split, named, described, backend_line(options.backend, backend), folder, steps)
            if ranks.size > 1:
                print(f"{ranks_text(ranks)}\n", flush=True)
        if steps is None:
            folder.begin(configuration_of(data, held_out, recipe, network, options, ranks.size))
            # Not when resuming: the run may have been killed before its first checkpoint, and can still be resumed.
            held.callback(folder.discard_if_empty)
        checks.passed()
        return _train_in(folder, data, split, network, recipe, options, ranks)


def _train_in(
    folder: RunFolder,
    data: Dataset,
    split: Split,
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
        print(f"nnbackend: terminated; {resume_hint(folder)}", file=sys.stderr)
        raise
    try:
        finish(network, data, history, folder, pictures=not options.no_plots, quiet=options.quiet)
        if not history.interrupted:
            folder.end()
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}; {resume_hint(folder)}", error.filename) from error
    if history.interrupted:
        print(
            f"nnbackend: interrupted; the model so far is in {folder.path}; {resume_hint(folder)}",
            file=sys.stderr,
        )
        return INTERRUPTED
    return 0


def _recipe(options: argparse.Namespace) -> Recipe:
    """The preset or the default recipe, changed by the options that were given."""
    base = base_recipe(options)
    given = {attribute.name: getattr(options, attribute.name) for attribute in fields(Recipe)}
    return base.changed(**{name: value for name, value in given.items() if value is not None})


def _check(options: argparse.Namespace, recipe: Recipe) -> None:
    """Check everything that can be checked before data are loaded."""
    recipe.check()
    check_run(options)
    check_members(options)
    check_images(options.dataset, recipe)
    above_zero("checkpoint minutes", options.checkpoint_minutes)


def _fit(
    network: Network,
    split: Split,
    recipe: Recipe,
    folder: RunFolder | None,
    options: argparse.Namespace,
    ranks: Communicator,
) -> History:
    earlier = options.earlier_optimizers if options.resume is not None else ()
    callbacks = [] if folder is None else folder.callbacks(options.checkpoint_minutes, earlier, options.any_target)
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
