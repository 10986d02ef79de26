"""Exported layers for images compute in ONNX Runtime what the network predicts."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.errors import InvalidInputError
from nnbackend.interop.onnx import export
from tests.helpers import Shift
from tests.interop.exported import check

onnx = pytest.importorskip("onnx", reason='needs the package onnx: pip install -e ".[test]"')
pytest.importorskip("onnxruntime", reason='needs the package onnxruntime: pip install -e ".[test]"')

#: Neither side divides by the strides.
SHAPE = (7, 8, 4)
X = np.random.default_rng(0).normal(size=(5, *SHAPE))
PADDINGS = ["valid", "same", 1, ((1, 0), (0, 1))]
dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])


def network(layers, dtype="float32", shape=SHAPE):
    """A network whose parameters and state are random, variances positive."""
    net = nn.Network(layers, shape, backend="numpy", dtype=dtype, seed=1)
    generator = np.random.default_rng(2)
    net.set_weights(
        {
            name: generator.uniform(0.5, 2, array.shape) if "variance" in name else generator.normal(size=array.shape)
            for name, array in net.get_weights().items()
        }
    )
    return net


@dtypes
@pytest.mark.parametrize("strides", [1, 2, (2, 3)])
@pytest.mark.parametrize("padding", PADDINGS, ids=str)
def test_convolutions(tmp_path, padding, strides, dtype):
    for options in ({}, {"dilation_rate": 2}, {"groups": 2, "use_bias": False}, {"groups": 4, "activation": "tanh"}):
        layers = [nn.Conv2D(8, (3, 2), padding=padding, strides=strides, bias_initializer="normal", **options)]
        check(network(layers, dtype), X.astype(dtype), tmp_path / "model.onnx")


@dtypes
@pytest.mark.parametrize("strides", [None, 1, 2, (3, 2)])
@pytest.mark.parametrize("padding", PADDINGS, ids=str)
@pytest.mark.parametrize("pool", [nn.MaxPool2D, nn.AveragePool2D, nn.L2Pool2D])
def test_pools(tmp_path, pool, padding, strides, dtype):
    # Negative numbers only: the padding must not be the largest.
    for size in (2, (3, 2)):
        check(network([pool(size, strides, padding=padding)], dtype), -1 - abs(X.astype(dtype)), tmp_path / "m.onnx")


@dtypes
@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("padding", ["valid", "same", 2, (0, 1)], ids=str)
def test_convolutions_of_sequences(tmp_path, padding, strides, dtype):
    for options in ({}, {"groups": 2}, {"dilation_rate": 2}):
        layers = [nn.Conv1D(6, 3, padding=padding, strides=strides, activation="relu", **options)]
        check(network(layers, dtype, (9, 4)), X[:, 0].repeat(2, 1)[:, :9].astype(dtype), tmp_path / "model.onnx")


@dtypes
@pytest.mark.parametrize(
    "layers",
    [
        lambda: [nn.GlobalAveragePool2D()],
        lambda: [nn.GlobalMaxPool2D()],
        lambda: [nn.BatchNormalization()],
        lambda: [nn.BatchNormalization(epsilon=0.3, center=False)],
        lambda: [nn.BatchNormalization(scale=False)],
        lambda: [nn.Flatten(), nn.BatchNormalization()],
        lambda: [nn.LayerNormalization()],
        lambda: [nn.LayerNormalization(epsilon=0.3, center=False, scale=False)],
        lambda: [nn.Flatten(), nn.LayerNormalization()],
        lambda: [nn.ZeroPadding2D(((1, 2), (0, 3)))],
        lambda: [nn.Reshape((4, 8, 7)), nn.Conv2D(3, 3), nn.Reshape((12, 3)), nn.Conv1D(2, 2)],
        lambda: [nn.Conv2D(4, 3), nn.LayerNormalization(), nn.ZeroPadding2D(1), nn.GlobalMaxPool2D()],
        lambda: [nn.Conv2D(4, 3, activation="softmax"), nn.GlobalAveragePool2D(), nn.Activation("softmax")],
        lambda: [nn.Residual([nn.Conv2D(4, 3, padding="same"), nn.BatchNormalization()]), nn.Activation("relu")],
        lambda: [nn.Residual([nn.Conv2D(6, 3, strides=2, padding="same")], nn.Conv2D(6, 1, strides=2))],
        lambda: [nn.Conv2D(4, 3), nn.Scale(initializer="normal"), nn.Flatten(), nn.Scale(initializer="normal")],
        lambda: [nn.Conv2D(4, 3), nn.ParametricActivation("mish", initializer="normal"), nn.Flatten()],
        lambda: [nn.Flatten(), nn.ParametricActivation("selu", initializer="normal")],
        lambda: [nn.Flatten(), nn.Embedding(2, 3, columns=5), nn.PeriodicEmbedding(7, units=3, waves=5)],
        lambda: [nn.GlobalMaxPool2D(), nn.PeriodicEmbedding(deviation=1.0)],
        lambda: [nn.GlobalMaxPool2D(), nn.Embedding(1, 2, columns=4)],
        lambda: [nn.Residual([nn.Activation("tanh")]), nn.Residual([nn.LayerNormalization()])],
        lambda: [nn.Flatten(), nn.Residual([nn.Dense(9), nn.Residual([nn.Dense(9)])], nn.Dense(9))],
    ],
)
def test_other_layers(tmp_path, layers, dtype):
    check(network(layers(), dtype), X.astype(dtype), tmp_path / "model.onnx")


def test_samples_are_transposed_at_the_borders_of_the_image_part_only(tmp_path):
    layers = [
        nn.Reshape((28, 28, 1)),
        nn.Conv2D(4, 5, activation="relu"),
        nn.MaxPool2D(2),
        nn.Residual([nn.BatchNormalization(), nn.Activation("relu"), nn.Conv2D(4, 3, padding="same")]),
        nn.ZeroPadding2D(1),
        nn.LayerNormalization(),
        nn.Conv2D(6, 3, strides=2, activation="softmax"),
        nn.AveragePool2D(2),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Dense(10),
    ]
    net = network(layers, shape=784)
    net.input_scale = 1 / 255
    images = np.random.default_rng(0).integers(0, 255, (6, 784)).astype(np.uint8)
    check(net, images, tmp_path / "model.onnx", "uint8")
    operators = Counter(node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node)
    assert operators["Transpose"] == 2
    assert operators["Conv"] == 3
    # A residual connection around images that come with their channels last: one transpose serves both paths.
    export(network([nn.Residual([nn.Conv2D(4, 3, padding="same")])]), tmp_path / "residual.onnx")
    operators = Counter(node.op_type for node in onnx.load(tmp_path / "residual.onnx").graph.node)
    assert operators == {"Conv": 1, "Transpose": 2, "Add": 1}


@dtypes
@pytest.mark.parametrize(
    ("layers", "left"),
    [
        ([nn.Conv2D(6, 3, use_bias=False), nn.BatchNormalization()], 0),
        ([nn.Conv2D(4, 2, groups=2), nn.BatchNormalization(scale=False), nn.Activation("relu")], 0),
        ([nn.Residual([nn.Conv2D(4, 1), nn.BatchNormalization(center=False)]), nn.BatchNormalization()], 1),
        ([nn.Conv2D(4, 2, activation="tanh"), nn.BatchNormalization()], 1),
        ([nn.Flatten(), nn.Dense(5), nn.BatchNormalization(), nn.BatchNormalization()], 1),
    ],
    ids=repr,
)
def test_batch_normalisation_becomes_part_of_the_layer_before_it(tmp_path, layers, left, dtype):
    layers = [nn.layers.layers_from_config(nn.layers.layers_config([layer]))[0] for layer in layers]
    net = network(layers, dtype)
    before = net.get_weights()
    check(net, X.astype(dtype), tmp_path / "model.onnx")
    assert all(np.array_equal(array, before[name]) for name, array in net.get_weights().items())
    initializers = [each.name for each in onnx.load(tmp_path / "model.onnx").graph.initializer]
    assert sum(name.endswith("running_mean") for name in initializers) == left


@dtypes
def test_softmax_of_the_loss_is_over_all_outputs_of_an_image(tmp_path, dtype):
    net = network([nn.Conv2D(3, 3)], dtype)
    net.set_loss("softmax_cross_entropy")
    check(net, X.astype(dtype) / 10, tmp_path / "model.onnx")


def test_batch_normalisation_stays_alone_if_the_product_overflows(tmp_path):
    net = nn.Network([nn.Dense(2, use_bias=False), nn.BatchNormalization(), nn.Dense(1)], 3, backend="numpy")
    weights = net.get_weights()
    large = {"layers.0.weight": np.full((3, 2), 1e20), "layers.1.scale": np.full(2, 1e20)}
    net.set_weights({**weights, **large})
    export(net, tmp_path / "model.onnx")
    arrays = [onnx.numpy_helper.to_array(each) for each in onnx.load(tmp_path / "model.onnx").graph.initializer]
    assert all(np.isfinite(array).all() for array in arrays)
    check(net, np.full((2, 3), 1e-20, np.float32), tmp_path / "model.onnx")


def test_a_user_defined_layer_in_a_residual_is_named(tmp_path):
    net = nn.Network([nn.Residual([nn.Dense(6), Shift(2)])], 6, backend="numpy")
    with pytest.raises(InvalidInputError, match=r"^layers\[0\]\.layers\[1\] is .*, a user-defined layer"):
        export(net, tmp_path / "model.onnx")
