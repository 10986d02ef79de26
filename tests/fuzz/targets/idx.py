"""IDX files, gzipped or not, and folders of four of them."""

from __future__ import annotations

import gzip
import random
import struct
import zlib
from pathlib import Path

import numpy as np

from nnbackend import datasets
from nnbackend.datasets import read_idx, write_idx
from tests.fuzz.mutations import extreme, mutate
from tests.fuzz.targets.base import Target

__all__ = ["IdxTarget", "MnistTarget"]

_GZIP = b"\x1f\x8b"


def _bomb(megabytes: int) -> bytes:
    """A gzipped IDX file with a correct header and only zeros."""
    size = megabytes << 20
    squeezer = zlib.compressobj(9, zlib.DEFLATED, 31)
    parts = [squeezer.compress(struct.pack(">BBBBI", 0, 0, 8, 1, size))]
    parts += [squeezer.compress(bytes(1 << 20)) for _ in range(megabytes)]
    return b"".join([*parts, squeezer.flush()])


def _contents(data: bytes) -> bytes:
    try:
        return zlib.decompressobj(31).decompress(data, 1 << 16) if data[:2] == _GZIP else data
    except zlib.error:
        return data


def mutate_idx(chance: random.Random, data: bytes, other: bytes) -> bytes:
    """Mutate the file itself, the contents of a valid gzip stream, or the header."""
    way = chance.random()
    if way < 0.3:
        return mutate(chance, data, other)
    contents = bytearray(_contents(data))
    if way < 0.6 and len(contents) > 4:
        if chance.random() < 0.4:
            contents[2:4] = bytes((chance.choice((8, 9, 10, 11, 12, 13, 14)), chance.choice((0, 1, 2, 3, 32, 33, 255))))
        place = 4 * chance.randrange(1, 5)
        contents[place : place + 4] = extreme(chance, 4)
    else:
        contents = bytearray(mutate(chance, bytes(contents), _contents(other)))
    if chance.random() < 0.6:
        return bytes(contents)
    packed = gzip.compress(contents, chance.choice((0, 1, 9)), mtime=0)
    if chance.random() < 0.1:
        packed = packed * chance.choice((2, 50)) + bytes(chance.randrange(3000))
    return packed


class IdxTarget(Target):
    """`read_idx`."""

    name = "idx"
    share = 7
    #: 1032 times the longest input, and the memory for reading.
    most_memory = 144 << 20

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._bombs = [_bomb(1), _bomb(8), gzip.compress(bytes(4 << 20), mtime=0)]

    def mutate(self, chance: random.Random, data: bytes, other: bytes) -> bytes:
        if chance.random() < 0.002:
            # Much work: a few must do.
            data = chance.choice(self._bombs)
        return mutate_idx(chance, data, other)

    def run(self, data: bytes) -> None:
        path = self.folder / "file"
        path.write_bytes(data)
        array = read_idx(path)
        assert array.size > 0
        assert array.dtype.isnative


class MnistTarget(Target):
    """`datasets.load` on a folder with MNIST's four files, one of which is the input."""

    name = "mnist"
    most_memory = IdxTarget.most_memory

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        generator = np.random.default_rng(0)
        self._names = []
        for kind, rows in (("train", 6), ("t10k", 3)):
            self._names += [f"{kind}-images-idx3-ubyte", f"{kind}-labels-idx1-ubyte"]
            write_idx(folder / self._names[-2], generator.integers(0, 256, (rows, 28, 28)).astype(np.uint8))
            write_idx(folder / self._names[-1], generator.integers(0, 10, rows).astype(np.uint8))
        self._good = [(folder / name).read_bytes() for name in self._names]
        self.seeds += [bytes((place,)) + good for place, good in enumerate(self._good)]

    def mutate(self, chance: random.Random, data: bytes, other: bytes) -> bytes:
        # The first byte selects one of the four files.
        return data[:1] + mutate_idx(chance, data[1:], other[1:])

    def run(self, data: bytes) -> None:
        place = (data[:1] or b"\0")[0] % 4
        path = self.folder / self._names[place]
        path.write_bytes(data[1:])
        try:
            data_set = datasets.load("mnist", folder=self.folder, download=False)
        finally:
            path.write_bytes(self._good[place])
        assert data_set.x_train.shape == (len(data_set.y_train), 784)
        assert max(data_set.y_train.max(), data_set.y_test.max()) < 10
