"""The WSGI middleware: what it adds to a request, beside Flask's own hooks doing the same.

Requests are handed to the application directly, without a server, in rounds that take turns. It needs Flask.
"""

import io
import os
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from flask import Flask, Response, g, request
from tagline import Emitter
from tagline.wsgi import TaglineMiddleware

ROUNDS = 41
REQUESTS = 200

ENVIRON = {
    "REQUEST_METHOD": "GET",
    "SCRIPT_NAME": "",
    "PATH_INFO": "/pets/7",
    "QUERY_STRING": "",
    "SERVER_NAME": "127.0.0.1",
    "SERVER_PORT": "8000",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "REMOTE_ADDR": "127.0.0.1",
    "HTTP_HOST": "127.0.0.1:8000",
    "HTTP_USER_AGENT": "Mozilla/5.0 (X11; Linux x86_64)",
    "HTTP_ACCEPT": "application/json",
    "HTTP_X_CORRELATION_ID": "8a1a1c2e-7d5b-4a53-9d0c-9e1f4a4cf5f6",
    "wsgi.version": (1, 0),
    "wsgi.url_scheme": "http",
    "wsgi.errors": io.StringIO(),
    "wsgi.multithread": False,
    "wsgi.multiprocess": True,
    "wsgi.run_once": False,
}

App = Callable[[Any, Any], Iterable[bytes]]


def run() -> dict[str, float]:
    """Return `wsgi_overhead_us` per request, that of Flask's hooks, and how many times it is cheaper."""
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        measured = rounds(applications(nowhere))
    # The quickest round is the one that the machine's other work disturbed least.
    best = {name: min(times) for name, times in measured.items()}
    ratios = [
        (hooks - bare) / (tagline - bare)
        for bare, tagline, hooks in zip(
            *(measured[name] for name in ("bare", "tagline", "hooks")), strict=True
        )
        if tagline > bare
    ]
    return {
        "wsgi_overhead_us": best["tagline"] - best["bare"],
        "flask_hooks_overhead_us": best["hooks"] - best["bare"],
        "vs_flask_hooks": statistics.median(ratios),
    }


def applications(nowhere: Any) -> dict[str, App]:
    """Return one application three times: as it is, with our middleware, and with Flask's hooks.

    Args:
        nowhere: The stream that takes the lines.
    """
    emitter = Emitter(stream=nowhere)
    bare, tagline, hooks = flask_app(), flask_app(), flask_app()
    tagline.wsgi_app = TaglineMiddleware(tagline.wsgi_app, emitter=emitter)  # type: ignore[method-assign]

    @hooks.before_request
    def begin() -> None:
        g.began = time.perf_counter()
        g.correlation_id = request.headers.get("x-correlation-id") or os.urandom(16).hex()

    @hooks.after_request
    def end(response: Response) -> Response:
        response.headers["x-correlation-id"] = g.correlation_id
        emitter.emit(
            {
                "duration_ms": round((time.perf_counter() - g.began) * 1000, 3),
                "correlation_id": g.correlation_id,
                "method": request.method,
                "route": request.url_rule.rule if request.url_rule else "unmatched",
                "path": request.path,
                "status": response.status_code,
                "client_ip": request.remote_addr,
                "user_agent": request.headers.get("user-agent"),
                "request_bytes": request.content_length or 0,
                "response_bytes": response.content_length,
            }
        )
        return response

    return {"bare": bare.wsgi_app, "tagline": tagline.wsgi_app, "hooks": hooks.wsgi_app}


def flask_app() -> Flask:
    """Return an application with one route."""
    app = Flask(__name__)

    @app.get("/pets/<pet_id>")
    def pet(pet_id: str) -> dict[str, str]:
        return {"id": pet_id, "kind": "newt"}

    return app


def rounds(apps: dict[str, App]) -> dict[str, list[float]]:
    """Return the microseconds of processor time per request of each round, by application."""
    measured: dict[str, list[float]] = {name: [] for name in apps}
    for _ in range(ROUNDS):
        for name, app in apps.items():
            began = time.process_time()
            for _ in range(REQUESTS):
                body: Any = app({**ENVIRON, "wsgi.input": io.BytesIO()}, start_response)
                for _part in body:
                    pass
                body.close()
            measured[name].append((time.process_time() - began) / REQUESTS * 1e6)
    return measured


def start_response(
    _status: str, _headers: list[tuple[str, str]], _exc_info: Any = None
) -> Callable[..., None]:
    """Accept any response."""
    return len  # type: ignore[return-value]  # nobody pushes
