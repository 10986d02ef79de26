"""A short version of `python -m benchmarks.torch_step`."""

from __future__ import annotations

import pytest

from benchmarks import torch_step
from benchmarks.peers.data import images
from benchmarks.peers.works import NETS, ROWS


@pytest.mark.slow
def test_it_measures_and_prints(capsys, monkeypatch):
    pytest.importorskip("torch")
    pytest.importorskip("array_api_compat")
    monkeypatch.setattr(torch_step, "WORKS", NETS[:1])
    assert torch_step.main(["--rounds", "1", "--seconds", "0.01", "--threads", "1"]) == 0
    heading, row = capsys.readouterr().out.splitlines()
    assert heading.split() == ["us/step", "PyTorch", "nnbackend", "torch", "ratio"]
    name, theirs, ours, ratio = row.replace(",", "").split()
    assert name == "784-40-10"
    assert float(ratio) == pytest.approx(float(ours) / float(theirs), abs=0.01)


def test_losses_that_differ_are_refused():
    from benchmarks.peers.contenders.ours import Ours

    x, y, _ = images(ROWS)
    learners = {name: Ours(1) for name in ("PyTorch", "nnbackend torch")}
    for step, contender in enumerate(learners.values()):
        contender.load(x[step:], y[step:])
    with pytest.raises(SystemExit, match="784-40-10: the losses differ"):
        torch_step.measure(NETS[0], learners, 1, 0.01)
