"""What ASGI's HTTP requests and WebSockets share: the record, the correlation id, hooks and headers."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Awaitable, Callable, Dict, Iterable, MutableMapping, Optional

from .collecting import Draft
from .invocation import is_correlation_id

if TYPE_CHECKING:
    from .asgi import TaglineMiddleware

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
FromScope = Callable[[Scope], Optional[str]]

FAILED = 500  # what servers answer for an application that fails

_MAX_DIGITS = 20  # of a Content-Length: no body is longer, and Python refuses numbers of many digits


class Exchange:
    """A request or a connection, with its record.

    Args:
        middleware: Has the emitter, and the names of the headers.
        scope: It gets the correlation id, as `request.state.correlation_id`, and the record, under `tagline`.
        receive: The server's.
        send: The server's.
        type: The record's type, if not the emitter's.
    """

    def __init__(
        self,
        middleware: TaglineMiddleware,
        scope: Scope,
        receive: Receive,
        send: Send,
        *,
        type: Optional[str] = None,
    ) -> None:
        self.middleware = middleware
        self.scope = scope
        self._receive = receive
        self._send = send
        self.path = scope["path"]  # older Starlettes cut off what a mount took
        self.headers = _lower(scope.get("headers"))
        context = scope.get("aws.context")
        request_id = getattr(context, "aws_request_id", None)
        self.correlation_id = self._given_id() or str(request_id or os.urandom(16).hex())
        state = scope.setdefault("state", {})
        if isinstance(state, dict):
            state["correlation_id"] = self.correlation_id
        fields = {"correlation_id": self.correlation_id}
        self.draft = Draft(middleware.emitter, fields, None, context, {"type": type})
        scope["tagline"] = self.draft.begin(is_block=True)

    def _given_id(self) -> Optional[str]:
        """Return the correlation id that came in, None if no header has one that can be sent on."""
        for name in self.middleware.correlation_headers:
            text = _text(self.headers.get(name))
            if is_correlation_id(text):
                return text
        return None

    def with_id(self, headers: Optional[Iterable[Any]]) -> list[Any]:
        """Return a response's headers with the correlation id, unless the application has set that header."""
        found: list[Any] = list(headers or ())  # an iterator can be read once
        name = self.middleware.correlation_response_header
        if name and name not in _lower(found):
            found.append((name, self.correlation_id.encode("latin-1")))
        return found

    def ask(self, hook: Optional[FromScope]) -> Optional[str]:
        """Call a function for a field; if it raises, the field is left out."""
        try:
            return hook(self.scope) if hook else None
        except Exception as error:
            self.middleware.emitter.report(error)
            return None

    def announced_bytes(self) -> Optional[int]:
        """Return the size of a body that the application did not read, None if it is not known."""
        length = _text(self.headers.get(b"content-length"))
        if length.isascii() and length.isdigit() and len(length) < _MAX_DIGITS:
            return int(length)
        # Without either header a request has no body in HTTP/1: https://www.rfc-editor.org/rfc/rfc9112#section-6.3
        is_announced = b"transfer-encoding" in self.headers or b"content-length" in self.headers
        return 0 if not is_announced and self.scope.get("http_version", "")[:1] == "1" else None

    def write_record(self, known: Dict[str, Any], error: Optional[BaseException]) -> None:
        """Write the record with what is known and not None; the application's own fields take precedence."""
        found = {name: value for name, value in known.items() if value is not None}
        self.draft.invocation.fields.update(found)  # first on the line
        self.draft.update({**found, **self.draft})
        self.draft.end(error=error)


def _lower(headers: Optional[Iterable[Any]]) -> Dict[bytes, Any]:
    """Return headers by their names in lower case, as bytes; some servers and applications have text."""
    try:
        return {
            (name if type(name) is bytes else _as_bytes(name)).lower(): value for name, value in headers or ()
        }
    except Exception:
        return {}  # not headers


def _as_bytes(text: Any) -> bytes:
    return text.encode("latin-1") if isinstance(text, str) else bytes(text)


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value if isinstance(value, str) else ""
