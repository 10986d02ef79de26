"""Runs the steps of several networks at once: executors of the same kind as one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from nnbackend.backends.contract import Executor
from nnbackend.step.replay import Requests

__all__ = ["run_together"]


def run_together(requests: Mapping[int, Requests[Any]], results: dict[int, tuple[Any, BaseException | None]]) -> None:
    """Run what several networks request, until all have their results.

    Parameters
    ----------
    requests : dict of Requests
        By the number of the network.
    results : dict
        Receives the result of each network, or its error, by number. After an error other than Exception, which this
        function raises, such as KeyboardInterrupt, it lacks the networks that were not done; their requests have ended
        with the error, too.
    """
    pending: dict[int, tuple[Executor, int]] = {}

    def advance(number: int, go_on: Callable[[], tuple[Executor, int]]) -> None:
        pending.pop(number, None)
        try:
            pending[number] = go_on()
        except StopIteration as end:
            results[number] = end.value, None
        except BaseException as error:
            results[number] = None, error

    try:
        for number, each in requests.items():
            advance(number, partial(next, each))
        while pending:
            kind = next(iter(pending.values()))[0].kind
            # In the same order each time, so that the executor can keep what it has prepared for them.
            numbers = sorted(number for number, (executor, _) in pending.items() if executor.kind == kind)
            executors = [pending[number][0] for number in numbers]
            steps = min(pending[number][1] for number in numbers)
            try:
                executors[0].run_with(executors[1:], steps)
            except Exception as error:
                for number in numbers:
                    advance(number, partial(requests[number].throw, error))
                continue
            for number in numbers:
                executor, requested = pending[number]
                if requested > steps:
                    pending[number] = executor, requested - steps
                else:
                    advance(number, partial(requests[number].send, None))
    except BaseException as error:
        for number in list(pending):
            advance(number, partial(requests[number].throw, error))
            del results[number]
        raise
