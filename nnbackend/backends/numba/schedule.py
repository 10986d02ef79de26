"""The order of a program's lines, which gradients are applied where they are computed, and where threads wait.

All three questions are about overlapping memory. Comparing every array with every other would take minutes for a deep
network, so memory is cut into *pieces* at all addresses where an array begins or ends: two arrays overlap exactly if
they have a piece in common. Each pass then goes through the lines once and remembers, for each piece, which lines have
used it. The time grows with the number of lines.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nnbackend.backends.numba.lines import GRADIENTS, PARTS, Array, Line

__all__ = ["Pieces", "deltas_first", "fuse_updates", "place_waits"]

#: Lines that compute no activations or gradients of activations: they can wait.
_LATE = (*GRADIENTS, "weight_penalty", "update_parameters", "record_loss")


class Pieces:
    """Memory, cut wherever one of these arrays begins or ends.

    Parameters
    ----------
    arrays : iterable of contiguous arrays, or None
    """

    def __init__(self, arrays: Iterable[Array | None]) -> None:
        self._spans: dict[int, tuple[int, int]] = {}
        #: An array's id stays its own only while the array lives.
        self._arrays = [array for array in arrays if array is not None]
        for array in self._arrays:
            if id(array) not in self._spans:
                begin = array.__array_interface__["data"][0]
                self._spans[id(array)] = begin, begin + array.nbytes
        edges = sorted({edge for span in self._spans.values() for edge in span})
        self._number = {edge: number for number, edge in enumerate(edges)}

    def of(self, arrays: Iterable[Array | None]) -> list[int]:
        """The pieces that some of the arrays consist of."""
        found: list[int] = []
        for array in arrays:
            if array is not None:
                begin, end = self._spans[id(array)]
                found.extend(range(self._number[begin], self._number[end]))
        return found


def fuse_updates(lines: Sequence[Line]) -> list[Line]:
    """Let the lines that compute gradients apply them to the parameters, where nothing else uses the gradient.

    Whatever remains of the flat buffers, such as a weight with a penalty, is updated by lines of its own.
    """
    updates = [line for line in lines if line.update is not None]
    if len(updates) != 1:
        return list(lines)
    (last,) = updates
    update = last.update
    assert update is not None
    candidates = [place for place, line in enumerate(lines) if line.operation in GRADIENTS]
    parts = {place: update.parts_of(lines[place].writes[0]) for place in candidates}
    others = [line for line in lines if line is not last]
    pieces = Pieces(
        [*(array for line in others for array in line.arrays()), *(part for some in parts.values() for part in some)]
    )
    first_use: dict[int, int] = {}
    last_use: dict[int, int] = {}
    for place, line in enumerate(lines):
        if line is not last:
            for piece in pieces.of(line.arrays()):
                first_use.setdefault(piece, place)
                last_use[piece] = place
    done = []
    for place in candidates:
        out = lines[place].writes[0]
        # Nothing else may need the gradient, and nothing later the parameters as they were.
        if not parts[place] or any(first_use[piece] != place or last_use[piece] != place for piece in pieces.of([out])):
            continue
        if any(last_use.get(piece, place) > place for piece in pieces.of(parts[place])):
            continue
        lines[place].add_update(update)
        done.append(out)
    rest = [update.line(part) for part in update.without(done)]
    return [*others, *rest]


def deltas_first(lines: Sequence[Line]) -> list[Line]:
    """Move the lines that others wait for in front of those that can wait, as far as dependencies allow."""
    pieces = Pieces(array for line in lines for array in line.arrays())
    ordered: list[Line] = []
    #: Lines that can wait: all so far, and how many of them are in `ordered`.
    late: list[Line] = []
    placed = 0
    #: The last line that can wait which uses a piece, and which writes to it.
    used: dict[int, int] = {}
    written: dict[int, int] = {}
    for line in lines:
        writes, everything = pieces.of(line.writes), pieces.of(line.arrays())
        if line.operation in _LATE:
            used.update(dict.fromkeys(everything, len(late)))
            written.update(dict.fromkeys(writes, len(late)))
            late.append(line)
            continue
        needed = max(
            max((used.get(piece, -1) for piece in writes), default=-1),
            max((written.get(piece, -1) for piece in everything), default=-1),
        )
        if needed >= placed:
            ordered += late[placed : needed + 1]
            placed = needed + 1
        ordered.append(line)
    return [*ordered, *late[placed:]]


def place_waits(lines: Sequence[Line]) -> None:
    """Let a line wait if another thread may still be working on what it touches."""
    pieces = Pieces(array for line in lines for array in line.arrays())
    if lines:
        # For the last line of the step before.
        lines[0].wait = True
    since = _Since()
    for line in lines:
        used = _Use(line, pieces)
        line.wait = line.wait or since.conflicts(used)
        if line.wait:
            since = _Since()
        since.add(used)


class _Use:
    """The pieces that a line uses."""

    def __init__(self, line: Line, pieces: Pieces) -> None:
        self.share = line.share
        self.everything = pieces.of(line.arrays())
        self.writes = pieces.of(line.writes)
        self.elsewhere = pieces.of(line.elsewhere())


class _Since:
    """What the lines since the last wait have done, by piece: the ways in which those that did it were shared."""

    def __init__(self) -> None:
        self._used: dict[int, set[str]] = {}
        self._written: dict[int, set[str]] = {}
        self._elsewhere: dict[int, set[str]] = {}

    def add(self, line: _Use) -> None:
        for where, pieces in (
            (self._used, line.everything), (self._written, line.writes), (self._elsewhere, line.elsewhere)
        ):  # fmt: skip
            for piece in pieces:
                where.setdefault(piece, set()).add(line.share)

    def conflicts(self, line: _Use) -> bool:
        """Whether a thread must not begin the line before all threads have finished those."""
        alike = set() if line.share == PARTS else {line.share}
        # Of a line that is shared in the same way each thread has done the part that it continues with.
        return (
            any(self._written.get(piece, alike) - alike for piece in line.everything)
            or any(self._used.get(piece, alike) - alike for piece in line.writes)
            or any(self._written.get(piece, set()) & alike for piece in line.elsewhere)
            or any(self._elsewhere.get(piece, set()) & alike for piece in line.writes)
        )
