"""scikit-learn's own tests of its perceptrons pass with this package's estimators."""

from __future__ import annotations

import inspect
import re

import pytest

import nnbackend as nn
from tests.interop.sklearn_suite import BACKENDS, NEED_PRIVATE_NAMES, PAGE, load

MODULE = load()
TESTS = {name: test for name, test in vars(MODULE).items() if name.startswith("test_") and inspect.isfunction(test)}


@pytest.fixture
def global_random_seed() -> int:
    """The fixture of scikit-learn's configuration of pytest."""
    return 42


@pytest.mark.float64
class TestOfScikitLearn:
    """Has the functions of scikit-learn's file as methods; "auto" is the backend."""

    @pytest.fixture(autouse=True, params=BACKENDS)
    def as_auto(self, request, monkeypatch):
        monkeypatch.setattr("nnbackend.backends.registry.AUTO_ORDER", (request.param,))


for _name in sorted(TESTS.keys() - NEED_PRIVATE_NAMES.keys()):
    setattr(TestOfScikitLearn, _name, staticmethod(TESTS[_name]))


def test_the_tests_use_these_estimators():
    assert MODULE.MLPClassifier is nn.MLPClassifier
    assert MODULE.MLPRegressor is nn.MLPRegressor
    assert len(TESTS) > 30


def test_few_are_left_out_each_for_a_private_name():
    assert len(NEED_PRIVATE_NAMES) <= 7
    for test, name in NEED_PRIVATE_NAMES.items():
        assert name.startswith("_")
        assert re.search(rf"\.{name}\b", inspect.getsource(TESTS[test]))
        assert not hasattr(nn.MLPClassifier, name)


def test_the_page_says_why_each_is_left_out():
    text = PAGE.read_text(encoding="utf-8")
    assert all(f"`{test}` (`{name}`)" in text for test, name in NEED_PRIVATE_NAMES.items())
