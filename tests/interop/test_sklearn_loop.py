"""The loop of the estimators, which can pause and be one of many, has the bits of a plain one."""

from __future__ import annotations

import math
import signal

import numpy as np
import pytest
import scipy.sparse

import nnbackend as nn
from nnbackend.errors import InvalidInputError
from nnbackend.interop.sklearn import fitting
from nnbackend.interop.sklearn.base import begin_fit, check_data, finish_fit
from nnbackend.interop.sklearn.engine import outputs_of
from nnbackend.interop.sklearn.fitting import Fitting, recordings_for
from nnbackend.interop.sklearn.settings import Settings
from nnbackend.step.replay import Watch
from nnbackend.training.fit import run_alone
from nnbackend.training.interrupt import Interrupt
from tests.interop import estimators
from tests.interop.estimators import LENGTHS, X, Y, both, same_weights

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

SPARSE = scipy.sparse.csr_matrix(np.where(np.abs(X) > 0.5, X, 0))
WEIGHTS = np.linspace(0.5, 2, len(X))


def make(estimator=nn.MLPClassifier, **parameters):
    """A small estimator; on Numba in float32, whose kernels other tests need, too."""
    if parameters.get("backend") == "numba":
        parameters["dtype"] = "float32"
    return estimators.make(estimator, **parameters)


def plain(fittings):
    """The loop of a single network, without generators, pauses or recorded steps of others."""
    (one,) = fittings
    engine, network, settings, progress = one.engine, one.network, one._settings, one.progress
    rows, validation, once = one._rows, one._validation, one._once
    keep = (settings.batch_size or 200) if once else 0
    size = min(settings.batch_size or 200, len(rows))
    run = engine.run_on(network, rows, settings.alpha, size, keep)
    best = network.snapshot() if settings.early_stopping else None
    order = np.arange(len(rows))
    with network.in_training():
        for _ in range(1 if once else settings.max_iter):
            if settings.shuffle:
                places = np.arange(len(order))
                one._generator.shuffle(places)
                order = order[places]
            loss = run.epoch(order, Watch())
            progress.add(loss, len(rows))
            assert math.isfinite(loss)
            if validation is not None:
                progress.add_validation(*validation.measure(outputs_of(network, validation.rows.x)))
            if best is None:
                progress.judge_loss(settings.tol)
            elif progress.judge_score(settings.tol):
                best = network.snapshot(into=best)
            engine.solver.end_epoch(network, progress.t)
            if progress.failures > settings.n_iter_no_change:
                if not engine.solver.slow_down(network):
                    break
                progress.failures = 0
    one._best, one.ended = best, True


CONFIGURATIONS = [
    {},
    {"early_stopping": True, "max_iter": 30, "n_iter_no_change": 3},
    {"solver": "sgd", "learning_rate": "adaptive", "tol": 1e-2, "n_iter_no_change": 2, "max_iter": 40},
    {"solver": "sgd", "learning_rate": "invscaling", "batch_size": 17},
    {"dropout": 0.3, "hidden_layer_sizes": (9, 7), "dtype": "float32"},
    {"shuffle": False, "alpha": 0.5},
]


def train(model, x, y, weights):
    """Fit and, with `warm_start`, fit again; then two epochs more."""
    model.fit(x, y, weights)
    first = list(model.coefs_), list(model.loss_curve_)
    if model.warm_start:
        model.fit(x, y, weights)
    if not model.early_stopping:
        model.partial_fit(x, y, weights).partial_fit(x[:60], y[:60])
    return first


@both
@pytest.mark.parametrize("name", ["numpy", "numba"])
@pytest.mark.parametrize("options", CONFIGURATIONS, ids=str)
def test_a_lone_fit_has_the_bits_of_a_plain_loop(estimator, name, options, monkeypatch):
    y = Y if estimator is nn.MLPClassifier else LENGTHS
    for x, weights, warm in ((X, None, True), (X, WEIGHTS, False), (SPARSE, None, False)):
        one, other = (make(estimator, backend=name, warm_start=warm, **options) for _ in range(2))
        first = train(one, x, y, weights)
        with monkeypatch.context() as patch:
            patch.setattr("nnbackend.interop.sklearn.base.train", plain)
            expected = train(other, x, y, weights)
        for mine, theirs in zip(first[0], expected[0], strict=True):
            np.testing.assert_array_equal(mine, theirs)
        assert first[1] == expected[1]
        assert same_weights(one, other)
        assert one.loss_curve_ == other.loss_curve_
        assert one.validation_scores_ == other.validation_scores_
        assert one.n_iter_ == other.n_iter_


def begun(model, x, y, places=None):
    settings = Settings.of(model)
    given = check_data(model, x, y, settings, reset=True)
    if places is not None:
        given.places, given.y = places, given.y[places]
    return begin_fit(model, given, settings)


def advance(training, recordings=None, last=math.inf):
    for _, each, _ in training:
        run_alone(each.epochs(Interrupt(), recordings, last))


@pytest.mark.parametrize("name", ["numpy", "numba"])
@pytest.mark.parametrize("options", [*CONFIGURATIONS, {"n_members": 2, "early_stopping": True}], ids=str)
@pytest.mark.parametrize("rows", [X, SPARSE], ids=["dense", "sparse"])
def test_a_fit_that_pauses_has_the_same_bits(name, options, rows):
    """After every pause, the attributes are those of a shorter fit."""
    model = make(backend=name, **options)
    training = begun(model, rows, Y)
    recordings = recordings_for(training[0][1].network.backend)
    for last in (1, 4, model.max_iter):
        # While this one pauses, another network uses the recorded step.
        advance(training, recordings, last)
        advance(begun(make(backend=name, **options), rows, Y), recordings, 1)
        finish_fit(model, training)
        # Predictions copy the best weights to the network.
        scores = model.predict_proba(rows)
        short = make(backend=name, **{**options, "max_iter": last}).fit(rows, Y)
        assert same_weights(model, short)
        assert model.loss_curve_ == short.loss_curve_
        np.testing.assert_array_equal(scores, short.predict_proba(rows))
    assert all(each.ended for _, each, _ in training)


@both
@pytest.mark.parametrize("name", ["numpy", "numba"])
@pytest.mark.parametrize("options", [{}, {"early_stopping": True}, {"class_weight": "balanced"}], ids=str)
def test_numbered_rows_are_a_table_of_their_own(estimator, name, options):
    if estimator is nn.MLPRegressor and "class_weight" in options:
        pytest.skip("a regressor has no classes")
    y = Y if estimator is nn.MLPClassifier else LENGTHS
    places = np.random.default_rng(3).permutation(len(X))[:101]
    for rows in (X, np.asfortranarray(X), SPARSE):
        model = make(estimator, backend=name, **options)
        training = begun(model, rows, y, places)
        advance(training)
        finish_fit(model, training)
        assert same_weights(model, make(estimator, backend=name, **options).fit(rows[places], y[places]))


class TestMembers:
    @both
    @pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["", "weights"])
    @pytest.mark.parametrize("options", [{}, {"early_stopping": True}, {"dropout": 0.2, "warm_start": True}], ids=str)
    def test_each_has_the_bits_of_a_lone_fit(self, estimator, backend, options, weights):
        y = Y if estimator is nn.MLPClassifier else LENGTHS
        options = {**options, "backend": backend, "max_iter": 3, "dtype": "float32"}
        model = make(estimator, n_members=7, **options).fit(X, y, weights)
        lone = [make(estimator, **{**options, "random_state": each.random_state}) for each in model.estimators_]
        assert len({each.random_state for each in lone}) == 7
        for each in lone:
            each.fit(X, y, weights)
        for _ in range(2):
            for one, other in zip(model.estimators_, lone, strict=True):
                assert same_weights(one, other)
                assert one.loss_curve_ == other.loss_curve_
                assert one.n_features_in_ == 4
            if model.early_stopping:
                break
            for each in (model, *lone):
                each.fit(X, y, weights) if model.warm_start else each.partial_fit(X, y, weights)

    def test_probabilities_are_averaged(self):
        for y in (Y, Y == 1, np.c_[Y == 0, Y == 1].astype(int)):
            model = make(n_members=3).fit(X, y)
            mean = np.mean([each.predict_proba(X) for each in model.estimators_], axis=0)
            np.testing.assert_allclose(model.predict_proba(X), mean, rtol=1e-12)
            chosen = mean > 0.5 if np.ndim(y) == 2 else model.classes_[mean.argmax(axis=1)]
            np.testing.assert_array_equal(model.predict(X), chosen)

    def test_outputs_are_averaged_and_their_spread_is_known(self):
        for y in (LENGTHS, np.c_[LENGTHS, -LENGTHS]):
            model = make(nn.MLPRegressor, n_members=4).fit(X, y)
            each = [member.predict(X) for member in model.estimators_]
            mean, spread = model.predict(X, return_std=True)
            assert mean.shape == spread.shape == y.shape
            np.testing.assert_allclose(mean, np.mean(each, axis=0), rtol=1e-12)
            np.testing.assert_allclose(spread, np.std(each, axis=0), rtol=1e-12)
            np.testing.assert_array_equal(model.predict(X), mean)

    def test_a_spread_needs_several(self):
        with pytest.raises(InvalidInputError, match="return_std=True needs several members"):
            make(nn.MLPRegressor).fit(X, LENGTHS).predict(X, return_std=True)

    def test_attributes(self):
        model = make(n_members=3, early_stopping=True, n_iter_no_change=1, max_iter=30, tol=1e-2).fit(X, Y)
        members = model.estimators_
        assert [array.shape for array in model.coefs_] == [(3, 4, 6), (3, 6, 3)]
        assert [array.shape for array in model.intercepts_] == [(3, 6), (3, 3)]
        for place, member in enumerate(members):
            np.testing.assert_array_equal(model.coefs_[0][place], member.coefs_[0])
        with pytest.raises(ValueError, match="read-only"):
            model.coefs_[0][:] = 0
        lengths = [each.n_iter_ for each in members]
        assert len(set(lengths)) > 1
        assert model.n_iter_ == len(model.loss_curve_) == len(model.validation_scores_) == max(lengths)
        assert model.loss_ == np.mean([each.loss_ for each in members])
        assert model.loss_curve_[0] == np.mean([each.loss_curve_[0] for each in members])
        longest = members[int(np.argmax(lengths))]
        if lengths.count(max(lengths)) == 1:
            assert model.loss_curve_[-1] == longest.loss_curve_[-1]
        assert model.best_loss_ is None
        assert model.best_validation_score_ == np.mean([each.best_validation_score_ for each in members])

    def test_one_member_is_the_estimator_itself(self):
        model = make(n_members=3).fit(X, Y)
        model.set_params(n_members=1).fit(X, Y)
        assert not hasattr(model, "estimators_")
        assert same_weights(model, make().fit(X, Y))
        model.set_params(n_members=2).fit(X, Y)
        assert len(model.estimators_) == 2

    @pytest.mark.parametrize("counts", [(1, 3), (3, 1), (3, 2)])
    def test_another_number_cannot_continue(self, counts):
        model = make(n_members=counts[0], warm_start=True).fit(X, Y)
        before = model.predict_proba(X)
        with pytest.raises(InvalidInputError, match=f"n_members={counts[1]}, because n_members={counts[0]} was fitted"):
            model.set_params(n_members=counts[1]).fit(X, Y)
        np.testing.assert_array_equal(model.predict_proba(X), before)

    def test_how_many(self):
        for wrong in (0, 2.5, "ten"):
            with pytest.raises(InvalidInputError, match="n_members must be a whole number of at least 1"):
                make(n_members=wrong).fit(X, Y)

    def test_if_one_diverges_none_is_changed(self, monkeypatch):
        model = make(n_members=3).fit(X, Y)
        before, epoch = model.predict_proba(X), Fitting._ends
        third = model.estimators_[2]._engine.solver

        def broken(self, most):
            if self.engine.solver is third:
                self._diverged(None)
            return epoch(self, most)

        with monkeypatch.context() as patch:
            patch.setattr(Fitting, "_ends", broken)
            with pytest.raises(fitting.DivergedFitError):
                model.partial_fit(X, Y)
        np.testing.assert_array_equal(model.predict_proba(X), before)
        # The optimisers of the others know nothing of the epoch, either.
        assert all(each._engine.solver.steps == 0 for each in model.estimators_)
        model.partial_fit(X, Y)
        assert not np.array_equal(model.predict_proba(X), before)

    def interrupted(self, monkeypatch, model, member):
        """Fit, with Ctrl-C after the second epoch of a member."""
        ends, seen = Fitting._ends, []

        def noted(self, most):
            if self not in seen:
                seen.append(self)
            if seen.index(self) == member and self.progress.n_iter == 2:
                signal.raise_signal(signal.SIGINT)
            return ends(self, most)

        with monkeypatch.context() as patch:
            patch.setattr(Fitting, "_ends", noted)
            model.fit(X, Y)

    def test_ctrl_c_before_the_last_has_begun(self, monkeypatch):
        model = make(n_members=3)
        with pytest.raises(KeyboardInterrupt):
            self.interrupted(monkeypatch, model, member=1)
        assert not hasattr(model, "estimators_")

    def test_ctrl_c_when_all_have_learned_something(self, monkeypatch):
        model = make(n_members=3)
        with pytest.warns(UserWarning, match="Training interrupted by user"):
            self.interrupted(monkeypatch, model, member=2)
        assert [each.n_iter_ for each in model.estimators_] == [8, 8, 2]
        assert same_weights(
            model.estimators_[2], make(max_iter=2, random_state=model.estimators_[2].random_state).fit(X, Y)
        )

    def test_pickles_continue(self):
        import pickle

        model = make(n_members=2).fit(X, Y)
        copy = pickle.loads(pickle.dumps(model))
        for each in (model, copy):
            each.partial_fit(X, Y)
        np.testing.assert_array_equal(model.predict_proba(X), copy.predict_proba(X))
