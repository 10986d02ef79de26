"""scikit-learn's callbacks follow the epochs of the estimators."""

from __future__ import annotations

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.errors import InvalidInputError
from tests.interop.estimators import LENGTHS, X, Y, both, make, same_weights

callback = pytest.importorskip("sklearn.callback", reason="callbacks need scikit-learn 1.9")

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


class Recorder:
    """Keeps what it is told, and may stop a training."""

    def __init__(self, stop_after: int | None = None, fail_after: int | None = None) -> None:
        self.stop_after, self.fail_after = stop_after, fail_after
        self.calls: list[tuple[str, str, int]] = []
        self.predictions: list[np.ndarray] = []

    def setup(self, estimator, context):
        self.calls.append(("setup", context.task_name, context.max_subtasks))

    def teardown(self, estimator, context):
        self.calls.append(("teardown", context.task_name, context.max_subtasks))

    def on_fit_task_begin(self, estimator, context, *, X=None):
        assert X is not None
        self.calls.append(("begin", context.task_name, context.task_id))

    def on_fit_task_end(self, estimator, context, *, X=None, y=None, metadata=None, fitted_estimator=None):
        self.calls.append(("end", context.task_name, context.task_id))
        if context.task_name != "epoch":
            return False
        assert "coefs_" not in vars(estimator)
        self.metadata = metadata
        self.predictions.append(fitted_estimator.predict(X))
        self.last = fitted_estimator
        if context.task_id == self.fail_after:
            raise OSError("the disk is full")
        return context.task_id == self.stop_after


def epochs(recorder: Recorder) -> list[int]:
    """The numbers of the epochs that ended."""
    return [number for what, name, number in recorder.calls if (what, name) == ("end", "epoch")]


@both
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_each_epoch_begins_and_ends_with_a_fitted_estimator(estimator, solver):
    y = Y if estimator is nn.MLPClassifier else LENGTHS
    recorder = Recorder()
    model = make(estimator, solver=solver, max_iter=3).set_callbacks(recorder).fit(X, y, np.ones(len(X)))
    of_epochs = [(what, "epoch", number) for number in range(3) for what in ("begin", "end")]
    root = ("begin", "fit", 0), ("end", "fit", 0)
    assert recorder.calls == [("setup", "fit", 3), root[0], *of_epochs, root[1], ("teardown", "fit", 3)]
    np.testing.assert_array_equal(recorder.predictions[-1], model.predict(X))
    assert recorder.last.loss_curve_ == model.loss_curve_
    np.testing.assert_array_equal(recorder.metadata["sample_weight"], np.ones(len(X)))
    first = make(estimator, solver=solver, max_iter=1).fit(X, y)
    np.testing.assert_allclose(recorder.predictions[0], first.predict(X), rtol=1e-10)
    # Callbacks change nothing.
    assert same_weights(model, make(estimator, solver=solver, max_iter=3).fit(X, y))


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_a_callback_stops_the_training(solver):
    recorder = Recorder(stop_after=1)
    model = make(solver=solver, max_iter=9).set_callbacks(recorder).fit(X, Y)
    assert epochs(recorder) == [0, 1]
    assert model.n_iter_ == len(model.loss_curve_) == 2
    np.testing.assert_array_equal(recorder.predictions[-1], model.predict(X))
    assert recorder.calls[-2:] == [("end", "fit", 0), ("teardown", "fit", 9)]


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_a_failing_callback_is_torn_down_and_nothing_changes(solver):
    recorder = Recorder(fail_after=1)
    model = make(solver=solver).set_callbacks(recorder)
    with pytest.raises(OSError, match="the disk is full"):
        model.fit(X, Y)
    assert recorder.calls[-1][0] == "teardown"
    assert {name for name in vars(model) if name.endswith("_")} == set()
    assert same_weights(model.set_callbacks().fit(X, Y), make(solver=solver).fit(X, Y))


def test_with_early_stopping_the_fitted_estimator_has_the_best_weights():
    recorder = Recorder()
    model = make(early_stopping=True, max_iter=40, n_iter_no_change=3, learning_rate_init=0.1).set_callbacks(recorder)
    plain = make(early_stopping=True, max_iter=40, n_iter_no_change=3, learning_rate_init=0.1).fit(X, Y)
    assert same_weights(model.fit(X, Y), plain)
    assert 4 < model.n_iter_ < 40
    np.testing.assert_array_equal(recorder.predictions[-1], model.predict(X))


def test_members_are_tasks_of_their_own():
    recorder = Recorder()
    make(n_members=2, max_iter=2).set_callbacks(recorder).fit(X, Y)
    ended = [(name, number) for what, name, number in recorder.calls if what == "end"]
    assert ended.count(("epoch", 1)) == 2
    assert ended[-3:] == [("member", 0), ("member", 1), ("fit", 0)]
    assert len(recorder.predictions) == 4


def test_scikit_learns_monitor_of_scores_and_its_searches():
    monitor = callback.ScoringMonitor(scoring="accuracy")
    model = make(max_iter=4).set_callbacks(monitor).fit(X, Y)
    scores = [row["accuracy"] for row in monitor.get_logs().data if row["task_name"] == "epoch"]
    assert len(scores) == 4
    assert scores[-1] == pytest.approx(model.score(X, Y))
    members = make(max_iter=2, n_members=2).set_callbacks(monitor).fit(X, Y)
    assert members.n_iter_ == 2


def test_partial_fit_calls_none_and_searches_refuse_them():
    recorder = Recorder()
    make().set_callbacks(recorder).partial_fit(X, Y, classes=[0, 1, 2])
    assert recorder.calls == []
    with pytest.raises(InvalidInputError, match="callbacks are not called"):
        nn.MLPSearchCV(make().set_callbacks(recorder), {"alpha": [1, 2]}).fit(X, Y)
