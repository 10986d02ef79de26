"""What ranks say to each other while they train together; and the communicator of a process that is alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

import numpy as np

from nnbackend.backends.contract import Array, Backend, HostArray
from nnbackend.distributed.watch import Place
from nnbackend.errors import DistributedError, InvalidInputError, TrainingDivergedError
from nnbackend.support.cores import usable_cores

__all__ = ["Alone", "Checks", "Communicator"]


class Communicator(ABC):
    """A group of processes, each of which has a number.

    All of the methods but `abort` are to be called by all ranks, in the same order.

    Attributes
    ----------
    rank, size : int
        Of this process, from 0; and how many there are.
    local_rank, local_size : int
        The same among the processes of this machine.
    places : list of Place
        The host and the process number of each.
    known : exception or None
        The last one that all ranks have heard of, on the rank that it came to first or on the others.
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
        """Replace a contiguous array by its sum over all ranks: the same bits on all, every time."""

    @abstractmethod
    def broadcast(self, value: Any) -> Any:
        """What rank 0 gave, a small object that can be pickled."""

    @abstractmethod
    def gather(self, value: Any) -> list[Any]:
        """What all ranks gave, small objects that can be pickled, in the order of the ranks; on every rank."""

    @abstractmethod
    def barrier(self) -> None:
        """Wait until all ranks are here."""

    @abstractmethod
    def abort(self, reason: str, error: BaseException | None = None) -> None:
        """End all ranks: this one cannot go on, because of this error maybe, and the others would wait for ever."""

    @property
    def cores(self) -> int:
        """How many cores this rank may use without taking one of another's."""
        return usable_cores()

    def tells(self, error: BaseException) -> bool:
        """Whether it is this rank that should tell people of an error, and not another that has it too."""
        if self.size > 1 and isinstance(error, TrainingDivergedError):
            return self.rank == 0
        return error is not self.known or self.rank == self._told_by

    def reducer(self, backend: Backend, buffer: Array) -> Callable[[], None]:
        """A function that replaces a device buffer by its sum over all ranks, again and again.

        Arrays of a device that is not known here go through the host.
        """
        if isinstance(buffer, np.ndarray):
            return lambda: self.allreduce(buffer)

        def through_host() -> None:
            values = backend.to_host(buffer)
            self.allreduce(values)
            backend.write(values, buffer)

        return through_host

    def any(self, flag: bool) -> bool:
        """Whether one rank at least says so."""
        return any(self.gather(bool(flag)))

    def alike(self, error: BaseException, told_by: int = 0) -> BaseException:
        """Note that all ranks raise an error together, or one that stands for it, and which one tells people of it: it
        then ends no rank from outside."""
        self.known, self._told_by = error, told_by
        return error

    def checks(self) -> Checks:
        """A context in which all ranks pass, or all fail; see :class:`Checks`."""
        return Checks(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: rank {self.rank} of {self.size}>"


class Alone(Communicator):
    """One rank: nobody to talk to."""

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
    """A context that begins with checks which one rank may fail while the others pass, and goes on with work.

    An error before `passed` is an error on every rank: each raises its own, the others one that names the rank. After
    it, an error that all ranks cannot have met alike ends the whole run.
    """

    def __init__(self, communicator: Communicator) -> None:
        self._communicator = communicator
        self._checking = True

    @property
    def rank(self) -> int:
        """The number of this one."""
        return self._communicator.rank

    @property
    def size(self) -> int:
        """How many ranks there are."""
        return self._communicator.size

    def __enter__(self) -> Checks:
        return self

    def exchange(self, value: Any) -> list[Any]:
        """What all ranks gave, in their order.

        Raises
        ------
        DistributedError
            A rank has failed.
        """
        answers = self._communicator.gather((None, value))
        for rank, (error, _) in enumerate(answers):
            if error is not None:
                said = f"rank {rank} of {len(answers)} cannot train: {error}"
                raise self._communicator.alike(DistributedError(said, rank), rank)
        return [given for _, given in answers]

    def alike(self, settings: Mapping[str, Any]) -> None:
        """Refuse settings that ranks do not have in common.

        Raises
        ------
        InvalidInputError
            On all ranks; says which setting, and two ranks that differ in it.
        """
        answers = self.exchange(dict(settings))
        for name, first in answers[0].items():
            for rank, others in enumerate(answers):
                if others[name] != first:
                    said = f"the same {name}: rank 0 has {first!r}, rank {rank} {others[name]!r}"
                    raise self._communicator.alike(InvalidInputError(f"all ranks must be given {said}"))

    def passed(self) -> None:
        """This rank has checked everything; returns when all have."""
        self.exchange(None)
        self._checking = False

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or self._communicator.size == 1 or error is self._communicator.known:
            return
        said = f"{type(error).__name__}: {error}"
        if self._checking:
            answers = self._communicator.gather((said, None))
            told_by = next(rank for rank, (failed, _) in enumerate(answers) if failed is not None)
            self._communicator.alike(error, told_by)
        elif not isinstance(error, _ALIKE):
            self._communicator.abort(said, error)


#: What all ranks raise together once they train.
_ALIKE = (DistributedError, TrainingDivergedError)
