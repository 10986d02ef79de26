"""Choose the cores of a process and the number of threads of libraries. Imports nothing that starts threads."""

from __future__ import annotations

import importlib.util
import os

__all__ = ["bind", "environment", "usable"]


def usable() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def bind(threads: int) -> None:
    """Bind this process to the first of its cores, if the system supports it; XLA respects only this."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def environment(threads: int, gpu: bool = False) -> dict[str, str]:
    """Environment variables of a process with this number of threads, and with or without a GPU."""
    counts = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "NUMBA_NUM_THREADS")
    keras = "jax" if importlib.util.find_spec("jax") else "torch"
    devices = {} if gpu else {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    return {
        "KERAS_BACKEND": keras,
        "TF_CPP_MIN_LOG_LEVEL": "3",
        **os.environ,
        **dict.fromkeys(counts, str(threads)),
        **devices,
    }
