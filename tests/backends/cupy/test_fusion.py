"""Fusing operations into one launch: which are fused, that results are the same, and the number of launches."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.backends.activations import ACTIVATIONS
from nnbackend.backends.contract import Call
from nnbackend.backends.cupy import launches
from nnbackend.backends.cupy.fusion import fuse
from nnbackend.backends.image_operations import POOLS
from nnbackend.backends.numpy import NumpyBackend
from tests.backends.cupy import launches as launches_command
from tests.backends.cupy.launches import launched

#: (rows, columns): ones, edges of warps and of four rows at once, more rows than one sum takes.
SIZES = [(1, 1), (3, 33), (64, 31), (67, 5), (256, 10), (launches.chunk_rows(1) + 3, 7)]

pytestmark = pytest.mark.usefixtures("needs_compiler")


def matrix(backend, values, dtype, padding=3):
    """On the device, with padded rows."""
    rows, columns = values.shape
    view = backend.view(
        backend.from_host(np.zeros(rows * (columns + padding), dtype)), 0, values.shape, columns + padding
    )
    backend.write(values.astype(dtype), view)
    return view


# ---- same results ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activation_and_bias_gradient(emulated, reversed_order, activation, dtype):
    rng = np.random.default_rng(0)
    for rows, columns in SIZES:
        saved, upstream = rng.uniform(0.1, 0.9, (rows, columns)), rng.standard_normal((rows, columns))
        expected, sums = np.zeros((rows, columns)), np.zeros(columns)
        reference = NumpyBackend()
        reference.activation_gradient(saved, activation, 0.3, upstream, expected)
        reference.bias_gradient(expected, sums)
        results = []
        for backend in (emulated, reversed_order):
            arrays = [matrix(backend, values, dtype) for values in (saved, upstream)]
            out = backend.empty((columns,), dtype)
            backend.activation_and_bias_gradient(arrays[0], activation, 0.3, arrays[1], arrays[1], out)
            results.append((backend.to_host(arrays[1]), backend.to_host(out)))
            backend.synchronize()
        tolerance = {"float32": 1e-5, "float64": 1e-12}[dtype] * max(1, rows**0.5)
        np.testing.assert_allclose(results[0][0], expected, rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(results[0][1], sums, rtol=tolerance, atol=tolerance)
        assert [array.tobytes() for array in results[0]] == [array.tobytes() for array in results[1]]


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_gather_with_labels(emulated, kind):
    rng = np.random.default_rng(1)
    for rows, columns in SIZES:
        source, labels = rng.integers(0, 255, (rows + 4, columns)), rng.integers(0, 9, rows + 4)
        order = rng.permutation(np.repeat(np.arange(rows + 4), 2))[: 2 * rows]
        device = [emulated.from_host(np.asarray(a)) for a in (source.astype(kind), order, np.array([1, 5, 6]))]
        out = matrix(emulated, np.zeros((rows, columns)), "float32")
        taken = emulated.empty((rows,), np.int32)
        labels_there = emulated.from_host(labels.astype(np.int32))
        emulated.gather_with_labels(device[0], device[1], device[2], rows, 0.5, out, labels_there, taken)
        np.testing.assert_array_equal(emulated.to_host(out), source[order[rows:]] * np.float32(0.5))
        np.testing.assert_array_equal(emulated.to_host(taken), labels[order[rows:]])
        emulated.synchronize()


def test_finish_step(emulated):
    rows = emulated.from_host(np.arange(10.0).reshape(2, 5))
    penalties = emulated.from_host(np.array([0.5, 0.25]))
    counter, trace = emulated.from_host(np.array([1, 7, 9])), emulated.empty((3, 3), np.float64)
    parameters, steps = emulated.from_host(np.zeros(600)), emulated.from_host(np.arange(600.0))
    ranges = emulated.from_host(np.array([[0, 3], [10, 500], [599, 1]]))
    emulated.finish_step(rows, penalties, counter, trace, counter, parameters, steps, ranges)
    added = np.arange(600.0)
    added[3:10] = added[510:599] = 0
    np.testing.assert_array_equal(emulated.to_host(parameters), added)
    np.testing.assert_array_equal(emulated.to_host(counter), [2, 8, 10])
    emulated.record_loss(rows, None, counter, trace)
    np.testing.assert_array_equal(emulated.to_host(trace), [[0, 0, 0], [10, 35, 5 * 0.75], [10, 35, 0]])
    np.testing.assert_array_equal(emulated.to_host(counter), [2, 8, 10])


@pytest.mark.parametrize(("groups", "channels", "filters"), [(1, 3, 12), (1, 2, 3), (1, 9, 40), (4, 1, 1)])
def test_convolution_and_relu(emulated, reversed_order, groups, channels, filters):
    """The same bits as in two launches; NaN passes."""
    rng = np.random.default_rng(2)
    x = rng.standard_normal((3, 6, 5, groups * channels)).astype(np.float32)
    x[1, 2, 3] = np.nan
    weight, bias = rng.standard_normal((3, 2, channels, groups * filters)), rng.standard_normal(groups * filters)
    steps, results = (2, 1, 1, 1, 1, 0), []
    for backend in (emulated, reversed_order):
        device = [backend.from_host(array.astype(np.float32)) for array in (x, weight, bias)]
        together, apart = (backend.empty((3, 3, 4, groups * filters), np.float32) for _ in range(2))
        backend.convolution_and_relu(*device, *steps, together)
        backend.convolution(*device, *steps, apart)
        rows = backend.reshape(apart, (36, groups * filters))
        backend.activation_forward(rows, "relu", 0.0, rows)
        results += [backend.to_host(together), backend.to_host(apart)]
    assert len({array.tobytes() for array in results}) == 1
    assert np.isnan(results[0]).any()
    assert (results[0] == 0).any()


@pytest.mark.parametrize("kind", POOLS)
def test_pool_and_relu_gradient(emulated, reversed_order, kind):
    """The same bits as in two launches; NaN passes also where ReLU's output is 0."""
    rng = np.random.default_rng(3)
    x = np.maximum(rng.standard_normal((3, 6, 5, 4)), 0).astype(np.float32)
    upstream = rng.standard_normal((3, 3, 4, 4)).astype(np.float32)
    upstream[1, 1] = np.nan
    window, results = (kind, 2, 3, 2, 1, 0, 1), []
    for backend in (emulated, reversed_order):
        device, above = backend.from_host(x), backend.from_host(upstream)
        pooled, together, apart = (backend.empty(shape, np.float32) for shape in (upstream.shape, x.shape, x.shape))
        backend.pool(device, *window, pooled)
        backend.pool_and_relu_gradient(device, pooled, above, *window, together)
        backend.pool_gradient(device, pooled, above, *window, apart)
        saved, rows = (backend.reshape(array, (90, 4)) for array in (device, apart))
        backend.activation_gradient(saved, "relu", 0.0, rows, rows)
        results += [backend.to_host(together), backend.to_host(apart)]
    assert len({array.tobytes() for array in results}) == 1
    assert np.isnan(results[0]).any()
    assert (results[0][x == 0] == 0).any()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("groups", "channels", "filters", "size"),
    [(1, 3, 12, 9), (1, 2, 3, 9), (1, 9, 40, 6), (2, 10, 9, 6), (4, 1, 1, 25), (1, 1, 20, 25)],
)
def test_convolution_gradients(emulated, reversed_order, groups, channels, filters, size, dtype):
    """The gradients of weight and bias, in one or several chunks, written or added."""
    rng = np.random.default_rng(2)
    x = rng.standard_normal((3, size, size, groups * channels)).astype(np.float32)
    delta = rng.standard_normal((3, size, size, groups * filters)).astype(np.float32)
    steps, shape = (1, 1, 1, 1, 1, 0), (3, 2, channels, groups * filters)
    expected, reference = np.zeros(shape), NumpyBackend()
    reference.convolution_weight_gradient(x.astype(np.float64), delta.astype(np.float64), *steps, expected)
    sums = delta.sum(axis=(0, 1, 2), dtype=np.float64)
    tolerance = {"float32": 1e-4, "float64": 1e-10}[dtype] * size
    results = []
    for backend in (emulated, reversed_order):
        device = [backend.from_host(array.astype(dtype)) for array in (x, delta)]
        for adds, start in ((False, 7.0), (True, 2.0)):
            buffer = backend.from_host(np.full(6 * channels * (groups * filters + 3), start, dtype))
            out = backend.view(buffer, 0, shape, groups * filters + 3)
            bias = backend.from_host(np.full(groups * filters, 5, dtype))
            backend.convolution_gradients(*device, *steps, out, bias, adds)
            backend.synchronize()
            np.testing.assert_allclose(backend.to_host(out), expected + adds * start, rtol=0, atol=tolerance)
            np.testing.assert_allclose(backend.to_host(bias), sums, rtol=0, atol=tolerance)
            assert (backend.to_host(buffer).reshape(-1, groups * filters + 3)[:, groups * filters :] == start).all()
            results.append((backend.to_host(out).tobytes(), backend.to_host(bias).tobytes()))
            if adds:
                backend.convolution_weight_step(*device, *steps, out)
                np.testing.assert_allclose(backend.to_host(out), 2 * expected + start, rtol=0, atol=2 * tolerance)
    assert results[:2] == results[2:]


# ---- which are fused ------------------------------------------------------------------------------------------------

X, LABELS, WEIGHT, BIAS = np.zeros((4, 3)), np.zeros(4, np.int32), np.zeros((3, 3)), np.zeros(3)
DELTA, DOWN, SLOPE = np.zeros((4, 3)), np.zeros((4, 3)), np.zeros((3, 3))
ORDER, COUNTER, TRACE = np.zeros(4, np.int64), np.zeros(3, np.int64), np.zeros((1, 3))

GATHER = Call.of("gather", X, ORDER, COUNTER, 4, 1.0, DOWN)
GATHER_LABELS = Call.of("gather", LABELS, ORDER, COUNTER, 4, 1.0, LABELS)
GRADIENT = Call.of("activation_gradient", X, "relu", 0.0, DELTA, DELTA)
INPUT = Call.of("dense_input_gradient", DELTA, WEIGHT, DOWN)
PRODUCT = Call.of("dense_weight_gradient", X, DELTA, SLOPE)
SUMS = Call.of("bias_gradient", DELTA, BIAS)
LOSS = Call.of("record_loss", X, None, COUNTER, TRACE)
ADVANCE = Call.of("advance", COUNTER)


IMAGES, MAPS, KERNEL = np.zeros((2, 4, 4, 2)), np.zeros((2, 4, 4, 3)), np.zeros((1, 1, 2, 3))
ROWS_OF_MAPS, STATISTICS = MAPS.reshape(32, 3), np.zeros((32, 2))
CONVOLVED = Call.of("convolution_weight_gradient", IMAGES, MAPS, 1, 1, 1, 1, 0, 0, KERNEL)
FORWARD = Call.of("convolution", IMAGES, KERNEL, BIAS, 1, 1, 1, 1, 0, 0, MAPS)
RELU_OF_MAPS = Call.of("activation_forward", ROWS_OF_MAPS, "relu", 0.0, ROWS_OF_MAPS)
INPUT_OF_POOL, POOLED = np.zeros((2, 4, 4, 3)), np.zeros((2, 2, 2, 3))
SAVED = INPUT_OF_POOL.reshape(32, 3)
POOLED_GRADIENT = Call.of("pool_gradient", INPUT_OF_POOL, POOLED, POOLED, "max", 2, 2, 2, 2, 0, 0, MAPS)
RELU_GRADIENT = Call.of("activation_gradient", SAVED, "relu", 0.0, ROWS_OF_MAPS, ROWS_OF_MAPS)
SUMS_OF_MAPS = Call.of("bias_gradient", ROWS_OF_MAPS, BIAS)
SCALES = Call.of("layer_norm_scale_gradient", ROWS_OF_MAPS, STATISTICS, ROWS_OF_MAPS, BIAS)


def names(calls):
    return [call.operation for call in fuse(calls)]


def test_neighbours_that_are_fused():
    assert names([GATHER, GATHER_LABELS]) == ["gather_with_labels"]
    assert names([GRADIENT, SUMS]) == ["activation_and_bias_gradient"]
    products = [INPUT.operation, PRODUCT.operation]
    assert names([GRADIENT, INPUT, PRODUCT, SUMS]) == ["activation_and_bias_gradient", *products]
    assert names([LOSS, ADVANCE]) == ["finish_step"]
    # Maps and their rows are different views of the same memory.
    assert names([CONVOLVED, SUMS_OF_MAPS]) == ["convolution_gradients"]
    assert names([FORWARD, RELU_OF_MAPS]) == ["convolution_and_relu"]
    assert names([POOLED_GRADIENT, RELU_GRADIENT]) == ["pool_and_relu_gradient"]
    assert names([SCALES, SUMS_OF_MAPS]) == ["layer_norm_parameter_gradients"]
    fused = fuse([GRADIENT, INPUT, PRODUCT, SUMS])[0]
    assert [id(argument) for argument in list(fused.arguments.values())[3:]] == [id(DELTA), id(DELTA), id(BIAS)]


@pytest.mark.parametrize(
    "calls",
    {
        "another order": [GATHER, Call.of("gather", LABELS, ORDER.copy(), COUNTER, 4, 1.0, LABELS)],
        "another counter": [GATHER, Call.of("gather", LABELS, ORDER, COUNTER.copy(), 4, 1.0, LABELS)],
        "another batch": [GATHER, Call.of("gather", LABELS, ORDER, COUNTER, 5, 1.0, LABELS)],
        "values for targets": [GATHER, Call.of("gather", BIAS, ORDER, COUNTER, 4, 1.0, BIAS)],
        "two vectors": [GATHER_LABELS, GATHER_LABELS],
        "sums of another": [GRADIENT, Call.of("bias_gradient", DOWN, BIAS)],
        "written in between": [GRADIENT, Call.of("dense_input_gradient", DOWN, WEIGHT, DELTA), SUMS],
        "something else in between": [GRADIENT, Call.of("activation_gradient", X, "relu", 0.0, DOWN, DELTA), PRODUCT],
        "the end before": [ADVANCE, LOSS],
        "another activation": [FORWARD, Call.of("activation_forward", ROWS_OF_MAPS, "tanh", 0.0, ROWS_OF_MAPS)],
        "z is kept": [FORWARD, Call.of("activation_forward", ROWS_OF_MAPS, "relu", 0.0, np.zeros((32, 3)))],
        "the activation of another array": [
            FORWARD,
            Call.of("activation_forward", MAPS.copy().reshape(32, 3), "relu", 0.0, ROWS_OF_MAPS),
        ],
        "tanh before a pool": [
            POOLED_GRADIENT,
            Call.of("activation_gradient", SAVED, "tanh", 0.0, ROWS_OF_MAPS, ROWS_OF_MAPS),
        ],
        "another input of the pool": [
            POOLED_GRADIENT,
            Call.of("activation_gradient", SAVED.copy(), "relu", 0.0, ROWS_OF_MAPS, ROWS_OF_MAPS),
        ],
        "a pool's gradient that is kept": [
            POOLED_GRADIENT,
            Call.of("activation_gradient", SAVED, "relu", 0.0, ROWS_OF_MAPS, np.zeros((32, 3))),
        ],
        "sums of other maps": [CONVOLVED, Call.of("bias_gradient", ROWS_OF_MAPS.copy(), BIAS)],
        "sums of a part of the maps": [CONVOLVED, Call.of("bias_gradient", ROWS_OF_MAPS[:16], BIAS)],
        "a gradient of other rows": [SCALES, Call.of("bias_gradient", ROWS_OF_MAPS.copy(), BIAS)],
        "sums before the convolution's gradient": [SUMS_OF_MAPS, CONVOLVED],
        "a counter of its own": [LOSS, Call.of("advance", COUNTER.copy())],
    }.items(),
    ids=lambda item: item[0],
)
def test_other_calls_are_not_fused(calls):
    assert [id(call) for call in fuse(calls[1])] == [id(call) for call in calls[1]]


# ---- launches -------------------------------------------------------------------------------------------------------


def launches_of(hidden, activation, optimizer, epilogues=True):
    layers = [*(nn.Dense(units, activation=activation) for units in hidden), nn.Dense(10)]
    return launched(layers, optimizer, epilogues)


def test_launches_of_the_three_nets():
    log = launches_of([200, 80], "relu", nn.SGD(0.1))
    assert log == [
        "gather_bytes_and_labels",
        *["gemm_relu_aux_bias"] * 2,
        "gemm_bias",
        "softmax_cross_entropy_labels",
        *["gemm_drelu_bgrad", "gemm_bgrada"],
        *["gemm_drelu_bgrad", "gemm"],
        "gemm",
        "record_loss",
    ]
    assert len(log) == 11
    assert len(launches_of([40], "relu", nn.SGD(0.1))) == 8
    assert len(launches_of([40], "sigmoid", nn.SGD(0.1))) == 10
    assert len(launches_of([200, 80], "relu", nn.SGD(0.1, momentum=0.9))) == 12
    assert len(launches_of([500, 1000, 300], "relu", nn.Adam())) == 15


def test_launches_without_epilogues():
    log = launches_of([200, 80], "relu", nn.SGD(0.1), epilogues=False)
    assert log == [
        "gather_bytes_and_labels",
        *["gemm", "relu_forward"] * 2,
        *["gemm", "identity_forward"],
        "softmax_cross_entropy_labels",
        *["gemm", "gemm", "sum_rows"],
        *["relu_gradient_with_sums", "gemm", "gemm"],
        *["relu_gradient_with_sums", "gemm"],
        "record_loss",
    ]
    assert len(log) == 17
    assert len(launches_of([40], "sigmoid", nn.SGD(0.1), epilogues=False)) == 12
    assert len(launches_of([500, 1000, 300], "relu", nn.Adam(), epilogues=False)) == 23


def test_launches_of_a_convolutional_network():
    layers = [
        nn.Reshape((4, 5, 1)),
        nn.Conv2D(6, 3, padding="same", activation="relu"),
        nn.MaxPool2D(2),
        nn.Conv2D(10, 2, activation="tanh"),
        nn.Flatten(),
        nn.Dense(10),
    ]
    assert launched(layers, nn.SGD(0.1)) == [
        "gather_bytes_and_labels",
        *["convolution_narrow", "max_pool"],
        *["convolution_32", "tanh_forward"],
        *["gemm_bias", "softmax_cross_entropy_labels"],
        *["gemm", "gemm_bgrada"],
        *["tanh_gradient", "convolution_input_gradient_narrow", "convolution_weight_gradient_32"],
        *["max_pool_gradient", "convolution_weight_gradient_narrow"],
        "record_loss",
    ]


@pytest.mark.slow
def test_the_page_about_steps_shows_what_the_command_prints(capsys):
    launches_command.main()
    printed = capsys.readouterr().out
    page = (Path(__file__).parents[3] / "docs" / "gpu_step.md").read_text()
    (shown,) = re.findall(r"```\n(784-200-80-10.*?)```", page, re.DOTALL)
    assert shown in printed
