"""The operations of layers on tables, one by one, on float32 arrays. Every result includes waiting for the device."""

from __future__ import annotations

from typing import Any

from benchmarks.common import BACKENDS, Suite, array, vector
from nnbackend.backends.contract import Backend


class TableSteps(Suite):
    """Operations of layers on tables: 256 rows, of which 16 columns are embedded, or layers of 256 units."""

    params = (
        BACKENDS,
        ("scale_columns", "scale_columns_gradient", "mix_columns", "mix_columns_gradient", "embed_columns",
         "embed_columns_gradient", "periodic_columns", "periodic_columns_gradient", "periodic_columns_input_gradient"),
    )  # fmt: skip
    param_names = ("backend", "operation")

    def build(self, device: Backend, operation: str) -> None:
        self.device, self.operation = device, getattr(device, operation)
        x, activated, upstream, out = (array(device, 256, 256) for _ in range(4))
        share, gradient = vector(device, 256), vector(device, 256)
        columns, embedded, categories = (array(device, 256, count) for count in (16, 64, 128))
        cosines, sines = array(device, 256, 256), array(device, 256, 256)
        waves = [array(device, *shape) for shape in ((16, 16), (16, 16), (16, 16, 3), (16, 3))]
        vectors = array(device, 16, 20, 8)
        self.arguments: tuple[Any, ...] = {
            "scale_columns": (x, share, out),
            "scale_columns_gradient": (x, upstream, gradient),
            "mix_columns": (x, activated, share, out),
            "mix_columns_gradient": (x, activated, upstream, gradient),
            "embed_columns": (columns, vectors, categories),
            "embed_columns_gradient": (columns, categories, vectors),
            "periodic_columns": (columns, *waves, cosines, sines, embedded),
            "periodic_columns_gradient": (columns, cosines, sines, embedded, array(device, 16, 16, 3), *waves),
            "periodic_columns_input_gradient": (sines, embedded, waves[0], waves[2], columns),
        }[operation]
        self.time_operation(device.name, operation)

    def time_operation(self, backend: str, operation: str) -> None:
        self.operation(*self.arguments)
        self.device.synchronize()

    time_operation.pretty_name = "layers on tables: 256 x 16 and 256 x 256"
