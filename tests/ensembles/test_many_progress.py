"""The progress of many networks: a line for each that has ended, and one bar."""

from __future__ import annotations

import io
import re

import pytest

import nnbackend as nn
from nnbackend.ensembles.progress import ManyProgress, best_of, outcome
from tests.helpers import classifier, images

X, Y = images(rows=60)


def history(losses, name="val_loss", **attributes):
    made = nn.History()
    for epoch, loss in enumerate(losses, 1):
        made.append({"epoch": epoch, "loss": 2 * loss, name: loss}, [])
    for key, value in attributes.items():
        setattr(made, key, value)
    return made


def test_a_line_for_each_network(capsys):
    networks = [classifier(seed=seed) for seed in range(3)]
    optimizers = [nn.SGD(0.1), nn.SGD(1e30), nn.Adam()]
    options = {"epochs": 2, "loss": "softmax_cross_entropy", "optimizer": optimizers}
    nn.fit_many(networks, X, Y, verbose=True, **options)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert re.fullmatch(r"network 0: 2 epochs, loss \d\.\d{4}, accuracy \d\.\d{4}", lines[0])
    assert lines[1].startswith("network 1: TrainingDivergedError: the loss became nan in epoch 1")
    nn.fit_many(networks[:1], X, Y, verbose=False, epochs=1)
    # Standard output is no terminal here.
    nn.fit_many(networks[:1], X, Y, epochs=1)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (history([0.5]), "1 epoch, loss 1.0000, val_loss 0.5000"),
        (
            history([0.5, 0.25], stopped_by="EarlyStopping"),
            "2 epochs, loss 0.5000, val_loss 0.2500, stopped by EarlyStopping",
        ),
        (history([], interrupted=True), "0 epochs, interrupted"),
        (history([], error=ZeroDivisionError("oh")), "ZeroDivisionError: oh"),
    ],
)
def test_how_a_network_ended(made, text):
    assert outcome(made) == text


def test_the_best_network_is_that_with_the_lowest_loss_in_any_epoch():
    assert best_of(dict(enumerate([history([]), history([])]))) is None
    assert best_of(dict(enumerate([history([0.5, 0.9]), history([0.7, 0.6]), history([])]))) == (0, "val_loss", 0.5)
    assert best_of(dict(enumerate([history([0.5], "other"), history([0.7], "other")]))) == (0, "loss", 1.0)


def test_the_status():
    histories = [history([0.5, 0.4]), history([0.3]), history([])]
    progress = ManyProgress(False, dict(enumerate(histories)), work=[10, 20, 30], epochs=[2, 4, 3])
    assert progress.fraction() == pytest.approx((10 + 20 / 4) / 60)
    # What is left of a network that has ended early will not be done.
    progress.ended(1)
    assert progress.fraction() == pytest.approx((10 + 20) / 60)
    assert re.fullmatch(r"1/3 networks, best val_loss 0\.3 \(network 1\), \d+:\d\d left", progress.status())


def test_the_bar_is_drawn_on_a_terminal(monkeypatch):
    rich = pytest.importorskip("rich.console")
    monkeypatch.setattr("nnbackend.ensembles.progress.is_terminal", lambda: True)
    console = rich.Console(width=100, record=True, force_terminal=True, file=io.StringIO())
    monkeypatch.setattr("rich.get_console", lambda: console)
    networks = [classifier(seed=seed) for seed in range(2)]
    nn.fit_many(networks, X, Y, epochs=1, loss="softmax_cross_entropy")
    printed = console.export_text()
    assert "network 0: 1 epoch" in printed
    assert "network 1: 1 epoch" in printed
    progress = ManyProgress(None, {0: history([0.5])}, work=[1], epochs=[2])
    console.print(progress)
    assert "0/1 networks, best val_loss 0.5 (network 0)" in console.export_text()
