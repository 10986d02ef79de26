"""One contender's process: reads a request a line, does it, answers in a line. All JSON.

    python -m benchmarks.peers.worker NAME THREADS ROWS

Between requests it waits on the pipe and takes no time from anybody: threads that spin for a while after their work
has ended are waited for before it answers.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import IO, Any

# Nothing heavy here: what is imported before the cores are chosen starts its threads on all of them.
from benchmarks.peers.cores import bind

__all__ = ["main"]

#: A process that used less processor time than this in a nap is quiet; one that is not by then never will be.
_NAP_SECONDS = 0.005
_QUIET_SHARE = 0.05
_PATIENCE_SECONDS = 1.0


def main() -> None:
    """Answer until the parent hangs up."""
    name, threads, rows = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    bind(threads)
    answers = _private_output()
    desk = _Desk(name, threads, rows)
    _say(answers, desk.hello)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = getattr(desk, request.pop("do"))(**request)
        except Exception as error:  # The benchmark goes on without it, and says why.
            answer = {"error": f"{type(error).__name__}: {error}"}
        _say(answers, answer | {"quiet": _wait_until_quiet()})


class _Desk:
    """What can be requested."""

    def __init__(self, name: str, threads: int, rows: int) -> None:
        from benchmarks.peers import data
        from benchmarks.peers.entries import find

        self._contender = find(name).make(threads)
        x, y, source = data.images(rows)
        self._contender.load(x, y)
        self._training: Any = None
        self.hello = {"data": source, "blas": _blas()}

    def prepare(self, work: dict[str, Any], check: int) -> dict[str, Any]:
        """Build a net, train it for `check` steps on prescribed batches, and warm up."""
        from benchmarks.peers.data import batches, initial_weights
        from benchmarks.peers.works import Work

        self.drop()
        self._work = Work.from_dict(work)
        begin = time.perf_counter()
        self._training = self._contender.build(self._work, initial_weights(self._work.sizes))
        losses = self._training.losses(batches(self._work, check))
        self.run()
        seconds = time.perf_counter() - begin
        self.run()
        return {"losses": losses, "warm_up": seconds}

    def run(self) -> dict[str, Any]:
        """A timed run. The order is drawn for a whole epoch, and costs as much of that as is trained."""
        begin = time.perf_counter()
        self._training.shuffle()
        middle = time.perf_counter()
        self._training.run(self._work.steps)
        end = time.perf_counter()
        return {"seconds": (middle - begin) * self._work.epoch_share + end - middle}

    def drop(self) -> dict[str, Any]:
        """Forget the net."""
        self._training = None
        return {}


def _private_output() -> IO[str]:
    """Where answers go. Whatever a library prints goes where its errors go, and is no answer."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return answers


def _say(answers: IO[str], answer: dict[str, Any]) -> None:
    print(json.dumps(answer), file=answers, flush=True)


def _wait_until_quiet() -> bool:
    """Sleep until no thread of this process is at work; False if some never rest."""
    deadline = time.perf_counter() + _PATIENCE_SECONDS
    while time.perf_counter() < deadline:
        begin, used = time.perf_counter(), time.process_time()
        time.sleep(_NAP_SECONDS)
        if time.process_time() - used < _QUIET_SHARE * (time.perf_counter() - begin):
            return True
    return False


def _blas() -> list[str]:
    """The BLAS libraries that are loaded, and the kernels they chose."""
    import threadpoolctl

    libraries = [entry for entry in threadpoolctl.threadpool_info() if entry["user_api"] == "blas"]
    return [f"{entry['internal_api']} {entry['version']}, {entry.get('architecture', '')}" for entry in libraries]


if __name__ == "__main__":
    main()
