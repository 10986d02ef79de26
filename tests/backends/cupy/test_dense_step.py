"""Whole training steps in two launches: results, independence of the order, and many networks at once."""

from __future__ import annotations

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.backends.cupy import CupyBackend, dense_step, dense_translation
from nnbackend.backends.cupy.dense_step import DenseStepExecutor
from tests.backends.cupy.dense_networks import (
    BATCH,
    FEATURES,
    LOSSES,
    NETWORKS,
    OPTIMIZERS,
    RELU,
    ROWS,
    data,
    network,
    watched,
)
from tests.helpers import images, same_weights

pytestmark = pytest.mark.usefixtures("needs_compiler")


def train(made, optimizer="sgd", kind="softmax_cross_entropy", epochs=2, **options):
    """Its losses; with a shorter last batch."""
    x, y = data(kind)
    given = {**LOSSES[kind], "epochs": epochs, "batch_size": BATCH, "verbose": False, **options}
    return np.concatenate(made.fit(x, y, optimizer=OPTIMIZERS[optimizer](), **given).step_losses)


def assert_agree(one, other, losses, expected, tolerance):
    np.testing.assert_allclose(losses, expected, rtol=tolerance, atol=tolerance)
    for name, array in other.get_weights().items():
        np.testing.assert_allclose(one.get_weights()[name], array, rtol=10 * tolerance, atol=10 * tolerance)


def compare(layers="dropout", optimizer="sgd", kind="softmax_cross_entropy", dtype="float64", **options):
    """Train on the CPU build and with NumPy in float64."""
    backend, log = watched()
    made, reference = network(backend, layers, dtype), network("numpy", layers)
    losses = train(made, optimizer, kind, **options)
    expected = train(reference, optimizer, kind, **options)
    assert_agree(made, reference, losses, expected, {"float32": 1e-4, "float64": 1e-10}[dtype])
    steps = 2 * -(-ROWS // BATCH)
    rows = [name for name in log if name.startswith("rows_")]
    updates = [name for name in log if name.startswith("update_")]
    assert (len(rows), len(updates)) == (steps, steps)
    assert set(log) - {"sum_rows"} == {*rows, *updates}


# ---- the same results as NumPy ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", NETWORKS)
def test_networks(layers):
    compare(layers)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_optimizers(optimizer):
    compare("factors", optimizer)


@pytest.mark.parametrize("kind", LOSSES)
def test_losses(kind):
    compare("one unit", kind=kind, sample_weight=np.linspace(0.5, 1.5, ROWS))


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "rmsprop"])
def test_single_precision(optimizer):
    compare("dropout", optimizer, dtype="float32")


def test_penalties_of_parts_of_a_weight(monkeypatch):
    """Of one row, or of several, with a shorter last part."""
    for part in (1, 100):
        monkeypatch.setattr(dense_translation, "_PART", part)
        compare("penalties", "adam")


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_rows_are_counted_by_class_for_any_loss(smoothing):
    x, y = images(ROWS, FEATURES)
    found = []
    emulated, log = watched()
    for backend in (emulated, "numpy"):
        options = {"epochs": 2, "batch_size": BATCH, "verbose": False, "label_smoothing": smoothing}
        history = network(backend, "frozen").fit(x, y, loss="sigmoid_cross_entropy", **options)
        found.append([*history["accuracy"], *history["loss"]])
    np.testing.assert_allclose(*found, rtol=1e-10)
    assert set(log) == {"rows_1", "update_adam", "sum_rows"}


def test_images_are_rows():
    """The gather writes packed rows of an image, which need not begin at multiples of 16 bytes."""
    x, y = images(ROWS, 6)
    losses = []
    for backend in (watched()[0], "numpy"):
        made = nn.Network([nn.Flatten(), nn.Dense(9, **RELU), nn.Dense(4)], (2, 3, 1), backend=backend, dtype="float64")
        options = {"epochs": 2, "batch_size": BATCH, "verbose": False}
        history = made.fit(x.reshape(-1, 2, 3, 1), y, loss="softmax_cross_entropy", optimizer=nn.SGD(0.1), **options)
        losses.append(np.concatenate(history.step_losses))
    assert isinstance(made, nn.Network)
    np.testing.assert_allclose(*losses, rtol=1e-10)


@pytest.mark.parametrize("batch_size", [1, 70, 300])
def test_batches_of_one_row_and_of_more_than_a_block_has_threads(batch_size):
    x, y = images(310, FEATURES)
    found = []
    for backend in (watched()[0], "numpy"):
        made = network(backend, "frozen")
        options = {"epochs": 2, "steps_per_epoch": 2, "batch_size": batch_size, "verbose": False}
        history = made.fit(x, y, loss="softmax_cross_entropy", optimizer=nn.Adam(0.01), **options)
        found.append(
            [*history["loss"], *history["accuracy"], *np.concatenate([*map(np.ravel, made.get_weights().values())])]
        )
    np.testing.assert_allclose(*found, rtol=1e-9, atol=1e-9)


def test_rows_that_arrive_in_portions():
    found = []
    for backend in (watched()[0], "numpy"):
        made = network(backend, "frozen")
        train(made, stream=True)
        found.append(made.get_weights())
    for name, array in found[1].items():
        np.testing.assert_allclose(found[0][name], array, rtol=1e-9, atol=1e-9)


def test_divergence_is_noticed():
    x, y = data("squared")
    with pytest.raises(nn.errors.TrainingDivergedError):
        network(watched()[0], "dropout", "float32").fit(x, y, loss="mean_squared_error", optimizer=nn.SGD(1e30),
                                                        verbose=False)  # fmt: skip


# ---- the same bits in any order ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "order", [{"reverse_threads": True, "interleave": 2}, {"reverse_blocks": True, "interleave": 1}]
)
@pytest.mark.parametrize("layers", ["dropout", "activations apart", "table"])
def test_the_order_of_threads_and_blocks_does_not_matter(layers, order):
    made = [network(watched(**kind)[0], layers, "float32") for kind in ({}, order)]
    first, second = (train(each, "adam") for each in made)
    assert first.tobytes() == second.tobytes()
    assert same_weights(*made)


@pytest.mark.parametrize(
    "order", [{"reverse_threads": True, "interleave": 2}, {"reverse_blocks": True, "interleave": 1}]
)
def test_nor_with_rows_for_all_warps(order):
    x, y = images(270, FEATURES)
    found = []
    for kind in ({}, order):
        history = network(watched(**kind)[0], "penalties", "float32").fit(
            x, y, epochs=1, batch_size=270, loss="softmax_cross_entropy", verbose=False
        )
        found.append((history["loss"], history["accuracy"]))
    assert found[0] == found[1]


@pytest.mark.parametrize("layers", ["dropout", "table"])
@pytest.mark.parametrize(("dtype", "rows"), [("float32", 4), ("float64", 4), ("float32", 2)])
def test_rows_of_a_block_do_not_change_bits(dtype, rows, layers, monkeypatch):
    few, log_of_few = watched()
    one = network(few, layers, dtype)
    first = train(one)
    monkeypatch.setattr(dense_step, "_ENOUGH_BLOCKS", BATCH // rows)
    many, log_of_many = watched()
    other = network(many, layers, dtype)
    assert train(other).tobytes() == first.tobytes()
    assert same_weights(one, other)
    # The last batch has five rows: two blocks of four rows, the second with a single one, or too few of two.
    wanted = {4: {"rows_4"}, 2: {"rows_2", "rows_1"}}
    assert {name for name in log_of_few if name.startswith("rows_")} == {"rows_1"}
    assert {name for name in log_of_many if name.startswith("rows_")} == wanted[rows]


# ---- many networks -------------------------------------------------------------------------------------------------


def many(backend, seeds, layers="dropout", **options):
    """Train networks with different seeds, rates, rows and numbers of earlier steps as one run."""
    made = [network(backend, layers, "float32", seed) for seed in seeds]
    x, y = data()
    for each, seed in zip(made, seeds, strict=True):
        if seed == 1:
            each.train_on_batch(x, y, loss="softmax_cross_entropy", optimizer=nn.Adam())
    given = {
        "epochs": 2, "batch_size": BATCH, "loss": "softmax_cross_entropy", "verbose": False,
        "optimizer": [nn.Adam(0.01 * (1 + seed)) for seed in seeds],
        "rows": [np.random.default_rng(seed).permutation(ROWS)[:13] for seed in seeds],
    }  # fmt: skip
    histories = nn.fit_many(made, x, y, **{**given, **options})
    return made, histories


def test_hyperparameters_may_differ():
    """Rates of dropout, penalties, parameters of activations and of optimizers; but not the structure."""

    def made(backend):
        return [
            nn.Network(
                [nn.Dense(9, activation="elu", alpha=0.1 + seed, l2=0.1 * (1 + seed)), nn.Dropout(0.2 + 0.1 * seed),
                 nn.Dense(4)],
                FEATURES, backend=backend, seed=seed, input_scale=1 / (200 + 50 * seed),
            )
            for seed in range(3)
        ]  # fmt: skip

    def optimizers():
        return [nn.SGD(0.1, momentum=0.3 + 0.2 * seed, weight_decay=1e-3 * (1 + seed)) for seed in range(3)]

    x, y = data()
    options = {"epochs": 2, "batch_size": BATCH, "loss": "softmax_cross_entropy", "verbose": False}
    backend, log = watched()
    together = made(backend)
    histories = nn.fit_many(together, x, y, optimizer=optimizers(), **options)
    assert log.count("update_sgd") == 2 * 3
    for one, other, optimizer, history in zip(together, made(watched()[0]), optimizers(), histories, strict=True):
        alone = other.fit(x, y, optimizer=optimizer, **options)
        assert same_weights(one, other)
        assert np.concatenate(history.step_losses).tobytes() == np.concatenate(alone.step_losses).tobytes()


def launches_of(count):
    backend, log = watched()
    many(backend, range(count), "frozen first", epochs=1)
    return [name for name in log if name != "sum_rows"]


def test_thirty_two_networks_take_the_launches_of_one():
    """And bits do not depend on their number."""
    # The second network has a step before.
    assert len(launches_of(1)) == len(launches_of(32)) - 2 == 2 * 2


def test_networks_have_the_bits_of_their_lone_runs():
    """A network ends early, another one fails, and one has been trained before."""

    class Fails(nn.Callback):
        def on_epoch_end(self, *_):
            raise ValueError("failed")

    backend, log = watched()
    callbacks = nn.PerNetwork([[], [Fails()], [], []])
    epochs = [3, 3, 1, 2]
    made, histories = many(backend, range(4), epochs=epochs, callbacks=callbacks)
    assert [len(history.epochs) for history in histories] == [3, 1, 1, 2]
    assert [str(history.error) for history in histories] == ["None", "failed", "None", "None"]
    # Before, and two kinds of batches in each epoch, of which the last one has one network.
    assert log.count("update_adam") == 1 + 3 * 2
    assert_like_alone(made, histories)


def test_the_next_network_takes_the_place_of_one_that_has_ended(monkeypatch):
    monkeypatch.setattr(CupyBackend, "together", 2)
    backend, log = watched()
    made, histories = many(backend, range(4), epochs=[4, 1, 1, 2])
    assert log.count("update_adam") == 1 + 4 * 2
    assert_like_alone(made, histories)


def assert_like_alone(made, histories):
    for seed, (one, history) in enumerate(zip(made, histories, strict=True)):
        (other,), (lone,) = many(watched()[0], [seed], epochs=len(history.epochs))
        assert same_weights(one, other)
        assert np.concatenate(history.step_losses).tobytes() == np.concatenate(lone.step_losses).tobytes()


def test_unequal_networks_run_one_after_another():
    """Those of one kind together, whatever their places in the list."""
    backend, log = watched()
    made = [network(backend, layers) for layers in ("frozen", "one unit", "frozen", "one layer")]
    x, y = data()
    options = {"epochs": 1, "batch_size": ROWS, "loss": "softmax_cross_entropy", "optimizer": nn.SGD(0.1)}
    histories = nn.fit_many(made, x, y, verbose=False, **options)
    assert [history.error for history in histories] == [None] * 4
    assert log.count("update_sgd") == 3
    for one, layers in zip(made, ("frozen", "one unit", "frozen", "one layer"), strict=True):
        other = network(watched()[0], layers)
        other.fit(x, y, verbose=False, **options)
        assert same_weights(one, other)


def test_a_network_that_diverges_leaves_the_others_alone():
    backend, _ = watched()
    made = [network(backend, "dropout", "float32", seed) for seed in range(2)]
    histories = nn.fit_many(
        made, *data("squared"), epochs=2, batch_size=BATCH, loss="mean_squared_error",
        optimizer=[nn.SGD(1e30), nn.SGD(1e-3)], verbose=False,
    )  # fmt: skip
    assert isinstance(histories[0].error, nn.errors.TrainingDivergedError)
    assert histories[1].error is None
    assert len(histories[1].epochs) == 2


def test_an_error_of_the_device_ends_all_that_ran_together(monkeypatch):
    """Each has the weights with which the epoch began."""
    backend, _ = watched()
    made = [network(backend, "frozen", "float32", seed) for seed in range(3)]
    before = [each.get_weights() for each in made]

    def fails(self, others, repeats):
        raise RuntimeError("the device is gone")

    monkeypatch.setattr(DenseStepExecutor, "run_with", fails)
    x, y = data()
    histories = nn.fit_many(made, x, y, epochs=1, loss="softmax_cross_entropy", verbose=False)
    assert [str(history.error) for history in histories] == ["the device is gone"] * 3
    for each, weights in zip(made, before, strict=True):
        assert all(np.array_equal(each.get_weights()[name], array) for name, array in weights.items())


def test_an_interruption_ends_all(monkeypatch):
    backend, _ = watched()
    made = [network(backend, "frozen", "float32", seed) for seed in range(3)]
    before = [each.get_weights() for each in made]

    def interrupted(self, others, repeats):
        raise KeyboardInterrupt

    monkeypatch.setattr(DenseStepExecutor, "run_with", interrupted)
    x, y = data()
    with pytest.raises(KeyboardInterrupt):
        nn.fit_many(made, x, y, epochs=1, loss="softmax_cross_entropy", verbose=False)
    for each, weights in zip(made, before, strict=True):
        assert all(np.array_equal(each.get_weights()[name], array) for name, array in weights.items())
        each.fit(x, y, epochs=1, loss="softmax_cross_entropy", verbose=False)
