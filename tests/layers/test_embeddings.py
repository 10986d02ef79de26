"""`Embedding`, `PeriodicEmbedding` and `ParametricActivation`; `test_gradients.py` has their gradients."""

from __future__ import annotations

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.errors import InvalidInputError, UnknownNameError
from tests.helpers import same_weights

GENERATOR = np.random.default_rng(0)
#: Two numbers, then a column with four categories and one with three; some are missing.
X = np.concatenate(
    [GENERATOR.normal(size=(40, 2)), GENERATOR.integers(-1, 4, (40, 1)), GENERATOR.integers(0, 3, (40, 1))], axis=1
)
Y = GENERATOR.integers(0, 3, 40)


def layers():
    return [
        nn.Embedding(4, 3, columns=2, learning_rate_factor=0.5),
        nn.PeriodicEmbedding(2, waves=5, deviation=0.4),
        nn.Dense(9),
        nn.ParametricActivation("mish", initializer=nn.Uniform(0.2, 0.9)),
        nn.Dense(3),
    ]


def network(backend, dtype="float32"):
    return nn.Network(layers(), 4, backend, seed=3, dtype=dtype)


def train(net, **options):
    options = {"epochs": 2, "batch_size": 16, "loss": "softmax_cross_entropy", "verbose": False, **options}
    return net.fit(X, Y, optimizer=nn.Adam(0.02), **options)


def test_every_backend_trains_alike(backend):
    net, reference = network(backend), network("numpy", "float64")
    for each in (net, reference):
        train(each)
    for name, array in reference.get_weights().items():
        np.testing.assert_allclose(net.get_weights()[name], array, rtol=5e-3, atol=1e-4, err_msg=name)
    np.testing.assert_allclose(net.predict(X), reference.predict(X), atol=1e-3)
    again = network(backend)
    train(again)
    assert same_weights(again, net)


def test_the_formulas(backend):
    net = nn.Network(layers()[:2], 4, backend, seed=3)
    weights = net.get_weights()
    vectors = weights["layers.0.vectors"]
    assert vectors.shape == (2, 4, 3)
    found = [np.where(c[:, None] < 0, 0, vectors[j, c.astype(int)]) for j, c in enumerate(X.T[2:])]
    parts = []
    for j, x in enumerate(X.T[:2]):
        names = ("frequencies", "phases", "weight", "bias")
        frequencies, phases, weight, bias = (weights[f"layers.1.{name}"][j] for name in names)
        waves = np.cos(2 * np.pi * frequencies * x[:, None] + phases)
        parts += [x[:, None], waves @ weight + bias]
    expected = np.concatenate([*parts, *found], axis=1)
    assert net.output_shape == (14,)
    np.testing.assert_allclose(net.predict(X), expected, atol=2e-5)


def test_codes_without_a_category_have_zeros(backend):
    net = nn.Network([nn.Embedding(3, 2)], 1, backend, seed=0)
    codes = np.array([[-1], [-0.5], [3], [1e30], [-1e30], [2.75], [2]])
    found = net.predict(codes)
    assert (found[:5] == 0).all()
    assert (found[5] == found[6]).all()
    assert (found[6] != 0).all()


def test_a_share_of_one_is_the_activation_and_of_zero_the_identity(backend):
    x = np.linspace(-3, 3, 20).reshape(5, 4)
    for activation in ("selu", "mish", "leaky_relu"):
        net = nn.Network([nn.ParametricActivation(activation, initializer=[1, 0, 1, 0])], 4, backend)
        plain = nn.Network([nn.Activation(activation)], 4, backend).predict(x)
        np.testing.assert_allclose(net.predict(x), np.where([True, False] * 2, plain, x), atol=1e-6)


def test_only_vectors_of_the_batch_change_with_sgd(backend):
    net = network(backend)
    before = net.get_weights()["layers.0.vectors"]
    rows = X[X[:, 2] == 1]
    options = {"epochs": 1, "loss": "softmax_cross_entropy", "optimizer": nn.SGD(0.1), "verbose": False}
    net.fit(rows, np.arange(len(rows)) % 3, **options)
    changed = (net.get_weights()["layers.0.vectors"] != before).any(axis=2)
    assert changed[0].tolist() == [False, True, False, False]


def test_files_and_texts(tmp_path):
    net = network("numpy")
    train(net)
    net.save(tmp_path / "model")
    found = nn.Network.load(tmp_path / "model", "numpy")
    assert same_weights(found, net)
    assert repr(found.layers[0]) == repr(net.layers[0])
    assert "learning_rate_factor=0.5" in repr(found.layers[0])
    assert found.layers[1].config() == {"columns": 2, "units": 4, "waves": 5, "deviation": 0.4}
    for each in (found, net):
        train(each)
    assert same_weights(found, net)
    assert "PeriodicEmbedding" in str(net.summary())


def test_errors():
    with pytest.raises(InvalidInputError, match="stands after a layer that learns"):
        train(nn.Network([nn.Scale(), *layers()], 4, "numpy"))
    with pytest.raises(InvalidInputError, match="Embedding embeds 2 columns, but samples have only 1"):
        nn.Network(layers(), 1, "numpy")
    with pytest.raises(InvalidInputError, match=r"PeriodicEmbedding takes flat samples, received shape \(2, 3\)"):
        nn.Network([nn.PeriodicEmbedding()], (2, 3), "numpy")
    with pytest.raises(InvalidInputError, match="at least 2, received 1"):
        nn.PeriodicEmbedding(units=1)
    with pytest.raises(InvalidInputError, match="deviation"):
        nn.PeriodicEmbedding(deviation=-1)
    with pytest.raises(InvalidInputError, match="categories"):
        nn.Embedding(0)
    for name in ("softmax", "identity", None):
        with pytest.raises(InvalidInputError, match="mixes an activation of single numbers"):
            nn.ParametricActivation(name)
    with pytest.raises(UnknownNameError):
        nn.ParametricActivation("sleu")


def test_waves_are_those_of_any_angle(backend):
    """All quadrants, and angles of which the remainder of a division by a quarter turn is hard to compute."""
    net = nn.Network([nn.PeriodicEmbedding(1, units=2, waves=2)], 1, backend=backend, dtype="float64", input_scale=1.0)
    net.set_weights(
        {
            "layers.0.frequencies": np.ones((1, 2)),
            "layers.0.phases": np.zeros((1, 2)),
            "layers.0.weight": np.array([[[1.0], [0.0]]]),
            "layers.0.bias": np.zeros((1, 1)),
        }
    )
    x = np.concatenate([np.linspace(-2, 2, 41), [3e3, 2e4, -1e7, 1e12, -1e15, 1e-300]])[:, None]
    for rows in (x, x[:41], *x[:, None, :]):
        found = net.predict(rows)
        np.testing.assert_array_equal(found[:, 0], rows[:, 0])
        np.testing.assert_allclose(found[:, 1], np.cos(2 * np.pi * rows[:, 0]), rtol=0, atol=1e-14)
