"""Bar charts: lengths, numbers, error bars, legibility and invalid arguments."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nnbackend.errors import InvalidInputError
from nnbackend.plotting import plot_bars
from tests.plotting.drawn import assert_readable, tick_labels

pytest.importorskip("matplotlib", reason="pictures need matplotlib")

SPEEDS = {"numpy": 205_173.4, "numba": 242_319, "cupy": 3_820_551}


def _numbers(ax: Any) -> list[str]:
    return [text.get_text() for text in ax.texts]


def test_every_number_is_a_bar_and_is_written_at_its_end() -> None:
    ax = plot_bars(SPEEDS, label="training speed (samples/s)")
    assert [bar.get_width() for bar in ax.patches] == list(SPEEDS.values())
    assert [label.get_text() for label in ax.get_yticklabels()] == list(SPEEDS)
    assert _numbers(ax) == ["205,173", "242,319", "3,820,551"]
    assert [text.xy for text in ax.texts] == [(value, place) for place, value in enumerate(SPEEDS.values())]
    assert ax.get_xlabel() == "training speed (samples/s)"
    assert ax.yaxis_inverted()  # the first on top
    assert ax.get_xscale() == "linear"
    assert ax.get_xlim()[0] <= 0


@pytest.mark.parametrize(
    ("value", "written"),
    [(0, "0"), (97.22, "97.22"), (0.0123, "0.0123"), (-1234.5, "\N{MINUS SIGN}1,234"), (5, "5"), (2.5e12, "2.5e+12")],
)
def test_numbers_are_formatted_for_readers(value: float, written: str) -> None:
    assert _numbers(plot_bars({"a": value})) == [written]


def test_ticks_are_short() -> None:
    ticks = [label.get_text() for label in tick_labels(plot_bars(SPEEDS)) if label.get_text()[-1] == "M"]
    assert ticks == ["1M", "2M", "3M", "4M"]


def test_whiskers_reach_from_low_to_high_and_the_number_is_beyond() -> None:
    ax = plot_bars({"a": 10, "b": 20}, errors={"b": (15, 27)})
    (whisker,) = [line for container in ax.collections for line in container.get_segments()]
    np.testing.assert_allclose(whisker, [[15, 1], [27, 1]])
    assert [text.xy[0] for text in ax.texts] == [10, 27]
    assert _numbers(ax) == ["10", "20"]


def test_numbers_of_negative_bars_are_on_their_left() -> None:
    ax = plot_bars({"a": -2.0, "b": 1.0}, errors={"a": (-3, -1)})
    assert [text.get_horizontalalignment() for text in ax.texts] == ["right", "left"]
    assert [text.xy[0] for text in ax.texts] == [-3, 1]
    assert_readable(ax)


def test_a_logarithmic_axis() -> None:
    ax = plot_bars(SPEEDS, log=True)
    assert ax.get_xscale() == "log"
    assert 0 < ax.get_xlim()[0] < min(SPEEDS.values())
    assert {"200k", "1M"} <= {label.get_text() for label in tick_labels(ax)}
    assert_readable(ax)


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize(
    "values",
    [
        SPEEDS,
        {f"a name that is long enough to take two lines {index}": 10.0**index for index in range(10)},
        {"one": 3.0},
        {"a": 1.0, "b": 1.0},
        {"$1 to $2": 5, "x_$": 7},
        {"small": 1e-7, "large": 1e12},
    ],
)
def test_all_text_can_be_read(values: dict[str, float], log: bool) -> None:
    errors = {name: (0.9 * value, 1.3 * value) for name, value in values.items()}
    ax = plot_bars(values, label="a unit", errors=errors, log=log)
    assert_readable(ax)


def test_the_callers_axes_are_drawn_on() -> None:
    from matplotlib.figure import Figure

    ax = Figure().subplots()
    assert plot_bars(SPEEDS, ax) is ax


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        ({}, {}, "at least one name to a number"),
        ([1, 2], {}, "at least one name to a number"),
        ({"a": np.nan}, {}, "the value of 'a' must be a finite number"),
        ({"a": "fast"}, {}, "the value of 'a' must be a finite number"),
        ({"a": 1, "b": 0}, {"log": True}, r"logarithmic axis cannot show 0 \('b'\)"),
        ({"a": 1}, {"errors": {"b": (0, 2)}}, "entry for 'b', but the bars are a"),
        ({"a": 1}, {"errors": {"a": (2, 3)}}, "must include its value 1"),
        ({"a": 1}, {"errors": {"a": (0, 3)}, "log": True}, "be above 0"),
        ({"a": 1}, {"errors": {"a": 0.1}}, r"must be \(low, high\), received 0.1"),
        ({"a": 1}, {"errors": {"a": (0, 1, 2)}}, r"must be \(low, high\)"),
        ({"a": 1}, {"errors": {"a": (0, np.inf)}}, r"must be \(low, high\)"),
        ({"a": 1}, {"errors": [0.1]}, r"errors must map names to \(low, high\)"),
    ],
)
def test_wrong_values_are_rejected_before_anything_is_drawn(values: Any, options: Any, message: str) -> None:
    from matplotlib.figure import Figure

    ax = Figure().subplots()
    with pytest.raises(InvalidInputError, match=message):
        plot_bars(values, ax, **options)
    assert not ax.has_data()
