"""The roofline picture: how close each contender comes to the limits of the cores and the memory.

Williams, Waterman and Patterson (2009), "Roofline: an insightful visual performance model for multicore
architectures". A step with F flops that has to move at least B bytes takes at least ``F / peak`` and at least
``B / bandwidth`` seconds. As functions of the *arithmetic intensity* F / B, in flops per byte, the two limits form a
roof with a slope and a flat part.

Peak and bandwidth are measured in the same rounds as the contenders (`contenders/peak.py`, `contenders/bandwidth.py`).
F is counted by `Work.flops` and B by `Work.bytes`: the pixels of the batch, the weights read forward and backward, and
the parameters and the optimizer state read and written by the update. This is what a step moves if no cache keeps data
between steps, and it is the same for all contenders, whatever they actually move. So all contenders of a network have
the same horizontal position. A contender whose weights stay in a cache may be above the slope; one that, for example,
writes gradients to memory or reads images with four bytes per pixel is below it.
"""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.entries import CONTENDERS, OURS
from benchmarks.peers.figures import bandwidth, peak_flops, speeds
from benchmarks.peers.works import Work
from nnbackend.support.files import atomic_write

__all__ = ["MARK", "NO_BANDWIDTH", "PICTURE", "Panel", "draw", "fingerprint", "panels"]

PICTURE = Path(__file__).resolve().parents[2] / "docs" / "images" / "roofline.png"

NO_BANDWIDTH = "memory bandwidth: not in these results"

#: Key of the picture's metadata with the fingerprint of its data.
MARK = "Comment"

_DPI = 150
_INK, _PALE, _WARNING = "#444444", "#999999", "#B00000"


@dataclass(frozen=True)
class Panel:
    """A panel of the picture, in GFLOP/s and flops per byte.

    Attributes
    ----------
    title : str
    places : dict
        The arithmetic intensity of each network by its label.
    points : dict
        The speeds of each contender by network.
    joined : bool
        Whether the networks form a series.
    peak, bandwidth : float or None
        GFLOP/s and GB/s, the highest of the medians, because the roof must not be below the points.
    """

    title: str
    places: dict[str, float]
    points: dict[str, dict[str, float]]
    joined: bool
    peak: float | None
    bandwidth: float | None


def panels(results: Sequence[Mapping[str, Any]]) -> list[Panel]:
    """The panels for all results: the three networks and the sweep, each with the largest number of threads."""
    found = []
    for kind in ("nets", "sweep"):
        results_of_kind = [result for result in results if result["kind"] == kind and result["works"]]
        if not results_of_kind:
            continue
        result = max(results_of_kind, key=lambda result: result["threads"])
        threads = f"{result['threads']} thread{'' if result['threads'] == 1 else 's'}"
        if kind == "nets":
            found.append(_panel(f"Three nets, {threads}", result["works"], joined=False))
            continue
        # First the networks that differ only in the batch size, then the others.
        first = result["works"][0]["work"]["hidden"]
        batches = [each for each in result["works"] if each["work"]["hidden"] == first]
        widths = [each for each in result["works"] if each["work"]["hidden"] != first]
        if batches:
            name = Work.from_dict(batches[0]["work"]).name.partition(" ")[0]
            found.append(_panel(f"{name} by batch size, {threads}", batches, joined=True))
        if widths:
            batch = widths[0]["work"]["batch_size"]
            found.append(_panel(f"784-n-n-10 by n, batches of {batch}, {threads}", widths, joined=True, wide=True))
    return found


def _panel(title: str, works: Sequence[Mapping[str, Any]], joined: bool, wide: bool = False) -> Panel:
    places: dict[str, float] = {}
    points: dict[str, dict[str, float]] = {}
    for measured in works:
        work = Work.from_dict(measured["work"])
        name = str(work.hidden[0] if wide else work.batch_size) if joined else work.name
        places[name] = work.flops / work.bytes
        for contender, speed in speeds(measured).items():
            points.setdefault(contender, {})[name] = work.flops / speed.step / 1e9
    peaks = [peak / 1e9 for measured in works if (peak := peak_flops(measured))]
    bandwidths = [width / 1e9 for measured in works if (width := bandwidth(measured))]
    return Panel(title, places, points, joined, max(peaks, default=None), max(bandwidths, default=None))


def fingerprint(drawn: Sequence[Panel]) -> str:
    """A checksum of everything that the picture shows, stored in its file."""
    # Six digits, because the last digits may differ between systems.
    text = json.dumps([asdict(panel) for panel in drawn], default=str)
    rounded = json.loads(text, parse_float=lambda number: f"{float(number):.6g}")
    return f"{zlib.crc32(json.dumps(rounded, sort_keys=True).encode()):08x}"


def draw(drawn: Sequence[Panel], path: Path = PICTURE) -> None:
    """Write the picture.

    Parameters
    ----------
    drawn : sequence of Panel
        At least one.
    path : Path
        A PNG file.

    Raises
    ------
    ImportError
        Matplotlib is not installed.
    """
    figure = _figure(drawn)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=_DPI, metadata={MARK: fingerprint(drawn)})
    with atomic_write(path) as stream:
        stream.write(picture.getvalue())


def _figure(drawn: Sequence[Panel]) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('the picture needs the package matplotlib: pip install -e ".[plot]"') from error
    # The legend takes the second cell.
    cells = [drawn[0], None, *drawn[1:]]
    rows = (len(cells) + 1) // 2
    figure = Figure(figsize=(10.5, 4.7 * rows), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08)
    grid = list(np.ravel(figure.subplots(rows, 2, squeeze=False)))
    for ax, panel in zip(grid, cells, strict=False):
        if panel is not None:
            _draw_panel(ax, panel)
    for ax in (grid[1], *grid[len(cells) :]):
        ax.axis("off")
    _draw_legend(grid[1], drawn)
    return figure


def _draw_panel(ax: Any, panel: Panel) -> None:
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_title(panel.title, loc="left", fontsize=11)
    ax.set_xlabel("arithmetic intensity (flops per byte at least moved)")
    ax.set_ylabel("speed (GFLOP/s)")
    _set_limits(ax, panel)
    _draw_places(ax, panel)
    _draw_roof(ax, panel)
    present = [entry for entry in CONTENDERS if entry.name in panel.points]
    for number, entry in enumerate(present):
        speeds_by_place = panel.points[entry.name]
        x = np.array([panel.places[place] for place in speeds_by_place])
        if not panel.joined:
            # Shifted sideways a little, so that the points do not hide each other.
            x = x * _SIDE_STEP ** (number - (len(present) - 1) / 2)
        ax.plot(x, list(speeds_by_place.values()), **_style(entry.name, panel.joined))


#: Factor of the shift from one contender to the next.
_SIDE_STEP = 1.035


def _set_limits(ax: Any, panel: Panel) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    x = list(panel.places.values())
    y = [value for points in panel.points.values() for value in points.values()]
    if panel.peak and panel.bandwidth and not panel.joined:
        # Leave room for a part of the slope.
        x.append(panel.peak / panel.bandwidth / 2)
    spread = max(1.06 if panel.joined else 1.25, (max(x) / min(x)) ** 0.08)
    ax.set_xlim(min(x) / spread, max(x) * spread)
    top = max([*y, panel.peak or 1e-3])
    bottom = min(y, default=top / 10)
    # Leave room for the labels below, and for the notes above the roof.
    height = top / bottom
    ax.set_ylim(bottom / height ** (0.15 if panel.joined else 0.4) / 1.3, top * height**0.1 * 1.2)
    for axis, (low, high) in ((ax.xaxis, ax.get_xlim()), (ax.yaxis, ax.get_ylim())):
        # Plain numbers instead of powers of ten.
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 200 else (1,)))
        axis.set_major_formatter(StrMethodFormatter("{x:,g}"))
        axis.set_minor_formatter(NullFormatter())
    if max(x) / min(x) < 2:
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 3.5, 4, 4.5, 5, 6, 7, 8)))


def _draw_places(ax: Any, panel: Panel) -> None:
    """A vertical line for each network, labelled at the bottom."""
    for name, x in panel.places.items():
        ax.axvline(x, color=_PALE, linewidth=0.6, linestyle=":", zorder=0)
        ax.annotate(
            name,
            (x, 0),
            xycoords=("data", "axes fraction"),
            xytext=(-2, 4),
            textcoords="offset points",
            rotation=90,
            ha="right",
            va="bottom",
            fontsize=8,
            color=_INK,
        )


def _draw_roof(ax: Any, panel: Panel) -> None:
    left, right = ax.get_xlim()
    _, top = ax.get_ylim()
    x = np.geomspace(left, right, 200)
    slope = np.inf if panel.bandwidth is None else panel.bandwidth * x
    flat = np.inf if panel.peak is None else panel.peak
    roof = np.minimum(slope, flat) + 0 * x
    if np.isfinite(roof).all():
        ax.fill_between(x, roof, top, color="#EEEEEE", zorder=0)
        ax.plot(x, roof, color=_INK, linewidth=1.8, zorder=1)
    if panel.peak is None:
        _write(ax, 0.97, "right", "peak: not in these results", _WARNING)
    else:
        _write(ax, 0.97, "right", f"flat: peak {panel.peak:,.0f} GFLOP/s", _INK)
    if panel.bandwidth is None:
        _write(ax, 0.03, "left", NO_BANDWIDTH, _WARNING)
    else:
        _write(ax, 0.03, "left", f"slope: memory {panel.bandwidth:,.0f} GB/s", _INK)


def _write(ax: Any, x: float, side: str, text: str, color: str) -> None:
    """Write above the roof, where there are no points."""
    ax.text(x, 0.97, text, transform=ax.transAxes, ha=side, va="top", fontsize=8.5, color=color)


def _style(name: str, joined: bool) -> dict[str, Any]:
    """The style of a contender; ours differ in colour, shape and filling."""
    from nnbackend.plotting.figures import COLORS, MARKERS

    place = [entry.name for entry in CONTENDERS].index(name)
    # Yellow is hard to see on white; grey makes as many as there are contenders.
    colors = [*(color for color in COLORS if color != "#F0E442"), "#777777"]
    style: dict[str, Any] = {
        "color": colors[place],
        "marker": MARKERS[place],
        "markersize": 8 if name in OURS else 6.5,
        "markeredgewidth": 1.4,
        "linestyle": "-" if joined else "none",
        "linewidth": 2.2 if name in OURS else 1.0,
        "zorder": 4 if name == "numba" else 3,
    }
    return style if name in OURS else style | {"markerfacecolor": "white"}


def _draw_legend(ax: Any, drawn: Sequence[Panel]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], label=entry.label, **_style(entry.name, joined=True))
        for entry in CONTENDERS
        if any(entry.name in panel.points for panel in drawn)
    ]
    ax.legend(
        handles=handles, loc="upper left", frameon=False, fontsize=10, title="One training step", alignment="left"
    )
    ax.text(0.02, 0.02, _NOTE, transform=ax.transAxes, va="bottom", fontsize=8.5, color=_INK, linespacing=1.4)


_NOTE = """\
Higher is faster. Medians of all rounds, float32. The roof was
measured in the same rounds: multiply-adds in registers, and
memory much larger than the caches, read and written.
Flops: of the matrix products.
Bytes: the batch's pixels, the weights read forward and
backward, the parameters and the optimiser's slots read and
written; what a step moves if caches keep nothing for the next.
So points may lie above the slope: their weights stay in a cache.
Of the three nets, points are moved sideways a little."""
