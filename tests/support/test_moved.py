"""Modules that moved can be imported under their old names for one release."""

from __future__ import annotations

import importlib
import pickle
import sys

import pytest

from nnbackend.support.moved import MOVED


@pytest.mark.parametrize("old", sorted(MOVED))
def test_the_old_name_gives_the_module_and_warns(old, monkeypatch):
    monkeypatch.delitem(sys.modules, old, raising=False)
    new = importlib.import_module(MOVED[old])
    specification = new.__spec__
    with pytest.warns(DeprecationWarning, match=f"{old} is now {MOVED[old]}"):
        assert importlib.import_module(old) is new
    assert new.__spec__ is specification
    assert new.__name__ == MOVED[old]


def test_a_pickle_that_names_the_old_module_loads(monkeypatch):
    monkeypatch.delitem(sys.modules, "nnbackend.batch_stream", raising=False)
    with pytest.warns(DeprecationWarning, match="batch_stream"):
        found = pickle.loads(b"cnnbackend.batch_stream\nBatchStream\n.")
    assert found is importlib.import_module("nnbackend.data.batch_stream").BatchStream


def test_a_name_that_never_existed_is_not_found():
    with pytest.raises(ModuleNotFoundError, match=r"nnbackend\.nonsense"):
        importlib.import_module("nnbackend.nonsense")
