"""The network: the parameter buffer, names and shapes, recorded steps, descriptions."""

from __future__ import annotations

import copy
import importlib
import inspect
import pickle
import re
import threading

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.backends.contract import OPERATIONS, PlainExecutor
from nnbackend.backends.numpy import NumpyBackend
from nnbackend.errors import InvalidInputError
from nnbackend.initializers import fans
from nnbackend.metrics import accuracy, confusion_matrix
from nnbackend.step.parameters import ParameterLayout
from nnbackend.training import fit, train_on_batch
from tests.conftest import PaddedNumpyBackend
from tests.helpers import classifier, images, same_weights


def test_weights_have_the_promised_names_and_shapes():
    net = nn.Network([nn.Flatten(), nn.Dense(5), nn.Dropout(0.1), nn.Dense(3, use_bias=False)], (2, 4), "numpy")
    assert {name: array.shape for name, array in net.get_weights().items()} == {
        "layers.1.weight": (8, 5),
        "layers.1.bias": (5,),
        "layers.3.weight": (5, 3),
    }
    assert net.parameter_count == 8 * 5 + 5 + 5 * 3
    assert net.output_shape == (3,)


def test_get_weights_returns_copies_for_set_weights():
    net, other = classifier(), classifier(seed=1)
    weights = net.get_weights()
    weights["layers.0.weight"] += 1
    assert not np.array_equal(weights["layers.0.weight"], net.get_weights()["layers.0.weight"])
    other.set_weights(net.get_weights())
    assert same_weights(net, other)


def test_all_parameters_lie_in_one_buffer_and_do_not_overlap():
    net = classifier()
    layout = net.model.layout
    buffer = np.zeros(layout.size)
    for entry in layout.entries:
        entry.view(buffer)[...] += 1
        assert entry.offset % 16 == 0
    assert buffer.max() == 1
    assert buffer.sum() == layout.count == net.parameter_count
    assert net.model.parameters.shape == (layout.size,)


def test_padding_stays_zero_through_training():
    x, y = images()
    net = nn.Network([nn.Dense(9, activation="sigmoid", l2=0.1), nn.Dense(4)], 12, backend=PaddedNumpyBackend(), seed=2)
    net.fit(x, y, epochs=3, batch_size=16, loss="softmax_cross_entropy", optimizer=nn.Adam(0.01, weight_decay=0.1))
    buffer = net.backend.to_host(net.model.parameters).copy()
    for entry in net.model.layout.entries:
        assert entry.row_stride == 16
        entry.view(buffer)[...] = 0
    assert not buffer.any()
    plain = nn.Network([nn.Dense(9, activation="sigmoid", l2=0.1), nn.Dense(4)], 12, backend="numpy", seed=2)
    plain.fit(x, y, epochs=3, batch_size=16, loss="softmax_cross_entropy", optimizer=nn.Adam(0.01, weight_decay=0.1))
    for name, value in plain.get_weights().items():
        np.testing.assert_allclose(net.get_weights()[name], value, rtol=1e-4, atol=1e-6)


def test_an_additional_layer_changes_no_initial_weights_of_others():
    short = nn.Network([nn.Dense(5), nn.Dense(3)], 4, backend="numpy", seed=7)
    long = nn.Network([nn.Dense(5), nn.Dense(3), nn.Dense(2)], 4, backend="numpy", seed=7)
    for name, value in short.get_weights().items():
        np.testing.assert_array_equal(value, long.get_weights()[name])


def test_layers_of_one_shape_start_from_different_weights():
    weights = nn.Network([nn.Dense(5), nn.Dense(5)], 5, backend="numpy").get_weights()
    assert not np.allclose(weights["layers.0.weight"], weights["layers.1.weight"])


def test_float32_weights_are_the_rounded_float64_ones():
    double = classifier(dtype="float64").get_weights()
    for name, value in classifier().get_weights().items():
        np.testing.assert_array_equal(value, double[name].astype(np.float32))


@pytest.mark.parametrize(
    ("name", "variance", "bounded"),
    [
        ("he_normal", 2 / 300, False),
        ("he_uniform", 2 / 300, True),
        ("glorot_normal", 2 / 500, False),
        ("glorot_uniform", 2 / 500, True),
        ("lecun_normal", 1 / 300, False),
        ("lecun_uniform", 1 / 300, True),
        (nn.Normal(0, 0.2), 0.04, False),
        (nn.Uniform(-0.3, 0.3), 0.03, True),
        ("zeros", 0, True),
        ("normal", 1, False),
    ],
)
def test_initial_weights_have_the_right_spread(name, variance, bounded):
    net = nn.Network([nn.Dense(200, weight_initializer=name)], 300, backend="numpy", dtype="float64")
    weight = net.get_weights()["layers.0.weight"]
    assert weight.mean() == pytest.approx(0, abs=4 * np.sqrt(variance / weight.size) + 1e-12)
    assert weight.var() == pytest.approx(variance, rel=0.03)
    if bounded:
        assert np.abs(weight).max() <= np.sqrt(3 * variance) + 1e-12


def test_given_arrays_are_the_initial_weights():
    weight = np.arange(6.0).reshape(3, 2)
    net = nn.Network([nn.Dense(2, weight_initializer=weight, bias_initializer=[1, 2])], 3, backend="numpy")
    np.testing.assert_array_equal(net.get_weights()["layers.0.weight"], weight)
    np.testing.assert_allclose(net.predict([[1, 0, 0]]), [[1, 3]])


def test_the_default_initialiser_follows_the_activation():
    assert nn.Dense(3, activation="relu").weight_initializer == nn.HeNormal()
    assert nn.Dense(3, activation="tanh").weight_initializer == nn.GlorotUniform()


def test_steps_are_replayed_without_allocating_or_looking_up():
    """Every operation of an epoch uses buffers that existed at its start."""
    seen: list[tuple[str, tuple[int, ...]]] = []

    class Watching(NumpyBackend):
        def executor(self, calls):
            assert all(call.operation in OPERATIONS for call in calls)
            seen.append(tuple((call.operation, tuple(map(id, call.arguments.values()))) for call in calls))
            return PlainExecutor(self, calls)

        def empty(self, shape, dtype):
            assert not getattr(self, "frozen", False), "a buffer was made while training"
            return super().empty(shape, dtype)

    class Freeze(nn.Callback):
        def on_epoch_begin(self, network, epoch):
            network.backend.frozen = epoch > 1

    x, y = images(rows=20)
    classifier(Watching()).fit(x, y, epochs=3, batch_size=8, loss="softmax_cross_entropy", callbacks=[Freeze()])
    full, rest = seen
    operations = [name for name, _ in full]
    assert operations == [name for name, _ in rest]
    assert operations == [
        "gather", "gather", "dense_forward", "dense_forward", "softmax_cross_entropy",
        "dense_input_gradient", "dense_weight_gradient", "bias_gradient",
        "activation_gradient", "dense_weight_gradient", "bias_gradient",
        "adam_update", "record_loss", "advance",
    ]  # fmt: skip


def test_the_host_reads_the_device_once_per_epoch():
    reads = []

    class Counting(NumpyBackend):
        def to_host(self, array):
            reads.append(array.shape)
            return super().to_host(array)

    x, y = images(rows=40)
    net = classifier(Counting())
    net.fit(x, y, epochs=5, batch_size=8, loss="softmax_cross_entropy")
    # The trace of each epoch. Whether weights and slots are finite is seen where they are.
    assert reads == [(5, 3)] * 5


def test_bytes_stay_bytes_on_the_device():
    x, y = images(rows=10)
    net = classifier()
    from nnbackend.losses import get_loss

    feed = net.intake.feed(x, y, get_loss("softmax_cross_entropy"), 5)
    assert feed.examples.x.dtype == np.uint8
    assert feed.examples.scale == 1 / 255


def test_summary_tells_layers_sizes_and_how_it_runs():
    net = nn.Network([nn.Flatten(), nn.Dense(5, activation="relu"), nn.Dense(3)], (2, 4), backend="numpy", seed=4)
    text = net.summary()
    lines = text.splitlines()
    assert "input 2 x 4, float32, seed 4" in lines[0]
    assert any(line.startswith("1: Dense(5, activation='relu')") and line.endswith("45") for line in lines)
    assert any(line.startswith("total") and " 63 " in line for line in lines)
    assert lines[-1] == f"backend numpy on {net.backend.device}; executor plain: runs every step"
    assert re.fullmatch(r"CPU, \d+ threads?", net.backend.device)


def test_max_abs_norm_divides_each_sample_by_its_largest_magnitude():
    net = nn.Network([nn.MaxAbsNorm()], 3, backend="numpy")
    x = [[1, -4, 2], [0, 0, 0], [0.5, 0.25, 0.5]]
    np.testing.assert_array_equal(net.predict(x), [[0.25, -1, 0.5], [0, 0, 0], [1, 0.5, 1]])
    assert net.parameter_count == 0
    assert net.output_shape == (3,)
    lines = net.summary().splitlines()
    assert any(line.split() == ["0:", "MaxAbsNorm()", "3", "0"] for line in lines)


def test_a_network_has_a_short_repr():
    assert repr(classifier()) == (
        "<Network (12,) -> [Dense(9, activation='relu'), Dense(4, activation='identity')] on numpy, 157 parameters>"
    )


def test_the_loss_determines_predictions():
    x, y = images(rows=20)
    net = classifier()
    logits = net.predict(x)
    net.fit(x, y, epochs=1, loss="softmax_cross_entropy", optimizer=nn.SGD(0.0))
    probabilities = net.predict(x)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probabilities, expected, rtol=1e-5)
    np.testing.assert_array_equal(net.predict_classes(x), logits.argmax(axis=1))


def test_predictions_follow_new_weights():
    x, _ = images(rows=4)
    net = classifier()
    before = net.predict(x)
    net.set_weights({name: 2 * value for name, value in net.get_weights().items()})
    np.testing.assert_allclose(net.predict(x), 4 * before, rtol=1e-5)


def test_one_network_predicts_any_number_of_rows():
    x, _ = images(rows=30)
    net = classifier()
    whole = net.predict(x)
    for rows in (1, 2, 3, 5, 8, 13, 30, 1):
        np.testing.assert_allclose(net.predict(x[:rows]), whole[:rows], rtol=1e-5, atol=1e-7)
    # Buffers of the last few sizes are kept, not of all.
    assert len(net._predictor._recorded) == 4


def test_layout_pads_rows():
    layers = [nn.Dense(5), nn.Dense(3)]
    layout = ParameterLayout(layers, [(4,), (5,)], row_multiple=8)
    assert [(entry.name, entry.row_stride) for entry in layout.entries] == [
        ("layers.0.weight", 8), ("layers.0.bias", 8), ("layers.1.weight", 8), ("layers.1.bias", 8)
    ]  # fmt: skip
    values = {name: np.random.default_rng(0).normal(size=shape) for name, shape in layout.shapes().items()}
    packed = layout.pack(values, np.float64)
    for name, value in layout.unpack(packed).items():
        np.testing.assert_array_equal(value, values[name])


def test_metrics():
    assert accuracy([0, 1, 2, 2], [0, 1, 1, 2]) == 0.75
    np.testing.assert_array_equal(confusion_matrix([0, 1, 1], [0, 0, 1], 2), [[1, 0], [1, 1]])
    with pytest.raises(ValueError, match=r"must be in \[0, 2\)"):
        confusion_matrix([0, 2], [0, 0], 2)
    with pytest.raises(ValueError, match="arrays of the same length"):
        accuracy([0, 1], [0])


@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "sigmoid_cross_entropy", "mean_squared_error"])
def test_accuracy_is_the_share_of_rows_whose_class_is_predicted(loss):
    x, y = images(rows=50)
    net = classifier(dtype="float64")
    net.fit(x, y, epochs=1, loss=loss)
    for targets in (y, np.eye(4)[y]):
        metrics = net.evaluate(x, targets)
        assert metrics["accuracy"] == pytest.approx(np.mean(net.predict_classes(x) == y))
        assert "binary_accuracy" not in metrics


def test_one_hot_targets_take_class_weights_with_every_loss():
    x, y = images(rows=50)
    for loss in ("softmax_cross_entropy", "sigmoid_cross_entropy", "mean_squared_error"):
        one, other = classifier(), classifier()
        one.fit(x, y, epochs=1, loss=loss, class_weight={0: 3.0})
        other.fit(x, np.eye(4)[y], epochs=1, loss=loss, class_weight={0: 3.0})
        assert same_weights(one, other)


@pytest.mark.parametrize("how", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_a_copy_is_independent(how):
    x, y = images(rows=40)
    net = classifier()
    net.fit(x, y, epochs=1, loss="softmax_cross_entropy")
    net.predict(x)
    copied = how(net)
    assert same_weights(net, copied)
    assert copied.config() == net.config()
    before = net.predict(x)
    copied.fit(x, y, epochs=5, optimizer=nn.Adam(0.05))
    np.testing.assert_array_equal(net.predict(x), before)
    assert np.mean(copied.predict_classes(x) == y) == pytest.approx(copied.evaluate(x, y)["accuracy"])


def test_several_threads_may_predict_with_one_network():
    generator = np.random.default_rng(0)
    net = nn.Network([nn.Dense(50, activation="relu"), nn.Dense(4)], 12, backend="numpy")
    parts = [generator.normal(size=(64, 12)) for _ in range(4)]
    expected = [net.predict(part) for part in parts]
    wrong = []

    def ask(part, answer):
        for _ in range(40):
            if not np.array_equal(net.predict(part), answer):
                wrong.append(1)

    threads = [threading.Thread(target=ask, args=pair) for pair in zip(parts, expected, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((5,), (5, 5)), ((3, 7), (3, 7)), ((2, 4, 3, 7), (24, 56)), ((9, 3, 7), (27, 63))],
)
def test_fans_of_a_kernel_count_its_positions(shape, expected):
    assert fans(shape) == expected


def test_a_kernel_starts_with_the_spread_of_its_fans():
    draw = nn.HeNormal().sample(np.random.default_rng(0), (3, 3, 64, 50))
    assert draw.var() == pytest.approx(2 / (9 * 64), rel=0.03)


def test_layout_takes_any_number_of_axes():
    class Kernels(nn.Layer):
        def parameters(self, input_shape):
            return tuple(nn.Parameter(f"w{len(s)}", s, nn.Normal()) for s in ((5,), (3, 5), (2, 3, 5), (2, 2, 3, 5)))

        def forward(self, step, x):
            return x, None

        backward = forward

    layout = ParameterLayout([Kernels()], [(4,)], row_multiple=8)
    values = {name: np.random.default_rng(0).normal(size=shape) for name, shape in layout.shapes().items()}
    packed = layout.pack(values, np.float64)
    views = layout.device_views(PaddedNumpyBackend(), packed)
    for entry in layout.entries:
        np.testing.assert_array_equal(layout.unpack(packed)[entry.name], values[entry.name])
        np.testing.assert_array_equal(views[entry.name], values[entry.name])
        assert np.shares_memory(views[entry.name], packed)
    assert np.count_nonzero(packed) == layout.count == 5 * (1 + 3 + 6 + 12)


@pytest.mark.parametrize(("method", "function"), [("fit", fit), ("train_on_batch", train_on_batch)])
def test_methods_have_the_signatures_of_the_functions_that_they_call(method, function):
    """So that editors can complete them, and every argument is passed on."""
    ours = inspect.signature(getattr(nn.Network, method))
    theirs = inspect.signature(function)
    assert list(ours.parameters.values())[1:] == list(theirs.parameters.values())[1:]
    assert ours.return_annotation == theirs.return_annotation
    documented = getattr(nn.Network, method).__doc__
    missing = [name for name in list(ours.parameters)[1:] if f"\n        {name} : " not in documented]
    assert not missing


@pytest.mark.parametrize("method", ["fit", "train_on_batch"])
def test_methods_pass_on_every_argument(monkeypatch, method):
    module = importlib.import_module({"fit": "nnbackend.training.fit"}.get(method, "nnbackend.training.batch"))
    received = {}
    monkeypatch.setattr(module, method, lambda network, x, y, **options: received.update(options, x=x, y=y))
    names = [name for name in inspect.signature(getattr(nn.Network, method)).parameters if name != "self"]
    given = {name: object() for name in names}
    getattr(classifier(), method)(**given)
    assert received == given


def test_the_method_evaluate_names_its_arguments():
    parameters = inspect.signature(nn.Network.evaluate).parameters
    assert list(parameters) == ["self", "x", "y", "loss", "sample_weight", "batch_size", "metrics"]
    assert all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters.values())


@pytest.mark.parametrize("layers", [[nn.Flatten()], [nn.Flatten(), nn.Dropout(0.5)]])
def test_a_network_that_computes_nothing_predicts_its_inputs(backend, layers):
    x = np.arange(8, dtype="float32").reshape(2, 2, 2)
    net = nn.Network(copy.deepcopy(layers), (2, 2), backend)
    np.testing.assert_array_equal(net.predict(x), x.reshape(2, 4))


@pytest.mark.parametrize("name", ["labels", "predictions"])
@pytest.mark.parametrize("bad", [[0.2, 0.9], [0.0, np.nan], [0, 1e30], ["a", "b"]])
@pytest.mark.parametrize("metric", [accuracy, lambda *pair: confusion_matrix(*pair, 2)])
def test_metrics_refuse_what_is_no_class(metric, bad, name):
    with pytest.raises(InvalidInputError, match=name):
        metric(*((bad, [0, 1]) if name == "labels" else ([0, 1], bad)))


def test_metrics_take_whole_numbers_of_any_type():
    assert accuracy([0.0, 1.0], np.array([False, True])) == 1
    assert accuracy(np.array([0, 255], np.uint8), [0, 255]) == 1
