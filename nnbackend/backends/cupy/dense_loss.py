"""Recognises the calls of a recorded training step that compute its loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from nnbackend.backends.contract import Array, Call
from nnbackend.backends.cupy.dense_program import UnsupportedStepError, address
from nnbackend.backends.cupy.layout import stride

__all__ = ["LIMITED", "LOSS_OPERATIONS", "StepLoss", "step_loss"]

LOSS_OPERATIONS = ("softmax_cross_entropy", "sigmoid_cross_entropy", "mean_squared_error", "elementwise_loss")

#: What is limited, in the order of the kernels' enum.
LIMITED = ("nothing", "outputs", "losses of rows")


@dataclass
class StepLoss:
    """The loss of a step.

    Attributes
    ----------
    call : Call
        Computes the gradient.
    outputs : (n, outputs) array
    smoothing, focal : Call or None
    counts : bool
        Whether rows are counted whose largest output is at their largest target, whatever the loss.
    limited : str
        What is limited in the loss that is recorded, but not in its gradient; see `LIMITED`.
    limit : float
    calls : list of Call
        Those that are computed together with `call`.
    unused : list of arrays
        Gradients that they write and nothing reads.
    """

    call: Call
    outputs: Array
    smoothing: Call | None = None
    focal: Call | None = None
    counts: bool = False
    limited: str = "nothing"
    limit: float = 0.0
    calls: list[Call] = field(default_factory=list)
    unused: list[Array] = field(default_factory=list)


def step_loss(calls: Sequence[Call], row_losses: Array) -> StepLoss:
    """The loss of a recorded step.

    Parameters
    ----------
    calls : sequence of Call
        Without those of the update.
    row_losses : (2, n) array
        What the step records.

    Raises
    ------
    UnsupportedStepError
        The kernels cannot compute it; the message says why.
    """
    losses = [call for call in calls if call.operation in LOSS_OPERATIONS]
    smoothing = _last(calls, "smooth_labels")
    counting = _counting(calls, losses, smoothing, row_losses)
    losses = [call for call in losses if all(call is not each for each in counting)]
    limit = _last(calls, "clip_value")
    if limit is not None:
        found = _limited(calls, losses, limit, row_losses)
    elif len(losses) == 1:
        if losses[0].row_losses is not row_losses:
            raise UnsupportedStepError("the recorded losses are not those of the rows")
        found = StepLoss(losses[0], _outputs(losses[0]), focal=_last(calls, "focal_rows"))
    else:
        raise UnsupportedStepError("they compute one loss of this package")
    found.smoothing, found.counts = smoothing, bool(counting)
    found.calls += [call for call in (smoothing, found.focal, *counting) if call is not None]
    found.unused += [call.gradient for call in counting if "gradient" in call.arguments]
    _check_parts(found)
    return found


def _check_parts(found: StepLoss) -> None:
    loss, focal = found.call, found.focal
    if found.smoothing is not None and found.smoothing.out is not loss.targets:
        raise UnsupportedStepError("smoothed labels are not those of the loss")
    if focal is not None and not _finishes(focal, loss):
        raise UnsupportedStepError("they do not compute focal_rows of another loss")


def _finishes(focal: Call, loss: Call) -> bool:
    """Whether `focal` turns the cross-entropy of another call into a focal loss."""
    return focal.gradient is loss.gradient and focal.row_losses is loss.row_losses and loss.weights is None


def _counting(calls: Sequence[Call], losses: list[Call], smoothing: Call | None, row_losses: Array) -> list[Call]:
    """A second loss that counts rows by class, and the copy of its counts; none if there is none."""
    if len(losses) < 2 or losses[-1].operation != "mean_squared_error" or losses[-1].weights is not None:
        return []
    first, second = losses[0], losses[-1]
    targets = first.targets if smoothing is None else smoothing.targets
    if second.outputs is not _outputs(first) or second.targets is not targets:
        return []
    copies = [call for call in calls if call.operation == "activation_forward" and call.activation == "identity"]
    places = [_second_row(second.row_losses), _second_row(row_losses)]
    copy = next((call for call in copies if [address(call.z), address(call.out)] == places), None)
    return [] if copy is None else [second, copy]


def _limited(calls: Sequence[Call], losses: list[Call], limit: Call, row_losses: Array) -> StepLoss:
    """A cross-entropy whose recorded value is limited, as scikit-learn's."""
    at = next(place for place, call in enumerate(calls) if call is limit)
    around = list(calls[max(at - 1, 0) : at + 4])
    for read in (_limited_outputs, _limited_rows):
        found = read(around, limit, row_losses)
        if found is not None and {id(call) for call in losses} <= {id(call) for call in (found.call, *found.calls)}:
            found.limit = float(limit.value)
            return found
    raise UnsupportedStepError("they do not compute clip_value of other things than gradients and losses")


def _limited_outputs(around: list[Call], limit: Call, row_losses: Array) -> StepLoss | None:
    """The loss of limited outputs, after one of the outputs themselves, which computes the gradient."""
    if not _are(around, "activation_forward", "clip_value", "sigmoid_cross_entropy", "sigmoid_cross_entropy"):
        return None
    copy, _, loss, shown = around[:4]
    same = all(shown.arguments[name] is loss.arguments[name] for name in ("targets", "weights"))
    same = same and shown.row_losses is row_losses
    whole = limit.gradients.size == copy.out.size and address(limit.gradients) == address(copy.out)
    if not (same and whole and _copies(copy, loss.logits, copy.out) and shown.logits is copy.out):
        return None
    return StepLoss(loss, loss.logits, limited="outputs", calls=[copy, limit, shown], unused=[shown.gradient])


def _limited_rows(around: list[Call], limit: Call, row_losses: Array) -> StepLoss | None:
    """The losses of rows are limited, then copied to `row_losses`; weights count afterwards."""
    names = [call.operation for call in around]
    weighted = names[2:3] == ["focal_rows"]
    rest = ["focal_rows", "softmax_cross_entropy", "activation_forward"] if weighted else ["activation_forward"]
    if not _are(around, "softmax_cross_entropy", "clip_value", *rest):
        return None
    first, copy = around[0], around[1 + len(rest)]
    losses = limit.gradients.size == first.row_losses.shape[1] and address(limit.gradients) == address(first.row_losses)
    if not (losses and first.weights is None and _copies(copy, first.row_losses, row_losses)):
        return None
    if not weighted:
        return StepLoss(first, first.logits, limited="losses of rows", calls=[limit, copy])
    focal, loss = around[2:4]
    same = loss.logits is first.logits and loss.targets is first.targets and loss.weights is focal.weights
    if not (same and loss.row_losses is row_losses and _finishes(focal, first) and focal.gamma == 0):
        return None
    calls, unused = [first, limit, focal, copy], [first.gradient]
    return StepLoss(loss, loss.logits, limited="losses of rows", calls=calls, unused=unused)


def _are(calls: list[Call], *operations: str) -> bool:
    return tuple(call.operation for call in calls[: len(operations)]) == operations


def _copies(call: Call, source: Array, out: Array) -> bool:
    same = [address(call.z), address(call.out)] == [address(source), address(out)]
    return same and call.activation == "identity" and tuple(call.z.shape) == tuple(source.shape)


def _second_row(array: Array) -> int:
    return address(array) + stride(array) * int(array.itemsize)


def _last(calls: Sequence[Call], operation: str) -> Call | None:
    return next((call for call in reversed(calls) if call.operation == operation), None)


def _outputs(loss: Call) -> Array:
    return loss.arguments.get("logits", loss.arguments.get("outputs"))
