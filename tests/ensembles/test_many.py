"""Networks that train together have the bits that each has alone."""

from __future__ import annotations

import copy
import functools
import threading
import tracemalloc
from typing import ClassVar

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.backends.numba.backend import NumbaBackend
from nnbackend.backends.numba.executor import Team
from nnbackend.training.run import TrainingRun
from tests.ensembles.forty import DIVERGES, WEIGHTS, X, Y, assert_same, members, together
from tests.helpers import classifier, convolutional_network, rich_network, same_weights
from tests.training.test_fit import OPTIMIZERS

LOSS = "softmax_cross_entropy"


@functools.cache
def alone(backend):
    return [member.alone(backend) for member in members()]


@pytest.mark.parametrize(("name", "threads"), [("numpy", 1), *(("numba", threads) for threads in (1, 2, 3, 8))])
def test_forty_networks_have_the_bits_of_their_lone_runs(name, threads):
    backend = nn.get_backend("numpy") if name == "numpy" else NumbaBackend(threads)
    networks, histories = together(backend, members())
    for place, (network, history) in enumerate(zip(networks, histories, strict=True)):
        assert_same(alone(name)[place], network, history, f"network {place}")
    assert [place for place, history in enumerate(histories) if history.error is not None] == [DIVERGES]
    assert any(history.stopped_by for history in histories)


def test_every_backend(backend):
    chosen = members(5)
    lone = [member.alone(backend) for member in members(5)]
    networks, histories = together(backend, chosen)
    for known, network, history in zip(lone, networks, histories, strict=True):
        assert_same(known, network, history)


def _mixed(backend):
    layers = [
        nn.Reshape((3, 4, 1)),
        nn.Conv2D(5, 2, padding="same", activation="relu"),
        nn.MaxPool2D(2),
        nn.Residual([nn.Conv2D(5, 1), nn.LayerNormalization()]),
        nn.Flatten(),
        nn.Dense(7, activation="gelu", trainable=False),
        nn.Dropout(0.3),
        nn.Dense(4, l1=1e-4),
    ]
    return nn.Network(layers, 12, backend=backend)


@pytest.mark.parametrize("make", [rich_network, convolutional_network, _mixed])
@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam", "rmsprop"])
def test_equal_networks_share_recorded_steps(make, optimizer, monkeypatch):
    """More of them than are in progress at a time; seeds, rows, weights and validation rows differ."""
    recorded = []
    monkeypatch.setattr(TrainingRun, "_make_executor", _noting(TrainingRun._make_executor, recorded))
    backend = NumbaBackend(2)

    def network(seed):
        return nn.Network.from_config(make(backend).config(), backend, seed=seed)

    draw = np.random.default_rng(0)
    folds = [draw.permutation(len(X)) for _ in range(12)]
    networks = [network(seed) for seed in range(12)]
    options = {"epochs": 2, "batch_size": 20, "loss": LOSS, "class_weight": "balanced"}
    rows, others = [fold[:150] for fold in folds], [fold[150:] for fold in folds]
    histories = nn.fit_many(
        networks, X, Y, optimizer=OPTIMIZERS[optimizer](), rows=rows, validation_rows=others, **options
    )
    # For full batches and the last one, for each of four in progress.
    assert len(recorded) == 8
    for seed, (trained, history) in enumerate(zip(networks, histories, strict=True)):
        expected = network(seed)
        known = expected.fit(
            X[rows[seed]],
            Y[rows[seed]],
            optimizer=OPTIMIZERS[optimizer](),
            validation_data=(X[others[seed]], Y[others[seed]]),
            **options,
        )
        assert_same((expected, known), trained, history, f"network {seed}")


def _noting(function, calls):
    def noting(*arguments):
        calls.append(arguments)
        return function(*arguments)

    return noting


def test_one_value_for_all():
    networks = [classifier(seed=seed) for seed in range(3)]
    optimizer = nn.SGD(nn.ReduceOnPlateau(0.1, monitor="loss", patience=1))
    options = {"epochs": 3, "loss": LOSS, "sample_weight": WEIGHTS, "class_weight": "balanced"}
    nn.fit_many(networks, X, Y, optimizer=optimizer, **options)
    for seed, network in enumerate(networks):
        expected = classifier(seed=seed)
        expected.fit(X, Y, optimizer=copy.deepcopy(optimizer), **options)
        assert same_weights(expected, network)
        assert network.optimizer is not optimizer


def test_a_plain_list_has_one_value_for_each():
    networks = [classifier() for _ in range(3)]
    histories = nn.fit_many(networks, X, Y, epochs=[1, 2, 3], batch_size=[8, 16, 32], loss=LOSS, optimizer=["sgd"] * 3)
    assert [len(history) for history in histories] == [1, 2, 3]
    assert [network.steps_trained for network in networks] == [29, 2 * 15, 3 * 8]


def test_rows_are_numbers_or_a_mask_for_all_or_for_each():
    mask = np.arange(len(X)) % 3 == 0
    numbers = np.flatnonzero(mask)
    trained = []
    for rows in (mask, numbers, numbers.tolist(), [mask, numbers], nn.PerNetwork([numbers.tolist(), mask])):
        networks = [classifier() for _ in range(2)]
        nn.fit_many(networks, X, Y, epochs=2, loss=LOSS, rows=rows)
        trained += networks
    expected = classifier()
    expected.fit(X[mask], Y[mask], epochs=2, loss=LOSS)
    assert all(same_weights(expected, network) for network in trained)


@pytest.mark.parametrize("weighted", [False, True])
def test_validation_data(weighted):
    others = (X[:40], Y[:40], WEIGHTS[:40]) if weighted else (X[:40], Y[:40])
    networks = [classifier(seed=seed) for seed in range(2)]
    histories = nn.fit_many(networks, X, Y, epochs=2, loss=LOSS, validation_data=others)
    for seed, (network, history) in enumerate(zip(networks, histories, strict=True)):
        expected = classifier(seed=seed)
        known = expected.fit(X, Y, epochs=2, loss=LOSS, validation_data=others)
        assert_same((expected, known), network, history)


@pytest.mark.float64
def test_dtypes_and_shapes_of_samples_may_differ():
    def networks():
        image = [nn.Conv2D(3, 2), nn.Flatten(), nn.Dense(4)]
        return [
            classifier(dtype="float64"),
            classifier(),
            nn.Network(image, (3, 4, 1), backend="numpy", input_scale=1 / 255),
        ]

    trained = networks()
    nn.fit_many(trained, X, Y, epochs=2, loss=LOSS)
    for expected, network in zip(networks(), trained, strict=True):
        expected.fit(X, Y, epochs=2, loss=LOSS)
        assert same_weights(expected, network)


def test_a_network_continues_with_its_optimiser():
    networks, expected = ([classifier(seed=seed) for seed in range(2)] for _ in range(2))
    nn.fit_many(networks, X, Y, epochs=2, loss=LOSS, optimizer=nn.Adam(0.01))
    nn.fit_many(networks, X, Y, epochs=2, optimizer=[network.optimizer for network in networks])
    for network in expected:
        optimizer = nn.Adam(0.01)
        network.fit(X, Y, epochs=2, loss=LOSS, optimizer=optimizer)
        network.fit(X, Y, epochs=2, optimizer=optimizer)
    assert all(same_weights(*pair) for pair in zip(networks, expected, strict=True))


@pytest.mark.parametrize(("count", "threads", "most"), [(1, 2, 2), (5, 2, 2), (2, 5, 5), (3, 7, 7)])
def test_networks_share_the_threads_that_would_have_nothing_to_do(count, threads, most, monkeypatch):
    """While as many networks train as there are threads, each has one; the last one has all."""
    shared = []
    monkeypatch.setattr(Team, "run_together", _noting(Team.run_together, shared))
    draw = np.random.default_rng(0)
    x, y = draw.random((300, 200), np.float32), draw.integers(0, 4, 300)
    backend = NumbaBackend(threads)
    networks = [
        nn.Network([nn.Dense(700, activation="relu"), nn.Dense(4)], 200, backend=backend, seed=seed)
        for seed in range(count)
    ]
    options = {"batch_size": 100, "loss": LOSS, "optimizer": nn.SGD(0.1)}
    # Enough that the first network is also the last one where a thread of another has to wait for a core.
    epochs = 100
    nn.fit_many(networks, x, y, epochs=[epochs, *[2] * (count - 1)], **options)
    numbers = [number for _, _, _, number in shared]
    if count > threads:
        # Of all epochs, those of the last network.
        assert len(numbers) <= epochs
    else:
        assert numbers[0] == threads // count
    assert numbers[-1] == max(numbers) == most
    expected = nn.Network([nn.Dense(700, activation="relu"), nn.Dense(4)], 200, backend="numba", seed=0)
    expected.fit(x, y, epochs=epochs, **options)
    assert same_weights(expected, networks[0])


class Raises(nn.Callback):
    """Raises an error in the second epoch."""

    def on_epoch_end(self, network, epoch, metrics):
        if epoch == 2:
            raise ZeroDivisionError("in a callback")


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_a_callback_that_fails_ends_only_its_network(backend):
    networks = [classifier(backend, seed=seed) for seed in range(3)]
    histories = nn.fit_many(networks, X, Y, epochs=3, loss=LOSS, callbacks=nn.PerNetwork([[], [Raises()], []]))
    assert [len(history) for history in histories] == [3, 2, 3]
    assert isinstance(histories[1].error, ZeroDivisionError)
    assert [history.error for history in histories[::2]] == [None, None]
    # It can be trained again.
    networks[1].fit(X, Y, epochs=1)


class Threads(nn.Callback):
    """Has no state of its own: notes the threads that call it."""

    seen: ClassVar[set[int]] = set()

    def on_epoch_begin(self, network, epoch):
        self.seen.add(threading.get_ident())

    def on_epoch_end(self, network, epoch, metrics):
        self.seen.add(threading.get_ident())


def test_callbacks_are_called_in_the_calling_thread():
    backend = NumbaBackend(3)
    networks = [classifier(backend, seed=seed) for seed in range(5)]
    nn.fit_many(networks, X, Y, epochs=3, loss=LOSS, callbacks=[Threads()])
    assert Threads.seen == {threading.get_ident()}


class OwnSchedule(nn.Schedule):
    """A user-defined schedule that notes the threads that call it."""

    threads: ClassVar[set[int]] = set()

    def rate(self, epoch):
        self.threads.add(threading.get_ident())
        return 0.1


def test_schedules_of_the_user_are_called_in_the_calling_thread():
    networks = [classifier(NumbaBackend(3), seed=0)]
    networks += [classifier(networks[0].backend, seed=seed) for seed in range(1, 4)]
    optimizer = nn.SGD(nn.Warmup(1, OwnSchedule()))
    nn.fit_many(networks, X, Y, epochs=2, loss=LOSS, optimizer=optimizer)
    assert OwnSchedule.threads == {threading.get_ident()}


class Own(nn.Layer):
    """A user-defined layer that notes the threads that call its function."""

    threads: ClassVar[set[int]] = set()

    def forward(self, step, x):
        out = step.like(x)
        step.call(self.copy, x, out)
        return out, None

    @staticmethod
    def copy(backend, x, out):
        Own.threads.add(threading.get_ident())
        out[...] = x

    def backward(self, step, saved, upstream, need_input_gradient):
        return upstream


def test_functions_of_own_layers_are_called_in_the_calling_thread():
    backend = NumbaBackend(3)

    def network(seed):
        return nn.Network([nn.Dense(5), Own(), nn.Dense(4)], 12, backend=backend, seed=seed)

    networks = [network(seed) for seed in range(3)]
    nn.fit_many(networks, X, Y, epochs=2, loss=LOSS, validation_rows=np.arange(20))
    assert Own.threads == {threading.get_ident()}
    expected = network(2)
    expected.fit(X, Y, epochs=2, loss=LOSS)
    assert same_weights(expected, networks[2])


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_the_rows_are_in_memory_once(backend):
    """Sixty networks on forty megabytes."""
    draw = np.random.default_rng(0)
    x, y = draw.random((50_000, 200), np.float32), draw.integers(0, 2, 50_000)
    networks = [nn.Network([nn.Dense(2)], 200, backend=backend, seed=seed) for seed in range(60)]
    rows = [draw.permutation(len(x))[:128] for _ in networks]
    classifier(backend).fit(X, Y, epochs=1, loss=LOSS)
    tracemalloc.start()
    nn.fit_many(networks, x, y, epochs=1, loss=LOSS, rows=rows, validation_rows=rows[0], optimizer="sgd")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < x.nbytes / 2


def test_networks_with_augmentation_momenta_and_batch_statistics(backend):
    """Some share recorded steps; those that draw transformations or have momenta of a schedule must not."""
    generator = np.random.default_rng(0)
    x, y = generator.random((60, 8, 8, 1), np.float32), generator.integers(0, 3, 60)
    optimizers = [
        lambda: nn.Adam(nn.OneCycle(1e-2, epochs=2)),
        lambda: nn.SGD(nn.OneCycle(0.1, epochs=2), momentum=0.8),
        lambda: nn.SGD(0.05, momentum=0.9),
    ]
    augmentations = [(), (), [nn.augment.Shift(1)], [nn.augment.Rotate(10), nn.augment.Elastic(3, 1.5)]]

    def network(seed: int) -> nn.Network:
        layers = [nn.Conv2D(3, 3), nn.BatchNormalization(), nn.MaxPool2D(2), nn.Flatten(), nn.Dropout(0.2), nn.Dense(3)]
        return nn.Network(layers, (8, 8, 1), backend=backend, seed=seed)

    settings = {"epochs": 2, "batch_size": 16, "loss": LOSS, "validation_data": (x[:20], y[:20]), "verbose": False}
    networks = [network(seed) for seed in range(12)]
    histories = nn.fit_many(
        networks,
        x,
        y,
        optimizer=[optimizers[seed % 3]() for seed in range(12)],
        augment=nn.PerNetwork([augmentations[seed % 4] for seed in range(12)]),
        **settings,
    )
    for seed, (trained, history) in enumerate(zip(networks, histories, strict=True)):
        lone = network(seed)
        expected = lone.fit(x, y, optimizer=optimizers[seed % 3](), augment=augmentations[seed % 4], **settings)
        assert_same((lone, expected), trained, history, f"network {seed}")
