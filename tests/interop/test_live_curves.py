"""Live learning curves: in a notebook kernel, and without one."""

from __future__ import annotations

import base64
import subprocess
import sys

import pytest

import nnbackend as nn
from nnbackend.errors import InvalidInputError
from tests import notebooks
from tests.helpers import classifier, images, same_weights

pytest.importorskip("IPython", reason='needs IPython: pip install -e ".[notebook]"')
pytest.importorskip("matplotlib", reason="pictures need matplotlib")

SETUP = """
import gc, sys
import numpy as np
import nnbackend as nn
from IPython.core.displaypub import DisplayPublisher

generator = np.random.default_rng(0)
x, y = generator.normal(size=(64, 12)), generator.integers(0, 4, 64)
options = {"loss": "softmax_cross_entropy", "validation_data": (x, y)}
net = nn.Network([nn.Dense(9, activation="relu"), nn.Dense(4)], 12, backend="numpy")

shell = get_ipython()
sent, publish = [], shell.display_pub.publish

def spy(data, metadata=None, transient=None, update=False, **rest):
    sent.append((update, transient["display_id"], data["image/png"]))
    publish(data, metadata, transient=transient, update=update, **rest)

shell.display_pub.publish = spy
"""

#: Each picture replaces the previous one; the last shows the whole history.
UPDATES = """
history = net.fit(x, y, epochs=3, callbacks=[nn.LiveCurves()], **options)
"""
AFTER_UPDATES = """
assert [update for update, _, _ in sent] == [False, True, True], sent
assert len({identity for _, identity, _ in sent}) == 1
assert len({picture for _, _, picture in sent}) == 3
picture, size = nn.plotting.plot_curves(history)[0].figure._repr_png_()
assert sent[-1][2] == picture
"""
#: A reused callback starts a new picture, and draws every second epoch and at the end.
SELDOM = """
sent.clear()
curves = nn.LiveCurves(every=2)
first = net.fit(x, y, epochs=3, callbacks=[curves], **options)
second = net.fit(x, y, epochs=1, callbacks=[curves], **options)
"""
AFTER_SELDOM = """
assert [update for update, _, _ in sent] == [False, True, False], sent
assert len({identity for _, identity, _ in sent}) == 2
gc.collect()
assert not [thing for thing in gc.get_objects() if isinstance(thing, nn.plotting.picture.Picture)]
assert "matplotlib.pyplot" not in sys.modules
"""
#: IPython in a terminal has the base publisher.
TERMINAL = """
shell.display_pub, notebook = DisplayPublisher(parent=shell), shell.display_pub
try:
    net.fit(x, y, epochs=1, callbacks=[nn.LiveCurves()], **options)
except nn.errors.InvalidInputError as error:
    print(error)
finally:
    shell.display_pub = notebook
"""
FIGURE = "nn.plotting.plot_loss(history).figure"


@pytest.mark.slow
def test_a_notebook_shows_curves_that_grow_and_figures_that_end_a_cell(tmp_path, monkeypatch):
    nbformat = pytest.importorskip("nbformat", reason="needs nbformat")
    sources = [SETUP, UPDATES, AFTER_UPDATES, SELDOM, AFTER_SELDOM, TERMINAL, FIGURE]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    cells = notebooks.run(notebook, tmp_path, monkeypatch).cells
    kinds = [[output.output_type for output in cell.outputs] for cell in cells]
    assert kinds == [[], ["display_data"], [], ["display_data"] * 2, [], ["stream"], ["execute_result"]]
    for output in (cells[1].outputs[0], cells[6].outputs[0]):
        assert base64.b64decode(output.data["image/png"]).startswith(b"\x89PNG")
    # Of two Axes, and of one, at 96 pixels an inch.
    assert cells[1].outputs[0].metadata["image/png"] == {"width": 922, "height": 365}
    assert cells[6].outputs[0].metadata["image/png"] == {"width": 461, "height": 365}
    assert "needs a notebook" in cells[5].outputs[0].text


def test_where_there_is_no_notebook_it_says_so_before_training():
    x, y = images()
    net = classifier()
    with pytest.raises(InvalidInputError, match=r"LiveCurves needs a notebook.*plot_curves\(history\)"):
        net.fit(x, y, epochs=1, loss="softmax_cross_entropy", callbacks=[nn.LiveCurves()])
    assert net.loss is None
    assert same_weights(net, classifier())


def test_a_wrong_interval_is_refused():
    with pytest.raises(InvalidInputError, match="every must be a whole number of at least 1, received 0"):
        nn.LiveCurves(every=0)


@pytest.mark.parametrize("missing", ["IPython", "matplotlib"])
def test_without_a_package_the_error_says_what_to_install(missing):
    code = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "import nnbackend as nn\n"
        "try: nn.LiveCurves()\n"
        "except ImportError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 'pip install -e ".[notebook]"' in done.stdout
