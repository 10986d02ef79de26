"""The backend for any library of the Python array API standard, and the one on PyTorch.

Importing this package imports no array library but NumPy.
"""

from __future__ import annotations

from nnbackend.backends.array_api.backend import ArrayApiBackend

__all__ = ["ArrayApiBackend"]
