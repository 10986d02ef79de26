"""The order of a program's lines, their fused updates, and the barriers between them.

All three depend on overlapping memory. Memory is cut into *pieces* at all addresses where an array begins or ends, and
a set of pieces is an integer with one bit for each: two sets overlap if ``one & other`` is not 0.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain

from nnbackend.backends.numba.lines import Line, Span, UpdateLine

__all__ = ["schedule"]


def schedule(lines: Sequence[Line], needed: Sequence[Span] = ()) -> list[Line]:
    """The lines in execution order, with their updates and barriers.

    Parameters
    ----------
    lines : sequence of Line
        As recorded.
    needed : sequence of Span
        Memory that other segments of the step use: gradients in it are always stored.
    """
    updates = [line for line in lines if isinstance(line, UpdateLine)]
    last = updates[0] if len(updates) == 1 else None
    updatable = {} if last is None else {line: spans for line in lines if (spans := _updatable(line, last))}
    touched = [line.touched() for line in lines]
    memory = _Memory([*chain.from_iterable(touched), *chain.from_iterable(updatable.values()), *needed])
    uses = [_Use(line, memory) for line in lines]
    if last is not None:
        uses = _fuse_updates(uses, last, updatable, memory, needed)
    ordered = _late_lines_later(uses)
    _place_waits(ordered)
    return [use.line for use in ordered]


class _Memory:
    """Memory, cut into pieces wherever a span begins or ends."""

    def __init__(self, spans: Iterable[Span]) -> None:
        edges = sorted({edge for span in spans for edge in span})
        self._bit = {edge: 1 << number for number, edge in enumerate(edges)}

    def pieces(self, spans: Iterable[Span]) -> int:
        """The set of the pieces that these spans consist of."""
        bits = 0
        for begin, end in spans:
            bits |= self._bit[end] - self._bit[begin]
        return bits


class _Use:
    """The pieces that a line uses."""

    def __init__(self, line: Line, memory: _Memory) -> None:
        self.line = line
        self.split = (line.split.unit, line.split.count)
        self.touched = memory.pieces(line.touched())
        self.written = memory.pieces(line.written())
        self.elsewhere = memory.pieces(line.elsewhere())


def _updatable(line: Line, last: UpdateLine) -> list[Span]:
    """What the line could update after computing a part of the gradients: that part, and those of the parameters and
    slots."""
    if not line.kind.updates or not last.update.covers(line.result):
        return []
    return [line.result, *last.update.parts(line.result)]


def _fuse_updates(
    lines: Sequence[_Use],
    last: UpdateLine,
    updatable: Mapping[Line, Sequence[Span]],
    memory: _Memory,
    needed: Sequence[Span],
) -> list[_Use]:
    """Fuse the update into the lines that compute the gradients, if nothing else uses the gradient.

    The rest of the flat buffers, such as a weight with a penalty, is updated by separate lines.
    """
    others, following = _around(lines, last)
    elsewhere = memory.pieces(needed)
    used, shared = elsewhere, elsewhere
    for use in [*others, *following]:
        shared |= used & use.touched
        used |= use.touched
    done = []
    later = elsewhere
    for place, use in reversed([*enumerate(others)]):
        if use.line in updatable:
            gradient, *parts = updatable[use.line]
            # Nothing else may use the gradient, and nothing later the old parameters.
            if not (memory.pieces([gradient]) & shared or memory.pieces(parts) & later):
                use.line.update = last.update
                others[place] = _Use(use.line, memory)
                done.append(gradient)
        later |= use.touched
    rest = (replace(last, gradients=part) for part in last.update.without(done))
    return [*others, *(_Use(line, memory) for line in rest), *following]


def _around(lines: Sequence[_Use], last: UpdateLine) -> tuple[list[_Use], list[_Use]]:
    """The other lines, up to the first that depends on the update before it, and from that line on."""
    place = next(number for number, use in enumerate(lines) if use.line is last)
    update, others = lines[place], [use for use in lines if use.line is not last]
    first = next(
        (
            number
            for number, use in enumerate(others[place:], place)
            if use.touched & update.written or use.written & update.touched
        ),
        len(others),
    )
    return others[:first], others[first:]


def _late_lines_later(lines: Sequence[_Use]) -> list[_Use]:
    """Move lines that others depend on ahead of those that can be delayed, as far as dependencies allow."""
    ordered: list[_Use] = []
    #: Delayed lines, and the pieces that they use.
    late: list[_Use] = []
    touched = written = 0
    for use in lines:
        if use.line.late:
            late.append(use)
            touched |= use.touched
            written |= use.written
            continue
        if touched & use.written or written & use.touched:
            last = max(
                place for place, one in enumerate(late) if one.touched & use.written or one.written & use.touched
            )
            ordered += late[: last + 1]
            late = late[last + 1 :]
            touched, written = _union(one.touched for one in late), _union(one.written for one in late)
        ordered.append(use)
    return [*ordered, *late]


def _union(sets: Iterable[int]) -> int:
    return functools.reduce(operator.or_, sets, 0)


def _place_waits(lines: Sequence[_Use]) -> None:
    """Add a barrier before a line if another thread may still be using the same memory."""
    since = _Since()
    for number, use in enumerate(lines):
        # The first line waits for the last line of the previous step.
        use.line.wait = number == 0 or since.conflicts(use)
        if use.line.wait:
            since = _Since()
        since.add(use)


class _Since:
    """The pieces that the lines since the last barrier have used, by the splits of those lines."""

    def __init__(self) -> None:
        #: What was touched, written, and read beyond a thread's own share.
        self._used: dict[tuple[str, int], tuple[int, int, int]] = {}

    def add(self, use: _Use) -> None:
        touched, written, elsewhere = self._used.get(use.split, (0, 0, 0))
        self._used[use.split] = touched | use.touched, written | use.written, elsewhere | use.elsewhere

    def conflicts(self, use: _Use) -> bool:
        """Whether a thread that goes on to this line without waiting may use what another thread still computes, or
        overwrite what another still reads."""
        for split, (touched, written, elsewhere) in self._used.items():
            if split == use.split and use.line.split.in_turn:
                # Each thread continues with its own results.
                if written & use.elsewhere or elsewhere & use.written:
                    return True
            elif written & use.touched or touched & use.written:
                return True
        return False
