"""The search for the preset `fast99`, and its comparison with PyTorch."""

from __future__ import annotations

import json

import numpy as np
import pytest

import nnbackend as nn
from benchmarks import fast99 as search
from benchmarks.peers import __main__ as command
from benchmarks.peers import fast99, tables
from benchmarks.tests.test_peers import HEADER
from nnbackend.datasets import write_idx
from nnbackend.errors import DataError
from nnbackend.presets import PRESETS


def test_every_candidate_is_a_recipe_of_its_own():
    for recipe in search.CANDIDATES.values():
        recipe.check()
    assert len({str(recipe) for recipe in search.CANDIDATES.values()}) == len(search.CANDIDATES)


def test_the_preset_is_the_fastest_that_reached_the_target_in_the_stored_search():
    found = json.loads(search.RESULTS.read_text())["candidates"]
    # Recipes of newer versions have more settings.
    now = {name: recipe.to_dict() for name, recipe in search.CANDIDATES.items()}
    stored = {name: candidate["recipe"] for name, candidate in found.items()}
    assert {name: {key: now[name][key] for key in recipe} for name, recipe in stored.items()} == stored
    assert now.keys() == stored.keys()
    seconds = {}
    for name, candidate in found.items():
        if np.median([run["accuracy"] for run in candidate["runs"]]) >= fast99.TARGET:
            seconds[name] = min(run["seconds"] for run in candidate["runs"])
    assert search.CANDIDATES[min(seconds, key=seconds.__getitem__)] == PRESETS["fast99"]


@pytest.mark.slow
def test_a_search(capsys, monkeypatch, tmp_path, mnist):
    monkeypatch.setattr(search, "RESULTS", tmp_path / "fast99.json")
    search.main(["--only", "stride", "stride, 16 and 32 filters", "--seeds", "2", "--rows", "1000"])
    text = capsys.readouterr().out
    assert "Trained on 1,000 images, validated on 10,000 others" in text
    assert "| stride, 16 and 32 filters | 16, 32 " in text
    # Only complete searches are stored.
    assert not search.RESULTS.exists()


def test_the_table_of_a_search_begins_with_the_fastest(capsys, monkeypatch, tmp_path):
    def runs(seconds, *accuracies):
        return [{"accuracy": accuracy, "seconds": seconds} for accuracy in accuracies]

    recipe = search.PUBLISHED.to_dict()
    candidates = {
        "slow": {"recipe": recipe, "runs": runs(3.0, 0.98, 0.99, 0.97)},
        "fast": {"recipe": recipe, "runs": runs(2.0, 0.9, 0.91, 0.93)},
    }
    found = {"machine": HEADER["machine"], "rows": 50_000, "candidates": candidates}
    monkeypatch.setattr(search, "RESULTS", tmp_path / "fast99.json")
    search.RESULTS.write_text(json.dumps(found))
    search.main(["table"])
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("| slow", "| fast"))]
    assert rows[0].startswith("| fast")
    assert "91.00 %" in rows[0]
    assert "90.00 %" in rows[0]
    assert "98.00 %" in rows[1]
    assert "3.0 s" in rows[1]


def test_the_table_compares_with_the_fastest_that_reached_the_target():
    def runs(training, *accuracies):
        return [{"training": training, "processor": 2 * training, "warm_up": 0.5, "accuracy": a} for a in accuracies]

    contenders = {
        "ours, fast99": runs(2.0, 0.991, 0.99, 0.989),
        "ours, published": runs(1.0, 0.991, 0.989, 0.9895),
        "PyTorch, fast99": runs(5.0, 0.991, 0.992, 0.9895),
        "PyTorch, published": [],
    }
    recipes = {name: recipe.to_dict() for name, recipe in fast99.RECIPES.items()}
    text = tables.text(HEADER | {"kind": "fast99", "target": 0.99, "contenders": contenders, "recipes": recipes})
    lines = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("|")}
    assert " 2 of 3 |" in lines["ours, fast99"]
    assert "1.00x" in lines["ours, fast99"]
    assert "2.50x" in lines["PyTorch, fast99"]
    assert lines["ours, published"].rstrip(" |").endswith("-")
    assert "PyTorch, published" not in lines
    assert "16 kernels of 5 x 5 with stride 2, 32 kernels of 3 x 3 and a 2 x 2 max pool, 128 units" in text


def test_without_mnist_nothing_is_measured(tmp_path, capsys, monkeypatch):
    def missing(*_, **__):
        raise DataError("MNIST is nowhere to be had")

    monkeypatch.setattr(nn.datasets, "load", missing)
    assert command.main(["fast99", "--quick", "--out", str(tmp_path)]) == 0
    assert "fast99: skipped: MNIST is nowhere" in capsys.readouterr().out


@pytest.fixture
def fewer_images(tmp_path, mnist, monkeypatch):
    """A folder with a sixth of MNIST's images for training, for this process and others."""
    images = {"train": (mnist.x_train, mnist.y_train, 10_000), "t10k": (mnist.x_test, mnist.y_test, 2_000)}
    for part, (x, y, count) in images.items():
        write_idx(tmp_path / f"{part}-images-idx3-ubyte.gz", x[:count].reshape(-1, 28, 28))
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte.gz", y[:count].astype(np.uint8))
    monkeypatch.setenv("NNBACKEND_DATA_DIR", str(tmp_path))


@pytest.mark.slow
def test_it_runs(tmp_path, fewer_images, capsys):
    arguments = ["--quick", "--threads", "1", "--contenders", "numba", "--out", str(tmp_path)]
    assert command.main(["fast99", *arguments]) == 0
    result = json.loads((tmp_path / "fast99-threads-1.json").read_text())
    assert set(result["contenders"]) == {"nnbackend numba, fast99", "nnbackend numba, published"}
    for (run,) in result["contenders"].values():
        assert 0.9 < run["accuracy"] < 1
        assert run["training"] > 0
    assert "nnbackend numba, fast99" in capsys.readouterr().out


@pytest.mark.parametrize("name", fast99.RECIPES)
def test_pytorch_trains_the_same_network(name):
    torch = pytest.importorskip("torch")
    recipe = fast99.RECIPES[name]
    network = nn.Network(recipe.layers(10, (28, 28)), (28, 28), "numpy", seed=1, input_scale=1.0)
    images = np.random.default_rng(0).random((3, 28, 28), np.float32)
    with torch.no_grad():
        theirs = fast99._pytorch_network(network)(torch.from_numpy(images[:, None]))
    np.testing.assert_allclose(theirs.numpy(), network.predict(images), atol=1e-5)
