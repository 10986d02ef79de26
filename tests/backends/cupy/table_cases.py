"""Cases of the operations on tables, for `tests.backends.cupy.cases`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from tests.backends.cupy.comparison import Case


def _scale_columns(rng, rows, columns, inner, out) -> Case:
    x, other, scale = (
        rng.standard_normal((rows, columns)),
        rng.standard_normal((rows, columns)),
        rng.normal(size=columns),
    )
    if out == "gradient":
        return Case("scale_columns_gradient", (x, other, np.full(columns, 7.0)))
    return Case("scale_columns", (x, scale, x if out == "alias" else np.full((rows, columns), 7.0)))


def table_cases() -> Iterator[tuple[str, Callable[..., Case]]]:
    """Names, and functions of (rng, rows, columns, inner) that make a case."""
    for out in ("gradient", "alias", ""):
        yield f"scale_columns-{out}", partial(_scale_columns, out=out)
