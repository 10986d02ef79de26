"""Requests to the server of ``nnbackend demo``."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path
from typing import Any

import nnbackend as nn
from nnbackend.datasets import Dataset
from nnbackend.errors import DataError
from nnbackend.web.app import PAGE, make_app
from nnbackend.web.recogniser import Recogniser
from nnbackend.web.session import Session
from nnbackend.web.trainer import Trainer
from tests.fuzz.mutations import mutate
from tests.fuzz.targets.base import Target
from tests.fuzz.trees import change, to_text
from tests.helpers import images

__all__ = ["PageTarget"]

_PORT = 8123
_WORDS = ["GET", "POST", "DELETE", "/", "/api/look", "/api/model", "/api/training", "/api/training/events", "strokes"]
_WORDS += [
    "/api/test-images/",
    "/api/test-images/5",
    "/../app.py",
    "/..%2fapp.py",
    "//etc/passwd",
    "/%2e%2e/app.py",
    "/app.js",
]
_WORDS += ["/..\\app.py", "backend", "preset", "learning_rate", "epochs", "numpy", "784-40-10", "content-type", "host"]
_WORDS += [
    "application/json",
    "127.0.0.1:8123",
    "localhost:8123",
    "origin",
    "http://127.0.0.1:8123",
    "range",
    "bytes=0-9",
]

#: Expected statuses; 500 is an internal error of the server.
_ANSWERS = {200, 202, 206, 304, 307, 400, 403, 404, 405, 413, 416, 503}


def _no_data() -> Dataset:
    raise DataError("there are no data to train on here")


class PageTarget(Target):
    """The whole application, called like a server does: a request in JSON with method, path, headers and body."""

    name = "page"
    share = 2

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        network = nn.Network([nn.Dense(12, activation="relu"), nn.Dense(10)], 784, backend="numpy")
        network.set_loss("softmax_cross_entropy")
        x, y = images(40, features=784, classes=10)
        classes = tuple("0123456789")
        data = Dataset("made-up", x[:30], y[:30], x[30:], y[30:], classes, 784, "a test")
        session = Session(Recogniser(network, classes, "a test"), lambda: data)
        session.trainer = Trainer(_no_data)
        self._app = make_app(session, _PORT, lambda: True)
        self._loop = asyncio.new_event_loop()
        self._files = {path.read_bytes() for path in PAGE.rglob("*") if path.is_file()}

    def mutate(self, chance: random.Random, data: bytes, other: bytes) -> bytes:
        try:
            request = json.loads(data)
            body = request.get("body") if isinstance(request, dict) else None
            if isinstance(body, str) or chance.random() < 0.3:
                return json.dumps(change(chance, request, _WORDS)).encode()
            # The body as text, which may not be JSON.
            text = to_text(chance, change(chance, body, _WORDS))
            request["body"] = text.decode("latin-1")
            return json.dumps(request).encode()
        except (ValueError, RecursionError, TypeError):
            return mutate(chance, data, other)

    def run(self, data: bytes) -> str | None:
        try:
            request = json.loads(data)
            method, path, headers = str(request["method"]), str(request["path"]), request["headers"]
            (method + path).encode()  # what a server was sent are bytes
            pairs = [(_bytes(name).lower(), _bytes(value)) for name, value in headers]
            body = request["body"]
        except (ValueError, RecursionError, TypeError, KeyError):
            return "no request"
        body = body.encode("latin-1", "replace") if isinstance(body, str) else json.dumps(body).encode()
        status, text = self._loop.run_until_complete(self._ask(method, path, pairs, body))
        assert status in _ANSWERS, f"status {status}: {text[:500]!r}"
        if not path.startswith("/api") and status == 200 and text:
            assert text in self._files, "a file outside the page's folder"
        return str(status) if status < 400 else f"{status} {text[:80].decode(errors='replace')}"

    def close(self) -> None:
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    async def _ask(self, method: str, path: str, headers: list[Any], body: bytes) -> tuple[int, bytes]:
        answer: dict[str, Any] = {"status": 0, "body": b""}
        waiting = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> dict[str, Any]:
            return waiting.pop() if waiting else {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                answer["status"] = message["status"]
            else:
                answer["body"] += message.get("body", b"")

        scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http"}
        scope |= {"path": path, "raw_path": path.encode(), "query_string": b"", "root_path": ""}
        scope |= {"headers": headers, "client": ("127.0.0.1", 5000), "server": ("127.0.0.1", _PORT)}
        await self._app(scope, receive, send)  # type: ignore[arg-type]
        return answer["status"], answer["body"]


def _bytes(value: Any) -> bytes:
    return str(value).encode("latin-1", "replace")
