"""Learning curves, confusion matrix and files; legibility, and no effect on the caller's matplotlib."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnbackend.errors import InvalidInputError
from nnbackend.plotting import plot_accuracy, plot_confusion, plot_curves, plot_loss, save_figure
from nnbackend.training import History
from tests.plotting.drawn import assert_inside, assert_no_overlap, assert_readable, texts_of

pytest.importorskip("matplotlib", reason="pictures need matplotlib")

LONG_NAMES = [f"quite a long name {index}" for index in range(10)]


def _history(epochs: int = 4, accuracy: bool = True, validation: bool = True) -> History:
    history = History()
    for epoch in range(1, epochs + 1):
        figures: dict[str, float] = {"epoch": epoch, "loss": 1 / epoch}
        if accuracy:
            figures["accuracy"] = 1 - 0.5 / epoch
        if validation:
            figures["val_loss"] = 1.2 / epoch
            if accuracy:
                figures["val_accuracy"] = 1 - 0.6 / epoch
        history.append(figures, np.array([1 / epoch]))
    return history


def test_curves_show_training_and_validation_in_their_units() -> None:
    loss, accuracy = plot_curves(_history())
    assert (loss.get_xlabel(), loss.get_ylabel()) == ("epoch", "loss")
    assert accuracy.get_ylabel() == "accuracy (%)"
    for ax in (loss, accuracy):
        legend = ax.get_legend()
        assert legend is not None
        assert [text.get_text().split(",")[0] for text in legend.get_texts()] == ["training", "validation"]
    np.testing.assert_allclose(loss.lines[0].get_ydata(), [1, 1 / 2, 1 / 3, 1 / 4])
    np.testing.assert_allclose(accuracy.lines[1].get_ydata(), [40, 70, 80, 85])


def test_loss_and_accuracy_each_make_a_picture() -> None:
    loss, accuracy = plot_loss(_history()), plot_accuracy(_history())
    assert (loss.get_ylabel(), accuracy.get_ylabel()) == ("loss", "accuracy (%)")
    np.testing.assert_allclose(loss.lines[1].get_ydata(), [1.2, 1.2 / 2, 1.2 / 3, 1.2 / 4])
    np.testing.assert_allclose(accuracy.lines[0].get_ydata(), [50, 75, 100 - 50 / 3, 87.5])
    for ax in (loss, accuracy):
        assert ax.figure.axes == [ax]
        assert len(ax.get_legend().get_texts()) == 2
        assert_readable(ax)


def test_binary_accuracy_is_an_accuracy() -> None:
    history = History()
    history.append({"epoch": 1, "loss": 1.0, "binary_accuracy": 0.25}, np.ones(1))
    assert plot_accuracy(history).get_ylabel() == "binary accuracy (%)"
    assert plot_curves(history)[1].lines[0].get_ydata() == [25]


def test_markers_do_not_hide_a_long_line() -> None:
    assert plot_loss(_history(epochs=1000)).lines[0].get_markevery() == 40
    assert plot_loss(_history(epochs=10)).lines[0].get_markevery() == 1


def test_curves_differ_by_more_than_colour() -> None:
    training, validation = plot_curves(_history())[0].lines
    assert training.get_linestyle() != validation.get_linestyle()
    assert training.get_marker() != validation.get_marker()
    assert {training.get_marker(), validation.get_marker()}.isdisjoint({"", "None", None})  # a single epoch shows, too


@pytest.mark.parametrize(("accuracy", "validation", "axes", "lines"), [(True, False, 2, 1), (False, True, 1, 2)])
def test_curves_draw_the_available_metrics(accuracy: bool, validation: bool, axes: int, lines: int) -> None:
    drawn = plot_curves(_history(accuracy=accuracy, validation=validation))
    assert [len(ax.lines) for ax in drawn] == [lines] * axes
    assert len(drawn[0].figure.axes) == axes


def test_epochs_are_whole_numbers() -> None:
    loss = plot_curves(_history(epochs=1))[0]
    assert all(float(tick).is_integer() for tick in loss.get_xticks())


def test_curves_are_drawn_on_the_given_axes() -> None:
    from matplotlib.figure import Figure

    axes = Figure().subplots(1, 2)
    assert plot_curves(_history(), axes) == tuple(axes)
    single = Figure().subplots()
    assert plot_curves(_history(), single) == (single,)
    assert single.get_ylabel() == "loss"
    other = Figure().subplots()
    assert plot_accuracy(_history(), other) is other


@pytest.mark.parametrize("plot", [plot_loss, plot_accuracy, plot_curves])
def test_a_history_without_epochs_is_refused(plot: Any) -> None:
    for nothing in (History(), {"loss": [1.0]}):
        with pytest.raises(InvalidInputError, match="no epochs"):
            plot(nothing)


def test_a_history_without_accuracy_has_no_picture_of_it() -> None:
    with pytest.raises(InvalidInputError, match=r"no accuracy, only epoch, loss, val_loss.*plot_loss"):
        plot_accuracy(_history(accuracy=False))


@pytest.mark.parametrize("ax", [[], 3, ["left", "right"]])
def test_wrong_axes_are_rejected(ax: Any) -> None:
    with pytest.raises(InvalidInputError, match="ax must be"):
        plot_curves(_history(), ax)


def test_confusion_writes_every_count_in_its_cell() -> None:
    matrix = np.array([[8, 2, 0], [1, 9, 0], [0, 3, 700]])
    ax = plot_confusion(matrix, ["a", "b", "c"])
    cells = {tuple(map(int, text.get_position())): text.get_text() for text in ax.texts}
    assert cells == {(column, row): str(matrix[row, column]) for row in range(3) for column in range(3)}
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b", "c"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("predicted class", "true class")
    assert "717 of 723 correct (99.17 %)" in ax.get_title()


def test_counts_stand_out_from_their_cells() -> None:
    from matplotlib.colors import to_rgb

    ax = plot_confusion([[50, 50, 0], [1, 99, 0], [20, 0, 80]])
    colours = ax.images[0].cmap(ax.images[0].norm(ax.images[0].get_array()))
    for text in ax.texts:
        if text.get_text() != "0":
            column, row = map(int, text.get_position())
            assert _contrast(to_rgb(text.get_color()), colours[row, column, :3]) > 4.5  # WCAG 2.1, level AA


def _contrast(one: Any, other: Any) -> float:
    """Ratio of the relative luminances, as WCAG 2.1 defines it."""
    values = np.array([one, other], dtype=float)
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    dark, light = sorted(linear @ [0.2126, 0.7152, 0.0722])
    return float((light + 0.05) / (dark + 0.05))


@pytest.mark.parametrize("names", [[str(digit) for digit in range(10)], LONG_NAMES, ["false", "true"]])
def test_no_two_texts_overlap(names: list[str]) -> None:
    ax = plot_confusion(np.full((len(names), len(names)), 1000), names)
    texts = texts_of(ax)
    if any(label.get_rotation() for label in ax.get_xticklabels()):
        # The box around a slanted text is much larger than the text; turned back they are checked by their distance.
        texts = [text for text in texts if not text.get_rotation() % 90]
    assert_no_overlap(ax.figure, texts)


@pytest.mark.slow
def test_long_counts_stay_in_their_cells() -> None:
    from matplotlib.figure import Figure

    large = np.full((10, 10), 123_456_789)
    assert_no_overlap(plot_confusion(large).figure, plot_confusion(large).texts)
    small = plot_confusion(large, ax=Figure((3, 3)).subplots())
    assert_no_overlap(small.figure, small.texts)


def test_all_text_is_inside_the_picture() -> None:
    for ax in (plot_confusion(np.full((10, 10), 1000), LONG_NAMES), plot_curves(_history())[0]):
        assert_inside(ax.figure, texts_of(ax))


def test_many_classes_are_colours_only() -> None:
    assert not plot_confusion(np.eye(60, dtype=int)).texts


@pytest.mark.parametrize(
    ("matrix", "classes", "message"),
    [
        (np.ones((2, 3)), None, "square"),
        (np.ones((0, 0)), None, "square"),
        (np.zeros((2, 2)), None, "count above 0"),
        ([[0.5, 0.5], [0, 1]], None, "must contain counts"),
        ([[1, -1], [0, 1]], None, "must contain counts"),
        ([[1, np.nan], [0, 1]], None, "must contain counts"),
        ([["a"]], None, "must hold numbers"),
        (np.ones((2, 2)), "ab", "list of names"),
        (np.ones((2, 2)), ["a", "b", "c"], "2 classes, received 3 names"),
        (np.ones((2, 2)), ["a"], "2 classes, received 1 names"),
    ],
)
def test_a_wrong_matrix_is_refused(matrix: Any, classes: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        plot_confusion(matrix, classes)


@pytest.mark.slow
def test_a_picture_is_a_whole_png_file(tmp_path: Path) -> None:
    from matplotlib.image import imread

    axes = plot_curves(_history())
    save_figure(axes, tmp_path / "folder" / "curves.png")
    picture = imread(tmp_path / "folder" / "curves.png")
    save_figure(axes[1], tmp_path / "again.png")
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "folder" / "curves.png").read_bytes()
    assert picture.shape[0] > 400
    assert len(np.unique(picture.reshape(-1, picture.shape[2]), axis=0)) > 100
    assert [file.name for file in (tmp_path / "folder").iterdir()] == ["curves.png"]


def test_plotting_needs_no_display_and_no_pyplot() -> None:
    code = (
        "import sys, nnbackend.plotting as plotting\n"
        "assert 'matplotlib' not in sys.modules, 'imported too early'\n"
        "plotting.plot_confusion([[1, 0], [0, 1]])\n"
        "assert 'matplotlib.pyplot' not in sys.modules, 'pyplot'\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.delitem(sys.modules, "nnbackend.plotting.picture", raising=False)
    with pytest.raises(ImportError, match=r'pip install -e "\.\[plot\]"'):
        plot_curves(_history())
