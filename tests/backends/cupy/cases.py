"""Calls of every operation with random data, to be run on any backend and compared with the reference.

A case is the operation's name and its arguments; see `comparison.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product

import numpy as np

from nnbackend.backends.activations import ACTIVATIONS
from nnbackend.backends.image_operations import POOLS
from nnbackend.backends.numpy import NumpyBackend
from nnbackend.backends.training_operations import ELEMENTWISE_LOSSES
from tests.backends.cupy.comparison import Case, Double, Kernel
from tests.backends.cupy.table_cases import table_cases

__all__ = ["CASES", "make"]

_REFERENCE = NumpyBackend()


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


def _elementwise(rng, rows, columns, inner, loss, weighted, alias) -> Case:
    outputs, targets = _real(rng, rows, columns), np.abs(_real(rng, rows, columns))
    if loss == "sigmoid_focal":
        targets = rng.random((rows, columns)).astype(np.float32).astype(np.float64)
    parameters = rng.random(columns).astype(np.float32).astype(np.float64)
    weights = rng.random(rows).astype(np.float32).astype(np.float64) if weighted else None
    gradient = outputs if alias else _garbage(rows, columns)
    return Case("elementwise_loss", (outputs, targets, weights, loss, parameters, gradient, _garbage(2, rows)))


def _focal_rows(rng, rows, columns, inner, weighted) -> Case:
    weights = rng.random(rows).astype(np.float32).astype(np.float64) if weighted else None
    return Case("focal_rows", (weights, 1.5, _real(rng, rows, columns), np.abs(_real(rng, 2, rows))))


def _smooth(rng, rows, columns, inner, labelled) -> Case:
    labels, values = rng.integers(0, columns, rows).astype(np.int32), np.abs(_real(rng, rows, columns))
    return Case("smooth_labels", (labels if labelled else values, 0.25, 0.5, _garbage(rows, columns)))


def _store(rng, rows, columns, inner) -> Case:
    return Case("store_rows", (_real(rng, rows, columns), _counter(), rows + 1, _garbage(3 * rows, columns)))


def _squares(rng, rows, columns, inner) -> Case:
    return Case("square_sum", (_real(rng, rows * columns), np.zeros(1).view(Double)))


def _clip(rng, rows, columns, inner, operation) -> Case:
    gradients = _real(rng, rows * columns)
    limits = (np.array([gradients @ gradients]).view(Double), 0.5) if operation == "clip_norm" else (0.5,)
    return Case(operation, (*limits, gradients))


def _record(rng, rows, columns, inner, penalised) -> Case:
    losses = np.stack([_real(rng, rows), rng.integers(0, 2, rows).astype(np.float64)])
    penalties = _real(rng, columns) if penalised else None
    return Case("record_loss", (losses, penalties, _counter(2), np.zeros((4, 3)).view(Double)))


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
    return np.array([1e9, 0.01, 1e9]).view(Double)


def _momenta() -> np.ndarray:
    return np.array([0.99, 0.6, 0.99]).view(Double)


def _sgd(rng, rows, columns, inner, momentum, nesterov, weight_decay, scheduled=False) -> Case:
    parameters, gradients, velocity = _flat(rng, rows, columns, 3)
    slot = velocity if momentum else None
    momenta = [_momenta()] if scheduled else []
    arguments = (parameters, gradients, slot, _counter(), _rates(), momentum, nesterov, weight_decay, *momenta)
    return Case("sgd_update", arguments)


def _adam(rng, rows, columns, inner, weight_decay, decoupled, scheduled=False) -> Case:
    parameters, gradients, second, first = _flat(rng, rows, columns, 4)
    slots = (parameters, gradients, first, second, _counter(), _rates())
    momenta = [_momenta()] if scheduled else []
    return Case("adam_update", (*slots, 0.9, 0.999, 1e-8, weight_decay, decoupled, *momenta))


def _rmsprop(rng, rows, columns, inner, weight_decay) -> Case:
    parameters, gradients, square = _flat(rng, rows, columns, 3)
    return Case("rmsprop_update", (parameters, gradients, square, _counter(), _rates(), 0.9, 1e-7, weight_decay))


def _lion(rng, rows, columns, inner, weight_decay, scheduled=False) -> Case:
    parameters, gradients, momentum = _flat(rng, rows, columns, 3)
    slots = (parameters, gradients, momentum, _counter(), _rates())
    return Case("lion_update", (*slots, 0.9, 0.99, weight_decay, _momenta() if scheduled else None))


def _blend(rng, rows, columns, inner, scheduled) -> Case:
    source, out = _flat(rng, rows, columns, 2)
    return Case("blend", (source, 0.25, _counter(), _momenta() if scheduled else None, out))


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
    for loss in ELEMENTWISE_LOSSES:
        for weighted, alias in ((False, False), (True, True)):
            name = f"elementwise_loss-{loss}{'-weights-alias' if weighted else ''}"
            yield name, partial(_elementwise, loss=loss, weighted=weighted, alias=alias)
    for weighted in (False, True):
        yield f"focal_rows{'-weights' if weighted else ''}", partial(_focal_rows, weighted=weighted)
        yield f"smooth_labels{'-labels' if weighted else ''}", partial(_smooth, labelled=weighted)
    yield "store_rows", _store
    yield "square_sum", _squares
    for operation in ("clip_norm", "clip_value"):
        yield operation, partial(_clip, operation=operation)
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
    yield "sgd_update-momenta", partial(_sgd, momentum=0.9, nesterov=True, weight_decay=0.1, scheduled=True)
    yield "adam_update-momenta", partial(_adam, weight_decay=0.1, decoupled=True, scheduled=True)
    for decay in (0, 0.1):
        yield f"rmsprop_update-{decay}", partial(_rmsprop, weight_decay=decay)
    yield from _more_updates()


def _more_updates() -> Iterator[tuple[str, Callable[..., Case]]]:
    for scheduled in (False, True):
        yield f"blend{'-shares' * scheduled}", partial(_blend, scheduled=scheduled)
    for decay, scheduled in ((0.0, False), (0.1, False), (0.1, True)):
        name = f"lion_update-{decay}{'-momenta' * scheduled}"
        yield name, partial(_lion, weight_decay=decay, scheduled=scheduled)


# ---- images ----------------------------------------------------------------------------------------------------------

#: Groups, and strides, dilation, top and left of a convolution.
_CONVOLUTIONS = {
    "plain": (1, (1, 1, 1, 1, 0, 0)),
    "steps": (1, (2, 1, 1, 2, 1, 2)),
    "groups": (2, (1, 2, 2, 1, 0, 1)),
    "depthwise": (3, (1, 1, 1, 1, 1, 1)),
}


def _convolution(rng, rows, columns, inner, operation, groups, steps, bias=True) -> Case:
    """`columns` filters of `inner` channels, in groups, except in the depthwise case."""
    n, (stride_y, stride_x, dilation_y, dilation_x, top, left) = 1 + rows % 3, steps
    filters, channels = (columns, 1 + inner % 23) if groups < 3 else (1, 1)
    height, width = 4 + rows % 3, 5 + columns % 3
    kernel = (2, 3, channels, groups * filters)
    # One more row and column of padding below and on the right.
    maps = (
        n,
        (height + top - dilation_y) // stride_y + 1,
        (width + left - 2 * dilation_x) // stride_x + 1,
        groups * filters,
    )
    image = (n, height, width, groups * channels)
    weight = _real(rng, *kernel, scale=(6 * channels) ** -0.5).view(Kernel)
    match operation:
        case "convolution":
            b = _real(rng, kernel[3]) if bias else None
            return Case(operation, (_real(rng, *image), weight, b, *steps, _garbage(*maps)))
        case "convolution_input_gradient":
            return Case(operation, (_real(rng, *maps), weight, *steps, _garbage(*image)))
    out = _garbage(*kernel).view(Kernel)
    return Case(operation, (_real(rng, *image), _real(rng, *maps), *steps, out))


def _pool(rng, rows, columns, inner, kind, gradient, ties=False) -> Case:
    n, channels = 1 + rows % 3, 1 + columns % 9
    x = _real(rng, n, 5, 4 + inner % 3, channels)
    if ties:
        x = np.trunc(x)
    window = (kind, 3, 2, 2, 1, 1, 1)
    pooled = _garbage(n, 3, x.shape[2], channels)
    if not gradient:
        return Case("pool", (x, *window, pooled))
    _REFERENCE.pool(x, *window, pooled)
    if kind == "l2":
        pooled = pooled.astype(np.float32).astype(np.float64)
    return Case("pool_gradient", (x, pooled, _real(rng, *pooled.shape), *window, _garbage(*x.shape)))


def _place_images(rng, rows, columns, inner, top, left) -> Case:
    n, channels = 1 + rows % 3, 1 + columns % 9
    return Case("place", (_real(rng, n, 4, 5, channels), top, left, _garbage(n, 3 + inner % 4, 6, channels)))


def _transforms(rng, rows, columns, inner, first_row=0) -> Case:
    chain = [(kind, 0.3 + kind, 1.5, 2**32 - 1 - place) for place, kind in enumerate((0, 1, 2, 3, 4, 1))]
    out = np.full((rows, 6), 1e30).view(Double)
    arguments = (np.array(chain).view(Double), 3 + columns, 2 + inner, 2**62 + 12345, _counter(), out, first_row)
    return Case("draw_transforms", arguments)


def _displacements(rng, rows, columns, inner, first_row=0) -> Case:
    kernel = np.array([1, 2, 3, 2, 1], np.float64) / 8
    out = _garbage(1 + rows % 5, 1 + columns % 7, 1 + inner % 6, 2)
    return Case("draw_displacements", (kernel, 2.5, 2**62 + 12345, 2**31 + 3, _counter(), out, first_row))


def _resample(rng, rows, columns, inner, transformed, displaced) -> Case:
    n, height, channels = 1 + rows % 5, 1 + inner % 6, 1 + columns % 4
    x = _real(rng, n, height, 5, channels)
    transforms = (np.tile([1.0, 0, 0, 0, 1, 0], (n, 1)) + 0.3 * _real(rng, n, 6)).view(Double)
    fields = _real(rng, n, height, 5, 2)
    places = (transforms if transformed else None, fields if displaced else None)
    return Case("resample", (x, *places, _garbage(*x.shape)))


def _add(rng, rows, columns, inner, alias) -> Case:
    a, b = _real(rng, rows, columns), _real(rng, rows, columns)
    return Case("add", (a, b, {"": _garbage(rows, columns), "a": a, "b": b}[alias]))


def _vectors(rng, columns, given) -> list[np.ndarray | None]:
    return [_real(rng, columns) if given else None for _ in range(2)]


def _batch_norm(rng, rows, columns, inner, given) -> Case:
    x, (scale, shift) = _real(rng, rows, columns) + 2, _vectors(rng, columns, given)
    running = _real(rng, columns), np.abs(_real(rng, columns))
    return Case("batch_norm", (x, scale, shift, 0.9, 1e-3, *running, _garbage(2, columns), _garbage(rows, columns)))


def _batch_norm_gradient(rng, rows, columns, inner, given, alias) -> Case:
    x, upstream, (scale, _) = _real(rng, rows, columns), _real(rng, rows, columns), _vectors(rng, columns, given)
    statistics = np.stack([_real(rng, columns), np.abs(_real(rng, columns))])
    gradients = [_garbage(columns) if given else None for _ in range(2)]
    out = upstream if alias else _garbage(rows, columns)
    return Case("batch_norm_gradient", (x, statistics, scale, upstream, *gradients, out))


def _normalize(rng, rows, columns, inner, given, alias) -> Case:
    x, (mean, _), (scale, shift) = _real(rng, rows, columns), *(_vectors(rng, columns, given) for _ in range(2))
    variance = np.abs(_real(rng, columns))
    return Case("normalize", (x, mean, variance, scale, shift, 1e-3, x if alias else _garbage(rows, columns)))


def _layer_norm(rng, rows, columns, inner, given) -> Case:
    x, (scale, shift) = _real(rng, rows, columns) + 2, _vectors(rng, columns, given)
    return Case("layer_norm", (x, scale, shift, 1e-3, _garbage(rows, 2), _garbage(rows, columns)))


def _layer_norm_gradient(rng, rows, columns, inner, given, alias) -> Case:
    x, upstream, (scale, _) = _real(rng, rows, columns), _real(rng, rows, columns), _vectors(rng, columns, given)
    statistics = np.stack([_real(rng, rows), np.abs(_real(rng, rows))], axis=1)
    out = upstream if alias else _garbage(rows, columns)
    return Case("layer_norm_gradient", (x, statistics, scale, upstream, out))


def _layer_norm_scale_gradient(rng, rows, columns, inner) -> Case:
    statistics = np.stack([_real(rng, rows), np.abs(_real(rng, rows))], axis=1)
    arrays = _real(rng, rows, columns), statistics, _real(rng, rows, columns)
    return Case("layer_norm_scale_gradient", (*arrays, _garbage(columns)))


def _image_cases() -> Iterator[tuple[str, Callable[..., Case]]]:
    for name, (groups, steps) in _CONVOLUTIONS.items():
        for operation in ("convolution", "convolution_input_gradient", "convolution_weight_gradient"):
            make_case = partial(_convolution, operation=operation, groups=groups, steps=steps)
            yield f"{operation}-{name}", make_case
    without_bias = {"groups": 1, "steps": (1, 1, 1, 1, 0, 0), "bias": False}
    yield "convolution-no-bias", partial(_convolution, operation="convolution", **without_bias)
    for kind in POOLS:
        yield f"pool-{kind}", partial(_pool, kind=kind, gradient=False)
        yield f"pool_gradient-{kind}", partial(_pool, kind=kind, gradient=True)
    yield "pool_gradient-ties", partial(_pool, kind="max", gradient=True, ties=True)
    yield "place-larger", partial(_place_images, top=1, left=-1)
    yield "place-smaller", partial(_place_images, top=-2, left=2)
    for first_row in (0, 7):
        suffix = "-later-rows" * bool(first_row)
        yield f"draw_transforms{suffix}", partial(_transforms, first_row=first_row)
        yield f"draw_displacements{suffix}", partial(_displacements, first_row=first_row)
    for transformed, displaced in product((False, True), repeat=2):
        name = f"resample{'-transforms' * transformed}{'-displacements' * displaced}"
        yield name, partial(_resample, transformed=transformed, displaced=displaced)
    for alias in ("", "a", "b"):
        yield f"add{'-alias' * bool(alias)}{alias}", partial(_add, alias=alias)
    yield "layer_norm_scale_gradient", _layer_norm_scale_gradient
    for given in (True, False):
        suffix = "-scale" * given
        yield f"batch_norm{suffix}", partial(_batch_norm, given=given)
        yield f"layer_norm{suffix}", partial(_layer_norm, given=given)
        for alias in (True, False):
            name = f"{suffix}{'-alias' * alias}"
            yield f"batch_norm_gradient{name}", partial(_batch_norm_gradient, given=given, alias=alias)
            yield f"layer_norm_gradient{name}", partial(_layer_norm_gradient, given=given, alias=alias)
            yield f"normalize{name}", partial(_normalize, given=given, alias=alias)


#: Every variant of every operation: a function of (rng, rows, columns, inner) that makes a case.
CASES: dict[str, Callable[..., Case]] = dict([*_all_cases(), *_image_cases(), *table_cases()])


def make(name: str, rows: int, columns: int, inner: int, seed: int) -> Case:
    """The case called `name` at one size."""
    return CASES[name](np.random.default_rng(seed), rows, columns, inner)
