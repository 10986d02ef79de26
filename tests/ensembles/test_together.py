"""Requests of several networks run as one, in any order of ends, errors and interruptions."""

from __future__ import annotations

import pytest

from nnbackend.backends.executor import Executor
from nnbackend.ensembles.queue import run_all
from nnbackend.ensembles.together import run_together
from nnbackend.training.fit import Work
from nnbackend.training.interrupt import Interrupt


class Noted(Executor):
    """Notes what it runs, with which others."""

    name, reason = "noted", "for tests"

    def __init__(self, label, kind, log):
        self.label, self.kind, self._log = label, kind, log

    def run(self, repeats):
        self._log.append((self.label, repeats))

    def run_with(self, others, repeats):
        self._log.append(("".join([self.label, *(other.label for other in others)]), repeats))


def asks(executor, *steps, result=None, ended=None):
    """Requests these numbers of steps; notes how it ends."""
    try:
        for each in steps:
            yield executor, each
    except BaseException as error:
        if ended is not None:
            ended.append((executor.label, type(error)))
        raise
    return result


def test_those_of_one_kind_run_as_one_for_the_steps_that_all_want():
    log, results = [], {}
    a, b, c = Noted("a", 1, log), Noted("b", 1, log), Noted("c", 2, log)
    requests = {2: asks(b, 3, 5, result="B"), 0: asks(a, 5, result="A"), 1: asks(c, 4, result="C")}
    run_together(requests, results)
    # In the order of their numbers, not of their beginnings.
    assert [entry for entry in log if entry[0] != "c"] == [("ab", 3), ("ab", 2), ("b", 3)]
    assert ("c", 4) in log
    assert results == {0: ("A", None), 1: ("C", None), 2: ("B", None)}


def test_a_network_that_ends_leaves():
    log, results = [], {}
    a, b = Noted("a", 1, log), Noted("b", 1, log)
    run_together({0: asks(a, 2, 2), 1: asks(b, 2), 2: asks(b)}, results)
    assert log == [("ab", 2), ("a", 2)]
    assert set(results) == {0, 1, 2}


def test_an_error_of_one_network_is_its_result():
    log, results = [], {}
    a, b = Noted("a", 1, log), Noted("b", 1, log)

    def fails():
        yield a, 1
        raise ValueError("no")

    run_together({0: fails(), 1: asks(b, 1, 1, result="B")}, results)
    assert log == [("ab", 1), ("b", 1)]
    assert str(results[0][1]) == "no"
    assert results[1] == ("B", None)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_of_the_executor(error):
    """Reaches all that ran with it; one that is no Exception also ends the others, and is raised."""
    log, results, ended = [], {}, []

    class Fails(Noted):
        def run_with(self, others, repeats):
            raise error

    a, b, c = Fails("a", 1, log), Fails("b", 1, log), Noted("c", 2, log)
    requests = {0: asks(a, 1, ended=ended), 1: asks(b, 1, ended=ended), 2: asks(c, 1, result="C", ended=ended)}
    if error is RuntimeError:
        run_together(requests, results)
        assert {number: type(problem) for number, (_, problem) in results.items()} == {
            0: RuntimeError, 1: RuntimeError, 2: type(None),
        }  # fmt: skip
        assert ended == [("a", error), ("b", error)]
    else:
        with pytest.raises(KeyboardInterrupt):
            run_together(requests, results)
        assert results == {}
        assert ended == [("a", error), ("b", error), ("c", error)]


class Backend:
    programs, together = 1, 3


def epochs(executor, count, begun, alone=False):
    """A training of epochs with one step each, and work that cannot be shared in between."""
    begun.append(executor.label)
    for _ in range(count):
        requests = None if alone else (lambda: asks(executor, 1))
        yield Work(lambda: executor.run(1), False, executor.kind, requests)
        yield Work(lambda: None, False)


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        # Three at a time; the fourth begins when the second has ended.
        ([1, 1, 1, 1], ["abc", "acd", "acd", "acd"]),
        # Another kind has begun, so that no other one begins before it has ended.
        ([1, 2, 1, 1], ["a", "b", "acd", "acd", "acd", "c"]),
        ([None, None, 1, 1], ["a", "a", "a", "a", "b", "cd", "cd", "cd"]),
    ],
)
def test_the_queue_begins_those_that_can_run_together(kinds, expected):
    log, begun, ended = [], [], []
    counts = [4, 1, 4 if kinds[2] == kinds[0] else 3, 3]
    executors = [Noted(label, kind, log) for label, kind in zip("abcd", kinds, strict=True)]
    waiting = ((number, epochs(each, counts[number], begun)) for number, each in enumerate(executors))
    run_all(waiting, lambda number, error: ended.append((number, error)), Backend(), Interrupt())
    assert [name for name, _ in log] == expected
    assert begun == [*"abcd"]
    assert sorted(number for number, _ in ended) == [0, 1, 2, 3]


def test_an_interruption_leaves_what_was_done():
    """The training whose work was done continues; the interrupted one is closed; the error comes at the end."""
    log, completed, ended = [], [], []

    class Interrupted(Noted):
        def run_with(self, others, repeats):
            raise KeyboardInterrupt

    def training(executor):
        yield Work(lambda: None, False, executor.kind, lambda: asks(executor, 1))
        completed.append(executor.label)

    waiting = enumerate(training(each) for each in (Noted("a", 1, log), Interrupted("b", 2, log)))
    with pytest.raises(KeyboardInterrupt):
        run_all(waiting, lambda number, error: ended.append((number, error)), Backend(), Interrupt())
    assert completed == ["a"]
    assert sorted(ended) == [(0, None), (1, None)]
