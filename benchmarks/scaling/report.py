"""Tables and pictures of the measurements and the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.peers.works import NETS, Work
from benchmarks.scaling.model import CLUSTERS, Cluster, Rank, fit_rank, parameters, roofline_rank, step
from nnbackend.cli.text import aligned

__all__ = ["RANKS", "check", "draw", "gpu", "local_network", "measured", "predicted", "rank_of"]

RANKS = (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)

_IMAGES = Path(__file__).resolve().parents[2] / "docs" / "images"


def measured(result: Mapping[str, Any]) -> str:
    """The table of a study: times, speedup and efficiency."""
    rows = [["net", "scaling", "ranks", "batch", "us/step", "apart, us", "sum, us", "speedup", "efficiency"]]
    alone = {(run["kind"], run["net"]): run for run in result["runs"] if run["ranks"] == 1}
    for run in result["runs"]:
        if run["kind"] == "fit":
            continue
        base = alone[run["kind"], run["net"]]
        speedup = base["step"] / run["step"] * run["batch"] / base["batch"]
        times = [f"{run['step'] * 1e6:,.0f}"]
        times += [f"{run[what] * 1e6:,.0f}" if run["ranks"] > 1 else "" for what in ("apart", "sum")]
        efficiency = f"{100 * speedup / run['ranks']:.0f} %"
        rows.append(
            [run["net"], run["kind"], str(run["ranks"]), f"{run['batch']:,}", *times, f"{speedup:.2f}", efficiency]
        )
    return aligned(rows, right=range(2, 9))


def rank_of(result: Mapping[str, Any], work: Work) -> Rank:
    """The rank of the model, fitted to the steps of one rank."""
    steps = [(run["batch"], run["step"]) for run in result["runs"] if run["kind"] == "fit" and run["net"] == work.name]
    return fit_rank(work, steps)


def local_network(result: Mapping[str, Any]) -> Cluster:
    """Latency and bandwidth within a machine, from the sums of the smallest and the largest network."""
    two = {run["net"]: run["sum"] for run in result["runs"] if run["ranks"] == 2}
    points = sorted((4.0 * parameters(work), two[work.name]) for work in NETS if work.name in two)
    (small, first), (large, last) = points[0], points[-1]
    bandwidth = (large - small) / max(last - first, 1e-9)
    return Cluster("this machine's memory", max(0.0, first - small / bandwidth), bandwidth)


def check(result: Mapping[str, Any]) -> str:
    """Compare the model with the steps of several ranks, to which it was not fitted."""
    network = local_network(result)
    rows = [["net", "scaling", "ranks", "measured, us", "model, us", "model / measured"]]
    for run in result["runs"]:
        work = next(work for work in NETS if work.name == run["net"])
        if run["kind"] != "fit" and run["ranks"] > 1:
            predicted = step(work, run["batch"], run["ranks"], rank_of(result, work), network)
            numbers = [f"{run['step'] * 1e6:,.0f}", f"{predicted * 1e6:,.0f}", f"{predicted / run['step']:.2f}"]
            rows.append([run["net"], run["kind"], str(run["ranks"]), *numbers])
    return aligned(rows, right=range(2, 6))


def gpu(work: Work) -> Rank:
    """A rank with an H100, assumed from its data sheet and not measured: half of its 67 TFLOP/s of float32, three
    quarters of its 3.35 TB/s, and 10 us for launches."""
    return roofline_rank(work, peak=33e12, bandwidth=2.5e12, overhead=10e-6)


def predicted(rank_for: Callable[[Work], Rank], cluster: Cluster, ranks: Sequence[int] = RANKS) -> str:
    """Speedups over one rank; strong scaling with a batch of 8,192 rows, weak with the net's own batch on each rank."""
    rows = [["net", "scaling", *(f"{size:,}" for size in ranks)]]
    for work in NETS:
        for name, speedups in curves(rank_for(work), work, cluster, ranks).items():
            rows.append([work.name, name, *(f"{value:,.1f}" for value in speedups)])
    return aligned(rows, right=range(2, 2 + len(ranks)))


#: Rows of the batch for strong scaling.
_STRONG = 8192


def curves(rank: Rank, work: Work, cluster: Cluster, ranks: Sequence[int]) -> dict[str, list[float]]:
    """Speedups over one rank by number of ranks."""
    strong, weak = step(work, _STRONG, 1, rank, cluster), step(work, work.batch_size, 1, rank, cluster)
    found: dict[str, list[float]] = {"strong": [], "strong, compressed": [], "strong, overlapped": [], "weak": []}
    for size in ranks:
        found["strong"].append(strong / step(work, _STRONG, size, rank, cluster))
        found["strong, compressed"].append(strong / step(work, _STRONG, size, rank, cluster, compress=True))
        found["strong, overlapped"].append(strong / step(work, _STRONG, size, rank, cluster, overlap=True))
        found["weak"].append(size * weak / step(work, work.batch_size * size, size, rank, cluster))
    return found


def draw(result: Mapping[str, Any], folder: Path = _IMAGES, clusters: Mapping[str, Cluster] = CLUSTERS) -> list[Path]:
    """Draw the predictions, one picture for each cluster network."""
    from matplotlib.figure import Figure

    from nnbackend.support.files import atomic_write

    made = []
    for name, cluster in clusters.items():
        figure = Figure(figsize=(10, 3.6), layout="constrained")
        for axes, work in zip(figure.subplots(1, len(NETS), sharey=True), NETS, strict=True):
            ranks = (1, 2, 4, *RANKS)
            axes.plot(ranks, ranks, color="#BBBBBB", linewidth=1, label="ideal")
            for label, speedups in curves(rank_of(result, work), work, cluster, ranks).items():
                axes.plot(ranks, speedups, label=label, linestyle="--" if "," in label else "-")
            for run in result["runs"]:
                if run["net"] == work.name and run["kind"] == "weak" and run["ranks"] > 1:
                    base = rank_of(result, work)
                    alone = step(work, work.batch_size, 1, base, cluster)
                    axes.plot(
                        run["ranks"], run["ranks"] * alone / run["step"], "o", color="#B00000", label="measured, weak"
                    )
            axes.set(xscale="log", yscale="log", title=work.name, xlabel="ranks")
        figure.axes[0].set_ylabel("speedup over one rank")
        figure.axes[0].legend(fontsize=7)
        figure.suptitle(f"Model: ranks of one core, {cluster.name}", fontsize=10)
        path = folder / f"scaling-{name}.png"
        with atomic_write(path) as stream:
            figure.savefig(stream, format="png", dpi=120)
        made.append(path)
    return made
