"""Find out which rank is missing when ranks wait.

A rank that waits unusually long reports this to two ranks. After the timeout, these two know which ranks have not
reported: such a rank may be dead, suspended, or elsewhere in the program.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Place", "Watch", "is_alive"]

#: Seconds of waiting after which a rank reports it and checks whether the other ranks of its machine are alive; less if
#: the timeout is short.
_UNUSUAL = 1.0
_TAG = 1
#: Number of ranks that collect the reports: ranks 0 and 1, in case rank 0 is missing.
_GATHERERS = 2
_LETTERS = 48


@dataclass(frozen=True)
class Place:
    """The host, process and cores of a rank."""

    host: str
    process: int
    cores: frozenset[int] = frozenset()

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}"


def is_alive(process: int) -> bool:
    """Whether a process of this machine is alive; a zombie is not."""
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
    """Checks on the other ranks while its rank waits.

    Parameters
    ----------
    mpi : module
        mpi4py.MPI.
    group : communicator of mpi4py
        Used only for the reports of waiting ranks.
    places : list of Place
        The places of all ranks.
    timeout : float
        Seconds after which a rank that does not respond is missing.

    Attributes
    ----------
    patient : bool
        Whether only a rank that has died is missing: others may work for longer than the timeout.
    """

    patient = False

    def __init__(self, mpi: Any, group: Any, places: list[Place], timeout: float) -> None:
        self._mpi, self._group, self._places = mpi, group, places
        self._rank, self._timeout = group.Get_rank(), timeout
        self._interval = min(_UNUSUAL, timeout / 4)
        self._reported = (0, 0.0)
        self._sent: list[Any] = []
        #: For each other rank: the time of its last report, the number of its wait, and what it waits for.
        self._reports: dict[int, tuple[float, int, str]] = {}
        # A rank in another container has the same host but other process numbers; it does not seem alive here.
        self._near = [
            rank
            for rank, place in enumerate(places)
            if place.host == places[self._rank].host and rank != self._rank and is_alive(place.process)
        ]

    def look(self, what: str, number: int, waited: float) -> str:
        """Describe a failure of another rank; empty if none was found.

        Parameters
        ----------
        what : str
            What this rank waits for.
        number : int
            The number of this wait.
        waited : float
            Seconds that it has waited so far.
        """
        last = self._reported[1] if self._reported[0] == number else 0.0
        if waited - last < self._interval:
            return ""
        self._reported = (number, waited)
        for rank in self._near:
            if not is_alive(self._places[rank].process):
                return f"rank {rank} of {len(self._places)}, {self._places[rank]}, has died"
        if self.patient:
            return ""
        self._send_report(what, number)
        self._receive_reports()
        # Rank 1, and after it all others, leave the lower ranks time to name the missing rank.
        turn = min(self._rank, _GATHERERS)
        if waited < self._timeout + (1 + turn) * 2 * self._interval:
            return ""
        return self._missing(what, number, waited)

    def _send_report(self, what: str, number: int) -> None:
        message = np.zeros(2 + _LETTERS, np.int64)
        message[0], message[1] = number, len(what)
        message[2 : 2 + len(what)] = list(what.encode())
        self._sent = [(request, buffer) for request, buffer in self._sent if not request.Test()]
        for gatherer in range(min(_GATHERERS, len(self._places))):
            if gatherer != self._rank:
                self._sent.append((self._group.Isend(message, gatherer, _TAG), message))

    def _receive_reports(self) -> None:
        status = self._mpi.Status()
        while self._group.Iprobe(self._mpi.ANY_SOURCE, _TAG, status):
            message = np.zeros(2 + _LETTERS, np.int64)
            self._group.Recv(message, status.Get_source(), _TAG)
            what = bytes(message[2 : 2 + message[1]].tolist()).decode()
            self._reports[status.Get_source()] = (time.monotonic(), int(message[0]), what)

    def _missing(self, what: str, number: int, waited: float) -> str:
        since = f"has waited {waited:.1f} s for {what}"
        if self._rank >= _GATHERERS:
            return f"rank {self._rank} {since}, and ranks 0 and 1 do not report which rank is missing"
        silent, elsewhere = [], []
        for rank, place in enumerate(self._places):
            when, its_number, its_what = self._reports.get(rank, (0.0, 0, ""))
            if rank == self._rank:
                continue
            if time.monotonic() - when > 3 * self._interval:
                silent.append(f"rank {rank} ({place})")
            elif (its_number, its_what) != (number, what):
                elsewhere.append(f"rank {rank} ({place}) waits for {its_what} elsewhere in the program")
        if not silent and not elsewhere:
            return f"every rank {since}: the network between them does not respond"
        missing = [f"no response from {', '.join(silent)}"] * bool(silent) + elsewhere
        return f"{', '.join(missing)}, while rank {self._rank} {since}"
