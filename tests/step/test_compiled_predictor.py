"""Compiled predictors: the bits of `predict`, a snapshot of the network, and many threads."""

from __future__ import annotations

import copy
import pickle
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.errors import InvalidAttributeError, InvalidInputError
from nnbackend.step import prediction
from tests.helpers import any_device, classifier, convolutional_network, images, rich_network


def rows_of(count, features=12, dtype="float32", seed=0):
    return np.random.default_rng(seed).normal(size=(count, features)).astype(dtype)


@pytest.mark.parametrize("make", [rich_network, convolutional_network])
@pytest.mark.parametrize("rows", [1, 2, 7])
def test_the_bits_of_predict(backend, make, rows):
    net = make(backend)
    net.set_loss("softmax_cross_entropy")
    predictor = net.compile_predictor(rows)
    for seed in range(3):
        x = rows_of(rows, seed=seed)
        made = predictor(x)
        assert (made.dtype, made.shape) == (net.dtype, (rows, 4))
        assert made.tobytes() == net.predict(x).tobytes()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("scale", [1.0, 1 / 255, 3.0])
def test_rows_of_every_type_are_converted_and_scaled_as_by_predict(backend, dtype, scale):
    net = nn.Network([nn.Dense(5, "tanh"), nn.Dense(3)], 12, backend=backend, dtype=dtype, input_scale=scale)
    predictor = net.compile_predictor(4)
    x = 255 * np.random.default_rng(0).random((4, 12))
    for given in ("uint8", "int64", "float16", "float32", "float64", ">f4", "bool"):
        rows = x.astype(given)
        assert predictor(rows).tobytes() == net.predict(rows).tobytes(), given
    read_only = x.astype(np.float32)
    read_only.flags.writeable = False
    wide = np.repeat(x, 2, axis=1).astype(dtype)
    for rows in (x.tolist(), read_only, np.asfortranarray(x), wide[:, ::2], x.view(np.recarray)):
        assert predictor(rows).tobytes() == net.predict(rows).tobytes()


def test_samples_of_any_shape(backend):
    net = nn.Network([nn.Conv2D(3, 2), nn.Activation("relu")], (4, 5, 2), backend=backend)
    predictor = net.compile_predictor(2)
    x = rows_of(2, 40).reshape(2, 4, 5, 2)
    assert predictor(x).shape == (2, 3, 4, 3)
    assert predictor(x).tobytes() == net.predict(x).tobytes()
    assert predictor(x.reshape(2, 40)).tobytes() == net.predict(x).tobytes()


def test_more_rows_than_predict_takes_at_a_time(monkeypatch):
    for backend in ("numpy", "numba"):
        net = classifier(backend)
        monkeypatch.setattr(prediction, "INFERENCE_BATCH", 6)
        x = rows_of(20)
        assert net.compile_predictor(20)(x).tobytes() == net.predict(x, batch_size=6).tobytes()


def _double(backend, x, out):
    np.multiply(x, 2, out=out)


class Doubled(nn.Layer):
    """A user-defined layer that runs from Python."""

    def forward(self, step, x):
        out = step.like(x)
        step.call(any_device(_double), x, out)
        return out, None

    def backward(self, step, saved, upstream, need_input_gradient):
        return upstream


def test_layers_of_the_user_and_networks_that_compute_nothing(backend):
    for layers in ([nn.Dense(6), Doubled(), nn.Dense(3)], [nn.Flatten()], [Doubled()]):
        net = nn.Network(layers, 12, backend=backend)
        x = rows_of(3)
        assert net.compile_predictor(3)(x).tobytes() == net.predict(x).tobytes()


def test_it_is_a_snapshot(backend):
    x, y = images(rows=40)
    net = classifier(backend, input_scale=1 / 255)
    predictor = net.compile_predictor(40)
    before = predictor(x).tobytes()
    assert before == net.predict(x).tobytes()
    net.fit(x, y, epochs=2, loss="softmax_cross_entropy", optimizer=nn.Adam(0.1))
    after = net.predict(x).tobytes()
    assert net.compile_predictor(40)(x).tobytes() == after != before
    net.set_weights({name: 2 * array for name, array in net.get_weights().items()})
    net.set_loss("mean_squared_error")
    net.to("numpy")
    assert predictor(x).tobytes() == before


def test_the_result_belongs_to_the_caller(backend):
    net = classifier(backend)
    predictor = net.compile_predictor()
    one, other = rows_of(1), rows_of(1, seed=1)
    first = predictor(one)
    kept = first.copy()
    second = predictor(other)
    assert not np.shares_memory(first, second)
    np.testing.assert_array_equal(first, kept)
    first[...] = np.nan
    assert predictor(other).tobytes() == second.tobytes()
    np.testing.assert_array_equal(predictor(one), kept)


def test_wrong_rows_are_one_clear_error(backend):
    net = classifier(backend)
    predictor = net.compile_predictor(2)
    x = rows_of(2)
    good = predictor(x).tobytes()
    for wrong, message in (
        (rows_of(3), r"takes 2 rows at a time, received 3; compile_predictor\(batch_size=3\) makes one"),
        (rows_of(2, 11), r"x must have 12 features a row, received shape \(2, 11\)"),
        (x[0], r"received shape \(12,\); for a single sample give x\[None\]"),
        (np.array([["a"] * 12] * 2), "must hold numbers"),
        (None, "x is None"),
        (x.astype(complex), "complex"),
        (np.full((2, 12), 1e300), "beyond the range of float32"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            predictor(wrong)
        assert predictor(x).tobytes() == good
    with pytest.raises(InvalidInputError, match="takes 1 row at a time, received 2"):
        net.compile_predictor()(x)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_nan_and_infinity_are_refused_also_where_an_activation_would_hide_them(backend, dtype):
    layers = [nn.Activation("sigmoid"), nn.Dense(3, "tanh"), nn.Activation("relu")]
    net = nn.Network(layers, 12, backend=backend, dtype=dtype)
    predictor = net.compile_predictor(5)
    for given in ("float32", "float64"):
        for bad in (np.nan, np.inf, -np.inf):
            for place in ((0, 0), (2, 5), (4, 11)):
                x = rows_of(5, dtype=given)
                x[place] = bad
                with pytest.raises(InvalidInputError, match=f"first in row {place[0]}, feature {place[1]}"):
                    predictor(x)
        assert np.isfinite(predictor(rows_of(5, dtype=given))).all()


def test_inputs_that_overflow_when_they_are_scaled_are_refused(backend):
    net = classifier(backend, input_scale=1e10)
    with pytest.raises(InvalidInputError, match="which input_scale=1e\\+10 takes beyond the range of float32"):
        net.compile_predictor()(np.full((1, 12), 1e30, np.float32))


def test_it_warns_as_predict_does(backend):
    overflowing = nn.Network([nn.Dense(3), nn.Dense(3)], 12, backend=backend)
    overflowing.set_weights({name: np.full_like(array, 1e30) for name, array in overflowing.get_weights().items()})
    undecided = classifier(backend)
    x, y = images(rows=20)
    trained = classifier(backend, input_scale=1 / 255)
    trained.fit(x, y, epochs=1, loss="softmax_cross_entropy")
    for net, rows, warned in (
        (overflowing, rows_of(3), True),
        (undecided, np.full((3, 12), 7, np.uint8), True),
        (trained, x[:3] / 255, True),  # in other units
        (trained, np.asarray(x[:3]), False),
    ):
        predictor = net.compile_predictor(3)
        messages = []
        for predict in (net.predict, predictor):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                predict(rows)
            messages.append([str(each.message) for each in caught])
            assert {each.filename for each in caught} <= {__file__}
        assert messages[0] == messages[1]
        assert bool(messages[0]) == warned


def test_many_threads_predict_while_the_network_is_trained(backend):
    net = classifier(backend, input_scale=1 / 255)
    x, y = images(rows=60)
    predictor = net.compile_predictor(3)
    batches = [x[start : start + 3] for start in range(0, 60, 3)]
    expected = [net.predict(batch).tobytes() for batch in batches]
    threads, turns = 8, 60
    barrier = threading.Barrier(threads + 1)

    def work(number):
        barrier.wait(60)
        for turn in range(turns):
            chosen = (7 * number + turn) % len(batches)
            assert predictor(batches[chosen]).tobytes() == expected[chosen]

    with ThreadPoolExecutor(threads) as pool:
        done = [pool.submit(work, number) for number in range(threads)]
        barrier.wait(60)
        net.fit(x, y, epochs=3, loss="softmax_cross_entropy", optimizer=nn.Adam(0.1))
        for each in done:
            each.result(120)
    assert len(predictor._free) <= threads


def test_numba_releases_the_global_lock():
    from nnbackend.backends.numba import prediction as jitted

    for name in ("predict", "serve", "read_rows", "write_results"):
        assert getattr(jitted, name).targetoptions["nogil"], name
    net = classifier("numba")
    assert net.compile_predictor()._direct


def test_a_thread_that_ends_leaves_its_buffers_to_the_next():
    net = classifier("numba")
    predictor, x = net.compile_predictor(), rows_of(1)
    for _ in range(5):
        thread = threading.Thread(target=predictor, args=(x,))
        thread.start()
        thread.join()
    assert len(predictor._free) == 1


def test_it_describes_itself_and_cannot_be_changed_or_copied():
    predictor = classifier().compile_predictor(2)
    assert repr(predictor) == "<CompiledPredictor of 2 rows (12,) -> (4,) on numpy>"
    assert (predictor.batch_size, predictor.dtype) == (2, np.float32)
    with pytest.raises(InvalidAttributeError, match="compile another one"):
        predictor.batch_size = 3
    for duplicate in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="cannot be copied or pickled"):
            duplicate(predictor)
    for wrong in (0, -1, 1.5, "2", None):
        with pytest.raises(InvalidInputError, match="batch_size"):
            classifier().compile_predictor(wrong)
