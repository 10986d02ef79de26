"""What the recipe for tables adds to plain training: a start scaled to the data, weight decay, means of metrics."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.interop.tabular.callbacks import DecayWeights, MeanOfEpochs
from nnbackend.interop.tabular.recipe import _weighted_accuracy
from nnbackend.interop.tabular.start import scale_to_data
from nnbackend.schedules import Constant

LAYERS = (
    lambda: [nn.Scale(), nn.Dense(7, "selu", parametrization="ntk"), nn.Dense(5, "mish"), nn.Dense(2)],
    lambda: [
        nn.Embedding(4, 3),
        nn.PeriodicEmbedding(2),
        nn.Dense(7),
        nn.ParametricActivation("mish"),
        nn.Dropout(0.2),
        nn.Dense(5, use_bias=False),
        nn.Dense(2),
    ],
)


def rows(count=300):
    generator = np.random.default_rng(0)
    return np.column_stack([generator.normal(3, 5, (count, 2)), generator.integers(0, 4, count)]).astype(np.float32)


def before_activation(network, place, x):
    """The values of a dense layer without its activation and bias, computed by a network that ends there."""
    layers = [*copy.deepcopy(network.layers[:place]), nn.Dense(network.layers[place].units, use_bias=False)]
    other = nn.Network(layers, x.shape[1], backend="numpy", dtype="float64", seed=0, input_scale=1.0)
    names = other.get_weights()
    other.set_weights({name: value for name, value in network.get_weights().items() if name in names})
    return other.predict(x)


@pytest.mark.parametrize("layers", LAYERS, ids=["plain", "embedded"])
def test_hidden_units_start_with_a_standard_deviation_of_1(backend, layers):
    network = nn.Network(layers(), 3, backend=backend, seed=1, input_scale=1.0)
    before, x = network.get_weights(), rows()
    scale_to_data(network, x)
    after = network.get_weights()
    hidden = [place for place, layer in enumerate(network.layers[:-1]) if isinstance(layer, nn.Dense)]
    assert len(hidden) == 2
    for place in hidden:
        np.testing.assert_allclose(before_activation(network, place, x).std(axis=0), 1, rtol=1e-4)
        # The directions do not change.
        ratios = after[f"layers.{place}.weight"] / before[f"layers.{place}.weight"]
        np.testing.assert_allclose(ratios, np.broadcast_to(ratios[0], ratios.shape), rtol=1e-5)
    for name in before.keys() - {f"layers.{place}.weight" for place in hidden}:
        np.testing.assert_array_equal(after[name], before[name])
    reference = nn.Network(layers(), 3, backend="numpy", seed=1, input_scale=1.0)
    scale_to_data(reference, x)
    for name, value in reference.get_weights().items():
        np.testing.assert_array_equal(after[name], value)


def test_the_start_has_the_same_bits_for_any_number_of_threads():
    threadpoolctl = pytest.importorskip("threadpoolctl")
    generator = np.random.default_rng(0)
    for features in range(100, 800, 70):
        x, found = generator.normal(size=(700, features)), []
        for threads in (1, 2):
            network = nn.Network(
                [nn.Dense(256), nn.Dense(1)], features, backend="numpy", dtype="float64", seed=0, input_scale=1.0
            )
            with threadpoolctl.threadpool_limits(threads):
                scale_to_data(network, x)
            found.append(network.get_weights()["layers.0.weight"])
        np.testing.assert_array_equal(*found)


def test_units_that_are_the_same_for_all_rows_keep_their_weights():
    network = nn.Network([nn.Dense(3, "selu"), nn.Dense(1)], 2, backend="numpy", seed=0, input_scale=1.0)
    before = network.get_weights()
    scale_to_data(network, np.ones((10, 2), np.float32))
    np.testing.assert_array_equal(network.get_weights()["layers.0.weight"], before["layers.0.weight"])


def test_weights_decay_by_the_rates_of_all_steps(backend):
    layers = [nn.Scale(learning_rate_factor=6.0), nn.Dense(4, bias_initializer="ones", parametrization="ntk")]
    network = nn.Network(layers, 3, backend=backend, seed=0, input_scale=1.0)
    before = network.get_weights()
    decay = DecayWeights(0.5, Constant(0.01), epochs=8, steps=10)
    # The first half: 10 steps of the full decay.
    decay.on_epoch_begin(network, 4)
    after = network.get_weights()
    for name, factor in (("layers.0.scale", 6), ("layers.1.weight", 1)):
        np.testing.assert_allclose(after[name], before[name] * (1 - 0.01 * 0.5 * factor) ** 10, rtol=5e-3)
        np.testing.assert_allclose(after[name], before[name] * math.exp(-0.05 * factor), rtol=1e-6)
    np.testing.assert_array_equal(after["layers.1.bias"], before["layers.1.bias"])
    # Epochs from 6 to 7 of 8: half a cosine has fallen from half of its height to a seventh.
    decay.on_epoch_begin(network, 7)
    left = sum(0.5 * (1 + math.cos(math.pi * (0.5 + step / 40))) for step in range(10))
    expected = after["layers.1.weight"] * math.exp(-0.005 * left)
    np.testing.assert_allclose(network.get_weights()["layers.1.weight"], expected, rtol=1e-6)


def test_weights_that_are_not_finite_are_left_to_the_training():
    network = nn.Network([nn.Dense(1)], 1, backend="numpy", seed=0, input_scale=1.0)
    network.model.parameters[:] = np.nan
    DecayWeights(0.5, Constant(0.01), epochs=8, steps=10).on_epoch_begin(network, 1)
    assert np.isnan(network.get_weights()["layers.0.weight"]).all()


def test_the_mean_is_that_of_the_last_epochs_of_one_training():
    mean = MeanOfEpochs({"val_loss": 1.0, "val_accuracy": -2.0}, 3)
    for _ in range(2):
        mean.on_train_begin(None, 5)
        seen = []
        for epoch, value in enumerate([5.0, 1.0, 3.0, 2.0, 1.0], 1):
            metrics = {"val_loss": value + 1, "val_accuracy": 0.5}
            mean.on_epoch_end(None, epoch, metrics)
            seen.append(metrics[mean.name])
        assert seen == [5.0, 3.0, 3.0, 2.0, 2.0]


def test_the_mean_of_losses_whose_sum_overflows_is_infinite():
    mean, metrics = MeanOfEpochs({"val_loss": 1.0}, 3), {"val_loss": 1e308}
    for expected in (1e308, math.inf):
        mean.on_epoch_end(None, 1, metrics)
        assert metrics[mean.name] == expected


@pytest.mark.parametrize("power", [-1050, -1000, 0, 1000, 1023])
def test_the_share_of_correct_rows_is_that_of_weights_of_any_magnitude(power):
    weights = np.ldexp([1.5, 1.0, 0.5, 1.0], power)
    with np.errstate(all="raise"):
        assert _weighted_accuracy(np.array([0, 1, 1, 0]), np.array([0, 1, 0, 1]), weights) == 0.625


def means_of(model, *arguments, monkeypatch):
    """The terms whose means choose the epochs of a model's networks."""
    made = []

    class Noted(MeanOfEpochs):
        def __init__(self, *arguments):
            made.append(arguments)
            super().__init__(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr("nnbackend.interop.tabular.recipe.MeanOfEpochs", Noted)
        model.fit(*arguments)
    return made


def test_what_chooses_the_epoch(monkeypatch):
    x = rows(200)
    weights, classes = np.ones(200), x[:, 0] > 3
    settings = {"epochs": 2, "hidden_layer_sizes": [8], "random_state": 0, "backend": "numpy"}
    regressor, classifier = nn.TabularRegressor(2, **settings), nn.TabularClassifier(2, **settings)
    probable = nn.TabularClassifier(2, scoring="log_loss", **settings)
    for model, arguments, terms in (
        (regressor, (x, x[:, 0], weights), {"val_loss": 1.0}),
        (probable, (x, classes, weights), {"val_loss": 1.0}),
        (classifier, (x, classes), {"val_loss": 1.0, "val_accuracy": -1.0}),
        # `val_accuracy` counts rows, whatever their weights.
        (classifier, (x, classes, weights), {"val_loss": 1.0, "val_weighted_accuracy": -1.0}),
    ):
        assert means_of(model, *arguments, monkeypatch=monkeypatch) == [(terms, 7)] * 2


def test_the_estimators_decay_scale_and_choose_by_the_mean(monkeypatch):
    made = []
    for name in ("DecayWeights", "MeanOfEpochs"):

        class Noted(getattr(nn.interop.tabular.recipe, name)):
            def __init__(self, *arguments):
                made.append((type(self).__mro__[1].__name__, *arguments))
                super().__init__(*arguments)

        monkeypatch.setattr(f"nnbackend.interop.tabular.recipe.{name}", Noted)
    x = rows(200)
    model = nn.TabularRegressor(2, epochs=6, hidden_layer_sizes=[8], batch_size=64, random_state=0, backend="numpy")
    model.fit(x, x[:, 0])
    steps = {each[-1] for each in made if each[0] == "DecayWeights"}
    # 160 rows are learned from.
    assert steps == {3}
    assert [each[1:] for each in made if each[0] == "MeanOfEpochs"] == [({"val_loss": 1.0}, 7)] * 2
    made.clear()
    model.set_params(validation_fraction=0.0).fit(x, x[:, 0])
    assert model.best_epochs_ == [6, 6]
    assert [each[0] for each in made] == ["DecayWeights"] * 2
    assert {each[-1] for each in made} == {4}
    made.clear()
    model.set_params(recipe="td-s").fit(x, x[:, 0])
    assert not made
