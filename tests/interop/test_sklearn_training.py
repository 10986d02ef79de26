"""Training of MLPClassifier and MLPRegressor: when it stops, what is rejected, what is kept."""

from __future__ import annotations

import copy
import signal

import numpy as np
import pytest
from sklearn.datasets import make_classification, make_regression
from sklearn.exceptions import ConvergenceWarning, DataConversionWarning

import nnbackend as nn
from nnbackend.errors import InvalidInputError, TrainingDivergedError, UnknownNameError
from tests.interop.estimators import LENGTHS, X, Y, both, make, same_weights

BINARY = (Y == 1).astype(int)

quiet = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


class TestRefusals:
    @pytest.mark.parametrize(
        ("parameters", "message"),
        [
            ({"solver": "lbfgs", "dropout": 0.1}, "set dropout=0, or use solver='adam'"),
            ({"solver": "lbfgs", "dtype": "float32"}, "Use dtype='auto', or solver='adam'"),
            ({"max_fun": 0}, "max_fun must be"),
            ({"scoring": "acuracy"}, "did you mean 'accuracy'"),
            ({"rho": 1}, "rho must be"),
            ({"activation": ["relu", "tanh"]}, "or one for each of the 1 hidden layers"),
            ({"activation": ["rely"]}, r"unknown activation\[0\] 'rely'"),
            ({"dropout": [0.1, 0.2]}, "or one for each of the 1 hidden layers"),
            ({"dropout": [1.0]}, r"dropout\[0\] must be"),
            ({"solver": "adma"}, "did you mean 'adam'"),
            ({"activation": "softmax"}, "unknown activation 'softmax'"),
            ({"learning_rate": 0.1}, "unknown learning_rate 0.1"),
            ({"hidden_layer_sizes": (3, 0)}, "hidden_layer_sizes must be a whole number of at least 1"),
            ({"hidden_layer_sizes": "100"}, "hidden_layer_sizes must be"),
            ({"alpha": -1}, "alpha must be at least 0"),
            ({"batch_size": 0}, "batch_size must be a whole number"),
            ({"learning_rate_init": 0}, "learning_rate_init must be above 0"),
            ({"power_t": -1}, "power_t must be"),
            ({"max_iter": 0}, "max_iter must be"),
            ({"shuffle": "yes"}, "shuffle must be True or False"),
            ({"tol": -1e-3}, "tol must be"),
            ({"verbose": -1}, "verbose must be"),
            ({"warm_start": 1}, "warm_start must be True or False"),
            ({"momentum": 1}, "momentum must be"),
            ({"nesterovs_momentum": None}, "nesterovs_momentum must be"),
            ({"early_stopping": 0}, "early_stopping must be"),
            ({"validation_fraction": 1.0}, "validation_fraction must be"),
            ({"beta_1": 1.0}, "beta_1 must be"),
            ({"beta_2": -0.1}, "beta_2 must be"),
            ({"epsilon": 0}, "epsilon must be"),
            ({"n_iter_no_change": 0}, "n_iter_no_change must be"),
            ({"dropout": 1.0}, "dropout must be"),
            ({"dtype": "float16"}, "unknown dtype 'float16'"),
            ({"backend": "nunpy"}, "did you mean 'numpy'"),
        ],
        ids=str,
    )
    def test_values_out_of_range(self, parameters, message):
        model = make(**parameters)
        calls = [model.fit]
        if hasattr(model, "partial_fit"):
            calls.append(lambda x, y: model.partial_fit(x, y, classes=[0, 1, 2]))
        for call in calls:
            with pytest.raises(InvalidInputError, match=message):
                call(X, Y)
            assert not hasattr(model, "coefs_")

    def test_unknown_losses(self):
        with pytest.raises(UnknownNameError):
            make(nn.MLPRegressor, loss="absolute_error").fit(X, LENGTHS)
        for sizes in ((32,), [32, 16], 32):
            with pytest.raises(InvalidInputError, match=r"pass the sizes by name: .*hidden_layer_sizes=.*32"):
                nn.MLPRegressor(sizes, backend="numpy").fit(X, LENGTHS)

    def test_poisson_needs_counts(self):
        model = make(nn.MLPRegressor, loss="poisson")
        with pytest.raises(InvalidInputError, match="needs y of counts or rates, at least 0, received -"):
            model.fit(X, LENGTHS)
        with pytest.raises(InvalidInputError, match="needs y_val of counts"):
            model.fit(X, np.abs(LENGTHS), X_val=X, y_val=LENGTHS)

    @both
    @pytest.mark.parametrize(
        ("weights", "message"),
        [
            (np.ones(149), r"must have shape \(150,\), received \(149,\)"),
            (np.r_[-1.0, np.ones(149)], "not negative"),
            (np.r_[np.nan, np.ones(149)], "finite"),
            (np.zeros(150), "all of sample_weight is zero"),
            (["heavy"] * 150, "must hold numbers"),
        ],
    )
    def test_sample_weights(self, estimator, weights, message):
        model = make(estimator)
        with pytest.raises(InvalidInputError, match=message):
            model.fit(X, Y, weights)
        assert not hasattr(model, "coefs_")

    @both
    @quiet
    def test_masked_weights(self, estimator):
        weights = np.ma.masked_less(np.arange(150.0), 3)
        with pytest.raises(InvalidInputError, match="sample_weight has 3 masked values"):
            make(estimator).fit(X, Y, weights)
        make(estimator, max_iter=1).fit(X, Y, weights.filled(0))

    @quiet
    @pytest.mark.parametrize(
        ("weights", "message"),
        [
            ({0: -1, 1: 1}, "the weight of class 0 must be at least 0, received -1"),
            ({0: np.nan}, "the weight of class 0 must be a finite number, received nan"),
            ({1: np.inf}, "the weight of class 1 must be a finite number"),
            ({1: None}, "the weight of class 1 must be a finite number"),
            (dict.fromkeys(range(3), 0), "all rows weigh zero by sample_weight and class_weight"),
            ({"a": 1}, r"class_weight names class 'a'; the classes are \[0, 1, 2\]"),
            ([1, 2, 3], "class_weight must be a dict from class to weight, 'balanced' or None"),
            ("heavy", "class_weight must be a dict from class to weight, 'balanced' or None"),
        ],
    )
    def test_class_weights(self, weights, message):
        for train in ("fit", "partial_fit"):
            model = make(class_weight=weights, max_iter=1)
            with pytest.raises(InvalidInputError, match=message):
                getattr(model, train)(X, Y, **({"classes": [0, 1, 2]} if train == "partial_fit" else {}))
            assert not hasattr(model, "coefs_")
        # As in scikit-learn, a class may be absent, and one without a weight has 1.
        make(class_weight={0: 2, 1: 1, 2: 1, 3: 1}, max_iter=1).fit(X, Y)
        one, other = (make(class_weight=given, max_iter=1).fit(X, Y) for given in ({0: 2}, {0: 2, 1: 1, 2: 1}))
        assert same_weights(one, other)

    def test_class_weights_of_several_columns(self):
        several = np.c_[Y == 0, Y == 1].astype(int)
        for weights in ({0: 1, 1: 5}, [{0: 1, 1: -5}, {0: 1, 1: 1}]):
            with pytest.raises(InvalidInputError, match="class_weight"):
                make(class_weight=weights).fit(X, several)

    def test_targets_of_a_wrong_shape(self):
        with pytest.raises(InvalidInputError, match="MultiOutputClassifier"):
            make().fit(X, np.c_[Y, Y])
        with pytest.raises(InvalidInputError, match="beyond the range of float32"):
            make(nn.MLPRegressor, dtype="float32").fit(X, LENGTHS * 1e300)

    @quiet
    def test_resuming_with_other_settings(self):
        model = make(warm_start=True).fit(X, Y)
        for other in (BINARY, Y + 1, np.where(Y == 2, 3, Y)):
            with pytest.raises(InvalidInputError, match="has the same classes as in the previous call"):
                model.fit(X, other)
        with pytest.raises(ValueError, match="3 features, but MLPClassifier is expecting 4"):
            model.fit(X[:, :3], Y)
        with pytest.raises(InvalidInputError, match="training cannot continue"):
            model.set_params(hidden_layer_sizes=7).fit(X, Y)
        with pytest.raises(InvalidInputError, match="training cannot continue"):
            model.set_params(hidden_layer_sizes=6, activation="tanh").partial_fit(X, Y)
        model.fit(X, Y)
        regressor = make(nn.MLPRegressor).partial_fit(X, LENGTHS)
        with pytest.raises(InvalidInputError, match="training cannot continue"):
            regressor.partial_fit(X, np.c_[LENGTHS, LENGTHS])


class TestWhenToStop:
    def test_patience_is_counted_in_epochs(self):
        for patience in (1, 3):
            model = make(solver="sgd", tol=10, max_iter=50, n_iter_no_change=patience).fit(X, Y)
            # The first epoch counts as an improvement, and one more epoch than the patience must fail.
            assert model.n_iter_ == patience + 2

    def test_no_patience_ends_only_with_the_epochs(self):
        with pytest.warns(ConvergenceWarning, match="max_iter=30"):
            model = make(tol=1e9, max_iter=30, n_iter_no_change=np.inf).fit(X, Y)
        assert model.n_iter_ == len(model.loss_curve_) == 30
        assert model.loss_ == model.loss_curve_[-1]
        assert model.best_loss_ == min(model.loss_curve_)
        assert model.validation_scores_ is model.best_validation_score_ is None

    def test_an_adaptive_rate_is_lowered_until_it_is_too_small(self, capsys):
        model = make(
            solver="sgd", learning_rate="adaptive", learning_rate_init=0.1, tol=10, n_iter_no_change=1, max_iter=99,
            verbose=True,
        ).fit(X, Y)  # fmt: skip
        said = capsys.readouterr().out
        # 0.1 / 5 ** 8 is the first rate below 1e-6; each rate takes two failing epochs, the first one more.
        assert model.n_iter_ == 1 + 2 * 9
        assert said.count("Setting learning rate to") == 8
        assert "Setting learning rate to 0.020000" in said
        assert "Learning rate too small. Stopping." in said
        assert said.count("Iteration ") == model.n_iter_
        assert f"Iteration 1, loss = {model.loss_curve_[0]:.8f}" in said

    @both
    def test_early_stopping_keeps_the_best_epoch(self, estimator, capsys):
        model = make(estimator, early_stopping=True, max_iter=60, n_iter_no_change=4, tol=1e-3, learning_rate_init=0.1)
        model.fit(X, Y).set_params(verbose=True)
        scores = model.validation_scores_
        assert len(scores) == model.n_iter_ < 60
        assert model.best_validation_score_ == max(scores)
        assert model.best_loss_ is None
        best = scores.index(max(scores)) + 1
        assert best < model.n_iter_
        # Training up to the best epoch gives the same weights.
        with pytest.warns(ConvergenceWarning):
            short = make(**{**model.get_params(), "max_iter": best}, estimator=estimator).fit(X, Y)
        assert same_weights(model, short)
        assert f"Validation score: {max(scores):f}" in capsys.readouterr().out

    @both
    @quiet
    def test_a_warm_start_without_improvement_keeps_the_best(self, estimator):
        model = make(estimator, early_stopping=True, warm_start=True, max_iter=40).fit(X, Y)
        best, scores = model.best_validation_score_, len(model.validation_scores_)
        before = [coef.copy() for coef in model.coefs_]
        model.set_params(learning_rate_init=1e3, max_iter=2, solver="sgd").fit(X, Y)
        assert len(model.validation_scores_) == scores + model.n_iter_
        assert model.best_validation_score_ == best
        assert all(np.array_equal(a, b) for a, b in zip(before, model.coefs_, strict=True))

    def test_validation_data_need_two_rows_of_each_kind(self):
        with pytest.raises(InvalidInputError, match=r"validation set is too small: 1 of 5 rows"):
            make(early_stopping=True).fit(X[:5], Y[:5])
        with pytest.raises(InvalidInputError, match=r"validation set is too small: 0 of 150 rows"):
            make(early_stopping=True, validation_fraction=0.0).fit(X, Y)
        with pytest.raises(InvalidInputError, match=r"training set is too small: 150 of 150 rows"):
            make(early_stopping=True, validation_fraction=0.999).fit(X, Y)
        with pytest.raises(InvalidInputError, match=r"training set is too small: 5 of 6 rows"):
            make(early_stopping=True, validation_fraction=0.8).fit(X[:6], [0, 0, 0, 1, 1, 1])
        with pytest.raises(InvalidInputError, match="partial_fit does not support early_stopping=True"):
            make(early_stopping=True).partial_fit(X, Y, classes=[0, 1, 2])

    @quiet
    def test_ctrl_c_keeps_what_was_learned(self):
        class Pressed(np.random.RandomState):
            """Sends Ctrl-C after a number of orders have been drawn."""

            def __init__(self, epochs):
                super().__init__(0)
                self.left = epochs

            def shuffle(self, order):
                super().shuffle(order)
                self.left -= 1
                if not self.left:
                    signal.raise_signal(signal.SIGINT)

        model = make(random_state=Pressed(4))
        with pytest.warns(UserWarning, match="interrupted"):
            model.fit(X, Y)
        assert model.n_iter_ == 3
        assert same_weights(model, make(max_iter=3).fit(X, Y))
        # Before the first epoch there is nothing to keep.
        with pytest.raises(KeyboardInterrupt):
            make(random_state=Pressed(1)).fit(X, Y)

    def test_a_batch_larger_than_the_data_is_all_of_them(self):
        with pytest.warns(UserWarning, match="batch_size=151 is more than the 150 rows"):
            model = make(batch_size=151, max_iter=1, tol=0).partial_fit(X, Y, classes=[0, 1, 2])
        assert same_weights(model, make(batch_size=150).partial_fit(X, Y, classes=[0, 1, 2]))


class TestDivergence:
    @both
    def test_ends_in_one_error_and_changes_nothing(self, estimator):
        model = make(estimator, solver="sgd", learning_rate_init=1e200, activation="identity")
        with pytest.raises(TrainingDivergedError, match="Lower learning_rate_init, or scale") as raised:
            model.fit(X, Y)
        assert isinstance(raised.value, ValueError)
        assert not hasattr(model, "coefs_")

    @quiet
    @pytest.mark.parametrize("solver", ["adam", "sgd"])
    def test_the_fitted_state_is_kept(self, solver):
        model = make(nn.MLPRegressor, solver=solver).fit(X, LENGTHS)
        before, curve = model.predict(X), model.loss_curve_
        for _ in range(2):
            with pytest.raises(ValueError, match="diverged"):
                model.partial_fit(X * 1e200, LENGTHS)
            np.testing.assert_array_equal(model.predict(X), before)
            assert model.loss_curve_ == curve
        # The weights are unchanged, and the solver starts over, as in a new fit.
        anew = copy.deepcopy(model).set_params(warm_start=True, max_iter=1).fit(X, LENGTHS)
        assert same_weights(model.partial_fit(X, LENGTHS), anew)

    def test_with_early_stopping_the_best_epoch_is_kept(self):
        model = make(nn.MLPRegressor, solver="sgd", learning_rate_init=5, activation="identity", early_stopping=True)
        model.set_params(max_iter=500, n_iter_no_change=np.inf)
        with pytest.warns(ConvergenceWarning, match="diverged in epoch"):
            model.fit(X, LENGTHS)
        assert np.isnan(model.validation_scores_[-1])
        assert model.best_validation_score_ == np.nanmax(model.validation_scores_)
        assert np.isfinite(model.predict(X)).all()


class TestPartialFit:
    @both
    @quiet
    @pytest.mark.parametrize("solver", ["adam", "sgd"])
    def test_is_an_epoch_of_fit(self, estimator, solver):
        options = {"shuffle": False, "solver": solver, "tol": 0, "batch_size": 64, "dropout": 0.2}
        whole = make(estimator, max_iter=5, **options).fit(X, Y)
        parts = make(estimator, **options)
        classes = {"classes": [0, 1, 2]} if estimator is nn.MLPClassifier else {}
        for _ in range(5):
            parts.partial_fit(X, Y, **classes)
        assert same_weights(whole, parts)
        assert whole.loss_curve_ == parts.loss_curve_
        assert (parts.n_iter_, parts.t_) == (1, 750)

    def test_classes_that_come_later(self):
        model = make().partial_fit([[1.0], [2], [3]], ["a", "b", "c"], classes=["d", "a", "c", "b"])
        model.partial_fit([[4.0]], ["d"])
        assert list(model.classes_) == ["a", "b", "c", "d"]
        assert model.predict_proba([[1.0]]).shape == (1, 4)
        with pytest.raises(InvalidInputError, match=r"classes not in `self.classes_`"):
            model.partial_fit([[4.0]], ["e"])
        with pytest.raises(InvalidInputError, match="same classes as before"):
            model.partial_fit([[4.0]], ["d"], classes=["a", "b"])

    def test_the_first_call_names_the_classes(self):
        with pytest.raises(InvalidInputError, match="classes must be given in the first call"):
            make().partial_fit(X, Y)
        with pytest.raises(InvalidInputError, match=r"classes not in `self.classes_`"):
            make().partial_fit(X, Y, classes=[0, 1])


@quiet
def test_a_penalty_makes_weights_small():
    free, bound = (make(alpha=alpha, max_iter=60).fit(X, Y) for alpha in (0, 5))
    for one, other in zip(free.coefs_, bound.coefs_, strict=True):
        assert np.abs(one).sum() > np.abs(other).sum()


@quiet
def test_random_state_decides():
    assert same_weights(make().fit(X, Y), make().fit(X, Y))
    assert not same_weights(make().fit(X, Y), make(random_state=1).fit(X, Y))
    assert not same_weights(make(random_state=None).fit(X, Y), make(random_state=None).fit(X, Y))
    assert not same_weights(make(batch_size=9).fit(X, Y), make(batch_size=9, shuffle=False).fit(X, Y))


@quiet
def test_a_batch_without_weight_is_a_step_without_a_gradient():
    data = make_regression(40, 3, random_state=0)
    weights = np.r_[np.ones(20), np.zeros(20)]
    plain = {"estimator": nn.MLPRegressor, "solver": "sgd", "momentum": 0, "shuffle": False, "learning_rate_init": 1e-4}
    with_rest = make(**plain, batch_size=20, alpha=2.0).fit(*data, weights)
    without = make(**plain, batch_size=20, alpha=2.0).fit(data[0][:20], data[1][:20])
    for one, other in zip(with_rest.coefs_, without.coefs_, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)


@quiet
def test_class_weights_are_weights_of_rows():
    x, y = make_classification(80, weights=[0.8], random_state=1)
    for class_weight, weights in (({0: 1, 1: 5}, [1, 5]), ("balanced", 80 / 2 / np.bincount(y))):
        mine = make(class_weight=class_weight).fit(x, y)
        assert same_weights(mine, make().fit(x, y, np.asarray(weights)[y]))
        extra = np.linspace(1, 2, 80)
        mine = make(class_weight=class_weight).fit(x, y, extra)
        assert same_weights(mine, make().fit(x, y, np.asarray(weights)[y] * extra))
    several = np.c_[y, 1 - y]
    assert not same_weights(make(class_weight="balanced").fit(x, several), make().fit(x, several))
    with pytest.raises(InvalidInputError, match="needs all rows at once"):
        make(class_weight="balanced").partial_fit(x, y, classes=[0, 1])
    # A batch may lack a class.
    make(class_weight={0: 1, 1: 5}).partial_fit(x[y == 0], y[y == 0], classes=[0, 1])


def test_a_column_of_targets_is_a_vector():
    with pytest.warns(DataConversionWarning):
        one = make(nn.MLPRegressor).partial_fit(X, LENGTHS[:, None])
    assert same_weights(one, make(nn.MLPRegressor).partial_fit(X, LENGTHS))
    assert one.predict(X).shape == (150,)


@quiet
@pytest.mark.parametrize(
    "change",
    [{"class_weight": {"none": 1}}, {"hidden_layer_sizes": 0}, {"solver": "sgd", "learning_rate_init": 1e300}],
)
def test_a_fit_that_fails_leaves_a_fitted_estimator_usable(change):
    """Also if the rows had other features: scikit-learn's checks set their number and names first."""
    frame = pytest.importorskip("pandas").DataFrame(X, columns=[f"x{i}" for i in range(X.shape[1])])
    model = make(max_iter=2).fit(frame, Y)
    expected = model.predict_proba(frame)
    model.set_params(warm_start=False, **change)
    with pytest.raises((InvalidInputError, TrainingDivergedError)):
        model.fit(1e150 * frame.iloc[:, :2], Y)
    assert model.n_features_in_ == X.shape[1]
    assert list(model.feature_names_in_) == list(frame)
    np.testing.assert_array_equal(model.predict_proba(frame), expected)


@pytest.mark.parametrize("named", [False, True])
def test_a_first_fit_that_fails_leaves_nothing(named):
    x = pytest.importorskip("pandas").DataFrame(X, columns=[f"x{i}" for i in range(X.shape[1])]) if named else X
    model = make()
    with pytest.raises(InvalidInputError):
        model.fit(x, Y, sample_weight=-np.ones(len(Y)))
    assert not [name for name in vars(model) if name.endswith("_")]


@quiet
@both
def test_a_score_refuses_masked_targets(estimator):
    """R^2 would be computed from what is behind the mask."""
    y = Y if estimator is nn.MLPClassifier else LENGTHS
    model = make(estimator).fit(X, y)
    with pytest.raises(InvalidInputError, match="y has 1 masked value of 150"):
        model.score(X, np.ma.masked_array(y, np.arange(len(y)) == 3))
    assert model.score(X, np.ma.masked_array(y)) == model.score(X, y)
