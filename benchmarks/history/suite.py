"""Five benchmarks that run with every version of the package since it has a Numba backend.

They import only names that have existed since then, and nothing else of this repository: asv runs them as a suite, and
:mod:`benchmarks.history.sitting` runs this file as a script, with the package of another commit.

    python suite.py '[["Training.track_seconds_per_step", ["numba", "784-40-10"]], ...]' 0.4

spends 0.4 s on each measurement, and prints the results, with null for a backend that cannot run on this machine.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any, NamedTuple

import numpy as np

import nnbackend as nn
from nnbackend.errors import BackendUnavailableError

__all__ = ["BACKENDS", "NETS", "ROWS", "SUITES", "FirstRun", "Import", "Predicting", "Training", "measure"]


class Net(NamedTuple):
    """A network of dense layers for images of 784 pixels and ten classes."""

    hidden: tuple[int, ...]
    activation: str
    batch_size: int
    optimizer: str
    #: Steps of an epoch, so that an epoch takes a fraction of a second.
    steps: int


#: The same on every machine, so that results of different machines share their axes.
BACKENDS = ("numpy", "numba", "cupy")

#: The measured networks: small, so that overhead matters; medium; and limited by memory. They do not change when a
#: preset of the package does.
NETS = {
    "784-40-10": Net((40,), "sigmoid", 100, "sgd", 200),
    "784-200-80-10": Net((200, 80), "relu", 256, "sgd", 40),
    "784-500-1000-300-10": Net((500, 1000, 300), "relu", 100, "adam", 10),
}
_MEDIUM = "784-200-80-10"
_LOSS = "softmax_cross_entropy"
_PIXELS, _CLASSES = 784, 10

#: Rows of a prediction.
ROWS = ("1", "1000")

#: A measurement is the median over at least this many epochs or calls, and over this many seconds.
_FEWEST = 5
_seconds = 0.4

#: New processes whose import is timed.
_IMPORTS = 5

_IMPORT = """
import time, numpy
begin = time.perf_counter()
import nnbackend
print(time.perf_counter() - begin)
"""

_FIRST_RUN = """
import time, numpy
draw = numpy.random.default_rng(0)
x = draw.integers(0, 256, (60_000, 784), dtype=numpy.uint8)
y = draw.integers(0, 10, 60_000)
begin = time.perf_counter()
import nnbackend as nn
layers = [nn.Dense(200, activation="relu"), nn.Dense(80, activation="relu"), nn.Dense(10)]
network = nn.Network(layers, 784, backend="{backend}", seed=0, input_scale=1 / 255)
network.fit(x, y, epochs=1, batch_size=256, loss="softmax_cross_entropy", optimizer="adam", verbose=False)
print(time.perf_counter() - begin)
"""


class _EpochTimes(nn.Callback):
    """The times at which epochs end; ends the training when they suffice."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_epoch_end(self, network: Any, epoch: int, metrics: Any) -> str | None:
        self.ends.append(time.perf_counter())
        # The first interval is a warm-up: the first epoch compiled the step, and the second brings clocks to speed.
        long_enough = len(self.ends) > 1 and self.ends[-1] - self.ends[1] > _seconds
        return "measured" if long_enough and len(self.ends) > _FEWEST + 1 else None

    def seconds(self) -> float:
        """The median time of an epoch."""
        return statistics.median(later - earlier for earlier, later in zip(self.ends[1:-1], self.ends[2:], strict=True))


def _network(backend: str, net: str) -> Any:
    """A network, or NotImplementedError, which asv shows as n/a, if the backend cannot run here."""
    spec = NETS[net]
    layers = [nn.Dense(units, activation=spec.activation) for units in spec.hidden] + [nn.Dense(_CLASSES)]
    try:
        return nn.Network(layers, _PIXELS, backend=backend, seed=0, input_scale=1 / 255)
    except BackendUnavailableError as error:
        raise NotImplementedError(str(error)) from error
    except ModuleNotFoundError as error:
        # A version that is older than the backend.
        if error.name != f"nnbackend.backends.{backend}":
            raise
        raise NotImplementedError(str(error)) from error


def _images(rows: int) -> tuple[Any, Any]:
    """Rows of random bytes and random labels, which no network learns, so that gradients keep their size."""
    draw = np.random.default_rng(0)
    return draw.integers(0, 256, (rows, _PIXELS), dtype=np.uint8), draw.integers(0, _CLASSES, rows)


def _seconds_in_process(code: str) -> float:
    """What a new process prints. -P: the working directory must not shadow the measured package."""
    done = subprocess.run([sys.executable, "-P", "-c", code], check=True, stdout=subprocess.PIPE, text=True)
    return float(done.stdout)


def _rounded(value: float) -> float:
    """Four significant digits, because of the noise."""
    return float(f"{value:.4g}")


class Training:
    """A training step, as `fit` runs it: an epoch's time divided by its number of steps."""

    params = (BACKENDS, tuple(NETS))
    param_names = ("backend", "net")
    version = "1"
    timeout = 300

    def setup(self, backend: str, net: str) -> None:
        self.network = _network(backend, net)
        self._seconds: float | None = None

    def _seconds_per_step(self, net: str) -> float:
        """Both benchmarks are of one measurement, if they run in one process."""
        if self._seconds is None:
            spec, times = NETS[net], _EpochTimes()
            x, y = _images(spec.batch_size * spec.steps)
            options = {"loss": _LOSS, "optimizer": spec.optimizer, "batch_size": spec.batch_size, "verbose": False}
            self.network.fit(x, y, epochs=10_000, callbacks=[times], **options)
            self._seconds = times.seconds() / spec.steps
        return self._seconds

    def track_seconds_per_step(self, backend: str, net: str) -> float:
        return _rounded(self._seconds_per_step(net))

    def track_samples_per_second(self, backend: str, net: str) -> float:
        return _rounded(NETS[net].batch_size / self._seconds_per_step(net))

    track_seconds_per_step.unit = "seconds"
    track_seconds_per_step.pretty_name = "training step, as fit runs it"
    track_samples_per_second.unit = "samples/s"
    track_samples_per_second.pretty_name = "training throughput of fit (higher is better)"


class Predicting:
    """`predict` of 784-200-80-10, from bytes on the host to probabilities on the host."""

    params = (BACKENDS, ROWS)
    param_names = ("backend", "rows")
    version = "1"
    timeout = 300

    def setup(self, backend: str, rows: str) -> None:
        self.network = _network(backend, _MEDIUM)
        self.network.set_loss(_LOSS)
        self.x, _ = _images(int(rows))

    def track_seconds(self, backend: str, rows: str) -> float:
        times: list[float] = []
        self.network.predict(self.x)  # compiles
        start = time.perf_counter()
        while len(times) < _FEWEST or time.perf_counter() - start < _seconds:
            begin = time.perf_counter()
            self.network.predict(self.x)
            times.append(time.perf_counter() - begin)
        return _rounded(statistics.median(times))

    track_seconds.unit = "seconds"
    track_seconds.pretty_name = "prediction of 784-200-80-10"


class FirstRun:
    """From `import nnbackend` to the end of the first epoch of 784-200-80-10 with Adam, with nothing compiled before.

    NumPy's import and the start of the interpreter are not included.
    """

    params = (BACKENDS,)
    param_names = ("backend",)
    version = "1"
    timeout = 300

    def setup(self, backend: str) -> None:
        _network(backend, _MEDIUM)

    def track_seconds(self, backend: str) -> float:
        with tempfile.TemporaryDirectory() as empty:
            folders = {"NUMBA_CACHE_DIR": empty, "XDG_CACHE_HOME": empty, "CUPY_CACHE_DIR": empty}
            before = {name: os.environ.get(name) for name in folders}
            os.environ.update(folders)
            try:
                return _rounded(_seconds_in_process(_FIRST_RUN.format(backend=backend)))
            finally:
                for name, value in before.items():
                    if value is None:
                        del os.environ[name]
                    else:
                        os.environ[name] = value

    track_seconds.unit = "seconds"
    track_seconds.pretty_name = "first run: import, compile, one epoch"


class Import:
    """The import of the package in a process that has imported NumPy."""

    version = "1"

    def track_seconds(self) -> float:
        _seconds_in_process(_IMPORT)  # writes the bytecode
        return _rounded(statistics.median(_seconds_in_process(_IMPORT) for _ in range(_IMPORTS)))

    track_seconds.unit = "seconds"
    track_seconds.pretty_name = "import nnbackend, beyond NumPy's time"


SUITES = (Training, Predicting, FirstRun, Import)


def measure(requests: list[tuple[str, list[str]]]) -> list[float | None]:
    """Results of benchmarks, given by name and parameters; None where the backend cannot run."""
    suites = {suite.__name__: suite for suite in SUITES}
    prepared: dict[tuple[str, ...], Any] = {}
    results: list[float | None] = []
    for name, parameters in requests:
        suite, method = name.split(".")
        key = (suite, *parameters)
        try:
            if key not in prepared:
                prepared[key] = suites[suite]()
                if hasattr(suites[suite], "setup"):
                    prepared[key].setup(*parameters)
            results.append(getattr(prepared[key], method)(*parameters))
        except NotImplementedError:
            prepared.pop(key, None)
            results.append(None)
    return results


if __name__ == "__main__":
    _seconds = float(sys.argv[2])
    print(json.dumps({"package": nn.__file__, "results": measure(json.loads(sys.argv[1]))}))
