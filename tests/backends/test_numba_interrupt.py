"""Ctrl-C while kernels compile: a plain KeyboardInterrupt when the kernel is done, whatever the compiler was doing."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from numba import types

from nnbackend.backends.numba import jit
from tests.cli.commands import environment


@pytest.fixture
def ctrl_c_in_llvm(monkeypatch: pytest.MonkeyPatch):
    """Ctrl-C in a function that C code calls, where Python cannot raise an exception. Returns where it came."""
    came: list[str] = []
    optimize = jit._SelfContainedLibrary._optimize_final_module

    def interrupted(self):
        ctypes.CFUNCTYPE(None)(lambda: signal.raise_signal(signal.SIGINT))()
        optimize(self)
        # Numba's own runtime is compiled with the first function of a process.
        came.extend([self.name] if "<locals>" in self.name else [])

    monkeypatch.setattr(jit._SelfContainedLibrary, "_optimize_final_module", interrupted)
    # What is loaded from disk is not compiled.
    monkeypatch.setattr(jit, "_keep", lambda compiled, function: None)
    return came


def test_of_a_function(ctrl_c_in_llvm: list[str]):
    @jit.jit
    def inner(x):
        return x + x

    @jit.jit
    def outer(x):
        return inner(x) + 1

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        outer(1.5)
    assert len(ctrl_c_in_llvm) == 2
    assert signal.getsignal(signal.SIGINT) is before
    # It was compiled to its end.
    assert outer(1.5) == 4
    assert len(ctrl_c_in_llvm) == 2


def test_of_a_callback(ctrl_c_in_llvm: list[str]):
    with pytest.raises(KeyboardInterrupt):
        jit.compile_callback(lambda x: x * 2, types.float64(types.float64))
    assert len(ctrl_c_in_llvm) == 1


def test_a_handler_of_the_program_is_called_once(ctrl_c_in_llvm: list[str]):
    @jit.jit
    def third(x):
        return x * 3

    called = []
    before = signal.signal(signal.SIGINT, lambda number, frame: called.append(len(ctrl_c_in_llvm)))
    try:
        assert third(2) == 6
    finally:
        signal.signal(signal.SIGINT, before)
    assert called == [1]


def test_other_threads_are_left_alone():
    @jit.jit
    def fourth(x):
        return x * 4

    before = signal.getsignal(signal.SIGINT)
    found = []
    thread = threading.Thread(target=lambda: found.append(fourth(np.float32(2))))
    thread.start()
    thread.join()
    assert found == [8]
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for other processes")
@pytest.mark.parametrize("command", ["warmup", "train"])
def test_the_command_says_interrupted(tmp_path: Path, command: str):
    options = {
        "warmup": ["--dtype", "float32"],
        "train": ["--dataset", "circle", "--backend", "numba", "--out", str(tmp_path / "run")],
    }[command]
    cache = tmp_path / "cache"
    process = subprocess.Popen(
        [sys.executable, "-m", "nnbackend", command, *options],
        env=environment(NUMBA_CACHE_DIR=str(cache)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    # When the first kernel is on the disk, the next one is being compiled.
    while not any(name.endswith(".nbc") for _, _, names in os.walk(cache) for name in names):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 130, errors
    assert "interrupted" in errors
    assert "Traceback" not in errors
    assert errors.strip().count("\n") == 0, errors
