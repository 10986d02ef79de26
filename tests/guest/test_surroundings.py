"""This package is a guest in other programs: whatever they have done to Python, NumPy and their streams, the results
are those of an ordinary run, and the program finds everything as it was."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import io
import logging
import os
import signal
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.backends.registry import get_backend
from nnbackend.support.fork_lock import ForkLock
from tests.conftest import make_backend
from tests.guest.surroundings import SURROUNDINGS, Terminal, output
from tests.guest.work import data, state_of_process, work

BACKENDS = ["numpy", "numba", "cupy-emulated", pytest.param("cupy", marks=pytest.mark.gpu)]


def differences(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """What changed, with both values."""
    names = before.keys() | after.keys()
    return {name: (before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)}


@functools.cache
def expected(backend: str) -> str:
    """The digest of an ordinary run."""
    with output(io.StringIO()):
        return work(make_backend(backend), None)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("surrounding", SURROUNDINGS, ids=lambda each: each.__name__)
def test_results_are_ordinary_and_everything_is_left_as_it_was(surrounding, backend, tmp_path):
    ordinary = expected(backend)
    with surrounding(tmp_path):
        before = state_of_process()
        found = work(make_backend(backend), tmp_path)
        after = state_of_process()
    assert found == ordinary
    assert differences(before, after) == {}


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_thread_other_than_the_first(backend, tmp_path):
    """Python handles signals in the first thread only, and NumPy's error state belongs to a thread."""

    def run() -> str:
        with np.errstate(all="raise"):
            return work(make_backend(backend), tmp_path)

    ordinary, before = expected(backend), state_of_process()
    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(run).result(60) == ordinary
    assert differences(before, state_of_process()) == {}


@pytest.mark.parametrize("backend", BACKENDS)
def test_several_threads_of_which_one_has_the_terminals_bar(backend):
    ordinary = expected(backend)
    with output(Terminal()):
        before = state_of_process()
        with ThreadPoolExecutor(3) as threads:
            runs = [threads.submit(work, make_backend(backend), None) for _ in range(3)]
            assert [run.result(60) for run in runs] == [ordinary] * 3
        assert differences(before, state_of_process()) == {}


def test_a_coroutine(tmp_path):
    async def program() -> str:
        return work("numpy", tmp_path)

    assert asyncio.run(program()) == expected("numpy")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_a_child_that_is_forked_while_other_threads_hold_locks(backend):
    """They hold them in the parent only."""
    ordinary = expected(backend)
    # Not isinstance, which would ask proxies of objects that no longer exist.
    locks = [lock for lock in gc.get_objects() if issubclass(type(lock), ForkLock)]
    taken, done = threading.Event(), threading.Event()

    def hold() -> None:
        with contextlib.ExitStack() as held:
            for lock in locks:
                held.enter_context(lock)
            taken.set()
            done.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    assert taken.wait(60)
    try:
        child = os.fork()
        if child == 0:
            code = 1
            with contextlib.suppress(BaseException):
                signal.alarm(30)
                code = int(work(get_backend(backend), None, verbose=False) != ordinary)
            os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
    finally:
        done.set()
        holder.join()


class TestNumpysErrors:
    """Other ways into this package, while NumPy raises an error where it would otherwise return infinity or zero."""

    @pytest.fixture(autouse=True)
    def strict(self):
        with np.errstate(all="raise"), warnings.catch_warnings():
            warnings.simplefilter("error")
            yield

    @pytest.mark.parametrize("backend", BACKENDS)
    def test_products_that_overflow_in_several_threads(self, backend):
        """A pool of threads computes them, with an error state of its own."""
        made = make_backend(backend)
        backend = made if made.name == "cupy" else type(made)(threads=2)
        net = nn.Network([nn.Dense(512), nn.Dense(512)], 64, backend=backend)
        net.set_weights({name: np.full_like(values, 1e3) for name, values in net.get_weights().items()})
        with pytest.warns(UserWarning, match="1,600 of 1,600 rows are NaN or infinite"):
            outputs = net.predict(np.full((1600, 64), 1e38), batch_size=1600)
        assert not np.isfinite(outputs).any()

    @pytest.mark.parametrize("backend", BACKENDS)
    def test_a_diverging_run_ends_with_our_error(self, backend):
        net = nn.Network([nn.Dense(4, activation="relu"), nn.Dense(1)], 5, backend=make_backend(backend))
        with pytest.raises(nn.errors.TrainingDivergedError):
            net.fit(np.ones((20, 5)), np.ones((20, 1)), epochs=9, loss="mean_squared_error", optimizer=nn.SGD(1e9))

    @pytest.mark.parametrize("backend", BACKENDS)
    def test_values_out_of_range_are_our_error(self, backend):
        net = nn.Network([nn.Dense(1)], 5, backend=make_backend(backend))
        x, y = np.full((3, 5), 1e300), np.full((3, 1), 1e300)
        for call in (
            lambda: net.fit(x, y * 0, loss="mean_squared_error"),
            lambda: net.fit(x * 0, y, loss="mean_squared_error"),
            lambda: net.predict(x),
            lambda: net.set_weights({"layers.0.weight": x[:1].T, "layers.0.bias": y[0]}),
        ):
            with pytest.raises(nn.errors.InvalidInputError):
                call()

    @pytest.mark.parametrize("stream", [False, True])
    def test_streams(self, stream):
        x, y = data()
        net = nn.Network([nn.Dense(3)], 5, backend="numpy")
        options = {"epochs": 2, "loss": "softmax_cross_entropy", "batch_size": 9}
        if stream:
            net.fit(x, y, stream=True, **options)
        else:
            net.fit(nn.BatchStream(lambda epoch: [(x, y)], len(x)), **options)
        assert net.evaluate(x, y)["loss"] > 0

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_estimators(self, dtype):
        pytest.importorskip("sklearn")
        x, y = data()
        x = x / 100
        for model in (
            nn.MLPClassifier(
                hidden_layer_sizes=(4,), max_iter=3, tol=0, n_iter_no_change=99, dtype=dtype, random_state=0
            ),
            nn.MLPRegressor(
                hidden_layer_sizes=(4,),
                max_iter=3,
                tol=0,
                n_iter_no_change=99,
                dtype=dtype,
                random_state=0,
                verbose=True,
            ),
        ):
            with output(None), pytest.raises(UserWarning, match="not converged"):
                model.fit(x, y)  # warnings are errors
            with output(None):
                for _ in range(3):
                    model.partial_fit(x, y, **({"classes": [0, 1, 2]} if hasattr(model, "predict_proba") else {}))
            assert np.isfinite(model.predict(x * 1e3)).all()
            if hasattr(model, "predict_log_proba"):
                assert (model.predict_log_proba(x * 1e3) <= 0).all()


def test_the_reason_why_nothing_is_printed_any_more_is_logged_once(caplog):
    stream = io.StringIO()
    stream.close()
    with output(stream):
        work("numpy", None)
    (record,) = [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert "cannot print to standard output (I/O operation on closed file); the training continues" in record.message
