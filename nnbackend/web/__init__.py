"""The demonstration page: draw a digit, see how a network reads it, and watch another network learn.

A small server for the user's own browser. It listens on the loopback address only and serves only files of this
package. It needs the extra ``web``.
"""

from __future__ import annotations

import importlib

from nnbackend.support.extras import install_command

__all__ = ["check_installed"]


def check_installed() -> None:
    """Check that all required packages can be imported, before anything takes long.

    Raises
    ------
    ImportError
        A package is missing; the message says what to install.
    """
    for package, module in (("starlette", "starlette"), ("uvicorn", "uvicorn"), ("pillow", "PIL")):
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise ImportError(
                f"the demonstration page needs the package {package}: {install_command('web')}"
            ) from error
