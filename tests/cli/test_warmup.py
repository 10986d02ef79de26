"""``nnbackend warmup``: what it compiles, caches, prints and refuses."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numba import typeof

from nnbackend.backends.activations import ACTIVATIONS
from nnbackend.backends.contract import OPERATIONS
from nnbackend.backends.image_operations import POOLS
from nnbackend.backends.numba import NumbaBackend, prediction
from nnbackend.backends.numba.compiled import KINDS, kind_of
from nnbackend.backends.numba.convolution_tiles import kernel_of
from nnbackend.backends.numpy import NumpyBackend
from nnbackend.cli import main
from nnbackend.cli.warmup_networks import warmup_networks
from nnbackend.layers import Dense
from nnbackend.network import Network
from tests.locks import adopt_kernels

#: Operations that run before a step is recorded or after it has run.
OUTSIDE_OF_STEPS = {"empty", "from_host", "write", "to_host", "copy", "synchronize"}


def python(*arguments: str, cache: Path | str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "NUMBA_CACHE_DIR": str(cache)},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )


def test_the_networks_use_every_operation_activation_and_pool():
    seen = set()

    class Watched(NumpyBackend):
        def executor(self, calls):
            for call in calls:
                seen.add(call.operation)
                seen.update(argument for argument in call.arguments.values() if isinstance(argument, str))
            return super().executor(calls)

    for network in warmup_networks(Watched(threads=1), "float32"):
        network.run()
    assert set(OPERATIONS) - OUTSIDE_OF_STEPS <= seen
    assert {*ACTIVATIONS, *POOLS} <= seen


def test_what_only_threads_that_meet_need_is_compiled(monkeypatch):
    names, seen = ("dismiss", "run_open", "serve"), set()

    def noted(name, function, *arguments):
        seen.add((name, *map(typeof, arguments)))
        return function(*arguments)

    for name in names:
        monkeypatch.setattr(prediction, name, partial(noted, name, getattr(prediction, name)))
    prediction.compile_for_threads()
    compiled = set(seen)
    assert {name for name, *_ in compiled} == set(names)
    network = Network([Dense(256), Dense(3)], 30, backend=NumbaBackend(threads=2), seed=0, input_scale=1.0)
    for _ in range(3):
        network.predict(np.ones((20_000, 30), np.float32))
    network.fit(np.ones((600, 30), np.float32), np.ones((600, 3), np.float32), epochs=2, loss="mse", verbose=False)
    assert "run_open" in {name for name, *_ in seen}
    assert seen == compiled


def test_the_networks_use_every_compiled_function():
    seen = set()

    class Watched(NumbaBackend):
        def executor(self, calls):
            for call in calls:
                if kind := kind_of(call):
                    seen.add(kind.name)
                    if "winograd" in kind.name:
                        # Their transforms depend on the size of the kernel.
                        seen.add((kind.name, kernel_of(call).shape[:2]))
            return NumpyBackend.plain_executor(self, [])  # nothing needs to be compiled for this test

        plain_executor = executor

    for network in warmup_networks(Watched(threads=1), "float32"):
        network.run()
    # Predictors choose this one themselves.
    assert set(KINDS) - {"dense_panels"} <= seen
    for name in ("winograd_convolution", "winograd_input_gradient", "winograd_weight_gradient"):
        assert {(name, (3, 3)), (name, (5, 5))} <= seen


def test_each_network_runs_on_the_executor_that_it_names():
    seen = []

    class Watched(NumbaBackend):
        def executor(self, calls):
            seen.append(super().executor(calls).name)
            return NumpyBackend.plain_executor(self, [])  # nothing needs to be compiled for this test

        def plain_executor(self, calls):
            seen.append(super().plain_executor(calls).name)
            return NumpyBackend.plain_executor(self, [])

    for network in warmup_networks(Watched(threads=1), "float32"):
        seen.clear()
        network.run()
        assert set(seen) == {network.executor}


TRAIN_AND_COUNT = """
import numpy as np
import nnbackend as nn
from nnbackend.backends.numba.cache import cache_state
from nnbackend.testing import check_backend

net = nn.Network([nn.Dense(300, activation="relu"), nn.Dense(10)], 784, backend="numba", input_scale=1 / 255)
x = np.zeros((3000, 784), np.uint8)
net.fit(x, np.arange(3000) % 10, epochs=2, batch_size=256, loss="softmax_cross_entropy", verbose=False)
check_backend(nn.get_backend("numba"), dtypes=["float32"])
state = cache_state()
print(state.compiled, state.loaded > 0, len(list(state.folder.glob("*.nbc"))) > state.loaded)
"""


def compiled(line: str) -> int:
    """The last column of a row of the table."""
    return int(line.split()[-1]) if line.startswith("  float") else 0


def test_a_target_that_cannot_be_is_refused_by_the_name_of_its_option(capsys, monkeypatch):
    monkeypatch.delenv("NNBACKEND_TARGET", raising=False)
    other = "x86-64-v2" if platform.machine() in ("arm64", "aarch64") else "neoverse-n1"
    for name, message in (("x86-64-v9", "is no target. Choose one of"), (other, "asks for code that this CPU")):
        assert main(["warmup", "--target", name]) == 2
        assert f"--target {name} {message}" in capsys.readouterr().err
        assert "NNBACKEND_TARGET" not in os.environ


@pytest.mark.slow
def test_after_a_warm_up_nothing_is_compiled_again(tmp_path):
    command = ("-m", "nnbackend", "warmup", "--dtype", "float32")
    first = python(*command, cache=tmp_path)
    assert first.returncode == 0, first.stderr
    assert first.stderr == ""
    lines = first.stdout.splitlines()
    assert re.fullmatch(rf"kernels for native-\S+ are cached in {re.escape(str(tmp_path.resolve()))}\S+", lines[0])
    assert len([line for line in lines if line.startswith("  float32  ")]) == 14
    assert lines[1].split() == ["dtype", "executor", "loss", "data", "optimizer", "seconds", "compiled"]
    assert sum(map(compiled, lines)) == int(lines[-1].split()[0]) > 0
    assert re.fullmatch(r"\d+ kernels compiled in \d+\.\d s; from now on they are loaded from the cache", lines[-1])
    assert all(len(line) <= 80 for line in lines[1:])
    assert list(tmp_path.rglob("*.nbc"))

    second = python(*command, cache=tmp_path)
    assert second.returncode == 0, second.stderr
    assert sum(map(compiled, second.stdout.splitlines())) == 0
    assert re.fullmatch(
        r"nothing to compile: all kernels were loaded from the cache in \d+\.\d s", second.stdout.splitlines()[-1]
    )

    training = python("-c", TRAIN_AND_COUNT, cache=tmp_path)
    assert training.stdout.split() == ["0", "True", "True"], training.stdout + training.stderr
    # The other tests need these kernels, too.
    adopt_kernels(tmp_path)


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "cache"
    result = python("-m", "nnbackend", "warmup", cache=folder)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr == (
        f"nnbackend: error: compiled kernels cannot be cached: the folder {folder} in NUMBA_CACHE_DIR is not writable. "
        "Choose another\n"
    )


def test_info_says_how_to_fill_an_empty_cache(tmp_path):
    result = python("-m", "nnbackend", "info", cache=tmp_path)
    assert re.search(
        r"^  compiled Numba kernels  .*\(none yet; 'nnbackend warmup' compiles them\)$", result.stdout, re.M
    )
