"""Run every example and every tutorial's algorithm, and print the table of examples/README.md.

    python -m benchmarks.tutorials.table [--seeds 5] [--backends numpy numba] [--only S4 S5] [--fresh]

Everything takes more than an hour on two cores, so the results of each run are stored in benchmarks/results/tutorials/
and not computed again, and the table is printed from them. Accuracies do not depend on the load of the machine, but
times do, so the tutorial's algorithm and ours alternate, and the medians of `ROUNDS` rounds are used.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import nnbackend as nn
from benchmarks.tutorials.systems import SYSTEMS, Figure, System, example, options_for
from nnbackend.support.files import atomic_write

FOLDER = Path(__file__).resolve().parents[1] / "results" / "tutorials"
ROUNDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--backends", nargs="+", default=["numpy", "numba"])
    parser.add_argument(
        "--only", nargs="+", choices=[system.number for system in SYSTEMS], help="run only these; the table shows all"
    )
    parser.add_argument("--skip-times", action="store_true", help="accuracies alone")
    parser.add_argument("--fresh", action="store_true", help="ignore stored results")
    options = parser.parse_args()
    chosen = [system for system in SYSTEMS if not options.only or system.number in options.only]
    if any(system.name.startswith("mnist") for system in chosen):
        nn.datasets.load("mnist")  # Raise an error if it is missing; the examples would use 5,000 of its digits.
    for backend in options.backends:
        for system in chosen:
            run_seeds(system, backend, options.seeds, options.fresh)
    if not options.skip_times:
        for system in chosen:
            run_times(system, options.backends, options.fresh)
    print(table(options.backends))


def run_seeds(system: System, backend: str, seeds: int, fresh: bool) -> None:
    """Run an example with every seed that is missing, or that lacks a figure."""
    store = Store(f"{backend}.json")
    runs = {} if fresh else store.of(system.number)
    for seed in range(seeds if system.seeds else 1):
        if str(seed) in runs and all(figure.value_of(runs[str(seed)]) is not None for figure in system.figures):
            continue
        begin = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            figures = example(system.name).run(options_for(backend, seed))
        runs[str(seed)] = plain(figures)
        store.keep(system.number, runs)
        say(f"{system.number} {backend} seed {seed}: {time.perf_counter() - begin:.1f} s")


def run_times(system: System, backends: list[str], fresh: bool) -> None:
    """Time the tutorial's algorithm and ours in alternating rounds."""
    store = Store("times.json")
    if system.work is None or (not fresh and {"tutorial", *backends} <= set(store.of(system.number))):
        return
    seconds: dict[str, list[float]] = {name: [] for name in ("tutorial", *backends)}
    with contextlib.redirect_stdout(io.StringIO()):
        for backend in backends:
            system.work.ours(options_for(backend, 0))  # Jitted code is compiled, and caches are warm.
        for _ in range(ROUNDS):
            seconds["tutorial"].append(system.work.tutorial())
            for backend in backends:
                seconds[backend].append(system.work.ours(options_for(backend, 0)))
    store.keep(system.number, seconds)
    say(f"{system.number} times: {seconds}")


def table(backends: list[str]) -> str:
    """The table, in Markdown."""
    stores = {backend: Store(f"{backend}.json") for backend in backends}
    times = Store("times.json")
    lines = [
        f"| system | figure | tutorial | {' | '.join(f'ours, {backend}' for backend in backends)} |"
        f" the same work | its own algorithm | {' | '.join(backends)} |",
        "|" + "---|" * (5 + 2 * len(backends)),
    ]
    for system in SYSTEMS:
        runs = [stores[backend].of(system.number) for backend in backends]
        seconds = times.of(system.number)
        for index, figure in enumerate(system.figures):
            name = f"{system.number} [{system.name}]({system.name}.py)" if index == 0 else ""
            ours = [spread(figure, run) for run in runs]
            timed = [""] * (2 + len(backends))
            if index == 0 and system.work is not None and {"tutorial", *backends} <= set(seconds):
                timed = [system.work.what]
                timed += [f"{statistics.median(seconds[name]):.3g} s" for name in ("tutorial", *backends)]
            lines.append(f"| {' | '.join([name, figure.what, figure.tutorial, *ours, *timed])} |")
    counts = {len(stores[backend].of(system.number)) for backend in backends for system in SYSTEMS if system.seeds}
    seeds = " or ".join(str(count) for count in sorted(counts))
    lines += [
        "",
        f"Medians and ranges of {seeds} seeds (S10 and S11: one); times are medians of {ROUNDS} rounds in turns.",
    ]
    seen = times.content().get("machine")
    return "\n".join([*lines, f"Times were taken on {seen}."] if seen else lines)


def spread(figure: Figure, runs: dict[str, Any]) -> str:
    """Median and range over the seeds, with their number if some of them lack this figure."""
    found = [figure.value_of(figures) for figures in runs.values()]
    values = [value for value in found if value is not None]
    if not values:
        return "not run"
    middle, low, high = (figure.form(value) for value in (statistics.median(values), min(values), max(values)))
    fewer = f", {len(values)} of {len(runs)} seeds" if len(values) < len(runs) else ""
    return f"{middle}{fewer}" if low == high else f"{middle} ({low} to {high}){fewer}"


def machine() -> str:
    """A description of the machine."""
    from importlib.metadata import version

    libraries = ", ".join(f"{name} {version(name)}" for name in ("numpy", "numba", "scikit-learn"))
    return f"{nn.get_backend('numpy').device}, {platform.machine()}, Python {platform.python_version()}, {libraries}"


class Store:
    """A JSON file of results by system."""

    def __init__(self, name: str) -> None:
        self.path = FOLDER / name

    def content(self) -> dict[str, Any]:
        return json.loads(self.path.read_text()) if self.path.exists() else {}

    def of(self, system: str) -> dict[str, Any]:
        return self.content().get(system, {})

    def keep(self, system: str, figures: dict[str, Any]) -> None:
        """Write the results of a system without changing those of others, which other processes may be writing."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        content = self.content() | {system: figures, "machine": machine()}
        with atomic_write(self.path) as stream:
            stream.write(json.dumps(content, indent=1).encode() + b"\n")


def plain(value: Any) -> Any:
    """Convert NumPy's numbers and arrays for JSON."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
