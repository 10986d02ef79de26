"""The first run: what a user waits for before training is fast.

    python -m benchmarks.first_run [fit] [shipped] [train] [import] [--rounds 1] [--store FILE]

Each row is a new process. "First epoch" is 784-200-80-10 with Adam on 60,000 rows of bytes, timed from the import of
nnbackend, after NumPy and the rows, to the end of the epoch. "Then" is another `fit` in the process that found nothing
compiled: what its first ten steps take longer than the next ten. "Shipped code" loads kernels for a generic CPU
(``--target``), as after ``nnbackend warmup --target``. "nnbackend train" is a command as a whole, with one epoch of
5,000 images and its pictures, with an empty cache and with a full one. "Import" is that of nnbackend, over NumPy's.

The medians of all rounds count. With ``--store`` they include those of earlier runs, which the file has, so a machine
may be measured in parts.

    python -m benchmarks.first_run measure [THEN ...]

is one such process; it prints its seconds as JSON.
"""

from __future__ import annotations

import argparse
import compileall
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["GROUPS", "TARGETS", "main", "measure", "report"]

#: Seconds that a row may take, on a machine on which the first epoch took 8.9 s with an empty cache.
TARGETS: dict[str, float | None] = {
    "first epoch, empty cache": 4.0,
    "first epoch, shipped code": 1.5,
    "first epoch, second process": 0.4,
    "then another loss": 1.0,
    "then another optimizer": 1.0,
    "then another dtype": 1.0,
    "nnbackend train, empty cache": 6.0,
    "nnbackend train, full cache": None,
    "import over NumPy": 0.03,
}

#: What the next `fit` of a process changes.
_THEN: dict[str, dict[str, Any]] = {
    "loss": {"loss": "mean_squared_error"},
    "optimizer": {"optimizer": "rmsprop"},
    "dtype": {"dtype": "float64"},
}

_ROWS, _BATCH = 60_000, 256
_IMPORTS = 20
_IMPORT = "import numpy, time; begin = time.perf_counter(); import nnbackend; print(time.perf_counter() - begin)"
#: What new processes do not get of the environment: they choose their targets themselves, and keep bytecode, as an
#: installation does.
_NOT_PASSED_ON = {"NNBACKEND_TARGET", "NUMBA_CPU_NAME", "PYTHONDONTWRITEBYTECODE"}


def measure(*then: str) -> dict[str, float]:
    """The seconds of a first epoch, and of what others add, in this process, which has not imported nnbackend.

    Parameters
    ----------
    *then : {"loss", "optimizer", "dtype"}
    """
    generator = np.random.default_rng(0)
    x = generator.integers(0, 256, (_ROWS, 784), dtype=np.uint8)
    y = generator.integers(0, 10, _ROWS)
    begin = time.perf_counter()
    import nnbackend as nn

    def train(rows: int, dtype: str = "float32", **others: Any) -> None:
        layers = [nn.Dense(200, activation="relu"), nn.Dense(80, activation="relu"), nn.Dense(10)]
        net = nn.Network(layers, 784, backend="numba", dtype=dtype, seed=0, input_scale=1 / 255)
        given = {"loss": "softmax_cross_entropy", "optimizer": "adam", **others}
        net.fit(x[:rows], y[:rows], epochs=1, batch_size=_BATCH, verbose=False, **given)

    train(_ROWS)
    found = {"first epoch": time.perf_counter() - begin}
    for what in then:
        seconds = []
        for _ in range(2):
            begin = time.perf_counter()
            train(10 * _BATCH, **_THEN[what])
            seconds.append(time.perf_counter() - begin)
        found[what] = seconds[0] - seconds[1]
    return found


def _python(arguments: Sequence[str], cache: Path, **environment: str) -> str:
    """What a new Python prints."""
    inherited = {name: value for name, value in os.environ.items() if name not in _NOT_PASSED_ON}
    surroundings = inherited | {"NUMBA_CACHE_DIR": str(cache)} | environment
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=surroundings, check=True, capture_output=True, text=True).stdout


def _measured(cache: Path, *then: str, **environment: str) -> dict[str, float]:
    found: dict[str, float] = json.loads(
        _python(["-m", "benchmarks.first_run", "measure", *then], cache, **environment)
    )
    return found


def _fit(folder: Path, target: str) -> dict[str, float]:
    first = _measured(folder, *_THEN)
    second = _measured(folder)
    return {
        "first epoch, empty cache": first["first epoch"],
        **{f"then another {what}": first[what] for what in _THEN},
        "first epoch, second process": second["first epoch"],
    }


def _shipped(folder: Path, target: str) -> dict[str, float]:
    _measured(folder, NNBACKEND_TARGET=target)
    return {"first epoch, shipped code": _measured(folder)["first epoch"]}


def _train(folder: Path, target: str) -> dict[str, float]:
    seconds = {}
    for state in ("empty", "full"):
        words = ["--backend", "numba", "--epochs", "1", "--out", str(folder / state)]
        begin = time.perf_counter()
        _python(["-m", "nnbackend", "train", "--dataset", "mnist-5k", *words], folder)
        seconds[f"nnbackend train, {state} cache"] = time.perf_counter() - begin
    return seconds


def _import(folder: Path, target: str) -> dict[str, float]:
    seconds = [float(_python(["-c", _IMPORT], folder)) for _ in range(_IMPORTS)]
    return {"import over NumPy": statistics.median(seconds)}


#: What can be measured apart. Each takes an empty folder and the target of the shipped code.
GROUPS: dict[str, Callable[[Path, str], dict[str, float]]] = {
    "fit": _fit,
    "shipped": _shipped,
    "train": _train,
    "import": _import,
}


def report(seconds: dict[str, list[float]]) -> str:
    """A table of the medians, beside their targets."""
    lines = [f"{'new process':28} seconds target rounds"]
    for name, target in TARGETS.items():
        if name in seconds:
            median, wanted = statistics.median(seconds[name]), "-" if target is None else f"{target:g}"
            lines.append(f"{name:28} {median:7.3f} {wanted:>6} {len(seconds[name]):>6}")
    return "\n".join(lines)


def _machine() -> str:
    import numba

    from nnbackend.cli.machine import cpu_name
    from nnbackend.support.cores import usable_cores

    versions = f"Python {sys.version.split()[0]}, NumPy {np.__version__}, Numba {numba.__version__}"
    return f"{usable_cores()} cores of an {cpu_name()}, {versions}; {time.strftime('%Y-%m-%d')}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the measurements, or one of their processes."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["measure"]:
        print(json.dumps(measure(*words[1:])))
        return 0
    parser = argparse.ArgumentParser(prog="python -m benchmarks.first_run", description=__doc__.partition("\n")[0])
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"{', '.join(GROUPS)} (default: all)")
    parser.add_argument("--rounds", type=int, default=1, help="default: 1; 0 prints what is stored")
    parser.add_argument("--target", default="x86-64-v3", help="of the shipped code (default: x86-64-v3)")
    parser.add_argument("--store", type=Path, metavar="FILE", help="a JSON file to which the seconds are added")
    options = parser.parse_args(words)
    unknown = set(options.groups) - set(GROUPS)
    if unknown:
        parser.error(f"unknown {', '.join(sorted(unknown))}; known are {', '.join(GROUPS)}")
    seconds: dict[str, list[float]] = {}
    if options.store is not None and options.store.exists():
        seconds = json.loads(options.store.read_text())
    for package in importlib.util.find_spec("nnbackend").submodule_search_locations if options.rounds else ():
        compileall.compile_dir(package, quiet=1)
    for _ in range(options.rounds):
        for name in options.groups or GROUPS:
            with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
                found = GROUPS[name](Path(folder), options.target)
            for row, value in found.items():
                seconds.setdefault(row, []).append(value)
            if options.store is not None:
                options.store.write_text(json.dumps(seconds, indent=1) + "\n")
    print(f"$ python -m benchmarks.first_run {' '.join(words)}".rstrip())
    print(_machine())
    print(report(seconds))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
