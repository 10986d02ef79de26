"""`clip_norm` and `clip_value` of `fit`: limits of the gradients, before the update and after the sum over ranks."""

from __future__ import annotations

import logging

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.errors import InvalidInputError, TrainingDivergedError
from nnbackend.testing.gradients import LossAndGradients
from tests.distributed.ranks import run_ranks, worked
from tests.helpers import images, rich_network, same_weights

X, Y = images(rows=70)
OPTIONS = {"loss": "softmax_cross_entropy", "batch_size": 70, "epochs": 1, "shuffle": False, "verbose": False}
LIMITS = [{"clip_norm": 0.05}, {"clip_value": 0.003}]
OPTIMIZERS = {
    "plain SGD": lambda: nn.SGD(0.5),
    "momentum": lambda: nn.SGD(0.5, momentum=0.9, nesterov=True),
    "adam": lambda: nn.Adam(0.01),
    "rmsprop": lambda: nn.RMSprop(0.01, weight_decay=0.1),
}
limited = pytest.mark.parametrize("limit", LIMITS, ids=["norm", "value"])


def small(backend, dtype="float64"):
    return nn.Network([nn.Dense(9, activation="tanh", l2=0.1), nn.Dense(4)], 12, backend=backend, dtype=dtype, seed=3)


def clipped(gradients, clip_norm=None, clip_value=None):
    if clip_value is not None:
        return {name: np.clip(gradient, -clip_value, clip_value) for name, gradient in gradients.items()}
    norm = np.sqrt(sum((gradient**2).sum() for gradient in gradients.values()))
    return {name: gradient * min(1, clip_norm / norm) for name, gradient in gradients.items()}


@pytest.mark.float64
@pytest.mark.parametrize("limit", [*LIMITS, {"clip_norm": 1e3}, {"clip_value": 1e3}], ids=str)
def test_a_step_follows_the_clipped_gradients(backend, limit):
    """Penalties are part of what is clipped."""
    net = small(backend)
    before = net.get_weights()
    _, gradients = LossAndGradients(net, X, Y, "softmax_cross_entropy")()
    wanted = clipped(gradients, **limit)
    net.fit(X, Y, optimizer=nn.SGD(0.5), **OPTIONS, **limit)
    for name, weights in net.get_weights().items():
        np.testing.assert_allclose(weights, before[name] - 0.5 * wanted[name], rtol=1e-9, atol=1e-12)


@limited
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_backend_clips_alike(backend, optimizer, limit):
    nets = [rich_network(where) for where in ("numpy", backend)]
    for net in nets:
        options = {**OPTIONS, "epochs": 3, "batch_size": 16}
        net.fit(X, Y, optimizer=OPTIMIZERS[optimizer](), **options, **limit)
    for name, weights in nets[1].get_weights().items():
        np.testing.assert_allclose(weights, nets[0].get_weights()[name], atol=2e-3)


@limited
def test_a_large_limit_changes_nothing(backend, limit):
    free, loose = rich_network(backend), rich_network(backend)
    free.fit(X, Y, **OPTIONS)
    loose.fit(X, Y, **OPTIONS, **dict.fromkeys(limit, 1e6))
    for name, weights in loose.get_weights().items():
        np.testing.assert_allclose(weights, free.get_weights()[name], atol=1e-6)


@limited
def test_bits_do_not_depend_on_the_number_of_threads(limit):
    nets = []
    for threads in (1, 2, 3):
        net = rich_network(nn.NumbaBackend(threads=threads))
        net.fit(X, Y, **{**OPTIONS, "batch_size": 16, "epochs": 2}, **limit)
        nets.append(net)
    assert same_weights(nets[0], nets[1])
    assert same_weights(nets[0], nets[2])


@pytest.mark.float64
@limited
def test_the_sum_over_ranks_is_clipped(backend, limit):
    options = {**OPTIONS, "batch_size": 16, "epochs": 2}
    alone = small(backend)
    alone.fit(X, Y, **options, **limit)

    def train(ranks):
        net = small(backend)
        net.fit(X, Y, communicator=ranks, **options, **limit)
        return net

    for net in worked(run_ranks(3, train)):
        for name, weights in net.get_weights().items():
            np.testing.assert_allclose(weights, alone.get_weights()[name], atol=1e-11)


def test_frozen_layers_do_not_count(backend):
    frozen = nn.Network([nn.Dense(9, trainable=False), nn.Dense(4)], 12, backend=backend, dtype="float32", seed=3)
    before = frozen.get_weights()
    frozen.fit(X, Y, optimizer=nn.SGD(1.0), **OPTIONS, clip_norm=0.01)
    after = frozen.get_weights()
    step = np.sqrt(sum(((after[name] - before[name]) ** 2).sum() for name in after))
    assert step == pytest.approx(0.01, rel=1e-3)


@limited
def test_the_log_says_that_the_update_is_apart(caplog, limit):
    with caplog.at_level(logging.INFO, "nnbackend"):
        rich_network("numpy").fit(X, Y, **OPTIONS, **limit)
    assert "so the update is not fused into their computation" in caplog.text


@limited
def test_resumed_and_many(tmp_path, limit):
    options = {**OPTIONS, "batch_size": 16}
    whole, one, other = (rich_network("numba") for _ in range(3))
    whole.fit(X, Y, **{**options, "epochs": 4}, **limit)
    nn.fit_many([one, other], X, Y, **{**options, "epochs": 4}, **{name: [v, 9.0] for name, v in limit.items()})
    assert same_weights(one, whole)
    assert not same_weights(other, whole)
    for epochs in (2, 4):
        net = rich_network("numba")
        net.fit(X, Y, **{**options, "epochs": epochs}, callbacks=[nn.Checkpoint(tmp_path)], resume=True, **limit)
    assert same_weights(net, whole)
    with pytest.raises(InvalidInputError, match="clip_"):
        rich_network("numba").fit(X, Y, **options, callbacks=[nn.Checkpoint(tmp_path)], resume=True)


@limited
def test_recorded_steps_are_shared_only_by_networks_of_the_same_limit(limit):
    ((name, value),) = limit.items()
    limits = [value, 5 * value, value, 9.0, value, 5 * value]
    options = {**OPTIONS, "batch_size": 16, "epochs": 2}
    backend = nn.NumbaBackend(threads=1)
    nets = [small(backend, "float32") for _ in limits]
    nn.fit_many(nets, X, Y, **options, **{name: limits})
    for net, own in zip(nets, limits, strict=True):
        alone = small(backend, "float32")
        alone.fit(X, Y, **options, **{name: own})
        assert same_weights(net, alone)


def test_gradients_that_are_not_finite_are_still_noticed(backend):
    net = nn.Network([nn.Dense(4)], 12, backend=backend)
    with pytest.raises(TrainingDivergedError):
        net.fit(np.full((4, 12), 1e30), np.zeros((4, 4)), loss="mse", epochs=3, clip_norm=1.0, verbose=False)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"clip_norm": 0}, "clip_norm must be above 0, received 0"),
        ({"clip_value": -1.0}, "clip_value must be above 0"),
        ({"clip_norm": "1"}, "clip_norm must be a finite number"),
        ({"clip_norm": 1.0, "clip_value": 1.0}, "two ways to limit gradients; give one"),
    ],
)
def test_errors(limits, message):
    net = rich_network("numpy")
    with pytest.raises(InvalidInputError, match=message):
        net.fit(X, Y, **OPTIONS, **limits)
    assert net.loss is None
