"""The networks to train, the number of steps, and their arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

__all__ = ["NETS", "ROWS", "SWEEP", "Work", "quick", "steps_for"]

#: The shape of MNIST.
PIXELS = 784
CLASSES = 10
ROWS = 60_000

_FLOAT_BYTES = 4
#: State entries of an optimizer per parameter.
_SLOTS = {"sgd": 0, "adam": 2}

#: A timed run is about this much arithmetic, a tenth of a second at the peak of two cores...
_RUN_FLOPS = 40e9
#: ... within these limits of the number of steps.
_FEWEST_STEPS, _MOST_STEPS = 5, 1000


@dataclass(frozen=True)
class Work:
    """A network and its training settings: softmax cross-entropy, mean over the batch, float32.

    Attributes
    ----------
    name : str
    hidden : tuple of int
        Units of the hidden layers.
    activation : {"relu", "sigmoid"}
        Activation of the hidden layers.
    batch_size : int
    optimizer : {"sgd", "adam"}
        Adam with decays 0.9 and 0.999 and epsilon 1e-8.
    learning_rate : float
    steps : int
        Steps of a timed run.
    rows : int
        Images of an epoch.
    """

    name: str
    hidden: tuple[int, ...]
    activation: str
    batch_size: int
    optimizer: str
    learning_rate: float
    steps: int = 0
    rows: int = ROWS

    @property
    def sizes(self) -> tuple[int, ...]:
        """Units of all layers, from the pixels to the classes."""
        return (PIXELS, *self.hidden, CLASSES)

    @property
    def epoch_steps(self) -> int:
        """Full batches of an epoch; all contenders skip a shorter last one."""
        return self.rows // self.batch_size

    @property
    def epoch_share(self) -> float:
        """The share of an epoch in a timed run."""
        return self.steps * self.batch_size / self.rows

    @property
    def flops(self) -> int:
        """Multiplications and additions of one step's matrix products.

        A layer has three products: forward, for the gradient of its weights, and for the gradient of its inputs, which
        the first layer does not need.
        """
        macs = [inputs * outputs for inputs, outputs in pairwise(self.sizes)]
        return 2 * self.batch_size * (3 * sum(macs) - macs[0])

    @property
    def bytes(self) -> int:
        """The minimum number of bytes that a step moves to and from memory if no cache keeps data between steps.

        The pixels of the batch, one byte each, are read once. The weights are read for the forward pass and for the
        gradients of the inputs, which the first layer does not need. The update reads and writes the parameters and
        the optimizer state, which has two entries per parameter for Adam. Data that a cache can hold within a step are
        not counted: activations, their gradients, and the gradients of the weights, which an update can use at once.
        """
        sizes = [inputs * outputs for inputs, outputs in pairwise(self.sizes)]
        parameters = sum(sizes) + sum(self.sizes[1:])
        read = sum(sizes) + sum(sizes[1:])
        updated = 2 * parameters * (1 + _SLOTS[self.optimizer])
        return self.batch_size * PIXELS + _FLOAT_BYTES * (read + updated)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Work:
        """Create a work from plain JSON."""
        return cls(**{**values, "hidden": tuple(values["hidden"])})


def steps_for(work: Work) -> int:
    """The number of steps of a timed run, so that slow contenders also finish in seconds."""
    wanted = max(_FEWEST_STEPS, min(round(_RUN_FLOPS / work.flops), _MOST_STEPS))
    return min(wanted, work.epoch_steps)


def quick(work: Work) -> Work:
    """A small version, to test that everything runs."""
    small = replace(work, rows=min(work.rows, max(2_000, 3 * work.batch_size)))
    return replace(small, steps=min(3, small.epoch_steps))


def _work(name: str, hidden: tuple[int, ...], activation: str, batch: int, optimizer: str, rate: float) -> Work:
    work = Work(name, hidden, activation, batch, optimizer, rate)
    return replace(work, steps=steps_for(work))


def _swept(hidden: tuple[int, ...], batch: int) -> Work:
    name = "-".join(str(size) for size in (PIXELS, *hidden, CLASSES))
    # A rate at which single images do not diverge: computing with NaN would not be the same work.
    return _work(f"{name} batch {batch}", hidden, "relu", batch, "sgd", 0.01)


#: The networks of the package's presets.
NETS = (
    _work("784-40-10", (40,), "sigmoid", 100, "sgd", 0.1),
    _work("784-200-80-10", (200, 80), "relu", 256, "sgd", 0.1),
    _work("784-500-1000-300-10", (500, 1000, 300), "relu", 100, "adam", 1e-3),
)

#: One network with increasing batch sizes, then one batch size with increasing widths.
SWEEP = (
    *(_swept((200, 80), batch) for batch in (1, 16, 32, 128, 1024, 8192)),
    *(_swept((width, width), 128) for width in (32, 64, 128, 256, 512, 1024, 2048)),
)
