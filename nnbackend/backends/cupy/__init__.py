"""The CuPy backend: every operation as a CUDA kernel from the ``.cu`` files beside this one, or a cuBLAS product.

Importing this package does not import CuPy; :func:`probe` and the first :class:`CupyBackend` do.
"""

from __future__ import annotations

from nnbackend.backends.cupy.backend import CupyBackend
from nnbackend.backends.cupy.probe import device_name, probe

__all__ = ["CupyBackend", "device_name", "probe"]
