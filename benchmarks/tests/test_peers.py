"""The comparison with other libraries: its arithmetic, its tables, and that all of it runs. No test is of a time."""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace

import numpy as np
import pytest

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
    rounds,
    tables,
    works,
)
from benchmarks.peers.contenders.ours import Numpy, Reference, UncorrectedReference
from benchmarks.peers.learners.base import RECIPES
from benchmarks.peers.process import Worker, WorkerError
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


@pytest.mark.parametrize("work", [*works.NETS, *works.SWEEP], ids=lambda work: work.name)
def test_runs_stay_within_an_epoch_and_a_budget(work):
    assert 5 <= work.steps <= min(work.epoch_steps, 1000)
    assert (work.steps - 0.5) * work.flops <= 40e9
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
    first, again, other = (data.initial_weights(work.sizes, seed) for seed in (0, 0, 1))
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


# ---- who may be timed ------------------------------------------------------------------------------------------


def test_disagreement_is_relative():
    assert rounds.disagreement([2.0, 1.0], [2.0, 1.0]) == 0
    assert rounds.disagreement([2.002, 1.0], [2.0, 1.0]) == pytest.approx(0.001)
    # A loss of almost nothing is compared on the scale of the others.
    assert rounds.disagreement([2.0, 2e-9], [2.0, 1e-9]) < 1e-8


def test_disagreement_does_not_pass_over_what_is_not_there():
    assert rounds.disagreement([1.0], [1.0, 1.0]) == math.inf
    assert math.isnan(rounds.disagreement([math.nan, 1.0], [1.0, 1.0]))
    assert math.isnan(rounds.disagreement([1.0, math.nan], [1.0, 1.0]))


class FakeWorker:
    """Answers as a contender's process would; notes when it ran."""

    def __init__(self, name, log, losses=(1.0, 0.5), fails=False):
        self.name, self.log, self.losses, self.fails = name, log, list(losses), fails

    def ask(self, what, **_):
        if what == "prepare":
            return {"losses": self.losses, "warm_up": 1.0}
        if what == "run":
            self.log.append(self.name)
            if self.fails:
                raise WorkerError("it is gone")
            return {"seconds": 0.1}
        return {}


def _fakes(log, **losses):
    fakes = {name: FakeWorker(name, log, values) for name, values in losses.items()}
    limits = {entry.name: FakeWorker(entry.name, log, ()) for entry in entries.LIMITS}
    return {"reference": FakeWorker("reference", log), **limits, **fakes}


def test_rounds_have_one_run_of_each_and_do_not_begin_alike():
    log: list[str] = []
    measured = rounds.measure(works.NETS[0], _fakes(log, numba=(1.0, 0.5), torch=(1.0, 0.5)), 3)
    assert [sorted(log[i : i + 4]) for i in (0, 4, 8)] == [["bandwidth", "numba", "peak", "torch"]] * 3
    assert len({log[0], log[4], log[8]}) == 3
    assert [len(result["seconds"]) for result in measured["contenders"].values()] == [3, 3, 3, 3]
    assert "reference" not in measured["contenders"]


@pytest.mark.parametrize("losses", [(1.0, 0.51), (1.0, math.nan), (1.0,)])
def test_who_computes_something_else_is_not_timed(losses):
    log: list[str] = []
    measured = rounds.measure(works.NETS[0], _fakes(log, numba=(1.0, 0.5), torch=losses), 2)
    assert "refused" in measured["contenders"]["torch"]["error"]
    assert "torch" not in log
    assert list(figures.speeds(measured)) == ["numba"]


def test_who_fails_on_the_way_is_left_out_and_the_others_go_on():
    log: list[str] = []
    workers = _fakes(log, numba=(1.0, 0.5), torch=(1.0, 0.5))
    workers["torch"].fails = True
    measured = rounds.measure(works.NETS[0], workers, 3)
    assert measured["contenders"]["torch"]["error"] == "it is gone"
    assert log.count("torch") == 1
    assert log.count("numba") == 3


def test_the_other_epsilon_is_another_reference():
    work = works.quick(works.NETS[2])
    weights, batches = data.initial_weights(work.sizes), data.batches(work, 2)
    x, y, _ = data.images(work.rows)
    losses = {}
    for kind in (Numpy, Reference, UncorrectedReference):
        contender = kind(1)
        contender.load(x, y)
        losses[kind] = contender.build(work, weights).losses(batches)
    assert rounds.disagreement(losses[Numpy], losses[Reference]) < 1e-5
    # Before the first update they cannot differ.
    assert losses[UncorrectedReference][0] == losses[Reference][0]
    assert losses[UncorrectedReference][1] != losses[Reference][1]
    assert rounds.disagreement(losses[UncorrectedReference], losses[Reference]) < 1e-2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["numba", "torch", "jax", "sklearn", "thinc", "keras"])
@pytest.mark.parametrize("net", [0, 2], ids=["sgd", "adam"])
def test_contenders_train_as_our_reference_does(name, net):
    entry = entries.find(name)
    if not entry.installed:
        pytest.skip(f"{entry.label} is not installed")
    work = replace(works.quick(works.NETS[net]), rows=600, steps=1)
    reference = entries.find(entry.reference).make(1)
    x, y, _ = data.images(work.rows)
    reference.load(x, y)
    expected = reference.build(work, data.initial_weights(work.sizes)).losses(data.batches(work, 4))
    worker = Worker(name, 1, work.rows)
    try:
        answer = worker.ask("prepare", work=work.to_dict(), check=4)
        assert rounds.disagreement(answer["losses"], expected) < rounds.TOLERANCE
        assert worker.ask("run")["seconds"] > 0
    finally:
        worker.close()


def test_a_worker_says_what_went_wrong_and_goes_on():
    worker = Worker("numpy", 1, 300)
    try:
        with pytest.raises(WorkerError, match="KeyError"):
            worker.ask("prepare", work={**works.NETS[0].to_dict(), "optimizer": "none"}, check=1)
        work = replace(works.NETS[0], rows=300, steps=1)
        assert len(worker.ask("prepare", work=work.to_dict(), check=2)["losses"]) == 2
    finally:
        worker.close()
    with pytest.raises(WorkerError, match="ended"):
        Worker("nobody", 1, 300)


def test_a_worker_that_is_gone_is_an_error_and_can_be_closed():
    worker = Worker("numpy", 1, 300)
    worker._process.kill()
    worker._process.wait()
    for _ in range(2):
        with pytest.raises(WorkerError, match="ended with code -9"):
            worker.ask("drop")
    worker.close()


def test_multiply_adds_are_as_many_as_they_say():
    peak = pytest.importorskip("benchmarks.peers.contenders.peak")
    chains = round(2 * peak.multiply_adds(100))
    lanes = nn.backends.numba.tile_shape.VectorUnit.of_this_cpu().width // 4
    flops = 2 * 4 * chains * lanes  # of a round, which is unrolled four times
    assert peak.rounds_for(1000 * flops, 1) == 1000
    assert peak.rounds_for(1000 * flops, 2) == 500
    assert peak.multiply_adds(1000) == pytest.approx(chains / 2)


def test_memory_is_read_and_written_as_often_as_it_says():
    module = pytest.importorskip("benchmarks.peers.contenders.bandwidth")
    block = 16_384
    array = np.zeros(3 * block, np.float32)
    module.stream(array, 2, 3)  # the last, and again from the first on
    assert np.array_equal(array, np.full(3 * block, 0.25, np.float32))
    module.stream(array, 4, 1)
    assert np.array_equal(array.reshape(3, block)[:, 0], np.float32([0.25, 0.375, 0.25]))
    assert module.blocks_for(2 * array.nbytes, 1) == 3
    assert module.blocks_for(1000 * array.nbytes, 3) == 500


# ---- surroundings ----------------------------------------------------------------------------------------------


def test_every_library_is_told_the_number_of_threads(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    surroundings = cores.environment(1)
    assert {surroundings[f"{name}_NUM_THREADS"] for name in ("OMP", "OPENBLAS", "MKL", "NUMBA")} == {"1"}
    assert surroundings["KERAS_BACKEND"] == "torch"  # the user's choice
    assert surroundings["PATH"] == os.environ["PATH"]


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
