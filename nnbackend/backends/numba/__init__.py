"""The Numba backend. Numba is imported when the backend is created, not with this package."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from nnbackend.errors import BackendUnavailableError

if TYPE_CHECKING:
    from nnbackend.backends.numba.backend import NumbaBackend

__all__ = ["NumbaBackend", "probe"]


def probe() -> tuple[str | None, str]:
    """The reason why Numba cannot be used here (None if it can), and the remedy."""
    try:
        import numba
    except ModuleNotFoundError as error:
        if error.name != "numba":
            return f"Numba is installed but {error.name} is missing", "Run: pip install --force-reinstall numba"
        return "Numba is not installed", "Run: pip install numba"
    except ValueError as error:
        # Numba reads its settings when it is imported, and refuses some without naming them.
        threads = os.environ.get("NUMBA_NUM_THREADS")
        if threads is None:
            raise
        return (
            f"Numba refuses NUMBA_NUM_THREADS={threads} ({error})",
            "Set it to the number of threads, at least 1, or unset it",
        )
    except ImportError as error:
        # Numba raises an ImportError for NumPy versions that it does not support.
        return f"Numba does not import ({error})", "Run: pip install --upgrade numba"
    if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]
        # Numba would return plain Python functions, and this backend needs compiled ones.
        return (
            "Numba's compiler is turned off by NUMBA_DISABLE_JIT (in the environment or in .numba_config.yaml)",
            "Unset NUMBA_DISABLE_JIT, or use backend='numpy'",
        )
    from nnbackend.backends.numba.targets import problem

    return problem()


def __getattr__(name: str) -> Any:
    if name == "NumbaBackend":
        reason, remedy = probe()
        if reason is not None:
            raise BackendUnavailableError("numba", reason, remedy)
        from nnbackend.backends.numba.backend import NumbaBackend

        return NumbaBackend
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
