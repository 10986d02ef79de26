"""Run a network on an image and return what the page shows of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nnbackend.data.scale import Images
from nnbackend.errors import InvalidInputError
from nnbackend.network import Network
from nnbackend.web.digits import SIDE
from nnbackend.web.stages import Stages

__all__ = ["Recogniser"]


class Recogniser:
    """A network with the names of its classes and its origin.

    Parameters
    ----------
    network : Network
        It is copied; training it further has no effect here.
    classes : sequence of str
    source : str
        Where the network came from, for people to read.

    Raises
    ------
    InvalidInputError
        The network does not take images of 28 x 28 pixels, or does not have one output per class.
    """

    def __init__(self, network: Network, classes: Sequence[str], source: str) -> None:
        inputs, outputs = math.prod(network.input_shape), math.prod(network.output_shape)
        if inputs != SIDE * SIDE:
            raise InvalidInputError(
                f"drawings become images of {SIDE} x {SIDE} pixels, but the network takes {inputs} numbers; "
                "choose one that was trained on mnist, fashion-mnist or mnist-5k"
            )
        if outputs != len(classes) or outputs < 2:
            raise InvalidInputError(
                f"the network must have one output per class and at least two classes, received {outputs} outputs "
                f"and {len(classes)} classes"
            )
        self._shape = network.input_shape
        self._stages = Stages(network)
        self._trained_with = network.trained_with
        probabilities = network.loss is not None and network.loss.output_activation != "identity"
        sizes = [str(inputs), *(name.split()[0] for name in self._stages.names), str(outputs)]
        #: The page's description of the network.
        self.description: dict[str, Any] = {
            "network": "-".join(sizes),
            "parameters": network.parameter_count,
            "backend": f"{network.backend.name} on {network.backend.device}",
            "source": source,
            "classes": list(classes),
            "hidden": self._stages.names,
            "probabilities": probabilities,
        }
        # Compile now, so that the first drawing does not have to wait for it.
        self.look(np.zeros((SIDE, SIDE), np.uint8))

    def look(self, image: npt.NDArray[np.uint8]) -> dict[str, Any]:
        """Run the network on an image; the result is plain JSON.

        Parameters
        ----------
        image : (28, 28) uint8

        Returns
        -------
        dict
            "image": the pixels, row by row; "outputs": one number per class, or None if the image is black; "hidden":
            a list of activations for each hidden layer.
        """
        pixels = image.reshape(1, *self._shape).view(Images)
        hidden, outputs = self._stages(
            pixels if self._trained_with is None else self._trained_with.in_same_units(pixels)
        )
        return {
            "image": image.ravel().tolist(),
            "outputs": _plain(outputs) if image.any() else None,
            "hidden": [_plain(layer) for layer in hidden],
        }


def _plain(values: npt.NDArray[Any]) -> list[float | None]:
    """Values as JSON: four decimals, which suffice for the page, and None for NaN and infinity."""
    return [round(float(value), 4) if math.isfinite(value) else None for value in values.ravel()]
