"""Plain SGD fused into the products: the product that computes a weight gradient adds it to the weights.

The backward pass is linear in the gradient of the loss. If that is multiplied by minus the learning rate, each weight
gradient becomes SGD's change of the weight, and the product can add it directly without storing it. The other
gradients, such as those of biases, are small; the last launch of the step adds them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from nnbackend.backends.contract import Array, Call, HostArray
from nnbackend.backends.cupy.layout import stride

__all__ = ["with_plain_sgd"]

#: Roles that allow this. In the backward pass only a penalty's gradient is not proportional to the gradient of the
#: loss.
_ROLES = ("forward", "backward", "loss", "bookkeeping")
_NOT_PROPORTIONAL = ("weight_penalty", "square_sum", "clip_norm", "clip_value", "blend")

#: The losses whose kernels can multiply the gradient.
_LOSSES = ("softmax_cross_entropy", "sigmoid_cross_entropy", "mean_squared_error")

#: The operations whose result is added directly, and what does both.
_STEPS = {"dense_weight_gradient": "dense_weight_step", "convolution_weight_gradient": "convolution_weight_step"}

#: Maximum number of other elements: few enough that the single block of the last launch adds them in negligible time.
_MAX_OTHER_ELEMENTS = 16_384

#: Makes a view of a flat buffer from an offset, a shape and the stride of the last axis but one in elements.
View = Callable[[Array, int, tuple[int, ...], int], Array]


def with_plain_sgd(calls: Sequence[Call], view: View, memory: Callable[[HostArray], Array]) -> list[Call]:
    """The same step with its update fused into the products, if it uses plain SGD and all calls allow it.

    Parameters
    ----------
    calls : sequence of Call
        As recorded.
    view : callable
    memory : callable
        Copies a host array to the device.
    """
    update = _plain_update(calls)
    if update is None:
        return list(calls)
    parameters, gradients = update.parameters, update.gradients
    sums = _other_gradients(calls, gradients)
    if sums is None or sum(each.shape[0] for each in sums) > _MAX_OTHER_ELEMENTS or _read_later(calls, update):
        return list(calls)
    # Offset and length of each vector in the flat buffers.
    ranges = memory(np.array([(_offset(each, gradients), each.shape[0]) for each in sums], np.int64).reshape(-1, 2))
    step: list[Call] = []
    for call in calls:
        if _role(call) == "loss":
            outputs, *others = call.arguments.values()
            names = ("targets", "weights", "gradient", "row_losses")
            step.append(
                Call(
                    "loss_step",
                    {"loss": call.operation, "outputs": outputs, **dict(zip(names, others, strict=True)),
                     "rates": update.learning_rates, "counter": update.counter},
                )
            )  # fmt: skip
        elif call.operation in _STEPS:
            weight = view(parameters, _offset(call.out, gradients), call.out.shape, stride(call.out))
            step.append(Call(_STEPS[call.operation], {**call.arguments, "out": weight}))
        elif call.operation == "record_loss":
            added = {"advanced": None, "parameters": parameters, "steps": gradients, "ranges": ranges}
            step.append(Call("finish_step", {**call.arguments, **added}))
        elif call is not update:
            step.append(call)
    return step


def _plain_update(calls: Sequence[Call]) -> Call | None:
    """The update, if it is plain SGD and nothing else in the step uses gradients; otherwise None."""
    updates = [call for call in calls if call.operation == "sgd_update"]
    losses = [call for call in calls if _role(call) == "loss"]
    others = [call for call in calls if call not in updates]
    if len(updates) != 1 or len(losses) != 1 or any(_prevents(call) for call in others):
        return None
    if losses[0].operation not in _LOSSES:
        return None
    (update,) = updates
    # A frozen layer may write its gradient to separate memory.
    sums = [call.out for call in calls if call.operation in (*_STEPS, "bias_gradient")]
    if not all(_within(each, update.gradients) for each in sums):
        return None
    return update if update.velocity is None and not update.momentum and not update.weight_decay else None


def _other_gradients(calls: Sequence[Call], gradients: Array) -> list[Array] | None:
    """The gradients that no product computes; None if one of them is not a vector, whose rows may be padded."""
    found = [
        array
        for call in calls
        if call.operation not in _STEPS and call.declaration is not None
        for array in call.written()
        if array is not gradients and array.dtype == gradients.dtype and _within(array, gradients)
    ]
    return found if all(array.ndim == 1 for array in found) else None


def _read_later(calls: Sequence[Call], update: Call) -> bool:
    """Whether a weight is still read after its gradient was computed, when a product would have changed it already."""
    read: set[int] = set()
    for call in reversed(calls):
        if call is update or call.declaration is None:
            continue
        if call.operation in _STEPS and _offset(call.out, update.gradients) in read:
            return True
        given = [call.arguments.get(name) for name in call.declaration.arrays]
        read |= {_offset(array, update.parameters) for array in given if array is not None}
    return False


def _role(call: Call) -> str:
    return "" if call.declaration is None else call.declaration.role


def _prevents(call: Call) -> bool:
    return _role(call) not in _ROLES or call.operation in _NOT_PROPORTIONAL


def _within(window: Array, buffer: Array) -> bool:
    return 0 <= _offset(window, buffer) < int(buffer.size)


def _offset(window: Array, buffer: Array) -> int:
    """The offset of a view in a flat buffer, in elements."""
    return int(window.data.ptr - buffer.data.ptr) // int(buffer.itemsize)
