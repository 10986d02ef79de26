"""Numba's predictions in one call: weights in panels, rows where they lie, and threads that wait for the next call."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.backends.numba import NumbaBackend, executor, panels, prediction
from nnbackend.errors import InvalidInputError
from nnbackend.step import prediction as prediction_step
from tests.helpers import classifier


@pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=pytest.mark.slow)])
def test_products_of_panels_have_the_bits_of_others(dtype):
    generator = np.random.default_rng(0)
    for sizes in ((1, 1), (5, 3, 49), (300, 130, 48, 7), (129, 96, 97, 16, 1)):
        layers = [nn.Dense(size, "relu", bias_initializer=nn.Normal(), use_bias=size != 97) for size in sizes[1:]]
        net = nn.Network(layers, sizes[0], backend=NumbaBackend(1), dtype=dtype, input_scale=1.0)
        for rows in (1, 2, 5, 8, 9, 31, 300):
            x = generator.normal(size=(rows, sizes[0])).astype(dtype)
            assert net.compile_predictor(rows)(x).tobytes() == net.predict(x).tobytes(), (sizes, rows)


def test_weights_are_copied_once_for_all_threads(monkeypatch):
    copied = []
    original = panels._fill
    monkeypatch.setattr(panels, "_fill", lambda *each: copied.append(1) or original(*each))
    net = classifier("numba")
    predictor = net.compile_predictor()
    for _ in range(3):
        predictor._predictor.record(1)
    assert len(copied) == 2


def test_a_weight_that_the_step_computes_stays_where_it_is():
    """Batch normalisation is folded into the weight in each step."""
    layers = [nn.Dense(5, use_bias=False), nn.BatchNormalization(), nn.Dense(3)]
    net = nn.Network(layers, 6, backend="numba")
    weights = net.get_weights()
    net.set_weights({**weights, "layers.1.running_variance": np.arange(1.0, 6), "layers.1.running_mean": np.arange(5)})
    x = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
    assert net.compile_predictor(40)(x).tobytes() == net.predict(x).tobytes()


class TwoShapes(nn.Layer):
    """A product with its weight, and one with the same numbers as a matrix of as many rows as that has columns."""

    def output_shape(self, input_shape):
        return input_shape

    def parameters(self, input_shape):
        return (nn.Parameter("weight", (*input_shape, 5), nn.HeNormal()),)

    def forward(self, step, x):
        inner, out, weight = step.buffer(5), step.buffer(x.shape[1]), step.parameter("weight")
        step.record("dense_forward", x, weight, None, "identity", 0.0, None, inner)
        step.record("dense_forward", inner, weight.reshape(5, x.shape[1]), None, "identity", 0.0, None, out)
        return out, None

    def backward(self, step, saved, upstream, need_input_gradient):
        raise NotImplementedError


def test_a_weight_of_two_shapes_has_panels_for_each():
    x = np.random.default_rng(0).normal(size=(40, 12)).astype(np.float32)
    net, reference = (nn.Network([TwoShapes(), nn.Dense(3)], 12, backend, seed=1) for backend in ("numba", "numpy"))
    for rows in (40, 2, 2):
        np.testing.assert_allclose(net.predict(x[:rows]), reference.predict(x[:rows]), rtol=1e-4, atol=1e-6)
    assert net.compile_predictor(40)(x).tobytes() == net.predict(x).tobytes()


def test_rows_are_read_where_they_lie_in_turn_with_converted_ones():
    net = classifier("numba", input_scale=1.0)
    predictor = net.compile_predictor(3)
    own = predictor._free[0].x
    generator = np.random.default_rng(0)
    for dtype in ("float32", "uint8", "float32", "float64", "uint8"):
        own[...] = np.nan
        x = (200 * generator.random((3, 12))).astype(dtype)
        assert predictor(x).tobytes() == net.predict(x).tobytes()
        # What needs no conversion was not copied.
        assert np.isnan(own).all() == (dtype == "float32")


def test_rows_that_the_last_chunk_shares_are_written_by_the_one_before_alone():
    """Their results are intermediate values for a while if a line works in place, such as a softmax."""
    net = classifier(NumbaBackend(2), input_scale=1.0)
    x = np.random.default_rng(0).random((1025, 12)).astype(np.float32)
    expected = net.predict(x)
    step = net._predictor._any.run_rows
    chunks, results = step._chunks, np.full_like(expected, np.nan)
    chunks.prepare(x, np.float32(1), results)
    _, number, size = chunks._record[:3]
    assert number * size > len(x)
    # As if another thread had taken all others.
    chunks._record[0] = number - 1
    prediction.run_shared(*step._step, *step._team.alone)
    begin = (number - 1) * size
    assert np.isnan(results[:begin]).all()
    assert results[begin:].tobytes() == expected[begin:].tobytes()


def test_chunks_are_read_where_they_lie_in_turn_with_converted_ones():
    """The last layer writes to the results, too, except for a last chunk that shares rows with the one before."""
    net = classifier(NumbaBackend(2), input_scale=1.0)
    numbers = np.random.default_rng(0).random((300, 12))
    net.predict(numbers.astype(np.float32))
    buffers = net._predictor._any
    for dtype in ("float32", "uint8", "float32", "float64", "uint8"):
        buffers.x[...] = buffers.outputs[...] = np.nan
        x = (200 * numbers).astype(dtype)
        assert net.predict(x).tobytes() == net.predict(x, batch_size=13).tobytes()
        buffers.x[...] = np.nan
        net.predict(x)
        assert np.isnan(buffers.x).all() == (dtype == "float32")
        _, number, size = buffers.run_rows._chunks._record[:3]
        assert np.isfinite(buffers.outputs).any(axis=1).sum() == (size if number * size > len(x) else 0)


def test_one_recording_serves_any_number_of_rows_and_buffers_are_bounded():
    for threads in (1, 3, 40):
        net = classifier(NumbaBackend(threads), input_scale=1.0)
        x = np.random.default_rng(0).random((3000, 12), np.float32)
        whole = net.predict(x)
        buffers = net._predictor._any
        assert len(buffers.x) <= prediction_step.INFERENCE_BATCH
        for rows in (16, 17, 100, 129, 1000, 2999):
            assert net.predict(x[:rows]).tobytes() == whole[:rows].tobytes()
        assert net._predictor._any is buffers
        assert not net._predictor._recorded


@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize("large", [True, False])
def test_threads_take_chunks_with_the_same_bits(shared, monkeypatch, threads, large):
    """They are woken for a large step, and wait for the next small one."""
    monkeypatch.setattr(executor, "_SHARED_RUN", 0 if large else 1 << 60)
    # Enough rows for milliseconds, in which another thread finds a core.
    x = np.random.default_rng(0).integers(0, 256, (100_000, 12)).astype(np.uint8)
    expected = classifier(NumbaBackend(1), input_scale=1.0).predict(x)
    net = classifier(NumbaBackend(threads), input_scale=1.0)
    assert net.predict(x).tobytes() == expected.tobytes()
    buffers, team, helped = net._predictor._any, net.backend._team, 0
    slices = buffers.x.reshape(threads, -1)
    for _ in range(200):
        wait_until(lambda: (states(net) == prediction.READY).any())
        slices[...] = np.nan
        assert net.predict(x).tobytes() == expected.tobytes()
        # Each thread converts rows in its own part of the buffer.
        helped += not np.isnan(slices[1:, 0]).all()
        if helped > 1:
            break
    assert helped > 1
    for rows in (100, 16, 1000):
        assert net.predict(x[:rows]).tobytes() == expected[:rows].tobytes()
    numbers = x.astype(np.float32)
    assert net.predict(numbers).tobytes() == expected.tobytes()
    numbers[500, 11] = np.inf
    with pytest.raises(InvalidInputError, match="the first in row 500, feature 11"):
        net.predict(numbers)
    assert net.predict(x).tobytes() == expected.tobytes()
    prediction.dismiss(team._mails)
    wait_until(lambda: not states(net).any())


def test_many_rows_return_to_python_between_pieces(monkeypatch):
    x = np.random.default_rng(0).normal(size=(300, 12)).astype(np.float32)
    expected = classifier("numba").predict(x).tobytes()
    monkeypatch.setattr("nnbackend.backends.numba.from_rows.PIECE", 20_000)
    net = classifier(NumbaBackend(2))
    assert net.predict(x).tobytes() == expected
    assert net._predictor._any.run_rows._piece < 100
    x[299, 0] = np.nan
    with pytest.raises(InvalidInputError, match="the first in row 299, feature 0"):
        net.predict(x)


def test_weights_are_copied_when_they_are_used_again(monkeypatch):
    """Copying them takes longer than a few rows, and must not be repeated while they stay the same."""
    copied = []
    original = panels._fill
    monkeypatch.setattr(panels, "_fill", lambda *each: copied.append(1) or original(*each))
    net = classifier(NumbaBackend(1))
    x = np.random.default_rng(0).random((40, 12), np.float32)
    weights = net.get_weights()
    for _ in range(3):
        net.set_weights(weights)
        net.predict(x[:2])
    assert not copied
    for _ in range(5):
        net.predict(x[:2])
    assert len(copied) in (2, 4)
    copied.clear()
    net.predict(x)
    net.predict(x[:3])
    assert not copied
    net.set_weights(weights)
    for _ in range(3):
        net.predict(x)
    assert len(copied) == 2


def test_what_another_network_computes_changes_no_prediction():
    net, other = (classifier("numba", input_scale=1.0, seed=seed) for seed in (1, 2))
    x = np.random.default_rng(0).random((40, 12), np.float32)
    expected, others = net.predict(x).tobytes(), other.predict(x).tobytes()
    for _ in range(3):
        assert net.predict(x).tobytes() == net.predict(x, batch_size=9).tobytes() == expected
        assert other.predict(x).tobytes() == others
        other.train_on_batch(x, np.arange(40) % 4, loss="softmax_cross_entropy")
        other.set_loss("mean_squared_error")
        others = other.predict(x, batch_size=40).tobytes()


@pytest.fixture
def shared(monkeypatch):
    """Threads share any step."""
    monkeypatch.setattr(executor, "_WORTH_HELP", 0)
    # They wait for a second at least, and however long the last call is ago.
    monkeypatch.setattr(executor, "_SOON", 1e9)
    monkeypatch.setattr(executor, "_WAITS", 50_000_000)


def wait_until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def states(net):
    return net.backend._team._mails[:, prediction.STATE]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rows", "layers", "threads"), [(1, [200, 120, 10], 2), (14, [9, 4], 2), (7, [200, 120, 10], 3)], ids=str
)
def test_threads_that_wait_share_a_step_with_the_same_bits(shared, monkeypatch, layers, rows, threads):
    # Until a thread that is waiting has a core.
    monkeypatch.setattr(executor, "_PATIENCE", 1 << 40)
    net = nn.Network([nn.Dense(each, "relu") for each in layers], 300, backend=NumbaBackend(threads), input_scale=1.0)
    x = np.random.default_rng(0).normal(size=(rows, 300)).astype(np.float32)
    expected = net.predict(x).tobytes()
    predictor = net.compile_predictor(rows)
    team = net.backend._team
    assert predictor(x).tobytes() == expected
    helped = 0
    for _ in range(8):
        wait_until(lambda: (states(net) == prediction.READY).any())
        team._mails[:, prediction.THREADS] = 0
        assert predictor(x).tobytes() == expected
        helped += team._mails[:, prediction.THREADS].max() > 1
    # Not where a thread had stopped waiting just before.
    assert helped > 4
    with pytest.raises(InvalidInputError, match="NaN"):
        predictor(np.full_like(x, np.nan))
    assert predictor(x).tobytes() == expected
    prediction.dismiss(team._mails)
    wait_until(lambda: not states(net).any())


@pytest.mark.slow
def test_threads_that_wait_make_way_for_training(shared, monkeypatch):
    monkeypatch.setattr(executor, "_SHARED_STEP", 0)
    monkeypatch.setattr(executor, "_SHARED_RUN", 0)
    monkeypatch.setattr(executor, "_WAITS", 1 << 50)
    net = classifier(NumbaBackend(2))
    predictor, x = net.compile_predictor(8), np.random.default_rng(0).random((8, 12), np.float32)
    y = np.arange(8) % 4
    before = predictor(x).tobytes()
    for _ in range(3):
        assert predictor(x).tobytes() == before
        wait_until(lambda: states(net)[0] == prediction.READY)
        net.fit(x, y, epochs=1, loss="mean_squared_error", verbose=False)
    prediction.dismiss(net.backend._team._mails)


def test_without_threads_that_wait_large_steps_are_shared_as_others_are(monkeypatch):
    monkeypatch.setattr(executor, "_WORTH_HELP", 0)
    monkeypatch.setattr(executor, "_SHARED_RUN", 0)
    monkeypatch.setattr(executor, "_SOON", -1.0)
    net = classifier(NumbaBackend(2))
    predictor, x = net.compile_predictor(9), np.random.default_rng(0).random((9, 12), np.float32)
    together = []
    original = executor.Team.run_together
    monkeypatch.setattr(executor.Team, "run_together", lambda *each: together.append(1) or original(*each))
    assert predictor(x).tobytes() == net.predict(x).tobytes()
    assert together
    with pytest.raises(InvalidInputError, match="NaN or infinite"):
        predictor(np.full_like(x, np.nan))
    large = classifier(NumbaBackend(2))
    large.set_weights({name: np.full_like(each, 3e38) for name, each in large.get_weights().items()})
    predictor = large.compile_predictor(9)
    with pytest.warns(UserWarning, match="NaN or infinite: numbers within the network overflow"):
        predictor(x)


def test_many_callers_share_the_threads(shared):
    net = classifier(NumbaBackend(3))
    predictor, x = net.compile_predictor(4), np.random.default_rng(0).random((4, 12), np.float32)
    expected = net.predict(x).tobytes()
    with ThreadPoolExecutor(6) as pool:
        for each in pool.map(lambda _: [predictor(x).tobytes() for _ in range(100)], range(12)):
            assert set(each) == {expected}
    prediction.dismiss(net.backend._team._mails)


FORKED = """
import os, numpy as np, nnbackend as nn
from nnbackend.backends.numba import NumbaBackend, executor, prediction
executor._WORTH_HELP, executor._SOON, executor._WAITS = 0, 1e9, 1 << 50
net = nn.Network([nn.Dense(9), nn.Dense(4)], 12, backend=NumbaBackend(2))
predictor, x = net.compile_predictor(2), np.ones((2, 12), np.float32)
expected = predictor(x).tobytes()
team = net.backend._team
while team._mails[0, prediction.STATE] != prediction.READY:
    predictor(x)
child = os.fork()
same = all(predictor(x).tobytes() == expected for _ in range(1000))
# The threads of this process were woken.
same &= team._process == os.getpid() and team._pool is not None
prediction.dismiss(team._mails)
if child:
    same &= os.waitpid(child, 0)[1] == 0
    print("same" if same else "different")
else:
    os._exit(not same)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_has_no_threads_that_wait():
    done = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == "same\n", done.stderr


EXITING = FORKED.split("child =")[0].replace("1 << 50", "2_000_000")


@pytest.mark.slow
def test_a_program_ends_although_threads_wait():
    done = subprocess.run([sys.executable, "-c", EXITING], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_call_after_the_interpreter_has_begun_to_end_runs_alone(shared):
    net = classifier(NumbaBackend(2))
    predictor, x = net.compile_predictor(), np.ones((1, 12), np.float32)
    expected = predictor(x).tobytes()
    team = net.backend._team
    prediction.dismiss(team._mails)
    wait_until(lambda: not states(net).any())
    team._give_back(team._take(1))  # there are threads now
    team._pool.shutdown()
    for _ in range(3):
        assert predictor(x).tobytes() == expected
    assert not states(net).any()
    assert threading.active_count() < 50
