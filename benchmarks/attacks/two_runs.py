"""Start two commands in one folder at nearly the same time."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from benchmarks.attacks.runs import FORCED, RUN, command, incomplete_files, results, small_data
from benchmarks.attacks.system import MEMORY

__all__ = ["PAIRS", "start_two"]

#: The commands that are started together; RUN is the folder.
PAIRS: dict[str, tuple[Sequence[str], Sequence[str]]] = {
    "train and train": ((*RUN, "--out", "RUN"), (*RUN, "--seed", "9", "--out", "RUN")),
    "train and train --force": ((*RUN, "--out", "RUN"), (*FORCED, "--out", "RUN")),
    "train and train --resume": ((*RUN, "--out", "RUN"), ("train", "--resume", "RUN", "--no-plots")),
}

_REASONS = ("is in use: ", "already holds a run", "holds no run")

#: Longest time between the starts, in seconds; a run takes about as long.
_APART = 0.15


def start_two(name: str, count: int, seed: int) -> tuple[Counter[str], list[str]]:
    """Start a pair of commands several times.

    Returns
    -------
    outcomes : Counter
        How the commands ended: "one refused", "one after the other".
    wrong : list of str
        Other outcomes, incomplete files, or other results than those of one of the two alone.
    """
    chance = random.Random(f"{seed} {name}")
    outcomes: Counter[str] = Counter()
    wrong: list[str] = []
    with small_data(), tempfile.TemporaryDirectory(dir=MEMORY) as parent:
        alone = []
        for number, arguments in enumerate(PAIRS[name][:1] if "resume" in name else PAIRS[name]):
            folder = Path(parent, f"alone-{number}")
            command(*_in(folder, arguments))
            alone.append(results(folder))
        for number in range(count):
            folder = Path(parent, f"run-{number}")
            waits = chance.sample((0.0, chance.uniform(0, _APART)), 2)
            both = [
                _start(_in(folder, arguments), wait, Path(parent, f"said-{place}"))
                for place, (arguments, wait) in enumerate(zip(PAIRS[name], waits, strict=True))
            ]
            codes = [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in both]
            said = [Path(parent, f"said-{place}").read_text() for place in range(2)]
            where = f"{name}, {waits[0]:.3f} and {waits[1]:.3f} s: {codes} {said}"
            refused = [text for code, text in zip(codes, said, strict=True) if code == 2]
            if any(code not in (0, 2) for code in codes) or len(refused) == 2:
                wrong.append(where)
            elif any(text.count("\n") != 1 or not any(reason in text for reason in _REASONS) for text in refused):
                wrong.append(f"refused for another reason: {where}")
            elif results(folder) not in alone:
                wrong.append(f"other results: {where}")
            wrong += [f"{text}: {where}" for text in incomplete_files(folder)]
            outcomes["one refused" if refused else "one after the other"] += 1
            shutil.rmtree(folder)
    return outcomes, wrong


def _in(folder: Path, arguments: Sequence[str]) -> list[str]:
    return [str(folder) if word == "RUN" else word for word in arguments]


def _start(arguments: Sequence[str], wait: float, said: Path) -> int:
    """Start a command in a forked process, which writes its errors to a file."""
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        time.sleep(wait)
        code, errors = command(*arguments)
        said.write_text(errors)
    finally:
        os._exit(code)
