"""`Normalization`: the statistics of the data that it was adapted to, in training, files and exports."""

from __future__ import annotations

import copy
import shutil

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.errors import InvalidInputError
from nnbackend.testing import check_gradients
from tests.helpers import images, same_weights
from tests.interop import compiled_c, exported

RNG = np.random.default_rng(3)
X = RNG.normal(size=(60, 4)) * [1.0, 100.0, 0.01, 0.0] + [5.0, -1e4, 0.0, 7.0]
Y = np.arange(60) % 3
STANDARD = (X - X.mean(axis=0)) / [X[:, 0].std(), X[:, 1].std(), X[:, 2].std(), 1.0]


def network(backend="numpy", dtype="float32", first=None):
    first = nn.Normalization().adapt(X) if first is None else first
    return nn.Network([first, nn.Dense(6, activation="tanh"), nn.Dense(3)], 4, backend=backend, dtype=dtype, seed=1)


def plain(backend="numpy", dtype="float32"):
    """A network without the layer, with the same weights."""
    net = nn.Network([nn.Dense(6, activation="tanh"), nn.Dense(3)], 4, backend=backend, dtype=dtype, seed=1)
    weights = network(backend, dtype).get_weights()
    net.set_weights({name: weights[name.replace(".1.", ".2.").replace(".0.", ".1.")] for name in net.get_weights()})
    return net


@pytest.mark.float64
def test_it_trains_like_a_network_on_standardised_rows(backend):
    net, other = network(backend, "float64"), plain(backend, "float64")
    options = {"loss": "softmax_cross_entropy", "epochs": 2, "batch_size": 16, "verbose": False}
    net.fit(X, Y, **options)
    other.fit(STANDARD, Y, **options)
    np.testing.assert_allclose(net.predict(X), other.predict(STANDARD), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(net.get_weights()["layers.0.mean"], X.mean(axis=0))
    np.testing.assert_allclose(net.get_weights()["layers.0.variance"], [*X[:, :3].var(axis=0), 1.0])


@pytest.mark.parametrize("rows", [3, 10, 1000])
def test_a_constant_feature_becomes_zero_although_its_mean_is_rounded(rows):
    x = np.column_stack([np.full(rows, 0.1), np.arange(rows), np.full(rows, 1e6 + 0.1)])
    layer = nn.Normalization().adapt(x)
    np.testing.assert_array_equal(layer.mean[[0, 2]], x[0, [0, 2]])
    np.testing.assert_array_equal(layer.variance[[0, 2]], 1)
    net = nn.Network([layer, nn.Dense(3, weight_initializer=np.eye(3))], 3, backend="numpy", dtype="float64")
    np.testing.assert_array_equal(net.predict(x)[:, [0, 2]], 0)
    # What is another number by rounding stays near it.
    assert np.abs(net.predict(x.astype(np.float32))[:, 0]).max() < 1e-8


def test_a_variance_of_zero_is_refused():
    """Dividing by it would give finite predictions behind a tanh."""
    tiny = nn.Normalization().adapt(X * [1.0, 1e-30, 1.0, 1.0])
    assert np.isfinite(network(dtype="float64", first=tiny).predict(X)).all()
    with pytest.raises(
        InvalidInputError, match=r"layers\.0\.variance must be above 0 in float32, but is 0 at 1; .*float64"
    ):
        network(first=tiny)
    net = network()
    with pytest.raises(
        InvalidInputError, match=r"layers\.0\.variance must be above 0 in float32, but is 0 at 3; give 1"
    ):
        net.set_weights({"layers.0.variance": X.var(axis=0)}, partial=True)
    np.testing.assert_allclose(net.get_weights()["layers.0.variance"][3], 1.0)


@pytest.mark.float64
def test_gradients_pass_through_it(backend):
    layers = [nn.Dense(5, activation="tanh"), nn.Normalization(np.arange(5), np.arange(1, 6) / 2), nn.Dense(3)]
    net = nn.Network(layers, 4, backend=backend, dtype="float64", seed=1)
    check_gradients(net, STANDARD[:6], Y[:6], loss="softmax_cross_entropy", samples=6)


def test_it_is_in_files_copies_and_configurations(backend, tmp_path):
    net = network(backend)
    net.fit(X, Y, epochs=1, loss="softmax_cross_entropy", verbose=False)
    net.save(tmp_path / "model")
    loaded = nn.Network.load(tmp_path / "model", backend=backend)
    for same in (loaded, copy.deepcopy(net), nn.Network.from_config(net.config(), backend)):
        np.testing.assert_array_equal(same.get_weights()["layers.0.mean"], net.get_weights()["layers.0.mean"])
    assert same_weights(loaded, net)
    np.testing.assert_array_equal(loaded.predict(X), net.predict(X))


def test_channels_of_images_have_statistics_of_their_own(backend):
    x = np.random.default_rng(1).integers(0, 256, (20, 4, 4, 2)).astype(np.uint8)
    layer = nn.Normalization().adapt(x)
    np.testing.assert_allclose(layer.mean, (x / 255).mean(axis=(0, 1, 2)))
    np.testing.assert_allclose(layer.variance, (x / 255).var(axis=(0, 1, 2)))
    net = nn.Network([layer, nn.Flatten(), nn.Dense(32, weight_initializer=np.eye(32))], (4, 4, 2), backend=backend)
    standard = (x / 255 - layer.mean) / np.sqrt(layer.variance)
    np.testing.assert_allclose(net.predict(x), standard.reshape(20, 32), rtol=1e-4, atol=1e-5)


def test_flat_images_are_scaled_as_networks_scale_them():
    x, _ = images()
    np.testing.assert_allclose(nn.Normalization().adapt(x).mean, x.mean(axis=0) / 255)
    np.testing.assert_allclose(nn.Normalization().adapt(np.asarray(x)).mean, x.mean(axis=0))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_exports_standardise_their_inputs(tmp_path, dtype):
    image = np.random.default_rng(1).normal(3, 2, (5, 4, 4, 2)).astype(dtype)
    layers = [nn.Normalization().adapt(image), nn.Conv2D(3, 2), nn.Flatten(), nn.Dense(3)]
    for net, x in (
        (network(dtype=dtype), X[:5].astype(dtype)),
        (nn.Network(layers, (4, 4, 2), backend="numpy", dtype=dtype), image),
    ):
        if shutil.which("gcc"):
            compiled_c.check(net, x, tmp_path / "model.h")
        pytest.importorskip("onnxruntime", reason="runs ONNX models")
        exported.check(net, x, tmp_path / "model.onnx")


def test_other_libraries_get_it_or_say_why_not():
    net = network()
    state = nn.interop.torch.state_dict(net, tensors=False)
    np.testing.assert_array_equal(state["0.running_mean"], net.get_weights()["layers.0.mean"])
    np.testing.assert_array_equal(state["0.running_var"], net.get_weights()["layers.0.variance"])
    other = network(first=nn.Normalization(np.zeros(4), np.ones(4)))
    nn.interop.torch.load_state_dict(other, {**state, "0.num_batches_tracked": 3})
    assert same_weights(net, other)
    with pytest.raises(InvalidInputError, match=r"layers\.0 is a Normalization"):
        nn.interop.keras.get_weights(net)


def test_a_layer_is_adapted_before_its_network_is_made():
    layer = nn.Normalization()
    with pytest.raises(InvalidInputError, match=r"call adapt\(x\) with the training rows"):
        network(first=layer)
    layer.adapt(X[:30])
    layer.adapt(X)
    network(first=layer)
    with pytest.raises(InvalidInputError, match="belongs to a network"):
        layer.adapt(X)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Normalization(mean=[0.0]), "both mean and variance"),
        (lambda: nn.Normalization([0.0], [1.0, 1.0]), "must have one shape"),
        (lambda: nn.Normalization([0.0], [-1.0]), "must not be negative"),
        (lambda: nn.Normalization([np.nan], [1.0]), "finite numbers"),
        (lambda: nn.Normalization().adapt(X[:0]), "received shape"),
        (lambda: nn.Normalization().adapt(X[:, 0]), "received shape"),
        (lambda: nn.Normalization().adapt(np.full((3, 2), np.inf)), "NaN, infinite"),
        (lambda: network(first=nn.Normalization([0.0], [1.0])), "mean of 1 features"),
    ],
)
def test_bad_statistics_are_refused(make, message):
    with np.errstate(all="ignore"), pytest.raises(InvalidInputError, match=message):
        make()
