"""MNIST and Fashion-MNIST: find, download and check their files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnbackend.datasets.dataset import Dataset
from nnbackend.datasets.download import RemoteFile, contents_match, fetch
from nnbackend.datasets.idx import read_idx
from nnbackend.errors import DataError

__all__ = ["DATA_DIR_VARIABLE", "DatasetNotFoundError", "fashion_mnist", "mnist"]

DATA_DIR_VARIABLE = "NNBACKEND_DATA_DIR"
"""Environment variable with the folder of the user's data sets."""

_SIDE = 28


@dataclass(frozen=True)
class _Publication:
    """The four files of a data set in MNIST's layout, and their mirrors."""

    name: str
    classes: tuple[str, ...]
    mirrors: tuple[str, ...]
    train_images: RemoteFile
    train_labels: RemoteFile
    test_images: RemoteFile
    test_labels: RemoteFile

    @property
    def files(self) -> tuple[RemoteFile, ...]:
        return self.train_images, self.train_labels, self.test_images, self.test_labels


# The contents agree with the MD5 and SHA-256 of the .gz files that torchvision (datasets/mnist.py) and
# TensorFlow Datasets (url_checksums/mnist.txt) check.
_MNIST = _Publication(
    name="mnist",
    classes=tuple(str(digit) for digit in range(10)),
    mirrors=(
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
    ),
    train_images=RemoteFile(
        "train-images-idx3-ubyte",
        47_040_016,
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    ),
    train_labels=RemoteFile(
        "train-labels-idx1-ubyte",
        60_008,
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    ),
    test_images=RemoteFile(
        "t10k-images-idx3-ubyte",
        7_840_016,
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    ),
    test_labels=RemoteFile(
        "t10k-labels-idx1-ubyte",
        10_008,
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
)

# The checksums of the labels were computed from the .gz files of github.com/zalandoresearch/fashion-mnist, which have
# the SHA-256 that TensorFlow Datasets (url_checksums/fashion_mnist.txt) checks. The checksums of the images are those
# that four independent public projects list for the same files.
_FASHION_MNIST = _Publication(
    name="fashion-mnist",
    classes=(
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
    mirrors=(
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    ),
    train_images=RemoteFile(
        "train-images-idx3-ubyte",
        47_040_016,
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    ),
    train_labels=RemoteFile(
        "train-labels-idx1-ubyte",
        60_008,
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    ),
    test_images=RemoteFile(
        "t10k-images-idx3-ubyte",
        7_840_016,
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    ),
    test_labels=RemoteFile(
        "t10k-labels-idx1-ubyte",
        10_008,
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
)

_PUBLICATIONS = (_MNIST, _FASHION_MNIST)


class DatasetNotFoundError(DataError):
    """A data set was not found on this machine and could not be downloaded.

    Attributes
    ----------
    looked : tuple of str
        Each place that was searched, with the reason why it was not used.
    """

    def __init__(self, name: str, looked: tuple[str, ...]) -> None:
        places = "".join(f"\n  - {place}" for place in looked)
        super().__init__(
            f"data set {name!r} was not found. Looked in:{places}\n"
            f"Set {DATA_DIR_VARIABLE} to a folder with its four IDX files (train-images-idx3-ubyte, "
            f"train-labels-idx1-ubyte, t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte; gzipped or not), "
            f'or use "mnist-5k": 5,000 real digits that need no download.'
        )
        self.name = name
        self.looked = looked


def mnist(folder: str | os.PathLike[str] | None = None, download: bool = True) -> Dataset:
    """MNIST: 60,000 training and 10,000 test images of handwritten digits, 28 x 28 pixels.

    The files are searched in `folder`, in the folder that NNBACKEND_DATA_DIR names (each time in the subfolder
    ``mnist`` first), and in the user's cache. If they are not found, they are downloaded into the cache; without
    internet, this fails within 10 s. A damaged file in the user's folders is an error; one in the cache is downloaded
    again.

    Parameters
    ----------
    folder : str or path-like, optional
        Folder to search first. The files have their published names, ``train-images-idx3-ubyte`` and so on, or the
        spelling ``train-images.idx3-ubyte``, each with or without ``.gz``.
    download : bool
        False forbids downloads.

    Returns
    -------
    Dataset
        Images as uint8 of shape (rows, 784).

    Raises
    ------
    DatasetNotFoundError
        The data set was not found in any of these places. A subclass of DataError.
    DataError
        A file is damaged, or the files do not match each other.
    """
    return _load(_MNIST, folder, download)


def fashion_mnist(folder: str | os.PathLike[str] | None = None, download: bool = True) -> Dataset:
    """Fashion-MNIST: images of clothes in the format of MNIST.

    Parameters, result and errors are those of `mnist`; the subfolder is ``fashion-mnist``.
    """
    return _load(_FASHION_MNIST, folder, download)


def _load(publication: _Publication, folder: str | os.PathLike[str] | None, download: bool) -> Dataset:
    (train_images, train_labels, test_images, test_labels), source = _locate(publication, folder, download)
    x_train, y_train = _read_pair(train_images, train_labels, len(publication.classes))
    x_test, y_test = _read_pair(test_images, test_labels, len(publication.classes))
    return Dataset(
        name=publication.name,
        x_train=x_train,
        y_train=y_train,
        x_test=x_test,
        y_test=y_test,
        classes=publication.classes,
        input_shape=_SIDE * _SIDE,
        source=source,
    )


def _locate(publication: _Publication, folder: str | os.PathLike[str] | None, download: bool) -> tuple[list[Path], str]:
    """The four files, and a description of where they were found."""
    looked = []
    for place, directory in _user_folders(publication.name, folder):
        paths, why_not = _search(publication, directory)
        if not why_not:
            return paths, f"{directory} ({place})"
        looked.append(f"{place}: {directory} {why_not}")
    if not os.environ.get(DATA_DIR_VARIABLE):
        looked.append(f"{DATA_DIR_VARIABLE}: not set")

    cache = _cache_folder() / publication.name
    cached = [cache / file.name for file in publication.files]
    absent = [file for file, path in zip(publication.files, cached, strict=True) if not contents_match(path, file)]
    if not absent:
        return cached, f"{cache} (cache)"
    looked.append(f"cache: {cache} lacks {_listed(absent)}")

    if not download:
        looked.append("download: switched off")
        raise DatasetNotFoundError(publication.name, tuple(looked))
    try:
        # Stop at the first failure: offline, every further file would take the same time to fail.
        for file in absent:
            fetch(file, publication.mirrors, cache)
    except DataError as error:
        looked.append(f"download: {error}")
        raise DatasetNotFoundError(publication.name, tuple(looked)) from error
    return cached, f"{cache} (downloaded)"


def _user_folders(name: str, folder: str | os.PathLike[str] | None) -> Iterator[tuple[str, Path]]:
    for place, root in (("folder", folder), (DATA_DIR_VARIABLE, os.environ.get(DATA_DIR_VARIABLE))):
        if root:
            directory = Path(root).expanduser()
            # The subfolder first: the folder itself may contain the other data set, with the same file names.
            if (directory / name).is_dir():
                yield place, directory / name
            yield place, directory


def _cache_folder() -> Path:
    import platformdirs

    return Path(platformdirs.user_cache_dir("nnbackend"))


def _search(publication: _Publication, directory: Path) -> tuple[list[Path], str]:
    """The four files and an empty reason, or no files and the reason why they are not in this folder."""
    if not directory.is_dir():
        return [], "is not a folder"
    spelled = {file: _spelled(directory, file.name) for file in publication.files}
    labels = spelled[publication.train_labels]
    for other in _PUBLICATIONS:
        # File names are the same in both data sets, so compare the labels, which are small.
        if other is not publication and labels is not None and contents_match(labels, other.train_labels):
            return [], f"holds {other.name!r}"
    missing = [file for file, path in spelled.items() if path is None]
    if missing:
        return [], f"lacks {_listed(missing)}"
    return [path for path in spelled.values() if path is not None], ""


def _spelled(directory: Path, name: str) -> Path | None:
    """The file of that name in one of its common spellings; some copies have a dot instead of the second hyphen."""
    for stem in (name, name.replace("-idx", ".idx")):
        for path in (directory / stem, directory / f"{stem}.gz"):
            if path.is_file():
                return path
    return None


def _listed(files: Iterable[RemoteFile]) -> str:
    names = [file.name for file in files]
    return "all four files" if len(names) == 4 else ", ".join(names)


def _read_pair(images_path: Path, labels_path: Path, classes: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Read images as rows of pixels, and their labels, and check that they match."""
    images = read_idx(images_path, expect_dimensions=3)
    labels = read_idx(labels_path, expect_dimensions=1)
    if images.shape[1:] != (_SIDE, _SIDE) or images.dtype != np.uint8:
        raise DataError(
            f"{images_path}: holds {images.dtype} images of shape {images.shape[1:]}, "
            f"expected uint8 of shape {(_SIDE, _SIDE)}"
        )
    if labels.dtype != np.uint8:
        raise DataError(f"{labels_path}: holds {labels.dtype} labels, expected uint8")
    if len(images) != len(labels):
        raise DataError(f"{images_path} has {len(images)} images but {labels_path} has {len(labels)} labels")
    if labels.max() >= classes:
        raise DataError(f"{labels_path}: has the label {labels.max()}, expected 0 to {classes - 1}")
    return images.reshape(len(images), -1), labels.astype(np.int32)
