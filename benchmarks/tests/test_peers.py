"""The comparison with other libraries: its arithmetic, its tables, and that all of it runs. No test is of a time."""

from __future__ import annotations

import json
import os
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement

import nnbackend as nn
from benchmarks.peers import __main__ as command
from benchmarks.peers import (
    cores,
    data,
    entries,
    figures,
    install_size,
    markdown,
    products,
    results,
    tables,
    works,
)
from benchmarks.peers.learners.base import RECIPES
from benchmarks.peers.reach import LEARNERS
from nnbackend.errors import DataError
from nnbackend.presets import PRESETS

HEADER = {
    "kind": "nets",
    "date": "2026-01-01T00:00:00+00:00",
    "command": "python -m benchmarks.peers nets",
    "machine": {
        "cpu": "A Processor",
        "architecture": "x86_64",
        "cores": 2,
        "vector_unit": {"bits": 256, "registers": 16, "fused_multiply_add": True},
        "system": "Linux 1",
    },
    "threads": 2,
    "versions": {"python": "3.11"},
    "not_installed": ["thinc"],
}


# ---- what is trained -------------------------------------------------------------------------------------------


def test_flops_count_every_product_but_the_one_nobody_needs():
    work = works.Work("", (40,), "sigmoid", 100, "sgd", 0.1)
    forward = 784 * 40 + 40 * 10
    weights, inputs = forward, 40 * 10
    assert work.flops == 2 * 100 * (forward + weights + inputs)


@pytest.mark.parametrize(("optimizer", "slots"), [("sgd", 0), ("adam", 2)])
def test_bytes_count_what_no_cache_can_keep(optimizer, slots):
    work = works.Work("", (40, 20), "relu", 100, optimizer, 0.1)
    forward = 784 * 40 + 40 * 20 + 20 * 10
    backward = 40 * 20 + 20 * 10
    parameters = forward + 40 + 20 + 10
    assert work.bytes == 100 * 784 + 4 * (forward + backward + 2 * (1 + slots) * parameters)


def test_nets_are_those_of_the_presets():
    for work in works.NETS:
        preset = PRESETS[work.name]
        assert (work.hidden, work.activation) == (preset.hidden, preset.activation)
        assert (work.batch_size, work.optimizer) == (preset.batch_size, preset.optimizer)


def test_layers_of_a_convolutional_net_have_the_shapes_of_their_codes():
    lenet, vgg, separable = works.IMAGES[:3]
    assert lenet.input_shape == (28, 28, 1)
    assert [layer.outputs for layer in lenet.layers] == [
        (24, 24, 20), (12, 12, 20), (8, 8, 40), (4, 4, 40), (100,), (10,)
    ]  # fmt: skip
    assert lenet.weights == ((5, 5, 1, 20), (5, 5, 20, 40), (640, 100), (100, 10))
    assert vgg.layers[-3].outputs == (7, 7, 64)
    assert separable.weights[:3] == ((3, 3, 1, 32), (3, 3, 1, 32), (1, 1, 32, 64))
    # Counted by hand: positions x window x channels x kernels, three products but for the first layer's two.
    first, second, dense = 24 * 24 * 25 * 20, 8 * 8 * 500 * 40, 640 * 100 + 1000
    assert lenet.flops == 2 * 100 * (2 * first + 3 * (second + dense))


@pytest.mark.parametrize("work", [*works.NETS, *works.SWEEP, *works.IMAGES], ids=lambda work: work.name)
def test_runs_stay_within_an_epoch_and_a_budget(work):
    assert 5 <= work.steps <= min(work.epoch_steps, 1000)
    assert work.steps == 5 or (work.steps - 0.5) * work.flops <= 40e9
    small = works.quick(work)
    assert 1 <= small.steps <= small.epoch_steps
    assert works.Work.from_dict(json.loads(json.dumps(work.to_dict()))) == work


def test_sweep_has_the_batches_and_widths_it_promises():
    assert [work.batch_size for work in works.SWEEP[:6]] == [1, 16, 32, 128, 1024, 8192]
    assert [work.hidden[0] for work in works.SWEEP[6:]] == [32, 64, 128, 256, 512, 1024, 2048]
    assert len({work.name for work in works.SWEEP}) == len(works.SWEEP)


def test_everybody_gets_the_same_weights_and_batches():
    work = works.quick(works.NETS[0])
    batches = data.batches(work, 3)
    assert batches.shape == (3, 100)
    assert len(np.unique(batches)) == batches.size
    assert np.array_equal(batches, data.batches(work, 5)[:3])
    first, again, other = (data.initial_weights(work, seed) for seed in (0, 0, 1))
    assert [weight.shape for weight, _ in first] == [(784, 40), (40, 10)]
    assert np.array_equal(first[0][0], again[0][0])
    assert not np.array_equal(first[0][0], other[0][0])


def test_without_mnist_images_are_made_up_and_that_is_said(monkeypatch):
    def missing(*_, **__):
        raise DataError("nowhere")

    monkeypatch.setattr(nn.datasets, "load", missing)
    x, y, source = data.images(50)
    assert x.shape == (50, 784)
    assert x.dtype == np.uint8
    assert y.shape == (50,)
    assert "random" in source


# ---- figures ---------------------------------------------------------------------------------------------------


def _measured(**seconds):
    work = replace(works.NETS[0], steps=10)
    contenders = {name: {"seconds": values, "warm_up": 1.0} for name, values in seconds.items()}
    return {"work": work.to_dict(), "contenders": contenders}


def test_speeds_are_medians_by_the_step():
    measured = _measured(
        numba=[0.01, 0.03, 0.02], torch=[0.08, 0.08, 0.08], peak=[0.005, 0.004, 0.005], bandwidth=[0.001]
    )
    speed = figures.speeds(measured)["numba"]
    assert (speed.step, speed.low, speed.high) == pytest.approx((0.002, 0.001, 0.003))
    assert speed.samples == pytest.approx(100 / 0.002)
    assert speed.peak == pytest.approx(0.25)
    assert figures.peak_flops(measured) == pytest.approx(works.NETS[0].flops / 0.0005)
    assert figures.bandwidth(measured) == pytest.approx(works.NETS[0].bytes / 0.0001)
    assert set(figures.speeds(measured)) == {"numba", "torch"}


def test_without_a_peak_there_are_no_shares():
    measured = _measured(numba=[0.01])
    assert figures.speeds(measured)["numba"].peak is None
    assert figures.peak_flops(measured) is None
    assert figures.bandwidth(measured) is None


def test_ratios_say_how_many_times_as_fast():
    found = figures.speeds(_measured(numpy=[0.001], numba=[0.02], torch=[0.08], jax=[0.03]))
    assert figures.best_peer(found) == "jax"  # numpy is faster, but no peer
    assert figures.times_as_fast(found, "numba", "jax") == pytest.approx(1.5)
    assert figures.times_as_fast(found, "numba", "torch") == pytest.approx(4)
    assert figures.times_as_fast(found, "numba", "keras") is None
    assert figures.times_as_fast(found, "numba", None) is None
    assert figures.best_peer(figures.speeds(_measured(numba=[0.02]))) is None


def test_a_contender_that_failed_has_no_speed():
    measured = _measured(numba=[0.02], torch=[0.01])
    measured["contenders"]["torch"]["error"] = "refused"
    assert list(figures.speeds(measured)) == ["numba"]


# ---- surroundings ----------------------------------------------------------------------------------------------


def test_every_library_is_told_the_number_of_threads(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    surroundings = cores.environment(1)
    assert {surroundings[f"{name}_NUM_THREADS"] for name in ("OMP", "OPENBLAS", "MKL", "NUMBA")} == {"1"}
    assert surroundings["KERAS_BACKEND"] == "torch"  # the user's choice
    assert surroundings["PATH"] == os.environ["PATH"]


def test_the_extra_installs_every_contender():
    declared = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    installed = {Requirement(text).name for text in declared["optional-dependencies"]["peers"]}
    assert {entry.distribution for entry in entries.CONTENDERS} <= installed


def test_sizes_are_of_the_package_and_all_it_requires():
    required = install_size.with_requirements("nnbackend")
    assert {"nnbackend", "numpy", "numba", "llvmlite"} <= set(required)
    assert "pytest" not in required  # of an extra
    own = sum(path.stat().st_size for path in install_size.Path(nn.__file__).parent.rglob("*.py"))
    assert install_size.install_bytes("nnbackend") > own + install_size.install_bytes("llvmlite")
    assert install_size.install_bytes("no-such-package") == 0


def test_learners_are_contenders_and_share_a_schedule_with_one_peak():
    assert set(LEARNERS) <= {entry.name for entry in (*entries.CONTENDERS, *entries.ON_GPU)}
    recipe = RECIPES["large batches"]
    rates = np.concatenate([recipe.schedule().epoch_rates(epoch, 100) for epoch in range(8)])
    top = int(rates.argmax())
    assert rates[top] == pytest.approx(recipe.work.learning_rate)
    assert top == 240
    assert np.all(np.diff(rates[: top + 1]) > 0)
    assert np.all(np.diff(rates[top:]) < 0)
    assert 0 < rates[-1] < 1e-3 * recipe.work.learning_rate


# ---- tables ----------------------------------------------------------------------------------------------------


def test_columns_stand_below_each_other():
    text = markdown.markdown([("a", "figure"), ("long name", "1.5")], right=[1])
    assert text.splitlines() == ["| a         | figure |", "| --------- | -----: |", "| long name |    1.5 |"]


def test_speed_tables_say_what_was_measured_and_what_was_not():
    measured = _measured(numba=[0.01], torch=[0.04], jax=[0.02], peak=[0.005])
    measured["contenders"]["sklearn"] = {"error": "refused: it differs"}
    result = HEADER | {"data": "MNIST", "works": [measured], "failed": {}, "restless": [], "quick": True}
    for kind in ("nets", "sweep"):
        text = tables.text(result | {"kind": kind})
        assert "A Processor" in text
        assert "vectors of 256 bits" in text
        assert "JAX jit + scan" in text
        assert "2.00x" in text
        assert "4.00x" in text
        assert "50.0 %" in text
        assert "scikit-learn, 784-40-10: refused: it differs" in text
        assert "thinc: not installed" in text
        assert "--quick" in text
        _check_columns(text)


def test_startup_table_shows_figures_and_failures():
    row = {"import": 0.1, "cold": 5.0, "warm": 0.5, "memory": 2e8, "disk": 3e8, "all": {"import": [0.1] * 5}}
    contenders = {"numba": row, "torch": {"error": "no compiler"}}
    text = tables.text(HEADER | {"kind": "startup", "rows": 60_000, "contenders": contenders})
    assert "| 0.10 s |" in text
    assert "200 MB |    300 MB" in text
    assert "torch" in text.lower()
    assert "PyTorch eager: no compiler" in text
    assert "Medians of 5" in text
    _check_columns(text)


def test_accuracy_table_takes_medians_of_those_who_reached_it():
    def run(accuracy, training):
        parts = {"training": training, "process": 3.0, "warm_up": 0.5, "epochs": [{}] * 7}
        return {"accuracy": accuracy, **parts}

    runs = {"nnbackend numba": [run(0.981, 1.0), run(0.980, 2.0), run(0.979, None)], "nnbackend train": [], "x": []}
    runs["nnbackend train"] = [{"accuracy": 0.97, "training": None, "process": 4.0}]
    text = tables.text(HEADER | {"kind": "accuracy", "target": 0.98, "epochs": 8, "contenders": runs})
    assert "2 of 3" in text
    assert "1.50 s" in text
    assert "0 of 1" in text
    assert "97.00 %" in text
    _check_columns(text)


def _check_columns(text):
    for block in text.split("\n\n"):
        if block.startswith("|"):
            assert len({line.count("|") for line in block.splitlines()}) == 1


# ---- the command -----------------------------------------------------------------------------------------------


def test_results_are_read_back_in_a_sensible_order(tmp_path):
    for kind, threads in (("sweep", 1), ("nets", 1), ("nets", 2)):
        results.write(tmp_path, HEADER | {"kind": kind, "threads": threads})
    found = [(result["kind"], result["threads"]) for result in results.read_all(tmp_path)]
    assert found == [("nets", 2), ("nets", 1), ("sweep", 1)]


@pytest.mark.slow
def test_nets_run_are_kept_and_are_printed_again(tmp_path, capsys):
    arguments = ["--quick", "--threads", "1", "--contenders", "numpy", "numba", "--out", str(tmp_path)]
    assert command.main(["nets", *arguments]) == 0
    printed = capsys.readouterr().out
    (path,) = tmp_path.iterdir()
    result = json.loads(path.read_text())
    assert path.name == "nets-threads-1.json"
    assert [measured["work"]["name"] for measured in result["works"]] == [work.name for work in works.NETS]
    for measured in result["works"]:
        assert set(measured["contenders"]) == {"numpy", "numba", "peak", "bandwidth"}
        assert set(figures.speeds(measured)) == {"numpy", "numba"}, measured
        assert all(len(contender["seconds"]) == 2 for contender in measured["contenders"].values())
    assert result["machine"]["cores"] >= 1
    assert {"python", "numpy", "nnbackend"} <= set(result["versions"])
    assert command.main(["table", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out.strip() in printed


@pytest.mark.slow
def test_products_are_those_of_a_step_and_are_measured(tmp_path, capsys):
    assert command.main(["products", "--quick", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    measured = json.loads((tmp_path / "products-threads-1.json").read_text())["products"]
    for work in works.NETS:
        mine = [products.Product(*list(product.values())[:5]) for product in measured if product["net"] == work.name]
        assert sum(product.flops for product in mine) == work.flops
    assert all(len(product["seconds"][side]) == 2 for product in measured for side in ("ours", "blas"))
    assert "| 784-200-80-10       | delta @ w.T | 256 x 200 x 80 " in printed
    assert command.main(["table", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out.strip() in printed


def test_products_table_compares_medians():
    product = {"net": "784-40-10", "form": "x @ w", "rows": 100, "columns": 50, "inner": 100}
    seconds = {"ours": [1e-6, 2e-6, 9e-6], "blas": [3e-6, 3e-6, 1e-6]}
    result = HEADER | {
        "kind": "products",
        "blas": ["openblas 1, Haswell"],
        "products": [product | {"seconds": seconds}],
    }
    text = tables.text(result)
    assert "| 100 x 50 x 100 |       2.0 |      3.0 |            500 |           333 |     1.50x |" in text
    assert "openblas 1, Haswell" in text


@pytest.mark.slow
def test_sweep_and_startup_run(tmp_path, capsys):
    arguments = ["--quick", "--threads", "1", "--contenders", "numpy", "--out", str(tmp_path)]
    assert command.main(["sweep", *arguments]) == 0
    assert command.main(["startup", *arguments]) == 0
    assert "784-32-32-10 batch 128" in capsys.readouterr().out
    startup = json.loads((tmp_path / "startup-threads-1.json").read_text())["contenders"]["numpy"]
    assert all(startup[figure] > 0 for figure in ("import", "cold", "warm", "memory", "disk"))


@pytest.mark.slow
def test_accuracy_runs(tmp_path, mnist):
    arguments = ["--quick", "--threads", "1", "--contenders", "numba", "--out", str(tmp_path)]
    assert command.main(["accuracy", *arguments]) == 0
    result = json.loads((tmp_path / "accuracy-threads-1.json").read_text())
    assert set(result["contenders"]) == {
        "nnbackend numba, large batches",
        "nnbackend numba, small batches",
        "nnbackend train",
        "nnbackend train, small batches",
    }
    for (run,) in result["contenders"].values():
        assert 0.9 < run["accuracy"] < 1
        assert run["process"] > 0


def test_without_mnist_there_is_no_accuracy_and_that_is_said(tmp_path, capsys, monkeypatch):
    def missing(*_, **__):
        raise DataError("MNIST is nowhere to be had")

    monkeypatch.setattr(nn.datasets, "load", missing)
    assert command.main(["accuracy", "--quick", "--out", str(tmp_path)]) == 0
    assert "accuracy: skipped: MNIST is nowhere" in capsys.readouterr().out


def test_nothing_measured_yet(tmp_path, capsys):
    assert command.main(["table", "--out", str(tmp_path)]) == 0
    assert "nothing" in capsys.readouterr().out


def test_asking_for_what_is_not_installed_is_an_error(monkeypatch):
    monkeypatch.setattr(entries.Entry, "installed", property(lambda entry: entry.name != "jax"))
    with pytest.raises(SystemExit, match="jax"):
        command.main(["nets", "--contenders", "numpy", "jax"])


@pytest.mark.parametrize("arguments", [["--threads", "0"], ["--threads", "100000"], ["--rounds", "0"], ["everything"]])
def test_bad_options_are_refused(arguments, capsys):
    with pytest.raises(SystemExit):
        command.main(arguments)
    assert "error" in capsys.readouterr().err
