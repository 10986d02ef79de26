"""The locks of the tests: one worker compiles, and the others wait and load the result."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest
from numba.core.caching import Cache

from nnbackend.backends.numba.disk_cache import KernelFiles
from tests import locks

pytestmark = pytest.mark.skipif(locks.fcntl is None, reason="this system has no flock()")


@pytest.fixture
def worker(monkeypatch, tmp_path):
    """``worker()``: Numba's loading and saving of a function, in one of the processes that share a cache."""
    kept = {}

    def worker():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Cache, "load_overload", lambda cache, signature, context: kept.get(signature))
            patch.setattr(Cache, "save_overload", lambda cache, signature, code: kept.update({signature: code}))
            locks.compile_once(patch, tmp_path)
            return Cache.load_overload, Cache.save_overload

    return worker


def cache(name="product"):
    return SimpleNamespace(cache_path="/kept", _cache_file=SimpleNamespace(name=name))


def in_a_thread(load, *arguments):
    found = []
    thread = threading.Thread(target=lambda: found.append(load(*arguments)), daemon=True)
    thread.start()
    return thread, found


def test_a_process_waits_for_a_kernel_that_another_compiles(worker):
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


def test_kernels_of_another_folder_are_added(monkeypatch, tmp_path):
    ours, other = tmp_path / "ours", tmp_path / "NUMBA_CACHE_DIR" / "nnbackend-1234"
    folders = [KernelFiles([folder], folder, "product") for folder in (ours, other)]
    folders[0].save("float64", "code")
    for key in ("float32", "float64"):
        folders[1].save(key, f"other code for {key}")
    KernelFiles([other], other, "forward").save("float32", "forward")
    monkeypatch.setattr(locks, "_kernel_folder", lambda: str(ours))
    locks.adopt_kernels(other.parent)
    assert folders[0].load("float64") == "code"
    assert folders[0].load("float32") == "other code for float32"
    assert KernelFiles([ours], ours, "forward").load("float32") == "forward"


def test_a_compilation_that_fails_leaves_no_lock_behind(monkeypatch, tmp_path):
    import fcntl

    import numba

    from nnbackend.backends.numba.jit import jit

    monkeypatch.setattr(Cache, "load_overload", lambda cache, signature, context: None)
    locks.compile_once(monkeypatch, tmp_path)

    @jit
    def wrong(x):
        return x.nonsense

    with pytest.raises(numba.TypingError):
        wrong(1.0)
    (path,) = tmp_path.iterdir()
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_second_call_takes_no_second_lock(monkeypatch, tmp_path):
    """A process that waits for a lock of its own would wait until its patience ends."""
    monkeypatch.setattr(Cache, "load_overload", lambda cache, signature, context: None)
    locks.compile_once(monkeypatch, tmp_path)
    once = Cache.load_overload
    locks.compile_once(monkeypatch, tmp_path)
    assert Cache.load_overload is once
