"""Digits as drawn by hand: strokes of points, x to the right and y downwards, 0 to 1."""

from __future__ import annotations

import numpy as np


def _arc(x: float, y: float, rx: float, ry: float, begin: float, end: float) -> list[list[float]]:
    """Points on an ellipse, from one angle to another in degrees; 0 is to the right, 90 is up."""
    angles = np.radians(np.linspace(begin, end, 25))
    return [[x + rx * float(np.cos(angle)), y - ry * float(np.sin(angle))] for angle in angles]


DIGITS: dict[str, list[list[list[float]]]] = {
    "0": [_arc(0.5, 0.5, 0.2, 0.3, 90, 450)],
    "1": [[[0.52, 0.2], [0.5, 0.8]]],
    "2": [[*_arc(0.5, 0.37, 0.18, 0.17, 160, -40), [0.32, 0.78], [0.72, 0.78]]],
    "3": [[*_arc(0.48, 0.35, 0.17, 0.15, 150, -90), *_arc(0.48, 0.65, 0.19, 0.16, 90, -150)]],
    "4": [[[0.38, 0.22], [0.33, 0.52], [0.68, 0.5]], [[0.62, 0.24], [0.58, 0.82]]],
    "5": [[[0.68, 0.2], [0.4, 0.2], [0.38, 0.45], *_arc(0.47, 0.62, 0.19, 0.19, 110, -150)]],
    "6": [[[0.6, 0.18], [0.42, 0.42], *_arc(0.5, 0.64, 0.15, 0.16, 170, 520)]],
    "7": [[[0.3, 0.22], [0.7, 0.22], [0.46, 0.8]]],
    "8": [
        [
            *_arc(0.5, 0.35, 0.14, 0.15, 60, 270),
            *_arc(0.5, 0.66, 0.17, 0.16, 90, -270),
            *_arc(0.5, 0.35, 0.14, 0.15, -90, 60),
        ]
    ],
    "9": [[*_arc(0.5, 0.37, 0.16, 0.16, 0, 360), [0.64, 0.5], [0.6, 0.82]]],
}
