"""Out of memory: one error that says what needed the memory, and what to reduce."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from nnbackend.backends.numpy import NumpyBackend
from nnbackend.errors import OutOfMemoryError
from nnbackend.support.memory import size_text
from tests.helpers import classifier, images

OPTIONS = {"epochs": 1, "batch_size": 8, "loss": "softmax_cross_entropy", "verbose": False}
X, Y = images(rows=40)


class SmallDevice(NumpyBackend):
    """Has a limited memory, and its own class of errors, like CuPy."""

    name = "small"

    class FullError(MemoryError):
        pass

    def __init__(self, size):
        super().__init__()
        self.device, self.left = "a small device", size

    def _take(self, array):
        self.left -= array.nbytes
        if self.left < 0:
            raise SmallDevice.FullError(f"Out of memory allocating {array.nbytes} bytes")
        return array

    def empty(self, shape, dtype):
        return self._take(super().empty(shape, dtype))

    def from_host(self, array):
        return self._take(super().from_host(array))

    def free_bytes(self):
        return max(self.left, 0)


def test_a_network_that_is_too_large():
    with pytest.raises(
        OutOfMemoryError, match=r"the network on a small device .* it needs weights 768 bytes\. Give fewer"
    ):
        classifier(SmallDevice(100))


@pytest.mark.parametrize("room", [0, 2000, 4000])
def test_training_that_does_not_fit_says_what_it_takes(room):
    """With room for nothing, for a part, and for all but the last array: the network is unchanged and usable."""
    backend = SmallDevice(1000 + room)
    network = classifier(backend)
    before = network.get_weights()
    with pytest.raises(OutOfMemoryError) as error:
        network.fit(X, Y, optimizer="adam", **OPTIONS)
    message = str(error.value)
    assert "training on a small device does not fit into memory" in message
    assert "are free (Out of memory allocating" in message
    assert "weights 768 bytes" in message
    assert "the optimizer's slots 1.5 kB" in message
    assert "all rows 480 bytes" in message
    assert "Give a smaller batch_size" in message
    assert isinstance(error.value, MemoryError)
    assert all((before[name] == array).all() for name, array in network.get_weights().items())
    backend.left = 10**6
    network.fit(X, Y, **OPTIONS)


def test_the_gpu_backend_reports_it_too(monkeypatch):
    from tests.conftest import make_backend

    backend = make_backend("cupy-emulated")
    network = classifier(backend)

    def full(shape, dtype):
        raise SmallDevice.FullError("Out of memory allocating 3,000,000,000 bytes (allocated so far: 0 bytes).")

    monkeypatch.setattr(backend.runtime, "zeros", full)
    with pytest.raises(OutOfMemoryError, match=r"allocated so far.*it needs weights"):
        network.fit(X, Y, **OPTIONS)


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
def test_a_real_lack_of_memory_on_the_host():
    """A network of 8 GB in an address space of 2 GB."""
    script = """
import resource
import nnbackend as nn
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
try:
    nn.Network([nn.Dense(40_000)], 50_000, backend="numpy")
except nn.errors.OutOfMemoryError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60,
        env={"OPENBLAS_NUM_THREADS": "1"},
    )  # fmt: skip
    assert "the network on CPU" in done.stdout
    assert "it needs weights 8.0 GB. Give fewer units" in done.stdout


def test_sizes_are_readable():
    sizes = [0, 999, 1000, 123_456, 4_200_000_000]
    assert [size_text(size) for size in sizes] == ["0 bytes", "999 bytes", "1.0 kB", "123 kB", "4.2 GB"]
    assert size_text(int(np.int64(5 * 10**15))) == "5000 TB"
