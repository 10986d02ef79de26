"""Compare nnbackend on a GPU with other libraries: the same networks, data and updates, in alternating rounds.

    python -m benchmarks.gpu                    # the three networks, batch sizes and widths, time to 98 % on MNIST
    python -m benchmarks.gpu nets
    python -m benchmarks.gpu --dry-run          # everything on the CPU, as a test; the results are meaningless

It uses `benchmarks.peers`: each contender runs in its own process, and is timed only if the losses of its first steps
agree with ours in float64. An epoch is timed from the transfer of its order to the end of its last full batch; all
other data are on the device before. Nothing is downloaded: contenders that are not installed are skipped, and random
images are used if MNIST is not on this machine.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.peers import accuracy, accuracy_table, results, works
from benchmarks.peers.cores import usable
from benchmarks.peers.dry import run_dry
from benchmarks.peers.entries import ON_GPU, REFERENCES, Entry
from benchmarks.peers.figures import speeds, times_as_fast
from benchmarks.peers.markdown import NOTHING, markdown, ratio
from benchmarks.peers.options import positive
from benchmarks.peers.process import start_workers
from benchmarks.peers.rounds import measure, say
from benchmarks.peers.tables import remarks
from benchmarks.peers.works import Work
from nnbackend.backends.cupy import probe
from nnbackend.errors import DataError

__all__ = ["main"]

FOLDER = Path(__file__).resolve().parent / "results" / "gpu"
ROUNDS = 9

#: Threads of a process: the main thread, and those of libraries, such as PyTorch's for backward passes.
_THREADS = min(4, usable())

_STEPS = {"nets": works.NETS, "sweep": works.SWEEP}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print the results; returns the exit code."""
    options = _parser().parse_args(arguments)
    if options.dry_run:
        run_dry()
        device = {"name": "none: a dry run on the CPU"}
    else:
        reason, remedy = probe()
        if reason is not None:
            print(f"{reason}. {remedy}. With --dry-run, everything runs on the CPU.", file=sys.stderr)
            return 1
        device = _device()
        # Each process allocates only what it needs, and leaves the rest to the others.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    chosen = [entry for entry in ON_GPU if not options.contenders or entry.name in options.contenders]
    folder = Path(options.out or (tempfile.mkdtemp(prefix="gpu-") if options.dry_run else FOLDER))
    for kind in (*_STEPS, "accuracy") if options.what == "all" else (options.what,):
        path = folder / f"{kind}-{_slug(device['name'])}.json"
        about = {
            "command": " ".join(["python -m benchmarks.gpu", *sys.argv[1:]]),
            "device": device,
            "not_installed": [entry.label for entry in chosen if not entry.installed],
        }
        there = [entry for entry in chosen if entry.installed]
        try:
            if kind == "accuracy":
                result = _learned(there, about, path, options.rounds, options.dry_run)
            else:
                result = _measured(kind, there, about, path, options.rounds, options.dry_run)
        except DataError as error:
            say(f"{kind}: skipped: {error}")
            continue
        results.write_to(path, result)
        print(f"{text(result)}\n\nkept in {path.name}\n", flush=True)
    return 0


def _learned(
    entries: Sequence[Entry], about: Mapping[str, Any], path: Path, seeds: int | None, dry: bool
) -> dict[str, Any]:
    """The time to an accuracy of 98 % on MNIST's test images."""

    def keep(result: dict[str, Any]) -> None:
        results.write_to(path, result | about)

    return accuracy.run(entries, _THREADS, keep, seeds=seeds, quick=dry) | about


def _measured(
    kind: str, there: Sequence[Entry], about: Mapping[str, Any], path: Path, rounds: int | None, dry: bool
) -> dict[str, Any]:
    """The time of a step. Each network's results are written at once."""
    rounds = rounds or (2 if dry else ROUNDS)
    result: dict[str, Any] = {**results.header(kind, _THREADS, there), **about, "failed": {}, "works": []}
    chosen = [works.quick(work) for work in _STEPS[kind][:3]] if dry else [_epoch(work) for work in _STEPS[kind]]
    with contextlib.ExitStack() as stack:
        rows = max(work.rows for work in chosen)
        workers = start_workers((REFERENCES[0], *there), _THREADS, rows, stack, result["failed"], say)
        result["data"] = workers[REFERENCES[0].name].hello["data"]
        for work in chosen:
            result["works"].append(measure(work, workers, rounds))
            results.write_to(path, result)
    return result


def _epoch(work: Work) -> Work:
    """A GPU is done with an epoch in milliseconds."""
    return replace(work, steps=work.epoch_steps)


def text(result: Mapping[str, Any]) -> str:
    """The complete result in Markdown."""
    device = ", ".join(str(value) for value in result["device"].values())
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    parts = [
        f"## {device}\n\n{result['machine']['system']}, {result['date']}\n{versions}\n`{result['command']}`",
        *(accuracy_table.body(result) if result["kind"] == "accuracy" else [f"Data: {result['data']}."]),
    ]
    for measured in result.get("works", ()):
        work, found = Work.from_dict(measured["work"]), speeds(measured)
        rows: list[Sequence[str]] = [("contender", "us a step", "its rounds", "samples/s", "ours is")]
        for entry in ON_GPU:
            if entry.name not in measured["contenders"]:
                continue
            speed = found.get(entry.name)
            if speed is None:
                rows.append((entry.label, *[NOTHING] * 4))
                continue
            low, high = (f"{1e6 * seconds:,.1f}" for seconds in (speed.low, speed.high))
            ours = NOTHING if entry.name == "cupy" else ratio(times_as_fast(found, "cupy", entry.name))
            rows.append((entry.label, f"{1e6 * speed.step:,.1f}", f"{low} to {high}", f"{speed.samples:,.0f}", ours))
        about = (
            f"{work.activation}, {work.optimizer} {work.learning_rate:g}, batch {work.batch_size}, {work.steps} steps"
        )
        parts.append(f"### {work.name}\n\n{about}\n\n{markdown(rows, right=[1, 2, 3, 4])}")
    return "\n\n".join([*parts, *remarks(result)])


def _device() -> dict[str, Any]:
    """A description of the device and its driver."""
    import cupy

    properties = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.runtime.getDevice())
    return {
        "name": properties["name"].decode(),
        "compute": f"sm_{properties['major']}{properties['minor']}",
        "memory": f"{properties['totalGlobalMem'] / 2**30:.0f} GiB",
        "driver": f"driver for CUDA {cupy.cuda.runtime.driverGetVersion()}",
        "runtime": f"CUDA runtime {cupy.cuda.runtime.runtimeGetVersion()}",
    }


def _slug(name: str) -> str:
    return re.sub(r"\W+", "-", name).strip("-").lower()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "what", nargs="?", default="all", choices=["all", *_STEPS, "accuracy"], help="what to measure (default: all)"
    )
    parser.add_argument(
        "--contenders", nargs="+", choices=[entry.name for entry in ON_GPU], help="only these (default: all)"
    )
    parser.add_argument(
        "--rounds", type=positive, metavar="N", help=f"rounds or seeds (default: {ROUNDS}, {accuracy.SEEDS})"
    )
    parser.add_argument("--out", metavar="FOLDER", help="of results (default: benchmarks/results/gpu)")
    parser.add_argument("--dry-run", action="store_true", help="run a small version on the CPU, as a test")
    return parser


if __name__ == "__main__":
    sys.exit(main())
