"""The layers, one small file each."""

from __future__ import annotations

from typing import Any

from nnbackend.layers.activation import Activation
from nnbackend.layers.base import Layer, LayerStep, Parameter, layers_config
from nnbackend.layers.convolution import Conv1D, Conv2D
from nnbackend.layers.dense import Dense
from nnbackend.layers.dropout import Dropout
from nnbackend.layers.embedding import Embedding, PeriodicEmbedding
from nnbackend.layers.max_abs_norm import MaxAbsNorm
from nnbackend.layers.normalization import BatchNormalization, LayerNormalization
from nnbackend.layers.parametric import ParametricActivation
from nnbackend.layers.pooling import AveragePool2D, GlobalAveragePool2D, GlobalMaxPool2D, L2Pool2D, MaxPool2D
from nnbackend.layers.residual import Residual
from nnbackend.layers.scale import Scale
from nnbackend.layers.shapes import Flatten, Reshape, ZeroPadding2D
from nnbackend.layers.stack import (
    LAYERS,
    FixedLayers,
    LayerNode,
    all_layers,
    check_layers,
    final_activation,
    follow_shapes,
    layer_nodes,
    layers_from_config,
)
from nnbackend.layers.standardization import Normalization

__all__ = [
    "LAYERS",
    "Activation",
    "AveragePool2D",
    "BatchNormalization",
    "Conv1D",
    "Conv2D",
    "Dense",
    "Dropout",
    "Embedding",
    "FixedLayers",
    "Flatten",
    "GlobalAveragePool2D",
    "GlobalMaxPool2D",
    "L2Pool2D",
    "Layer",
    "LayerNode",
    "LayerNormalization",
    "LayerStep",
    "MaxAbsNorm",
    "MaxPool2D",
    "Normalization",
    "Parameter",
    "ParametricActivation",
    "PeriodicEmbedding",
    "Reshape",
    "Residual",
    "Scale",
    "ZeroPadding2D",
    "all_layers",
    "check_layers",
    "final_activation",
    "follow_shapes",
    "layer_nodes",
    "layers_config",
    "layers_from_config",
]


def __getattr__(name: str) -> Any:
    from nnbackend.support.other_names import missing_attribute

    raise missing_attribute("nnbackend.layers", name, __all__)


def __dir__() -> list[str]:
    """The public names, and no others."""
    return sorted(__all__)
