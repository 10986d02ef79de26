"""Fewer launches for a recorded step: products with epilogues, which also compute the operations after them.

In the forward pass, a product adds the bias and applies ReLU. In the backward pass, the product that computes the
gradient for a layer with ReLU applies the derivative of ReLU and sums the bias gradient. A mask with a bit for each
element records whether it was above zero. If the device does not support such a product, the calls stay unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Protocol

import numpy as np
import numpy.typing as npt

from nnbackend.backends.contract import Array, Call
from nnbackend.backends.cupy.interface import Epilogue, Product

__all__ = ["MASK_BITS", "MakeProduct", "with_epilogues", "with_sums"]


class MakeProduct(Protocol):
    """Makes a product of row-major matrices, with an epilogue for the transposed result."""

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
        """The product; None if the device does not support it."""


#: Allocates a device array of zeros from shape and dtype.
Memory = Callable[[tuple[int, ...], npt.DTypeLike], Array]

#: Columns of a mask begin at multiples of this many bits.
MASK_BITS = 128

#: Operations of the backward pass other than activation gradients.
_BACKWARD = ("dense_input_gradient", "dense_weight_gradient", "dense_weight_step", "bias_gradient")

#: Placeholder for a call that was fused into another.
_FUSED = Call("done", {})


def with_epilogues(calls: Sequence[Call], make: MakeProduct, memory: Memory) -> list[Call]:
    """The same step with bias, ReLU and ReLU's gradient fused into products.

    Parameters
    ----------
    calls : sequence of Call
        As recorded.
    make : callable
    memory : callable
        Called as ``memory(shape, dtype)`` to allocate masks.
    """
    step = list(calls)
    for place, call in enumerate(calls):
        if call.operation == "dense_input_gradient":
            _rectified_gradient(step, place, make, memory)
    for place, call in enumerate(step):
        if call.operation == "dense_forward" and _ends_in_epilogue(call):
            kind = "bias" if call.activation == "identity" else "relu_bias"
            _replace(step, place, make(False, False, call.x, call.weight, call.out, Epilogue(kind, call.bias)))
    return _remaining(step)


def with_sums(calls: Sequence[Call], make: MakeProduct) -> list[Call]:
    """The same step with each bias gradient summed by the product that computes the layer's weight gradient."""
    step = list(calls)
    for place, (first, second) in enumerate(pairwise(calls)):
        if first.operation not in ("dense_weight_gradient", "dense_weight_step") or second.operation != "bias_gradient":
            continue
        if second.delta is not first.delta:
            continue
        adds = first.operation == "dense_weight_step"
        if _replace(
            step, place, make(True, False, first.x, first.delta, first.out, Epilogue("bgrada", second.out), adds)
        ):
            step[place + 1] = _FUSED
    return _remaining(step)


def _rectified_gradient(step: list[Call], place: int, make: MakeProduct, memory: Memory) -> None:
    """Fuse an input gradient, the gradient of the ReLU below, and that layer's bias gradient."""
    back = step[place]
    below = _next_call(
        step, place, "activation_gradient", lambda call: all(each is not back.out for each in call.arguments.values())
    )
    if below is None:
        return
    relu = step[below]
    sums = _next_call(step, below, "bias_gradient", lambda call: call.out is not relu.out)
    forward = next((number for number, call in enumerate(step[:place]) if _computes(call, relu.saved)), None)
    if not (relu.activation == "relu" and relu.upstream is relu.out is back.out) or sums is None or forward is None:
        return
    if step[sums].delta is not relu.out:
        return
    dense = step[forward]
    rows, columns = relu.saved.shape
    stride = -(-columns // MASK_BITS) * MASK_BITS
    mask = memory((rows, stride // 8), np.uint8)
    with_mask = Epilogue("relu_aux_bias", dense.bias, mask, stride)
    forward_product = make(False, False, dense.x, dense.weight, relu.saved, with_mask)
    masked_sums = Epilogue("drelu_bgrad", step[sums].out, mask, stride)
    backward = make(False, True, back.delta, back.weight, relu.out, masked_sums)
    # Both or neither: the second reads the mask that the first writes.
    if forward_product is not None and backward is not None:
        _replace(step, forward, forward_product)
        _replace(step, place, backward)
        step[below] = step[sums] = _FUSED


def _ends_in_epilogue(call: Call) -> bool:
    """Whether an epilogue can do everything in this call after the product."""
    return call.bias is not None and call.preactivation is None and call.activation in ("identity", "relu")


def _next_call(step: Sequence[Call], place: int, operation: str, passes: Callable[[Call], bool]) -> int | None:
    """Index of the next call of an operation, if only products and sums that satisfy `passes` come in between."""
    for number in range(place + 1, len(step)):
        call = step[number]
        if call.operation == operation:
            return number
        if call is not _FUSED and (call.operation not in _BACKWARD or not passes(call)):
            return None
    return None


def _computes(call: Call, saved: Array) -> bool:
    """Whether a call computes this output, with bias and ReLU."""
    if call.operation != "dense_forward":
        return False
    return call.out is saved and call.bias is not None and call.activation == "relu" and call.preactivation is None


def _replace(step: list[Call], place: int, product: Product | None) -> bool:
    """Replace a call by a product, unless the product is None."""
    if product is not None:
        step[place] = Call("run_product", {"product": product})
    return product is not None


def _remaining(step: Sequence[Call]) -> list[Call]:
    return [call for call in step if call is not _FUSED]
