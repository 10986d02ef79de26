"""The NumPy backend's layers on tables: the formulas of the contract."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from nnbackend.backends.table_operations import TableOperations

__all__ = ["NumpyTables"]

Real = npt.NDArray[np.floating[Any]]


class NumpyTables(TableOperations):
    """Plain NumPy."""

    def scale_columns(self, x: Real, scale: Real, out: Real) -> None:
        np.multiply(x, scale, out=out)

    def scale_columns_gradient(self, x: Real, upstream: Real, scale_gradient: Real) -> None:
        scale_gradient[...] = (upstream * x).sum(axis=0, dtype=np.float64)

    def mix_columns(self, x: Real, activated: Real, share: Real, out: Real) -> None:
        np.add(x, share * (activated - x), out=out)

    def mix_columns_gradient(self, x: Real, activated: Real, upstream: Real, share_gradient: Real) -> None:
        share_gradient[...] = (upstream * (activated - x)).sum(axis=0, dtype=np.float64)

    def embed_columns(self, x: Real, vectors: Real, out: Real) -> None:
        embedded, categories, _ = vectors.shape
        kept = x.shape[1] - embedded
        places, known = _places(x[:, kept:], categories)
        found = vectors[np.arange(embedded), places]
        found[~known] = 0
        out[:, :kept] = x[:, :kept]
        out[:, kept:] = found.reshape(len(x), -1)

    def embed_columns_gradient(self, x: Real, upstream: Real, vectors_gradient: Real) -> None:
        embedded, categories, units = vectors_gradient.shape
        kept = x.shape[1] - embedded
        places, known = _places(x[:, kept:], categories)
        terms = upstream[:, kept:].reshape(len(x), embedded, units)
        total = np.zeros(vectors_gradient.shape)
        # One row after the other; rows without a category add zeros.
        np.add.at(total, (np.arange(embedded), places), np.where(known[:, :, None], terms, 0))
        vectors_gradient[...] = total

    def periodic_columns(
        self,
        x: Real,
        frequencies: Real,
        phases: Real,
        weight: Real,
        bias: Real,
        cosines: Real | None,
        sines: Real | None,
        out: Real,
    ) -> None:
        embedded, _, units = weight.shape
        angles = (2 * math.pi) * frequencies * x[:, :embedded, None] + phases
        cosine = np.cos(angles)
        if cosines is not None and sines is not None:
            cosines[...] = cosine.reshape(len(x), -1)
            sines[...] = np.sin(angles).reshape(len(x), -1)
        combined = np.matmul(cosine.transpose(1, 0, 2), weight).transpose(1, 0, 2) + bias
        end, width = embedded * (1 + units), 1 + units
        out[:, :end:width] = x[:, :embedded]
        for unit in range(units):
            out[:, unit + 1 : end : width] = combined[:, :, unit]
        out[:, end:] = x[:, embedded:]

    def periodic_columns_gradient(
        self,
        x: Real,
        cosines: Real,
        sines: Real,
        upstream: Real,
        weight: Real,
        frequencies_gradient: Real,
        phases_gradient: Real,
        weight_gradient: Real,
        bias_gradient: Real,
    ) -> None:
        combined, slopes = _slopes(sines, upstream, weight)
        cosine = cosines.reshape(slopes.shape)
        weight_gradient[...] = np.matmul(cosine.transpose(1, 2, 0), combined.transpose(1, 0, 2))
        bias_gradient[...] = combined.sum(axis=0, dtype=np.float64)
        phases_gradient[...] = slopes.sum(axis=0, dtype=np.float64)
        turned = slopes * x[:, : len(weight), None]
        frequencies_gradient[...] = 2 * math.pi * turned.sum(axis=0, dtype=np.float64)

    def periodic_columns_input_gradient(
        self, sines: Real, upstream: Real, frequencies: Real, weight: Real, out: Real
    ) -> None:
        embedded, _, units = weight.shape
        _, slopes = _slopes(sines, upstream, weight)
        end = embedded * (1 + units)
        through_angles = (slopes * frequencies).sum(axis=2)
        out[:, :embedded] = upstream[:, : end : 1 + units] + (2 * math.pi) * through_angles
        out[:, embedded:] = upstream[:, end:]


def _places(codes: Real, categories: int) -> tuple[Any, Any]:
    """The category of each code, 0 if it has none, and whether it has one."""
    known = (codes >= 0) & (codes < categories)
    return np.where(known, codes, 0).astype(np.int64), known


def _slopes(sines: Real, upstream: Real, weight: Real) -> tuple[Real, Real]:
    """The gradients of the combined waves, (rows, embedded, units), and of the angles, (rows, embedded, waves)."""
    embedded, waves, units = weight.shape
    end, width = embedded * (1 + units), 1 + units
    combined = np.stack([upstream[:, unit + 1 : end : width] for unit in range(units)], axis=2)
    through = np.matmul(combined.transpose(1, 0, 2), weight.transpose(0, 2, 1)).transpose(1, 0, 2)
    slopes: Real = -sines.reshape(len(sines), embedded, waves) * through
    return combined, slopes
