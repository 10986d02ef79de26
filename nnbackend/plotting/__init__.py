"""Pictures of data, networks and training runs, with matplotlib (extra ``plot``).

Every function draws on the Axes it is given, or on those of a new figure, and returns them. Figures are made as
objects and not through pyplot: no display is needed, no window opens and the caller's backend stays as it is. A
notebook shows one that ends a cell, ``plot_loss(history).figure``; a script writes it with `save_figure`.

Importing this package does not import matplotlib; the first picture does.
"""

from nnbackend.plotting.bars import plot_bars
from nnbackend.plotting.confusion import plot_confusion
from nnbackend.plotting.curves import plot_accuracy, plot_curves, plot_loss
from nnbackend.plotting.figures import save_figure
from nnbackend.plotting.images import plot_images, plot_misclassified
from nnbackend.plotting.points import plot_scatter
from nnbackend.plotting.regions import plot_decision_regions
from nnbackend.plotting.weights import plot_weights

__all__ = [
    "plot_accuracy",
    "plot_bars",
    "plot_confusion",
    "plot_curves",
    "plot_decision_regions",
    "plot_images",
    "plot_loss",
    "plot_misclassified",
    "plot_scatter",
    "plot_weights",
    "save_figure",
]
