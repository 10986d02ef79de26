"""Compiles functions in another process, while this one compiles others.

Threads would not help, because Numba compiles one function at a time. The other process writes to the cache on disk,
from which this one loads. If it fails, this one compiles itself.

It is a new Python, not a copy made by `multiprocessing`, which would run a user's script again if that is not guarded.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from nnbackend.backends.numba.targets import NATIVE, TARGET_VARIABLE, TARGETS, selected
from nnbackend.support.cores import usable_cores
from nnbackend.support.fork_lock import ForkLock
from nnbackend.support.surroundings import is_interactive

__all__ = ["begin", "tell", "wait_for"]

_log = logging.getLogger("nnbackend")

#: Before the path is set only what is built in may be imported: a file in the working directory may be called json.py.
_PROGRAM = """
import sys
sys.path[:] = {path!r}
import json
from nnbackend.backends.numba import jobs
jobs.run(json.loads(sys.argv[1]))
"""

#: Seconds after the start of the other process after which this one no longer waits.
_PATIENCE = 60.0

_lock = ForkLock()
#: The other process, the id of the one that started it (a fork of that one must not wait), and the time of its start.
_helper: tuple[subprocess.Popen[bytes], int, float] | None = None
_told = False


def begin(jobs: Sequence[Any]) -> None:
    """Start to do these jobs of `jobs.py`, one after the other, if another process can run at the same time."""
    global _helper
    with _lock:
        if _is_running() or not jobs or not _is_possible():
            return
        command = [sys.executable, "-c", _PROGRAM.format(path=_path()), json.dumps(jobs)]
        try:
            # Ctrl-C does not reach another session: the next run loads what this process has compiled.
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                # Not its own choice, which depends on what is on disk.
                env=_environment(),
            )
            _helper = process, os.getpid(), time.monotonic()
            # Otherwise it would stay in the table of processes after its end.
            threading.Thread(target=process.wait, name="nnbackend-compiler", daemon=True).start()
        except (OSError, RuntimeError) as error:
            # No process, or no thread: there are too many, or this Python is about to end.
            _log.debug("cannot compile in another process, or not wait for it in a thread: %s", error)


def wait_for(is_done: Callable[[], bool]) -> None:
    """Wait until something is done, or the other process, if there is one, has ended."""
    while _is_running() and _helper is not None and time.monotonic() < _helper[2] + _PATIENCE and not is_done():
        time.sleep(0.01)


def _path() -> list[str]:
    """Where the other process looks for modules.

    Without relative entries, because the working directory may have changed since this package was imported from one,
    and without those that are no strings, which Python ignores.
    """
    entries = [entry for entry in sys.path if isinstance(entry, str) and os.path.isabs(entry)]
    folder = str(Path(__file__).absolute().parents[3])
    return entries if folder in entries else [folder, *entries]


def _environment() -> dict[str, str]:
    """The environment of the other process, with the target of this one."""
    target = selected()
    return {**os.environ, TARGET_VARIABLE: target if target in TARGETS else NATIVE}


def _is_running() -> bool:
    return _helper is not None and _helper[1] == os.getpid() and _helper[0].poll() is None


def tell(seconds: float, folder: str | None) -> None:
    """Say once, to people, that something is being compiled, and about how long it takes."""
    global _told
    if _told or seconds < 1 or not is_interactive():
        return
    _told = True
    later = f"; later runs load the result from {folder}" if folder is not None else ""
    print(f"nnbackend compiles this step for your CPU, which takes about {seconds:.0f} s{later}", file=sys.stderr)


def _is_possible() -> bool:
    """Whether there are two cores, and a Python to start: other programs may contain one."""
    is_python = bool(sys.executable) and Path(sys.executable).name.lower().startswith("python")
    return usable_cores() > 1 and is_python and not getattr(sys, "frozen", False)
