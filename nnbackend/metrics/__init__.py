"""Metrics of predictions, computed on the host: those of `fit` and `evaluate`, and functions of class indices."""

from __future__ import annotations

from nnbackend.metrics.chosen import Metric, MetricSet, Predictions, check_metrics
from nnbackend.metrics.formulas import METRICS
from nnbackend.metrics.labels import accuracy, confusion_matrix

__all__ = ["METRICS", "Metric", "MetricSet", "Predictions", "accuracy", "check_metrics", "confusion_matrix"]


def __dir__() -> list[str]:
    """The public names, and no others."""
    return sorted(__all__)
