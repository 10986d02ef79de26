"""The GPU benchmark: a complete dry run on the CPU, and the message without a GPU."""

from __future__ import annotations

import json
from contextlib import ExitStack

import pytest

from benchmarks import gpu
from benchmarks.peers import results
from benchmarks.peers.cores import environment
from benchmarks.peers.entries import ON_GPU, find
from benchmarks.peers.process import WorkerError, start_workers
from nnbackend.errors import DataError

pytest.importorskip("cupy", reason="its contenders are asked for CuPy, also in a dry run")


@pytest.fixture
def leaves_no_trace(monkeypatch):
    """An environment variable makes dry runs apply to other processes."""
    monkeypatch.setenv("NNBACKEND_BENCHMARK_DRY_RUN", "0")


@pytest.mark.slow
def test_a_dry_run_trains_every_net_and_keeps_what_it_prints(leaves_no_trace, tmp_path, capsys):
    arguments = ["nets", "--dry-run", "--contenders", "cupy", "cupy-plain", "--out", str(tmp_path)]
    assert gpu.main(arguments) == 0
    printed = capsys.readouterr().out
    (path,) = tmp_path.iterdir()
    result = json.loads(path.read_text())
    assert [measured["work"]["hidden"] for measured in result["works"]] == [[40], [200, 80], [500, 1000, 300]]
    for measured in result["works"]:
        assert set(measured["contenders"]) == {"cupy", "cupy-plain"}
        for contender in measured["contenders"].values():
            # Its losses agree with the reference; otherwise it would not have been timed.
            assert contender["disagreement"] < 1e-3
            assert len(contender["seconds"]) == 2
    assert gpu.text(result) in printed
    assert "a dry run on the CPU" in printed
    assert printed.count("| plain CuPy ") == 3


def test_without_a_gpu_it_says_why_and_measures_nothing(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(gpu, "probe", lambda: ("there is no NVIDIA driver on this machine", "Install it"))
    assert gpu.main(["nets", "--out", str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == (
        "there is no NVIDIA driver on this machine. Install it. With --dry-run, everything runs on the CPU.\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_the_table_shows_failures_and_ratios():
    seconds = {"cupy": [2e-3, 4e-3, 3e-3], "torch-gpu": [6e-3] * 3}
    contenders = {name: {"seconds": each, "warm_up": 1.0} for name, each in seconds.items()}
    contenders["jax-gpu"] = {"error": "JAX has no GPU here"}
    work = gpu.works.NETS[1].to_dict() | {"steps": 100}
    result = results.header("nets", 1, list(ON_GPU[:1])) | {
        "device": {"name": "NVIDIA H100", "driver": "driver for CUDA 13000"},
        "data": "MNIST",
        "not_installed": ["plain CuPy"],
        "failed": {"PyTorch reduce-overhead": "no compiler"},
        "works": [{"work": work, "contenders": contenders}],
    }
    text = gpu.text(result)
    assert "## NVIDIA H100, driver for CUDA 13000" in text
    assert "| nnbackend cupy |      30.0 | 20.0 to 40.0 | 8,533,333 |       - |" in text
    assert "| PyTorch eager  |      60.0 | 60.0 to 60.0 | 4,266,667 |   2.00x |" in text
    assert "- JAX jit + scan, 784-200-80-10: JAX has no GPU here" in text
    assert "- plain CuPy: not installed\n- PyTorch reduce-overhead: did not start: no compiler" in text


@pytest.mark.slow
def test_a_dry_run_learns(leaves_no_trace, tmp_path, capsys, mnist):
    arguments = ["accuracy", "--dry-run", "--contenders", "cupy", "--out", str(tmp_path)]
    assert gpu.main(arguments) == 0
    (path,) = tmp_path.iterdir()
    result = json.loads(path.read_text())
    assert set(result["contenders"]) == {"nnbackend cupy, large batches", "nnbackend cupy, small batches"}
    assert all(0.9 < run["accuracy"] < 1 for (run,) in result["contenders"].values())
    assert gpu.text(result) in capsys.readouterr().out


def test_without_mnist_there_is_no_time_to_learn_it(leaves_no_trace, tmp_path, capsys, monkeypatch):
    def missing(*_, **__):
        raise DataError("MNIST is not available")

    monkeypatch.setattr("nnbackend.datasets.load", missing)
    assert gpu.main(["accuracy", "--dry-run", "--contenders", "cupy", "--out", str(tmp_path)]) == 0
    assert "accuracy: skipped: MNIST is not available" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "sees"), [("cupy", True), ("jax-gpu", True), ("numpy", False), ("jax", False)])
def test_workers_on_a_gpu_see_it(monkeypatch, name, sees):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    given = environment(2, find(name).on_gpu)
    assert given["CUDA_VISIBLE_DEVICES"] == ("3" if sees else "")
    assert ("JAX_PLATFORMS" in given) != sees


def test_a_worker_is_started_in_the_environment_of_its_kind(monkeypatch):
    started = []

    def popen(command, env, **_):
        started.append((command[3], env["CUDA_VISIBLE_DEVICES"]))
        raise WorkerError("enough")

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr("benchmarks.peers.process.subprocess.Popen", popen)
    with ExitStack() as stack:
        assert start_workers([find("cupy"), find("numpy")], 1, 1, stack, {}, print) == {}
        with pytest.raises(WorkerError):
            start_workers([find("reference")], 1, 1, stack, {}, print)
    assert started == [("cupy", "0"), ("numpy", ""), ("reference", "")]
