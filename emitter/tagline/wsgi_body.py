"""What a WSGI server iterates in place of the application's body: its end is the end of the request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Iterable, Iterator

if TYPE_CHECKING:
    from .wsgi import WsgiExchange


class Body:
    """A response's body, passed on part by part. The record is written after the last part."""

    def __init__(self, body: Iterable[bytes], exchange: WsgiExchange) -> None:
        self._body = body
        self._close: Any = getattr(body, "close", None)
        self._exchange = exchange

    def __iter__(self) -> Iterator[bytes]:
        exchange = self._exchange
        try:
            for part in self._body:
                exchange.count(part)
                yield part
            exchange.complete = True
        except GeneratorExit:  # the server calls close()
            raise
        except BaseException as error:
            exchange.end(error)
            raise
        exchange.end()

    def close(self) -> None:
        """Close the application's body. Servers call this in any case, also when the client has left."""
        try:
            if self._close is not None:
                self._close()
        except BaseException as error:
            self._exchange.end(error)
            raise
        if self._exchange.draft.open:
            self._exchange.end()

    def __del__(self) -> None:
        if self._exchange.draft.open:  # test clients drop bodies that they do not read
            self._exchange.end()


class SizedBody(Body):
    """A body whose number of parts is known: servers send a Content-Length for a single part."""

    def __len__(self) -> int:
        return len(self._body)  # type: ignore[arg-type]  # only bodies with a length become this
