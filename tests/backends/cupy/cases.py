"""Calls of every operation with random data, to be run on any backend and compared with the reference.

A case is the operation's name and its arguments. Arrays among them are host arrays, reals in float64 with values that
float32 has too; :func:`run` moves them to a backend and brings *all* of them back, so a comparison also detects
unwanted writes. The same array twice means the same device array twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from nnbackend.backends.activations import ACTIVATIONS
from nnbackend.backends.contract import Backend
from nnbackend.backends.numpy import NumpyBackend

__all__ = ["CASES", "Case", "assert_agrees", "make", "run"]

_SENTINEL = 77.0
_TOLERANCE = {"float32": 3e-5, "float64": 1e-11}
_REFERENCE = NumpyBackend()


class Case(NamedTuple):
    """One call."""

    operation: str
    arguments: tuple[Any, ...]


def run(backend: Backend, case: Case, dtype: str, padding: int = 0) -> list[np.ndarray]:
    """Make the call with rows of matrices padded by `padding` elements; returns all arrays after the call."""
    placed = {id(value): _place(backend, value, dtype, padding) for value in _arrays(case)}
    arguments = [placed[id(value)][0] if isinstance(value, np.ndarray) else value for value in case.arguments]
    getattr(backend, case.operation)(*arguments)
    backend.synchronize()
    for view, buffer, stride in placed.values():
        if buffer is not None:
            gaps = backend.to_host(buffer).reshape(-1, stride)[:, view.shape[1] :]
            assert (gaps == gaps.dtype.type(_SENTINEL)).all(), f"{case.operation} wrote into the padding"
    return [backend.to_host(placed[id(value)][0]) for value in _arrays(case)]


def assert_agrees(backend: Backend, case: Case, dtype: str, padding: int = 0) -> None:
    """Check that the backend's result agrees with NumPy in float64."""
    expected = run(_REFERENCE, case, "float64")
    actual = run(backend, case, dtype, padding)
    for place, (mine, wanted) in enumerate(zip(actual, expected, strict=True)):
        scale = max(1.0, float(np.abs(wanted).max(initial=0)))
        if scale > 1e6:  # the sentinel, which as a scale would hide any error
            np.testing.assert_array_equal(mine, wanted, err_msg=f"{case.operation}: array {place}")
            continue
        np.testing.assert_allclose(
            mine, wanted, rtol=0, atol=_TOLERANCE[dtype] * scale, err_msg=f"{case.operation}: array {place}"
        )


def _arrays(case: Case) -> Iterator[np.ndarray]:
    return (value for value in case.arguments if isinstance(value, np.ndarray))


def _place(backend: Backend, host: np.ndarray, dtype: str, padding: int) -> tuple[Any, Any, int]:
    """The array on the backend and, if its rows are padded, the buffer that it is a view of."""
    real = np.dtype(dtype) if host.dtype == np.float64 and not _always_double(host) else host.dtype
    host = host.astype(real, subok=False)
    if host.ndim != 2 or not padding:
        return backend.from_host(host), None, 0
    stride = host.shape[1] + padding
    buffer = backend.from_host(np.full(host.shape[0] * stride, _SENTINEL, real))
    view = backend.view(buffer, 0, host.shape, stride)
    backend.write(host, view)
    return view, buffer, stride


class _Double(np.ndarray):
    """Marks arrays that are float64 for any dtype of the network: learning rates and the trace."""


def _always_double(host: np.ndarray) -> bool:
    return isinstance(host, _Double)


# ---- the cases: functions of (rng, rows, columns, inner) -------------------------------------------------------------


def _real(rng, *shape: int, scale: float = 1.0) -> np.ndarray:
    return (rng.standard_normal(shape) * scale).astype(np.float32).astype(np.float64)


def _garbage(*shape: int) -> np.ndarray:
    """The initial contents of an output."""
    return np.full(shape, 1e30, np.float32).astype(np.float64)


def _counter(place: int = 1) -> np.ndarray:
    return np.array([place, 2**33 + 5, 7], np.int64)


def _gather(rng, rows, columns, inner, kind, one_dimensional=False) -> Case:
    batch_size = rows + inner % 3
    shape = (batch_size + rows + 2,) if one_dimensional else (batch_size + rows + 2, columns)
    order = rng.permutation(shape[0]).astype(np.int64)
    if kind == "real":
        source, scale = _real(rng, *shape), 0.25
    else:
        source, scale = rng.integers(0, 256, shape).astype(kind), 1 / 255 if kind == "uint8" else 1.0
    out_shape = (rows, *shape[1:])
    out = np.full(out_shape, 9, np.int32) if kind == "int32" else _garbage(*out_shape)
    return Case("gather", (source, order, _counter(), batch_size, scale, out))


def _dense(rng, rows, columns, inner, activation, bias) -> Case:
    kind = ACTIVATIONS[activation]
    preactivation = _garbage(rows, columns) if kind.saves == "preactivation" else None
    x, weight = _real(rng, rows, inner), _real(rng, inner, columns, scale=inner**-0.5)
    b = _real(rng, columns) if bias else None
    out = _garbage(rows, columns)
    return Case("dense_forward", (x, weight, b, activation, kind.alpha, preactivation, out))


def _activation(rng, rows, columns, inner, activation, alias) -> Case:
    z = _real(rng, rows, columns, scale=3.0)
    out = z if alias else _garbage(rows, columns)
    return Case("activation_forward", (z, activation, ACTIVATIONS[activation].alpha, out))


def _activation_gradient(rng, rows, columns, inner, activation, alias) -> Case:
    kind = ACTIVATIONS[activation]
    saved = _real(rng, rows, columns, scale=2.0)
    if kind.saves == "output":
        _REFERENCE.activation_forward(saved.copy(), activation, kind.alpha, saved)
        saved = saved.astype(np.float32).astype(np.float64)
    upstream = _real(rng, rows, columns)
    out = upstream if alias else _garbage(rows, columns)
    return Case("activation_gradient", (saved, activation, kind.alpha, upstream, out))


def _dropout(rng, rows, columns, inner, rate, alias, first_row=0) -> Case:
    x = _real(rng, rows, columns)
    out = x if alias else _garbage(rows, columns)
    return Case("dropout", (x, rate, 2**62 + 12345, 2**31 + 3, _counter(), out, first_row))


def _max_abs_norm(rng, rows, columns, inner, gradient, ties, alias) -> Case:
    x, upstream = _real(rng, rows, columns), _real(rng, rows, columns)
    if ties:  # and rows of zeros
        x = np.trunc(x)
    last = upstream if gradient else x
    out = last if alias else _garbage(rows, columns)
    return Case("max_abs_norm_gradient", (x, upstream, out)) if gradient else Case("max_abs_norm", (x, out))


def _loss(rng, rows, columns, inner, operation, targets, weighted, alias) -> Case:
    outputs = _real(rng, rows, columns, scale=3.0)
    if targets == "labels":
        wanted = rng.integers(0, columns, rows).astype(np.int32)
    elif targets == "one-hot":
        wanted = np.eye(columns)[rng.integers(0, columns, rows)]
    else:
        wanted = rng.random((rows, columns)).astype(np.float32).astype(np.float64)
    weights = rng.random(rows).astype(np.float32).astype(np.float64) if weighted else None
    gradient = outputs if alias else _garbage(rows, columns)
    return Case(operation, (outputs, wanted, weights, gradient, _garbage(2, rows)))


def _record(rng, rows, columns, inner, penalised) -> Case:
    losses = np.stack([_real(rng, rows), rng.integers(0, 2, rows).astype(np.float64)])
    penalties = _real(rng, columns) if penalised else None
    return Case("record_loss", (losses, penalties, _counter(2), np.zeros((4, 3)).view(_Double)))


def _product(rng, rows, columns, inner, operation) -> Case:
    left, right, out = {
        "dense_input_gradient": ((rows, columns), (inner, columns), (rows, inner)),
        "dense_weight_gradient": ((rows, inner), (rows, columns), (inner, columns)),
    }[operation]
    return Case(operation, (_real(rng, *left), _real(rng, *right), _garbage(*out)))


def _bias(rng, rows, columns, inner) -> Case:
    return Case("bias_gradient", (_real(rng, rows, columns), _garbage(columns)))


def _penalty(rng, rows, columns, inner, l1, l2) -> Case:
    weight = _real(rng, rows, columns)
    weight[rng.random(weight.shape) < 0.2] = 0
    return Case("weight_penalty", (weight, l1, l2, _real(rng, rows, columns), np.full(5, 7.0), 3))


def _flat(rng, rows, columns, count) -> list[np.ndarray]:
    """`count` buffers; from the third on they contain squares, which must not be negative."""
    size = rows * columns
    return [_real(rng, size) if i < 2 else np.abs(_real(rng, size)) for i in range(count)]


def _rates() -> np.ndarray:
    return np.array([1e9, 0.01, 1e9]).view(_Double)


def _sgd(rng, rows, columns, inner, momentum, nesterov, weight_decay) -> Case:
    parameters, gradients, velocity = _flat(rng, rows, columns, 3)
    slot = velocity if momentum else None
    arguments = (parameters, gradients, slot, _counter(), _rates(), momentum, nesterov, weight_decay)
    return Case("sgd_update", arguments)


def _adam(rng, rows, columns, inner, weight_decay, decoupled) -> Case:
    parameters, gradients, second, first = _flat(rng, rows, columns, 4)
    slots = (parameters, gradients, first, second, _counter(), _rates())
    return Case("adam_update", (*slots, 0.9, 0.999, 1e-8, weight_decay, decoupled))


def _rmsprop(rng, rows, columns, inner, weight_decay) -> Case:
    parameters, gradients, square = _flat(rng, rows, columns, 3)
    return Case("rmsprop_update", (parameters, gradients, square, _counter(), _rates(), 0.9, 1e-7, weight_decay))


def _advance(rng, rows, columns, inner) -> Case:
    return Case("advance", (_counter(),))


def _all_cases() -> Iterator[tuple[str, Callable[..., Case]]]:
    for kind in ("uint8", "int32", "real"):
        yield f"gather-{kind}", partial(_gather, kind=kind)
    for kind in ("int32", "real"):
        yield f"gather-{kind}-vector", partial(_gather, kind=kind, one_dimensional=True)
    yield "advance", _advance
    for activation in ACTIVATIONS:
        for bias in (True, False):
            name = f"dense_forward-{activation}{'-bias' if bias else ''}"
            yield name, partial(_dense, activation=activation, bias=bias)
        for alias in (True, False):
            suffix = f"{activation}{'-alias' if alias else ''}"
            yield f"activation_forward-{suffix}", partial(_activation, activation=activation, alias=alias)
            yield f"activation_gradient-{suffix}", partial(_activation_gradient, activation=activation, alias=alias)
    for rate, alias in ((0.5, False), (0.1, True), (0.0, False), (1 - 1e-12, False)):
        yield f"dropout-{rate}{'-alias' if alias else ''}", partial(_dropout, rate=rate, alias=alias)
    yield "dropout-later-rows", partial(_dropout, rate=0.5, alias=False, first_row=7)
    for gradient, ties, alias in product((False, True), repeat=3):
        name = f"max_abs_norm{'_gradient' * gradient}{'-ties' * ties}{'-alias' * alias}"
        yield name, partial(_max_abs_norm, gradient=gradient, ties=ties, alias=alias)
    kinds = {
        "softmax_cross_entropy": ("labels", "one-hot", "probabilities"),
        "sigmoid_cross_entropy": ("probabilities",),
        "mean_squared_error": ("probabilities", "one-hot"),
    }
    for operation, targets in kinds.items():
        for kind in targets:
            for weighted, alias in ((False, False), (True, True)):
                name = f"{operation}-{kind}{'-weights-alias' if weighted else ''}"
                yield name, partial(_loss, operation=operation, targets=kind, weighted=weighted, alias=alias)
    for penalised in (True, False):
        yield f"record_loss{'-penalties' if penalised else ''}", partial(_record, penalised=penalised)
    for operation in ("dense_input_gradient", "dense_weight_gradient"):
        yield operation, partial(_product, operation=operation)
    yield "bias_gradient", _bias
    for l1, l2 in ((0.3, 0.2), (0.3, 0.0), (0.0, 0.2), (0, 0)):
        yield f"weight_penalty-{l1}-{l2}", partial(_penalty, l1=l1, l2=l2)
    for momentum, nesterov, decay in ((0, False, 0), (0.0, False, 0.1), (0.9, False, 0.0), (0.9, True, 0.1)):
        name = f"sgd_update-{momentum}-{nesterov}-{decay}"
        yield name, partial(_sgd, momentum=momentum, nesterov=nesterov, weight_decay=decay)
    for decay, decoupled in ((0, False), (0.1, False), (0.1, True)):
        yield f"adam_update-{decay}-{decoupled}", partial(_adam, weight_decay=decay, decoupled=decoupled)
    for decay in (0, 0.1):
        yield f"rmsprop_update-{decay}", partial(_rmsprop, weight_decay=decay)


#: Every variant of every operation: a function of (rng, rows, columns, inner) that makes a case.
CASES: dict[str, Callable[..., Case]] = dict(_all_cases())


def make(name: str, rows: int, columns: int, inner: int, seed: int) -> Case:
    """The case called `name` at one size."""
    return CASES[name](np.random.default_rng(seed), rows, columns, inner)
