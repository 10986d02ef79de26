"""A network in words: as text to print, and as a table for a notebook."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nnbackend.backends.contract import Executor
from nnbackend.layers import LayerNode
from nnbackend.step.recorder import Model, Recorder, Workspace, record_forward
from nnbackend.step.weights import NetworkWeights
from nnbackend.support.html import table

__all__ = ["Description", "describe", "summary", "summary_html"]

_HEADINGS = ("layer", "output", "parameters")

#: Before the name of a layer, for each layer that contains it.
_INDENT = "  "


@dataclass(frozen=True)
class Description:
    """The facts about a network, in the words of both forms.

    Attributes
    ----------
    heading : str
        The input, the dtype and the seed.
    layers : list of (layer, shape of its output, number of its parameters)
        State is counted with the parameters.
    parameters : str
        How many are trained and, if there are others, how many are not.
    size : str
        The memory that all of them take.
    place : str
        Where the network is, what runs its steps there, and why.
    """

    heading: str
    layers: list[tuple[str, str, str]]
    parameters: str
    size: str
    place: str


def describe(network: NetworkWeights) -> Description:
    """The facts about a network as it is now."""
    model = network.model
    layers = [row for node in model.layout.nodes for row in _rows(node, 0)]
    executor = _executor(model)
    trained, fixed = network.parameter_count, network.state_count
    return Description(
        f"input {_text(network.input_shape)}, {network.dtype.name}, seed {network.seed}",
        layers,
        f"{trained:,} trained, {fixed:,} not" if fixed else f"{trained:,}",
        f"{(trained + fixed) * network.dtype.itemsize / 1e6:.2f} MB",
        f"backend {model.backend.name} on {model.backend.device}; executor {executor.name}: {executor.reason}",
    )


def _rows(node: LayerNode, depth: int) -> Iterator[tuple[str, str, str]]:
    """The line of a layer, and those of the layers within it."""
    count = sum(math.prod(parameter.shape) for parameter in node.parameters)
    # The layers within have lines of their own.
    name = type(node.layer).__name__ if node.nodes else repr(node.layer)
    yield f"{_INDENT * depth}{node.name.rpartition('.')[2]}: {name}", _text(node.output_shape), f"{count:,}"
    for inner in node.nodes:
        yield from _rows(inner, depth + 1)


def summary(network: NetworkWeights) -> str:
    """A table of the layers with shapes and numbers of parameters, and where and how the network runs."""
    facts = describe(network)
    rows = [_HEADINGS, *facts.layers, ("total", "", facts.parameters)]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:>{widths[2]}}".rstrip() for a, b, c in rows]
    rule = "-" * (sum(widths) + 4)
    return "\n".join([facts.heading, lines[0], rule, *lines[1:-1], rule, f"{lines[-1]} ({facts.size})", facts.place])


def summary_html(network: NetworkWeights) -> str:
    """What `summary` tells, as an HTML table."""
    facts = describe(network)
    total = (f"total ({facts.size})", "", facts.parameters)
    return table(facts.heading, _HEADINGS, facts.layers, "llr", total=total, note=facts.place)


def _executor(model: Model) -> Executor:
    """What runs the network's layers."""
    backend = model.backend
    recorder = Recorder(model, Workspace(backend, 1), 1, backend.empty((3,), np.int64), training=True)
    record_forward(recorder, model.views, recorder.input())
    return backend.executor(recorder.calls)


def _text(shape: tuple[int, ...]) -> str:
    return str(shape[0]) if len(shape) == 1 else " x ".join(str(size) for size in shape)
