"""Checks between ranks that train together: the same settings before, the same weights after every epoch."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from nnbackend.distributed.communicator import Checks, Communicator
from nnbackend.errors import DistributedError, InvalidInputError
from nnbackend.network import Network
from nnbackend.training.checkpoints.fingerprint import as_text, data_checksum
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
    settings = {
        "shard": shard,
        "network": json.dumps(network.config(), sort_keys=True),
        "weights (their checksum)": _checksum(network),
        "optimizer memory": _memory(network),
        **given,
    }
    checks.alike(settings)
    if not shard:
        checks.alike({"number of rows": rows})


def check_settings(checks: Checks, settings: Mapping[str, Any], data: Any, y: Any, shard: bool) -> None:
    """Reject ranks with different settings, or different rows where they must be the same.

    Raises
    ------
    InvalidInputError
    """
    if checks.size == 1:
        return
    checks.alike({name: as_text(value) for name, value in settings.items()})
    if not shard:
        checks.alike({"x and y (a checksum of some rows)": data_checksum(data, y)})


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
        checksums = self._communicator.gather(_checksum(self._network))
        for rank, checksum in enumerate(checksums):
            if checksum != checksums[0]:
                raise DistributedError(
                    f"rank {rank} has other weights than rank 0 after the same steps: their processors or libraries "
                    "round differently. Train on machines of one kind, with the same versions of everything",
                    rank,
                )


def _checksum(network: Network) -> int:
    return zlib.crc32(np.ascontiguousarray(network.backend.to_host(network.model.parameters)).data)


def _memory(network: Network) -> str:
    memory = network.optimizer_state
    return "none" if memory is None else f"{as_text(memory.optimizer)} after {memory.steps} steps"
