"""Recorded steps that wait for another network of the same structure.

Recording and compiling a step takes longer than a short training. The steps of equal networks are the same list of
operations, and differ only in a few buffers: the weights, the optimiser's slots and the data.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

from nnbackend.backends.contract import Array
from nnbackend.data.batches import Batches
from nnbackend.data.feed import Feed
from nnbackend.layers import all_layers, layers_config
from nnbackend.step.model import Model
from nnbackend.step.replay import Replay

__all__ = ["Borrowed", "Recordings", "is_ours"]


class Recordings:
    """Recorded steps that are not in use.

    Parameters
    ----------
    most : int
        How many are kept.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._idle: list[tuple[Hashable, Replay, Sequence[Array]]] = []

    def take(self, structure: Hashable, model: Model, feed: Feed, arrays: Sequence[Array]) -> Replay | None:
        """A recorded step of this structure, for this model and these arrays; None if there is none."""
        for place, (known, replay, old) in enumerate(self._idle):
            if known == structure:
                del self._idle[place]
                pairs = [(was, now) for was, now in zip(old, arrays, strict=True) if was is not now]
                return replay if replay.exchange(model, feed, pairs) else None
        return None

    def give(self, structure: Hashable, replay: Replay, arrays: Sequence[Array]) -> None:
        """Keep a recorded step that is no longer used."""
        if replay.apart:
            self._idle.append((structure, replay, arrays))
            del self._idle[: -self._most]


class Borrowed:
    """A recorded step, from `Recordings` if they have one.

    Parameters
    ----------
    recordings : Recordings or None
    model : Model
    feed : Feed
    batches : Batches
    others : tuple of hashable
        Whatever else determines which operations are recorded, with which constants.
    slots : sequence of arrays
        Of the optimiser.
    make : callable
        Records the step.

    Attributes
    ----------
    replay : Replay
    """

    def __init__(
        self,
        recordings: Recordings | None,
        model: Model,
        feed: Feed,
        batches: Batches,
        others: tuple[Hashable, ...],
        slots: Sequence[Array],
        make: Callable[[], Replay],
    ) -> None:
        self._recordings = recordings
        replay = None
        if recordings is not None and is_ours([*all_layers(model.layers)]):
            examples = feed.examples
            weights = [] if examples.weights is None else [examples.weights]
            self._arrays = [model.parameters, *slots, examples.x, examples.targets, *weights]
            self._structure = (
                _structure(model),
                (tuple(batches.slices), batches.steps, batches.own_rows),
                (examples.scale, examples.by_class, examples.target_dtype),
                tuple((tuple(array.shape), array.dtype) for array in self._arrays),
                others,
            )
            replay = recordings.take(self._structure, model, feed, self._arrays)
        else:
            self._recordings = None
        self.replay = make() if replay is None else replay

    def release(self) -> None:
        """Give it back; it must no longer be used."""
        if self._recordings is not None:
            self._recordings.give(self._structure, self.replay, self._arrays)


def is_ours(objects: Sequence[Any]) -> bool:
    """Whether they are of this package: those of the user may do anything when they are recorded."""
    return all(type(each).__module__.partition(".")[0] == "nnbackend" for each in objects)


def _structure(model: Model) -> Hashable:
    layout = model.layout
    return (
        id(model.backend),
        model.dtype,
        layout.input_shape,
        repr(layers_config(model.layers)),
        tuple(node.trainable for top in layout.nodes for node in top.walk()),
        tuple((entry.offset, entry.row_stride, entry.trainable) for entry in layout.entries),
    )
