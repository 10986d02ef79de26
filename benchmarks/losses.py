"""The operations of other losses than cross-entropy and squared error, which are in `operations.py`, and of metrics."""

from __future__ import annotations

import numpy as np

from benchmarks.common import BACKENDS, CLASSES, Suite, matrix, vector
from nnbackend.backends.contract import Backend
from nnbackend.backends.training_operations import ELEMENTWISE_LOSSES

_ROWS = 256
_FLAT = ("square_sum", "clip_norm", "clip_value", "blend", "lion_update")
_OTHERS = ("focal_rows", "smooth_labels", "store_rows", *_FLAT)


class MoreLosses(Suite):
    """The operations of the other losses, on a batch of 256 with 10 outputs."""

    params = (
        BACKENDS,
        (*ELEMENTWISE_LOSSES, *_OTHERS),
    )
    param_names = ("backend", "operation")

    def build(self, device: Backend, operation: str) -> None:
        self.device = device
        targets, gradient = device.from_host(np.full((_ROWS, CLASSES), 0.5, np.float32)), matrix(device, _ROWS, CLASSES)
        rows = device.from_host(np.ones((2, _ROWS), np.float32))
        if operation == "smooth_labels":
            self.operation, self.arguments = device.smooth_labels, (targets, 0.1, 1 / CLASSES, gradient)
        elif operation == "store_rows":
            counter = device.from_host(np.zeros(3, np.int64))
            self.operation, self.arguments = device.store_rows, (targets, counter, _ROWS, gradient)
        elif operation in _FLAT:
            flat, other, squares = (*(vector(device, _ROWS * CLASSES) for _ in range(2)), device.from_host(np.ones(1)))
            counter, moment = device.empty((3,), np.int64), vector(device, _ROWS * CLASSES)
            self.operation = getattr(device, operation)
            self.arguments = {
                "square_sum": (flat, squares),
                "clip_norm": (squares, 0.5, flat),
                "clip_value": (0.5, flat),
                "blend": (other, 0.1, counter, None, flat),
                "lion_update": (flat, other, moment, counter, squares, 0.9, 0.99, 0.0),
            }[operation]
        elif operation == "focal_rows":
            self.operation, self.arguments = device.focal_rows, (None, 2.0, gradient, rows)
        else:
            outputs, parameters = matrix(device, _ROWS, CLASSES), device.from_host(np.ones(CLASSES, np.float32))
            self.operation = device.elementwise_loss
            self.arguments = (outputs, targets, None, operation, parameters, gradient, rows)
        self.time_operation(device.name, operation)

    def time_operation(self, backend: str, operation: str) -> None:
        self.operation(*self.arguments)
        self.device.synchronize()

    time_operation.pretty_name = "operations of other losses: 256 x 10"
