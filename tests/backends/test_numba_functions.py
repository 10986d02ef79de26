"""Exponentials and logarithms of vectors: accuracy, extreme values, and independence of an element's position."""

from __future__ import annotations

import re

import numpy as np
import pytest

from nnbackend.backends.numba import functions
from nnbackend.backends.numba.elementwise import make_unary
from nnbackend.backends.numba.jit import as_written
from tests.backends.vectors import Guarded, bits, each_tile_shape

NAMES = ("exp", "expm1", "log", "log1p", "tanh", "sigmoid")
EXP, EXPM1, LOG, LOG1P, TANH, SIGMOID = (make_unary(getattr(functions, name)) for name in NAMES)
each_function = pytest.mark.parametrize("name", NAMES)

#: The largest errors in units in the last place, parsed from the module's docstring, so that the documented limits are
#: tested.
BOUNDS = {name: float(bound) for name, bound in re.findall(r"^(\w+) +([\d.]+) ", functions.__doc__, re.MULTILINE)}

# Extended precision where the platform has it. Elsewhere the reference itself is off by about a unit.
SLACK = {"float32": 0.0, "float64": 0.0 if np.finfo(np.longdouble).nmant > np.finfo(np.float64).nmant else 1.0}


# Without fast-math flags, as all callers must be.
@as_written
def call(which, tile, x, out, count):
    if which == 0:
        EXP(tile, x, out, count)
    elif which == 1:
        EXPM1(tile, x, out, count)
    elif which == 2:
        LOG(tile, x, out, count)
    elif which == 3:
        LOG1P(tile, x, out, count)
    elif which == 4:
        TANH(tile, x, out, count)
    else:
        SIGMOID(tile, x, out, count)


def computed(name, tile, x):
    x = np.asarray(x, tile.real)
    out = np.empty_like(x)
    call(NAMES.index(name), tile, x.ctypes.data, out.ctypes.data, x.size)
    return out


def reference(name, x):
    """The reference: NumPy in a wider format."""
    x = x.astype(np.float64 if x.dtype == np.float32 else np.longdouble)
    with np.errstate(over="ignore", under="ignore"):
        return 1 / (1 + np.exp(-x)) if name == "sigmoid" else getattr(np, name)(x)


def domain(name, real):
    """Numbers from the whole range in the table, most of them where the function changes its shape."""
    rng, info = np.random.default_rng(0), np.finfo(real)
    largest, smallest, count = np.log(float(info.max)), np.log(float(info.tiny)), 40_000

    def small():
        """Numbers of all orders of magnitude."""
        return np.exp(rng.uniform(smallest, 0, count))

    if name == "log":
        near_one = 1 + small() * rng.choice([-0.5, 1], count)
        parts = [np.exp(rng.uniform(smallest, largest, count)), rng.uniform(0.3, 3, count), near_one]
        return np.concatenate([[1, float(info.tiny), float(info.max)], *parts]).clip(float(info.tiny), float(info.max))
    if name == "log1p":
        return np.concatenate([[0, 1], rng.uniform(0, 1, 2 * count), small()])
    # exp(x) is infinite from here on; expm1 is constant beyond the limit in the table.
    end = {"exp": largest - 1e-4, "expm1": 88 if real == "float32" else 709}.get(name, 2 * largest)
    signed = small() * rng.choice([-1, 1], count)
    parts = rng.uniform(2 * smallest, end, count), rng.uniform(-20, 20, count), rng.uniform(-1, 1, count), signed
    return np.concatenate([[end], *parts])


def test_the_table_has_every_function():
    assert sorted(BOUNDS) == sorted(functions.__all__) == sorted(NAMES)
    # Otherwise a wrong constant in it would go unnoticed.
    assert all(0.5 < bound <= 3 for bound in BOUNDS.values())


@each_tile_shape
@each_function
def test_errors_are_within_the_table_s_bounds(name, tile):
    x = domain(name, tile.real).astype(tile.real)
    info = np.finfo(tile.real)
    result, expected = computed(name, tile, x), reference(name, x)
    unit = np.spacing(abs(expected).astype(tile.real).clip(info.tiny, None))
    errors = abs(result - expected) / unit
    if name in ("exp", "sigmoid"):
        # As the table says.
        errors[(expected < info.tiny) & (result == 0)] = 0
    worst = errors.argmax()
    assert errors[worst] <= BOUNDS[name] + SLACK[tile.real], f"{errors[worst]} units at {x[worst]!r}"


@each_tile_shape
def test_extremes(tile):
    info = np.finfo(tile.real)
    tiny, most, inf, nan = float(info.tiny), float(info.max), np.inf, np.nan

    def check(name, x, expected):
        np.testing.assert_array_equal(computed(name, tile, x), np.array(expected, tile.real), name)

    for name in NAMES:
        check(name, [nan, -nan], [nan, nan])
    huge = [inf, most, 1e9, -inf, -most, -1e9]
    check("exp", huge, [inf, inf, inf, 0, 0, 0])
    check("exp", [np.log(most) + 1e-3, 2 * np.log(tiny)], [inf, 0])
    check("exp", [0.0, -0.0, tiny, -tiny], [1, 1, 1, 1])
    stays = computed("expm1", tile, [88 if tile.real == "float32" else 709])[0]
    check("expm1", huge, [stays, stays, stays, -1, -1, -1])
    check("tanh", huge, [1, 1, 1, -1, -1, -1])
    check("sigmoid", huge, [1, 1, 1, 0, 0, 0])
    check("sigmoid", [0.0, -0.0, tiny, -tiny], [0.5] * 4)
    for name in ("expm1", "tanh", "log1p"):
        # Small arguments are returned unchanged, even if they are subnormal.
        numbers = [0.0, -0.0, tiny, tiny / 8, info.eps / 64]
        if name != "log1p":
            numbers += [-tiny, -tiny / 8, -info.eps / 64]
        check(name, numbers, numbers)
    check("log", [1], [0])


@each_tile_shape
@each_function
def test_an_element_has_the_same_bits_at_any_position(name, tile):
    rng = np.random.default_rng(1)
    x = rng.standard_normal(4 * tile.lanes).astype(tile.real)
    if name.startswith("log"):
        x = abs(x)
    else:
        x[rng.choice(x.size, 5, replace=False)] = [np.inf, -np.inf, np.nan, 1e4, 0]
    expected = computed(name, tile, x)
    which, ends = NAMES.index(name), (1, tile.lanes - 1, tile.lanes, tile.lanes + 1)
    for length in range(3 * tile.lanes + 1):
        # All offsets for lengths around one vector; for others one offset each.
        for offset in range(tile.lanes) if length in ends else (length % tile.lanes,):
            part, wanted = x[offset : offset + length], bits(expected[offset : offset + length])
            source, out = Guarded(part, offset), Guarded(np.zeros_like(part), (3 * offset) % tile.lanes)
            call(which, tile, source.address, out.address, length)
            out.check()
            assert (bits(out.array) == wanted).all(), (offset, length)
            call(which, tile, source.address, source.address, length)
            source.check()
            assert (bits(source.array) == wanted).all(), (offset, length, "in place")
