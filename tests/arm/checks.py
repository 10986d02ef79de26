"""What `run.sh` runs on the emulated CPU: one part of the checks, and a line for each result.

python checks.py conformance 1 2      the first half of the operations' cases
python checks.py training             gradients, convolutions and determinism
"""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np

import nnbackend as nn
from nnbackend.backends.numba.tile_shape import VectorUnit
from nnbackend.errors import MissingOperationError
from nnbackend.testing import CASES, Lab, check_gradients
from nnbackend.testing.lab import Shape
from tests.backends.steps import ThroughTheTable

#: A single row, and sizes that fill neither tiles nor vectors.
SHAPES = (Shape(1, 1, 1), Shape(33, 65, 40))

_START = time.perf_counter()


def say(text: str) -> None:
    print(f"{time.perf_counter() - _START:4.0f} s  {text}", flush=True)


def conformance(part: int, parts: int) -> None:
    """Cases of the acceptance suite in float32, through the compiled table, as in a training step."""
    backend = ThroughTheTable(threads=1)
    names = list(CASES)[part - 1 :: parts]
    done = 0
    for name in names:
        for shape in SHAPES:
            try:
                CASES[name](Lab(backend, "float32", shape))
            except MissingOperationError:
                continue
            done += 1
    say(f"conformance {part}/{parts}: {done} of {len(names) * len(SHAPES)} cases agree with float64 NumPy")


def dense(dtype: str, backend: object) -> nn.Network:
    layers = [nn.Dense(40, activation="relu"), nn.Dropout(0.1), nn.Dense(19, activation="tanh"), nn.Dense(5)]
    return nn.Network(layers, 37, backend=backend, seed=2, dtype=dtype)


def convolutional(dtype: str, backend: object) -> nn.Network:
    layers = [
        nn.Conv2D(8, 3, padding="same", activation="relu"),
        nn.BatchNormalization(),
        nn.MaxPool2D(2),
        nn.Conv2D(8, 3, groups=8, padding="same"),
        nn.Flatten(),
        nn.Dense(5),
    ]
    return nn.Network(layers, (10, 10, 2), backend=backend, seed=2, dtype=dtype)


NETWORKS: dict[str, tuple[Callable[..., nn.Network], tuple[int, ...]]] = {
    "dense": (dense, (37,)),
    "convolutional": (convolutional, (10, 10, 2)),
}


def data(shape: Sequence[int], dtype: str) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    return draw.standard_normal((75, *shape)).astype(dtype), draw.integers(0, 5, 75)


def gradients() -> None:
    """Gradients against central differences, in float64."""
    for name, (make, shape) in NETWORKS.items():
        x, y = data(shape, "float64")
        network = make("float64", nn.NumbaBackend(threads=1))
        check_gradients(network, x[:6], y[:6], loss="softmax_cross_entropy", samples=5)
        say(f"gradients of a {name} network agree with central differences")


def training() -> None:
    """Trained weights against NumPy's, and their bits for every number of threads."""
    for dtype, tolerance in (("float64", 1e-9), ("float32", 2e-4)):
        for name, (make, shape) in NETWORKS.items():
            x, y = data(shape, dtype)
            weights = []
            for backend in ("numpy", *(nn.NumbaBackend(threads=threads) for threads in (1, 2, 3))):
                network = make(dtype, backend)
                options = {"loss": "softmax_cross_entropy", "optimizer": nn.Adam(1e-3), "verbose": False}
                network.fit(x, y, epochs=3, batch_size=32, **options)
                weights.append(network.get_weights())
            reference, one, *more = weights
            worst = max(float(np.abs(reference[key] - one[key]).max()) for key in reference)
            assert worst < tolerance, (name, dtype, worst)
            assert all(np.array_equal(one[key], each[key]) for each in more for key in one), (name, dtype)
            say(f"{name} network, {dtype}: at most {worst:.1e} from NumPy's weights; 1, 2 and 3 threads: same bits")


def main(part: str, *numbers: str) -> None:
    unit = VectorUnit.of_this_cpu()
    if not numbers or numbers[0] == "1":
        say(f"{platform.machine()}, vectors of {unit.width} bytes, {unit.registers} registers; NumPy {np.__version__}")
    if part == "conformance":
        conformance(*(int(number) for number in numbers))
    else:
        gradients()
        training()


if __name__ == "__main__":
    main(*sys.argv[1:])
