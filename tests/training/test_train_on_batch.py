"""Training batch by batch, and epochs with a given number of steps, on every backend."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.errors import InvalidInputError, TrainingDivergedError
from tests.helpers import any_device, images, same_weights


def network(backend, **options):
    layers = [nn.Dense(9, activation="relu", l2=0.01), nn.Dropout(0.2), nn.Dense(4)]
    return nn.Network(layers, 12, backend=backend, seed=3, **options)


def test_batches_by_hand_are_the_steps_of_fit(backend):
    x, y = images(rows=30)
    one, other = network(backend), network(backend)
    optimizer = nn.Adam(0.01)
    losses = []
    for start in range(0, 30, 10):
        rows = slice(start, start + 10)
        metrics = one.train_on_batch(x[rows], y[rows], loss="softmax_cross_entropy", optimizer=optimizer)
        losses.append(metrics["loss"])
    history = other.fit(
        x, y, epochs=1, batch_size=10, loss="softmax_cross_entropy", optimizer=nn.Adam(0.01), shuffle=False
    )
    np.testing.assert_allclose(losses, history.step_losses[0], rtol=1e-12)
    assert same_weights(one, other)
    assert one.steps_trained == other.steps_trained == 3


def test_only_ratios_of_sample_weights_matter(backend):
    x, y = images(rows=10)
    weights = np.linspace(0.5, 1.5, 10)
    nets = [network(backend) for _ in range(3)]
    losses = [
        net.train_on_batch(x, y, loss="softmax_cross_entropy", optimizer=nn.SGD(0.1), sample_weight=chosen)["loss"]
        for net, chosen in zip(nets, (weights, 2 * weights, None), strict=True)
    ]
    assert losses[0] == losses[1] != losses[2]
    assert same_weights(nets[0], nets[1])


@pytest.mark.float64
def test_the_metrics_are_those_before_the_step(backend):
    x, y = images(rows=20)
    net = nn.Network([nn.Dense(9, activation="tanh"), nn.Dense(4)], 12, backend=backend, dtype="float64")
    before = net.evaluate(x, y, loss="softmax_cross_entropy")
    metrics = net.train_on_batch(x, y, loss="softmax_cross_entropy", optimizer=nn.SGD(0.1))
    assert metrics["accuracy"] == before["accuracy"]
    assert metrics["loss"] == pytest.approx(before["loss"], rel=1e-12)
    assert net.evaluate(x, y)["loss"] < before["loss"]


class Fragile(nn.Layer):
    """Counts its steps, and fails in the second one."""

    def parameters(self, input_shape):
        return (nn.Parameter("steps", (1,), nn.Zeros(), trainable=False),)

    def forward(self, step, x):
        step.call(count_and_fail, step.parameter("steps"))
        return x, None

    def backward(self, step, saved, upstream, need_input_gradient):
        return upstream


@any_device
def count_and_fail(backend, steps):
    steps += 1
    if steps[0] == 2:
        raise RuntimeError("no more")


def test_a_step_whose_function_fails_leaves_the_network_as_it_was(backend):
    x, y = images(rows=20)
    net = nn.Network([Fragile(), nn.Dense(4)], 12, backend=backend)
    net.train_on_batch(x, y, loss="softmax_cross_entropy")
    before = net.get_weights()
    with pytest.raises(RuntimeError, match="no more"):
        net.train_on_batch(x, y)
    after = net.get_weights()
    assert all(np.array_equal(value, after[name]) for name, value in before.items())
    assert net.steps_trained == 1


def test_a_step_can_be_undone(backend):
    x, y = images(rows=20)
    net = network(backend)
    weights, kept = net.get_weights(), net.snapshot()
    net.train_on_batch(x, y, loss="softmax_cross_entropy")
    assert any((array != weights[name]).any() for name, array in net.get_weights().items())
    net.restore(kept)
    for name, array in net.get_weights().items():
        np.testing.assert_array_equal(array, weights[name])


def test_the_recording_is_kept_for_batches_of_its_kind(backend):
    x, y = images(rows=20)
    net = network(backend)
    net.train_on_batch(x[:10], y[:10], loss="softmax_cross_entropy")
    first = net.batch_step
    net.train_on_batch(x[10:], y[10:])
    assert net.batch_step is first
    net.train_on_batch(x[:7], y[:7])
    assert net.batch_step is not first


@pytest.mark.parametrize("change", ["loss", "optimizer", "dtype of x", "backend"])
def test_another_kind_of_batch_is_recorded_anew(backend, change):
    x, y = images(rows=10)
    one_hot = np.eye(4)[y]
    optimizer = nn.SGD(0.1)
    net, fresh = network(backend), network(backend)
    net.train_on_batch(x, one_hot, loss="softmax_cross_entropy", optimizer=optimizer)
    fresh.set_weights(net.get_weights())
    fresh.steps_trained, fresh.input_scale = 1, net.input_scale
    options = {"loss": "softmax_cross_entropy", "optimizer": optimizer}
    if change == "loss":
        options["loss"] = "mean_squared_error"
    elif change == "optimizer":
        options["optimizer"] = nn.SGD(0.2)
    elif change == "dtype of x":
        x = x.astype(float)
    else:
        net.to("numpy")
        fresh.to("numpy")
    # An outdated recording would use other buffers or another rule than a new one.
    net.train_on_batch(x, one_hot, **options)
    fresh.train_on_batch(x, one_hot, **options)
    assert same_weights(net, fresh)


class TestDivergence:
    """Weights broken by a step are detected by the next loss, and good weights can always be restored."""

    options: ClassVar = {"loss": "softmax_cross_entropy"}

    def broken(self, net, rows=10):
        """One step that overflows the weights; the loss before it was still finite."""
        x, y = images(rows=rows)
        net.train_on_batch(1e3 * x.astype(float), y, optimizer=nn.SGD(1e38), **self.options)
        assert not all(np.isfinite(array).all() for array in net.get_weights().values())

    @pytest.mark.parametrize("rows", [10, 11])
    def test_the_step_that_broke_the_weights_is_undone(self, backend, rows):
        x, y = images(rows=rows)
        net = network(backend)
        net.train_on_batch(x, y, optimizer=nn.SGD(0.1), **self.options)
        kept = net.get_weights()
        self.broken(net)
        with pytest.raises(TrainingDivergedError, match="from before the step before, which broke them"):
            net.train_on_batch(x, y)
        for name, array in net.get_weights().items():
            np.testing.assert_array_equal(array, kept[name])
        assert np.isfinite(net.train_on_batch(x, y, optimizer=nn.SGD(0.1))["loss"])

    def test_a_batch_that_is_too_large_leaves_good_weights_alone(self, backend):
        x, y = images(rows=10)
        net = network(backend)
        optimizer = nn.Adam(0.01)
        net.train_on_batch(x.astype(float), y, optimizer=optimizer, **self.options)
        kept = net.get_weights()
        with pytest.raises(TrainingDivergedError, match="from before this step"):
            net.train_on_batch(np.full((10, 12), 3e38), y)
        for name, array in net.get_weights().items():
            np.testing.assert_array_equal(array, kept[name])
        # The same optimiser, with new state.
        assert net.optimizer_state.optimizer is optimizer
        assert net.optimizer_state.steps == 0
        assert all(not net.backend.to_host(slot).any() for slot in net.optimizer_state.slots.values())

    def test_broken_weights_are_not_trained(self, backend):
        x, y = images(rows=10)
        net = network(backend)
        self.broken(net)
        with pytest.raises(InvalidInputError, match="weights that are NaN or infinite"):
            net.fit(x, y, epochs=1, **self.options)
        again = network(backend)
        again.restore(net.snapshot())
        with pytest.raises(InvalidInputError, match="weights that are NaN or infinite"):
            again.train_on_batch(x, y, **self.options)
        assert again.loss is None


@pytest.mark.parametrize("wrong", [3, "a", np.zeros(3, np.float32)])
def test_a_snapshot_is_taken_into_a_snapshot_only(wrong):
    with pytest.raises(InvalidInputError, match=r"into must be what snapshot\(\) returned earlier, received"):
        network("numpy").snapshot(into=wrong)


@pytest.mark.parametrize("wrong", [None, 0.5, np.zeros(3, np.float32), np.zeros(200)])
def test_only_a_snapshot_of_its_own_is_restored(wrong):
    net = network("numpy")
    weights = net.get_weights()
    with pytest.raises(InvalidInputError, match=r"restore takes what snapshot\(\) of this network returned"):
        net.restore(wrong)
    for name, array in net.get_weights().items():
        np.testing.assert_array_equal(array, weights[name])


def test_sample_weights_may_differ_between_batches(backend):
    """Every batch uses its own weights or none, never those of an earlier batch."""
    x, y = images(rows=10)
    first, second = np.linspace(0.5, 1.5, 10), np.linspace(3.0, 0.1, 10)
    net = network(backend)
    options = {"loss": "softmax_cross_entropy", "optimizer": nn.SGD(0.0)}
    chosen = [first, second, None, first]
    # With a rate of zero the network stays the same. The dropout mask depends on the step, so the step count is reset.
    losses = []
    for weights in chosen:
        net.steps_trained = 0
        losses.append(net.train_on_batch(x, y, sample_weight=weights, **options)["loss"])
    alone = [network(backend).train_on_batch(x, y, sample_weight=weights, **options)["loss"] for weights in chosen]
    assert losses == alone
    assert len(set(losses)) == 3


def test_labels_and_probabilities_in_successive_fits(backend):
    x, y = images(rows=10)
    soft = 0.9 * np.eye(4)[y] + 0.025
    net = network(backend)
    options = {"loss": "softmax_cross_entropy", "optimizer": nn.SGD(0.0)}
    losses = []
    for targets in (y, soft, y):
        net.steps_trained = 0
        losses.append(net.train_on_batch(x, targets, **options)["loss"])
    assert losses[0] == losses[2]
    assert losses[1] == network(backend).train_on_batch(x, soft, **options)["loss"] != losses[0]


def test_bad_input_changes_nothing(backend):
    x, y = images(rows=10)
    net = network(backend)
    with pytest.raises(InvalidInputError, match="needs a loss the first time"):
        net.train_on_batch(x, y)
    with pytest.raises(InvalidInputError, match=r"takes an optimiser object.*received 'adam'"):
        net.train_on_batch(x, y, loss="softmax_cross_entropy", optimizer="adam")
    with pytest.raises(InvalidInputError, match="labels must be in"):
        net.train_on_batch(x, y + 4, loss="softmax_cross_entropy")
    assert net.loss is None
    assert net.optimizer_state is None
    assert net.steps_trained == 0
    assert same_weights(net, network(backend))


class TestStepsPerEpoch:
    def test_full_batches_are_repeated(self, backend):
        x, y = images(rows=6)
        options = {"loss": "softmax_cross_entropy", "batch_size": 6, "shuffle": False}
        one, other = network(backend), network(backend)
        history = one.fit(x, y, epochs=2, steps_per_epoch=5, optimizer=nn.SGD(0.1), **options)
        single = other.fit(x, y, epochs=10, optimizer=nn.SGD(0.1), **options)
        assert [len(losses) for losses in history.step_losses] == [5, 5]
        np.testing.assert_array_equal(np.concatenate(history.step_losses), np.concatenate(single.step_losses))
        assert same_weights(one, other)
        # The metrics of an epoch are means over all its rows.
        assert history["loss"][1] == pytest.approx(np.mean(single["loss"][5:]), rel=1e-12)
        assert history["accuracy"][1] == pytest.approx(np.mean(single["accuracy"][5:]), rel=1e-12)

    @pytest.mark.parametrize("shuffle", [False, True])
    def test_passes_follow_each_other_across_epochs(self, backend, shuffle):
        """The order of the rows does not depend on the length of epochs."""
        x, y = images(rows=7)
        options = {"loss": "softmax_cross_entropy", "batch_size": 3, "shuffle": shuffle}
        nets = [network(backend) for _ in range(2)]
        cuts = [
            net.fit(x, y, epochs=epochs, steps_per_epoch=12 // epochs, optimizer=nn.SGD(0.1), **options)
            for net, epochs in zip(nets, (2, 4), strict=True)
        ]
        np.testing.assert_array_equal(*[np.concatenate(history.step_losses) for history in cuts])
        assert same_weights(*nets)

    @pytest.mark.parametrize("steps", [0, -1, 1.5, True, "3"])
    def test_it_is_a_positive_integer(self, steps):
        x, y = images(rows=6)
        net = network("numpy")
        with pytest.raises(InvalidInputError, match="steps_per_epoch"):
            net.fit(x, y, steps_per_epoch=steps, loss="softmax_cross_entropy")
        assert net.loss is None


@pytest.mark.parametrize("options", [{"clip_norm": 0.05}, {"clip_value": 0.003}, {"label_smoothing": 0.2}], ids=str)
def test_options_of_steps_are_those_of_fit(backend, options):
    one, other = network(backend), network(backend)
    x, y = images(rows=32)
    plain = network(backend)
    for net in (one, plain):
        more = options if net is one else {}
        result = net.train_on_batch(x, y, loss="softmax_cross_entropy", optimizer=nn.SGD(0.5), **more)
    settings = {"loss": "softmax_cross_entropy", "optimizer": nn.SGD(0.5), "epochs": 1, "batch_size": 32}
    history = other.fit(x, y, shuffle=False, verbose=False, **settings, **options)
    assert same_weights(one, other)
    assert not same_weights(one, plain)
    # The next batch without the option is recorded again.
    one.train_on_batch(x, y)
    assert one.step_options.clipping is None
    assert result["loss"] > 0
    assert history["loss"][0] > 0
