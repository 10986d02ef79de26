"""nnbackend on a GPU beside other ways to use one: the same nets, data and updates, in turns on the same device.

    python -m benchmarks.gpu                    # the three nets, then batch sizes and widths
    python -m benchmarks.gpu nets
    python -m benchmarks.gpu --dry-run          # everything on the CPU, to see that it runs; figures mean nothing

Made of the parts of `benchmarks.peers`: every contender has a process of its own, and is timed only after the losses
of its first steps have been found to agree with ours in float64. An epoch is timed from its order to the end of its
last full batch; everything but the order is on the device before. Nothing is downloaded: contenders that are not
installed are left out, MNIST is used where it is on this machine, else random images.
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

from benchmarks.peers import results, works
from benchmarks.peers.dry import run_dry
from benchmarks.peers.entries import ON_GPU, REFERENCES, Entry
from benchmarks.peers.figures import speeds, times_as_fast
from benchmarks.peers.markdown import NOTHING, markdown, ratio
from benchmarks.peers.process import Worker, WorkerError
from benchmarks.peers.rounds import measure, say
from benchmarks.peers.works import Work
from nnbackend.backends.cupy import probe

__all__ = ["main"]

FOLDER = Path(__file__).resolve().parent / "results" / "gpu"
ROUNDS = 9
_KINDS = {"nets": works.NETS, "sweep": works.SWEEP}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; the exit code."""
    options = _parser().parse_args(arguments)
    if options.dry_run:
        run_dry()
        device = {"name": "none: a dry run on the CPU"}
    else:
        reason, remedy = probe()
        if reason is not None:
            print(f"{reason}. {remedy}. With --dry-run all of it runs on the CPU.", file=sys.stderr)
            return 1
        device = _device()
        # Each process takes what it needs, and leaves the rest to the others.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    chosen = [entry for entry in ON_GPU if not options.contenders or entry.name in options.contenders]
    folder = Path(options.out or (tempfile.mkdtemp(prefix="gpu-") if options.dry_run else FOLDER))
    for kind in _KINDS if options.what == "all" else (options.what,):
        result = _measured(kind, chosen, device, options.rounds or (2 if options.dry_run else ROUNDS), options.dry_run)
        path = folder / f"{kind}-{_slug(device['name'])}.json"
        results.write_to(path, result)
        print(f"{text(result)}\n\nkept in {path.name}\n", flush=True)
    return 0


def _measured(kind: str, entries: Sequence[Entry], device: Mapping[str, Any], rounds: int, dry: bool) -> dict[str, Any]:
    there = [entry for entry in entries if entry.installed]
    result = results.header(kind, 1, there) | {
        "command": " ".join(["python -m benchmarks.gpu", *sys.argv[1:]]),
        "device": dict(device),
        "not_installed": [entry.label for entry in entries if not entry.installed],
        "failed": {},
        "works": [],
    }
    chosen = [works.quick(work) for work in _KINDS[kind][:3]] if dry else [_epoch(work) for work in _KINDS[kind]]
    with contextlib.ExitStack() as stack:
        workers: dict[str, Worker] = {}
        for entry in (REFERENCES[0], *there):
            say(f"starting {entry.name}")
            try:
                worker = Worker(entry.name, 1, max(work.rows for work in chosen))
            except WorkerError as error:
                result["failed"][entry.label] = str(error)
                continue
            stack.callback(worker.close)
            workers[entry.name] = worker
        result["data"] = workers[REFERENCES[0].name].hello["data"]
        result["works"] = [measure(work, workers, rounds) for work in chosen]
    return result


def _epoch(work: Work) -> Work:
    """A GPU is done with an epoch in milliseconds."""
    return replace(work, steps=work.epoch_steps)


def text(result: Mapping[str, Any]) -> str:
    """Everything that is to be said of a result, in Markdown."""
    device = ", ".join(str(value) for value in result["device"].values())
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    parts = [
        f"## {device}\n\n{result['machine']['system']}, {result['date']}\n{versions}\n`{result['command']}`",
        f"Data: {result['data']}.",
    ]
    for measured in result["works"]:
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
    parts.append("\n".join(_remarks(result)))
    return "\n\n".join(part for part in parts if part)


def _remarks(result: Mapping[str, Any]) -> list[str]:
    """Who is missing, and why."""
    lines = [f"- {label}: not installed" for label in result["not_installed"]]
    lines += [f"- {label}: did not start: {reason}" for label, reason in result["failed"].items()]
    labels = {entry.name: entry.label for entry in ON_GPU}
    for measured in result["works"]:
        for name, contender in measured["contenders"].items():
            if "error" in contender:
                lines.append(f"- {labels[name]}, {measured['work']['name']}: {contender['error']}")
    return lines


def _device() -> dict[str, Any]:
    """What the device is, and what drives it."""
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
        "what", nargs="?", default="all", choices=["all", *_KINDS], help="what to measure (default: all)"
    )
    parser.add_argument(
        "--contenders", nargs="+", choices=[entry.name for entry in ON_GPU], help="only these (default: all)"
    )
    parser.add_argument("--rounds", type=int, metavar="N", help=f"rounds (default: {ROUNDS})")
    parser.add_argument("--out", metavar="FOLDER", help="of results (default: benchmarks/results/gpu)")
    parser.add_argument("--dry-run", action="store_true", help="on the CPU, in small; figures mean nothing")
    return parser


if __name__ == "__main__":
    sys.exit(main())
