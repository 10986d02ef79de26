"""Time the contenders in alternating rounds, after checking that their losses agree."""

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

#: Largest relative difference of the losses.
TOLERANCE = 1e-3


def measure(work: Work, workers: Mapping[str, Worker], rounds: int) -> dict[str, Any]:
    """Time one network.

    Parameters
    ----------
    work : Work
    workers : dict of Worker
        Includes the references and the limits.
    rounds : int

    Returns
    -------
    dict
        "work", and "contenders": for each the "seconds" of every round and "warm_up", or the reason for a failure as
        "error".
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
                raise WorkerError(f"{work.name}: the reference failed: {result['error']}")
            references[name] = losses
            worker.ask("drop")
            continue
        results[name] = result
        if name not in _LIMITS and "warm_up" in result:
            difference = disagreement(losses, references[find(name).reference])
            result["disagreement"] = difference
            # Written so that NaN is rejected.
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
    """The number of steps whose losses are compared.

    Adam divides by the root of the second moment, so a gradient that is only a rounding error causes a step of normal
    size. After a dozen steps, float32 may differ from float64 by a thousandth in any library.
    """
    return min(20 if work.optimizer == "sgd" else 10, work.epoch_steps)


def disagreement(losses: Sequence[float], reference: Sequence[float]) -> float:
    """The largest difference of two series of losses, relative to the reference's loss at that step.

    For losses below their mean, it is relative to the mean, because the loss of a single image may be almost 0.
    """
    if len(losses) != len(reference):
        return math.inf
    mean = sum(reference) / len(reference)
    # max() would ignore NaN.
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
        # Each round starts with another contender, so that none always follows the same one on a warm processor.
        first = turn % max(len(ready), 1)
        for name in ready[first:] + ready[:first]:
            if "error" in results[name]:
                continue
            try:
                results[name]["seconds"].append(workers[name].ask("run")["seconds"])
            except WorkerError as error:
                results[name]["error"] = str(error)


def say(text: str) -> None:
    """Print progress to stderr."""
    print(text, file=sys.stderr, flush=True)
