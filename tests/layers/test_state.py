"""State: saved with the network, updated by the layer, unchanged by the optimiser."""

from __future__ import annotations

import re

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.errors import InvalidInputError, ModelFileError, TrainingDivergedError
from nnbackend.saving.model_file import write_model
from nnbackend.testing import check_gradients
from nnbackend.training.ranks import _checksum
from tests.helpers import any_device, images, same_weights
from tests.layers.custom import Convolution, RunningScale

X, Y = images(features=25)
OPTIONS = {"loss": "softmax_cross_entropy", "batch_size": 16, "verbose": False}


def network(backend="numpy", **options):
    layers = [nn.Dense(9, activation="relu"), RunningScale(), nn.Dense(4)]
    return nn.Network(layers, 25, backend=backend, seed=1, **options)


def image_network(backend, **options):
    """A four-axis parameter, two state entries, user-defined functions, and samples with three axes."""
    layers = [
        nn.Dropout(0.1),
        Convolution(3, 2),
        nn.Activation("relu"),
        Convolution(5, 2),
        RunningScale(),
        nn.Flatten(),
        nn.Dense(4),
    ]
    return nn.Network(layers, (5, 5, 1), backend=backend, seed=1, **options)


def mean_of(net):
    return net.get_weights()["layers.1.mean"][0]


def test_running_statistics_are_kept_by_files(backend, tmp_path):
    net = network(backend)
    net.fit(X, Y, epochs=2, **OPTIONS)
    assert mean_of(net) != 1
    net.save(tmp_path / "net.safetensors")
    again = nn.Network.load(tmp_path / "net.safetensors", backend=backend, custom_layers=[RunningScale])
    assert same_weights(net, again)
    np.testing.assert_array_equal(again.predict(X), net.predict(X))


def test_weight_decay_does_not_touch_state(backend):
    net = network(backend)
    net.fit(
        0.0 * X, Y, epochs=1, batch_size=len(X), loss="softmax_cross_entropy", optimizer=nn.SGD(0.5, weight_decay=1)
    )
    # The inputs of the layer are zero, so its mean decreases by a tenth.
    np.testing.assert_allclose(mean_of(net), 0.9, rtol=1e-6)


def test_state_has_an_unused_gradient(backend):
    class Writes(RunningScale):
        def backward(self, step, saved, upstream, need_input_gradient):
            step.record("bias_gradient", upstream, step.buffer(9)[0, :])
            step.call(fill, step.gradient("mean"))
            return super().backward(step, saved, upstream, need_input_gradient)

    @any_device
    def fill(backend, out):
        out[...] = np.nan

    nets = []
    for kind in (RunningScale, Writes):
        net = nn.Network([nn.Dense(9, activation="relu"), kind(), nn.Dense(4)], 25, backend=backend, seed=1)
        net.fit(X, Y, epochs=1, optimizer=nn.Adam(), **OPTIONS)
        nets.append(net)
    assert same_weights(*nets)


def test_a_four_axis_parameter_trains_saves_loads_and_resumes_bit_for_bit(backend, tmp_path):
    images_ = X.reshape(-1, 5, 5, 1)

    def run(epochs, **more):
        net = image_network(backend)
        net.fit(images_, Y, epochs=epochs, optimizer=nn.AdamW(0.01, weight_decay=0.1), **OPTIONS, **more)
        return net

    whole = run(4)
    assert whole.get_weights()["layers.3.weight"].shape == (2, 2, 3, 5)
    assert whole.get_weights()["layers.3.steps"][0] == 4 * 5
    for epochs in (2, 4):
        resumed = run(epochs, callbacks=[nn.Checkpoint(tmp_path / "run", every_steps=3)], resume=True)
    assert same_weights(resumed, whole)
    # The custom functions run from Python, and the calls between them do not.
    fast = {"numba": "compiled, ", "cupy": "graph, "}.get(backend.name)
    padded = backend.row_multiple > 1 and backend.name == "numba"
    assert fast is None or padded or re.search(fast + r"\d+ of \d+ calls from Python", whole.summary())
    whole.save(tmp_path / "net.safetensors")
    again = nn.Network.load(tmp_path / "net.safetensors", backend, custom_layers=[Convolution, RunningScale])
    assert same_weights(again, whole)
    np.testing.assert_array_equal(again.predict(images_), whole.predict(images_))
    reference = image_network("numpy")
    reference.fit(images_, Y, epochs=4, optimizer=nn.AdamW(0.01, weight_decay=0.1), **OPTIONS)
    for name, value in reference.get_weights().items():
        np.testing.assert_allclose(whole.get_weights()[name], value, rtol=1e-3, atol=1e-5)


@pytest.mark.float64
def test_gradients_of_several_axes_are_right(backend):
    layers = [Convolution(3, 2), nn.Activation("tanh"), Convolution(2, 3), nn.Dropout(0.2), nn.Flatten(), nn.Dense(4)]
    net = nn.Network(layers, (5, 5, 1), backend=backend, seed=1, dtype="float64")
    check_gradients(net, X[:6].reshape(-1, 5, 5, 1) / 255, Y[:6], loss="softmax_cross_entropy", samples=8)


@pytest.mark.filterwarnings("ignore:y holds targets up to:UserWarning")
def test_a_skipped_step_leaves_the_state_as_it_was(backend):
    x = X.astype(np.float32)[:64] / 255
    left = np.r_[:16, 32:64]
    targets = np.eye(4)[Y[:64]]
    broken = targets.copy()
    broken[16] = 1e30
    options = {"batch_size": 16, "shuffle": False, "loss": "mean_squared_error", "verbose": False}
    skipping, without = network(backend), network(backend)
    history = skipping.fit(x, broken, epochs=1, on_nan="skip", optimizer=nn.Adam(), **options)
    without.fit(x[left], targets[left], epochs=1, optimizer=nn.Adam(), **options)
    assert history["skipped"] == [1]
    assert same_weights(skipping, without)


def test_restoring_after_a_bad_batch_includes_the_state(backend):
    net = network(backend)
    x = X.astype(np.float32)[:16] / 255
    options = {"loss": "mean_squared_error", "optimizer": nn.SGD(0.01)}
    net.train_on_batch(x, np.eye(4)[Y[:16]], **options)
    before = net.get_weights()
    with pytest.raises(TrainingDivergedError):
        net.train_on_batch(x, 1e30 * np.eye(4)[Y[:16]], **options)
    for name, value in net.get_weights().items():
        np.testing.assert_array_equal(value, before[name])


# ---- one backend is enough -------------------------------------------------------------------------------------------


def test_state_lies_behind_the_parameters():
    layout = network().model.layout
    assert [entry.name for entry in layout.entries][2:4] == ["layers.1.mean", "layers.2.weight"]
    mean = layout.entries[2]
    assert not mean.trainable
    assert mean.offset >= layout.trainable_size
    assert layout.size > layout.trainable_size == layout.trainable.size
    net = network()
    assert (net.parameter_count, net.state_count) == (25 * 9 + 9 + 9 * 4 + 4, 1)
    assert "274 trained, 1 not" in net.summary()


def test_best_epochs_and_snapshots_hold_the_state():
    net = network()
    kept = net.snapshot()
    net.fit(X, Y, epochs=1, **OPTIONS)
    assert mean_of(net) != 1
    net.restore(kept)
    assert mean_of(net) == 1


def test_optimisers_and_gradients_see_only_the_parameters():
    net = network()
    net.fit(X, Y, epochs=1, optimizer=nn.Adam(), **OPTIONS)
    size = net.model.layout.trainable_size
    assert {slot.shape for slot in net.optimizer_state.slots.values()} == {(size,)}


def test_other_initial_weights_do_not_depend_on_state():
    class Learned(RunningScale):
        def parameters(self, input_shape):
            return (nn.Parameter("mean", (1,), nn.Normal(1.0, 0.0)),)

    other = nn.Network([nn.Dense(9, activation="relu"), Learned(), nn.Dense(4)], 25, backend="numpy", seed=1)
    assert same_weights(network(), other)


def test_the_checksum_that_ranks_compare_covers_the_state():
    net = network()
    before = _checksum(net)
    net.set_weights({**net.get_weights(), "layers.1.mean": [2.0]})
    assert _checksum(net) != before


def test_a_negative_running_variance_is_refused(tmp_path):
    """Predictions would be NaN, or far off if epsilon makes up for it."""
    net = nn.Network([nn.BatchNormalization(), nn.Dense(2)], 3, "numpy")
    before = net.get_weights()
    bad = {**before, "layers.0.running_variance": np.array([1, -1e-4, 1], "float32")}
    with pytest.raises(InvalidInputError, match=r"layers.0.running_variance must not be negative, but holds -0.0001"):
        net.set_weights(bad)
    state = nn.interop.torch.state_dict(net, tensors=False)
    state["0.running_var"] = bad["layers.0.running_variance"]
    with pytest.raises(InvalidInputError, match="running_variance must not be negative"):
        nn.interop.torch.load_state_dict(net, state)
    assert all(np.array_equal(before[name], array) for name, array in net.get_weights().items())
    write_model(tmp_path / "net.safetensors", net.config(), bad)
    with pytest.raises(ModelFileError, match="running_variance must not be negative"):
        nn.Network.load(tmp_path / "net.safetensors", "numpy")
