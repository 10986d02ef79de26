"""Communication between ranks that train together, and the communicator of a single process."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import numpy as np

from nnbackend.backends.contract import Array, Backend, HostArray
from nnbackend.distributed.watch import Place
from nnbackend.errors import DistributedError, InvalidInputError, TrainingDivergedError, differing, shown
from nnbackend.support.cores import usable_cores

__all__ = ["Alone", "Checks", "Communicator"]


class Communicator(ABC):
    """A group of processes, numbered by rank.

    All ranks must call all methods except `abort` in the same order.

    Attributes
    ----------
    rank, size : int
        The number of this process, from 0, and the number of processes.
    local_rank, local_size : int
        The same among the processes of this machine.
    places : list of Place
        The host and the process number of each rank.
    known : exception or None
        The last error that all ranks know of.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    places: Sequence[Place] = ()
    known: BaseException | None = None
    _told_by: int = 0

    @abstractmethod
    def allreduce(self, buffer: HostArray) -> None:
        """Replace a contiguous array by its sum over all ranks; the result is bit-identical on all ranks."""

    @abstractmethod
    def broadcast(self, value: Any) -> Any:
        """The value of rank 0, a small object that can be pickled."""

    @abstractmethod
    def gather(self, value: Any) -> list[Any]:
        """The values of all ranks, small objects that can be pickled, in the order of the ranks; on every rank."""

    @abstractmethod
    def barrier(self) -> None:
        """Wait until all ranks have called this."""

    @abstractmethod
    def abort(self, reason: str, error: BaseException | None = None) -> None:
        """End all ranks, because this one has failed and the others would wait for it forever."""

    @property
    def cores(self) -> int:
        """The number of cores that this rank may use without taking cores of other ranks."""
        return usable_cores()

    def tells(self, error: BaseException) -> bool:
        """Whether this rank, and not another with the same error, should report the error to the user."""
        if self.size > 1 and isinstance(error, TrainingDivergedError):
            return self.rank == 0
        return error is not self.known or self.rank == self._told_by

    def reducer(self, backend: Backend, buffer: Array) -> Callable[[], None]:
        """Return a function that replaces a device buffer by its sum over all ranks.

        By default, device arrays are copied through the host.
        """
        if isinstance(buffer, np.ndarray):
            return lambda: self.allreduce(buffer)

        def through_host() -> None:
            values = backend.to_host(buffer)
            self.allreduce(values)
            backend.write(values, buffer)

        return through_host

    @contextmanager
    def patient(self) -> Iterator[None]:
        """A context in which this rank waits for others as long as they are alive, because they work on their own."""
        yield

    def any(self, flag: bool) -> bool:
        """Whether `flag` is true on at least one rank."""
        return any(self.gather(bool(flag)))

    def alike(self, error: BaseException, told_by: int = 0) -> BaseException:
        """Record that all ranks raise this error or an equivalent one, and which rank reports it to the user.

        Such an error does not abort the other ranks.
        """
        self.known, self._told_by = error, told_by
        return error

    def checks(self) -> Checks:
        """A context in which either all ranks pass or all fail; see :class:`Checks`."""
        return Checks(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: rank {self.rank} of {self.size}>"


class Alone(Communicator):
    """The communicator of a single rank."""

    def allreduce(self, buffer: HostArray) -> None:
        pass

    def broadcast(self, value: Any) -> Any:
        return value

    def gather(self, value: Any) -> list[Any]:
        return [value]

    def barrier(self) -> None:
        pass

    def abort(self, reason: str, error: BaseException | None = None) -> None:
        pass


class Checks:
    """A context for checks that may fail on some ranks only, followed by work.

    An error before `passed` is an error on every rank: the ranks that fail raise their own error, the others an error
    that names a failed rank. After `passed`, an error that is not common to all ranks aborts the whole run.
    """

    def __init__(self, communicator: Communicator) -> None:
        self._communicator = communicator
        self._checking = True

    @property
    def rank(self) -> int:
        """The number of this rank."""
        return self._communicator.rank

    @property
    def size(self) -> int:
        """The number of ranks."""
        return self._communicator.size

    def __enter__(self) -> Checks:
        return self

    def exchange(self, value: Any) -> list[Any]:
        """The values of all ranks, in their order.

        Raises
        ------
        DistributedError
            A rank has failed.
        """
        answers = self._communicator.gather((None, value))
        for rank, (error, _) in enumerate(answers):
            if error is not None:
                message = f"rank {rank} of {len(answers)} cannot train: {error}"
                raise self._communicator.alike(DistributedError(message, rank), rank)
        return [value for _, value in answers]

    def alike(self, settings: Mapping[str, Any], values: bool = True) -> None:
        """Check that all ranks have the same settings.

        Parameters
        ----------
        settings : dict
            Plain values by name.
        values : bool
            Whether an error shows what differs; checksums say nothing.

        Raises
        ------
        InvalidInputError
            On all ranks; names the setting and two ranks that differ.
        """
        answers = self.exchange(dict(settings))
        for name, first in answers[0].items():
            for rank, others in enumerate(answers):
                own = others.get(name)
                if own == first:
                    continue
                what = f"rank {rank} has another one than rank 0"
                if values:
                    place, one, other = next(differing(name, first, own))
                    place = "" if place == name else f"{place.removeprefix(name).removeprefix('.')} "
                    what = f"{place}is {shown(one)} on rank 0, and {shown(other)} on rank {rank}"
                raise self._communicator.alike(InvalidInputError(f"all ranks must have the same {name}: {what}"))

    def passed(self) -> None:
        """Declare that all checks have passed on this rank; returns when they have passed on all ranks."""
        self.exchange(None)
        self._checking = False

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or self._communicator.size == 1 or error is self._communicator.known:
            return
        message = f"{type(error).__name__}: {error}"
        if self._checking:
            answers = self._communicator.gather((message, None))
            told_by = next(rank for rank, (failed, _) in enumerate(answers) if failed is not None)
            self._communicator.alike(error, told_by)
        elif not isinstance(error, _COMMON):
            self._communicator.abort(message, error)


#: Errors that all ranks raise together during training.
_COMMON = (DistributedError, TrainingDivergedError)
