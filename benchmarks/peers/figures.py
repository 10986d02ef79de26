"""Convert measured seconds to the numbers of the tables."""

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
    """The speed of a contender for one network.

    Attributes
    ----------
    step : float
        Seconds, median of the rounds.
    low, high : float
        The fastest and the slowest round.
    samples : float
        Images per second.
    peak : float or None
        Share of the measured peak of the same cores; None if that was not measured.
    warm_up : float
        Seconds to build the network, compile, and run the checked steps and the first run.
    """

    step: float
    low: float
    high: float
    samples: float
    peak: float | None
    warm_up: float


def speeds(measured: Mapping[str, Any]) -> dict[str, Speed]:
    """The speeds of all successful contenders by name; `measured` is an entry of "works" in a result."""
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
    """The fastest of the other libraries."""
    peers = {name: speed.step for name, speed in found.items() if name not in OURS}
    return min(peers, key=peers.__getitem__) if peers else None


def times_as_fast(found: Mapping[str, Speed], name: str | None, other: str | None) -> float | None:
    """The ratio of two speeds; None if one of them is missing."""
    if name not in found or other not in found:
        return None
    return found[other].step / found[name].step


def peak_flops(measured: Mapping[str, Any]) -> float | None:
    """Peak multiplications and additions per second of the cores."""
    work = Work.from_dict(measured["work"])
    steps = _steps(measured["contenders"].get("peak", {}), work)
    return work.flops / statistics.median(steps) if steps else None


def bandwidth(measured: Mapping[str, Any]) -> float | None:
    """Memory bandwidth in bytes per second; None in old results, in which it was not measured."""
    work = Work.from_dict(measured["work"])
    steps = _steps(measured["contenders"].get("bandwidth", {}), work)
    return work.bytes / statistics.median(steps) if steps else None


def _steps(result: Mapping[str, Any], work: Work) -> list[float]:
    """Seconds per step in every round; empty after an error."""
    return [] if "error" in result else [seconds / work.steps for seconds in result.get("seconds", [])]
