"""What one running page knows: its data, the network that looks at drawings, and the one that trains."""

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
    """The data set, if it is one that the page can show.

    Raises
    ------
    InvalidInputError
        It is not one of images of 28 x 28 pixels.
    """
    if data.input_shape != SIDE * SIDE or data.x_test.dtype != np.uint8:
        raise InvalidInputError(
            f"the page shows images of {SIDE} x {SIDE} pixels, and {data.name!r} has none; choose mnist, "
            "fashion-mnist or mnist-5k"
        )
    return data


class Session:
    """Methods for what the page can ask; each may be called from any thread.

    Parameters
    ----------
    recogniser : Recogniser
    load : callable
        Returns the data set; called once, when somebody first needs it.
    """

    def __init__(self, recogniser: Recogniser, load: Callable[[], Dataset]) -> None:
        self._recogniser = recogniser
        self._load = load
        self._data: Dataset | None = None
        self._loading = threading.Lock()
        self._backends = [vars(info) for info in available_backends()]
        self.trainer = Trainer(self.data)

    def data(self) -> Dataset:
        """The data set; who asks while it is being read waits for it.

        Raises
        ------
        DataError, InvalidInputError
            It cannot be had, or `check_images` refuses it.
        """
        with self._loading:
            if self._data is None:
                self._data = check_images(self._load())
            return self._data

    def describe(self) -> dict[str, Any]:
        """What the page shows before anything is drawn, and what can be chosen for a training."""
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
        """What the network makes of a drawing: ``{"strokes": ...}``, see `check_strokes`."""
        return self._recogniser.look(normalise(draw(check_strokes(request.get("strokes")))))

    def look_at_test_image(self, number: int) -> dict[str, Any]:
        """What the network makes of a test image, and its true class in "label".

        Parameters
        ----------
        number : int
            Any; the images are counted round and round.
        """
        data = self.data()
        place = number % len(data.x_test)
        answer = self._recogniser.look(data.x_test[place].reshape(SIDE, SIDE))
        return {**answer, "label": data.classes[int(data.y_test[place])]}

    def adopt(self) -> dict[str, Any]:
        """Let the network that was trained last look at drawings from now on; its description."""
        self._recogniser = Recogniser(*self.trainer.trained())
        return self._recogniser.description
