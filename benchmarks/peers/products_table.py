"""The table of `products`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from benchmarks.peers.markdown import markdown, ratio

__all__ = ["body"]


def body(result: Mapping[str, Any]) -> list[str]:
    """A row for every product, and an explanation of the columns."""
    head = ("net", "product", "result x sum", "tiles, us", "BLAS, us", "tiles, GFLOP/s", "BLAS, GFLOP/s", "tiles are")
    rows: list[Sequence[str]] = [head, *map(_row, result["products"])]
    rounds = len(result["products"][0]["seconds"]["ours"])
    note = (
        f"One thread, float32; medians of {rounds} alternating rounds, each long enough for the clock. BLAS is NumPy's "
        f"({'; '.join(result['blas']) or 'unknown'}), called from Python with `out`, which adds less than a "
        "microsecond. Both repeat one product, so that its operands are in the caches if they fit."
    )
    return [markdown(rows, right=range(3, 8)), note]


def _row(product: Mapping[str, Any]) -> tuple[str, ...]:
    ours, blas = (median(product["seconds"][name]) for name in ("ours", "blas"))
    flops = 2 * product["rows"] * product["columns"] * product["inner"]
    return (
        product["net"],
        product["form"],
        f"{product['rows']} x {product['columns']} x {product['inner']}",
        f"{1e6 * ours:,.1f}",
        f"{1e6 * blas:,.1f}",
        f"{flops / ours / 1e9:,.0f}",
        f"{flops / blas / 1e9:,.0f}",
        ratio(blas / ours),
    )
