"""Training: the loop, what it remembers, and the callbacks it tells."""

from nnbackend.training.callbacks import Callback, CSVLogger, EarlyStopping, ModelCheckpoint
from nnbackend.training.fit import fit
from nnbackend.training.history import History

__all__ = ["CSVLogger", "Callback", "EarlyStopping", "History", "ModelCheckpoint", "fit"]
