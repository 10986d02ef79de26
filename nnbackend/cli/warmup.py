"""``nnbackend warmup``."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

from nnbackend.backends.numba.cache import CacheState, cache_state
from nnbackend.backends.registry import get_backend
from nnbackend.cli.warmup_networks import rehearsals

__all__ = ["DESCRIPTION", "add_options", "run"]

DESCRIPTION = """\
Compile everything that the Numba backend may need, and keep it on disk, so
that programs start training at once.

Tiny networks are trained that together reach every operation. What was kept
before is not compiled again; another processor, and another version of Numba
or of nnbackend, needs kernels of its own."""

_DTYPES = ("float32", "float64")
_LINE = "  {:8} {:9} {:22} {:8} {:9}"
_CACHE_VARIABLE = "NUMBA_CACHE_DIR"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--dtype",
        choices=(*_DTYPES, "both"),
        default="both",
        help="data type of the networks that will be trained (default: both)",
    )


def run(options: argparse.Namespace) -> int:
    """Compile what is missing; 0, or an error if it cannot be kept."""
    backend = get_backend("numba")
    print(f"kernels are kept in {_folder()}")
    print(_LINE.format("dtype", "executor", "loss", "data", "optimizer") + " seconds  compiled")

    def everything() -> None:
        for dtype in _DTYPES if options.dtype == "both" else (options.dtype,):
            for one in rehearsals(backend, dtype):
                # Before it begins, for it may take a minute.
                print(_LINE.format(dtype, one.executor, one.loss, one.data, one.optimizer), end="", flush=True)
                work, seconds = _measured(one.run)
                print(f"{seconds:8.2f}  {work.compiled:8}", flush=True)

    work, seconds = _measured(everything)
    if work.compiled:
        print(f"{work.compiled} kernels compiled in {seconds:.1f} s; from now on they are loaded")
    else:
        print(f"nothing to compile: every kernel was there, and all were loaded in {seconds:.1f} s")
    return 0


def _measured(function: Callable[[], None]) -> tuple[CacheState, float]:
    """What a function had compiled and loaded, and the seconds it took."""
    before, begin = cache_state(), time.perf_counter()
    function()
    after, seconds = cache_state(), time.perf_counter() - begin
    return CacheState(after.folder, after.compiled - before.compiled, after.loaded - before.loaded), seconds


def _folder() -> Path:
    """Where Numba keeps what it compiles.

    Raises
    ------
    OSError
        Nowhere, or not where it was told to. Numba itself says nothing of that.
    """
    folder, wanted = cache_state().folder, os.environ.get(_CACHE_VARIABLE)
    if wanted and (folder is None or not folder.resolve().is_relative_to(Path(wanted).resolve())):
        reason = f"the folder that {_CACHE_VARIABLE} names, {wanted}, cannot be written. Name another"
    elif folder is None:
        reason = f"no folder for them can be written. Set {_CACHE_VARIABLE} to one that can"
    else:
        return folder
    raise OSError(f"compiled kernels cannot be kept: {reason}")
