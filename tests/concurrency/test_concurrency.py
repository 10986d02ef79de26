"""Networks in several threads and processes give the same bits as alone, without deadlocks."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

import nnbackend as nn
from nnbackend.backends.contract import Backend
from nnbackend.support.fork_lock import ForkLock, cached_property
from tests.concurrency.work import BIG, digest, forked, in_processes, in_threads, job
from tests.helpers import classifier, images

SECONDS = 100.0
ON_CPU = ["numpy", "numba"]


def test_networks_train_side_by_side_on_one_backend(backend: Backend):
    alone = [job(backend, seed) for seed in range(4)]
    assert len(set(alone)) == 4
    assert in_threads([partial(job, backend, seed) for seed in range(4)], SECONDS) == alone


@pytest.mark.parametrize("name", ON_CPU)
def test_networks_with_divided_steps_train_side_by_side(name: str):
    backend = type(nn.get_backend(name))(threads=2)
    alone = [job(backend, seed, BIG) for seed in range(2)]
    assert in_threads([partial(job, backend, seed, BIG) for seed in range(2)], SECONDS) == alone


def test_one_network_answers_several_threads(backend: Backend):
    network = classifier(backend)
    x, _ = images(rows=40)
    sizes = (1, 7, 40, 16, 3)  # more than are kept recorded
    alone = [digest(*[network.predict(x, batch_size=size) for _ in range(4)]) for size in sizes]
    works = [
        partial(lambda size: digest(*[network.predict(x, batch_size=size) for _ in range(4)]), size) for size in sizes
    ]
    assert in_threads(works, SECONDS) == alone


def test_one_backend_is_made_however_many_threads_ask_first():
    from nnbackend.backends import registry

    registry._made.cache_clear()
    made = []
    in_threads([lambda: str(made.append(nn.get_backend("numpy"))) for _ in range(8)], SECONDS)
    assert len(set(map(id, made))) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize("name", ON_CPU)
def test_children_forked_from_a_process_that_trains_train_too(name: str):
    arguments = [(seed, units) for seed, units in ((0, 9), (1, 9), (2, BIG))]
    alone = [job(name, *one) for one in arguments]
    assert forked(name, arguments, SECONDS) == alone


@pytest.mark.slow
def test_spawned_processes_have_the_same_results():
    assert in_processes("spawn", "numba", [(0,), (1,)], SECONDS) == [job("numba", seed) for seed in range(2)]


def fork_while(hold: Callable[[threading.Event, threading.Event], None], in_child: Callable[[], object]) -> int:
    """The exit code of a child forked while another thread is within `hold`: 7 unless `in_child` never returns."""
    held, done = threading.Event(), threading.Event()
    thread = threading.Thread(target=hold, args=(held, done), daemon=True)
    thread.start()
    held.wait()
    child = os.fork()
    if child == 0:
        in_child()
        os._exit(7)
    end = time.monotonic() + 30
    while (found := os.waitpid(child, os.WNOHANG))[0] == 0 and time.monotonic() < end:
        time.sleep(0.01)
    done.set()
    thread.join()
    if found[0] == 0:
        os.kill(child, 9)
        found = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(found[1])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_lock_that_is_held_while_forking_is_open_in_the_child():
    lock = ForkLock()

    def hold(held: threading.Event, done: threading.Event) -> None:
        with lock:
            held.set()
            done.wait()

    assert fork_while(hold, lock.__enter__) == 7
    with lock:
        pass


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_property_that_is_being_computed_while_forking_can_be_computed_in_the_child():
    class Slow:
        def __init__(self, compute: Callable[[], int]) -> None:
            self.compute = compute

        @cached_property
        def value(self) -> int:
            return self.compute()

    def hold(held: threading.Event, done: threading.Event) -> None:
        assert Slow(lambda: (held.set(), done.wait(), 3)[2]).value == 3

    assert fork_while(hold, lambda: Slow(lambda: 4).value) == 7
    once = Slow(lambda: 5)
    assert once.value == 5
    once.compute = lambda: 6
    assert once.value == 5


def test_no_module_uses_the_cached_property_with_a_lock():
    found = [
        str(path)
        for path in Path(nn.__file__).parent.rglob("*.py")
        if path.name != "fork_lock.py" and re.search(r"functools(\.| import .*)cached_property", path.read_text())
    ]
    assert not found, f"import cached_property from nnbackend.support.fork_lock in {found}"
