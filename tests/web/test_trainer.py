"""Training in the background: start, watch, stop, and use the network for drawings."""

from __future__ import annotations

import asyncio
import json
import threading

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.errors import BackendUnavailableError, InvalidInputError, UnknownNameError
from nnbackend.web.app import training_events
from nnbackend.web.trainer import BUSY, Trainer, own_backend
from tests.conftest import make_backend
from tests.web.conftest import synthetic, wait_until
from tests.web.handwriting import DIGITS

SETTINGS = {"backend": "numpy", "preset": "784-40-10", "learning_rate": 0.05, "epochs": 3}


@pytest.fixture
def trainer():
    trainer = Trainer(synthetic)
    yield trainer
    trainer.close()


def finish(trainer: Trainer) -> dict:
    wait_until(lambda: trainer.report()["state"] not in BUSY)
    return trainer.report()


def test_it_trains_as_fit_does(trainer):
    trainer.start(SETTINGS)
    report = finish(trainer)
    assert (report["run"], report["state"], report["message"]) == (1, "finished", "")
    assert {name: report[name] for name in SETTINGS} == SETTINGS
    assert [point["epoch"] for point in report["points"]] == [1, 2, 3]
    data = synthetic()
    recipe = nn.presets.get_preset("784-40-10").changed(learning_rate=0.05, epochs=3)
    network = nn.Network(recipe.layers(10), 784, "numpy", seed=0)
    history = network.fit(
        data.x_train, data.y_train, epochs=3, batch_size=100, loss=recipe.loss, optimizer=recipe.make_optimizer(),
        validation_data=(data.x_test, data.y_test), verbose=False,
    )  # fmt: skip
    for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
        np.testing.assert_allclose([point[name] for point in report["points"]], history[name], rtol=1e-5)


def test_a_large_training_set_has_several_points_per_epoch():
    data = synthetic()
    rows = np.arange(16_000) % 200
    large = nn.datasets.Dataset(
        "large", data.x_train[rows], data.y_train[rows], data.x_test, data.y_test, data.classes, 784, "a test"
    )
    trainer = Trainer(lambda: large)
    trainer.start({**SETTINGS, "epochs": 1})
    assert [point["epoch"] for point in finish(trainer)["points"]] == [0.5, 1]


def test_stopping_keeps_what_was_learned(trainer):
    trainer.start({**SETTINGS, "epochs": 100, "preset": "784-200-80-10"})
    wait_until(lambda: len(trainer.report()["points"]) >= 2)
    with pytest.raises(InvalidInputError, match="already being trained"):
        trainer.start(SETTINGS)
    with pytest.raises(InvalidInputError, match="no trained network yet"):
        trainer.trained()
    trainer.stop()
    report = finish(trainer)
    assert report["state"] == "stopped"
    assert 2 <= len(report["points"]) < 100
    network, classes, source = trainer.trained()
    data = synthetic()
    assert network.evaluate(data.x_test, data.y_test)["accuracy"] == report["points"][-1]["val_accuracy"]
    assert classes == data.classes
    assert "trained on this page" in source
    trainer.stop()
    assert trainer.report()["state"] == "stopped"


def test_a_report_contains_only_new_points(trainer):
    trainer.start(SETTINGS)
    everything = finish(trainer)["points"]
    assert trainer.report(run=1, since=2)["points"] == everything[2:]
    assert trainer.report(run=7, since=2)["points"] == everything
    trainer.start({**SETTINGS, "epochs": 1})
    assert finish(trainer)["run"] == 2
    assert trainer.report(run=1, since=3)["first"] == 0


def test_errors_in_the_thread_are_reported(trainer):
    trainer.start({**SETTINGS, "learning_rate": 1e30, "preset": "784-200-80-10"})
    report = finish(trainer)
    assert report["state"] == "failed"
    assert "Lower the learning rate" in report["message"]
    with pytest.raises(InvalidInputError, match="no trained network yet"):
        trainer.trained()

    def broken():
        raise RuntimeError("no such disk")

    other = Trainer(broken)
    other.start(SETTINGS)
    assert finish(other)["message"] == "RuntimeError: no such disk"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs must be a whole number"),
        ({"epochs": 2.5}, "epochs must be a whole number"),
        ({"epochs": 101}, "epochs must be at most 100"),
        ({"learning_rate": 0}, "learning rate must be above 0"),
        ({"learning_rate": "fast"}, "learning rate must be a finite number"),
        ({"learning_rate": float("nan")}, "learning rate must be a finite number"),
        ({"preset": "784-41-10"}, "unknown preset '784-41-10': did you mean '784-40-10'"),
        ({"preset": ["784-40-10"]}, "preset must be a name"),
        ({"backend": "abacus"}, "unknown backend 'abacus'"),
        ({"backend": None}, "backend must be a name"),
        ({"seed": 3}, "training needs backend, epochs, learning_rate, preset"),
    ],
)
def test_invalid_settings_are_refused_and_nothing_starts(trainer, change, message):
    with pytest.raises(InvalidInputError, match=message):
        trainer.start({**SETTINGS, **change})
    assert trainer.report()["state"] == "idle"


def test_a_backend_that_cannot_run_says_why(trainer, monkeypatch):
    def unavailable(name: str):
        raise BackendUnavailableError(name, "there is no GPU", "Get one")

    monkeypatch.setattr(trainer, "_make_backend", unavailable)
    with pytest.raises(BackendUnavailableError, match="there is no GPU"):
        trainer.start(SETTINGS)


def test_its_backend_is_a_new_instance():
    assert own_backend("numpy") is not nn.get_backend("numpy")
    assert own_backend("numpy").name == "numpy"
    with pytest.raises(UnknownNameError):
        own_backend("abacus")


@pytest.mark.parametrize("name", ["numpy", "numba"])
def test_drawings_are_answered_during_training(page, name):
    make_backend(name)
    alone = page.post("/api/look", {"strokes": DIGITS["3"]}).json()
    assert page.post("/api/training", {**SETTINGS, "backend": name, "epochs": 100}).status_code == 202
    wait_until(lambda: page.session.trainer.report()["state"] == "training", 120)
    answers: list[dict] = []

    def ask() -> None:
        for _ in range(10):
            answers.append(page.post("/api/look", {"strokes": DIGITS["3"]}).json())

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert page.client.delete("/api/training").status_code == 202
    assert answers == [alone] * 30
    assert finish(page.session.trainer)["state"] in ("stopped", "finished")


def test_the_trained_network_is_used_for_drawings(page):
    assert page.post("/api/model", {}).status_code == 400
    before = page.post("/api/look", {"strokes": DIGITS["3"]}).json()
    assert page.post("/api/training", SETTINGS).json()["state"] in BUSY
    finish(page.session.trainer)
    assert page.post("/api/model", {}).json()["network"] == "784-40-10"
    after = page.post("/api/look", {"strokes": DIGITS["3"]}).json()
    assert len(after["hidden"][0]) == 40
    assert after["outputs"] != before["outputs"]
    assert page.get("/api/page").json()["model"]["source"].startswith("trained on this page for 3 epochs")


def test_events_report_everything_once_and_end_with_the_server(page):
    trainer = page.session.trainer
    trainer.start(SETTINGS)
    finish(trainer)

    async def listen() -> list[dict]:
        reports = []
        async for event in training_events(trainer, lambda: page.closed):
            assert event.startswith("data: ")
            assert event.endswith("\n\n")
            reports.append(json.loads(event.removeprefix("data: ")))
            if len(reports) == 1:
                # Late enough for a stream that sends duplicates to do so.
                threading.Timer(0.3, trainer.start, [{**SETTINGS, "epochs": 2}]).start()
            elif reports[-1]["run"] == 2 and reports[-1]["state"] == "finished":
                page.closed = True
        return reports

    reports = asyncio.run(asyncio.wait_for(listen(), 30))
    assert [point["epoch"] for point in reports[0]["points"]] == [1, 2, 3]
    assert [report["run"] for report in reports[:2]] == [1, 2]
    second = [point for report in reports[1:] for point in report["points"]]
    assert [point["epoch"] for point in second] == [1, 2]
    response = page.get("/api/training/events")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")
