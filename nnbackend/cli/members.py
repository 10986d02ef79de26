"""``nnbackend train --members``: several networks from different seeds, trained at once, that predict together."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from nnbackend.backends.registry import get_backend
from nnbackend.cli.many import Trained, check_some, outcome, train_all
from nnbackend.cli.models import Model
from nnbackend.cli.options import load_data
from nnbackend.cli.run_folder import RunFolder
from nnbackend.cli.text import aligned, backend_line, count_rows, network_line, percent
from nnbackend.cli.train_setup import (
    INTERRUPTED,
    configuration_of,
    describe,
    fitted,
    held_out_share,
    recipe_name,
    resume_hint,
    split_rows,
)
from nnbackend.datasets import Dataset
from nnbackend.ensembles import Ensemble
from nnbackend.errors import InvalidInputError
from nnbackend.metrics import accuracy, confusion_matrix
from nnbackend.network import Network
from nnbackend.presets import Recipe
from nnbackend.support.checks import positive_integer, seed_number
from nnbackend.training import Checkpoint

__all__ = ["check_members", "train_members"]

_MOST = 10_000

#: Of a network that diverged.
_NO_SCORES = {"test_accuracy": "", "test_loss": ""}


def check_members(options: argparse.Namespace) -> None:
    """Check the option ``--members``.

    Raises
    ------
    InvalidInputError
    """
    if positive_integer("members", options.members) > _MOST:
        raise InvalidInputError(f"--members: at most {_MOST:,} networks, received {options.members}")
    seed_number(options.seed + options.members - 1)


def train_members(options: argparse.Namespace, recipe: Recipe, folder: RunFolder | None) -> int:
    """Train several networks, save them as an ensemble, and return the exit code.

    Parameters
    ----------
    options : Namespace
        With `resume`, the folder is locked.
    recipe : Recipe
        Of every network.
    folder : RunFolder or None
        None for a new one.
    """
    backend, resumes = get_backend(options.backend), options.resume is not None
    data = load_data(options.dataset, options)
    if data.notice and options.quiet:
        print(f"nnbackend: note: {data.notice}", file=sys.stderr)
    held_out, named = held_out_share(options, recipe), recipe_name(options, recipe)
    split = split_rows(data, held_out, options.seed)
    recipe = fitted(recipe, len(split.y), asked_for=options.batch_size is not None)
    seeds = range(options.seed, options.seed + options.members)
    layers = recipe.layers(len(data.classes), data.input_shape)
    first = Network(layers, data.input_shape, backend, seed=seeds[0], dtype=options.dtype)
    with ExitStack() as held:
        folder = folder or RunFolder.fresh(data.name)
        if not resumes:
            held.enter_context(folder.lock())
        if not options.quiet:
            text = f"{len(seeds)} networks, each {network_line(first)}, seeds {seeds[0]} to {seeds[-1]}"
            on = backend_line(options.backend, backend)
            describe(data, split, (named, recipe), text, on, folder, None)
        if not resumes:
            configuration = configuration_of(data, held_out, recipe, first, options, ranks=1)
            folder.begin({**configuration, "members": len(seeds)})
            held.callback(folder.discard_if_empty)
        checkpoint = Checkpoint(
            folder.checkpoints, every_minutes=options.checkpoint_minutes, keep=1, any_target=options.any_target
        )
        common = data, split, backend, options.dtype
        try:
            trained = train_all(
                [recipe] * len(seeds), seeds, *common, not options.quiet, checkpoint=checkpoint, resume=resumes
            )
        except SystemExit:
            print(f"nnbackend: terminated; {resume_hint(folder)}", file=sys.stderr)
            raise
        return _finish(trained, seeds, data, folder, options)


def _finish(
    trained: Sequence[Trained], seeds: Sequence[int], data: Dataset, folder: RunFolder, options: argparse.Namespace
) -> int:
    """Evaluate on the test rows, save everything, the networks first, and return the exit code."""
    usable = [each.history.epochs and each.history.error is None for each in trained]
    check_some(trained, any(usable))
    ensemble = Ensemble([each.network for each, use in zip(trained, usable, strict=True) if use])
    folder.save_model(ensemble)
    rows = [
        {"seed": seed, "epochs": len(each.history.epochs), **(_scores(each.network, data) if use else _NO_SCORES)}
        for each, seed, use in zip(trained, seeds, usable, strict=True)
    ]
    folder.save_members(rows)
    scores = _scores(ensemble, data)
    metrics = {name.removeprefix("test_"): float(value) for name, value in scores.items()}
    notes = _pictures(trained, seeds, ensemble, data, folder) if not options.no_plots else []
    interrupted = any(each.history.interrupted for each in trained)
    history = {
        "members": [each.history.to_dict() for each in trained],
        "interrupted": interrupted,
        "stopped_by": "",
    }
    folder.save_history(history, metrics)
    if not interrupted:
        folder.end()
    notes.append(f"saved in {folder.path}: {', '.join(folder.files())}")
    if not options.quiet:
        print("\n".join(["", _table(rows), "", *notes]))
    for each, seed in zip(trained, seeds, strict=True):
        if each.history.error is not None:
            print(f"nnbackend: note: the network of seed {seed} is left out: {outcome(each)}", file=sys.stderr)
    print(f"test accuracy {percent(metrics['accuracy'])} ({count_rows(data, len(data.y_test))})", flush=True)
    if interrupted:
        left = f"the {len(ensemble)} networks so far are in {folder.path}"
        print(f"nnbackend: interrupted; {left}; {resume_hint(folder)}", file=sys.stderr)
        return INTERRUPTED
    return 0


def _scores(model: Model, data: Dataset) -> dict[str, Any]:
    """Accuracy of the predicted classes, and loss, of the test rows."""
    right = accuracy(data.y_test, model.predict_classes(data.x_test))
    return {"test_accuracy": right, "test_loss": model.evaluate(data.x_test, data.y_test)["loss"]}


def _table(rows: Sequence[dict[str, Any]]) -> str:
    """The networks alone, for people."""
    table = [["seed", "epochs", "test accuracy alone"]]
    for row in rows:
        right = row["test_accuracy"]
        table.append([str(row["seed"]), str(row["epochs"]), "-" if right == "" else percent(right)])
    return aligned(table, right=range(3))


def _pictures(
    trained: Sequence[Trained], seeds: Sequence[int], ensemble: Ensemble, data: Dataset, folder: RunFolder
) -> list[str]:
    from nnbackend.plotting.many import plot_many

    matrix = confusion_matrix(data.y_test, ensemble.predict_classes(data.x_test), len(data.classes))
    labels = [f"seed {seed}" for seed in seeds]
    missing = folder.save_pictures(lambda: plot_many([each.history for each in trained], labels), matrix, data.classes)
    return [f"no pictures: {missing}"] if missing else []
