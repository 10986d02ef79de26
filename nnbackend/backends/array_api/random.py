"""Philox4x32-10 in the int64 numbers of any library; see :mod:`nnbackend.backends.philox`, whose words these are."""

from __future__ import annotations

from typing import Any

from nnbackend.backends.arrays import Array
from nnbackend.backends.philox import MULTIPLIERS, ROUNDS, WEYL

__all__ = ["uniform_words"]

_LOW = 0xFFFFFFFF


def uniform_words(xp: Any, device: Any, size: int, seed: int, stream: int, step: int, first: int) -> Array:
    """Words for one stream at one step, from word `first` on: (size,) int64, each below 2**32.

    A product of two 32-bit numbers may exceed int64 and wraps around. Its bits are still those of the product, so that
    a shift and a mask give the upper half.
    """
    begin, end = first // 4, -(-(first + size) // 4)
    blocks = xp.arange(begin, end, dtype=xp.int64, device=device) & _LOW
    # Numbers until the first round mixes them with the blocks, which saves half of it.
    words: list[Any] = [blocks, stream & _LOW, step & _LOW, (step >> 32) & _LOW]
    key = [seed & _LOW, (seed >> 32) & _LOW]
    for _ in range(ROUNDS):
        c0, c1, c2, c3 = words
        product0, product1 = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        words = [
            ((product1 >> 32) & _LOW) ^ (c1 ^ key[0]),
            product1 & _LOW,
            ((product0 >> 32) & _LOW) ^ (c3 ^ key[1]),
            product0 & _LOW,
        ]
        key = [(each + step_) & _LOW for each, step_ in zip(key, WEYL, strict=True)]
    result = xp.reshape(xp.stack(words, axis=1), (-1,))
    return result[first % 4 : first % 4 + size]
