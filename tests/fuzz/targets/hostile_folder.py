"""Run folders from strangers: names that are links, pipes, devices, folders or huge files, and wrong values in JSON."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shutil
import socket
import stat
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.attacks.runs import RUN, command, small_data
from nnbackend.cli import main
from nnbackend.errors import InvalidInputError
from tests.fuzz.targets.base import CORPUS, Target

__all__ = ["KINDS", "NAMES", "HostileFolderTarget", "place"]

#: What may have the name of a file.
KINDS = ("link", "dangling link", "hard link", "link to a folder", "pipe", "device", "folder", "socket", "missing")
KINDS += ("empty", "sparse", "grown", "deep", "long number", "bytes")

NAMES = ["config.json", "history.json", "history.csv", "model.safetensors", "checkpoint.safetensors", "curves.png"]
NAMES += ["lock", ".nnbackend-0123456789abcdef.tmp", "checkpoints", "checkpoints/lock", "checkpoints/other"]
NAMES += ["checkpoints/.nnbackend-x.tmp", "checkpoints/checkpoint-000000000006.safetensors"]
NAMES += ["checkpoints/checkpoint-000000000009.safetensors", f"checkpoints/checkpoint-{'9' * 100}.safetensors"]

#: Keys of config.json and history.json, with those of the dict inside.
KEYS = [
    "dataset",
    "data_dir",
    "validation",
    "preset",
    "seed",
    "dtype",
    "backend",
    "recipe",
    "classes",
    "earlier_epochs",
]
KEYS += ["epochs", "interrupted", "stopped_by", "test"]
_INNER = ["hidden", "activation", "dropout", "l1", "loss", "optimizer", "learning_rate", "schedule", "decay", "warmup"]
_INNER += ["epochs", "batch_size", "patience", "unknown", "accuracy"]

_VALUES = [None, True, -1, 0, 1.5, 10**400, "", "x", "\x1b]0;title\x07", "\ud800", "a\nb", "../..", [], ["x"], [[]], {}]
_VALUES += [{"x": 1}]


def place(kind: str, path: Path, outside: Path) -> None:
    """Put something at `path`; `outside` is a folder outside, with the file ``mine``."""
    if kind == "grown" and path.is_file() and not path.is_symlink() and path.stat().st_nlink == 1:
        os.truncate(path, 10 << 30)
        return
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    path.parent.mkdir(exist_ok=True)
    if kind == "link":
        path.symlink_to(outside / "mine")
    elif kind == "dangling link":
        path.symlink_to(outside / "missing")
    elif kind == "hard link":
        os.link(outside / "mine", path)
    elif kind == "link to a folder":
        path.symlink_to(outside)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
        (path / "file").write_text("x")
    elif kind == "socket":
        # From its folder, because the names of sockets are short.
        with contextlib.suppress(OSError), contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as listening:
            listening.bind(path.name)
    elif kind in ("sparse", "grown"):
        path.write_text("{")
        os.truncate(path, 10 << 30)
    elif kind != "missing":
        path.write_bytes({"empty": b"", "deep": b"[" * 50_000, "long number": b"9" * 5_000}.get(kind, b"\xff\x00" * 50))


class Seen(NamedTuple):
    """What can be seen of a file."""

    path: str
    mode: int
    links: int
    modified: int
    contents: bytes


def look(folder: Path) -> list[Seen]:
    """The files of a folder, and the folder itself."""
    found = []
    for path in sorted([folder, *folder.rglob("*")]):
        status = path.lstat()
        contents = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        found.append(Seen(str(path), status.st_mode, status.st_nlink, status.st_mtime_ns, contents))
    return found


class HostileFolderTarget(Target):
    """`nnbackend train --resume`, `train --force`, `evaluate` and `predict` in a folder that a stranger has changed.

    An input is a list of changes: ``[name, kind]`` replaces a file by something else, and ``[name, key, value]`` or
    ``[name, key, inner key, value]`` changes JSON.
    """

    name = "hostile-folder"
    share = 0.01
    #: A history may have 64 MiB, and its JSON takes several times as much.
    most_memory = 512 << 20

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._outside, self._run = folder / "outside", folder / "run"
        self._image = folder / "image.idx"
        shutil.copy(CORPUS / "idx" / "image", self._image)
        with small_data():
            assert command(*RUN, "--out", folder / "finished")[0] == 0
            shutil.copytree(folder / "finished", folder / "killed")
        # As if it had been killed before its checkpoints were removed.
        (folder / "killed" / "checkpoints").mkdir()
        (folder / "killed" / "history.json").unlink()
        last = folder / "killed" / "checkpoint.safetensors"
        last.rename(folder / "killed" / "checkpoints" / "checkpoint-000000000006.safetensors")

    def mutate(self, chance: random.Random, data: bytes, other: bytes) -> bytes:
        changes = [change for text in (data, other) for change in json.loads(text)["changes"] if chance.random() < 0.5]
        for _ in range(chance.choice((1, 1, 2))):
            if chance.random() < 0.7:
                changes.append([chance.choice(NAMES), chance.choice(KINDS)])
            else:
                keys = [chance.choice(KEYS), chance.choice(_INNER)][: chance.choice((1, 2))]
                changes.append([chance.choice(NAMES[:2]), *keys, chance.choice(_VALUES)])
        start = chance.choice(("finished", "killed"))
        return json.dumps({"start": start, "changes": changes[-6:]}).encode()

    def run(self, data: bytes) -> str:
        given = json.loads(data)
        for folder in (self._run, self._outside):
            shutil.rmtree(folder, ignore_errors=True)
        self._outside.mkdir()
        for name in ("mine", "checkpoint-000000000001.safetensors", ".nnbackend-1.tmp"):
            (self._outside / name).write_text("mine")
        shutil.copytree(self.folder / given["start"], self._run)
        for change in given["changes"]:
            self._change(change)
        before = look(self._outside)
        codes = []
        with small_data():
            for arguments in (
                ["evaluate", self._run, "--backend", "numpy"],
                ["predict", self._run, self._image, "--backend", "numpy"],
                ["train", "--resume", self._run, "--no-plots"],
                [*RUN, "--out", self._run, "--force"],
            ):
                codes.append(_one_error_or_none([str(argument) for argument in arguments]))
                after = look(self._outside)
                # The link in the folder may be removed, which lowers the number of links of the file outside.
                assert [seen._replace(links=0) for seen in after] == [seen._replace(links=0) for seen in before]
        if codes == [2, 2, 2, 2]:
            raise InvalidInputError("all commands refused the folder")
        return "read"

    def _change(self, change: list[Any]) -> None:
        name, *keys, value = change
        path = self._run / name
        if path.parent.is_symlink() or not (path.parent.is_dir() or path.parent.name == "checkpoints"):
            return
        if not keys:
            if not path.parent.exists() or path.parent.is_dir():
                place(value, path, self._outside)
            return
        if not path.is_file() or path.is_symlink() or path.stat().st_nlink > 1 or path.stat().st_size > 1 << 20:
            return
        with contextlib.suppress(ValueError, RecursionError):
            contents = json.loads(path.read_text())
            inner = contents
            for key in keys[:-1]:
                inner = inner.get(key) if isinstance(inner, dict) else None
            if isinstance(inner, dict):
                inner[keys[-1]] = value
                path.write_text(json.dumps(contents))


def _one_error_or_none(arguments: list[str]) -> int:
    """Run a command in this process and check that it ends with at most one error."""
    with _quiet() as errors:
        code = main(arguments)
    text = errors.getvalue()
    assert code in (0, 2), (arguments, code)
    assert text.count("\n") == (1 if code else 0), (arguments, code, text)
    assert all(letter.isprintable() or letter == "\n" for letter in text), (arguments, text)
    return code


@contextlib.contextmanager
def _quiet() -> Iterator[io.StringIO]:
    errors = io.StringIO()
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO(), "utf-8")),
        contextlib.redirect_stderr(errors),
    ):
        # Damaged checkpoints cause warnings.
        warnings.simplefilter("ignore", RuntimeWarning)
        yield errors
