"""Training, on every backend, against the same training on float64 NumPy."""

from __future__ import annotations

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.errors import InvalidInputError, TrainingDivergedError
from tests.helpers import classifier, images, rich_network, same_weights

OPTIMIZERS = {
    "sgd": lambda: nn.SGD(0.5),
    "momentum": lambda: nn.SGD(0.1, momentum=0.9),
    "nesterov": lambda: nn.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=1e-3),
    "adam": lambda: nn.Adam(0.01),
    "adam-decay": lambda: nn.Adam(0.01, weight_decay=1e-2),
    "adamw": lambda: nn.AdamW(0.01, weight_decay=0.1),
    "rmsprop": lambda: nn.RMSprop(0.003),
    "lion": lambda: nn.Lion(3e-4, weight_decay=0.1),
}


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("float64", 1e-9)])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_first_steps_agree_with_the_reference(backend, optimizer, dtype, tolerance):
    x, y = images(rows=70)
    histories = []
    for where, real in (("numpy", "float64"), (backend, dtype)):
        net = rich_network(where, real)
        # 70 rows in batches of 16: four full ones and a last one of 6.
        histories.append(
            net.fit(
                x,
                y,
                epochs=4,
                batch_size=16,
                loss="softmax_cross_entropy",
                optimizer=OPTIMIZERS[optimizer](),
                sample_weight=np.linspace(0.5, 2, 70),
                class_weight={0: 2.0},
            )
        )
    reference, losses = (np.concatenate(history.step_losses) for history in histories)
    assert len(reference) == 20
    np.testing.assert_allclose(losses, reference, rtol=tolerance, atol=tolerance)


def test_it_learns(backend):
    x, y = images(rows=200)
    net = classifier(backend)
    before = net.evaluate(x, y, loss="softmax_cross_entropy")
    net.fit(x, y, epochs=12, batch_size=20, loss="softmax_cross_entropy", optimizer=nn.Adam(0.02))
    after = net.evaluate(x, y)
    assert after["loss"] < before["loss"] / 3
    assert after["accuracy"] > 0.95
    assert np.mean(net.predict_classes(x) == y) == pytest.approx(after["accuracy"])


def test_regression_learns(backend):
    generator = np.random.default_rng(0)
    x = generator.uniform(-1, 1, (120, 3))
    y = x @ [1.0, -2.0, 0.5] + 0.3
    net = nn.Network([nn.Dense(16, activation="tanh"), nn.Dense(1)], 3, backend=backend)
    net.fit(x, y, epochs=60, batch_size=24, loss="mean_squared_error", optimizer=nn.Adam(0.02))
    metrics = net.evaluate(x, y)
    assert metrics["loss"] < 0.02
    assert "accuracy" not in metrics
    assert np.abs(net.predict(x)[:, 0] - y).max() < 0.6


def test_binary_outputs_are_learned(backend):
    x, y = images(rows=160, classes=2)
    net = nn.Network([nn.Dense(6, activation="tanh"), nn.Dense(1)], 12, backend=backend)
    net.fit(x, y, epochs=10, batch_size=16, loss="sigmoid_cross_entropy", optimizer=nn.Adam(0.03))
    assert net.evaluate(x, y)["accuracy"] > 0.95
    probabilities = net.predict(x)
    assert probabilities.shape == (160, 1)
    assert np.mean(net.predict_classes(x) == y) > 0.95


def test_the_last_shorter_batch_is_trained_on(backend):
    x, y = images(rows=10)
    net = classifier(backend)
    history = net.fit(x, y, epochs=1, batch_size=8, loss="softmax_cross_entropy", optimizer=nn.SGD(0.1), shuffle=False)
    reference = classifier("numpy", dtype="float64")
    for part in (slice(0, 8), slice(8, 10)):
        reference.fit(
            x[part], y[part], epochs=1, batch_size=len(y[part]), loss="softmax_cross_entropy", optimizer=nn.SGD(0.1),
            shuffle=False,
        )  # fmt: skip
    assert len(history.step_losses[0]) == 2
    for name, weight in reference.get_weights().items():
        np.testing.assert_allclose(net.get_weights()[name], weight, rtol=1e-4, atol=1e-6)


def test_an_epoch_s_loss_is_the_mean_over_rows_not_over_batches(backend):
    x, y = images(rows=10)
    net = classifier(backend)
    history = net.fit(x, y, epochs=1, batch_size=8, loss="softmax_cross_entropy", optimizer=nn.SGD(0.0), shuffle=False)
    assert history["loss"][0] == pytest.approx(net.evaluate(x, y)["loss"], rel=1e-5)
    assert history["accuracy"][0] == pytest.approx(net.evaluate(x, y)["accuracy"], rel=1e-6)


def test_a_step_s_loss_is_the_mean_over_its_own_rows(backend):
    x, y = images(rows=10)
    net = classifier(backend)
    history = net.fit(x, y, epochs=1, batch_size=8, loss="softmax_cross_entropy", optimizer=nn.SGD(0.0), shuffle=False)
    expected = [net.evaluate(x[part], y[part])["loss"] for part in (slice(0, 8), slice(8, 10))]
    np.testing.assert_allclose(history.step_losses[0], expected, rtol=1e-5)


@pytest.mark.float64
def test_softmax_regression_with_adam_is_what_the_textbook_says(backend):
    """A textbook implementation that uses only the package's initial weights and batch order."""
    from nnbackend.data.order import epoch_order

    x, y = images(rows=30)
    net = nn.Network([nn.Dense(4)], 12, backend=backend, dtype="float64")
    weight, bias = (array.copy() for array in net.get_weights().values())
    net.fit(x, y, epochs=3, batch_size=8, loss="softmax_cross_entropy", optimizer=nn.Adam(0.01))

    moments = [[np.zeros_like(value), np.zeros_like(value)] for value in (weight, bias)]
    t = 0
    for epoch in range(3):
        order = epoch_order(0, epoch, 30)
        for start in range(0, 30, 8):
            rows = order[start : start + 8]
            inputs, t = x[rows] / 255, t + 1
            exponentials = np.exp(inputs @ weight + bias)
            delta = (exponentials / exponentials.sum(axis=1, keepdims=True) - np.eye(4)[y[rows]]) / len(rows)
            for value, gradient, (m, v) in zip(
                (weight, bias), (inputs.T @ delta, delta.sum(axis=0)), moments, strict=True
            ):
                m[...] = 0.9 * m + 0.1 * gradient
                v[...] = 0.999 * v + 0.001 * gradient**2
                value -= 0.01 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    np.testing.assert_allclose(net.get_weights()["layers.0.weight"], weight, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(net.get_weights()["layers.0.bias"], bias, rtol=1e-9, atol=1e-12)


def test_runs_are_bit_identical(backend):
    x, y = images()
    runs = []
    for _ in range(2):
        net = rich_network(backend, "float32")
        history = net.fit(x, y, epochs=3, batch_size=16, loss="softmax_cross_entropy", optimizer=nn.Adam(0.01))
        runs.append((net, np.concatenate(history.step_losses).tobytes()))
    assert runs[0][1] == runs[1][1]
    assert same_weights(runs[0][0], runs[1][0])


def test_another_seed_is_another_run(backend):
    x, y = images()
    losses = []
    for seed in (0, 1):
        net = classifier(backend, seed=seed)
        losses.append(net.fit(x, y, epochs=1, batch_size=16, loss="softmax_cross_entropy").step_losses[0])
    assert not np.array_equal(*losses)


def test_initial_weights_are_the_same_everywhere(backend):
    assert same_weights(rich_network(backend, "float32"), rich_network("numpy", "float32"))


def test_dropout_masks_differ_from_step_to_step_and_layer_to_layer(backend):
    seen = []

    class Spy(nn.Layer):
        def forward(self, step, x):
            step.call(lambda backend, array: seen.append(backend.to_host(array)), x)
            return x, None

        def backward(self, step, saved, upstream, need_input_gradient):
            return upstream

    layers = [nn.Dropout(0.5), Spy(), nn.Dropout(0.5), Spy(), nn.Dense(2)]
    net = nn.Network(layers, 40, backend=backend)
    net.fit(np.ones((8, 40)), np.zeros(8, int), epochs=2, batch_size=8, loss="softmax_cross_entropy")
    first_layer, second_layer, next_step, _ = (array != 0 for array in seen)
    assert 0.3 < first_layer.mean() < 0.7
    assert not np.array_equal(first_layer, next_step)
    assert second_layer.sum() < first_layer.sum()
    np.testing.assert_allclose(np.unique(seen[0]), [0, 2])


def test_dropout_is_off_when_predicting(backend):
    net = nn.Network([nn.Dropout(0.9), nn.Dense(3)], 12, backend=backend)
    x, _ = images(rows=5)
    plain = nn.Network([nn.Dense(3)], 12, backend=backend)
    plain.set_weights({"layers.0.weight": net.get_weights()["layers.1.weight"], "layers.0.bias": np.zeros(3)})
    np.testing.assert_array_equal(net.predict(x), plain.predict(x))


def test_a_diverging_run_names_epoch_and_step_and_keeps_the_last_good_weights(backend):
    x, y = images()
    net = classifier(backend)

    # The rate jumps in the second epoch, so the first epoch is good.
    class Jump(nn.Schedule):
        def rate(self, epoch):
            return 0.01 if epoch < 1 else 1e38

    good = classifier(backend)
    good.fit(x, y, epochs=1, batch_size=16, loss="softmax_cross_entropy", optimizer=nn.SGD(0.01))
    with pytest.raises(TrainingDivergedError, match=r"epoch 2, step \d of 5") as error:
        net.fit(x, y, epochs=3, batch_size=16, loss="softmax_cross_entropy", optimizer=nn.SGD(Jump()))
    assert (error.value.epoch, error.value.step) == (2, error.value.step)
    assert 1 < error.value.step <= 5
    assert same_weights(net, good)
    # Nothing of the broken run remains, although the slots of its optimiser were NaN.
    rate = nn.Adam(Jump())
    with pytest.raises(TrainingDivergedError):
        net.fit(x, y, epochs=2, batch_size=16, optimizer=rate)
    net.fit(x, y, epochs=1, batch_size=16, optimizer=rate)


def test_weights_that_break_in_the_very_last_step_are_found(backend):
    x, y = images()

    class LastStep(nn.Schedule):
        def rate(self, epoch):
            return 1e39 if epoch >= 0.75 else 0.01

    # In the last epoch, before another epoch, and with a callback that uses the network in between.
    for options in ({"epochs": 1}, {"epochs": 2}, {"epochs": 2, "callbacks": [nn.Callback()]}):
        net = classifier(backend)
        with pytest.raises(TrainingDivergedError, match="in the last step of epoch 1") as error:
            net.fit(x, y, batch_size=16, loss="softmax_cross_entropy", optimizer=nn.SGD(LastStep()), **options)
        assert (error.value.epoch, error.value.step) == (1, 5)
        assert same_weights(net, classifier(backend))


def test_weight_penalties_count_in_the_loss(backend):
    x, y = images()
    net = nn.Network([nn.Dense(4, l1=0.02, l2=0.5)], 12, backend=backend)
    weight = net.get_weights()["layers.0.weight"].astype(float)
    penalty = 0.02 * np.abs(weight).sum() + 0.25 * np.square(weight).sum()
    plain = nn.Network([nn.Dense(4)], 12, backend=backend)
    plain.set_weights(net.get_weights())
    data_loss = plain.evaluate(x, y, loss="softmax_cross_entropy")["loss"]
    assert net.evaluate(x, y, loss="softmax_cross_entropy")["loss"] == pytest.approx(data_loss + penalty, rel=1e-5)
    history = net.fit(
        x, y, epochs=1, batch_size=len(x), loss="softmax_cross_entropy", optimizer=nn.SGD(0.1), validation_data=(x, y)
    )
    assert history["loss"][0] == pytest.approx(data_loss + penalty, rel=1e-5)


def test_training_continues_with_the_same_optimizer_and_restarts_with_another(backend):
    x, y = images()
    options = {"batch_size": 16, "loss": "softmax_cross_entropy"}
    whole, parts, anew = (classifier(backend) for _ in range(3))
    whole.fit(x, y, epochs=4, optimizer=nn.Adam(0.01), **options)
    same = nn.Adam(0.01)
    for _ in range(2):
        parts.fit(x, y, epochs=2, optimizer=same, **options)
        anew.fit(x, y, epochs=2, optimizer=nn.Adam(0.01), **options)
    assert same_weights(whole, parts)
    assert not same_weights(whole, anew)


def test_moving_to_another_backend_midway_changes_nothing_but_rounding(backend):
    x, y = images()
    options = {"batch_size": 16, "loss": "softmax_cross_entropy"}
    moved, stayed = (rich_network("numpy", "float64") for _ in range(2))
    for net in (moved, stayed):
        optimizer = nn.Adam(0.01)
        net.fit(x, y, epochs=2, optimizer=optimizer, **options)
        weights = net.get_weights()
        if net is moved:
            assert net.to(backend) is net
            assert all(np.array_equal(weights[name], value) for name, value in net.get_weights().items())
        net.fit(x, y, epochs=2, optimizer=optimizer, **options)
    for name, value in stayed.get_weights().items():
        np.testing.assert_allclose(moved.get_weights()[name], value, rtol=1e-8, atol=1e-9)


def test_images_of_any_shape_go_through_flatten(backend):
    x, y = images(rows=20)
    net = nn.Network([nn.Flatten(), nn.Dense(5, activation="relu"), nn.Dense(4)], (3, 4), backend=backend)
    net.fit(x.reshape(20, 3, 4), y, epochs=1, batch_size=10, loss="softmax_cross_entropy")
    np.testing.assert_array_equal(net.predict(x.reshape(20, 3, 4)), net.predict(x))


def test_bytes_are_scaled_and_numbers_are_not(backend):
    x, y = images(rows=30)
    options = {"epochs": 2, "batch_size": 10, "loss": "softmax_cross_entropy"}
    as_bytes, as_numbers, raw = (classifier(backend) for _ in range(3))
    as_bytes.fit(x, y, **options)
    as_numbers.fit(x * np.float32(1 / 255), y, **options)
    for name, value in as_bytes.get_weights().items():
        np.testing.assert_allclose(as_numbers.get_weights()[name], value, rtol=1e-5, atol=1e-6)
    raw = classifier(backend, input_scale=1.0)
    np.testing.assert_allclose(raw.predict(x), raw.predict(x.astype(np.float32)), rtol=1e-6)


def test_finite_weights_that_give_no_finite_validation_loss_are_a_divergence(backend):
    x, y = images()
    net = classifier(backend)
    with pytest.raises(TrainingDivergedError, match="validation loss became"):
        net.fit(
            x, y, epochs=1, batch_size=len(x), loss="softmax_cross_entropy", optimizer=nn.SGD(1e30),
            validation_data=(x, y),
        )  # fmt: skip
    assert same_weights(net, classifier(backend))


class Reluctant(nn.Layer):
    """Records a step only while it is willing."""

    willing = True

    def forward(self, step, x):
        wrong = x if self.willing else step.buffer(1)
        return wrong, None

    def backward(self, step, saved, upstream, need_input_gradient):
        return upstream


@pytest.mark.parametrize("train", ["fit", "train_on_batch"])
def test_a_step_that_cannot_be_recorded_changes_neither_loss_nor_optimiser(train):
    x, y = images(rows=8)
    layer, optimizer = Reluctant(), nn.Adam(0.01)
    net = nn.Network([layer, nn.Dense(4)], 12, backend="numpy")
    net.fit(x, y, epochs=1, loss="softmax_cross_entropy", optimizer=optimizer)
    loss, state = net.loss, net.optimizer_state
    layer.willing = False
    with pytest.raises(InvalidInputError, match="forward must return an array of shape"):
        getattr(net, train)(x, np.eye(4)[y], loss="mean_squared_error", optimizer=nn.SGD(0.1))
    assert net.loss is loss
    assert net.optimizer_state is state
