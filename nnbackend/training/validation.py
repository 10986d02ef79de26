"""Evaluates the validation data after every epoch, a part on each rank."""

from __future__ import annotations

from contextlib import ExitStack, closing
from typing import Any

import numpy as np

from nnbackend.data.batch_stream import BatchStream
from nnbackend.data.batches import part_of
from nnbackend.data.feed import Feed
from nnbackend.distributed.communicator import Communicator
from nnbackend.errors import InvalidInputError
from nnbackend.losses import Loss
from nnbackend.network import Network
from nnbackend.step.evaluation import Evaluator

__all__ = ["Validator"]

_BATCH = 1024


class Validator:
    """Evaluates the validation data.

    Parameters
    ----------
    network : Network
    loss : Loss
    feed : Feed
        Brings the rows.
    communicator : Communicator
    split : bool
        Whether all ranks have the same rows and each takes a part of them; otherwise this rank takes all of its rows.
    alike : bool
        Whether all ranks evaluate all rows, because a stream cannot be split.

    Attributes
    ----------
    accuracy_name : str or None
        Name of the share of correct predictions.
    """

    def __init__(
        self, network: Network, loss: Loss, feed: Feed, communicator: Communicator, split: bool, alike: bool
    ) -> None:
        part = part_of(feed.count, communicator.rank, communicator.size) if split else None
        self.accuracy_name = None if feed.accuracy_name is None else f"val_{feed.accuracy_name}"
        self._communicator, self._alike = communicator, alike
        self._evaluator = Evaluator(network.model, loss, feed, _BATCH, part)

    @classmethod
    def of(
        cls,
        network: Network,
        loss: Loss,
        data: tuple[Any, Any] | BatchStream | None,
        feeds: ExitStack,
        communicator: Communicator,
        shard: bool,
        training: Feed,
    ) -> Validator | None:
        """A validator for what the caller gave as `validation_data`; `feeds` closes its feed.

        Its inputs get the same factor as those of `training`, the feed of the training rows.

        Raises
        ------
        InvalidInputError
            The data do not fit the network or the loss.
        """
        if data is None:
            return None
        pieces = isinstance(data, BatchStream)
        pair = (data, None) if pieces else data
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise InvalidInputError("validation_data must be a pair (x, y), or a BatchStream")
        try:
            feed = network.intake.fixed(training.examples.scale, training.describe()).feed(
                pair[0], pair[1], loss, _BATCH
            )
        except InvalidInputError as error:
            raise InvalidInputError(f"validation_data: {error}") from None
        feeds.enter_context(closing(feed))
        split = communicator.size > 1 and not shard and not pieces
        return cls(network, loss, feed, communicator, split, alike=pieces and not shard)

    def run(self) -> tuple[float, float]:
        """The mean loss (without penalties) and the share of correct predictions, over the rows of all ranks."""
        sums = np.array([*self._evaluator.sums(), self._evaluator.count], np.float64)
        if not self._alike:
            self._communicator.allreduce(sums)
        loss, correct, rows = sums
        return float(loss / rows), float(correct / rows)
