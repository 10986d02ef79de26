"""Products with bit-identical results for any number of threads."""

from __future__ import annotations

import functools
import multiprocessing
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.backends import products as module
from nnbackend.backends.products import ALONE, Products, _controller, usable_threads
from tests.helpers import classifier, images, same_weights

THREADS = (1, 2, 3, 8)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(1, 1, 1), (256, 784, 200), (500, 100, 1000), (1003, 777, 301)])
def test_every_number_of_threads_gives_the_same_bits_and_the_right_ones(shape, dtype):
    m, k, n = shape
    generator = np.random.default_rng(0)
    a, b = generator.normal(size=(k, m)).astype(dtype).T, generator.normal(size=(k, n)).astype(dtype)
    results = []
    for threads in THREADS:
        out = np.full((m, n + 3), 7, dtype)
        products = Products(threads)
        with ALONE:
            products.matmul(a, b, out[:, :n])
        np.testing.assert_allclose(out[:, :n], a.astype(float) @ b.astype(float), rtol=1e-4, atol=1e-3)
        assert (out[:, n:] == 7).all()
        results.append(out.tobytes())
    assert len(set(results)) == 1


def test_large_products_are_divided_and_small_ones_are_not():
    products = Products(2)
    products.matmul(np.ones((10, 10)), np.ones((10, 10)), np.empty((10, 10)))
    assert products._pool is None
    products.matmul(np.ones((500, 500)), np.ones((500, 500)), np.empty((500, 500)))
    assert products._pool is not None


@pytest.mark.parametrize("kind", ["NumpyBackend", "NumbaBackend"])
def test_training_is_bit_identical_for_any_number_of_threads(kind):
    generator = np.random.default_rng(0)
    x, y = generator.integers(0, 256, (400, 700)).astype(np.uint8), generator.integers(0, 10, 400)
    results = []
    for threads in THREADS:
        layers = [nn.Dense(400, activation="relu"), nn.Dense(300, activation="tanh"), nn.Dense(10)]
        net = nn.Network(layers, 700, backend=getattr(nn, kind)(threads=threads), input_scale=1 / 255)
        net.fit(x, y, epochs=2, batch_size=128, loss="softmax_cross_entropy")
        results.append(b"".join(array.tobytes() for array in net.get_weights().values()))
    assert len(set(results)) == 1


def test_training_is_bit_identical_for_any_blas_limit():
    script = """
import hashlib, numpy as np, nnbackend as nn
generator = np.random.default_rng(0)
x, y = generator.integers(0, 256, (400, 700)).astype(np.uint8), generator.integers(0, 10, 400)
layers = [nn.Dense(400, activation="relu"), nn.Dense(300, activation="tanh"), nn.Dense(10)]
net = nn.Network(layers, 700, backend="numpy", input_scale=1 / 255)
net.fit(x, y, epochs=1, batch_size=128, loss="softmax_cross_entropy")
print(hashlib.sha256(b"".join(array.tobytes() for array in net.get_weights().values())).hexdigest())
"""
    results = set()
    for threads in ("1", "2", "4"):
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": threads}
        done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, check=True)
        results.add(done.stdout)
    assert len(results) == 1


def blas_threads() -> list[int]:
    # Only those loaded with NumPy, because other libraries load their own BLAS later.
    return [library["num_threads"] for library in _controller().info()]


def test_the_limit_on_blas_is_lifted_afterwards():
    before = blas_threads()
    with ALONE:
        assert blas_threads() == [1] * len(before)
    assert blas_threads() == before
    assert before


def test_the_limit_holds_until_the_last_of_several_users_is_done():
    before = blas_threads()
    with ALONE:
        with ALONE:
            pass
        assert blas_threads() == [1] * len(before)
    assert blas_threads() == before


def test_the_limit_holds_on_every_thread_whoever_set_it_first():
    """threadpoolctl 3.8 accepts limits only from the first thread that set one."""
    before = blas_threads()
    seen = []

    def work():
        with ALONE:
            seen.append(blas_threads())

    with ALONE:
        pass
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [[1] * len(before)]
    assert blas_threads() == before

    # Entered on this thread; the last one to leave is another thread.
    ALONE.__enter__()
    thread = threading.Thread(target=ALONE.__exit__, args=(None, None, None))
    thread.start()
    thread.join()
    assert blas_threads() == before


def test_training_on_another_thread_gives_the_same_bits():
    x, y = images(rows=200, features=784)
    networks = [classifier(features=784) for _ in range(2)]

    def train(network):
        network.fit(x, y, epochs=2, batch_size=100, loss="softmax_cross_entropy", verbose=False)

    train(networks[0])
    thread = threading.Thread(target=train, args=(networks[1],))
    thread.start()
    thread.join()
    assert same_weights(*networks)


def test_the_usual_variables_are_heeded():
    script = "from nnbackend.backends.products import usable_threads; print(usable_threads())"
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"
    assert 1 <= usable_threads() <= (os.cpu_count() or 1)


def _in_a_child(products: Products, queue) -> None:
    out = np.empty((500, 500))
    products.matmul(np.ones((500, 500)), np.ones((500, 500)), out)
    queue.put(float(out.sum()))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_creates_its_own_threads():
    products = Products(2)
    products.matmul(np.ones((500, 500)), np.ones((500, 500)), np.empty((500, 500)))
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_in_a_child, args=(products, queue))
    child.start()
    try:
        assert queue.get(timeout=30) == 500**3
        child.join(timeout=30)
        assert child.exitcode == 0
    finally:
        child.kill()
        child.join()


def test_without_threadpoolctl(monkeypatch, caplog):
    """The threads of BLAS stay as they are, and a warning says what that means."""
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    monkeypatch.setattr(module, "_controller", functools.cache(module._controller.__wrapped__))
    with caplog.at_level("WARNING", logger="nnbackend"):
        assert module.usable_threads() == module.usable_cores()
        with module.ALONE:
            pass
    assert [record.getMessage() for record in caplog.records] == [
        "threadpoolctl is not installed, so NumPy's results may depend on the number of BLAS's threads"
    ]
