"""Layers on tables, in terms of the array API standard."""

from __future__ import annotations

import math

from nnbackend.backends.array_api.namespace import Namespace
from nnbackend.backends.arrays import Array

__all__ = ["Tables"]


class Tables(Namespace):
    """Each operation is its formula in :mod:`nnbackend.backends.table_operations`."""

    def scale_columns(self, x: Array, scale: Array, out: Array) -> None:
        out[...] = x * scale

    def scale_columns_gradient(self, x: Array, upstream: Array, scale_gradient: Array) -> None:
        self._write_sum(upstream * x, scale_gradient)

    def mix_columns(self, x: Array, activated: Array, share: Array, out: Array) -> None:
        out[...] = x + share * (activated - x)

    def mix_columns_gradient(self, x: Array, activated: Array, upstream: Array, share_gradient: Array) -> None:
        self._write_sum(upstream * (activated - x), share_gradient)

    def embed_columns(self, x: Array, vectors: Array, out: Array) -> None:
        embedded, _, units = vectors.shape
        kept = x.shape[1] - embedded
        out[:, :kept] = x[:, :kept]
        for column in range(embedded):
            begin = kept + column * units
            found = self._one_hot_codes(x[:, kept + column], vectors) @ vectors[column, :, :]
            out[:, begin : begin + units] = found

    def embed_columns_gradient(self, x: Array, upstream: Array, vectors_gradient: Array) -> None:
        xp, (embedded, _, units) = self.xp, vectors_gradient.shape
        kept = x.shape[1] - embedded
        for column in range(embedded):
            begin = kept + column * units
            chosen = xp.astype(self._one_hot_codes(x[:, kept + column], vectors_gradient), self.wide)
            terms = xp.astype(upstream[:, begin : begin + units], self.wide)
            # A product instead of a scatter, because libraries add up a scatter in any order.
            total = xp.matrix_transpose(chosen) @ terms
            vectors_gradient[column, :, :] = xp.astype(total, vectors_gradient.dtype)

    def _one_hot_codes(self, codes: Array, vectors: Array) -> Array:
        """A row for each code: 1 at its category, or only zeros."""
        numbers = self._range(vectors.shape[1], codes.dtype)
        below = codes[:, None] >= numbers[None, :]
        return self.xp.astype(below & (codes[:, None] < numbers[None, :] + 1), vectors.dtype)

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
        xp, (embedded, waves, units), rows = self.xp, weight.shape, x.shape[0]
        angles = frequencies * x[:, :embedded][:, :, None] * (2 * math.pi) + phases
        cosine = xp.cos(angles)
        if cosines is not None and sines is not None:
            cosines[...] = xp.reshape(cosine, (rows, embedded * waves))
            sines[...] = xp.reshape(xp.sin(angles), (rows, embedded * waves))
        combined = xp.permute_dims(xp.permute_dims(cosine, (1, 0, 2)) @ weight, (1, 0, 2)) + bias
        end, width = embedded * (1 + units), 1 + units
        out[:, :end:width] = x[:, :embedded]
        for unit in range(units):
            out[:, unit + 1 : end : width] = combined[:, :, unit]
        out[:, end:] = x[:, embedded:]

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
        xp = self.xp
        combined, slopes = self._slopes(sines, upstream, weight)
        cosine = xp.reshape(cosines, slopes.shape)
        weight_gradient[...] = xp.permute_dims(cosine, (1, 2, 0)) @ xp.permute_dims(combined, (1, 0, 2))
        self._write_sum(combined, bias_gradient)
        self._write_sum(slopes, phases_gradient)
        self._write_sum(slopes * x[:, : weight.shape[0]][:, :, None] * (2 * math.pi), frequencies_gradient)

    def periodic_columns_input_gradient(
        self, sines: Array, upstream: Array, frequencies: Array, weight: Array, out: Array
    ) -> None:
        embedded, _, units = weight.shape
        _, slopes = self._slopes(sines, upstream, weight)
        end = embedded * (1 + units)
        through_angles = self.xp.sum(slopes * frequencies, axis=2)
        out[:, :embedded] = upstream[:, : end : 1 + units] + through_angles * (2 * math.pi)
        out[:, embedded:] = upstream[:, end:]

    def _slopes(self, sines: Array, upstream: Array, weight: Array) -> tuple[Array, Array]:
        """The gradients of the combined waves, (rows, embedded, units), and of the angles, (rows, embedded, waves)."""
        xp, (embedded, waves, units) = self.xp, weight.shape
        end, width = embedded * (1 + units), 1 + units
        combined = xp.stack([upstream[:, unit + 1 : end : width] for unit in range(units)], axis=2)
        through = xp.permute_dims(combined, (1, 0, 2)) @ xp.matrix_transpose(weight)
        sine = xp.reshape(sines, (sines.shape[0], embedded, waves))
        return combined, -sine * xp.permute_dims(through, (1, 0, 2))

    def _write_sum(self, terms: Array, out: Array) -> None:
        """The sum over rows, in `wide`."""
        out[...] = self.xp.astype(self._sum(terms, axis=0), out.dtype)
