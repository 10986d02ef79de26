"""`TabularClassifier` and `TabularRegressor`: tables as they are, on every backend."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import recall_score
from sklearn.model_selection import cross_val_score
from sklearn.utils.estimator_checks import check_estimator

import nnbackend as nn
from nnbackend.errors import InvalidInputError, TrainingDivergedError, UnknownNameError
from tests.interop.tables import FRAME, SMALL, classifier, labels, numbers, regressor, table

# ---- predictions ---------------------------------------------------------------------------------------------------


def test_a_classifier_learns_a_table_as_it_is(backend):
    model = classifier(backend).fit(FRAME, labels(FRAME))
    other = table(60, seed=1)
    assert model.score(other, labels(other)) > 0.9
    probabilities = model.predict_proba(other)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert list(model.classes_) == ["no", "yes"]
    np.testing.assert_array_equal(model.predict(other), model.classes_[probabilities.argmax(axis=1)])


def test_a_regressor_learns_a_table_as_it_is(backend):
    y = numbers(FRAME)
    model = regressor(backend).fit(FRAME, y)
    other = table(60, seed=1)
    prediction, std = model.predict(other, return_std=True)
    assert model.score(other, numbers(other)) > 0.9
    assert prediction.shape == std.shape == (60,)
    assert (std > 0).any()
    assert prediction.min() >= y.min()
    assert prediction.max() <= y.max()
    with pytest.raises(InvalidInputError, match="return_std=True needs several networks, and one was fitted"):
        regressor(backend, members=1, epochs=1).fit(FRAME, y).predict(FRAME, return_std=True)


def with_towns(rows: int = 90) -> pd.DataFrame:
    """Also a column with so many categories that it is embedded."""
    towns = np.random.default_rng(1).choice([f"town {number}" for number in range(12)], rows)
    return table(rows).assign(town=towns)


def test_the_recipe_with_embeddings(tmp_path, backend):
    frame = with_towns()
    y = np.where(frame["town"].str[5:].astype(int) % 2 == 1, "odd", "even")
    model = classifier(backend, recipe="td", epochs=60).fit(frame, y)
    kinds = [type(layer).__name__ for layer in model.ensemble_.networks[0].layers]
    hidden = ["Dense", "ParametricActivation", "Dropout"]
    assert kinds == ["Embedding", "PeriodicEmbedding", "Scale", *hidden, "Dense"]
    assert model.preparation_.features.numbers == 3
    assert model.score(frame, y) > 0.9
    unseen = frame.assign(town="nowhere")
    assert np.isfinite(model.predict_proba(unseen)).all()
    model.save(tmp_path / "model")
    found = nn.TabularClassifier.load(tmp_path / "model", backend)
    assert found.recipe == "td"
    for rows in (frame, unseen):
        np.testing.assert_array_equal(found.predict_proba(rows), model.predict_proba(rows))


def test_the_recipe_with_embeddings_for_numbers():
    frame = with_towns()
    model = regressor(recipe="td", epochs=60).fit(frame[["length", "town"]], numbers(frame))
    assert model.describe_columns()["town"] == "12 categories"
    plain = regressor(recipe="td", epochs=2).fit(frame[["colour", "size"]], numbers(frame))
    assert [type(layer).__name__ for layer in plain.ensemble_.networks[0].layers][:2] == ["Scale", "Dense"]
    with pytest.raises(UnknownNameError, match="recipe 'tds'"):
        regressor(recipe="tds").fit(frame, numbers(frame))


def test_backends_agree(backend):
    for make, y in ((classifier, labels(FRAME)), (regressor, numbers(FRAME))):
        reference = make("numpy", epochs=4, dtype="float64").fit(FRAME, y)
        model = make(backend, epochs=4).fit(FRAME, y)
        for one, other in zip(model.ensemble_, reference.ensemble_, strict=True):
            ours, theirs = one.get_weights(), other.get_weights()
            for name in theirs:
                np.testing.assert_allclose(ours[name], theirs[name], rtol=2e-2, atol=2e-3)


def test_members_are_networks_of_their_own():
    model = classifier(members=3).fit(FRAME, labels(FRAME))
    each = model.ensemble_.predict_all(model.preparation_.apply(model._read(FRAME, False), "float32"))
    np.testing.assert_allclose(model.predict_proba(FRAME), each.mean(axis=0, dtype=np.float64), rtol=1e-6)
    assert not np.array_equal(each[0], each[1])
    assert len(model.best_epochs_) == 3
    assert all(1 <= epoch <= 30 for epoch in model.best_epochs_)


def test_the_mean_has_a_smaller_log_loss_than_its_networks():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(150, 4))
    y = (x[:, 0] + x[:, 1] * x[:, 2] + generator.normal(0, 1, 150) > 0).astype(int)
    model = classifier(members=5, scoring="log_loss").fit(x[:90], y[:90])
    rows = np.arange(60), y[90:]
    each = model.ensemble_.predict_all(model.preparation_.apply(model._read(x[90:], False), "float32"))
    losses = [-np.log(member[rows]).mean() for member in each]
    assert -np.log(model.predict_proba(x[90:])[rows]).mean() < np.mean(losses)


def test_a_second_fit_gives_the_same_bits():
    one, other = (classifier(random_state=5).fit(FRAME, labels(FRAME)) for _ in range(2))
    assert one.predict_proba(FRAME).tobytes() == other.predict_proba(FRAME).tobytes()
    third = classifier(random_state=6).fit(FRAME, labels(FRAME))
    assert one.predict_proba(FRAME).tobytes() != third.predict_proba(FRAME).tobytes()


def test_several_targets():
    y = np.column_stack([numbers(FRAME), -numbers(FRAME) * 1000])
    model = regressor().fit(FRAME, y)
    prediction, std = model.predict(FRAME, return_std=True)
    assert prediction.shape == std.shape == y.shape
    assert model.score(FRAME, y) > 0.8
    assert regressor(epochs=1).fit(FRAME, np.ones(len(FRAME))).predict(FRAME).tolist() == [1.0] * len(FRAME)


def test_quantiles_cover_their_share_and_never_cross():
    """Noise that grows with the target: the intervals do, too."""
    generator = np.random.default_rng(0)
    x = generator.uniform(0, 10, (600, 2))
    y = 5 * x[:, 0] + (0.1 + x[:, 0]) * generator.normal(size=600)
    model = regressor(members=3, epochs=60).fit(x[:400], y[:400])
    quantiles = model.predict_quantiles(x[400:], [0.05, 0.25, 0.5, 0.75, 0.95])
    assert quantiles.shape == (200, 5)
    assert (np.diff(quantiles, axis=1) >= 0).all()
    below, median, above = quantiles[:, 0], quantiles[:, 2], quantiles[:, 4]
    assert 0.85 <= np.mean((below <= y[400:]) & (y[400:] <= above)) <= 0.95
    assert 0.4 < np.mean(y[400:] < median) < 0.6
    widths = above - below
    assert widths[x[400:, 0] > 7].mean() > 2 * widths[x[400:, 0] < 3].mean()
    assert model.predict_quantiles(x[:7], 0.5).shape == (7, 1)


def test_quantiles_of_several_targets():
    model = regressor(epochs=10).fit(FRAME, np.column_stack([numbers(FRAME), -numbers(FRAME)]))
    quantiles = model.predict_quantiles(FRAME)
    assert quantiles.shape == (90, 2, 3)
    assert (np.diff(quantiles, axis=2) >= 0).all()
    assert (quantiles[:, 0] > 0).all()
    assert (quantiles[:, 1] < 0).all()


def test_errors_of_quantiles():
    model = regressor(epochs=2).fit(FRAME, numbers(FRAME))
    for levels in (0, [0.5, 1.0], [], "high", [[0.5]]):
        with pytest.raises(InvalidInputError, match="levels "):
            model.predict_quantiles(FRAME, levels)
    without = regressor(epochs=2, validation_fraction=0.0).fit(FRAME, numbers(FRAME))
    with pytest.raises(InvalidInputError, match="none were held out"):
        without.predict_quantiles(FRAME)


def test_what_is_rare_counts_as_much_as_its_weight():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(300, 3))
    y = (x[:, 0] + generator.normal(0, 1, 300) > 1.8).astype(int)
    weighted = classifier(epochs=20).fit(x, y, np.where(y == 1, 10.0, 1.0))
    plain = classifier(epochs=20).fit(x, y)
    found = [recall_score(y, each.predict(x)) for each in (weighted, plain)]
    assert found[0] > found[1] + 0.2


def test_what_scoring_decides():
    assert classifier().fit(FRAME, labels(FRAME))._recipe().label_smoothing == 0.1
    probable = classifier(scoring="log_loss").fit(FRAME, labels(FRAME))
    assert probable._recipe().label_smoothing == 0.0
    assert classifier(label_smoothing=0.3).fit(FRAME, labels(FRAME))._recipe().label_smoothing == 0.3


def test_weights_of_rows():
    """Rows of weight 0 teach nothing."""
    y = labels(FRAME)
    wrong = np.r_[y, np.where(y == "yes", "no", "yes")]
    weights = np.r_[np.ones(len(y)), np.zeros(len(y))]
    twice = pd.concat([FRAME, FRAME])
    model = classifier(validation_fraction=0.0).fit(twice, wrong, weights)
    assert model.score(FRAME, y) > 0.9


def test_targets_are_scaled_with_the_weights_of_rows():
    """Targets of rows of weight 0 change nothing, and a weight of 2 counts as two rows."""
    x, y = np.arange(40.0)[:, None], np.arange(40.0) ** 2
    options = {"validation_fraction": 0.0, "epochs": 3, "recipe": "td-s"}
    weights = np.r_[np.ones(20), np.zeros(20)]
    found = [regressor(**options).fit(x, t, weights).predict(x).tobytes() for t in (y, np.where(weights, y, -50))]
    assert found[0] == found[1]
    twice = np.arange(40) % 2 + 1.0
    model, rows = regressor(**options).fit(x, y, 1e300 * twice), np.repeat(y, twice.astype(int))
    np.testing.assert_allclose([model._mean, model._deviation], [[rows.mean()], [rows.std()]], rtol=1e-12)
    assert regressor(**options).fit(x, np.full(40, 0.1))._deviation == 1


def test_the_name_of_the_target(tmp_path):
    model = regressor(epochs=1).fit(FRAME, pd.Series(numbers(FRAME), name="price"))
    model.save(tmp_path / "model")
    assert nn.TabularRegressor.load(tmp_path / "model", "numpy").target_name_ == model.target_name_ == "price"
    assert regressor(epochs=1).fit(FRAME, numbers(FRAME)).target_name_ is None


def test_text_for_a_regressor_names_the_classifier():
    for estimator, other in ((regressor(), "TabularClassifier"), (nn.MLPRegressor(backend="numpy"), "MLPClassifier")):
        for y in (["a", "b"] * 5, np.array(["1", "b"] * 5, object)):
            with pytest.raises(
                InvalidInputError, match=f"a regressor predicts numbers; for classes use nnbackend.{other}"
            ):
                estimator.fit(np.zeros((10, 1)), y)


def test_too_few_rows_to_hold_out_any():
    model = classifier(epochs=3).fit([[0.0], [1.0]], ["a", "b"])
    assert model.best_epochs_ == [3, 3]


def test_a_limit_of_time_fixes_the_epochs():
    model = classifier(max_seconds=1e-6).fit(FRAME, labels(FRAME))
    assert model.n_epochs_ == 1
    same = classifier(epochs=model.n_epochs_).fit(FRAME, labels(FRAME))
    assert model.predict_proba(FRAME).tobytes() == same.predict_proba(FRAME).tobytes()
    assert classifier(max_seconds=600).fit(FRAME, labels(FRAME)).n_epochs_ == 30


def test_with_scikit_learn():
    assert cross_val_score(classifier(), FRAME, labels(FRAME), cv=3).mean() > 0.8
    assert clone(classifier(epochs=7)).epochs == 7


@pytest.mark.slow
@pytest.mark.parametrize("make", [classifier, regressor])
def test_check_estimator(make):
    different = {"check_sample_weight_equivalence_on_dense_data": "each network holds out other rows"}
    results = check_estimator(make(epochs=40), expected_failed_checks=different, on_skip=None)
    not_passed = {result["check_name"] for result in results if result["status"] not in ("passed", "xfail")}
    assert not_passed <= {"check_array_api_input"}


# ---- files ---------------------------------------------------------------------------------------------------------


# ---- errors --------------------------------------------------------------------------------------------------------


def with_column(**columns):
    return FRAME.assign(**columns)


@pytest.mark.parametrize(
    ("options", "x", "message"),
    [
        ({"n_members": 0}, FRAME, "n_members must be a whole number of at least 1"),
        ({"hidden_layer_sizes": "many"}, FRAME, "hidden_layer_sizes must be a list"),
        ({"epochs": 0}, FRAME, "epochs must be"),
        ({"learning_rate": 0}, FRAME, "learning_rate must be above 0"),
        ({"validation_fraction": 1.0}, FRAME, "validation_fraction must be in"),
        ({"max_seconds": -1}, FRAME, "max_seconds must be above 0"),
        ({"scoring": "auc"}, FRAME, "scoring 'auc'"),
        ({"activation": "swish"}, FRAME, "activation 'swish'"),
        ({"categorical_features": ["weight"]}, FRAME, "categorical_features names 'weight', which is no column"),
        ({"categorical_features": [True]}, FRAME, "has 1 truth values, but X has 5 columns"),
        ({"categorical_features": 3}, FRAME, "categorical_features must be"),
        ({}, with_column(when=pd.Timestamp("2020")), "column 'when' holds dates"),
        ({}, with_column(length=np.inf), "column 'length' contains infinity in row 0"),
        ({}, with_column(mixed=[1, "a"] * 45), "column 'mixed' holds both text and numbers"),
        ({}, with_column(things=[[1]] * 90), "column 'things' holds list objects"),
        ({"max_categories": 5}, with_column(name=[str(n) for n in range(90)]), "'name' with 90 different values in 90"),
        (
            {"max_categories": 5},
            with_column(name=[str(n) for n in range(90)], born=[f"{n % 60}.1." for n in range(90)]),
            "column 'born' with 60 .* leave them out .* --ignore name,born\\), or derive",
        ),
        ({}, FRAME["length"], "received a single column"),
        ({}, FRAME.iloc[:0], "X is empty"),
        ({}, np.zeros(90), "Expected 2D array"),
        ({}, [[1], [2, 3]] * 45, "Expected 2D array, got 1D array instead"),
    ],
)
def test_errors_of_data_and_parameters(options, x, message):
    y = labels(FRAME)[: len(x)]
    with pytest.raises((InvalidInputError, UnknownNameError), match=message):
        nn.TabularClassifier(backend="numpy").set_params(**options).fit(x, y)


@pytest.mark.parametrize(
    ("make", "y", "message"),
    [
        (classifier, np.ones(90), "only one class"),
        (classifier, np.ones(3), "X has 90 rows but y has 3"),
        (classifier, None, "requires y to be passed"),
        (regressor, ["1"] * 90, "y must hold numbers"),
        (regressor, np.full(90, np.nan), "y contains NaN"),
        (regressor, np.arange(90) * 1e200, "y are too large for float64"),
        (regressor, np.arange(90) * 1e-200, "y are too small for float64"),
        (regressor, np.ones(3), "X has 90 rows but y has 3"),
    ],
)
def test_errors_of_targets(make, y, message):
    with pytest.raises((InvalidInputError, ValueError), match=message):
        make().fit(FRAME, y)


def test_errors_of_predictions():
    model = classifier(epochs=2).fit(FRAME, labels(FRAME))
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(FRAME.rename(columns={"length": "width"}))
    with pytest.warns(UserWarning, match="feature names"), pytest.raises(ValueError, match="expecting 5 features"):
        model.predict(np.zeros((2, 4)))
    with pytest.raises(InvalidInputError, match="'length' holds text, but held numbers"):
        model.predict(FRAME.assign(length="long"))
    with pytest.raises(NotFittedError):
        classifier().predict(FRAME)


def test_a_divergence_is_an_error_and_leaves_the_estimator_as_it_was():
    model = regressor(epochs=3).fit(FRAME, numbers(FRAME))
    before = model.predict(FRAME)
    model.set_params(learning_rate=1e30, recipe="td-s")
    with pytest.raises(TrainingDivergedError):
        model.fit(np.arange(20.0).reshape(10, 2), np.arange(10.0))
    assert model.predict(FRAME).tobytes() == before.tobytes()
    assert model.n_features_in_ == 5


@pytest.mark.parametrize("make", [classifier, regressor])
def test_weights_of_too_few_rows_to_hold_some_out(make):
    weights = np.zeros(len(FRAME))
    weights[3] = 1
    y = (labels if make is classifier else numbers)(FRAME)
    with pytest.raises(
        InvalidInputError, match=rf"sample_weight is zero for all but 1 of {len(FRAME)} rows, which are"
    ):
        make(epochs=1).fit(FRAME, y, weights)


def test_a_rate_at_which_weights_would_vanish_is_refused():
    with pytest.raises(InvalidInputError, match=r"learning_rate must be below 8.3, received 10.0: weights decay"):
        regressor(learning_rate=10.0).fit(FRAME, numbers(FRAME))


def test_rows_without_weight_do_not_choose_the_best_epoch():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(120, 3))
    y = (x[:, 0] + 0.5 * generator.normal(size=120) > 0).astype(float)
    weights = (np.arange(120) % 3 > 0).astype(float)
    options = {**SMALL, "n_members": 3, "recipe": "td-s", "backend": "numpy"}
    found = [
        nn.TabularRegressor(**options).fit(x, targets, sample_weight=weights).best_epochs_
        for targets in (y, np.where(weights, y, 1 - y))
    ]
    assert found[0] == found[1]
