"""The page's server: one socket on the loopback address, and the loop that answers there."""

from __future__ import annotations

import os
import socket
import threading
import webbrowser
from contextlib import suppress

import uvicorn

from nnbackend.errors import InvalidInputError
from nnbackend.web.app import make_app
from nnbackend.web.session import Session

__all__ = ["address", "listen", "serve"]

#: The only one: other machines cannot reach it.
HOST = "127.0.0.1"

#: Seconds that an answer may take that is being given when the server is told to end.
_GRACE = 3


def listen(port: int = 0) -> socket.socket:
    """A socket that listens on the loopback address.

    Parameters
    ----------
    port : int
        0 takes one that is free.

    Raises
    ------
    InvalidInputError
        There is no such port, or it cannot be had.
    """
    if not 0 <= port <= 65535:
        raise InvalidInputError(f"the port must be 1 to 65535, or 0 for one that is free; received {port}")
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        if os.name == "posix":
            # A port that a server has just left may be taken again; on Windows this would share one that is in use.
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((HOST, port))
        listening.listen()
    except OSError as error:
        listening.close()
        raise InvalidInputError(
            f"port {port} of {HOST} cannot be listened on: {error.strerror}; choose another, or 0 for one that is free"
        ) from error
    return listening


def address(listening: socket.socket) -> str:
    """Where a browser finds it."""
    return f"http://{HOST}:{listening.getsockname()[1]}/"


def serve(session: Session, listening: socket.socket, open_browser: bool) -> None:
    """Answer until Ctrl-C.

    Parameters
    ----------
    session : Session
        Its training is ended too.
    listening : socket
    open_browser : bool
        Show the page in the user's browser.
    """
    application = make_app(session, listening.getsockname()[1], closing=lambda: server.should_exit)
    configuration = uvicorn.Config(
        application,
        lifespan="off",
        ws="none",
        access_log=False,
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=_GRACE,
    )
    server = uvicorn.Server(configuration)
    if open_browser:
        # In a thread, for some browsers keep the terminal until they end. The socket listens already.
        threading.Thread(target=webbrowser.open, args=(address(listening),), daemon=True).start()
    try:
        # uvicorn passes Ctrl-C on once it has ended; here it is how everybody leaves.
        with suppress(KeyboardInterrupt):
            server.run(sockets=[listening])
    finally:
        session.trainer.close()
