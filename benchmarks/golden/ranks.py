"""Ranks that are threads of this process and communicate through a list."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import nnbackend as nn

__all__ = ["run_ranks"]

_SECONDS = 120


class _Table:
    """The shared messages and barrier of the ranks, of which only one computes at a time."""

    def __init__(self, size: int) -> None:
        self.said: list[Any] = [None] * size
        self.turn = threading.Condition()
        self.here = self.meetings = 0
        self.reason = ""

    def meet(self) -> None:
        self.here += 1
        meeting = self.meetings
        if self.here == len(self.said):
            self.here, self.meetings = 0, meeting + 1
            self.turn.notify_all()
        self.turn.wait_for(lambda: self.meetings > meeting or self.reason, _SECONDS)
        if self.meetings == meeting:
            raise nn.errors.DistributedError(self.reason or "a rank did not come")

    def end(self, reason: str) -> None:
        self.reason = self.reason or reason
        self.turn.notify_all()


class _ThreadCommunicator(nn.distributed.Communicator):
    def __init__(self, table: _Table, rank: int) -> None:
        self._table = table
        self.rank, self.size = rank, len(table.said)

    def gather(self, value: Any) -> list[Any]:
        self._table.said[self.rank] = value
        self.barrier()
        values = list(self._table.said)
        self.barrier()
        return values

    def allreduce(self, buffer: Any) -> None:
        copies = self.gather(buffer.copy())
        buffer[...] = copies[0]
        for other in copies[1:]:
            buffer += other

    def broadcast(self, value: Any) -> Any:
        return self.gather(value)[0]

    def barrier(self) -> None:
        self._table.meet()

    def abort(self, reason: str, error: BaseException | None = None) -> None:
        self._table.end(f"rank {self.rank} failed: {reason}")


def run_ranks(size: int, program: Callable[[nn.distributed.Communicator], Any]) -> list[Any]:
    """The results of ``program(communicator)`` on each of `size` ranks.

    Raises
    ------
    Exception
        The first exception that a rank raised.
    """
    table = _Table(size)
    results: list[Any] = [None] * size
    errors: list[BaseException] = []

    def rank_program(rank: int) -> None:
        with table.turn:
            try:
                results[rank] = program(_ThreadCommunicator(table, rank))
            except BaseException as error:
                errors.append(error)
                table.end(f"rank {rank} has left")

    threads = [threading.Thread(target=rank_program, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results
