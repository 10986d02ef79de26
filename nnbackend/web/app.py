"""The routes of the page's server. Errors are JSON with one message: ``{"error": "..."}``."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
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

#: Seconds between two looks at the training, and after which a silent one is spoken of to see who still listens.
_INTERVAL = 0.1
_SILENCE = 15.0

#: The largest number of a test image; the page draws lots.
_MOST = 2**31


def make_app(session: Session, port: int, closing: Callable[[], bool]) -> ASGIApp:
    """The application.

    Parameters
    ----------
    session : Session
    port : int
        That it is served on, see `Guard`.
    closing : callable
        Whether the server is about to end; streams then end first.
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
    handlers: dict[Any, Any] = {NNBackendError: _refused, HTTPException: _no_such, Exception: _failed}
    return Guard(Starlette(routes=routes, exception_handlers=handlers), port)


async def training_events(trainer: Trainer, closing: Callable[[], bool]) -> AsyncIterator[str]:
    """Server-sent events: everything there is, and then whatever is new, until the server ends.

    See https://html.spec.whatwg.org/multipage/server-sent-events.html
    """
    told: tuple[Any, ...] = ()
    silent = 0.0
    run, points = 0, 0
    while not closing():
        report = trainer.report(run, points)
        run, points = report["run"], report["first"] + len(report["points"])
        news = (run, points, report["state"], report["message"])
        if news != told:
            told, silent = news, 0.0
            yield f"data: {json.dumps(report, allow_nan=False)}\n\n"
        elif silent > _SILENCE:
            silent = 0.0
            yield ": still here\n\n"
        await asyncio.sleep(_INTERVAL)
        silent += _INTERVAL


async def _refused(request: Request, error: NNBackendError) -> Response:
    status = 413 if isinstance(error, TooMuchError) else 503 if isinstance(error, DataError) else 400
    # A message repeats what was received, which may be long.
    return _error(status, str(error)[:500])


async def _no_such(request: Request, error: HTTPException) -> Response:
    return _error(error.status_code, f"{request.method} {request.url.path[:200]}: {error.detail}", error.headers)


async def _failed(request: Request, error: Exception) -> Response:
    # The server goes on to print the traceback: this is a fault of ours.
    return _error(500, f"the server made a mistake ({type(error).__name__}); its terminal says more")


def _error(status: int, message: str, headers: Any = None) -> Response:
    # It may repeat letters that cannot be encoded.
    return JSONResponse({"error": message.encode(errors="backslashreplace").decode()}, status, headers)
