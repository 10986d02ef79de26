"""Philox4x32-10 for jitted code; see :mod:`nnbackend.backends.philox` for the plain form."""

from __future__ import annotations

import numpy as np

from nnbackend.backends.numba.jit import internal_as_written

__all__ = ["philox"]


@internal_as_written
def philox(block, stream, step, key0, key1):
    """The four words of a block of a stream at one step, as uint64 below 2**32."""
    low = np.uint64(0xFFFFFFFF)
    shift = np.uint64(32)
    multiplier0 = np.uint64(0xD2511F53)
    multiplier1 = np.uint64(0xCD9E8D57)
    weyl0 = np.uint64(0x9E3779B9)
    weyl1 = np.uint64(0xBB67AE85)
    c0 = np.uint64(block) & low
    c1 = np.uint64(stream)
    c2 = np.uint64(step) & low
    c3 = np.uint64(step) >> shift
    k0 = np.uint64(key0)
    k1 = np.uint64(key1)
    for _ in range(10):
        product0 = c0 * multiplier0
        product1 = c2 * multiplier1
        c0 = (product1 >> shift) ^ c1 ^ k0
        c1 = product1 & low
        c2 = (product0 >> shift) ^ c3 ^ k1
        c3 = product0 & low
        k0 = (k0 + weyl0) & low
        k1 = (k1 + weyl1) & low
    return c0, c1, c2, c3
