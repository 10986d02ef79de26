"""What `Network.predict` reads and computes: any number of rows of any type, NaN and infinity, and always the current
weights."""

from __future__ import annotations

import copy
import pickle
import warnings

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.errors import InvalidInputError
from tests.helpers import classifier, convolutional_network, images

#: Around the numbers that have their own recordings, chunks and batches.
COUNTS = (1, 2, 8, 15, 16, 17, 130, 300, 1025)


def rows_of(count, features=12, dtype="float32", seed=0):
    return np.random.default_rng(seed).normal(size=(count, features)).astype(dtype)


# ---- rows ------------------------------------------------------------------------------------------------------------


def agree(net, one, other):
    """Whether predictions have the same bits. The products of other libraries may add in another order for another
    number of rows, so theirs agree to rounding."""
    if isinstance(net.backend, nn.ArrayApiBackend):
        return np.allclose(one, other, rtol=1e-5, atol=1e-6)
    return one.tobytes() == other.tobytes()


@pytest.mark.parametrize("scale", [1.0, 1 / 255])
def test_a_row_has_the_same_bits_among_any_others(backend, scale):
    net = nn.Network([nn.Dense(9, "tanh"), nn.Dense(4)], 12, backend=backend, input_scale=scale)
    net.set_loss("softmax_cross_entropy")
    x = 255 * np.random.default_rng(0).random((1025, 12))
    for given in ("float32", "uint8", "float64"):
        rows = x.astype(given)
        whole = net.predict(rows)
        assert whole.dtype == net.dtype
        for count in COUNTS:
            for batch in (None, 7):
                assert agree(net, net.predict(rows[:count], batch_size=batch), whole[:count]), (count, batch)
        assert agree(net, net.predict(rows[::2]), net.predict(np.asfortranarray(rows))[::2])
        frozen = rows.copy()
        frozen.flags.writeable = False
        assert net.predict(frozen).tobytes() == whole.tobytes()
        assert net.predict(rows.reshape(-1, 12)).tobytes() == whole.tobytes()


def test_the_result_belongs_to_the_caller_and_the_rows_stay_as_they_are(backend):
    for layers in ([nn.Activation("relu"), nn.Dense(4, "relu")], [nn.Dense(4)], [nn.Dense(12), nn.Activation("tanh")]):
        net = nn.Network(layers, 12, backend=backend)
        for count in (3, 40):
            x = rows_of(count)
            before = x.copy()
            first = net.predict(x)
            kept = first.copy()
            second = net.predict(rows_of(count, seed=1))
            assert not np.shares_memory(first, second)
            assert not np.shares_memory(first, x)
            np.testing.assert_array_equal(first, kept)
            np.testing.assert_array_equal(x, before)


def test_images_of_data_sets_and_of_any_shape(backend):
    net = convolutional_network(backend)
    x = rows_of(40, np.prod(net.input_shape)).reshape(40, *net.input_shape)
    assert net.predict(x).tobytes() == net.predict(x.reshape(40, -1)).tobytes()
    assert agree(net, net.predict(x)[:3], net.predict(x[:3]))
    net = classifier(backend, input_scale=1 / 255)
    pixels = images(rows=40)[0]
    assert net.predict(pixels.view(nn.data.scale.Images)).tobytes() == net.predict(pixels).tobytes()


# ---- NaN and infinity ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=pytest.mark.float64)])
@pytest.mark.parametrize("activation", ["sigmoid", "relu"])
def test_nan_and_infinity_are_found_in_every_column(backend, dtype, activation):
    """One column more than vectors have, and an activation that hides infinity."""
    net = nn.Network([nn.Dense(5, activation), nn.Dense(3)], 19, backend=backend, dtype=dtype, input_scale=1.0)
    dead = nn.Network([nn.Dense(5, activation), nn.Dense(3)], 19, backend=backend, dtype=dtype, input_scale=1.0)
    dead.set_weights({name: np.zeros_like(each) for name, each in dead.get_weights().items()})
    for count in (2, 40):
        x = rows_of(count, 19, dtype)
        expected = net.predict(x).tobytes()
        for column in range(19):
            row = (7 * column) % count
            for number, bad in enumerate((np.nan, np.inf, -np.inf)):
                wrong = x.copy()
                wrong[row, column] = bad
                with pytest.raises(
                    InvalidInputError, match=f"1 NaN or infinite values, the first in row {row}, feature"
                ):
                    (net, dead)[(column + number) % 2].predict(wrong)
        wrong[0, :2] = np.inf, -np.inf
        with pytest.raises(InvalidInputError, match="NaN or infinite"):
            dead.predict(wrong)
        assert net.predict(x).tobytes() == expected


def test_nan_and_infinity_are_found_in_front_of_any_layer_and_in_rows_that_are_converted(backend):
    first = [nn.Activation("sigmoid"), nn.MaxAbsNorm(), nn.LayerNormalization(), nn.Dropout(0.5)]
    for layer in first:
        net = nn.Network([layer, nn.Dense(3, "tanh")], 12, backend=backend, input_scale=1.0)
        for count in (3, 40):
            for bad in (np.nan, np.inf, -np.inf):
                x = rows_of(count)
                x[-1, -1] = bad
                for rows in (x, x.astype("float64")):
                    with pytest.raises(InvalidInputError, match="NaN or infinite"):
                        net.predict(rows)
    net = classifier(backend, input_scale=3.0)
    for count in (3, 40):
        with pytest.raises(InvalidInputError, match="beyond the range of float32"):
            net.predict(np.full((count, 12), 1e300))
        with pytest.raises(InvalidInputError, match="input_scale=3"):
            net.predict(np.full((count, 12), 3e38, np.float32))


def test_finite_rows_whose_sums_overflow_are_predicted_with_a_warning(backend):
    net = nn.Network([nn.Dense(5, "sigmoid"), nn.Dense(3)], 12, backend=backend, input_scale=1.0)
    x = np.full((40, 12), 3e38, np.float32)
    for count in (3, 40):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            # Infinite sums, but finite outputs.
            assert np.isfinite(net.predict(x[:count])).all()
            assert np.isfinite(net.compile_predictor(count)(x[:count])).all()
    net = nn.Network([nn.Dense(3, "relu")], 12, backend=backend, input_scale=1.0)
    net.set_weights({name: np.full_like(each, 3.0) for name, each in net.get_weights().items()})
    for count in (3, 40):
        with pytest.warns(UserWarning, match=f"predictions of {count} of {count} rows are NaN or infinite"):
            assert np.isinf(net.predict(x[:count])).all()


# ---- weights ---------------------------------------------------------------------------------------------------------


def _other(net):
    return {name: array + np.float32(0.25) for name, array in net.get_weights().items()}


def _fit(net, **options):
    x, y = images(rows=40)
    net.fit(x, y, epochs=2, loss="softmax_cross_entropy", optimizer=nn.Adam(0.1), verbose=False, **options)


def _fit_many(net, tmp_path):
    x, y = images(rows=40)
    nn.fit_many(
        [net, classifier(net.backend, input_scale=1 / 255)], x, y, epochs=2, loss="softmax_cross_entropy",
        optimizer=nn.SGD(0.5), verbose=False,
    )  # fmt: skip


def _on_batch(net, tmp_path):
    x, y = images(rows=40)
    net.train_on_batch(x, y, loss="softmax_cross_entropy", optimizer=nn.SGD(0.5))


def _restored(net, tmp_path):
    snapshot = net.snapshot()
    net.set_weights(_other(net))
    net.predict(np.ones((40, 12), np.uint8))
    net.restore(snapshot)
    _fit(net)
    net.restore(net.snapshot())


def _resumed(net, tmp_path):
    _fit(net, callbacks=[nn.Checkpoint(tmp_path / "run")])
    weights = net.get_weights()
    net.set_weights(_other(net))
    net.predict(np.ones((40, 12), np.uint8))
    _fit(net, callbacks=[nn.Checkpoint(tmp_path / "run")], resume=True)
    assert all((net.get_weights()[name] == array).all() for name, array in weights.items())


def _moved(net, tmp_path):
    backend = net.backend
    net.to("numpy")
    net.set_weights(_other(net))
    net.to(backend)


CHANGES = {
    "set_weights": lambda net, tmp_path: net.set_weights(_other(net)),
    "fit": lambda net, tmp_path: _fit(net),
    "fit_many": _fit_many,
    "train_on_batch": _on_batch,
    "restore": _restored,
    "resume": _resumed,
    "to": _moved,
    "loss": lambda net, tmp_path: net.set_loss("sigmoid_cross_entropy"),
    "copied to the buffer": lambda net, tmp_path: net.backend.write(
        net.backend.to_host(net.model.parameters) + np.float32(0.25), net.model.parameters
    ),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_predictions_follow_the_weights(backend, change, tmp_path):
    x = images(rows=40)[0]
    net = classifier(backend, input_scale=1 / 255)
    # Another loss would have other recordings.
    net.set_loss("softmax_cross_entropy")
    before = {count: [net.predict(x[:count]).tobytes() for _ in range(3)][-1] for count in (2, 40)}
    change(net, tmp_path)
    fresh = classifier(net.backend, input_scale=1 / 255)
    fresh.set_weights(net.get_weights())
    fresh.set_loss(net.loss)
    for count in (2, 40):
        expected = fresh.predict(x[:count]).tobytes()
        for _ in range(3):
            assert net.predict(x[:count]).tobytes() == expected != before[count]


def test_predictions_of_copies_files_and_pickles_are_their_own(backend, tmp_path):
    x = images(rows=40)[0]
    net = classifier(backend, input_scale=1 / 255)
    before = net.predict(x).tobytes()
    net.save(tmp_path / "net.safetensors")
    others = [copy.copy(net), copy.deepcopy(net), nn.Network.load(tmp_path / "net.safetensors", backend=net.backend)]
    if backend in ("numpy", "numba"):
        others.append(pickle.loads(pickle.dumps(net)))
    net.set_weights(_other(net))
    after = net.predict(x).tobytes()
    for other in others:
        if other.model.parameters is not net.model.parameters:
            assert other.predict(x).tobytes() == before
            other.set_weights(_other(net))
    assert net.predict(x).tobytes() == after != before


class _Predicts(nn.Callback):
    def __init__(self, x):
        self.x, self.made = x, []

    def on_epoch_end(self, network, epoch, history):
        self.made.append((network.predict(self.x).tobytes(), network.get_weights()))


def test_a_callback_predicts_with_the_weights_of_its_epoch(backend):
    x = images(rows=40)[0]
    net, seen = classifier(backend, input_scale=1 / 255), _Predicts(x)
    _fit(net, callbacks=[seen])
    other = classifier(net.backend, input_scale=1 / 255)
    other.set_loss("softmax_cross_entropy")
    for made, weights in seen.made:
        other.set_weights(weights)
        assert other.predict(x).tobytes() == made
    assert len({made for made, _ in seen.made}) == 2
