"""The demonstration page: draw a digit and see a network think; watch another one learn.

A small server for one person's own browser. It listens on this machine's loopback address alone, and everything it
serves lies in this package. Needs the extra ``web``.
"""

from __future__ import annotations

import importlib

__all__ = ["check_installed"]


def check_installed() -> None:
    """See that all packages are there, before anything takes long.

    Raises
    ------
    ImportError
        One is missing; the message says what to install.
    """
    for package, module in (("starlette", "starlette"), ("uvicorn", "uvicorn"), ("pillow", "PIL")):
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise ImportError(
                f'the demonstration page needs the package {package}: pip install "nnbackend[web]"'
            ) from error
