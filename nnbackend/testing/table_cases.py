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


@case
def learned_mixes(lab: Lab) -> None:
    n, q = lab.shape.rows, lab.shape.outputs
    x, activated, share = lab.normal(n, q), lab.normal(n, q), lab.normal(q)
    lab.run("mix_columns", x, activated, share, lab.blank(n, q))
    for place in (0, 1):
        given = [x.copy(), activated.copy()]
        lab.run("mix_columns", *given, share, given[place])


@case
def gradients_of_learned_mixes(lab: Lab) -> None:
    n, q = lab.shape.rows, lab.shape.outputs
    for rows, columns in ((n, q), (_MANY_ROWS, 3)):
        x, activated, upstream = (lab.normal(rows, columns) for _ in range(3))
        total = float(np.abs((activated - x) * upstream).sum(axis=0).max())
        lab.run("mix_columns_gradient", x, activated, upstream, lab.blank(columns), scale=total)


@case
def vectors_of_categories(lab: Lab) -> None:
    n, kept, categories, units = lab.shape.rows, lab.shape.inputs, 5, lab.shape.outputs
    for rows, embedded in ((n, 1), (n, 3), (_MANY_ROWS, 2)):
        x = lab.normal(rows, kept + embedded)
        # From -1 to 6: the first and the last two belong to no category.
        x[:, kept:] = lab.integers(categories + 3, rows, embedded) - 1
        x[0, kept:] = np.nan
        x[-1, -1] = 2.75
        outputs = kept + embedded * units
        lab.run("embed_columns", x, lab.normal(embedded, categories, units), lab.blank(rows, outputs))
        upstream = lab.normal(rows, outputs)
        total = float(np.abs(upstream).sum(axis=0).max())
        lab.run("embed_columns_gradient", x, upstream, lab.blank(embedded, categories, units), scale=total)


@case
def vectors_that_are_not_finite(lab: Lab) -> None:
    """They stay in the rows of their category, and the gradients of rows in the vector of theirs."""
    kept, units = 1, 2
    x = np.array([[0, 0, 2], [1, 1, 1], [np.inf, 2, 0], [3, 3, -1], [4, 1, 5], [5, 0, 1]], lab.dtype)
    vectors = lab.normal(2, 4, units)
    vectors[0, 1, 0], vectors[0, 2], vectors[1, 0, 1] = np.inf, np.nan, -np.inf
    lab.run("embed_columns", x, vectors, lab.blank(len(x), kept + 2 * units))
    upstream = lab.normal(len(x), kept + 2 * units)
    upstream[1, 1], upstream[2, 2], upstream[0, 3], upstream[3] = np.inf, np.nan, -np.inf, np.nan
    lab.run("embed_columns_gradient", x, upstream, lab.blank(2, 4, units))
    # The sum of infinities of both signs.
    upstream[4, 1] = -np.inf
    with np.errstate(invalid="ignore"):
        lab.run("embed_columns_gradient", x, upstream, lab.blank(2, 4, units))


@case
def periodic_embeddings(lab: Lab) -> None:
    n, embedded, units, waves = lab.shape.rows, min(lab.shape.inputs, 5), min(lab.shape.outputs, 4), 6
    for rows, others in ((n, 0), (n, 2), (_MANY_ROWS, 1)):
        x = lab.normal(rows, embedded + others)
        frequencies, phases = lab.normal(embedded, waves), lab.normal(embedded, waves)
        parameters = frequencies, phases, lab.normal(embedded, waves, units), lab.normal(embedded, units)
        outputs, terms = embedded * (1 + units) + others, embedded * waves
        lab.run("periodic_columns", x, *parameters, None, None, lab.blank(rows, outputs))
        results = lab.run(
            "periodic_columns", x, *parameters, lab.blank(rows, terms), lab.blank(rows, terms), lab.blank(rows, outputs)
        )
        cosines, sines = results[5:7]
        upstream = lab.normal(rows, outputs)
        lab.run(
            "periodic_columns_input_gradient", sines, upstream, frequencies, parameters[2],
            lab.blank(rows, embedded + others), scale=float(waves),
        )  # fmt: skip
        gradients = (lab.blank(*each.shape) for each in parameters)
        arguments = x, cosines, sines, upstream, parameters[2], *gradients
        lab.run("periodic_columns_gradient", *arguments, scale=float(rows * waves))
