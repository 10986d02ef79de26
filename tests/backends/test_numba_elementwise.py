"""Vector loops over memory: each formula against float64 NumPy, for all lengths, without writes outside."""

from __future__ import annotations

import types

import numpy as np
import pytest
from numba.core.dispatcher import Dispatcher
from numba.core.extending import _Intrinsic

from nnbackend.backends.activations import SELU_ALPHA, SELU_SCALE
from nnbackend.backends.numba import (
    backward_operations,
    dense_products,
    elementwise,
    epoch,
    forward_operations,
    kernels,
    kinds,
    normalization,
    product_tiles,
    updates,
)
from nnbackend.backends.numba.activations import ACTIVATION_CODES
from nnbackend.backends.numba.elementwise import activate, differentiate, scale_bytes, sigmoid_cross_entropy_row, update
from nnbackend.backends.numba.jit import as_written
from nnbackend.backends.numba.updates import CONSTANTS, RECORD, RULES, UPDATE
from tests.backends.vectors import Guarded, bits, each_tile_shape

ALPHA = 0.3
#: Their derivatives contain differences of nearly equal numbers.
CANCELLING = ("gelu", "silu", "mish", "tanh", "elu", "selu", "sigmoid")
NAMES = [name for name in ACTIVATION_CODES if name != "softmax"]


# Without fast-math flags, as all callers must be: see the last test.
@as_written
def call_activate(tile, code, constants, z, out, count):
    activate(tile, code, constants, z, out, count)


@as_written
def call_differentiate(tile, code, constants, saved, upstream, out, count):
    differentiate(tile, code, constants, saved, upstream, out, count)


@as_written
def call_loss(tile, constants, z, targets, gradient, count, sums):
    sigmoid_cross_entropy_row(tile, constants, z, targets, gradient, count, sums)


@as_written
def call_scale(tile, constants, source, out, count, ahead):
    scale_bytes(tile, constants, source, out, count, ahead)


@as_written
def call_update(tile, rule, record, gradients, count):
    update(tile, rule, record, gradients, count)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def gelu_tanh(z):
    return np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3))


def gelu_slope(z):
    t = gelu_tanh(z)
    return 0.5 * (1 + t) + 0.5 * z * (1 - t * t) * np.sqrt(2 / np.pi) * (1 + 3 * 0.044715 * z * z)


def mish_slope(z):
    t = np.tanh(np.log1p(np.exp(z)))
    return t + z * (1 - t * t) * sigmoid(z)


#: As in `nnbackend.backends.activations`: the activation of z, and its derivative as a function of the saved value,
#: which is z for GELU, SiLU and Mish and the result for the others.
FORWARD = {
    "identity": lambda z: z,
    "relu": lambda z: np.maximum(z, 0),
    "leaky_relu": lambda z: np.where(z > 0, z, ALPHA * z),
    "elu": lambda z: np.where(z > 0, z, ALPHA * np.expm1(np.minimum(z, 0))),
    "selu": lambda z: SELU_SCALE * np.where(z > 0, z, SELU_ALPHA * np.expm1(np.minimum(z, 0))),
    "sigmoid": sigmoid,
    "tanh": np.tanh,
    "gelu": lambda z: z / 2 * (1 + gelu_tanh(z)),
    "silu": lambda z: z * sigmoid(z),
    "mish": lambda z: z * np.tanh(np.log1p(np.exp(z))),
    "exponential": np.exp,
    "softplus": lambda z: np.maximum(z, 0) + np.log1p(np.exp(-abs(z))),
}
SLOPES = {
    "identity": np.ones_like,
    "relu": lambda a: np.where(a > 0, 1.0, 0.0),
    "leaky_relu": lambda a: np.where(a > 0, 1.0, ALPHA),
    "elu": lambda a: np.where(a > 0, 1.0, a + ALPHA),
    "selu": lambda a: np.where(a > 0, SELU_SCALE, a + SELU_SCALE * SELU_ALPHA),
    "sigmoid": lambda a: a * (1 - a),
    "tanh": lambda a: 1 - a * a,
    "gelu": gelu_slope,
    "silu": lambda z: sigmoid(z) * (1 + z * (1 - sigmoid(z))),
    "mish": mish_slope,
    "exponential": lambda a: a,
    "softplus": lambda a: -np.expm1(-a),
}


def lengths(tile):
    """Lengths below one vector, and around one and two vectors."""
    return range(2 * tile.lanes + 2)


def assert_near(result, expected, scale, tile, message, units=12):
    """Compare within a number of rounding errors relative to `scale`; NaN where NaN is expected."""
    bound = units * np.finfo(tile.real).eps * np.maximum(abs(expected), scale)
    with np.errstate(invalid="ignore"):
        wrong = np.isnan(result) != np.isnan(expected)
        wrong |= abs(result - expected) > bound
    assert not wrong.any(), f"{message}: {result[wrong][0]!r} in place of {expected[wrong][0]!r}"


def numbers(tile, count, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.choice([1, 10, 80], count) * rng.uniform(-1, 1, count)
    x[:: 2 * tile.lanes + 3] = [0, np.nan, 1e-6, -1e-6, -0.5][: len(x[:: 2 * tile.lanes + 3])]
    return x.astype(tile.real)


# ---- activations ---------------------------------------------------------------------------------------------------


@each_tile_shape
def test_activations(tile):
    constants = np.array([ALPHA])
    z = numbers(tile, 4 * (2 * tile.lanes + 3) + 1)
    for name, formula in FORWARD.items():
        code = ACTIVATION_CODES[name]
        expected = formula(z.astype(np.float64))
        out = Guarded(np.zeros_like(z), 1)
        call_activate(tile, code, constants.ctypes.data, z.ctypes.data, out.address, z.size)
        whole = out.array.copy()
        # GELU has cancellation: the difference of two nearly equal numbers.
        scale = abs(z) if name == "gelu" else 0
        assert_near(whole, expected, scale, tile, name)
        for length in lengths(tile):
            offset = length % tile.lanes
            source, out = Guarded(z[offset:][:length], offset), Guarded(np.zeros(length, tile.real), 1)
            call_activate(tile, code, constants.ctypes.data, source.address, out.address, length)
            out.check()
            call_activate(tile, code, constants.ctypes.data, source.address, source.address, length)
            source.check()
            for result in (out, source):
                np.testing.assert_array_equal(bits(result.array), bits(whole[offset:][:length]), name)


@each_tile_shape
def test_derivatives(tile):
    constants = np.array([ALPHA])
    rng = np.random.default_rng(1)
    z = numbers(tile, 4 * (2 * tile.lanes + 3) + 1)
    upstream = rng.standard_normal(z.size).astype(tile.real)
    upstream[-1] = np.nan
    for name, formula in SLOPES.items():
        code = ACTIVATION_CODES[name]
        saved = z if name in ("gelu", "silu", "mish") else FORWARD[name](z.astype(np.float64)).astype(tile.real)
        expected = upstream * formula(saved.astype(np.float64))
        out = Guarded(np.zeros_like(z), 1)
        call_differentiate(
            tile, code, constants.ctypes.data, saved.ctypes.data, upstream.ctypes.data, out.address, z.size
        )
        whole = out.array.copy()
        # Differences such as 1 - a have the absolute error of their operands.
        scale = abs(upstream) * np.maximum(1, abs(z)) if name in CANCELLING else 0
        assert_near(whole, expected, scale, tile, name)
        for length in lengths(tile):
            offset = length % tile.lanes
            part = slice(offset, offset + length)
            source, above = Guarded(saved[part], offset), Guarded(upstream[part], offset // 2)
            out = Guarded(np.zeros(length, tile.real), 1)
            arguments = tile, code, constants.ctypes.data, source.address, above.address
            call_differentiate(*arguments, out.address, length)
            out.check()
            call_differentiate(*arguments, above.address, length)
            above.check()
            np.testing.assert_array_equal(bits(source.array), bits(saved[part]), name)
            for result in (out, above):
                np.testing.assert_array_equal(bits(result.array), bits(whole[part]), name)


@pytest.mark.parametrize("real", ["float32", "float64"])
@pytest.mark.parametrize("name", ["sigmoid", "tanh", "elu", "selu", "silu", "mish", "softplus"])
def test_the_kernels_keep_the_digits_of_small_results(name, real):
    """As compiled for use: fast-math flags once removed the small results of softplus, whose log1p corrects 1 + x by
    x."""
    z = np.concatenate([-np.geomspace(1e-12, 60, 200), np.geomspace(1e-12, 60, 200)]).astype(real)[None, :]
    expected = FORWARD[name](z.astype(np.float64))
    out = np.empty_like(z)
    kernels.activation_forward(z, ACTIVATION_CODES[name], np.array([ALPHA]), out, 0, 1, 0, z.size)
    np.testing.assert_allclose(out, expected, rtol=12 * np.finfo(real).eps, atol=np.finfo(real).tiny)


# ---- bytes ---------------------------------------------------------------------------------------------------------


@each_tile_shape
def test_bytes_are_scaled(tile):
    every = np.arange(256, dtype=np.uint8)
    constants = np.array([1 / 255])
    for length in (*lengths(tile), 256):
        source, out = (
            Guarded(every[-length:] if length else every[:0], length % 5),
            Guarded(np.zeros(length, tile.real)),
        )
        # Prefetched addresses may be anywhere.
        call_scale(tile, constants.ctypes.data, source.address, out.address, length, 0)
        out.check()
        np.testing.assert_array_equal(out.array, source.array.astype(tile.real) * out.array.dtype.type(1 / 255))


# ---- loss ----------------------------------------------------------------------------------------------------------


@each_tile_shape
def test_sigmoid_cross_entropy(tile):
    rng = np.random.default_rng(2)
    factor = np.array([0.37])
    for length in lengths(tile):
        offset = length % tile.lanes
        z = (rng.choice([1, 20], length) * rng.standard_normal(length)).astype(tile.real)
        t = rng.choice([0, 1, 0.25, 0.75], length).astype(tile.real)
        logits, targets = z.astype(np.float64), t.astype(np.float64)
        slopes = 0.37 * (sigmoid(logits) - targets)
        losses = np.maximum(logits, 0) - logits * targets + np.log1p(np.exp(-abs(logits)))
        right = ((z > 0) == (t > 0.5)).sum()
        kept = []
        for in_place in (False, True):
            source, wanted = Guarded(z, offset), Guarded(t, 1)
            gradient = source if in_place else Guarded(np.zeros_like(z), 2)
            sums = Guarded(np.full(2, np.nan, tile.real))
            call_loss(tile, factor.ctypes.data, source.address, wanted.address, gradient.address, length, sums.address)
            for guarded in (source, wanted, gradient, sums):
                guarded.check()
            np.testing.assert_array_equal(wanted.array, t)
            kept.append(np.concatenate([gradient.array, sums.array]))
        np.testing.assert_array_equal(bits(kept[0]), bits(kept[1]))
        assert_near(kept[0][:length], slopes, 0.37, tile, length)
        assert_near(kept[0][length : length + 1], np.array([losses.sum()]), abs(logits).sum() + 1, tile, length)
        assert kept[0][length + 1] == right


@each_tile_shape
def test_a_nan_loss_is_visible(tile):
    factor, sums = np.ones(1), np.zeros(2, tile.real)
    for length in (1, tile.lanes, tile.lanes + 1):
        z, t, gradient = np.zeros(length, tile.real), np.ones(length, tile.real), np.zeros(length, tile.real)
        z[-1] = np.nan
        addresses = [array.ctypes.data for array in (factor, z, t, gradient)]
        call_loss(tile, *addresses, length, sums.ctypes.data)
        assert np.isnan(sums[0])
        np.testing.assert_array_equal(np.isnan(gradient), np.isnan(z))


# ---- updates -------------------------------------------------------------------------------------------------------

RATE, STEP = 0.03, 4
#: Settings of each rule in the record `UPDATE`, with values.
SETTING_NAMES = {
    "sgd": ("weight_decay", "momentum"),
    "momentum": ("weight_decay", "momentum"),
    "nesterov": ("weight_decay", "momentum"),
    "adam": ("weight_decay", "beta1", "beta2", "epsilon", "decoupled"),
    "rmsprop": ("weight_decay", "decay", "epsilon"),
    "lion": ("weight_decay", "beta1", "beta2"),
}
SETTINGS = {
    "sgd": [(0.0, 0.0), (0.02, 0.0)],
    "momentum": [(0.02, 0.9)],
    "nesterov": [(0.02, 0.9)],
    "adam": [(0.02, 0.9, 0.999, 1e-3, 0.0), (0.02, 0.9, 0.999, 1e-3, 1.0)],
    "rmsprop": [(0.02, 0.9, 1e-3)],
    "lion": [(0.02, 0.9, 0.99)],
}


def updated(rule, settings, p, g, slots):
    """As in the contract, `nnbackend.backends.contract`."""
    decay = settings[0]
    if rule == "adam":
        _, beta1, beta2, epsilon, decoupled = settings
        h = g if decoupled else g + decay * p
        m = beta1 * slots[0] + (1 - beta1) * h
        v = beta2 * slots[1] + (1 - beta2) * h * h
        correct = (m / (1 - beta1**STEP)) / (np.sqrt(v / (1 - beta2**STEP)) + epsilon)
        return p - RATE * (correct + decay * p if decoupled else correct), [m, v]
    if rule == "lion":
        _, beta1, beta2 = settings
        direction = np.sign(beta1 * slots[0] + (1 - beta1) * g)
        return (1 - RATE * decay) * p - RATE * direction, [beta2 * slots[0] + (1 - beta2) * g]
    h = g + decay * p
    if rule == "rmsprop":
        v = settings[1] * slots[0] + (1 - settings[1]) * h * h
        return p - RATE * h / (np.sqrt(v) + settings[2]), [v]
    if rule == "sgd":
        return p - RATE * h, []
    velocity = settings[1] * slots[0] + h
    return p - RATE * (h + settings[1] * velocity if rule == "nesterov" else velocity), [velocity]


def prepared(rule, settings):
    constants = np.full(CONSTANTS, np.nan)
    code = [other.name for other in RULES].index(rule)
    record = np.zeros(UPDATE.size, np.uint8)
    rates = np.array([7, RATE])
    tables = {"learning_rates": rates.ctypes.data, "steps": len(rates)}
    UPDATE.pack(record, 0, dict(zip(SETTING_NAMES[rule], settings, strict=True)) | tables)
    kernels.prepare_update(code, record.ctypes.data, 1, STEP, constants)
    return constants


@each_tile_shape
def test_updates(tile):
    rng = np.random.default_rng(3)
    for code, rule in enumerate(RULES):
        for settings in SETTINGS[rule.name]:
            constants = prepared(rule.name, settings)
            for length in lengths(tile):
                p, g = rng.standard_normal((2, length)).astype(tile.real)
                slots = (rng.uniform(0, 2, (rule.slots, length))).astype(tile.real)
                gradient, *places = (Guarded(array, n) for n, array in enumerate((g, p, *slots)))
                record = np.zeros(RECORD, np.int64)
                record[0] = constants.ctypes.data
                for n, place in enumerate(places):
                    record[1 + n] = (place.address - gradient.address) // tile.size
                call_update(tile, code, record.ctypes.data, gradient.address, length)
                for guarded in (gradient, *places):
                    guarded.check()
                np.testing.assert_array_equal(gradient.array, g)
                wide = [array.astype(np.float64) for array in (p, g, slots)]
                parameter, expected = updated(rule.name, settings, *wide)
                for place, values in zip(places, [parameter, *expected], strict=True):
                    assert_near(place.array, values, 1, tile, f"{rule.name} {settings} {length}")


@each_tile_shape
def test_an_update_has_the_same_bits_wherever_it_lies(tile):
    rng = np.random.default_rng(4)
    size = 3 * tile.lanes + 2
    for code, rule in enumerate(RULES):
        constants = prepared(rule.name, SETTINGS[rule.name][0])
        values = rng.uniform(0.1, 1, (2 + rule.slots, size)).astype(tile.real)
        whole = updated_rows(tile, code, constants, values)
        for begin in range(tile.lanes + 1):
            for end in (begin + 1, begin + tile.lanes, size):
                part = updated_rows(tile, code, constants, values[:, begin:end])
                np.testing.assert_array_equal(part, whole[:, begin:end], rule.name)


def updated_rows(tile, code, constants, values):
    """The rows are the gradient, the parameters and their slots."""
    memory = values.copy()
    count = memory.shape[1]
    record = np.array([constants.ctypes.data, count, 2 * count, 3 * count], np.int64)
    call_update(tile, code, record.ctypes.data, memory.ctypes.data, count)
    return memory


# ---- who may call --------------------------------------------------------------------------------------------------


def test_nothing_with_fast_math_flags_calls_vector_code():
    """The caller's flags would apply to it. LLVM could then reorder sums and break rounding tricks."""
    written = {
        name
        for module in (elementwise, product_tiles)
        for name, value in vars(module).items()
        if isinstance(value, _Intrinsic)
    }
    assert {"activate", "differentiate", "exponentials", "update", "product_tile"} <= written
    callers = 0
    for module in (epoch, kernels, normalization, kinds, backward_operations, forward_operations, dense_products):
        for name, function in vars(module).items():
            if isinstance(function, Dispatcher) and written & names_in(function.py_func.__code__):
                callers += 1
                assert not function.targetoptions["fastmath"], f"{module.__name__}.{name}"
    assert callers >= 6


def names_in(code: types.CodeType) -> set[str]:
    inner = (names_in(constant) for constant in code.co_consts if isinstance(constant, types.CodeType))
    return set(code.co_names).union(*inner)


def test_every_rule_is_tested():
    assert list(SETTINGS) == [rule.name for rule in updates.RULES]
    assert sorted(FORWARD) == sorted(SLOPES) == sorted(NAMES)
