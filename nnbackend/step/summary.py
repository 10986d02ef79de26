"""A network in words: as text to print, and as a table for a notebook."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nnbackend.layers import follow_shapes
from nnbackend.losses import LOSSES
from nnbackend.optimizers import SGD
from nnbackend.step.recorder import Examples, OptimizerState, Recorder, Workspace, record_training
from nnbackend.support.html import table

if TYPE_CHECKING:
    from nnbackend.network import Network

__all__ = ["Description", "describe", "summary", "summary_html"]

_HEADINGS = ("layer", "output", "parameters")


@dataclass(frozen=True)
class Description:
    """What there is to say about a network, in the words of both forms.

    Attributes
    ----------
    heading : str
        The input, the dtype and the seed.
    layers : list of (layer, shape of its output, number of its parameters)
    parameters, size : str
        Of all layers: how many there are, and the memory they take.
    place : str
        Where the network is, what runs its steps there, and why.
    """

    heading: str
    layers: list[tuple[str, str, str]]
    parameters: str
    size: str
    place: str


def describe(network: Network) -> Description:
    """The facts about a network as it is now."""
    model = network.model
    shapes, last = follow_shapes(network.layers, network.input_shape)
    layers = []
    for index, (layer, shape) in enumerate(zip(network.layers, [*shapes[1:], last], strict=True)):
        entries = [entry for entry in model.layout.entries if entry.layer == index]
        count = sum(math.prod(entry.parameter.shape) for entry in entries)
        layers.append((f"{index}: {layer!r}", _text(shape), f"{count:,}"))
    name, reason = _executor(network)
    return Description(
        f"input {_text(network.input_shape)}, {network.dtype.name}, seed {network.seed}",
        layers,
        f"{network.parameter_count:,}",
        f"{network.parameter_count * network.dtype.itemsize / 1e6:.2f} MB",
        f"backend {model.backend.name} on {model.backend.device}; executor {name}: {reason}",
    )


def summary(network: Network) -> str:
    """A table of the layers with shapes and numbers of parameters, and where and how the network runs."""
    facts = describe(network)
    rows = [_HEADINGS, *facts.layers, ("total", "", facts.parameters)]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:>{widths[2]}}".rstrip() for a, b, c in rows]
    rule = "-" * (sum(widths) + 4)
    return "\n".join([facts.heading, lines[0], rule, *lines[1:-1], rule, f"{lines[-1]} ({facts.size})", facts.place])


def summary_html(network: Network) -> str:
    """What `summary` tells, as an HTML table."""
    facts = describe(network)
    total = (f"total ({facts.size})", "", facts.parameters)
    return table(facts.heading, _HEADINGS, facts.layers, "llr", total=total, note=facts.place)


def _executor(network: Network) -> tuple[str, str]:
    """Name and reason of the executor that trains the network: asked about a training step of one row."""
    model, backend = network.model, network.model.backend
    features, size = math.prod(network.input_shape), (model.layout.size,)
    _, last = follow_shapes(network.layers, network.input_shape)
    loss = LOSSES["mean_squared_error"] if network.loss is None else network.loss
    labels = loss.name == "softmax_cross_entropy"
    targets = backend.empty((1,), np.int32) if labels else backend.empty((1, math.prod(last)), model.dtype)
    target_dtype = np.dtype(np.int32) if labels else model.dtype
    examples = Examples(backend.empty((1, features), model.dtype), targets, target_dtype, None, 1, 1.0)
    state = network.optimizer_state or OptimizerState.fresh(SGD(), model)
    order, counter = backend.empty((1,), np.int64), backend.empty((3,), np.int64)
    rates, trace = backend.empty((1,), np.float64), backend.empty((1, 3), np.float64)
    recorder = Recorder(model, Workspace(backend, 1), 1, counter, training=True)
    record_training(recorder, examples, order, 1, loss, state, backend.empty(size, model.dtype), rates, trace)
    return backend.explain_executor(recorder.calls)


def _text(shape: tuple[int, ...]) -> str:
    return str(shape[0]) if len(shape) == 1 else " x ".join(str(size) for size in shape)
