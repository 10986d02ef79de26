"""The page's server: a socket on the loopback address and the loop that serves it."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import webbrowser
from contextlib import suppress

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from nnbackend.errors import InvalidInputError
from nnbackend.web.app import make_app
from nnbackend.web.session import Session

__all__ = ["address", "listen", "make_server", "serve"]

#: The loopback address, which other machines cannot reach.
HOST = "127.0.0.1"

#: Seconds that open requests may take after the server is told to stop.
_GRACE = 3

#: Seconds in which a new connection has to send its first request, and every request its last byte. The browser is on
#: this machine and sends at most half a megabyte.
_RECEIVE = 10.0


def listen(port: int = 0) -> socket.socket:
    """Open a socket that listens on the loopback address.

    Parameters
    ----------
    port : int
        0 chooses a free port.

    Raises
    ------
    InvalidInputError
        The port number is invalid, or the port is not available.
    """
    if not 0 <= port <= 65535:
        raise InvalidInputError(f"the port must be 1 to 65535, or 0 for a free one; received {port}")
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        if os.name == "posix":
            # Allow a port that was closed a moment ago. On Windows, this option would share a port that is in use.
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((HOST, port))
        listening.listen()
    except OSError as error:
        listening.close()
        raise InvalidInputError(
            f"cannot listen on port {port} of {HOST}: {error.strerror}; choose another, or 0 for a free one"
        ) from error
    return listening


def address(listening: socket.socket) -> str:
    """The URL of the page."""
    return f"http://{HOST}:{listening.getsockname()[1]}/"


class _Connection(H11Protocol):
    """A connection that is closed if it does not send a complete request in time; uvicorn would wait forever."""

    _limit: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._limit = self.loop.call_later(_RECEIVE, transport.abort)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        incomplete = self.conn.their_state in (h11.IDLE, h11.SEND_BODY)
        if incomplete and self._limit is None:
            self._limit = self.loop.call_later(_RECEIVE, self.transport.abort)
        elif not incomplete:
            self._unlimit()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unlimit()
        super().connection_lost(exc)

    def _unlimit(self) -> None:
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None


def make_server(session: Session, listening: socket.socket) -> uvicorn.Server:
    """Make the server of the page; see `serve`."""
    application = make_app(session, listening.getsockname()[1], closing=lambda: server.should_exit)
    configuration = uvicorn.Config(
        application,
        http=_Connection,
        lifespan="off",
        ws="none",
        access_log=False,
        # Requests that are not HTTP are refused without a warning for each.
        log_level="error",
        server_header=False,
        timeout_graceful_shutdown=_GRACE,
    )
    server = uvicorn.Server(configuration)
    return server


def serve(session: Session, listening: socket.socket, open_browser: bool) -> None:
    """Serve the page until Ctrl-C.

    Parameters
    ----------
    session : Session
        Its training is stopped at the end.
    listening : socket
    open_browser : bool
        Open the page in the user's browser.
    """
    server = make_server(session, listening)
    if open_browser:
        # In a thread, because some browsers block until they are closed. The socket is already listening.
        threading.Thread(target=webbrowser.open, args=(address(listening),), daemon=True).start()
    try:
        # uvicorn raises KeyboardInterrupt after shutting down on Ctrl-C, which is the normal way to end.
        with suppress(KeyboardInterrupt):
            server.run(sockets=[listening])
    finally:
        session.trainer.close()
