"""Ranks with rows of their own train the same network as one with all of them; here the ranks are threads."""

from __future__ import annotations

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.errors import DistributedError
from nnbackend.training.checkpoints.checkpoint import checkpoint_files
from tests.distributed.ranks import run_ranks, worked
from tests.distributed.test_ranks import X, Y, difference, train
from tests.helpers import classifier, same_weights


@pytest.mark.float64
def test_shards(backend):
    def program(ranks):
        rows = slice(ranks.rank * 35, (ranks.rank + 1) * 35)
        return train(backend, ranks, x=X[rows], y=Y[rows], shard=True, validation_data=(X[rows], Y[rows]))

    results = worked(run_ranks(2, program))
    net, history = results[0]
    assert same_weights(net, results[1][0])
    assert [len(losses) for losses in history.step_losses] == [5, 5]
    whole = net.evaluate(X, Y)
    assert history["val_loss"][-1] == pytest.approx(whole["loss"], rel=1e-12)
    assert history["val_accuracy"][-1] == pytest.approx(whole["accuracy"], rel=1e-12)


WEIGHTS = np.linspace(0, 2, 70)


@pytest.mark.parametrize("shard", [False, True])
@pytest.mark.parametrize("class_weight", [{0: 3.0, 1: 0.5}, "balanced"])
@pytest.mark.parametrize("scale", [1, 1e308])
def test_the_loss_of_weighted_validation_rows(shard, class_weight, scale):
    options = {"class_weight": class_weight, "shuffle": False, "epochs": 1, "optimizer": nn.SGD(0.1)}
    balanced = 70 / (4 * np.bincount(Y))
    weights = WEIGHTS * (balanced if class_weight == "balanced" else np.array([3, 0.5, 1, 1]))[Y]

    def program(ranks):
        rows = slice(ranks.rank * 35, (ranks.rank + 1) * 35) if shard else slice(None)
        data = (X[rows], Y[rows], WEIGHTS[rows] * (scale / 2))
        return train("numpy", ranks, x=X[rows], y=Y[rows], shard=shard, validation_data=data, **options)

    results = worked(run_ranks(2, program))
    net, history = results[0]
    assert history.epochs == results[1][1].epochs
    assert history["val_loss"][-1] == pytest.approx(net.evaluate(X, Y, sample_weight=weights)["loss"], rel=1e-12)
    assert history["val_loss_unweighted"][-1] == pytest.approx(net.evaluate(X, Y)["loss"], rel=1e-12)


def test_a_rank_whose_rows_have_one_label_each():
    """The other rank's rows show that a row may have several."""
    several = np.eye(4)[Y]
    several[35:] = np.maximum(several[35:], several[34:-1])

    def program(ranks):
        net, rows = classifier(), slice(ranks.rank * 35, (ranks.rank + 1) * 35)
        history = net.fit(
            X[rows], several[rows], epochs=1, loss="sigmoid_cross_entropy", communicator=ranks, shard=True
        )
        return net, history

    for net, history in worked(run_ranks(2, program)):
        assert net.multilabel
        assert "binary_accuracy" in history.names()


@pytest.mark.parametrize("validated", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_functions_are_tried_on_the_rows_of_all_ranks(validated, weighted):
    """The rows of each rank have two classes of four."""
    seen = []

    def four_classes(y_true, y_pred, sample_weight=None):
        assert len(y_true) == len(y_pred) == 70
        assert (sample_weight is not None) == weighted
        if len(np.unique(y_true)) < 4:
            raise ValueError("only some classes are present")
        seen.append(y_true)
        return float(np.average(y_true == y_pred, weights=sample_weight))

    order = np.argsort(Y, kind="stable")

    def program(ranks):
        rows = order[ranks.rank * 35 : (ranks.rank + 1) * 35]
        given = (WEIGHTS[rows],) if weighted else ()
        options = {"validation_data": (X[rows], Y[rows], *given)} if validated else {"train_metrics": True}
        weights = WEIGHTS[rows] if weighted else None
        return train(
            "numpy", ranks, x=X[rows], y=Y[rows], shard=True, metrics=[four_classes], sample_weight=weights, **options
        )

    (net, history), (_, other) = worked(run_ranks(2, program))
    name = "val_four_classes" if validated else "four_classes"
    whole = net.evaluate(X, Y, sample_weight=WEIGHTS if weighted else None, metrics=[four_classes])
    assert history[name][-1] == other[name][-1] == pytest.approx(whole["four_classes"], rel=1e-12)
    # Once before the training and after each of two epochs, on each rank; `evaluate` has another order of rows.
    assert len(seen) == 7
    assert all((each == Y[order]).all() for each in seen[:6])


def test_a_function_that_fails_for_the_rows_of_all_ranks_fails_on_each():
    def fails(y_true, y_pred):
        raise ValueError(f"{len(y_true)} rows are too few")

    def program(ranks):
        rows = slice(ranks.rank * 35, (ranks.rank + 1) * 35)
        options = {"train_metrics": True, "metrics": [fails] if ranks.rank or program.alike else ["f1"]}
        return train("numpy", ranks, x=X[rows], y=Y[rows], shard=True, **options)

    program.alike = True
    for result in run_ranks(2, program):
        assert isinstance(result, ValueError)
        assert str(result) == "70 rows are too few"
    program.alike = False
    first, second = run_ranks(2, program)
    assert isinstance(first, DistributedError)
    assert str(first) == "rank 1 of 2 cannot train: ValueError: 35 rows are too few"
    assert isinstance(second, ValueError)


def test_shards_with_other_values_are_described_alike_and_train_on():
    def program(ranks):
        rows = slice(ranks.rank * 35, (ranks.rank + 1) * 35)
        net, _ = train("numpy", ranks, x=X[rows] - 0.5 * ranks.rank, y=Y[rows], shard=True)
        net.fit(X[rows] + 0.5 * ranks.rank, Y[rows], epochs=1, batch_size=16, communicator=ranks, shard=True)
        return net

    one, other = worked(run_ranks(2, program))
    assert one.config() == other.config()


def test_the_first_batch_of_shards():
    """Two shards equal one set of rows."""
    options = {"shuffle": False, "epochs": 1, "optimizer": nn.SGD(0.1)}
    order = np.r_[0:8, 35:43]
    weights = np.linspace(0.5, 2, 70)
    alone, _ = train("numpy", None, x=X[order], y=Y[order], sample_weight=weights[order], **options)

    def program(ranks):
        rows = np.arange(8) + 35 * ranks.rank
        own = {"x": X[rows], "y": Y[rows], "sample_weight": weights[rows]}
        return train("numpy", ranks, shard=True, **own, **options)

    for net, _ in worked(run_ranks(2, program)):
        assert difference(net, alone) < 1e-14


def test_shards_of_unequal_size_and_streams():
    counts = (31, 12, 3)

    def program(ranks):
        begin = sum(counts[: ranks.rank])
        rows = slice(begin, begin + counts[ranks.rank])
        stream = nn.BatchStream(lambda epoch: [(X[rows], Y[rows])], counts[ranks.rank])
        return train("numpy", ranks, x=stream, y=None, shard=True, shuffle=False)

    results = worked(run_ranks(3, program))
    assert all(same_weights(net, results[0][0]) for net, _ in results)
    # 6 + 5 + 5 rows of the first batch; at the end only the first rank has rows.
    assert [len(losses) for losses in results[0][1].step_losses] == [6, 6]


def test_shards_resume_with_the_same_number_of_ranks(tmp_path):
    def program(ranks, epochs=2):
        rows = np.arange(70)[ranks.rank :: ranks.size]
        folder = {"callbacks": [nn.Checkpoint(tmp_path, every_steps=3)], "resume": True}
        return train("numpy", ranks, x=X[rows], y=Y[rows], shard=True, epochs=epochs, **folder)

    worked(run_ranks(2, lambda ranks: program(ranks, epochs=1)))
    two = worked(run_ranks(2, program))
    for path in checkpoint_files(tmp_path)[:2]:
        path.unlink()
    assert checkpoint_files(tmp_path)
    for net, history in worked(run_ranks(2, program)):
        assert same_weights(net, two[0][0])
        np.testing.assert_array_equal(history.step_losses, two[0][1].step_losses)
    errors = run_ranks(3, program)
    assert "rows was [35, 35] there and is [24, 23, 23] here" in str(errors[0])
    assert all(isinstance(error, DistributedError) and "belongs to another run" in str(error) for error in errors[1:])
