"""Damaged HDF5 and Parquet files, and those that claim more than they hold: one DataError that names the file."""

from __future__ import annotations

import os
import random
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.datasets import open_hdf5, read_parquet, stream_parquet, tables
from nnbackend.errors import DataError, InvalidInputError, NNBackendError
from tests.helpers import classifier

OPTIONS = {"epochs": 1, "batch_size": 4, "loss": "softmax_cross_entropy", "verbose": False}


def peak(work) -> int:
    """The most memory that some work took."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


class TestHdf5:
    h5py = pytest.importorskip("h5py")

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "rows.h5"

    def write(self, path: Path, count: int, **targets) -> None:
        with self.h5py.File(path, "w") as file:
            x = np.random.default_rng(0).normal(size=(count, 12)).astype("f4")
            file.create_dataset("x", data=x, chunks=(4, 12), compression="gzip", shuffle=True)
            file.create_dataset("y", **(targets or {"data": np.arange(count) % 4}))

    @pytest.mark.parametrize("rows", [300_000_000, 90_000_000])
    def test_targets_that_are_not_there(self, path: Path, rows: int):
        """Some kilobytes that claim gigabytes, or other numbers than there are rows."""
        self.write(path, 8, shape=(rows,), dtype="i8", chunks=(1024,))
        assert path.stat().st_size < 10_000

        def use():
            with pytest.raises(DataError, match=r"rows\.h5.*(is said to have 2,400,000,000 bytes|8 rows.*90,000,000)"):
                open_hdf5(path)
            with (
                self.h5py.File(path) as file,
                pytest.raises((DataError, InvalidInputError), match="rows"),
            ):
                classifier().fit(file["x"], file["y"], **OPTIONS)

        assert peak(use) < 10 << 20

    def test_a_chunk_larger_than_everything(self, path: Path):
        with self.h5py.File(path, "w") as file:
            file.create_dataset("x", (8, 12), "f4", maxshape=(None, 12), chunks=(2**26, 12), compression="gzip")
            file.create_dataset("y", data=np.arange(8))
        with pytest.raises(DataError, match=r"is said to have 3,221,225,472 bytes"):
            open_hdf5(path)

    def test_a_single_value_is_not_a_row_each(self, path: Path):
        self.write(path, 8, data=5)
        with pytest.raises(DataError, match=r"'y' in .*rows\.h5 is a single value"):
            open_hdf5(path)

    def test_constant_rows_that_are_compressed_well_are_read(self, path: Path):
        with self.h5py.File(path, "w") as file:
            file.create_dataset("x", data=np.zeros((4000, 12), "f4"), chunks=(4000, 12), compression="gzip")
            file.create_dataset("y", data=np.arange(4000) % 4, compression="gzip")
        x, y = open_hdf5(path)
        classifier().fit(x, y, **{**OPTIONS, "batch_size": 1000})

    def test_damage_is_one_error(self, path: Path):
        self.write(path, 64)
        whole = path.read_bytes()
        chance = random.Random(0)
        outcomes, unnamed = set(), []
        for number in range(150):
            # A new name each time, because HDF5 identifies open files by name.
            damaged = path.with_name(f"damaged-{number}.h5")
            data = bytearray(whole)
            if number % 3:
                for _ in range(chance.choice((1, 20))):
                    data[chance.randrange(len(data))] = chance.randrange(256)
            else:
                del data[chance.randrange(len(data)) :]
            damaged.write_bytes(data)
            try:
                x, y = open_hdf5(damaged)
                classifier().fit(x, y, **OPTIONS)
                outcomes.add("read")
            except NNBackendError as error:
                outcomes.add(type(error).__name__)
                unnamed += [str(error)] if isinstance(error, DataError) and damaged.name not in str(error) else []
        assert "DataError" in outcomes
        assert unnamed == []

    def test_pipes_are_not_waited_for(self, path: Path):
        os.mkfifo(path)
        with pytest.raises(DataError, match=r"rows\.h5 cannot be opened.*not a regular file"):
            open_hdf5(path)


class TestParquet:
    parquet = pytest.importorskip("pyarrow.parquet")

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        import pyarrow

        path = tmp_path / "rows.parquet"
        columns = {f"c{number}": np.random.default_rng(number).normal(size=64) for number in range(3)}
        self.parquet.write_table(pyarrow.table({**columns, "label": np.arange(64) % 2}), path)
        return path

    def test_damage_is_one_error(self, path: Path):
        whole = path.read_bytes()
        chance = random.Random(0)
        outcomes, unnamed = set(), []
        for number in range(150):
            data = bytearray(whole)
            if number % 3:
                for _ in range(chance.choice((1, 20))):
                    data[chance.randrange(len(data))] = chance.randrange(256)
            else:
                del data[chance.randrange(len(data)) :]
            path.write_bytes(data)
            for read in (read_parquet, lambda path, target: list(stream_parquet(path, target).pieces(1))):
                try:
                    read(path, "label")
                    outcomes.add("read")
                except NNBackendError as error:
                    outcomes.add(type(error).__name__)
                    unnamed += [str(error)] if isinstance(error, DataError) and path.name not in str(error) else []
        assert {"DataError", "read"} <= outcomes
        assert unnamed == []

    def test_a_table_larger_than_memory(self, path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(tables, "machine_memory", lambda: 1000)
        with pytest.raises(DataError, match=r"64 rows of 4 columns.*at least 1\.0 kB.*1\.0 kB; use stream_parquet"):
            read_parquet(path, "label")
        network = nn.Network([nn.Dense(2)], 3, "numpy")
        network.fit(stream_parquet(path, "label"), **OPTIONS)

    def test_pipes_are_not_waited_for(self, tmp_path: Path):
        os.mkfifo(tmp_path / "pipe.parquet")
        with pytest.raises(DataError, match=r"pipe\.parquet cannot be opened.*not a regular file"):
            read_parquet(tmp_path / "pipe.parquet", "label")
