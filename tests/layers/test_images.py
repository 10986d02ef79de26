"""Layers for images and normalisation: gradients on every backend, messages, configurations and files."""

from __future__ import annotations

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.errors import InvalidInputError, UnknownNameError
from nnbackend.layers.stack import LAYERS
from nnbackend.testing import check_gradients

IMAGE, OUTPUTS = (5, 6, 2), 3


def flat(*layers: nn.Layer) -> list[nn.Layer]:
    """These layers, then a dense one."""
    return [*layers, nn.Flatten(), nn.Dense(OUTPUTS)]


def frozen(layer: nn.Layer) -> nn.Layer:
    layer.trainable = False
    return layer


NETWORKS = {
    "relu": lambda: flat(nn.Conv2D(3, 2, activation="tanh"), nn.Conv2D(2, (1, 3), activation="relu")),
    "saved z": lambda: flat(nn.Conv2D(3, 3, activation="gelu"), nn.Conv2D(2, 2, activation="silu", use_bias=False)),
    "softmax": lambda: flat(nn.Conv2D(3, 2, activation="softmax")),
    "same": lambda: flat(nn.Conv2D(3, 3, padding="same"), nn.Conv2D(3, (2, 3), strides=(2, 1), padding="same")),
    "same, long strides": lambda: flat(nn.Conv2D(2, 1), nn.Conv2D(3, 2, strides=3, padding="same")),
    "dilation": lambda: flat(
        nn.Conv2D(2, 2, activation="tanh"),
        nn.Conv2D(3, 2, dilation_rate=(2, 3), padding=((1, 0), (2, 1)), strides=(1, 2)),
    ),
    "groups": lambda: flat(nn.Conv2D(4, 2, groups=2, activation="elu"), nn.Conv2D(6, 2, groups=2)),
    "depthwise": lambda: flat(
        nn.Conv2D(4, 1, activation="tanh"), nn.Conv2D(4, 3, groups=4), nn.Conv2D(8, 2, groups=4), nn.Conv2D(3, 1)
    ),
    "wide": lambda: flat(nn.Conv2D(10, 3, activation="tanh", padding="same"), nn.Conv2D(35, 2, strides=2)),
    "penalties": lambda: flat(nn.Conv2D(5, 2, l1=0.02, l2=0.1, activation="tanh"), nn.Conv2D(3, 2, l2=0.2)),
    "sequence": lambda: [
        nn.Reshape((12, 5)),
        nn.Conv1D(4, 3, strides=2, padding="same", activation="tanh"),
        nn.Conv1D(4, 2, dilation_rate=2, padding=(1, 0), groups=2),
        nn.Flatten(),
        nn.Dense(OUTPUTS),
    ],
    "max pools": lambda: flat(
        nn.Conv2D(3, 2, padding="same", activation="tanh"), nn.MaxPool2D(2), nn.MaxPool2D(2, 1, padding="same")
    ),
    "pools with padding": lambda: flat(
        nn.Conv2D(3, 1, activation="tanh"),
        nn.MaxPool2D((3, 2), (2, 1), padding=((1, 1), (0, 1))),
        nn.AveragePool2D(3, 1, padding=1),
        nn.L2Pool2D((2, 3), 1, padding="same"),
    ),
    "average pool": lambda: flat(nn.Conv2D(3, 2), nn.AveragePool2D(2, padding="same"), nn.Conv2D(2, 1)),
    "l2 pool": lambda: flat(nn.Conv2D(3, 2, activation="sigmoid"), nn.L2Pool2D(2)),
    "global average": lambda: [nn.Conv2D(5, 2, activation="tanh"), nn.GlobalAveragePool2D(), nn.Dense(OUTPUTS)],
    "global max": lambda: [nn.Conv2D(OUTPUTS, 2, activation="elu"), nn.GlobalMaxPool2D()],
    "batch norm": lambda: flat(nn.Conv2D(3, 2, use_bias=False), nn.BatchNormalization(), nn.Activation("tanh")),
    "batch norm first": lambda: flat(nn.BatchNormalization(), nn.Conv2D(3, 2, activation="tanh")),
    "batch norm alone": lambda: flat(nn.Conv2D(3, 2), nn.BatchNormalization(scale=False, center=False)),
    "batch norm, shift": lambda: flat(nn.Conv2D(3, 2), nn.BatchNormalization(scale=False), nn.Conv2D(2, 2)),
    "batch norm, scale": lambda: flat(nn.Conv2D(3, 2), nn.BatchNormalization(center=False), nn.Conv2D(2, 2)),
    "frozen batch norm": lambda: flat(nn.Conv2D(3, 2), frozen(nn.BatchNormalization()), nn.Activation("tanh")),
    "batch norm of rows": lambda: [
        nn.Flatten(), nn.Dense(7), nn.BatchNormalization(0.5, 1e-2), nn.Activation("tanh"), nn.Dense(OUTPUTS),
        nn.BatchNormalization(),
    ],
    "statistics of the data": lambda: flat(
        nn.Conv2D(3, 2), nn.Normalization([0.1, -0.2, 0.3], [1.0, 2.0, 0.5]), nn.Activation("tanh")
    ),
    "layer norm": lambda: flat(nn.Conv2D(4, 2), nn.LayerNormalization(), nn.Conv2D(4, 2, activation="tanh")),
    "layer norm of rows": lambda: [
        nn.Flatten(), nn.LayerNormalization(), nn.Dense(7), nn.LayerNormalization(center=False), nn.Activation("tanh"),
        nn.LayerNormalization(scale=False), nn.Dense(OUTPUTS),
    ],
    "residual": lambda: flat(
        nn.Residual([nn.Conv2D(2, 3, padding="same", activation="tanh"), nn.BatchNormalization()]),
        nn.Residual([nn.Conv2D(2, 1)]),
    ),
    "residual with projection": lambda: flat(
        nn.Residual(
            [nn.Conv2D(4, 3, padding="same", strides=2, activation="relu"), nn.Conv2D(4, 1)],
            projection=nn.Conv2D(4, 1, strides=2),
        ),
        nn.Activation("elu"),
    ),
    "residual in residual": lambda: [
        nn.Flatten(),
        nn.Dense(6, activation="tanh"),
        nn.Residual([nn.Residual([nn.Dense(6, activation="gelu")]), nn.Dense(6)]),
        nn.Residual([nn.Dropout(0.3), nn.Dense(OUTPUTS)], projection=[nn.LayerNormalization(), nn.Dense(OUTPUTS)]),
    ],
    "padding": lambda: flat(
        nn.Conv2D(3, 2, activation="tanh"), nn.ZeroPadding2D(((1, 0), (2, 3))), nn.Conv2D(2, 3, strides=2)
    ),
    "reshape": lambda: [
        nn.Conv2D(3, 2, activation="tanh"), nn.Reshape((60,)), nn.Dense(30), nn.Reshape((5, 6, 1)), nn.Conv2D(2, 3),
        nn.Reshape((24,)), nn.Dense(6), nn.Reshape((1, 2, 3)), nn.Conv2D(3, (1, 2)), nn.Flatten(),
    ],
    "frozen convolutions": lambda: flat(
        frozen(nn.Conv2D(3, 2, activation="tanh")),
        nn.Conv2D(3, 2, activation="relu"),
        frozen(nn.Conv2D(4, 2, l2=0.1)),
        frozen(nn.LayerNormalization()),
        nn.MaxPool2D(2, 1),
    ),
    "frozen residual": lambda: flat(
        nn.Conv2D(2, 1), frozen(nn.Residual([nn.Conv2D(2, 1), nn.BatchNormalization()])), nn.Conv2D(2, 2)
    ),
}  # fmt: skip


def data(rows: int = 4):
    generator = np.random.default_rng(1)
    return generator.normal(size=(rows, *IMAGE)), generator.integers(0, OUTPUTS, rows)


def make(name: str, backend="numpy", **options) -> nn.Network:
    return nn.Network(NETWORKS[name](), IMAGE, backend=backend, seed=3, **options)


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients(backend, name):
    check_gradients(make(name, backend, dtype="float64"), *data(), loss="softmax_cross_entropy", samples=6)


@pytest.mark.parametrize("name", NETWORKS)
def test_training_agrees_with_the_reference(backend, name):
    """Several steps of an optimiser with state, a shorter last batch, and predictions."""
    (x, y), trained = data(10), []
    for each in (backend, "numpy"):
        net = make(name, each, dtype="float64")
        net.fit(x, y, epochs=2, batch_size=4, loss="softmax_cross_entropy", optimizer=nn.Adam(0.01), verbose=False)
        trained.append((net.predict(x), net.get_weights()))
    np.testing.assert_allclose(trained[0][0], trained[1][0], rtol=1e-8, atol=1e-8)
    for name, array in trained[1][1].items():
        # Adam divides by the square root of gradients, which are almost 0 for a bias before a normalisation.
        np.testing.assert_allclose(trained[0][1][name], array, rtol=1e-6, atol=0.05 if "bias" in name else 1e-7)


@pytest.mark.parametrize("name", ["relu", "batch norm", "residual with projection", "layer norm"])
def test_runs_are_repeated_bit_for_bit(backend, name):
    (x, y), runs = data(9), []
    for _ in range(2):
        net = make(name, backend)
        net.fit(x, y, epochs=2, batch_size=4, loss="softmax_cross_entropy", optimizer=nn.SGD(0.1), verbose=False)
        runs.append([array.tobytes() for array in net.get_weights().values()])
    assert runs[0] == runs[1]


def test_a_frozen_layer_keeps_its_running_statistics(backend):
    x, y = data(9)
    net = make("frozen batch norm", backend)
    before = net.get_weights()
    net.fit(x, y, epochs=2, batch_size=4, loss="softmax_cross_entropy", optimizer=nn.SGD(0.1), verbose=False)
    after = net.get_weights()
    changed = {name.split(".")[1] for name, array in before.items() if not np.array_equal(array, after[name])}
    assert changed == {"0", "4"}


def test_running_statistics_are_those_of_the_batches(backend):
    x, y = data(6)
    net = nn.Network(flat(nn.BatchNormalization(0.75)), IMAGE, backend=backend, dtype="float64")
    net.train_on_batch(x, y, loss="softmax_cross_entropy", optimizer=nn.SGD(0.0))
    weights, columns = net.get_weights(), x.reshape(-1, 2)
    np.testing.assert_allclose(weights["layers.0.running_mean"], 0.25 * columns.mean(axis=0), rtol=1e-10)
    np.testing.assert_allclose(weights["layers.0.running_variance"], 0.75 + 0.25 * columns.var(axis=0), rtol=1e-10)


def test_a_single_row_is_normalised_over_its_positions(backend):
    x, y = data(1)
    net = nn.Network(flat(nn.BatchNormalization()), IMAGE, backend=backend)
    net.train_on_batch(x, y, loss="softmax_cross_entropy", optimizer=nn.SGD(0.1))
    assert all(np.isfinite(array).all() for array in net.get_weights().values())
    np.testing.assert_allclose(net.get_weights()["layers.0.running_mean"], 0.01 * x.mean(axis=(0, 1, 2)), rtol=1e-4)


def test_a_single_row_without_positions_is_the_shift(backend):
    net = nn.Network([nn.BatchNormalization(), nn.Dense(2)], 3, backend=backend, dtype="float64")
    shift, weight = np.array([0.5, -1.0, 2.0]), net.get_weights()["layers.1.weight"]
    net.set_weights({**net.get_weights(), "layers.0.shift": shift})
    loss = net.train_on_batch([[5.0, 6.0, 7.0]], [1], loss="softmax_cross_entropy", optimizer=nn.SGD(0.1))["loss"]
    outputs = shift @ weight
    np.testing.assert_allclose(loss, np.log(np.exp(outputs - outputs[1]).sum()), rtol=1e-12)
    assert all(np.isfinite(array).all() for array in net.get_weights().values())


# ---- configurations and files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_configurations_and_files_describe_the_network(name, tmp_path):
    x, _ = data()
    net = make(name)
    again = nn.Network.from_config(net.config())
    assert again.config() == net.config()
    assert [repr(layer) for layer in again.layers] == [repr(layer) for layer in net.layers]
    net.save(tmp_path / "net.npz")
    loaded = nn.Network.load(tmp_path / "net.npz", backend="numpy")
    assert loaded.config() == net.config()
    np.testing.assert_array_equal(loaded.predict(x), net.predict(x))


def test_every_layer_for_images_is_tested_here():
    import inspect
    import sys

    source = inspect.getsource(sys.modules[__name__])
    assert [kind.__name__ for kind in LAYERS.values() if f"nn.{kind.__name__}(" not in source] == [
        "MaxAbsNorm",
        "Scale",
        "ParametricActivation",
        "Embedding",
        "PeriodicEmbedding",
    ]


# ---- messages --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make_layer", "message"),
    [
        (lambda: nn.Conv2D(0, 3), "filters must be .*received 0"),
        (lambda: nn.Conv2D(2, 0), "kernel_size must be .*received 0"),
        (lambda: nn.Conv2D(2, (3, 3, 3)), r"kernel_size must be a whole number, or two of them, received \(3, 3, 3\)"),
        (lambda: nn.Conv2D(2, 3, strides=0), "strides must be .*received 0"),
        (lambda: nn.Conv2D(2, 3, strides=(1, -1)), "strides must be .*received -1"),
        (lambda: nn.Conv2D(2, 3, dilation_rate=0), "dilation_rate must be .*received 0"),
        (lambda: nn.Conv2D(2, 3, padding=-1), "padding must be .*received -1"),
        (lambda: nn.Conv2D(2, 3, padding="full"), "padding must be 'valid', 'same' or numbers, received 'full'"),
        (lambda: nn.Conv2D(2, 3, padding=(1, 2, 3)), r"padding must be a number, .*received \(1, 2, 3\)"),
        (lambda: nn.Conv2D(3, 3, groups=2), "filters must be a multiple of groups, received filters=3 and groups=2"),
        (lambda: nn.Conv2D(3, 3, groups=0), "groups must be .*received 0"),
        (lambda: nn.Conv2D(3, 3, use_bias=1), "use_bias must be True or False, received 1"),
        (lambda: nn.Conv1D(3, (3, 3)), "kernel_size must be"),
        (lambda: nn.Conv1D(3, 3, strides=0), "strides must be .*received 0"),
        (lambda: nn.MaxPool2D(2, padding=2), "padding of a pool must be smaller than its window, received padding 2"),
        (lambda: nn.AveragePool2D((3, 1), padding=1), "smaller than its window, received padding 1 for a window of 1"),
        (lambda: nn.L2Pool2D(0), "pool_size must be .*received 0"),
        (lambda: nn.MaxPool2D(2, 0), "strides must be .*received 0"),
        (lambda: nn.BatchNormalization(momentum=1.5), "momentum must be .*received 1.5"),
        (lambda: nn.BatchNormalization(epsilon=0), "epsilon must be .*received 0"),
        (lambda: nn.LayerNormalization(scale=None), "scale must be True or False, received None"),
        (lambda: nn.Residual([]), "Residual takes a list of at least one layer"),
        (lambda: nn.Residual(nn.Dense(3)), "Residual takes a list of at least one layer"),
        (lambda: nn.Reshape((0, 3)), "received"),
        (lambda: nn.ZeroPadding2D(-1), "padding must be .*received -1"),
    ],
)  # fmt: skip
def test_wrong_arguments(make_layer, message):
    with pytest.raises(InvalidInputError, match=message):
        make_layer()


def test_an_unknown_activation_is_named():
    with pytest.raises(UnknownNameError, match="did you mean 'relu'"):
        nn.Conv2D(3, 3, activation="reluu")


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (
            lambda: nn.Conv2D(2, 6),
            IMAGE,
            "Conv2D: a window of 6 does not fit into images of height 5; .*padding='same'",
        ),
        (lambda: nn.Conv2D(2, (1, 4), dilation_rate=3), IMAGE, "a window of 10 does not fit into images of width 6"),
        (lambda: nn.Conv2D(2, 9, padding=1), IMAGE, r"does not fit into images of height 5 with padding 1 \+ 1"),
        (lambda: nn.MaxPool2D(7), IMAGE, "MaxPool2D: a window of 7 does not fit into images of height 5"),
        (lambda: nn.Conv2D(6, 3, groups=3), IMAGE, "2 channels cannot be divided into 3 groups of equal size"),
        (lambda: nn.Conv2D(2, 3), (28, 28), r"for grey images, pass x\[\.\.\., None\] and input_shape=\(28, 28, 1\)"),
        (lambda: nn.MaxPool2D(2), (28, 28), r"pass x\[\.\.\., None\]"),
        (lambda: nn.GlobalAveragePool2D(), (28, 8), r"for sequences, put Reshape\(\(1, 28, 8\)\) before it"),
        (lambda: nn.ZeroPadding2D(2), (28, 28), r"pass x\[\.\.\., None\]"),
        (lambda: nn.Conv2D(2, 3), (784,), r"put Reshape\(\(height, width, channels\)\) before it"),
        (lambda: nn.Conv1D(2, 3), (28,), r"for one channel, pass x\[\.\.\., None\] and input_shape=\(28, 1\)"),
        (lambda: nn.Conv1D(2, 3), IMAGE, r"takes sequences of shape \(length, channels\), received \(5, 6, 2\)"),
        (lambda: nn.Conv1D(2, 9), (8, 9), "Conv1D: a window of 9 does not fit into sequences of length 8; [^.]*$"),
        (lambda: nn.Conv1D(2, 3), (2, 50), r"Channels come last: if \(2, 50\) has them first, give .*=\(50, 2\)$"),
        (lambda: nn.Conv2D(2, 5), (3, 32, 32), r"if \(3, 32, 32\) has them first, give input_shape=\(32, 32, 3\)$"),
        (lambda: nn.MaxPool2D(2), (1, 28, 28), r"give input_shape=\(28, 28, 1\)$"),
        (lambda: nn.Conv2D(3, 1, groups=3), (3, 32, 32), r"32 channels cannot .* give input_shape=\(32, 32, 3\)$"),
        (lambda: nn.Residual([nn.Conv2D(2, 5)]), (3, 32, 32), r"give input_shape=\(32, 32, 3\)$"),
        # Few rows, but no more channels than columns: these may well be their height.
        (lambda: nn.Conv2D(2, 5), (3, 32, 3), "or choose padding='same'$"),
        (lambda: nn.Reshape((7, 3)), IMAGE, r"have 60 elements, and \(7, 3\) has 21"),
        (lambda: nn.Residual([nn.Conv2D(4, 1)]), IMAGE, r"projection=Conv2D\(filters, 1, strides=\.\.\.\)"),
        (lambda: nn.Residual([nn.Conv2D(2, 3)]), IMAGE, r"turn \(5, 6, 2\) into \(3, 4, 2\), which cannot be added"),
        (lambda: nn.Residual([nn.Conv2D(3, 1)], projection=nn.Conv2D(4, 1)), IMAGE, "cannot be added"),
    ],
)
def test_wrong_shapes(layer, shape, message):
    with pytest.raises(InvalidInputError, match=message):
        nn.Network([layer(), nn.Flatten(), nn.Dense(2)], shape)


def test_following_the_messages_helps():
    nn.Network(flat(nn.Conv2D(2, 6, padding="same")), IMAGE)
    nn.Network(flat(nn.Conv2D(2, 3)), (28, 28, 1))
    nn.Network(flat(nn.Conv1D(2, 3)), (28, 1))
    nn.Network([nn.Conv1D(8, 3, padding="same"), nn.Reshape((1, 28, 8)), nn.GlobalAveragePool2D()], (28, 1))
    nn.Network(flat(nn.Reshape((28, 28, 1)), nn.Conv2D(2, 3)), (784,))
    nn.Network(flat(nn.Residual([nn.Conv2D(4, 1)], projection=nn.Conv2D(4, 1))), IMAGE)


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28)])
def test_shapes_that_look_channels_first_are_warned_of(shape: tuple[int, int, int]):
    size = shape[1]
    with pytest.warns(UserWarning, match=rf"make it \({size}, {size}, {shape[0]}\) and give np.moveaxis\(x, 1, -1\)$"):
        nn.Network([nn.Conv2D(4, 1), nn.Flatten(), nn.Dense(2)], shape, backend="numpy")


@pytest.mark.parametrize(
    ("shape", "layer"),
    [
        ((3, 32, 31), nn.Conv2D(4, 1)),
        ((5, 8, 8), nn.Conv2D(4, 1)),
        ((3, 32, 32), nn.Flatten()),
        ((32, 32, 3), nn.Conv2D(4, 1)),
    ],
)
def test_other_shapes_are_not(shape: tuple[int, int, int], layer: nn.Layer):
    nn.Network([layer, nn.Flatten(), nn.Dense(2)], shape, backend="numpy")
