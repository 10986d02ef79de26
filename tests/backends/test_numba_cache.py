"""Compiled kernels on disk, with several processes sharing the folder, and with errors."""

from __future__ import annotations

import gc
import hashlib
import importlib.util
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numba
import numpy as np
import pytest
from numba.core.caching import IndexDataCacheFile
from numba.core.errors import TypingError

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


def files(folder: Path, kind: type = KernelFiles, stamp: object = "now") -> IndexDataCacheFile:
    return kind(str(folder), "function-1.py311", stamp)


def data_files(folder: Path) -> list[Path]:
    return list(folder.glob("*.nbc"))


def save_at_once(first: IndexDataCacheFile, second: IndexDataCacheFile) -> None:
    """`second` reads the index before `first` writes it, and each writes its data last: two processes side by side."""
    index = second._load_index

    def early() -> dict:
        found = index()
        second._load_index = index
        first.save("float32", "code for float32")
        return found

    second._load_index = early
    # The second writes its machine code before the first does.
    written = first._save_data
    waiting = []
    first._save_data = lambda *pair: waiting.append(pair)
    second.save("float64", "code for float64")
    for pair in waiting:
        written(*pair)


@pytest.mark.parametrize("kind", [KernelFiles, IndexDataCacheFile], ids=["ours", "numba's"])
def test_processes_that_compile_at_once_never_get_each_others_code(tmp_path: Path, kind: type):
    save_at_once(files(tmp_path, kind), files(tmp_path, kind))
    found = [files(tmp_path, kind).load(key) for key in ("float32", "float64")]
    if kind is KernelFiles:
        assert found[0] in (None, "code for float32")
        assert found[1] in (None, "code for float64")
        assert any(found)
    elif found[1] == "code for float64":
        pytest.fail("Numba has fixed this: KernelFiles can be removed")


def test_saved_files_are_found_and_outdated_ones_removed(tmp_path: Path):
    other = tmp_path / "function-10.py311.abc.nbc"
    other.touch()
    files(tmp_path).save("a", 1)
    files(tmp_path).save("b", 2)
    assert [files(tmp_path).load(key) for key in "abc"] == [1, 2, None]
    assert files(tmp_path, stamp="later").load("a") is None
    files(tmp_path, stamp="later").save("a", 3)
    assert files(tmp_path, stamp="later").load("a") == 3
    assert len(data_files(tmp_path)) == 2
    assert other.exists()


def test_a_function_whose_file_is_not_there_yet_is_not_held(tmp_path: Path):
    """Another process may be about to write it, or the disk is full."""
    ours, written = files(tmp_path), []
    ours._save_data = lambda *pair: written.append(pair)
    ours.save("a", 1)
    assert list(tmp_path.glob("*.nbi"))
    assert not files(tmp_path).holds("a")
    KernelFiles._save_data(ours, *written[0])
    assert files(tmp_path).holds("a")
    assert not files(tmp_path).holds("b")
    assert not files(tmp_path, stamp="later").holds("a")


@pytest.mark.parametrize("damage", [b"", b"\x80", b"no pickle", pickle.dumps("0.0.1"), pickle.dumps([1])])
def test_files_truncated_by_a_crash_are_written_again(tmp_path: Path, damage: bytes):
    files(tmp_path).save("a", 1)
    for path in tmp_path.iterdir():
        good = path.read_bytes()
        path.write_bytes(damage)
        assert files(tmp_path).load("a") in (None, [1], "0.0.1")
        path.write_bytes(good)
    next(tmp_path.glob("*.nbi")).write_bytes(damage)
    files(tmp_path).save("a", 2)
    assert files(tmp_path).load("a") == 2


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
    shutil.rmtree(folder)
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
    for locator in ("UserProvidedCacheLocator", "InTreeCacheLocator", "UserWideCacheLocator"):
        monkeypatch.setattr(f"numba.core.caching.{locator}.ensure_cache_path", refuse)
    module = functions(tmp_path, tmp_path / "cache", monkeypatch)
    assert module.twice.stats.cache_path is None
    assert module.twice(3) == 6


def refuse(locator: object) -> None:
    raise PermissionError(13, "Permission denied")


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
