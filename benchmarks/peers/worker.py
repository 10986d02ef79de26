"""The process of a contender: reads requests and writes answers, one line of JSON each.

    python -m benchmarks.peers.worker NAME THREADS ROWS

Between requests it blocks on the pipe and uses no processor time. Before it answers, it waits for threads that spin for
a while after their work is done.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import IO, Any

# No heavy imports here: libraries imported before the cores are chosen would start threads on all of them.
from benchmarks.peers.cores import bind

__all__ = ["ANSWERED", "main"]

#: A process is idle if it uses less processor time than this while it sleeps; and the time limit for becoming idle.
_NAP_SECONDS = 0.005
_QUIET_SHARE = 0.05
_PATIENCE_SECONDS = 1.0

#: Predictions are repeated for at least this time; and the most images whose logits are answered.
_PREDICTING_SECONDS = 0.01
ANSWERED = 100


def main() -> None:
    """Answer requests until the parent closes the pipe."""
    name, threads, rows = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    bind(threads)
    answers = _private_output()
    desk = _Desk(name, threads, rows)
    _say(answers, desk.hello)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = getattr(desk, request.pop("do"))(**request)
        except Exception as error:  # The benchmark continues without this contender.
            answer = {"error": f"{type(error).__name__}: {error}"}
        _say(answers, answer | {"quiet": _wait_until_quiet()})


class _Desk:
    """The requests."""

    def __init__(self, name: str, threads: int, rows: int) -> None:
        from benchmarks.peers import data
        from benchmarks.peers.entries import find

        self._contender = find(name).make(threads)
        x, y, source = data.images(rows)
        self._contender.load(x, y)
        self._training: Any = None
        self._predict: Any = None
        self._repeats = 1
        self.hello = {"data": source, "blas": _blas()}

    def prepare(self, work: dict[str, Any], check: int) -> dict[str, Any]:
        """Build a network, train it for `check` steps on given batches, and warm up."""
        from benchmarks.peers.data import batches, initial_weights
        from benchmarks.peers.works import Work

        self.drop()
        self._work = Work.from_dict(work)
        begin = time.perf_counter()
        self._training = self._contender.build(self._work, initial_weights(self._work))
        losses = self._training.losses(batches(self._work, check))
        self.run()
        seconds = time.perf_counter() - begin
        self.run()
        return {"losses": losses, "warm_up": seconds}

    def run(self) -> dict[str, Any]:
        """A timed run. The order is drawn for a whole epoch; the share of the epoch that is trained is counted."""
        begin = time.perf_counter()
        self._training.shuffle()
        middle = time.perf_counter()
        self._training.run(self._work.steps)
        end = time.perf_counter()
        return {"seconds": (middle - begin) * self._work.epoch_share + end - middle}

    def prepare_predictions(self, work: dict[str, Any], rows: int) -> dict[str, Any]:
        """Build a network and warm up; returns the logits of the first images."""
        from benchmarks.peers.data import initial_weights
        from benchmarks.peers.works import Work

        self.drop()
        chosen = Work.from_dict(work)
        self._predict = self._contender.predictor(chosen, initial_weights(chosen))
        for _ in range(3):
            logits = self._predict(rows)
        self._repeats = 1
        while (seconds := self.predict(rows)["seconds"]) * self._repeats < _PREDICTING_SECONDS:
            self._repeats = max(2 * self._repeats, int(_PREDICTING_SECONDS / seconds))
        return {"logits": logits[:ANSWERED].tolist()}

    def predict(self, rows: int) -> dict[str, Any]:
        """The time of a prediction."""
        begin = time.perf_counter()
        for _ in range(self._repeats):
            self._predict(rows)
        return {"seconds": (time.perf_counter() - begin) / self._repeats}

    def drop(self) -> dict[str, Any]:
        """Delete the network."""
        self._training = self._predict = None
        return {}


def _private_output() -> IO[str]:
    """The stream for answers. Output that a library prints is redirected to stderr."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return answers


def _say(answers: IO[str], answer: dict[str, Any]) -> None:
    print(json.dumps(answer), file=answers, flush=True)


def _wait_until_quiet() -> bool:
    """Sleep until all threads of this process are idle; False if they do not become idle."""
    deadline = time.perf_counter() + _PATIENCE_SECONDS
    while time.perf_counter() < deadline:
        begin, used = time.perf_counter(), time.process_time()
        time.sleep(_NAP_SECONDS)
        if time.process_time() - used < _QUIET_SHARE * (time.perf_counter() - begin):
            return True
    return False


def _blas() -> list[str]:
    """The loaded BLAS libraries and their kernels."""
    import threadpoolctl

    libraries = [entry for entry in threadpoolctl.threadpool_info() if entry["user_api"] == "blas"]
    return [f"{entry['internal_api']} {entry['version']}, {entry.get('architecture', '')}" for entry in libraries]


if __name__ == "__main__":
    main()
