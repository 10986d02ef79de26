"""Time the contenders in alternating rounds, each in its own process."""

from __future__ import annotations

import multiprocessing
import os
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np

from benchmarks.peers.cores import bind, environment
from benchmarks.peers.rounds import say
from benchmarks.sklearn.tasks import TASKS, Task, data_of

__all__ = ["REFERENCE", "TIMES", "TOLERANCE", "contest"]

REFERENCE = "scikit-learn"

#: Largest difference of the losses in float64, relative to the first.
TOLERANCE = 1e-8

#: The timed parts: training, the first prediction after it, and a second prediction.
TIMES = ("fit_seconds", "predict_seconds", "again_seconds")

#: Epochs whose losses are compared: rounding grows with every step.
_CHECKED = 5


def contest(
    contenders: Sequence[str], tasks: Sequence[Task], threads: int, dtype: str, rounds: int, quick: bool
) -> list[dict[str, Any]]:
    """Train every contender on every task.

    Parameters
    ----------
    contenders : sequence of str
        Names of backends.
    tasks : sequence of Task
    threads : int
    dtype : {"float64", "float32"}
    rounds : int
    quick : bool
        Train only three epochs.

    Returns
    -------
    list of dict
        For each task its "name", "rows" to train on, "features", "metric", and "contenders": for each, scikit-learn's
        own first, the "fit_seconds", "predict_seconds" (the first time) and "again_seconds" (the second) of every
        round, "epochs" and "score", or an "error".
    """
    with ExitStack() as stack:
        pools = {name: stack.enter_context(_process(threads)) for name in (REFERENCE, *contenders)}
        return [_measured(task, pools, dtype, rounds, quick) for task in tasks]


@contextmanager
def _process(threads: int) -> Iterator[ProcessPoolExecutor]:
    spawn = multiprocessing.get_context("spawn")
    with (
        patch.dict(os.environ, environment(threads)),
        ProcessPoolExecutor(1, mp_context=spawn, initializer=bind, initargs=(threads,)) as pool,
    ):
        # The process starts with this environment when it is first used.
        pool.submit(os.getpid).result()
        yield pool


def _measured(
    task: Task, pools: Mapping[str, ProcessPoolExecutor], dtype: str, rounds: int, quick: bool
) -> dict[str, Any]:
    found: dict[str, dict[str, Any]] = {}
    losses: dict[str, list[float]] = {}
    names = list(pools)
    for turn in range(-1, rounds):
        say(f"  {task.name}: {'warming up' if turn < 0 else f'round {turn + 1} of {rounds}'}")
        # Each round starts with another contender, so that none always follows the same one on a warm processor.
        first = max(turn, 0) % len(names)
        for name in names[first:] + names[:first]:
            if "error" in found.get(name, {}):
                continue
            result = pools[name].submit(fit, task.name, name, dtype, quick).result()
            if turn < 0:
                losses[name] = result["losses"]
                found[name] = {"epochs": result["epochs"], "score": result["score"]}
                found[name].update({what: [] for what in TIMES})
                found[name].update(_disagreement(losses[name], losses[REFERENCE], dtype))
                continue
            for what in TIMES:
                found[name][what].append(result[what])
    data = data_of(task.name, dtype)
    return {
        "name": task.name,
        "rows": len(data.x_train),
        "features": data.x_train.shape[1],
        "metric": "R^2" if task.regression else "accuracy",
        "parameters": task.parameters,
        "contenders": found,
    }


def _disagreement(losses: Sequence[float], expected: Sequence[float], dtype: str) -> dict[str, Any]:
    """The difference of a contender's losses from scikit-learn's, and the reason if it is too large to time it."""
    count = min(len(losses), len(expected), _CHECKED)
    difference = float(np.abs(np.subtract(losses[:count], expected[:count])).max() / expected[0])
    # In float32, rounding differs between libraries. Written so that NaN is rejected.
    if dtype == "float32" or difference <= TOLERANCE:
        return {"disagreement": difference}
    reason = (
        f"refused: the losses of its first {count} epochs differ from scikit-learn's by {difference:.2g} (relative)"
    )
    return {"disagreement": difference, "error": reason}


def fit(name: str, contender: str, dtype: str, quick: bool) -> dict[str, Any]:
    """Train and predict once in the contender's process."""
    data = data_of(name, dtype)
    model = _estimator(next(task for task in TASKS if task.name == name), contender, quick)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        begin = time.perf_counter()
        model.fit(data.x_train, data.y_train)
        fitted = time.perf_counter()
        model.predict(data.x_test)
        predicted = time.perf_counter()
        model.predict(data.x_test)
        again = time.perf_counter()
    return {
        **dict(zip(TIMES, (fitted - begin, predicted - fitted, again - predicted), strict=True)),
        "epochs": model.n_iter_,
        "score": model.score(data.x_test, data.y_test),
        "losses": model.loss_curve_,
    }


def _estimator(task: Task, contender: str, quick: bool) -> Any:
    kind = "MLPRegressor" if task.regression else "MLPClassifier"
    parameters = {"random_state": 0, **task.parameters}
    if quick:
        parameters["max_iter"] = 3
    if contender == REFERENCE:
        from sklearn import neural_network

        return getattr(neural_network, kind)(**parameters)
    import nnbackend

    return getattr(nnbackend, kind)(**parameters, backend=contender)
