"""Fusing operations into products: which are fused, and that results of whole steps are the same."""

from __future__ import annotations

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.backends.contract import Call
from nnbackend.backends.cupy import CupyBackend
from nnbackend.backends.cupy.epilogues import with_epilogues, with_sums
from tests.backends.cupy.emulator import EmulatedRuntime
from tests.helpers import images

pytestmark = pytest.mark.usefixtures("needs_compiler")

RELU = {"activation": "relu"}
#: Networks with everything that can be fused, and with what must not be.
NETWORKS = {
    "two hidden layers": [nn.Dense(9, **RELU), nn.Dense(130, **RELU), nn.Dense(4)],
    "no bias": [nn.Dense(9, use_bias=False, **RELU), nn.Dense(7, **RELU), nn.Dense(4, use_bias=False)],
    "dropout between": [nn.Dense(9, **RELU), nn.Dropout(0.3), nn.Dense(7, **RELU), nn.Dense(4)],
    "an activation apart": [nn.Dense(9), nn.Activation("relu"), nn.Dense(4)],
    "other activations": [nn.Dense(9, activation="gelu"), nn.Dense(7, activation="leaky_relu"), nn.Dense(4)],
    "penalties": [nn.Dense(9, l2=1e-2, **RELU), nn.Dense(5, l1=1e-3, **RELU), nn.Dense(4)],
    "one layer": [nn.Dense(4)],
}


def train(layers, backend, dtype):
    x, y = images(rows=75)
    network = nn.Network(layers, 12, backend=backend, dtype=dtype, seed=3)
    history = network.fit(x, y, epochs=2, batch_size=8, loss="softmax_cross_entropy", optimizer="adam", verbose=False)
    return np.concatenate(history.step_losses), network


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layers", NETWORKS.values(), ids=NETWORKS)
def test_a_run_agrees_with_the_reference(layers, dtype):
    runtime = EmulatedRuntime()
    runtime.log = []
    losses, network = train(layers, CupyBackend(runtime, two_kernels=False), dtype)
    expected, reference = train(layers, "numpy", "float64")
    tolerance = {"float32": 1e-4, "float64": 1e-9}[dtype]
    np.testing.assert_allclose(losses, expected, rtol=tolerance, atol=tolerance)
    x, y = images(rows=75)
    np.testing.assert_allclose(network.predict(x), reference.predict(x), rtol=10 * tolerance, atol=10 * tolerance)
    assert network.evaluate(x, y)["loss"] == pytest.approx(reference.evaluate(x, y)["loss"], rel=10 * tolerance)
    assert any(name.startswith("gemm_") for name in runtime.log)


@pytest.mark.parametrize("missing", ["bias", "relu_bias", "relu_aux_bias", "drelu_bgrad", "bgrada"])
def test_a_device_may_have_only_some(missing):
    runtime = EmulatedRuntime()
    runtime.epilogues.remove(missing)
    runtime.log = []
    losses, _ = train(NETWORKS["two hidden layers"], CupyBackend(runtime, two_kernels=False), "float64")
    expected, _ = train(NETWORKS["two hidden layers"], "numpy", "float64")
    np.testing.assert_allclose(losses, expected, rtol=1e-9)
    used = {name.removeprefix("gemm_") for name in runtime.log if name.startswith("gemm_")}
    pair = {"relu_aux_bias", "drelu_bgrad"}
    # Masks are written exactly if they are read.
    assert used == {"bias", "bgrada", *pair, *({"relu_bias"} if missing in pair else ())} - (
        pair if missing in pair else {missing}
    )


def test_no_gpu_for_workers_without_one():
    runtime = EmulatedRuntime()
    runtime.log = []
    train(NETWORKS["two hidden layers"], CupyBackend(runtime, epilogues=False, two_kernels=False), "float32")
    assert {name for name in runtime.log if name.startswith("gemm")} == {"gemm"}


def gradients_of_nan(backend):
    """The gradients of a layer whose ReLU is 0 everywhere, where one row of the gradient above is NaN."""
    x, delta = np.ones((3, 4), np.float32), np.ones((3, 5), np.float32)
    delta[1] = np.nan
    x, delta, w, v, bias, hidden, up, slope, sums = (
        backend.from_host(array.astype(np.float32))
        for array in (
            x, delta, -np.ones((4, 6)), np.ones((6, 5)), np.zeros(6), np.zeros((3, 6)), np.zeros((3, 6)),
            np.zeros((4, 6)), np.zeros(6),
        )
    )  # fmt: skip
    calls = [
        Call.of("dense_forward", x, w, bias, "relu", 0.0, None, hidden),
        Call.of("dense_input_gradient", delta, v, up),
        Call.of("activation_gradient", hidden, "relu", 0.0, up, up),
        Call.of("dense_weight_gradient", x, up, slope),
        Call.of("bias_gradient", up, sums),
    ]
    backend.executor(calls).run(1)
    return [backend.to_host(array) for array in (hidden, up, slope, sums)]


def test_nan_in_a_gradient_reaches_the_layers_below():
    """Where ReLU's output is 0 its derivative is, too, but NaN times 0 is NaN: divergence must be visible."""
    runtime = EmulatedRuntime()
    runtime.log = []
    expected = gradients_of_nan(nn.NumpyBackend())
    assert np.isnan(expected[2]).all()
    for array, wanted in zip(gradients_of_nan(CupyBackend(runtime)), expected, strict=True):
        np.testing.assert_array_equal(array, wanted)
    assert "gemm_drelu_bgrad" in runtime.log


# ---- no fusion ------------------------------------------------------------------------------------------------------

X, HIDDEN, DELTA, UP, OUT = (np.zeros((4, 3)) for _ in range(5))
W, V, SLOPE, OTHER = (np.zeros((3, 3)) for _ in range(4))
BIAS, SUMS, MORE = (np.zeros(3) for _ in range(3))

FORWARD = Call.of("dense_forward", X, W, BIAS, "relu", 0.0, None, HIDDEN)
NEXT = Call.of("dense_forward", HIDDEN, V, None, "identity", 0.0, None, OUT)
INPUT = Call.of("dense_input_gradient", DELTA, V, UP)
ABOVE = Call.of("dense_weight_gradient", HIDDEN, DELTA, OTHER)
GRADIENT = Call.of("activation_gradient", HIDDEN, "relu", 0.0, UP, UP)
WEIGHT = Call.of("dense_weight_gradient", X, UP, SLOPE)
BIAS_GRADIENT = Call.of("bias_gradient", UP, SUMS)
STEP = [FORWARD, NEXT, INPUT, ABOVE, GRADIENT, WEIGHT, BIAS_GRADIENT]


def made(step, sums=False):
    """The resulting step: names of operations, and kinds of products that replaced some."""
    kinds = []

    def make(transpose_a, transpose_b, a, b, out, epilogue, adds=False):
        kinds.append(epilogue.kind)
        return epilogue

    calls = with_sums(step, make) if sums else with_epilogues(step, make, np.zeros)
    return [call.product.kind if call.operation == "run_product" else call.operation for call in calls]


def test_a_layer_forward_and_backward():
    assert made(STEP) == ["relu_aux_bias", "dense_forward", "drelu_bgrad", *[WEIGHT.operation] * 2]


@pytest.mark.parametrize(
    ("place", "call"),
    [
        (0, Call.of("dense_forward", X, W, None, "relu", 0.0, None, HIDDEN)),
        (0, Call.of("dense_forward", X, W, BIAS, "relu", 0.0, None, OUT)),
        (0, Call.of("dense_forward", X, W, BIAS, "gelu", 0.0, DELTA, HIDDEN)),
        (2, Call.of("dropout", DELTA, 0.5, 0, 0, None, UP)),
        (3, Call.of("dense_weight_gradient", UP, DELTA, OTHER)),
        (3, Call.of("dropout", HIDDEN, 0.5, 0, 0, None, HIDDEN)),
        (4, Call.of("activation_gradient", HIDDEN, "tanh", 0.0, UP, UP)),
        (4, Call.of("activation_gradient", HIDDEN, "relu", 0.0, DELTA, UP)),
        (4, Call.of("activation_gradient", HIDDEN, "relu", 0.0, UP, OUT)),
        (5, Call.of("dense_input_gradient", DELTA, V, UP)),
        (6, Call.of("bias_gradient", DELTA, SUMS)),
        (6, Call.of("advance", BIAS)),
    ],
)
def test_calls_that_are_not_fused(place, call):
    step = [*STEP[:place], call, *STEP[place + 1 :]]
    assert not {"relu_aux_bias", "drelu_bgrad"} & set(made(step))


def test_sums_of_an_operand_of_a_product():
    assert made([WEIGHT, BIAS_GRADIENT], sums=True) == ["bgrada"]
    for apart in ([WEIGHT, Call.of("bias_gradient", DELTA, SUMS)], [BIAS_GRADIENT, WEIGHT], [WEIGHT, ABOVE]):
        assert made(apart, sums=True) == [call.operation for call in apart]
