"""Networks and histories as HTML tables: the contents of the printed forms, safely escaped."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np

import nnbackend as nn
from nnbackend.support.html import table
from nnbackend.training import History
from tests.helpers import classifier, images

VOID = {"br", "hr", "img", "meta", "link"}


class Page(HTMLParser):
    """The elements, the text of every cell by row, and whether all elements are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.rows: list[list[str]] = []
        self.caption = ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        assert tag not in VOID
        self.open.append(tag)
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data
        else:
            assert self.open[-1] == "caption"
            self.caption += data


def test_a_network_displays_its_summary(backend):
    layers = [nn.Flatten(), nn.Dense(5, activation="relu"), nn.Dense(3)]
    net = nn.Network(layers, (2, 4), backend=backend, seed=4)
    page = Page(net._repr_html_())
    text = net.summary()
    assert page.caption == "input 2 x 4, float32, seed 4" == text.splitlines()[0]
    assert page.rows[0] == ["layer", "output", "parameters"]
    assert page.rows[1:4] == [
        ["0: Flatten()", "8", "0"],
        ["1: Dense(5, activation='relu')", "5", "45"],
        ["2: Dense(3, activation='identity')", "3", "18"],
    ]
    assert page.rows[4] == ["total (0.00 MB)", "", "63"]
    assert page.rows[5:] == [[text.splitlines()[-1]]]
    for cell in (cell for row in page.rows[1:4] for cell in row):
        assert cell in text


def test_it_is_self_contained_and_keeps_the_colours_of_the_page():
    html = classifier()._repr_html_()
    page = Page(html)
    assert page.tags == {"table", "caption", "thead", "tbody", "tfoot", "tr", "th", "td"}
    assert page.attributes == {"style", "colspan"}
    # Coloured text could be invisible on some backgrounds; the lines are visible on black and white.
    assert set(re.findall(r"(?:color|background)[\w-]*:([^;\"]*)", html)) == {"inherit", "transparent"}
    assert set(re.findall(r"border[\w-]*:([^;\"]*)", html)) == {"collapse", "1px solid rgba(128,128,128,0.6)"}


def test_untrusted_names_are_escaped():
    class Evil(nn.Flatten):
        def __repr__(self):
            return "</td><script>alert('1')</script>&amp;"

    html = nn.Network([Evil(), nn.Dense(2)], 3, backend="numpy")._repr_html_()
    assert "<script" not in html
    assert Page(html).rows[1] == ["0: </td><script>alert('1')</script>&amp;", "3", "0"]
    # The same for every part of a table.
    texts = Page(table("<b>", ["<i>"], [["<s>"]], "l", total=["<u>"], note="<p>"))
    assert texts.caption == "<b>"
    assert texts.rows == [["<i>"], ["<s>"], ["<u>"], ["<p>"]]


def test_a_history_shows_the_table_that_training_prints(capsys):
    x, y = images()
    history = classifier().fit(
        x, y, epochs=3, loss="softmax_cross_entropy", validation_data=(x[:20], y[:20]), verbose=True
    )
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    page = Page(history._repr_html_())
    assert page.caption == "3 epochs"
    assert page.rows == printed
    assert len(page.rows) == 4


def _history(epochs: int) -> History:
    history = History()
    for epoch in range(1, epochs + 1):
        history.append({"epoch": epoch, "loss": 1 / epoch}, np.ones(1))
    return history


def test_a_long_history_shows_its_ends():
    assert [row[0] for row in Page(_history(17)._repr_html_()).rows[1:]] == [str(epoch) for epoch in range(1, 18)]
    page = Page(_history(1000)._repr_html_())
    shown = [row[0] for row in page.rows[1:]]
    assert shown == [*map(str, range(1, 9)), "...", *map(str, range(993, 1001))]
    assert page.caption == "1,000 epochs"
    assert {len(row) for row in page.rows} == {2}


def test_a_history_tells_how_it_ended():
    history = _history(1)
    assert Page(history._repr_html_()).caption == "1 epoch"
    history.stopped_by = "EarlyStopping"
    assert Page(history._repr_html_()).rows[-1] == ["ended by EarlyStopping"]
    history.interrupted = True
    assert Page(history._repr_html_()).rows[-1] == ["ended by Ctrl-C"]


def test_an_empty_history_shows_too():
    assert Page(History()._repr_html_()).caption == "0 epochs"


def test_figures_that_some_epochs_lack_leave_their_cells_empty():
    history = _history(1)
    history.append({"epoch": 2, "loss": 0.5, "val_loss": 0.25}, np.ones(1))
    assert Page(history._repr_html_()).rows[1:] == [["1", "1.0000", ""], ["2", "0.5000", "0.2500"]]
