"""WSGI middleware: one record per request, for Flask, Django and other WSGI frameworks.

    from tagline.wsgi import TaglineMiddleware
    app.wsgi_app = TaglineMiddleware(app.wsgi_app)

It imports no framework and buffers no body. The record's fields are in docs/how-to/flask-django.md.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Any, Callable, Dict, FrozenSet, Iterable, List, Optional, Sequence, Tuple, cast

from .asgi import DEFAULT_SKIP
from .collecting import Draft
from .emitter import Emitter
from .invocation import UNMATCHED, is_correlation_id
from .values import repr_of
from .wsgi_body import Body, SizedBody
from .wsgi_routes import FIELDS, django_route, route_template

__all__ = ["DEFAULT_SKIP", "UNMATCHED", "TaglineMiddleware", "django_route", "route_template"]

Environ = Dict[str, Any]
Headers = List[Tuple[str, str]]
Write = Callable[[bytes], object]
Respond = Callable[..., Write]
App = Callable[[Environ, Respond], Iterable[bytes]]
FromEnviron = Callable[[Environ], Optional[str]]

EXCHANGE = "tagline.exchange"  # in the environ

_BAD_REQUEST, _FAILED = 400, 500


class TaglineMiddleware:
    """Writes one record for each HTTP request that the application answers.

    Args:
        app: The WSGI application.
        emitter: Writes the records; default a new `Emitter()`.
        client: Returns who called, from the environ when the response starts; None, or no function: no field.
        route: Returns the route's template from the environ, likewise; default `route_template`.
        unmatched: The route of requests that matched no route.
        skip: Paths that leave no record, compared exactly.
        correlation_headers: Request headers that may carry a correlation id; the first one found is used.
            Without any, it is Lambda's request id, else a random one.
        correlation_response_header: Carries it out, unless the application sets that header; None for none.
        error_details: Whether records of status 400 and above have `error_details`: the URL, the request's
            headers, and the exception if there was one. Credentials are masked by their names.
    """

    def __init__(
        self,
        app: App,
        *,
        emitter: Optional[Emitter] = None,
        client: Optional[FromEnviron] = None,
        route: Optional[FromEnviron] = None,
        unmatched: str = UNMATCHED,
        skip: Iterable[str] = DEFAULT_SKIP,
        correlation_headers: Sequence[str] = ("x-correlation-id", "x-request-id"),
        correlation_response_header: Optional[str] = "x-correlation-id",
        error_details: bool = False,
    ) -> None:
        self.app = app
        self.emitter = emitter or Emitter()
        self.client = client
        self.route = route or route_template
        self.unmatched = unmatched
        self.skip: FrozenSet[str] = frozenset(skip)
        self.correlation_headers = ["HTTP_" + name.upper().replace("-", "_") for name in correlation_headers]
        self.correlation_response_header = (correlation_response_header or "").lower()
        self.error_details = error_details
        # Both answer unhandled exceptions themselves, and announce them. A receiver is connected only once.
        for module in ("flask", "django.core.signals"):
            with suppress(Exception):  # not imported, or an old Flask without blinker
                sys.modules[module].got_request_exception.connect(_keep_exception)

    def __call__(self, environ: Environ, start_response: Respond) -> Iterable[bytes]:
        """Run the application, and write the record when its response is complete. Exceptions propagate."""
        path = _path(environ)
        if FIELDS in environ or path in self.skip:  # an outer middleware records it, or nobody
            return self.app(environ, start_response)
        exchange = WsgiExchange(self, environ, path, start_response)
        try:
            body: Any = self.app(environ, exchange.start_response)
        except BaseException as error:
            exchange.end(error)
            raise
        recorded = (SizedBody if hasattr(body, "__len__") else Body)(body, exchange)
        wrapper = environ.get("wsgi.file_wrapper")
        if wrapper and isinstance(wrapper, type) and issubclass(type(body), wrapper):
            with suppress(AttributeError):  # a file stays what it is: the server may send it without reading
                body.close = recorded.close
                exchange.is_file = True
                return cast("Iterable[bytes]", body)
        return recorded


def _keep_exception(*_sender: object, exception: Any = None, request: Any = None, **_more: Any) -> None:
    """Keep an exception that a framework answers: Flask passes it, Django is handling it."""
    with suppress(Exception):
        environ = (request or sys.modules["flask"].request).environ
        environ[EXCHANGE].look(exception or sys.exc_info()[1])


class WsgiExchange:
    """One request and its response."""

    status: Optional[int] = None
    response_bytes = 0
    is_file = sent = complete = False
    error: Optional[BaseException] = None  # that the application answered
    template = client = cast("Any", None)
    headers: Headers = []  # noqa: RUF012 - replaced, never changed

    def __init__(self, middleware: TaglineMiddleware, environ: Environ, path: str, respond: Respond) -> None:
        self.middleware = middleware
        self.environ = environ
        self.path = path  # as it is now: a dispatcher moves parts of it into SCRIPT_NAME
        self.script_name = str(environ.get("SCRIPT_NAME", ""))
        self.event = environ.get("apig_wsgi.full_event") or environ.get("serverless.event")
        context = self.event and (environ.get("apig_wsgi.context") or environ.get("serverless.context"))
        self.outer_error = sys.exc_info()[1]
        self._respond = respond
        self._write: Write = len  # any function that does nothing, until the server returns its own
        for name in middleware.correlation_headers:
            if name in environ and is_correlation_id(environ[name]):
                self.correlation_id = environ[name]
                break
        else:
            self.correlation_id = str(getattr(context, "aws_request_id", None) or os.urandom(16).hex())
        fields = {"correlation_id": self.correlation_id}
        self.draft = Draft(middleware.emitter, fields, self.event, context, {})
        environ[FIELDS] = self.draft.begin(is_block=True)
        environ[EXCHANGE] = self

    def start_response(self, status: str, headers: Headers, exc_info: Any = None) -> Write:
        """Pass on the status and the headers, with the correlation id among them."""
        sent, name = headers, self.middleware.correlation_response_header
        try:
            if name:
                for header in headers:
                    if header[0].lower() == name:
                        break
                else:
                    sent = [*headers, (name, self.correlation_id)]
        except Exception:
            sent = headers  # they are not what they should be: the server refuses them
        self._write = self._respond(status, sent, exc_info) if exc_info else self._respond(status, sent)
        try:  # quicker than `with suppress`
            self.status, self.headers = int(status[:3]), headers
            # An exception handler responds while it handles the exception, so `sys.exc_info()` has it here.
            handled = (exc_info or sys.exc_info())[1]
            self.look(handled if handled is not self.outer_error and self.status >= _FAILED else None)
        except Exception:
            return self.write
        return self.write

    def look(self, error: Optional[BaseException] = None) -> None:
        """Ask for the route and the client while the framework has its request: Flask drops it early."""
        self.error = error or self.error
        try:  # as `ask` does, quicker
            self.template = self.middleware.route(self.environ)
        except Exception as failure:
            self.middleware.emitter.report(failure)
        if self.middleware.client:
            self.client = self.ask(self.middleware.client)

    def write(self, part: bytes) -> object:
        """Pass on a part that the application pushes, and count it."""
        self.count(part)
        return self._write(part)

    def count(self, part: bytes) -> None:
        """Count a part of the body."""
        self.sent = True  # most servers send the head with the first part, even if that is empty
        try:
            self.response_bytes += len(part)
        except TypeError:
            return  # no bytes: the server refuses it

    def end(self, raised: Optional[BaseException] = None) -> None:
        """Write the record, once."""
        draft = self.draft
        if not draft.open:
            return
        self.environ.pop(EXCHANGE, None)  # each refers to the other
        if self.template is None:
            self.look()
        error = raised or self.error
        try:
            known = self.known(raised, error)
        except Exception:
            known = {}  # a record is never worth a failed request
        draft.invocation.fields.update(known)
        draft.end(error=error)
        self.error = self.outer_error = None  # an exception refers to its frames, and they to this

    def known(self, raised: Optional[BaseException], error: Optional[BaseException]) -> Dict[str, object]:
        """Return the record's fields as far as they are known now."""
        environ, middleware = self.environ, self.middleware
        method, status = environ.get("REQUEST_METHOD"), self.status
        if raised is not None or status is None:
            status = self.known_status(raised)
        script_name = environ.get("SCRIPT_NAME", "")
        mounts = "" if script_name == self.script_name else str(script_name)[len(self.script_name) :]
        has_body = method != "HEAD"  # servers send none for HEAD
        unannounced = None if "HTTP_TRANSFER_ENCODING" in environ else 0
        known: Dict[str, object] = {
            "method": method,
            "route": middleware.unmatched if self.template is None else f"{mounts}{self.template}",
            "path": self.path,
            "status": status,
            "client_ip": environ.get("REMOTE_ADDR") or None,
            "user_agent": environ.get("HTTP_USER_AGENT"),
            "request_bytes": _size(environ["CONTENT_LENGTH"])
            if environ.get("CONTENT_LENGTH")
            else unannounced,
            "response_bytes": self.response_bytes if has_body else 0,
        }
        if self.is_file:
            known["response_bytes"] = self.file_bytes()
        if self.client is not None:
            known["client"] = self.client
        if self.sent and has_body and not self.complete:
            known["incomplete"] = True
        if middleware.error_details and (status or 0) >= _BAD_REQUEST:
            known["error_details"] = self.ask(lambda _: self.details(error))
        if None in known.values():
            return {name: value for name, value in known.items() if value is not None}
        return known

    def known_status(self, raised: Optional[BaseException]) -> Optional[int]:
        """Return the status that the client got, None if it got none."""
        if raised is None:  # servers refuse a body that no status came before, and answer for it
            return _FAILED if self.status is None and (self.sent or self.complete) else self.status
        if self.event is not None or not (self.sent or isinstance(raised, Exception)):
            return None  # in Lambda the gateway answers, and the draft has the status
        return (self.sent and self.status) or _FAILED

    def file_bytes(self) -> Optional[int]:
        """Return the size of a file that the server reads itself, None if nothing announces it."""
        return _size(dict(self.headers).get("Content-Length"))

    def details(self, error: Optional[BaseException]) -> Dict[str, object]:
        """Return the field `error_details`."""
        sent = [name for name in self.environ if name.startswith("HTTP_")]
        headers = {name[5:].replace("_", "-").lower(): self.environ[name] for name in sent}
        query = self.environ.get("QUERY_STRING", "")
        what = {} if error is None else {"type": type(error).__name__, "message": repr_of(error, str)}
        return {**what, "url": self.path + (query and f"?{query}"), "headers": headers}

    def ask(self, function: Optional[Callable[[Environ], object]]) -> object:
        """Call a function for a field; if it raises, the field is left out."""
        try:
            return function(self.environ) if function else None
        except Exception as error:
            self.middleware.emitter.report(error)
            return None


def _path(environ: Environ) -> str:
    """Return the path as the client asked for it; the environ's text is bytes in latin-1."""
    path = f"{environ.get('SCRIPT_NAME', '')}{environ.get('PATH_INFO', '')}"
    return path if path.isascii() else path.encode("latin-1", "replace").decode("utf-8", "replace")


def _size(length: Any) -> Optional[int]:
    """Return the number that a Content-Length is, None if it is not one."""
    try:
        return int(length)
    except (TypeError, ValueError):
        return None
