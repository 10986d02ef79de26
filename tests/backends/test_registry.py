"""Backends by name: which exist, which can run, and what "auto" chooses and why."""

from __future__ import annotations

import logging
import os
import subprocess
import sys

import pytest

import nnbackend as nn
from nnbackend.backends import registry
from nnbackend.backends.numpy import NumpyBackend
from nnbackend.errors import BackendUnavailableError


def test_every_backend_says_whether_it_can_run_and_if_not_why():
    infos = {info.name: info for info in nn.available_backends()}
    assert list(infos)[:3] == ["numpy", "numba", "cupy"]
    assert infos["numpy"].usable
    assert infos["numba"].usable
    for info in infos.values():
        if info.usable:
            assert str(info) == f"{info.name}: usable on {info.device}"
            assert not info.reason
        else:
            assert info.reason in str(info)
            assert info.remedy in str(info)


def test_a_backend_object_is_passed_through():
    own = NumpyBackend()
    assert nn.get_backend(own) is own
    assert nn.Network([nn.Dense(1)], 1, backend=own).backend is own


@pytest.fixture
def pretend(monkeypatch):
    """Make built-in backends unusable."""

    def unusable(*names):
        real = registry._probe
        monkeypatch.setattr(
            registry, "_probe", lambda name: ("it is switched off", "Switch it on.") if name in names else real(name)
        )

    registry._made.cache_clear()
    yield unusable
    registry._made.cache_clear()


@pytest.mark.parametrize(
    ("off", "chosen", "reasons"),
    [
        (["cupy"], "numba", ["cupy cannot run here (it is switched off)"]),
        (["cupy", "numba"], "numpy", ["cupy cannot run here", "numba cannot run here (it is switched off)"]),
    ],
)
def test_auto_takes_the_fastest_that_runs_and_logs_why(pretend, caplog, off, chosen, reasons):
    pretend(*off)
    with caplog.at_level(logging.INFO, logger="nnbackend"):
        assert nn.get_backend("auto").name == chosen
    (message,) = caplog.messages
    assert f"'auto' chose '{chosen}'" in message
    for reason in reasons:
        assert reason in message


def test_a_backend_requested_by_name_never_falls_back(pretend):
    pretend("numba")
    with pytest.raises(BackendUnavailableError, match=r"'numba' cannot run here: it is switched off\. Switch it on\."):
        nn.get_backend("numba")


def test_a_missing_numba_is_reported_with_the_command():
    script = """
import sys
sys.modules["numba"] = None
import nnbackend as nn
info = next(info for info in nn.available_backends() if info.name == "numba")
print(info.usable, info.reason, info.remedy, sep="|")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False|Numba is not installed|Run: pip install numba"


@pytest.mark.slow
def test_threads_that_numba_refuses_are_named():
    script = """
import nnbackend as nn
for _ in range(2):
    try:
        nn.get_backend("numba")
    except nn.errors.BackendUnavailableError as error:
        print(error)
print(nn.get_backend("auto").name)
"""
    environment = {**os.environ, "NUMBA_NUM_THREADS": "0"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    first, second, auto = done.stdout.splitlines()
    assert first == second
    assert "Numba refuses NUMBA_NUM_THREADS=0" in first
    assert first.endswith("Set it to the number of threads, at least 1, or unset it")
    assert auto != "numba"


@pytest.fixture
def numba_without_compiler(monkeypatch):
    """What the environment variable NUMBA_DISABLE_JIT=1 does."""
    monkeypatch.setattr("numba.core.config.DISABLE_JIT", 1)
    registry._made.cache_clear()
    registry._probe.cache_clear()
    yield
    registry._made.cache_clear()
    registry._probe.cache_clear()


def test_a_numba_that_does_not_compile_is_unusable(numba_without_compiler, caplog):
    reason = "'numba' cannot run here: Numba's compiler is turned off by NUMBA_DISABLE_JIT"
    for request in (
        lambda: nn.get_backend("numba"),
        lambda: nn.Network([nn.Dense(1)], 1, "numba"),
        lambda: nn.NumbaBackend(),
    ):
        with pytest.raises(BackendUnavailableError, match=reason):
            request()
    with caplog.at_level(logging.INFO, logger="nnbackend"):
        assert nn.get_backend("auto").name == ("cupy" if nn.available_backends()[2].usable else "numpy")
    if not nn.available_backends()[2].usable:
        assert "numba cannot run here (Numba's compiler is turned off by NUMBA_DISABLE_JIT" in caplog.text


class _Entry:
    def __init__(self, name, load):
        self.name, self.load, self.value = name, load, f"plugin:{name}"


def test_a_broken_plugin_affects_no_other_backend(monkeypatch):
    def broken():
        raise RuntimeError("no such wheel")

    class OnFire:
        def __init__(self):
            raise RuntimeError("device on fire")

    class Unsure:
        @classmethod
        def probe(cls):
            raise OSError("no answer")

    loaders = {"good": lambda: NumpyBackend, "bad": broken, "odd": lambda: dict}
    loaders |= {"hot": lambda: OnFire, "unsure": lambda: Unsure}
    entries = {name: _Entry(name, load) for name, load in loaders.items()}
    monkeypatch.setattr(registry, "_plugins", lambda: entries)
    registry._made.cache_clear()
    registry._probe.cache_clear()
    infos = {info.name: info for info in nn.available_backends()}
    assert infos["good"].usable
    assert "plugin:bad failed to load (RuntimeError: no such wheel)" in infos["bad"].reason
    assert "returned a dict" in infos["odd"].reason
    assert "could not be started (RuntimeError: device on fire)" in infos["hot"].reason
    assert "its probe failed (OSError: no answer)" in infos["unsure"].reason
    assert infos["numpy"].usable
    registry._made.cache_clear()
    registry._probe.cache_clear()


@pytest.mark.slow
def test_numba_works_where_its_cache_cannot_be_written():
    script = """
from numba.core import caching
caching.CacheImpl._locator_classes = []
import numpy as np, nnbackend as nn
net = nn.Network([nn.Activation("relu")], 3, backend="numba")
print(net.predict(np.ones((1, 3))).shape)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "(1, 3)", done.stderr
