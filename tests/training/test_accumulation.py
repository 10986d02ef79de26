"""`fit(accumulate=k)`: one update from the gradients of k batches, as from one batch k times as large."""

from __future__ import annotations

import copy
import logging

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.errors import InvalidInputError
from tests.distributed.ranks import run_ranks, worked
from tests.helpers import images, rich_network, same_weights

X, Y = images(rows=70)
WEIGHTS = np.linspace(0.5, 2, 70)
#: 70 rows in steps of 48: three batches of 16, then one of 16 and one of 6.
PARTS = {"batch_size": 16, "accumulate": 3}
OPTIONS = {"loss": "softmax_cross_entropy", "epochs": 2, "verbose": False}
OTHERS = {
    "plain": {},
    "weights": {"sample_weight": WEIGHTS, "class_weight": {0: 2.0}, "clip_norm": 0.05},
    "squares": {"loss": "mse"},
    "steps": {"steps_per_epoch": 2, "shuffle": False},
}


def trained(backend, dtype="float64", optimizer=None, **options):
    net = rich_network(backend, dtype)
    history = net.fit(X, Y, optimizer=optimizer or nn.Adam(0.01), **{**OPTIONS, **options})
    return net, history


@pytest.mark.float64
@pytest.mark.parametrize("others", OTHERS)
def test_it_equals_one_larger_batch(backend, others):
    """With dropout, whose masks are those of the larger batch."""
    net, history = trained(backend, **PARTS, **OTHERS[others])
    large, expected = trained(backend, batch_size=48, **OTHERS[others])
    for name, weights in large.get_weights().items():
        np.testing.assert_allclose(net.get_weights()[name], weights, rtol=1e-9, atol=1e-11)
    for one, other in zip(history.step_losses, expected.step_losses, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9)
    assert history.epochs[-1]["accuracy"] == expected.epochs[-1]["accuracy"]
    assert net.steps_trained == large.steps_trained == 4


def test_random_transformations_are_those_of_the_larger_batch():
    def net():
        layers = [nn.Conv2D(2, 2, activation="relu"), nn.Flatten(), nn.Dense(4)]
        return nn.Network(layers, (4, 3, 1), backend="numpy", dtype="float64", seed=1)

    augment = [nn.augment.Shift(1), nn.augment.Rotate(20)]
    parts, whole = net(), net()
    x = np.asarray(X).reshape(70, 4, 3, 1)
    parts.fit(x, Y, augment=augment, **PARTS, **OPTIONS)
    whole.fit(x, Y, augment=augment, batch_size=48, **OPTIONS)
    for name, weights in whole.get_weights().items():
        np.testing.assert_allclose(parts.get_weights()[name], weights, rtol=1e-9, atol=1e-11)


def test_backends_agree(backend):
    net, _ = trained(backend, "float32", nn.SGD(0.1), **PARTS)
    reference, _ = trained("numpy", "float64", nn.SGD(0.1), **PARTS)
    for name, weights in reference.get_weights().items():
        np.testing.assert_allclose(net.get_weights()[name], weights, rtol=1e-3, atol=1e-5)


def test_bits_do_not_depend_on_the_number_of_threads():
    nets = [trained(nn.NumbaBackend(threads=threads), "float32", **PARTS)[0] for threads in (1, 2, 3)]
    assert same_weights(nets[0], nets[1])
    assert same_weights(nets[0], nets[2])


def test_streamed_rows_have_the_same_bits(backend):
    resident, streamed = (trained(backend, "float32", stream=stream, **PARTS)[0] for stream in (False, True))
    assert same_weights(resident, streamed)


def test_a_resumed_run_has_the_same_bits(backend, tmp_path):
    whole, _ = trained(backend, "float32", **PARTS)
    folder = nn.Checkpoint(tmp_path, every_steps=1)
    trained(backend, "float32", **PARTS, callbacks=[folder], epochs=1)
    again, _ = trained(backend, "float32", **PARTS, callbacks=[nn.Checkpoint(tmp_path)], resume=True)
    assert same_weights(whole, again)
    with pytest.raises(InvalidInputError, match="accumulate was 3 there and is 1 here"):
        trained(backend, "float32", batch_size=48, callbacks=[nn.Checkpoint(tmp_path)], resume=True)


def test_networks_trained_together_accumulate_each_on_their_own(backend):
    together = [rich_network(backend) for _ in range(4)]
    alone = copy.deepcopy(together)
    parts = [1, 3, 3, 2]
    nn.fit_many(together, X, Y, batch_size=16, accumulate=parts, optimizer=nn.Adam(0.01), **OPTIONS)
    for net, each, k in zip(together, alone, parts, strict=True):
        each.fit(X, Y, batch_size=16, accumulate=k, optimizer=nn.Adam(0.01), **OPTIONS)
        assert same_weights(net, each)


def _on_a_rank(world):
    net = rich_network("numpy", "float64")
    net.fit(X, Y, sample_weight=WEIGHTS, clip_norm=0.05, communicator=world, **PARTS, **OPTIONS)
    return net.get_weights()


def test_ranks_sum_the_accumulated_gradients():
    alone, _ = trained("numpy", optimizer="adam", sample_weight=WEIGHTS, clip_norm=0.05, **PARTS)
    for weights in worked(run_ranks(2, _on_a_rank)):
        for name, array in alone.get_weights().items():
            np.testing.assert_allclose(weights[name], array, rtol=1e-9, atol=1e-11)


def test_batch_normalization_sees_one_batch_at_a_time():
    layers = [nn.Dense(5), nn.BatchNormalization(momentum=0.0), nn.Dense(4)]
    net = nn.Network(layers, 12, backend="numpy", dtype="float64", seed=1)
    weight, bias = net.get_weights()["layers.0.weight"], net.get_weights()["layers.0.bias"]
    x = X[:32] / 255
    net.fit(x, Y[:32], batch_size=16, accumulate=2, shuffle=False, **{**OPTIONS, "epochs": 1})
    last = x[16:] @ weight + bias
    np.testing.assert_allclose(net.get_weights()["layers.1.running_mean"], last.mean(axis=0), rtol=1e-9)


def test_the_summary_and_the_log_say_so(caplog):
    with caplog.at_level(logging.INFO, "nnbackend"):
        net, _ = trained("numpy", clip_norm=1.0, **PARTS)
    assert "the gradients of 3 batches are averaged before each update" in caplog.text
    assert "the gradients of 3 batches are averaged before each update" in net.summary()
    assert "clipped to a global norm of 1" in net.summary()
    net.fit(X, Y, **{**OPTIONS, "epochs": 1})
    assert "averaged" not in net.summary()
    assert "clipped" not in net.summary()


@pytest.mark.parametrize("value", [0, -1, 1.5, "2", None, True])
def test_other_numbers_are_refused(value):
    with pytest.raises(InvalidInputError, match="accumulate must be a whole number of at least 1"):
        trained("numpy", accumulate=value)
