"""Matrix products of tiles against NumPy: all edges, all vector widths, no access outside."""

from __future__ import annotations

import itertools
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numba.core.caching import NullCache

from nnbackend.backends.numba import cache_folders, dense_products
from nnbackend.backends.numba.jit import jit
from nnbackend.backends.numba.tile_shape import FLOAT32, FLOAT64, TileShape, VectorUnit

FORMS = ("forward", "input_gradient", "weight_gradient")
FORWARD, INPUT, WEIGHT = range(3)
REALS = ("float32", "float64")
#: Without fused multiply-adds on all CPUs; with them where the CPU has an instruction.
FUSED = VectorUnit.of_this_cpu().fused
UNITS = [VectorUnit(16, 16, False), VectorUnit(32, 16, FUSED), VectorUnit(64, 32, FUSED)]
CHOSEN = [TileShape.choose(real, unit) for unit in UNITS for real in REALS]
#: The same tiles with shallow panels and short blocks, which have many edges; and this CPU's unchanged.
SMALL = [replace(tile, depth=2 * tile.lanes, block=2 * tile.rows + 1) for tile in CHOSEN]


def name_of(tile):
    return f"{tile.real}x{tile.lanes}{'' if tile in SMALL else '-as-used'}"


#: The kernels for the small ones are not used elsewhere.
SLOW = [pytest.param(tile, marks=pytest.mark.slow) for tile in SMALL]
each_small_tiling = pytest.mark.parametrize("tile", SLOW, ids=name_of)
each_tile_shape = pytest.mark.parametrize("tile", [*SLOW, FLOAT32, FLOAT64], ids=name_of)
each_form = pytest.mark.parametrize("form", range(3), ids=FORMS)


# Fast-math flags must not affect the sums, or unfused ones would be reordered.
@jit
def call(form, product, a, a_row, b, b_row, bias, out, out_row, rows, columns, inner):
    if form == FORWARD:
        dense_products.forward(product, a, a_row, b, b_row, bias, out, out_row, rows, columns, inner)
    elif form == INPUT:
        dense_products.input_gradient(product, a, a_row, b, b_row, out, out_row, rows, columns, inner)
    else:
        dense_products.weight_gradient(product, 0, 0, a, a_row, b, b_row, out, out_row, rows, columns, inner)


def surrounded(shape, by, dtype, more_columns):
    """Memory for a padded matrix surrounded by a fill value, and that value."""
    rows, columns = shape
    row = columns + more_columns
    memory = np.full(rows * row + 2 * 67, by, dtype)
    # Start at an odd element, so that it is not aligned for vectors.
    matrix = memory[67 : 67 + rows * row].reshape(rows, row)[:, :columns]
    return memory, matrix


def multiply(form, tile, a, b, bias=None, more_columns=(0, 0, 0)):
    """Compute ``a @ b + bias`` with operands surrounded by NaN, and check that only the result is written."""
    (rows, inner), columns = a.shape, b.shape[1]
    operands = []
    for values, more in zip((a.T if form == WEIGHT else a, b.T if form == INPUT else b), more_columns, strict=False):
        memory, matrix = surrounded(values.shape, np.nan, tile.real, more)
        matrix[:] = values
        operands += [memory, matrix]
    if bias is not None:
        memory, bias_row = surrounded((1, columns), np.nan, tile.real, 0)
        bias_row[:] = bias
        bias = bias_row.ctypes.data
    memory, out = surrounded((rows, columns), 77.0, tile.real, more_columns[2])
    call_on(form, tile, operands[1], operands[3], bias or 0, out, rows, columns, inner)
    result = out.copy()
    out[:] = 77.0
    assert (memory == 77.0).all(), "wrote outside the result"
    return result


def call_on(form, tile, a, b, bias, out, rows, columns, inner):
    def where(matrix):
        return matrix.ctypes.data, matrix.strides[0] // matrix.itemsize

    call(form, dense_products.product_address(tile), *where(a), *where(b), bias, *where(out), rows, columns, inner)


def integers(rng, *shape):
    """Small integers, whose sums are exact in any order."""
    return rng.integers(-3, 4, shape)


def normal(rng, tile, *shape):
    return rng.standard_normal(shape).astype(tile.real)


# ---- the numbers ---------------------------------------------------------------------------------------------------


@each_form
@each_tile_shape
def test_every_number_of_rows_and_columns_up_to_two_tiles(tile, form):
    rng = np.random.default_rng(0)
    inners = itertools.cycle([1, 2, 3, tile.lanes - 1, tile.lanes, tile.lanes + 1, 2 * tile.lanes + 1])
    paddings = itertools.cycle(itertools.product((0, 1, 5), repeat=3))
    for rows, columns in itertools.product(range(1, 2 * tile.rows + 2), range(1, 2 * tile.columns + 2)):
        inner = next(inners)
        a, b = integers(rng, rows, inner), integers(rng, inner, columns)
        bias = integers(rng, columns) if form == FORWARD and rng.random() < 0.5 else None
        result = multiply(form, tile, a, b, bias, next(paddings))
        np.testing.assert_array_equal(result, a @ b + (0 if bias is None else bias), f"{rows, columns, inner}")


@each_form
@each_tile_shape
def test_every_depth_around_vectors_and_panels(tile, form):
    rng = np.random.default_rng(1)
    depth = tile.depth
    inners = [*range(2 * tile.lanes + 2), depth - 1, depth, depth + 1, depth + tile.lanes, 2 * depth, 3 * depth + 7]
    sizes = [(1, 1), (tile.rows, tile.columns), (tile.rows + 1, tile.columns + 1), (2 * tile.rows + 3, tile.lanes + 1)]
    for inner, (rows, columns) in itertools.product(inners, sizes):
        a, b = integers(rng, rows, inner), integers(rng, inner, columns)
        bias = integers(rng, columns) if form == FORWARD else None
        result = multiply(form, tile, a, b, bias, (3, 2, 1))
        np.testing.assert_array_equal(result, a @ b + (0 if bias is None else bias), f"{rows, columns, inner}")


@each_form
@each_small_tiling
def test_blocks_that_are_copied_to_strips(tile, form):
    """All numbers of rows up to two strips, with blocks that end anywhere."""
    rng = np.random.default_rng(6)
    inners = itertools.cycle([*range(1, 2 * tile.lanes + 2), 4 * tile.lanes + 3])
    for rows, columns in itertools.product(range(1, 5 * tile.rows), (2 * tile.columns + 1, 7 * tile.columns + 2)):
        inner = next(inners)
        a, b = integers(rng, rows, inner), integers(rng, inner, columns)
        result = multiply(form, tile, a, b, None, (3, 0, 1))
        np.testing.assert_array_equal(result, a @ b, f"{rows, columns, inner}")


@each_form
@each_tile_shape
def test_reals_are_converted(tile, form):
    rng = np.random.default_rng(2)
    for rows, columns, inner in [(100, 40, 300), (7, 129, 50), (33, 10, 1000)]:
        a, b = normal(rng, tile, rows, inner), normal(rng, tile, inner, columns)
        exact = a.astype(np.float64) @ b
        # Rounding errors are at most half a unit each: Higham 2002, "Accuracy and stability", section 3.5.
        bound = inner * np.finfo(tile.real).eps * (abs(a).astype(np.float64) @ abs(b))
        assert (abs(multiply(form, tile, a, b) - exact) <= bound).all()


# ---- the order of the sums -----------------------------------------------------------------------------------------


@each_form
@each_tile_shape
def test_sums_are_taken_in_the_order_of_k(tile, form):
    rng = np.random.default_rng(3)
    rows, columns, inner = 2 * tile.rows + 1, 2 * tile.columns + 3, 2 * tile.depth + 5
    # So few digits that products are exact, with or without fusing; only the sums are rounded.
    digits = 12 if tile.real == "float32" else 26
    shapes = (rows, inner), (inner, columns), columns
    a, b, bias = (rng.integers(-(2**digits), 2**digits, shape).astype(tile.real) for shape in shapes)
    if form != FORWARD:
        bias = None

    def summed(order):
        sums = np.zeros((rows, columns), tile.real) if bias is None else np.tile(bias, (rows, 1))
        for k in order:
            sums += np.outer(a[:, k], b[k])
        return sums

    assert (summed(range(inner)) != summed(reversed(range(inner)))).any()
    np.testing.assert_array_equal(multiply(form, tile, a, b, bias), summed(range(inner)))


@each_tile_shape
def test_multiply_adds_are_fused_or_not_as_the_tiling_says(tile):
    # (1 + e)^2 = 1 + 2e + e^2, whose last term is lost if the product is rounded.
    e = 2.0 ** (-12 if tile.real == "float32" else -27)
    result = multiply(FORWARD, tile, np.array([[1 + e]]), np.array([[1 + e]]), bias=[-(1 + 2 * e)])
    assert result == (e * e if tile.fused else 0)


@each_form
@each_tile_shape
def test_a_range_of_the_result_has_the_bits_of_the_whole(tile, form):
    rng = np.random.default_rng(4)
    rows, columns, inner = 3 * tile.rows + 2, 8 * tile.columns + tile.lanes // 2 + 1, tile.depth + 11
    a, b, bias = normal(rng, tile, rows, inner), normal(rng, tile, inner, columns), normal(rng, tile, columns)
    whole = multiply(form, tile, a, b, bias if form == FORWARD else None)
    left, right = np.ascontiguousarray(a.T if form == WEIGHT else a), np.ascontiguousarray(b.T if form == INPUT else b)
    for _ in range(60):
        i0, i1 = np.sort(rng.choice(rows + 1, 2, replace=False))
        j0, j1 = np.sort(rng.choice(columns + 1, 2, replace=False))
        out = np.full((rows, columns), 77, tile.real)
        call_on(
            form,
            tile,
            left[:, i0:] if form == WEIGHT else left[i0:],
            right[j0:] if form == INPUT else right[:, j0:],
            bias[j0:].ctypes.data if form == FORWARD else 0,
            out[i0:, j0:],
            i1 - i0,
            j1 - j0,
            inner,
        )
        expected = np.full((rows, columns), 77, tile.real)
        expected[i0:i1, j0:j1] = whole[i0:i1, j0:j1]
        np.testing.assert_array_equal(out, expected)


# ---- NaN and infinity ----------------------------------------------------------------------------------------------


@each_form
@each_tile_shape
def test_nan_and_infinity_propagate(tile, form):
    rng = np.random.default_rng(5)
    for _ in range(40):
        rows, columns, inner = (rng.integers(1, n) for n in (2 * tile.rows, 2 * tile.columns, 2 * tile.lanes + 2))
        a, b = integers(rng, rows, inner).astype(tile.real), integers(rng, inner, columns).astype(tile.real)
        for matrix in (a, b):
            special = rng.choice([np.nan, np.inf, -np.inf])
            matrix[rng.integers(matrix.shape[0]), rng.integers(matrix.shape[1])] = special
        with np.errstate(invalid="ignore"):
            expected = (a[:, :, None] * b).sum(axis=1)
        np.testing.assert_array_equal(multiply(form, tile, a, b, None, (1, 1, 1)), expected)


# ---- memory outside the matrices -----------------------------------------------------------------------------------

FENCED = """
import ctypes, itertools, mmap
import numpy as np
from nnbackend.backends.numba import dense_products, tile_shape

page = mmap.PAGESIZE
libc = ctypes.CDLL(None, use_errno=True)
libc.mprotect.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
kept = []

def fenced(size, real):
    "Memory between two pages of which reading a byte ends the process."
    bytes_ = -(-size * real.itemsize // page) * page
    whole = mmap.mmap(-1, bytes_ + 2 * page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(whole))
    for fence in (start, start + page + bytes_):
        assert libc.mprotect(fence, page, 0) == 0
    kept.append(whole)
    return np.frombuffer(whole, real, bytes_ // real.itemsize, page)

def at_either_end(memory, size):
    return memory[:size].ctypes.data, memory[memory.size - size :].ctypes.data

for tile in (tile_shape.FLOAT32, tile_shape.FLOAT64):
    a, b, out, bias = (fenced(60000, np.dtype(tile.real)) for _ in range(4))
    product = dense_products.product_address(tile)
    rows = (1, 3, tile.rows + 1)
    columns = (1, tile.lanes, tile.columns - 1, tile.columns + 1, 7 * tile.columns + 1)
    for m, n, k in itertools.product(rows, columns, (1, 3, tile.lanes + 1, tile.depth + 3)):
        sizes = (a, m * k), (b, k * n), (out, m * n), (bias, n)
        for x, w, z, c in zip(*(at_either_end(memory, size) for memory, size in sizes)):
            dense_products.forward(product, x, k, w, n, c, z, n, m, n, k)
            dense_products.input_gradient(product, x, k, w, k, z, n, m, n, k)
            dense_products.weight_gradient(product, 0, 0, x, m, w, n, z, n, m, n, k)
print("alive")
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="forbids reading pages with mprotect(), which Windows lacks")
def test_not_a_byte_outside_the_matrices_is_read():
    done = subprocess.run([sys.executable, "-c", FENCED], capture_output=True, text=True, check=False)
    assert done.stdout == "alive\n", f"exit status {done.returncode}: {done.stderr}"


# ---- what is chosen, and what is kept ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("triple", "features", "unit"),
    [
        ("x86_64-unknown-linux-gnu", "+sse2,+avx,+avx2,+fma,+avx512f", VectorUnit(64, 32, True, shuffles=False)),
        ("x86_64-unknown-linux-gnu", "+sse2,+sse4a,+avx,+avx2,+fma,+avx512f", VectorUnit(64, 32, True)),
        ("x86_64-unknown-linux-gnu", "+sse2,+avx,+avx2,+fma,-avx512f", VectorUnit(32, 16, True)),
        ("x86_64-pc-windows-msvc", "+sse2,+avx,-fma", VectorUnit(32, 16, False)),
        ("x86_64-unknown-linux-gnu", "", VectorUnit(16, 16, False)),
        ("arm64-apple-darwin24.1.0", "+neon,+fp-armv8", VectorUnit(16, 32, True)),
        ("aarch64-unknown-linux-gnu", "", VectorUnit(16, 32, True)),
        ("riscv64-unknown-linux-gnu", "+m,+v", VectorUnit(16, 16, False)),
    ],
)
def test_the_vector_unit_is_read_from_the_features(triple, features, unit):
    assert VectorUnit.described(triple, features) == unit


@pytest.mark.parametrize("tile", [*CHOSEN, FLOAT32, FLOAT64])
def test_panels_are_whole_except_for_the_last_two(tile):
    for columns in range(1, 5 * tile.columns):
        starts = tile.panel_starts(columns)
        widths = np.diff(starts)
        assert (starts[0], starts[-1]) == (0, columns)
        assert (widths[:-2] == tile.columns).all()
        assert 0 < widths.min() <= widths.max() <= tile.columns
        # A tile of a single vector waits for loads.
        assert len(widths) == 1 or tile.vectors < 3 or widths[-1] > tile.lanes or widths[-2] < tile.columns


@pytest.mark.parametrize("tile", [*CHOSEN, FLOAT32, FLOAT64])
def test_a_panel_holds_whole_vectors(tile):
    assert tile.depth % tile.lanes == 0
    assert tile.columns * tile.depth * tile.size <= 24 * 1024


@pytest.mark.slow
def test_a_second_process_does_not_compile(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    script = """
from nnbackend.backends.numba import dense_products, tile_shape
product = dense_products.compiled_product(tile_shape.TileShape("float32", 2, False, 2, 1, depth=2))
dense_products.forward(product.address, *[0] * 10)
stats = dense_products.forward.stats
hits, misses = (sum(count.values()) for count in (stats.cache_hits, stats.cache_misses))
print(product.cache_hits, hits, misses)
"""
    counts = [subprocess.check_output([sys.executable, "-c", script], text=True) for _ in range(2)]
    assert counts == ["0 0 1\n", "1 1 0\n"]


def each_once(product, n):
    dense_products.forward(product, n, n, n, n, n, n, n, n, n, n)
    dense_products.forward(product, n, n, n, n, 0, n, n, n, n, n)
    dense_products.input_gradient(product, n, n, n, n, n, n, n, n, n)
    dense_products.weight_gradient(product, n, n, n, n, n, n, n, n, n, n, n)


@pytest.mark.slow
def test_all_forms_are_one_compilation():
    """What calls a product has no copy of it."""
    tile = TileShape("float32", 2, False, 2, 1, depth=2)
    # Not from the cache of an earlier run, which has no LLVM code to look at.
    jitted = jit(each_once)
    jitted._cache = NullCache()
    jitted(dense_products.product_address(tile), 0)
    (code,) = jitted.inspect_llvm().values()
    assert "call void %" in code
    assert "nnbackend_product" not in code


def test_an_edited_file_changes_the_stamp(tmp_path):
    """Code compiled from it before is outdated."""
    assert cache_folders.STAMP in dense_products.forward.stats.cache_path
    above = Path(cache_folders.__file__).parents[1]
    for number, name in enumerate(("numba/simd.py", "numba/kernels.py", "activations.py")):
        copy = tmp_path / str(number)
        shutil.copytree(above, copy, ignore=shutil.ignore_patterns("__pycache__"))
        assert cache_folders._stamp(copy / "numba") == cache_folders.STAMP
        with (copy / name).open("a") as file:
            file.write("\n")
        assert cache_folders._stamp(copy / "numba") != cache_folders.STAMP
