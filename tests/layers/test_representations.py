"""A layer's representation is short, and makes the same layer."""

from __future__ import annotations

import pytest

import nnbackend as nn


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        (nn.Conv2D(20, 5), "Conv2D(20, 5, activation='identity')"),
        (
            nn.Conv2D(4, (5, 3), strides=2, padding="same", dilation_rate=(1, 2), groups=2, activation="relu"),
            "Conv2D(4, (5, 3), strides=2, padding='same', dilation_rate=(1, 2), groups=2, activation='relu')",
        ),
        (
            nn.Conv2D(4, 3, padding=1, trainable=False),
            "Conv2D(4, 3, padding=1, activation='identity', trainable=False)",
        ),
        (nn.Conv1D(3, 5), "Conv1D(3, 5, activation='identity')"),
        (
            nn.Conv1D(3, 5, strides=2, padding=(2, 2), dilation_rate=3),
            "Conv1D(3, 5, strides=2, padding=2, dilation_rate=3, activation='identity')",
        ),
        (nn.MaxPool2D(2), "MaxPool2D(2)"),
        (nn.AveragePool2D((2, 3), 1, padding=1), "AveragePool2D((2, 3), strides=1, padding=1)"),
        (nn.L2Pool2D(2, padding=((0, 1), (0, 0))), "L2Pool2D(2, padding=((0, 1), (0, 0)))"),
        (nn.GlobalAveragePool2D(), "GlobalAveragePool2D()"),
        (nn.BatchNormalization(), "BatchNormalization()"),
        (nn.BatchNormalization(0.9, scale=False), "BatchNormalization(momentum=0.9, scale=False)"),
        (nn.LayerNormalization(trainable=False), "LayerNormalization(trainable=False)"),
        (nn.Reshape((28, 28, 1)), "Reshape((28, 28, 1))"),
        (nn.ZeroPadding2D(), "ZeroPadding2D(1)"),
        (nn.ZeroPadding2D(((1, 0), (2, 3))), "ZeroPadding2D(((1, 0), (2, 3)))"),
        (nn.Residual([nn.Dense(3)], nn.Dense(3)), None),
    ],
)
def test_a_representation_makes_the_same_layer(layer, text):
    assert text in (None, repr(layer))
    again = eval(repr(layer), vars(nn))
    assert (again.config(), again.trainable) == (layer.config(), layer.trainable)
