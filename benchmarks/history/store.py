"""Results in asv's format, one file for each commit, in a folder for each machine."""

from __future__ import annotations

import importlib.metadata
import itertools
import json
import math
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.history.exports import dates
from benchmarks.history.sitting import Results, Rounds, best, name_of
from benchmarks.history.suite import SUITES
from nnbackend.cli.machine import cpu_name
from nnbackend.support.files import atomic_write

__all__ = ["FOLDER", "Machine", "benchmarks", "describe", "machine_of", "stored", "write"]

FOLDER = Path(__file__).parents[1] / "results" / "asv"

#: asv finds a benchmark by the path of its module below `benchmarks`.
_PREFIX = "history.suite."

#: Versions of asv's formats.
_RESULTS, _BENCHMARKS, _MACHINE = 2, 2, 1

Machine = dict[str, str]


def describe(name: str) -> Machine:
    """What asv stores about this machine, under a name that its owner chose."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    return {
        "arch": platform.machine(),
        "cpu": cpu_name(),
        "machine": name,
        "num_cpu": str(os.cpu_count()),
        "os": platform.system(),
        "ram": f"{round(memory / 2**30)} GiB",
    }


def machine_of(name: str | None, folder: Path = FOLDER) -> Machine:
    """This machine under this name, or under the only stored name; ValueError if that is another machine's.

    Results of two machines on one line would look like a change of the code.
    """
    names = sorted(file.parent.name for file in folder.glob("*/machine.json"))
    if name is None and len(names) != 1:
        raise ValueError(f"name this machine with --machine; there are results of {', '.join(names) or 'none'}")
    machine = describe(name or names[0])
    file = folder / machine["machine"] / "machine.json"
    if file.exists():
        known = json.loads(file.read_text(encoding="utf-8"))
        different = [key for key, value in machine.items() if key not in ("ram", "machine") and known[key] != value]
        if different:
            facts = ", ".join(f"{key}: {known[key]}, here {machine[key]}" for key in different)
            raise ValueError(f"this is not the machine {machine['machine']} ({facts}); give another --machine")
    return machine


def benchmarks() -> Iterator[tuple[str, type, Any]]:
    """(name, suite, method) of each benchmark."""
    for suite in SUITES:
        for attribute, method in vars(suite).items():
            if attribute.startswith("track_"):
                yield f"{suite.__name__}.{attribute}", suite, method


def _write_benchmarks(folder: Path) -> None:
    """The description of the benchmarks, without which asv shows no results."""
    entries: dict[str, Any] = {"version": _BENCHMARKS}
    for name, suite, method in benchmarks():
        entries[_PREFIX + name] = {
            "code": (suite.__doc__ or "").strip(),
            "name": _PREFIX + name,
            "param_names": list(getattr(suite, "param_names", ())),
            "params": _parameters(suite),
            "pretty_name": method.pretty_name,
            "timeout": getattr(suite, "timeout", 60),
            "type": "track",
            "unit": method.unit,
            "version": vars(suite)["version"],
        }
    _write(folder / "benchmarks.json", entries)


def write(commit: str, rounds: Rounds, machine: Machine, folder: Path = FOLDER) -> Path:
    """Write the best of the rounds of a commit, the rounds themselves, and what asv needs to show; return the file.

    Results that the file has already, of benchmarks that were not measured, remain.
    """
    python = ".".join(platform.python_version_tuple()[:2])
    versions = {library: importlib.metadata.version(library) for library in ("numpy", "numba")}
    environment = f"py{python}"
    file = folder / machine["machine"] / f"{commit[:8]}-{environment}.json"
    results, samples = _read(file)
    results |= best(rounds)
    for name, values in rounds.items():
        # A benchmark that failed has no result, and the rounds of an earlier one would not be its own.
        samples.pop(name, None)
        if None not in values:
            samples[name] = values
    rows = {}
    for name, suite, _ in benchmarks():
        found = [
            (results.get(key), samples.get(key)) for key in (name_of((name, each)) for each in _combinations(suite))
        ]
        # asv takes NaN for "n/a" and null for "failed".
        values = [math.nan if value is None else value for value, _ in found]
        rows[_PREFIX + name] = [values, _parameters(suite), vars(suite)["version"], [rounds for _, rounds in found]]
    entry = {
        "commit_hash": commit,
        "env_name": environment,
        "date": dates([commit])[commit],
        "params": {**machine, "python": python},
        "python": python,
        "requirements": versions,
        "env_vars": {},
        "result_columns": ["result", "params", "version", "samples"],
        "results": rows,
        "durations": {},
        "version": _RESULTS,
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    _write(file, entry)
    _write(file.with_name("machine.json"), {**machine, "version": _MACHINE})
    _write_benchmarks(folder)
    return file


def stored(machine: str, folder: Path = FOLDER) -> dict[str, Results]:
    """The results of each measured commit of a machine, the oldest commit first."""
    files = [path for path in (folder / machine).glob("*.json") if path.name != "machine.json"]
    entries = [(json.loads(path.read_text(encoding="utf-8")), path) for path in files]
    ordered = sorted(entries, key=lambda each: each[0]["date"])
    return {entry["commit_hash"]: _read(path)[0] for entry, path in ordered}


def _read(file: Path) -> tuple[Results, Rounds]:
    """The results of a file, and the rounds of each; nothing, if it does not exist."""
    results: Results = {}
    samples: Rounds = {}
    if file.exists():
        rows = json.loads(file.read_text(encoding="utf-8"))["results"]
        for name, suite, _ in benchmarks():
            values, *_, measured = rows[_PREFIX + name]
            for parameters, value, rounds in zip(_combinations(suite), values, measured, strict=True):
                key = name_of((name, parameters))
                results[key] = None if math.isnan(value) else value
                if rounds is not None:
                    samples[key] = rounds
    return results, samples


def _combinations(suite: type) -> list[tuple[str, ...]]:
    """The parameters of each result, in asv's order."""
    return list(itertools.product(*getattr(suite, "params", ())))


def _parameters(suite: type) -> list[list[str]]:
    """The parameters as asv writes them."""
    return [[repr(value) for value in values] for values in getattr(suite, "params", ())]


def _write(file: Path, content: object) -> None:
    with atomic_write(file) as stream:
        stream.write((json.dumps(content, indent=1) + "\n").encode())
