"""Training: checks of arguments, the loop, history, callbacks and checkpoints."""

from nnbackend.training.batch import train_on_batch
from nnbackend.training.callbacks import Callback, CSVLogger, EarlyStopping, KeepBest, ModelCheckpoint
from nnbackend.training.checkpoints.checkpoint import Checkpoint
from nnbackend.training.fit import fit
from nnbackend.training.history import History
from nnbackend.training.rate_range import LearningRates, find_learning_rate

__all__ = [
    "CSVLogger",
    "Callback",
    "Checkpoint",
    "EarlyStopping",
    "History",
    "KeepBest",
    "LearningRates",
    "ModelCheckpoint",
    "find_learning_rate",
    "fit",
    "train_on_batch",
]


def __dir__() -> list[str]:
    """The public names, and no others."""
    return sorted(__all__)
