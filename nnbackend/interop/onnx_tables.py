"""Layers on tables as nodes of an ONNX graph. Imported only for exports, because it needs the package onnx."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from onnx import TensorProto

from nnbackend.backends.contract import HostArray
from nnbackend.interop.onnx_graph import Graph, Samples, add_activation
from nnbackend.layers import Embedding, LayerNode, ParametricActivation, PeriodicEmbedding

__all__ = ["add_table_layer"]


def add_table_layer(graph: Graph, node: LayerNode, own: Mapping[str, HostArray], x: Samples) -> Samples:
    """Add a parametric activation or an embedding with these arrays of its own."""
    match node.layer:
        case ParametricActivation() as layer:
            activated = add_activation(graph, layer.activation, layer.alpha, x)
            share = graph.per_channel(f"{node.name}.share", own["share"], x)
            change = graph.add("Mul", graph.add("Sub", activated.name, x.name), share)
            return x.computed(graph.add("Add", x.name, change))
        case Embedding() as layer:
            return _embedding(graph, node, layer, own["vectors"], x)
        case PeriodicEmbedding():
            return _periodic_embedding(graph, node, own, x)
        case _:
            raise AssertionError(f"{node.layer!r} is no layer on tables")


def _columns(graph: Graph, x: Samples, begin: int, end: int) -> str:
    """Some columns of flat samples."""
    numbers = (graph.array(f"number.{number}", np.array([number], np.int64)) for number in (begin, end, 1))
    return graph.add("Slice", x.name, *numbers)


def _embedding(graph: Graph, node: LayerNode, layer: Embedding, vectors: HostArray, x: Samples) -> Samples:
    """One gather from all vectors, of which the last one of each column is zero: that of codes without a category."""
    columns, categories, units = vectors.shape
    kept = node.input_shape[0] - columns
    codes = _columns(graph, x, kept, node.input_shape[0])
    limit = graph.number(float(categories))
    known = graph.add("And", graph.add("GreaterOrEqual", codes, graph.number(0.0)), graph.add("Less", codes, limit))
    places = graph.add("Cast", graph.add("Where", known, codes, limit), to=TensorProto.INT64)
    firsts = graph.array(f"{node.name}.firsts", np.arange(columns) * (categories + 1))
    table = np.concatenate([vectors, np.zeros((columns, 1, units), vectors.dtype)], axis=1).reshape(-1, units)
    found = graph.add("Gather", graph.array(f"{node.name}.vectors", table), graph.add("Add", places, firsts))
    flat = graph.reshaped(found, (columns * units,))
    if kept:
        flat = graph.add("Concat", _columns(graph, x, 0, kept), flat, axis=1)
    return Samples(flat, node.output_shape)


def _periodic_embedding(graph: Graph, node: LayerNode, own: Mapping[str, HostArray], x: Samples) -> Samples:
    embedded, _, units = own["weight"].shape
    features = node.input_shape[0]
    numbers = x.name if embedded == features else _columns(graph, x, 0, embedded)
    # ONNX Runtime has the sine in both dtypes, but the cosine only in float32.
    factors = (2 * math.pi * own["frequencies"].astype(np.float64)).astype(graph.dtype)[:, None, :]
    phases = (own["phases"].astype(np.float64) + math.pi / 2).astype(graph.dtype)[:, None, :]
    turned = graph.add("Mul", graph.reshaped(numbers, (embedded, 1, 1)), graph.array(f"{node.name}.factors", factors))
    angles = graph.add("Add", turned, graph.array(f"{node.name}.phases", phases))
    weight = graph.array(f"{node.name}.weight", own["weight"])
    combined = graph.add("MatMul", graph.add("Sin", angles), weight)
    bias = graph.array(f"{node.name}.bias", own["bias"][:, None, :])
    combined = graph.reshaped(graph.add("Add", combined, bias), (embedded, units))
    together = graph.add("Concat", graph.reshaped(numbers, (embedded, 1)), combined, axis=2)
    flat = graph.reshaped(together, (embedded * (1 + units),))
    if embedded < features:
        flat = graph.add("Concat", flat, _columns(graph, x, embedded, features), axis=1)
    return Samples(flat, node.output_shape)
