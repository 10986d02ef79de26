"""Mutations of bytes: flipped, truncated, spliced and repeated bytes, and wrong numbers."""

from __future__ import annotations

import random

__all__ = ["LONGEST", "extreme", "mutate"]

#: Longest input in bytes.
LONGEST = 1 << 17

#: Values at the limits of integer types.
_EDGES = [0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]
_EDGES += [2**31 - 1, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1]


def extreme(chance: random.Random, size: int) -> bytes:
    """A limit value in a number of bytes, in either byte order."""
    value = chance.choice(_EDGES) + chance.choice((0, 0, -1, 1))
    return (value % 256**size).to_bytes(size, chance.choice(("little", "big")))


def _flip(chance: random.Random, data: bytearray, other: bytes) -> None:
    for _ in range(chance.choice((1, 1, 2, 8))):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _set(chance: random.Random, data: bytearray, other: bytes) -> None:
    data[chance.randrange(len(data))] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))


def _lie(chance: random.Random, data: bytearray, other: bytes) -> None:
    # In most formats, sizes and offsets are near the beginning.
    size = chance.choice((1, 2, 4, 4, 8))
    end = min(len(data), 64) if chance.random() < 0.6 else len(data)
    place = chance.randrange(end)
    data[place : place + size] = extreme(chance, size)


def _cut(chance: random.Random, data: bytearray, other: bytes) -> None:
    del data[chance.randrange(len(data)) :]


def _remove(chance: random.Random, data: bytearray, other: bytes) -> None:
    place = chance.randrange(len(data))
    del data[place : place + chance.randrange(1, 17)]


def _repeat(chance: random.Random, data: bytearray, other: bytes) -> None:
    place = chance.randrange(len(data))
    part = data[place : place + chance.randrange(1, 65)]
    data[place:place] = part * chance.choice((1, 2, 10, 100))


def _insert(chance: random.Random, data: bytearray, other: bytes) -> None:
    place = chance.randrange(len(data) + 1)
    data[place:place] = chance.randbytes(chance.randrange(1, 17))


def _splice(chance: random.Random, data: bytearray, other: bytes) -> None:
    if other:
        data[chance.randrange(len(data)) :] = other[chance.randrange(len(other)) :]


def _append(chance: random.Random, data: bytearray, other: bytes) -> None:
    data += chance.choice((b"\0", bytes(chance.randrange(200)), other, chance.randbytes(9)))


_WAYS = (_flip, _flip, _set, _lie, _lie, _cut, _remove, _repeat, _insert, _splice, _append)


def mutate(chance: random.Random, data: bytes, other: bytes = b"") -> bytes:
    """Mutate `data` in one to four ways, possibly with parts of `other`."""
    broken = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 2, 4))):
        if not broken:
            broken = bytearray(other or b"\0")
        chance.choice(_WAYS)(chance, broken, other)
    return bytes(broken[:LONGEST])
