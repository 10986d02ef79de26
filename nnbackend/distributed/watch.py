"""Who is missing when ranks wait.

A rank that waits for longer than usual tells two others so; when time is up, these two know who has not said so. It is
the ranks that are missed, not a machine: a rank may be dead, or asleep, or somewhere else in the program.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Place", "Watch", "is_alive"]

#: Seconds of waiting after which a rank says so, and looks whether the others of its machine are alive; less where the
#: time to wait is short.
_UNUSUAL = 1.0
_TAG = 1
#: Who gathers what the waiting say: the second if the first is missing.
_GATHERERS = 2
_LETTERS = 48


@dataclass(frozen=True)
class Place:
    """Where a rank runs."""

    host: str
    process: int
    cores: frozenset[int] = frozenset()

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}"


def is_alive(process: int) -> bool:
    """Whether a process of this machine runs, or sleeps; not one that is dead and whose parent has not noticed."""
    status = Path(f"/proc/{process}/stat")
    if Path("/proc/self/stat").exists():
        try:
            return status.read_text().rpartition(")")[2].split()[0] not in "ZX"
        except OSError:
            return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


class Watch:
    """Looks round while its rank waits.

    Parameters
    ----------
    mpi : module
        mpi4py.MPI.
    group : communicator of mpi4py
        For the messages of the waiting alone.
    places : list of Place
        Of all ranks.
    timeout : float
        Seconds to wait before somebody is missed.
    """

    def __init__(self, mpi: Any, group: Any, places: list[Place], timeout: float) -> None:
        self._mpi, self._group, self._places = mpi, group, places
        self._rank, self._timeout = group.Get_rank(), timeout
        self._interval = min(_UNUSUAL, timeout / 4)
        self._told = (0, 0.0)
        self._sent: list[Any] = []
        #: When each of the others was heard last, the number of its wait, and for what it waits.
        self._heard: dict[int, tuple[float, int, str]] = {}
        # Process numbers mean nothing to those who live in another container.
        self._near = [
            rank
            for rank, place in enumerate(places)
            if place.host == places[self._rank].host and rank != self._rank and is_alive(place.process)
        ]

    def look(self, what: str, number: int, waited: float) -> str:
        """What is wrong, if anything is.

        Parameters
        ----------
        what : str
            What this rank waits for.
        number : int
            How often it has waited for anything.
        waited : float
            For how many seconds it has waited now.
        """
        last = self._told[1] if self._told[0] == number else 0.0
        if waited - last < self._interval:
            return ""
        self._told = (number, waited)
        for rank in self._near:
            if not is_alive(self._places[rank].process):
                return f"rank {rank} of {len(self._places)}, {self._places[rank]}, has died"
        self._tell(what, number)
        self._listen()
        # The second to gather, and then all others, give those before them the time to speak.
        turn = min(self._rank, _GATHERERS)
        if waited < self._timeout + (1 + turn) * 2 * self._interval:
            return ""
        return self._missing(what, number, waited)

    def _tell(self, what: str, number: int) -> None:
        message = np.zeros(2 + _LETTERS, np.int64)
        message[0], message[1] = number, len(what)
        message[2 : 2 + len(what)] = list(what.encode())
        self._sent = [(request, kept) for request, kept in self._sent if not request.Test()]
        for gatherer in range(min(_GATHERERS, len(self._places))):
            if gatherer != self._rank:
                self._sent.append((self._group.Isend(message, gatherer, _TAG), message))

    def _listen(self) -> None:
        status = self._mpi.Status()
        while self._group.Iprobe(self._mpi.ANY_SOURCE, _TAG, status):
            message = np.zeros(2 + _LETTERS, np.int64)
            self._group.Recv(message, status.Get_source(), _TAG)
            what = bytes(message[2 : 2 + message[1]].tolist()).decode()
            self._heard[status.Get_source()] = (time.monotonic(), int(message[0]), what)

    def _missing(self, what: str, number: int, waited: float) -> str:
        since = f"waits for {what} since {waited:.1f} s"
        if self._rank >= _GATHERERS:
            return f"rank {self._rank} {since}, and ranks 0 and 1 do not say for whom"
        silent, elsewhere = [], []
        for rank, place in enumerate(self._places):
            when, its_number, its_what = self._heard.get(rank, (0.0, 0, ""))
            if rank == self._rank:
                continue
            if time.monotonic() - when > 3 * self._interval:
                silent.append(f"rank {rank} ({place})")
            elif (its_number, its_what) != (number, what):
                elsewhere.append(f"rank {rank} ({place}) waits for {its_what} elsewhere in the program")
        if not silent and not elsewhere:
            return f"every rank {since}: the network between them does not answer"
        who = [f"no word from {', '.join(silent)}"] * bool(silent) + elsewhere
        return f"{', '.join(who)}, while rank {self._rank} {since}"
