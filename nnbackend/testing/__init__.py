"""Checks for authors of backends and layers.

``check_backend(backend)`` is the acceptance suite of a backend: it compares every operation with float64 NumPy.
``check_gradients(network, x, y, loss=...)`` compares a network's gradients with finite differences.
"""

from nnbackend.testing.conformance import CASES, Lab, check_backend
from nnbackend.testing.gradients import LossAndGradients, check_gradients

__all__ = ["CASES", "Lab", "LossAndGradients", "check_backend", "check_gradients"]


def __dir__() -> list[str]:
    """The public names, and no others."""
    return sorted(__all__)
