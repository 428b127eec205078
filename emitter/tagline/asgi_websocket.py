"""WebSockets under ASGI: one record per connection, written when it is over.

https://asgi.readthedocs.io/en/latest/specs/www.html#websocket
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Optional

from .asgi_exchange import FAILED, Exchange, Message, Receive, Scope, Send

if TYPE_CHECKING:
    from .asgi import TaglineMiddleware

_SWITCHING, _FORBIDDEN = 101, 403
# https://www.rfc-editor.org/rfc/rfc6455#section-7.4.1
_NORMAL, _NO_CODE, _LOST = 1000, 1005, 1006


class Connection(Exchange):
    """One WebSocket, its messages counted while they pass."""

    status: Optional[int] = None
    close_code: Optional[int] = None
    has_left = False
    received = sent = request_bytes = response_bytes = 0

    def __init__(self, middleware: TaglineMiddleware, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__(middleware, scope, receive, send, type=middleware.websocket_type)

    async def receive(self) -> Message:
        """Pass on what the client sends, and count it."""
        message = await self._receive()
        if message["type"] == "websocket.receive":
            self.received += 1
            self.request_bytes += _size(message)
        elif message["type"] == "websocket.disconnect":
            self.leave(message.get("code") or _NO_CODE)
        return message

    async def send(self, message: Message) -> None:
        """Pass on what the application sends, and count it."""
        if message["type"] == "websocket.accept":
            message = {**message, "headers": self.with_id(message.get("headers"))}
        try:
            await self._send(message)
        except OSError:
            self.leave(_LOST)
            raise
        self.count(message)

    def count(self, message: Message) -> None:
        """Take what a message that was sent means for the record."""
        kind = message["type"]
        if kind == "websocket.accept":
            self.status = _SWITCHING
        elif kind == "websocket.send":
            self.sent += 1
            self.response_bytes += _size(message)
        elif kind == "websocket.close" and self.status is None:
            self.status = _FORBIDDEN  # what the server answers for it
        elif kind == "websocket.close" and self.close_code is None:
            self.close_code = message.get("code", _NORMAL)
        elif kind == "websocket.http.response.start":
            self.status = message["status"]
        elif kind == "websocket.http.response.body":
            self.response_bytes += len(message.get("body") or b"")

    def leave(self, code: int) -> None:
        """Take that the client has closed the connection, or that it broke."""
        if self.close_code is None:
            self.close_code, self.has_left = code, True

    def end(self, error: Optional[BaseException]) -> None:
        """Write the record: the application has returned or raised."""
        if self.has_left and getattr(error, "code", None) == self.close_code:
            error = None  # how frameworks end an endpoint whose client left
        if self.status is None and not self.has_left:
            self.status = FAILED
        is_open = self.status == _SWITCHING and self.close_code is None
        known = {
            "route": self.ask(self.middleware.route) or self.middleware.unmatched,
            "path": self.path,
            "status": self.status,
            "close_code": self.close_code,
            "client": self.ask(self.middleware.client),
            "received_count": self.received,
            "sent_count": self.sent,
            "request_bytes": self.request_bytes,
            "response_bytes": self.response_bytes,
            "incomplete": is_open or None,
        }
        self.write_record(known, error)


def _size(message: Message) -> int:
    """Return the bytes of a message's payload."""
    text = message.get("text")
    return len(message.get("bytes") or b"") if text is None else len(text.encode("utf-8", "surrogatepass"))
