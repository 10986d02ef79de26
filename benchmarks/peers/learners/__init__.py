"""Who learns MNIST to 98 %, all by one recipe. Nothing of a library is imported before it is asked for."""

from __future__ import annotations

import importlib

from benchmarks.peers.learners.base import Learner

__all__ = ["LEARNERS", "Learner", "make"]

#: Contenders that can, and where to find how.
LEARNERS = {"numpy": "ours", "numba": "ours", "torch": "pytorch", "jax": "jax_scan"}


def make(name: str, threads: int) -> Learner:
    """The learner of a contender's name; imports its library."""
    learner: Learner = importlib.import_module(f"{__name__}.{LEARNERS[name]}").make(name, threads)
    return learner
