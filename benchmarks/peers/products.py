"""`products`: every matrix product of the three networks, with tiles and with NumPy's BLAS, on one thread."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_info, threadpool_limits

from benchmarks.peers import results, works
from benchmarks.peers.rounds import say
from nnbackend.backends.numba import dense_products
from nnbackend.backends.numba.jit import as_written
from nnbackend.backends.numba.tile_shape import FLOAT32

__all__ = ["ROUNDS", "Product", "products", "run"]

ROUNDS = 25
_QUICK_ROUNDS = 2

#: Multiply-adds of a timed run, which takes some milliseconds: long enough for any clock.
_RUN = 100_000_000

FORWARD, WEIGHT, INPUT = "x @ w", "x.T @ delta", "delta @ w.T"
_FORMS = (FORWARD, WEIGHT, INPUT)

Matrix = NDArray[np.float32]


@dataclass(frozen=True)
class Product:
    """A matrix product of a network.

    Attributes
    ----------
    net, form : str
    rows, columns, inner : int
        Size of the result, and the length of the sum for each of its elements.
    """

    net: str
    form: str
    rows: int
    columns: int
    inner: int

    @property
    def flops(self) -> int:
        return 2 * self.rows * self.columns * self.inner


def products() -> list[Product]:
    """The products of a training step, layer by layer; the first layer needs no gradient of its input."""
    found = []
    for work in works.NETS:
        for layer, (inputs, outputs) in enumerate(work.weights):
            found.append(Product(work.name, FORWARD, work.batch_size, outputs, inputs))
            found.append(Product(work.name, WEIGHT, inputs, outputs, work.batch_size))
            if layer:
                found.append(Product(work.name, INPUT, work.batch_size, inputs, outputs))
    return found


def run(folder: Path, *, rounds: int | None = None, quick: bool = False) -> dict[str, Any]:
    """Measure, and store the results.

    Parameters
    ----------
    folder : Path
        Folder of the results.
    rounds : int, optional
    quick : bool
        Only test that it runs.

    Returns
    -------
    dict
        The stored results.
    """
    rounds = rounds or (_QUICK_ROUNDS if quick else ROUNDS)
    result = results.header("products", 1, []) | {"quick": quick, "not_installed": [], "products": []}
    result["blas"] = [
        f"{library['internal_api']} {library['version']}, {library.get('architecture', '')}"
        for library in threadpool_info()
        if library["user_api"] == "blas"
    ]
    with threadpool_limits(1, "blas"):
        for product in products():
            say(f"  {product.net}: {product.form} {product.rows} x {product.columns} x {product.inner}")
            result["products"].append(_measured(product, rounds, 1 if quick else _times(product)))
    results.write(folder, result)
    return result


def _times(product: Product) -> int:
    return max(1, 2 * _RUN // product.flops)


def _measured(product: Product, rounds: int, times: int) -> dict[str, Any]:
    ours, blas = _contenders(product, times)
    seconds: dict[str, list[float]] = {"ours": [], "blas": []}
    for turn in range(rounds):
        sides = [("ours", ours), ("blas", blas)]
        for name, compute in sides if turn % 2 else reversed(sides):
            begin = time.perf_counter()
            compute()
            seconds[name].append((time.perf_counter() - begin) / times)
    return {**vars(product), "seconds": seconds}


def _contenders(product: Product, times: int) -> tuple[Callable[[], None], Callable[[], None]]:
    """Two functions that compute the product `times` times; both have been called, and their results agree."""
    rng = np.random.default_rng(0)
    m, n, k = product.rows, product.columns, product.inner
    shapes = {FORWARD: ((m, k), (k, n)), WEIGHT: ((k, m), (k, n)), INPUT: ((m, k), (n, k))}[product.form]
    a, b = (rng.standard_normal(shape).astype(np.float32) for shape in shapes)
    left, right = (a.T if product.form == WEIGHT else a), (b.T if product.form == INPUT else b)
    out, expected = np.empty((m, n), np.float32), np.empty((m, n), np.float32)

    form, address = _FORMS.index(product.form), dense_products.product_address(FLOAT32)

    def ours() -> None:
        _repeat(form, address, a.ctypes.data, b.ctypes.data, out.ctypes.data, m, n, k, times)

    def blas() -> None:
        for _ in range(times):
            np.matmul(left, right, out=expected)

    ours()
    blas()
    # Of k products of normal numbers, summed in any order.
    np.testing.assert_allclose(out, expected, rtol=1e-3, atol=1e-4 * k**0.5)
    return ours, blas


@as_written
def _repeat(form, product, a, b, out, rows, columns, inner, times):  # type: ignore[no-untyped-def]
    for _ in range(times):
        if form == 0:
            dense_products.forward(product, a, inner, b, columns, 0, out, columns, rows, columns, inner)
        elif form == 1:
            dense_products.weight_gradient(product, 0, 0, a, rows, b, columns, out, columns, rows, columns, inner)
        else:
            dense_products.input_gradient(product, a, inner, b, inner, out, columns, rows, columns, inner)
