"""Frozen layers: their bits never change, and freezing or unfreezing keeps everything else."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.backends.numpy import NumpyBackend
from nnbackend.errors import InvalidInputError
from nnbackend.testing import check_gradients
from tests.helpers import images, same_weights

X, Y = images()
MSE = "mean_squared_error"
OPTIONS = {"loss": "softmax_cross_entropy", "batch_size": 16, "verbose": False}


def network(backend="numpy", frozen=(), **options):
    layers = [
        nn.Dense(9, activation="relu", l2=0.1, l1=0.01),
        nn.Dense(7, activation="tanh", l2=0.1),
        nn.Dropout(0.2),
        nn.Dense(4),
    ]
    for index in frozen:
        layers[index].trainable = False
    return nn.Network(layers, 12, backend=backend, seed=3, **options)


def bits(net, layer):
    return {name: array.tobytes() for name, array in net.get_weights().items() if name.startswith(f"layers.{layer}.")}


@pytest.mark.parametrize("frozen", [(0,), (1,), (3,), (0, 1), (0, 3)])
def test_the_bits_of_a_frozen_layer_never_change(backend, frozen):
    net = network(backend, frozen)
    before = {layer: bits(net, layer) for layer in (0, 1, 3)}
    net.fit(X, Y, epochs=3, optimizer=nn.AdamW(0.01, weight_decay=0.1), **OPTIONS)
    net.train_on_batch(X[:8], Y[:8])
    for layer in (0, 1, 3):
        assert (bits(net, layer) == before[layer]) == (layer in frozen)


@pytest.mark.float64
def test_gradients_are_right_around_a_frozen_layer(backend):
    for frozen in ((0,), (1,), (3,)):
        net = network(backend, frozen, dtype="float64")
        check_gradients(net, X[:6] / 255, Y[:6], loss="softmax_cross_entropy", samples=6)


def test_learned_layers_follow_plain_sgd(backend):
    """One step of SGD: the other layers change as if none were frozen."""
    whole, part = network(backend), network(backend, (1,))
    for net in (whole, part):
        net.train_on_batch(X, Y, loss="softmax_cross_entropy", optimizer=nn.SGD(0.1))
    for layer in (0, 3):
        for name in (f"layers.{layer}.weight", f"layers.{layer}.bias"):
            np.testing.assert_allclose(part.get_weights()[name], whole.get_weights()[name], rtol=1e-6, atol=1e-7)


def test_initial_weights_do_not_depend_on_what_is_frozen():
    assert same_weights(network(), network(frozen=(0, 3)))


def test_a_layer_may_be_frozen_and_unfrozen_between_runs(backend):
    """Slots of the optimiser are kept by name; those of unfrozen layers start at zero."""
    net, optimizer = network(backend), nn.Adam(0.01)
    net.fit(X, Y, epochs=1, optimizer=optimizer, **OPTIONS)
    before, kept, slots = net.get_weights(), bits(net, 0), slots_of(net)
    net.predict(X)
    net.layers[0].trainable = False
    assert net.parameter_count == 9 * 7 + 7 + 7 * 4 + 4
    assert net.state_count == 12 * 9 + 9
    with net.in_training():
        assert {name: array.tobytes() for name, array in net.get_weights().items()} == {
            name: array.tobytes() for name, array in before.items()
        }
        assert slots_of(net) == {name: value for name, value in slots.items() if not name.startswith("layers.0")}
    net.fit(X, Y, epochs=1, optimizer=optimizer, **OPTIONS)
    assert bits(net, 0) == kept
    assert net.optimizer_state.steps == 10
    net.layers[0].trainable = True
    with net.in_training():
        assert not any(any(value) for name, value in slots_of(net).items() if name.startswith("layers.0"))
    net.fit(X, Y, epochs=1, optimizer=optimizer, **OPTIONS)
    assert bits(net, 0) != kept
    assert net.state_count == 0


def slots_of(net):
    trained = net.model.layout.trainable
    return {
        f"{name}.{slot}": array.tobytes()
        for slot, buffer in net.optimizer_state.slots.items()
        for name, array in trained.unpack(net.backend.to_host(buffer)).items()
    }


def test_frozen_again_is_as_if_it_had_always_been(backend):
    """The recorded step of `train_on_batch` and the predictor follow."""
    one, other = network(backend), network(backend, (1,))
    one.predict(X)
    one.layers[1].trainable = False
    optimizers = nn.SGD(0.1, momentum=0.9), nn.SGD(0.1, momentum=0.9)
    for net, optimizer in zip((one, other), optimizers, strict=True):
        for start in (0, 16, 32):
            net.train_on_batch(X[start : start + 16], Y[start : start + 16], optimizer=optimizer, loss=OPTIONS["loss"])
    assert same_weights(one, other)
    np.testing.assert_array_equal(one.predict(X), other.predict(X))


def test_snapshots_are_restored_by_name_after_freezing(backend):
    net = network(backend)
    net.fit(X, Y, epochs=1, **OPTIONS)
    kept, weights = net.snapshot(), net.get_weights()
    net.layers[0].trainable = False
    net.fit(X, Y, epochs=1, **OPTIONS)
    assert net.snapshot(into=kept) is kept
    net.restore(kept)
    net.layers[3].trainable = False
    net.fit(X, Y, epochs=1, **OPTIONS)
    net.layers[0].trainable = net.layers[3].trainable = True
    net.set_weights(weights)
    first = net.snapshot()
    net.layers[1].trainable = False
    net.fit(X, Y, epochs=1, **OPTIONS)
    net.restore(first)
    for name, value in weights.items():
        np.testing.assert_array_equal(net.get_weights()[name], value)
    other = nn.Network([nn.Dense(4)], 12, backend=backend)
    with pytest.raises(InvalidInputError, match=r"restore takes what snapshot\(\)"):
        other.restore(first)


class Unaware(nn.Layer):
    """A user-defined layer of operations of the contract that does not support freezing."""

    def __init__(self, units):
        self.units = units

    def output_shape(self, input_shape):
        return (self.units,)

    def parameters(self, input_shape):
        shape = (*input_shape, self.units)
        return (nn.Parameter("weight", shape, nn.HeNormal()), nn.Parameter("bias", shape[1:], nn.Zeros()))

    def forward(self, step, x):
        out = step.buffer(self.units)
        step.record("dense_forward", x, step.parameter("weight"), step.parameter("bias"), "identity", 0.0, None, out)
        return out, x

    def backward(self, step, saved, upstream, need_input_gradient):
        downstream = step.buffer(saved.shape[1])
        if need_input_gradient:
            step.record("dense_input_gradient", upstream, step.parameter("weight"), downstream)
        step.record("dense_weight_gradient", saved, upstream, step.gradient("weight"))
        step.record("bias_gradient", upstream, step.gradient("bias"))
        return downstream

    def config(self):
        return {"units": self.units}


@pytest.mark.parametrize("optimizer", [lambda: nn.SGD(0.1), lambda: nn.AdamW(0.01, weight_decay=0.1)])
def test_a_layer_unaware_of_freezing_can_be_frozen(backend, optimizer):
    nets = []
    first = nn.Network([nn.Dense(9, activation="relu"), nn.Dense(7), nn.Dense(4)], 12, "numpy", seed=3).get_weights()
    for kind in (Unaware, nn.Dense):
        layers = [nn.Dense(9, activation="relu"), kind(7), nn.Dense(4)]
        net = nn.Network(layers, 12, backend=backend, seed=3)
        net.layers[1].trainable = False
        net.set_weights(first)
        kept = bits(net, 1)
        net.fit(X, Y, epochs=2, optimizer=optimizer(), **OPTIONS)
        assert bits(net, 1) == kept
        nets.append(net)
    for name, value in nets[0].get_weights().items():
        np.testing.assert_allclose(value, nets[1].get_weights()[name], rtol=1e-4, atol=1e-6)
    config = nets[0].config()
    assert config["layers"][1] == {"kind": "unaware", "units": 7, "trainable": False}
    again = nn.Network.from_config(config, "numpy", custom_layers=[Unaware])
    assert not again.layers[1].trainable


# ---- one backend is enough -------------------------------------------------------------------------------------------


def test_penalties_of_frozen_layers_do_not_count():
    net = network(frozen=(0, 1))
    assert net.penalty() == 0
    assert network(frozen=(0,)).penalty() < network().penalty()


def test_the_loss_of_an_evaluation_follows_what_is_frozen_now():
    net = network()
    net.fit(X, Y, epochs=1, **OPTIONS)
    net.layers[0].trainable = False
    assert net.evaluate(X, Y) == copy.deepcopy(net).evaluate(X, Y)


@pytest.mark.parametrize(
    ("frozen", "products"),
    [
        ((), ["input", "weight", "input", "weight", "weight"]),
        ((0,), ["input", "weight", "weight"]),
        ((1,), ["input", "weight", "input", "weight"]),
        ((0, 1), ["weight"]),
        ((3,), ["input", "input", "weight", "weight"]),
    ],
)
def test_unneeded_gradients_are_not_recorded(frozen, products):
    class Watching(NumpyBackend):
        def executor(self, calls):
            recorded.extend(call.operation for call in calls)
            return super().executor(calls)

    recorded = []
    network(Watching(), frozen).train_on_batch(X, Y, loss=OPTIONS["loss"])
    found = [name.split("_")[1] for name in recorded if name in ("dense_input_gradient", "dense_weight_gradient")]
    assert found == products
    assert recorded.count("weight_penalty") == 2 - len({0, 1} & set(frozen))


def test_all_layers_frozen_is_an_error_before_anything_changes():
    net = network(frozen=(0, 1, 3))
    for train in (lambda: net.fit(X, Y, **OPTIONS), lambda: net.train_on_batch(X, Y, loss=OPTIONS["loss"])):
        with pytest.raises(InvalidInputError, match="all layers with parameters are frozen"):
            train()
    assert net.loss is None
    assert net.evaluate(X, Y, loss=OPTIONS["loss"])["loss"] > 0
    net.layers[0].trainable = True
    net.fit(X, Y, epochs=1, **OPTIONS)


@pytest.mark.parametrize("layers", [[nn.Flatten()], [nn.Dropout(0.5), nn.Activation("tanh")]])
def test_a_network_without_parameters_has_nothing_to_train(layers):
    net = nn.Network(layers, X.shape[1], backend="numpy")
    for train in (lambda: net.fit(X, X, loss=MSE), lambda: net.train_on_batch(X, X, loss=MSE)):
        with pytest.raises(
            InvalidInputError, match=r"has parameters, so there is nothing to train; add .* such as Dense"
        ):
            train()
    assert net.loss is None
    assert net.steps_trained == 0


def test_trainable_cannot_change_during_training():
    class Thaw(nn.Callback):
        def on_epoch_end(self, network, epoch, metrics):
            network.layers[0].trainable = False

    net = network()
    with pytest.raises(InvalidInputError, match=r"trainable of Dense.* cannot be changed during training"):
        net.fit(X, Y, epochs=3, callbacks=[Thaw()], **OPTIONS)
    assert net.layers[0].trainable
    net.layers[0].trainable = False


@pytest.mark.parametrize("value", [None, 1, "no"])
def test_trainable_is_true_or_false(value):
    with pytest.raises(InvalidInputError, match="trainable must be True or False"):
        nn.Dense(3, trainable=value)
    with pytest.raises(InvalidInputError, match="trainable must be True or False"):
        nn.Flatten(trainable=value)


@pytest.mark.parametrize("how", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net)), "file"])
def test_copies_and_files_keep_what_is_frozen(how, tmp_path):
    net = network(frozen=(1, 2))
    if how == "file":
        net.save(tmp_path / "net.safetensors")
        again = nn.Network.load(tmp_path / "net.safetensors", backend="numpy")
    else:
        again = how(net)
    assert [layer.trainable for layer in again.layers] == [True, False, False, True]
    assert same_weights(net, again)
    for each in (net, again):
        each.fit(X, Y, epochs=1, **OPTIONS)
    assert same_weights(net, again)


def test_a_network_moves_to_another_backend_with_what_is_frozen(backend):
    net, stays = network("numpy", (1,)), network("numpy", (1,))
    optimizers = nn.Adam(0.01), nn.Adam(0.01)
    for each, optimizer in zip((net, stays), optimizers, strict=True):
        each.fit(X, Y, epochs=1, optimizer=optimizer, **OPTIONS)
    net.layers[0].trainable = stays.layers[0].trainable = False
    net.to(backend)
    kept = bits(net, 0), bits(net, 1)
    for each, optimizer in zip((net, stays), optimizers, strict=True):
        each.fit(X, Y, epochs=1, optimizer=optimizer, **OPTIONS)
    assert (bits(net, 0), bits(net, 1)) == kept
    for name, value in net.get_weights().items():
        np.testing.assert_allclose(value, stays.get_weights()[name], rtol=1e-4, atol=1e-6)


def test_a_resumed_run_has_the_same_layers_frozen(tmp_path):
    whole = network(frozen=(1,))
    whole.fit(X, Y, epochs=4, optimizer=nn.Adam(0.01), **OPTIONS)
    for epochs in (2, 4):
        net = network(frozen=(1,))
        net.fit(X, Y, epochs=epochs, optimizer=nn.Adam(0.01), callbacks=[nn.Checkpoint(tmp_path)], resume=True,
                **OPTIONS)  # fmt: skip
    assert same_weights(net, whole)
    with pytest.raises(InvalidInputError, match=r"layers\[1\].trainable was False there and is missing here\. "):
        network().fit(X, Y, epochs=5, optimizer=nn.Adam(0.01), callbacks=[nn.Checkpoint(tmp_path)], resume=True,
                      **OPTIONS)  # fmt: skip


def test_the_summary_says_what_is_not_trained():
    text = network(frozen=(0,)).summary()
    assert "0: Dense(9, activation='relu', l1=0.01, l2=0.1, trainable=False)" in text
    assert "102 trained, 117 not" in text
    assert "trained" not in network().summary()
