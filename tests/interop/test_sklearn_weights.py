"""Weights of rows and classes in MLPClassifier and MLPRegressor."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from sklearn.datasets import make_classification
from sklearn.metrics import accuracy_score, r2_score
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.estimator_checks import check_class_weight_classifiers

import nnbackend as nn
from nnbackend.errors import InvalidInputError
from nnbackend.interop.sklearn import data
from tests.interop.estimators import LENGTHS, X, Y, both, make, same_weights

quiet = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture
def splits(monkeypatch):
    """The row numbers of all splits: for training, and held out."""
    found, split = [], data.train_test_split

    def recorded(*arguments, **options):
        found.append(split(*arguments, **options))
        return found[-1]

    monkeypatch.setattr(data, "train_test_split", recorded)
    return found


@quiet
@both
def test_the_scale_of_weights_may_be_any(estimator):
    """Without a penalty only their ratios matter."""
    weights = np.linspace(1, 2, 150)
    for options in ({}, {"early_stopping": True}):
        plain = make(estimator, alpha=0, **options).fit(X, Y, weights)
        for factor in (1e-12, 8e307):
            other = make(estimator, alpha=0, **options).fit(X, Y, weights * factor)
            for one, another in zip(plain.coefs_, other.coefs_, strict=True):
                np.testing.assert_allclose(one, another, rtol=1e-9, atol=1e-12)
    if estimator is nn.MLPClassifier:
        huge = dict.fromkeys(range(3), 1e308)
        weighted = make(alpha=0, class_weight=huge).fit(X, Y, np.full(150, 1e308))
        for one, another in zip(make(alpha=0).fit(X, Y).coefs_, weighted.coefs_, strict=True):
            np.testing.assert_allclose(one, another, rtol=1e-9, atol=1e-12)


@quiet
class TestTheBestEpochByWeights:
    """What weights the training weights the score of early stopping."""

    def test_class_weights(self):
        x, y = make_classification(400, 10, weights=[0.9], flip_y=0.02, class_sep=0.8, random_state=5)
        options = {"early_stopping": True, "max_iter": 30}
        by_class = make(class_weight="balanced", **options).fit(x, y)
        by_row = make(**options).fit(x, y, compute_sample_weight("balanced", y))
        assert by_class.validation_scores_ == by_row.validation_scores_
        assert same_weights(by_class, by_row)

    def test_names_of_classes_and_several_columns(self):
        names = np.array(["no", "yes"])[(Y == 2).astype(int)]
        options = {"early_stopping": True, "max_iter": 8}
        named = make(class_weight={"no": 1, "yes": 4}, **options).fit(X, names)
        assert same_weights(named, make(**options).fit(X, names, np.where(names == "yes", 4.0, 1.0)))
        several = np.c_[Y == 0, Y != 1].astype(int)
        balanced = make(class_weight="balanced", **options).fit(X, several)
        assert same_weights(balanced, make(**options).fit(X, several, compute_sample_weight("balanced", several)))

    def test_class_weights_for_parts_of_the_rows(self):
        named = make(class_weight={0: 1, 1: 4, 2: 1}).partial_fit(X, Y, classes=[0, 1, 2])
        series = pd.Series([4, 1, 1], index=[1, 0, 2])
        assert same_weights(named, make(class_weight=series).partial_fit(X, Y, classes=[0, 1, 2]))
        with pytest.raises(InvalidInputError, match="class_weight must be a dict from class to weight"):
            make(class_weight=np.ones(3)).partial_fit(X, Y, classes=[0, 1, 2])

    def test_a_regressor(self, splits):
        weights = np.where(np.median(LENGTHS) < LENGTHS, 0.0, 1.0)
        model = make(nn.MLPRegressor, early_stopping=True, max_iter=5, validation_fraction=0.5)
        model.fit(X, np.c_[LENGTHS, -LENGTHS], weights)
        held = splits[0][1]
        score = r2_score(np.c_[LENGTHS, -LENGTHS][held], model.predict(X[held]), sample_weight=weights[held])
        assert model.best_validation_score_ == pytest.approx(score)

    @both
    def test_parts_whose_rows_all_weigh_zero(self, estimator, splits):
        make(estimator, early_stopping=True, max_iter=1).fit(X, Y)
        for place, part in ((0, "left for training"), (1, "held out")):
            weights = ~np.isin(np.arange(150), splits[0][place])
            model = make(estimator, early_stopping=True)
            with pytest.raises(InvalidInputError, match=rf"all \d+ rows {part}.*weigh zero"):
                model.fit(X, Y, weights.astype(float))
            assert not hasattr(model, "coefs_")

    def test_the_acceptance_check_of_scikit_learn(self):
        options = {"hidden_layer_sizes": (8,), "learning_rate_init": 0.05, "validation_fraction": 0.3}
        model = nn.MLPClassifier(early_stopping=True, backend="numpy", **options)
        check_class_weight_classifiers("MLPClassifier", model)

    @pytest.mark.parametrize("rare", ["rare", 7, True])
    def test_a_class_of_one_row_is_named(self, rare):
        y = np.array([rare, *([type(rare)()] * 149)])
        with pytest.raises(InvalidInputError, match=f"class {rare!r} has a single row; give at least two rows"):
            make(early_stopping=True).fit(X, y)
        y[1] = rare
        make(early_stopping=True, max_iter=2).fit(X, y)


@quiet
@both
def test_scores_with_weights_of_any_size(estimator):
    model, weights = make(estimator).fit(X, Y), np.linspace(0, 2, 150)
    expected = model.score(X, Y, weights)
    assert expected != model.score(X, Y)
    assert model.score(X, Y, weights * 5e307) == pytest.approx(expected, rel=1e-12)
    metric = accuracy_score if estimator is nn.MLPClassifier else r2_score
    assert expected == metric(Y, model.predict(X), sample_weight=weights)
    for wrong in (-weights, 0 * weights, weights[1:], np.full(150, np.nan)):
        with pytest.raises(InvalidInputError, match="sample_weight"):
            model.score(X, Y, wrong)


@quiet
def test_several_labels_in_a_sparse_matrix():
    several = np.c_[Y == 0, Y != 1, Y == 2].astype(int)
    options = {"early_stopping": True, "class_weight": "balanced", "max_iter": 3}
    one, other = make(**options).fit(X, several), make(**options).fit(X, scipy.sparse.csr_matrix(several))
    assert same_weights(one, other)
    assert other.predict(X).shape == (150, 3)
    assert set(np.unique(other.predict(X))) <= {0, 1}
