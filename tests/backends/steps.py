"""Networks and steps for the tests of Numba's compiled executor."""

from __future__ import annotations

import functools
import platform

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.backends.contract import OPERATIONS, Call
from nnbackend.backends.numba import NumbaBackend, program
from tests.helpers import images

__all__ = ["OPTIMIZERS", "ThroughTheTable", "network", "recorded", "trained", "x86_only"]

MEMORY = ("empty", "from_host", "write", "to_host", "copy", "synchronize", "advance")


class ThroughTheTable(NumbaBackend):
    """Every operation is a program of one line."""

    refused = 0


def _through(name):
    @functools.wraps(getattr(NumbaBackend, name))
    def operation(self, *arguments):
        try:
            compiled = program.compile_step([Call.of(name, *arguments)], 2)
        except program.UnsupportedStepError:
            type(self).refused += 1
            getattr(NumbaBackend, name)(self, *arguments)
        else:
            self._team.run(compiled, 1)

    return operation


for _name in OPERATIONS:
    if _name not in MEMORY:
        setattr(ThroughTheTable, _name, _through(_name))


x86_only = pytest.mark.skipif(
    platform.machine().lower() not in ("x86_64", "amd64", "i686", "x86"),
    reason="subnormal results are left as they are: only of x86 it is known how to change that",
)


def network(backend, dtype="float32"):
    layers = [
        nn.Dense(33, activation="gelu", l2=1e-3), nn.Dropout(0.3), nn.Dense(17, activation="relu"), nn.MaxAbsNorm(),
        nn.Activation("tanh"), nn.Dense(4, l1=1e-3),
    ]  # fmt: skip
    return nn.Network(layers, 12, backend=backend, dtype=dtype, seed=5)


OPTIMIZERS = {
    "sgd": lambda: nn.SGD(0.1, weight_decay=1e-3), "momentum": lambda: nn.SGD(0.1, momentum=0.9),
    "nesterov": lambda: nn.SGD(0.1, momentum=0.9, nesterov=True),
    "adam": lambda: nn.Adam(0.01), "adamw": lambda: nn.AdamW(0.01), "rmsprop": lambda: nn.RMSprop(0.01),
    "lion": lambda: nn.Lion(1e-3),
}  # fmt: skip


def trained(backend, optimizer="adam", dtype="float32", loss="softmax_cross_entropy"):
    x, y = images(rows=70)
    net = network(backend, dtype)
    history = net.fit(
        x, y, epochs=3, batch_size=16, loss=loss, optimizer=OPTIMIZERS[optimizer](), validation_data=(x, y),
        sample_weight=np.linspace(0.5, 1.5, 70),
    )  # fmt: skip
    return net, history


def recorded(layers, optimizer=None, **options):
    """The program of a training step."""
    x, y = images(rows=32)
    net = nn.Network(layers, 12, backend="numba", **options)
    net.train_on_batch(x, y, loss="softmax_cross_entropy", optimizer=optimizer)
    return net.batch_step._executor._program
