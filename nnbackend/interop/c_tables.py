"""Embeddings as blocks of an exported C function."""

from __future__ import annotations

import math
from collections.abc import Mapping

from nnbackend.backends.contract import HostArray
from nnbackend.interop.c_program import Program, Value, loop
from nnbackend.layers import LayerNode

__all__ = ["embedding_lines", "periodic_lines"]


def embedding_lines(program: Program, node: LayerNode, own: Mapping[str, HostArray], x: Value) -> list[str]:
    """The first columns, then the vector of each category; zeros for a code without one, and for NaN."""
    columns, categories, units = own["vectors"].shape
    kept = node.input_shape[0] - columns
    known = f"v >= {program.number(0)} && v < {program.number(categories)}"
    body = [
        f"const {program.real} v = {program.read(x, f'{kept} + j')};",
        f"const long c = {known} ? j * {categories} + (long)v : -1;",
        *loop("k", units, [
            f"y[{kept} + j * {units} + k] = c < 0 ? {program.number(0)} : vectors[c * {units} + k];"
        ]),
    ]  # fmt: skip
    copied = loop("i", kept, [f"y[i] = {program.read(x, 'i')};"]) if kept else []
    return copied + loop("j", columns, body)


def periodic_lines(program: Program, node: LayerNode, own: Mapping[str, HostArray], x: Value) -> list[str]:
    """Each number and the combinations of its waves, then the columns that are not embedded."""
    embedded, waves, units = own["weight"].shape
    features, turn = node.input_shape[0], program.number(2 * math.pi)
    angle = f"{turn} * frequencies[j * {waves} + k] * v + phases[j * {waves} + k]"
    body = [
        f"const {program.real} v = {program.read(x, 'j')};",
        f"{program.real} *to = y + j * {1 + units};",
        "to[0] = v;",
        *loop("m", units, [f"to[1 + m] = bias[j * {units} + m];"]),
        *loop("k", waves, [
            f"const {program.real} wave = {program.function('cos')}({angle});",
            *loop("m", units, [f"to[1 + m] += wave * weight[(j * {waves} + k) * {units} + m];"]),
        ]),
    ]  # fmt: skip
    lines = loop("j", embedded, body)
    if embedded < features:
        lines += loop("i", features, [f"y[{embedded * units} + i] = {program.read(x, 'i')};"], start=embedded)
    return lines
