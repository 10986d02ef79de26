"""`fit(ema=...)`: the moving average of the weights, which the network has between epochs and at the end."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.errors import InvalidInputError, TrainingDivergedError
from nnbackend.training.checkpoints.checkpoint import checkpoint_files
from tests.distributed.ranks import run_ranks, worked
from tests.helpers import images, rich_network, same_weights

X, Y = images(rows=70)
OPTIONS = {"loss": "softmax_cross_entropy", "batch_size": 16, "verbose": False}
DECAY = 0.9


class Steps(nn.Callback):
    """Keeps the weights that the network has after each epoch."""

    def __init__(self):
        self.seen = []

    def on_epoch_end(self, network, epoch, metrics):
        self.seen.append(network.get_weights())


def trained(backend, epochs=3, dtype="float32", optimizer=None, **options):
    net = rich_network(backend, dtype)
    net.fit(X, Y, epochs=epochs, optimizer=optimizer or nn.Adam(0.01), **{**OPTIONS, **options})
    return net


def averaged(weights, decay=DECAY):
    """The average of the weights after each step."""
    shares = decay ** np.arange(len(weights))[::-1]
    return {name: sum(s * w[name] for s, w in zip(shares / shares.sum(), weights, strict=True)) for name in weights[0]}


@pytest.mark.float64
def test_it_is_the_weighted_mean_of_the_weights_after_each_step(backend):
    after = []
    plain = rich_network(backend, "float64")
    optimizer = nn.Adam(0.01)
    for _ in range(3):
        plain.fit(X, Y, epochs=1, optimizer=optimizer, **{**OPTIONS, "batch_size": 70})
        after.append(plain.get_weights())
    steps = Steps()
    net = trained(backend, dtype="float64", batch_size=70, ema=DECAY, callbacks=[steps])
    for epoch in range(3):
        for name, array in averaged(after[: epoch + 1]).items():
            np.testing.assert_allclose(steps.seen[epoch][name], array, rtol=1e-9, atol=1e-12)
    assert all(np.array_equal(net.get_weights()[name], array) for name, array in steps.seen[-1].items())


@pytest.mark.parametrize("optimizer", [nn.SGD(0.1), nn.Adam(0.01)], ids=["sgd", "adam"])
def test_backends_agree(backend, optimizer):
    net, reference = (trained(each, optimizer=copy.deepcopy(optimizer), ema=DECAY) for each in (backend, "numpy"))
    for name, weights in reference.get_weights().items():
        np.testing.assert_allclose(net.get_weights()[name], weights, atol=2e-3)


@pytest.mark.parametrize("optimizer", [nn.SGD(0.1), nn.Lion(1e-3)], ids=["sgd", "lion"])
def test_bits_do_not_depend_on_the_number_of_threads(optimizer):
    """The average waits for updates that are fused into the computation of gradients."""
    made = [trained(nn.NumbaBackend(n), 2, optimizer=copy.deepcopy(optimizer), ema=DECAY) for n in (1, 2, 3)]
    assert same_weights(made[0], made[1])
    assert same_weights(made[0], made[2])


def test_training_itself_does_not_change(backend):
    """The losses of the steps are those of a run without an average, and validation is that of the average."""
    nets, histories = [], []
    for ema in ({}, {"ema": DECAY}):
        nets.append(rich_network(backend))
        options = {"epochs": 3, "optimizer": nn.Adam(0.01), "validation_data": (X, Y), **OPTIONS}
        histories.append(nets[-1].fit(X, Y, **options, **ema))
    plain, average = histories
    for one, other in zip(plain.step_losses, average.step_losses, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
    assert plain.epochs[-1]["val_loss"] != average.epochs[-1]["val_loss"]
    assert average.epochs[-1]["val_loss"] == pytest.approx(nets[1].evaluate(X, Y)["loss"], rel=1e-5)


def test_no_decay_is_no_average(backend):
    plain, latest = trained(backend), trained(backend, ema=0.0)
    for name, weights in plain.get_weights().items():
        np.testing.assert_allclose(latest.get_weights()[name], weights, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("every", [{}, {"every_steps": 2}], ids=["epochs", "steps"])
def test_a_resumed_run_has_the_same_bits(backend, tmp_path, every):
    whole = trained(backend, ema=DECAY)

    class Stops(nn.Callback):
        def on_epoch_end(self, network, epoch, metrics):
            raise RuntimeError("stopped")

    folder = tmp_path / "run"
    if every:
        # The newest checkpoint is within the first epoch: five steps, of which four are in a checkpoint.
        with pytest.raises(RuntimeError, match="stopped"):
            trained(backend, ema=DECAY, callbacks=[Stops(), nn.Checkpoint(folder, **every)])
    else:
        trained(backend, epochs=2, ema=DECAY, callbacks=[nn.Checkpoint(folder)])
    callbacks = [nn.Checkpoint(folder, **every)]
    if every:
        callbacks.insert(0, nn.Callback())
    again = trained(backend, ema=DECAY, callbacks=callbacks, resume=True)
    assert same_weights(whole, again)
    with pytest.raises(InvalidInputError, match=r"ema was 0\.9 there and is None here"):
        trained(backend, callbacks=callbacks, resume=True)


def test_a_checkpoint_holds_the_average(tmp_path):
    net = trained("numpy", ema=DECAY, callbacks=[nn.Checkpoint(tmp_path)])
    assert same_weights(nn.Network.load(checkpoint_files(tmp_path)[0]), net)


def test_another_fit_begins_another_average(backend):
    net, optimizer = rich_network(backend), nn.Adam(0.01)
    for epochs in (1, 2):
        before = net.get_weights()
        net.fit(X, Y, epochs=epochs, optimizer=optimizer, ema=DECAY, **OPTIONS)
    assert any(not np.array_equal(before[name], array) for name, array in net.get_weights().items())
    assert set(net.optimizer_state.slots) == {"first_moment", "second_moment"}


def test_networks_trained_together_have_their_own_averages(backend):
    together = [rich_network(backend) for _ in range(4)]
    alone = copy.deepcopy(together)
    decays = [None, 0.9, 0.9, 0.5]
    nn.fit_many(together, X, Y, epochs=2, ema=decays, optimizer=nn.Adam(0.01), **OPTIONS)
    for net, each, decay in zip(together, alone, decays, strict=True):
        each.fit(X, Y, epochs=2, ema=decay, optimizer=nn.Adam(0.01), **OPTIONS)
        assert same_weights(net, each)


def test_skipped_steps_are_not_in_the_average(backend):
    x = X.astype(np.float32) / 255
    x[20] = 1e30
    net = rich_network(backend)
    history = net.fit(x, np.eye(4)[Y], epochs=2, ema=DECAY, on_nan="skip", **{**OPTIONS, "loss": "mse"})
    assert history.epochs[-1]["skipped"] == 1
    assert all(np.isfinite(array).all() for array in net.get_weights().values())


@pytest.mark.parametrize("first", [0, 16, 32], ids=["first", "second", "third"])
def test_the_average_is_that_of_a_run_without_the_skipped_steps(backend, tmp_path, first):
    x, y = X.astype(np.float32) / 255, np.eye(4)[Y]
    broken, rest = x.copy(), np.delete(np.arange(70), np.s_[first : first + 16])
    broken[first] = 1e30
    options = {"ema": DECAY, "optimizer": "sgd", "shuffle": False, **OPTIONS, "loss": "mse"}

    def run(epochs, rows, target, **more):
        net = nn.Network([nn.Flatten(), nn.Dense(4)], X.shape[1:], backend=backend, seed=1)
        net.fit(rows, target, epochs=epochs, **options, **more)
        return net

    skipping = run(2, broken, y, on_nan="skip")
    assert same_weights(skipping, run(2, x[rest], y[rest]))
    run(1, broken, y, on_nan="skip", callbacks=[nn.Checkpoint(tmp_path, every_steps=2)])
    assert same_weights(skipping, run(2, broken, y, on_nan="skip", resume=tmp_path))


class Halves(nn.Callback):
    """Changes the weights after each epoch, which the run does not continue with."""

    def on_epoch_end(self, network, epoch, metrics):
        network.set_weights({name: array / 2 for name, array in network.get_weights().items()})


def test_weights_that_a_callback_sets_are_not_averaged_in_a_resumed_run(tmp_path):
    whole = trained("numpy", ema=DECAY, callbacks=[Halves()])
    trained("numpy", epochs=2, ema=DECAY, callbacks=[Halves(), nn.Checkpoint(tmp_path)])
    assert same_weights(whole, trained("numpy", ema=DECAY, callbacks=[Halves()], resume=tmp_path))
    ended = trained("numpy", epochs=2, ema=DECAY, callbacks=[Halves()], resume=tmp_path)
    assert same_weights(ended, trained("numpy", epochs=2, ema=DECAY, callbacks=[Halves()]))


def test_a_diverged_run_has_the_average_from_before():
    net = rich_network("numpy")
    seen = Steps()

    class Breaks(nn.Callback):
        def on_epoch_end(self, network, epoch, metrics):
            network.optimizer.learning_rate = 1e30

    with pytest.raises(TrainingDivergedError):
        net.fit(X, Y, epochs=4, ema=DECAY, optimizer=nn.SGD(0.1), callbacks=[seen, Breaks()], **OPTIONS)
    assert all(np.array_equal(net.get_weights()[name], array) for name, array in seen.seen[-1].items())


def _on_a_rank(world):
    net = rich_network("numpy", "float64")
    net.fit(X, Y, epochs=2, ema=DECAY, accumulate=2, optimizer=nn.Adam(0.01), communicator=world, **OPTIONS)
    return net.get_weights()


def test_all_ranks_have_the_average():
    alone = trained("numpy", 2, "float64", ema=DECAY, accumulate=2)
    for weights in worked(run_ranks(2, _on_a_rank)):
        for name, array in alone.get_weights().items():
            np.testing.assert_allclose(weights[name], array, rtol=1e-9, atol=1e-11)


def test_the_summary_says_so():
    assert "moving average of the weights, decay 0.9" in trained("numpy", 1, ema=DECAY).summary()


@pytest.mark.parametrize("value", [1.0, -0.1, "0.9", True, float("nan")])
def test_other_decays_are_refused(value):
    with pytest.raises(InvalidInputError, match="ema must be"):
        trained("numpy", ema=value)
