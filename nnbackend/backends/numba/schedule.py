"""The order of a program's lines, their fused updates, and the barriers between them.

All three depend on overlapping memory. Comparing every array with every other would take minutes for a deep
network, so memory is cut into *pieces* at all addresses where an array begins or ends: two arrays overlap exactly if
they have a piece in common. Each pass then goes through the lines once and remembers, for each piece, which lines have
used it. The time grows with the number of lines.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

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
    fused = _fuse_updates(lines, needed)
    pieces = _Pieces(span for line in fused for span in line.touched())
    ordered = _late_lines_later([_Use(line, pieces) for line in fused])
    _place_waits(ordered)
    return [use.line for use in ordered]


class _Pieces:
    """Divides memory into pieces wherever a span begins or ends."""

    def __init__(self, spans: Iterable[Span]) -> None:
        edges = sorted({edge for span in spans for edge in span})
        self._number = {edge: number for number, edge in enumerate(edges)}

    def of(self, spans: Iterable[Span]) -> list[int]:
        """The pieces that these spans consist of."""
        number = self._number
        return [piece for begin, end in spans for piece in range(number[begin], number[end])]


class _Use:
    """The pieces that a line uses."""

    def __init__(self, line: Line, pieces: _Pieces) -> None:
        self.line = line
        self.split = (line.split.unit, line.split.count)
        self.touched = pieces.of(line.touched())
        self.written = pieces.of(line.written())
        self.elsewhere = pieces.of(line.elsewhere())


def _fuse_updates(lines: Sequence[Line], needed: Sequence[Span]) -> list[Line]:
    """Fuse updates into the lines that compute the gradients, if nothing else uses the gradient.

    The rest of the flat buffers, such as a weight with a penalty, is updated by separate lines.
    """
    updates = [line for line in lines if isinstance(line, UpdateLine)]
    if len(updates) != 1:
        return list(lines)
    (last,) = updates
    update = last.update
    assert update is not None
    gradients = {
        place: (gradient, update.parts(gradient))
        for place, line in enumerate(lines)
        if line.kind.updates and line is not last and update.covers(gradient := line.result)
    }
    others = [line for line in lines if line is not last]
    touched = [line.touched() for line in lines]
    own = [part for gradient, parts in gradients.values() for part in (gradient, *parts)]
    pieces = _Pieces([*(span for spans in touched for span in spans), *own, *needed])
    #: The first and the last line that use a piece.
    first: dict[int, int] = {}
    final: dict[int, int] = {}
    for place, line in enumerate(lines):
        if line is not last:
            for piece in pieces.of(touched[place]):
                first.setdefault(piece, place)
                final[piece] = place
    for piece in pieces.of(needed):
        first[piece], final[piece] = -1, len(lines)
    done = []
    for place, (gradient, parts) in gradients.items():
        # Nothing else may use the gradient, and nothing later the old parameters.
        alone = all(first[piece] == final[piece] == place for piece in pieces.of([gradient]))
        if alone and all(final.get(piece, place) <= place for piece in pieces.of(parts)):
            lines[place].update = update
            done.append(gradient)
    return [*others, *(replace(last, gradients=part) for part in update.without(done))]


def _late_lines_later(lines: Sequence[_Use]) -> list[_Use]:
    """Move lines that others depend on ahead of those that can be delayed, as far as dependencies allow."""
    ordered: list[_Use] = []
    #: Delayable lines so far, and how many of them are in `ordered`.
    late: list[_Use] = []
    placed = 0
    #: The last delayable lines that use, and that write, each piece.
    touched: dict[int, int] = {}
    written: dict[int, int] = {}
    for line in lines:
        if line.line.late:
            touched.update(dict.fromkeys(line.touched, len(late)))
            written.update(dict.fromkeys(line.written, len(late)))
            late.append(line)
            continue
        needed = max([-1, *(touched.get(piece, -1) for piece in line.written)])
        needed = max([needed, *(written.get(piece, -1) for piece in line.touched)])
        if needed >= placed:
            ordered += late[placed : needed + 1]
            placed = needed + 1
        ordered.append(line)
    return [*ordered, *late[placed:]]


def _place_waits(lines: Sequence[_Use]) -> None:
    """Add a barrier before a line if another thread may still be using the same memory."""
    since = _Since()
    for number, line in enumerate(lines):
        # The first line waits for the last line of the previous step.
        line.line.wait = number == 0 or since.conflicts(line)
        if line.line.wait:
            since = _Since()
        since.add(line)


class _Since:
    """How the lines since the last barrier have used each piece: the splits of those lines."""

    def __init__(self) -> None:
        self._touched: dict[int, set[tuple[str, int]]] = {}
        self._written: dict[int, set[tuple[str, int]]] = {}
        self._elsewhere: dict[int, set[tuple[str, int]]] = {}

    def add(self, line: _Use) -> None:
        split = line.split
        for piece in line.touched:
            self._touched.setdefault(piece, set()).add(split)
        for piece in line.written:
            self._written.setdefault(piece, set()).add(split)
        for piece in line.elsewhere:
            self._elsewhere.setdefault(piece, set()).add(split)

    def conflicts(self, line: _Use) -> bool:
        """Whether a line must wait until all threads have finished the earlier lines."""
        touched, written, elsewhere = self._touched, self._written, self._elsewhere
        alike = {line.split} if line.line.split.in_turn else set()
        # If the lines are split identically, each thread continues with its own results.
        return (
            any(written[piece] - alike for piece in line.touched if piece in written)
            or any(touched[piece] - alike for piece in line.written if piece in touched)
            or any(alike & written[piece] for piece in line.elsewhere if piece in written)
            or any(alike & elsewhere[piece] for piece in line.written if piece in elsewhere)
        )
