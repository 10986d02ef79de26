"""A new process that trains on MNIST and prints when it reached a test accuracy of 98 %.

    python -m benchmarks.peers.reach NAME THREADS SEED EPOCHS RECIPE

Prints JSON: seconds of "import", "load" (reading and converting the images, building the net) and "warm_up"
(compiling); "epochs", for each the accuracy and the seconds since the start of training, including shuffling and tests.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
import time
from dataclasses import replace
from typing import Any

from benchmarks.peers.cores import bind

__all__ = ["LEARNERS", "main"]

#: Contenders with a learner, and its module in the folder `learners`.
LEARNERS = {
    **dict.fromkeys(("numpy", "numba", "cupy", "cupy-tf32"), "ours"),
    **dict.fromkeys(("torch", "torch-gpu"), "pytorch"),
    **dict.fromkeys(("jax", "jax-gpu"), "jax_scan"),
}


def main() -> None:
    name, threads, seed, epochs, recipe = sys.argv[1], *map(int, sys.argv[2:5]), sys.argv[5]
    bind(threads)
    with contextlib.redirect_stdout(sys.stderr):
        figures = learn(name, threads, seed, epochs, recipe)
    print(json.dumps(figures))


def learn(name: str, threads: int, seed: int, epochs: int, recipe: str) -> dict[str, Any]:
    """Train until the target is reached, or for all epochs."""
    begin = time.perf_counter()
    import nnbackend as nn
    from benchmarks.peers.learners.base import RECIPES, TARGET

    learner = importlib.import_module(f"benchmarks.peers.learners.{LEARNERS[name]}").make(name, threads)
    imported = time.perf_counter()
    learner.load(nn.datasets.load("mnist", download=False), replace(RECIPES[recipe], epochs=epochs, seed=seed))
    loaded = time.perf_counter()
    learner.warm_up()
    warm = time.perf_counter()

    seen: list[dict[str, float]] = []

    def note(accuracy: float) -> bool:
        seen.append({"accuracy": accuracy, "seconds": time.perf_counter() - warm})
        return accuracy >= TARGET

    learner.train(note)
    return {"import": imported - begin, "load": loaded - imported, "warm_up": warm - loaded, "epochs": seen}


if __name__ == "__main__":
    main()
