"""ASGI middleware: one record per HTTP request, for FastAPI, Starlette and other ASGI frameworks.

    from fastapi import FastAPI
    from tagline.asgi import TaglineMiddleware

    app = FastAPI()
    app.add_middleware(TaglineMiddleware)

It imports no framework, buffers no body and starts no task. WebSockets and lifespan pass through untouched.
The formats are those of https://asgi.readthedocs.io/en/latest/specs/www.html. docs/how-to/fastapi.md says
what is in the record.
"""

import json
import os
import sys
import time
from contextlib import suppress
from contextvars import ContextVar, Token
from typing import (
    Any,
    Awaitable,
    Callable,
    ContextManager,
    Dict,
    FrozenSet,
    Iterable,
    List,
    MutableMapping,
    Optional,
    Sequence,
    Tuple,
)

from tagline import Emitter, correlation_id

__all__ = ["DEFAULT_SKIP", "UNMATCHED", "TaglineMiddleware", "route_template"]

# One value for all requests that no route took: their paths are as many as there are scanners.
UNMATCHED = "unmatched"
DEFAULT_SKIP = ("/health", "/healthz", "/livez", "/readyz")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
FromScope = Callable[[Scope], Optional[str]]

_VALIDATION_FAILED = 422
_FAILED = 500
_MAX_DIGITS = 20  # of a length: no body is longer, and Python reads no number of any length


class TaglineMiddleware:
    """Writes one record for each HTTP request that the application answers.

    Args:
        app: The ASGI application.
        emitter: What writes the records; default a new `Emitter()`.
        client: Gives who called, from the scope as it is when the response is complete (with `user`, where an
            authentication middleware put one); None leaves the field out. Default: no client.
        route: Gives the route's template from the scope; default `route_template`.
        unmatched: The route of requests that none took.
        skip: Paths that leave no record, exactly as they come in.
        correlation_headers: Request headers that may carry a correlation id; the first that does counts.
            Where none does, it is Lambda's request id, or else a random one.
        correlation_response_header: The response header that carries it out, unless the application sets that
            header itself; None for no header.
        background_type: The type of the record that work after the response leaves.
        background_from_ms: Such work leaves a record if it took at least so many milliseconds, or failed.
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
    ) -> None:
        self.app = app
        self.emitter = emitter or Emitter()
        self.client = client
        self.route = route or route_template
        self.unmatched = unmatched
        self.skip: FrozenSet[str] = frozenset(skip)
        self.correlation_headers = [name.lower() for name in correlation_headers]
        self.correlation_response_header = (correlation_response_header or "").lower().encode("latin-1")
        self.background_type = background_type
        self.background_from_ms = background_from_ms

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application, and write the record when its response is complete.

        What the application raises goes on. A request that another middleware of this kind already records
        (an outer application's, round a mounted one) is left to that one.
        """
        if scope["type"] != "http" or scope["path"] in self.skip or "tagline" in scope:
            await self.app(scope, receive, send)
            return
        exchange = _Exchange(self, scope, receive, send)
        try:
            await self.app(scope, exchange.receive, exchange.send)
        except BaseException as error:
            exchange.end(error)
            raise
        exchange.end(None)


def route_template(scope: Scope) -> Optional[str]:
    """Return the template of the route that took a request, such as `/v1/pets/{pet_id}`.

    It is found where Starlette's and FastAPI's routers leave it, with the templates of the mounts and the
    prefixes of the included routers before it. A mounted application without routes (static files) counts as
    one route, `/static/{path}`.

    Args:
        scope: The request's scope, after routing.

    Returns:
        The template, or None if no route took the request or none can be told.
    """
    router = scope.get("router")
    mounted, routes = "", list(getattr(router, "routes", ()))
    if "app_root_path" in scope:
        mounted, routes = _through_mounts(routes, scope["root_path"][len(scope["app_root_path"]) :])
    # FastAPI keeps a router that was included as it is, and the route as it is with its prefix beside it.
    included = scope.get("fastapi")
    context = included.get("effective_route_context") if isinstance(included, dict) else None
    route = getattr(context, "starlette_route", None) or context
    if route is None or hasattr(route, "routes"):  # none, or a mount, whose own router went on
        route = scope.get("route") or _route_to(scope.get("endpoint"), routes)
    if route is None or hasattr(route, "routes"):  # nothing that was mounted there took the request
        return mounted + "/{path}" if mounted and not routes else None
    path = getattr(route, "path", None)
    return mounted + path if isinstance(path, str) else None


def _through_mounts(routes: List[Any], taken: str) -> Tuple[str, List[Any]]:
    """Return the template of what mounts took of the path, and the routes that it leads to.

    The scope has it as the client wrote it (`/tenants/acme`); the mounts have it as the developer did.
    """
    if taken:
        for mount in routes:
            regex = getattr(mount, "path_regex", None)
            found = regex.match(taken + "/") if regex and hasattr(mount, "routes") else None
            if found:
                left = found["path"].rstrip("/")
                template, inner = _through_mounts(list(mount.routes), "/" + left if left else "")
                return mount.path + template, inner
    return taken, routes


def _route_to(endpoint: Any, routes: List[Any]) -> Any:
    """Return the only route to an endpoint: what older Starlettes leave in the scope."""
    found = [
        route for route in routes if endpoint is not None and getattr(route, "endpoint", None) is endpoint
    ]
    return found[0] if len(found) == 1 else None


# Whether a piece of code runs in the context in which an exchange began can be seen from its token alone.
_began_here: "ContextVar[Optional[_Exchange]]" = ContextVar("tagline.asgi", default=None)


class _Exchange:
    """One request and its response, counted while they pass."""

    __slots__ = (
        "_receive",
        "_send",
        "background_since",
        "began",
        "complete",
        "correlation_id",
        "disconnected",
        "error",
        "fields",
        "middleware",
        "outer_error",
        "path",
        "record",
        "request_bytes",
        "request_read",
        "response_bytes",
        "scope",
        "status",
        "token",
        "trailers",
        "validation_errors",
        "written",
    )

    def __init__(self, middleware: TaglineMiddleware, scope: Scope, receive: Receive, send: Send) -> None:
        self.middleware = middleware
        self.scope = scope
        self._receive = receive
        self._send = send
        self.began = time.perf_counter()
        self.path = scope["path"]  # older Starlettes cut off what a mount took
        self.background_since = 0.0
        self.request_bytes = 0
        self.request_read = False
        self.response_bytes: Optional[int] = 0
        self.status: Optional[int] = None
        self.trailers = False
        self.complete = False
        self.written = False
        self.disconnected = False
        self.validation_errors: Optional[int] = None
        self.error: Optional[BaseException] = None
        self.outer_error = sys.exc_info()[1]
        self.correlation_id = _correlation_id(scope, middleware.correlation_headers)
        state = scope.setdefault("state", {})
        if isinstance(state, dict):  # request.state.correlation_id, to hand on
            state["correlation_id"] = self.correlation_id
        self.record = middleware.emitter.record(
            {"correlation_id": self.correlation_id}, context=scope.get("aws.context")
        )
        self.fields = self.record.__enter__()
        scope["tagline"] = self.fields
        self.token: Optional[Token[Optional[_Exchange]]] = _began_here.set(self)

    async def receive(self) -> Message:
        """Hand on what the client says, and count it."""
        message = await self._receive()
        if message["type"] == "http.request":
            self.request_bytes += len(message.get("body") or b"")
            self.request_read = not message.get("more_body", False)
        elif message["type"] == "http.disconnect" and not self.complete:
            self.disconnected = True
        return message

    async def send(self, message: Message) -> None:
        """Hand on what the application says, and count it; the record is written after the last of it."""
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
        if (
            (kind == "http.response.body" and not message.get("more_body", False) and not self.trailers)
            or (kind == "http.response.trailers" and not message.get("more_trailers", False))
            or kind == "http.response.pathsend"
            or (kind == "http.response.zerocopysend" and not message.get("more_body", False))
        ) and not self.complete:
            self.finish()

    def start(self, message: Message) -> Message:
        """Take the status, and return the message with the correlation id among its headers."""
        self.status = message["status"]
        self.trailers = bool(message.get("trailers", False))
        # An exception handler answers while its exception is being handled, here as well.
        handled = sys.exc_info()[1]
        if handled is not None and handled is not self.outer_error:
            if message["status"] >= _FAILED:
                self.error = handled
            else:
                self.validation_errors = _count_errors(handled)
        name = self.middleware.correlation_response_header
        headers = list(message.get("headers") or ())
        if not name or any(bytes(header[0]).lower() == name for header in headers):
            return message
        return {**message, "headers": [*headers, (name, self.correlation_id.encode("latin-1"))]}

    def count(self, body: bytes) -> None:
        """Count a part of the body. The first part of a 422 may also say how many errors there are."""
        if self.status == _VALIDATION_FAILED and self.validation_errors is None and not self.response_bytes:
            self.validation_errors = _count_details(body)
        if self.response_bytes is not None and self.scope["method"] != "HEAD":  # whose body no server sends
            self.response_bytes += len(body)

    def finish(self) -> None:
        """Write the record of a complete response, or leave that to `end`.

        The record can only be closed in the context in which it was begun, that of the request's task, and
        some streams are sent by tasks of their own.
        """
        self.complete = True
        self.background_since = time.perf_counter()
        self.collect(self.error)
        if self.token is not None:
            try:
                _began_here.reset(self.token)
            except ValueError:
                return
            self.token = None
            self.write(self.error)

    def end(self, error: Optional[BaseException]) -> None:
        """Write what is not written yet, now that the application has returned or raised."""
        if self.token is not None:
            # An application that nobody waits for any more is closed in another context.
            with suppress(ValueError):
                _began_here.reset(self.token)
            self.token = None
        if not self.complete:
            self.background_since = time.perf_counter()
            self.collect(error or self.error)
            self.write(error or self.error)
        else:
            if not self.written:
                self.write(self.error)
            self.write_background(error if error is not self.error else None)
        # An exception holds the frames that it came through, and they hold this.
        self.error = self.outer_error = None

    def write(self, error: Optional[BaseException]) -> None:
        """Write the record."""
        self.written = True
        _close(self.record, error)

    def write_background(self, error: Optional[BaseException]) -> None:
        """Write a record of what went on after the response, if it took long or failed."""
        took_ms = round((time.perf_counter() - self.background_since) * 1000, 3)
        if error is None and took_ms < self.middleware.background_from_ms:
            return
        said: Dict[str, Any] = {"duration_ms": took_ms}
        for name in ("method", "route", "correlation_id", "request_id"):
            if name in self.fields:
                said[name] = self.fields[name]
        record = self.middleware.emitter.record(said, type=self.middleware.background_type)
        record.__enter__()
        _close(record, error)

    def collect(self, error: Optional[BaseException]) -> None:
        """Say what is known of the exchange; what the application itself said under these names wins."""
        with suppress(Exception):
            for name, value in self.known(error).items():
                if value is not None:
                    self.fields.setdefault(name, value)

    def known(self, error: Optional[BaseException]) -> Dict[str, Any]:
        """Return what the exchange was, by the names that records use; None is left out."""
        scope = self.scope
        context = scope.get("aws.context")
        return {
            "method": scope["method"],
            "route": self.given(self.middleware.route) or self.middleware.unmatched,
            "path": self.path,
            "status": self.known_status(error, buffered=context is not None),
            "client": self.given(self.middleware.client),
            "duration_ms": round((self.background_since - self.began) * 1000, 3),
            "request_bytes": self.request_bytes if self.request_read else _announced_bytes(scope),
            "response_bytes": self.response_bytes,
            "validation_error_count": self.validation_errors,
            "disconnected": self.disconnected or None,
            "incomplete": (self.status is not None and not self.complete) or None,
            "request_id": getattr(context, "aws_request_id", None),
            "function_name": getattr(context, "function_name", None),
            "function_version": getattr(context, "function_version", None),
        }

    def known_status(self, error: Optional[BaseException], *, buffered: bool) -> Optional[int]:
        """Return the status that the client got, None if it got none.

        Mangum sends nothing before the application has returned: if that fails, whatever it had begun to say
        is a 500. Elsewhere a status that was sent is sent.
        """
        if error is not None and not self.complete and (buffered or self.status is None):
            answered = isinstance(error, Exception) and not self.disconnected
            return _FAILED if buffered or answered else None
        if self.status is None and not self.disconnected:
            return _FAILED  # The application said nothing, and servers answer for it.
        return self.status

    def given(self, ask: Optional[FromScope]) -> Optional[str]:
        """Ask what the developer gave, and take its failure for no answer."""
        try:
            return ask(self.scope) if ask else None
        except Exception:
            return None


def _close(record: "ContextManager[Any]", error: Optional[BaseException]) -> None:
    """Leave a `with` block, by an exception if there is one; it is not raised."""
    with suppress(Exception):  # A record is never worth a failed request.
        if error is None:
            record.__exit__(None, None, None)
        else:
            record.__exit__(type(error), error, error.__traceback__)


def _correlation_id(scope: Scope, names: Sequence[str]) -> str:
    """Return the request's correlation id: a header's, Lambda's, or a new one."""
    given = correlation_id(scope.get("headers"), names)
    return given or str(getattr(scope.get("aws.context"), "aws_request_id", None) or os.urandom(16).hex())


def _announced_bytes(scope: Scope) -> Optional[int]:
    """Return the size of a body that the application did not read, None if it cannot be told."""
    headers = {bytes(name).lower(): bytes(value) for name, value in scope.get("headers", ())}
    length = headers.get(b"content-length", b"")
    if length.isdigit() and len(length) < _MAX_DIGITS:
        return int(length)
    # Without either header there is no body in HTTP/1: https://www.rfc-editor.org/rfc/rfc9112#section-6.3
    said = b"transfer-encoding" in headers or b"content-length" in headers
    return 0 if not said and scope.get("http_version", "")[:1] == "1" else None


def _count_errors(error: BaseException) -> Optional[int]:
    """Return how many errors an exception of a validation names, as FastAPI's and Pydantic's do."""
    try:
        return len(error.errors())  # type: ignore[attr-defined]  # known by what it can do
    except Exception:
        return None


def _count_details(body: bytes) -> Optional[int]:
    """Return how many errors the body of FastAPI's answer to an invalid request names."""
    try:
        detail = json.loads(body)["detail"]
    except Exception:
        return None
    return len(detail) if isinstance(detail, list) else None
