"""Who may talk to the page's server, and how much they may say."""

from __future__ import annotations

import json

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nnbackend.errors import InvalidInputError

__all__ = ["MOST_BYTES", "Guard", "TooMuchError", "read_json"]

#: A drawing of as many points as are allowed, with all their decimals, takes less.
MOST_BYTES = 512 * 1024

#: The page loads nothing from elsewhere, shows in nobody's frame, and what it is told is not kept.
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
    """Lets through what the page itself asks for.

    Listening on the loopback address keeps other machines out, but not other pages in the same browser. A page whose
    name its owner lets point to 127.0.0.1 ("DNS rebinding") shows in the header Host, and one that sends requests
    across in the header Origin; both are refused.

    Parameters
    ----------
    app : ASGI application
    port : int
        That the server listens on.
    """

    def __init__(self, app: ASGIApp, port: int) -> None:
        self._app = app
        hosts = [f"{name}:{port}" for name in ("127.0.0.1", "localhost")]
        if port == 80:
            # Browsers leave it out.
            hosts += ["127.0.0.1", "localhost"]
        self._hosts = {host.encode() for host in hosts}
        self._origins = {b"http://" + host for host in self._hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            # Without this the application would be asked for websockets, which it has none of.
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
        """Why not; empty if nothing speaks against it."""
        given = [value.lower() for name, value in scope["headers"] if name == b"host"]
        if len(given) != 1 or given[0] not in self._hosts:
            return "this server answers to the address that it printed, and to no other name"
        if any(value.lower() not in self._origins for name, value in scope["headers"] if name == b"origin"):
            return "this server answers to its own page, and not to those of others"
        return ""


async def read_json(request: Request) -> dict[str, object]:
    """The body of a request, which must be a JSON object.

    Raises
    ------
    TooMuchError
        It is too long; no more of it was read.
    InvalidInputError
        It is no JSON object, or says that it is something else.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        # Besides being true, a form on somebody else's page cannot say so.
        raise InvalidInputError(f"the body must be application/json, received {kind[:80] or 'no type'}")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_BYTES:
            raise TooMuchError(f"a request has at most {MOST_BYTES:,} bytes")
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
        raise ValueError(f"a whole number of {len(text)} digits")
    return int(text)
