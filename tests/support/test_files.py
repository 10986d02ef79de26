"""Files: complete or not at all, with the right mode, and nothing but regular files of a folder."""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from pathlib import Path

import pytest

import nnbackend as nn
from nnbackend.errors import FolderInUseError, ModelFileError
from nnbackend.support import files
from nnbackend.support.files import atomic_write, open_lock, read_small, remove_leftovers, try_lock
from nnbackend.training.checkpoints.checkpoint import checkpoint_files
from nnbackend.training.checkpoints.folder_lock import FolderLock
from tests.helpers import classifier
from tests.training.resuming import assert_same_end, kept, undisturbed

REFUSED = r"not followed here|not a regular file|a folder"
#: What a stranger may put where a file is expected.
KINDS = ("link", "dangling link", "pipe", "device", "folder", "socket")


def place(kind: str, path: Path, outside: Path) -> None:
    """Put something that is not a file of the folder at `path`; `outside` is a file outside."""
    if kind == "link":
        path.symlink_to(outside)
    elif kind == "dangling link":
        path.symlink_to(outside.with_name("missing"))
    elif kind == "hard link":
        os.link(outside, path)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    else:
        listening = socket.socket(socket.AF_UNIX)
        before = os.getcwd()
        os.chdir(path.parent)  # the names of sockets are short
        listening.bind(path.name)
        os.chdir(before)
        listening.close()


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    (tmp_path / "outside").mkdir()
    path = tmp_path / "outside" / "mine"
    path.write_text("mine")
    return path


@pytest.fixture
def inside(tmp_path: Path) -> Path:
    folder = tmp_path / "inside"
    folder.mkdir()
    return folder


class TestNames:
    @pytest.fixture(autouse=True)
    def nothing_outside_is_touched(self, outside: Path):
        before = os.stat(outside)
        yield
        after = os.stat(outside)
        assert outside.read_text() == "mine"
        assert os.listdir(outside.parent) == ["mine"]
        assert (after.st_mtime_ns, after.st_mode, after.st_nlink) == (before.st_mtime_ns, before.st_mode, 1)

    @pytest.mark.parametrize("kind", KINDS)
    def test_nothing_else_is_read_written_or_locked(self, inside: Path, outside: Path, kind: str):
        path = inside / "file"
        place(kind, path, outside)
        with pytest.raises(OSError, match=REFUSED):
            read_small(path, 100, follow=False)
        with pytest.raises(OSError, match=REFUSED):
            open_lock(str(path))
        with (
            pytest.raises(OSError, match=REFUSED),
            atomic_write(path, follow=False),
        ):
            raise AssertionError("opened")
        assert os.listdir(inside) == ["file"]

    def test_a_hard_link_is_not_locked_and_is_replaced_not_written(self, inside: Path, outside: Path):
        place("hard link", inside / "lock", outside)
        with pytest.raises(OSError, match="a link; remove it"), FolderLock(str(inside)):
            raise AssertionError("locked")
        with atomic_write(inside / "lock", follow=False) as stream:
            stream.write(b"new")
        assert (inside / "lock").read_text() == "new"

    @pytest.mark.parametrize("kind", KINDS)
    def test_the_lock_of_a_checkpoint_folder(self, inside: Path, outside: Path, kind: str):
        place(kind, inside / "lock", outside)
        with pytest.raises(OSError, match="lock"):
            kept(inside)
        assert os.listdir(inside) == ["lock"]

    @pytest.mark.parametrize("kind", [*KINDS, "hard link"])
    def test_names_of_temporary_files(self, inside: Path, outside: Path, kind: str):
        place(kind, inside / ".nnbackend-1.tmp", outside)
        remove_leftovers(inside)
        assert os.listdir(inside) == ([".nnbackend-1.tmp"] if kind == "folder" else [])

    @pytest.mark.parametrize("kind", KINDS)
    def test_names_of_checkpoints(self, inside: Path, outside: Path, kind: str):
        """The one before is used, and the name is removed only if it can be without opening it."""
        kept(inside, every=9, epochs=1)
        place(kind, inside / "checkpoint-000000000900.safetensors", outside)
        with pytest.warns(RuntimeWarning, match="cannot be read"):
            assert_same_end(kept(inside, every=9), undisturbed())
        assert outside.read_text() == "mine"

    def test_a_checkpoint_is_not_written_through_a_link(self, inside: Path, outside: Path):
        class Plant(nn.Callback):
            def on_epoch_begin(self, network, epoch):
                if epoch == 2:
                    (inside / "checkpoint-000000000018.safetensors").symlink_to(outside)

        with pytest.warns(RuntimeWarning, match=r"no checkpoint written: .*not followed here"):
            assert_same_end(kept(inside, every=9, callbacks=[Plant()]), undisturbed())


def test_a_sparse_file_is_not_read(tmp_path: Path):
    path = tmp_path / "model.safetensors"
    classifier().save(path)
    os.truncate(path, 10 << 30)
    if path.stat().st_blocks * 512 > 1 << 30:
        pytest.skip("this file system has no sparse files")
    with pytest.raises(ModelFileError, match=r"claims 10,737,418,240 bytes, of which the disk stores"):
        nn.Network.load(path, "numpy")


class TestWriting:
    def test_the_umask_is_never_changed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        """Other threads may be creating files at that moment."""
        before = os.umask(0o027)
        try:
            with monkeypatch.context() as patch:
                patch.delattr(os, "umask")
                with atomic_write(tmp_path / "file") as stream:
                    stream.write(b"1")
        finally:
            os.umask(before)
        assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640

    @pytest.mark.parametrize("function", ["chmod", "fsync"])
    @pytest.mark.parametrize("code", [errno.EPERM, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS])
    def test_file_systems_without_modes_or_flushing(self, tmp_path: Path, monkeypatch, function: str, code: int):
        if (function, code) == ("fsync", errno.EPERM):
            pytest.skip("means something else")

        def refuse(*arguments, **options):
            raise OSError(code, os.strerror(code))

        (tmp_path / "file").write_bytes(b"old")
        monkeypatch.setattr(os, function, refuse)
        with atomic_write(tmp_path / "file") as stream:
            stream.write(b"new")
        assert (tmp_path / "file").read_bytes() == b"new"

    def test_file_systems_without_locks(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        import fcntl

        def refuse(*arguments):
            raise OSError(errno.ENOSYS, "Function not implemented")

        monkeypatch.setattr(fcntl, "flock", refuse)
        assert_same_end(kept(tmp_path / "run"), undisturbed())

    @pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
    def test_errors_name_the_file(self, tmp_path: Path, code: int):
        path = tmp_path / "file"
        path.write_bytes(b"old")
        with pytest.raises(OSError, match=os.strerror(code)) as error, atomic_write(path):
            raise OSError(code, os.strerror(code))
        assert (error.value.errno, error.value.filename) == (code, str(path))
        assert path.read_bytes() == b"old"
        assert os.listdir(tmp_path) == ["file"]

    def test_a_file_that_is_being_written_is_no_leftover(self, tmp_path: Path):
        with atomic_write(tmp_path / "file") as stream:
            stream.write(b"1")
            remove_leftovers(tmp_path)
        assert (tmp_path / "file").read_bytes() == b"1"


def test_a_lock_is_exclusive_and_names_its_holder_without_control_characters(tmp_path: Path):
    descriptor = open_lock(str(tmp_path / "lock"))
    os.write(descriptor, b"\x1b]0;title\x07 process 1\n")
    assert try_lock(descriptor)
    with pytest.raises(FolderInUseError, match=r"\?\]0;title\? process 1 keeps its checkpoints"):
        FolderLock(str(tmp_path)).__enter__()
    os.close(descriptor)
    with FolderLock(str(tmp_path)):
        assert (tmp_path / "lock").read_text().startswith(f"process {os.getpid()} on ")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("code", "locked"), [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EIO, False)])
def test_a_lock_needs_no_space_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, locked: bool):
    def refuse(*arguments):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", refuse)
        lock = FolderLock(str(tmp_path))
        if locked:
            with lock, pytest.raises(FolderInUseError, match="another process"):
                FolderLock(str(tmp_path)).__enter__()
        else:
            with pytest.raises(OSError, match="lock"):
                lock.__enter__()


def test_files_saved_from_threads_all_have_the_usual_mode(tmp_path: Path):
    def save(number: int) -> None:
        for _ in range(50):
            with atomic_write(tmp_path / f"{number}") as stream:
                stream.write(b"1")

    before = os.umask(0o077)
    try:
        threads = [threading.Thread(target=save, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for number in range(100):
            with open(tmp_path / f"other-{number}", "w"):
                time.sleep(0)
        for thread in threads:
            thread.join()
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def test_checkpoints_of_a_folder_that_is_missing(tmp_path: Path):
    assert checkpoint_files(tmp_path / "missing") == []
    assert files.is_file_system_full(OSError(errno.ENOSPC, ""))
