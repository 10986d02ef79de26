"""Pictures: what is in them, that they can be read, and that they leave the caller's matplotlib alone."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnbackend.errors import InvalidInputError
from nnbackend.plotting import plot_confusion, plot_curves, save_figure
from nnbackend.training import History

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


def _boxes(figure: Any, texts: list[Any]) -> list[Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return [text.get_window_extent(canvas.get_renderer()) for text in texts if text.get_text()]


def _tick_labels(ax: Any) -> list[Any]:
    """Those that are drawn: matplotlib keeps some beyond the limits of an axis too."""
    return [
        label
        for axis in (ax.xaxis, ax.yaxis)
        for tick, label in zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=True)
        if min(axis.get_view_interval()) <= tick <= max(axis.get_view_interval())
    ]


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


def test_curves_differ_by_more_than_colour() -> None:
    training, validation = plot_curves(_history())[0].lines
    assert training.get_linestyle() != validation.get_linestyle()
    assert training.get_marker() != validation.get_marker()
    assert {training.get_marker(), validation.get_marker()}.isdisjoint({"", "None", None})  # a single epoch shows, too


@pytest.mark.parametrize(("accuracy", "validation", "axes", "lines"), [(True, False, 2, 1), (False, True, 1, 2)])
def test_curves_draw_what_there_is(accuracy: bool, validation: bool, axes: int, lines: int) -> None:
    drawn = plot_curves(_history(accuracy=accuracy, validation=validation))
    assert [len(ax.lines) for ax in drawn] == [lines] * axes
    assert len(drawn[0].figure.axes) == axes


def test_epochs_are_whole_numbers() -> None:
    loss = plot_curves(_history(epochs=1))[0]
    assert all(float(tick).is_integer() for tick in loss.get_xticks())


def test_curves_go_where_the_caller_says() -> None:
    from matplotlib.figure import Figure

    axes = Figure().subplots(1, 2)
    assert plot_curves(_history(), axes) == tuple(axes)
    single = Figure().subplots()
    assert plot_curves(_history(), single) == (single,)
    assert single.get_ylabel() == "loss"


def test_a_history_without_epochs_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="no epochs"):
        plot_curves(History())


def test_confusion_writes_every_count_in_its_cell() -> None:
    matrix = np.array([[8, 2, 0], [1, 9, 0], [0, 3, 700]])
    ax = plot_confusion(matrix, ["a", "b", "c"])
    cells = {tuple(map(int, text.get_position())): text.get_text() for text in ax.texts}
    assert cells == {(column, row): str(matrix[row, column]) for row in range(3) for column in range(3)}
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b", "c"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("predicted class", "true class")
    assert "717 of 723 right (99.17 %)" in ax.get_title()


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
    texts = [*ax.get_xticklabels(), *ax.get_yticklabels(), *ax.texts, ax.title, ax.xaxis.label, ax.yaxis.label]
    slanted = any(label.get_rotation() for label in ax.get_xticklabels())
    if slanted:
        # The box around a slanted text is much larger than the text; turned back they are checked by their distance.
        texts = [text for text in texts if text not in ax.get_xticklabels()]
    boxes = _boxes(ax.figure, texts)
    assert not [pair for pair in itertools.combinations(boxes, 2) if pair[0].overlaps(pair[1])]


def test_all_text_is_inside_the_picture() -> None:
    for ax in (plot_confusion(np.full((10, 10), 1000), LONG_NAMES), plot_curves(_history())[0]):
        texts = [*_tick_labels(ax), ax.title, ax.xaxis.label, ax.yaxis.label]
        width, height = ax.figure.bbox.size
        for box in _boxes(ax.figure, texts):
            assert box.x0 >= -1
            assert box.y0 >= -1
            assert box.x1 <= width + 1
            assert box.y1 <= height + 1


def test_many_classes_are_colours_only() -> None:
    assert not plot_confusion(np.eye(60, dtype=int)).texts


@pytest.mark.parametrize(
    ("matrix", "classes", "message"),
    [
        (np.ones((2, 3)), None, "square"),
        (np.zeros((2, 2)), None, "counts something"),
        (np.ones((2, 2)), ["a"], "2 classes, received 1 names"),
    ],
)
def test_a_wrong_matrix_is_refused(matrix: Any, classes: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        plot_confusion(matrix, classes)


def test_a_picture_is_a_whole_png_file(tmp_path: Path) -> None:
    from matplotlib.image import imread

    save_figure(plot_curves(_history())[0], tmp_path / "folder" / "curves.png")
    picture = imread(tmp_path / "folder" / "curves.png")
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
    with pytest.raises(ImportError, match=r'pip install "nnbackend\[demo\]"'):
        plot_curves(_history())
