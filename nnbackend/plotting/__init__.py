"""Pictures of data, networks and training runs, with matplotlib (extra ``plot``).

Every function draws on the given Axes, or on those of a new figure, and returns them. Figures are created without
pyplot, so they need no display, open no window and leave matplotlib's backend unchanged. A notebook shows a figure that
ends a cell, ``plot_loss(history).figure``; a script saves it with `save_figure`.

Importing this package does not import matplotlib; the first plot does.
"""

from nnbackend.plotting.bars import plot_bars
from nnbackend.plotting.confusion import plot_confusion
from nnbackend.plotting.curves import plot_accuracy, plot_curves, plot_loss
from nnbackend.plotting.figures import save_figure
from nnbackend.plotting.images import plot_images, plot_misclassified
from nnbackend.plotting.kernels import plot_feature_maps, plot_kernels
from nnbackend.plotting.points import plot_scatter
from nnbackend.plotting.rates import plot_learning_rates
from nnbackend.plotting.regions import plot_decision_regions
from nnbackend.plotting.weights import plot_weights

__all__ = [
    "plot_accuracy",
    "plot_bars",
    "plot_confusion",
    "plot_curves",
    "plot_decision_regions",
    "plot_feature_maps",
    "plot_images",
    "plot_kernels",
    "plot_learning_rates",
    "plot_loss",
    "plot_misclassified",
    "plot_scatter",
    "plot_weights",
    "save_figure",
]


def __dir__() -> list[str]:
    """The public names, and no others."""
    return sorted(__all__)
