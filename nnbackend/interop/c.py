"""Export networks as C99, for devices and programs without Python."""

from __future__ import annotations

import math
import os
import re
from typing import Any

import numpy as np

from nnbackend.errors import InvalidInputError
from nnbackend.interop.c_layers import add_activation, add_copy, add_layers
from nnbackend.interop.c_program import Program, Value
from nnbackend.interop.exports import check_built_in, input_dtype_of
from nnbackend.layers.stack import written
from nnbackend.network import Network
from nnbackend.saving.model_file import check_finite
from nnbackend.support import VERSION
from nnbackend.support.files import atomic_write, path_text

__all__ = ["export", "function_name"]

#: Most parameters: as text they take about 16 bytes each, and compilers need several times that.
_LARGEST = 1 << 24

#: Longest part of a name that comes from the name of the file: compilers may compare only 63 characters.
_LONGEST_NAME = 40

_TYPES = {"uint8": "unsigned char", "float32": "float", "float64": "double"}

_ACTIVATED = {"softmax": "probabilities", "sigmoid": "probabilities"}


def export(network: Network, path: str | os.PathLike[str], input_dtype: Any = None) -> None:
    """Write a network as a C header with one function, which computes the results of `network.predict` for a row.

    The header is C99, and needs only ``math.h``. For ``digits.h`` the function is ``digits_predict(input, output,
    workspace)``, and the macros ``DIGITS_INPUTS``, ``DIGITS_OUTPUTS`` and ``DIGITS_WORKSPACE`` are the numbers of
    elements of its arrays. It allocates nothing and keeps no state: the caller provides the memory for intermediate
    results, so several threads may call it with a workspace each. The weights are constants with exactly the network's
    values, which a linker can place in read-only memory. A comment at the top says what the arrays contain.

    Parameters
    ----------
    network : Network
    path : str or path-like
        Ends in ".h". The folder is created if it is missing. The names are derived from the name of the file.
    input_dtype : str or dtype, optional
        The dtype of the input: "uint8", "float32" or "float64". Default: the network's dtype. The function multiplies
        inputs of any dtype by the network's `input_scale`, as `predict` does.

    Raises
    ------
    InvalidInputError
        A layer is user-defined, the network is too large for a header, or the path does not end in ".h".
    UnknownNameError
        `input_dtype` is unknown.
    ModelFileError
        A weight is NaN or infinite; nothing was written.
    OSError
        The file cannot be written; an existing file is unchanged.
    """
    path = path_text("path", path)
    if not path.lower().endswith(".h"):
        raise InvalidInputError(f"the name of a C header must end in .h, received {path!r}")
    dtype = input_dtype_of(input_dtype, [network])
    check_built_in(network, "has no C code")
    count = network.model.layout.count
    if count > _LARGEST:
        raise InvalidInputError(f"a C header may have at most {_LARGEST:,} parameters, and the network has {count:,}")
    weights = network.get_weights()
    check_finite(path, weights)
    with atomic_write(path) as stream:
        stream.write(_header(network, weights, dtype, os.path.basename(path)).encode())


def function_name(path: str | os.PathLike[str]) -> str:
    """The name of the function in an exported header: "digits_predict" for "digits.h".

    Characters that names in C cannot have become underscores, and a name that would start with a digit or an
    underscore starts with "net".
    """
    return f"{_stem(path)}_predict"


def _stem(path: str | os.PathLike[str]) -> str:
    stem = os.path.splitext(os.path.basename(os.fspath(path)))[0]
    stem = re.sub("[^A-Za-z0-9]+", "_", stem).rstrip("_")
    stem = stem if re.match("[A-Za-z]", stem) else f"net_{stem.lstrip('_')}".rstrip("_")
    return stem[:_LONGEST_NAME].rstrip("_")


def _header(network: Network, weights: dict[str, Any], input_dtype: np.dtype[Any], file: str) -> str:
    source = Value(math.prod(network.input_shape))
    program = Program(network.dtype, source, _TYPES[input_dtype.name], network.scale.of(input_dtype))
    x = add_layers(program, network.model.layout.nodes, weights, source)
    if network.loss is not None:
        activation = network.loss.output_activation
        x = add_activation(program, f"{activation} of the loss", activation, 0.0, x)
    if x is source:
        x = add_copy(program, x)
    body, workspace = program.write(x)
    if not workspace:
        body = ["(void)workspace;", *body]
    name, macro = function_name(file), _stem(file).upper()
    sizes = {"INPUTS": source.size, "OUTPUTS": x.size, "WORKSPACE": max(1, workspace)}
    indent = " " * len(f"static inline void {name}(")
    comment = _comment(network, program, sizes, file)
    return "\n".join([
        f"/* {comment[0]}", *(f"   {line}".rstrip() for line in comment[1:]), "*/",
        f"#ifndef {macro}_H", f"#define {macro}_H", "", "#include <math.h>", "",
        *(f"#define {macro}_{what} {size}" for what, size in sizes.items()), "",
        f"static inline void {name}(const {program.input_type} input[{macro}_INPUTS],",
        f"{indent}{program.real} output[{macro}_OUTPUTS],",
        f"{indent}{program.real} workspace[{macro}_WORKSPACE])",
        "{", *(f"    {line}".rstrip() for line in body), "}", "", "#endif", "",
    ])  # fmt: skip


def _comment(network: Network, program: Program, sizes: dict[str, int], file: str) -> list[str]:
    """What a user of the header must know, in lines."""
    size = np.dtype(network.dtype).itemsize
    constants = sum(array.size for block in program.blocks for array in block.constants.values())
    name, macro = function_name(file), _stem(file).upper()
    units = "" if network.trained_with is None else f"The network was trained with {network.trained_with.description}"
    if network.trained_with is not None and network.trained_with.high is not None:
        units += f", with values from {network.trained_with.low:g} to {network.trained_with.high:g}"
    loss = None if network.loss is None else network.loss.output_activation
    factor = "They are not scaled." if program.scale == 1 else f"The function multiplies them by {program.scale:.9g}."
    lines = [
        f"{file}: a neural network in C99, written by nnbackend {VERSION}.",
        "",
        f"{name}(input, output, workspace) computes the network's prediction for one sample.",
        "",
        f"input      {macro}_INPUTS = {sizes['INPUTS']} numbers of type {program.input_type}: a sample of shape "
        f"{network.input_shape}",
        "           in row-major order, in the units of the training. " + factor,
        *([f"           {units}."] if units else []),
        f"output     {macro}_OUTPUTS = {sizes['OUTPUTS']} numbers of type {program.real}: "
        f"{_ACTIVATED.get(str(loss), 'values')} of shape {network.output_shape}",
        f"workspace  {macro}_WORKSPACE = {sizes['WORKSPACE']} numbers of type {program.real} "
        f"({sizes['WORKSPACE'] * size:,} bytes) for intermediate results. Their values before and",
        "           after a call have no meaning, so the same memory may serve other purposes between calls.",
        "",
        "The three arrays must not overlap. The function allocates nothing and keeps no state, so it is re-entrant:",
        "several threads may call it at the same time, each with a workspace of its own. It is static: include this",
        f"file in one source file, or each has a copy of the {constants:,} constants ({constants * size:,} bytes).",
        "",
        *(f"{written(node.name)}  {node.layer!r}  {node.output_shape}" for node in network.model.layout.nodes),
    ]
    return [_printable(line) for line in lines]


def _printable(text: str) -> str:
    """The text without characters that could end a comment or continue a line, such as those of a description that was
    read from a file."""
    return re.sub(r"[^\w .,:;()\[\]<>=+%'&-]|[^\x20-\x7e]", lambda found: "/" if _is_slash(found) else "_", text)


def _is_slash(found: re.Match[str]) -> bool:
    """A slash that stands alone, as in 1/255."""
    before, after = found.string[: found.start()][-1:], found.string[found.end() :][:1]
    return found.group() == "/" and (before + after).isalnum()
