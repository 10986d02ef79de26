"""NVIDIA's compute-sanitizer on training steps, which finds errors that the CPU build of the kernels cannot show."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nnbackend.backends.cupy import probe

pytestmark = [pytest.mark.gpu, pytest.mark.slow]

#: Without initcheck, because all memory is zeroed on allocation.
TOOLS = ("memcheck", "racecheck", "synccheck")

#: Several optimisers, labels and probabilities, dropout, penalties, images, a shorter last batch; without and with a
#: graph.
STEPS = """
import cupy, numpy as np, nnbackend as nn
# A pool of memory would hide accesses beyond the end of an array.
cupy.cuda.set_allocator(None)
rng = np.random.default_rng(0)
x, y = rng.integers(0, 256, (75, 12)).astype(np.uint8), rng.integers(0, 4, 75)
def images(activation):
    inner = [nn.Conv2D(9, 3, padding="same", activation=activation), nn.LayerNormalization()]
    pools = [nn.MaxPool2D(2, 1), nn.AveragePool2D(2, 1, padding="same"), nn.L2Pool2D((1, 2), padding="same")]
    first = [nn.Reshape((3, 4, 1)), nn.Conv2D(9, 2, padding="same"), nn.BatchNormalization(), nn.Residual(inner)]
    last = [nn.Conv2D(9, 2, groups=9), nn.ZeroPadding2D(1), nn.Conv2D(40, 2, strides=2), nn.Flatten(), nn.Dense(4)]
    return [*first, *pools, *last]
def rows(activation):
    return [nn.Dense(33, activation=activation, l2=1e-3), nn.Dropout(0.2), nn.MaxAbsNorm(), nn.Dense(4)]
def two_kernels(activation):
    first = [nn.Normalization(np.zeros(12), np.ones(12)), nn.Scale(learning_rate_factor=6.0)]
    return [*first, nn.Dense(33, activation=activation, l2=1e-3), nn.Dropout(0.2), nn.Dense(4)]
runs = ((two_kernels, "mish", nn.Lion()), (two_kernels, "relu", nn.Adam()), (rows, "relu", nn.SGD(0.1)),
        (rows, "gelu", nn.Adam()), (rows, "tanh", nn.RMSprop()),
        (images, "relu", nn.SGD(0.01)), (images, "gelu", nn.Adam()))
for make, activation, optimizer in runs:
    layers = make(activation)
    network = nn.Network(layers, 12, backend="cupy", input_scale=1 / 255)
    options = dict(epochs=2, batch_size=16, loss="softmax_cross_entropy", optimizer=optimizer, verbose=False)
    network.fit(x, y, **options)
    network.fit(x, np.eye(4)[y] * 0.9 + 0.025, stream=True, **options)
    network.evaluate(x, y)
    network.predict(x)
"""


def _sanitizer() -> str | None:
    homes = [os.environ.get(name, "") for name in ("CUDA_HOME", "CUDA_PATH")] + ["/usr/local/cuda"]
    places = [os.environ.get("PATH", ""), *(str(Path(home, "bin")) for home in homes if home)]
    return shutil.which("compute-sanitizer", path=os.pathsep.join(places))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("tool", TOOLS)
def test_training_is_clean(tool):
    reason, remedy = probe()
    if reason is not None:
        pytest.skip(f"{reason}. {remedy}")
    sanitizer = _sanitizer()
    if sanitizer is None:
        pytest.skip("compute-sanitizer is not installed")
    command = [sanitizer, "--tool", tool, "--error-exitcode", "9", sys.executable, "-c", STEPS]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
