"""Killed and resumed sets of networks end with the bits of those that were not."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys

import pytest

import nnbackend as nn
from nnbackend.backends.numba.backend import NumbaBackend
from nnbackend.errors import FolderInUseError, InvalidInputError
from nnbackend.training.checkpoints.checkpoint import checkpoint_files
from nnbackend.training.checkpoints.folder_lock import FolderLock
from tests.ensembles.forty import DIVERGES, assert_same, members, together
from tests.helpers import classifier, images, same_weights

COUNT = DIVERGES + 3


class Interrupts(nn.Callback):
    """Sends a signal at the end of an epoch."""

    def __init__(self, epoch, number=signal.SIGINT):
        self.epoch, self.number = epoch, number

    def on_epoch_end(self, network, epoch, metrics):
        if epoch == self.epoch:
            signal.raise_signal(self.number)


def backend_of(name):
    return nn.get_backend("numpy") if name == "numpy" else NumbaBackend(2)


@pytest.fixture(params=["numpy", "numba"])
def name(request):
    return request.param


def assert_complete(ended, name):
    for place, (network, history) in enumerate(zip(*ended, strict=True)):
        assert_same(members(COUNT)[place].alone(name), network, history, f"network {place}")


@pytest.mark.parametrize("places", [[0], [4, 9]])
def test_after_ctrl_c(tmp_path, name, places):
    for place in places:
        chosen = members(COUNT)
        chosen[place].callbacks.append(Interrupts(2))
        _, histories = together(backend_of(name), chosen, checkpoint=tmp_path, resume=True)
        assert any(history.interrupted for history in histories)
    assert_complete(together(backend_of(name), members(COUNT), checkpoint=tmp_path, resume=True), name)
    # All have ended, so nothing is trained again.
    begin = [checkpoint_files(folder) for folder in sorted(tmp_path.iterdir())]
    ended = together(backend_of(name), members(COUNT), checkpoint=tmp_path, resume=True)
    assert_complete(ended, name)
    assert [checkpoint_files(folder) for folder in sorted(tmp_path.iterdir())] == begin


def _die_in_the_middle(folder):
    """In a process of its own."""

    class Dies(nn.Callback):
        def on_epoch_end(self, network, epoch, metrics):
            if epoch == 2:
                os._exit(9)

    chosen = members(COUNT)
    chosen[5].callbacks.append(Dies())
    together(nn.get_backend("numpy"), chosen, checkpoint=nn.Checkpoint(folder, every_steps=3))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot fork")
def test_after_a_process_that_died(tmp_path):
    process = multiprocessing.get_context("fork").Process(target=_die_in_the_middle, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == 9
    checkpoint = nn.Checkpoint(tmp_path, every_steps=3)
    ended = together(nn.get_backend("numpy"), members(COUNT), checkpoint=checkpoint, resume=True)
    assert_complete(ended, "numpy")


def test_sigterm_ends_the_program_after_all_checkpoints(tmp_path, name):
    """Each network in progress has one of the step at which it ended."""
    x, y = images(rows=200)
    backend = backend_of(name)
    networks = [classifier(backend, seed=seed) for seed in range(5)]
    callbacks = nn.PerNetwork([[Interrupts(2, signal.SIGTERM)], *([] for _ in networks[1:])])
    options = {"epochs": 100, "loss": "softmax_cross_entropy", "checkpoint": tmp_path}
    with pytest.raises(SystemExit) as ended:
        nn.fit_many(networks, x, y, callbacks=callbacks, **options)
    assert ended.value.code == 143
    for place, network in enumerate(networks):
        steps = [int(file.stem.rpartition("-")[2]) for file in checkpoint_files(tmp_path / f"{place:05}")]
        assert steps == ([network.steps_trained] if network.steps_trained else [])
    assert networks[0].steps_trained > 0


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_more_networks_than_files_that_a_process_may_open(tmp_path, name):
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    backend = backend_of(name)
    networks = [nn.Network([nn.Dense(4)], 12, backend=backend, seed=seed) for seed in range(200)]
    options = {"epochs": 1, "loss": "softmax_cross_entropy", "checkpoint": tmp_path}
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/dev/fd")) + 30, hard))
    try:
        histories = nn.fit_many(networks, *images(), **options)
        again = [nn.Network([nn.Dense(4)], 12, backend=backend, seed=seed) for seed in range(200)]
        nn.fit_many(again, *images(), resume=True, **options)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert [history.error for history in histories] == [None] * 200
    assert all(same_weights(*pair) for pair in zip(networks, again, strict=True))
    assert sorted(os.listdir(tmp_path)) == [f"{place:05}" for place in range(200)]


class TestBadInput:
    def test_a_folder_in_use(self, tmp_path):
        """By another set, or by the run of one of its networks."""
        options = {"loss": "softmax_cross_entropy", "epochs": 1, "checkpoint": tmp_path}
        for folder in (tmp_path, tmp_path / "00001"):
            with FolderLock(str(folder)), pytest.raises(FolderInUseError, match=f"{folder.name} is in use"):
                nn.fit_many([classifier(seed=1), classifier(seed=2)], *images(), **options)

    def test_a_folder_that_a_run_has_taken_since(self, tmp_path):
        """Its checkpoints are left alone, with a warning."""
        locks = [FolderLock(str(tmp_path / "00001"))]

        class Takes(nn.Callback):
            def on_epoch_end(self, network, epoch, metrics):
                if network.seed == 1:
                    locks[0].__enter__()

        with pytest.warns(RuntimeWarning, match="no checkpoint written: .* is in use"):
            nn.fit_many(
                [classifier(seed=1), classifier(seed=2)],
                *images(),
                callbacks=[Takes()],
                loss="softmax_cross_entropy",
                epochs=1,
                checkpoint=tmp_path,
            )
        assert not checkpoint_files(tmp_path / "00001")
        locks[0].__exit__(None, None, None)

    def test_resume_without_a_folder(self):
        with pytest.raises(InvalidInputError, match="resume=True needs checkpoint="):
            nn.fit_many([classifier()], *images(), loss="softmax_cross_entropy", resume=True)

    def test_a_folder_with_checkpoints(self, tmp_path):
        options = {"loss": "softmax_cross_entropy", "epochs": 1, "checkpoint": tmp_path}
        nn.fit_many([classifier()], *images(), **options)
        with pytest.raises(InvalidInputError, match="already contains the checkpoints of a run; resume it"):
            nn.fit_many([classifier()], *images(), **options)

    def test_other_networks(self, tmp_path):
        options = {"loss": "softmax_cross_entropy", "epochs": 1, "checkpoint": tmp_path}
        nn.fit_many([classifier(seed=1), classifier(seed=2)], *images(), **options)
        with pytest.raises(InvalidInputError, match=r"networks\[0\]: .* belongs to another run: seed was 1"):
            nn.fit_many([classifier(seed=2), classifier(seed=1)], *images(), resume=True, **options)

    def test_a_checkpoint_among_the_callbacks(self, tmp_path):
        with pytest.raises(InvalidInputError, match=r"networks\[0\] has a Checkpoint among its callbacks"):
            nn.fit_many([classifier()], *images(), loss="softmax_cross_entropy", callbacks=[nn.Checkpoint(tmp_path)])

    def test_no_path(self):
        with pytest.raises(InvalidInputError, match="checkpoint must be"):
            nn.fit_many([classifier()], *images(), loss="softmax_cross_entropy", checkpoint=5)
