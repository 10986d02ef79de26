"""Arrays of other libraries: converted at the boundary, or an error that says how."""

from __future__ import annotations

import math
import re

import array_api_strict
import numpy as np
import pytest

import nnbackend as nn
from nnbackend.data.inputs import as_host_array, check_features, scaled_rows
from nnbackend.errors import InvalidInputError
from tests.helpers import classifier, images


class OnAGpu:
    """An array as another library would keep it on a CUDA device."""

    def __dlpack_device__(self):
        return (2, 0)

    def __dlpack__(self, **options):
        raise BufferError("not on the CPU")


class CuPyLike(OnAGpu):
    """Like a CuPy array, which get() copies to the host."""

    def get(self):
        return np.arange(3.0)


CuPyLike.__module__ = "cupy._core"


class NoDLPackDtype:
    """A library whose array DLPack cannot carry, but NumPy can read."""

    def __dlpack_device__(self):
        return (1, 0)

    def __dlpack__(self, **options):
        raise BufferError("unsupported dtype")

    def __array__(self, dtype=None, copy=None):
        return np.array([1.0, 2.0])


def test_an_array_api_library_is_read_through_dlpack():
    values = array_api_strict.asarray([[1.0, 2.0]])
    np.testing.assert_array_equal(as_host_array("x", values), [[1.0, 2.0]])


def test_a_numpy_array_is_not_copied():
    values = np.ones((2, 3))
    assert as_host_array("x", values) is values


def test_an_array_on_another_device_says_how_to_copy_it():
    with pytest.raises(InvalidInputError, match=r"on another device \(DLPack device \(2, 0\)\); copy it .* x.cpu\(\)"):
        as_host_array("x", OnAGpu())


def test_a_cupy_array_is_copied_to_the_host():
    np.testing.assert_array_equal(as_host_array("x", CuPyLike()), [0, 1, 2])


def test_arrays_unsupported_by_dlpack_are_read_by_numpy():
    np.testing.assert_array_equal(as_host_array("x", NoDLPackDtype()), [1.0, 2.0])


def test_a_data_frame_works():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]})
    np.testing.assert_array_equal(as_host_array("x", frame), [[1, 3], [2, 4]])


def test_lists_and_other_libraries_train_like_numpy():
    x, y = images(rows=20)
    results = []
    for features, labels in (
        (x, y),
        (x.tolist(), y.tolist()),
        (array_api_strict.asarray(x), array_api_strict.asarray(y)),
    ):
        net = classifier(input_scale=1 / 255)
        net.fit(features, labels, epochs=1, batch_size=10, loss="softmax_cross_entropy")
        results.append(net.get_weights()["layers.0.weight"])
    for result in results[1:]:
        np.testing.assert_allclose(result, results[0], rtol=1e-6, atol=1e-7)


def test_features_keep_bytes_and_convert_the_rest():
    assert check_features(np.ones((2, 3), np.uint8), (3,), np.float32).dtype == np.uint8
    for dtype in (np.int16, np.bool_, np.float64, np.uint16):
        assert check_features(np.ones((2, 3), dtype), (3,), np.float32).dtype == np.float32
    fortran = np.asfortranarray(np.ones((4, 3), np.uint8))
    assert check_features(fortran, (3,), np.float32).flags.c_contiguous


def test_samples_of_another_shape_are_refused_even_if_their_size_fits():
    with pytest.raises(InvalidInputError, match=r"samples must have shape \(3, 4\), received \(4, 3\)"):
        check_features(np.ones((2, 4, 3)), (3, 4), np.float32)


@pytest.mark.parametrize(
    ("input_shape", "shape", "remedy"),
    [
        ((9, 9, 1), (6, 1, 9, 9), "np.moveaxis(x, 1, -1)"),
        ((9, 8, 3), (6, 3, 9, 8), "np.moveaxis(x, 1, -1)"),
        ((12, 3), (6, 3, 12), "np.moveaxis(x, 1, -1)"),
        ((9, 9, 1), (6, 9, 9), "x[..., None]"),
        ((9, 9, 1), (1, 9, 9), "x[..., None]"),
        ((9, 9, 1), (9, 9, 1), "x[None]"),
        ((9, 9, 1), (9, 9), "x[None, ..., None]"),
        ((9, 8, 3), (3, 9, 8), "np.moveaxis(x, 0, -1)[None]"),
    ],
)
@pytest.mark.parametrize("how", ["fit", "evaluate", "predict", "train_on_batch"])
def test_the_remedy_for_misplaced_channels_works(input_shape, shape, remedy, how):
    convolution = nn.Conv2D(2, 3) if len(input_shape) == 3 else nn.Conv1D(2, 3)
    net = nn.Network([convolution, nn.Flatten(), nn.Dense(2)], input_shape, backend="numpy")
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    rows = x.size // math.prod(input_shape)
    y = np.arange(rows) % 2
    use = {
        "fit": lambda x: net.fit(x, y, epochs=1, loss="softmax_cross_entropy", verbose=False),
        "evaluate": lambda x: net.evaluate(x, y, loss="softmax_cross_entropy"),
        "predict": net.predict,
        "train_on_batch": lambda x: net.train_on_batch(x, y, loss="softmax_cross_entropy"),
    }[how]
    before = net.get_weights()
    with pytest.raises(InvalidInputError, match=f"{re.escape(remedy)}( |$)"):
        use(x)
    assert all(np.array_equal(before[name], array) for name, array in net.get_weights().items())
    mended = eval(remedy)
    assert mended.shape == (rows, *input_shape)
    use(mended)


def test_a_network_defined_with_channels_first_says_so():
    with pytest.warns(UserWarning, match="for 3 channels"):
        net = nn.Network([nn.Conv2D(2, 3, padding="same"), nn.Flatten(), nn.Dense(2)], (3, 9, 9), backend="numpy")
    with pytest.raises(InvalidInputError, match=r"if \(3, 9, 9\) is channels first, make it input_shape=\(9, 9, 3\)$"):
        net.predict(np.ones((2, 9, 9, 3)))


def test_scaled_rows_are_what_the_gather_gives():
    rows = np.array([[0, 51, 255]], np.uint8)
    np.testing.assert_allclose(scaled_rows(rows, 1 / 255, np.float64), [[0, 0.2, 1]])
    np.testing.assert_allclose(scaled_rows(rows, 1.0, np.float64), [[0, 51, 255]])
