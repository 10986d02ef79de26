"""The Numba backend. Importing this package does not import Numba; making the backend does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nnbackend.backends.numba.backend import NumbaBackend

__all__ = ["NumbaBackend", "probe"]


def probe() -> tuple[str | None, str]:
    """Why Numba cannot be used here (None if it can), and what to do about it."""
    try:
        import numba  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != "numba":
            return f"Numba is installed but {error.name} is missing", "Run: pip install --force-reinstall numba"
        return "Numba is not installed", "Run: pip install numba"
    except ImportError as error:
        # Numba refuses NumPy versions it does not know in an ImportError that says so.
        return f"Numba does not import ({error})", "Run: pip install --upgrade numba"
    return None, ""


def __getattr__(name: str) -> Any:
    if name == "NumbaBackend":
        from nnbackend.backends.numba.backend import NumbaBackend

        return NumbaBackend
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
