"""Exported C headers compute what the network predicts."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.backends.activations import ACTIVATIONS
from nnbackend.cli import main
from nnbackend.data.scale import Inputs
from nnbackend.errors import InvalidInputError, ModelFileError
from nnbackend.interop.c import export, function_name
from nnbackend.layers import LAYERS
from nnbackend.losses import LOSSES
from tests.helpers import Shift, classifier, images, rich_network
from tests.interop.compiled_c import check, compile_c, run

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs the compiler gcc")

#: Neither side divides by the strides.
SHAPE = (7, 8, 4)
X = np.random.default_rng(0).normal(size=(4, *SHAPE))
dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])


def network(layers, dtype="float32", shape=SHAPE, **options):
    """A network whose parameters and state are random, variances positive."""
    net = nn.Network(layers, shape, backend="numpy", dtype=dtype, seed=1, **options)
    generator = np.random.default_rng(2)
    net.set_weights(
        {
            name: generator.uniform(0.5, 2, array.shape) if "variance" in name else generator.normal(size=array.shape)
            for name, array in net.get_weights().items()
        }
    )
    return net


@dtypes
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_in_layers_and_as_a_layer(tmp_path, activation, dtype):
    # Large values of both signs, for which exponentials could overflow, a row of zeros, and values in between.
    x = np.random.default_rng(0).normal(0, 3, (6, 6)).astype(dtype)
    x[0], x[1] = [-800, -90, 0, 1e-3, 90, 800], 0
    alpha = 1.7 if ACTIVATIONS[activation].alpha else None
    layers = [
        nn.Activation(activation, alpha=alpha),
        nn.Dense(6, activation, alpha=alpha, bias_initializer=nn.Normal()),
        nn.Reshape((2, 3, 1)),
        nn.Conv2D(3, 1, activation=activation, alpha=alpha),
        nn.Flatten(),
        nn.Activation(activation),
    ]
    if activation == "exponential":
        x, layers = x[1:] / 30, layers[:2]  # its exponentials overflow, as those of `predict` do
    check(network(layers[:1], dtype, 6), x, tmp_path / "alone.h")
    check(network(layers[1:], dtype, 6), x, tmp_path / "layers.h")


@dtypes
@pytest.mark.parametrize("strides", [1, (2, 3)])
@pytest.mark.parametrize("padding", ["valid", "same", 1, ((1, 0), (0, 2))], ids=str)
def test_convolutions_and_pools(tmp_path, padding, strides, dtype):
    branches = []
    for options in ({}, {"dilation_rate": 2}, {"groups": 2, "use_bias": False}, {"groups": 4, "activation": "tanh"}):
        branches.append([nn.Conv2D(8, (3, 2), padding=padding, strides=strides, **options)])
    # Negative numbers only: the padding must not be the largest.
    pools = (nn.MaxPool2D, nn.AveragePool2D, nn.L2Pool2D)
    fits = padding != ((1, 0), (0, 2))
    branches += [[pool(2 if fits else 3, strides, padding=padding)] for pool in pools]
    for layers in branches:
        check(network(layers, dtype), -1 - abs(X.astype(dtype)), tmp_path / "net.h")


@dtypes
@pytest.mark.parametrize("padding", ["valid", "same", 2, (0, 1)], ids=str)
def test_convolutions_of_sequences(tmp_path, padding, dtype):
    layers = [
        nn.Conv1D(6, 3, padding=padding, strides=2, activation="relu", groups=2),
        nn.Conv1D(3, 2, dilation_rate=2),
    ]
    x = np.random.default_rng(0).normal(size=(3, 12, 4)).astype(dtype)
    check(network(layers, dtype, (12, 4)), x, tmp_path / "net.h")


OTHERS = [
    lambda: [nn.GlobalAveragePool2D()],
    lambda: [nn.GlobalMaxPool2D()],
    lambda: [nn.BatchNormalization()],
    lambda: [nn.BatchNormalization(epsilon=0.3, center=False), nn.BatchNormalization(scale=False)],
    lambda: [nn.LayerNormalization()],
    lambda: [nn.Normalization([0.0] * 4, [1.0] * 4), nn.Conv2D(3, 2)],
    lambda: [nn.LayerNormalization(epsilon=0.3, center=False, scale=False)],
    lambda: [nn.Flatten(), nn.MaxAbsNorm(), nn.LayerNormalization(), nn.MaxAbsNorm()],
    lambda: [nn.Scale(), nn.Flatten(), nn.Scale()],
    lambda: [nn.ParametricActivation("mish", initializer="normal"), nn.Flatten(), nn.ParametricActivation("selu")],
    lambda: [nn.Flatten(), nn.Embedding(2, 3, columns=5), nn.PeriodicEmbedding(7, units=3, waves=5)],
    lambda: [nn.GlobalMaxPool2D(), nn.Embedding(1, 2, columns=4), nn.PeriodicEmbedding(deviation=1.0)],
    lambda: [nn.ZeroPadding2D(((1, 2), (0, 3)))],
    lambda: [nn.Reshape((4, 8, 7)), nn.Conv2D(3, 3), nn.Reshape((12, 3)), nn.Conv1D(2, 2)],
    lambda: [nn.Conv2D(4, 3, activation="softmax"), nn.GlobalAveragePool2D(), nn.Activation("softmax")],
    lambda: [nn.Conv2D(6, 3, use_bias=False), nn.BatchNormalization(), nn.Activation("relu")],
    lambda: [nn.Residual([nn.Conv2D(4, 3, padding="same"), nn.BatchNormalization()]), nn.Activation("relu")],
    lambda: [nn.Residual([nn.Conv2D(6, 3, strides=2, padding="same")], nn.Conv2D(6, 1, strides=2))],
    lambda: [nn.Residual([nn.Activation("tanh")]), nn.Residual([nn.LayerNormalization()])],
    lambda: [nn.Residual([nn.Dropout(0.1)]), nn.Residual([nn.Residual([nn.Dropout(0.1)])])],
    lambda: [nn.Flatten(), nn.Residual([nn.Dense(9), nn.Residual([nn.Dense(9)])], [nn.Dense(7), nn.Dense(9)])],
    lambda: [nn.Flatten(), nn.Dense(5, use_bias=False), nn.Residual([nn.Activation("relu"), nn.Activation("tanh")])],
    lambda: [nn.Dropout(0.5)],
    lambda: [nn.Flatten()],
]


@dtypes
@pytest.mark.parametrize("layers", OTHERS)
def test_other_layers(tmp_path, layers, dtype):
    check(network(layers(), dtype), X.astype(dtype), tmp_path / "net.h")
    # With a scale, bytes are converted wherever they are read.
    small = np.random.default_rng(0).integers(0, 255, X.shape).astype(np.uint8)
    check(network(layers(), dtype, input_scale=0.01), small, tmp_path / "bytes.h", "uint8")


def test_every_built_in_layer_is_exported_somewhere_above():
    made = {type(layer) for build in OTHERS for each in build() for layer in nn.layers.all_layers([each])}
    assert {*LAYERS.values()} - made == {nn.MaxPool2D, nn.AveragePool2D, nn.L2Pool2D}  # in another test


def _random_layers(generator, shape):
    """Some layers of all kinds, each of which takes the shape that the one before leaves."""
    layers = []
    while len(layers) < 6:
        activation = str(generator.choice(["relu", "tanh", "gelu", "elu", "identity"]))
        size, strides = int(generator.integers(1, 4)), int(generator.integers(1, 3))
        if len(shape) == 3:
            filters = 2 * int(generator.integers(1, 4))
            groups = 2 if shape[2] % 2 == 0 and generator.random() < 0.5 else 1
            dilation = int(generator.integers(1, 3))
            choices = [
                nn.Conv2D(filters, size, strides=strides, padding="same", groups=groups,
                          dilation_rate=dilation, activation=activation),
                nn.MaxPool2D(size, strides, padding="same"),
                nn.AveragePool2D(size, strides, padding="same"),
                nn.L2Pool2D(size, strides, padding="same"),
                nn.ZeroPadding2D(1),
                nn.BatchNormalization(),
                nn.LayerNormalization(),
                nn.Residual([nn.Conv2D(shape[2], 3, padding="same"), nn.BatchNormalization()]),
                nn.Residual([nn.Activation("tanh"), nn.Conv2D(4, 1)], nn.Conv2D(4, 1)),
                nn.Flatten() if len(layers) > 2 else nn.Dropout(0.5),
                nn.GlobalAveragePool2D() if len(layers) > 2 else nn.Activation("sigmoid"),
            ]  # fmt: skip
        else:
            choices = [
                nn.Dense(int(generator.integers(1, 20)), activation),
                nn.BatchNormalization(),
                nn.LayerNormalization(),
                nn.MaxAbsNorm(),
                nn.Residual([nn.Dense(5, "relu"), nn.Dense(shape[0])]),
                nn.Activation("softmax"),
                nn.Reshape((1, *shape, 1)),
            ]
        layer = choices[generator.integers(len(choices))]
        if isinstance(layer, nn.BatchNormalization | nn.LayerNormalization) and shape[-1] == 1:
            continue
        layers.append(layer)
        shape = layer.output_shape(shape)
    return layers


@dtypes
@pytest.mark.parametrize("seed", range(12))
def test_random_networks(tmp_path, seed, dtype):
    generator = np.random.default_rng(seed)
    shape = tuple(int(each) for each in generator.integers(3, 9, 3))
    net = network(_random_layers(generator, shape), dtype, shape)
    weights = net.get_weights()
    # Outputs of moderate size.
    net.set_weights({name: array * (0.3 if "weight" in name else 1) for name, array in weights.items()})
    check(net, generator.normal(size=(3, *shape)).astype(dtype), tmp_path / "net.h")


@pytest.mark.parametrize("loss", LOSSES)
def test_the_output_has_the_activation_of_the_loss(tmp_path, loss):
    x, y = images()
    net = classifier()
    net.fit(x, y, epochs=1, loss=loss)
    check(net, x, tmp_path / "net.h", "uint8")
    text = (tmp_path / "net.h").read_text()
    assert ("probabilities" in text) == (net.loss.output_activation in ("softmax", "sigmoid"))
    assert "The network was trained with uint8 images, scaled by 1/255" in text
    assert "with values from" in text


def test_softmax_of_the_loss_is_over_all_outputs_of_an_image(tmp_path):
    net = network([nn.Conv2D(3, 3)])
    net.set_loss("softmax_cross_entropy")
    check(net, X.astype(np.float32) / 10, tmp_path / "net.h")


def test_from_every_backend(tmp_path, backend):
    net = rich_network(backend)
    net.set_loss("softmax_cross_entropy")
    net.input_scale = 1 / 255
    check(net, images(rows=8)[0], tmp_path / "net.h", "uint8")


@dtypes
@pytest.mark.parametrize("scale", [None, 0.25])
@pytest.mark.parametrize("given", ["uint8", "float32", "float64"])
def test_the_input_is_scaled_as_predict_does_it(tmp_path, dtype, given, scale):
    net = nn.Network([nn.Flatten(), nn.Dense(4)], (3, 4), backend="numpy", dtype=dtype, input_scale=scale)
    x = images(rows=5)[0].reshape(5, 3, 4).astype(given)
    check(net, x, tmp_path / "net.h", given)
    if given == dtype:
        net.to_c(tmp_path / "default.h")
        text = (tmp_path / "net.h").read_text()
        net.to_c(tmp_path / "net.h")
        assert (tmp_path / "net.h").read_text() == text


@dtypes
def test_constants_have_exactly_the_values_of_the_weights(tmp_path, dtype):
    net = nn.Network([nn.Dense(3, use_bias=False)], 4, backend="numpy", dtype=dtype)
    tiny = np.finfo(dtype)
    values = np.array([1, -1, 0.1, 1 / 3, 0, -0.0, tiny.max, tiny.tiny, tiny.smallest_subnormal, 1e10, -7, 255], dtype)
    net.set_weights({"layers.0.weight": values.reshape(4, 3)})
    export(net, tmp_path / "net.h")
    text = re.search(r"weight\[12\] = \{(.*?)\}", (tmp_path / "net.h").read_text(), re.DOTALL)[1]
    received = np.array([float.fromhex(each.strip().removesuffix("f")) for each in text.split(",")], dtype)
    assert received.tobytes() == values.tobytes()


def test_a_layer_keeps_its_normalisation_if_the_product_overflows(tmp_path):
    net = nn.Network([nn.Dense(2, use_bias=False), nn.BatchNormalization(), nn.Dense(1)], 3, backend="numpy")
    weights = net.get_weights()
    net.set_weights({**weights, "layers.0.weight": np.full((3, 2), 1e20), "layers.1.scale": np.full(2, 1e20)})
    check(net, np.full((2, 3), 1e-20, np.float32), tmp_path / "net.h")


@pytest.mark.parametrize(
    "layers",
    [
        lambda: [nn.Activation("relu")],
        lambda: [nn.Activation("softmax")],
        lambda: [nn.Activation("softplus")],
        lambda: [nn.MaxAbsNorm()],
        lambda: [nn.Reshape((2, 2, 1)), nn.MaxPool2D(2, 1, padding="same")],
    ],
)
def test_nan_within_the_network_is_not_hidden(tmp_path, layers):
    # The difference of two infinities, and finite numbers beside it.
    difference = nn.Residual([nn.BatchNormalization()])
    net = nn.Network([nn.Dense(4, use_bias=False), difference, *layers()], 1, backend="numpy")
    negative = {"layers.0.weight": [[3e38, 1e-38, 2e-38, 3e-38]], "layers.1.layers.0.scale": [-0.5] * 4}
    net.set_weights({**net.get_weights(), **negative})
    x = np.array([[1e38]], np.float32)
    export(net, tmp_path / "net.h")
    expected = np.isnan(net.predict_unchecked(x).reshape(1, -1))
    assert expected.any()
    np.testing.assert_array_equal(np.isnan(run(tmp_path / "net.h", x, np.float32)), expected)


def test_the_workspace_holds_no_more_than_is_needed_at_a_time(tmp_path):
    def workspace(layers):
        export(nn.Network(layers, 8, backend="numpy"), tmp_path / "net.h")
        return int(re.search(r"NET_WORKSPACE (\d+)", (tmp_path / "net.h").read_text())[1])

    assert workspace([nn.Dense(5)]) == 1  # None, but an array must have an element.
    assert workspace([nn.Dense(5, "relu"), nn.Activation("tanh"), nn.Dense(3)]) == 5
    assert workspace([nn.Dense(50), nn.Dense(20), nn.Dense(50), nn.Dense(20), nn.Dense(3)]) == 70
    # The input of a residual connection is kept.
    assert workspace([nn.Dense(6), nn.Residual([nn.Dense(6), nn.Dense(6)]), nn.Dense(3)]) == 18


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("digits.h", "digits_predict"),
        ("int.h", "int_predict"),
        ("My Net (v2.1).h", "My_Net_v2_1_predict"),
        ("2nd.h", "net_2nd_predict"),
        ("_x.h", "net_x_predict"),
        ("Ziffern-größe.h", "Ziffern_gr_e_predict"),
        ("数字.h", "net_predict"),
        (".h", "net_h_predict"),
        ("a" * 100 + ".h", "a" * 40 + "_predict"),
    ],
)
def test_names_are_derived_from_the_file(tmp_path, file, name):
    assert function_name(tmp_path / file) == name
    if file == ".h":
        return
    net = classifier()
    check(net, images(rows=2)[0].astype(np.float32), tmp_path / file)


def test_hostile_descriptions_stay_within_the_comment(tmp_path):
    net = classifier()
    evil = "*/ int main(void) { return 1; } /* ??/ \\"
    net.keep_inputs(Inputs(evil, "uint8", 0, 1), 1.0)
    check(net, images(rows=2)[0].astype(np.float32), tmp_path / "net*_??_.h")
    text = (tmp_path / "net*_??_.h").read_text()
    assert text.count("*/") == text.count("/*")
    assert "*/ int main" not in text
    assert "\\" not in text


def test_the_comment_says_what_the_arrays_are(tmp_path):
    net = nn.Network([nn.Conv2D(2, 3, activation="relu"), nn.Flatten(), nn.Dense(3)], (5, 6, 1), backend="numpy")
    net.set_loss("softmax_cross_entropy")
    net.to_c(tmp_path / "one.h", "uint8")
    text = (tmp_path / "one.h").read_text()
    for words in (
        "one_predict(input, output, workspace)",
        "ONE_INPUTS = 30 numbers of type unsigned char: a sample of shape (5, 6, 1)",
        "multiplies them by 0.00392156863",
        "ONE_OUTPUTS = 3 numbers of type float: probabilities of shape (3,)",
        "ONE_WORKSPACE = 24 numbers of type float (96 bytes)",
        "95 constants (380 bytes)",
        "layers[0]  Conv2D(2, 3, activation='relu')  (3, 4, 2)",
    ):
        assert words in text, words
    net.to_c(tmp_path / "again" / "one.h", "uint8")
    assert (tmp_path / "again" / "one.h").read_text() == text


@pytest.fixture
def target(tmp_path):
    """An existing file that must be unchanged after the test."""
    path = tmp_path / "net.h"
    path.write_bytes(b"old")
    yield path
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == [path.name]


def test_a_user_defined_layer_is_named(target):
    net = nn.Network([nn.Residual([nn.Dense(6), Shift(2)])], 6, backend="numpy")
    with pytest.raises(InvalidInputError, match=r"^layers\[0\]\.layers\[1\] is .*user-defined layer, which has no C"):
        export(net, target)


def test_what_cannot_be_written_is_refused(target, monkeypatch):
    net = classifier()
    with pytest.raises(InvalidInputError, match=r"must end in \.h, received .*net\.c'"):
        export(net, target.with_suffix(".c"))
    with pytest.raises(InvalidInputError, match="path must be a path, received 3"):
        export(net, 3)
    with pytest.raises(InvalidInputError, match="input_dtype must be uint8, float32 or float64, received 'int8'"):
        export(net, target, "int8")
    monkeypatch.setattr("nnbackend.interop.c._LARGEST", net.parameter_count - 1)
    with pytest.raises(InvalidInputError, match="at most 156 parameters, and the network has 157"):
        export(net, target)
    monkeypatch.undo()
    net.backend.write(np.full(net.model.layout.size, np.nan, np.float32), net.model.parameters)
    with pytest.raises(ModelFileError, match=r"not saved to .*layers\.0\.weight.* contains NaN"):
        export(net, target)


def test_the_command_chooses_the_format_by_the_name(tmp_path, capsys):
    x, y = images()
    net = classifier()
    net.fit(x, y, epochs=1, loss="softmax_cross_entropy")
    net.save(tmp_path / "model.safetensors")
    assert main(["export", str(tmp_path), str(tmp_path / "out.h"), "--input-dtype", "uint8"]) == 0
    output = capsys.readouterr().out
    assert "input      uint8 (12), divided by 255 in the model\n" in output
    assert "output     float32 (4), probabilities\n" in output
    assert "out.h (C99: out_predict)" in output
    np.testing.assert_allclose(run(tmp_path / "out.h", x, np.float32), net.predict(x), rtol=1e-5, atol=1e-6)
    assert main(["export", str(tmp_path), str(tmp_path / "out.pt")]) == 2
    assert "must end in .onnx or .h, received" in capsys.readouterr().err


def test_the_example_of_the_documentation_compiles_and_classifies_a_digit(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "howto" / "embedded.md").read_text()
    source = re.search(r"```c\n(.*?)```", page, re.DOTALL)[1]
    x, y = images(rows=200, features=784, classes=10)
    net = nn.Network([nn.Dense(16, "relu"), nn.Dense(10)], 784, backend="numpy")
    net.fit(x, y, epochs=5, loss="softmax_cross_entropy")
    net.to_c(tmp_path / "digits.h", "uint8")
    (tmp_path / "main.c").write_text(source)
    compile_c(tmp_path / "main.c", tmp_path / "main", "-O2")
    (tmp_path / "digit.raw").write_bytes(x[0].tobytes())
    done = subprocess.run(
        [tmp_path / "main", tmp_path / "digit.raw"], capture_output=True, text=True, timeout=60, check=True
    )
    expected = net.predict(x[:1])[0]
    assert done.stdout == f"{expected.argmax()} with probability {expected.max():.2f}\n"
