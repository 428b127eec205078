"""ASGI middleware: one record per HTTP request and WebSocket, for FastAPI, Starlette and other frameworks.

    from fastapi import FastAPI
    from tagline.asgi import TaglineMiddleware

    app = FastAPI()
    app.add_middleware(TaglineMiddleware)

It imports no framework, buffers no body and starts no task. Lifespan passes through untouched. The formats
are those of https://asgi.readthedocs.io/en/latest/specs/www.html. docs/how-to/fastapi.md lists the fields.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Awaitable, Callable, Iterable, Optional, Sequence, Union

from .asgi_exchange import FAILED, Exchange, FromScope, Message, Receive, Scope, Send
from .asgi_routes import route_template
from .asgi_websocket import Connection
from .emitter import Emitter
from .invocation import UNMATCHED
from .values import repr_of

__all__ = ["DEFAULT_SKIP", "UNMATCHED", "TaglineMiddleware", "route_template"]

DEFAULT_SKIP = ("/health", "/healthz", "/livez", "/readyz")

App = Callable[[Scope, Receive, Send], Awaitable[None]]

_VALIDATION_FAILED = 422


class TaglineMiddleware:
    """Writes one record for each HTTP request that the application answers, and for each WebSocket.

    Args:
        app: The ASGI application.
        emitter: Writes the records; default a new `Emitter()`.
        client: Returns who called, from the scope when the response is complete (with `user`, if an
            authentication middleware set one); None, or no function: no field.
        route: Returns the route's template from the scope; default `route_template`.
        unmatched: The route of requests that matched no route.
        skip: Paths that leave no record, compared exactly.
        correlation_headers: Request headers that may carry a correlation id; the first one found is used.
            Without any, it is Lambda's request id, else a random one.
        correlation_response_header: Carries it out, unless the application sets that header; None for none.
        background_type: Type of the records of work after the response.
        background_from_ms: Such work leaves a record if it took at least this many milliseconds, or failed.
        websocket_type: Type of the records of WebSockets.
    """

    def __init__(
        self,
        app: App,
        *,
        emitter: Optional[Emitter] = None,
        client: Optional[FromScope] = None,
        route: Optional[FromScope] = None,
        unmatched: str = UNMATCHED,
        skip: Iterable[str] = DEFAULT_SKIP,
        correlation_headers: Sequence[str] = ("x-correlation-id", "x-request-id"),
        correlation_response_header: Optional[str] = "x-correlation-id",
        background_type: str = "background_task",
        background_from_ms: float = 100.0,
        websocket_type: str = "websocket",
    ) -> None:
        self.app = app
        self.emitter = emitter or Emitter()
        self.client = client
        self.route = route or route_template
        self.unmatched = unmatched
        self.skip: frozenset[str] = frozenset(skip)
        self.correlation_headers = [name.lower().encode("latin-1") for name in correlation_headers]
        self.correlation_response_header = (correlation_response_header or "").lower().encode("latin-1")
        self.background_type = background_type
        self.background_from_ms = background_from_ms
        self.websocket_type = websocket_type

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application, and write the record when its response is complete. Its exceptions propagate.

        A request that an outer middleware of this kind already records is left to that one.
        """
        kind = scope["type"]
        if kind not in ("http", "websocket") or scope["path"] in self.skip or "tagline" in scope:
            await self.app(scope, receive, send)
            return
        record = _Request if kind == "http" else Connection
        exchange: Union[_Request, Connection] = record(self, scope, receive, send)
        try:
            await self.app(scope, exchange.receive, exchange.send)
        except BaseException as error:
            exchange.end(error)
            raise
        exchange.end(None)


class _Request(Exchange):
    """One request and its response, counted while they pass."""

    completed_at: Optional[float] = None
    request_bytes = 0
    response_bytes: Optional[int] = 0
    request_read = trailers = disconnected = False
    status: Optional[int] = None
    validation_errors: Optional[int] = None
    error: Optional[BaseException] = None

    def __init__(self, middleware: TaglineMiddleware, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__(middleware, scope, receive, send)
        self.outer_error = sys.exc_info()[1]  # handled outside of this request, so not its own

    async def receive(self) -> Message:
        """Pass on what the client sends, and count it."""
        message = await self._receive()
        if message["type"] == "http.request":
            self.request_bytes += len(message.get("body") or b"")
            self.request_read = not message.get("more_body", False)
        elif message["type"] == "http.disconnect" and self.completed_at is None:
            self.disconnected = True
        return message

    async def send(self, message: Message) -> None:
        """Pass on what the application sends, and count it; the record is written after the last of it."""
        kind = message["type"]
        if kind == "http.response.start":
            message = self.start(message)
        elif kind == "http.response.body":
            self.count(message.get("body") or b"")
        elif kind in ("http.response.pathsend", "http.response.zerocopysend"):
            self.response_bytes = None  # the server reads the file, and how long it is
        try:
            await self._send(message)
        except OSError:  # what servers raise when the client is gone, since version 2.4 of the specification
            self.disconnected = True
            raise
        if self.completed_at is None and self.is_last(message):
            self.write(self.error)

    def is_last(self, message: Message) -> bool:
        """Return whether a message completes the response."""
        kind = message["type"]
        if kind == "http.response.body":
            return not message.get("more_body", False) and not self.trailers
        if kind == "http.response.trailers":
            return not message.get("more_trailers", False)
        return kind == "http.response.pathsend" or (
            kind == "http.response.zerocopysend" and not message.get("more_body", False)
        )

    def start(self, message: Message) -> Message:
        """Take the status, and return the message with the correlation id among its headers."""
        self.status = message["status"]
        self.trailers = bool(message.get("trailers", False))
        # An exception handler responds while it handles the exception, so `sys.exc_info()` has it here.
        handled = sys.exc_info()[1]
        if handled is not None and handled is not self.outer_error:
            if message["status"] >= FAILED:
                self.error = handled
            else:
                self.validation_errors = _count_errors(handled)
        return {**message, "headers": self.with_id(message.get("headers"))}

    def count(self, body: bytes) -> None:
        """Count a part of the body. The first part of a 422 may also show how many errors there are."""
        if self.status == _VALIDATION_FAILED and self.validation_errors is None and not self.response_bytes:
            self.validation_errors = _count_details(body)
        if self.response_bytes is not None and self.scope["method"] != "HEAD":  # whose body no server sends
            self.response_bytes += len(body)

    def end(self, error: Optional[BaseException]) -> None:
        """Write the record if it is not written yet: the application has returned or raised."""
        if self.completed_at is None:
            self.write(error or self.error, incomplete=self.status is not None)
        else:
            self.write_background(error if error is not self.error else None)
        # An exception holds the frames that it came through, and they hold this.
        self.error = self.outer_error = None

    def write(self, error: Optional[BaseException], *, incomplete: bool = False) -> None:
        """Write the record."""
        known = {
            "method": self.scope.get("method"),
            "route": self.ask(self.middleware.route) or self.middleware.unmatched,
            "path": self.path,
            "status": self.known_status(error, incomplete=incomplete),
            "client": self.ask(self.middleware.client),
            "request_bytes": self.request_bytes if self.request_read else self.announced_bytes(),
            "response_bytes": self.response_bytes,
            "validation_error_count": self.validation_errors,
            "disconnected": self.disconnected or None,
            "incomplete": incomplete or None,
        }
        self.completed_at = time.perf_counter()
        self.write_record(known, error)

    def write_background(self, error: Optional[BaseException]) -> None:
        """Write a record of the work after the response, if it took long or failed."""
        took_ms = round((time.perf_counter() - (self.completed_at or 0)) * 1000, 3)
        if error is None and took_ms < self.middleware.background_from_ms:
            return
        names = ("method", "route", "correlation_id", "request_id")
        known = {**self.draft.invocation.fields, **self.draft}
        fields = {name: known[name] for name in names if name in known}
        if error is not None:
            fields.update(error=repr_of(error, str), error_type=type(error).__name__)
        fields["duration_ms"] = took_ms
        self.middleware.emitter.emit(fields, type=self.middleware.background_type)

    def known_status(self, error: Optional[BaseException], *, incomplete: bool) -> Optional[int]:
        """Return the status that the client got, None if it got none.

        Mangum sends nothing before the application has returned: if that fails, the client gets a 500
        whatever the application had begun to send. Under other servers, a status that was sent stands.
        """
        buffered = self.scope.get("aws.context") is not None
        if error is not None and (buffered or self.status is None) and (incomplete or self.status is None):
            answered = isinstance(error, Exception) and not self.disconnected
            return FAILED if buffered or answered else None
        if self.status is None and not self.disconnected:
            return FAILED  # the application sent nothing, so the server answers
        return self.status


def _count_errors(error: BaseException) -> Optional[int]:
    """Return how many errors a validation's exception lists, like FastAPI's and Pydantic's."""
    try:
        return len(error.errors())  # type: ignore[attr-defined]  # known by what it can do
    except Exception:
        return None


def _count_details(body: bytes) -> Optional[int]:
    """Return how many errors the body of FastAPI's answer to an invalid request lists."""
    try:
        detail = json.loads(body)["detail"]
    except Exception:
        return None
    return len(detail) if isinstance(detail, list) else None
