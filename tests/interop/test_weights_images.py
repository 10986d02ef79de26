"""Weights of networks for images, to and from PyTorch and Keras."""

from __future__ import annotations

import os

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.errors import InvalidInputError
from nnbackend.interop import keras, torch
from tests.helpers import Shift, same_weights

SHAPE = (9, 8, 2)


def layers():
    """Every layer with weights, and a Dense layer after Flatten."""
    return [
        nn.Conv2D(4, (3, 2), groups=2, activation="relu"),
        nn.BatchNormalization(),
        nn.Residual(
            [nn.Conv2D(6, 3, padding="same"), nn.BatchNormalization(scale=False)], nn.Conv2D(6, 1, use_bias=False)
        ),
        nn.LayerNormalization(center=False),
        nn.MaxPool2D(2),
        nn.Flatten(),
        nn.BatchNormalization(center=False),
        nn.Dropout(0.5),
        nn.Dense(5, activation="tanh"),
        nn.Dense(3),
    ]


def network(given=None, shape=SHAPE, dtype="float32", seed=0):
    """A network whose parameters and state are random, variances positive."""
    net = nn.Network(layers() if given is None else given, shape, backend="numpy", dtype=dtype, seed=seed)
    generator = np.random.default_rng(seed)
    net.set_weights({name: generator.uniform(0.5, 1.5, array.shape) for name, array in net.get_weights().items()})
    return net


def test_a_state_dict_of_every_layer():
    net = network()
    state = torch.state_dict(net, tensors=False)
    assert {name: array.shape for name, array in state.items()} == {
        "0.weight": (4, 1, 3, 2), "0.bias": (4,),
        "2.weight": (4,), "2.bias": (4,), "2.running_mean": (4,), "2.running_var": (4,),
        "3.layers.0.weight": (6, 4, 3, 3), "3.layers.0.bias": (6,),
        "3.layers.1.weight": (6,), "3.layers.1.bias": (6,), "3.layers.1.running_mean": (6,),
        "3.layers.1.running_var": (6,),
        "3.projection.0.weight": (6, 4, 1, 1),
        "4.weight": (6,),
        "7.weight": (54,), "7.bias": (54,), "7.running_mean": (54,), "7.running_var": (54,),
        "9.weight": (5, 54), "9.bias": (5,), "11.weight": (3, 5), "11.bias": (3,),
    }  # fmt: skip
    ours = net.get_weights()
    assert (state["3.layers.1.weight"] == 1).all()
    assert (state["7.bias"] == 0).all()
    np.testing.assert_array_equal(state["0.weight"], ours["layers.0.weight"].transpose(3, 2, 0, 1))
    # PyTorch's features are channel by channel: the second is the next column of the first channel.
    np.testing.assert_array_equal(state["9.weight"][:, 1], ours["layers.8.weight"][6])
    np.testing.assert_array_equal(state["7.running_mean"][1], ours["layers.6.running_mean"][6])


def test_state_dicts_and_lists_round_trip():
    source = network()
    names = [f"part{index}" for index in range(9)]
    for options in ({}, {"names": names}):
        target = network(seed=1)
        state = torch.state_dict(source, tensors=False, **options)
        torch.load_state_dict(target, {**state, f"{names[1] if options else 2}.num_batches_tracked": 7}, **options)
        assert same_weights(target, source)
    target = network(seed=1)
    keras.set_weights(target, keras.get_weights(source))
    assert same_weights(target, source)


def test_a_list_has_state_with_its_layer():
    shapes = [array.shape for array in keras.get_weights(network([nn.Conv1D(4, 3), nn.BatchNormalization()], (7, 2)))]
    assert shapes == [(3, 2, 4), (4,), (4,), (4,), (4,), (4,)]
    with pytest.raises(InvalidInputError, match=r"weights\[5\] \(moving_variance\).* list of 0"):
        keras.set_weights(network([nn.Conv1D(4, 3), nn.BatchNormalization()], (7, 2)), [])
    net = network([nn.Conv1D(4, 3)], (7, 2))
    with pytest.raises(InvalidInputError, match=r"shape \(3, 2, 4\), \(length, channels / groups, filters\), for"):
        keras.set_weights(net, [np.ones((1, 3, 2, 4)), np.ones(4)])


def test_frozen_layers_keep_their_place_in_a_list():
    layers = [nn.Dense(3, trainable=False), nn.Dense(2)]
    assert [array.shape for array in keras.get_weights(network(layers, 4))] == [(4, 3), (3,), (3, 2), (2,)]


def test_running_variances_are_converted_for_a_batch_size():
    net = network(dtype="float64")
    copied = torch.state_dict(net, tensors=False)
    converted = torch.state_dict(net, tensors=False, batch_size=5)
    # 5 rows of 7 x 7 positions, and of flat features.
    np.testing.assert_allclose(converted["2.running_var"], copied["2.running_var"] * 245 / 244, rtol=1e-15)
    np.testing.assert_allclose(converted["7.running_var"], copied["7.running_var"] * 5 / 4, rtol=1e-15)
    np.testing.assert_array_equal(converted["2.running_mean"], copied["2.running_mean"])
    target = network(dtype="float64", seed=1)
    torch.load_state_dict(target, converted, batch_size=5)
    for name, array in net.get_weights().items():
        np.testing.assert_allclose(target.get_weights()[name], array, rtol=1e-15)
    with pytest.raises(InvalidInputError, match=r"layers\[6\]: one value has no unbiased variance"):
        torch.state_dict(net, tensors=False, batch_size=1)


def test_samples_that_reach_flatten_directly_are_the_same_for_both():
    net = network([nn.Flatten(), nn.Dense(3)])
    np.testing.assert_array_equal(
        torch.state_dict(net, tensors=False)["1.weight"].T, net.get_weights()["layers.1.weight"]
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([nn.Conv2D(3, 2), nn.Flatten(), nn.Reshape((7, 24)), nn.Conv1D(2, 2)], r"^layers\[2\], Reshape.* shape of"),
        ([nn.Conv2D(3, 2), nn.Reshape((56, 3)), nn.Conv1D(2, 2)], r"^layers\[1\], Reshape.* another order"),
        ([nn.Flatten(), nn.Dense(18), nn.Reshape((3, 3, 2)), nn.Conv2D(2, 2)], r"^layers\[2\], Reshape"),
        ([nn.Conv2D(3, 2), nn.Flatten(), nn.Residual([nn.Dense(168)])], r"^layers\[2\], Residual.* two different"),
        ([nn.Conv2D(3, 2), nn.Flatten(), Shift(1), nn.Dense(2)], r"^layers\[2\], Shift.* is user-defined"),
    ],
)
def test_features_whose_order_is_unknown_are_refused(given, message):
    with pytest.raises(InvalidInputError, match=message):
        torch.state_dict(network(given), tensors=False)


def test_a_parameter_that_the_network_lacks_must_be_constant():
    net = network()
    state = torch.state_dict(net, tensors=False)
    with pytest.raises(InvalidInputError, match=r"3\.layers\.1\.weight must be 1 everywhere, .*scale=False"):
        torch.load_state_dict(net, {**state, "3.layers.1.weight": np.full(6, 2.0)})
    with pytest.raises(InvalidInputError, match=r"lacks 3\.layers\.1\.weight"):
        torch.load_state_dict(net, {name: value for name, value in state.items() if name != "3.layers.1.weight"})
    with pytest.raises(InvalidInputError, match=r"0\.weight must have shape \(4, 1, 3, 2\), \(filters, channels / gr"):
        torch.load_state_dict(net, {**state, "0.weight": np.ones((3, 2, 1, 4))})


# ---- compared with the libraries -------------------------------------------------------------------------------------


def random_layers(generator):
    """Two blocks of layers for images, then a flat part; all of them have modules in PyTorch."""
    chosen: list = [nn.ZeroPadding2D(((1, 0), (0, 2)))] if generator.random() < 0.3 else []
    for _ in range(2):
        groups = int(generator.choice([1, 2]))
        activation = str(generator.choice(["identity", "tanh", "relu", "silu"]))
        chosen.append(
            nn.Conv2D(
                4, (int(generator.integers(1, 4)), int(generator.integers(1, 4))), groups=groups,
                strides=int(generator.integers(1, 3)), dilation_rate=int(generator.integers(1, 3)),
                padding=(2, 2), activation=activation, use_bias=bool(generator.random() < 0.7),
            )
        )  # fmt: skip
        if generator.random() < 0.6:
            chosen.append(nn.BatchNormalization(float(generator.uniform(0, 1)), float(generator.uniform(1e-3, 0.1))))
        if generator.random() < 0.3:
            chosen.append(nn.LayerNormalization(center=bool(generator.random() < 0.5)))
        if generator.random() < 0.5:
            inner = [nn.Conv2D(4, 3, padding="same"), nn.BatchNormalization(0.3), nn.Activation("tanh")]
            chosen.append(nn.Residual(inner, nn.Conv2D(4, 1) if generator.random() < 0.5 else None))
        if activation in ("identity", "tanh") and generator.random() < 0.3:
            chosen.append(nn.L2Pool2D(2, 1))
        elif generator.random() < 0.5:
            pool = nn.MaxPool2D if generator.random() < 0.5 else nn.AveragePool2D
            chosen.append(pool(2, int(generator.integers(1, 3)), padding=int(generator.integers(0, 2))))
    end = [nn.Flatten(), nn.BatchNormalization(0.5), nn.Dense(6, activation="sigmoid")]
    if generator.random() < 0.4:
        end = [nn.GlobalAveragePool2D() if generator.random() < 0.5 else nn.GlobalMaxPool2D()]
    return [*chosen, *end, nn.Dense(3)]


def in_torch(library, nodes):
    """The same layers as a Sequential."""
    modules = library.nn

    class LastAxis(modules.LayerNorm):
        def forward(self, x):
            return super().forward(x.movedim(1, -1)).movedim(-1, 1)

    class Residual(modules.Module):
        def __init__(self, node):
            super().__init__()
            count = len(node.layer.layers)
            self.layers = in_torch(library, node.nodes[:count])
            self.projection = in_torch(library, node.nodes[count:])

        def forward(self, x):
            return self.projection(x) + self.layers(x)

    activations = {"tanh": modules.Tanh, "relu": modules.ReLU, "silu": modules.SiLU, "sigmoid": modules.Sigmoid}
    result: list = []
    for node in nodes:
        layer, inputs = node.layer, node.input_shape[-1]
        match layer:
            case nn.Conv2D():
                window = layer.window
                padding = window.padding if isinstance(window.padding, str) else padding_of(layer)
                sizes = (inputs, layer.filters, window.size, window.strides, padding, window.dilation)
                result.append(modules.Conv2d(*sizes, layer.groups, layer.use_bias))
            case nn.Dense():
                result.append(modules.Linear(inputs, layer.units))
            case nn.BatchNormalization():
                kind = modules.BatchNorm1d if len(node.input_shape) == 1 else modules.BatchNorm2d
                result.append(kind(inputs, layer.epsilon, 1 - layer.momentum))
            case nn.LayerNormalization():
                result.append(LastAxis(inputs, layer.epsilon, bias=layer.center))
            case nn.Residual():
                result.append(Residual(node))
            case nn.MaxPool2D():
                result.append(modules.MaxPool2d(layer.window.size, layer.window.strides, padding_of(layer)))
            case nn.AveragePool2D():
                sizes = (layer.window.size, layer.window.strides, padding_of(layer))
                result.append(modules.AvgPool2d(*sizes, count_include_pad=False))
            case nn.L2Pool2D():
                result.append(modules.LPPool2d(2, layer.window.size, layer.window.strides))
            case nn.GlobalAveragePool2D():
                result += [modules.AdaptiveAvgPool2d(1), modules.Flatten()]
            case nn.GlobalMaxPool2D():
                result += [modules.AdaptiveMaxPool2d(1), modules.Flatten()]
            case nn.ZeroPadding2D():
                (top, bottom), (left, right) = layer.padding
                result.append(modules.ZeroPad2d((left, right, top, bottom)))
            case nn.Activation():
                result.append(activations[layer.activation]())
            case nn.Flatten():
                result.append(modules.Flatten())
        if isinstance(layer, nn.Dense | nn.Conv2D) and layer.activation != "identity":
            result.append(activations[layer.activation]())
    return modules.Sequential(*result)


def padding_of(layer):
    return tuple(sides[0] for sides in layer.window.padding)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_pytorch_trains_alike(seed):
    """A step of a random network in float64: predictions, parameters and running statistics."""
    library = pytest.importorskip("torch", reason="compares with PyTorch, which is not installed")
    generator = np.random.default_rng(seed)
    while True:
        try:
            net = nn.Network(random_layers(generator), SHAPE, backend="numpy", dtype="float64", seed=seed)
            break
        except InvalidInputError:  # An image became smaller than a window.
            continue
    rows = 7
    x, y = generator.normal(size=(rows, *SHAPE)), generator.integers(0, 3, rows)
    module = in_torch(library, net.model.layout.nodes).double()
    module.load_state_dict(torch.state_dict(net))
    batch = library.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1)))

    module.train()
    loss = library.nn.functional.cross_entropy(module(batch), library.from_numpy(y))
    loss.backward()
    with library.no_grad():
        for parameter in module.parameters():
            parameter -= 0.1 * parameter.grad
    options = {"epochs": 1, "batch_size": rows, "shuffle": False, "verbose": False}
    history = net.fit(x, y, loss="softmax_cross_entropy", optimizer=nn.SGD(0.1), **options)
    assert history["loss"][0] == pytest.approx(float(loss.detach()), abs=1e-9)

    ours, theirs = torch.state_dict(net, tensors=False), module.state_dict()
    expected = {name: value.numpy() for name, value in theirs.items() if not name.endswith("num_batches_tracked")}
    assert ours.keys() == expected.keys()
    converted = torch.state_dict(net, tensors=False, batch_size=rows)
    kept = {name.removesuffix(".running_var"): 1 - each.momentum for name, each in momenta(library, module)}
    for name, values in expected.items():
        received = ours[name]
        if name.endswith("running_var"):
            # The new share alone is converted, not that of the initial 1.
            share = kept[name.removesuffix(".running_var")]
            factor = converted[name] / received
            received = share + (received - share) * factor
        np.testing.assert_allclose(received, values, rtol=1e-9, atol=1e-9, err_msg=name)

    torch.load_state_dict(net, theirs)
    net.set_loss("mean_squared_error")
    module.eval()
    np.testing.assert_allclose(net.predict(x), module(batch).detach().numpy(), rtol=1e-9, atol=1e-9)


def momenta(library, module):
    """The names and modules of batch normalisation."""
    kinds = (library.nn.BatchNorm1d, library.nn.BatchNorm2d)
    return [(name, each) for name, each in module.named_modules() if isinstance(each, kinds)]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras's own
def test_keras_predicts_alike(monkeypatch):
    pytest.importorskip("torch", reason="Keras runs on PyTorch here, which is not installed")
    monkeypatch.setenv("KERAS_BACKEND", os.environ.get("KERAS_BACKEND", "torch"))
    library = pytest.importorskip("keras", reason="compares with Keras, which is not installed")
    theirs = library.layers
    model = library.Sequential(
        [
            library.Input(SHAPE),
            theirs.Conv2D(4, (3, 2), padding="same", activation="relu"),
            theirs.BatchNormalization(),
            theirs.MaxPooling2D(2),
            theirs.ZeroPadding2D(((1, 0), (0, 1))),
            theirs.Conv2D(4, 2, groups=2, use_bias=False),
            theirs.LayerNormalization(),
            theirs.AveragePooling2D(2, padding="same"),
            theirs.Reshape((4, 4)),
            theirs.Conv1D(3, 2, activation="tanh"),
            theirs.Flatten(),
            theirs.BatchNormalization(),
            theirs.Dense(3),
        ]
    )

    def ours(seed):
        given = [
            nn.Conv2D(4, (3, 2), padding="same", activation="relu"),
            nn.BatchNormalization(),
            nn.MaxPool2D(2),
            nn.ZeroPadding2D(((1, 0), (0, 1))),
            nn.Conv2D(4, 2, groups=2, use_bias=False),
            nn.LayerNormalization(),
            nn.AveragePool2D(2, padding="same"),
            nn.Reshape((4, 4)),
            nn.Conv1D(3, 2, activation="tanh"),
            nn.Flatten(),
            nn.BatchNormalization(),
            nn.Dense(3),
        ]
        return network(given, seed=seed)

    x = np.random.default_rng(0).normal(size=(5, *SHAPE)).astype(np.float32)
    net = ours(1)
    keras.set_weights(net, model.get_weights())
    np.testing.assert_allclose(net.predict(x), library.ops.convert_to_numpy(model(x)), rtol=1e-5, atol=1e-5)
    other = ours(2)
    model.set_weights(keras.get_weights(other))
    np.testing.assert_allclose(library.ops.convert_to_numpy(model(x)), other.predict(x), rtol=1e-5, atol=1e-5)
