"""Validation after every epoch: what weights the training weights the choice of the best epoch."""

from __future__ import annotations

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.errors import InvalidInputError
from tests.helpers import classifier, images

X, Y = images(70)
X2, Y2 = images(50, seed=1)
OPTIONS = {"epochs": 2, "batch_size": 16, "loss": "softmax_cross_entropy", "verbose": False}
CLASS_WEIGHT = {0: 5.0, 2: 0.5}
OF_CLASSES = np.array([5.0, 1, 0.5, 1])
ROWS = np.linspace(0, 2, 50)


def stream(*pieces):
    return nn.BatchStream(lambda epoch: list(pieces), rows=sum(len(piece[0]) for piece in pieces))


@pytest.mark.parametrize(
    ("data", "class_weight", "weights"),
    [
        ((X2, Y2), CLASS_WEIGHT, OF_CLASSES[Y2]),
        ((X2, np.eye(4)[Y2]), CLASS_WEIGHT, OF_CLASSES[Y2]),
        ((X2, Y2, ROWS), None, ROWS),
        ([X2, Y2, list(ROWS)], OF_CLASSES, ROWS * OF_CLASSES[Y2]),
        (stream((X2[:20], Y2[:20]), (X2[20:], Y2[20:])), CLASS_WEIGHT, OF_CLASSES[Y2]),
        (stream((X2, Y2, ROWS)), CLASS_WEIGHT, ROWS * OF_CLASSES[Y2]),
        (stream((X2, Y2, 3 * ROWS)), None, ROWS),
    ],
    ids=["classes", "one-hot", "rows", "both", "stream", "weighted stream", "rows of a stream"],
)
def test_the_loss_is_weighted(backend, data, class_weight, weights):
    net = classifier(backend)
    history = net.fit(X, Y, **OPTIONS, class_weight=class_weight, validation_data=data)
    probabilities = net.predict(X2).astype(np.float64)
    losses = -np.log(probabilities[np.arange(50), Y2])
    assert history["val_loss"][-1] == pytest.approx(np.average(losses, weights=weights), rel=1e-4)
    assert history["val_loss_unweighted"][-1] == pytest.approx(losses.mean(), rel=1e-4)
    assert history["val_accuracy"][-1] == pytest.approx(np.mean(net.predict_classes(X2) == Y2))
    if not isinstance(data, nn.BatchStream):
        assert history["val_loss"][-1] == pytest.approx(net.evaluate(X2, Y2, sample_weight=weights)["loss"])


@pytest.mark.parametrize("options", [{}, {"class_weight": [2, 2, 2, 2]}, {"sample_weight": np.linspace(1, 2, 70)}])
def test_weights_that_make_no_difference_are_not_reported(options):
    for data in ((X2, Y2), (X2, Y2, np.full(50, 3.0)), (X2, Y2, None)):
        net = classifier()
        history = net.fit(X, Y, **OPTIONS, validation_data=data, **options)
        assert "val_loss_unweighted" not in history.names()
        assert history["val_loss"][-1] == pytest.approx(net.evaluate(X2, Y2)["loss"])


def test_penalties_count_in_both():
    net = nn.Network([nn.Dense(4, l2=0.1)], 12, backend="numpy")
    history = net.fit(X, Y, **OPTIONS, class_weight=CLASS_WEIGHT, validation_data=(X2, Y2))
    assert history["val_loss_unweighted"][-1] == pytest.approx(net.evaluate(X2, Y2)["loss"])


def test_balanced_weights_are_those_of_the_training_rows():
    one, other = classifier(), classifier()
    balanced = 70 / (4 * np.bincount(Y))
    first = one.fit(X, Y, **OPTIONS, class_weight="balanced", validation_data=(X2, Y2))
    second = other.fit(X, Y, **OPTIONS, class_weight=balanced, validation_data=(X2, Y2))
    assert first["val_loss"] == second["val_loss"]


def test_the_best_epoch_is_the_best_by_the_weights():
    """A class that counts almost alone: its loss falls while that of the others rises."""
    net = classifier()
    stopping = nn.EarlyStopping(patience=100)
    weights = np.where(Y2 == 0, 1.0, 0.0)
    history = net.fit(
        X, Y, **{**OPTIONS, "epochs": 15}, class_weight={0: 1, 1: 0, 2: 0, 3: 0},
        validation_data=(X2, Y2), callbacks=[stopping],
    )  # fmt: skip
    assert stopping.best_epoch == int(np.argmin(history["val_loss"])) + 1
    assert np.argmin(history["val_loss"]) != np.argmin(history["val_loss_unweighted"])
    assert net.evaluate(X2, Y2, sample_weight=weights)["loss"] == pytest.approx(min(history["val_loss"]))


def test_both_losses_can_be_monitored(tmp_path):
    schedule = nn.ReduceOnPlateau(0.1, monitor="val_loss_unweighted", patience=1)
    callbacks = [
        nn.EarlyStopping("val_loss_unweighted"),
        nn.ModelCheckpoint(tmp_path / "best.safetensors", monitor="val_loss_unweighted"),
        nn.CSVLogger(tmp_path / "log.csv"),
    ]
    history = classifier().fit(
        X, Y, **OPTIONS, optimizer=nn.SGD(schedule), validation_data=(X2, Y2, ROWS), callbacks=callbacks
    )
    assert callbacks[0].best_value == min(history["val_loss_unweighted"])
    assert "val_loss_unweighted" in (tmp_path / "log.csv").read_text()


def test_several_outputs():
    net = nn.Network([nn.Dense(3)], 12, backend="numpy")
    y, y2 = np.arange(210.0).reshape(70, 3) / 100, np.ones((50, 3))
    history = net.fit(X, y, **{**OPTIONS, "loss": "mean_squared_error"}, validation_data=(X2, y2, ROWS))
    losses = np.square(net.predict(X2) - y2).mean(axis=1)
    assert history["val_loss"][-1] == pytest.approx(np.average(losses, weights=ROWS), rel=1e-5)
    assert history["val_loss_unweighted"][-1] == pytest.approx(losses.mean(), rel=1e-5)


def test_a_stream_whose_weights_are_all_zero():
    with pytest.raises(InvalidInputError, match="all weights of the stream are zero"):
        classifier().fit(X, Y, **OPTIONS, validation_data=stream((X2, Y2, 0 * ROWS)))


@pytest.mark.parametrize("size", [50, 51, 1_000_000])
def test_a_batch_larger_than_the_rows_is_all_of_them(backend, size):
    histories = []
    for given in (50, size):
        net = classifier(backend)
        history = net.fit(X2, Y2, **{**OPTIONS, "batch_size": given}, validation_data=(X, Y))
        again = net.fit(stream((X2, Y2)), **{**OPTIONS, "batch_size": given})
        steps = net.fit(X2, Y2, **{**OPTIONS, "batch_size": given}, steps_per_epoch=3)
        histories.append([history["loss"], history["val_loss"], again["loss"], steps["loss"]])
        histories[-1].append(net.evaluate(X2, Y2, batch_size=given))
        histories[-1].append(net.predict(X2, batch_size=given).tolist())
    assert histories[0] == histories[1]
