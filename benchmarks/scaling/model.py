"""Model the time of a step on any number of ranks: arithmetic by a roofline, the sum by latency and bandwidth.

A step with a batch of B rows on N ranks takes

    t(N) = fixed + flops(B / N) / speed + (1 - hidden) allreduce(N)

`fixed` and `speed` are either fitted to the steps of one rank with several batch sizes, or come from a roofline: the
bytes of the update divided by the memory bandwidth, plus the launches, and the achievable share of the peak (Williams,
Waterman and Patterson 2009). A sum of m bytes takes the minimum over three algorithms (Thakur, Rabenseifner and Gropp
2005, section 4), with a latency a per message and b bytes per second:

    recursive doubling           log2(N) (a + m / b)
    halving and doubling         2 log2(N) a + 2 (N - 1) / N m / b
    ring                         2 (N - 1) a + 2 (N - 1) / N m / b

Two options estimate improvements that are not implemented. Compressed gradients have half the bytes. With overlap, the
gradients of all layers except the first are summed while the weight gradient of the first layer is computed; this is
the last gradient and often the largest, so little can be hidden.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from benchmarks.peers.works import Work

__all__ = ["CLUSTERS", "Cluster", "Rank", "allreduce", "fit_rank", "roofline_rank", "step"]

_FLOAT_BYTES = 4


@dataclass(frozen=True)
class Cluster:
    """A network between ranks.

    Attributes
    ----------
    name : str
    latency : float
        Seconds per message.
    bandwidth : float
        Bytes per second from each rank.
    """

    name: str
    latency: float
    bandwidth: float


#: Assumed from nominal specifications; not measured.
CLUSTERS = {
    "ethernet": Cluster("25 Gbit/s Ethernet, TCP", 20e-6, 2.5e9),
    "infiniband": Cluster("100 Gbit/s InfiniBand", 2e-6, 11e9),
}


@dataclass(frozen=True)
class Rank:
    """The speed of a rank: `fixed` seconds per step, and `speed` flops per second."""

    fixed: float
    speed: float


def flops(work: Work, batch: float) -> float:
    """Flops of the matrix products of a step with this number of rows."""
    return batch * replace(work, batch_size=1).flops


def parameters(work: Work) -> int:
    """The number of weights and biases."""
    return sum((inputs + 1) * outputs for inputs, outputs in work.weights)


def fit_rank(work: Work, measured: Sequence[tuple[int, float]]) -> Rank:
    """Fit fixed time and speed to (batch, seconds per step) of one rank, by least squares of relative errors."""
    # Two unknowns: minimise sum ((fixed + f / speed) / t - 1)^2.
    sums = [0.0] * 5
    for batch, seconds in measured:
        one, arithmetic = 1 / seconds, flops(work, batch) / seconds
        for index, term in enumerate((one * one, one * arithmetic, arithmetic * arithmetic, one, arithmetic)):
            sums[index] += term
    determinant = sums[0] * sums[2] - sums[1] ** 2
    fixed = (sums[3] * sums[2] - sums[4] * sums[1]) / determinant if determinant else 0.0
    fixed = max(0.0, fixed)
    return Rank(fixed, sums[2] / (sums[4] - fixed * sums[1]))


def roofline_rank(work: Work, peak: float, bandwidth: float, overhead: float) -> Rank:
    """A rank from the specification of a device: flops and bytes per second, and overhead in seconds per step."""
    moved = work.bytes - work.batch_size * work.input_shape[0]
    return Rank(overhead + moved / bandwidth, peak)


def allreduce(size: float, ranks: int, cluster: Cluster) -> float:
    """Seconds for the sum of a number of bytes."""
    if ranks == 1:
        return 0.0
    rounds, latency = math.ceil(math.log2(ranks)), cluster.latency
    whole = size / cluster.bandwidth
    each = 2 * (ranks - 1) / ranks * whole
    return min(rounds * (latency + whole), 2 * rounds * latency + each, 2 * (ranks - 1) * latency + each)


def step(
    work: Work, batch: int, ranks: int, rank: Rank, cluster: Cluster, compress: bool = False, overlap: bool = False
) -> float:
    """Seconds of a step with a batch of this number of rows over all ranks."""
    rows = math.ceil(batch / ranks)
    arithmetic = flops(work, rows) / rank.speed
    size = parameters(work) * _FLOAT_BYTES / (2 if compress else 1)
    whole = allreduce(size, ranks, cluster)
    if overlap and ranks > 1:
        inputs, outputs = work.weights[0]
        first = (inputs + 1) * outputs
        late = allreduce(size * first / parameters(work), ranks, cluster)
        meanwhile = 2 * rows * first / rank.speed
        whole = late + max(0.0, whole - late - meanwhile)
    return rank.fixed + arithmetic + whole
