"""Run a network on an image and return what the page shows of it."""

from __future__ import annotations

import base64
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

#: Most feature maps of a layer, and channels of a filter, that the page shows.
_MOST = 40


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
        probabilities = network.loss is not None and network.loss.takes_probabilities
        sizes = [str(inputs), *(name.split()[0] for name in self._stages.names), str(outputs)]
        #: The page's description of the network.
        self.description: dict[str, Any] = {
            "network": "-".join(sizes),
            "parameters": network.parameter_count,
            "backend": f"{network.backend.name} on {network.backend.device}",
            "source": source,
            "classes": list(classes),
            "hidden": self._stages.names,
            "maps": [
                None if len(shape) == 1 else {"shape": list(shape), "shown": min(shape[2], _MOST), **_kernels(kernels)}
                for shape, kernels in zip(self._stages.shapes, self._stages.kernels, strict=True)
            ],
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
            a list of activations for each hidden layer, or for a convolution its first `_MOST` feature maps, see
            `_levels`.
        """
        pixels = image.reshape(1, *self._shape).view(Images)
        hidden, outputs = self._stages(
            pixels if self._trained_with is None else self._trained_with.in_same_units(pixels)
        )
        return {
            "image": image.ravel().tolist(),
            "outputs": _plain(outputs) if image.any() else None,
            "hidden": [
                _levels(layer[0, :, :, :_MOST].transpose(2, 0, 1)) if layer.ndim == 4 else _plain(layer)
                for layer in hidden
            ],
        }


def _kernels(weight: npt.NDArray[Any] | None) -> dict[str, Any]:
    """The kernels of the first filters for the first channels of their input: "shape", (filters, channels, height,
    width), and "levels"; "of", the numbers of all filters and channels."""
    if weight is None:
        return {"kernels": None}
    shown = weight[:, :, :_MOST, :_MOST].transpose(3, 2, 0, 1)
    return {"kernels": {"shape": list(shown.shape), "of": weight.shape[:1:-1], "levels": _levels(shown)}}


def _levels(values: npt.NDArray[Any]) -> str:
    """Values as shares of the largest magnitude, in 127ths: bytes with a sign, in base64. NaN is 0."""
    finite = np.nan_to_num(values.astype(np.float64), posinf=np.inf, neginf=-np.inf)
    most = np.abs(finite[np.isfinite(finite)]).max(initial=0)
    shares = np.clip(finite / most, -1, 1) if most else np.zeros_like(finite)
    return base64.b64encode(np.round(127 * shares).astype(np.int8).tobytes()).decode()


def _plain(values: npt.NDArray[Any]) -> list[float | None]:
    """Values as JSON: four decimals, which suffice for the page, and None for NaN and infinity."""
    return [round(float(value), 4) if math.isfinite(value) else None for value in values.ravel()]
