"""Restrict who may send requests to the page's server, and how large they may be."""

from __future__ import annotations

import json

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nnbackend.errors import InvalidInputError

__all__ = ["MOST_BYTES", "Guard", "TooMuchError", "read_json"]

#: Largest request body; a drawing with the most points allowed is smaller.
MOST_BYTES = 512 * 1024

#: The page loads only its own files, may not be framed, and its responses are not cached.
_HEADERS = [
    (b"content-security-policy", b"default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
]


class TooMuchError(InvalidInputError):
    """A request is larger than any that the page sends."""


class Guard:
    """Middleware that accepts only requests from the page itself.

    Listening on the loopback address keeps other machines out, but not other pages in the same browser. The header
    Host reveals pages whose domain name points to 127.0.0.1 (DNS rebinding), and the header Origin reveals
    cross-origin requests; both are refused.

    Parameters
    ----------
    app : ASGI application
    port : int
        The port that the server listens on.
    """

    def __init__(self, app: ASGIApp, port: int) -> None:
        self._app = app
        hosts = [f"{name}:{port}" for name in ("127.0.0.1", "localhost")]
        if port == 80:
            # Browsers omit the default port.
            hosts += ["127.0.0.1", "localhost"]
        self._hosts = {host.encode() for host in hosts}
        self._origins = {b"http://" + host for host in self._hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            # The application has no websockets.
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *_HEADERS]
            await send(message)

        refusal = self._refusal(scope)
        if refusal:
            await JSONResponse({"error": refusal}, 403)(scope, receive, send_with_headers)
        else:
            await self._app(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> str:
        """The reason to refuse a request; empty if it is accepted."""
        hosts = [value.lower() for name, value in scope["headers"] if name == b"host"]
        if len(hosts) != 1 or hosts[0] not in self._hosts:
            return "this server accepts requests only at the address that it printed"
        if any(value.lower() not in self._origins for name, value in scope["headers"] if name == b"origin"):
            return "this server accepts requests only from its own page"
        return ""


async def read_json(request: Request) -> dict[str, object]:
    """The body of a request, which must be a JSON object.

    Raises
    ------
    TooMuchError
        It is too long; the rest was not read.
    InvalidInputError
        It is not a JSON object, or has another content type.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        # A form on another site cannot send this content type.
        raise InvalidInputError(f"the body must be application/json, received {kind[:80] or 'no content type'}")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_BYTES:
            raise TooMuchError(f"a request may have at most {MOST_BYTES:,} bytes")
    try:
        value = json.loads(bytes(body), parse_constant=_no_constant, parse_int=_integer)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"the body is not JSON: {error}"[:200]) from error
    if not isinstance(value, dict):
        raise InvalidInputError(f"the body must be a JSON object, received {type(value).__name__}")
    return value


def _no_constant(name: str) -> None:
    raise ValueError(f"JSON has no {name}")


def _integer(text: str) -> int:
    if len(text) > 18:
        raise ValueError(f"an integer of {len(text)} digits")
    return int(text)
