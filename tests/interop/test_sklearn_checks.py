"""scikit-learn's complete acceptance suite for estimators."""

from __future__ import annotations

import pytest
from sklearn.utils.estimator_checks import check_estimator

import nnbackend as nn

#: Checks that every perceptron skips: it has no method `decision_function`, and an environment variable must be set
#: before SciPy is imported.
SKIPPED = {"check_array_api_input", "check_classifiers_multilabel_output_format_decision_function"}

#: Small, so that it takes seconds.
SMALL = {"hidden_layer_sizes": (8,), "learning_rate_init": 0.05, "max_iter": 25, "backend": "numpy"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("members", [1, 2])
@pytest.mark.parametrize("estimator", [nn.MLPClassifier, nn.MLPRegressor])
def test_check_estimator(estimator, members):
    results = check_estimator(estimator(**SMALL, n_members=members), on_skip=None)
    assert len(results) > 50
    not_passed = {result["check_name"] for result in results if result["status"] != "passed"}
    assert not_passed <= SKIPPED
