"""Start workers and communicate with them."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from typing import Any

from benchmarks.peers.cores import environment
from benchmarks.peers.entries import REFERENCES, Entry

__all__ = ["Worker", "WorkerError", "start_workers"]


class WorkerError(Exception):
    """A contender failed."""


class Worker:
    """A contender in its own process; see `worker.py`.

    Parameters
    ----------
    name : str
    threads : int
    rows : int
        Number of images.
    gpu : bool, optional
        Whether a GPU is visible to it.

    Attributes
    ----------
    hello : dict
        Its description: "data" and "blas".
    restless : bool
        Whether it ever continued to use the processor after its work was done.

    Raises
    ------
    WorkerError
        It did not start.
    """

    def __init__(self, name: str, threads: int, rows: int, gpu: bool = False) -> None:
        self.name = name
        self.restless = False
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.peers.worker", name, str(threads), str(rows)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(threads, gpu),
            text=True,
        )
        try:
            self.hello = self._answer()
        except WorkerError:
            self.close()
            raise

    def ask(self, what: str, **arguments: Any) -> dict[str, Any]:
        """Send a request and wait for the answer.

        Raises
        ------
        WorkerError
        """
        try:
            print(json.dumps({"do": what, **arguments}), file=self._process.stdin, flush=True)
        except BrokenPipeError:
            raise WorkerError(self._obituary()) from None
        answer = self._answer()
        self.restless |= not answer.pop("quiet")
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer

    def close(self) -> None:
        """End the process."""
        # Data written to a terminated process cannot be delivered.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.stdout.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if not line:
            raise WorkerError(self._obituary())
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _obituary(self) -> str:
        return f"its process ended with code {self._process.wait()}"


def start_workers(
    entries: Iterable[Entry],
    threads: int,
    rows: int,
    stack: contextlib.ExitStack,
    failed: dict[str, str],
    say: Callable[[str], None],
) -> dict[str, Worker]:
    """Start workers that end with the stack, and return them by name. Failures are recorded in `failed`, by label.

    Raises
    ------
    WorkerError
        One of `REFERENCES` did not start, so that losses cannot be compared.
    """
    workers: dict[str, Worker] = {}
    for entry in entries:
        say(f"starting {entry.name}")
        try:
            worker = Worker(entry.name, threads, rows, entry.on_gpu)
        except WorkerError as error:
            if entry in REFERENCES:
                raise
            failed[entry.label] = str(error)
            continue
        stack.callback(worker.close)
        workers[entry.name] = worker
    return workers
