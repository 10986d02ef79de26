"""Each optimiser passes its hyperparameters to its operation in the right order."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.backends.contract import Backend

#: Optimiser, its operation, and the contract's argument names with the values they must get.
RULES = [
    (
        nn.SGD(0.1, weight_decay=0.2),
        "sgd_update",
        {"velocity": None, "momentum": 0, "nesterov": False, "weight_decay": 0.2},
    ),
    (
        nn.SGD(0.1, momentum=0.8, nesterov=True),
        "sgd_update",
        {"velocity": "velocity", "momentum": 0.8, "nesterov": True, "weight_decay": 0},
    ),
    (
        nn.Adam(0.1, 0.7, 0.8, 1e-5, 0.2),
        "adam_update",
        {
            "first": "first_moment", "second": "second_moment", "beta1": 0.7, "beta2": 0.8, "epsilon": 1e-5,
            "weight_decay": 0.2, "decoupled": False,
        },
    ),
    (nn.AdamW(0.1), "adam_update", {"beta1": 0.9, "beta2": 0.999, "weight_decay": 0.01, "decoupled": True}),
    (
        nn.RMSprop(0.1, 0.7, 1e-5, 0.2),
        "rmsprop_update",
        {"square": "square", "decay": 0.7, "epsilon": 1e-5, "weight_decay": 0.2},
    ),
    (
        nn.Lion(0.1, 0.7, 0.8, 0.2),
        "lion_update",
        {"moment": "momentum", "beta1": 0.7, "beta2": 0.8, "weight_decay": 0.2},
    ),
]  # fmt: skip


def test_lion_takes_steps_of_the_rate_against_the_sign_of_its_momentum():
    net = nn.Network([nn.Dense(1, use_bias=False)], 3, backend="numpy", dtype="float64", seed=1)
    x, y = np.array([[1.0, -2.0, 0.0]]), np.zeros((1, 1))
    w, momentum = net.get_weights()["layers.0.weight"][:, 0], np.zeros(3)
    optimizer = nn.Lion(0.01, 0.8, 0.9, weight_decay=0.5)
    for _ in range(4):
        net.train_on_batch(x, y, loss="mse", optimizer=optimizer)
        gradient = (w @ x[0]) * x[0]
        w = w * (1 - 0.01 * 0.5) - 0.01 * np.sign(0.8 * momentum + 0.2 * gradient)
        momentum = 0.9 * momentum + 0.1 * gradient
        np.testing.assert_allclose(net.get_weights()["layers.0.weight"][:, 0], w, rtol=1e-12)


@pytest.mark.parametrize(("optimizer", "operation", "expected"), RULES)
def test_hyperparameters_reach_the_operation(optimizer, operation, expected):
    calls = []
    slots = {name: name for name in optimizer.slots}
    optimizer.record(lambda *call: calls.append(call), "parameters", "gradients", slots, "counter", "rates")
    ((name, *arguments),) = calls
    assert name == operation
    given = inspect.signature(getattr(Backend, name)).bind(None, *arguments).arguments
    always = {"parameters": "parameters", "gradients": "gradients", "counter": "counter", "learning_rates": "rates"}
    assert {key: given[key] for key in always | expected} == always | expected
