"""Drawings become images like those of MNIST."""

from __future__ import annotations

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.errors import InvalidInputError
from nnbackend.web.digits import MOST_POINTS, check_strokes, draw, normalise
from tests.web.conftest import drawing
from tests.web.handwriting import DIGITS


def strokes_of(digit: str, scale: float = 1.0, shift: float = 0.0) -> list[np.ndarray]:
    return [scale * stroke + shift for stroke in check_strokes(DIGITS[digit])]


@pytest.fixture(scope="module")
def real() -> np.ndarray:
    """A hundred images of each digit from MNIST."""
    return nn.datasets.load("mnist-5k").x_test.reshape(-1, 28, 28)


def test_images_of_mnist_are_restored_from_any_size_and_position(real):
    for number, image in enumerate(real[::10]):
        large = np.kron(image, np.ones((8, 8), np.uint8))
        place = np.zeros((400, 300), np.uint8)
        top, left = divmod(37 * number, 70)
        place[top : top + 224, left : left + 224] = large
        np.testing.assert_array_equal(normalise(place), image)


def test_the_longer_side_becomes_twenty_pixels_and_proportions_stay():
    image = normalise(drawing())
    rows, columns = np.flatnonzero(image.any(axis=1)), np.flatnonzero(image.any(axis=0))
    assert len(rows) == 20
    assert len(columns) == 10


def test_the_centre_of_mass_is_in_the_middle():
    image = normalise(drawing()).astype(float)
    for masses in (image.sum(axis=0), image.sum(axis=1)):
        assert abs(masses @ np.arange(28) / masses.sum() - 14) <= 0.5


def test_an_unbalanced_digit_stays_within_the_image():
    heavy = np.zeros((200, 20), np.uint8)
    heavy[:4] = 255
    heavy[:, 9] = 40
    assert np.count_nonzero(normalise(heavy).any(axis=1)) == 20


def test_edges_are_grey():
    image = normalise(draw(strokes_of("0")))
    assert image.max() == 255
    assert np.count_nonzero((image > 0) & (image < 255)) > 20


def test_the_pen_is_as_thick_as_in_mnist_for_small_and_large_drawings(real):
    large, small = normalise(draw(strokes_of("3"))), normalise(draw(strokes_of("3", 0.2, 0.7)))
    assert np.abs(large.astype(int) - small).mean() < 2
    ours = np.mean([normalise(draw(strokes_of(digit))).mean() for digit in DIGITS])
    assert ours == pytest.approx(real.mean(), rel=0.2)


def test_nothing_and_a_dot():
    assert not normalise(draw([])).any()
    assert not normalise(np.zeros((30, 40), np.uint8)).any()
    dot = normalise(draw([np.array([[0.9, 0.1]])]))
    assert np.count_nonzero(dot.any(axis=0)) == 20
    assert dot[13, 13] == 255


def test_a_trained_network_reads_the_handwriting(digits_model):
    network = nn.Network.load(digits_model, backend="numpy")
    rows = np.stack([normalise(draw(strokes_of(digit))).reshape(784) for digit in DIGITS])
    correct = [str(found) == digit for found, digit in zip(network.predict_classes(rows), DIGITS, strict=True)]
    assert sum(correct) >= 9


@pytest.mark.parametrize(
    ("strokes", "message"),
    [
        (None, "list of strokes"),
        ("7", "list of strokes"),
        ({"0": []}, "list of strokes"),
        ([[]], "one or more points"),
        ([[0.1, 0.2]], "two numbers"),
        ([[[0.1]]], "two numbers"),
        ([[[0.1, 0.2, 0.3]]], "two numbers"),
        ([[["0.1", 0.2]]], "x must be a finite number"),
        ([[[0.1, None]]], "y must be a finite number"),
        ([[[0.1, True]]], "y must be a finite number"),
        ([[[float("nan"), 0.2]]], "x must be a finite number"),
        ([[[0.1, float("inf")]]], "y must be a finite number"),
        ([[[-0.01, 0.2]]], r"x must be in \[0, 1\]"),
        ([[[0.1, 1.01]]], r"y must be in \[0, 1\]"),
        ([[[0.5, 0.5]] * (MOST_POINTS // 2 + 1)] * 2, "at most 10,000 points, received 10,002"),
    ],
)
def test_invalid_drawings_are_refused(strokes, message):
    with pytest.raises(InvalidInputError, match=message):
        check_strokes(strokes)


def test_the_largest_allowed_number_of_points_is_drawn():
    stroke = [[place / MOST_POINTS, 0.5] for place in range(MOST_POINTS)]
    assert normalise(draw(check_strokes([stroke]))).any()
