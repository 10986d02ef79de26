"""`find_learning_rate`: the suggestion suits the problem, and nothing of the caller's changes."""

from __future__ import annotations

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.errors import InvalidInputError
from tests.helpers import same_weights

RNG = np.random.default_rng(4)
X = RNG.normal(size=(200, 5)).astype(np.float32)
Y = (X @ RNG.normal(size=(5, 1)) + 0.01 * RNG.normal(size=(200, 1))).astype(np.float32)


def network(backend="numpy", dtype="float32"):
    return nn.Network([nn.Dense(8, activation="tanh"), nn.Dense(1)], 5, backend=backend, dtype=dtype, seed=2)


@pytest.mark.parametrize("optimizer", [nn.SGD(1e-9, momentum=0.9), nn.Adam()], ids=["sgd", "adam"])
def test_training_with_the_suggestion_learns(backend, optimizer):
    net = network(backend)
    suggestion, rates, losses = nn.find_learning_rate(net, X, Y, loss="mse", optimizer=optimizer)
    assert rates[0] < suggestion < rates[-1]
    assert losses.shape == rates.shape
    before = net.evaluate(X, Y, loss="mse")["loss"]
    made = type(optimizer)(suggestion)
    net.fit(X, Y, epochs=10, loss="mse", optimizer=made, verbose=False)
    assert net.evaluate(X, Y)["loss"] < 0.2 * before


def test_nothing_changes(backend):
    net, optimizer = network(backend), nn.Adam(0.01)
    net.fit(X, Y, epochs=1, loss="mse", optimizer=optimizer, verbose=False)
    weights, steps = net.get_weights(), net.steps_trained
    slots = {name: net.backend.to_host(slot).tobytes() for name, slot in net.optimizer_state.slots.items()}
    found = nn.find_learning_rate(net, X, Y, optimizer=optimizer, sample_weight=np.linspace(1, 2, 200), clip_norm=1.0)
    assert optimizer.learning_rate == 0.01
    assert net.optimizer is optimizer
    assert net.steps_trained == steps
    assert all(np.array_equal(weights[name], array) for name, array in net.get_weights().items())
    assert slots == {name: net.backend.to_host(slot).tobytes() for name, slot in net.optimizer_state.slots.items()}
    again = nn.find_learning_rate(net, X, Y, optimizer=optimizer, sample_weight=np.linspace(1, 2, 200), clip_norm=1.0)
    assert again.suggestion == found.suggestion
    np.testing.assert_array_equal(again.losses, found.losses)


def test_rates_grow_by_a_constant_factor():
    found = nn.find_learning_rate(network(), X, Y, loss="mse", lowest=1e-4, highest=1e-1, steps=31)
    np.testing.assert_allclose(found.rates, 1e-4 * 1000 ** (np.arange(31) / 30))
    assert len(found.losses) == 31


def test_losses_are_those_of_a_training_with_these_rates():
    """With the first, tiny rates, they are the loss of the network as it is."""
    net = network(dtype="float64")
    found = nn.find_learning_rate(net, X, Y, loss="mse", batch_size=200)
    assert found.losses[0] == pytest.approx(net.evaluate(X, Y, loss="mse")["loss"], rel=1e-4)


def test_it_ends_where_the_loss_has_grown():
    found = nn.find_learning_rate(network(), X, Y, loss="mse", optimizer="sgd", highest=1e6)
    assert found.rates[-1] < 1e5
    assert np.isfinite(found.losses).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lowest": 0}, "lowest must be above 0"),
        ({"lowest": 1.0, "highest": 0.1}, "lowest must be below highest"),
        ({"steps": 5}, "steps must be at least 10"),
        ({"epochs": 3}, "find_learning_rate"),
        ({"lowest": 1e-30, "highest": 1e-29}, "does not fall at any learning rate"),
        ({"loss": None}, "training needs a loss"),
    ],
)
def test_bad_arguments_are_refused(options, message):
    net = network()
    with pytest.raises(InvalidInputError, match=message):
        nn.find_learning_rate(net, X, Y, **{"loss": "mse", **options})
    assert same_weights(net, network())


def test_the_picture_shows_rates_losses_and_the_suggestion():
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    found = nn.find_learning_rate(network(), X, Y, loss="mse")
    ax = nn.plotting.plot_learning_rates(found)
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), found.rates)
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), found.losses)
    assert ax.get_legend().get_texts()[0].get_text() == f"suggestion: {found.suggestion:.2g}"
    assert ax.get_xscale() == "log"
    with pytest.raises(InvalidInputError, match="find_learning_rate returned"):
        nn.plotting.plot_learning_rates(found.rates)


def test_nothing_is_suggested_from_noise():
    """With few steps, the losses of the first ones say little about how much losses differ."""
    for seed in range(4):
        draw = np.random.default_rng(seed)
        net = nn.Network([nn.Dense(8, "relu"), nn.Dense(1)], 4, backend="numpy", seed=seed)
        with pytest.raises(InvalidInputError, match="does not fall at any learning rate"):
            nn.find_learning_rate(
                net, draw.normal(size=(300, 4)), draw.normal(size=(300, 1)), loss="mse", steps=10, highest=1e-3
            )
