"""Products with epilogues, also of libraries that behave in other ways than ours needs, with a fake CuPy."""

from __future__ import annotations

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.backends.cupy import CupyBackend
from nnbackend.backends.cupy.cublaslt import EPILOGUES
from nnbackend.backends.cupy.interface import Epilogue, Operands
from tests.helpers import classifier, images

pytest.importorskip("cupy", reason="runtime.py imports CuPy")

TRAINING = {"batch_size": 8, "epochs": 2, "loss": "softmax_cross_entropy", "verbose": False}


def trained(backend):
    x, y = images(rows=75)
    history = classifier(backend).fit(x, y, **TRAINING)
    return np.concatenate(history.step_losses)


def test_a_run_with_epilogues(products, cupy):
    cupy.calls.clear()
    np.testing.assert_allclose(trained(products), trained("numpy"), rtol=1e-4)
    # A hidden layer with ReLU: two products forwards; backwards one with its derivative, and one with the sums above.
    plain = cupy.calls[: cupy.calls.index("begin_capture")]
    assert not {"relu_forward", "relu_gradient_with_sums", "sum_rows", "identity_forward"} & set(plain)
    assert plain.count("product") >= 4


@pytest.mark.parametrize("precision", ["float32", "tf32"])
def test_epilogues_have_the_backends_precision(cupy, lt_state, precision):
    trained(CupyBackend(precision=precision, two_kernels=False))
    assert lt_state.compute == {"float32": 68, "tf32": 77}[precision]


def test_relu_that_hides_nan_is_not_used(products, cupy, lt_state):
    lt_state.no_nan = 1
    cupy.calls.clear()
    np.testing.assert_allclose(trained(products), trained("numpy"), rtol=1e-4)
    plain = cupy.calls[: cupy.calls.index("begin_capture")]
    assert {"relu_forward", "relu_gradient_with_sums"} <= set(plain)
    # Sums and biases need no ReLU.
    assert not {"sum_rows", "identity_forward"} & set(plain)


def test_a_derivative_of_relu_that_drops_nan_is_not_used(products, cupy, lt_state, caplog):
    lt_state.drops_nan = 1
    cupy.calls.clear()
    with caplog.at_level("INFO", "nnbackend"):
        np.testing.assert_allclose(trained(products), trained("numpy"), rtol=1e-4)
    plain = cupy.calls[: cupy.calls.index("begin_capture")]
    assert "relu_gradient_with_sums" in plain
    # ReLU itself needs no mask then.
    assert "relu_forward" not in plain
    assert "no epilogue 'drelu_bgrad' on Fake GPU 0: it replaces NaN" in caplog.text


def test_the_derivative_is_tried_where_relu_is_0(backend, lt_state):
    """Whatever the mask contained before."""
    runtime = backend.runtime
    a, b, c = (runtime.zeros(shape, np.float32) for shape in ((4, 12), (5, 4), (5, 12)))
    epilogue = Epilogue("drelu_bgrad", runtime.zeros((9,), np.float32), runtime.zeros((5, 16), np.uint8), 128)
    for drops_nan in (0, 1):
        lt_state.drops_nan = drops_nan
        runtime.write(np.full((5, 16), 255, np.uint8), epilogue.mask)
        product = runtime.product(Operands(False, False, 9, 5, 4, a, 12, b, 4, c, 12), epilogue)
        assert (product is None) == bool(drops_nan)


def test_trying_a_product_leaves_its_bias_alone(backend):
    runtime = backend.runtime
    a, b, c = (runtime.zeros(shape, np.float32) for shape in ((4, 12), (5, 4), (5, 12)))
    mask = runtime.zeros((5, 16), np.uint8)
    for kind in EPILOGUES:
        bias = backend.from_host(np.arange(9, dtype=np.float32))
        assert runtime.product(Operands(False, False, 9, 5, 4, a, 12, b, 4, c, 12), Epilogue(kind, bias, mask, 128))
        np.testing.assert_array_equal(backend.to_host(bias), np.arange(9))


@pytest.mark.parametrize("kind", ["relu_aux_bias", "drelu_bgrad", "bgrada"])
def test_a_product_that_the_library_refuses_is_computed_otherwise(products, lt_state, caplog, kind):
    lt_state.refused = EPILOGUES[kind]
    with caplog.at_level("INFO", "nnbackend"):
        np.testing.assert_allclose(trained(products), trained("numpy"), rtol=1e-4)
    assert f"no epilogue {kind!r}" in caplog.text


def test_relu_is_tried_where_rows_of_the_result_are_padded(backend):
    runtime = backend.runtime
    a, b, c = (runtime.zeros(shape, np.float32) for shape in ((4, 12), (5, 4), (5, 12)))
    operands = Operands(False, False, 9, 5, 4, a, 12, b, 4, c, 12)
    bias, mask = runtime.zeros((9,), np.float32), runtime.zeros((5, 16), np.uint8)
    assert runtime.product(operands, Epilogue("relu_aux_bias", bias, mask, 128)) is not None


def test_a_diverging_run_is_visible(backend):
    x, y = images(rows=75)
    network = classifier(backend)
    weights = network.get_weights()
    with pytest.raises(nn.errors.TrainingDivergedError, match="step"):
        network.fit(x, y, optimizer=nn.SGD(1e30), **TRAINING)
    assert all(np.isfinite(array).all() for array in network.get_weights().values())
    assert network.get_weights().keys() == weights.keys()


def test_without_the_library_everything_else_works(products, cupy, monkeypatch, caplog):
    from nnbackend.backends.cupy import runtime

    def missing():
        raise RuntimeError("Failure finding libcublasLt.so")

    monkeypatch.setattr(runtime, "load_cublaslt", missing)
    with caplog.at_level("INFO", logger="nnbackend"):
        np.testing.assert_allclose(trained(products), trained("numpy"), rtol=1e-4)
    assert caplog.text.count("products have no epilogues on Fake GPU 0: Failure finding libcublasLt.so") == 1
    assert "product" not in cupy.calls
