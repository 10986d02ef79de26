"""From seconds to what tables say."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.peers.entries import LIMITS, OURS
from benchmarks.peers.works import Work

__all__ = ["Speed", "bandwidth", "best_peer", "peak_flops", "speeds", "times_as_fast"]

_LIMITS = {entry.name for entry in LIMITS}


@dataclass(frozen=True)
class Speed:
    """One contender at one piece of work.

    Attributes
    ----------
    step : float
        Seconds, median of the rounds.
    low, high : float
        The fastest and the slowest round.
    samples : float
        Images a second.
    peak : float or None
        Share of the multiply-adds that the same cores can do; None if that was not measured.
    warm_up : float
        Seconds of building the net, compiling, the checked steps and the first run.
    """

    step: float
    low: float
    high: float
    samples: float
    peak: float | None
    warm_up: float


def speeds(measured: Mapping[str, Any]) -> dict[str, Speed]:
    """The contenders that have figures, by name; `measured` is one of the "works" of a result."""
    work = Work.from_dict(measured["work"])
    contenders = measured["contenders"]
    peak = _steps(contenders.get("peak", {}), work)
    found = {}
    for name, result in contenders.items():
        steps = _steps(result, work)
        if name in _LIMITS or not steps:
            continue
        step = statistics.median(steps)
        share = statistics.median(peak) / step if peak else None
        found[name] = Speed(step, min(steps), max(steps), work.batch_size / step, share, result["warm_up"])
    return found


def best_peer(found: Mapping[str, Speed]) -> str | None:
    """The fastest contender that is not ours."""
    peers = {name: speed.step for name, speed in found.items() if name not in OURS}
    return min(peers, key=peers.__getitem__) if peers else None


def times_as_fast(found: Mapping[str, Speed], name: str | None, other: str | None) -> float | None:
    """How many times as fast one is as the other; None where one of them has no figure."""
    if name not in found or other not in found:
        return None
    return found[other].step / found[name].step


def peak_flops(measured: Mapping[str, Any]) -> float | None:
    """Multiplications and additions a second that the cores can do."""
    work = Work.from_dict(measured["work"])
    steps = _steps(measured["contenders"].get("peak", {}), work)
    return work.flops / statistics.median(steps) if steps else None


def bandwidth(measured: Mapping[str, Any]) -> float | None:
    """Bytes a second that memory takes and gives; None in results from before it was measured."""
    work = Work.from_dict(measured["work"])
    steps = _steps(measured["contenders"].get("bandwidth", {}), work)
    return work.bytes / statistics.median(steps) if steps else None


def _steps(result: Mapping[str, Any], work: Work) -> list[float]:
    """Seconds of a step in every round; none where something went wrong on the way."""
    return [] if "error" in result else [seconds / work.steps for seconds in result.get("seconds", [])]
