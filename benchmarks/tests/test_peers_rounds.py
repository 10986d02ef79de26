"""The rounds of the comparison: who may be timed, and what a worker says when it fails. No test is of a time."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

import nnbackend as nn
from benchmarks.peers import (
    data,
    entries,
    figures,
    rounds,
    works,
)
from benchmarks.peers.contenders.ours import Numpy, Reference, UncorrectedReference
from benchmarks.peers.process import Worker, WorkerError


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
    weights, batches = data.initial_weights(work), data.batches(work, 2)
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
    expected = reference.build(work, data.initial_weights(work)).losses(data.batches(work, 4))
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
