"""What this package shares with the program that uses it: its standard output, and NumPy's error state."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

__all__ = ["callers_error_state", "is_interactive", "is_terminal", "own_error_state", "say"]

#: NumPy's error state in the caller's code; None outside `own_error_state`.
_callers_state: ContextVar[dict[str, Any] | None] = ContextVar("nnbackend_callers_state", default=None)


@contextmanager
def own_error_state() -> Iterator[None]:
    """A context in which NumPy neither raises nor warns, whatever ``np.seterr`` the program has chosen.

    Overflow and division by zero are expected in some steps of a training, and underflow in almost all. This package
    checks the results, which is the same on every backend.
    """
    before = _callers_state.get()
    token = _callers_state.set(dict(np.geterr()) if before is None else before)
    try:
        with np.errstate(all="ignore"):
            yield
    finally:
        _callers_state.reset(token)


@contextmanager
def callers_error_state() -> Iterator[None]:
    """A context within `own_error_state` that calls the user's functions, with the error state that they expect."""
    state = _callers_state.get()
    if state is None:
        yield
        return
    token = _callers_state.set(None)
    try:
        with np.errstate(**state):
            yield
    finally:
        _callers_state.reset(token)


def is_terminal() -> bool:
    """Whether standard output is a terminal.

    Programs replace ``sys.stdout``, and those without a console have none.
    """
    try:
        return bool(sys.stdout.isatty())
    except (AttributeError, OSError, TypeError, ValueError):
        return False  # None, closed, or an object that can only write


def is_interactive() -> bool:
    """Whether somebody reads standard error while it is written: on a terminal, or in a notebook."""
    try:
        if sys.stderr.isatty():
            return True
    except (AttributeError, OSError, TypeError, ValueError):
        return False
    ipython = sys.modules.get("IPython")
    return ipython is not None and ipython.get_ipython() is not None


def say(text: str) -> bool:
    """Print a line, unless standard output cannot take it.

    Returns
    -------
    bool
        Whether it was printed. If not, the log has a warning with the reason, unless the program has no standard output
        at all: lost output must not end a training that runs for hours.
    """
    stream = sys.stdout
    if stream is None:
        return False
    try:
        try:
            stream.write(text + "\n")
        except UnicodeEncodeError as error:
            stream.write(text.encode(error.encoding, "replace").decode(error.encoding) + "\n")
        flush = getattr(stream, "flush", None)
        if flush is not None:
            flush()
    except (AttributeError, OSError, TypeError, ValueError) as error:
        # A closed stream or pipe, a full disk, or a terminal that is gone.
        import logging

        logging.getLogger("nnbackend").warning("cannot print to standard output (%s); the training continues", error)
        return False
    return True
