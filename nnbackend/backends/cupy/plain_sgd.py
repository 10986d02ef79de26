"""Plain SGD fused into the products: the product that computes a weight gradient adds it to the weights.

The backward pass is linear in the gradient of the loss. If that is multiplied by minus the learning rate, each weight
gradient becomes SGD's change of the weight, and the product can add it directly without storing it. Bias gradients are
small; the last launch of the step adds them.
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
_NOT_PROPORTIONAL = ("weight_penalty",)

#: Maximum number of bias elements: few enough that the single block of the last launch adds them in negligible time.
_MAX_BIAS_ELEMENTS = 16_384

#: Makes a view of a flat buffer from an offset, a shape and the row stride in elements.
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
    sums = [call.out for call in calls if call.operation == "bias_gradient"]
    if sum(each.shape[0] for each in sums) > _MAX_BIAS_ELEMENTS:
        return list(calls)
    # Offset and length of each bias in the flat buffers.
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
        elif call.operation == "dense_weight_gradient":
            weight = view(parameters, _offset(call.out, gradients), call.out.shape, stride(call.out))
            step.append(Call("dense_weight_step", {"x": call.x, "delta": call.delta, "out": weight}))
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
    (update,) = updates
    # A frozen layer may write its gradient to separate memory.
    sums = [call.out for call in calls if call.operation in ("dense_weight_gradient", "bias_gradient")]
    if not all(0 <= _offset(each, update.gradients) < update.gradients.size for each in sums):
        return None
    return update if update.velocity is None and not update.momentum and not update.weight_decay else None


def _role(call: Call) -> str:
    return "" if call.declaration is None else call.declaration.role


def _prevents(call: Call) -> bool:
    return _role(call) not in _ROLES or call.operation in _NOT_PROPORTIONAL


def _offset(window: Array, buffer: Array) -> int:
    """The offset of a view in a flat buffer, in elements."""
    return int(window.data.ptr - buffer.data.ptr) // int(buffer.itemsize)
