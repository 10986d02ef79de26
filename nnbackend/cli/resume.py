"""``nnbackend train --resume``: restore the options of a run from its folder."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from nnbackend.cli.run_folder import LAST, MODEL, RunFolder, read_configuration
from nnbackend.cli.text import percent
from nnbackend.cli.train_options import add_options
from nnbackend.errors import InvalidInputError, NNBackendError, shown
from nnbackend.presets import LISTS, Recipe
from nnbackend.support.checks import number, positive_integer, real_dtype, seed_number
from nnbackend.training.checkpoints.fingerprint import optimizer_text

__all__ = ["earlier_optimizers", "find_run", "recipe_of"]

#: Options that may be given again, because they do not affect the training, or only how long it is.
_ALLOWED = (
    "resume",
    "any_target",
    "epochs",
    "data_dir",
    "no_download",
    "no_plots",
    "quiet",
    "checkpoint_minutes",
    "timeout",
    "run",
)

#: The numbers of epochs that a run had before it got more, in its configuration.
_EARLIER = "earlier_epochs"
_MOST_EARLIER = 100

#: Errors of a configuration that nnbackend did not write.
_NOT_WHAT_WAS_WRITTEN = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError)


def find_run(
    options: argparse.Namespace, held: ExitStack
) -> tuple[RunFolder, tuple[argparse.Namespace, dict[str, Any], str]]:
    """The run that ``--resume`` names, locked unless it is finished.

    Parameters
    ----------
    options : Namespace
    held : ExitStack
        Receives the lock.

    Returns
    -------
    folder : RunFolder
    found : tuple
        The options of the run, its configuration, and a message if it is finished, otherwise an empty string.

    Raises
    ------
    InvalidInputError
        There is no such run, it cannot be read, or options were given that the run defines.
    FolderInUseError
        A process is training there.
    """
    restored, configuration = _resumed(options)
    folder = RunFolder.at(restored.out, replace=True)
    message = _finished(folder, configuration, options.epochs)
    if message and folder.is_tidy():
        return folder, (restored, configuration, message)
    held.enter_context(folder.lock())
    # Again, because another process may have trained there until now.
    before = read_configuration(folder.path / MODEL)
    restored, configuration = _resumed(options)
    message = _finished(folder, configuration, options.epochs)
    if message:
        folder.end()
    else:
        folder.configure(configuration, before)
    return folder, (restored, configuration, message)


def _resumed(options: argparse.Namespace) -> tuple[argparse.Namespace, dict[str, Any]]:
    """The options and the configuration of the run, with the epochs that were asked for."""
    parser = argparse.ArgumentParser(add_help=False)
    add_options(parser)
    for name, value in vars(parser.parse_args([])).items():
        if name not in _ALLOWED and getattr(options, name) != value:
            raise InvalidInputError(
                f"--{name.replace('_', '-')} cannot be combined with --resume, which restores all options of the run "
                "except --epochs; leave it out, or start another run"
            )
    path = Path(options.resume).expanduser()
    configuration = read_configuration(path / MODEL)
    if not configuration:
        raise InvalidInputError(f"--resume: {options.resume} holds no run of nnbackend train")
    if "table" in configuration:
        raise InvalidInputError(
            f"--resume: {options.resume} was trained on a table, and keeps no state to resume from; train again"
        )
    try:
        restored = {
            "dataset": _text(configuration["dataset"]),
            "data_dir": options.data_dir or _text_or_none(configuration.get("data_dir")),
            "validation": number("validation", configuration["validation"], low=0, high=1, below=True),
            "preset": _text_or_none(configuration["preset"]),
            "members": positive_integer("members", configuration.get("members", 1)),
            "seed": seed_number(configuration["seed"]),
            "dtype": real_dtype(_text(configuration["dtype"])).name,
            "backend": _text(configuration["backend"]),
            "out": str(path),
        }
        recipe = recipe_of(configuration)
        recipe.check()
        earlier_optimizers(configuration)
    except _NOT_WHAT_WAS_WRITTEN as error:
        reason = str(error) if isinstance(error, NNBackendError) else shown(error)
        raise InvalidInputError(
            f"--resume: the config.json in {options.resume} was not written by this version of nnbackend train "
            f"({reason})"
        ) from None
    restored["epochs"] = None
    return argparse.Namespace(**{**vars(options), **restored}), _longer(configuration, recipe.epochs, options.epochs)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{shown(value)} is not a text")
    return value


def _text_or_none(value: Any) -> str | None:
    return None if value is None else _text(value)


def _longer(configuration: dict[str, Any], before: int, epochs: int | None) -> dict[str, Any]:
    """The configuration with more epochs."""
    if epochs is None or positive_integer("epochs", epochs) == before:
        return configuration
    if epochs < before:
        raise InvalidInputError(
            f"--epochs: the run has {before} epochs, and --resume can only add more, received {epochs}"
        )
    if configuration.get("members", 1) > 1:
        raise InvalidInputError("--epochs: the networks of --members cannot be trained on; start another run")
    earlier = [*configuration.get(_EARLIER, []), before]
    return {**configuration, "recipe": {**configuration["recipe"], "epochs": epochs}, _EARLIER: earlier}


def recipe_of(configuration: dict[str, Any]) -> Recipe:
    """The recipe in a run's configuration."""
    recipe = configuration["recipe"]
    lists = {name: tuple(recipe["hidden"] if name == "hidden" else recipe.get(name, ())) for name in LISTS}
    return Recipe(**{**recipe, **lists})


def earlier_optimizers(configuration: dict[str, Any]) -> list[str]:
    """The optimizers that the run had with fewer epochs, as `fingerprint.optimizer_text` has them."""
    recipe = recipe_of(configuration)
    return [
        optimizer_text(recipe.changed(epochs=epochs).make_optimizer())
        for epochs in list(configuration.get(_EARLIER, []))
    ]


def _finished(folder: RunFolder, configuration: dict[str, Any], epochs: int | None) -> str:
    """A message with the results of a finished run; empty if the run is not finished.

    Parameters
    ----------
    folder : RunFolder
    configuration : dict
    epochs : int or None
        The option.

    Raises
    ------
    InvalidInputError
        The history cannot be read, or the run cannot be continued for the epochs that were asked for.
    """
    history = folder.read_history()
    if not history:
        return ""
    try:
        interrupted, stopped_by = history["interrupted"], _text(history.get("stopped_by", ""))
        done = max(len(each["epochs"]) for each in history.get("members", [history]))
        accuracy = number("test accuracy", history["test"]["accuracy"])
    except _NOT_WHAT_WAS_WRITTEN as error:
        raise InvalidInputError(
            f"{folder.path / 'history.json'} was not written by nnbackend train ({shown(error)}); remove it"
        ) from None
    wanted = recipe_of(configuration).epochs
    # Checkpoints are removed at the end: the run was killed before, or has begun to train on.
    if interrupted or folder.has_checkpoints():
        return ""
    # The networks of an ensemble are never trained on, even if all have stopped early.
    if done >= wanted or stopped_by or "members" in history:
        if epochs is not None and epochs > done:
            by = stopped_by or "the callbacks of its networks"
            raise InvalidInputError(
                f"--epochs: {folder.path} was ended after {done} epochs by {by}, and more epochs do not change that; "
                "start another run"
            )
        return (
            f"{folder.path} is finished: {done} epochs, test accuracy {percent(accuracy)}; there is nothing to resume"
        )
    if folder.is_search():
        raise InvalidInputError(
            f"--epochs: {folder.path} was made by nnbackend search, which keeps no state to train on from; train the "
            "network again, with the command that the search printed and more --epochs"
        )
    if not folder.has_last_state():
        raise InvalidInputError(
            f"--epochs: {folder.path} has no {LAST} to train on from, because an earlier version of nnbackend "
            "finished it; start another run"
        )
    return ""
