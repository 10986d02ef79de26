"""Updates at the end of a product: bit-identical to a separate update, and no other memory is written."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from nnbackend.backends.numba import dense_products
from nnbackend.backends.numba.elementwise import update
from nnbackend.backends.numba.epilogues import EPILOGUES
from nnbackend.backends.numba.jit import as_written
from nnbackend.backends.numba.tile_shape import FLOAT32, FLOAT64, TileShape
from nnbackend.backends.numba.updates import ADAM, CONSTANTS, LION, RECORD, RULES
from tests.backends.vectors import Guarded, name_of

#: Small tiles, shallow panels and short blocks compile quickly and have many edges. Every rule is tested with one of
#: the two types (`tests/backends/test_numba_updates.py` trains with every rule in both); the widest update also has
#: this CPU's tiles in both types.
SMALL = [TileShape("float32", 4, False, 3, 2, depth=8, block=7), TileShape("float64", 2, False, 4, 1, depth=6, block=8)]
CASES = [
    *zip(range(len(RULES)), itertools.cycle(SMALL), strict=False),
    (ADAM, FLOAT32),
    (ADAM, FLOAT64),
]
each_case = pytest.mark.parametrize(
    ("code", "tile"), CASES, ids=lambda part: RULES[part].name if isinstance(part, int) else name_of(part)
)
# Every case compiles its own product.
pytestmark = pytest.mark.slow

#: Values that are valid constants of any rule.
CONSTANTS_OF_ALL = np.array([-0.03, 0.9, 0.8, 0.2, 0.7, 0.3, 0.01, 0.05, 0.99])


def multiply(tile, record, x, x_row, delta, delta_row, out, out_row, rows, columns, inner):
    product = dense_products.product_address(tile)
    partial = dense_products.product_address(replace(tile, epilogue="store"))
    dense_products.weight_gradient(
        product, partial, record, x, x_row, delta, delta_row, out, out_row, rows, columns, inner
    )


@as_written
def call_update(tile, code, record, gradients, count):
    update(tile, code, record, gradients, count)


class Weights:
    """The parameters of a layer, each slot, and where their gradient would be: apart from each other, and guarded."""

    def __init__(self, tile, code, rows, columns, seed):
        rng = np.random.default_rng(seed)
        # All above 0, because some rules take roots.
        values = rng.uniform(0.1, 2, (1 + RULES[code].slots, rows * columns)).astype(tile.real)
        self.shape, self.tile, self.code = (rows, columns), tile, code
        self.gradient = Guarded(np.full(rows * columns, np.nan, tile.real))
        self.places = [Guarded(row, 1 + n) for n, row in enumerate(values)]
        self.constants = CONSTANTS_OF_ALL.copy()
        self.record = np.zeros(RECORD, np.int64)
        self.record[0] = self.constants.ctypes.data
        for n, place in enumerate(self.places):
            self.record[1 + n] = (place.address - self.gradient.address) // tile.size

    def learn(self, x, delta, begin_row=0, end_row=None, begin_column=0, end_column=None):
        """Update a range of rows and columns by the epilogue."""
        tile, (rows, columns) = replace(self.tile, epilogue=RULES[self.code].name), self.shape
        rows_here = (rows if end_row is None else end_row) - begin_row
        columns_here = (columns if end_column is None else end_column) - begin_column
        out = self.gradient.address + tile.size * (begin_row * columns + begin_column)
        x_at = x.ctypes.data + tile.size * begin_row
        delta_at = delta.ctypes.data + tile.size * begin_column
        multiply(
            tile, self.record.ctypes.data, x_at, rows, delta_at, columns, out, columns,
            rows_here, columns_here, len(x),
        )  # fmt: skip

    def learn_in_two_steps(self, x, delta):
        """Store the product, then update."""
        (rows, columns), out = self.shape, self.gradient.address
        multiply(self.tile, 0, x.ctypes.data, rows, delta.ctypes.data, columns, out, columns, rows, columns, len(x))
        call_update(self.tile, self.code, self.record.ctypes.data, out, rows * columns)

    def results(self):
        for guarded in (self.gradient, *self.places):
            guarded.check()
        return np.stack([place.array for place in self.places])


def operands(tile, rows, columns, inner, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((inner, size)).astype(tile.real) for size in (rows, columns)]


def sizes(tile):
    """Rows and columns around the edges of tiles and vectors, with depths around those of panels."""
    rows = sorted({1, 2, 3, tile.rows - 1, tile.rows, tile.rows + 1, 2 * tile.rows + 1, 3 * tile.rows + 2})
    lanes, columns = tile.lanes, tile.columns
    columns = sorted({1, 2, lanes - 1, lanes, lanes + 1, columns - 1, columns, columns + 1, 2 * columns + 1} - {0})
    depth = tile.depth
    inners = itertools.cycle([1, depth, 2 * depth + 3, depth - 1, depth + 1, 2 * depth, 0])
    return [(*size, next(inners)) for size in itertools.product(rows, columns)]


@each_case
def test_an_update_at_the_end_of_a_product_has_the_bits_of_one_after_it(code, tile):
    for rows, columns, inner in sizes(tile):
        x, delta = operands(tile, rows, columns, inner)
        fused, apart = (Weights(tile, code, rows, columns, seed=1) for _ in range(2))
        before = fused.results()
        fused.learn(x, delta)
        apart.learn_in_two_steps(x, delta)
        np.testing.assert_array_equal(fused.results(), apart.results(), f"{rows, columns, inner}")
        assert not (fused.results() == before).all()
        if inner <= tile.depth:
            # One panel, so that the gradient stays in registers.
            assert np.isnan(fused.gradient.array).all()


@each_case
def test_ranges_as_threads_cut_them_have_the_bits_of_the_whole(code, tile):
    rows, columns, inner = 3 * tile.rows + 2, 2 * tile.columns + tile.lanes + 1, 2 * tile.depth + 1
    x, delta = operands(tile, rows, columns, inner)
    whole = Weights(tile, code, rows, columns, seed=2)
    whole.learn(x, delta)
    for threads in (2, 3, 8):
        by_rows, by_columns = (Weights(tile, code, rows, columns, seed=2) for _ in range(2))
        for thread in reversed(range(threads)):
            begin, end = (rows * n // threads for n in (thread, thread + 1))
            by_rows.learn(x, delta, begin, end)
            begin, end = (columns * n // threads for n in (thread, thread + 1))
            by_columns.learn(x, delta, 0, None, begin, end)
        for cut in (by_rows, by_columns):
            np.testing.assert_array_equal(cut.results(), whole.results(), str(threads))


@each_case
def test_nan_reaches_only_its_own_parameter(code, tile):
    rows, columns, inner = tile.rows + 1, tile.columns + 1, tile.depth + 1
    x, delta = operands(tile, rows, columns, inner)
    for row, column in [(0, 0), (tile.rows - 1, tile.lanes), (rows - 1, columns - 1)]:
        weights = Weights(tile, code, rows, columns, seed=3)
        bad = x.copy()
        bad[0, row] = np.nan
        weights.learn(bad, delta)
        # A row of the weights corresponds to a column of x.
        hit = np.isnan(weights.results()[0].reshape(rows, columns))
        expected = np.zeros((rows, columns), bool)
        expected[row] = True
        np.testing.assert_array_equal(hit, expected)
        weights = Weights(tile, code, rows, columns, seed=3)
        bad = delta.copy()
        bad[-1, column] = np.inf
        weights.learn(x, bad)
        expected[:] = False
        # An infinite gradient has a sign, and Lion takes nothing else from it.
        expected[:, column] = code != LION
        np.testing.assert_array_equal(~np.isfinite(weights.results()[0].reshape(rows, columns)), expected)


def test_every_rule_has_an_epilogue_and_a_test():
    assert list(EPILOGUES) == ["store", *(rule.name for rule in RULES)]
    assert {code for code, _ in CASES} == set(range(len(RULES)))
    assert CONSTANTS_OF_ALL.size == CONSTANTS
