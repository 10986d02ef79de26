"""Exported ONNX files compute in ONNX Runtime what the network predicts."""

from __future__ import annotations

import os
import sys
import warnings

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.backends.activations import ACTIVATIONS
from nnbackend.cli import main
from nnbackend.errors import InvalidInputError, ModelFileError
from nnbackend.interop.onnx import OPSET, export
from nnbackend.losses import LOSSES
from nnbackend.support import files
from tests.helpers import Shift, classifier, images, rich_network
from tests.interop.exported import check, run

onnx = pytest.importorskip("onnx", reason='needs the package onnx: pip install -e ".[test]"')
pytest.importorskip("onnxruntime", reason='needs the package onnxruntime: pip install -e ".[test]"')

#: Large values of both signs, for which exponentials could overflow, a row of zeros, and values in between.
ROWS = np.random.default_rng(0).normal(0, 3, (9, 6))
ROWS[0] = [-800, -90, 0, 1e-3, 90, 800]
ROWS[1] = 0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_in_a_dense_layer_and_as_a_layer(tmp_path, activation, dtype):
    # The exponential of large numbers is infinite.
    x = ROWS.astype(dtype) / (100 if activation == "exponential" else 1)
    for alpha in (None, 1.7) if ACTIVATIONS[activation].alpha else (None,):
        alone = nn.Network([nn.Activation(activation, alpha=alpha)], 6, backend="numpy", dtype=dtype)
        check(alone, x, tmp_path / "alone.onnx")
        dense = nn.Dense(6, activation, alpha=alpha, bias_initializer=nn.Normal())
        check(nn.Network([dense], 6, backend="numpy", dtype=dtype), x, tmp_path / "dense.onnx")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "layers",
    [
        lambda: [nn.Dense(3, use_bias=False)],
        lambda: [nn.MaxAbsNorm()],
        lambda: [nn.Dropout(0.5)],
        lambda: [nn.Flatten()],
        lambda: [nn.Dropout(0.5), nn.Dense(5, "relu"), nn.Dropout(0.1), nn.MaxAbsNorm(), nn.Dense(5, "relu")],
    ],
    ids=["no bias", "norm", "dropout", "flatten", "all"],
)
def test_every_layer(tmp_path, layers, dtype):
    check(nn.Network(layers(), 6, backend="numpy", dtype=dtype), ROWS.astype(dtype), tmp_path / "model.onnx")


@pytest.mark.parametrize("loss", LOSSES)
def test_the_output_has_the_activation_of_the_loss(tmp_path, loss):
    x, y = images()
    net = classifier()
    net.fit(x, y, epochs=1, loss=loss)
    check(net, x, tmp_path / "model.onnx", "uint8")


def test_from_every_backend(tmp_path, backend):
    net = rich_network(backend)
    net.set_loss("softmax_cross_entropy")
    net.input_scale = 1 / 255
    check(net, images(rows=8)[0], tmp_path / "model.onnx", "uint8")


@pytest.mark.parametrize("scale", [None, 0.25])
@pytest.mark.parametrize("given", ["uint8", "float32", "float64"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_input_is_scaled_as_predict_does_it(tmp_path, dtype, given, scale):
    net = nn.Network([nn.Flatten(), nn.Dense(4)], (3, 4), backend="numpy", dtype=dtype, input_scale=scale)
    x = images(rows=5)[0].reshape(5, 3, 4).astype(given)
    check(net, x, tmp_path / "model.onnx", given)
    check(net, x, tmp_path / "type.onnx", np.dtype(given).newbyteorder())
    if given == dtype:
        check(net, x, tmp_path / "default.onnx")


def test_samples_keep_their_shape(tmp_path):
    net = nn.Network([nn.Activation("tanh"), nn.Activation("relu")], (2, 3), backend="numpy")
    check(net, ROWS.reshape(9, 2, 3).astype(np.float32), tmp_path / "model.onnx")


def test_the_file_says_who_wrote_it_and_what_reads_it(tmp_path):
    net = classifier()
    net.to_onnx(tmp_path / "one.onnx")
    net.to_onnx(tmp_path / "other.onnx")
    assert (tmp_path / "one.onnx").read_bytes() == (tmp_path / "other.onnx").read_bytes()
    model = onnx.load(tmp_path / "one.onnx")
    assert (model.producer_name, model.producer_version) == ("nnbackend", nn.__version__)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", OPSET)]
    assert [node.op_type for node in model.graph.node] == ["Gemm", "Relu", "Gemm"]
    constants = {array.name: onnx.numpy_helper.to_array(array) for array in model.graph.initializer}
    assert constants.keys() == net.get_weights().keys()
    for name, array in net.get_weights().items():
        np.testing.assert_array_equal(constants[name], array)


@pytest.fixture
def target(tmp_path):
    """An existing file that must be unchanged after the test."""
    path = tmp_path / "model.onnx"
    path.write_bytes(b"old")
    yield path
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == [path.name]


class DenseOfMine(nn.Dense):
    """Derived from a built-in layer, so it may compute something else."""


def test_a_user_defined_layer_is_rejected(target):
    for layer in (Shift(2), DenseOfMine(6)):
        net = nn.Network([nn.Dense(6), layer], 6, backend="numpy")
        with pytest.raises(InvalidInputError, match=r"layers\[1\] is .*, a user-defined layer.* MaxAbsNorm, .* can be"):
            export(net, target)


def test_a_network_of_nans_is_refused(target):
    net = classifier()
    net.backend.write(np.full(net.model.layout.size, np.nan, np.float32), net.model.parameters)
    with pytest.raises(ModelFileError, match=r"not saved to .*layers\.0\.weight.* contains NaN"):
        export(net, target)


def test_networks_too_large_for_a_file_are_rejected(target, monkeypatch):
    monkeypatch.setattr("nnbackend.interop.onnx._LARGEST", 4 * classifier().parameter_count - 1)
    with pytest.raises(InvalidInputError, match="at most 2 GiB, and 157 float32 parameters are more"):
        export(classifier(), target)


def test_another_name_or_input_is_refused(target):
    with pytest.raises(InvalidInputError, match=r"must end in \.onnx, received .*model\.safetensors'"):
        export(classifier(), target.with_suffix(".safetensors"))
    with pytest.raises(InvalidInputError, match="input_dtype must be uint8, float32 or float64, received 'int8'"):
        export(classifier(), target, "int8")
    with pytest.raises(InvalidInputError, match="received 'bytes8'"):
        export(classifier(), target, "bytes8")


@pytest.mark.parametrize("suffix", [".onnx", ".h"])
def test_bytes_for_a_network_trained_with_fractions_are_a_warning(tmp_path, suffix):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 4)).astype(np.uint8)
    pixels[0] = 255
    write = {".onnx": nn.Network.to_onnx, ".h": nn.Network.to_c}[suffix]
    for rows, warns in ((pixels / np.float32(255), True), (pixels, False), (pixels.astype(np.float32), False)):
        net = nn.Network([nn.Dense(2)], 4, backend="numpy", input_scale=None if rows.dtype != np.uint8 else 1 / 255)
        net.fit(rows, np.arange(20) % 2, epochs=1, loss="softmax_cross_entropy", verbose=False)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            write(net, (tmp_path / "model").with_suffix(suffix), "uint8")
        assert [str(each.message).partition(" up to")[0] for each in caught] == [
            "input_dtype is uint8, but the network was trained with float32"
        ] * warns


def test_a_full_disk_leaves_the_old_file(target, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        export(classifier(), target)


def test_without_the_package_it_says_what_to_install(target, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r'need the package onnx: pip install -e "\.\[onnx\]"'):
        export(classifier(), target)


def test_the_command_writes_the_file_and_describes_its_input(tmp_path, capsys):
    x, y = images()
    net = classifier()
    net.fit(x, y, epochs=1, loss="softmax_cross_entropy")
    net.save(tmp_path / "model.safetensors")
    assert main(["export", str(tmp_path), str(tmp_path / "out.onnx"), "--input-dtype", "uint8"]) == 0
    output = capsys.readouterr().out
    assert "input      uint8 (batch, 12), divided by 255 in the model\n" in output
    assert "output     float32 (batch, 4), probabilities\n" in output
    np.testing.assert_allclose(run(tmp_path / "out.onnx", x), net.predict(x), rtol=1e-5, atol=1e-6)
    assert main(["export", str(tmp_path), str(tmp_path / "out.onnx")]) == 0
    assert "input      float32 (batch, 12), divided by 255 in the model\n" in capsys.readouterr().out
    assert main(["export", str(tmp_path), str(tmp_path / "out.pt")]) == 2
    assert "must end in .onnx" in capsys.readouterr().err
