"""Checks for people who write a backend or a layer.

``check_backend(backend)`` is the acceptance suite of a backend: every operation against float64 NumPy.
``check_gradients(network, x, y, loss=...)`` holds a network's gradients against finite differences.
"""

from nnbackend.testing.conformance import CASES, Lab, check_backend
from nnbackend.testing.gradients import LossAndGradients, check_gradients

__all__ = ["CASES", "Lab", "LossAndGradients", "check_backend", "check_gradients"]
