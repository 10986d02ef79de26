"""The state of a running page: its data, the network that reads drawings, and the network in training."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from nnbackend.backends.registry import available_backends
from nnbackend.datasets import Dataset
from nnbackend.errors import InvalidInputError
from nnbackend.presets import PRESETS
from nnbackend.web.digits import SIDE, check_strokes, draw, normalise
from nnbackend.web.recogniser import Recogniser
from nnbackend.web.trainer import MOST_EPOCHS, Trainer

__all__ = ["Session", "check_images"]


def check_images(data: Dataset) -> Dataset:
    """Return the data set if the page can show it.

    Raises
    ------
    InvalidInputError
        It does not consist of images of 28 x 28 pixels.
    """
    if data.input_shape != SIDE * SIDE or data.x_test.dtype != np.uint8:
        raise InvalidInputError(
            f"the page needs images of {SIDE} x {SIDE} pixels, which {data.name!r} does not have; choose mnist, "
            "fashion-mnist or mnist-5k"
        )
    return data


class Session:
    """Answers the requests of the page. All methods are thread-safe.

    Parameters
    ----------
    recogniser : Recogniser
    load : callable
        Returns the data set; called once, when the data are first needed.
    """

    def __init__(self, recogniser: Recogniser, load: Callable[[], Dataset]) -> None:
        self._recogniser = recogniser
        self._load = load
        self._data: Dataset | None = None
        self._loading = threading.Lock()
        self._backends = [vars(info) for info in available_backends()]
        self.trainer = Trainer(self.data)

    def data(self) -> Dataset:
        """The data set; blocks while another thread loads it.

        Raises
        ------
        DataError, InvalidInputError
            It cannot be loaded, or `check_images` refuses it.
        """
        with self._loading:
            if self._data is None:
                self._data = check_images(self._load())
            return self._data

    def describe(self) -> dict[str, Any]:
        """Describe the network and the choices for training."""
        presets = [
            {"name": name, "learning_rate": recipe.first_rate, "epochs": recipe.epochs, "optimizer": recipe.optimizer}
            for name, recipe in PRESETS.items()
        ]
        return {
            "model": self._recogniser.description,
            "backends": self._backends,
            "presets": presets,
            "most_epochs": MOST_EPOCHS,
        }

    def look_at_strokes(self, request: dict[str, Any]) -> dict[str, Any]:
        """Run the network on a drawing: ``{"strokes": ...}``, see `check_strokes`."""
        return self._recogniser.look(normalise(draw(check_strokes(request.get("strokes")))))

    def look_at_test_image(self, number: int) -> dict[str, Any]:
        """Run the network on a test image; "label" is the true class.

        Parameters
        ----------
        number : int
            Index of the image, modulo the number of test images.
        """
        data = self.data()
        index = number % len(data.x_test)
        answer = self._recogniser.look(data.x_test[index].reshape(SIDE, SIDE))
        return {**answer, "label": data.classes[int(data.y_test[index])]}

    def adopt(self) -> dict[str, Any]:
        """Use the network that was trained last for drawings from now on, and return its description."""
        self._recogniser = Recogniser(*self.trainer.trained())
        return self._recogniser.description
