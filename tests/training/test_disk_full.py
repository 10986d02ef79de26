"""Disks that fill up, files that may not grow and folders that vanish end no training."""

from __future__ import annotations

import csv
import errno
import os
import resource
import shutil
import signal
from contextlib import contextmanager
from pathlib import Path

import pytest

import nnbackend as nn
from nnbackend.cli import main, train
from nnbackend.support import files
from tests.cli.test_run_folder import RUN
from tests.helpers import rich_network, same_weights
from tests.training.resuming import X, Y, assert_same_end, options, undisturbed

CODES = [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS]


class Disk:
    """While `error` is set, no file can be written, whose name contains `name`."""

    def __init__(self) -> None:
        self.error, self.name = 0, ""
        self._write = files.atomic_write

    @contextmanager
    def atomic_write(self, path, follow=True):
        with self._write(path, follow) as stream:
            if self.error and self.name in os.fspath(path):
                stream.write(b"incomplete")
                raise OSError(self.error, os.strerror(self.error))
            yield stream


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk()
    for module in ("nnbackend.support.files", "nnbackend.saving.model_file", "nnbackend.cli.run_folder"):
        monkeypatch.setattr(f"{module}.atomic_write", disk.atomic_write)
    return disk


class Between(nn.Callback):
    """Sets the state of the disk when epochs begin."""

    def __init__(self, disk: Disk, **errors: int) -> None:
        self._disk, self._errors = disk, errors

    def on_epoch_begin(self, network, epoch):
        self._disk.error = self._errors.get(f"epoch_{epoch}", self._disk.error)


@pytest.mark.parametrize("code", CODES)
def test_models_and_tables_are_written_as_soon_as_there_is_space(tmp_path: Path, disk: Disk, code: int):
    best = nn.ModelCheckpoint(tmp_path / "best.safetensors", monitor="loss")
    callbacks = [Between(disk, epoch_1=code, epoch_3=0), best, nn.CSVLogger(tmp_path / "history.csv")]
    with pytest.warns(RuntimeWarning) as warned:
        network, history = undisturbed(callbacks=callbacks)
    assert_same_end((network, history), undisturbed())
    texts = [str(warning.message) for warning in warned]
    for name in ("best.safetensors", "history.csv"):
        found = [text for text in texts if str(tmp_path / name) in text]
        assert len(found) == 2
        assert os.strerror(code) in found[0]
        assert "training continues" in found[0]
    assert sorted(os.listdir(tmp_path)) == ["best.safetensors", "history.csv"]
    with open(tmp_path / "history.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 3


def test_the_best_model_is_written_later_even_if_no_epoch_is_better(tmp_path: Path, disk: Disk):
    path = tmp_path / "best.safetensors"
    keep = nn.ModelCheckpoint(path)
    keep._best.improved = lambda epoch, metrics: epoch == 1
    with pytest.warns(RuntimeWarning, match=r"best\.safetensors"):
        network, _ = undisturbed(callbacks=[Between(disk, epoch_1=errno.ENOSPC, epoch_3=0), keep])
    first, _ = undisturbed(epochs=1)
    assert same_weights(nn.Network.load(path, "numpy"), first)
    assert not same_weights(network, first)


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="files cannot be limited here")
def test_files_that_may_not_grow(tmp_path: Path):
    """As the system refuses it, and for every kind of file."""
    pytest.importorskip("tensorboard")
    from nnbackend.interop.tensorboard import TensorBoard

    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    class Limit(nn.Callback):
        def on_epoch_begin(self, network, epoch):
            resource.setrlimit(resource.RLIMIT_FSIZE, (64 if epoch == 2 else before[0], before[1]))

    written = [
        nn.ModelCheckpoint(tmp_path / "model.safetensors", best_only=False),
        nn.CSVLogger(tmp_path / "history.csv"),
        TensorBoard(tmp_path / "board"),
    ]
    try:
        with pytest.warns(RuntimeWarning) as warned:
            ended = undisturbed(callbacks=[Limit(), *written])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert_same_end(ended, undisturbed())
    texts = [str(warning.message) for warning in warned]
    assert all(any(name in text for text in texts) for name in ("model.safetensors", "history.csv", "board"))


def test_a_folder_that_cannot_be_written_is_an_error_before_training(tmp_path: Path):
    (tmp_path / "file").write_text("")
    for callback in (nn.CSVLogger(tmp_path / "file" / "x.csv"), nn.ModelCheckpoint(tmp_path / "file" / "x")):
        network = rich_network("numpy")
        with pytest.raises(NotADirectoryError, match="not a folder"):
            network.fit(X, Y, callbacks=[callback], **options())
        assert (network.steps_trained, network.optimizer_state) == (0, None)
    with pytest.raises(IsADirectoryError):
        undisturbed(callbacks=[nn.CSVLogger(tmp_path)])


class TestCommand:
    @pytest.fixture
    def at_epoch_2(self, monkeypatch: pytest.MonkeyPatch):
        """Calls a function when the second epoch of the command begins, once."""
        called = []

        def call(function):
            fit = nn.Network.fit

            class Then(nn.Callback):
                def on_epoch_begin(self, network, epoch):
                    if epoch == 2 and not called:
                        called.append(True)
                        function()

            def fitted(network, *arguments, callbacks, **others):
                return fit(network, *arguments, callbacks=[*callbacks, Then()], **others)

            monkeypatch.setattr(nn.Network, "fit", fitted)

        return call

    def test_a_full_disk_ends_with_one_error_and_the_run_can_be_resumed(self, tmp_path, disk, at_epoch_2, capsys):
        whole, full = tmp_path / "whole", tmp_path / "full"
        assert main(["train", *RUN, "--out", str(whole)]) == 0
        at_epoch_2(lambda: setattr(disk, "error", errno.ENOSPC))
        with pytest.warns(RuntimeWarning) as warned:
            assert main(["train", *RUN, "--out", str(full)]) == 2
        texts = [str(warning.message) for warning in warned]
        assert any(f"{full}/model.safetensors" in text and "training continues" in text for text in texts)
        assert any(f"{full}/checkpoints" in text and "training continues" in text for text in texts)
        captured = capsys.readouterr().err
        assert captured == (
            f"nnbackend: error: {full}/model.safetensors: No space left on device; to continue: "
            f"nnbackend train --resume {full}\n"
        )
        disk.error = 0
        assert main(["train", "--resume", str(full), "--quiet", "--no-plots"]) == 0
        assert (full / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()

    def test_a_disk_that_has_space_again(self, tmp_path, disk, at_epoch_2, monkeypatch):
        whole, full = tmp_path / "whole", tmp_path / "full"
        assert main(["train", *RUN, "--out", str(whole)]) == 0
        at_epoch_2(lambda: setattr(disk, "error", errno.ENOSPC))
        finish = train.finish

        def with_space(*arguments, **others):
            disk.error = 0
            finish(*arguments, **others)

        monkeypatch.setattr(train, "finish", with_space)
        with pytest.warns(RuntimeWarning, match="No space left"):
            assert main(["train", *RUN, "--out", str(full)]) == 0
        assert sorted(os.listdir(full)) == sorted(os.listdir(whole))
        assert (full / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()

    @pytest.mark.parametrize("resumed", [False, True])
    def test_a_folder_that_is_removed(self, tmp_path, at_epoch_2, monkeypatch, resumed):
        """It is written again, with its configuration."""
        whole, removed = tmp_path / "whole", tmp_path / "removed"
        assert main(["train", *RUN, "--out", str(whole)]) == 0
        command = ["train", *RUN, "--out", str(removed)]
        if resumed:
            assert main([*command, "--epochs", "1"]) == 0
            command = ["train", "--resume", str(removed), "--epochs", "3", "--no-plots"]
        at_epoch_2(lambda: shutil.rmtree(removed))
        assert main(command) == 0
        assert sorted(os.listdir(removed)) == sorted(os.listdir(whole))
        assert main(["train", "--resume", str(removed)]) == 0

    def test_no_space_for_pictures(self, tmp_path, monkeypatch, capsys):
        figures = pytest.importorskip("nnbackend.plotting.figures")
        disk = Disk()
        disk.error = errno.ENOSPC
        monkeypatch.setattr(figures, "atomic_write", disk.atomic_write)
        pytest.importorskip("matplotlib")
        run = [option for option in RUN if option not in ("--no-plots", "--quiet")]
        assert main(["train", *run, "--out", str(tmp_path / "run")]) == 0
        printed = capsys.readouterr().out
        assert f"no pictures: {tmp_path}/run/curves.png: No space left on device" in printed
        assert "test accuracy" in printed

    def test_no_space_at_the_start(self, tmp_path, disk, capsys):
        disk.error = errno.ENOSPC
        assert main(["train", *RUN, "--out", str(tmp_path / "run")]) == 2
        assert f"{tmp_path}/run/config.json: No space left" in capsys.readouterr().err
        assert os.listdir(tmp_path) == []
