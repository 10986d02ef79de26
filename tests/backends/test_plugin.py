"""A third-party backend, installed as a separate package."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

#: pip installs the plug-in, which takes a second.
pytestmark = pytest.mark.slow

SOURCE = Path(__file__).parent.parent / "plugin"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Install the plug-in with pip into a separate folder; returns an environment that finds it."""
    # Built from a copy, because setuptools writes to the source folder.
    source = tmp_path_factory.mktemp("source") / "plugin"
    shutil.copytree(SOURCE, source, ignore=shutil.ignore_patterns("__pycache__"))
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--target", str(target), str(source)], check=True, capture_output=True)
    return {**os.environ, "PYTHONPATH": str(target)}


def run(script: str, environment) -> str:
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_is_found_by_its_name(installed):
    out = run("import nnbackend as nn; print(*nn.available_backends(), sep='\\n')", installed)
    assert "strict: usable on array-api-strict" in out


def test_it_passes_the_acceptance_suite(installed):
    script = """
import nnbackend as nn
from nnbackend.testing import check_backend
from nnbackend.testing.conformance import SHAPES
check_backend(nn.get_backend("strict"), shapes=SHAPES[:4])
print("passed")
"""
    assert run(script, installed).strip() == "passed"


def test_it_trains_like_the_reference_and_gradients_are_right(installed):
    script = """
import numpy as np, nnbackend as nn
from nnbackend.testing import check_gradients
from tests.helpers import images

def make(backend):
    layers = [nn.Dense(9, activation="gelu", l2=0.01), nn.Dropout(0.2), nn.Dense(4)]
    return nn.Network(layers, 12, backend=backend, dtype="float64")

x, y = images()
losses = []
for backend in ("numpy", "strict"):
    net = make(backend)
    history = net.fit(x, y, epochs=3, batch_size=16, loss="softmax_cross_entropy", optimizer=nn.Adam(0.01))
    losses.append(np.concatenate(history.step_losses))
np.testing.assert_allclose(losses[1], losses[0], rtol=1e-9)
check_gradients(make("strict"), x[:6] / 255, y[:6], loss="softmax_cross_entropy", samples=5)
print("agrees")
"""
    root = str(Path(__file__).parent.parent.parent)
    environment = {**installed, "PYTHONPATH": os.pathsep.join([installed["PYTHONPATH"], root])}
    assert run(script, environment).strip() == "agrees"


def test_it_is_not_chosen_by_auto(installed):
    out = run("import nnbackend as nn; print(nn.get_backend('auto').name)", installed)
    assert out.strip() in ("cupy", "numba", "numpy")
