"""Every operation of the CuPy backend, with kernels on the CPU, against NumPy in float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from nnbackend.backends.contract import OPERATIONS
from nnbackend.backends.cupy import CupyBackend, launches
from nnbackend.backends.cupy import operations as operations_module
from nnbackend.backends.numpy import NumpyBackend
from nnbackend.errors import UnknownNameError
from tests.backends.cupy.cases import CASES, make
from tests.backends.cupy.comparison import Case, assert_agrees, run
from tests.backends.cupy.emulator import EmulatedRuntime

DTYPES = ("float32", "float64")
sizes = st.one_of(st.sampled_from([1, 2, 31, 32, 33, 64, 65]), st.integers(1, 70))
# Sizes are small, so failures need no shrinking, which would take minutes.
quick = settings(max_examples=8, deadline=None, derandomize=True, phases=(Phase.generate,))


def test_every_operation_has_a_case():
    memory = {"empty", "from_host", "write", "to_host", "copy", "synchronize"}
    operations = {make(name, 3, 4, 5, 0).operation for name in CASES}
    assert operations == set(OPERATIONS) - memory


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CASES)
@quick
@given(rows=sizes, columns=sizes, inner=sizes, padding=st.integers(0, 3), seed=st.integers(0, 10**6))
def test_agrees_with_numpy(emulated, name, dtype, rows, columns, inner, padding, seed):
    assert_agrees(emulated, make(name, rows, columns, inner, seed), dtype, padding)


@pytest.mark.parametrize("name", CASES)
def test_order_of_threads_and_blocks_does_not_matter(emulated, reversed_order, name):
    """Bit for bit, because a difference would be a race or a sum in varying order."""
    case = make(name, 37, 45, 9, 1)
    for mine, wanted in zip(run(reversed_order, case, "float32", 3), run(emulated, case, "float32", 3), strict=True):
        assert mine.tobytes() == wanted.tobytes()


@pytest.mark.parametrize(
    "name",
    [
        "bias_gradient", "record_loss-penalties", "batch_norm-scale", "batch_norm_gradient-scale-alias",
        "layer_norm_scale_gradient", "mix_columns-gradient", "embed_columns-True", "periodic_columns-gradient",
    ],
)  # fmt: skip
def test_many_rows(emulated, reversed_order, name):
    """More rows than one chunk of a sum takes."""
    case = make(name, 2 * launches.chunk_rows(1) + 77, 5, 1, 2)
    assert_agrees(emulated, case, "float32", 3)
    first, second = (run(backend, case, "float32") for backend in (emulated, reversed_order))
    assert [array.tobytes() for array in first] == [array.tobytes() for array in second]


@pytest.mark.parametrize(
    "name",
    [
        "gather-uint8", "dropout-0.5", "adam_update-0.1-True", "weight_penalty-0.3-0.2", "activation_forward-relu",
        "add", "batch_norm-scale", "normalize", "batch_norm_gradient-scale", "mix_columns-", "embed_columns-False",
        "embed_columns-True", "periodic_columns-saved", "periodic_columns-gradient", "periodic_columns-input",
    ],
)  # fmt: skip
def test_more_elements_than_threads(emulated, monkeypatch, name):
    """Kernels loop if the grid is smaller than the array, as for very large arrays."""
    monkeypatch.setattr(launches, "_MOST_BLOCKS", 2)
    monkeypatch.setattr(launches, "_GRID_Y_LIMIT", 1)
    monkeypatch.setattr(operations_module, "_PENALTY_BLOCKS", 4)
    assert_agrees(emulated, make(name, 60, 70, 3, 3), "float32", 1)


@pytest.mark.parametrize("name", ["convolution-depthwise", "pool-max", "pool_gradient-l2", "place-larger"])
def test_more_pixels_than_threads(emulated, monkeypatch, name):
    monkeypatch.setattr(launches, "_MOST_BLOCKS", 1)
    assert_agrees(emulated, make(name, 62, 44, 65, 3), "float32")


def test_one_row_whose_stride_says_nothing(emulated):
    """A vector viewed as one row may have a row stride of 0, which cuBLAS would reject."""
    x, weight, out = (emulated.from_host(np.arange(n) + 1.0) for n in (5, 10, 2))
    emulated.dense_forward(x[None], weight.reshape(5, 2), None, "identity", 0.0, None, out[None])
    np.testing.assert_array_equal(emulated.to_host(out), np.arange(1, 6) @ np.arange(1, 11).reshape(5, 2))


@pytest.mark.parametrize("name", CASES)
def test_nothing_is_allocated_after_the_first_run(emulated, monkeypatch, name):
    case = make(name, 700, 9, 4, 4)
    arrays = {id(value): emulated.from_host(value) for value in case.arguments if isinstance(value, np.ndarray)}
    arguments = [arrays.get(id(value), value) for value in case.arguments]
    getattr(emulated, case.operation)(*arguments)
    runtime = emulated.runtime
    monkeypatch.setattr(runtime, "zeros", None)
    monkeypatch.setattr(runtime, "load", None)
    getattr(emulated, case.operation)(*arguments)


# ---- extreme values --------------------------------------------------------------------------------------------------

_EDGES = np.array(
    [[np.nan, 1.0, -2.0], [np.inf, 0.0, 3.0], [-np.inf, 2.0, -0.0], [88.0, -104.0, 0.5], [1e4, -1e4, 1.0]]
)


@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [name for name in CASES if name.startswith(("activation_", "dropout", "max_abs_"))])
def test_nan_infinity_and_zero(emulated, name, dtype):
    """As in NumPy with the same dtype: NaN propagates, and there is no avoidable overflow."""
    case = make(name, 5, 3, 1, 5)
    arrays = [value for value in case.arguments if isinstance(value, np.ndarray) and value.shape == (5, 3)]
    for array in arrays:
        array[...] = _EDGES
    expected, actual = run(NumpyBackend(), case, dtype), run(emulated, case, dtype)
    for mine, wanted in zip(actual, expected, strict=True):
        np.testing.assert_allclose(mine, wanted, rtol=1e-5, atol=1e-12)


def test_relu_propagates_nan_and_has_no_negative_zero(emulated):
    case = Case("activation_forward", (np.array([[np.nan, -0.0, -1.0, 2.0]]), "relu", 0.0, np.zeros((1, 4))))
    out = run(emulated, case, "float32")[1][0]
    assert np.isnan(out[0])
    assert not np.signbit(out[1:]).any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("operation", ["softmax_cross_entropy", "sigmoid_cross_entropy"])
def test_losses_of_huge_logits_are_finite(emulated, operation, dtype):
    logits = np.array([[1e30, -1e30, 0.0], [-1e30, -1e30, -1e30], [700.0, -700.0, 5.0]])
    targets = np.eye(3)[[0, 1, 2]]
    case = Case(operation, (logits, targets, None, np.zeros((3, 3)), np.zeros((2, 3))))
    for mine, wanted in zip(run(emulated, case, dtype), run(NumpyBackend(), case, "float64"), strict=True):
        assert np.isfinite(mine).all()
        np.testing.assert_allclose(mine, wanted, rtol=1e-5, atol=1e-6)


def test_softmax_loss_is_not_a_number_if_a_logit_is(emulated):
    logits = np.array([[0.0, np.nan, 1.0], [0.0, 1.0, 2.0]])
    case = Case("softmax_cross_entropy", (logits, np.array([0, 2], np.int32), None, np.zeros((2, 3)), np.zeros((2, 2))))
    _, _, gradient, rows = run(emulated, case, "float32")
    assert np.isnan(rows[0, 0])
    assert np.isnan(gradient[0]).all()
    assert np.isfinite(rows[:, 1]).all()


@pytest.mark.parametrize("columns", [1, 4, 33, 100])
def test_a_correct_prediction_is_the_first_of_equals(emulated, columns):
    """All logits are equal: the prediction is class 0, in any lane."""
    labels = np.arange(columns, dtype=np.int32)
    shape = (columns, columns)
    case = Case("softmax_cross_entropy", (np.ones(shape), labels, None, np.zeros(shape), np.zeros((2, columns))))
    rows = run(emulated, case, "float32")[3]
    np.testing.assert_array_equal(rows[1], labels == 0)
    targets = np.zeros(shape)
    targets[:, [0, columns - 1]] = 0.5  # two largest targets: the first counts
    case = Case("mean_squared_error", (np.ones(shape), targets, None, np.zeros(shape), np.zeros((2, columns))))
    np.testing.assert_array_equal(run(emulated, case, "float32")[3][1], 1)


@pytest.mark.parametrize("columns", [3, 70])
def test_nan_is_the_largest(emulated, columns):
    """As in NumPy's argmax, the first of them is the prediction and the best target."""
    outputs = np.ones((4, columns))
    outputs[0, 1:] = outputs[1, columns - 1] = outputs[2, 0] = np.nan
    labels = np.array([1, columns - 1, 0, 1], np.int32)
    case = Case("softmax_cross_entropy", (outputs, labels, None, np.zeros(outputs.shape), np.zeros((2, 4))))
    np.testing.assert_array_equal(run(emulated, case, "float32")[3][1], [1, 1, 1, 0])
    targets = np.zeros(outputs.shape)
    targets[np.arange(4), labels] = 1
    case = Case("mean_squared_error", (outputs, targets, None, np.zeros(outputs.shape), np.zeros((2, 4))))
    np.testing.assert_array_equal(run(emulated, case, "float32")[3][1], [1, 1, 1, 0])


# ---- dropout's random words ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", range(4))
def test_philox_known_answer(emulated, word):
    """Key 0, counter 0 gives 6627e8d5 e169c58d bc57ac4c 9b00dbd8, as in Random123; the threshold is exactly there."""
    answer = (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)[word]
    for threshold, kept in ((answer, True), (answer + 1, False)):
        arguments = (np.ones((1, 4)), threshold / 2**32, 0, 0, np.zeros(3, np.int64), np.zeros((1, 4)))
        out = run(emulated, Case("dropout", arguments), "float64")[2]
        assert (out[0, word] != 0) == kept


@pytest.mark.parametrize("dtype", DTYPES)
def test_dropout_is_numpys_bit_for_bit(emulated, dtype):
    case = make("dropout-0.1-alias", 67, 45, 1, 6)
    assert run(emulated, case, dtype)[0].tobytes() == run(NumpyBackend(), case, dtype)[0].tobytes()


# ---- precision -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_tf32_rounds_only_the_factors_of_float32_products(emulated, dtype):
    case = make("dense_forward-identity", 30, 20, 500, 8)
    exact = run(NumpyBackend(), case, "float64")[2]
    error = {
        precision: np.abs(run(CupyBackend(EmulatedRuntime(), precision), case, dtype)[2] - exact).max()
        for precision in ("float32", "tf32")
    }
    if dtype == "float64":
        assert error["tf32"] == error["float32"] < 1e-11
    else:
        assert error["float32"] < 1e-4 < error["tf32"] < 2**-10 * 500


def test_an_unknown_precision_is_an_error():
    with pytest.raises(UnknownNameError, match=r"unknown precision .int8.: valid names are float32, tf32"):
        CupyBackend(precision="int8")


# ---- launches --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("dense_forward-identity", ["gemm"]),
        ("dense_forward-relu-bias", ["gemm", "relu_forward"]),
        ("dense_forward-gelu-bias", ["gemm", "gelu_forward"]),
        ("dense_forward-softmax-bias", ["gemm", "softmax_forward"]),
        ("activation_gradient-identity-alias", []),
        ("max_abs_norm_gradient", ["max_abs_norm_gradient"]),
        ("softmax_cross_entropy-labels", ["softmax_cross_entropy_labels"]),
        ("bias_gradient", ["sum_rows"]),
        ("adam_update-0.1-True", ["adam"]),
        ("convolution-plain", ["convolution_32"]),
        ("convolution_input_gradient-plain", ["convolution_input_gradient_32"]),
        ("convolution_weight_gradient-plain", ["convolution_weight_gradient_32"]),
        ("convolution-depthwise", ["convolution_narrow"]),
        ("pool-max", ["max_pool"]),
        ("pool_gradient-max", ["max_pool_gradient"]),
        ("place-larger", ["place"]),
        ("add", ["add"]),
        ("batch_norm-scale", ["batch_statistics", "finish_statistics", "batch_norm"]),
        ("batch_norm_gradient-scale", ["gradient_sums", "finish_gradient_sums", "batch_norm_gradient"]),
        ("normalize", ["normalize"]),
        ("layer_norm-scale", ["layer_norm"]),
        ("layer_norm_gradient-scale", ["layer_norm_gradient"]),
        ("layer_norm_scale_gradient", ["gradient_sums", "finish_gradient_sums"]),
        ("scale_columns-", ["scale_columns"]),
        ("scale_columns-gradient", ["gradient_sums", "finish_gradient_sums"]),
        ("mix_columns-", ["mix_columns"]),
        ("embed_columns-True", ["embed_columns_gradient"]),
        ("periodic_columns-gradient", ["periodic_columns_gradient"]),
    ],
)
def test_no_needless_launch(emulated, name, expected):
    emulated.runtime.log = log = []
    try:
        run(emulated, make(name, 256, 10, 20, 7), "float32")
    finally:
        emulated.runtime.log = None
    assert log == expected
