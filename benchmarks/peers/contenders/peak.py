"""The peak speed of the cores: as many multiply-adds as a step, without memory access."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from benchmarks.peers.contenders.base import Contender, Training
from benchmarks.peers.data import Weights
from benchmarks.peers.works import Work
from nnbackend.backends.numba.simd import INTEGER, Simd
from nnbackend.backends.numba.tile_shape import VectorUnit

__all__ = ["Peak", "multiply_adds", "rounds_for"]

_UNIT = VectorUnit.of_this_cpu()
_LANES = _UNIT.width // 4

#: Number of independent sums. Ten keep a CPU busy that starts two multiply-adds per cycle with a latency of four or
#: five cycles; two registers must remain for the factors.
_CHAINS = 24 if _UNIT.registers >= 32 else 12

#: Multiply-adds per chain in an iteration, so that the loop has negligible cost.
_UNROLLED = 4

#: Multiplications and additions per iteration.
_ROUND_FLOPS = 2 * _UNROLLED * _CHAINS * _LANES


@intrinsic
def _loop(typing_context: Any, rounds: Any) -> Any:
    """``for _ in range(rounds): s = s * 0.5 + 0.25`` in many registers at once, which converges to 0.5."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        simd = Simd(builder, "float32", _LANES, _UNIT.fused)

        def constant(value: float) -> ir.Constant:
            return ir.Constant(simd.vector, [value] * _LANES)

        def body(_: Any, sums: list[Any]) -> list[Any]:
            for _ in range(_UNROLLED):
                sums = [simd.multiply_add(s, constant(0.5), constant(0.25)) for s in sums]
            return sums

        # Identical sums would be computed only once.
        initial = [constant(float(number)) for number in range(_CHAINS)]
        total, *others = simd.repeat(ir.Constant(INTEGER, 0), arguments[0], 1, initial, body)
        # Use all sums in the result, so that the compiler does not remove them.
        for other in others:
            total = builder.fadd(total, other)
        return builder.extract_element(total, ir.Constant(ir.IntType(32), 0))

    return types.float32(types.intp), generate


@njit("float32(intp)", nogil=True)
def multiply_adds(rounds: int) -> float:
    """Run `rounds` rounds on the calling thread; returns half the number of chains."""
    return _loop(rounds)


def rounds_for(flops: float, threads: int) -> int:
    """Rounds per thread for a total number of multiplications and additions."""
    return max(1, round(flops / (_ROUND_FLOPS * threads)))


class _Run(Training):
    def __init__(self, work: Work, threads: int) -> None:
        self._work, self._threads = work, threads
        self._pool = ThreadPoolExecutor(threads)

    def losses(self, batches: NDArray[np.int64]) -> list[float]:
        return []

    def shuffle(self) -> None:
        """There is nothing to shuffle."""

    def run(self, steps: int) -> None:
        rounds = rounds_for(steps * self._work.flops, self._threads)
        for total in self._pool.map(multiply_adds, [rounds] * self._threads):
            assert np.isclose(total, _CHAINS / 2) or rounds < 10


class Peak(Contender):
    """Takes part in the rounds like a library, so that it is measured in the same period."""

    def load(self, x: NDArray[np.uint8], y: NDArray[np.int64]) -> None:
        """It needs no images."""

    def build(self, work: Work, weights: Weights) -> Training:
        return _Run(work, self.threads)
