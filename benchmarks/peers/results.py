"""Result files: measurements with a description of machine, versions and command."""

from __future__ import annotations

import json
import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.peers.cores import usable
from benchmarks.peers.entries import CONTENDERS, Entry, for_kind
from nnbackend.cli.machine import cpu_name
from nnbackend.support.files import atomic_write

__all__ = ["FOLDER", "KINDS", "header", "path_of", "read_all", "versions", "write", "write_to"]

FOLDER = Path(__file__).resolve().parents[1] / "results" / "peers"

#: What is measured, in reading order.
KINDS = ("nets", "sweep", "images", "products", "startup", "accuracy")

#: Libraries that the contenders use.
_BELOW = ("numpy", "numba", "llvmlite", "jaxlib", "scipy", "cupy-cuda12x", "cupy-cuda13x")


def header(kind: str, threads: int, entries: list[Entry]) -> dict[str, Any]:
    """The header of a result file.

    Parameters
    ----------
    kind : {"nets", "sweep", "images", "products", "startup", "accuracy"}
    threads : int
    entries : list of Entry
        The contenders.
    """
    return {
        "kind": kind,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python -m benchmarks.peers", *sys.argv[1:]]),
        "machine": machine(),
        "threads": threads,
        "versions": versions(entries),
        "not_installed": [entry.label for entry in for_kind(kind, CONTENDERS) if not entry.installed],
    }


def machine() -> dict[str, Any]:
    """A description of the machine."""
    from nnbackend.backends.numba.tile_shape import VectorUnit

    unit = VectorUnit.of_this_cpu()
    return {
        "cpu": cpu_name(),
        "architecture": platform.machine(),
        "cores": usable(),
        "vector_unit": {"bits": 8 * unit.width, "registers": unit.registers, "fused_multiply_add": unit.fused},
        "system": f"{platform.system()} {platform.release()}",
    }


def versions(entries: list[Entry]) -> dict[str, str]:
    """The versions of Python, the contenders and the libraries that they use."""
    found = {"python": platform.python_version()}
    for name in dict.fromkeys((*(entry.distribution for entry in entries), *_BELOW)):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def path_of(folder: Path, result: dict[str, Any]) -> Path:
    """The path of a result: one file for each kind and number of threads."""
    return folder / f"{result['kind']}-threads-{result['threads']}.json"


def write(folder: Path, result: dict[str, Any]) -> None:
    """Write a result, which may be incomplete."""
    write_to(path_of(folder, result), result)


def write_to(path: Path, result: dict[str, Any]) -> None:
    """Write a result to a given path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as stream:
        stream.write(json.dumps(result, indent=1).encode() + b"\n")


def read_all(folder: Path) -> list[dict[str, Any]]:
    """All results of a folder, in reading order."""
    found = [json.loads(path.read_text()) for path in sorted(folder.glob("*-threads-*.json"))]
    return sorted(found, key=lambda result: (-result["threads"], KINDS.index(result["kind"])))
