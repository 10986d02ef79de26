"""`accuracy`: the time to an accuracy of 98 % on MNIST's test images."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import nnbackend as nn
from benchmarks.peers import results
from benchmarks.peers.cores import environment
from benchmarks.peers.entries import Entry
from benchmarks.peers.learners.base import RECIPES, TARGET
from benchmarks.peers.reach import LEARNERS
from benchmarks.peers.rounds import say

__all__ = ["SEEDS", "run"]

SEEDS = 5

#: Binds the process to some cores and runs the command line, like `taskset`, which not every system has.
_TRAIN = """
import sys
from benchmarks.peers.cores import bind
bind({threads})
from nnbackend.cli import main
sys.exit(main(sys.argv[1:]))
"""


def run(
    entries: Sequence[Entry],
    threads: int,
    keep: Callable[[dict[str, Any]], None],
    *,
    seeds: int | None = None,
    quick: bool = False,
) -> dict[str, Any]:
    """Train with several seeds in alternating rounds, each time in a new process.

    Parameters
    ----------
    entries : sequence of Entry
        Entries that are not learners are skipped.
    threads : int
    keep : callable
        Called with the results so far after every seed.
    seeds : int, optional
    quick : bool
        Only one seed and one epoch, as a test.

    Returns
    -------
    dict
        The final results.

    Raises
    ------
    DataError
        MNIST is not on this machine; synthetic images cannot be learned.
    """
    nn.datasets.load("mnist", download=False)
    count = seeds or (1 if quick else SEEDS)
    learners = [entry for entry in entries if entry.name in LEARNERS]
    jobs: dict[str, Callable[[int], dict[str, Any]]] = {}
    for entry in learners:
        for name, recipe in RECIPES.items():
            epochs = 1 if quick else recipe.epochs
            jobs[f"{entry.label}, {name}"] = partial(_learn, entry, threads, epochs, name)
    if any(entry.name == "numba" for entry in learners):
        recipe = RECIPES["small batches"]
        recipe = replace(recipe, epochs=1 if quick else recipe.epochs)
        cycle = ["--batch-size", str(recipe.work.batch_size), "--epochs", str(recipe.epochs)]
        cycle += ["--learning-rate", str(recipe.work.learning_rate), "--warmup", str(recipe.rise)]
        jobs["nnbackend train"] = partial(_train, threads, ["--epochs", "1"] if quick else [])
        jobs["nnbackend train, small batches"] = partial(_train, threads, cycle)

    result = results.header("accuracy", threads, learners)
    result |= {"quick": quick, "target": TARGET, "contenders": {label: [] for label in jobs}}
    # A warm-up run of each, which compiles kernels to the disk cache and loads files into memory.
    for seed in (*([] if quick else [None]), *range(count)):
        for label, job in jobs.items():
            say(f"  {label}: {'warm-up run' if seed is None else f'seed {seed} of {count}'}")
            figures = job(seed or 0)
            if seed is not None:
                result["contenders"][label].append(figures)
        if seed is not None:
            keep(result)
    return result


def _learn(entry: Entry, threads: int, epochs: int, recipe: str, seed: int) -> dict[str, Any]:
    """Run a learner: its results, and the wall time of its process."""
    arguments = ["-m", "benchmarks.peers.reach", entry.name, str(threads), str(seed), str(epochs), recipe]
    seconds, output = _timed(arguments, threads, entry.on_gpu)
    figures: dict[str, Any] = json.loads(output)
    last = figures["epochs"][-1]
    training = last["seconds"] if last["accuracy"] >= TARGET else None
    return {**figures, "seed": seed, "accuracy": last["accuracy"], "training": training, "process": seconds}


def _train(threads: int, options: Sequence[str], seed: int) -> dict[str, Any]:
    """Run the command line, which trains all epochs, even if the target is reached earlier."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["-c", _TRAIN.format(threads=threads), "train", "--backend", "numba", "--dataset", "mnist"]
        arguments += ["--no-download", "--no-plots", "--quiet", "--seed", str(seed), "--out", str(Path(folder, "run"))]
        seconds, output = _timed([*arguments, *options], threads)
    accuracy = float(re.search(r"test accuracy ([\d.]+) %", output)[1]) / 100
    return {"seed": seed, "accuracy": accuracy, "training": None, "process": seconds}


def _timed(arguments: Sequence[str], threads: int, gpu: bool = False) -> tuple[float, str]:
    """Wall time and output of a new Python process."""
    begin = time.perf_counter()
    surroundings = environment(threads, gpu)
    done = subprocess.run([sys.executable, *arguments], env=surroundings, capture_output=True, text=True)
    seconds = time.perf_counter() - begin
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)} failed:\n{done.stderr}")
    return seconds, done.stdout
