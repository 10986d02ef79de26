"""Ranks that are threads of this process, for tests; they communicate through a list."""

from __future__ import annotations

import threading

from nnbackend.distributed import Communicator
from nnbackend.errors import DistributedError

__all__ = ["run_ranks", "worked"]

_SECONDS = 60


class _Table:
    """The shared list and barrier of a group of ranks."""

    def __init__(self, size):
        self.said = [None] * size
        #: Held by the rank that computes: an emulated device serves one thread at a time.
        self.turn = threading.Condition()
        self.here = self.meetings = 0
        self.reason = ""

    def meet(self):
        self.here += 1
        meeting = self.meetings
        if self.here == len(self.said):
            self.here, self.meetings = 0, meeting + 1
            self.turn.notify_all()
        came = self.turn.wait_for(lambda: self.meetings > meeting or self.reason, _SECONDS)
        if self.meetings == meeting:
            raise DistributedError(self.reason if came else "a rank did not come")

    def end(self, reason):
        self.reason = self.reason or reason
        self.turn.notify_all()


class ThreadCommunicator(Communicator):
    def __init__(self, table, rank):
        self._table = table
        self.rank, self.size = rank, len(table.said)
        self.calls = []

    def gather(self, value, kind="gather"):
        self.calls.append(kind)
        self._table.said[self.rank] = (kind, value)
        self.barrier()
        kinds, values = zip(*self._table.said, strict=True)
        assert set(kinds) == {kind}, f"the ranks are at different calls: {kinds}"
        self.barrier()
        return list(values)

    def allreduce(self, buffer):
        copies = self.gather(buffer.copy(), "allreduce")
        buffer[...] = copies[0]
        for other in copies[1:]:
            buffer += other

    def broadcast(self, value):
        return self.gather(value, "broadcast")[0]

    def barrier(self):
        self._table.meet()

    def abort(self, reason, error=None):
        self._table.end(f"rank {self.rank} failed: {reason}")


def run_ranks(size, program):
    """What ``program(communicator)`` returned on each of `size` ranks, or the exception that it raised."""
    table = _Table(size)
    results = [None] * size

    def run(rank):
        with table.turn:
            try:
                results[rank] = program(ThreadCommunicator(table, rank))
            except BaseException as error:
                results[rank] = error
                # Do not let other ranks wait long for this one.
                table.end(f"rank {rank} has left")

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def worked(results):
    """The results of all ranks; raises the first exception."""
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results
