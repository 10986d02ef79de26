"""Checks between ranks that train together: the same settings before, the same weights after every epoch."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from nnbackend.distributed.communicator import Checks, Communicator
from nnbackend.errors import DistributedError, InvalidInputError
from nnbackend.network import Network
from nnbackend.support import VERSION
from nnbackend.training.checkpoints.fingerprint import DataFingerprint, as_text, optimizer_text
from nnbackend.training.listeners import Listener
from nnbackend.training.run import EpochResult

__all__ = ["ReplicaListener", "check_alike", "check_ranks", "check_settings"]


def check_ranks(communicator: Any) -> Checks:
    """The checks of a run on these ranks.

    Raises
    ------
    InvalidInputError
        It is not a communicator.
    """
    if not isinstance(communicator, Communicator):
        raise InvalidInputError(
            f"communicator must be what nnbackend.distributed.world() returns, received {communicator!r}"
        )
    return communicator.checks()


def check_alike(
    checks: Checks, network: Network, rows: int, shard: bool, given: Mapping[str, str], stream: bool
) -> None:
    """Reject ranks with different networks, or different rows where they must be the same.

    Raises
    ------
    InvalidInputError
    """
    if checks.size == 1:
        return
    if stream and not shard:
        raise InvalidInputError(
            "a BatchStream is read by one rank alone: give each rank a stream of its own rows, and shard=True"
        )
    checks.alike(
        {
            "version of nnbackend": VERSION,
            "shard": shard,
            "network": network.config(),
            "optimizer memory": _memory(network),
            **given,
        }
    )
    checks.alike({"initial weights": _checksum(network)}, values=False)
    if not shard:
        checks.alike({"number of rows": rows})


def check_settings(checks: Checks, settings: Mapping[str, Any], data: DataFingerprint, shard: bool) -> None:
    """Reject ranks with different settings, or different data where they must be the same.

    Raises
    ------
    InvalidInputError
    """
    if checks.size == 1:
        return
    checks.alike({name: as_text(value) for name, value in settings.items()})
    hashes = data.hashes
    # Each rank has its own rows, but a class has the same weight everywhere.
    checks.alike({"class_weight": hashes["class_weight"]})
    given = {name: "none" if value is None else "given" for name, value in hashes.items()}
    checks.alike({f"kind of {name}": kind for name, kind in given.items()})
    if not shard:
        checks.alike(hashes, values=False)


class ReplicaListener(Listener):
    """Checks after every epoch that all ranks have the same weights, so that none diverges unnoticed.

    Parameters
    ----------
    network : Network
    communicator : Communicator
    """

    def __init__(self, network: Network, communicator: Communicator) -> None:
        self._network, self._communicator = network, communicator

    def steps_end(self, epoch: int, result: EpochResult) -> None:
        """Compare checksums of the weights; raises DistributedError on all ranks if one has other weights."""
        if self._communicator.size == 1:
            return
        answers = self._communicator.gather((result.learning_rate, _checksum(self._network)))
        for rank, answer in enumerate(answers):
            if answer[0] != answers[0][0]:
                raise DistributedError(
                    f"rank {rank} has the learning rate {answer[0]!r} in epoch {epoch}, rank 0 {answers[0][0]!r}; a "
                    "callback that sets it must do so on all ranks (first_rank_only = False)",
                    rank,
                )
            if answer != answers[0]:
                raise DistributedError(
                    f"rank {rank} has other weights than rank 0 after the same steps: their processors or libraries "
                    "round differently. Train on machines of one kind, with the same versions of everything",
                    rank,
                )


def _checksum(network: Network) -> int:
    return zlib.crc32(np.ascontiguousarray(network.backend.to_host(network.model.parameters)).data)


def _memory(network: Network) -> str:
    memory = network.optimizer_state
    return "none" if memory is None else f"{optimizer_text(memory.optimizer)} after {memory.steps} steps"
