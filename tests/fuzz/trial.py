"""Try inputs on a target: choose the next mutation, and record the outcomes."""

from __future__ import annotations

import random
import re
import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

from nnbackend.errors import NNBackendError
from tests.fuzz.memory import highest, reset
from tests.fuzz.mutations import LONGEST
from tests.fuzz.targets import Target

__all__ = ["SECONDS", "Finding", "Slow", "Tally", "time_limit", "try_input", "try_inputs"]

#: Time limit of an input in seconds; usually it takes milliseconds.
SECONDS = 10

#: Inputs after which the peak memory is measured again; also measured when it has risen.
_RESET = 50

#: Most inputs with new outcomes that are kept for further mutation.
_KEPT = 400


class Slow(BaseException):
    """The time limit is exceeded. Not an Exception, so that readers do not treat it as a damaged file."""


@dataclass
class Finding:
    """An input that violates the guarantees, and how."""

    target: str
    data: bytes
    what: str


@dataclass
class Tally:
    """The outcomes of a target."""

    inputs: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    paths: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    memory: int = 0
    findings: list[Finding] = field(default_factory=list)


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `Slow` after the time limit; works only on the main thread of systems with timers."""

    def over(number: int, frame: FrameType | None) -> None:
        raise Slow(f"no answer within {seconds:g} s")

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def try_input(target: Target, data: bytes) -> tuple[str, str, BaseException | None]:
    """The outcome of an input, the place in the code, and the violation, if any."""
    try:
        with time_limit(SECONDS):
            answer = target.run(data) or "read"
    except (NNBackendError, OSError) as error:
        return type(error).__name__, _place(error), None
    except (Exception, Slow) as error:
        return type(error).__name__, _place(error), error
    return answer[:4].strip(), _skeleton(answer), None


def _place(error: BaseException) -> str:
    """Where an error was first raised, and its message without variable parts."""
    while error.__cause__ is not None or error.__context__ is not None:
        error = error.__cause__ or error.__context__ or error
    lines = [f"{frame.f_code.co_name}:{line}" for frame, line in traceback.walk_tb(error.__traceback__)]
    return " ".join([*lines[-5:], _skeleton(str(error))])


def _skeleton(text: str) -> str:
    """The first words of a message, which usually describe the kind of error."""
    return " ".join(re.findall("[A-Za-z]{3,}", text[:200])[:5])


def try_inputs(
    target: Target,
    seed: int,
    enough: Callable[[int], bool],
    first: int = 0,
    before: Callable[[int, bytes], None] = lambda number, data: None,
) -> Tally:
    """Try mutated inputs in sequence.

    Parameters
    ----------
    target : Target
    seed : int
        Together with the target's name, it determines the inputs.
    enough : callable
        Returns whether to stop, given the number of inputs so far.
    first : int
        The number of the first input.
    before : callable
        Called with the number and the bytes of each input before it is tried.
    """
    tally, seen = Tally(), set[tuple[str, str]]()
    pool = list(target.seeds)
    held = memory = 0
    while not enough(tally.inputs):
        number = first + tally.inputs
        chance = random.Random(f"{seed} {target.name} {number}")
        # Mutate valid inputs and inputs with new outcomes equally often.
        parent = chance.choice(target.seeds if chance.random() < 0.5 else pool)
        data = target.mutate(chance, parent, chance.choice(pool))[:LONGEST]
        before(number, data)
        if tally.inputs % _RESET == 0 or memory > tally.memory // 2:
            held = reset()
        start = time.perf_counter()
        outcome, place, wrong = try_input(target, data)
        seconds, memory = time.perf_counter() - start, highest() - held
        tally.inputs += 1
        tally.outcomes[outcome] += 1
        tally.seconds += seconds
        tally.slowest = max(tally.slowest, seconds)
        tally.memory = max(tally.memory, memory)
        new = (outcome, place) not in seen
        seen.add((outcome, place))
        if wrong is not None:
            if new:
                what = "".join(traceback.format_exception(wrong))
                tally.findings.append(Finding(target.name, data, what))
        elif memory > target.most_memory:
            tally.findings.append(Finding(target.name, data, f"took {memory:,} bytes, at most {target.most_memory:,}"))
        elif new:
            if len(pool) >= _KEPT + len(target.seeds):
                del pool[chance.randrange(len(target.seeds), len(pool))]
            pool.append(data)
    tally.paths = len(seen)
    return tally
