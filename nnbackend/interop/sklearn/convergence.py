"""Warnings of trainings that have not converged: at once, or counted where many networks are trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from sklearn.exceptions import ConvergenceWarning

from nnbackend.data.scale import warn

__all__ = ["counted", "warn_of_search", "warn_unconverged"]

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


def warn_of_search(unconverged: list[str | None], refitted: list[str]) -> None:
    """Give the warnings of a search as one.

    Parameters
    ----------
    unconverged : list of str or None
        The warning of each fit, if it has not converged.
    refitted : list of str
        Those of the fit of the best candidate to all rows.
    """
    messages = [message for message in unconverged if message is not None]
    parts = [f"{len(messages)} of the {len(unconverged)} fits of the search"] if messages else []
    parts += ["the fit of best_estimator_"] if refitted else []
    if parts:
        text = f"{' and '.join(parts)}: {[*messages, *refitted][-1]}"
        # scikit-learn wraps `fit`.
        warn(text, ConvergenceWarning, ("nnbackend", "sklearn"))
