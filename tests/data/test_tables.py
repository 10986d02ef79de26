"""Rows from DataFrames and from tables in files."""

from __future__ import annotations

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.data.inputs import as_host_array
from tests.helpers import classifier, images, same_weights

OPTIONS = {"batch_size": 8, "epochs": 2, "loss": "softmax_cross_entropy", "shuffle": False, "verbose": False}
NAMES = [f"pixel {number}" for number in range(12)]


@pytest.fixture
def rows():
    x, y = images(rows=75)
    return x / np.float32(255), y


@pytest.fixture
def trained(rows):
    network = classifier()
    network.fit(*rows, **OPTIONS)
    return network


# ---- DataFrames -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_frames_and_their_columns_are_arrays(library, rows, trained):
    module = pytest.importorskip(library, reason=f"{library} is not installed")
    x, y = rows
    frame = module.DataFrame({**dict(zip(NAMES, x.T, strict=True)), "digit": y})
    network = classifier()
    network.fit(frame[NAMES], frame["digit"], **OPTIONS)
    assert same_weights(network, trained)
    np.testing.assert_array_equal(network.predict(frame[NAMES]), trained.predict(x))


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_a_data_frame_of_strings_is_rejected(library):
    module = pytest.importorskip(library, reason=f"{library} is not installed")
    frame = module.DataFrame({"a": [1.0, 2.0], "b": ["one", "two"]})
    with pytest.raises(
        nn.errors.InvalidInputError, match=r"x must hold numbers, but column 'b' holds text \((str|String)\); encode it"
    ):
        as_host_array("x", frame)


def test_a_table_of_arrow_has_columns_and_no_rows(rows, trained):
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    x, y = rows
    table = pyarrow.table(dict(zip(NAMES, x.T, strict=True)))
    np.testing.assert_array_equal(as_host_array("x", table), x)
    np.testing.assert_array_equal(as_host_array("y", pyarrow.array(y)), y)


# ---- Parquet --------------------------------------------------------------------------------------------------------


@pytest.fixture
def parquet(tmp_path, rows):
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    from pyarrow.parquet import write_table

    x, y = rows
    path = tmp_path / "digits.parquet"
    columns = {"digit": y.astype(np.int8), **dict(zip(NAMES, x.T, strict=True)), "name": [str(label) for label in y]}
    write_table(pyarrow.table(columns), path, row_group_size=20)
    return path


def test_a_parquet_file_in_memory(parquet, rows, trained):
    x, y = nn.datasets.read_parquet(parquet, "digit", NAMES)
    assert x.dtype == np.float32
    np.testing.assert_array_equal(x, rows[0])
    np.testing.assert_array_equal(y, rows[1])
    x, _ = nn.datasets.read_parquet(parquet, "digit", NAMES[::-2])
    np.testing.assert_array_equal(x, rows[0][:, ::-2])


def test_a_parquet_file_as_a_stream(parquet, trained):
    stream = nn.datasets.stream_parquet(parquet, "digit", NAMES, batch_rows=13)
    network = classifier()
    network.fit(stream, **OPTIONS)
    assert same_weights(network, trained)
    assert repr(stream) == "<BatchStream of 75 rows an epoch>"


def test_numbers_of_64_bits_keep_them(tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    from pyarrow.parquet import write_table

    write_table(pyarrow.table({"a": [2**40 + 1], "b": np.float32([0.5]), "y": [True]}), tmp_path / "wide.parquet")
    x, y = nn.datasets.read_parquet(tmp_path / "wide.parquet", "y")
    np.testing.assert_array_equal(x, [[2.0**40 + 1, 0.5]])
    np.testing.assert_array_equal(y, [True])


def test_errors_of_parquet_files(parquet, tmp_path):
    import pyarrow
    from pyarrow.parquet import write_table

    for read in (nn.datasets.read_parquet, nn.datasets.stream_parquet):
        with pytest.raises(nn.errors.UnknownNameError, match="'label'"):
            read(parquet, "label")
        with pytest.raises(nn.errors.UnknownNameError, match="'pixel 12'"):
            read(parquet, "digit", ["pixel 12"])
        with pytest.raises(nn.errors.DataError, match=r"nowhere\.parquet cannot be opened"):
            read(tmp_path / "nowhere.parquet", "digit")
    with pytest.raises(nn.errors.DataError, match=r"column 'name' of .* is not numeric"):
        nn.datasets.read_parquet(parquet, "digit")
    (tmp_path / "other.parquet").write_bytes(b"no table")
    with pytest.raises(nn.errors.DataError, match=r"other\.parquet cannot be opened as a Parquet file"):
        nn.datasets.read_parquet(tmp_path / "other.parquet", "digit")
    write_table(pyarrow.table({"a": [1.0, None], "y": [0, 1]}), tmp_path / "holes.parquet")
    with pytest.raises(nn.errors.DataError, match=r"column 'a' of .* missing values"):
        nn.datasets.read_parquet(tmp_path / "holes.parquet", "y")
    write_table(pyarrow.table({"y": [0, 1]}), tmp_path / "alone.parquet")
    with pytest.raises(nn.errors.DataError, match="no column besides the target"):
        nn.datasets.read_parquet(tmp_path / "alone.parquet", "y")


# ---- HDF5 -----------------------------------------------------------------------------------------------------------


def test_an_hdf5_file(tmp_path, rows, trained):
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    x, y = rows
    with h5py.File(tmp_path / "digits.h5", "w") as file:
        file["train/x"], file["train/y"], file["note"] = x, y, "hello"
    there, targets = nn.datasets.open_hdf5(tmp_path / "digits.h5", "train/x", "train/y")
    network = classifier()
    network.fit(there, targets, stream=True, **OPTIONS)
    assert same_weights(network, trained)
    with pytest.raises(nn.errors.UnknownNameError, match=r"'x'.*train/x"):
        nn.datasets.open_hdf5(tmp_path / "digits.h5")
    with pytest.raises(nn.errors.UnknownNameError, match="'train'"):
        nn.datasets.open_hdf5(tmp_path / "digits.h5", "train", "train/y")
    with pytest.raises(nn.errors.DataError, match=r"nowhere\.h5 cannot be opened"):
        nn.datasets.open_hdf5(tmp_path / "nowhere.h5")


@pytest.mark.parametrize(("library", "ask"), [("pyarrow", "read_parquet"), ("h5py", "open_hdf5")])
def test_a_missing_package_is_named(library, ask, tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.setitem(sys.modules, f"{library}.parquet", None)
    with pytest.raises(ImportError, match=rf'package {library}: pip install -e "\.\[tables\]"'):
        getattr(nn.datasets, ask)(tmp_path / "file", "y")
