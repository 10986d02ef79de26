"""Images for ``nnbackend predict``."""

from __future__ import annotations

import random
import struct
import warnings
import zlib
from pathlib import Path

from nnbackend.cli.images import read_images
from tests.fuzz.mutations import extreme, mutate
from tests.fuzz.targets.base import CORPUS, Target
from tests.fuzz.targets.idx import mutate_idx

__all__ = ["ImageTarget"]

_PNG = b"\x89PNG\r\n\x1a\n"
_KINDS = (
    b"IHDR",
    b"IDAT",
    b"PLTE",
    b"tRNS",
    b"iCCP",
    b"zTXt",
    b"iTXt",
    b"tEXt",
    b"eXIf",
    b"acTL",
    b"fcTL",
    b"fdAT",
    b"IEND",
)


def _chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    found, place = [], len(_PNG)
    while place + 12 <= len(data):
        (size,) = struct.unpack(">I", data[place : place + 4])
        found.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + size]))
        place += 12 + size
    return found


def _png(chunks: list[tuple[bytes, bytes]]) -> bytes:
    """Correct the checksums, which would detect most damage otherwise."""
    parts = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    ]
    return _PNG + b"".join(parts)


class ImageTarget(Target):
    """`read_images`, for networks that take 8 x 8 and 28 x 28 pixels."""

    name = "image"
    share = 3
    #: A few bytes can be a picture with the most pixels that are decoded, in four bytes each and several forms.
    most_memory = 400 << 20

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.seeds += [path.read_bytes() for path in sorted((CORPUS / "idx").iterdir())]

    def mutate(self, chance: random.Random, data: bytes, other: bytes) -> bytes:
        if data[:2] in (b"\0\0", b"\x1f\x8b"):
            return mutate_idx(chance, data, other)
        chunks = _chunks(data) if data.startswith(_PNG) else []
        if not chunks or chance.random() < 0.3:
            return mutate(chance, data, other)
        place = chance.randrange(len(chunks))
        kind, body = chunks[place]
        way = chance.randrange(5)
        if way == 0:
            start = chance.choice((0, 4, 8, 9, 10, 11, 12))
            chunks[place] = kind, body[:start] + extreme(chance, chance.choice((1, 4))) + body[start + 4 :]
        elif way == 1:
            chunks[place] = kind, mutate(chance, body or b"\0")
        elif way == 2:
            chunks.insert(place, (chance.choice(_KINDS), chance.choice(chunks)[1]))
        elif way == 3:
            text = zlib.compress(bytes(chance.choice((10, 10**6, 3 * 10**6))), 9)
            chunks.insert(place, (chance.choice((b"zTXt", b"iCCP", b"iTXt", b"IDAT")), b"name\0\0" + text))
        else:
            chunks[place] = kind, zlib.compress(mutate(chance, bytes(72)))
        return _png(chunks)

    def run(self, data: bytes) -> None:
        path = self.folder / "image"
        path.write_bytes(data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pillow warns of much that it then reads
            side = 28 if len(data) % 2 else 8
            images = read_images(str(path), (side, side))
        assert images.shape[1:] == (side * side,)
