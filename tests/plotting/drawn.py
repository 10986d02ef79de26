"""Positions of the texts in a figure, for the tests of plotting."""

from __future__ import annotations

import itertools
from typing import Any


def boxes(figure: Any, texts: list[Any]) -> list[Any]:
    """The boxes of texts in pixels, after the layout."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    # The layout is computed as for a picture, whose pixels take longest and are not needed.
    figure.draw_without_rendering()
    return [text.get_window_extent(canvas.get_renderer()) for text in texts if text.get_text()]


def tick_labels(ax: Any) -> list[Any]:
    """The visible tick labels; matplotlib has others outside the limits of an axis."""
    return [
        label
        for axis in (ax.xaxis, ax.yaxis)
        for tick, label in zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=True)
        if min(axis.get_view_interval()) <= tick <= max(axis.get_view_interval())
    ]


def texts_of(ax: Any) -> list[Any]:
    """All texts that are drawn in these Axes."""
    legend = ax.get_legend()
    around = [*tick_labels(ax), ax.xaxis.label, ax.yaxis.label] if ax.axison else []
    return [*ax.texts, ax.title, *around, *(legend.get_texts() if legend else [])]


def assert_no_overlap(figure: Any, texts: list[Any]) -> None:
    """Check that the texts do not overlap."""
    _assert_apart(boxes(figure, texts))


def assert_inside(figure: Any, texts: list[Any]) -> None:
    """Check that the texts are inside the figure."""
    _assert_within(figure, boxes(figure, texts))


def assert_readable(ax: Any) -> None:
    """Check that the texts of these Axes do not overlap and are inside the figure."""
    taken = boxes(ax.figure, texts_of(ax))
    _assert_apart(taken)
    _assert_within(ax.figure, taken)


def _assert_apart(taken: list[Any]) -> None:
    assert not [pair for pair in itertools.combinations(taken, 2) if pair[0].overlaps(pair[1])]


def _assert_within(figure: Any, taken: list[Any]) -> None:
    width, height = figure.bbox.size
    for box in taken:
        assert box.x0 >= -1
        assert box.y0 >= -1
        assert box.x1 <= width + 1
        assert box.y1 <= height + 1
