"""The tutorials' algorithms reproduce the tutorials' results, including errors, and asv does not collect them."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import random
import re
import subprocess
import sys

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

import nnbackend as nn
from benchmarks import tutorials
from benchmarks.tutorials import (
    circle,
    circle_network,
    deep_net,
    first_neuron,
    network3,
    neural_net,
    numpy_layers,
    one_net,
    pure_python,
    svm_regression,
    three_net,
    two_net,
    two_two_one,
)

MODULES = [
    importlib.import_module(module.name)
    for module in pkgutil.iter_modules(tutorials.__path__, f"{tutorials.__name__}.")
]
ASV = re.compile(r"(time|timeraw|track|mem|peakmem)_|(Time|Timeraw|Track|Mem|PeakMem)[A-Z_]")


@pytest.fixture(scope="module", autouse=True)
def _one_blas_thread():
    """Two threads would be several times slower on a busy machine."""
    with threadpool_limits(1, "blas"):
        yield


@pytest.fixture(scope="module")
def digits():
    return nn.datasets.load("mnist-5k")


# ---- the common interface ------------------------------------------------------------------------------------


def test_every_system_has_a_baseline():
    systems = {system for module in MODULES for system in re.findall(r"\bS\d+\b", module.__doc__.partition("\n")[0])}
    assert systems == {f"S{number}" for number in range(1, 14)}


def test_train_takes_a_seed_and_has_a_default_for_the_rest():
    trained = [module for module in MODULES if hasattr(module, "train")]
    assert len(trained) == 12
    for function in [*(module.train for module in trained), three_net.train_mnist]:
        seed, *rest = inspect.signature(function).parameters.values()
        assert seed.name == "seed"
        assert all(option.kind is option.KEYWORD_ONLY and option.default is not option.empty for option in rest)


@pytest.mark.parametrize(
    ("train", "options"),
    [
        (circle.train, {"points": (60,)}),
        (one_net.train, {"epochs": 500}),
        (two_net.train, {"epochs": 500}),
        (three_net.train, {"epochs": 100}),
        (pure_python.train, {"epochs": 1}),
        (numpy_layers.train, {"epochs": 1}),
        (two_two_one.train, {"epochs": 1}),
    ],
    ids=lambda value: getattr(value, "__module__", "").rpartition(".")[2],
)
def test_the_seed_decides(train, options, capsys):
    first, same, other = (train(seed, **options) for seed in (1, 1, 2))
    assert first.figures == same.figures
    assert first.figures != other.figures
    assert 0 < first.seconds < 10
    assert all(type(figure) is float for figure in first.figures.values())
    assert capsys.readouterr().out == ""  # printing is not what is timed


# ---- S11, S12: exact, or as printed -------------------------------------------------------------------------


def test_first_neuron():
    assert first_neuron.train().figures == {"neuron": 0.9990889488055994, "network": 0.7216325609518421, "loss": 0.5}


@pytest.mark.parametrize("seed", range(3))
def test_two_two_one(seed):
    figures = two_two_one.train(seed).figures
    assert figures["accuracy"] == 1
    assert 0.1 < figures["first_loss"] < 0.5
    assert figures["loss"] == pytest.approx(0.002, abs=5e-4)


# ---- S2: the printed weights come from its two mistakes --------------------------------------------------------


@pytest.mark.parametrize(
    ("gate", "weights", "bias"),
    [("and", (3.586, 3.586), -5.699), ("or", (4.636, 4.636), -1.876), ("not", (-6.790,), 3.263)],
)
def test_one_net_has_the_printed_weights(gate, weights, bias, monkeypatch):
    # A tenth of the steps, each ten times larger, changes the results by 1e-4 and saves seven seconds per gate.
    assert (one_net.LEARNING_RATE, inspect.signature(one_net.train).parameters["epochs"].default) == (1e-3, 200_000)
    monkeypatch.setattr(one_net, "LEARNING_RATE", 1e-2)
    figures = one_net.train(0, gate=gate, epochs=20_000).figures
    for i, weight in enumerate(weights):
        assert figures[f"weight_{i + 1}"] == pytest.approx(weight, abs=1e-3)
    assert figures["bias"] == pytest.approx(bias, abs=1e-3)
    assert figures["accuracy"] == 1


@pytest.mark.parametrize(("gate", "shape"), [("and", (2, 2)), ("or", (2, 1)), ("not", (1, 1))])
def test_one_net_penalty_is_the_sum_of_all_weights(gate, shape):
    table = nn.datasets.load(gate)
    net = one_net.OneNet(np.random.default_rng(0), shape[0], one_net.BIAS_COLUMNS[gate])
    net.weights = np.arange(1.0, 1 + np.prod(shape)).reshape(shape)
    before = net.weights
    net.forward(table.x_train)
    net.backward(table.y_train[:, np.newaxis])
    net.update()
    penalty = (before - net.weights) / one_net.LEARNING_RATE - net.weights_gradient
    assert np.allclose(penalty, one_net.PENALTY * before.sum())
    assert net.weights.shape == shape


# ---- S3, S4, S5: biases that only shrink -----------------------------------------------------------------------


def test_two_net_learns_xor():
    figures = two_net.train(2).figures
    assert figures["accuracy"] == 1
    assert figures["loss"] < 0.01


@pytest.mark.parametrize(
    ("net", "fading", "learning"),
    [
        (two_net.TwoNet(np.random.default_rng(0), 2, 6), ["b2"], "b1"),
        (three_net.ThreeNet(np.random.default_rng(0), (2, 4, 4, 2), 0.1), ["b2", "b3"], "b1"),
    ],
    ids=["two_net", "three_net"],
)
def test_biases_above_the_first_layer_only_fade(net, fading, learning):
    table = nn.datasets.load("xor")
    net.forward(table.x_train)
    net.backward(table.y_train)
    before = dict(vars(net))
    net.update()
    for name in fading:
        assert np.allclose(getattr(net, name), 0.9 * before[name])
    assert np.allclose(getattr(net, learning), before[learning] - 0.1 * before[f"d{learning}"])


@pytest.mark.slow
def test_three_net_on_iris():
    figures = three_net.train(0).figures
    assert 0.96 < figures["train_accuracy"] <= 1  # the tutorial, with its own split: 98.33 %, and 100 % of 30
    assert figures["accuracy"] >= 0.93
    assert figures["loss"] < 0.1


@pytest.mark.slow
def test_three_net_on_digits(digits):
    first, tenth = (three_net.train_mnist(0, epochs=epochs, data=digits).figures for epochs in (1, 10))
    assert tenth["accuracy"] > 0.7 > first["accuracy"]
    assert tenth["loss"] < 1.2


def test_three_net_skips_the_last_batch(digits, monkeypatch):
    sizes = []
    step = three_net.ThreeNet.step
    monkeypatch.setattr(three_net.ThreeNet, "step", lambda net, x, y: sizes.append(len(x)) or step(net, x, y))
    few = dataclasses.replace(digits, x_train=digits.x_train[:300], y_train=digits.y_train[:300])
    three_net.train_mnist(0, epochs=2, batch_size=100, data=few)
    assert sizes == [100, 100] * 2


@pytest.mark.parametrize("train", [three_net.train, three_net.train_mnist], ids=["iris", "digits"])
def test_three_net_keeps_the_last_of_the_best(train, digits, monkeypatch):
    # Training accuracies of four epochs (on iris: of every hundredth): the third equals the second, and wins.
    scripted = iter([0.5, 0.9, 0.9, 0.6])
    kept = []
    monkeypatch.setattr(three_net, "accuracy", lambda *_: next(scripted, 0.0))
    monkeypatch.setattr(three_net.copy, "deepcopy", lambda net: kept.append(net.w1) or net)
    data = digits if train is three_net.train_mnist else nn.datasets.load("iris")
    few = dataclasses.replace(data, x_train=data.x_train[:100], y_train=data.y_train[:100])
    options = {"epochs": 4, "batch_size": 50} if data is digits else {"epochs": 400}
    assert train(0, data=few, **options).figures["train_accuracy"] == 0.9
    assert len(kept) == 3


# ---- S6, S7: ten points ------------------------------------------------------------------------------------------


def test_pure_python_gets_ten_of_ten():
    figures = pure_python.train(0).figures
    assert figures["accuracy"] == 1
    # Squared distance of good outputs to (0, 0) instead of their targets: about a half per row; 3.77 in the tutorial.
    assert 3 < figures["printed_error"] < 4.5


def test_pure_python_agrees_with_the_corrected_numpy_layers():
    generator = np.random.default_rng(0)
    net = numpy_layers.Network.drawn(generator, (2, 3, 2))
    layers = [
        pure_python.Layer(
            [pure_python.Neuron(w.tolist(), float(b)) for w, b in zip(layer.weights, layer.bias, strict=True)]
        )
        for layer in net.layers
    ]
    objects = pure_python.Network(layers[:1], layers[1])
    row, target = np.array([1.5, -0.5]), np.array([1.0, 0.0])
    outputs = net.forward(row)
    net.backward(row, target)
    assert np.allclose(objects.forward(row.tolist()), outputs)
    objects.backward(row.tolist(), (outputs - target).tolist())
    hidden, last = net.layers
    assert np.allclose([neuron.weights for neuron in objects.output_layer.neurons], last.weights)
    once = np.array([neuron.delta for neuron in objects.hidden_layers[0].neurons])
    assert np.allclose(hidden.deltas, once * hidden.outputs * (1 - hidden.outputs))


def test_numpy_layers_get_ten_of_ten_and_not_xor():
    figures = numpy_layers.train(0).figures
    assert figures["accuracy"] == 1
    assert figures["loss"] < 1  # 0.93 in the tutorial
    xor = nn.datasets.load("xor")
    assert max(numpy_layers.train(seed, epochs=100, data=xor).figures["accuracy"] for seed in range(3)) < 1


# ---- S8, S9, S10: digits -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_neural_net_on_digits(digits):
    assert neural_net.train(0, epochs=2, batch_size=10, data=digits).figures["accuracy"] > 0.5


def test_neural_net_gradients_are_those_of_half_the_squared_error():
    generator = np.random.default_rng(0)
    net = neural_net.NeuralNet(generator, (3, 4, 2))
    x, y = generator.random((3, 1)), np.array([[1.0], [0.0]])
    gradients, _ = net.gradients(x, y)
    for w, gradient in zip(net.weights, gradients, strict=True):
        losses = []
        for change in (1e-5, -2e-5):
            w[1, 2] += change
            losses.append(0.5 * np.sum((net.forward(x) - y) ** 2))
        w[1, 2] += 1e-5
        assert gradient[1, 2] == pytest.approx((losses[0] - losses[1]) / 2e-5, rel=1e-5)


@pytest.mark.slow
def test_network3_on_digits(digits):
    few = dataclasses.replace(digits, x_train=digits.x_train[:900], y_train=digits.y_train[:900])
    assert network3.train(0, epochs=1, learning_rate=0.5, data=few).figures["accuracy"] > 0.4


def network3_differences(monkeypatch, activation):
    """The relative errors of the gradients of network3's parameters, compared with finite differences."""
    generator = np.random.default_rng(0)
    net = network3.ConvNet(generator, 10)
    x, y = generator.random((1, 28, 28)), np.eye(10)[:, [3]]
    monkeypatch.setattr(network3.np, "tanh", activation)
    dk, dbias, dw, _ = net.gradients(x, y)
    parameters = {"k1": (net.kernels[0], dk[0]), "k2": (net.kernels[1], dk[1]), "b1": (net.biases[0], dbias[0])}
    errors = {}
    for name, (array, gradient) in {**parameters, "w": (net.w, dw)}.items():
        place, losses = tuple(extent - 1 for extent in array.shape), []
        for change in (1e-5, -2e-5):
            array[place] += change
            o = net.forward(x)
            losses.append(-np.sum(y * np.log(o) + (1 - y) * np.log(1 - o)))
        array[place] += 1e-5
        expected = (losses[0] - losses[1]) / 2e-5
        errors[name] = abs(gradient[place] - expected) / abs(expected)
    return errors


def test_network3_lacks_the_derivative_of_tanh(monkeypatch):
    errors = network3_differences(monkeypatch, np.tanh)
    assert errors["w"] < 1e-6
    assert min(errors[name] for name in ("k1", "k2", "b1")) > 0.05
    # With an activation whose derivative is 1, nothing is wrong.
    assert max(network3_differences(monkeypatch, lambda z: z).values()) < 1e-6


def test_network3_decays_its_last_weights_only():
    net = network3.ConvNet(np.random.default_rng(0), 10)
    kernels, w = [each.copy() for each in net.kernels], net.w.copy()
    net.gradients = lambda x, y: ([0.0, 0.0], [0.0, 0.0], 0.0, 0.0)
    net.update([(None, None)], 0.5, 0.1)
    assert all((after == before).all() for after, before in zip(net.kernels, kernels, strict=True))
    np.testing.assert_allclose(net.w, 0.95 * w)


@pytest.mark.slow
def test_deep_net_on_digits(digits):
    first, second = (deep_net.train(0, epochs=epochs, held_out=0, data=digits).figures for epochs in (1, 2))
    assert second["accuracy"] > 0.65
    # The printed "loss of an epoch" is never reset.
    assert second["printed_loss"] == pytest.approx(first["printed_loss"] + second["loss"] * 40)


def test_deep_net_does_what_adam_does_on_its_first_step():
    # For any gradient, the first step of Adam has the length of the learning rate.
    net = deep_net.DeepNet(np.random.default_rng(0), (5, 4, 3))
    before = [w.copy() for w in net.weights]
    net.step(np.ones((2, 5), np.float32), np.eye(3, dtype=np.float32)[[0, 1]])
    moved = np.abs(net.weights[-1] - before[-1])
    assert np.allclose(moved[moved > 0], 1e-3, rtol=1e-2)
    assert (moved > 0).any()
    assert all(w.dtype == np.float32 for w in net.weights)


def test_svm_regression_is_better_than_chance_and_bad(digits):
    pytest.importorskip("sklearn")
    figures = svm_regression.train(0, images=800, test_images=300, data=digits).figures
    assert 0.11 < figures["accuracy"] < 0.5  # 40.23 % with all 60,000
    assert figures["images"] == 800


# ---- S1: its rules -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_circle_ends_near_ninety_percent():
    table = nn.datasets.load("circle")
    figures = [circle.train(seed, data=table).figures for seed in range(6)]
    assert 0.82 < np.median([run["accuracy"] for run in figures]) < 0.95
    assert np.median([run["start_accuracy"] for run in figures]) < 0.8


def make_trainer(monkeypatch, losses):
    """A trainer with a fake network that has these losses: old, new, old, new, ..."""
    trainer = circle.Trainer(circle_network.Network(np.random.default_rng(0)), random.Random(0).uniform)
    values = iter(losses)
    monkeypatch.setattr(circle, "losses", lambda *_: next(values))
    return trainer


BAD, WORSE, GOOD = (0.5, 0.5), (0.6, 0.6), (0.05, 0.1)


@pytest.mark.parametrize(
    ("new", "kept"), [(BAD, True), (WORSE, False), ((0.4, 0.6), True), ((0.6, 0.4), True)], ids=str
)
def test_circle_keeps_a_step_that_makes_either_loss_no_worse(monkeypatch, new, kept):
    trainer = make_trainer(monkeypatch, [BAD, new, GOOD])
    before = trainer.network
    trainer.train_round(3_000)
    assert (trainer.network is not before) is kept


def test_circle_trains_a_batch_twice_and_ends_the_round_at_a_good_one(monkeypatch):
    trainer = make_trainer(monkeypatch, [BAD, WORSE, BAD, WORSE, BAD, BAD, GOOD])
    drawn = []
    draw = circle.draw
    monkeypatch.setattr(circle, "draw", lambda *arguments: drawn.append(arguments) or draw(*arguments))
    trainer.train_round(3_000)
    assert len(drawn) == 2
    assert trainer.steps == 3
    assert not trainer.force


def test_circle_forces_steps_after_a_round_without_improvement(monkeypatch):
    trainer = make_trainer(monkeypatch, [BAD, WORSE, BAD, WORSE, BAD, WORSE, GOOD])
    trainer.train_round(29)  # one batch
    assert trainer.force
    before = trainer.network
    trainer.train_round(29)
    assert trainer.network is not before
    assert not trainer.force  # nothing counted


def test_circle_rows_are_divided_by_their_largest():
    net = circle_network.Network(np.random.default_rng(0))
    x, labels = circle.draw(30, random.Random(0).uniform)
    new = net.stepped(net.outputs(x), np.eye(2)[labels])
    for layer in new.layers:
        assert np.allclose(np.abs(layer.weights).max(axis=1), 1)
        assert np.abs(layer.biases).max() == pytest.approx(1)
    # A step that is not kept restores the initial network.
    assert np.abs(net.layers[0].weights).max() > 1


# ---- asv ----------------------------------------------------------------------------------------------------------


def test_asv_takes_nothing_for_a_benchmark():
    for module in MODULES:
        for name, item in vars(module).items():
            assert not ASV.match(name), f"{module.__name__}.{name}"
            if isinstance(item, type):
                assert not [method for method in dir(item) if ASV.match(method)], f"{module.__name__}.{name}"


def test_imports_are_cheap():
    # asv imports every module of `benchmarks`, in environments without scikit-learn.
    names = ", ".join(module.__name__ for module in MODULES)
    code = f"import sys; sys.modules['sklearn'] = None; import {names}; assert 'numba' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
