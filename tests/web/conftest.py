"""A page with small networks and synthetic images, and a network trained on real digits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

import nnbackend as nn
from nnbackend.datasets import Dataset
from nnbackend.web.app import make_app
from nnbackend.web.recogniser import Recogniser
from nnbackend.web.session import Session
from tests.helpers import images

CLASSES = tuple("abcdefghij")
PORT = 8123


def synthetic(rows: int = 300) -> Dataset:
    """Images of MNIST's size whose pixel values depend on their class."""
    x, y = images(rows, features=784, classes=10)
    cut = rows * 2 // 3
    return Dataset("synthetic", x[:cut], y[:cut], x[cut:], y[cut:], CLASSES, 784, "a test")


@pytest.fixture(scope="session")
def digits_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a network that recognises at least nine of ten handwritten digits."""
    data = nn.datasets.load("mnist-5k")
    network = nn.Network([nn.Dense(60, activation="relu"), nn.Dense(30, activation="relu"), nn.Dense(10)], 784, "numpy")
    network.fit(data.x_train, data.y_train, epochs=10, batch_size=64, loss="softmax_cross_entropy", verbose=False)
    path = tmp_path_factory.mktemp("model") / "digits.safetensors"
    network.save(path)
    return path


@pytest.fixture(scope="session")
def convolutions_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a convolutional network that recognises handwritten digits."""
    data = nn.datasets.load("mnist-5k")
    convolutions = [nn.Conv2D(6, 5, activation="relu"), nn.MaxPool2D(2), nn.Conv2D(8, 5), nn.Activation("relu")]
    layers = [nn.Reshape((28, 28, 1)), *convolutions, nn.MaxPool2D(2), nn.Flatten(), nn.Dense(10)]
    network = nn.Network(layers, 784, "numpy")
    optimizer = nn.Adam(nn.CosineDecay(5e-3, epochs=3))
    network.fit(
        data.x_train, data.y_train, epochs=3, batch_size=50, loss="softmax_cross_entropy", optimizer=optimizer,
        verbose=False,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("model") / "convolutions.safetensors"
    network.save(path)
    return path


@pytest.fixture
def network() -> nn.Network:
    layers = [nn.Dense(12, activation="relu"), nn.Dropout(0.5), nn.Dense(7, activation="tanh"), nn.Dense(10)]
    network = nn.Network(layers, 784, backend="numpy", seed=3, input_scale=1 / 255)
    network.set_loss("softmax_cross_entropy")
    return network


@pytest.fixture
def session(network: nn.Network) -> Iterator[Session]:
    session = Session(Recogniser(network, CLASSES, "a test"), synthetic)
    yield session
    session.trainer.close()


class Page:
    """A client that sends requests as the page does; setting `closed` ends the server's streams."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.closed = False
        self.client = TestClient(make_app(session, PORT, lambda: self.closed), base_url=f"http://127.0.0.1:{PORT}")

    def get(self, path: str, **options: Any) -> Any:
        return self.client.get(path, **options)

    def post(self, path: str, body: Any) -> Any:
        return self.client.post(path, json=body)


@pytest.fixture
def page(session: Session) -> Page:
    return Page(session)


def wait_until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Poll until the condition holds; fail after the given time."""
    import time

    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def drawing() -> np.ndarray:
    """A digit off-centre on a large black image."""
    field = np.zeros((300, 400), np.uint8)
    field[40:200, 250:270] = 255
    field[180:200, 250:330] = 255
    return field
