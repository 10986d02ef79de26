"""A recorded step with plain SGD in which the weights' products add to the weights themselves.

Going backwards, everything is in proportion to the gradient of the loss. So that is multiplied with minus the learning
rate, and then a weight's gradient is what SGD adds to the weight: the product adds it right away, and no gradient of a
weight is ever written, read, or added by a launch of its own. What is summed up for biases, little, is added where the
step ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from nnbackend.backends.base import Array, Call, HostArray
from nnbackend.backends.cupy.layout import stride

__all__ = ["with_plain_sgd"]

#: The three losses, whose gradient can be multiplied.
_LOSSES = ("softmax_cross_entropy", "sigmoid_cross_entropy", "mean_squared_error")

#: What a step may ask for besides: operations that are in proportion, going backwards, and write no gradient of a
#: parameter but by the products and sums of dense layers.
_OTHERS = (
    *("gather", "dense_forward", "activation_forward", "dropout", "max_abs_norm"),
    *("activation_gradient", "max_abs_norm_gradient", "dense_input_gradient"),
    *("dense_weight_gradient", "bias_gradient", "sgd_update", "record_loss", "advance"),
)

#: Numbers that the one block which ends the step adds without being waited for.
_MOST = 16_384

#: From a flat buffer, an offset, a shape and the elements from one row to the next: that window of it.
View = Callable[[Array, int, tuple[int, ...], int], Array]


def with_plain_sgd(calls: Sequence[Call], view: View, memory: Callable[[HostArray], Array]) -> list[Call]:
    """The same step with its update inside of its products, if it is one of plain SGD and nothing stands against it.

    Parameters
    ----------
    calls : sequence of Call
        As recorded.
    view : callable
    memory : callable
        Makes a device array of one on the host.
    """
    update = _plain_update(calls)
    if update is None:
        return list(calls)
    parameters, gradients, _, counter, rates, *_ = update.arguments
    sums = [call.arguments[1] for call in calls if call.operation == "bias_gradient"]
    if sum(each.shape[0] for each in sums) > _MOST:
        return list(calls)
    # Offset and length of each in the flat buffers.
    places = memory(np.array([(_offset(each, gradients), each.shape[0]) for each in sums], np.int64).reshape(-1, 2))
    step: list[Call] = []
    for call in calls:
        if call.operation in _LOSSES:
            step.append(Call("loss_step", (call.operation, *call.arguments, rates, counter)))
        elif call.operation == "dense_weight_gradient":
            x, delta, out = call.arguments
            weight = view(parameters, _offset(out, gradients), out.shape, stride(out))
            step.append(Call("dense_weight_step", (x, delta, weight)))
        elif call.operation == "record_loss":
            step.append(Call("finish_step", (*call.arguments, None, parameters, gradients, places)))
        elif call is not update:
            step.append(call)
    return step


def _plain_update(calls: Sequence[Call]) -> Call | None:
    """The update of a step that does nothing else with gradients; None if it is not plain, or does."""
    updates = [call for call in calls if call.operation == "sgd_update"]
    losses = [call for call in calls if call.operation in _LOSSES]
    if len(updates) != 1 or len(losses) != 1 or any(call.operation not in (*_LOSSES, *_OTHERS) for call in calls):
        return None
    _, _, velocity, _, _, momentum, _, decay = updates[0].arguments
    return updates[0] if velocity is None and not momentum and not decay else None


def _offset(window: Array, buffer: Array) -> int:
    """Where a window of a flat buffer begins, in elements."""
    return int(window.data.ptr - buffer.data.ptr) // int(buffer.itemsize)
