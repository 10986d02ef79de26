"""Cases of the acceptance suite for layers on tables."""

from __future__ import annotations

import numpy as np

from nnbackend.testing.lab import Lab, case

__all__: list[str] = []

#: More rows than one chunk of a sum takes.
_MANY_ROWS = 1500


@case
def learned_factors(lab: Lab) -> None:
    n, q = lab.shape.rows, lab.shape.outputs
    x, scale = lab.normal(n, q), lab.normal(q)
    lab.run("scale_columns", x, scale, lab.blank(n, q))
    aliased = x.copy()
    lab.run("scale_columns", aliased, scale, aliased)


@case
def gradients_of_learned_factors(lab: Lab) -> None:
    n, q = lab.shape.rows, lab.shape.outputs
    for rows, columns in ((n, q), (_MANY_ROWS, 3)):
        x, upstream = lab.normal(rows, columns), lab.normal(rows, columns)
        total = float(np.abs(x * upstream).sum(axis=0).max())
        lab.run("scale_columns_gradient", x, upstream, lab.blank(columns), scale=total)
