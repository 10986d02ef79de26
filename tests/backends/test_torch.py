"""PyTorch: what is said where it or a device is missing, and how its tensors behave; see also `test_array_api.py`."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import warnings
from importlib.util import find_spec

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.backends.torch.probe import installed, probe
from nnbackend.errors import BackendUnavailableError, InvalidInputError, UnknownNameError
from tests.backends.test_array_api import data, network, train
from tests.cli.commands import nnbackend

needs_torch = pytest.mark.skipif(
    not (find_spec("torch") and find_spec("array_api_compat")), reason="PyTorch or array-api-compat is not installed"
)


def output(script: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_nothing_imports_it_before_it_is_asked_for():
    script = """
import logging, sys
logging.basicConfig(level=logging.INFO, stream=sys.stdout)
import nnbackend as nn
import nnbackend.backends.torch
infos = nn.available_backends()
nn.get_backend("auto")
print([info.name for info in infos], "torch" in sys.modules, "array_api_compat" in sys.modules)
"""
    chosen, last = output(script)
    assert last == "['numpy', 'numba', 'cupy', 'torch'] False False"
    assert ("PyTorch is installed, too" in chosen) == bool(find_spec("torch") and find_spec("array_api_compat"))


def test_without_it_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert installed()[1] == probe("cuda")[0] == "PyTorch is not installed"
    assert probe()[1] == 'Run: pip install -e ".[torch]" in your checkout of nnbackend'


def test_names_of_devices():
    for name in ("torch:tpu", "torch:", "torch:cpu:0:1", "numba:cpu"):
        with pytest.raises(UnknownNameError, match="unknown backend"):
            nn.get_backend(name)


@needs_torch
class TestTorch:
    @pytest.mark.parametrize(
        ("device", "reason"),
        [
            ("cuda", r"without CUDA|finds no GPU"),
            ("xpu", r"without support for Intel GPUs|finds no Intel GPU"),
            ("mps", r"without Metal|no GPU that Metal"),
            ("cpu:1", "there is only one CPU"),
        ],
    )
    def test_missing_devices_are_explained(self, device, reason):
        if probe(device)[0] is None:
            pytest.skip(f"there is a device {device}")
        with pytest.raises(BackendUnavailableError, match=rf"backend 'torch:{device}' cannot run here: .*({reason})"):
            nn.get_backend(f"torch:{device}")

    def test_no_setting_of_pytorch_is_changed(self):
        import torch

        def settings():
            return (
                torch.get_num_threads(),
                torch.get_default_dtype(),
                torch.get_default_device(),
                torch.is_grad_enabled(),
                torch.are_deterministic_algorithms_enabled(),
                torch.get_float32_matmul_precision(),
                torch.random.get_rng_state().tolist(),
            )

        before = settings()
        train(network("torch:cpu"), 1)
        assert settings() == before

    def test_settings_of_pytorch_do_not_change_results(self):
        import torch

        reference = train(network("torch:cpu"), 1)
        torch.set_default_dtype(torch.float64)
        try:
            with torch.inference_mode(), torch.device("meta"), torch.autocast("cpu", torch.bfloat16):
                losses = train(network("torch:cpu"), 1)
        finally:
            torch.set_default_dtype(torch.float32)
        assert losses.tobytes() == reference.tobytes()

    def test_buffers_made_in_inference_mode_can_be_written_outside_of_it(self):
        import torch

        net, (x, _) = network("torch:cpu"), data(5)
        with torch.inference_mode():
            before = net.predict(x)
        train(net, 1)
        assert (net.predict(x) != before).any()

    def test_tensors_are_inputs(self):
        import torch

        net, (x, _) = network("torch:cpu"), data(5)
        train(net, 1)
        assert net.predict(torch.from_numpy(x)).tobytes() == net.predict(x).tobytes()
        with pytest.raises(InvalidInputError, match=r"x is a torch.Tensor that NumPy cannot read \(.*meta"):
            net.predict(torch.from_numpy(x).to("meta"))

    @pytest.mark.parametrize("optimizer", [nn.SGD(1e300), nn.RMSprop(1e300), nn.Adam(1e300)])
    def test_huge_rates_diverge_with_the_usual_error(self, optimizer):
        with pytest.raises(nn.errors.TrainingDivergedError):
            train(network("torch:cpu"), optimizer=optimizer)

    def test_the_gradient_of_a_pool_after_others(self):
        """Places of the largest elements are those of this step, and NaN gets the gradient as the contract says."""
        x, y = data(16)
        images = x / 255
        images[3, 2:4, 2:4] = np.nan
        losses = []
        for backend in ("numpy", "torch:cpu"):
            layers = [nn.MaxPool2D(2), nn.Conv2D(2, 2), nn.MaxPool2D(3, 1), nn.Flatten(), nn.Dense(4)]
            net = nn.Network(layers, (8, 8, 1), backend=backend, seed=0)
            for _ in range(3):
                net.train_on_batch(x, y, loss="softmax_cross_entropy", optimizer=nn.SGD(0.1))
            losses.append(net.evaluate(x, y)["loss"])
        assert losses[1] == pytest.approx(losses[0], abs=1e-5)

    def test_the_gradient_of_relu_keeps_nan(self):
        backend = nn.get_backend("torch:cpu")
        rows = [0, 0, 2, 2], [np.nan, 3, np.nan, 3], [9, 9, 9, 9]
        saved, upstream, out = (backend.from_host(np.array([row], np.float32)) for row in rows)
        backend.activation_gradient(saved, "relu", 0.0, upstream, out)
        np.testing.assert_array_equal(backend.to_host(out), np.array([[np.nan, 0, np.nan, 3]], np.float32))

    def test_networks_that_train_at_the_same_time_count_their_own_steps(self, monkeypatch):
        """A step of one within the update of another, as threads may have it."""
        import torch

        x, y = data(16)
        alone, beside, other = (network("torch:cpu") for _ in range(3))

        def steps(net, count):
            optimizer = nn.Adam(0.1)
            for _ in range(count):
                net.train_on_batch(x, y, loss="softmax_cross_entropy", optimizer=optimizer)

        steps(alone, 3)
        update, within = torch._fused_adam_, []

        def interrupted(*arguments, **options):
            if not within:
                within.append("other")
                steps(other, 5)
                within.clear()
            return update(*arguments, **options)

        monkeypatch.setattr(torch, "_fused_adam_", interrupted)
        steps(beside, 3)
        for name, weight in alone.get_weights().items():
            assert (weight == beside.get_weights()[name]).all()

    def test_arrays_of_a_gpu_are_copied_once(self):
        import torch

        class OnGpu:
            """A tensor of a GPU, which is copied to the host."""

            device = torch.device("cuda")

            def __init__(self, copied):
                self.copied = copied

            def cpu(self):
                return self.copied

        backend, rows = nn.get_backend("torch:cpu"), torch.ones(3, 2)
        assert np.shares_memory(backend.to_host(OnGpu(rows)), rows.numpy())
        assert backend.to_host(OnGpu(rows.t())).flags.c_contiguous
        assert not np.shares_memory(backend.to_host(rows), rows.numpy())

    @pytest.mark.skipif(sys.platform != "linux", reason="PyTorch's threads survive a fork")
    def test_forked_processes_are_refused_where_pytorch_would_wait_forever(self, monkeypatch):
        import torch

        from nnbackend.backends.torch import backend as module

        net, threads = network("torch:cpu"), torch.get_num_threads()
        with warnings.catch_warnings(action="ignore"):
            child = os.fork()
        if child == 0:
            os._exit(3 if module._forked else 4)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
        assert not module._forked
        # The rest as in a child, within this process.
        monkeypatch.setattr(module, "_forked", True)
        try:
            torch.set_num_threads(2)
            with pytest.raises(BackendUnavailableError, match=r"forked .*torch\.set_num_threads\(1\)"):
                net.predict(data(5)[0])
            with pytest.raises(BackendUnavailableError, match="forked"):
                net.backend.empty((3,), "float32")
            torch.set_num_threads(1)
            train(net, 1)
        finally:
            torch.set_num_threads(threads)

    def test_too_little_memory_is_a_memory_error(self):
        with pytest.raises(MemoryError, match="allocate memory"):
            nn.get_backend("torch:cpu").empty((10**14,), "float32")

    def test_unpickled_backends_are_the_same(self):
        import pickle

        backend = nn.get_backend("torch:cpu")
        assert pickle.loads(pickle.dumps(backend)) is backend

    @pytest.mark.slow
    def test_the_command_reaches_its_accuracy(self, tmp_path):
        pytest.importorskip("sklearn")
        accuracies = []
        for backend in ("torch:cpu", "numpy"):
            done = nnbackend(
                "train", "--dataset", "digits", "--backend", backend, "--epochs", "5", "--no-plots", "--quiet",
                "--out", tmp_path / backend.partition(":")[0],
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            accuracies.append(float(re.search(r"([0-9.]+) ?%", done.stdout)[1]))
        assert accuracies[0] == pytest.approx(accuracies[1], abs=1)
        assert accuracies[0] > 90
