"""The compiled functions of images agree with the reference for random geometries, and threads change no bit."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.backends.declaration import Call
from nnbackend.backends.image_operations import POOLS
from nnbackend.backends.numba import epoch
from nnbackend.backends.numba.program import compile_step
from nnbackend.backends.numba.winograd import is_winograd

REFERENCE = nn.get_backend("numpy")
CHANNELS = (1, 2, 3, 4, 8, 16, 17, 20, 33, 64)
FILTERS = (1, 3, 8, 10, 16, 20, 24, 40, 48, 50, 64, 140)


def computed(operation: str, arguments: dict[str, Any], shape: tuple[int, ...], threads: int) -> np.ndarray:
    """The result of one operation, run by this many threads."""
    dtype = next(value.dtype for value in arguments.values() if isinstance(value, np.ndarray))
    out = np.full(shape, np.nan, dtype)
    program = compile_step([Call(operation, {**arguments, "out": out})], threads)
    barrier = np.zeros(2, np.int64)
    table = (program.table, program.advances, program.counter, 1, program.scratch)
    workers = [
        threading.Thread(target=epoch.run, args=(*table, thread, threads, barrier.ctypes.data))
        for thread in range(threads)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return out


def check(operation: str, arguments: dict[str, Any], shape: tuple[int, ...]) -> np.ndarray:
    """Compare with the reference, and threads with each other; returns the reference's result."""
    alone = computed(operation, arguments, shape, 1)
    expected = np.full_like(alone, np.nan)
    getattr(REFERENCE, operation)(**arguments, out=expected)
    tolerance = 1e-11 if alone.dtype == np.float64 else 1e-4
    scale = np.nanmax(np.abs(expected), initial=1.0)
    np.testing.assert_allclose(alone, expected, rtol=0, atol=tolerance * scale, err_msg=f"{operation} {arguments}")
    for threads in (2, 3, 8):
        assert np.array_equal(computed(operation, arguments, shape, threads), alone, equal_nan=True), threads
    return expected


def geometry(generator: np.random.Generator, extent: Any, windows_too_large: bool) -> dict[str, int]:
    """Strides, dilation and padding: none in half of the cases."""
    plain = generator.random() < 0.5
    strides = (1, 1) if plain else generator.integers(1, 4, 2)
    dilation = (1, 1) if plain or not windows_too_large else generator.integers(1, 3, 2)
    padding = (0, 0) if generator.random() < 0.5 else [int(generator.integers(0, length)) for length in extent]
    names = ("stride_y", "stride_x", "dilation_y", "dilation_x", "top", "left")
    return {name: int(value) for name, value in zip(names, (*strides, *dilation, *padding), strict=True)}


def positions(length: int, extent: int, stride: int, dilation: int, before: int) -> int:
    """The number of windows, with the same padding at both ends."""
    return (length + 2 * before - (extent - 1) * dilation - 1) // stride + 1


@pytest.mark.parametrize("kind", ["plain", "depthwise", "groups"])
@pytest.mark.parametrize("seed", range(12))
def test_convolutions(kind: str, seed: int):
    generator = np.random.default_rng([seed, len(kind)])
    dtype = "float64" if seed % 3 == 0 else "float32"
    height = width = 0
    while not (height > 0 and width > 0):
        size, extent = generator.integers(1, 15, 2), generator.integers(1, 6, 2)
        at = geometry(generator, extent, windows_too_large=True)
        height = positions(size[0], extent[0], at["stride_y"], at["dilation_y"], at["top"])
        width = positions(size[1], extent[1], at["stride_x"], at["dilation_x"], at["left"])
    channels, filters = (int(generator.choice(numbers)) for numbers in (CHANNELS, FILTERS))
    seen = channels
    if kind == "depthwise":
        seen, filters = 1, channels
    elif kind == "groups":
        channels, filters = 3 * channels, 3 * filters
    rows = int(generator.integers(1, 7))

    def draw(*shape: int) -> np.ndarray:
        return generator.standard_normal(shape).astype(dtype)

    x, delta = draw(rows, *size, channels), draw(rows, height, width, filters)
    weight, bias = draw(*extent, seen, filters), draw(filters) if seed % 2 else None
    check("convolution", {"x": x, "weight": weight, "bias": bias, **at}, delta.shape)
    check("convolution_input_gradient", {"delta": delta, "weight": weight, **at}, x.shape)
    check("convolution_weight_gradient", {"x": x, "delta": delta, **at}, weight.shape)


@pytest.mark.parametrize("kind", POOLS)
@pytest.mark.parametrize("seed", range(12))
def test_pools(kind: str, seed: int):
    generator = np.random.default_rng([seed, len(kind)])
    dtype = "float64" if seed % 3 == 0 else "float32"
    extent, size = generator.integers(1, 5, 2) if seed % 2 else np.array([2, 2]), generator.integers(4, 15, 2)
    at = geometry(generator, extent, windows_too_large=False)
    shape = [
        positions(size[0], extent[0], at["stride_y"], 1, at["top"]),
        positions(size[1], extent[1], at["stride_x"], 1, at["left"]),
    ]
    # No window may lie outside the image.
    shape = [
        min(count, (length - 1 + before) // stride + 1)
        for count, length, before, stride in zip(
            shape, size, (at["top"], at["left"]), (at["stride_y"], at["stride_x"]), strict=True
        )
    ]
    channels = int(generator.choice(CHANNELS))
    # Ties, and a NaN.
    x = (generator.integers(-3, 4, (5, *size, channels)) / 2).astype(dtype)
    x.flat[generator.integers(x.size)] = np.nan
    upstream = generator.standard_normal((5, *shape, channels)).astype(dtype)
    del at["dilation_y"], at["dilation_x"]
    settings = {"kind": kind, "pool_height": int(extent[0]), "pool_width": int(extent[1]), **at}
    pooled = check("pool", {"x": x, **settings}, upstream.shape)
    check("pool_gradient", {"x": x, "pooled": pooled, "upstream": upstream, **settings}, x.shape)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("columns", [33, 40, 41, 47, 48, 88])
def test_rows_that_share_a_vector_have_the_bits_of_rows_alone(dtype: str, columns: int):
    generator = np.random.default_rng(columns)
    x, weight = (
        generator.standard_normal((19, 130)).astype(dtype),
        generator.standard_normal((130, columns)).astype(dtype),
    )
    settings = {"bias": None, "activation": "identity", "alpha": 0.0, "preactivation": None}
    whole = check("dense_forward", {"x": x, "weight": weight, **settings}, (19, columns))
    assert whole.shape == (19, columns)
    together = computed("dense_forward", {"x": x, "weight": weight, **settings}, (19, columns), 1)
    for row in range(19):
        alone = computed("dense_forward", {"x": x[row : row + 1], "weight": weight, **settings}, (1, columns), 1)
        assert np.array_equal(alone[0], together[row])


def winograd_arrays(
    seed: int, dtype: str, shape: tuple[int, int, int], extent: int, channels: int, filters: int
) -> dict[str, Any]:
    """An image, a square kernel, a bias and `delta`, with padding."""
    generator = np.random.default_rng(seed)
    top, left = (int(number) for number in generator.integers(extent // 3, extent + 1, 2))
    rows, height, width = shape

    def draw(*shape: int) -> np.ndarray:
        return generator.standard_normal(shape).astype(dtype)

    return {
        "x": draw(rows, height, width, channels),
        "weight": draw(extent, extent, channels, filters),
        "bias": draw(filters) if seed % 2 else None,
        "delta": draw(rows, height + 2 * top - extent + 1, width + 2 * left - extent + 1, filters),
        "at": {"stride_y": 1, "stride_x": 1, "dilation_y": 1, "dilation_x": 1, "top": top, "left": left},
    }


@pytest.mark.parametrize(
    ("shape", "channels", "filters"),
    [
        ((2, 3, 3), 16, 16),
        ((5, 4, 7), 17, 100),
        ((3, 14, 14), 32, 64),
        ((1, 5, 300), 33, 20),
        ((70, 8, 3), 20, 33),
        ((1, 13, 10), 64, 100),
        ((2, 6, 5), 128, 16),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("extent", [3, 5])
@pytest.mark.parametrize("seed", [0, 1])
def test_winograd(seed: int, extent: int, dtype: str, shape: tuple[int, int, int], channels: int, filters: int):
    arrays = winograd_arrays(seed, dtype, shape, extent, channels, filters)
    x, weight, bias, delta, at = arrays.values()
    assert is_winograd(Call("convolution", {"x": x, "weight": weight, "bias": bias, **at, "out": delta}))
    check("convolution", {"x": x, "weight": weight, "bias": bias, **at}, delta.shape)
    check("convolution_input_gradient", {"delta": delta, "weight": weight, **at}, x.shape)
    check("convolution_weight_gradient", {"x": x, "delta": delta, **at}, weight.shape)


@pytest.mark.parametrize(("extent", "most"), [(3, (1.3, 2.5, 2.0)), (5, (4.5, 8.5, 6.0))])
def test_the_rounding_of_winograd(extent: int, most: tuple[float, ...]):
    """Errors of random numbers, in units of those of NumPy's sums in blocks. Sums in order have 1.4, 2.8 and 3.8 with
    kernels of 3x3 elements, 1.9, 4.2 and 3.8 with 5x5."""
    x, weight, _, delta, at = winograd_arrays(0, "float32", (16, 14, 14), extent, 64, 64).values()
    for operation, arguments, shape, limit in (
        ("convolution", {"x": x, "weight": weight, "bias": None, **at}, delta.shape, most[0]),
        ("convolution_input_gradient", {"delta": delta, "weight": weight, **at}, x.shape, most[1]),
        ("convolution_weight_gradient", {"x": x, "delta": delta, **at}, weight.shape, most[2]),
    ):
        exact, sums = np.empty(shape), np.empty(shape, np.float32)
        wide = {
            name: np.float64(value) if isinstance(value, np.ndarray) else value for name, value in arguments.items()
        }
        getattr(REFERENCE, operation)(**wide, out=exact)
        getattr(REFERENCE, operation)(**arguments, out=sums)
        error, common = (
            np.sqrt(np.mean((result - exact) ** 2)) for result in (computed(operation, arguments, shape, 1), sums)
        )
        assert error <= limit * common, operation


@pytest.mark.parametrize("place", [(0, 0), (4, 5), (5, 4), (7, 7)])
@pytest.mark.parametrize("value", [np.inf, np.nan])
@pytest.mark.parametrize("extent", [3, 5])
def test_an_infinite_element_reaches_in_winograd_the_outputs_that_see_it_only(
    extent: int, value: float, place: tuple[int, int]
):
    x, weight, _, delta, at = winograd_arrays(0, "float32", (3, 8, 8), extent, 16, 16).values()
    x[1, *place, 3] = value
    out = computed("convolution", {"x": x, "weight": weight, "bias": None, **at}, delta.shape, 1)
    expected = np.empty_like(out)
    REFERENCE.convolution(x=x, weight=weight, bias=None, **at, out=expected)
    assert np.array_equal(np.isfinite(out), np.isfinite(expected))
