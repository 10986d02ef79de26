"""`validation_split`: which rows are held out, of which kinds of data, and errors."""

from __future__ import annotations

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.data.held_out import split_rows
from nnbackend.errors import InvalidInputError
from nnbackend.losses import get_loss

RANDOM = np.random.default_rng(2)
X = RANDOM.normal(size=(100, 3))
LABELS = np.repeat([0, 1, 2, 3], [60, 29, 10, 1])
LOSS = get_loss("softmax_cross_entropy")


def split(fraction=0.2, x=X, y=LABELS, weights=None, loss=LOSS, outputs=4, seed=0):
    return split_rows(x, y, weights, fraction, loss, outputs, seed)


@pytest.mark.parametrize("fraction", [0.1, 0.2, 1 / 3, 0.5, 0.9])
def test_each_class_has_its_share(fraction):
    for y in (LABELS, np.eye(4)[LABELS]):
        train, held = split(fraction, y=y)
        labels = [part[1] if part[1].ndim == 1 else part[1].argmax(axis=1) for part in (train, held)]
        assert len(labels[0]) + len(labels[1]) == 100
        for each, rows in enumerate((60, 29, 10, 1)):
            assert abs((labels[1] == each).sum() - fraction * rows) <= 1
            assert (labels[0] == each).any()


def test_rows_stay_together_and_in_order():
    weights = np.arange(100.0)
    train, held = split(weights=weights)
    for x, y, w in (train, held):
        rows = w.astype(int)
        assert (np.diff(rows) > 0).all()
        np.testing.assert_array_equal(x, X[rows])
        np.testing.assert_array_equal(y, LABELS[rows])
    assert not set(train[2]) & set(held[2])


def test_the_seed_decides():
    one, same, other = (split(seed=seed)[1][0] for seed in (1, 1, 2**62))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_numbers_are_drawn_from_all_rows():
    train, held = split(0.25, y=X[:, 0], loss=get_loss("mse"), outputs=1)
    assert (len(train[1]), len(held[1])) == (75, 25)


def test_data_frames_and_sparse_matrices():
    expected = split()[1][0]
    pandas, sparse = pytest.importorskip("pandas"), pytest.importorskip("scipy.sparse")
    np.testing.assert_array_equal(split(x=pandas.DataFrame(X), y=pandas.Series(LABELS))[1][0].to_numpy(), expected)
    np.testing.assert_array_equal(split(x=sparse.csc_matrix(X))[1][0].toarray(), expected)
    np.testing.assert_array_equal(split(x=X.tolist(), y=LABELS.tolist())[1][0], expected)
    polars = pytest.importorskip("polars")
    np.testing.assert_array_equal(split(x=polars.DataFrame(X))[1][0].to_numpy(), expected)
    arrow = pytest.importorskip("pyarrow")
    table = arrow.table({str(place): column for place, column in enumerate(X.T)})
    np.testing.assert_array_equal(split(x=table)[1][0].to_pandas().to_numpy(), expected)


def network(seed=3):
    return nn.Network([nn.Dense(6, activation="relu"), nn.Dense(4)], 3, backend="numpy", seed=seed)


def test_fit_trains_on_the_rest(tmp_path):
    weights = np.linspace(0.5, 2, 100)
    train, held = split(weights=weights, seed=3)
    one, other = network(), network()
    options = {"epochs": 2, "loss": "cce", "metrics": ["f1"], "verbose": False}
    first = one.fit(X, LABELS, sample_weight=weights, validation_split=0.2, **options)
    second = other.fit(train[0], train[1], sample_weight=train[2], validation_data=held, **options)
    for name in ("loss", "val_loss", "val_f1", "val_accuracy"):
        assert first[name] == second[name]
    plain = network().fit(X, LABELS, validation_split=0.2, class_weight="balanced", **options)
    assert len(plain["val_f1"]) == 2
    for epochs in (1, 2):
        checkpoint = {"callbacks": [nn.Checkpoint(tmp_path)], "resume": True}
        resumed = network().fit(X, LABELS, validation_split=0.2, **{**options, "epochs": epochs}, **checkpoint)
    assert resumed["val_loss"] == network().fit(X, LABELS, validation_split=0.2, **options)["val_loss"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation_split": 1.0}, "validation_split must be in"),
        ({"validation_split": -0.1}, "validation_split must be in"),
        ({"validation_split": "0.2"}, "validation_split must be a finite number"),
        ({"validation_split": 1e-3}, "leaves none to validate on"),
        ({"validation_split": 0.2, "validation_data": (X, LABELS)}, "both name validation rows; give one"),
        ({"validation_split": 0.2, "y": None}, "y is missing"),
        ({"validation_split": 0.2, "y": LABELS[:50]}, "x has 100 rows but y has 50"),
        ({"validation_split": 0.2, "sample_weight": np.ones(3)}, r"sample_weight must have shape \(100,\)"),
        ({"validation_split": 0.2, "x": nn.BatchStream(lambda epoch: iter([]), 5), "y": None}, "rows in memory"),
    ],
)
def test_errors(options, message):
    net = network()
    with pytest.raises(InvalidInputError, match=message):
        net.fit(**{"x": X, "y": LABELS, "loss": "cce", "verbose": False, **options})
    assert net.loss is None
