"""A network in words."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from nnbackend.backends.base import Executor
from nnbackend.step import Model, Recorder, Workspace, record_forward

if TYPE_CHECKING:
    from nnbackend.network import Network

__all__ = ["summary"]


def summary(network: Network) -> str:
    """A table of the layers with shapes and numbers of parameters, and where and how the network runs."""
    from nnbackend.layers import follow_shapes

    model = network.model
    shapes, last = follow_shapes(network.layers, network.input_shape)
    rows = [("layer", "output", "parameters")]
    for index, (layer, shape) in enumerate(zip(network.layers, [*shapes[1:], last], strict=True)):
        entries = [entry for entry in model.layout.entries if entry.layer == index]
        count = sum(math.prod(entry.parameter.shape) for entry in entries)
        rows.append((f"{index}: {layer!r}", _text(shape), f"{count:,}"))
    rows.append(("total", "", f"{network.parameter_count:,}"))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:>{widths[2]}}".rstrip() for a, b, c in rows]
    rule = "-" * (sum(widths) + 4)
    size = network.parameter_count * network.dtype.itemsize / 1e6
    executor = _executor(model, math.prod(network.input_shape))
    return "\n".join(
        [
            f"input {_text(network.input_shape)}, {network.dtype.name}, seed {network.seed}",
            lines[0],
            rule,
            *lines[1:-1],
            rule,
            lines[-1] + f" ({size:.2f} MB)",
            f"backend {model.backend.name} on {model.backend.device}; executor {executor.name}: {executor.reason}",
        ]
    )


def _executor(model: Model, features: int) -> Executor:
    """What runs the network's layers."""
    backend = model.backend
    recorder = Recorder(model, Workspace(backend, 1), 1, backend.empty((3,), np.int64), training=True)
    record_forward(recorder, model.layout.device_views(backend, model.parameters), recorder.buffer(features))
    return backend.executor(recorder.calls)


def _text(shape: tuple[int, ...]) -> str:
    return str(shape[0]) if len(shape) == 1 else " x ".join(str(size) for size in shape)
