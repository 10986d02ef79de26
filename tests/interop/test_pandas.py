"""A history as a table of pandas."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.interop.pandas import history_frame
from nnbackend.training import History
from tests.helpers import classifier, images, same_weights

pandas = pytest.importorskip("pandas", reason='needs pandas: pip install -e ".[pandas]"')


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_class_weights_are_found_by_the_index_of_a_series():
    """`value_counts` sorts classes by frequency."""
    x, y = images(70)
    y = np.where(y == 0, 3, y)
    counts = pandas.Series(y).value_counts()
    assert counts.index.tolist() != sorted(counts.index)
    options = {"epochs": 1, "loss": "softmax_cross_entropy", "verbose": False}
    one, other = classifier(), classifier()
    one.fit(x, y, **options, class_weight=70 / counts)
    other.fit(x, y, **options, class_weight={int(label): 70 / count for label, count in counts.items()})
    assert same_weights(one, other)
    estimators = [
        nn.MLPClassifier((4,), max_iter=3, random_state=0, backend="numpy", class_weight=weights).fit(x / 255, y)
        for weights in (70 / counts, (70 / counts).to_dict())
    ]
    np.testing.assert_array_equal(*[estimator.coefs_[0] for estimator in estimators])


def test_a_row_per_epoch_and_a_column_per_metric():
    x, y = images()
    history = classifier().fit(x, y, epochs=3, loss="softmax_cross_entropy", validation_data=(x[:20], y[:20]))
    frame = history.to_pandas()
    assert frame.index.name == "epoch"
    assert frame.index.tolist() == [1, 2, 3]
    assert frame.columns.tolist() == history.names()[1:]
    for name in frame.columns:
        assert frame[name].tolist() == history[name]
        assert frame[name].dtype == np.float64
    assert frame.val_loss.idxmin() == 1 + int(np.argmin(history["val_loss"]))


def test_missing_metrics_of_an_epoch_are_missing_values():
    history = History()
    history.append({"epoch": 1, "loss": 1.0}, np.ones(1))
    history.append({"epoch": 2, "loss": 0.5, "val_loss": 0.25}, np.ones(1))
    assert history.to_pandas().val_loss.isna().tolist() == [True, False]


def test_no_epochs_are_no_rows():
    frame = History().to_pandas()
    assert len(frame) == 0
    assert frame.index.name == "epoch"


def test_without_pandas_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r'pip install -e "\.\[pandas\]"'):
        History().to_pandas()


def test_the_former_function_names_the_method():
    history = History()
    history.append({"epoch": 1, "loss": 0.5}, np.zeros(1))
    with pytest.warns(DeprecationWarning, match="history.to_pandas()"):
        frame = history_frame(history)
    assert frame.equals(history.to_pandas())
