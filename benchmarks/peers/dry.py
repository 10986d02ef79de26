"""Dry runs of the GPU benchmark: the same contenders on the CPU, to see that all of it runs where there is no GPU."""

from __future__ import annotations

import os

__all__ = ["is_dry", "run_dry"]

_VARIABLE = "NNBACKEND_BENCHMARK_DRY_RUN"


def run_dry() -> None:
    """From here on, also in processes that this one starts."""
    os.environ[_VARIABLE] = "1"


def is_dry() -> bool:
    """Whether contenders are to keep to the CPU."""
    return os.environ.get(_VARIABLE) == "1"
