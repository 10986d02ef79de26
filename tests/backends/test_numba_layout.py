"""The bits of an operation do not depend on where its arrays are in memory.

LLVM compiles a loop that sums and writes twice: with vectors, and without them for arrays that may overlap or lie close
to each other. The two round differently.
"""

from __future__ import annotations

import numpy as np
import pytest

from nnbackend.backends.contract import Call
from nnbackend.backends.numba import NumbaBackend
from tests.backends.cupy.cases import CASES, make
from tests.backends.cupy.comparison import Case, Double

#: Distances between arrays, in elements.
GAPS = (0, 0, 1, 2, 3, 4, 7, 9, 16, 33)

BACKEND = NumbaBackend(threads=1)


def results(case: Case, dtype: str, seed: int) -> bytes:
    """All arrays of a case after its call, in some order and with some gaps in one piece of memory."""
    draw = np.random.default_rng(seed)
    arrays = {id(value): value for value in case.arguments if isinstance(value, np.ndarray)}
    memory = np.zeros(sum(8 * (array.size + 2 * max(GAPS)) for array in arrays.values()), np.uint8)
    placed, begin = {}, 8 * int(draw.integers(8))
    for key in draw.permutation(list(arrays)).tolist():
        host = np.asarray(arrays[key])
        if host.dtype == np.float64 and not isinstance(arrays[key], Double):
            host = host.astype(dtype)
        begin += -begin % host.itemsize
        placed[key] = memory[begin : begin + host.nbytes].view(host.dtype).reshape(host.shape)
        placed[key][...] = host
        begin += host.nbytes + host.itemsize * int(draw.choice(GAPS))
    arguments = [placed.get(id(value), value) for value in case.arguments]
    BACKEND.executor([Call.of(case.operation, *arguments)]).run(1)
    return b"".join(array.tobytes() for key in arrays for array in [placed[key]])


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", CASES)
def test_every_operation(name, dtype):
    for size in ((4, 8, 8), (3, 4, 3), (17, 16, 5)):
        case = make(name, *size, seed=1)
        first, *others = (results(case, dtype, seed) for seed in range(8))
        assert all(other == first for other in others), size
