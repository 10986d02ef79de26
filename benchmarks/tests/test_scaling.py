"""The model of many ranks, and a short run of the study `python -m benchmarks.scaling`."""

from __future__ import annotations

import json

import pytest

from benchmarks.peers.works import NETS
from benchmarks.scaling import __main__ as command
from benchmarks.scaling import measure, report
from benchmarks.scaling.measure import plans
from benchmarks.scaling.model import Cluster, Rank, allreduce, fit_rank, flops, parameters, roofline_rank, step

NETWORK = Cluster("a network", 1e-6, 1e9)
RANK = Rank(100e-6, 50e9)


def result():
    """The measurements of ranks that follow the model exactly."""
    runs = []
    for plan in plans((1, 2)):
        work = next(work for work in NETS if work.name == plan.net)
        seconds = step(work, plan.batch, plan.ranks, RANK, NETWORK)
        total = allreduce(4 * parameters(work), plan.ranks, NETWORK)
        found = {"kind": plan.kind, "net": plan.net, "ranks": plan.ranks, "batch": plan.batch}
        runs.append({**found, "step": seconds, "apart": seconds - total, "sum": total})
    machine = {"cpu": "A Processor", "cores": 2}
    return {"date": "2026-01-01T00:00:00+00:00", "machine": machine, "backend": "numba", "rounds": 1, "runs": runs}


@pytest.mark.parametrize("work", NETS, ids=lambda work: work.name)
def test_a_rank_is_found_again_from_its_steps(work):
    steps = [(batch, step(work, batch, 1, RANK, NETWORK)) for batch in (25, 100, 400)]
    found = fit_rank(work, steps)
    assert found.fixed == pytest.approx(RANK.fixed)
    assert found.speed == pytest.approx(RANK.speed)
    assert flops(work, work.batch_size) == work.flops


def test_a_rank_from_a_device_specification():
    work = NETS[1]
    rank = roofline_rank(work, peak=1e12, bandwidth=1e11, overhead=1e-5)
    assert rank.speed == 1e12
    # At least, the weights are read, and the update reads and writes them.
    assert rank.fixed > 1e-5 + 3 * 4 * parameters(work) / 1e11 * 0.9


def test_the_sum_of_many():
    assert allreduce(1e6, 1, NETWORK) == 0
    # Two ranks send each other everything, once.
    assert allreduce(1e6, 2, NETWORK) == pytest.approx(1e-6 + 1e-3)
    # Small sums take the latency, large ones twice their bytes.
    assert allreduce(4, 1024, NETWORK) == pytest.approx(10e-6, rel=0.01)
    assert allreduce(1e9, 1024, NETWORK) == pytest.approx(2.0, rel=0.01)
    assert all(allreduce(1e5, size, NETWORK) <= allreduce(1e5, 2 * size, NETWORK) for size in (2, 8, 64, 512))


def test_the_values_of_options():
    work = NETS[2]
    plain, compressed, overlapped = (
        step(work, 800, 8, RANK, NETWORK, **option) for option in ({}, {"compress": True}, {"overlap": True})
    )
    assert compressed < plain
    assert overlapped < plain
    # The communication of the first layer's gradient is not hidden.
    first = (784 + 1) * 500
    assert overlapped > step(work, 800, 1, Rank(RANK.fixed, 8 * RANK.speed), NETWORK) + allreduce(4 * first, 8, NETWORK)
    assert step(work, 800, 1, RANK, NETWORK, overlap=True) == step(work, 800, 1, RANK, NETWORK)


def test_the_report_repeats_the_measurements():
    found = result()
    network = report.local_network(found)
    assert network.bandwidth == pytest.approx(NETWORK.bandwidth)
    assert network.latency == pytest.approx(NETWORK.latency)
    lines = report.check(found).splitlines()
    assert len(lines) == 1 + 2 * len(NETS)
    assert all(line.endswith(" 1.00") for line in lines[1:])
    assert "784-40-10" in report.measured(found)
    assert "4,096" in report.predicted(report.gpu, NETWORK)


def test_the_page_takes_the_figures(tmp_path, monkeypatch, capsys):
    stored, page = tmp_path / "scaling.json", tmp_path / "scaling.md"
    assert command.main(["model", "--out", str(stored)]) == 2
    assert "nothing has been measured yet" in capsys.readouterr().err
    stored.write_text(json.dumps(result()))
    page.write_text(command.PAGE.read_text())
    monkeypatch.setattr(command, "PAGE", page)
    monkeypatch.setattr(command.report, "draw", lambda result: [])
    assert command.main(["page", "--out", str(stored)]) == 0
    text = page.read_text()
    assert "Measured on 2026-01-01" in text
    assert text.startswith("# Scaling")
    assert text.rstrip().endswith("are not included.")
    assert command.main(["page", "--out", str(stored)]) == 0
    assert page.read_text() == text


@pytest.mark.slow
def test_a_picture(tmp_path):
    (made,) = report.draw(result(), tmp_path, {"mine": NETWORK})
    assert made.name == "scaling-mine.png"
    assert made.read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_study_measures_real_ranks(monkeypatch):
    pytest.importorskip("mpi4py")
    both = [measure.Plan("strong", "784-40-10", 2, 100), measure.Plan("weak", "784-40-10", 2, 100)]
    monkeypatch.setattr(measure, "plans", lambda ranks: both)
    tried = []
    monkeypatch.setattr(measure, "measure", lambda *given, real=measure.measure: tried.append(given) or real(*given))
    strong, weak = measure.study((2,), 2, 0.01, "numpy")
    # Equal measurements are done once per round.
    assert len(tried) == 2
    assert strong == {**weak, "kind": "strong"}
    assert strong["ranks"] == 2
    assert min(strong["step"], strong["apart"], strong["sum"]) > 0
