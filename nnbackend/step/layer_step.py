"""A layer's interface to the recorder, and the passes through several layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from nnbackend.backends.contract import Array
from nnbackend.errors import InvalidInputError, UnknownNameError, shown
from nnbackend.layers import Layer, LayerNode
from nnbackend.step.calls import Recorder

__all__ = ["backward_through", "forward_through"]


def forward_through(
    recorder: Recorder, nodes: Sequence[LayerNode], parameters: Mapping[str, Array], x: Array
) -> tuple[Array, list[Any]]:
    """Record the forward passes of layers in order: the output of the last, and what each layer saved."""
    saved: list[Any] = []
    for node in nodes:
        x, kept = _forward(recorder, node, parameters, x)
        saved.append(kept)
    return x, saved


def backward_through(
    recorder: Recorder,
    nodes: Sequence[LayerNode],
    parameters: Mapping[str, Array],
    saved: Sequence[Any],
    upstream: Array,
    need_input_gradient: bool = False,
) -> Array:
    """Record the backward passes of layers from the last to the first; returns the gradient of the first one's input.

    Without `need_input_gradient`, it ends at the first layer that learns, because no layer below needs a gradient.
    """
    first = 0
    if not need_input_gradient:
        first = next((place for place, node in enumerate(nodes) if node.learns), len(nodes))
    for place in range(len(nodes) - 1, first - 1, -1):
        needed = need_input_gradient or place > first
        upstream = _backward(recorder, nodes[place], parameters, saved[place], upstream, needed)
    return upstream


def _forward(recorder: Recorder, node: LayerNode, parameters: Mapping[str, Array], x: Array) -> tuple[Array, Any]:
    returned: Any = node.layer.forward(_LayerStep(recorder, node, parameters), x)
    if not isinstance(returned, tuple | list) or len(returned) != 2:
        raise InvalidInputError(
            f"{node.name}, {node.layer!r}: forward must return two things, its output and what backward needs (None if "
            f"that is nothing), received {shown(returned)}"
        )
    out, saved = returned
    _check_returned(recorder, node, "forward", out, node.output_shape)
    return out, saved


def _backward(
    recorder: Recorder,
    node: LayerNode,
    parameters: Mapping[str, Array],
    saved: Any,
    upstream: Array,
    need_input_gradient: bool,
) -> Array:
    if node.learns and not recorder.passed_back(node.name):
        raise InvalidInputError(
            f"{node.name}, {node.layer!r}: its backward pass is recorded twice, and the second would overwrite the "
            "gradients of the first; pass through a layer once, or use two layers"
        )
    downstream = node.layer.backward(_LayerStep(recorder, node, parameters), saved, upstream, need_input_gradient)
    if need_input_gradient:
        _check_returned(recorder, node, "backward", downstream, node.input_shape)
    return downstream


def _check_returned(recorder: Recorder, node: LayerNode, method: str, array: Array, shape: tuple[int, ...]) -> None:
    found, wanted = tuple(getattr(array, "shape", ())), (recorder.rows, *shape)
    if found != wanted:
        raise InvalidInputError(
            f"{node.name}, {node.layer!r}: {method} must return an array of shape {wanted} (rows, then one sample), "
            f"received {found}"
        )
    if recorder.is_scratch(array):
        raise InvalidInputError(
            f"{node.name}, {node.layer!r}: {method} must not return scratch memory, which later calls use for "
            "something else; return a buffer()"
        )


@dataclass(eq=False, repr=False)
class _LayerStep:
    """A recorder that uses a layer's local names; see :class:`nnbackend.layers.base.LayerStep`."""

    recorder: Recorder
    node: LayerNode
    parameters: Mapping[str, Array]

    @property
    def training(self) -> bool:
        return self.recorder.training

    @property
    def trainable(self) -> bool:
        return self.node.trainable

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self.node.input_shape

    @property
    def seed(self) -> int:
        return self.recorder.model.seed

    @property
    def stream(self) -> int:
        return self.node.stream

    @property
    def counter(self) -> Array:
        return self.recorder.counter

    @property
    def first_row(self) -> int:
        return self.recorder.first_row

    def parameter(self, name: str) -> Array:
        return self.parameters[self._full_name(name)]

    def gradient(self, name: str) -> Array:
        return self.recorder.gradient(self._full_name(name))

    def _full_name(self, name: str) -> str:
        full = f"{self.node.name}.{name}"
        if full not in self.parameters:
            own = [parameter.name for parameter in self.node.parameters]
            raise UnknownNameError(f"parameter of {self.node.name}, {self.node.layer!r},", name, own)
        return full

    def buffer(self, *shape: int, dtype: npt.DTypeLike | None = None) -> Array:
        return self.recorder.buffer(*shape, dtype=dtype)

    def like(self, x: Array) -> Array:
        return self.recorder.like(x)

    def memory(self, *shape: int) -> Array:
        return self.recorder.memory(*shape)

    def scratch(self, shape: tuple[int, ...], dtype: npt.DTypeLike | None = None) -> Array:
        return self.recorder.scratch(shape, dtype)

    def matrix(self, x: Array) -> Array:
        return self.recorder.matrix(x)

    def channels(self, x: Array) -> Array:
        return self.recorder.channels(x)

    def reshape(self, x: Array, shape: Sequence[int]) -> Array:
        return self.recorder.reshape(x, shape)

    def record(self, operation: str, *arguments: Any, **named: Any) -> None:
        self.recorder.record(operation, *arguments, **named)

    def call(self, function: Callable[..., None], *arguments: Any) -> None:
        self.recorder.call(function, *arguments)

    def forward(self, layers: Layer | Sequence[Layer], x: Array) -> tuple[Array, Any]:
        if isinstance(layers, Layer):
            return _forward(self.recorder, self._inner(layers), self.parameters, x)
        return forward_through(self.recorder, [self._inner(layer) for layer in layers], self.parameters, x)

    def backward(
        self, layers: Layer | Sequence[Layer], saved: Any, upstream: Array, need_input_gradient: bool = True
    ) -> Array:
        if isinstance(layers, Layer):
            layers, saved = (layers,), (saved,)
        nodes = [self._inner(layer) for layer in layers]
        return backward_through(self.recorder, nodes, self.parameters, saved, upstream, need_input_gradient)

    def _inner(self, layer: Layer) -> LayerNode:
        for node in self.node.nodes:
            if node.layer is layer:
                return node
        raise InvalidInputError(f"{layer!r} is not among the sublayers of {self.node.name}")
