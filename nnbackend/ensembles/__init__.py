"""Many networks at once: trained as one run, and combined into one that predicts."""

from nnbackend.ensembles.ensemble import Ensemble
from nnbackend.ensembles.many import fit_many
from nnbackend.ensembles.per_network import PerNetwork

__all__ = ["Ensemble", "PerNetwork", "fit_many"]


def __dir__() -> list[str]:
    """The public names, and no others."""
    return sorted(__all__)
