"""Connections to other libraries, one module each; a module imports its library only when it is needed."""

from __future__ import annotations

from typing import Any

__all__ = ["c", "keras", "notebook", "onnx", "sklearn", "tensorboard", "torch"]


def __getattr__(name: str) -> Any:
    """Import a module on first access."""
    import importlib

    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.{name}")


def __dir__() -> list[str]:
    """The public names, and no others."""
    return sorted(__all__)
