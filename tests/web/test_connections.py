"""Connections that break off, send nothing, or send it slowly, at the real server."""

from __future__ import annotations

import json
import logging
import socket
import threading
from collections.abc import Iterator

import pytest

from nnbackend.web import server as server_module
from nnbackend.web.server import listen, make_server
from nnbackend.web.session import Session
from tests.web.conftest import wait_until


@pytest.fixture
def server(session: Session, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The port of a server with short time limits."""
    monkeypatch.setattr(server_module, "_RECEIVE", 0.2)
    with listen() as listening:
        made = make_server(session, listening)
        thread = threading.Thread(target=made.run, kwargs={"sockets": [listening]})
        thread.start()
        wait_until(lambda: made.started)
        yield listening.getsockname()[1]
        made.should_exit = True
        thread.join()


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=30)


def post(port: int, length: int, body: bytes) -> bytes:
    head = f"POST /api/look HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {length}\r\n\r\n".encode() + body


def closed(connection: socket.socket) -> bool:
    """Wait until the server closes a connection; whether it sent nothing before."""
    try:
        return connection.recv(1000) == b""
    except ConnectionResetError:
        return True


def ended(connection: socket.socket) -> bool:
    """Whether the server closes a connection before its timeout."""
    try:
        while connection.recv(1000):
            pass
    except TimeoutError:
        return False
    return True


def works(port: int) -> bool:
    with connect(port) as connection:
        body = json.dumps({"strokes": []}).encode()
        connection.sendall(post(port, len(body), body))
        return connection.recv(1000).startswith(b"HTTP/1.1 200")


@pytest.fixture
def nothing_is_logged(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        yield
    assert caplog.records == []
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("nothing_is_logged")
class TestConnections:
    @pytest.mark.parametrize("sent", [0, 10])
    def test_a_post_that_is_broken_off(self, server: int, sent: int):
        with connect(server) as connection:
            connection.sendall(post(server, 1000, b" " * sent))
        assert works(server)

    @pytest.mark.parametrize("sent", [b"", b"GET / HT", b"POST"], ids=["nothing", "half a line", "a word"])
    def test_a_connection_that_sends_no_request(self, server: int, sent: bytes):
        with connect(server) as connection:
            connection.sendall(sent)
            assert closed(connection)
        assert works(server)

    def test_a_body_that_does_not_end(self, server: int):
        with connect(server) as connection:
            connection.sendall(post(server, 1000, b"{"))
            assert closed(connection)
        assert works(server)

    def test_a_second_request_that_does_not_end(self, server: int):
        with connect(server) as connection:
            connection.sendall(f"GET /api/page HTTP/1.1\r\nHost: 127.0.0.1:{server}\r\n\r\n".encode())
            received = b""
            while not received.endswith(b"}"):
                received += connection.recv(100_000)
            connection.sendall(post(server, 1000, b"{"))
            assert closed(connection)

    def test_what_is_not_http(self, server: int):
        with connect(server) as connection:
            connection.sendall(b"\x16\x03\x01 TLS\r\n\r\n")
            assert connection.recv(1000).startswith(b"HTTP/1.1 400")
        assert works(server)

    def test_a_stream_of_events_outlasts_the_limit(self, server: int):
        with connect(server) as connection:
            connection.sendall(f"GET /api/training/events HTTP/1.1\r\nHost: 127.0.0.1:{server}\r\n\r\n".encode())
            assert connection.recv(1000).startswith(b"HTTP/1.1 200")
            connection.settimeout(0.6)
            assert not ended(connection)
