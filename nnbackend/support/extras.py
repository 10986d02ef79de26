"""How to install the optional extras, for error messages and documentation."""

from __future__ import annotations

from nnbackend.errors import DataError

__all__ = ["demo_package_missing", "install_command"]


def install_command(extra: str) -> str:
    """The command that installs an optional extra of this package.

    nnbackend is not on a package index, so the command has to run in a checkout.

    Parameters
    ----------
    extra : str
        A key of ``[project.optional-dependencies]`` in ``pyproject.toml``, such as ``"plot"``.
    """
    return f'pip install -e ".[{extra}]" in your checkout of nnbackend'


def demo_package_missing(what: str, package: str) -> DataError:
    """The error to raise when `what` needs `package`, which the extra ``demo`` installs, and importing it failed."""
    return DataError(f"{what} needs the package {package}, which is not installed: {install_command('demo')}")
