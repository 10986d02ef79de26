"""The conversion of targets for each loss, and the name of the accuracy metric."""

from __future__ import annotations

import numpy as np
import pytest

from nnbackend.data.targets import Targets
from nnbackend.errors import InvalidInputError
from nnbackend.losses import LOSSES

LABELS = np.array([0, 2, 1])
ONE_HOT = np.eye(3)[LABELS]
SHARES = np.array([[0.2, 0.3, 0.5], [0.1, 0.8, 0.1], [1, 0, 0]])
NUMBERS = np.array([[0.2, -3, 5], [7, 8, 9], [1, 0, 0.5]])


@pytest.mark.parametrize(
    ("loss", "y", "labels", "name"),
    [
        ("softmax_cross_entropy", LABELS, LABELS, "accuracy"),
        ("softmax_cross_entropy", ONE_HOT, LABELS, "accuracy"),
        ("softmax_cross_entropy", SHARES, [2, 1, 0], "accuracy"),
        ("sigmoid_cross_entropy", LABELS, LABELS, "accuracy"),
        ("sigmoid_cross_entropy", ONE_HOT, LABELS, "accuracy"),
        ("sigmoid_cross_entropy", 1 - ONE_HOT, None, "binary_accuracy"),
        ("sigmoid_cross_entropy", 0 * ONE_HOT, None, "binary_accuracy"),
        ("sigmoid_cross_entropy", SHARES, None, "binary_accuracy"),
        ("sigmoid_cross_entropy", np.array([[0.2], [1], [0.7]]), [0, 1, 1], "accuracy"),
        ("mean_squared_error", LABELS, LABELS, "accuracy"),
        ("mean_squared_error", ONE_HOT, LABELS, "accuracy"),
        ("mean_squared_error", NUMBERS, None, None),
        ("mean_squared_error", np.array([0.0, 1, 1]), None, None),
    ],
)
def test_targets_of_every_loss(loss, y, labels, name):
    outputs = 1 if y.size == 3 and y.dtype.kind == "f" else 3
    targets = Targets.prepare(LOSSES[loss], y, 3, outputs, np.float64)
    assert targets.accuracy_name == name
    assert (targets.labels is None) == (labels is None)
    if labels is not None:
        np.testing.assert_array_equal(targets.labels, labels)
    as_labels = loss == "softmax_cross_entropy" and y is not SHARES
    np.testing.assert_array_equal(targets.values, LABELS if as_labels else ONE_HOT if y is LABELS else y.reshape(3, -1))


def test_invalid_targets_of_a_loss_are_rejected():
    with pytest.raises(InvalidInputError, match="rows of class probabilities must sum to 1, row 1"):
        Targets.prepare(LOSSES["softmax_cross_entropy"], SHARES * [[1], [0.8], [1]], 3, 3, np.float64)
    for loss in ("softmax_cross_entropy", "sigmoid_cross_entropy"):
        with pytest.raises(InvalidInputError, match=rf"targets of {loss} must be in \[0, 1\], received -3 to 9"):
            Targets.prepare(LOSSES[loss], NUMBERS, 3, 3, np.float64)


def test_the_old_place_still_has_the_names():
    import nnbackend.losses

    with pytest.warns(DeprecationWarning, match=r"losses\.Targets is now nnbackend\.data\.targets\.Targets"):
        assert nnbackend.losses.Targets is Targets
