"""A recorded step with fewer launches: products that do what the step asks for right after them.

Going forwards a product adds its bias and applies ReLU; going backwards the one that makes the gradient for a layer
with ReLU applies that layer's derivative and sums up its bias's gradient. Which elements were above zero is kept as a
bit each. Where the device has no such product, the calls stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from nnbackend.backends.base import Array, Call
from nnbackend.backends.cupy.interface import Epilogue, Product

__all__ = ["MASK_BITS", "MakeProduct", "with_epilogues", "with_sums"]


class MakeProduct(Protocol):
    """Makes a product of matrices stored by rows, with an epilogue of the transposed result."""

    def __call__(
        self,
        transpose_a: bool,
        transpose_b: bool,
        a: Array,
        b: Array,
        out: Array,
        epilogue: Epilogue,
        adds: bool = False,
    ) -> Product | None:
        """The product; None if the device has none such."""


#: From shape and dtype to a device array of zeros.
Memory = Callable[[tuple[int, ...], npt.DTypeLike], Array]

#: Columns of a mask begin at multiples of so many bits.
MASK_BITS = 128

#: What going backwards asks for besides gradients of activations.
_BACKWARD = ("dense_input_gradient", "dense_weight_gradient", "dense_weight_step", "bias_gradient")

#: In the place of a call that another does along.
_DONE = Call("done", ())


def with_epilogues(calls: Sequence[Call], make: MakeProduct, memory: Memory) -> list[Call]:
    """The same step with bias, ReLU and ReLU's gradient inside of products.

    Parameters
    ----------
    calls : sequence of Call
        As recorded.
    make : callable
    memory : callable
        Called as ``memory(shape, dtype)``, for the bits.
    """
    step = list(calls)
    for place, call in enumerate(calls):
        if call.operation == "dense_input_gradient":
            _rectified_gradient(step, place, make, memory)
    for place, call in enumerate(step):
        if call.operation == "dense_forward":
            x, weight, bias, activation, _, preactivation, out = call.arguments
            if bias is not None and preactivation is None and activation in ("identity", "relu"):
                kind = "bias" if activation == "identity" else "relu_bias"
                _put(step, place, make(False, False, x, weight, out, Epilogue(kind, bias)))
    return _left(step)


def with_sums(calls: Sequence[Call], make: MakeProduct) -> list[Call]:
    """The same step with bias gradients summed up by the products that make their layer's weight gradient."""
    step = list(calls)
    for place, (first, second) in enumerate(pairwise(calls)):
        if first.operation not in ("dense_weight_gradient", "dense_weight_step") or second.operation != "bias_gradient":
            continue
        (x, delta, out), (summed, sums) = first.arguments, second.arguments
        if summed is not delta:
            continue
        adds = first.operation == "dense_weight_step"
        if _put(step, place, make(True, False, x, delta, out, Epilogue("bgrada", sums), adds)):
            step[place + 1] = _DONE
    return _left(step)


def _rectified_gradient(step: list[Call], place: int, make: MakeProduct, memory: Memory) -> None:
    """Join an input gradient, the gradient of the ReLU below, and the sums for that layer's bias."""
    delta, weight, upstream = step[place].arguments
    below = _following(step, place, "activation_gradient", lambda call: all(each is not upstream for each in call))
    if below is None:
        return
    saved, activation, _, source, out = step[below].arguments
    sums = _following(step, below, "bias_gradient", lambda call: call[-1] is not out)
    forward = next((number for number, call in enumerate(step[:place]) if _makes(call, saved)), None)
    if not (activation == "relu" and source is out is upstream) or sums is None or forward is None:
        return
    summed, gradient = step[sums].arguments
    if summed is not out:
        return
    x, weight_below, bias, *_ = step[forward].arguments
    rows, columns = saved.shape
    stride = -(-columns // MASK_BITS) * MASK_BITS
    mask = memory((rows, stride // 8), np.uint8)
    ahead = make(False, False, x, weight_below, saved, Epilogue("relu_aux_bias", bias, mask, stride))
    back = make(False, True, delta, weight, out, Epilogue("drelu_bgrad", gradient, mask, stride))
    # Both or none: the one reads the bits that the other writes.
    if ahead is not None and back is not None:
        _put(step, forward, ahead)
        _put(step, place, back)
        step[below] = step[sums] = _DONE


def _following(
    step: Sequence[Call], place: int, operation: str, passes: Callable[[tuple[Any, ...]], bool]
) -> int | None:
    """Where the next call of an operation is, if what comes in between are products and sums whose arguments pass."""
    for number in range(place + 1, len(step)):
        call = step[number]
        if call.operation == operation:
            return number
        if call is not _DONE and (call.operation not in _BACKWARD or not passes(call.arguments)):
            return None
    return None


def _makes(call: Call, saved: Array) -> bool:
    """Whether a call is that of a layer with bias and ReLU whose output this is."""
    if call.operation != "dense_forward":
        return False
    _, _, bias, activation, _, preactivation, out = call.arguments
    return out is saved and bias is not None and activation == "relu" and preactivation is None


def _put(step: list[Call], place: int, product: Product | None) -> bool:
    """Put a product in the place of a call, if there is one."""
    if product is not None:
        step[place] = Call("run_product", (product,))
    return product is not None


def _left(step: Sequence[Call]) -> list[Call]:
    return [call for call in step if call is not _DONE]
