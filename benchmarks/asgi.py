"""The ASGI middleware: what it adds to a request, beside Starlette's BaseHTTPMiddleware doing the same.

Requests are handed to the application directly, without a server, in rounds that take turns. It needs
Starlette.
"""

import asyncio
import os
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from tagline import Emitter
from tagline.asgi import TaglineMiddleware

ROUNDS = 41
REQUESTS = 200

SCOPE = {
    "type": "http",
    "asgi": {"version": "3.0", "spec_version": "2.4"},
    "http_version": "1.1",
    "method": "GET",
    "scheme": "http",
    "path": "/pets/7",
    "raw_path": b"/pets/7",
    "root_path": "",
    "query_string": b"",
    "headers": [
        (b"host", b"127.0.0.1:8000"),
        (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64)"),
        (b"accept", b"application/json"),
        (b"x-correlation-id", b"8a1a1c2e-7d5b-4a53-9d0c-9e1f4a4cf5f6"),
    ],
    "client": ("127.0.0.1", 50000),
    "server": ("127.0.0.1", 8000),
}

App = Callable[[Any, Any, Any], Awaitable[None]]


def run() -> dict[str, float]:
    """Return `asgi_overhead_us` per request, that of BaseHTTPMiddleware, and how many times it is cheaper."""
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        apps = applications(nowhere)
        measured = asyncio.run(rounds(apps))
    # The quickest round is the one that the machine's other work disturbed least.
    best = {name: min(times) for name, times in measured.items()}
    ours, theirs = best["tagline"] - best["bare"], best["base_http"] - best["bare"]
    ratios = [
        (base - bare) / (tagline - bare)
        for bare, tagline, base in zip(
            *(measured[name] for name in ("bare", "tagline", "base_http")), strict=True
        )
        if tagline > bare
    ]
    return {
        "asgi_overhead_us": ours,
        "base_http_middleware_overhead_us": theirs,
        "vs_base_http_middleware": statistics.median(ratios),
    }


def applications(nowhere: Any) -> dict[str, App]:
    """Return one application three times: as it is, with our middleware, and with BaseHTTPMiddleware.

    Args:
        nowhere: The stream that takes the lines.
    """
    emitter = Emitter(stream=nowhere)

    async def the_same(request: Request, call_next: RequestResponseEndpoint) -> Response:
        correlation_id = request.headers.get("x-correlation-id") or os.urandom(16).hex()
        with emitter.record() as fields:
            response = await call_next(request)
            response.headers["x-correlation-id"] = correlation_id
            fields |= {
                "method": request.method,
                "route": request.scope["route"].path,
                "path": request.scope["path"],
                "status": response.status_code,
                "request_bytes": int(request.headers.get("content-length", 0)),
                "response_bytes": int(response.headers.get("content-length", 0)),
                "correlation_id": correlation_id,
            }
            return response

    async def pet(request: Request) -> Response:
        return JSONResponse({"id": request.path_params["pet_id"], "kind": "newt"})

    def with_middleware(*middleware: Middleware) -> App:
        app: App = Starlette(routes=[Route("/pets/{pet_id}", pet)], middleware=middleware)
        return app

    return {
        "bare": with_middleware(),
        "tagline": with_middleware(Middleware(TaglineMiddleware, emitter=emitter)),
        "base_http": with_middleware(Middleware(BaseHTTPMiddleware, dispatch=the_same)),
    }


async def rounds(apps: dict[str, App]) -> dict[str, list[float]]:
    """Return the microseconds of processor time per request of each round, by application."""

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        pass

    measured: dict[str, list[float]] = {name: [] for name in apps}
    for _ in range(ROUNDS):
        for name, app in apps.items():
            began = time.process_time()
            for _ in range(REQUESTS):
                await app(dict(SCOPE), receive, send)
            measured[name].append((time.process_time() - began) / REQUESTS * 1e6)
    return measured
