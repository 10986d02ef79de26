"""``nnbackend train --resume``: a run's folder says what it was."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from nnbackend.cli.run_folder import MODEL, RunFolder, read_configuration
from nnbackend.cli.text import percent
from nnbackend.cli.train_options import add_options
from nnbackend.errors import InvalidInputError
from nnbackend.presets import Recipe

__all__ = ["finished", "recipe_of", "resumed"]

#: What may be said anew: it changes nothing in the training.
_FREE = ("resume", "data_dir", "no_download", "no_plots", "quiet", "checkpoint_minutes", "timeout", "run")


def resumed(options: argparse.Namespace) -> tuple[argparse.Namespace, dict[str, Any]]:
    """The options of the run that ``--resume`` names, and its configuration.

    Raises
    ------
    InvalidInputError
        There is no such run, or other options were given, which the run has already.
    """
    parser = argparse.ArgumentParser(add_help=False)
    add_options(parser)
    for name, value in vars(parser.parse_args([])).items():
        if name not in _FREE and getattr(options, name) != value:
            raise InvalidInputError(
                f"--{name.replace('_', '-')} does not go with --resume, which takes everything from the run; leave it "
                "out, or begin another run"
            )
    path = Path(options.resume).expanduser()
    configuration = read_configuration(path / MODEL)
    if not configuration:
        raise InvalidInputError(f"--resume: {options.resume} holds no run that nnbackend train began")
    try:
        taken = {
            "dataset": str(configuration["dataset"]),
            "data_dir": options.data_dir or configuration.get("data_dir"),
            "validation": float(configuration["validation"]),
            "preset": configuration["preset"],
            "seed": configuration["seed"],
            "dtype": str(configuration["dtype"]),
            "backend": str(configuration["backend"]),
            "out": str(path),
        }
        recipe_of(configuration)
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidInputError(
            f"--resume: the config.json in {options.resume} is none of nnbackend train, or an older one's ({error!r})"
        ) from None
    return argparse.Namespace(**{**vars(options), **taken}), configuration


def recipe_of(configuration: dict[str, Any]) -> Recipe:
    """The recipe that a run's configuration has."""
    recipe = configuration["recipe"]
    return Recipe(**{**recipe, "hidden": tuple(recipe["hidden"])})


def finished(folder: RunFolder) -> str:
    """How a run ended that was trained to its end; empty for one that was not."""
    try:
        history = json.loads((folder.path / "history.json").read_text())
        ended = not history["interrupted"]
        metrics = f"{len(history['epochs'])} epochs, test accuracy {percent(history['test']['accuracy'])}"
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return f"{folder.path} is finished: {metrics}; there is nothing to go on with" if ended else ""
