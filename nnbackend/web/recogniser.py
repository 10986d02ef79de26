"""What the page shows of a network that looks at an image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nnbackend.errors import InvalidInputError
from nnbackend.network import Network
from nnbackend.web.digits import SIDE
from nnbackend.web.stages import Stages

__all__ = ["Recogniser"]


class Recogniser:
    """A network, the names of its classes, and where it came from.

    Parameters
    ----------
    network : Network
        It is not used after this: training it further does not show.
    classes : sequence of str
    source : str
        In words, for people to read.

    Raises
    ------
    InvalidInputError
        The network is not one for images of 28 x 28 pixels and as many classes.
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
                f"the network must have one output for each of two classes or more, received {outputs} for "
                f"{len(classes)} classes"
            )
        self._shape = network.input_shape
        self._stages = Stages(network)
        probabilities = network.loss is not None and network.loss.output_activation != "identity"
        sizes = [str(inputs), *(name.split()[0] for name in self._stages.names), str(outputs)]
        #: What the page says of the network.
        self.description: dict[str, Any] = {
            "network": "-".join(sizes),
            "parameters": network.parameter_count,
            "backend": f"{network.backend.name} on {network.backend.device}",
            "source": source,
            "classes": list(classes),
            "hidden": self._stages.names,
            "probabilities": probabilities,
        }
        # The first look compiles what is to be compiled; later ones must not wait for that.
        self.look(np.zeros((SIDE, SIDE), np.uint8))

    def look(self, image: npt.NDArray[np.uint8]) -> dict[str, Any]:
        """What the network makes of an image, as plain JSON.

        Parameters
        ----------
        image : (28, 28) uint8

        Returns
        -------
        dict
            "image": its pixels, row by row; "outputs": one number a class, or None if the image is black, for then
            there is nothing to recognise; "hidden": a list of activations for every hidden layer.
        """
        pixels = image.reshape(1, *self._shape)
        hidden, outputs = self._stages(pixels)
        return {
            "image": image.ravel().tolist(),
            "outputs": _plain(outputs) if image.any() else None,
            "hidden": [_plain(layer) for layer in hidden],
        }


def _plain(values: npt.NDArray[Any]) -> list[float | None]:
    """Four decimals tell as much as cells and bars can show; JSON has no NaN."""
    return [round(float(value), 4) if math.isfinite(value) else None for value in values.ravel()]
