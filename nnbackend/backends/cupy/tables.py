"""Layers on tables on a GPU: each operation as kernel launches."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnbackend.backends.contract import Array
from nnbackend.backends.cupy import launches
from nnbackend.backends.cupy.launches import Launch
from nnbackend.backends.cupy.layout import extents, stride
from nnbackend.backends.table_operations import TableOperations

__all__ = ["CupyTables"]

_DOUBLE = np.dtype(np.float64)


class CupyTables(TableOperations):
    """One thread for each element of a batch, or for each sum over rows."""

    def mix_columns(self, x: Array, activated: Array, share: Array, out: Array) -> None:
        rows, columns = extents(x)
        self._launch(
            "tables.mix_columns",
            out.dtype,
            launches.matrix(rows, columns),
            x, stride(x), activated, stride(activated), share, out, stride(out), rows, columns,
        )  # fmt: skip

    def mix_columns_gradient(self, x: Array, activated: Array, upstream: Array, share_gradient: Array) -> None:
        rows, columns = extents(x)
        length = launches.chunk_rows(rows)
        chunks = -(-rows // length)
        sums = self._temporary(chunks * columns, _DOUBLE)
        for kernel, rows_of_chunk, arguments in (
            (
                "mix_sums",
                length,
                (x, stride(x), activated, stride(activated), upstream, stride(upstream), rows, columns, length, sums),
            ),
            ("finish_mix_sums", rows, (sums, columns, chunks, share_gradient)),
        ):
            launch = launches.column_sums(rows, columns, rows_of_chunk)
            shared = launch.threads * _DOUBLE.itemsize
            self._launch(f"tables.{kernel}", x.dtype, launch, *arguments, shared_bytes=shared)

    def embed_columns(self, x: Array, vectors: Array, out: Array) -> None:
        rows, outputs = extents(out)
        self._launch(
            "tables.embed_columns",
            out.dtype,
            launches.matrix(rows, outputs),
            x, stride(x), x.shape[1], vectors, stride(vectors), *vectors.shape, out, stride(out), rows, outputs,
        )  # fmt: skip

    def embed_columns_gradient(self, x: Array, upstream: Array, vectors_gradient: Array) -> None:
        self._launch(
            "tables.embed_columns_gradient",
            x.dtype,
            launches.elements(vectors_gradient.size),
            x, stride(x), x.shape[1], upstream, stride(upstream), vectors_gradient, stride(vectors_gradient),
            *vectors_gradient.shape, x.shape[0],
        )  # fmt: skip

    def periodic_columns(
        self,
        x: Array,
        frequencies: Array,
        phases: Array,
        weight: Array,
        bias: Array,
        cosines: Array | None,
        sines: Array | None,
        out: Array,
    ) -> None:
        rows, features = extents(x)
        saved = [(each, 0 if each is None else stride(each)) for each in (cosines, sines)]
        self._launch(
            "tables.periodic_columns",
            out.dtype,
            launches.matrix(rows, features),
            x, stride(x), frequencies, stride(frequencies), phases, stride(phases), weight, stride(weight),
            bias, stride(bias), *saved[0], *saved[1], out, stride(out), *weight.shape, rows, features,
        )  # fmt: skip

    def periodic_columns_gradient(
        self,
        x: Array,
        cosines: Array,
        sines: Array,
        upstream: Array,
        weight: Array,
        frequencies_gradient: Array,
        phases_gradient: Array,
        weight_gradient: Array,
        bias_gradient: Array,
    ) -> None:
        embedded, waves, _ = weight.shape
        arrays = (
            x, cosines, sines, upstream, weight, frequencies_gradient, phases_gradient, weight_gradient, bias_gradient,
        )  # fmt: skip
        self._launch(
            "tables.periodic_columns_gradient",
            x.dtype,
            launches.elements(embedded * (waves + 1)),
            *(each for array in arrays for each in (array, stride(array))), *weight.shape, x.shape[0],
        )  # fmt: skip

    def periodic_columns_input_gradient(
        self, sines: Array, upstream: Array, frequencies: Array, weight: Array, out: Array
    ) -> None:
        rows, features = extents(out)
        arrays = sines, upstream, frequencies, weight, out
        self._launch(
            "tables.periodic_columns_input_gradient",
            out.dtype,
            launches.matrix(rows, features),
            *(each for array in arrays for each in (array, stride(array))), *weight.shape, rows, features,
        )  # fmt: skip

    # ---- what CupyOperations adds --------------------------------------------------------------------------

    def _launch(self, kernel: str, real: np.dtype[Any], launch: Launch, *arguments: Any, shared_bytes: int = 0) -> None:
        raise NotImplementedError

    def _temporary(self, size: int, dtype: np.dtype[Any]) -> Array:
        raise NotImplementedError
