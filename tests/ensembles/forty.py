"""Forty random networks, and their training alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

import nnbackend as nn
from nnbackend.errors import TrainingDivergedError
from tests.helpers import images, same_weights

X, Y = images(rows=230)
WEIGHTS = np.random.default_rng(5).uniform(0.2, 3, len(X))

#: The network that diverges.
DIVERGES = 13


@dataclass
class Member:
    """A network and its options, made again for each training."""

    layers: list[Any]
    seed: int
    optimizer: Any
    options: dict[str, Any]
    rows: np.ndarray | None
    validation_rows: np.ndarray | None
    callbacks: list[Any] = field(default_factory=list)

    def network(self, backend) -> nn.Network:
        return nn.Network(self.layers, X.shape[1], backend=backend, seed=self.seed)

    def alone(self, backend) -> tuple[nn.Network, nn.History | None]:
        """The result of `fit` on these rows; no history if it diverged."""
        network = self.network(backend)
        rows = slice(None) if self.rows is None else self.rows
        options = dict(self.options)
        if options["sample_weight"] is not None:
            options["sample_weight"] = options["sample_weight"][rows]
        if self.validation_rows is not None:
            options["validation_data"] = X[self.validation_rows], Y[self.validation_rows]
        try:
            history = network.fit(X[rows], Y[rows], optimizer=self.optimizer, callbacks=self.callbacks, **options)
        except TrainingDivergedError:
            return network, None
        return network, history


def members(count: int = 40) -> list[Member]:
    """The same networks in every call, with new optimisers and callbacks."""
    draw = np.random.default_rng(7)
    return [_member(draw, number) for number in range(count)]


def _member(draw: np.random.Generator, number: int) -> Member:
    layers: list[Any] = []
    for _ in range(draw.integers(1, 4)):
        activation = str(draw.choice(["relu", "tanh", "gelu"]))
        layers.append(nn.Dense(int(draw.integers(3, 40)), activation=activation, l2=float(draw.choice([0, 1e-3]))))
        if draw.random() < 0.4:
            layers.append(nn.Dropout(0.25))
    layers.append(nn.Dense(4))
    optimizers = [nn.SGD(0.1), nn.SGD(0.05, momentum=0.9), nn.Adam(0.01), nn.AdamW(nn.CosineDecay(0.02, epochs=4))]
    optimizer = optimizers[draw.integers(len(optimizers))]
    fold = draw.permutation(len(X))
    kind, cut = draw.integers(3), int(draw.integers(140, 200))
    rows = [None, fold[:cut], draw.integers(0, len(X), cut)][kind]
    validation_rows = fold[cut:] if draw.random() < 0.7 else None
    stops = validation_rows is not None and draw.random() < 0.6
    return Member(
        layers=layers,
        seed=int(draw.integers(100)),
        optimizer=nn.SGD(1e30) if number == DIVERGES else optimizer,
        options={
            "epochs": int(draw.integers(2, 7)),
            "batch_size": int(draw.choice([7, 16, 50])),
            "loss": str(draw.choice(["softmax_cross_entropy", "sigmoid_cross_entropy", "mean_squared_error"])),
            "class_weight": [None, "balanced", {1: 3.0}][draw.integers(3)],
            "sample_weight": WEIGHTS if draw.random() < 0.3 else None,
        },
        rows=rows,
        validation_rows=validation_rows,
        callbacks=[nn.EarlyStopping(patience=1, minimum_change=0.05)] if stops else [],
    )


def together(backend, chosen: list[Member], **others: Any) -> tuple[list[nn.Network], list[nn.History]]:
    """Train them as one run."""
    networks = [member.network(backend) for member in chosen]
    options = {
        name: nn.PerNetwork([member.options[name] for member in chosen])
        for name in ("epochs", "batch_size", "loss", "class_weight", "sample_weight")
    }
    histories = nn.fit_many(
        networks,
        X,
        Y,
        optimizer=[member.optimizer for member in chosen],
        rows=[member.rows for member in chosen],
        validation_rows=[member.validation_rows for member in chosen],
        callbacks=nn.PerNetwork([member.callbacks for member in chosen]),
        **{**options, **others},
    )
    return networks, histories


def assert_same(
    alone: tuple[nn.Network, nn.History | None], network: nn.Network, history: nn.History, what: str = ""
) -> None:
    """The same bits: weights, history, and what else a network keeps of its training."""
    expected, known = alone
    assert same_weights(expected, network), what
    assert (expected.steps_trained, expected.epochs_trained) == (network.steps_trained, network.epochs_trained), what
    assert expected.trained_with == network.trained_with, what
    if known is None:
        assert isinstance(history.error, TrainingDivergedError), what
        return
    assert history.error is None, what
    assert history.stopped_by == known.stopped_by, what
    assert _without_times(history) == _without_times(known), what
    for one, other in zip(history.step_losses, known.step_losses, strict=True):
        assert one.tobytes() == other.tobytes(), what


def _without_times(history: nn.History) -> list[dict[str, float]]:
    times = ("seconds", "samples_per_second")
    return [{name: value for name, value in each.items() if name not in times} for each in history.epochs]
