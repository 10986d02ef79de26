"""Fewer launches for a recorded step: one kernel computes several neighbouring operations.

A launch takes longer than most operations of a small network. Each rule looks for certain consecutive calls and
replaces them by one method of the CuPy backend with the same result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from nnbackend.backends.contract import Call
from nnbackend.backends.cupy.layout import same_memory

__all__ = ["fuse"]

#: Takes the remaining calls; returns a replacement for the first ones and their number, or None if it does not apply.
_Rule = Callable[[Sequence[Call]], tuple[list[Call], int] | None]


def fuse(calls: Sequence[Call]) -> list[Call]:
    """The same step with fewer calls."""
    left, done = list(calls), []
    while left:
        found = next((found for rule in _RULES if (found := rule(left))), (left[:1], 1))
        done += found[0]
        left = left[found[1] :]
    return done


def _gather_with_labels(calls: Sequence[Call]) -> tuple[list[Call], int] | None:
    if _names(calls, 2) != ["gather", "gather"]:
        return None
    rows, labels = calls[:2]
    together = rows.order is labels.order and rows.counter is labels.counter and rows.batch_size == labels.batch_size
    if not together or rows.source.ndim != 2 or labels.out.dtype != np.int32:
        return None
    return [Call("gather_with_labels", {**rows.arguments, "labels": labels.source, "labels_out": labels.out})], 2


def _activation_and_bias_gradient(calls: Sequence[Call]) -> tuple[list[Call], int] | None:
    """The sums may move ahead of the layer's products, which only read the summed array."""
    if _names(calls, 1) != ["activation_gradient"]:
        return None
    products = 0
    while calls[1 + products :] and calls[1 + products].operation in _PRODUCTS:
        products += 1
    end = 1 + products
    delta = calls[0].out
    if _names(calls[end:], 1) != ["bias_gradient"] or calls[end].delta is not delta:
        return None
    if any(call.out is delta for call in calls[1:end]):
        return None
    fused = Call("activation_and_bias_gradient", {**calls[0].arguments, "sums": calls[end].out})
    return [fused, *calls[1:end]], end + 1


def _convolution_and_relu(calls: Sequence[Call]) -> tuple[list[Call], int] | None:
    if _names(calls, 2) != ["convolution", "activation_forward"]:
        return None
    convolution, relu = calls[:2]
    in_place = same_memory(convolution.out, relu.z) and same_memory(relu.z, relu.out)
    if relu.activation != "relu" or not in_place:
        return None
    return [Call("convolution_and_relu", convolution.arguments)], 2


def _pool_and_relu_gradient(calls: Sequence[Call]) -> tuple[list[Call], int] | None:
    """The pool's input is what ReLU saved."""
    if _names(calls, 2) != ["pool_gradient", "activation_gradient"]:
        return None
    pool, relu = calls[:2]
    in_place = same_memory(pool.out, relu.upstream) and same_memory(relu.upstream, relu.out)
    if relu.activation != "relu" or not in_place or not same_memory(pool.x, relu.saved):
        return None
    return [Call("pool_and_relu_gradient", pool.arguments)], 2


def _convolution_and_bias_gradient(calls: Sequence[Call]) -> tuple[list[Call], int] | None:
    """The bias gradient is one more row of the product that computes the weight gradient."""
    if len(calls) < 2 or calls[0].operation not in _KERNEL_GRADIENTS or calls[1].operation != "bias_gradient":
        return None
    first, second = calls[:2]
    if not same_memory(first.delta, second.delta) or second.out.shape[0] != first.out.shape[3]:
        return None
    adds = first.operation == "convolution_weight_step"
    return [Call("convolution_gradients", {**first.arguments, "sums": second.out, "adds": adds})], 2


def _layer_norm_gradients(calls: Sequence[Call]) -> tuple[list[Call], int] | None:
    """Scale and shift: both are sums over the same array."""
    if _names(calls, 2) != ["layer_norm_scale_gradient", "bias_gradient"]:
        return None
    scale, shift = calls[:2]
    if scale.upstream is not shift.delta:
        return None
    return [Call("layer_norm_parameter_gradients", {**scale.arguments, "shift_gradient": shift.out})], 2


def _finish(calls: Sequence[Call]) -> tuple[list[Call], int] | None:
    """Fuse recording the loss with advancing the counters."""
    if _names(calls, 2) not in (["record_loss", "advance"], ["finish_step", "advance"]):
        return None
    finish, advance = calls[:2]
    if finish.counter is not advance.counter:
        return None
    return [Call("finish_step", {**finish.arguments, "advanced": advance.counter})], 2


_RULES: list[_Rule] = [
    _gather_with_labels,
    _activation_and_bias_gradient,
    _convolution_and_relu,
    _pool_and_relu_gradient,
    _convolution_and_bias_gradient,
    _layer_norm_gradients,
    _finish,
]

_KERNEL_GRADIENTS = ("convolution_weight_gradient", "convolution_weight_step")

_PRODUCTS = ("dense_input_gradient", "dense_weight_gradient", "dense_weight_step")


def _names(calls: Sequence[Call], count: int) -> list[str]:
    return [call.operation for call in calls[:count]]
