"""Warnings of trainings that have not converged: at once, or counted where many networks are trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from sklearn.exceptions import ConvergenceWarning

from nnbackend.data.scale import warn

__all__ = ["counted", "warn_counted", "warn_unconverged"]

_found: ContextVar[list[str] | None] = ContextVar("unconverged", default=None)


def warn_unconverged(message: str) -> None:
    """Warn that a training has not converged, or have it counted."""
    found = _found.get()
    if found is None:
        warn(message, ConvergenceWarning)
    else:
        found.append(message)


@contextmanager
def counted() -> Iterator[list[str]]:
    """A context that collects such warnings instead of giving them; for trainings of this thread."""
    messages: list[str] = []
    token = _found.set(messages)
    try:
        yield messages
    finally:
        _found.reset(token)


def warn_counted(messages: list[str], fits: int) -> None:
    """Give the warnings of many fits as one, the last of them in words."""
    if messages:
        warn(f"{len(messages)} of {fits} fits: {messages[-1]}", ConvergenceWarning)
