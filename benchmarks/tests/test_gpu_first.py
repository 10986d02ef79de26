"""The first half hour on a GPU: a complete dry run on the CPU, and what it does with tools that fail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest

from benchmarks import gpu_first
from benchmarks.common import NETS
from tests.backends.cupy.emulator import why_not


@pytest.fixture
def small(monkeypatch):
    """The two smaller networks suffice."""
    if reason := why_not():
        pytest.skip(reason)
    monkeypatch.setattr(gpu_first, "NETS", NETS[:2])


def read(path):
    return json.loads(path.read_text())


def test_a_dry_run_checks_and_times_every_way(small, tmp_path, capsys):
    assert gpu_first.main(["smoke", "kernels", "sanitizer", "--dry-run", "--out", str(tmp_path)]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "graphs.txt", "kernels.json", "sanitizer.txt", "smoke.json", "summary.json",
    ]  # fmt: skip
    smoke = read(tmp_path / "smoke.json")
    assert [(each["net"], each["way"]) for each in smoke] == [(net, way) for net in NETS[:2] for way in gpu_first.WAYS]
    for each in smoke:
        assert each["losses_differ"] < 1e-4
        assert each["weights_differ"] < 1e-4
        assert each["microseconds"]["median"] > 0
        assert each["kernel_count"] == len(each["kernels"]) >= 2
    products = smoke[list(gpu_first.WAYS).index("plain products")]
    assert products["executor"] == "graph"
    assert "gemm" in products["kernels"]
    for each in read(tmp_path / "kernels.json"):
        assert all(operation["microseconds"] > 0 for operation in each["operations"])
        if each["way"] == "two kernels":
            found = [(part["operation"], *part["kernels"]) for part in each["operations"]]
            assert found == [("run_dense_step: rows", "rows_1"), ("run_dense_step: update", "update_sgd")]
    assert all(each["finite"] for each in read(tmp_path / "sanitizer.txt"))
    summary = read(tmp_path / "summary.json")
    assert summary.pop("device") == "none: a dry run on the CPU"
    assert {name: each["good"] for name, each in summary.items()} == dict.fromkeys(
        ("smoke", "kernels", "sanitizer"), True
    )
    assert "smoke: 784-40-10" in capsys.readouterr().out


def test_wrong_losses_do_not_pass(small, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_first, "NETS", NETS[:1])
    monkeypatch.setattr(gpu_first, "disagreement", lambda *_: float("nan"))
    assert gpu_first.main(["smoke", "--dry-run", "--out", str(tmp_path)]) == 1
    assert read(tmp_path / "summary.json")["smoke"]["good"] is False


def test_a_piece_that_fails_does_not_stop_the_others(tmp_path, monkeypatch):
    def fails(piece):
        raise OSError("no memory")

    def writes(piece):
        piece.write("sanitizer.txt", "clean")
        return True

    monkeypatch.setattr(gpu_first, "PIECES", {"smoke": fails, "sanitizer": writes})
    assert gpu_first.main(["--dry-run", "--out", str(tmp_path)]) == 1
    summary = read(tmp_path / "summary.json")
    assert summary["smoke"]["error"] == "OSError: no memory"
    assert summary["sanitizer"]["good"]


def test_a_child_that_fails_or_hangs_is_a_result(small, tmp_path, monkeypatch):
    """As after an invalid access, which leaves the context of the GPU unusable."""
    codes = iter(
        ["print('illegal address'); raise SystemExit(3)", "import time; time.sleep(60)", "print('{\"passes\": true}')"]
    )
    monkeypatch.setattr(gpu_first, "WAYS", dict.fromkeys("abc"))
    monkeypatch.setattr(gpu_first, "NETS", NETS[:1])
    monkeypatch.setattr(gpu_first, "command_of", lambda *_: [sys.executable, "-c", next(codes)])
    monkeypatch.setattr(gpu_first, "_COMBINATION_SECONDS", 3.0)
    device = gpu_first.Device(dry=True)
    device.dry = False
    begin = time.monotonic()
    assert gpu_first.run_smoke(gpu_first.Piece(device, tmp_path, 100)) is False
    assert time.monotonic() - begin < 40
    first, second, third = read(tmp_path / "smoke.json")
    assert first["error"] == "exit code 3: illegal address\n"
    assert second["error"] == "exit code None: "
    assert third["passes"] is True


def test_tools_that_are_not_installed_are_skipped(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_first, "_tool", lambda *_: None)
    device = gpu_first.Device(dry=True)
    device.dry = False
    assert gpu_first.run_sanitizer(gpu_first.Piece(device, tmp_path, 10)) is True
    assert (tmp_path / "sanitizer.txt").read_text() == "compute-sanitizer is not installed\n"


@pytest.mark.parametrize("knows", range(3))
def test_checks_run_with_the_filter_that_the_tool_knows(tmp_path, monkeypatch, knows):
    """Once for each tool, network and way, if the first filter is known."""
    tried = []

    def ran(piece, command, most):
        tried.append(command)
        filters = [*gpu_first._NOT_OURS, None].index(command[command.index(sys.executable) - 1] if
                                                    "--kernel-regex-exclude" in command else None)  # fmt: skip
        summary = "RACECHECK SUMMARY: 0 hazards" if "racecheck" in command else "ERROR SUMMARY: 0 errors"
        return (0, summary) if filters == knows else (1, "unknown filter")

    monkeypatch.setattr(gpu_first, "_tool", lambda *_: "compute-sanitizer")
    monkeypatch.setattr(gpu_first.Piece, "ran", ran)
    device = gpu_first.Device(dry=True)
    device.dry = False
    assert gpu_first.run_sanitizer(gpu_first.Piece(device, tmp_path, 10)) is True
    assert len(tried) == 3 * len(NETS) * 2 * (1 + knows)
    assert (tmp_path / "sanitizer.txt").read_text().count("exit code 0") == 3 * len(NETS) * 2


def test_names_of_kernels_in_the_description_of_a_graph():
    text = r"""digraph dot {
subgraph cluster_1 {
label="graph_1" graph[style="dashed"];
"graph_1_node_0"[style="bold" shape="octagon" label="0
gather_bytes_and_labels\<\<\<12,256,0\>\>\>
"];
"graph_1_node_1"[style="solid" shape="record" label="{KERNEL
| {ID | 1 | ampere_sgemm_32x32_nn\<\<\<(7,8,1),128,0\>\>\>}}"];
"graph_1_node_2"[style="solid" shape="rect" label="2
MEMSET
"];
"graph_1_node_0" -> "graph_1_node_1";
}
}"""
    assert gpu_first.names_in_dot(text) == ["gather_bytes_and_labels", "ampere_sgemm_32x32_nn"]


def test_without_a_gpu_it_says_why_and_measures_nothing(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(gpu_first, "probe", lambda: ("there is no NVIDIA driver on this machine", "Install it"))
    assert gpu_first.main(["--out", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("there is no NVIDIA driver on this machine. With --dry-run")
    assert list(tmp_path.iterdir()) == []


#: What a usual machine with a GPU lacks: Python, NumPy, CuPy, PyTorch, JAX and pytest are there.
ABSENT = (
    "array_api_strict", "hypothesis", "matplotlib", "numba", "onnx", "pandas", "platformdirs", "requests", "rich",
    "safetensors", "scipy", "sklearn", "threadpoolctl",
)  # fmt: skip


@pytest.mark.slow
def test_a_usual_machine_with_a_gpu_has_all_that_is_needed(tmp_path):
    """The first piece, and the collection of the tests for the device, without other packages."""
    if reason := why_not():
        pytest.skip(reason)
    program = f"""
import sys
sys.modules.update(dict.fromkeys({ABSENT}))  # importing None fails
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *package: None if name in {ABSENT} else found(name, *package)
from benchmarks import gpu_first
gpu_first.NETS = gpu_first.NETS[:1]
gpu_first.WAYS = dict(list(gpu_first.WAYS.items())[:1])
assert gpu_first.main(["smoke", "--dry-run", "--out", {str(tmp_path)!r}]) == 0
import benchmarks.gpu, pytest
options = ["--collect-only", "-q", "-o", "addopts=", "-o", "filterwarnings=default", "-p", "no:cacheprovider"]
assert pytest.main([*options, "tests/gpu"]) == 0
assert pytest.main([*options, "tests/backends", "-m", "gpu"]) == 0
"""
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=gpu_first.ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


@pytest.mark.slow
def test_tests_and_peers_run_in_a_dry_run(tmp_path, monkeypatch):
    if reason := why_not():
        pytest.skip(reason)
    pytest.importorskip("cupy", reason="the contender is asked for CuPy, also in a dry run")
    monkeypatch.setenv("NNBACKEND_BENCHMARK_DRY_RUN", "0")
    command = [sys.executable, "-m", "benchmarks.gpu_first", "tests", "peers", "--dry-run", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=gpu_first.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 skipped" in (tmp_path / "tests.txt").read_text()
    assert "| nnbackend cupy " in (tmp_path / "peers.txt").read_text()
    (path,) = tmp_path.glob("nets-*.json")
    assert len(read(path)["works"]) == 3
    # With the five of the other pieces there are eight files.
    assert sorted(each.name for each in tmp_path.iterdir()) == [path.name, "peers.txt", "summary.json", "tests.txt"]
