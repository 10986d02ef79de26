"""A history as a table of pandas."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from nnbackend.interop.pandas import history_frame
from nnbackend.training import History
from tests.helpers import classifier, images

pandas = pytest.importorskip("pandas", reason='needs pandas: pip install -e ".[pandas]"')


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
