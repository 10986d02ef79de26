"""Several ranks train the same network as one; here the ranks are threads."""

from __future__ import annotations

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.errors import DistributedError, InvalidInputError, ModelFileError, TrainingDivergedError
from nnbackend.saving.model_file import read_checkpoint, write_checkpoint
from nnbackend.training.checkpoints.checkpoint import checkpoint_files
from tests.distributed.ranks import ThreadCommunicator, run_ranks, worked
from tests.helpers import classifier, convolutional_network, images, rich_network, same_weights

X, Y = images(rows=70)
VALIDATION = (X[:5], Y[:5])
LOSS = "softmax_cross_entropy"


def changed(array):
    """A copy that differs in one value."""
    copy = array.copy()
    copy.reshape(-1)[array.size // 3 + 5] = 1 - copy.reshape(-1)[array.size // 3 + 5] % 2
    return copy


def train(backend, communicator, dtype="float64", epochs=2, x=X, y=Y, optimizer=None, **options):
    net = rich_network(backend, dtype)
    history = net.fit(
        x,
        y,
        epochs=epochs,
        batch_size=16,
        loss="softmax_cross_entropy",
        optimizer=optimizer or nn.Adam(0.01),
        communicator=communicator,
        **options,
    )
    return net, history


def difference(one, other):
    first, second = one.get_weights(), other.get_weights()
    return max(float(np.abs(first[name] - second[name]).max()) for name in first)


@pytest.mark.float64
@pytest.mark.parametrize("size", [2, 3, 4])
def test_ranks_train_the_network_of_one(backend, size):
    """Dropout, penalties, weights, a last batch of 6 rows, and validation rows that cannot be divided evenly."""
    options = {"sample_weight": np.linspace(0.5, 2, 70), "class_weight": {0: 2.0}, "validation_data": VALIDATION}
    alone, expected = train(backend, None, **options)
    results = worked(run_ranks(size, lambda ranks: train(backend, ranks, **options)))
    for net, history in results:
        assert same_weights(net, results[0][0])
        assert difference(net, alone) < 1e-12
        assert history.epochs == results[0][1].epochs
        for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
            np.testing.assert_allclose(history[name], expected[name], rtol=1e-12)
        np.testing.assert_allclose(history.step_losses, expected.step_losses, rtol=1e-12)


@pytest.mark.float64
@pytest.mark.parametrize("shard", [False, True])
def test_metrics_are_those_of_all_rows(backend, shard):
    weights = np.linspace(0.5, 2, 70)
    options = {"metrics": ["f1", "roc_auc"], "train_metrics": True}
    held_out = slice(0, 9)
    alone, expected = train(
        backend, None, sample_weight=weights, validation_data=(X[held_out], Y[held_out], weights[held_out]), **options
    )

    def of_rank(ranks):
        own, part = (slice(ranks.rank, None, 2), slice(ranks.rank, 9, 2)) if shard else (slice(None), held_out)
        given = {"sample_weight": weights[own], "validation_data": (X[part], Y[part], weights[part])}
        return train(backend, ranks, x=X[own], y=Y[own], shard=shard, **given, **options)

    results = worked(run_ranks(2, of_rank))
    for net, history in results:
        if not shard:  # Shards are shuffled in another order.
            assert difference(net, alone) < 1e-12
            np.testing.assert_allclose(history["f1"], expected["f1"], rtol=1e-9)
        of_all = net.evaluate(X, Y, sample_weight=weights, metrics=options["metrics"])
        of_held_out = net.evaluate(
            X[held_out], Y[held_out], sample_weight=weights[held_out], metrics=options["metrics"]
        )
        for name in options["metrics"]:
            assert history[name][-1] == pytest.approx(of_all[name], rel=1e-9)
            assert history[f"val_{name}"][-1] == pytest.approx(of_held_out[name], rel=1e-9)


def test_in_float32_as_well(backend):
    alone, _ = train(backend, None, "float32", epochs=1)
    for net, _ in worked(run_ranks(3, lambda ranks: train(backend, ranks, "float32", epochs=1))):
        assert difference(net, alone) < 1e-5


@pytest.mark.float64
def test_a_rank_without_rows_of_the_last_batch(backend):
    alone, expected = train(backend, None, x=X[:33], y=Y[:33])
    for net, history in worked(run_ranks(3, lambda ranks: train(backend, ranks, x=X[:33], y=Y[:33]))):
        assert difference(net, alone) < 1e-12
        np.testing.assert_allclose(history.step_losses, expected.step_losses, rtol=1e-12)


@pytest.mark.float64
def test_rows_that_are_streamed(backend):
    alone, _ = train(backend, None)
    for net, _ in worked(run_ranks(2, lambda ranks: train(backend, ranks, stream=True))):
        assert difference(net, alone) < 1e-12


def test_a_batch_larger_than_the_rows_of_all_ranks():
    alone, _ = train("numpy", None, x=X[:7], y=Y[:7])
    for net, _ in worked(run_ranks(2, lambda ranks: train("numpy", ranks, x=X[:7], y=Y[:7]))):
        assert difference(net, alone) < 1e-12
    results = run_ranks(3, lambda ranks: train("numpy", ranks, x=X[:2], y=Y[:2]))
    assert all("2 rows for 3 ranks; start at most as many" in str(error) for error in results)


def test_another_number_of_ranks_goes_on_where_the_first_ended(tmp_path):
    alone, _ = train("numpy", None, epochs=2, optimizer=nn.SGD(0.1))
    saved = tmp_path / "half.safetensors"
    two = worked(run_ranks(2, lambda ranks: train("numpy", ranks, epochs=1, optimizer=nn.SGD(0.1))))
    two[0][0].save(saved)

    def go_on(ranks):
        net = nn.Network.load(saved, backend="numpy")
        net.fit(X, Y, epochs=1, batch_size=16, optimizer=nn.SGD(0.1), communicator=ranks)
        return net

    for net in worked(run_ranks(3, go_on)):
        assert difference(net, alone) < 1e-12


def test_running_statistics_are_averaged_over_the_ranks(backend):
    """Weighted with their rows: 16 of the first batch are 6, 5 and 5, and of the last batch one rank has none."""
    x, y = np.random.default_rng(0).normal(size=(18, 12)), Y[:18]

    def program(ranks):
        net = nn.Network([nn.BatchNormalization(0.75), nn.Dense(4)], 12, backend=backend, dtype="float64", seed=0)
        options = {"epochs": 1, "batch_size": 16, "shuffle": False, "optimizer": nn.SGD(0.1), "communicator": ranks}
        net.fit(x, y, loss="softmax_cross_entropy", **options)
        return net

    nets = worked(run_ranks(3, program))
    means, variances = np.zeros(12), np.ones(12)
    for parts in ([x[:6], x[6:11], x[11:16]], [x[16:17], x[17:]]):
        rows = np.array([len(part) for part in parts])
        means = 0.75 * means + 0.25 * np.average([part.mean(axis=0) for part in parts], axis=0, weights=rows)
        variances = 0.75 * variances + 0.25 * np.average([part.var(axis=0) for part in parts], axis=0, weights=rows)
    for net in nets:
        assert same_weights(net, nets[0])
        np.testing.assert_allclose(net.get_weights()["layers.0.running_mean"], means, rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose(net.get_weights()["layers.0.running_variance"], variances, rtol=1e-12)


def test_batch_normalisation_gives_the_same_bits_with_the_same_number_of_ranks(backend):
    def program(ranks):
        net = convolutional_network(backend)
        net.fit(X, Y, epochs=2, batch_size=16, loss="softmax_cross_entropy", communicator=ranks)
        return net

    first, second = (worked(run_ranks(3, program)) for _ in range(2))
    assert all(same_weights(net, first[0]) for net in [*first, *second])
    frozen = {name: array for name, array in first[0].get_weights().items() if name.startswith("layers.6.")}
    initial = convolutional_network(backend).get_weights()
    assert all((array == initial[name]).all() for name, array in frozen.items())


def test_one_sum_per_step_and_little_else():
    calls = worked(run_ranks(2, lambda ranks: (train("numpy", ranks, epochs=3), ranks.calls)[1]))[0]
    sums = calls.count("allreduce")
    # 15 steps; an agreement for portions that double in size and for every last batch; the losses of each epoch.
    assert 15 + 3 * 2 <= sums <= 15 + 3 * 7
    assert len(calls) - sums < 30


def test_writing_callbacks_are_called_only_on_the_first_rank(tmp_path, capsys):
    seen = []

    class Everywhere(nn.Callback):
        def on_epoch_end(self, network, epoch, metrics):
            seen.append((epoch, metrics["seconds"]))

    def program(ranks):
        return train(
            "numpy", ranks, callbacks=[nn.CSVLogger(tmp_path / f"{ranks.rank}.csv"), Everywhere()], verbose=True
        )

    worked(run_ranks(2, program))
    assert [path.name for path in tmp_path.iterdir()] == ["0.csv"]
    assert len(seen) == 4
    assert len(set(seen)) == 2
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_one_rank_may_end_the_training():
    class Enough(nn.Callback):
        def on_epoch_end(self, network, epoch, metrics):
            return "that is enough"

    def program(ranks):
        return train("numpy", ranks, epochs=5, callbacks=[Enough()] if ranks.rank == 1 else [])

    for _, history in worked(run_ranks(2, program)):
        assert len(history) == 1
        assert history.stopped_by == "Enough"


def test_all_ranks_fail_together_before_anything_is_changed():
    def program(ranks):
        net = classifier()
        before = net.get_weights()
        try:
            net.fit(X, Y if ranks.rank else Y[:9], loss="softmax_cross_entropy", communicator=ranks)
        except (InvalidInputError, DistributedError) as error:
            assert all((net.get_weights()[name] == before[name]).all() for name in before)
            return error, ranks.tells(error)
        raise AssertionError("it trained")

    results = worked(run_ranks(3, program))
    assert [type(error) for error, _ in results] == [InvalidInputError, DistributedError, DistributedError]
    assert "rank 0 of 3 cannot train: InvalidInputError: x has 70 rows but y has 9" in str(results[2][0])
    assert results[2][0].rank == 0
    assert [tells for _, tells in results] == [True, False, False]


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("number of rows", lambda options: options.update(x=X[:60], y=Y[:60])),
        ("x", lambda options: options.update(x=changed(X))),
        ("y", lambda options: options.update(y=changed(Y))),
        ("batch_size", lambda options: options.update(batch_size=8)),
        ("shard", lambda options: options.update(shard=True)),
        ("epochs", lambda options: options.update(epochs=3)),
        ("optimizer", lambda options: options.update(optimizer=nn.Adam(0.02))),
        ("kind of validation_data", lambda options: options.update(validation_data=VALIDATION)),
        ("kind of sample_weight", lambda options: options.update(sample_weight=np.ones(70))),
        ("loss", lambda options: options.update(loss="sigmoid_cross_entropy")),
    ],
)
def test_ranks_with_different_settings_are_refused(what, change):
    def program(ranks):
        options = {"x": X, "y": Y, "epochs": 2, "batch_size": 16, "optimizer": nn.Adam(0.01), "loss": LOSS}
        if ranks.rank == 1:
            change(options)
        classifier().fit(**options, communicator=ranks)

    for error in run_ranks(2, program):
        assert isinstance(error, InvalidInputError)
        assert f"all ranks must have the same {what}" in str(error)


def test_ranks_with_different_weights_are_refused():
    def program(ranks):
        net = classifier(seed=3)
        if ranks.rank:
            net.set_weights({name: value * 2 for name, value in net.get_weights().items()})
        net.fit(X, Y, loss="softmax_cross_entropy", communicator=ranks)

    for error in run_ranks(2, program):
        assert "all ranks must have the same initial weights: rank 1 has another one than rank 0" in str(error)


@pytest.mark.parametrize(
    ("message", "change"),
    [
        ("sample_weight: rank 2 has another one than rank 0", {"sample_weight": changed(np.ones(70))}),
        ("class_weight: is {0: 2.0} on rank 0, and {0: 3.0} on rank 2", {"class_weight": {0: 3.0}}),
        ("validation x: rank 2 has another one than rank 0", {"validation_data": (changed(X), Y)}),
        ("validation y: rank 2 has another one than rank 0", {"validation_data": (X, changed(Y))}),
    ],
)
def test_ranks_with_other_data_are_refused(message, change):
    """Even if a single value differs."""

    def program(ranks):
        data = {"sample_weight": np.ones(70), "class_weight": {0: 2.0}, "validation_data": (X, Y)}
        options = {"epochs": 1, "loss": LOSS, "communicator": ranks, **data, **(change if ranks.rank == 2 else {})}
        classifier().fit(X, Y, **options)

    for error in run_ranks(3, program):
        assert isinstance(error, InvalidInputError)
        assert str(error).replace("'", "").endswith(f"all ranks must have the same {message}")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda rank: ([nn.Dense(4, l2=rank / 10)], "float32"), "layers[0].l2 is 0.0 on rank 0, and 0.1 on rank 1"),
        (lambda rank: ([nn.Dense(4)], ["float32", "float64"][rank]), "dtype is 'float32' on rank 0, and 'float64'"),
    ],
    ids=["layers", "dtype"],
)
def test_ranks_with_other_networks_are_refused_with_what_differs(make, message):
    def program(ranks):
        layers, dtype = make(ranks.rank)
        nn.Network(layers, 12, backend="numpy", dtype=dtype).fit(X, Y, loss=LOSS, communicator=ranks)

    for error in run_ranks(2, program):
        assert f"all ranks must have the same network: {message}" in str(error)


def test_ranks_with_other_versions_are_refused(monkeypatch):
    gather = ThreadCommunicator.gather

    def other_version(self, value, kind="gather"):
        if kind == "gather" and self.rank == 1 and isinstance(value[1], dict) and "version of nnbackend" in value[1]:
            value[1]["version of nnbackend"] = "0.0.1"
        return gather(self, value, kind)

    monkeypatch.setattr(ThreadCommunicator, "gather", other_version)
    for error in run_ranks(2, lambda ranks: train("numpy", ranks)):
        assert f"the same version of nnbackend: is '{nn.__version__}' on rank 0, and '0.0.1' on rank 1" in str(error)


@pytest.mark.parametrize("first_rank_only", [True, False])
def test_a_callback_that_sets_the_learning_rate_does_so_on_all_ranks(first_rank_only):
    class Halve(nn.Callback):
        def on_epoch_end(self, network, epoch, metrics):
            network.optimizer.learning_rate /= 2
            metrics["extra"] = 1 if self.first_rank_only else epoch

    Halve.first_rank_only = first_rank_only
    answers = run_ranks(2, lambda ranks: train("numpy", ranks, optimizer=nn.SGD(0.5), epochs=3, callbacks=[Halve()]))
    if first_rank_only:
        for error in answers:
            assert isinstance(error, DistributedError)
            assert "rank 1 has the learning rate 0.5 in epoch 2, rank 0 0.25; a callback that sets it" in str(error)
        return
    for _, history in worked(answers):
        assert history["learning_rate"] == [0.5, 0.25, 0.125]
        assert history["extra"] == [1, 2, 3]


def test_a_rank_with_other_weights_is_detected():
    class Nudge(nn.Callback):
        def on_epoch_begin(self, network, epoch):
            network.set_weights({name: value + 1e-6 for name, value in network.get_weights().items()})

    def program(ranks):
        train("numpy", ranks, callbacks=[Nudge()] if ranks.rank == 1 else [])

    for error in run_ranks(3, program):
        assert isinstance(error, DistributedError)
        assert error.rank == 1


def test_ranks_diverge_together():
    def program(ranks):
        # A callback on one rank uses the weights after every epoch, so all ranks check them.
        callbacks = [nn.Callback()] if ranks.rank else []
        # One step per epoch, which breaks the weights while its loss is still finite.
        train("numpy", ranks, "float32", x=X[:16], y=Y[:16], optimizer=nn.SGD(1e39), callbacks=callbacks, epochs=9)

    errors = run_ranks(2, program)
    assert all(isinstance(error, TrainingDivergedError) for error in errors)
    assert "in the last step of epoch 1" in str(errors[0])
    assert str(errors[0]) == str(errors[1])


def test_an_error_of_one_rank_ends_all():
    class Broken(nn.Callback):
        def on_epoch_end(self, network, epoch, metrics):
            raise OSError("the disk is full")

    def program(ranks):
        train("numpy", ranks, callbacks=[Broken()] if ranks.rank == 1 else [])

    errors = run_ranks(2, program)
    assert isinstance(errors[1], OSError)
    assert isinstance(errors[0], DistributedError)
    assert str(errors[0]) == "rank 1 failed: OSError: the disk is full"


def test_overlapping_arrays_are_rejected():
    stream = nn.BatchStream(lambda epoch: [(X, Y)], 70)
    for options, message in (
        ({"batch_size": 2}, "at least the 3 ranks"),
        ({"x": stream, "y": None}, "give each rank a stream of its own rows, and shard=True"),
    ):
        given = {"x": X, "y": Y, "loss": "softmax_cross_entropy", **options}
        for error in run_ranks(3, lambda ranks, given=given: classifier().fit(**given, communicator=ranks)):
            assert isinstance(error, InvalidInputError)
            assert message in str(error)
    with pytest.raises(InvalidInputError, match=r"communicator must be what .*world\(\) returns, received 4"):
        classifier().fit(X, Y, loss="softmax_cross_entropy", communicator=4)


# ---- checkpoints; `test_resume.py` has them on every backend ---------------------------------------------------------


def test_only_the_first_rank_has_the_folder_and_the_clock(tmp_path):
    """Other ranks have no Checkpoint and are informed."""

    def program(ranks):
        callbacks = [] if ranks.rank else [nn.Checkpoint(tmp_path, every_minutes=1e-9, keep=99)]
        return train("numpy", ranks, callbacks=[*callbacks, nn.KeepBest("loss")], resume=True)

    first = worked(run_ranks(3, program))
    steps = [read_checkpoint(path).config["steps_trained"] for path in checkpoint_files(tmp_path)]
    assert (steps[0], steps[-1]) == (10, 1)
    # The run has already finished; all ranks get its result.
    for (net, history), (expected, wanted) in zip(worked(run_ranks(3, program)), first, strict=True):
        assert same_weights(net, expected)
        assert history.epochs == wanted.epochs


def test_an_unusable_checkpoint_ends_all_ranks(tmp_path):
    def program(ranks):
        try:
            train("numpy", ranks, callbacks=[nn.Checkpoint(tmp_path, keep=1)], resume=True)
        except (ModelFileError, DistributedError) as error:
            return type(error), ranks.tells(error)

    worked(run_ranks(2, program))
    (path,) = checkpoint_files(tmp_path)
    contents = read_checkpoint(path)
    del contents.arrays["trace"]
    write_checkpoint(path, contents)
    assert worked(run_ranks(2, program)) == [(ModelFileError, True), (DistributedError, False)]
    path.write_bytes(b"")
    assert worked(run_ranks(2, program)) == [(ModelFileError, True), (DistributedError, False)]
