"""Faults lose no more than the work since the last checkpoint."""

from __future__ import annotations

import errno
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest

import nnbackend as nn
from nnbackend.errors import FolderInUseError
from nnbackend.training.checkpoints import checkpoint as checkpoint_module
from nnbackend.training.checkpoints.checkpoint import Keeper, checkpoint_files
from nnbackend.training.checkpoints.folder_lock import FolderLock
from tests.helpers import rich_network
from tests.training.resuming import STEPS, X, Y, assert_same_end, kept, options, undisturbed


class At(nn.Callback):
    """Does something when an epoch begins."""

    def __init__(self, **actions):
        self.actions = actions

    def on_epoch_begin(self, network, epoch):
        self.actions.get(f"epoch_{epoch}", lambda: None)()


def run_to_the_end(folder, *callbacks, epochs=3, **checkpoint):
    """A run with checkpoints in which a fault occurs."""
    network = rich_network("numpy")
    keeper = nn.Checkpoint(folder, **checkpoint)
    return network, network.fit(X, Y, callbacks=[*callbacks, keeper], **options(epochs=epochs))


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 kB; skips where this user may not mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("may not mount a small file system here")
    yield folder
    while os.path.ismount(folder):
        subprocess.run(["umount", "-l", str(folder)], check=True)


class TestDisk:
    def test_a_full_disk_costs_no_more_than_the_checkpoints(self, small_disk):
        def fill():
            with suppress(OSError), open(small_disk / "other", "wb", buffering=0) as stream:
                while True:
                    stream.write(bytes(1024))

        with pytest.warns(RuntimeWarning, match=r"no checkpoint written: .*No space left.*training continues"):
            ended = run_to_the_end(small_disk / "run", At(epoch_2=fill), keep=1)
        assert_same_end(ended, undisturbed())
        assert not [name for name in os.listdir(small_disk / "run") if name.endswith(".tmp")]
        # Earlier checkpoints remain and are used to resume.
        assert len(checkpoint_files(small_disk / "run")) == 1
        os.unlink(small_disk / "other")
        assert_same_end(kept(small_disk / "run"), undisturbed())

    def test_older_checkpoints_are_removed(self, small_disk):
        """Each takes about 20 kB, so that four never fit."""
        ended = run_to_the_end(small_disk / "run", every_steps=1, keep=9)
        assert_same_end(ended, undisturbed())
        assert checkpoint_files(small_disk / "run")[0].name.endswith("027.safetensors")

    def test_a_file_that_may_not_grow(self, tmp_path):
        """Simulates a quota: files are limited to a kilobyte during the second epoch."""
        before = resource.getrlimit(resource.RLIMIT_FSIZE)

        def limit(size):
            return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))

        try:
            with pytest.warns(RuntimeWarning, match="no checkpoint written: .*too large"):
                ended = run_to_the_end(tmp_path, At(epoch_2=limit(1024), epoch_3=limit(before[0])), every_steps=4)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert_same_end(ended, undisturbed())
        assert [path.name[-15:-12] for path in checkpoint_files(tmp_path)] == ["027", "024", "020"]

    def test_a_quota_also_makes_room(self, tmp_path, monkeypatch):
        write, refused = checkpoint_module.write_checkpoint, []

        def full_once(path, contents):
            if contents.config["steps_trained"] == 20 and not refused:
                refused.append(checkpoint_files(path.parent))
                raise OSError(errno.EDQUOT, "Disk quota exceeded")
            write(path, contents)

        monkeypatch.setattr(checkpoint_module, "write_checkpoint", full_once)
        run_to_the_end(tmp_path, every_steps=4, keep=9)
        assert len(refused[0]) == 4
        assert [path.name[-15:-12] for path in checkpoint_files(tmp_path)] == ["027", "024", "020", "016"]

    def test_a_read_only_folder_is_reported_first(self, small_disk):
        subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
        network = rich_network("numpy")
        with pytest.raises(OSError, match="Read-only"):
            network.fit(X, Y, callbacks=[nn.Checkpoint(small_disk / "run")], **options())
        assert network.optimizer_state is None
        assert network.steps_trained == 0

    def test_a_folder_that_becomes_read_only(self, small_disk):
        def lock_up():
            # An overlay, because a file system in use cannot be made read-only.
            subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(small_disk)], check=True)

        with pytest.warns(RuntimeWarning, match="no checkpoint written: .*Read-only"):
            ended = run_to_the_end(small_disk / "run", At(epoch_2=lock_up))
        assert_same_end(ended, undisturbed())

    def test_a_file_instead_of_the_folder(self, tmp_path):
        (tmp_path / "run").write_text("")
        with pytest.raises(nn.errors.InvalidInputError, match="a file; name another"):
            run_to_the_end(tmp_path / "run")

    @pytest.mark.parametrize("what", ["folder", "files"])
    def test_removed_folders_are_created_again(self, tmp_path, what):
        folder = tmp_path / "run"

        def remove():
            if what == "folder":
                shutil.rmtree(folder)
            else:
                for path in folder.iterdir():
                    path.unlink()

        locked = []
        ended = run_to_the_end(
            folder, At(epoch_2=remove, epoch_3=lambda: locked.append((folder / "lock").exists())), every_steps=4
        )
        assert locked == [True]
        assert_same_end(ended, undisturbed())
        assert len(checkpoint_files(folder)) == 3
        assert not (folder / "lock").exists()


def hold(folder, ready, stop):
    with FolderLock(folder):
        ready.set()
        stop.wait()


class TestTwoRuns:
    @pytest.fixture
    def holder(self, tmp_path):
        """Another process that writes checkpoints to a folder."""
        context = multiprocessing.get_context("spawn")
        ready, stop = context.Event(), context.Event()
        process = context.Process(target=hold, args=(str(tmp_path), ready, stop))
        process.start()
        assert ready.wait(60)
        yield process
        process.kill()
        process.join()

    def test_the_second_run_learns_who_holds_the_lock(self, tmp_path, holder):
        network = rich_network("numpy")
        with pytest.raises(FolderInUseError, match=rf"process {holder.pid} on \S+ keeps its checkpoints there"):
            network.fit(X, Y, callbacks=[nn.Checkpoint(tmp_path)], **options())
        assert network.optimizer_state is None
        holder.kill()
        holder.join()
        # The file of a dead process holds no lock.
        assert (tmp_path / "lock").exists()
        run_to_the_end(tmp_path)
        assert not (tmp_path / "lock").exists()

    def test_in_one_process_too(self, tmp_path):
        found = []

        def second():
            with pytest.raises(FolderInUseError, match=f"process {os.getpid()}"):
                run_to_the_end(tmp_path)
            found.append(True)

        run_to_the_end(tmp_path, At(epoch_2=second))
        assert found == [True]

    def test_a_lock_is_released_when_training_fails(self, tmp_path):
        class Fails(nn.Callback):
            def on_epoch_end(self, network, epoch, metrics):
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            run_to_the_end(tmp_path, Fails())
        assert os.listdir(tmp_path) == []
        run_to_the_end(tmp_path)

    def test_a_lock_that_cannot_be_removed_ends_no_run(self, tmp_path, monkeypatch):
        def refuse(*arguments, **options):
            raise OSError(errno.EROFS, "Read-only file system")

        def lock_up():
            monkeypatch.setattr(os, "unlink", refuse)

        ended = run_to_the_end(tmp_path, At(epoch_3=lock_up), every_minutes=60)
        monkeypatch.undo()
        assert_same_end(ended, undisturbed())
        run_to_the_end(tmp_path / "next")
        kept(tmp_path)

    def test_temporary_files_of_killed_processes_are_removed(self, tmp_path):
        (tmp_path / ".nnbackend-abc.tmp").write_bytes(b"half")
        run_to_the_end(tmp_path)
        assert not [name for name in os.listdir(tmp_path) if name.endswith(".tmp")]


SCRIPT = """
import sys
import nnbackend as nn
from tests.training.resuming import X, Y, options
from tests.helpers import rich_network
class Ready(nn.Callback):
    def on_epoch_begin(self, network, epoch):
        if epoch == 2:
            print("ready", flush=True)
network = rich_network("numpy")
history = network.fit(
    X, Y, callbacks=[nn.Checkpoint(sys.argv[1], every_minutes=60), Ready()], **options(epochs=100000)
)
print("went on")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM")
def test_sigterm_saves_and_exits_with_its_code(tmp_path):
    with subprocess.Popen([sys.executable, "-c", SCRIPT, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (143, "")
    (path,) = checkpoint_files(tmp_path)
    epochs = nn.Network.load(path, backend="numpy").epochs_trained + 1
    assert os.listdir(tmp_path) == [path.name]
    assert_same_end(kept(tmp_path, epochs=epochs), undisturbed(epochs=epochs))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM")
@pytest.mark.parametrize("epochs", [1, 3])
def test_sigterm_at_the_last_moment_of_an_epoch_loses_nothing(tmp_path, monkeypatch, epochs):
    """After the last check of the signal in the epoch."""
    ended = Keeper.save_point

    def end(self, last):
        ended(self, last)
        if self._state.steps(0) == epochs * STEPS:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Keeper, "save_point", end)
        with pytest.raises(SystemExit) as error:
            run_to_the_end(tmp_path, every_minutes=60)
    assert error.value.code == 143
    (path,) = checkpoint_files(tmp_path)
    assert nn.Network.load(path, backend="numpy").epochs_trained == epochs
    assert_same_end(kept(tmp_path), undisturbed())


def test_the_sigterm_handler_is_replaced_only_with_checkpoints_and_restored(tmp_path):
    seen = []
    look = At(epoch_1=lambda: seen.append(signal.getsignal(signal.SIGTERM)))
    rich_network("numpy").fit(X, Y, callbacks=[look], **options())
    run_to_the_end(tmp_path, look)
    assert seen[0] is signal.SIG_DFL
    assert callable(seen[1])
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_sigterm_between_epochs_keeps_the_whole_epoch(tmp_path):
    class Late(nn.Callback):
        def on_epoch_end(self, network, epoch, metrics):
            if epoch == 2:
                signal.raise_signal(signal.SIGTERM)

    with pytest.raises(SystemExit) as exit_:
        run_to_the_end(tmp_path, Late(), every_minutes=60)
    assert exit_.value.code == 143
    assert_same_end(kept(tmp_path), undisturbed())
