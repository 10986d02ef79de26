"""Results as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.peers import accuracy_table, products_table, startup_table
from benchmarks.peers.entries import CONTENDERS, OURS, find
from benchmarks.peers.figures import Speed, best_peer, peak_flops, speeds, times_as_fast
from benchmarks.peers.markdown import NOTHING, markdown, ratio
from benchmarks.peers.works import Work

__all__ = ["remarks", "text"]

_OPTIMIZERS = {"sgd": "SGD", "adam": "Adam"}


def text(result: Mapping[str, Any]) -> str:
    """The complete text of a result."""
    body = {
        "nets": _speed,
        "sweep": _speed,
        "images": _speed,
        "products": products_table.body,
        "startup": startup_table.body,
        "accuracy": accuracy_table.body,
    }
    return "\n\n".join([_heading(result), *body[result["kind"]](result), *remarks(result)])


def _heading(result: Mapping[str, Any]) -> str:
    titles = {
        "nets": "Training step, three nets",
        "sweep": "Training step, by batch size and width",
        "images": "Training step, convolutional networks",
        "products": "Matrix products of the three nets",
        "startup": "Start, memory and size",
        "accuracy": "Time to 98 % on MNIST",
    }
    machine, unit = result["machine"], result["machine"]["vector_unit"]
    threads = f"{result['threads']} thread{'' if result['threads'] == 1 else 's'}"
    lines = [
        f"## {titles[result['kind']]}, {threads}",
        "",
        f"{machine['cpu']} ({machine['architecture']}, {machine['cores']} cores, vectors of {unit['bits']} bits"
        f"{'' if unit['fused_multiply_add'] else ', no fused multiply-add'}), {machine['system']}, {result['date']}",
        ", ".join(f"{name} {version}" for name, version in result["versions"].items()),
        f"`{result['command']}`",
    ]
    if result.get("quick"):
        lines.append("**With --quick: these results only show that it runs.**")
    return "\n".join(lines)


def _speed(result: Mapping[str, Any]) -> list[str]:
    works = result["works"]
    summary = [_summary_row(measured) for measured in works]
    head = ("net", "numba, us", "best peer", "peer, us", "speedup", "over PyTorch eager", "of peak")
    parts = [_work_table(measured) for measured in works]
    if result["kind"] == "sweep":
        # One table instead of thirteen.
        parts = [_sweep_table(works)]
    return [f"Data: {result['data']}.", *parts, markdown([head, *summary], right=[1, 3, 4, 5, 6])]


def _work_table(measured: Mapping[str, Any]) -> str:
    """The table of all contenders for one network."""
    work, found = Work.from_dict(measured["work"]), speeds(measured)
    rows: list[Sequence[str]] = [("contender", "us/step", "range", "samples/s", "of peak", "warm-up")]
    for entry in CONTENDERS:
        if entry.name not in measured["contenders"]:
            continue
        if entry.name not in found:
            rows.append((entry.label, *[NOTHING] * 5))
            continue
        rows.append((entry.label, *_cells(found[entry.name])))
    rounds = max((len(result.get("seconds", ())) for result in measured["contenders"].values()), default=0)
    peak = peak_flops(measured)
    about = (
        f"{work.activation}, {_OPTIMIZERS[work.optimizer]} {work.learning_rate:g}, batch {work.batch_size}; medians of "
        f"{rounds} rounds of {work.steps} steps, {work.flops / 1e6:,.4g} MFLOP per step"
        + (f"; peak {peak / 1e9:,.0f} GFLOP/s" if peak else "")
    )
    return f"### {work.name}\n\n{about}\n\n{markdown(rows, right=[1, 2, 3, 4, 5])}"


def _cells(speed: Speed) -> tuple[str, ...]:
    return (
        microseconds(speed.step),
        f"{microseconds(speed.low)} to {microseconds(speed.high)}",
        f"{speed.samples:,.0f}",
        _share(speed.peak),
        f"{speed.warm_up:.1f} s",
    )


def _sweep_table(works: Sequence[Mapping[str, Any]]) -> str:
    """Microseconds per step, a column for each contender."""
    names = [entry.name for entry in CONTENDERS if any(entry.name in measured["contenders"] for measured in works)]
    rows: list[Sequence[str]] = [("us/step", *(find(name).label for name in names), "peak")]
    for measured in works:
        work, found, peak = Work.from_dict(measured["work"]), speeds(measured), peak_flops(measured)
        cells = [microseconds(found[name].step) if name in found else NOTHING for name in names]
        rows.append((work.name, *cells, microseconds(work.flops / peak) if peak else NOTHING))
    return markdown(rows, right=range(1, len(names) + 2))


def _summary_row(measured: Mapping[str, Any]) -> tuple[str, ...]:
    found = speeds(measured)
    ours, best = found.get("numba"), best_peer(found)
    return (
        measured["work"]["name"],
        microseconds(ours.step) if ours else NOTHING,
        find(best).label if best else NOTHING,
        microseconds(found[best].step) if best else NOTHING,
        ratio(times_as_fast(found, "numba", best)),
        ratio(times_as_fast(found, "numba", "torch")),
        _share(ours.peak) if ours else NOTHING,
    )


def remarks(result: Mapping[str, Any]) -> list[str]:
    """Missing contenders, with reasons."""
    lines = [f"- {label}: not installed" for label in result["not_installed"]]
    lines += [f"- {label}: did not start: {reason}" for label, reason in result.get("failed", {}).items()]
    for measured in result.get("works", ()):
        for name, contender in measured["contenders"].items():
            if reason := _reason(contender):
                lines.append(f"- {find(name).label}, {measured['work']['name']}: {reason}")
    if result["kind"] == "startup":
        failed = {name: _reason(contender) for name, contender in result["contenders"].items()}
        lines += [f"- {find(name).label}: {reason}" for name, reason in failed.items() if reason]
    for name in result.get("restless", ()):
        lines.append(f"- {find(name).label} continues to use the processor after its work is done, which slows others")
    if any(name in OURS for name in result.get("restless", ())):
        lines.append("- nnbackend should not do this: please report it.")
    return ["\n".join(lines)] if lines else []


def _reason(contender: Mapping[str, Any]) -> str:
    """The reason for a missing result; empty if there is one."""
    return str(contender.get("error", ""))


def microseconds(seconds: float) -> str:
    """Microseconds with one decimal below 1000."""
    value = 1e6 * seconds
    return f"{value:,.1f}" if value < 1000 else f"{value:,.0f}"


def _share(share: float | None) -> str:
    return NOTHING if share is None else f"{100 * share:.1f} %"
