"""Contenders in turns: nobody is timed before its losses agree, and every round has one run of each."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.peers.entries import LIMITS, REFERENCES, find
from benchmarks.peers.process import Worker, WorkerError
from benchmarks.peers.works import Work

__all__ = ["TOLERANCE", "checked_steps", "disagreement", "measure", "say"]

_REFERENCES = {entry.name for entry in REFERENCES}
_LIMITS = {entry.name for entry in LIMITS}

#: How well losses have to agree before anything is timed.
TOLERANCE = 1e-3


def measure(work: Work, workers: Mapping[str, Worker], rounds: int) -> dict[str, Any]:
    """Time one piece of work.

    Parameters
    ----------
    work : Work
    workers : dict of Worker
        The references and the limits among them.
    rounds : int

    Returns
    -------
    dict
        "work", and "contenders": for each its "seconds" (of every round's run) and "warm_up", or why there are none
        under "error".
    """
    check = checked_steps(work)
    results: dict[str, dict[str, Any]] = {}
    references: dict[str, Sequence[float]] = {}
    for name, worker in workers.items():
        say(f"  {work.name}: preparing {name}")
        result = _prepared(worker, work, check)
        losses = result.pop("losses", [])
        if name in _REFERENCES:
            if "error" in result:
                raise WorkerError(f"{work.name}: there is nothing to compare with: {result['error']}")
            references[name] = losses
            worker.ask("drop")
            continue
        results[name] = result
        if name not in _LIMITS and "warm_up" in result:
            difference = disagreement(losses, references[find(name).reference])
            result["disagreement"] = difference
            # Written so that NaN does not pass.
            if not difference <= TOLERANCE:
                result["error"] = (
                    f"refused: the losses of its first {check} steps differ from ours by {difference:.2g} (relative), "
                    f"more than {TOLERANCE:g}"
                )
    _in_turns(work, workers, results, rounds)
    for name in results:
        try:
            workers[name].ask("drop")
        except WorkerError as error:
            results[name].setdefault("error", str(error))
    return {"work": work.to_dict(), "contenders": results}


def checked_steps(work: Work) -> int:
    """How many steps are compared.

    Adam divides by the root of the second moment, and so makes of a gradient that is nothing but rounding error a step
    like any other: after a dozen steps float32 may be a thousandth away from float64, whoever computes it.
    """
    return min(20 if work.optimizer == "sgd" else 10, work.epoch_steps)


def disagreement(losses: Sequence[float], reference: Sequence[float]) -> float:
    """The largest difference of two series of losses, relative to the reference's loss at that step.

    A loss that is smaller than their mean is compared on the mean's scale: that of a single image may be almost 0.
    """
    if len(losses) != len(reference):
        return math.inf
    mean = sum(reference) / len(reference)
    # max() would pass over NaN.
    differences = [abs(ours - theirs) / max(theirs, mean) for ours, theirs in zip(losses, reference, strict=True)]
    return math.nan if any(map(math.isnan, differences)) else max(differences)


def _prepared(worker: Worker, work: Work, check: int) -> dict[str, Any]:
    try:
        return worker.ask("prepare", work=work.to_dict(), check=check)
    except WorkerError as error:
        return {"error": str(error)}


def _in_turns(work: Work, workers: Mapping[str, Worker], results: dict[str, dict[str, Any]], rounds: int) -> None:
    ready = [name for name, result in results.items() if "warm_up" in result and "error" not in result]
    for name in ready:
        results[name]["seconds"] = []
    for turn in range(rounds):
        say(f"  {work.name}: round {turn + 1} of {rounds}")
        # Each round begins with another one, so that nobody always comes after the same neighbour's heat.
        first = turn % max(len(ready), 1)
        for name in ready[first:] + ready[:first]:
            if "error" in results[name]:
                continue
            try:
                results[name]["seconds"].append(workers[name].ask("run")["seconds"])
            except WorkerError as error:
                results[name]["error"] = str(error)


def say(text: str) -> None:
    """Where things stand, beside the results."""
    print(text, file=sys.stderr, flush=True)
