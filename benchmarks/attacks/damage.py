"""Damage a file of a run that was killed, and resume it."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections import Counter
from pathlib import Path

from benchmarks.attacks.runs import RUN, command, results, small_data
from benchmarks.attacks.system import KILLED, MEMORY, Operations, in_child

__all__ = ["damage_files"]


def damage_files(count: int, seed: int) -> tuple[Counter[str], list[str]]:
    """Damage files at random.

    Returns
    -------
    outcomes : Counter
        Runs that ended with the same results, and those that were refused.
    wrong : list of str
        Other results, or not one clear error.
    """
    chance = random.Random(seed)
    outcomes: Counter[str] = Counter()
    wrong: list[str] = []
    with small_data(), tempfile.TemporaryDirectory(dir=MEMORY) as parent:
        command(*RUN, "--out", Path(parent, "whole"))
        whole = results(Path(parent, "whole"))
        start = _killed(Path(parent, "start"))
        for number in range(count):
            folder = Path(shutil.copytree(start, Path(parent, f"{number}")))
            path = chance.choice(sorted(path for path in folder.rglob("*") if path.is_file()))
            how = damage(path, chance)
            where = f"{path.relative_to(folder)} {how}"
            ended, errors = command("train", "--resume", folder, "--no-plots")
            if ended == 0 and results(folder) == whole:
                outcomes["the same results"] += 1
            elif ended == 2 and errors.startswith("nnbackend: error: ") and errors.count("\n") == 1:
                outcomes["one error"] += 1
            else:
                wrong.append(f"{where}: exit code {ended}, {errors!r}")
            shutil.rmtree(folder)
    return outcomes, wrong


def _killed(folder: Path) -> Path:
    """A run with two checkpoints."""
    number = 20
    while True:
        operations = Operations(lambda now, name, number=number: now == number)
        code = in_child(lambda: command(*RUN, "--out", folder)[0], operations)
        assert code == KILLED
        if len(list(folder.glob("checkpoints/*.safetensors"))) == 2:
            return folder
        shutil.rmtree(folder)
        number += 1


def damage(path: Path, chance: random.Random) -> str:
    """Damage a file in one of several ways, and return which."""
    contents = bytearray(path.read_bytes())
    how = chance.choice(("truncated", "extended", "with other bytes", "with zeros", "emptied"))
    at = chance.randrange(len(contents) + 1)
    if how == "truncated":
        del contents[at:]
    elif how == "extended":
        contents += chance.randbytes(chance.choice((1, 100)))
    elif how == "with other bytes":
        for _ in range(chance.choice((1, 1, 10))):
            if contents:
                contents[chance.randrange(len(contents))] ^= 1 << chance.randrange(8)
    elif how == "with zeros":
        contents[at : at + 512] = bytes(len(contents[at : at + 512]))
    else:
        contents.clear()
    path.write_bytes(contents)
    return how
