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


def _mix_columns(rng, rows, columns, inner, out) -> Case:
    x, activated, upstream = (rng.standard_normal((rows, columns)) for _ in range(3))
    if out == "gradient":
        return Case("mix_columns_gradient", (x, activated, upstream, np.full(columns, 7.0)))
    outs = {"x": x, "activated": activated, "": np.full((rows, columns), 7.0)}
    return Case("mix_columns", (x, activated, rng.normal(size=columns), outs[out]))


def _embed_columns(rng, rows, columns, inner, gradient) -> Case:
    embedded, categories, units = 2, 4, inner
    codes = rng.integers(-1, categories + 2, (rows, embedded))
    x = np.concatenate([rng.standard_normal((rows, columns)), codes], axis=1)
    rest = np.full((rows, columns + embedded * units), 7.0)
    vectors = rng.standard_normal((embedded, categories, units))
    if not gradient:
        return Case("embed_columns", (x, vectors, rest))
    return Case("embed_columns_gradient", (x, rng.standard_normal(rest.shape), np.full(vectors.shape, 7.0)))


def _periodic_columns(rng, rows, columns, inner, what) -> Case:
    embedded, waves, units = columns, 3, 2
    x = rng.standard_normal((rows, columns + 2))
    frequencies, phases = rng.standard_normal((embedded, waves)), rng.standard_normal((embedded, waves))
    weight, bias = rng.standard_normal((embedded, waves, units)), rng.standard_normal((embedded, units))
    upstream, terms = rng.standard_normal((rows, columns * (1 + units) + 2)), (rows, embedded * waves)
    cosines, sines = rng.uniform(-1, 1, terms), rng.uniform(-1, 1, terms)
    match what:
        case "input":
            return Case(
                "periodic_columns_input_gradient", (sines, upstream, frequencies, weight, np.full(x.shape, 7.0))
            )
        case "gradient":
            gradients = (np.full(each.shape, 7.0) for each in (frequencies, phases, weight, bias))
            return Case("periodic_columns_gradient", (x, cosines, sines, upstream, weight, *gradients))
        case _:
            saved = (np.full(terms, 7.0), np.full(terms, 7.0)) if what == "saved" else (None, None)
            arguments = x, frequencies, phases, weight, bias, *saved, np.full(upstream.shape, 7.0)
            return Case("periodic_columns", arguments)


def table_cases() -> Iterator[tuple[str, Callable[..., Case]]]:
    """Names, and functions of (rng, rows, columns, inner) that make a case."""
    for out in ("gradient", "alias", ""):
        yield f"scale_columns-{out}", partial(_scale_columns, out=out)
    for out in ("gradient", "x", "activated", ""):
        yield f"mix_columns-{out}", partial(_mix_columns, out=out)
    for gradient in (False, True):
        yield f"embed_columns-{gradient}", partial(_embed_columns, gradient=gradient)
    for what in ("", "saved", "gradient", "input"):
        yield f"periodic_columns-{what}", partial(_periodic_columns, what=what)
