"""A recorded step with fewer launches: neighbouring operations that one kernel does together.

A launch takes longer than most of a small network's operations. Each rule looks for calls as the step records them, one
after the other, and puts a method of the CuPy backend in their place that comes to the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from nnbackend.backends.base import Call

__all__ = ["fuse"]

#: From the calls that are left to what takes the place of the first of them, and how many it replaces; None if the rule
#: does not apply.
_Rule = Callable[[Sequence[Call]], tuple[list[Call], int] | None]


def fuse(calls: Sequence[Call]) -> list[Call]:
    """The same step in fewer calls."""
    left, done = list(calls), []
    while left:
        found = next((found for rule in _RULES if (found := rule(left))), (left[:1], 1))
        done += found[0]
        left = left[found[1] :]
    return done


def _gather_with_labels(calls: Sequence[Call]) -> tuple[list[Call], int] | None:
    if _names(calls, 2) != ["gather", "gather"]:
        return None
    source, order, counter, batch_size, scale, out = calls[0].arguments
    labels, same_order, same_counter, same_size, _, labels_out = calls[1].arguments
    together = order is same_order and counter is same_counter and batch_size == same_size
    if not together or source.ndim != 2 or labels_out.dtype != np.int32:
        return None
    arguments = (source, order, counter, batch_size, scale, out, labels, labels_out)
    return [Call("gather_with_labels", arguments)], 2


def _activation_and_bias_gradient(calls: Sequence[Call]) -> tuple[list[Call], int] | None:
    """The sums may move up past the layer's products: those read what is summed, and write elsewhere."""
    if _names(calls, 1) != ["activation_gradient"]:
        return None
    products = 0
    while _names(calls[1 + products :], 1) in _PRODUCTS:
        products += 1
    end = 1 + products
    delta = calls[0].arguments[-1]
    if _names(calls[end:], 1) != ["bias_gradient"] or calls[end].arguments[0] is not delta:
        return None
    if any(call.arguments[-1] is delta for call in calls[1:end]):
        return None
    fused = Call("activation_and_bias_gradient", (*calls[0].arguments, calls[end].arguments[1]))
    return [fused, *calls[1:end]], end + 1


def _finish(calls: Sequence[Call]) -> tuple[list[Call], int] | None:
    """What the step came to, and its counters."""
    if _names(calls, 2) not in (["record_loss", "advance"], ["finish_step", "advance"]):
        return None
    rows, penalties, counter, trace, *others = calls[0].arguments
    if counter is not calls[1].arguments[0]:
        return None
    return [Call("finish_step", (rows, penalties, counter, trace, counter, *others[1:]))], 2


_RULES: list[_Rule] = [_gather_with_labels, _activation_and_bias_gradient, _finish]

_PRODUCTS = (["dense_input_gradient"], ["dense_weight_gradient"], ["dense_weight_step"])


def _names(calls: Sequence[Call], count: int) -> list[str]:
    return [call.operation for call in calls[:count]]
