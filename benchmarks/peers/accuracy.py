"""`accuracy`: how long it takes until 98 % of MNIST's test images are told apart."""

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

#: Binds itself to some cores and becomes the command line: `taskset`, which not every system has.
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
    """Train with several seeds, the contenders in turns, each time in a fresh process.

    Parameters
    ----------
    entries : sequence of Entry
        Those that are no learners are left out.
    threads : int
    keep : callable
        Given what there is after every seed.
    seeds : int, optional
    quick : bool
        One seed and one epoch, which reach nothing.

    Returns
    -------
    dict
        What was kept last.

    Raises
    ------
    DataError
        MNIST is not on this machine; made-up images cannot be learned.
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
    # A run of each that does not count: what is compiled is on the disk afterwards, and the files are in memory.
    for seed in (*([] if quick else [None]), *range(count)):
        for label, job in jobs.items():
            say(f"  {label}: {'a run that does not count' if seed is None else f'seed {seed} of {count}'}")
            figures = job(seed or 0)
            if seed is not None:
                result["contenders"][label].append(figures)
        if seed is not None:
            keep(result)
    return result


def _learn(entry: Entry, threads: int, epochs: int, recipe: str, seed: int) -> dict[str, Any]:
    """A learner's run: what it says, and the wall time of its process."""
    arguments = ["-m", "benchmarks.peers.reach", entry.name, str(threads), str(seed), str(epochs), recipe]
    seconds, output = _timed(arguments, threads, entry.on_gpu)
    figures: dict[str, Any] = json.loads(output)
    last = figures["epochs"][-1]
    training = last["seconds"] if last["accuracy"] >= TARGET else None
    return {**figures, "seed": seed, "accuracy": last["accuracy"], "training": training, "process": seconds}


def _train(threads: int, options: Sequence[str], seed: int) -> dict[str, Any]:
    """The command line's run. It trains to the end, however early it knows enough."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["-c", _TRAIN.format(threads=threads), "train", "--backend", "numba", "--dataset", "mnist"]
        arguments += ["--no-download", "--no-plots", "--quiet", "--seed", str(seed), "--out", str(Path(folder, "run"))]
        seconds, output = _timed([*arguments, *options], threads)
    accuracy = float(re.search(r"test accuracy ([\d.]+) %", output)[1]) / 100
    return {"seed": seed, "accuracy": accuracy, "training": None, "process": seconds}


def _timed(arguments: Sequence[str], threads: int, gpu: bool = False) -> tuple[float, str]:
    """Wall time and output of a fresh Python."""
    begin = time.perf_counter()
    surroundings = environment(threads, gpu)
    done = subprocess.run([sys.executable, *arguments], env=surroundings, capture_output=True, text=True)
    seconds = time.perf_counter() - begin
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)} failed:\n{done.stderr}")
    return seconds, done.stdout
