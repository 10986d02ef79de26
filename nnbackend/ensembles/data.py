"""The data of each of many networks, as arguments of `fit`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from nnbackend.data.batch_stream import BatchStream
from nnbackend.data.held_out import held_rows
from nnbackend.data.shared import SelectedRows, SelectedTargets, Selection, SharedData
from nnbackend.data.weights import row_weights
from nnbackend.errors import InvalidInputError, NNBackendError
from nnbackend.losses import Loss
from nnbackend.network import Network
from nnbackend.training.plan import check_split, required_loss

__all__ = ["ManyData", "naming"]


class ManyData:
    """The data that networks share, and which of the rows are whose.

    Parameters
    ----------
    shared : SharedData
    rows, validation_rows, validation_data, sample_weight : list
        Of each network, as the caller gave them.
    """

    def __init__(
        self,
        shared: SharedData,
        rows: list[Any],
        validation_rows: list[Any],
        validation_data: list[Any],
        sample_weight: list[Any],
    ) -> None:
        self._shared = shared
        self._rows, self._validation_rows = rows, validation_rows
        self._validation_data, self._sample_weight = validation_data, sample_weight
        #: By the ids of what the caller gave, because many networks share it.
        self._selections: dict[tuple[str, int], Selection] = {}
        self._validations: dict[int, SharedData] = {}

    def of(self, place: int, network: Network, loss: Any, validation_split: Any) -> dict[str, Any]:
        """Rows, targets, weights and validation data of one network.

        Parameters
        ----------
        place : int
        network : Network
        loss : str, Loss or None
            As for `fit`; says which targets are classes.
        validation_split : float
            The fraction of its rows that it does not train on.

        Raises
        ------
        InvalidInputError, DataError
            They do not fit the network, or each other.
        """
        selection = self._selection("rows", self._rows[place])
        validation, weights = self._validation(place, network), self._sample_weight[place]
        if weights is not None:
            weights = row_weights(weights, self._shared.count)
        fraction = check_split(validation_split)
        if fraction:
            if validation is not None:
                raise InvalidInputError(
                    "validation_split and validation_rows or validation_data all name validation rows; give one of them"
                )
            selection, held = self._divided(selection, network, required_loss(network, loss), fraction)
            validation = self._selected(self._shared, held, network)
            if weights is not None:
                validation = (*validation, held.of(weights))
        x, y = self._shared.rows(selection, network.input_shape, network.dtype)
        own = None if weights is None else selection.of(weights)
        return {"x": x, "y": y, "sample_weight": own, "validation_data": validation}

    def _divided(
        self, selection: Selection, network: Network, loss: Loss, fraction: float
    ) -> tuple[Selection, Selection]:
        """The rows of a selection to train on, and those to hold out, as `fit` divides them."""
        outputs = math.prod(network.output_shape)
        held = held_rows(selection.of(self._shared.y), fraction, loss, outputs, network.seed)
        numbers = np.arange(self._shared.count) if selection.numbers is None else selection.numbers
        return self._shared.selection("rows", numbers[~held]), self._shared.selection("rows", numbers[held])

    def _validation(self, place: int, network: Network) -> Any:
        numbers, given = self._validation_rows[place], self._validation_data[place]
        if numbers is not None:
            if given is not None:
                raise InvalidInputError("give validation_rows or validation_data, not both")
            return self._selected(self._shared, self._selection("validation_rows", numbers), network)
        if not isinstance(given, tuple | list) or len(given) not in (2, 3) or isinstance(given[0], BatchStream):
            # None, or an error that `fit` explains.
            return given
        with naming("validation_data"):
            shared = self._validations.get(id(given))
            if shared is None:
                shared = self._validations[id(given)] = SharedData(given[0], given[1])
            return (*self._selected(shared, shared.everything, network), *given[2:])

    def _selection(self, name: str, numbers: Any) -> Selection:
        key = name, id(numbers)
        if key not in self._selections:
            self._selections[key] = self._shared.selection(name, numbers)
        return self._selections[key]

    @staticmethod
    def _selected(shared: SharedData, selection: Selection, network: Network) -> tuple[SelectedRows, SelectedTargets]:
        return shared.rows(selection, network.input_shape, network.dtype)


@contextmanager
def naming(what: str) -> Iterator[None]:
    """A context whose errors begin with the name of what they are about."""
    try:
        yield
    except NNBackendError as error:
        error.args = (f"{what}: {error}", *error.args[1:])
        raise
