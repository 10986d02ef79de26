"""Compiled kernels on disk, with several processes sharing the folder, and with errors."""

from __future__ import annotations

import gc
import hashlib
import importlib.util
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import numba
import numpy as np
import pytest
from numba.core.errors import TypingError

from nnbackend.backends.numba import cache_folders
from nnbackend.backends.numba.disk_cache import KernelFiles

#: A minimal module of jitted functions, and a program that calls one.
FUNCTIONS = """
from nnbackend.backends.numba.jit import jit

@jit
def twice(x):
    return x + x
"""
PROGRAM = """
import functions
print(functions.twice(3), functions.twice(1.5))
"""


def files(folder: Path, *others: Path) -> KernelFiles:
    return KernelFiles([*others, folder], folder, "function")


def test_saved_files_are_found(tmp_path: Path):
    files(tmp_path).save("a", 1)
    files(tmp_path).save("b", 2)
    assert [files(tmp_path).load(key) for key in "abc"] == [1, 2, None]
    assert [files(tmp_path).holds(key) for key in "abc"] == [True, True, False]
    assert len(list(tmp_path.iterdir())) == 2
    files(tmp_path).save("a", 3)
    assert files(tmp_path).load("a") == 3
    assert KernelFiles([tmp_path], tmp_path, "other function").load("a") is None


def test_files_in_a_folder_that_cannot_be_written_are_found(tmp_path: Path):
    """A layer of a container image. What is missing there is written to the other folder."""
    shipped, own = tmp_path / "shipped", tmp_path / "own"
    files(shipped).save("a", 1)
    both = files(own, shipped)
    both.save("b", 2)
    assert [both.load(key) for key in "abc"] == [1, 2, None]
    assert [both.holds(key) for key in "abc"] == [True, True, False]
    assert len(list(shipped.iterdir())) == len(list(own.iterdir())) == 1


def test_a_file_of_another_function_is_not_loaded(tmp_path: Path):
    """Only if two checksums were equal, or a file was renamed."""
    ours = files(tmp_path)
    ours.save("a", 1)
    ours.path("a").rename(ours.path("b"))
    assert ours.load("b") is None


@pytest.mark.parametrize("damage", [b"", b"\x80", b"no pickle", pickle.dumps("0.0.1"), pickle.dumps([1])])
def test_files_truncated_by_a_crash_are_written_again(tmp_path: Path, damage: bytes):
    files(tmp_path).save("a", 1)
    (path,) = tmp_path.iterdir()
    path.write_bytes(damage)
    assert files(tmp_path).load("a") is None
    files(tmp_path).save("a", 2)
    assert files(tmp_path).load("a") == 2


def test_files_with_a_damaged_byte_are_written_again(tmp_path: Path):
    """Pickle does not notice it: a process would run other machine code."""
    files(tmp_path).save("a", b"machine code")
    (path,) = tmp_path.iterdir()
    text = path.read_bytes()
    for place in range(len(text)):
        path.write_bytes(bytes([*text[:place], text[place] ^ 1, *text[place + 1 :]]))
        assert files(tmp_path).load("a") is None
    path.write_bytes(text)
    assert files(tmp_path).load("a") == b"machine code"


def test_the_search_ends_at_the_first_folder_that_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    chosen, beside = tmp_path / "chosen", Path(cache_folders.__file__).parent / "__pycache__"
    search = cache_folders._folders.__wrapped__
    found = search(str(chosen))
    assert [folder.parent for folder in found.readable] == [chosen]
    assert found.writable == found.readable[0]
    monkeypatch.setattr(cache_folders, "_is_writable", lambda base: base not in (chosen, beside))
    found = search(str(chosen))
    assert [folder.parent for folder in found.readable[:2]] == [chosen, beside]
    assert found.writable == found.readable[2]
    assert len({folder.name for folder in found.readable}) == 1
    monkeypatch.setattr(cache_folders, "_is_writable", lambda base: False)
    assert search("").writable is None


def test_code_that_cannot_be_read_is_told_apart_by_its_place(tmp_path: Path):
    """In a frozen application there are no source files."""
    stamps = {cache_folders._stamp(tmp_path / name) for name in ("one", "two")}
    assert len(stamps) == 2
    assert cache_folders._stamp(tmp_path / "one") in stamps


def test_folders_that_no_process_has_used_for_a_month_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    names = [f"nnbackend-{name}" for name in ("old", "recent", "own")]
    for name in names[:2]:
        (tmp_path / name / "native").mkdir(parents=True)
    month = time.time() - 31 * 86_400
    for name in (names[0], "numba_1234"):
        (tmp_path / name).mkdir(exist_ok=True)
        os.utime(tmp_path / name, (month, month))
    cache_folders.make_folder(tmp_path / names[2] / "native")
    assert {path.name for path in tmp_path.iterdir()} == {*names[1:], "numba_1234"}
    # The use of a folder is noted when a process finds it.
    monkeypatch.setattr(cache_folders, "_name", lambda: names[1])
    os.utime(tmp_path / names[1], (month, month))
    cache_folders._folders.__wrapped__(str(tmp_path))
    assert time.time() - (tmp_path / names[1]).stat().st_mtime < 3600


def run(folder: Path, cache: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "NUMBA_CACHE_DIR": str(cache), "PYTHONPATH": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_processes_that_start_with_an_empty_folder_share_it(tmp_path: Path):
    cache = tmp_path / "cache"
    (tmp_path / "functions.py").write_text(FUNCTIONS)
    for process in [run(tmp_path, cache) for _ in range(2)]:
        printed, errors = process.communicate(timeout=250)
        assert (printed, errors) == ("6 3.0\n", "")
    assert list(cache.rglob("*.nbc"))
    assert not list(cache.rglob("*.tmp.*"))


def functions(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module of `FUNCTIONS`, in this process."""
    (folder / "functions.py").write_text(FUNCTIONS)
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(cache))
    specification = importlib.util.spec_from_file_location("functions", folder / "functions.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_a_folder_that_is_lost_does_not_end_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog):
    module = functions(tmp_path, tmp_path / "cache", monkeypatch)
    folder = Path(module.twice.stats.cache_path)
    folder.parent.mkdir()
    folder.touch()
    # A full disk and a folder that has become read-only both raise an OSError.
    assert (module.twice(3), module.twice(1.5)) == (6, 3.0)
    (record,) = caplog.records
    assert record.getMessage().startswith(f"compiled kernels cannot be cached in {folder} (")
    assert folder.read_bytes() == b""


@pytest.mark.parametrize("enabled", [True, False])
def test_a_compilation_leaves_garbage_collection_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, enabled: bool
):
    module = functions(tmp_path, tmp_path / "cache", monkeypatch)
    try:
        (gc.enable if enabled else gc.disable)()
        assert module.twice(3) == 6
        with pytest.raises(TypingError):
            module.twice({})
        assert gc.isenabled() is enabled
    finally:
        gc.enable()


def test_an_unwritable_home_is_not_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cache_folders, "_is_writable", lambda base: False)
    module = functions(tmp_path, tmp_path / "cache", monkeypatch)
    assert module.twice.stats.cache_path is None
    assert module.twice(3) == 6


def test_copies_of_a_function_are_not_interchangeable():
    """Copies are optimised with their callers, so with fast-math flags two copies may round differently."""
    from llvmlite.binding import Linkage

    from nnbackend.backends.numba.jit import jit

    @jit
    def total(x):
        result = x.dtype.type(0)
        for i in range(x.size):
            result += x[i] * x[i]
        return result

    @jit
    def twice(x):
        return total(x) + total(x[1:])

    twice(np.ones(1000))
    (compiled,) = twice.overloads.values()
    linkages = [
        function.linkage for function in compiled.library._final_module.functions if not function.is_declaration
    ]
    assert Linkage.external in linkages
    assert not {Linkage.linkonce_odr, Linkage.weak_odr} & set(linkages)


#: Losses in float64, whose sums may be reordered, are most sensitive to how they are compiled. They are called from
#: Python, and as lines of a program.
LOSSES = """
import hashlib
from nnbackend.backends.numba import NumbaBackend
from nnbackend.testing import CASES, Lab
from nnbackend.testing.lab import Shape
from tests.backends.steps import ThroughTheTable

for kind in (NumbaBackend, ThroughTheTable):
    class Hashing(kind):
        def to_host(self, array):
            host = super().to_host(array)
            digest.update(host.tobytes())
            return host

    for targets in ("labels", "probabilities"):
        digest = hashlib.sha256()
        CASES[f"softmax_cross_entropy_of_{targets}"](Lab(Hashing(threads=1), "float64", Shape(70, 12, 4)))
        print(digest.hexdigest())
"""


@pytest.mark.slow
def test_compiled_and_loaded_kernels_have_the_same_bits(tmp_path):
    said = [
        subprocess.run(
            [sys.executable, "-c", LOSSES],
            # Where `tests` can be imported.
            cwd=Path(__file__).parents[2],
            env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for _ in ("compiles", "loads")
    ]
    assert said[0] == said[1]
    assert len(set(said[0].split())) >= 2
    assert hashlib.sha256().hexdigest() not in said[0]
