"""The backends on array-api-strict, also on a device without float64, and on PyTorch where it is installed.

The tests of all backends run on these if ``NNBACKEND_TEST_BACKENDS="torch:cpu array-api-strict"`` asks for them; this
selection always runs.
"""

from __future__ import annotations

from dataclasses import replace

import array_api_strict
import numpy as np
import pytest

import nnbackend as nn
from nnbackend.backends.array_api.executor import StepExecutor
from nnbackend.backends.array_api.host_values import HostValues
from nnbackend.backends.array_api.random import uniform_words
from nnbackend.backends.philox import uniform_words as uniform_words_of_numpy
from nnbackend.errors import BackendUnavailableError, InvalidInputError
from nnbackend.testing import CASES, Lab, check_backend, check_gradients
from nnbackend.testing.conformance import Shape
from tests.conftest import make_backend

NAMES = ("array-api-strict", "array-api-strict-float32", "torch:cpu")

#: Every layer and operation that draws random numbers, finds places, or has state.
LAYERS = (
    lambda: nn.Conv2D(3, 3, activation="relu", padding="same"),
    lambda: nn.MaxPool2D(2),
    lambda: nn.BatchNormalization(),
    lambda: nn.Flatten(),
    lambda: nn.Dropout(0.3),
    lambda: nn.Dense(9, activation="gelu", l2=0.01),
    lambda: nn.LayerNormalization(),
    lambda: nn.Dense(4),
)


@pytest.fixture(params=NAMES)
def library(request):
    return make_backend(request.param)


def data(rows: int = 60):
    generator = np.random.default_rng(5)
    x = generator.integers(0, 256, (rows, 8, 8, 1)).astype(np.uint8)
    return x, generator.integers(0, 4, rows)


def network(backend, dtype: str = "float32") -> nn.Network:
    return nn.Network([make() for make in LAYERS], (8, 8, 1), backend=backend, seed=2, dtype=dtype)


def train(net: nn.Network, epochs: int = 2, **options) -> np.ndarray:
    x, y = data()
    options = {"optimizer": nn.AdamW(0.01), "clip_norm": 1.0, "augment": nn.augment.Shift(1), **options}
    history = net.fit(x, y, epochs=epochs, batch_size=16, loss="softmax_cross_entropy", verbose=False, **options)
    return np.concatenate(history.step_losses)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [Shape(2, 3, 2), Shape(7, 17, 10)], ids=str)
def test_every_operation(library, dtype, shape):
    if dtype not in library.real_dtypes:
        pytest.skip(f"{library.device} has no {dtype}")
    assert check_backend(library, [dtype], [shape]) == []


def test_classes_that_are_excluded_have_no_part_in_the_loss(library):
    """Their logits are minus infinity, and 0 times that is NaN."""
    lab = Lab(library, "float32", Shape(2, 3, 3))
    logits = np.array([[0.5, -np.inf, 1.0], [-np.inf, 2.0, -np.inf]], np.float32)
    labels = np.array([0, 1], np.int32)
    *_, rows = lab.run("softmax_cross_entropy", logits, labels, None, lab.blank(2, 3), lab.blank(2, 2))
    assert np.isfinite(rows).all()


@pytest.mark.parametrize("optimizer", [nn.SGD(0.1, momentum=0.9, nesterov=True), nn.AdamW(0.01), nn.RMSprop(0.01)])
def test_a_network_learns_as_on_numpy(library, optimizer):
    (dtype, tolerance) = ("float64", 1e-9) if "float64" in library.real_dtypes else ("float32", 1e-4)
    reference, losses = (train(network(each, dtype), optimizer=optimizer) for each in ("numpy", library))
    np.testing.assert_allclose(losses, reference, rtol=0, atol=tolerance)


def test_gradients(library):
    if "float64" not in library.real_dtypes:
        pytest.skip("finite differences need float64")
    x, y = data(6)
    check_gradients(network(library, "float64"), x / 255, y, loss="softmax_cross_entropy", samples=4)


def test_a_resumed_run_has_the_same_bits(library, tmp_path):
    whole, stopped, resumed = (network(library) for _ in range(3))
    train(whole, 4)
    train(stopped, 2, callbacks=[nn.Checkpoint(tmp_path / "run")])
    train(resumed, 4, callbacks=[nn.Checkpoint(tmp_path / "run")], resume=True)
    for name, values in whole.get_weights().items():
        assert values.tobytes() == resumed.get_weights()[name].tobytes(), name


def test_predictions_are_numpy_arrays_and_files_belong_to_every_backend(library, tmp_path):
    net = network(library)
    train(net, 1)
    x, _ = data(5)
    predicted = net.predict(x)
    assert type(predicted) is np.ndarray
    net.save(tmp_path / "net.safetensors")
    loaded = nn.Network.load(tmp_path / "net.safetensors", backend="numpy")
    np.testing.assert_allclose(loaded.predict(x), predicted, atol=1e-6)
    np.testing.assert_allclose(loaded.to(library).predict(x), predicted, atol=1e-6)


def test_many_networks_train_in_turns(library):
    alone = [train(nn.Network([nn.Flatten(), nn.Dense(4)], (8, 8, 1), library, seed=seed)) for seed in (1, 2)]
    x, y = data()
    nets = [nn.Network([nn.Flatten(), nn.Dense(4)], (8, 8, 1), library, seed=seed) for seed in (1, 2)]
    together = nn.fit_many(
        nets, x, y, epochs=2, batch_size=16, loss="softmax_cross_entropy", optimizer=nn.AdamW(0.01),
        clip_norm=1.0, augment=nn.augment.Shift(1), verbose=False,
    )  # fmt: skip
    for losses, history in zip(alone, together, strict=True):
        assert np.concatenate(history.step_losses).tobytes() == losses.tobytes()


@pytest.mark.parametrize("first", [0, 3, 2**32 - 9])
def test_random_numbers_are_those_of_numpy(first):
    seed, stream, step = 2**63 - 1, 2**32 - 1, 2**40 + 7
    words = uniform_words(array_api_strict, None, 50, seed, stream, step, first)
    assert np.from_dlpack(words).tolist() == uniform_words_of_numpy(50, seed, stream, step, first).tolist()


class Apart(nn.ArrayApiBackend):
    """A backend that cannot use NumPy's memory, and counts what it reads and what it writes while a step runs."""

    def __init__(self, device=None):
        super().__init__(array_api_strict, device)
        self.library = replace(self.library, shares_memory=False)
        self._host = HostValues(self.to_host, False)
        self.running, self.transfers = False, []

    def to_host(self, array):
        self.transfers += ["read"] * self.running
        return super().to_host(array)

    def from_host(self, array):
        self.transfers += ["write"] * self.running
        return super().from_host(array)

    def _shared(self, array):
        return np.from_dlpack(array)

    def plain_executor(self, calls):
        backend = self

        class Noted(StepExecutor):
            def run(self, repeats):
                backend.running = True
                super().run(repeats)
                backend.running = False

        return Noted(self, calls)


@pytest.mark.parametrize("device", [None, array_api_strict.Device("no_float64")])
def test_nothing_is_read_within_an_epoch(device):
    backend = Apart(device)
    schedule = nn.OneCycle(0.01, epochs=3)
    losses = train(network(backend), 3, optimizer=nn.Adam(schedule))
    assert backend.transfers == []
    reference = train(network("numpy"), 3, optimizer=nn.Adam(schedule))
    np.testing.assert_allclose(losses, reference, rtol=0, atol=1e-4)


class Library:
    """array-api-strict with another function."""

    __name__ = "another"

    def __init__(self, **functions):
        self.__dict__ |= functions

    def __getattr__(self, name):
        return getattr(array_api_strict, name)


class Immutable:
    def __init__(self, array):
        self.array = array

    def __getattr__(self, name):
        return getattr(self.array, name)

    def __setitem__(self, index, value):
        raise TypeError("arrays are immutable")


class TestRefused:
    def test_arrays_that_cannot_be_written(self):
        library = Library(ones=lambda *a, **k: Immutable(array_api_strict.ones(*a, **k)))
        with pytest.raises(
            BackendUnavailableError, match=r"'another' .*cannot be written in place \(TypeError: arrays are immutable"
        ):
            nn.ArrayApiBackend(library)

    def test_jax(self):
        jax = pytest.importorskip("jax.numpy")
        with pytest.raises(BackendUnavailableError, match=r"'jax.numpy' .* (written in place|int64)"):
            nn.ArrayApiBackend(jax)

    def test_slices_that_are_copies(self):
        library = Library(reshape=lambda x, shape, copy=None: array_api_strict.reshape(x, shape, copy=True))
        with pytest.raises(BackendUnavailableError, match="are copies instead of views"):
            nn.ArrayApiBackend(library)

    def test_what_is_no_library(self):
        with pytest.raises(BackendUnavailableError, match=r"array-api|does not follow"):
            nn.ArrayApiBackend(np.random)

    def test_a_device_without_int64(self):
        with pytest.raises(BackendUnavailableError, match=r"cannot make arrays on the device .*no_x64"):
            nn.ArrayApiBackend(array_api_strict, array_api_strict.Device("no_x64"))

    def test_float64_on_a_device_without_it(self):
        backend = make_backend("array-api-strict-float32")
        with pytest.raises(InvalidInputError, match=r"has no float64; make the network with dtype='float32'"):
            network(backend, "float64")
        net = network("numpy", "float64")
        with pytest.raises(InvalidInputError, match="has no float64"):
            net.to(backend)
        assert net.backend.name == "numpy"

    def test_a_shape_that_needs_a_copy(self, library):
        array = library.view(library.empty((12,), "float32"), 0, (3, 2), 4)
        with pytest.raises(InvalidInputError, match="has no view of shape"):
            library.reshape(array, (6,))


def test_numpy_itself():
    backend = nn.ArrayApiBackend(np)
    for name in ("dense_layers", "convolutions_in_groups", "the_first_of_equals_gets_the_gradient_of_a_max_pool"):
        CASES[name](Lab(backend, "float32", Shape(7, 17, 10)))
