"""The one message for data sets and tools that come with the optional extra ``demo``."""

from __future__ import annotations

from nnbackend.errors import DataError

__all__ = ["demo_package_missing"]


def demo_package_missing(what: str, package: str) -> DataError:
    """The error to raise where `what` needs `package` and importing it failed."""
    return DataError(f'{what} needs the package {package}, which is not installed: pip install "nnbackend[demo]"')
