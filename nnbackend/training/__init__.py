"""Training: the loop, what it remembers, and the callbacks it tells."""

from nnbackend.training.batch import train_on_batch
from nnbackend.training.callbacks import Callback, CSVLogger, EarlyStopping, KeepBest, ModelCheckpoint
from nnbackend.training.fit import fit
from nnbackend.training.history import History

__all__ = ["CSVLogger", "Callback", "EarlyStopping", "History", "KeepBest", "ModelCheckpoint", "fit", "train_on_batch"]
