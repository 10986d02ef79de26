"""Cases of the acceptance suite for normalisation: by the largest magnitude, the batch, and the row."""

from __future__ import annotations

import numpy as np

from nnbackend.backends.contract import HostArray
from nnbackend.testing.lab import Lab, case

__all__: list[str] = []

#: Chunks of a sum have at most this many rows.
_MANY_ROWS = 1100


@case
def max_abs_norms(lab: Lab) -> None:
    n, q = lab.shape.rows, lab.shape.outputs
    # Integers, most of them 0, have many ties and, in narrow rows, only zeros.
    for x in (lab.normal(n, q), np.trunc(lab.normal(n, q))):
        upstream = lab.normal(n, q)
        lab.run("max_abs_norm", x, lab.blank(n, q))
        lab.run("max_abs_norm_gradient", x, upstream, lab.blank(n, q))
        lab.run("max_abs_norm_gradient", x, upstream, upstream)
        lab.run("max_abs_norm", x, x)


@case
def max_abs_norms_computed_by_hand(lab: Lab) -> None:
    nan, inf = np.nan, np.inf
    # x, upstream, output, gradient; the reference has to compute these, too.
    table = [
        [[1, -2, -8], [8, 8, 8], [0.125, -0.25, -1], [1, 1, -0.125]],
        [[0, 0, -0.0], [1, -2, 3], [0, 0, 0], [1, -2, 3]],
        [[1, 2, 2], [1, 10, 100], [0.5, 1, 1], [0.5, -50.25, 50]],
        [[-4, 4, 2], [1, 10, 100], [-1, 1, 0.5], [15, 2.5, 25]],
        [[4, -4, 2], [1, 10, 100], [1, -1, 0.5], [-10, 2.5, 25]],
        [[1, nan, 2], [1, 2, 3], [nan, nan, nan], [nan, nan, nan]],
        [[inf, 1, nan], [1, 2, 3], [nan, nan, nan], [nan, nan, nan]],
        [[1, -inf, 0], [1, 2, 3], [0, nan, 0], [0, nan, 0]],
        [[inf, 1, -inf], [1, 2, 3], [nan, 0, nan], [nan, 0, 0]],
        [[1, 4, 2], [nan, 1, 1], [0.25, 1, 0.5], [nan, nan, 0.25]],
    ]
    x, upstream, output, gradient = (np.array(column, lab.dtype) for column in zip(*table, strict=True))
    with np.errstate(invalid="ignore"):
        results = _max_abs_norm(lab, x, upstream)
    lab.compare("max_abs_norm", results[0], output)
    lab.compare("max_abs_norm_gradient", results[1], gradient)


@case
def max_abs_norms_of_tiny_and_huge_rows(lab: Lab) -> None:
    limits = np.finfo(lab.dtype)
    tiny, huge = float(limits.smallest_subnormal), float(limits.max) / 2
    # The reciprocal of the largest is infinite. All products are integer multiples of the smallest number: exact.
    x, upstream = tiny * np.array([[3, -8, 2], [16, 8, 32]], lab.dtype)[:, None]
    output, gradient = _max_abs_norm(lab, x, upstream)
    largest = max(np.abs(output).max(), np.abs(gradient).max())
    # The contract allows a device to flush subnormal float32 numbers to zero.
    if lab.dtype == np.float64 or not largest <= limits.smallest_normal:
        lab.compare("max_abs_norm of subnormal numbers", output, np.array([[0.375, -1, 0.25]]))
        lab.compare("its gradient", gradient, np.array([[2, 1.75, 4]]))
    x = huge * np.array([[1, -0.5, 0]], lab.dtype)
    output, gradient = _max_abs_norm(lab, x, huge * np.array([[0.25, 0.25, 0.5]], lab.dtype))
    lab.compare("max_abs_norm of huge numbers", output, np.array([[1, -0.5, 0]]))
    lab.compare("its gradient", gradient, np.array([[0.125, 0.25, 0.5]]))


def _max_abs_norm(lab: Lab, x: HostArray, upstream: HostArray) -> tuple[HostArray, HostArray]:
    """The backend's outputs and gradients, without the reference."""
    backend, put = lab.backend, lab.device
    output, gradient = put(lab.blank(*x.shape)), put(lab.blank(*x.shape))
    output_in_place, gradient_in_place = put(x), put(upstream)
    backend.max_abs_norm(put(x), output)
    backend.max_abs_norm(output_in_place, output_in_place)
    backend.max_abs_norm_gradient(put(x), put(upstream), gradient)
    backend.max_abs_norm_gradient(put(x), gradient_in_place, gradient_in_place)
    results = backend.to_host(output), backend.to_host(gradient)
    lab.compare("max_abs_norm in place", backend.to_host(output_in_place), results[0])
    lab.compare("max_abs_norm_gradient in place", backend.to_host(gradient_in_place), results[1])
    return results


# ---- by column and by row ------------------------------------------------------------------------------------


@case
def batch_norms(lab: Lab) -> None:
    n, q = lab.shape.rows, lab.shape.outputs
    for rows, columns in ((n, q), (_MANY_ROWS, 3)):
        # A mean far from 0: squares of the numbers themselves would lose the variance.
        x = lab.normal(rows, columns) + lab.dtype.type(50)
        for scale, shift in _scales_and_shifts(lab, columns):
            running = lab.normal(columns), lab.uniform(columns)
            rule = (0.9, 1e-3, *running)
            lab.run("batch_norm", x, scale, shift, *rule, lab.blank(2, columns), lab.blank(rows, columns), repeats=2)


@case
def batch_norms_that_forget_or_keep_everything(lab: Lab) -> None:
    x = lab.normal(5, 3)
    for momentum in (0.0, 1.0):
        mean, variance = lab.normal(3), lab.uniform(3)
        results = lab.run("batch_norm", x, None, None, momentum, 1e-5, mean, variance, lab.blank(2, 3), lab.blank(5, 3))
        kept = (mean, variance) if momentum else (x.mean(axis=0), x.var(axis=0))
        lab.compare("the running mean", results[1], kept[0].astype(np.float64))
        lab.compare("the running variance, biased", results[2], kept[1].astype(np.float64))


@case
def batch_norm_gradients(lab: Lab) -> None:
    n, q = lab.shape.rows, lab.shape.outputs
    for rows, columns in ((n, q), (_MANY_ROWS, 3)):
        x, upstream = lab.normal(rows, columns), lab.normal(rows, columns)
        statistics = np.stack([x.mean(axis=0), 1 / np.sqrt(x.var(axis=0) + lab.dtype.type(1e-3))])
        # What is left where nearly equal numbers cancel.
        largest = float(np.abs(upstream).sum(axis=0).max() * statistics[1].max())
        for scale, _ in _scales_and_shifts(lab, columns):
            gradients = lab.blank(columns) if scale is not None else None, lab.blank(columns)
            given = (x, statistics, scale)
            lab.run("batch_norm_gradient", *given, upstream, *gradients, lab.blank(rows, columns), scale=largest)
            lab.run("batch_norm_gradient", *given, upstream, None, None, lab.blank(rows, columns), scale=largest)
            aliased = upstream.copy()
            lab.run("batch_norm_gradient", *given, aliased, *gradients, aliased, scale=largest)


@case
def normalizations_with_given_statistics(lab: Lab) -> None:
    n, q = lab.shape.rows, lab.shape.outputs
    variance = lab.uniform(q, low=0.1, high=2)
    for mean in (lab.normal(q), None):
        for scale, shift in _scales_and_shifts(lab, q):
            x = lab.normal(n, q)
            lab.run("normalize", x, mean, variance, scale, shift, 1e-3, lab.blank(n, q), scale=1.0)
            lab.run("normalize", x, mean, variance, scale, shift, 1e-3, x, scale=1.0)


@case
def layer_norms(lab: Lab) -> None:
    n, q = lab.shape.rows, lab.shape.outputs
    for offset in (0, 50):
        x = lab.normal(n, q) + lab.dtype.type(offset)
        for scale, shift in _scales_and_shifts(lab, q):
            # With one column, or equal ones, the difference from the mean is 0 and the inverse is large.
            bound = 1.0 if offset == 0 else 10.0
            lab.run("layer_norm", x, scale, shift, 1e-3, lab.blank(n, 2), lab.blank(n, q), scale=bound)


@case
def layer_norm_gradients(lab: Lab) -> None:
    n, q = lab.shape.rows, lab.shape.outputs
    for rows, columns in ((n, q), (_MANY_ROWS, 3)):
        x, upstream = lab.normal(rows, columns), lab.normal(rows, columns)
        statistics = np.stack([x.mean(axis=1), 1 / np.sqrt(x.var(axis=1) + lab.dtype.type(1e-3))], axis=1)
        largest = float(np.abs(upstream).max() * statistics[:, 1].max())
        for scale, _ in _scales_and_shifts(lab, columns):
            given = (x, statistics, scale)
            lab.run("layer_norm_gradient", *given, upstream, lab.blank(rows, columns), scale=largest)
            aliased = upstream.copy()
            lab.run("layer_norm_gradient", *given, aliased, aliased, scale=largest)
        total = float(np.abs(upstream).sum(axis=0).max())
        lab.run("layer_norm_scale_gradient", x, statistics, upstream, lab.blank(columns), scale=total)


@case
def normalizations_pass_nan_on(lab: Lab) -> None:
    x = lab.normal(4, 3)
    x[1, 1] = np.nan
    results = lab.run(
        "batch_norm", x, None, None, 0.9, 1e-3, lab.normal(3), lab.uniform(3), lab.blank(2, 3), lab.blank(4, 3)
    )
    assert np.isnan(results[-1][:, 1]).all(), "batch_norm lost a NaN"
    results = lab.run("layer_norm", x, None, None, 1e-3, lab.blank(4, 2), lab.blank(4, 3))
    assert np.isnan(results[-1][1]).all(), "layer_norm lost a NaN"


def _scales_and_shifts(lab: Lab, columns: int) -> list[tuple[HostArray | None, HostArray | None]]:
    """Both, each alone, and none."""
    scale, shift = lab.normal(columns), lab.normal(columns)
    return [(scale, shift), (scale, None), (None, shift), (None, None)]
