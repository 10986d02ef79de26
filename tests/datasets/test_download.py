"""Downloads from correct and faulty mirrors on the loopback interface."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from nnbackend.datasets import download
from nnbackend.datasets.download import RemoteFile, contents_match, fetch
from nnbackend.errors import DataError

CONTENTS = hashlib.shake_128(b"some contents that do not compress").digest(200_000)
FILE = RemoteFile("some-idx1-ubyte", len(CONTENTS), hashlib.sha256(CONTENTS).hexdigest())


class Mirrors:
    """A server whose behaviour depends on the first path component, with a log of its requests."""

    def __init__(self) -> None:
        self.contents = CONTENTS
        self.requests: list[str] = []
        self.release = threading.Event()
        mirrors = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                mirrors.requests.append(self.path)
                mirrors.answer(self, self.path.split("/")[1])

            def log_message(self, *_: object) -> None:
                """Keep the test output clean."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, *_: object) -> None:
                """Clients that hang up are part of these tests."""

        self.server = Server(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def answer(self, handler: BaseHTTPRequestHandler, behaviour: str) -> None:
        body = gzip.compress(self.contents, mtime=0)
        match behaviour:
            case "good":
                self.send(handler, body)
            case "late":
                time.sleep(0.3)
                self.send(handler, body)
            case "plain":
                self.send(handler, self.contents)
            case "encoded":
                self.send(handler, body, encoding="gzip")
            case "wrong":
                self.send(handler, gzip.compress(self.contents[:-1] + b"x"))
            case "corrupt":
                self.send(handler, body[:-100] + bytes(100))
            case "bomb":
                self.send(handler, gzip.compress(bytes(100 * len(self.contents))))
            case "flood":
                self.send(handler, bytes(2 * len(self.contents)))
            case "empty":
                self.send(handler, b"")
            case "drip":
                self.send(handler, body[:1_000], length=len(body))
                for start in range(1_000, len(body), 30_000):
                    time.sleep(0.15)
                    handler.wfile.write(body[start : start + 30_000])
            case "cut":
                self.send(handler, body[: len(body) // 2], length=len(body))
            case "stall":
                self.send(handler, body[: len(body) // 2], length=len(body))
                self.release.wait(30)
            case "hang":
                self.release.wait(30)
            case _:
                handler.send_error(404)

    @staticmethod
    def send(
        handler: BaseHTTPRequestHandler, body: bytes, length: int | None = None, encoding: str | None = None
    ) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body) if length is None else length))
        if encoding:
            handler.send_header("Content-Encoding", encoding)
        handler.end_headers()
        handler.wfile.write(body)
        handler.wfile.flush()

    def url(self, behaviour: str) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/{behaviour}/"

    def close(self) -> None:
        self.release.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def mirrors(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirrors]:
    monkeypatch.setenv("NO_PROXY", "*")
    server = Mirrors()
    yield server
    server.close()


def refused() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/"


@pytest.mark.parametrize("behaviour", ["good", "plain", "encoded"])
def test_a_file_is_stored_uncompressed_however_the_mirror_sends_it(
    mirrors: Mirrors, tmp_path: Path, behaviour: str
) -> None:
    folder = tmp_path / "not" / "there yet"
    path = fetch(FILE, [mirrors.url(behaviour)], folder, patience=5)
    assert path == folder / FILE.name
    assert path.read_bytes() == CONTENTS
    assert os.listdir(folder) == [FILE.name]
    assert mirrors.requests == [f"/{behaviour}/{FILE.name}.gz"]


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ("wrong", "wrong checksum: SHA-256 of some-idx1-ubyte is [0-9a-f]{64}, expected " + FILE.sha256),
        ("corrupt", "some-idx1-ubyte: corrupt gzip data|wrong checksum"),
        ("bomb", "wrong checksum"),
        ("flood", "sends more than the 200000 bytes"),
        ("empty", "wrong checksum"),
        ("missing", "HTTP status 404"),
        ("cut", "the transfer broke off"),
        ("stall", "no connection|no answer"),
        ("hang", "no answer"),
    ],
)
def test_a_bad_mirror_is_reported_and_the_next_one_is_used(
    mirrors: Mirrors, tmp_path: Path, behaviour: str, reason: str
) -> None:
    # Allow for the delays of a busy machine.
    silent = behaviour in ("stall", "hang")
    with pytest.raises(DataError, match=rf"some-idx1-ubyte.gz: 127.0.0.1:\d+: ({reason})"):
        fetch(FILE, [mirrors.url(behaviour)], tmp_path, patience=0.5 if silent else 30)
    assert os.listdir(tmp_path) == []
    path = fetch(FILE, [mirrors.url(behaviour), mirrors.url("late")], tmp_path, patience=3 if silent else 30)
    assert path.read_bytes() == CONTENTS
    assert os.listdir(tmp_path) == [FILE.name]


def test_a_refused_connection_is_reported_and_the_next_mirror_is_used(mirrors: Mirrors, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no connection \(Connection refused\)"):
        fetch(FILE, [refused()], tmp_path, patience=5)
    fetch(FILE, [refused(), mirrors.url("good")], tmp_path, patience=5)
    assert contents_match(tmp_path / FILE.name, FILE)


def test_a_name_that_does_not_resolve_fails_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(socket, "getaddrinfo", fail)
    start = time.monotonic()
    with pytest.raises(DataError, match=r"a\.example: no connection \(Name or service not known\); b\.example: no"):
        fetch(FILE, ["http://a.example/", "http://b.example/"], tmp_path)
    assert time.monotonic() - start < 3


def test_a_name_lookup_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    release = threading.Event()

    def hang(*_: object, **__: object) -> None:
        release.wait(30)
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(socket, "getaddrinfo", hang)
    start = time.monotonic()
    try:
        with pytest.raises(
            DataError, match=r"a\.example: no answer within 0\.4 s; b\.example: no answer within 0\.4 s"
        ):
            fetch(FILE, ["http://a.example/", "http://b.example/"], tmp_path, patience=0.4)
        assert 0.3 < time.monotonic() - start < 3
    finally:
        release.set()


def test_silent_mirrors_cost_less_than_ten_seconds_by_default(mirrors: Mirrors, tmp_path: Path) -> None:
    start = time.monotonic()
    with pytest.raises(DataError, match="no answer"):
        fetch(FILE, [mirrors.url("hang/1"), mirrors.url("hang/2"), mirrors.url("hang/3")], tmp_path)
    assert time.monotonic() - start < 10
    # The last resort if the timeouts of the HTTP library do not work.
    assert download.PATIENCE < 9


def test_patience_is_measured_from_the_last_byte(
    mirrors: Mirrors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "_CHUNK", 1_000)
    start = time.monotonic()
    fetch(FILE, [mirrors.url("drip")], tmp_path, patience=0.8)
    assert time.monotonic() - start > 0.8
    assert contents_match(tmp_path / FILE.name, FILE)


def test_only_one_mirror_transfers(mirrors: Mirrors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    transferred = []
    verify = download._verified_contents

    def spy(raw: io.BufferedIOBase, file: RemoteFile) -> bytes:
        transferred.append(file)
        return verify(raw, file)

    monkeypatch.setattr(download, "_verified_contents", spy)
    before = threading.active_count()
    fetch(FILE, [mirrors.url(f"drip/{number}") for number in range(3)], tmp_path, patience=5)
    give_up = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < give_up:
        time.sleep(0.01)
    assert transferred == [FILE]


def test_an_existing_file_survives_a_failed_download(mirrors: Mirrors, tmp_path: Path) -> None:
    (tmp_path / FILE.name).write_bytes(b"old")
    with pytest.raises(DataError):
        fetch(FILE, [mirrors.url("wrong"), mirrors.url("cut")], tmp_path, patience=2)
    assert (tmp_path / FILE.name).read_bytes() == b"old"
    assert os.listdir(tmp_path) == [FILE.name]
    fetch(FILE, [mirrors.url("good")], tmp_path, patience=2)
    assert (tmp_path / FILE.name).read_bytes() == CONTENTS


def test_a_cache_that_cannot_be_written_is_a_data_error(mirrors: Mirrors, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"not a folder")
    with pytest.raises(DataError, match=r"some-idx1-ubyte: cannot be written: "):
        fetch(FILE, [mirrors.url("good")], tmp_path / "file", patience=5)


def test_without_requests_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "requests", None)
    with pytest.raises(DataError, match=r'needs the package requests.*pip install -e "\.\[demo\]"'):
        fetch(FILE, ["http://a.example/"], tmp_path)


def test_contents_match(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert not contents_match(path, FILE)
    for contents, right in [
        (CONTENTS, True),
        (gzip.compress(CONTENTS), True),
        (CONTENTS + b"x", False),
        (CONTENTS[:-1], False),
        (gzip.compress(CONTENTS)[:-3], False),
    ]:
        path.write_bytes(contents)
        assert contents_match(path, FILE) is right
