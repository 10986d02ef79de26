"""The random transformations of images on a GPU: each as kernel launches."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnbackend.backends.augmentation_operations import AugmentationOperations
from nnbackend.backends.contract import Array
from nnbackend.backends.cupy import launches
from nnbackend.backends.cupy.launches import Launch
from nnbackend.backends.cupy.layout import stride

__all__ = ["CupyAugmentation"]

#: The type that a kernel without real numbers is compiled for.
_SINGLE = np.dtype(np.float32)


class CupyAugmentation(AugmentationOperations):
    """One thread for each image, number or pixel."""

    def draw_transforms(
        self, chain: Array, height: int, width: int, seed: int, counter: Array, out: Array, first_row: int = 0
    ) -> None:
        rows = int(out.shape[0])
        self._launch(
            "augmentation.draw_transforms",
            _SINGLE,
            launches.elements(rows),
            chain, stride(chain), int(chain.shape[0]), int(height), int(width), int(seed), counter,
            out, stride(out), int(first_row), rows,
        )  # fmt: skip

    def draw_displacements(
        self, kernel: Array, alpha: float, seed: int, stream: int, counter: Array, out: Array, first_row: int = 0
    ) -> None:
        rows, height, width, _ = (int(extent) for extent in out.shape)
        field = 2 * height * width
        size, taps = rows * field, int(kernel.shape[0])
        smoothed = self._temporary(size, out.dtype)
        self._launch(
            "augmentation.draw_noise",
            out.dtype,
            launches.elements(-(-size // 4) + 1),
            int(seed), int(stream), counter, int(first_row) * field, size, out,
        )  # fmt: skip
        launch = launches.elements(size)
        self._launch("augmentation.smooth", out.dtype, launch, kernel, taps, 1.0, out, width, 2, size, smoothed)
        self._launch(
            "augmentation.smooth",
            out.dtype,
            launch,
            kernel, taps, float(alpha), smoothed, height, 2 * width, size, out,
        )  # fmt: skip

    def resample(self, x: Array, transforms: Array | None, displacements: Array | None, out: Array) -> None:
        images, height, width, channels = (int(extent) for extent in x.shape)
        self._launch(
            "augmentation.resample",
            out.dtype,
            launches.elements(images * height * width),
            x, transforms, 0 if transforms is None else stride(transforms), displacements,
            images, height, width, channels, out,
        )  # fmt: skip

    # ---- what CupyOperations adds --------------------------------------------------------------------------

    def _launch(self, kernel: str, real: np.dtype[Any], launch: Launch, *arguments: Any, shared_bytes: int = 0) -> None:
        raise NotImplementedError

    def _temporary(self, size: int, dtype: np.dtype[Any]) -> Array:
        raise NotImplementedError
