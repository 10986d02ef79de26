"""Descriptions of a network, as text and as a table for notebooks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nnbackend.data.feed import Examples
from nnbackend.layers import LayerNode
from nnbackend.losses import LOSSES
from nnbackend.optimizers import SGD
from nnbackend.step.inference import NetworkInference
from nnbackend.step.recorder import OptimizerState, Recorder, Workspace, record_training
from nnbackend.support.html import table

__all__ = ["Description", "describe", "summary", "summary_html"]

_HEADINGS = ("layer", "output", "parameters")

#: Indentation of nested layers.
_INDENT = "  "


@dataclass(frozen=True)
class Description:
    """The contents of both forms.

    Attributes
    ----------
    heading : str
        The input, the dtype and the seed.
    layers : list of (layer, shape of its output, number of its parameters)
        State is counted with the parameters.
    parameters : str
        Number of trained parameters and, if there are any, of others.
    size : str
        The memory of all parameters.
    place : str
        The backend, the executor, and the reason for choosing it.
    """

    heading: str
    layers: list[tuple[str, str, str]]
    parameters: str
    size: str
    place: str


def describe(network: NetworkInference) -> Description:
    """The current facts about a network."""
    model = network.model
    layers = [row for node in model.layout.nodes for row in _rows(node, 0)]
    name, reason = _executor(network)
    trained, fixed = network.parameter_count, network.state_count
    return Description(
        f"input {_text(network.input_shape)}, {network.dtype.name}, seed {network.seed}",
        layers,
        f"{trained:,} trained, {fixed:,} not" if fixed else f"{trained:,}",
        f"{(trained + fixed) * network.dtype.itemsize / 1e6:.2f} MB",
        f"backend {model.backend.name} on {model.backend.device}; executor {name}: {reason}",
    )


def _rows(node: LayerNode, depth: int) -> Iterator[tuple[str, str, str]]:
    """The lines of a layer and its sublayers."""
    count = sum(math.prod(parameter.shape) for parameter in node.parameters)
    # Sublayers have separate lines.
    name = repr(node.layer)
    if node.nodes:
        given = ", ".join(f"{key}={value!r}" for key, value in node.layer.training_config().items())
        name = type(node.layer).__name__ + (f"({given})" if given else "")
    yield f"{_INDENT * depth}{node.name.rpartition('.')[2]}: {name}", _text(node.output_shape), f"{count:,}"
    for inner in node.nodes:
        yield from _rows(inner, depth + 1)


def summary(network: NetworkInference) -> str:
    """A table of the layers with shapes and numbers of parameters, and the backend and executor."""
    facts = describe(network)
    rows = [_HEADINGS, *facts.layers, ("total", "", facts.parameters)]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:>{widths[2]}}".rstrip() for a, b, c in rows]
    rule = "-" * (sum(widths) + 4)
    return "\n".join([facts.heading, lines[0], rule, *lines[1:-1], rule, f"{lines[-1]} ({facts.size})", facts.place])


def summary_html(network: NetworkInference) -> str:
    """The contents of `summary` as an HTML table."""
    facts = describe(network)
    total = (f"total ({facts.size})", "", facts.parameters)
    return table(facts.heading, _HEADINGS, facts.layers, "llr", total=total, note=facts.place)


def _executor(network: NetworkInference) -> tuple[str, str]:
    """Name and reason of the executor that trains the network, for a training step of one row."""
    model, backend = network.model, network.model.backend
    loss = LOSSES["mean_squared_error"] if network.loss is None else network.loss
    shape, dtype = (
        ((1,), np.dtype(np.int32)) if loss.takes_labels else ((1, math.prod(network.output_shape)), model.dtype)
    )
    x = backend.empty((1, math.prod(network.input_shape)), model.dtype)
    examples = Examples(x, backend.empty(shape, dtype), dtype, None, 1, 1.0)
    state = network.optimizer_state or OptimizerState.fresh(SGD(), model)
    recorder = Recorder(model, Workspace(backend, 1), 1, backend.empty((3,), np.int64), training=True)
    options = network.step_options
    record_training(
        recorder,
        examples,
        backend.empty((1,), np.int64),
        1,
        loss,
        state,
        backend.empty((model.layout.trainable_size,), model.dtype),
        {factor: backend.empty((1,), np.float64) for factor, _, _ in model.layout.rate_parts},
        backend.empty((1, 3), np.float64),
        clipping=options.clipping,
    )
    name, reason = backend.explain_executor(recorder.calls)
    if len(model.layout.rate_parts) > 1:
        reason += "; layers have their own learning-rate factors, so the update is not fused with the gradients"
    return name, "; ".join([reason, *options.notes()])


def _text(shape: tuple[int, ...]) -> str:
    return str(shape[0]) if len(shape) == 1 else " x ".join(str(size) for size in shape)
