"""Ranks share out many networks; here the ranks are threads."""

from __future__ import annotations

import re

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.errors import DistributedError, InvalidInputError, TrainingDivergedError
from nnbackend.training.checkpoints.checkpoint import checkpoint_files
from nnbackend.training.interrupt import TERMINATED
from tests.distributed.ranks import run_ranks, worked
from tests.ensembles.forty import DIVERGES, X, Y, assert_same, members, together
from tests.helpers import classifier, same_weights

COUNT = DIVERGES + 3
FIT = {"epochs": 2, "loss": "softmax_cross_entropy"}


def networks(count=5, backend="numpy"):
    return [classifier(backend, seed=seed) for seed in range(count)]


@pytest.mark.parametrize(("backend", "size"), [("numpy", 2), ("numpy", 3), ("numba", 2)])
def test_all_ranks_end_with_all_networks(backend, size):
    """As from their lone runs: weights, histories, and how each ended."""
    alone = [member.alone(backend) for member in members(COUNT)]
    results = worked(run_ranks(size, lambda ranks: together(backend, members(COUNT), communicator=ranks)))
    for trained, histories in results:
        assert len(histories) == COUNT
        for place, known in enumerate(alone):
            assert_same(known, trained[place], histories[place], f"network {place}")
        assert isinstance(histories[DIVERGES].error, TrainingDivergedError)
        # The losses are the same objects as of networks that this process has trained.
        assert len({id(network.loss) for network in trained}) == 3
    assert len({id(network) for trained, _ in results for network in trained}) == size * COUNT


def test_every_backend(backend):
    """Also the optimisers: every rank continues every network with the same bits."""

    def optimizers():
        schedules = [
            0.1,
            nn.ReduceOnPlateau(0.1, monitor="loss", patience=1),
            0.05,
            nn.CosineDecay(0.02, epochs=6),
            0.1,
        ]
        kinds = [nn.SGD, nn.Adam, nn.AdamW, nn.RMSprop, nn.Adam]
        return [kind(schedule) for kind, schedule in zip(kinds, schedules, strict=True)]

    def program(ranks):
        trained, given = networks(backend=backend), optimizers()
        options = {**FIT, "optimizer": given, "communicator": ranks}
        nn.fit_many(trained, X, Y, **options)
        nn.fit_many(trained, X, Y, **{**options, "optimizer": [network.optimizer for network in trained]})
        for network in trained:
            network.fit(X, Y, epochs=1, optimizer=network.optimizer)
        return trained

    expected = []
    for network, optimizer in zip(networks(backend=backend), optimizers(), strict=True):
        for epochs in (2, 2, 1):
            network.fit(X, Y, **{**FIT, "epochs": epochs}, optimizer=optimizer)
        expected.append(network)
    for trained in worked(run_ranks(2, program)):
        assert all(same_weights(*pair) for pair in zip(trained, expected, strict=True))


def test_more_ranks_than_networks():
    def program(ranks):
        trained = networks(2)
        return trained, nn.fit_many(trained, X, Y, communicator=ranks, **FIT)

    expected = networks(2)
    nn.fit_many(expected, X, Y, **FIT)
    for trained, histories in worked(run_ranks(4, program)):
        assert all(same_weights(*pair) for pair in zip(trained, expected, strict=True))
        assert [len(history) for history in histories] == [2, 2]
        nn.Ensemble(trained).predict(X)


class Calls(nn.Callback):
    """Notes the networks for which it is called."""

    def __init__(self):
        self.seeds = set()

    def on_epoch_end(self, network, epoch, metrics):
        self.seeds.add(network.seed)


def test_callbacks_are_called_where_their_network_trains():
    def program(ranks):
        callbacks = [Calls() for _ in range(5)]
        each = nn.PerNetwork([[callback] for callback in callbacks])
        nn.fit_many(networks(), X, Y, callbacks=each, communicator=ranks, **FIT)
        return [place for place, callback in enumerate(callbacks) if callback.seeds == {place}]

    assert worked(run_ranks(2, program)) == [[0, 2, 4], [1, 3]]


class Leaves(nn.Callback):
    """Ends the program of a rank."""

    def __init__(self, seed):
        self.seed = seed

    def on_epoch_end(self, network, epoch, metrics):
        if network.seed == self.seed and epoch == 2:
            raise SystemExit(3)


@pytest.mark.parametrize("sizes", [(2, 3), (3, 1), (1, 2)])
def test_another_number_of_ranks_resumes(tmp_path, sizes):
    """After the program of one rank has ended, which ends the others."""

    def program(ranks, seed):
        trained = networks()
        callbacks = nn.PerNetwork([[Leaves(seed)] for _ in trained])
        options = {"checkpoint": nn.Checkpoint(tmp_path, every_steps=3), "callbacks": callbacks, "communicator": ranks}
        histories = nn.fit_many(trained, X, Y, resume=True, **{**FIT, "epochs": 4}, **options)
        return trained, histories

    results = run_ranks(sizes[0], lambda ranks: program(ranks, 4))
    assert any(isinstance(result, SystemExit) for result in results)
    assert all(isinstance(result, SystemExit | DistributedError) for result in results)
    expected = networks()
    nn.fit_many(expected, X, Y, **{**FIT, "epochs": 4})
    for trained, histories in worked(run_ranks(sizes[1], lambda ranks: program(ranks, None))):
        assert all(same_weights(*pair) for pair in zip(trained, expected, strict=True))
        assert [len(history) for history in histories] == [4] * 5


class Terminated(nn.Callback):
    """Ends as after SIGTERM."""

    def on_epoch_end(self, network, epoch, metrics):
        if network.seed == 1:
            raise SystemExit(TERMINATED)


def test_sigterm_to_one_rank_ends_all_when_the_others_are_ready(tmp_path):
    def program(ranks):
        nn.fit_many(networks(), X, Y, callbacks=[Terminated()], communicator=ranks, checkpoint=tmp_path, **FIT)

    for result in run_ranks(2, program):
        assert isinstance(result, SystemExit)
        assert result.code == TERMINATED
    assert [len(checkpoint_files(tmp_path / f"{place:05}")) for place in (0, 2, 4)] == [1] * 3


class Fails(nn.Callback):
    """Fails on the rank that trains a network."""

    def on_epoch_end(self, network, epoch, metrics):
        if network.seed == 3:
            raise KeyboardInterrupt


def test_a_rank_that_dies_ends_the_others():
    def program(ranks):
        nn.fit_many(networks(), X, Y, callbacks=[Fails()], communicator=ranks, **FIT)

    first, second = run_ranks(2, program)
    assert isinstance(second, KeyboardInterrupt)
    assert isinstance(first, DistributedError)
    assert "rank 1 failed: KeyboardInterrupt" in str(first)


class TestBadInput:
    @pytest.mark.parametrize(
        ("option", "values", "message"),
        [
            ("epochs", (1, 2), "all ranks must have the same epochs: is '1' on rank 0, and '2' on rank 1"),
            ("batch_size", (8, 16), "batch_size: is '8' on rank 0, and '16' on rank 1"),
            ("optimizer", (nn.SGD(0.1), nn.SGD(0.2)), "optimizer"),
            ("rows", (np.arange(9), np.arange(1, 10)), "all ranks must have the same x: rank 1 has another one"),
            ("seeds", (0, 5), "network.*seed is 0 on rank 0, and 5 on rank 1"),
            ("count", (3, 4), "all ranks must have the same number of networks: is 3 on rank 0, and 4 on rank 1"),
            ("y", (Y, Y[::-1]), "all ranks must have the same y: rank 1 has another one"),
        ],
        ids=lambda value: value if isinstance(value, str) and value.isalpha() else "",
    )
    def test_ranks_that_differ(self, option, values, message):
        def program(ranks):
            given = {option: values[ranks.rank]}
            first, y = given.pop("seeds", 0), given.pop("y", Y)
            chosen = [classifier(seed=first + place) for place in range(given.pop("count", 3))]
            try:
                nn.fit_many(chosen, X, y, communicator=ranks, **{**FIT, **given})
            finally:
                assert [network.steps_trained for network in chosen] == [0] * len(chosen)

        for result in run_ranks(2, program):
            assert isinstance(result, InvalidInputError)
            assert re.search(message, str(result))

    def test_an_error_of_one_rank_is_one_of_all(self):
        def program(ranks):
            batch_size = [8, 8, 0 if ranks.rank else 8]
            nn.fit_many(networks(3), X, Y, batch_size=batch_size, communicator=ranks, **FIT)

        first, second = run_ranks(2, program)
        assert isinstance(second, InvalidInputError)
        assert isinstance(first, DistributedError)
        assert "rank 1 of 2 cannot train: InvalidInputError: networks[2]: batch_size must be" in str(first)

    def test_no_communicator(self):
        with pytest.raises(InvalidInputError, match=r"communicator must be what .*world\(\) returns, received 5"):
            nn.fit_many(networks(1), X, Y, communicator=5, **FIT)

    def test_an_optimiser_that_cannot_be_sent(self):
        class Local(nn.SGD):
            pass

        def program(ranks):
            nn.fit_many(networks(2), X, Y, optimizer=Local(0.1), communicator=ranks, **FIT)

        for result in run_ranks(2, program):
            assert isinstance(result, InvalidInputError)
            assert "networks[0]: the optimizer is sent to the other ranks, but cannot be pickled" in str(result)
