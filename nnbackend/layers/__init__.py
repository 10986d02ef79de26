"""The layers, one small file each."""

from nnbackend.layers.activation import Activation
from nnbackend.layers.base import Layer, LayerStep, Parameter
from nnbackend.layers.dense import Dense
from nnbackend.layers.dropout import Dropout
from nnbackend.layers.flatten import Flatten
from nnbackend.layers.max_abs_norm import MaxAbsNorm
from nnbackend.layers.stack import (
    LAYERS,
    FixedLayers,
    LayerNode,
    all_layers,
    check_layers,
    final_activation,
    follow_shapes,
    layer_nodes,
    layers_config,
    layers_from_config,
)

__all__ = [
    "LAYERS",
    "Activation",
    "Dense",
    "Dropout",
    "FixedLayers",
    "Flatten",
    "Layer",
    "LayerNode",
    "LayerStep",
    "MaxAbsNorm",
    "Parameter",
    "all_layers",
    "check_layers",
    "final_activation",
    "follow_shapes",
    "layer_nodes",
    "layers_config",
    "layers_from_config",
]


def __dir__() -> list[str]:
    """The public names, and no others."""
    return sorted(__all__)
