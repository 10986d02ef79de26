"""Options of `fit_many`: one value for all networks, or one for each."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Sequence
from typing import Any, Generic, TypeVar

import numpy as np

from nnbackend.errors import InvalidInputError, shown
from nnbackend.network import Network
from nnbackend.optimizers import Optimizer
from nnbackend.step.recordings import is_ours
from nnbackend.support.files import path_text
from nnbackend.training.callbacks.base import Callback
from nnbackend.training.checkpoints.checkpoint import Checkpoint

__all__ = [
    "PerNetwork",
    "callbacks_of_each",
    "checkpoint_of_all",
    "of_each",
    "optimizers_of_each",
    "rows_of_each",
    "with_checkpoints",
]

T = TypeVar("T")

#: Options whose one value may be a list: what is never in such a list, because it is a value for one of the networks,
#: and what the error says.
_NOT_WITHIN: dict[str, tuple[tuple[type, ...], str]] = {
    "class_weight": (
        (str, dict, type(None)),
        "the weights of classes, the same for all networks; give nnbackend.PerNetwork([...])",
    ),
    "metrics": (
        (list,),
        "lists in it; give one list for all networks, or nnbackend.PerNetwork([[...], ...])",
    ),
}


class PerNetwork(Generic[T]):
    """One value of an option for each network.

    Parameters
    ----------
    values : sequence
        In the order of the networks.

    Raises
    ------
    InvalidInputError
        They are no sequence.
    """

    def __init__(self, values: Sequence[T]) -> None:
        if isinstance(values, str | bytes) or not hasattr(values, "__len__") or not hasattr(values, "__iter__"):
            raise InvalidInputError(f"PerNetwork takes a list with a value for each network, received {shown(values)}")
        self.values = list(values)

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self) -> Iterator[T]:
        return iter(self.values)

    def __repr__(self) -> str:
        return f"PerNetwork({self.values!r})"


def of_each(name: str, value: Any, count: int, lists: bool = True) -> list[Any]:
    """An option's value for each of `count` networks.

    Parameters
    ----------
    name : str
        In error messages.
    value : PerNetwork, or one value for all
    count : int
    lists : bool
        Whether a plain list or tuple has a value for each network, because it cannot be one value for all.

    Raises
    ------
    InvalidInputError
        There is another number of values.
    """
    if not isinstance(value, PerNetwork) and not (lists and isinstance(value, list | tuple)):
        kinds, meant = _NOT_WITHIN.get(name, ((), ""))
        if isinstance(value, list | tuple) and any(isinstance(each, kinds) for each in value):
            raise InvalidInputError(f"{name} has {meant} with one for each")
        return [value] * count
    values = list(value)
    if len(values) != count:
        raise InvalidInputError(
            f"{name} has {len(values)} values for {count} networks; give one for each, or one value for all"
        )
    return values


def rows_of_each(name: str, rows: Any, count: int) -> list[Any]:
    """The row numbers of each network: a list of lists or arrays has those of each."""
    several = isinstance(rows, list | tuple) and any(each is None or np.ndim(each) for each in rows)
    return of_each(name, rows, count, lists=several)


def optimizers_of_each(optimizer: Any, networks: Sequence[Network]) -> list[Any]:
    """An optimiser for each network: a copy, unless it is the one with which the network was trained before.

    Raises
    ------
    InvalidInputError
        Several networks would continue with one object, whose state would depend on which of them is faster.
    """
    given = of_each("optimizer", optimizer, len(networks))
    owners: dict[int, int] = {}
    for place, (each, network) in enumerate(zip(given, networks, strict=True)):
        if isinstance(each, Optimizer) and each is network.optimizer:
            for kept in (each, each.schedule) if each.schedule.state() else (each,):
                owner = owners.setdefault(id(kept), place)
                if owner != place:
                    raise InvalidInputError(
                        f"networks[{owner}] and networks[{place}] were trained with the same {type(kept).__name__} "
                        "object, and cannot both continue with it at once; continue them one after the other with fit, "
                        "or give new optimizers"
                    )
    return [
        copy.deepcopy(each) if isinstance(each, Optimizer) and each is not network.optimizer else each
        for each, network in zip(given, networks, strict=True)
    ]


def callbacks_of_each(callbacks: Any, count: int) -> list[list[Any]]:
    """The callbacks of each network.

    Raises
    ------
    InvalidInputError
        They are no callbacks, or several networks share one with state.
    """
    several = isinstance(callbacks, list | tuple) and any(isinstance(each, list | tuple) for each in callbacks)
    given = of_each("callbacks", callbacks, count, lists=several)
    listed: list[list[Any]] = []
    for place, each in enumerate(given):
        if isinstance(each, Callback):
            each = [each]
        if isinstance(each, str) or not hasattr(each, "__iter__"):
            raise InvalidInputError(
                f"callbacks must be a list of nnbackend Callback objects, or PerNetwork with a list for each network, "
                f"received {shown(each)} for networks[{place}]"
            )
        # An iterator for all networks is read once.
        listed.append(list(each) if place == 0 or each is not given[0] else listed[0])
    _check_unshared(listed)
    return listed


def _check_unshared(callbacks: list[list[Any]]) -> None:
    """Reject callbacks with state that several networks share, and files that those of several networks would write."""
    owners: dict[int, int] = {}
    writers: dict[str, int] = {}
    for place, each in enumerate(callbacks):
        for callback in each:
            name = type(callback).__name__
            owner = owners.setdefault(id(callback), place)
            if owner != place and isinstance(callback, Callback) and vars(callback):
                raise InvalidInputError(
                    f"the callback {name} has a state, which networks[{owner}] and networks[{place}] would share; give "
                    f"each network its own: callbacks=nnbackend.PerNetwork([[nnbackend.{name}(...)] for network in "
                    "networks])"
                )
            path = getattr(callback, "path", getattr(callback, "folder", None))
            if isinstance(path, str) and is_ours([callback]):
                writer = writers.setdefault(os.path.realpath(path), place)
                if writer != place:
                    raise InvalidInputError(
                        f"the callbacks {name} of networks[{writer}] and networks[{place}] would both write to "
                        f"{path!r}; give each its own path"
                    )


def checkpoint_of_all(checkpoint: Any) -> Checkpoint | None:
    """When to write checkpoints, and the folder for those of all networks, from the argument of `fit_many`."""
    if checkpoint is None or isinstance(checkpoint, Checkpoint):
        return checkpoint
    return Checkpoint(path_text("checkpoint", checkpoint), every_minutes=1, keep=1)


def with_checkpoints(callbacks: list[list[Any]], checkpoint: Checkpoint | None) -> list[list[Any]]:
    """The callbacks of each network, with one that writes its checkpoints.

    Parameters
    ----------
    callbacks : list of list
    checkpoint : Checkpoint or None
        For all networks.
    """
    for place, each in enumerate(callbacks):
        if any(isinstance(callback, Checkpoint) for callback in each):
            raise InvalidInputError(
                f"networks[{place}] has a Checkpoint among its callbacks; give checkpoint=folder, which serves all"
            )
    if checkpoint is None:
        return callbacks
    return [[*each, checkpoint.part(place)] for place, each in enumerate(callbacks)]
