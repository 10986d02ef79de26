"""The routes of the page's server. Errors are returned as JSON: ``{"error": "message"}``."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from nnbackend.errors import DataError, NNBackendError
from nnbackend.web.guard import Guard, TooMuchError, read_json
from nnbackend.web.session import Session
from nnbackend.web.trainer import Trainer

__all__ = ["make_app", "training_events"]

PAGE = Path(__file__).parent / "page"

#: Seconds between two checks for training progress.
_INTERVAL = 0.1
#: Seconds without an event after which a comment is sent, to detect closed connections.
_KEEP_ALIVE = 15.0

#: Test image numbers must be below this; the page chooses them at random.
_MOST = 2**31


def make_app(session: Session, port: int, closing: Callable[[], bool]) -> ASGIApp:
    """Make the ASGI application.

    Parameters
    ----------
    session : Session
    port : int
        The port that it is served on, see `Guard`.
    closing : callable
        Returns whether the server is shutting down; event streams then end.
    """

    async def describe(request: Request) -> Response:
        return JSONResponse(session.describe())

    async def look(request: Request) -> Response:
        return JSONResponse(await run_in_threadpool(session.look_at_strokes, await read_json(request)))

    async def test_image(request: Request) -> Response:
        number = request.path_params["number"]
        if number >= _MOST:
            raise HTTPException(404, "there is no such test image")
        return JSONResponse(await run_in_threadpool(session.look_at_test_image, number))

    async def adopt(request: Request) -> Response:
        await read_json(request)
        return JSONResponse(await run_in_threadpool(session.adopt))

    async def start(request: Request) -> Response:
        await run_in_threadpool(session.trainer.start, await read_json(request))
        return JSONResponse(session.trainer.report(), 202)

    async def stop(request: Request) -> Response:
        session.trainer.stop()
        return JSONResponse(session.trainer.report(), 202)

    async def events(request: Request) -> Response:
        return StreamingResponse(training_events(session.trainer, closing), media_type="text/event-stream")

    routes = [
        Route("/api/page", describe),
        Route("/api/look", look, methods=["POST"]),
        Route("/api/test-images/{number:int}", test_image),
        Route("/api/model", adopt, methods=["POST"]),
        Route("/api/training", start, methods=["POST"]),
        Route("/api/training", stop, methods=["DELETE"]),
        Route("/api/training/events", events),
        Mount("/", StaticFiles(directory=PAGE, html=True)),
    ]
    handlers: dict[Any, Any] = {
        NNBackendError: _invalid,
        HTTPException: _http_error,
        ClientDisconnect: _gone,
        Exception: _failed,
    }
    return Guard(Starlette(routes=routes, exception_handlers=handlers), port)


async def training_events(trainer: Trainer, closing: Callable[[], bool]) -> AsyncIterator[str]:
    """Server-sent events: the training progress so far, then every update, until the server shuts down.

    See https://html.spec.whatwg.org/multipage/server-sent-events.html
    """
    sent: tuple[Any, ...] = ()
    idle = 0.0
    run, points = 0, 0
    while not closing():
        report = trainer.report(run, points)
        run, points = report["run"], report["first"] + len(report["points"])
        current = (run, points, report["state"], report["message"])
        if current != sent:
            sent, idle = current, 0.0
            yield f"data: {json.dumps(report, allow_nan=False)}\n\n"
        elif idle > _KEEP_ALIVE:
            idle = 0.0
            yield ": keep-alive\n\n"
        await asyncio.sleep(_INTERVAL)
        idle += _INTERVAL


async def _invalid(request: Request, error: NNBackendError) -> Response:
    status = 413 if isinstance(error, TooMuchError) else 503 if isinstance(error, DataError) else 400
    # The message quotes the input, which may be long.
    return _error(status, str(error)[:500])


async def _gone(request: Request, error: ClientDisconnect) -> Response:
    # A page that was closed while it sent something; nobody receives the response.
    return _error(400, "the request was broken off")


async def _http_error(request: Request, error: HTTPException) -> Response:
    return _error(error.status_code, f"{request.method} {request.url.path[:200]}: {error.detail}", error.headers)


async def _failed(request: Request, error: Exception) -> Response:
    # A bug in this package; uvicorn prints the traceback.
    return _error(500, f"internal server error ({type(error).__name__}); see the traceback in the server's terminal")


def _error(status: int, message: str, headers: Any = None) -> Response:
    # The message may contain characters that cannot be encoded, such as lone surrogates.
    return JSONResponse({"error": message.encode(errors="backslashreplace").decode()}, status, headers)
