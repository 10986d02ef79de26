"""Saving and loading: exact, without pickle, never incomplete."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import nnbackend as nn
from nnbackend.errors import InvalidInputError, ModelFileError
from nnbackend.saving.model_file import read_description, read_model
from nnbackend.support import files
from nnbackend.support.files import atomic_write
from tests.conftest import make_backend
from tests.helpers import classifier, images, same_weights


def trained(backend="numpy", **options) -> nn.Network:
    net = nn.Network(
        [
            nn.Flatten(),
            nn.Dense(6, activation="elu", alpha=0.7, l2=0.1, weight_initializer=nn.Normal(0, 0.3)),
            nn.Dropout(0.3),
            nn.Activation("tanh"),
            nn.MaxAbsNorm(),
            nn.Dense(4, use_bias=False, weight_initializer=np.ones((6, 4))),
        ],
        (3, 4),
        backend=backend,
        seed=9,
        **options,
    )
    x, y = images(rows=30)
    net.fit(x, y, epochs=2, batch_size=8, loss="softmax_cross_entropy")
    return net


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_loaded_network_is_the_saved_one(tmp_path, dtype):
    path = tmp_path / "deep" / "model.safetensors"
    net = trained(dtype=dtype)
    net.save(path)
    loaded = nn.Network.load(path, backend="numpy")
    assert same_weights(net, loaded)
    assert loaded.config() == net.config()
    # A file describes arrays of initial values as zeros, because it has the weights.
    assert repr(loaded.layers) == repr(net.layers).replace("<array of shape (6, 4)>", "Zeros()")
    x, _ = images(rows=5)
    np.testing.assert_array_equal(net.predict(x), loaded.predict(x))
    assert loaded.loss == net.loss
    assert (loaded.steps_trained, loaded.epochs_trained) == (8, 2)


@pytest.mark.parametrize("target", ["numpy-padded", "numba", "cupy-emulated"])
def test_a_file_knows_no_backend(tmp_path, target):
    path = tmp_path / "model.safetensors"
    net = trained()
    net.save(path)
    assert same_weights(net, nn.Network.load(path, backend=make_backend(target)))
    other = trained(make_backend(target))
    other.save(path)
    assert set(load_file(path)) == set(net.get_weights())
    assert same_weights(other, nn.Network.load(path, backend="numpy"))


def test_the_file_is_plain_safetensors(tmp_path):
    path = tmp_path / "model.safetensors"
    trained().save(path)
    arrays = load_file(path)
    assert arrays["layers.1.weight"].shape == (12, 6)
    assert arrays["layers.1.bias"].shape == (6,)
    header_size = int.from_bytes(path.read_bytes()[:8], "little")
    header = json.loads(path.read_bytes()[8 : 8 + header_size])
    assert json.loads(header["__metadata__"]["nnbackend"])["format"] == 1


def test_the_description_is_that_of_the_whole_file(tmp_path):
    net = trained()
    net.save(tmp_path / "model.safetensors")
    assert read_description(tmp_path / "model.safetensors") == read_model(tmp_path / "model.safetensors")[0]
    x, y = images(rows=30)
    checkpoint = nn.Checkpoint(tmp_path / "run")
    net.fit(x, y, epochs=1, batch_size=8, loss="softmax_cross_entropy", callbacks=[checkpoint], verbose=False)
    [path] = (tmp_path / "run").glob("*.safetensors")
    assert read_description(path) == read_model(path)[0]
    save_file({"x": np.zeros(3)}, tmp_path / "other.safetensors")
    (tmp_path / "short.safetensors").write_bytes((tmp_path / "model.safetensors").read_bytes()[:-1])
    for name, message in (("other", "not one written by nnbackend"), ("short", "truncated"), ("none", "no such file")):
        with pytest.raises(ModelFileError, match=message):
            read_description(tmp_path / f"{name}.safetensors")


def test_a_loaded_network_continues_training_with_new_orders(tmp_path):
    path = tmp_path / "model.safetensors"
    x, y = images(rows=30)
    net = trained()
    net.save(path)
    loaded = nn.Network.load(path, backend="numpy")
    options = {"epochs": 1, "batch_size": 8, "optimizer": nn.SGD(0.1)}
    np.testing.assert_array_equal(loaded.fit(x, y, **options).step_losses[0], net.fit(x, y, **options).step_losses[0])


class Double(nn.Layer):
    def forward(self, step, x):
        out = step.buffer(x.shape[1])
        step.record("copy", x, out)
        return out, None

    def backward(self, step, saved, upstream, need_input_gradient):
        return upstream


def test_a_user_defined_layer_is_named_and_passed_in(tmp_path):
    path = tmp_path / "model.safetensors"
    net = nn.Network([Double(), nn.Dense(2)], 3, backend="numpy")
    net.save(path)
    with pytest.raises(ModelFileError, match=r"unknown layer 'double'.*custom_layers"):
        nn.Network.load(path, backend="numpy")
    loaded = nn.Network.load(path, backend="numpy", custom_layers=[Double])
    assert same_weights(net, loaded)


def broken_files(good: bytes) -> dict[str, bytes]:
    header = int.from_bytes(good[:8], "little")
    return {
        "empty": b"",
        "text": b"This is no model at all, it is a line of text.",
        "cut in the weights": good[:-10],
        "cut in the header": good[: header // 2],
        "longer than it says": good + b"more",
        "lying header size": (2**62).to_bytes(8, "little") + good[8:],
        "damaged header": good[:20] + b"\xff\xfe" + good[22:],
        "description damaged": good.replace(b"softmax_cross_entropy", b"softmax_cross_entropi"),
        "another shape": good.replace(b"[12,6]", b"[6,12]"),
        "older or newer format": good.replace(b'\\"format\\": 1', b'\\"format\\": 7'),
        "name of a layer damaged": good.replace(b'\\"dense\\"', b'\\"densf\\"'),
        "hyperparameter damaged": good.replace(b'\\"rate\\": 0.3', b'\\"rate\\": 3.0'),
        "hyperparameter renamed": good.replace(b'\\"rate\\": 0.3', b'\\"ratf\\": 0.3'),
        "absurdly large": good.replace(b'\\"units\\": 6', b'\\"units\\": 60000000000000'),
        "epochs below zero": good.replace(b'\\"epochs_trained\\": 2', b'\\"epochs_trained\\": -2'),
        "layers missing": good.replace(b'\\"layers\\": [', b'\\"lairs\\":  ['),
    }


@pytest.mark.parametrize("kind", list(broken_files(b"x" * 100)))
def test_a_broken_file_is_refused_and_named(tmp_path, kind):
    path = tmp_path / "model.safetensors"
    trained().save(path)
    good = path.read_bytes()
    bad = broken_files(good)[kind]
    assert bad != good
    path.write_bytes(bad)
    with pytest.raises(ModelFileError) as error:
        nn.Network.load(path, backend="numpy")
    assert str(path) in str(error.value)


def test_a_foreign_or_missing_file_is_refused(tmp_path):
    path = tmp_path / "foreign.safetensors"
    save_file({"layers.0.weight": np.ones((2, 2))}, path)
    with pytest.raises(ModelFileError, match="not one written by nnbackend"):
        nn.Network.load(path, backend="numpy")
    with pytest.raises(ModelFileError, match="there is no such file"):
        nn.Network.load(tmp_path / "nothing.safetensors")
    with pytest.raises(ModelFileError, match="a folder, not a file"):
        nn.Network.load(tmp_path)


@pytest.mark.parametrize("path", [None, 0, "", "a\0b"])
def test_what_is_no_path(path):
    """In particular no number, which would be an open file of the process."""
    net = classifier()
    for function in (net.save, net.to_onnx, nn.Network.load):
        with pytest.raises(InvalidInputError, match="path must be a path, received"):
            function(path)


def test_a_path_of_bytes(tmp_path):
    path = os.fsencode(tmp_path / "model.safetensors")
    classifier().save(path)
    nn.Network.load(path)


def test_weights_that_are_not_finite_are_not_loaded(tmp_path):
    path = tmp_path / "model.safetensors"
    net = classifier()
    net.save(path)
    data = bytearray(path.read_bytes())
    data[-4:] = np.array([np.nan], np.float32).tobytes()
    path.write_bytes(data)
    with pytest.raises(ModelFileError, match="NaN"):
        nn.Network.load(path, backend="numpy")


def test_a_network_of_nans_is_not_saved(tmp_path):
    path = tmp_path / "model.safetensors"
    net = classifier()
    net.save(path)
    before = path.read_bytes()
    net.backend.write(np.full(net.model.layout.size, np.nan, np.float32), net.model.parameters)
    with pytest.raises(ModelFileError, match=r"not saved to .*NaN or infinity"):
        net.save(path)
    assert path.read_bytes() == before


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    net = classifier()
    net.save(path)
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        trained().save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs the device /dev/full")
def test_a_disk_that_is_really_full_is_reported(tmp_path):
    # A write to /dev/full fails the way a write to a full disk does.
    with pytest.raises(OSError, match="No space left"), open("/dev/full", "wb", buffering=0) as stream:
        stream.write(b"x")
    target = tmp_path / "file"
    target.write_bytes(b"old")
    with (
        pytest.raises(OSError, match="No space left"),
        atomic_write(target),
        open("/dev/full", "wb", buffering=0) as disk,
    ):
        disk.write(b"x")
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.slow
def test_a_process_killed_while_saving_leaves_a_whole_file(tmp_path):
    path = tmp_path / "model.safetensors"
    script = f"""
import nnbackend as nn
net = nn.Network([nn.Dense(600), nn.Dense(600)], 600, backend="numpy")
net.save({str(path)!r})
print("saved", flush=True)
while True:
    net.save({str(path)!r})
"""
    for delay in (0.0, 0.01, 0.03, 0.05):
        with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline() == "saved\n"
            time.sleep(delay)
            process.send_signal(signal.SIGKILL)
        assert nn.Network.load(path, backend="numpy").parameter_count == 2 * 601 * 600


def test_a_read_only_folder_is_an_os_error(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError):
        classifier().save(tmp_path / "model.safetensors")


def test_files_get_the_usual_mode_and_keep_their_own(tmp_path):
    path = tmp_path / "file"
    mask = os.umask(0o022)
    try:
        with atomic_write(path) as stream:
            stream.write(b"1")
        assert path.stat().st_mode & 0o777 == 0o644
        path.chmod(0o600)
        with atomic_write(path) as stream:
            stream.write(b"2")
        assert path.stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(mask)


def test_a_link_is_written_through_and_a_device_is_left_alone(tmp_path):
    real, link, pipe = tmp_path / "real", tmp_path / "link", tmp_path / "pipe"
    real.write_bytes(b"old")
    link.symlink_to(real)
    with atomic_write(link) as stream:
        stream.write(b"new")
    assert link.is_symlink()
    assert real.read_bytes() == b"new"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="not a regular file"), atomic_write(pipe):
        pass
    assert pipe.is_fifo()


def test_numpy_numbers_as_hyperparameters_are_saved(tmp_path):
    net = nn.Network([nn.Dense(3, weight_initializer=nn.Normal(0.0, np.float32(0.1)))], 2, backend="numpy")
    net.save(tmp_path / "model.safetensors")
    assert same_weights(net, nn.Network.load(tmp_path / "model.safetensors", backend="numpy"))
