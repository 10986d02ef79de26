"""``nnbackend warmup``."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from nnbackend.backends.numba.cache import CacheState, cache_state
from nnbackend.backends.registry import get_backend
from nnbackend.cli.warmup_networks import WarmupNetwork, warmup_networks
from nnbackend.errors import InvalidInputError

__all__ = ["DESCRIPTION", "add_options", "run"]

DESCRIPTION = """\
Compile all kernels of the Numba backend and cache them on disk, so that
programs start training at once.

This trains tiny networks that together use every operation. Cached kernels
are not compiled again; another version of Numba or nnbackend needs its own,
and so does another processor, unless --target names a generic one: a process
that finds no kernels for exactly its processor uses the nearest target's."""

_DTYPES = ("float32", "float64")
_LINE = "  {:8} {:9} {:22} {:8} {:9}"
_CACHE_VARIABLE, TARGET_VARIABLE = "NUMBA_CACHE_DIR", "NNBACKEND_TARGET"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--dtype",
        choices=(*_DTYPES, "both"),
        default="both",
        help="data type of the networks that will be trained (default: both)",
    )
    parser.add_argument(
        "--target",
        metavar="CPU",
        help="compile for a generic processor, to ship the cache folder to other machines: x86-64-v2, x86-64-v3, "
        "x86-64-v4 or neoverse-n1; this machine must be able to run the code (default: exactly this processor)",
    )


def run(options: argparse.Namespace) -> int:
    """Compile what is missing and return 0.

    Raises
    ------
    BackendUnavailableError
        Numba cannot run here.
    InvalidInputError
        There is no such target, this machine cannot run its code, or this process compiles for another one already.
    OSError
        The cache cannot be written.
    """
    if options.target is not None:
        _check_target(options.target)
        # For the other process that compiles, too.
        os.environ[TARGET_VARIABLE] = options.target
    backend = get_backend("numba")
    if options.target not in (None, backend.target):
        raise InvalidInputError(
            f"--target {options.target} needs a new process; this one compiles for {backend.target}"
        )
    # Imported here because it needs Numba's packages.
    from nnbackend.backends.numba.prediction import compile_for_threads

    print(f"kernels for {backend.target} are cached in {_folder()}")
    print(_LINE.format("dtype", "executor", "loss", "data", "optimizer") + " seconds  compiled")

    def train(network: WarmupNetwork) -> None:
        network.run()
        compile_for_threads()

    def everything() -> None:
        for dtype in _DTYPES if options.dtype == "both" else (options.dtype,):
            for network in warmup_networks(backend, dtype):
                # Print first: the training may take a minute.
                line = _LINE.format(dtype, network.executor, network.loss, network.data, network.optimizer)
                print(line, end="", flush=True)
                work, seconds = _measured(partial(train, network))
                print(f"{seconds:8.2f}  {work.compiled:8}", flush=True)

    work, seconds = _measured(everything)
    if work.compiled:
        print(f"{work.compiled} kernels compiled in {seconds:.1f} s; from now on they are loaded from the cache")
    else:
        print(f"nothing to compile: all kernels were loaded from the cache in {seconds:.1f} s")
    return 0


def _check_target(name: str) -> None:
    """Refuse a target that this machine cannot run, by the name of the option."""
    try:
        # Imported here because it needs Numba's packages.
        from nnbackend.backends.numba.targets import unusable_target
    except ImportError:
        return  # `get_backend` says what is missing.
    unusable = unusable_target(name)
    if unusable:
        raise InvalidInputError(f"--target {name} {unusable[0]}. {unusable[1]}")


def _measured(function: Callable[[], None]) -> tuple[CacheState, float]:
    """How many kernels a function compiled and loaded, and the seconds it took."""
    before, begin = cache_state(), time.perf_counter()
    function()
    after, seconds = cache_state(), time.perf_counter() - begin
    return CacheState(after.folder, after.compiled - before.compiled, after.loaded - before.loaded), seconds


def _folder() -> Path:
    """Numba's cache folder.

    Raises
    ------
    OSError
        No folder, or not the requested one, can be written. Numba itself does not report this.
    """
    folder, wanted = cache_state().folder, os.environ.get(_CACHE_VARIABLE)
    if wanted and (folder is None or not folder.resolve().is_relative_to(Path(wanted).resolve())):
        reason = f"the folder {wanted} in {_CACHE_VARIABLE} is not writable. Choose another"
    elif folder is None:
        reason = f"no cache folder is writable. Set {_CACHE_VARIABLE} to a writable folder"
    else:
        return folder
    raise OSError(f"compiled kernels cannot be cached: {reason}")
