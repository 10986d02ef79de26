"""docs/performance.md agrees with the stored results, and its numbers with the code."""

from __future__ import annotations

import re

import numpy as np
import pytest

import nnbackend as nn
from benchmarks.peers import __main__ as command
from benchmarks.peers import page, results, roofline, tables, works
from nnbackend.backends.numba import NumbaBackend, epoch, executor, program
from nnbackend.backends.numba.tile_shape import TileShape, VectorUnit
from nnbackend.optimizers import OPTIMIZERS

HEADER = {
    "date": "2026-01-01T00:00:00+00:00",
    "command": "python -m benchmarks.peers",
    "machine": {
        "cpu": "A Processor",
        "architecture": "x86_64",
        "cores": 2,
        "vector_unit": {"bits": 256, "registers": 16, "fused_multiply_add": True},
        "system": "Linux 1",
    },
    "versions": {"python": "3.11"},
    "not_installed": [],
    "data": "MNIST",
}


def result(kind="nets", threads=2, peak=100e9, bandwidth=10e9, speeds=(("numba", 50e9), ("torch", 25e9))):
    """The same speed for all contenders and networks."""
    measured = []
    for work in {"nets": works.NETS, "sweep": works.SWEEP}[kind]:
        flops, moved = work.steps * work.flops, work.steps * work.bytes
        seconds = {name: flops / speed for name, speed in speeds}
        if peak:
            seconds["peak"] = flops / peak
        if bandwidth:
            seconds["bandwidth"] = moved / bandwidth
        contenders = {name: {"warm_up": 1.0, "seconds": [value] * 3} for name, value in seconds.items()}
        measured.append({"work": work.to_dict(), "contenders": contenders})
    return HEADER | {"kind": kind, "threads": threads, "works": measured}


# ---- the page ----------------------------------------------------------------------------------------------------


def test_the_page_agrees_with_the_stored_results():
    text = page.PAGE.read_text()
    assert text == page.refreshed(text, results.read_all(results.FOLDER)), "run: python -m benchmarks.peers page"


def test_the_picture_is_of_the_stored_results():
    drawn = roofline.panels(results.read_all(results.FOLDER))
    if not drawn:
        pytest.skip("nothing is measured yet")
    image = pytest.importorskip("PIL.Image")
    with image.open(roofline.PICTURE) as picture:
        assert picture.text[roofline.MARK] == roofline.fingerprint(drawn), "run: python -m benchmarks.peers page"


@pytest.fixture
def copy(tmp_path):
    """The page with nothing measured."""
    path = tmp_path / "docs" / "performance.md"
    (path.parent / "images").mkdir(parents=True)
    path.write_text(page.refreshed(page.PAGE.read_text(), []))
    return path


@pytest.fixture
def stored(tmp_path):
    folder = tmp_path / "results"
    folder.mkdir()
    return folder


@pytest.mark.slow
def test_the_page_shows_tables_as_they_are_printed(copy, stored, capsys):
    pytest.importorskip("matplotlib")
    for each in (result(), result("sweep"), result(threads=1)):
        results.write(stored, each)
    said = page.refresh(stored, copy)
    assert said == [
        "performance.md: nets, sweep from the stored results",
        "not measured yet: images, predictions, products, startup, accuracy, fast99",
        "roofline.png: drawn",
    ]
    text = copy.read_text()
    assert command.main(["table", "--out", str(stored)]) == 0
    sections = capsys.readouterr().out.strip().split("\n\n## ")
    assert len(sections) == 3
    for section in sections:
        assert section.removeprefix("## ") in text
    nets = re.search(r"<!-- peers: nets -->\n(.*?)\n<!-- /peers -->", text, re.DOTALL)[1]
    assert nets == f"{tables.text(result())}\n\n{tables.text(result(threads=1))}"
    assert text.count(page.NOT_MEASURED) == 6
    assert "](images/roofline.png)" in text
    assert "older than its measurement" not in text
    # Again changes nothing, and without results the page is as it was.
    page.refresh(stored, copy)
    assert copy.read_text() == text
    assert page.refreshed(text, []) == page.refreshed(page.PAGE.read_text(), [])


def test_with_nothing_measured_the_page_says_so_and_there_is_no_picture(copy, stored):
    said = page.refresh(stored, copy)
    assert f"not measured yet: {', '.join(results.KINDS)}" in said
    assert "roofline.png: nothing to draw" in said
    assert copy.read_text().count(page.NOT_MEASURED) == len(results.KINDS) + 1
    assert not list(copy.parent.glob("images/*"))
    assert page.refresh(stored / "absent", copy) == said


def test_results_without_a_bandwidth_are_drawn_with_a_note(copy, stored):
    pytest.importorskip("matplotlib")
    results.write(stored, result(bandwidth=None))
    assert f"roofline.png: {roofline.NO_BANDWIDTH}" in page.refresh(stored, copy)
    assert "older than its measurement" in copy.read_text()


def test_without_matplotlib_the_page_stays_as_it_was(copy, stored, monkeypatch):
    before = copy.read_text()
    results.write(stored, result())
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match="matplotlib"):
        page.refresh(stored, copy)
    assert copy.read_text() == before
    monkeypatch.setattr(page, "PAGE", copy)
    with pytest.raises(SystemExit, match="matplotlib"):
        command.main(["roofline", "--out", str(stored)])


@pytest.mark.parametrize(
    "change", [("<!-- peers: nets -->", ""), ("peers: nets", "peers: nests"), ("<!-- /peers -->", "")]
)
def test_a_page_without_markers_is_an_error(change):
    with pytest.raises(ValueError, match="must have the parts"):
        page.refreshed(page.PAGE.read_text().replace(*change, 1), [])


# ---- the picture -------------------------------------------------------------------------------------------------


def test_panels_hold_speeds_over_intensities():
    nets, batches, widths = roofline.panels([result("sweep"), result(threads=1), result(threads=2)])
    assert "2 threads" in nets.title
    assert nets.places == {work.name: pytest.approx(work.flops / work.bytes) for work in works.NETS}
    assert nets.points["numba"] == pytest.approx({work.name: 50 for work in works.NETS})
    assert set(nets.points) == {"numba", "torch"}
    assert (nets.peak, nets.bandwidth) == pytest.approx((100, 10))
    assert list(batches.places) == ["1", "16", "32", "128", "1024", "8192"]
    assert list(widths.places) == ["32", "64", "128", "256", "512", "1024", "2048"]
    assert [panel.joined for panel in (nets, batches, widths)] == [False, True, True]
    assert roofline.panels([]) == []


def test_the_fingerprint_changes_with_the_contents():
    drawn = roofline.fingerprint(roofline.panels([result()]))
    assert drawn == roofline.fingerprint(roofline.panels([result()]))
    others = [result(bandwidth=None), result(peak=99e9), result(speeds=[("numba", 51e9)]), result(threads=1)]
    assert len({drawn, *(roofline.fingerprint(roofline.panels([other])) for other in others)}) == 5


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{}, {"bandwidth": None}, {"peak": None}, {"peak": None, "bandwidth": None}, {"speeds": ()}]
)
def test_missing_measurements_are_noted_in_the_picture(tmp_path, options):
    pytest.importorskip("matplotlib")
    drawn = roofline.panels([result("nets", **options), result("sweep", **options)])
    path = tmp_path / "roofline.png"
    roofline.draw(drawn, path)
    assert path.read_bytes().startswith(b"\x89PNG")
    figure = roofline._figure(drawn)
    written = [text.get_text() for ax in figure.axes for text in ax.texts]
    assert (roofline.NO_BANDWIDTH in written) == (options.get("bandwidth", 1) is None)
    assert ("peak: not in these results" in written) == (options.get("peak", 1) is None)


# ---- numbers in the text -----------------------------------------------------------------------------------------


def shown(*words):
    """Whether the page contains this text, independent of line breaks."""
    text = " ".join(page.PAGE.read_text().split())
    return [word for word in words if word not in text] == []


def test_thresholds_are_those_of_the_code():
    assert shown(f"After {epoch.SPINS:,} iterations")
    assert shown(f"at least {executor._SHARED_STEP:,} multiply-adds", f"at least {executor._SHARED_RUN:,};")
    assert shown(f"at least {program._MANY_COLUMNS} columns per thread")
    (few, much), (more, most) = program._WORTH_COLUMNS
    assert shown(f"fewer than {few} rows per thread and at least {much:,} multiply-adds in the product")
    assert shown(f"fewer than {more} rows and at least {most:,}")


def test_tiles_are_those_of_the_code():
    many = TileShape.choose("float32", VectorUnit(64, 32, fused=True))
    few = TileShape.choose("float32", VectorUnit(32, 16, fused=True))
    assert shown(f"{many.rows} rows by {many.vectors} vectors", f"{few.rows} by {few.vectors} on CPUs with 16")
    assert shown(f"{many.lanes} numbers with AVX-512, {few.lanes} with AVX")
    assert shown(f"and {many.depth} rows deep", f"{many.block} rows of the left", f"more than {many.depth} rows")


def test_barriers_are_as_many_as_the_page_says():
    """2 per step for the networks split by rows, more for the one split by columns."""
    found = {}
    for work in works.NETS:
        layers = [*(nn.Dense(units, activation=work.activation) for units in work.hidden), nn.Dense(10)]
        net = nn.Network(layers, 784, backend=NumbaBackend(threads=2), input_scale=1 / 255)
        x, y = np.zeros((work.batch_size, 784), np.uint8), np.zeros(work.batch_size, np.int64)
        optimizer = OPTIMIZERS[work.optimizer](work.learning_rate)
        net.train_on_batch(x, y, loss="softmax_cross_entropy", optimizer=optimizer)
        found[work.name] = int(net.batch_step._executor._program.table[:, program.WAIT].sum())
    small, middle, large = found
    assert (found[small], found[middle]) == (2, 2)
    assert shown(f"A step of {small} or {middle} needs two barriers")
    assert shown(f"a step of {large} on two threads has {found[large]} barriers instead of 2")
