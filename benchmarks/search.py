"""A search over 30 candidates on 5 folds of the digits, compared with scikit-learn's.

    python -m benchmarks.search [--rounds 3] [--quick]

`MLPSearchCV` of `MLPClassifier`, without and with halving, and scikit-learn's `GridSearchCV` of its own `MLPClassifier`
with two processes: networks 64-100-10 in float32, 50 epochs, with the same parameters and therefore the same steps.
Each measurement runs in its own process, in turn with the others, and the shortest time of all rounds counts. Kernels
are loaded and scikit-learn's processes are started before. The refit of the best is included.

    python -m benchmarks.search measure WHAT EPOCHS

is one such process; it prints its results as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

import nnbackend as nn

__all__ = ["GRID", "TARGETS", "main", "measure", "report"]

GRID = {
    "learning_rate_init": [3e-4, 1e-3, 3e-3, 1e-2, 3e-2],
    "alpha": [1e-5, 1e-3, 1e-1],
    "batch_size": [50, 200],
}

FOLDS, EPOCHS = 5, 50

#: Times as fast as scikit-learn.
TARGETS = {"MLPSearchCV": 15.0, "MLPSearchCV, halving": 40.0}

_THEIRS = "GridSearchCV"


def _run(what: str, epochs: int) -> dict[str, float]:
    """One search, in this process."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import GridSearchCV
    from sklearn.neural_network import MLPClassifier

    # All of them warn that they have not converged.
    warnings.simplefilter("ignore")
    os.environ["PYTHONWARNINGS"] = "ignore"
    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype(np.float32)
    given: dict[str, Any] = {
        "hidden_layer_sizes": (100,), "max_iter": epochs, "tol": 0, "n_iter_no_change": epochs, "random_state": 0
    }  # fmt: skip
    if what == _THEIRS:

        def search(grid: Any, **options: Any) -> Any:
            return GridSearchCV(MLPClassifier(**given, **options), grid, cv=FOLDS, n_jobs=2)
    else:

        def search(grid: Any, **options: Any) -> Any:
            model = nn.MLPClassifier(**given, **options, backend=nn.NumbaBackend(2))
            return nn.MLPSearchCV(model, grid, cv=FOLDS, halving="halving" in what)

    search({"alpha": [0, 1]}, batch_size=50).set_params(cv=2).fit(x[:200], y[:200])
    began = time.perf_counter()
    found = search(GRID).fit(x, y)
    seconds = time.perf_counter() - began
    spread = found.cv_results_["std_test_score"][found.best_index_] / np.sqrt(FOLDS - 1)
    return {"seconds": seconds, "score": float(found.best_score_), "error": float(spread)}


def measure(what: str, epochs: int) -> dict[str, float]:
    """One measurement in its own process: seconds, the best mean score, and its standard error."""
    command = [sys.executable, "-m", "benchmarks.search", "measure", what, str(epochs)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure_all(rounds: int, epochs: int) -> dict[str, dict[str, float]]:
    """The shortest time of each search, and its score."""
    best: dict[str, dict[str, float]] = {}
    for _ in range(rounds):
        for what in (*TARGETS, _THEIRS):
            new = measure(what, epochs)
            best[what] = min(new, best.get(what, new), key=lambda result: result["seconds"])
            print(".", end="", flush=True, file=sys.stderr)
    print(file=sys.stderr)
    return best


def report(found: dict[str, dict[str, float]], epochs: int = EPOCHS) -> str:
    """The results as a table."""
    theirs = found[_THEIRS]
    candidates = int(np.prod([len(values) for values in GRID.values()]))
    lines = [
        f"{candidates} candidates x {FOLDS} folds, digits, 64-100-10, {epochs} epochs, float32, two threads or jobs",
        f"{'search':<22} {'seconds':>8} {'times as fast':>13} {'target':>6} {'score':>7} {'standard errors apart':>21}",
    ]
    for name, own in found.items():
        factor = f"{theirs['seconds'] / own['seconds']:.1f}"
        apart = abs(own["score"] - theirs["score"]) / max(theirs["error"], 1e-12)
        target = f"{TARGETS[name]:.0f}" if name in TARGETS else "-"
        lines.append(f"{name:<22} {own['seconds']:>8.2f} {factor:>13} {target:>6} {own['score']:>7.4f} {apart:>21.2f}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print the table; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["measure"]:
        print(json.dumps(_run(given[1], int(given[2]))))
        return 0
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search", description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a test: one round of two epochs")
    options = parser.parse_args(given)
    epochs = 2 if options.quick else EPOCHS
    print(report(measure_all(1 if options.quick else options.rounds, epochs), epochs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
