"""Checks and records random transformations of a batch's images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nnbackend.augment import Augmentation, as_augmentations, resamplings
from nnbackend.backends.contract import Array
from nnbackend.errors import InvalidInputError
from nnbackend.layers import Conv1D, Layer, Reshape, all_layers
from nnbackend.step.calls import Recorder

__all__ = ["check_augmentations", "record_augmentation"]


def check_augmentations(
    augment: Any, layers: Sequence[Layer], input_shape: tuple[int, ...]
) -> tuple[Augmentation, ...]:
    """The argument `augment` of `fit`, checked for a network.

    Raises
    ------
    InvalidInputError
        They are no augmentations, or the samples of the network are no images.
    """
    augmentations = as_augmentations(augment)
    if augmentations:
        _image_shape(layers, input_shape)
    return augmentations


def _image_shape(layers: Sequence[Layer], input_shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Height, width and channels of the samples of a network.

    Flat samples are images if the first layer is the `Reshape` that makes images of them. Samples with two axes are
    grey images, unless the network has layers for sequences.

    Raises
    ------
    InvalidInputError
        The samples are no images.
    """
    shape = input_shape
    if len(shape) == 1 and layers and isinstance(layers[0], Reshape):
        shape = layers[0].target_shape
    if len(shape) == 2 and not any(isinstance(layer, Conv1D) for layer in all_layers(layers)):
        return (*shape, 1)
    if len(shape) == 3:
        return shape
    example = "nn.Reshape((28, 28, 1)), nn.Flatten()"
    raise InvalidInputError(
        f"augment needs images, but a sample of this network has the shape {input_shape}; make a network of images, "
        "for example with input_shape=(28, 28, 1) and nn.Flatten() as the first layer, or, for rows of 784 pixels, "
        f"begin the network with {example}"
    )


def record_augmentation(recorder: Recorder, augmentations: Sequence[Augmentation], x: Array) -> Array:
    """Record the augmentations of the samples `x`; returns the buffer with the results, which may be `x`."""
    model, backend = recorder.model, recorder.model.backend
    groups = resamplings(augmentations)
    if not groups:
        return x
    height, width, channels = _image_shape(model.layers, model.layout.input_shape)
    images = recorder.reshape(x, (height, width, channels))
    for chain, elastic, stream in groups:
        transforms = displacements = None
        if chain:
            transforms = recorder.buffer(6, dtype=np.float64)
            numbers = backend.from_host(np.array(chain, np.float64))
            recorder.record(
                "draw_transforms", numbers, height, width, model.seed, recorder.counter, transforms, recorder.first_row
            )
        if elastic is not None:
            displacements = recorder.buffer(height, width, 2)
            kernel = backend.from_host(elastic.kernel(max(height, width)).astype(model.dtype))
            random = (model.seed, stream, recorder.counter)
            recorder.record("draw_displacements", kernel, elastic.alpha, *random, displacements, recorder.first_row)
        changed = recorder.like(images)
        recorder.record("resample", images, transforms, displacements, changed)
        images = changed
    return recorder.reshape(images, model.layout.input_shape)
