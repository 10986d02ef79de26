"""The work of every thread and process: train a network and predict with it."""

from __future__ import annotations

import hashlib
import multiprocessing
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import nnbackend as nn
from nnbackend.backends.contract import Backend
from tests.helpers import images

__all__ = ["BIG", "SMALL", "TooSlowError", "digest", "forked", "in_processes", "in_threads", "job"]

#: Units of the hidden layer. A step of the large network is divided among the backend's threads.
SMALL, BIG = 9, 400

#: The message of a thread or process that has finished.
Answers = list[str]


class TooSlowError(AssertionError):
    """A thread or process did not finish in time, because of a deadlock."""


def digest(*arrays: np.ndarray) -> str:
    """A digest of arrays."""
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()[:16]


def job(backend: str | Backend, seed: int, units: int = SMALL, dtype: str = "float32") -> str:
    """Train with dropout and a schedule, stop, continue, predict; returns the digest of all results."""
    features = 12 if units == SMALL else 300
    x, y = images(rows=150, features=features, seed=seed)
    layers = [nn.Dense(units, activation="relu"), nn.Dropout(0.2), nn.Dense(units, activation="tanh"), nn.Dense(4)]
    network = nn.Network(layers, features, backend=backend, seed=seed, dtype=dtype)
    options: dict[str, Any] = {"batch_size": 64, "loss": "softmax_cross_entropy", "verbose": False}
    history = network.fit(x, y, epochs=2, optimizer=nn.Adam(nn.CosineDecay(1e-2, epochs=2)), **options)
    network.fit(x, y, epochs=1, optimizer=nn.SGD(0.05, momentum=0.9), **options)
    metrics = network.evaluate(x, y)
    losses = np.concatenate([*history.step_losses, [metrics["loss"]]])
    return digest(*network.get_weights().values(), network.predict(x), losses)


def in_threads(works: Sequence[Callable[[], str]], seconds: float) -> Answers:
    """The results of jobs that start at the same time.

    Raises
    ------
    TooSlowError
        Not all of them have finished in time.
    """
    start = threading.Barrier(len(works))
    answers: list[Any] = [None] * len(works)

    def run(place: int, work: Callable[[], str]) -> None:
        try:
            start.wait()
            answers[place] = work()
        except BaseException as error:
            answers[place] = f"{type(error).__name__}: {error}"

    threads = [threading.Thread(target=run, args=pair, daemon=True) for pair in enumerate(works)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds)
        if thread.is_alive():
            raise TooSlowError(f"a thread has not finished after {seconds:g} s")
    return answers


def _child(channel: Any, number: int, backend: str, arguments: tuple[Any, ...]) -> None:
    try:
        answer = job(_backend(backend), *arguments)
    except BaseException as error:
        answer = f"{type(error).__name__}: {error}"
    channel.put((number, answer))


def _backend(name: str) -> str | Backend:
    if name != "cupy-emulated":
        return name
    from tests.conftest import make_backend

    return make_backend(name)


def in_processes(method: str, backend: str, arguments: Sequence[tuple[Any, ...]], seconds: float) -> Answers:
    """The result of `job` for each argument in a separate process, started by "fork" or "spawn".

    Raises
    ------
    TooSlowError
        Not all of them have finished in time.
    """
    context: Any = multiprocessing.get_context(method)
    channel = context.SimpleQueue() if method == "fork" else context.Queue()
    processes = [
        context.Process(target=_child, args=(channel, number, backend, one)) for number, one in enumerate(arguments)
    ]
    for process in processes:
        process.start()
    try:
        for process in processes:
            process.join(seconds)
            if process.is_alive():
                raise TooSlowError(f"a process has not finished after {seconds:g} s")
        answers = dict(channel.get() for _ in processes)
        return [answers[number] for number in range(len(arguments))]
    finally:
        for process in processes:
            process.kill()
            process.join()


def forked(backend: str, arguments: Sequence[tuple[Any, ...]], seconds: float) -> Answers:
    """Fork while another thread of this process trains and predicts."""
    stop, errors = threading.Event(), queue.SimpleQueue[BaseException]()

    def busy() -> None:
        try:
            while not stop.is_set():
                job(_backend(backend), 99)
        except BaseException as error:
            errors.put(error)

    thread = threading.Thread(target=busy, daemon=True)
    thread.start()
    try:
        return in_processes("fork", backend, arguments, seconds)
    finally:
        stop.set()
        thread.join(seconds)
        if not errors.empty():
            raise errors.get()
