"""End a process at its n-th operation on files, for every n, and continue with what it left."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nnbackend as nn
from benchmarks.attacks.runs import FORCED, RUN, command, fitted, incomplete_files, results, small_data
from benchmarks.attacks.system import KILLED, MEMORY, Operations, in_child

__all__ = ["WORKS", "Work", "kill_at_every_write"]


@dataclass(frozen=True)
class Work:
    """Something that writes files, and how to go on after it was killed.

    Attributes
    ----------
    begin : callable
        Prepares a folder.
    work : callable
        Works in the folder, and returns an exit code.
    go_on : callable
        Continues, and returns the results.
    tidies : bool
        Whether continuing removes incomplete temporary files.
    """

    begin: Callable[[Path], object]
    work: Callable[[Path], int | None]
    go_on: Callable[[Path], Any]
    tidies: bool = True


def kill_at_every_write(work: Work, every: int = 1, first: int = 0) -> tuple[int, list[str]]:
    """Kill the work at one operation after the other.

    Parameters
    ----------
    work : Work
    every : int
        1 tries all operations, 2 every other one.
    first : int
        The number of the first operation to be tried.

    Returns
    -------
    tried : int
    wrong : list of str
        What was left incomplete, or ended with other results.
    """
    with small_data(), tempfile.TemporaryDirectory(dir=MEMORY) as parent:
        start, number, tried = Path(parent, "start"), first, 0
        start.mkdir()
        work.begin(start)
        allowed = [_results(work, _copy(start, Path(parent, "whole")), finish=True)]
        # Killed before it has begun, work on existing results may have kept them.
        allowed.append(_results(work, _copy(start, Path(parent, "untouched")), finish=False))
        wrong: list[str] = []
        while True:
            folder = _copy(start, Path(parent, f"killed-{number}"))
            operations = Operations(lambda now, name, number=number: now == number)
            code = in_child(lambda folder=folder: work.work(folder), operations)
            if code != KILLED:
                wrong += [] if code == 0 else [f"without a kill it ended with {code}"]
                return tried, wrong
            tried += 1
            wrong += [f"after {number} operations: {text}" for text in incomplete_files(folder)]
            try:
                if work.go_on(folder) not in allowed:
                    wrong.append(f"after {number} operations: other results")
                left = folder.rglob(".nnbackend-*") if work.tidies else ()
                wrong += [f"after {number} operations: {path.name} is left" for path in left]
            except Exception as error:
                wrong.append(f"after {number} operations: {type(error).__name__}: {error}")
            shutil.rmtree(folder)
            number += every


def _copy(start: Path, folder: Path) -> Path:
    return Path(shutil.copytree(start, folder))


def _results(work: Work, folder: Path, finish: bool) -> Any:
    if finish:
        code = work.work(folder)
        assert not code, code
    return work.go_on(folder)


def _nothing(folder: Path) -> None:
    pass


def _finished(folder: Path) -> None:
    assert command(*RUN, "--out", folder / "run")[0] == 0


def _killed(folder: Path) -> None:
    """A run that was killed in its second epoch."""
    number = 0
    while not list(folder.glob("run/checkpoints/*6.safetensors")):
        shutil.rmtree(folder / "run", ignore_errors=True)
        number += 10
        operations = Operations(lambda now, name, number=number: now == number)
        in_child(lambda: command(*RUN, "--out", folder / "run")[0], operations)


def _resumed(folder: Path) -> Any:
    """Resume a run or, if it had not begun, start it."""
    run = folder / "run"
    arguments = ("train", "--resume", run, "--no-plots") if (run / "config.json").exists() else (*RUN, "--out", run)
    code, errors = command(*arguments)
    if code:
        raise RuntimeError(errors)
    return results(run)


def _run(*arguments: object) -> Callable[[Path], int]:
    return lambda folder: command(*(folder / "run" if word == "RUN" else word for word in arguments))[0]


def _network(seed: int) -> nn.Network:
    return nn.Network([nn.Dense(20)], 20, "numpy", seed=seed)


def _saved(folder: Path) -> bytes:
    """The model in a folder, after saving another one beside it."""
    return nn.Network.load(folder / "model.safetensors", "numpy").get_weights()["layers.0.weight"].tobytes()


def _go_on_fitting(folder: Path) -> Any:
    found = fitted(folder)
    assert not incomplete_files(folder)
    return found, _best(folder), (folder / "history.csv").read_text().count("\n")


def _best(folder: Path) -> bytes:
    return nn.Network.load(folder / "best.safetensors", "numpy").get_weights()["layers.0.weight"].tobytes()


#: By name.
WORKS = {
    "train": Work(_nothing, _run(*RUN, "--out", "RUN"), _resumed),
    "train --force": Work(_finished, _run(*FORCED, "--out", "RUN"), _resumed),
    "train --resume": Work(_killed, _run("train", "--resume", "RUN", "--no-plots"), _resumed),
    "train --resume --epochs": Work(
        _finished, _run("train", "--resume", "RUN", "--epochs", "3", "--no-plots"), _resumed
    ),
    "Network.save": Work(
        lambda folder: _network(1).save(folder / "model.safetensors"),
        lambda folder: _network(2).save(folder / "model.safetensors"),
        _saved,
        tidies=False,
    ),
    "Checkpoint, ModelCheckpoint, CSVLogger": Work(
        _nothing, lambda folder: fitted(folder) and 0, _go_on_fitting, tidies=False
    ),
}
