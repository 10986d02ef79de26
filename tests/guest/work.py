"""What a program does with this package, and the state of the process that it must find unchanged afterwards."""

from __future__ import annotations

import decimal
import faulthandler
import gc
import hashlib
import locale
import logging
import os
import random
import signal
import sys
import threading
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import nnbackend as nn

__all__ = ["data", "state_of_process", "work"]


def data() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Rows on which floating-point operations underflow, and labels. (A loss that is infinite would end the run.)"""
    generator = np.random.default_rng(3)
    x = generator.normal(size=(48, 5)) * 300
    x[::7] = 1e-300  # underflows in float32
    return x, generator.integers(0, 3, 48)


def network(backend: Any) -> nn.Network:
    layers = [
        nn.Dense(7, activation="gelu", l2=1e-4),
        nn.Dropout(0.2),
        nn.Dense(6, activation="silu"),
        nn.Dense(3, l1=1e-40),
    ]
    return nn.Network(layers, 5, backend=backend, seed=1)


def work(backend: Any, folder: Path | None, verbose: bool | None = True) -> str:
    """Train, predict, save and load; returns a digest of all results.

    Parameters
    ----------
    backend : str or Backend
    folder : Path or None
        Where to save. None: do not save.
    verbose : bool, optional
    """
    x, y = data()
    net = network(backend)
    calls = []
    history = net.fit(
        x,
        y,
        epochs=2,
        batch_size=20,
        loss="softmax_cross_entropy",
        optimizer=nn.Adam(0.01),
        validation_data=(x[:10], y[:10]),
        callbacks=[_Calls(calls)],
        verbose=verbose,
    )
    assert calls == ["begin", 1, 2, "end"]
    results = [np.array(history["loss"] + history["val_loss"]), *history.step_losses]
    results += [net.predict(x), net.predict_classes(x), np.array(list(net.evaluate(x, y).values()))]
    results.append(np.array(list(net.train_on_batch(x[:9], y[:9]).values())))
    if folder is not None:
        path = folder / "network.safetensors"
        net.save(path)
        loaded = nn.Network.load(path, backend)
        results += [loaded.predict(x), *loaded.get_weights().values()]
        path.unlink()
    else:
        results += [net.predict(x), *net.get_weights().values()]
    return hashlib.sha256(b"".join(np.ascontiguousarray(each).tobytes() for each in results)).hexdigest()


class _Calls(nn.Callback):
    """A user's callback, which must find NumPy's error state as the program set it."""

    def __init__(self, calls: list[Any]) -> None:
        self._calls, self._state = calls, np.geterr()

    def _note(self, what: Any) -> None:
        assert np.geterr() == self._state
        self._calls.append(what)

    def on_train_begin(self, network: nn.Network, epochs: int) -> None:
        self._note("begin")

    def on_epoch_end(self, network: nn.Network, epoch: int, metrics: Any) -> None:
        self._note(epoch)

    def on_train_end(self, network: nn.Network, history: nn.History) -> None:
        self._note("end")


def _signal_handlers() -> dict[str, Any]:
    return {each.name: signal.getsignal(each) for each in signal.valid_signals() if isinstance(each, signal.Signals)}


def _loggers() -> list[Any]:
    loggers = [logging.getLogger(), logging.getLogger("nnbackend")]
    return [(each.level, list(each.handlers), each.propagate, each.disabled) for each in loggers]


def _blas_threads() -> list[tuple[str, int]]:
    from threadpoolctl import threadpool_info

    return [(library["filepath"], library["num_threads"]) for library in threadpool_info()]


def _open_files() -> list[str]:
    """What the file descriptors of this process refer to; empty where the system does not say."""
    folder = Path("/proc/self/fd")
    if not folder.exists():
        return []
    found = []
    for name in os.listdir(folder):
        try:
            found.append(os.readlink(folder / name))
        except OSError:
            continue  # the descriptor of the folder itself
    return sorted(found)


def _folder() -> str | None:
    try:
        return os.getcwd()
    except OSError:
        return None


#: Everything that all parts of a program share.
_PARTS: dict[str, Callable[[], Any]] = {
    "streams": lambda: (sys.stdin, sys.stdout, sys.stderr),
    "NumPy's error state": lambda: (np.geterr(), np.geterrcall(), np.getbufsize()),
    "NumPy's print options": np.get_printoptions,
    "NumPy's random state": lambda: str(np.random.get_state()),  # noqa: NPY002
    "random state": random.getstate,
    "warning filters": lambda: (list(warnings.filters), warnings.showwarning),
    "signal handlers": _signal_handlers,
    "loggers": _loggers,
    "BLAS threads": _blas_threads,
    "open files": _open_files,
    "folder": _folder,
    "collector": lambda: (gc.isenabled(), gc.get_threshold(), gc.get_debug(), list(gc.callbacks)),
    "locale": lambda: locale.setlocale(locale.LC_ALL),
    "decimal context": lambda: str(decimal.getcontext()),
    "interpreter": lambda: (sys.getrecursionlimit(), sys.getswitchinterval(), sys.argv, list(sys.path)),
    "hooks": lambda: (sys.excepthook, threading.excepthook, sys.unraisablehook, sys.gettrace(), sys.getprofile()),
    "diagnosis": lambda: (faulthandler.is_enabled(), tracemalloc.is_tracing()),
}


def state_of_process() -> dict[str, Any]:
    """Everything that this package shares with the rest of a program, by name."""
    # threadpoolctl sets one when it is imported, which protects the process from a crash of Intel's OpenMP.
    names = os.environ.keys() - {"KMP_DUPLICATE_LIB_OK"}
    variables = {f"variable {name}": os.environ[name] for name in names}
    return {**variables, **{name: read() for name, read in _PARTS.items()}}
