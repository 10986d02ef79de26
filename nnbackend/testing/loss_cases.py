"""Cases of the acceptance suite for more losses, for metrics and for clipping."""

from __future__ import annotations

import numpy as np

from nnbackend.backends.training_operations import ELEMENTWISE_LOSSES
from nnbackend.testing.lab import Lab, case

__all__: list[str] = []


@case
def elementwise_losses(lab: Lab) -> None:
    n, q = lab.shape.rows, lab.shape.outputs
    for loss in ELEMENTWISE_LOSSES:
        outputs, targets, parameters = lab.normal(n, q), lab.uniform(n, q), lab.uniform(q)
        # Differences of 0, where the derivative jumps.
        outputs[0, 0] = targets[0, 0]
        for weights in (None, lab.uniform(n, low=0.1, high=2)):
            lab.run("elementwise_loss", outputs, targets, weights, loss, parameters, lab.blank(n, q), lab.blank(2, n))
            aliased = outputs.copy()
            lab.run("elementwise_loss", aliased, targets, weights, loss, parameters, aliased, lab.blank(2, n))


@case
def elementwise_losses_of_huge_outputs_are_finite(lab: Lab) -> None:
    outputs = np.array([[1e4, -1e4, 0.0], [-1e4, 1e4, 3e3]], lab.dtype)
    targets, parameters = np.eye(3, dtype=lab.dtype)[[1, 0]], np.full(3, 0.5, lab.dtype)
    for loss in set(ELEMENTWISE_LOSSES) - {"poisson"}:
        arrays = (outputs, targets, None, loss, parameters, lab.blank(2, 3), lab.blank(2, 2))
        for result in lab.run("elementwise_loss", *arrays)[-2:]:
            assert np.isfinite(result).all(), f"{loss} of huge outputs is not finite"


@case
def elementwise_losses_pass_nan_on(lab: Lab) -> None:
    for loss in ELEMENTWISE_LOSSES:
        outputs, targets = lab.normal(3, 4), lab.uniform(3, 4)
        outputs[1, 2] = np.nan
        device = [lab.device(array) for array in (outputs, targets)]
        parameters, gradient, rows = (lab.device(lab.blank(*shape)) for shape in ((4,), (3, 4), (2, 3)))
        lab.backend.elementwise_loss(device[0], device[1], None, loss, parameters, gradient, rows)
        losses, slopes = lab.backend.to_host(rows)[0], lab.backend.to_host(gradient)
        assert np.isnan(losses[1]), f"{loss}: a NaN output is lost in the loss"
        assert np.isnan(slopes[1, 2]), f"{loss}: a NaN output is lost in the gradient"
        assert np.isfinite(losses[[0, 2]]).all(), f"{loss}: a NaN output affects other rows"


@case
def focal_losses(lab: Lab) -> None:
    n, q = lab.shape.rows, lab.shape.outputs
    for gamma in (0.0, 0.5, 2.0):
        for weights in (None, lab.uniform(n, low=0.1, high=2)):
            rows = lab.uniform(2, n, high=5)
            # The surest row, the worst one, and one that rounding made negative.
            rows[0, : min(n, 3)] = np.array([0, 1e4, -1e-9])[:n]
            lab.run("focal_rows", weights, gamma, lab.normal(n, q), rows)


@case
def rows_are_stored(lab: Lab) -> None:
    n, q = lab.shape.rows, lab.shape.outputs
    counter = np.array([2, 9, 9], np.int64)
    # A shorter last batch, and one before others.
    for size, total in ((n + 1, 3 * n + 2), (n, 5 * n)):
        lab.run("store_rows", lab.normal(n, q), counter, size, lab.blank(total, q))


@case
def gradients_are_clipped(lab: Lab) -> None:
    size = lab.shape.inputs * lab.shape.outputs
    gradients = lab.normal(size)
    lab.run("square_sum", gradients, np.zeros(1))
    squares = np.array([float(gradients.astype(np.float64) @ gradients)])
    for factor in (0.1, 10.0):
        lab.run("clip_norm", squares, factor * float(np.sqrt(squares[0])), gradients.copy())
    # The norm is not known: nothing is finite.
    clipped = lab.run("clip_norm", np.array([np.inf]), 1.0, gradients.copy())[-1]
    assert np.isnan(clipped).all(), "gradients of infinite norm must become NaN"
    gradients[0] = np.nan
    assert np.isnan(lab.run("clip_value", 0.5, gradients)[0][0]), "clip_value lost a NaN"


@case
def buffers_are_blended(lab: Lab) -> None:
    size = lab.shape.inputs * lab.shape.outputs
    source, out, counter = lab.normal(size), lab.normal(size), np.array([1, 5, 5], np.int64)
    for share in (0.25, 1.0):
        lab.run("blend", source, share, counter, None, out.copy())
    lab.run("blend", source, 1.0, counter, np.array([7.0, 0.125]), out)


@case
def lion_updates(lab: Lab) -> None:
    size = lab.shape.inputs * lab.shape.outputs
    parameters, gradients, momentum = lab.normal(size), lab.normal(size), lab.normal(size)
    # Directions that are zero, and a NaN.
    gradients[1::7] = momentum[1::7] = 0
    counter, rates = np.array([1, 5, 5], np.int64), np.array([0.0, 0.01, 0.0])
    for decay in (0.0, 0.1):
        lab.run("lion_update", parameters, gradients, momentum, counter, rates, 0.9, 0.99, decay, repeats=2)
    momenta = np.array([0.1, 0.7, 0.2])
    lab.run("lion_update", parameters, gradients, momentum, counter, rates, 0.9, 0.99, 0.1, momenta, repeats=2)
    gradients[0] = np.nan
    updated = lab.run("lion_update", parameters, gradients, momentum, counter, rates, 0.9, 0.99, 0.0)
    assert np.isnan(updated[0][0]), "lion_update lost a NaN"


@case
def labels_are_smoothed(lab: Lab) -> None:
    n, q = lab.shape.rows, lab.shape.outputs
    for targets in (lab.integers(q, n), lab.uniform(n, q)):
        lab.run("smooth_labels", targets, 0.2, 1 / q, lab.blank(n, q))
