"""Communication through MPI."""

from __future__ import annotations

import atexit
import os
import pickle
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from nnbackend.backends.contract import Array, Backend, HostArray
from nnbackend.distributed.communicator import Communicator
from nnbackend.distributed.watch import Place, Watch
from nnbackend.support.cores import usable_cores

__all__ = ["MpiCommunicator"]

#: Exit code of all processes of a run when one of them fails.
_FAILED = 2

#: Seconds for which a waiting rank polls without a pause, and until which it only yields the core to other threads.
_SPIN, _YIELD = 0.0002, 0.02

#: Seconds before the end in which an error message can reach the terminal.
_FLUSH_TIME = 0.3


class MpiCommunicator(Communicator):
    """The ranks of MPI's world communicator.

    It polls non-blocking collectives, because a blocking one would wait forever for a rank that has failed. The order
    in which MPI adds depends only on the number of ranks and of elements.

    Parameters
    ----------
    timeout : float
        Seconds to wait for another rank.

    Raises
    ------
    ImportError
        mpi4py is not installed, or does not find an MPI library.
    """

    def __init__(self, timeout: float) -> None:
        import mpi4py

        # Only one thread communicates; full thread safety would make every message slower.
        mpi4py.rc.thread_level = "funneled"
        from mpi4py import MPI

        self._mpi = MPI
        world = MPI.COMM_WORLD
        # Duplicate the communicator, so that our messages do not mix with those of the program.
        self._group, self._farewell = world.Dup(), world.Dup()
        self.rank, self.size = world.Get_rank(), world.Get_size()
        self._waits = 0
        self._watch: Watch | None = None
        self._devices: Any = None
        self._ended = False
        places: list[Place] = self.gather(Place(socket.gethostname(), os.getpid(), _cores()))
        self.places = places
        here = [rank for rank, place in enumerate(places) if place.host == places[self.rank].host]
        self.local_rank, self.local_size = here.index(self.rank), len(here)
        self._watch = Watch(MPI, world.Dup(), places, timeout)
        if self.size > 1:
            self._install_exit_hooks()

    # ---- collectives -------------------------------------------------------------------------------------------

    def allreduce(self, buffer: HostArray) -> None:
        self._wait("a sum", self._group.Iallreduce(self._mpi.IN_PLACE, buffer))

    def broadcast(self, value: Any) -> Any:
        payload = pickle.dumps(value) if self.rank == 0 else b""
        length = np.array([len(payload)])
        self._wait("a broadcast", self._group.Ibcast(length))
        data = np.frombuffer(payload, np.uint8).copy() if self.rank == 0 else np.empty(length[0], np.uint8)
        self._wait("a broadcast", self._group.Ibcast(data))
        return pickle.loads(data.tobytes())

    def gather(self, value: Any) -> list[Any]:
        payload = np.frombuffer(pickle.dumps(value), np.uint8)
        lengths = np.empty(self.size, np.int64)
        self._wait("a gather", self._group.Iallgather(np.array([len(payload)], np.int64), lengths))
        data = np.empty(int(lengths.sum()), np.uint8)
        self._wait("a gather", self._group.Iallgatherv(payload, [data, lengths]))
        return [pickle.loads(part.tobytes()) for part in np.split(data, np.cumsum(lengths)[:-1])]

    def barrier(self) -> None:
        self._wait("a barrier", self._group.Ibarrier())

    def reducer(self, backend: Backend, buffer: Array) -> Callable[[], None]:
        if type(buffer).__module__.partition(".")[0] != "cupy":
            return super().reducer(backend, buffer)
        # An MPI without GPU support would read a device address as a host address.
        from nnbackend.distributed.nccl import DeviceGroup

        if self._devices is None:
            # Starting NCCL blocks inside MPI without a timeout, so make sure that all ranks are present.
            self.barrier()
            self._devices = DeviceGroup(backend, self.rank, self.size)
        devices: DeviceGroup = self._devices
        return devices.reducer(backend, buffer)

    # ---- waiting and ending ------------------------------------------------------------------------------------

    def _wait(self, what: str, request: Any) -> None:
        self._waits += 1
        if request.Test():
            return
        begin = time.monotonic()
        while not request.Test():
            waited = time.monotonic() - begin
            if waited > _YIELD:
                time.sleep(0.0005)
                self._check_others(what, waited)
            elif waited > _SPIN:
                time.sleep(0)

    def _check_others(self, what: str, waited: float) -> None:
        if self._watch is not None and (failure := self._watch.look(what, self._waits, waited)):
            self._end(failure)

    @contextmanager
    def patient(self) -> Iterator[None]:
        if self._watch is None:
            yield
            return
        self._watch.patient = True
        try:
            yield
        finally:
            self._watch.patient = False

    @property
    def cores(self) -> int:
        # A launcher may give each rank its own cores, or the same cores to all ranks.
        own = self.places[self.rank]
        sharers = sum((place.host, place.cores) == (own.host, own.cores) for place in self.places)
        return max(1, usable_cores() // sharers)

    def abort(self, reason: str, error: BaseException | None = None) -> None:
        if error is not None:
            traceback.print_exception(error)
        self._end(f"rank {self.rank} of {self.size}, process {os.getpid()} on {socket.gethostname()}, failed: {reason}")

    def _end(self, failure: str) -> None:
        if not self._ended:
            self._ended = True
            sys.stdout.flush()
            print(f"nnbackend: error: {failure}; all ranks end", file=sys.stderr, flush=True)
            # Launchers drop output that they have not forwarded yet.
            time.sleep(_FLUSH_TIME)
        self._mpi.COMM_WORLD.Abort(_FAILED)
        # In some MPI libraries Abort returns, and ends the process a little later.
        os._exit(_FAILED)

    def _install_exit_hooks(self) -> None:
        """Make an uncaught error end all ranks, and make a rank that finishes wait for the others."""
        previous = sys.excepthook

        def hook(kind: type[BaseException], error: BaseException, trace: Any) -> None:
            if self.tells(error):
                previous(kind, error, trace)
            self.abort(f"{kind.__name__}: {error}")

        sys.excepthook = hook
        atexit.register(self._leave)

    def _leave(self) -> None:
        """Wait for all ranks, with a timeout; MPI's own finalisation would wait forever."""
        if not self._ended and not self._mpi.Is_finalized():
            self._wait("the end of the program", self._farewell.Ibarrier())


def _cores() -> frozenset[int]:
    """The numbers of the cores that this process may use; empty if the system does not report them."""
    return frozenset(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else frozenset()
