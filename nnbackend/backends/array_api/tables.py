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
        xp, (embedded, categories, units), rows = self.xp, vectors.shape, x.shape[0]
        kept = x.shape[1] - embedded
        codes = x[:, kept:]
        known = (codes >= 0) & (codes < categories)
        places = xp.astype(xp.where(known, codes, xp.zeros_like(codes)), xp.int64)
        places = xp.reshape(places + categories * self._range(embedded, xp.int64), (rows * embedded,))
        found = xp.take(xp.reshape(vectors, (embedded * categories, units)), places, axis=0)
        found = xp.where(xp.reshape(known, (rows * embedded, 1)), found, xp.zeros_like(found))
        out[:, :kept] = x[:, :kept]
        out[:, kept:] = xp.reshape(found, (rows, embedded * units))

    def embed_columns_gradient(self, x: Array, upstream: Array, vectors_gradient: Array) -> None:
        embedded, _, units = vectors_gradient.shape
        kept = x.shape[1] - embedded
        for column in range(embedded):
            begin = kept + column * units
            chosen = self._chosen(x[:, kept + column], vectors_gradient.shape[1])
            total = self._totals(chosen, self.xp.astype(upstream[:, begin : begin + units], self.wide))
            vectors_gradient[column, :, :] = self.xp.astype(total, vectors_gradient.dtype)

    def _chosen(self, codes: Array, categories: int) -> Array:
        """Whether each code, (n,), is of each category: (n, categories)."""
        numbers = self._range(categories, codes.dtype)
        return (codes[:, None] >= numbers) & (codes[:, None] < numbers + 1)

    def _totals(self, chosen: Array, terms: Array) -> Array:
        """The sum of the terms of each category.

        A product, because libraries add up a scatter in any order. It takes finite terms only: 0 times infinity is NaN,
        so an infinite term would reach all categories. Infinities and NaN are counted instead.
        """
        xp, units = self.xp, terms.shape[1]
        finite = xp.where(xp.isfinite(terms), terms, xp.zeros_like(terms))
        nan = xp.isnan(terms)
        above, below = (xp.astype(nan | (terms == limit), self.wide) for limit in (math.inf, -math.inf))
        chosen = xp.astype(xp.matrix_transpose(chosen), self.wide)
        sums = chosen @ xp.concat([finite, above, below], axis=1)
        total, above, below = (sums[:, place * units : (place + 1) * units] for place in range(3))
        total = xp.where(above > 0, xp.full_like(total, math.inf), total)
        total = xp.where(below > 0, xp.full_like(total, -math.inf), total)
        # NaN, or infinities of both signs.
        return xp.where((above > 0) & (below > 0), xp.full_like(total, math.nan), total)

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
