"""Fill the disk at the n-th operation on files, for some operations or for good, and continue when there is space."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from pathlib import Path

from benchmarks.attacks.runs import RUN, command, incomplete_files, results, small_data
from benchmarks.attacks.system import MEMORY, Operations

__all__ = ["fill_the_disk"]

#: Operations that need space on the disk.
_NEED_SPACE = ("open", "write", "mkdir", "replace", "fsync", "ftruncate")

#: Operations that fail one after the other, where the disk has space again.
_LENGTHS = {"for a moment": 3, "for good": 1 << 30}


def fill_the_disk(code: int, length: str, every: int = 1) -> tuple[int, list[str]]:
    """Let operations fail from the n-th one on, for many n.

    Parameters
    ----------
    code : int
        Of `errno`.
    length : str
        "for a moment" or "for good".
    every : int
        1 tries all n, 2 every other one.

    Returns
    -------
    tried : int
    wrong : list of str
        What was left incomplete, ended with other results or without one clear error.
    """
    with small_data(), tempfile.TemporaryDirectory(dir=MEMORY) as parent:
        command(*RUN, "--out", Path(parent, "whole"))
        whole = results(Path(parent, "whole"))
        wrong: list[str] = []
        tried, number, failed = 0, 0, True
        while failed:
            folder, refused = Path(parent, f"{number}"), []

            def act(now: int, name: str, number: int = number, refused: list[str] = refused) -> bool:
                if number <= now < number + _LENGTHS[length] and name in _NEED_SPACE:
                    refused.append(name)
                    raise OSError(code, os.strerror(code))
                return False

            with Operations(act).observed():
                ended, errors = command(*RUN, "--out", folder)
            failed = bool(refused)
            tried += failed
            where = f"{errno.errorcode[code]} {length} after {number} operations"
            if ended not in (0, 2) or errors.count("\n") != (1 if ended else 0):
                wrong.append(f"{where}: exit code {ended}, {errors!r}")
            if ended and str(folder) not in errors:
                wrong.append(f"{where}: an error that does not name the folder: {errors!r}")
            if folder.exists():
                wrong += [f"{where}: {text}" for text in incomplete_files(folder)]
            resumed = ("train", "--resume", folder, "--no-plots")
            ended, errors = command(*(resumed if (folder / "config.json").exists() else (*RUN, "--out", folder)))
            if ended or results(folder) != whole:
                wrong.append(f"{where}: other results, {errors!r}")
            shutil.rmtree(folder)
            number += every
        return tried, wrong
