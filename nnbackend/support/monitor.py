"""Names of the metrics that callbacks and schedules monitor, and whether a metric is better if it is higher."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from nnbackend.errors import InvalidInputError, UnknownNameError, shown

__all__ = ["MODES", "MetricNames", "check_monitor", "mode_of", "monitored_value", "rises"]

#: "auto" decides by the name of the metric.
MODES = ("auto", "max", "min")

#: Last words of the names of metrics that are better if they are higher, or lower.
_HIGHER = {
    "acc", "accuracy", "ap", "auc", "auroc", "dice", "f1", "iou", "kappa", "map", "mcc", "precision", "r2", "recall",
    "score", "sensitivity", "specificity",
}  # fmt: skip
_LOWER = {"deviance", "error", "loss", "mae", "mape", "mse", "msle", "perplexity", "rmse", "seconds"}


class MetricNames(tuple[str, ...]):
    """The names of a run's metrics.

    Attributes
    ----------
    open : bool
        Whether a callback may add others, whose names are not known before training.
    offered : collection of str
        Names that `fit(metrics=...)` would add.
    """

    open: bool = False
    offered: Collection[str] = ()

    @classmethod
    def of(cls, names: Iterable[str], others: bool, offered: Collection[str] = ()) -> MetricNames:
        """These names; `others` is whether a callback may add more."""
        made = cls(names)
        made.open, made.offered = others, offered
        return made


def mode_of(mode: Any) -> str:
    """A mode: "auto", "max" or "min"; UnknownNameError otherwise."""
    if not isinstance(mode, str) or mode not in MODES:
        raise UnknownNameError("mode", mode, MODES)
    return mode


def check_monitor(monitor: str, names: Iterable[str], mode: str = "auto") -> None:
    """Reject a metric that a run does not have, or whose better direction is not known.

    Raises
    ------
    InvalidInputError
    """
    known = list(names)
    if monitor not in known and not getattr(names, "open", False):
        raise InvalidInputError(
            f"cannot monitor {monitor!r}: the metrics are {', '.join(known)}"
            f"{_hint(monitor, known, getattr(names, 'offered', ()))}"
        )
    rises(monitor, mode)


def _hint(monitor: str, names: list[str], offered: Collection[str]) -> str:
    name = monitor.removeprefix("val_")
    if name in offered:
        held_out = any(each.startswith("val_") for each in names)
        where = "train_metrics=True" if name == monitor else "" if held_out else "validation_data=(x, y)"
        return f"; give fit(metrics=[{name!r}]{where and f', {where}'})"
    if monitor.startswith("val_") and not any(name.startswith("val_") for name in names):
        return f"; give validation_data to fit, or add {monitor!r} in an earlier callback"
    # Imported here because only this error needs it.
    import difflib

    near = difflib.get_close_matches(monitor, names, n=1)
    meant = f"; did you mean {near[0]!r}?" if near else "."
    return f"{meant} An earlier callback in the list can add it: metrics[{monitor!r}] = ... in on_epoch_end"


def rises(monitor: str, mode: str = "auto") -> bool:
    """Whether a metric is better if it is higher.

    Raises
    ------
    InvalidInputError
        The mode is "auto", and its name does not tell.
    """
    if mode != "auto":
        return mode == "max"
    name = monitor.lower()
    for suffix in ("_unweighted", "_macro", "_weighted"):
        name = name.removesuffix(suffix)
    last = name.rpartition("_")[2]
    if last not in _HIGHER | _LOWER:
        raise InvalidInputError(
            f"cannot tell from its name whether {monitor!r} is better if it is higher; give mode='max' or mode='min'"
        )
    return last in _HIGHER


def monitored_value(monitor: str, metrics: Mapping[str, float]) -> float:
    """The value of a metric of an epoch.

    Raises
    ------
    InvalidInputError
        The epoch does not have it.
    """
    if monitor not in metrics:
        raise InvalidInputError(
            f"cannot monitor {monitor!r}: this epoch has {', '.join(map(shown, metrics))}. A callback that adds a "
            "metric must be earlier in the list than those that monitor it, run on all ranks, and add it in every epoch"
        )
    value = metrics[monitor]
    return math.nan if value is None else float(value)
