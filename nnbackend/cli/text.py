"""Format what the commands print, as plain text that also reads well in a file."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from nnbackend.backends.contract import Backend
from nnbackend.datasets import Dataset
from nnbackend.distributed import Communicator
from nnbackend.ensembles import Ensemble
from nnbackend.layers import AveragePool2D, Conv2D, L2Pool2D, MaxPool2D
from nnbackend.network import Network

__all__ = [
    "aligned",
    "backend_line",
    "count_rows",
    "error_text",
    "field",
    "model_line",
    "network_line",
    "percent",
    "printable",
    "ranks_text",
]

_LABEL_WIDTH = 9
_SHOWN_RANKS = 16


def field(label: str, value: str) -> str:
    """A line of a description; further lines of `value` are indented below the first."""
    indent = " " * (_LABEL_WIDTH + 2)
    return f"{label:<{_LABEL_WIDTH}}  " + value.replace("\n", f"\n{indent}")


def aligned(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """A table with columns as wide as their contents; columns with an index in `right` are right-aligned."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if index in right else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def printable(text: str) -> str:
    """`text` with control characters replaced, because it may come from an untrusted file."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def percent(share: float) -> str:
    """A fraction as a percentage with two decimals."""
    return f"{100 * share:.2f} %"


def count_rows(data: Dataset, count: int) -> str:
    """A number of rows in words; rows of bytes are called images."""
    what = "image" if data.x_train.dtype == np.uint8 else "row"
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def ranks_text(ranks: Communicator) -> str:
    """List the process of each rank, for tools that end processes by number."""
    lines = [f"{rank}: {place}" for rank, place in enumerate(ranks.places)]
    shown = (
        lines
        if len(lines) <= _SHOWN_RANKS
        else [*lines[: _SHOWN_RANKS - 1], f"and {len(lines) - _SHOWN_RANKS + 1} more"]
    )
    return field("ranks", "\n".join(shown))


def network_line(network: Network) -> str:
    """Layer sizes, activations and number of parameters of a network.

    ``20c5`` are 20 filters of 5 x 5, ``p2`` a pool of 2 x 2.
    """
    sizes = [str(math.prod(network.input_shape))]
    activations: list[str] = []
    for layer in network.layers:
        if isinstance(layer, Conv2D):
            sizes.append(f"{layer.filters}c{_extent(layer.kernel_size)}")
        elif isinstance(layer, MaxPool2D | AveragePool2D | L2Pool2D):
            sizes.append(f"p{_extent(layer.window.size)}")
        elif hasattr(layer, "units"):
            sizes.append(str(layer.units))
        name = getattr(layer, "activation", "identity")
        if name != "identity" and name not in activations:
            activations.append(name)
    parts = ["-".join(sizes), *activations, f"{network.parameter_count:,} parameters", network.dtype.name]
    return ", ".join(parts)


def model_line(model: Network | Ensemble) -> str:
    """`network_line` of a network, or of the first of an ensemble and how many there are."""
    if isinstance(model, Network):
        return network_line(model)
    return f"ensemble of {len(model)} networks, the first: {network_line(model[0])}"


def _extent(size: tuple[int, int]) -> str:
    return str(size[0]) if size[0] == size[1] else f"{size[0]}x{size[1]}"


def backend_line(requested: str, backend: Backend) -> str:
    """The backend and its device and, for "auto", why the faster ones were passed over."""
    from nnbackend.backends.registry import AUTO_ORDER, available_backends

    line = f"{backend.name} on {backend.device}"
    if requested != "auto":
        return line
    reasons = {info.name: info.reason for info in available_backends()}
    passed = AUTO_ORDER[: AUTO_ORDER.index(backend.name)]
    why = "".join(f"\n{name} cannot run here: {reasons[name]}" for name in passed)
    return f"{line}, the fastest that can run here{why}"


def error_text(error: BaseException) -> str:
    """The message of an error; errors of the operating system appear without their number."""
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    else:
        text = str(error) or type(error).__name__
    return "\n".join(map(printable, text.split("\n")))
