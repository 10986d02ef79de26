"""Callbacks: code that runs while a network trains, between epochs."""

from nnbackend.training.callbacks.base import Callback
from nnbackend.training.callbacks.files import CSVLogger, ModelCheckpoint

# The private name is that of pickles written when the callbacks were one file.
from nnbackend.training.callbacks.stopping import Best as _Best
from nnbackend.training.callbacks.stopping import EarlyStopping, KeepBest

__all__ = ["CSVLogger", "Callback", "EarlyStopping", "KeepBest", "ModelCheckpoint", "_Best"]
