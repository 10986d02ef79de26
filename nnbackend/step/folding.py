"""Folds batch normalisation into the dense layer or convolution before it, in steps that do not train.

``(x W + b - mean) / s * scale + shift = x (W / s * scale) + ((b - mean) / s * scale + shift)`` with the running
statistics, where ``s = sqrt(variance + epsilon)``: the normalised weight and bias give the normalised output. This
changes the recorded calls, so no layer and no operation knows about it. The weight is normalised by the step itself
each time that it runs, so changed weights need no further attention.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from nnbackend.backends.arrays import overlap
from nnbackend.backends.contract import Array, Call
from nnbackend.step.calls import Recorder

__all__ = ["fold_normalizations"]

_LINEAR = ("dense_forward", "convolution")


def fold_normalizations(recorder: Recorder, output: Array) -> None:
    """Fold each normalisation that directly follows a linear call, if its weight is smaller than its output.

    Parameters
    ----------
    recorder : Recorder
        Its calls are replaced.
    output : array
        The result of these calls. Only they and its reader use their buffers.
    """
    recorded, recorder.calls = recorder.calls, []
    remaining = list(reversed(recorded))
    while remaining:
        call = remaining.pop()
        after = remaining[-1] if remaining else None
        if after is not None and _follows(recorder, call, after) and _size(call.weight) < _size(call.out):
            others = [array for each in remaining[:-1] for array in each.arguments.values()]
            if not _is_read(recorder, call.out, [*others, output]):
                _record_folded(recorder, call, remaining.pop())
                continue
        recorder.calls.append(call)


def _follows(recorder: Recorder, call: Call, after: Call) -> bool:
    """Whether a linear call without activation is followed by the normalisation of its output."""
    if call.operation not in _LINEAR or after.operation != "normalize" or after.mean is None:
        return False
    if call.operation == "dense_forward" and call.activation != "identity":
        return False
    if call.weight.shape[-1] != after.mean.shape[0]:
        # Flattened or reshaped in between, so the channels of the normalisation are others.
        return False
    produced = recorder.span(call.out)
    return produced is not None and recorder.span(after.x) == produced


def _size(array: Array) -> int:
    return math.prod(int(extent) for extent in array.shape)


def _is_read(recorder: Recorder, out: Array, others: Iterable[object]) -> bool:
    """Whether others share memory with this output."""
    span = recorder.span(out)
    return any(overlap(span, recorder.span(other)) for other in others if hasattr(other, "shape"))


def _record_folded(recorder: Recorder, call: Call, normalization: Call) -> None:
    """Record the normalisation of weight and bias, and the linear call with them and the normalised output."""
    backend, filters = recorder.model.backend, int(call.weight.shape[-1])
    statistics = normalization.variance, normalization.scale
    epsilon = normalization.epsilon
    weight, bias = _like_parameter(recorder, call.weight), recorder.memory(1, filters)
    recorder.record(
        "normalize", recorder.channels(call.weight), None, *statistics, None, epsilon, recorder.channels(weight)
    )
    unfolded = backend.empty((filters,), recorder.model.dtype) if call.bias is None else call.bias  # zeros
    recorder.record(
        "normalize", backend.reshape(unfolded, (1, filters)), normalization.mean, *statistics, normalization.shift,
        epsilon, bias,
    )  # fmt: skip
    changed = {
        "weight": weight,
        "bias": backend.reshape(bias, (filters,)),
        "out": backend.reshape(normalization.out, tuple(call.out.shape)),
    }
    recorder.record(call.operation, **{**call.arguments, **changed})


def _like_parameter(recorder: Recorder, weight: Array) -> Array:
    """A buffer for a weight, with rows padded as those of parameters are."""
    *leading, columns = (int(extent) for extent in weight.shape)
    multiple = recorder.model.backend.row_multiple
    stride = -(-columns // multiple) * multiple
    memory = recorder.memory(math.prod(leading) * stride)
    return recorder.model.backend.view(memory, 0, (*leading, columns), stride)
