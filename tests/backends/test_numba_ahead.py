"""Compiling in two processes at once: the same bits, and nothing depends on the other process."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from nnbackend.backends.numba import ahead, jobs
from nnbackend.backends.numba.tile_shape import FLOAT32
from nnbackend.support.cores import usable_cores

#: The function before the tests replace it.
POSSIBLE = ahead._is_possible

PROGRAM = """
import hashlib
import sys

import numpy as np

import nnbackend as nn
from nnbackend.backends.numba import ahead, dense_products
{before}
net = nn.Network([nn.Dense(50, activation="tanh"), nn.Dense(3)], 20, backend="numba", seed=0)
x = np.random.default_rng(0).normal(size=(200, 20)).astype(np.float32)
net.fit(x, np.arange(200) % 3, epochs=1, loss="softmax_cross_entropy", optimizer=nn.RMSprop(), verbose=False)
weights = b"".join(weight.tobytes() for weight in net.get_weights().values())
products = [callback for callback in map(dense_products.product_callback, shapes)]
print(hashlib.sha256(weights).hexdigest())
print(sum(callback.cache_hits for callback in products), len(products))
{after}
"""
SHAPES = """
from dataclasses import replace
from nnbackend.backends.numba.tile_shape import FLOAT32
shapes = [FLOAT32, replace(FLOAT32, epilogue="rmsprop")]
"""


def run(cache: Path, before: str, after: str = "") -> list[str]:
    text = PROGRAM.format(before=SHAPES + before, after=after)
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache)}
    done = subprocess.run(
        [sys.executable, "-c", text], env=environment, capture_output=True, text=True, timeout=250, check=True
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


@pytest.mark.slow
@pytest.mark.skipif(usable_cores() < 2, reason="there is one core")
def test_products_come_from_the_other_process_with_the_same_bits(tmp_path: Path):
    weights, hits, code = run(tmp_path / "two", "", "print(ahead._helper[0].wait())")
    assert (hits, code) == ("2 2", "0")
    alone, hits = run(tmp_path / "one", "ahead._is_possible = lambda: False")
    assert hits == "0 2"
    assert alone == weights


@pytest.mark.slow
@pytest.mark.skipif(usable_cores() < 2, reason="there is one core")
def test_a_process_that_fails_is_not_needed(tmp_path: Path):
    broken = "ahead._PROGRAM = 'raise SystemExit(3)'"
    weights, hits, code = run(tmp_path, broken, "print(ahead._helper[0].wait())")
    assert (hits, code) == ("0 2", "3")
    assert len(weights) == 64


def test_no_other_program_is_started_as_python(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "executable", "/usr/sbin/uwsgi")
    monkeypatch.setattr(ahead, "usable_cores", lambda: 2)
    assert not POSSIBLE()
    monkeypatch.setattr(sys, "executable", "/usr/bin/python3.12")
    assert POSSIBLE()
    monkeypatch.setattr(ahead, "usable_cores", lambda: 1)
    assert not POSSIBLE()


def test_people_are_told_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(ahead, "_told", False)
    monkeypatch.setattr(ahead, "is_interactive", lambda: False)
    ahead.tell(4.2, "/home/user/.cache")
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(ahead, "is_interactive", lambda: True)
    ahead.tell(0.4, "/home/user/.cache")
    assert capsys.readouterr().err == ""
    ahead.tell(4.2, "/home/user/.cache")
    ahead.tell(4.2, "/home/user/.cache")
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "about 4 s; later runs load the result from /home/user/.cache" in said


@pytest.mark.slow
@pytest.mark.skipif(usable_cores() < 2, reason="there is one core")
def test_nothing_in_the_working_directory_is_imported(tmp_path: Path):
    """A user's folder may have a file with the name of a module, which may do anything."""
    folder = tmp_path / "work"
    folder.mkdir()
    for name in ("json", "numpy", "nnbackend"):
        (folder / f"{name}.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w').close()\n")
    moved = f"import os\nimport pathlib\nos.chdir({str(folder)!r})\nsys.path[:0] = ['', pathlib.Path('relative')]"
    _, hits, code = run(tmp_path / "cache", moved, "print(ahead._helper[0].wait())")
    assert (hits, code) == ("2 2", "0")
    assert not (tmp_path / "imported").exists()


def test_modules_are_found_where_this_process_found_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    root = str(Path(ahead.__file__).parents[3])
    path = ["", "relative", str(tmp_path), b"bytes", tmp_path, "/quoted'\udcff\n"]
    monkeypatch.setattr(sys, "path", path)
    assert ahead._path() == [root, str(tmp_path), "/quoted'\udcff\n"]
    monkeypatch.setattr(sys, "path", [*path, root])
    assert ahead._path() == [str(tmp_path), "/quoted'\udcff\n", root]
    printing = ahead._PROGRAM.partition("import json")[0] + "print(ascii(sys.path))"
    done = subprocess.run([sys.executable, "-c", printing.format(path=ahead._path())], capture_output=True, text=True)
    assert done.stdout.strip() == ascii(ahead._path())


class Stopped:
    """A process that never ends."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def poll(self) -> None:
        return None

    def wait(self) -> None:
        return None


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "_helper", None)
    monkeypatch.setattr(ahead, "_is_possible", lambda: True)
    monkeypatch.setattr(ahead.subprocess, "Popen", Stopped)


def test_a_process_that_hangs_is_waited_for_once(monkeypatch: pytest.MonkeyPatch, stopped: None):
    monkeypatch.setattr(ahead, "_PATIENCE", 0.2)
    ahead.begin([{"epoch": None}])
    asked: list[float] = []
    ahead.wait_for(lambda: bool(asked.append(0.0)))
    assert asked
    asked.clear()
    ahead.wait_for(lambda: bool(asked.append(0.0)))
    assert not asked


def test_where_no_thread_can_start_the_other_process_still_compiles(monkeypatch: pytest.MonkeyPatch, stopped: None):
    def refuse(self: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(ahead.threading.Thread, "start", refuse)
    ahead.begin([{"epoch": None}])
    assert ahead._is_running()


def test_the_other_process_ends_if_it_cannot_write(monkeypatch: pytest.MonkeyPatch):
    """Otherwise the first one would wait for products until everything is compiled, and compile them then."""
    done: list[object] = []
    monkeypatch.setattr(jobs, "compiled_product", done.append)
    monkeypatch.setattr(jobs, "is_on_disk", lambda callback: False)
    monkeypatch.setattr(jobs, "address_of", lambda *key: done.append(key))
    work = [{"product": asdict(FLOAT32)}, {"function": ["dense", "float32", None]}]
    jobs.run(work)
    assert done == [FLOAT32]
    done.clear()
    monkeypatch.setattr(jobs, "is_on_disk", lambda callback: True)
    jobs.run(work)
    assert len(done) == 2
