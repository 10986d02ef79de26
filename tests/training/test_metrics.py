"""Metrics of `fit` and `evaluate`: their values beside scikit-learn's, weights, monitoring, ranks of data, errors."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from functools import partial

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.errors import InvalidInputError, UnknownNameError
from nnbackend.metrics import METRICS, Metric
from tests.helpers import same_weights

RANDOM = np.random.default_rng(5)
ROWS, FEATURES, CLASSES = 40, 6, 4
X = RANDOM.normal(size=(ROWS, FEATURES))
LABELS = np.append(RANDOM.integers(0, CLASSES, ROWS - CLASSES), range(CLASSES))
SEVERAL = RANDOM.integers(0, 2, (ROWS, CLASSES))
NUMBERS = RANDOM.normal(size=(ROWS, CLASSES))
WEIGHTS = RANDOM.uniform(0.2, 3, ROWS)

TASKS = {
    "classes": ("softmax_cross_entropy", LABELS),
    "two classes": ("softmax_cross_entropy", LABELS % 2),
    "one output": ("sigmoid_cross_entropy", LABELS % 2),
    "labels": ("sigmoid_cross_entropy", SEVERAL),
    "numbers": ("mse", NUMBERS),
    "one number": ("mae", NUMBERS[:, 0]),
}
OUTPUTS = {"two classes": 2, "one output": 1, "one number": 1}
NAMES = {
    "classes": [name for name, formula in METRICS.items() if "classes" in formula.tasks],
    "labels": [name for name, formula in METRICS.items() if "labels" in formula.tasks],
    "numbers": [name for name, formula in METRICS.items() if "numbers" in formula.tasks],
}


def names_of(task):
    kind = {"labels": "labels", "numbers": "numbers", "one number": "numbers"}.get(task, "classes")
    return NAMES[kind] + (["top_2_accuracy"] if task == "classes" else [])


def network(task, backend="numpy", dtype="float32"):
    outputs = OUTPUTS.get(task, CLASSES)
    layers = [nn.Dense(8, activation="tanh"), nn.Dense(outputs)]
    return nn.Network(layers, FEATURES, backend=backend, dtype=dtype, seed=1)


def expected(task, net, rows=slice(None), weights=None):
    """The metrics as scikit-learn computes them from the predictions."""
    sk = pytest.importorskip("sklearn.metrics")
    y = TASKS[task][1]
    y, p = y[rows], net.predict(X[rows]).astype(np.float64)
    w = {} if weights is None else {"sample_weight": weights[rows]}
    if task in ("numbers", "one number"):
        return {
            "r2": sk.r2_score(y, p, **w),
            "mae": sk.mean_absolute_error(y, p, **w),
            "mse": sk.mean_squared_error(y, p, **w),
            "rmse": sk.root_mean_squared_error(y, p, **w),
        }
    c = net.predict_classes(X[rows])
    plain = "binary" if task in ("two classes", "one output") else "macro"
    functions = {"precision": sk.precision_score, "recall": sk.recall_score, "f1": sk.f1_score}
    found = {}
    for name, function in functions.items():
        for suffix, average in (("", plain), ("_macro", "macro"), ("_weighted", "weighted")):
            found[name + suffix] = function(y, c, average=average, zero_division=0, **w)
    scores = {"two classes": p[:, -1], "one output": p[:, 0]}.get(task, p)
    hot = np.eye(CLASSES)[y] if task == "classes" else y
    # One class against the rest; scikit-learn has it for one-hot targets.
    found["roc_auc"] = sk.roc_auc_score(hot, scores, average="macro", **w)
    found["average_precision"] = sk.average_precision_score(hot, scores, average="macro", **w)
    if task != "labels":
        found["accuracy"] = sk.accuracy_score(y, c)
        found["balanced_accuracy"] = sk.balanced_accuracy_score(y, c, **w)
    if task == "classes":
        found["top_2_accuracy"] = sk.top_k_accuracy_score(y, p, k=2, **w)
    if task == "labels":
        found["binary_accuracy"] = (y == c).mean()
    return found


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("task", TASKS)
def test_values_are_scikit_learn_s(task, weighted):
    loss, y = TASKS[task]
    net, weights = network(task), WEIGHTS if weighted else None
    net.fit(X, y, epochs=3, loss=loss, verbose=False)
    found = net.evaluate(X, y, metrics=names_of(task), sample_weight=weights)
    wanted = expected(task, net, weights=weights)
    assert set(found) == {"loss", *wanted}
    for name, value in wanted.items():
        assert found[name] == pytest.approx(value, rel=1e-5, abs=1e-7), name


@pytest.mark.parametrize("power", [-1050, -600, 600, 1022])
@pytest.mark.parametrize("task", TASKS)
def test_the_magnitude_of_all_weights_together_changes_nothing(task, power):
    loss, y = TASKS[task]
    net, names, weights = network(task), names_of(task), 1.0 + np.arange(ROWS) % 3
    found = net.evaluate(X, y, loss=loss, metrics=names, sample_weight=np.ldexp(weights, power))
    # Powers of two cause no rounding.
    assert found == net.evaluate(X, y, loss=loss, metrics=names, sample_weight=weights)


@pytest.mark.parametrize("task", TASKS)
def test_fit_computes_them_after_every_epoch(backend, task):
    loss, y = TASKS[task]
    names, net = names_of(task), network(task, backend)
    train, val = slice(0, 25), slice(25, None)
    history = net.fit(
        X[train], y[train], epochs=2, batch_size=10, loss=loss, metrics=names, train_metrics=True,
        validation_data=(X[val], y[val], WEIGHTS[val]), sample_weight=WEIGHTS[train], verbose=False,
    )  # fmt: skip
    for rows, prefix in ((val, "val_"), (train, "")):
        wanted = net.evaluate(X[rows], y[rows], metrics=names, sample_weight=WEIGHTS[rows])
        for name in names:
            if prefix or name not in ("accuracy", "binary_accuracy"):
                assert history[f"{prefix}{name}"][-1] == pytest.approx(wanted[name], rel=1e-6), name
    assert len(history["val_" + names[-1]]) == 2


def test_metrics_change_no_weight(backend):
    loss, y = TASKS["classes"]
    plain, watched = network("classes", backend), network("classes", backend)
    options = {"epochs": 2, "batch_size": 16, "loss": loss, "validation_data": (X, y), "verbose": False}
    first = plain.fit(X, y, **options)
    second = watched.fit(X, y, metrics=["f1"], train_metrics=True, **options)
    assert same_weights(plain, watched)
    assert first["val_loss"] == second["val_loss"]


def test_functions_of_scikit_learn():
    sk = pytest.importorskip("sklearn.metrics")
    loss, y = TASKS["classes"]
    net = network("classes")
    metrics = [
        sk.matthews_corrcoef,
        Metric(partial(sk.f1_score, average="micro"), "f1_micro"),
        Metric(partial(sk.roc_auc_score, multi_class="ovo"), "ovo_auc", needs="predictions", weighted=False),
    ]
    history = net.fit(X, y, epochs=2, loss=loss, metrics=metrics, validation_data=(X, y, WEIGHTS), verbose=False)
    classes, weights = net.predict_classes(X), WEIGHTS
    assert history["val_matthews_corrcoef"][-1] == sk.matthews_corrcoef(y, classes, sample_weight=weights)
    assert history["val_f1_micro"][-1] == sk.f1_score(y, classes, average="micro", sample_weight=weights)
    probabilities = net.predict(X)
    assert history["val_ovo_auc"][-1] == pytest.approx(sk.roc_auc_score(y, probabilities, multi_class="ovo"))


def test_what_functions_receive():
    received = {}

    def keep(y_true, y_pred):
        received["shapes"] = y_true.shape, y_pred.shape
        received["kinds"] = y_true.dtype.kind, y_pred.dtype.kind
        return 1.0

    for task, needs, shapes, kinds in (
        ("classes", None, ((ROWS,), (ROWS,)), ("i", "i")),
        ("classes", "predictions", ((ROWS,), (ROWS, CLASSES)), ("i", "f")),
        ("one output", "predictions", ((ROWS,), (ROWS,)), ("i", "f")),
        ("labels", None, ((ROWS, CLASSES), (ROWS, CLASSES)), ("i", "i")),
        ("numbers", None, ((ROWS, CLASSES), (ROWS, CLASSES)), ("f", "f")),
        ("one number", None, ((ROWS,), (ROWS,)), ("f", "f")),
    ):
        loss, y = TASKS[task]
        network(task).evaluate(X, y, loss=loss, metrics=[Metric(keep, needs=needs)])
        assert (received["shapes"], received["kinds"]) == (shapes, kinds), task


def test_they_are_monitored_and_shown(tmp_path):
    loss, y = TASKS["classes"]
    shown = io.StringIO()
    # It gets worse with every epoch.
    worse = Metric(lambda t, p: -len(history_of), "my_score")
    history_of: list[int] = []

    class Count(nn.Callback):
        def on_epoch_begin(self, network, epoch):
            history_of.append(epoch)

    with redirect_stdout(shown):
        net = network("classes")
        history = net.fit(
            X, y, epochs=9, loss=loss, validation_data=(X, y), metrics=["f1_macro", worse], verbose=True,
            callbacks=[Count(), nn.EarlyStopping("val_my_score", patience=2), nn.CSVLogger(tmp_path / "log.csv")],
            optimizer=nn.Adam(nn.ReduceOnPlateau(1e-3, patience=1, monitor="val_my_score")),
        )  # fmt: skip
    assert history["val_my_score"] == [-1, -2, -3]
    assert history["learning_rate"][-1] < history["learning_rate"][0]
    assert "val_f1_macro" in shown.getvalue()
    assert "val_my_score" in (tmp_path / "log.csv").read_text()
    with pytest.raises(InvalidInputError, match="did you mean 'val_f1_macro'"):
        net.fit(X, y, validation_data=(X, y), metrics=["f1_macro"], callbacks=[nn.EarlyStopping(monitor="val_f1_macr")])


def test_a_resumed_run_has_them_for_all_epochs(tmp_path):
    loss, y = TASKS["classes"]
    options = {"loss": loss, "metrics": ["f1", "roc_auc"], "validation_data": (X, y), "verbose": False}
    whole = network("classes").fit(X, y, epochs=4, **options)
    for epochs in (2, 4):
        checkpoint = nn.Checkpoint(tmp_path)
        resumed = network("classes").fit(X, y, epochs=epochs, callbacks=[checkpoint], resume=True, **options)
    assert resumed["val_f1"] == whole["val_f1"]
    assert resumed["val_roc_auc"] == whole["val_roc_auc"]


def test_data_that_are_streamed():
    loss, y = TASKS["classes"]
    options = {"epochs": 2, "batch_size": 7, "loss": loss, "metrics": ["f1"], "train_metrics": True, "verbose": False}
    one = network("classes").fit(X, y, validation_data=(X, y), **options)
    other = network("classes").fit(X, y, validation_data=(X, y), stream=True, **options)
    assert one["f1"] == other["f1"] == one["val_f1"]


def test_many_networks():
    loss, y = TASKS["classes"]
    nets = [network("classes", "numba"), network("classes", "numba")]
    options = {"epochs": 2, "loss": loss, "metrics": ["f1", lambda t, p: 3], "verbose": False}
    rows = np.arange(20)
    histories = nn.fit_many(nets, X, y, rows=rows, validation_rows=rows + 20, **options)
    alone = network("classes", "numba").fit(X[:20], y[:20], validation_data=(X[20:], y[20:]), **options)
    assert all(history["val_f1"] == alone["val_f1"] for history in histories)
    assert alone["val_<lambda>"] == [3, 3]


def test_an_error_in_a_function_comes_out():
    def broken(y_true, y_pred):
        raise ZeroDivisionError("mine")

    loss, y = TASKS["classes"]
    with pytest.raises(ZeroDivisionError, match="mine") as caught:
        network("classes").fit(X, y, loss=loss, metrics=[broken], validation_data=(X, y), verbose=False)
    assert caught.value.__notes__ == ["in the metric broken"]


def log_loss(y_true, y_pred):
    """scikit-learn's takes probabilities, although its arguments do not say so."""
    return 0.0


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("classes", {"metrics": "f1"}, r"metrics must be a list of names and functions"),
        ("classes", {"metrics": ["f2"]}, "unknown metric 'f2'"),
        ("classes", {"metrics": [3]}, "a metric must be a name or a function"),
        ("classes", {"metrics": ["r2"]}, "the metric 'r2' is for numbers, but this network is trained on classes"),
        ("numbers", {"metrics": ["f1"]}, "but this network is trained on numbers; give another, such as 'r2', 'mae'"),
        ("labels", {"metrics": ["balanced_accuracy"]}, "this network is trained on several labels for each row"),
        ("classes", {"metrics": [lambda y_true, y_score: 1]}, "takes predictions such as probabilities"),
        ("labels", {"metrics": [log_loss]}, r"give nn.metrics.Metric\(log_loss, needs='predictions'\)"),
        ("classes", {"metrics": ["top_4_accuracy"]}, "of 4 classes is always 1"),
        ("classes", {"metrics": ["f1", "f1_score"]}, "two metrics are called 'f1'"),
        ("classes", {"metrics": [lambda t, p: "good"]}, "the metric <lambda> must return a number, received 'good'"),
        ("classes", {"metrics": ["f1"], "validation_data": None}, "metrics are computed on validation data: give"),
        ("classes", {"train_metrics": True}, "train_metrics=True needs metrics"),
        ("classes", {"metrics": [max], "validation_data": (X, LABELS, WEIGHTS)}, "max has no argument sample_weight"),
    ],
)  # fmt: skip
def test_errors(task, options, message):
    loss, y = TASKS[task]
    net = network(task)
    with pytest.raises((InvalidInputError, UnknownNameError), match=message):
        net.fit(X, y, loss=loss, verbose=False, **{"validation_data": (X, y), **options})


def test_equal_scores_count_half():
    """Where a positive and another row have the same score, and the order of the rows must not matter."""
    sk = pytest.importorskip("sklearn.metrics")
    scores = np.array([0.5, 0.5, 0.5, 2.0, -1.0, -1.0, 2.0, 0.5])
    y, weights = np.array([1, 0, 0, 1, 0, 1, 0, 1]), np.linspace(0.5, 2, 8)
    net = nn.Network([nn.Activation("identity")], 1, backend="numpy", dtype="float64")
    for rows in (np.arange(8), np.arange(8)[::-1]):
        given = {"sample_weight": weights[rows]}
        found = net.evaluate(scores[rows, None], y[rows], loss="bce", metrics=["roc_auc", "average_precision"], **given)
        assert found["roc_auc"] == pytest.approx(sk.roc_auc_score(y[rows], scores[rows], **given))
        assert found["average_precision"] == pytest.approx(sk.average_precision_score(y[rows], scores[rows], **given))


@pytest.mark.parametrize("name", ["f1", "f1_macro", "recall_weighted", "roc_auc", "r2", "top_2_accuracy", "rmse"])
def test_callbacks_know_which_direction_is_better(name):
    task = "numbers" if name in ("r2", "mae", "rmse") else "classes"
    loss, y = TASKS[task]
    callbacks = [nn.EarlyStopping(f"val_{name}", patience=1)]
    options = {"validation_data": (X, y), "metrics": [name], "callbacks": callbacks, "verbose": False}
    history = network(task).fit(X, y, epochs=4, loss=loss, optimizer=nn.Adam(0.02), **options)
    first, second = history[f"val_{name}"][:2]
    worse = second > first if name in ("mae", "rmse") else second <= first
    assert (len(history) == 2) == worse


def test_a_stream_is_refused():
    loss, y = TASKS["classes"]
    stream = nn.BatchStream(lambda epoch: iter([(X, y)]), ROWS)
    with pytest.raises(InvalidInputError, match="a BatchStream brings them piece by piece"):
        network("classes").fit(X, y, loss=loss, metrics=["f1"], validation_data=stream)


def test_rows_of_two_classes_of_three_are_not_a_task_of_two(backend):
    sk = pytest.importorskip("sklearn.metrics")
    net = network("classes", backend)
    net.set_weights({"layers.1.bias": [0.0, 0.0, -99.0, -99.0]}, partial=True)
    net.use_loss(net.resolve_loss("softmax_cross_entropy"))
    y, guessed = LABELS % 2, net.predict_classes(X)
    assert set(guessed) == {0, 1}
    found = net.evaluate(X, y, metrics=["precision", "recall", "f1", "f1_macro"])
    assert found["f1"] == found["f1_macro"]
    for name, function in (("precision", sk.precision_score), ("recall", sk.recall_score), ("f1", sk.f1_score)):
        assert found[name] == pytest.approx(function(y, guessed, average="macro"))


def test_scores_without_both_kinds_of_rows_are_unknown():
    net = network("one output")
    found = net.evaluate(X, np.zeros(ROWS, int), loss="bce", metrics=["roc_auc", "average_precision", "f1"])
    assert np.isnan(found["roc_auc"])
    assert np.isnan(found["average_precision"])
    assert found["f1"] == 0


def test_metrics_of_quantiles_compare_the_median(backend):
    x, y = numbers_of_rows()
    levels = [0.1, 0.5, 0.9]
    net = nn.Network([nn.Dense(8, activation="relu"), nn.Dense(3)], 4, backend=backend, seed=1)
    loss = nn.losses.Quantile(levels)
    history = net.fit(x, y, epochs=2, loss=loss, validation_data=(x, y), metrics=["mae", "r2", "rmse"], verbose=False)
    median = net.predict(x)[:, 1].astype(np.float64)
    expected = {
        "mae": np.abs(median - y).mean(),
        "r2": 1 - ((median - y) ** 2).mean() / y.var(),
        "rmse": np.sqrt(((median - y) ** 2).mean()),
    }
    found = net.evaluate(x, y, metrics=["mae", "r2", "rmse"])
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-4)
        assert history[f"val_{name}"][-1] == pytest.approx(value, rel=1e-4)


def numbers_of_rows():
    x = np.random.default_rng(2).normal(size=(50, 4)).astype(np.float32)
    return x, x @ np.arange(4.0) + 1


def test_quantiles_without_a_median_have_no_metrics_with_a_name():
    x, y = numbers_of_rows()
    net = nn.Network([nn.Dense(2)], 4, backend="numpy", seed=1)
    loss = nn.losses.Quantile([0.1, 0.9])
    for call in (
        lambda: net.fit(x, y, loss=loss, validation_data=(x, y), metrics=["mae"], verbose=False),
        lambda: net.evaluate(x, y, loss=loss, metrics=["r2"]),
    ):
        with pytest.raises(InvalidInputError, match=r"none of the outputs of Quantile.* predicts the median; add the"):
            call()
    net.fit(x, y, loss=loss, validation_data=(x, y), metrics=[lambda t, p: p.shape[1]], epochs=1, verbose=False)


@pytest.mark.parametrize("task", TASKS)
def test_functions_are_tried_before_the_training(task, monkeypatch):
    """Once, with what they get after every epoch, on right predictions; an error changes nothing."""
    loss, y = TASKS[task]
    calls = []

    def metric(y_true, y_pred, sample_weight):
        calls.append((y_true.copy(), y_pred.copy(), sample_weight))
        return 0.5

    functions = [Metric(metric, "one"), Metric(metric, "two", needs="predictions"), "mae" if "number" in task else "f1"]
    options = {"loss": loss, "epochs": 1, "verbose": False, "metrics": functions}
    net = nn.Network([nn.Dense(OUTPUTS.get(task, CLASSES))], FEATURES, backend="numpy", seed=0)
    net.fit(X, y, validation_data=(X, y, WEIGHTS), **options)
    for tried, after in zip(calls[:2], calls[2:], strict=True):
        for one, other in zip(tried, after, strict=True):
            assert (one.shape, one.dtype) == (other.shape, other.dtype)
        np.testing.assert_array_equal(tried[0], after[0])
    right = calls[0][1].reshape(len(y), -1)
    np.testing.assert_array_equal(right, calls[0][0].reshape(len(y), -1))

    before = nn.Network.from_config(net.config(), backend="numpy")
    before.set_weights(net.get_weights())
    for function, error in ((lambda y_true: 0.0, TypeError), (lambda y_true, y_pred: "high", InvalidInputError)):
        for given in ({"validation_data": (X, y)}, {"train_metrics": True}):
            with pytest.raises(error):
                net.fit(X, y, **given, **{**options, "metrics": [function]})
    assert same_weights(net, before)


def test_a_monitored_metric_that_is_missing_says_how_to_get_it():
    x, y = numbers_of_rows()
    labels = (y > 1).astype(int)
    net = nn.Network([nn.Dense(2)], 4, backend="numpy", seed=1)
    options = {"loss": "softmax_cross_entropy", "verbose": False}
    for more, monitor, message in (
        ({"validation_data": (x, labels)}, "val_f1", r"; give fit\(metrics=\['f1'\]\)"),
        ({}, "val_f1", r"; give fit\(metrics=\['f1'\], validation_data=\(x, y\)\)"),
        ({}, "f1", r"; give fit\(metrics=\['f1'\], train_metrics=True\)"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            net.fit(x, labels, callbacks=[nn.EarlyStopping(monitor)], **options, **more)


@pytest.mark.parametrize("callback", [nn.EarlyStopping, nn.KeepBest])
def test_a_monitored_metric_that_is_nan_is_warned_about_once(callback):
    x, y = numbers_of_rows()
    net = nn.Network([nn.Dense(2)], 4, backend="numpy", seed=1)
    one_class = x[:8], np.ones(8, int)
    options = {"loss": "softmax_cross_entropy", "validation_data": one_class, "metrics": ["roc_auc"], "epochs": 2}
    with pytest.warns(UserWarning, match="val_roc_auc is NaN after epoch 1") as caught:
        net.fit(x, (y > 1).astype(int), callbacks=[callback("val_roc_auc")], verbose=False, **options)
    assert len(caught) == 1
