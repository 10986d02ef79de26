"""Scatter plots and decision regions: positions, colours and invalid arguments."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.errors import InvalidInputError
from nnbackend.plotting import plot_decision_regions, plot_scatter
from tests.plotting.drawn import assert_readable

pytest.importorskip("matplotlib", reason="pictures need matplotlib")

POINTS = np.array([[0.0, 0], [4, 0], [0, 2], [4, 2], [1, 1]])
LABELS = np.array([0, 1, 0, 1, 2])


class Quadrants:
    """Predicts 0 where both features are below 1, 1 where the first is not, else 2."""

    asked: Any = None

    def predict_classes(self, x: Any) -> Any:
        self.asked = x
        return np.where(x[:, 0] >= 1, 1, np.where(x[:, 1] >= 1, 2, 0))


def _legend(ax: Any) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def _colour(points: Any) -> tuple[float, ...]:
    return tuple(points.get_facecolor()[0])


def _markers(ax: Any) -> set[bytes]:
    return {points.get_paths()[0].vertices.tobytes() for points in _points(ax)}


def _points(ax: Any) -> list[Any]:
    """The scattered points, and not the lines between regions."""
    from matplotlib.collections import PathCollection

    return [artist for artist in ax.collections if type(artist) is PathCollection]


def test_every_class_has_its_points_under_its_name() -> None:
    ax = plot_scatter(POINTS, LABELS, ["a", "b", "c"])
    assert _legend(ax) == ["a", "b", "c"]
    for label, points in enumerate(_points(ax)):
        np.testing.assert_array_equal(points.get_offsets(), POINTS[label == LABELS])
    assert ax.get_aspect() == 1
    assert ax.get_xlabel() == "first feature"
    assert ax.get_ylabel() == "second feature"


def test_ten_classes_differ_in_colour_and_in_marker() -> None:
    ax = plot_scatter(np.random.default_rng(0).normal(size=(100, 2)), np.arange(100) % 10)
    assert len({_colour(points) for points in _points(ax)}) == 10
    assert len(_markers(ax)) == 10
    assert _legend(ax) == [str(index) for index in range(10)]


def test_a_class_keeps_its_colour_where_others_are_missing() -> None:
    both, one = plot_scatter(POINTS, LABELS), plot_scatter(POINTS, np.full(5, 2))
    assert _legend(one) == ["2"]
    assert _colour(_points(one)[0]) == _colour(_points(both)[2])


def test_all_points_are_in_the_picture() -> None:
    for points in (POINTS, POINTS * [1, 1e-6], POINTS[:1], POINTS + 1e6):
        ax = plot_scatter(points, LABELS[: len(points)])
        (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
        assert left < points[:, 0].min() <= points[:, 0].max() < right
        assert bottom < points[:, 1].min() <= points[:, 1].max() < top
        assert 0.2 < (top - bottom) / (right - left) < 5


@pytest.mark.parametrize("name", ["{}", "quite a long name of class {}", "so long a name that it takes two lines {}"])
def test_legends_are_readable_and_beside_the_points(name: str) -> None:
    ax = plot_scatter(
        np.random.default_rng(0).normal(size=(40, 2)), np.arange(40) % 10, list(map(name.format, range(10)))
    )
    assert_readable(ax)
    assert ax.get_legend().get_window_extent().x0 > ax.get_window_extent().x1
    assert ax.get_window_extent().width > 300


def test_names_are_read_as_they_are() -> None:
    ax = plot_scatter(POINTS, LABELS, ["$10 to $20", "100 %", "x_$"])
    assert _legend(ax) == [r"\$10 to \$20", "100 %", r"x_\$"]
    assert_readable(ax)


def test_a_column_of_labels_is_taken_too() -> None:
    assert _legend(plot_scatter(POINTS, LABELS[:, None].astype(float))) == ["0", "1", "2"]


def test_regions_are_what_the_network_predicts() -> None:
    network = Quadrants()
    ax = plot_decision_regions(network, POINTS, LABELS, resolution=50)
    image = ax.images[0]
    drawn = image.get_array()
    assert drawn.shape == (50, 50)
    assert image.origin == "lower"
    left, right, bottom, top = image.get_extent()
    assert (left, right, bottom, top) == (*ax.get_xlim(), *ax.get_ylim())
    for x, y in ((0.2, 0.2), (0.2, 1.8), (3.8, 0.2), (3.8, 1.8)):
        column, row = int(50 * (x - left) / (right - left)), int(50 * (y - bottom) / (top - bottom))
        assert drawn[row, column] == network.predict_classes(np.array([[x, y]]))[0]
    asked = plot_decision_regions(network, POINTS, LABELS, resolution=1) and network.asked
    np.testing.assert_allclose(asked, [[2, 1]])  # the middle of the picture


def test_regions_are_light_in_the_colours_of_their_points() -> None:
    ax = plot_decision_regions(Quadrants(), POINTS, LABELS)
    image = ax.images[0]
    regions = image.cmap(image.norm(np.arange(3)))[:, :3]
    points = np.array([_colour(points)[:3] for points in _points(ax)])
    assert (regions > 0.65).all()
    np.testing.assert_allclose((1 - regions) / (1 - points).clip(1e-9), np.full((3, 3), 0.3), atol=0.01)
    assert [points.get_zorder() > image.get_zorder() for points in _points(ax)] == [True] * 3
    assert_readable(ax)


def test_a_region_without_points_is_named() -> None:
    ax = plot_decision_regions(Quadrants(), POINTS[:2], [0, 0], ["a", "b", "c"])
    assert _legend(ax) == ["a", "b"]


def test_a_network_with_one_output_has_two_classes() -> None:
    data = nn.datasets.load("circle")
    network = nn.Network([nn.Dense(8, activation="tanh"), nn.Dense(1)], 2, backend="numpy")
    network.fit(
        data.x_train, data.y_train, epochs=60, loss="sigmoid_cross_entropy", optimizer=nn.Adam(0.02), verbose=False
    )
    ax = plot_decision_regions(network, data.x_train, data.y_train, data.classes, resolution=40)
    drawn = ax.images[0].get_array()
    assert (drawn[20, 20], drawn[0, 0], drawn[-1, -1]) == (0, 1, 1)
    assert _legend(ax) == ["inside", "outside"]


def test_the_callers_axes_are_drawn_on() -> None:
    from matplotlib.figure import Figure

    left, right = Figure().subplots(1, 2)
    assert plot_scatter(POINTS, LABELS, ax=left) is left
    assert plot_decision_regions(Quadrants(), POINTS, LABELS, ax=right) is right
    # This figure makes no room for what is beside its Axes.
    assert left.get_legend().get_window_extent().x1 <= left.get_window_extent().x1


SIXTEEN = nn.Network([nn.Dense(2)], 16, backend="numpy")


@pytest.mark.parametrize(
    ("x", "y", "classes", "message"),
    [
        (np.ones((5, 3)), LABELS, None, r"points of shape \(n, 2\), received shape \(5, 3\)"),
        (np.ones(5), LABELS, None, "points of shape"),
        (np.ones((0, 2)), [], None, "points of shape"),
        (POINTS * np.nan, LABELS, None, "10 NaN or infinite"),
        (POINTS, LABELS[:4], None, r"y must be 5 class indices, one per row, received shape \(4,\)"),
        (POINTS, np.eye(5), None, r"y.argmax\(axis=1\)"),
        (POINTS, LABELS - 1, None, "class indices 0, 1, 2"),
        (POINTS, LABELS + 0.5, None, "class indices 0, 1, 2"),
        (POINTS, LABELS * np.nan, None, "class indices 0, 1, 2"),
        (POINTS, LABELS * 1e300, None, "class indices 0, 1, 2"),
        (POINTS, list("abcde"), None, "y must hold numbers"),
        (POINTS, LABELS, ["a", "b"], "3 classes, received 2 names"),
        (POINTS, LABELS, 3, "classes must be a list"),
    ],
)
def test_wrong_points_are_refused_before_anything_is_drawn(x: Any, y: Any, classes: Any, message: str) -> None:
    from matplotlib.figure import Figure

    ax = Figure().subplots()
    with pytest.raises(InvalidInputError, match=message):
        plot_scatter(x, y, classes, ax)
    with pytest.raises(InvalidInputError, match=message):
        plot_decision_regions(Quadrants(), x, y, classes, ax)
    assert not ax.has_data()


@pytest.mark.parametrize(
    ("network", "x", "resolution", "message"),
    [
        (SIXTEEN, POINTS, 200, "2 inputs, received one with 16"),
        (SIXTEEN, np.ones((5, 16)), 200, "points of shape"),
        (object(), POINTS, 200, "must have predict_classes, received object"),
        (Quadrants(), POINTS, 0, "resolution must be a whole number"),
        (Quadrants(), POINTS.astype(np.uint8), 200, r"received uint8"),
    ],
)
def test_networks_without_regions_are_rejected(network: Any, x: Any, resolution: int, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        plot_decision_regions(network, x, LABELS, resolution=resolution)


def test_a_network_for_several_labels_is_refused_and_one_label_is_drawn() -> None:
    x = np.random.default_rng(0).normal(size=(30, 2))
    network = nn.Network([nn.Dense(3)], 2, backend="numpy")
    network.fit(x, x[:, [0, 1, 0]] > 0, epochs=1, loss="sigmoid_cross_entropy", verbose=False)
    with pytest.raises(InvalidInputError, match="this network predicts any number of labels; give an object whose"):
        plot_decision_regions(network, x, (x[:, 0] > 0).astype(int))

    class OneLabel:
        def predict_classes(self, points: Any) -> Any:
            return network.predict_classes(points)[:, 1]

    plot_decision_regions(OneLabel(), x, (x[:, 1] > 0).astype(int))
