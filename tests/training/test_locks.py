"""The tests' own locks: one worker builds what all need, and the others wait for it."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest
from numba.core.caching import Cache

from tests import locks

pytestmark = pytest.mark.skipif(locks.fcntl is None, reason="this system has no flock()")


@pytest.fixture
def worker(monkeypatch, tmp_path):
    """``worker()``: how Numba looks for a function, and keeps one, in one of the processes that share a cache."""
    kept = {}

    def worker():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Cache, "load_overload", lambda cache, signature, context: kept.get(signature))
            patch.setattr(Cache, "save_overload", lambda cache, signature, code: kept.update({signature: code}))
            locks.compile_once(patch, tmp_path)
            return Cache.load_overload, Cache.save_overload

    return worker


def cache(name="product"):
    return SimpleNamespace(_cache_file=SimpleNamespace(_index_path=f"/kept/{name}.nbi"))


def in_a_thread(load, *arguments):
    found = []
    thread = threading.Thread(target=lambda: found.append(load(*arguments)), daemon=True)
    thread.start()
    return thread, found


def test_who_needs_what_another_compiles_waits_for_it(worker):
    (load, save), (other_load, _) = worker(), worker()
    assert load(cache(), "float32", None) is None
    thread, found = in_a_thread(other_load, cache(), "float32", None)
    thread.join(timeout=0.2)
    assert thread.is_alive()
    save(cache(), "float32", "code")
    thread.join(timeout=30)
    assert found == ["code"]


def test_another_signature_is_compiled_afterwards_and_another_function_meanwhile(worker):
    (load, save), (other_load, other_save) = worker(), worker()
    assert load(cache(), "float32", None) is None
    assert other_load(cache("share"), "integers", None) is None
    other_save(cache("share"), "integers", "code")
    thread, found = in_a_thread(other_load, cache(), "float64", None)
    thread.join(timeout=0.2)
    assert thread.is_alive()
    save(cache(), "float32", "code")
    thread.join(timeout=30)
    assert found == [None]


def test_a_compilation_that_failed_does_not_stop_the_others(worker, monkeypatch):
    monkeypatch.setattr(locks, "PATIENCE", 0.1)
    (load, _), (other_load, _) = worker(), worker()
    assert load(cache(), "float32", None) is None
    assert other_load(cache(), "float32", None) is None
