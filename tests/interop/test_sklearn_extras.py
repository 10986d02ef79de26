"""What the estimators have beyond scikit-learn's: validation data, scorers, solvers, settings of layers, exports."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning, InconsistentVersionWarning, NotFittedError
from sklearn.metrics import (
    accuracy_score,
    get_scorer,
    log_loss,
    make_scorer,
    mean_poisson_deviance,
    mean_squared_error,
    r2_score,
)
from sklearn.neural_network import MLPClassifier

import nnbackend as nn
from nnbackend.errors import InvalidInputError
from tests.interop.estimators import LENGTHS, X, Y, both, make, same_weights

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

EVEN, ODD = slice(0, None, 2), slice(1, None, 2)
WEIGHTS = np.linspace(0.5, 2, len(X))


def targets(estimator) -> np.ndarray:
    return Y if estimator is nn.MLPClassifier else LENGTHS


class TestValidationData:
    @pytest.mark.parametrize("solver", ["adam", "lbfgs"])
    def test_loss_and_score_of_every_epoch(self, solver):
        names = np.array(["one", "two", "three"])[Y]
        model = make(solver=solver, max_iter=4)
        model.fit(X[EVEN], names[EVEN], X_val=X[ODD], y_val=names[ODD], sample_weight_val=WEIGHTS[ODD])
        assert len(model.validation_loss_curve_) == len(model.validation_scores_) == model.n_iter_ == 4
        probabilities = model.predict_proba(X[ODD])
        expected = log_loss(names[ODD], probabilities, sample_weight=WEIGHTS[ODD], labels=model.classes_)
        assert model.validation_loss_curve_[-1] == pytest.approx(expected, rel=1e-12)
        assert model.validation_scores_[-1] == pytest.approx(model.score(X[ODD], names[ODD], WEIGHTS[ODD]), rel=1e-12)
        # Only early stopping compares them.
        assert model.best_validation_score_ is None
        assert same_weights(model, make(solver=solver, max_iter=4).fit(X[EVEN], names[EVEN]))

    @pytest.mark.parametrize("loss", ["squared_error", "poisson"])
    def test_of_a_regressor(self, loss):
        y = np.exp(np.c_[LENGTHS, LENGTHS / 2])
        model = make(nn.MLPRegressor, loss=loss, max_iter=3).fit(X[EVEN], y[EVEN], X_val=X[ODD], y_val=y[ODD])
        found = model.predict(X[ODD])
        if loss == "poisson":
            # Half the deviance, summed over the outputs.
            expected = sum(mean_poisson_deviance(y[ODD, k], found[:, k]) / 2 for k in range(2))
        else:
            expected = mean_squared_error(y[ODD], found) / 2
        assert model.validation_loss_curve_[-1] == pytest.approx(expected, rel=1e-12)
        assert model.validation_scores_[-1] == pytest.approx(r2_score(y[ODD], found), rel=1e-12)

    @both
    def test_early_stopping_holds_out_nothing_else(self, estimator):
        y = targets(estimator)
        options = {"early_stopping": True, "max_iter": 30, "n_iter_no_change": 3, "learning_rate_init": 0.1}
        model = make(estimator, **options).fit(X[EVEN], y[EVEN], X_val=X[ODD], y_val=y[ODD])
        assert model.n_iter_ < 30
        assert model.t_ == model.n_iter_ * len(X[EVEN])
        assert model.best_validation_score_ == max(model.validation_scores_)
        assert model.score(X[ODD], y[ODD]) == pytest.approx(model.best_validation_score_, rel=1e-12)

    def test_class_weights_hold_for_validation_data(self):
        weights = {0: 1.0, 1: 5.0, 2: 0.1}
        model = make(class_weight=weights).fit(X[EVEN], Y[EVEN], X_val=X[ODD], y_val=Y[ODD])
        each = np.array([weights[label] for label in Y[ODD]])
        assert model.validation_scores_[-1] == pytest.approx(model.score(X[ODD], Y[ODD], each), rel=1e-12)

    @both
    def test_without_validation_data(self, estimator):
        model = make(estimator).fit(X, targets(estimator))
        assert model.validation_loss_curve_ is model.validation_scores_ is None
        model = make(estimator, early_stopping=True).fit(X, targets(estimator))
        assert len(model.validation_loss_curve_) == len(model.validation_scores_) == model.n_iter_

    def test_members_have_the_mean_curve(self):
        model = make(n_members=2).fit(X[EVEN], Y[EVEN], X_val=X[ODD], y_val=Y[ODD])
        each = [member.validation_loss_curve_[-1] for member in model.estimators_]
        assert model.validation_loss_curve_[-1] == pytest.approx(np.mean(each))

    def test_refusals(self):
        model = make()
        for given, message in (
            ({"X_val": X}, "X_val was given without y_val"),
            ({"y_val": Y}, "y_val was given without X_val"),
            ({"sample_weight_val": WEIGHTS}, "without X_val and y_val"),
            ({"X_val": X, "y_val": Y + 1}, "classes not in"),
            ({"X_val": X, "y_val": Y, "sample_weight_val": WEIGHTS[:9]}, "must have shape"),
        ):
            with pytest.raises(InvalidInputError, match=message):
                model.fit(X, Y, **given)
            assert not hasattr(model, "coefs_")
        with pytest.raises(ValueError, match="3 features"):
            model.fit(X, Y, X_val=X[:, :3], y_val=Y)
        with pytest.raises(InvalidInputError, match="y_val must have the columns of y"):
            make(nn.MLPRegressor).fit(X, LENGTHS, X_val=X, y_val=np.c_[LENGTHS, LENGTHS])


#: For estimators that early stopping scores.
SCORED = {"early_stopping": True, "max_iter": 12}


class TestScoring:
    @pytest.mark.parametrize("scoring", ["neg_log_loss", "roc_auc_ovr", "balanced_accuracy"])
    def test_scorers_of_classifiers_by_name(self, scoring, backend):
        model = make(scoring=scoring, backend=backend, dtype="float32", **SCORED)
        model.fit(X[EVEN], Y[EVEN], X_val=X[ODD], y_val=Y[ODD])
        assert get_scorer(scoring)(model, X[ODD], Y[ODD]) == pytest.approx(model.best_validation_score_, rel=1e-4)
        assert len(set(model.validation_scores_)) > 3

    def test_a_function_gets_a_fitted_estimator_rows_and_classes(self):
        names, seen = np.array(["a", "b", "c"])[Y], []

        def scorer(estimator, x, y, sample_weight=None):
            seen.append((estimator.coefs_[0].copy(), estimator.n_iter_no_change, set(y), len(sample_weight)))
            return accuracy_score(y, estimator.predict(x), sample_weight=sample_weight)

        model = make(scoring=scorer, early_stopping=True, max_iter=3).fit(X, names, WEIGHTS)
        plain = make(early_stopping=True, max_iter=3).fit(X, names, WEIGHTS)
        assert model.validation_scores_ == plain.validation_scores_
        assert [each[2:] for each in seen] == [({"a", "b", "c"}, 15)] * 3
        assert not np.array_equal(seen[0][0], seen[1][0])

    def test_the_loss_and_a_made_scorer(self):
        model = make(scoring="loss", **SCORED).fit(X, Y)
        assert model.validation_scores_ == [-loss for loss in model.validation_loss_curve_]
        scorer = make_scorer(mean_squared_error, greater_is_better=False)
        model = make(nn.MLPRegressor, scoring=scorer, **SCORED).fit(X, LENGTHS)
        np.testing.assert_allclose(model.validation_scores_, -2 * np.array(model.validation_loss_curve_))

    def test_a_result_that_is_no_number(self):
        with pytest.raises(InvalidInputError, match="scoring must return a number, received 'high'"):
            make(scoring=lambda *_, **__: "high", early_stopping=True).fit(X, Y)

    def test_data_frames_do_not_warn_of_names(self):
        pandas = pytest.importorskip("pandas")
        frame = pandas.DataFrame(X, columns=list("abcd"))
        model = make(scoring="neg_log_loss", early_stopping=True).fit(frame, Y, X_val=frame, y_val=Y)
        assert list(model.feature_names_in_) == list("abcd")


class TestSolvers:
    def reference(self, optimizer, rows=50):
        """The same training with a network."""
        start = make(max_iter=1, learning_rate_init=1e-30, batch_size=rows, shuffle=False, alpha=0).fit(X, Y)
        network = start.to_network()
        network.fit(X, Y, epochs=3, batch_size=rows, optimizer=optimizer, shuffle=False, verbose=False)
        return network.predict(X)

    @pytest.mark.parametrize(
        ("parameters", "optimizer"),
        [
            ({"solver": "adamw", "alpha": 0.5}, nn.AdamW(0.02, weight_decay=0.5)),
            (
                {"solver": "adamw", "alpha": 0.0, "beta_1": 0.5, "epsilon": 0.1},
                nn.AdamW(0.02, 0.5, epsilon=0.1, weight_decay=0),
            ),
            ({"solver": "rmsprop", "alpha": 0.0}, nn.RMSprop(0.02)),
            ({"solver": "rmsprop", "alpha": 0.0, "rho": 0.5}, nn.RMSprop(0.02, decay=0.5)),
        ],
        ids=lambda value: str(value) if isinstance(value, dict) else "",
    )
    def test_are_the_optimizers_of_the_package(self, parameters, optimizer):
        model = make(**parameters, batch_size=50, shuffle=False, max_iter=3).fit(X, Y)
        np.testing.assert_allclose(model.predict_proba(X), self.reference(optimizer), atol=1e-10)

    @pytest.mark.parametrize("solver", ["adamw", "rmsprop"])
    def test_partial_fit_continues_after_a_pickle(self, solver):
        one = make(solver=solver).partial_fit(X, Y, classes=[0, 1, 2])
        other = pickle.loads(pickle.dumps(one))
        assert same_weights(one.partial_fit(X, Y), other.partial_fit(X, Y))

    def test_rmsprop_has_the_penalty(self):
        weak, strong = (make(solver="rmsprop", alpha=alpha).fit(X, Y) for alpha in (0, 100))
        assert np.abs(strong.coefs_[0]).sum() < np.abs(weak.coefs_[0]).sum()


class TestSettingsOfLayers:
    def test_activations(self):
        model = make(hidden_layer_sizes=(5, 4), activation=("tanh", "relu")).fit(X, Y)
        hidden = np.tanh(X @ model.coefs_[0] + model.intercepts_[0])
        hidden = np.maximum(hidden @ model.coefs_[1] + model.intercepts_[1], 0)
        logits = hidden @ model.coefs_[2] + model.intercepts_[2]
        expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        np.testing.assert_allclose(model.predict_proba(X), expected, atol=1e-12)

    def test_one_for_each_that_are_equal_is_one_for_all(self):
        sizes = (5, 4)
        one = make(hidden_layer_sizes=sizes, activation="logistic", dropout=0.2).fit(X, Y)
        assert same_weights(
            one, make(hidden_layer_sizes=sizes, activation=["logistic"] * 2, dropout=[0.2] * 2).fit(X, Y)
        )

    def test_dropout_of_one_layer(self):
        model = make(hidden_layer_sizes=(5, 4), dropout=(0.0, 0.4)).fit(X, Y)
        kinds = [type(layer).__name__ for layer in model.to_network().layers]
        assert kinds == ["Dense", "Dense", "Dropout", "Dense"]
        assert not same_weights(model, make(hidden_layer_sizes=(5, 4)).fit(X, Y))


class TestExports:
    @both
    def test_to_network(self, estimator, backend):
        model = make(estimator, backend=backend, dtype="float32", max_iter=2).fit(X, targets(estimator))
        network = model.to_network()
        found = network.predict(X.astype("float32"))
        expected = model.predict_proba(X) if estimator is nn.MLPClassifier else model.predict(X)[:, None]
        np.testing.assert_array_equal(found, expected)
        # It is a copy.
        network.fit(X, targets(estimator), epochs=1, verbose=False)
        assert not np.array_equal(network.get_weights()["layers.0.weight"], model.coefs_[0])

    def test_bytes_are_numbers(self):
        x = (10 * X + 40).astype(np.uint8)
        model = make(max_iter=2).fit(x, Y)
        np.testing.assert_array_equal(model.to_network().predict(x), model.predict_proba(x))

    def test_members_become_an_ensemble(self):
        model = make(n_members=2, max_iter=2).fit(X, Y)
        ensemble = model.to_network()
        assert isinstance(ensemble, nn.Ensemble)
        np.testing.assert_allclose(ensemble.predict(X), model.predict_proba(X), atol=1e-12)

    @pytest.mark.parametrize("members", [1, 2])
    def test_to_onnx(self, members, tmp_path):
        pytest.importorskip("onnx")
        runtime = pytest.importorskip("onnxruntime")
        model = make(nn.MLPRegressor, loss="poisson", dtype="float32", n_members=members).fit(X, np.exp(LENGTHS))
        model.to_onnx(tmp_path / "model.onnx")
        session = runtime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
        (found,) = session.run(None, {session.get_inputs()[0].name: X.astype("float32")})
        np.testing.assert_allclose(found.ravel(), model.predict(X), rtol=1e-4)

    def test_only_when_fitted(self, tmp_path):
        with pytest.raises(NotFittedError):
            make().to_network()
        with pytest.raises(NotFittedError):
            make().to_onnx(tmp_path / "none.onnx")


class TestPickles:
    def test_another_version_warns(self, monkeypatch):
        with monkeypatch.context() as patch:
            patch.setattr("nnbackend.interop.sklearn.versions.VERSION", "0.0.7")
            stored = pickle.dumps(make().fit(X, Y))
        with pytest.warns(InconsistentVersionWarning, match=r"MLPClassifier from version 0\.0\.7") as caught:
            model = pickle.loads(stored)
        assert caught[0].message.original_sklearn_version == "0.0.7"
        assert caught[0].filename == __file__
        assert model.predict(X).shape == Y.shape
        assert "_nnbackend_version" not in vars(model)

    def test_the_same_version_does_not(self):
        model = make().fit(X, Y)
        for other in (pickle.loads(pickle.dumps(model)), copy.copy(model), copy.deepcopy(model)):
            assert vars(other).keys() == vars(model).keys()
            assert same_weights(model, other)


class TestDtypesAndWeights:
    @both
    def test_a_number_weights_all_rows(self, estimator):
        y = targets(estimator)
        one, other = make(estimator).fit(X, y, 2.5), make(estimator).fit(X, y, np.full(len(X), 2.5))
        assert same_weights(one, other)
        assert one.score(X, y, 3) == pytest.approx(other.score(X, y), rel=1e-12)
        one.partial_fit(X, y, sample_weight=1)
        with pytest.raises(InvalidInputError, match="not negative"):
            one.fit(X, y, -1)

    def test_float64_rows_have_float64_predictions(self):
        model = make().fit(X.astype("float32"), Y)
        assert model.predict_proba(X).dtype == np.float64
        assert model.predict_proba(X.astype("float32")).dtype == np.float32
        # Unless the dtype was chosen.
        assert make(dtype="float32").fit(X, Y).predict_proba(X).dtype == np.float32

    @pytest.mark.parametrize("kind", [object, "U9", list, float, bool])
    def test_classes_are_those_of_scikit_learn(self, kind):
        names = ["no", "yes", "maybe"] if kind in (object, "U9", list) else [0, 1, 0]
        y = [names[label] for label in Y] if kind is list else np.array(names, None if kind is list else kind)[Y]
        ours, theirs = make(max_iter=1).fit(X, y), MLPClassifier(6, max_iter=1).fit(X, y)
        assert ours.classes_.dtype == theirs.classes_.dtype
        np.testing.assert_array_equal(ours.classes_, theirs.classes_)
        assert ours.predict(X).dtype == theirs.predict(X).dtype


def test_one_warning_of_a_whole_search():
    search = nn.MLPSearchCV(make(max_iter=3), {"alpha": [0.1, 1, 10]}, cv=2)
    with pytest.warns(ConvergenceWarning) as caught:
        search.fit(X, Y)
    (warning,) = caught
    assert str(warning.message).startswith("6 of the 6 fits of the search and the fit of best_estimator_: ")
    assert warning.filename == __file__


@pytest.mark.parametrize("labels", [Y, Y.astype(np.uint8), np.array(["a", "b", "c"])[Y], Y.astype(float)], ids=str)
def test_the_score_of_a_classifier_is_its_accuracy(labels):
    """Also where scikit-learn's checks are skipped, as for plain arrays of the dtype of the classes."""
    model = make().fit(X, labels)
    predicted = model.predict(X)
    for given in (labels, list(labels), labels[::-1]):
        assert model.score(X, given) == accuracy_score(np.asarray(given, labels.dtype), predicted)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        model.score(X, labels[:-1])


def test_balanced_labels_of_validation_data_have_the_weights_of_training():
    """With several labels for a row; the rows for validation have other shares of them."""
    labels = np.column_stack([Y == 0, Y == 1]).astype(int)
    rare = np.flatnonzero(labels.any(axis=1))[:20]
    options = {"class_weight": "balanced", "max_iter": 2}
    losses = []
    for weights in (options, {"class_weight": [{0: 0.75, 1: 1.5}] * 2, "max_iter": 2}):
        with pytest.warns(ConvergenceWarning):
            model = make(**weights).fit(X, labels, X_val=X[rare], y_val=labels[rare])
        losses.append(model.validation_loss_curve_)
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-12)
