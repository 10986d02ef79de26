"""Every example runs with --quick on every CPU backend with the expected results."""

from __future__ import annotations

import ast
import dataclasses
import os
import re

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.cli.examples import folder, summaries

# The variable names more backends, such as "torch:cpu".
BACKENDS = ["numpy", "numba", *os.environ.get("NNBACKEND_TEST_BACKENDS", "").split()]
NAMES = list(summaries())


@pytest.fixture(params=BACKENDS)
def run(request, example, tmp_path, capsys):
    """``run("circle", {"curves"})`` returns the results and the output. Only NumPy's run draws pictures, because they
    do not depend on the backend and take as long as the training; other runs draw none, unless the example `keeps`
    other files.
    """

    def run(name, drawn, keeps=False, **options):
        out = tmp_path / "out" if request.param == "numpy" or keeps else None
        chosen = example("tools").Options(backend=request.param, quick=True, out=out, **options)
        figures = example(name).run(chosen)
        printed = capsys.readouterr().out
        assert f"backend {request.param}" in printed or name == "mnist_classical"
        if out is None:
            assert "picture: " not in printed
        else:
            assert set(pictures(out)) == drawn
        return figures, printed

    run.backend = request.param
    return run


def pictures(path):
    """The pictures by name, as arrays; checks that they are not empty."""
    from matplotlib.image import imread

    found = {file.stem: imread(file) for file in path.glob("*.png")}
    for name, picture in found.items():
        assert picture.shape[0] > 300, name
        assert picture.shape[1] > 300, name
        assert picture[..., :3].std() > 0.02, f"{name} is empty"
    return found


@pytest.mark.slow
def test_circle(run):
    figures, printed = run("circle", {"0-truth", "1-before", "2-round-1", "3-round-2", "4-round-3", "5-after"})
    assert figures["accuracy"] > 0.93
    assert figures["points"] == 8_520
    assert f"new points correct: {100 * figures['accuracy']:.2f} % of 10,000" in printed


@pytest.mark.slow
def test_logic_gates(run):
    figures, printed = run("logic_gates", {"loss"})
    assert figures["right"] == figures["rows"] == 10
    # The tutorial's formula reproduces its results to the printed precision.
    (first, second), bias = figures["and, tutorial's formula"]
    assert (first, second, bias) == pytest.approx((3.5863, 3.5866, -5.6989), abs=2e-3)
    (first, second), bias = figures["or, tutorial's formula"]
    assert (first, second, bias) == pytest.approx((4.6363, 4.6364, -1.8757), abs=2e-3)
    (only,), bias = figures["not, tutorial's formula"]
    assert (only, bias) == pytest.approx((-6.7901, 3.2628), abs=2e-3)
    # The correct penalty shrinks the weights of AND and OR less.
    assert figures["and"][0][0] > 4
    assert figures["not"][0][0] == pytest.approx(only, abs=1e-6)
    assert "rows right: 10 of 10" in printed


def test_xor(run):
    figures, printed = run("xor", {"xor"})
    assert figures["accuracy"] == 1
    assert "labels:  [0 1 1 0]\npredict: [0 1 1 0]\ntraining accuracy: 100.00 %" in printed


@pytest.mark.slow
def test_iris(run):
    figures, printed = run("iris", {"iris"})
    assert figures["network train"] >= 0.97
    assert figures["network test"] >= 0.96
    assert figures["softmax regression test"] >= 0.93
    assert re.search(r"network: +best train accuracy +9[789]\.\d\d %, test accuracy", printed)


@pytest.mark.slow
def test_mnist_relu(run):
    figures, printed = run("mnist_relu", {"curves", "misclassified", "weights"})
    assert figures["network test"] >= 0.92
    assert 0.85 <= figures["softmax regression test"] < figures["network test"]
    assert "best train accuracy" in printed


@pytest.mark.slow
def test_the_tutorials_own_recipe_takes_raw_pixels(run, example):
    seen = []
    original = nn.Network.__init__

    def spy(self, *arguments, **options):
        seen.append(options.get("input_scale"))
        original(self, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.Network, "__init__", spy)
        figures, _ = run("mnist_relu", {"curves", "misclassified", "weights"}, tutorial=True)
    assert seen == [1.0, 1.0]
    assert figures["network test"] > 0.6


@pytest.mark.slow
def test_neurons(run):
    figures, printed = run("neurons", {"ten-points"})
    assert figures["right"] == 10
    assert re.findall(r"Expected=(\d), Got=(\d)", printed) == [("0", "0")] * 5 + [("1", "1")] * 5
    assert "hidden layer, neuron 1: weights " in printed


@pytest.mark.slow
def test_matrices(run):
    figures, printed = run("matrices", {"matrices"})
    assert figures["points right"] == 10
    assert figures["xor right after 100 epochs"] < 4
    assert figures["xor right"] == 4
    assert "Input: [0, 1], Expected: 1, Predicted: 1" in printed


@pytest.mark.slow
def test_mnist_sigmoid(run):
    figures, printed = run("mnist_sigmoid", {"confusion", "accuracy", "weights"}, keeps=True)
    assert figures["batch 100"] > 0.3
    assert figures["batch 10"] > 0.65
    assert f"Epoch 4: {round(1000 * figures['batch 10'])} / 1000" in printed
    assert "loaded, and it predicts the same" in printed


@pytest.mark.slow
def test_mnist_adam(run):
    figures, printed = run("mnist_adam", {"curves", "misclassified"})
    assert figures["N(0, 1)"] > 0.65
    assert figures["He"] > 0.9
    first, second = (float(value) for value in re.findall(r"^[01] : (\d+\.\d+)$", printed, re.MULTILINE)[:2])
    assert first > 3 * second > 1e4


@pytest.mark.slow
def test_mnist_classical(run, example, monkeypatch):
    if run.backend != "numpy":
        # scikit-learn's models do not depend on the backend and are slow to train.
        monkeypatch.setattr(example("mnist_classical"), "classical", lambda seed: {})
    table, printed = run("mnist_classical", {"comparison"})
    best = {name: row["accuracy"] for name, row in table.items()}
    assert best["SVM regression, rounded (500 images)"] < 0.5
    if run.backend == "numpy":
        assert 0.85 < best["softmax regression"] < best["RBF SVM"]
    assert best["ours: 784-40-10"] > 0.9
    assert best["ours: 784-500-300-10"] > 0.94
    assert all(row["train"] > 0 and row["predict"] > 0 for row in table.values())
    assert len(re.findall(r"^ours: ", printed, re.MULTILINE)) == 3


def test_first_neuron(run):
    figures, printed = run("first_neuron", {"sigmoid"})
    for name, exact in {"neuron": 0.9990889488055994, "network": 0.7216325609518421, "error": 0.5}.items():
        assert figures[name] == pytest.approx(exact, rel=1e-15)
    assert "0.72163256095184" in printed


@pytest.mark.slow
def test_people(run):
    figures, printed = run("people", {"people"})
    assert figures["right"] == 4
    assert figures["loss"] < 0.003
    losses = [float(value) for value in re.findall(r"Epoch \d+ loss: (\d\.\d+)", printed)]
    assert len(losses) == 10
    assert losses == sorted(losses, reverse=True)
    assert 0.1 < losses[0] < 0.6
    assert re.search(r"Alice +0\.9\d+: female", printed)


@pytest.mark.slow
def test_network3(run):
    figures, printed = run("network3", {"kernels", "maps", "curves"})
    assert min(figures[name] for name in ("max pooling", "L2 pooling, same padding", "frozen kernels")) > 0.6
    assert figures["L2 pooling, a fifth of the rate"] > 0.6
    assert min(figures["at best"], figures["at best, L2 pooling"]) > 0.8
    assert "784-3c5-3c5-10 network, 796 parameters" in printed
    assert re.search(r"epoch +5: training cost \d\.\d+, accuracy .* %; validation cost", printed)


class TestNetwork3:
    """The tutorial's options, on a few images."""

    @pytest.fixture
    def train(self, example):
        data = nn.datasets.load("mnist-5k")
        few = dataclasses.replace(data, x_train=data.x_train[:30], y_train=data.y_train[:30], x_test=data.x_test[:20],
                                  y_test=data.y_test[:20])  # fmt: skip
        module, options = example("network3"), example("tools").Options(backend="numpy")
        return lambda epochs, **chosen: module.train(few, options, epochs, **chosen)

    def test_frozen_kernels_are_not_changed(self, train, example):
        before, after = (train(epochs, frozen=True)[0].get_weights() for epochs in (1, 2))
        assert (before["layers.1.weight"] == after["layers.1.weight"]).all()
        assert (before["layers.6.weight"] != after["layers.6.weight"]).any()

    def test_rising_validation_costs_end_the_training(self, train):
        _, monitor = train(200, patience=1)
        costs = monitor.history["validation cost"]
        assert len(costs) < 200
        assert costs[-1] >= min(costs[:-1])
        assert all(len(values) == len(costs) for values in monitor.history.values())

    def test_the_rate_of_a_network_is_used(self, train, example):
        assert train(1)[0].optimizer.learning_rate == pytest.approx(0.5)
        chosen = example("network3").NETWORKS["L2 pooling, a fifth of the rate"]
        network, _ = train(1, **chosen)
        assert network.optimizer.learning_rate == pytest.approx(0.1)
        # Always stable: the largest curvature of the cost, for inputs of 2 everywhere, times the tutorial's rate.
        inputs = network.layers[6].parameters(network.model.layout.nodes[6].input_shape)[0].shape[0]
        assert 0.01 * inputs * 2**2 / 4 < 2 < 0.05 * inputs * 2**2 / 4

    def test_kernels_decay_too(self, train):
        penalties = [entry.parameter.l2 for entry in train(1)[0].model.layout.entries if "weight" in entry.name]
        assert penalties == [pytest.approx(0.1 / 300)] * 3


class TestCircle:
    """Features of the first example: undoing steps and the interactive mode."""

    @pytest.fixture
    def session(self, example):
        return example("circle").Session(example("tools").Options(backend="numpy"))

    def worse(self, session, monkeypatch):
        """Every step seems to make its batch worse."""
        monkeypatch.setattr(session.network, "evaluate", lambda x, y: {"loss": np.inf, "accuracy": -1.0})

    def test_a_step_that_does_not_help_is_undone(self, session, monkeypatch):
        before = session.network.get_weights()
        self.worse(session, monkeypatch)
        assert session.train(90) == 0
        for name, array in session.network.get_weights().items():
            np.testing.assert_array_equal(array, before[name])

    def test_if_few_steps_help_the_next_round_keeps_all(self, session, monkeypatch):
        before = session.network.get_weights()
        self.worse(session, monkeypatch)
        session.train(30)
        assert session.keep_all
        session.train(30)
        after = session.network.get_weights()
        assert any((array != before[name]).any() for name, array in after.items())

    def test_steps_that_help_are_kept_and_force_nothing(self, session):
        before = session.network.get_weights()
        assert session.train(90) > 0.5
        assert not session.keep_all
        assert any((array != before[name]).any() for name, array in session.network.get_weights().items())

    def test_points_are_fresh_and_labelled_right(self, session):
        first, labels = session.fresh_batch()
        second, _ = session.fresh_batch()
        assert first.shape == (30, 2)
        assert not np.isin(first, second).any()
        np.testing.assert_array_equal(labels, np.hypot(*first.T) > 1)

    def interactive(self, example, monkeypatch, capsys, *answers):
        replies = iter(answers)

        def reply(question):
            print(question, end="")
            try:
                return next(replies)
            except StopIteration:
                raise EOFError from None

        monkeypatch.setattr("builtins.input", reply)
        figures = example("circle").run(example("tools").Options(backend="numpy", interactive=True))
        return figures, capsys.readouterr().out

    def test_the_user_chooses_a_network_and_numbers_of_points(self, example, monkeypatch, capsys):
        figures, printed = self.interactive(example, monkeypatch, capsys, "n", "what?", "Y", "300", "-3", "600", "n")
        assert figures["points"] == 900
        assert printed.count("Use this network?") == 3
        assert "starting network 2" in printed
        assert "starting network 3" not in printed
        assert "please answer y or n" in printed
        assert "please answer n, or a number such as 3000" in printed
        sketches = re.findall(r"starting network \d.*\n((?:    [#.]{48}\n){24})", printed)
        assert len(set(sketches)) == 2

    def test_the_second_choice_is_another_network_than_the_first(self, example, monkeypatch, capsys):
        first, _ = self.interactive(example, monkeypatch, capsys, "y", "3000", "n")
        second, _ = self.interactive(example, monkeypatch, capsys, "n", "y", "3000", "n")
        assert first["accuracy"] != second["accuracy"]

    def test_a_download_without_answers_ends(self, example, monkeypatch, capsys):
        figures, _ = self.interactive(example, monkeypatch, capsys)
        assert figures["points"] == 0


@pytest.mark.parametrize("name", NAMES)
def test_the_docstring_teaches(name):
    """A number and a summary, the formulae, and the tutorial's errors (S11 and S12 are correct)."""
    doc = ast.get_docstring(ast.parse((folder() / f"{name}.py").read_text()))
    assert re.match(r"S\d+: [^\n]{20,}\.\n\n|S10: [^\n]+\?\n\n", doc)
    assert re.search(r"^    \w[^\n]*  +\S", doc, re.MULTILINE), "no formulae"
    assert "Errors in the tutorial" in doc or name in ("first_neuron", "people")


@pytest.mark.parametrize("name", [*NAMES, "tools"])
def test_examples_use_only_public_names(name):
    """Examples use only public names."""
    tree = ast.parse((folder() / f"{name}.py").read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("nnbackend"):
            assert node.module in ("nnbackend", "nnbackend.errors"), ast.unparse(node)
        if isinstance(node, ast.Attribute):
            assert not node.attr.startswith("_") or node.attr.endswith("__"), ast.unparse(node)
