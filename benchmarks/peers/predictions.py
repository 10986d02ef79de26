"""`predictions`: the time to predict a few and many images."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.peers import results, works
from benchmarks.peers.entries import OURS, REFERENCES, Entry, find
from benchmarks.peers.markdown import NOTHING, markdown, ratio
from benchmarks.peers.process import Worker, WorkerError, start_workers
from benchmarks.peers.rounds import say
from benchmarks.peers.worker import ANSWERED
from benchmarks.peers.works import Work

__all__ = ["ROUNDS", "body", "run"]

ROUNDS = 9
_QUICK_ROUNDS = 2

#: Images at a time.
_ROWS = (1, 32, 1_000, 10_000)
_QUICK_ROWS = (1, 32)

#: Largest difference of a logit, relative to the largest logit.
_TOLERANCE = 1e-4


def run(
    entries: Sequence[Entry], threads: int, folder: Path, *, rounds: int | None = None, quick: bool = False
) -> dict[str, Any]:
    """Measure, and store the results after every network; the parameters are those of `speed.run`."""
    rounds = rounds or (_QUICK_ROUNDS if quick else ROUNDS)
    result = results.header("predictions", threads, list(entries)) | {"quick": quick, "failed": {}, "works": []}
    chosen = [*works.NETS, *works.IMAGES[:3]]
    with contextlib.ExitStack() as stack:
        workers = start_workers([REFERENCES[0], *entries], threads, max(_ROWS), stack, result["failed"], say)
        result["data"] = next(iter(workers.values())).hello["data"]
        for work in chosen:
            say(f"  {work.name}")
            for rows in _QUICK_ROWS if quick else _ROWS:
                result["works"].append(_measure(work, rows, workers, 1 if quick else rounds))
            results.write(folder, result)
    return result


def _measure(work: Work, rows: int, workers: Mapping[str, Worker], rounds: int) -> dict[str, Any]:
    reference = REFERENCES[0].name
    logits, measured = {}, {}
    for name, worker in workers.items():
        try:
            # Of the reference, which is slow, as many as are compared.
            asked = min(rows, ANSWERED) if name == reference else rows
            answer = worker.ask("prepare_predictions", work=work.to_dict(), rows=asked)
            logits[name] = np.array(answer["logits"][:ANSWERED])
        except WorkerError as error:
            if name == reference:
                raise
            measured[name] = {"error": str(error)}
            continue
        difference = np.abs(logits[name] - logits[reference]).max() / np.abs(logits[reference]).max()
        # Written so that NaN is rejected.
        if not difference <= _TOLERANCE:
            measured[name] = {"error": f"refused: its logits differ by {difference:.2g}, more than {_TOLERANCE:g}"}
        elif name != reference:
            measured[name] = {"seconds": []}
    ready = [name for name in measured if "seconds" in measured[name]]
    for turn in range(rounds):
        # Each round starts with another contender.
        for name in ready[turn % len(ready) :] + ready[: turn % len(ready)]:
            measured[name]["seconds"].append(workers[name].ask("predict", rows=rows)["seconds"])
    return {"work": work.to_dict(), "rows": rows, "contenders": measured}


def body(result: Mapping[str, Any]) -> list[str]:
    """A row for every network and number of images."""
    names = list(dict.fromkeys(name for measured in result["works"] for name in measured["contenders"]))
    table: list[Sequence[str]] = [("net", "images", *(f"{find(name).label}, us" for name in names), "numba over best")]
    for measured in result["works"]:
        found = {name: median(each["seconds"]) for name, each in measured["contenders"].items() if each.get("seconds")}
        peers = [seconds for name, seconds in found.items() if name not in OURS]
        speedup = min(peers) / found["numba"] if peers and "numba" in found else None
        cells = [f"{1e6 * found[name]:,.1f}" if name in found else NOTHING for name in names]
        table.append((measured["work"]["name"], f"{measured['rows']:,}", *cells, ratio(speedup)))
    rounds = max((len(each.get("seconds", ())) for each in result["works"][0]["contenders"].values()), default=0)
    note = (
        f"Images in float32, logits as results; medians of {rounds} alternating rounds, in each of which a call is "
        "repeated for at least a hundredth of a second."
    )
    return [f"Data: {result['data']}.", note, markdown(table, right=range(1, len(names) + 3))]
