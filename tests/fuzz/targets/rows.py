"""Rows in files: HDF5, and NumPy's .npy files mapped into memory."""

from __future__ import annotations

import random
import struct
import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np

import nnbackend as nn
from nnbackend.data.rows import as_rows
from tests.fuzz.mutations import mutate
from tests.fuzz.targets.base import Target

__all__ = ["RowsTarget"]

_HDF5 = b"\x89HDF"
_FEATURES = 12


class RowsTarget(Target):
    """Train and predict on rows in files. Opening the file with h5py or NumPy is not part of the target."""

    name = "rows"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._network = nn.Network([nn.Dense(3)], _FEATURES, backend="numpy", input_scale=1)
        self._opened = 0

    def mutate(self, chance: random.Random, data: bytes, other: bytes) -> bytes:
        if data.startswith(b"\x93NUMPY") and chance.random() < 0.6:
            kind = chance.choice(
                ("<f4", "|u1", "<f8", ">i4", "|O", "<U3", "|b1", "<c8", "<f2", "<M8[s]", "[('a', '<f4')]")
            )
            shape = (chance.choice((0, 1, 5, 2**20, 2**40)), chance.choice((_FEATURES, _FEATURES, 1, 0)))
            text = f"{{'descr': {kind!r}, 'fortran_order': {chance.random() < 0.3}, 'shape': {shape}, }}"
            body = chance.randbytes(240)
            return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text) + 1) + text.encode() + b"\n" + body
        return mutate(chance, data, other)

    def run(self, data: bytes) -> None:
        # A new name each time, because HDF5 identifies open files by name.
        self._opened += 1
        path = self.folder / f"rows-{self._opened % 64}"
        path.write_bytes(data)
        try:
            if data.startswith(_HDF5):
                self._hdf5(path)
            else:
                self._use(_mapped(path))
        finally:
            path.unlink()

    def _hdf5(self, path: Path) -> None:
        try:
            file = h5py.File(path, "r")
        except Exception:
            return
        with file:
            try:
                x = file["x"]
                good = isinstance(x, h5py.Dataset) and len(x.shape) > 0 and x.dtype is not None
            except Exception:
                return
            if good:
                self._use(x)

    def _use(self, x: Any) -> None:
        if x is None:
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            rows = as_rows(x, (_FEATURES,), np.dtype(np.float32))
            if rows.count > 1000:
                return
            self._network.predict(x)
            y = np.zeros((rows.count, 3), np.float32)
            self._network.fit(x, y, epochs=1, batch_size=rows.count, loss="mean_squared_error", verbose=False)
            self._network = nn.Network([nn.Dense(3)], _FEATURES, backend="numpy", input_scale=1)


def _mapped(path: Path) -> Any:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception:
        return None
