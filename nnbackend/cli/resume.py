"""``nnbackend train --resume``: restore the options of a run from its folder."""

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

#: Options that may be given again, because they do not affect the training.
_ALLOWED = ("resume", "data_dir", "no_download", "no_plots", "quiet", "checkpoint_minutes", "timeout", "run")


def resumed(options: argparse.Namespace) -> tuple[argparse.Namespace, dict[str, Any]]:
    """The options and the configuration of the run that ``--resume`` names.

    Raises
    ------
    InvalidInputError
        There is no such run, or options were given that the run defines.
    """
    parser = argparse.ArgumentParser(add_help=False)
    add_options(parser)
    for name, value in vars(parser.parse_args([])).items():
        if name not in _ALLOWED and getattr(options, name) != value:
            raise InvalidInputError(
                f"--{name.replace('_', '-')} cannot be combined with --resume, which restores all options of the run; "
                "leave it out, or start another run"
            )
    path = Path(options.resume).expanduser()
    configuration = read_configuration(path / MODEL)
    if not configuration:
        raise InvalidInputError(f"--resume: {options.resume} holds no run of nnbackend train")
    try:
        restored = {
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
            f"--resume: the config.json in {options.resume} was not written by this version of nnbackend train "
            f"({error!r})"
        ) from None
    return argparse.Namespace(**{**vars(options), **restored}), configuration


def recipe_of(configuration: dict[str, Any]) -> Recipe:
    """The recipe in a run's configuration."""
    recipe = configuration["recipe"]
    lists = {"hidden": tuple(recipe["hidden"]), "filters": tuple(recipe.get("filters", ()))}
    return Recipe(**{**recipe, **lists})


def finished(folder: RunFolder) -> str:
    """A message with the results of a finished run; empty if the run is not finished."""
    try:
        history = json.loads((folder.path / "history.json").read_text())
        ended = not history["interrupted"]
        metrics = f"{len(history['epochs'])} epochs, test accuracy {percent(history['test']['accuracy'])}"
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return f"{folder.path} is finished: {metrics}; there is nothing to resume" if ended else ""
