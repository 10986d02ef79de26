"""Dry runs of the GPU benchmark: the same contenders on the CPU, to test it without a GPU."""

from __future__ import annotations

import os

__all__ = ["is_dry", "run_dry"]

_VARIABLE = "NNBACKEND_BENCHMARK_DRY_RUN"


def run_dry() -> None:
    """Switch dry runs on, also for processes that this one starts."""
    os.environ[_VARIABLE] = "1"


def is_dry() -> bool:
    """Whether contenders must use the CPU."""
    return os.environ.get(_VARIABLE) == "1"
