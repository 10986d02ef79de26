"""The table and the bar on terminals of any width, and the remaining time."""

from __future__ import annotations

import io
import re

import pytest
import rich

import nnbackend as nn
from nnbackend.training.history import COLUMNS
from nnbackend.training.progress import Progress, RemainingTime, bar_parts, fitting_columns
from nnbackend.training.run import EpochResult
from tests.helpers import classifier
from tests.training.test_training import OPTIONS, X, Y

WIDTHS = [30, 40, 60, 80, 200]


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch):
    """Makes standard output a terminal of a given width."""

    def of(width: int) -> Terminal:
        stream = Terminal()
        monkeypatch.setattr("sys.stdout", stream)
        monkeypatch.setenv("COLUMNS", str(width))
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setattr(rich, "_console", None)
        return stream

    return of


def lines(output: str) -> list[str]:
    """Everything that was written between two movements of the cursor, without colours."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", output)
    return re.split(r"\r|\n|\x1b\[[0-9?;]*[A-Za-z]", text)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("on_nan", ["stop", "skip"])
def test_every_line_fits_the_terminal(terminal, width, on_nan):
    stream = terminal(width)
    classifier().fit(X, Y, epochs=3, validation_data=(X, Y), on_nan=on_nan, **OPTIONS)
    written = lines(stream.getvalue())
    assert max(map(len, written)) <= width
    head, *rows = [line for line in written if re.match(r" *(epoch|\d+)  ", line) and "steps" not in line]
    assert [row.split()[0] for row in rows] == ["1", "2", "3"]
    # A heading is never cut, and all columns are there if there is room.
    assert set(head.split()) <= {name for name, _, _ in COLUMNS.values()}
    assert {len(row) for row in rows} == {len(head)}
    wanted = {30: 3, 40: 4, 60: 6}
    assert len(head.split()) == wanted.get(width, len(head.split()))
    if width == 200:
        assert {"rate", "seconds", "samples/s"} <= set(head.split())
    assert any(line.startswith("epoch 1/3") for line in written)


def test_numbers_that_are_wider_than_their_column(terminal):
    stream = terminal(80)
    progress = Progress(None, 2, 10)
    metrics = {"epoch": 1, "loss": 123456.789, "val_loss": 1e30, "learning_rate": 0.1, "samples_per_second": 1e10}
    with progress:
        progress.epoch_begin(1)
        progress.epoch_end(1, EpochResult, metrics)
    head, row = [line for line in lines(stream.getvalue()) if line.startswith("    1") or "val_loss" in line]
    assert row.split() == ["1", "1.2e+05", "1.0e+30", "0.1", "1.0e+10"]
    assert len(row) == len(head)


@pytest.mark.parametrize("width", range(20, 200, 7))
def test_the_table_keeps_what_matters_most(width):
    names = [name for name in COLUMNS if "binary" not in name]
    kept = fitting_columns(names, width)
    assert sum(COLUMNS[name][1] + 2 for name in kept) - 2 <= width
    assert kept == [name for name in names if name in kept]
    assert kept[:2] == ["epoch", "loss"]
    assert ("val_accuracy" in kept) == (width >= 38)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def run_epoch(left: RemainingTime, clock: Clock, epoch: int, step: float, first: int = 0, last: int = 20) -> None:
    """The steps of an epoch, which take `step` seconds each."""
    left.epoch_begin(epoch)
    left.steps_begin(first)
    for done in range(first + 1, last + 1):
        clock.now += step
        left.advanced(done)


def test_the_remaining_time_of_every_epoch_and_of_the_run(clock):
    left = RemainingTime(5, 20, clock)
    left.epoch_begin(1)
    assert left.left() is None
    for epoch in range(1, 6):
        run_epoch(left, clock, epoch, step=2.0, last=5)
        # 15 steps of 2 s, and further epochs of 40 s with 7 s between them, once there was one to measure.
        between = 7.0 if epoch > 1 else 0.0
        assert left.left() == pytest.approx((30.0, 30.0 + (5 - epoch) * (40.0 + between)))
        run_epoch(left, clock, epoch, step=2.0, first=5)
        assert left.left()[0] == 0
        clock.now += 7.0  # validation


def test_the_first_steps_compile_and_are_soon_forgotten(clock):
    left = RemainingTime(9, 20, clock)
    run_epoch(left, clock, 1, step=30.0)
    for epoch in (2, 3):
        run_epoch(left, clock, epoch, step=1.0)
    run_epoch(left, clock, 4, step=1.0, last=10)
    assert left.left() == pytest.approx((10.0, 110.0))


def test_a_resumed_epoch_counts_only_its_own_steps(clock):
    left = RemainingTime(3, 20, clock)
    run_epoch(left, clock, 2, step=1.0, first=16, last=18)
    assert left.left() == pytest.approx((2.0, 22.0))


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (20, "epoch 2/3"),
        (27, "epoch 2/3  run 1:02:05 left"),
        (40, "epoch 2/3  =========  run 1:02:05 left"),
        (60, "epoch 2/3  =============  10/20 steps, run 1:02:05 left"),
        (80, "epoch 2/3  ====================  10/20 steps, 20:42 left, run 1:02:05 left"),
    ],
)
def test_the_bar_leaves_out_what_does_not_fit(clock, width, line):
    left = RemainingTime(3, 20, clock)
    run_epoch(left, clock, 1, step=124.167)
    run_epoch(left, clock, 2, step=124.167, last=10)
    head, length, tail = bar_parts(left, width)
    assert len("  ".join(filter(None, [head, "=" * length, tail]))) <= width
    assert [head, tail] == [line.split("  ")[0], line.split("  ")[-1] if "  " in line else ""]
    assert bool(length) == ("=" in line)


def test_the_last_epoch_is_the_rest_of_the_run(clock):
    left = RemainingTime(2, 20, clock)
    run_epoch(left, clock, 1, step=1.0)
    run_epoch(left, clock, 2, step=1.0, last=5)
    assert bar_parts(left, 80)[2] == "5/20 steps, 0:15 left"


def test_the_program_keeps_its_generator_of_random_numbers(terminal):
    """The package that draws the bar draws random numbers, too."""
    import random

    terminal(80)
    random.seed(1)
    classifier().fit(X, Y, epochs=1, **OPTIONS)
    assert random.random() == random.Random(1).random()


def test_callbacks_print_above_the_bar(terminal):
    class Says(nn.Callback):
        def on_epoch_end(self, network, epoch, metrics):
            print(f"after {epoch}")

    stream = terminal(80)
    classifier().fit(X, Y, epochs=2, callbacks=[Says()], **OPTIONS)
    assert [line for line in lines(stream.getvalue()) if line.startswith("after")] == ["after 1", "after 2"]
