"""The factor on the inputs belongs to the network, whatever the dtype of later inputs."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import warnings

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.data.scale import Images
from nnbackend.errors import InvalidInputError
from tests.helpers import classifier, images, same_weights

LOSS = "softmax_cross_entropy"
OPTIONS = {"loss": LOSS, "epochs": 2, "batch_size": 16}
X, Y = images()
PIXELS = np.asarray(X)
DTYPES = ["uint8", "int64", "float32", "float64", "uint16", "float16"]


def image_network(backend="numpy", **options) -> nn.Network:
    return nn.Network([nn.Flatten(), nn.Dense(9, "relu"), nn.Dense(4)], (3, 4), backend, **options)


@pytest.fixture
def trained(backend):
    network = image_network(backend)
    network.fit(PIXELS.reshape(-1, 3, 4), Y, **OPTIONS)
    return network


def test_the_same_numbers_of_any_dtype_give_the_same_outputs(trained):
    expected = trained.predict(PIXELS), trained.evaluate(PIXELS, Y)
    for dtype in DTYPES:
        np.testing.assert_array_equal(trained.predict(PIXELS.astype(dtype)), expected[0])
        assert trained.evaluate(PIXELS.astype(dtype), Y) == expected[1]


def test_the_reverse_numbers_that_were_not_scaled(backend):
    network = classifier(backend)
    network.fit(PIXELS.astype("float32"), Y, **OPTIONS)
    assert network.input_scale == 1
    np.testing.assert_array_equal(network.predict(PIXELS), network.predict(PIXELS.astype(int)))


def test_validation_data_of_another_dtype(backend):
    network = image_network(backend)
    history = network.fit(PIXELS, Y, validation_data=(PIXELS.astype(float), Y), **OPTIONS)
    assert history["val_loss"][-1] == pytest.approx(network.evaluate(PIXELS, Y)["loss"], rel=1e-6)


def test_batches_of_other_dtypes(backend):
    one, other = image_network(backend), image_network(backend)
    for dtype in DTYPES[:3]:
        one.train_on_batch(PIXELS.astype(dtype), Y, loss=LOSS)
        other.train_on_batch(PIXELS, Y, loss=LOSS)
    assert same_weights(one, other)


def test_later_training_keeps_the_scale():
    one, other = image_network(), image_network()
    for network, dtype in ((one, "int32"), (other, "uint8")):
        network.fit(PIXELS, Y, **OPTIONS)
        network.fit(PIXELS.astype(dtype), Y, **OPTIONS)
    assert same_weights(one, other)


@pytest.mark.parametrize(
    ("shape", "scale"), [((12,), 1), ((3, 4), 1 / 255), ((2, 2, 3), 1 / 255), ((1, 2, 2, 3), 1)], ids=str
)
def test_only_images_are_scaled(shape, scale):
    network = nn.Network([nn.Flatten(), nn.Dense(4)], shape, "numpy", seed=1)
    fresh = nn.Network([nn.Flatten(), nn.Dense(4)], shape, "numpy", seed=1, input_scale=scale)
    warns = pytest.warns(UserWarning, match="input_scale=1/255") if scale == 1 else warnings.catch_warnings()
    with warns:
        predictions = network.predict(PIXELS)
    np.testing.assert_array_equal(predictions, fresh.predict(PIXELS))
    with pytest.warns(UserWarning, match="input_scale") if scale == 1 else warnings.catch_warnings():
        network.fit(PIXELS, Y, **OPTIONS)
    assert network.input_scale == scale
    # Only the training asks.
    network.predict(PIXELS)


def test_zeros_and_ones_in_the_shape_of_an_image_are_noticed():
    """One-hot sequences and masks are no pixels; scaled by 1/255 they are hardly learned."""
    layers = [nn.Conv1D(3, 2), nn.Flatten(), nn.Dense(4)]
    bits = (PIXELS.reshape(-1, 3, 4) > 127).astype(np.uint8)
    with pytest.warns(UserWarning, match="holds only 0 and 1. Create the network with input_scale=1 "):
        nn.Network(layers, (3, 4), "numpy").fit(bits, Y, **OPTIONS)
    for suggestion in (1, 1 / 255):
        nn.Network(layers, (3, 4), "numpy", input_scale=suggestion).fit(bits, Y, **OPTIONS)
    for quiet in (bits * 255, bits * 0, bits.astype(bool)):
        nn.Network(layers, (3, 4), "numpy").fit(quiet, Y, **OPTIONS)


@pytest.mark.parametrize("suggestion", [1 / 255, 1])
def test_the_suggestions_of_the_warning_silence_it(suggestion):
    classifier(input_scale=suggestion).fit(PIXELS, Y, **OPTIONS)


def test_a_table_of_bytes_is_left_alone(backend):
    pandas = pytest.importorskip("pandas")
    towns = np.array(["Rome", "Oslo", "Bern", "Kiel"])
    table = pandas.get_dummies(pandas.Series(towns[Y]), dtype="uint8")
    network = nn.Network([nn.Dense(4)], 4, backend, input_scale=None)
    plain = nn.Network([nn.Dense(4)], 4, backend)
    with pytest.warns(UserWarning, match="input_scale"):
        network.fit(table, Y, optimizer=nn.Adam(0.1), **OPTIONS)
    plain.fit(table.to_numpy(float), Y, optimizer=nn.Adam(0.1), **OPTIONS)
    assert same_weights(network, plain)
    assert network.input_description == "uint8 inputs with 4 features, not scaled; 4 classes"


def test_images_of_a_data_set_are_scaled_in_slices_selections_and_copies(tmp_path):
    data = nn.datasets.Dataset("d", PIXELS, Y, PIXELS[:3], Y[:3], ("a", "b", "c", "d"), 12, "a test")
    assert isinstance(data.x_train, Images)
    np.save(tmp_path / "x.npy", data.x_train)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r").view(Images)
    for rows in (
        mapped,
        data.x_train[::2],
        data.x_train[np.arange(9)],
        pickle.loads(pickle.dumps(data)).x_train,
        data.x_test,
    ):
        network = classifier()
        network.fit(rows, np.zeros(len(rows), int), **{**OPTIONS, "batch_size": 1})
        assert network.input_scale == 1 / 255
    assert type(data.x_train / 255) is np.ndarray
    assert type(255 - data.x_train) is np.ndarray
    assert type(data.x_train.max()) is np.uint8


def test_what_was_done_is_logged_and_kept(tmp_path, caplog):
    network = image_network()
    assert network.input_description is None
    with caplog.at_level(logging.INFO, "nnbackend"):
        network.fit(PIXELS, Y, **OPTIONS)
    assert network.input_description == "uint8 images, scaled by 1/255; 4 classes"
    assert f"training on {network.input_description}" in caplog.messages
    network.save(tmp_path / "net.safetensors")
    assert nn.Network.load(tmp_path / "net.safetensors", "numpy").input_description == network.input_description
    numbers = nn.Network([nn.Dense(2)], 3, "numpy")
    numbers.train_on_batch(np.ones((5, 3)), np.full((5, 2), 0.5), loss="mean_squared_error")
    assert numbers.input_description == "float64 inputs with 3 features, not scaled; 2 targets"


@pytest.mark.parametrize(
    "moved",
    [
        lambda network, folder: copy.deepcopy(network),
        lambda network, folder: pickle.loads(pickle.dumps(network)),
        lambda network, folder: nn.Network.load(saved(network, folder), "numpy"),
        lambda network, folder: with_weights(nn.Network.from_config(json_of(network), "numpy"), network),
        lambda network, folder: network.to("numba"),
    ],
    ids=["copy", "pickle", "file", "configuration", "backend"],
)
def test_the_scale_moves_with_the_network(tmp_path, moved):
    network = image_network()
    network.fit(PIXELS, Y, **OPTIONS)
    expected = network.predict(PIXELS)
    other = moved(network, tmp_path)
    assert other.input_scale == 1 / 255
    np.testing.assert_allclose(other.predict(PIXELS.astype(float)), expected, rtol=1e-5)


def saved(network, folder):
    network.save(folder / "net.safetensors")
    return folder / "net.safetensors"


def json_of(network):
    return json.loads(json.dumps(network.config()))


def with_weights(network, other):
    network.set_weights(other.get_weights())
    return network


def test_the_best_epoch_and_a_resumed_run_keep_it(tmp_path):
    def train(epochs):
        network = image_network()
        callbacks = [nn.EarlyStopping("loss", restore_best=True), nn.Checkpoint(tmp_path / "run")]
        network.fit(PIXELS, Y, callbacks=callbacks, resume=True, **{**OPTIONS, "epochs": epochs})
        return network

    train(2)
    resumed = train(4)
    (checkpoint, *_) = sorted((tmp_path / "run").glob("*.safetensors"))
    assert resumed.input_scale == nn.Network.load(checkpoint, "numpy").input_scale == 1 / 255


def test_onnx_scales_inputs_of_every_dtype(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    network = image_network()
    network.fit(PIXELS, Y, **OPTIONS)
    for dtype in ("uint8", "float32", "float64"):
        network.to_onnx(tmp_path / "net.onnx", dtype)
        session = onnxruntime.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
        (found,) = session.run(None, {"input": PIXELS.reshape(-1, 3, 4).astype(dtype)})
        np.testing.assert_allclose(found, network.predict(PIXELS), rtol=1e-4, atol=1e-6)


def test_a_network_of_an_older_version_scales_by_dtype():
    """Older versions wrote no entry "inputs", and divided uint8 by 255 in every call."""
    network = classifier()
    config = {key: value for key, value in network.config().items() if key != "inputs"}
    older = nn.Network.from_config(config, "numpy")
    np.testing.assert_allclose(older.predict(PIXELS), older.predict(PIXELS / np.float32(255)), rtol=1e-3)
    assert older.config() == config
    assert not np.allclose(older.predict(PIXELS), older.predict(PIXELS.astype(int)))
    older.fit(PIXELS, Y, **OPTIONS)
    assert older.input_scale == 1 / 255
    np.testing.assert_array_equal(older.predict(PIXELS), older.predict(PIXELS.astype(int)))


def test_a_minimal_configuration_is_of_a_new_network():
    config = {"layers": classifier().config()["layers"], "input_shape": [12]}
    assert not nn.Network.from_config(config, "numpy").scaled_by_dtype


def test_another_scale_after_training_is_refused():
    network = image_network()
    network.input_scale = 0.5
    network.input_scale = None
    network.fit(PIXELS, Y, **OPTIONS)
    network.input_scale = 1 / 255
    for scale in (1.0, None):
        with pytest.raises(InvalidInputError, match=r"was trained with input_scale=0.00392157.* create a new network"):
            network.input_scale = scale
    assert network.input_scale == 1 / 255


@pytest.mark.parametrize("scale", [0, -0.0, np.nan, np.inf, 1e-60, 1e60, "1", True])
def test_scales_that_destroy_the_inputs(scale):
    with pytest.raises(InvalidInputError, match="input_scale must"):
        classifier(input_scale=scale)
    with pytest.raises(InvalidInputError, match="input_scale must"):
        classifier().input_scale = scale


@pytest.mark.parametrize("kind", ["array", "file", "sparse", "stream"])
@pytest.mark.parametrize("dtype", ["float64", "float32", "int64", "uint8"])
def test_products_that_overflow(tmp_path, kind, dtype):
    network = classifier(input_scale=1e37)
    x = (np.arange(240).reshape(20, 12) % 200).astype(dtype)
    given = x
    if kind == "file":
        np.save(tmp_path / "x.npy", x)
        given = np.load(tmp_path / "x.npy", mmap_mode="r")
    elif kind == "sparse":
        given = pytest.importorskip("scipy.sparse").csr_array(x)
    before = network.get_weights()
    data = (nn.BatchStream(lambda epoch: [(x, Y[:20])], 20),) if kind == "stream" else (given, Y[:20])
    with pytest.raises(InvalidInputError, match=r"x holds values up to 199, which input_scale=1e\+37 takes beyond"):
        network.fit(*data, **OPTIONS)
    if kind != "stream":
        with pytest.raises(InvalidInputError, match="takes beyond the range of float32"):
            network.predict(given)
    assert all((before[name] == array).all() for name, array in network.get_weights().items())
    assert network.loss is None


@pytest.mark.parametrize("reverse", [False, True])
def test_inputs_in_other_units_are_noticed(reverse):
    pair = PIXELS, (PIXELS / 255).astype("float32")
    network = image_network()
    network.fit(pair[reverse], Y, **OPTIONS)
    with pytest.warns(UserWarning, match="Give x in the units of the training"):
        network.predict(pair[not reverse])


def test_a_checkpoint_of_an_older_version_with_another_scale_is_refused(tmp_path):
    """The older version divided flat uint8 by 255; giving that scale resumes its run."""
    from tests.older import runs

    folder = runs.__file__.rsplit("/", 1)[0] + "/c6ffbc3/checkpoints/numpy-end"
    network = runs.MODELS["rich"][0]("numpy")
    x, y = runs.data()
    options = {"epochs": 5, "batch_size": 8, "loss": LOSS, "validation_data": (x[:25], y[:25]), "resume": folder}
    optimizer = nn.Adam(nn.Warmup(0.5, nn.ReduceOnPlateau(0.02, patience=1)))
    callbacks = [nn.EarlyStopping("val_accuracy", patience=4), nn.CSVLogger(tmp_path / "log.csv")]
    with (
        pytest.warns(UserWarning, match="input_scale"),
        pytest.raises(InvalidInputError, match=r"input_scale was 0.00392\d+ there and is 1.0 here"),
    ):
        network.fit(np.asarray(x), y, optimizer=optimizer, callbacks=callbacks, **options)


def test_validation_data_in_other_units_are_noticed():
    with pytest.warns(UserWarning, match="Give x in the units of the training"):
        image_network().fit((PIXELS / 255).astype("float32"), Y, validation_data=(PIXELS, Y), **OPTIONS)


def test_bytes_for_a_network_of_float64_may_be_scaled_beyond_float32():
    network = classifier(input_scale=1e37, dtype="float64")
    assert np.isfinite(network.predict(PIXELS)).all()
