"""Philox4x32-10 in NumPy: random numbers that are the same on every backend.

Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011. A counter-based generator:
word k of a stream is a pure function of the key and k, so there is no state, and the order of work does not matter.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["MULTIPLIERS", "ROUNDS", "WEYL", "block_words", "keep_threshold", "philox4x32", "uniform_words"]

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10

_MULTIPLIER_0, _MULTIPLIER_1 = map(np.uint64, MULTIPLIERS)
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)

Words = npt.NDArray[np.uint64]


def philox4x32(counter: tuple[Words, Words, Words, Words], key: tuple[int, int]) -> npt.NDArray[np.uint32]:
    """Ten rounds of Philox on arrays of counters.

    Parameters
    ----------
    counter : four uint64 arrays, of shape (n,) or of shapes that broadcast to it, each element below 2**32
    key : two ints below 2**32

    Returns
    -------
    (n, 4) uint32
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        product0 = c0 * _MULTIPLIER_0
        product1 = c2 * _MULTIPLIER_1
        c0, c1, c2, c3 = (
            (product1 >> _HALF) ^ c1 ^ np.uint64(k0),
            product1 & _LOW,
            (product0 >> _HALF) ^ c3 ^ np.uint64(k1),
            product0 & _LOW,
        )
        k0 = (k0 + WEYL[0]) & 0xFFFFFFFF
        k1 = (k1 + WEYL[1]) & 0xFFFFFFFF
    result = np.empty((*np.broadcast_shapes(*map(np.shape, counter)), 4), np.uint32)
    for column, words in enumerate((c0, c1, c2, c3)):
        result[:, column] = words
    return result


def uniform_words(size: int, seed: int, stream: int, step: int, first: int = 0) -> npt.NDArray[np.uint32]:
    """Words for one dropout layer (`stream`) at one step, starting at word `first`; see ``Backend.dropout``."""
    blocks = np.arange(first // 4, -(-(first + size) // 4), dtype=np.uint64)
    return block_words(blocks, seed, stream, step).reshape(-1)[first % 4 :][:size]


def block_words(blocks: Words, seed: int, stream: int, step: int) -> npt.NDArray[np.uint32]:
    """The four words of each of these blocks of a stream at one step, shape (n, 4)."""

    def constant(value: int) -> Words:
        return np.array([value & 0xFFFFFFFF], np.uint64)

    counter = (blocks & _LOW, constant(stream), constant(step), constant(step >> 32))
    return philox4x32(counter, (seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF))


def keep_threshold(rate: float) -> int:
    """The smallest word for which an element is kept."""
    return round(rate * 2**32)
