"""WebSockets under the ASGI middleware: https://asgi.readthedocs.io/en/latest/specs/www.html#websocket."""

import asyncio
import inspect
from collections.abc import Sequence
from typing import Any

import pytest
from tagline import Emitter, add
from tagline.asgi import UNMATCHED, TaglineMiddleware

from tests.emitter.test_asgi import Lines, Message, Server, emitter, inside, lines, named, scope

__all__ = ["emitter", "lines"]

CONNECT: Message = {"type": "websocket.connect"}
ACCEPT: Message = {"type": "websocket.accept"}
HELLO: Message = {"type": "websocket.receive", "text": "häh"}
BYTES: Message = {"type": "websocket.receive", "bytes": b"\x00\x01"}
ANSWER: Message = {"type": "websocket.send", "text": "hello"}
CLOSE: Message = {"type": "websocket.close", "code": 4001}
LEFT: Message = {"type": "websocket.disconnect", "code": 1001}
DENIED: Message = {"type": "websocket.http.response.start", "status": 401, "headers": []}
BODY: Message = {"type": "websocket.http.response.body", "body": b"no"}


class GoneError(Exception):
    """What frameworks raise when they read from a WebSocket whose client has left."""

    def __init__(self, code: int) -> None:
        super().__init__()
        self.code = code


def websocket(path: str = "/chat/7", **more: Any) -> dict[str, Any]:
    request = {**scope(path), "type": "websocket", "subprotocols": [], **more}
    del request["method"]  # a WebSocket's scope has none
    return request


def app_of(*steps: Message | type[Exception] | Exception) -> Any:
    """Return an application that receives `connect`, and takes steps: it sends, reads or raises."""

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        for step in steps:
            if not isinstance(step, dict):
                raise step  # type: ignore[misc]  # not a message
            if step["type"] in ("websocket.receive", "websocket.disconnect"):
                await receive()
            else:
                await send(dict(step))

    return app


def connect(app: Any, *says: Message, gone_after: int = 1_000_000, **more: Any) -> Server:
    """Open one WebSocket."""
    server = Server([CONNECT, *says], gone_after=gone_after)
    asyncio.run(app(websocket(**more), server.receive, server.send))
    return server


COUNTS = {"received_count": 0, "sent_count": 0, "request_bytes": 0, "response_bytes": 0}
OPENED = {"status": 101, **COUNTS}
CASES: dict[str, tuple[Sequence[Message | Exception], dict[str, Any]]] = {
    "the application closes": ((ACCEPT, CLOSE), {**OPENED, "close_code": 4001}),
    "without a code": ((ACCEPT, {"type": "websocket.close"}), {**OPENED, "close_code": 1000}),
    "the client closes": ((ACCEPT, LEFT), {**OPENED, "close_code": 1001}),
    "the server repeats the application's code": ((ACCEPT, CLOSE, LEFT), {**OPENED, "close_code": 4001}),
    "messages both ways": (
        (ACCEPT, HELLO, BYTES, ANSWER, CLOSE),
        {
            **OPENED,
            "received_count": 2,
            "sent_count": 1,
            "request_bytes": 6,
            "response_bytes": 5,
            "close_code": 4001,
        },
    ),
    "refused": ((CLOSE,), {"status": 403, **COUNTS}),
    "refused with an answer": ((DENIED, BODY), {"status": 401, **COUNTS, "response_bytes": 2}),
    "the client leaves before an answer": ((LEFT,), {**COUNTS, "close_code": 1001}),
    "the application forgets to answer": ((), {"status": 500, **COUNTS}),
    "the application forgets to close": ((ACCEPT,), {**OPENED, "incomplete": True}),
}
FAILURES: dict[str, tuple[Sequence[Message | Exception], dict[str, Any]]] = {
    "before an answer": ((KeyError("a"),), {"status": 500, **COUNTS, "error_type": "KeyError"}),
    "while it is open": (
        (ACCEPT, KeyError("a")),
        {**OPENED, "incomplete": True, "error_type": "KeyError"},
    ),
    "after the client left": (
        (ACCEPT, LEFT, KeyError("a")),
        {**OPENED, "close_code": 1001, "error_type": "KeyError"},
    ),
    "because the client left": ((ACCEPT, LEFT, GoneError(1001)), {**OPENED, "close_code": 1001}),
    "with a code of its own": (
        (ACCEPT, GoneError(1001)),
        {**OPENED, "incomplete": True, "error_type": "GoneError"},
    ),
}


def said_by(steps: Sequence[Any]) -> list[Message]:
    reads = ("websocket.receive", "websocket.disconnect")
    return [step for step in steps if isinstance(step, dict) and step["type"] in reads]


@pytest.mark.parametrize("case", CASES)
def test_a_connection_leaves_one_record(case: str, lines: Lines, emitter: Emitter) -> None:
    steps, expected = CASES[case]
    server = connect(TaglineMiddleware(app_of(*steps), emitter=emitter), *said_by(steps))

    (record,) = lines.records
    fields = dict(record.fields)
    assert record.type == "websocket"
    assert fields.pop("duration_ms") >= 0
    assert fields.pop("correlation_id")
    assert fields == {"route": UNMATCHED, "path": "/chat/7", **expected}
    sent = [step for step in steps if step not in said_by(steps)]
    assert [message["type"] for message in server.got] == [
        step["type"] for step in sent if isinstance(step, dict)
    ]


@pytest.mark.parametrize("case", FAILURES)
def test_an_exception_goes_on_and_is_in_the_record_unless_the_client_left(
    case: str, lines: Lines, emitter: Emitter
) -> None:
    steps, expected = FAILURES[case]
    with pytest.raises((KeyError, GoneError)):
        connect(TaglineMiddleware(app_of(*steps), emitter=emitter), *said_by(steps))

    (record,) = lines.records
    kept = {*OPENED, "close_code", "incomplete", "error_type"}
    assert {name: value for name, value in record.fields.items() if name in kept} == expected


def test_a_client_that_is_lost_while_something_is_sent_has_left(lines: Lines, emitter: Emitter) -> None:
    """Since version 2.4 of the specification, `send` raises OSError; frameworks make their own of it."""

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        try:
            await send(ANSWER)
        except OSError:
            raise GoneError(1006) from None

    with pytest.raises(GoneError):
        connect(TaglineMiddleware(app, emitter=emitter), gone_after=1)

    (record,) = lines.records
    assert (record.fields["close_code"], record.fields["sent_count"]) == (1006, 0)
    assert "error" not in record.fields


def test_what_the_application_adds_is_in_the_record_until_it_returns(lines: Lines, emitter: Emitter) -> None:
    async def app(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        add(room="7", route="/its-own")
        await receive()
        await asyncio.gather(asyncio.to_thread(add, left=True))

    connect(TaglineMiddleware(app, emitter=emitter, client=lambda _: "acme"), LEFT)

    (record,) = lines.records
    fields = record.fields
    assert (fields["room"], fields["route"], fields["left"], fields["client"]) == (
        "7",
        "/its-own",
        True,
        "acme",
    )


def test_the_correlation_id_comes_in_and_goes_out(lines: Lines, emitter: Emitter) -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["state"]["correlation_id"])
        await app_of({**ACCEPT, "subprotocol": "chat", "headers": [(b"x-own", b"1")]}, CLOSE)(
            scope, receive, send
        )

    server = connect(TaglineMiddleware(app, emitter=emitter), headers=[(b"x-request-id", b"abc")])

    assert server.got[0] == {
        "type": "websocket.accept",
        "subprotocol": "chat",
        "headers": [(b"x-own", b"1"), (b"x-correlation-id", b"abc")],
    }
    assert (seen, lines.records[0].fields["correlation_id"]) == (["abc"], "abc")


def test_a_skipped_path_and_an_inner_middleware_leave_no_record(lines: Lines, emitter: Emitter) -> None:
    app = TaglineMiddleware(app_of(ACCEPT, CLOSE), emitter=emitter)
    assert connect(app, path="/health").got == [ACCEPT, CLOSE]
    assert lines.records == []

    connect(TaglineMiddleware(app, emitter=emitter))
    assert len(lines.records) == 1


def test_the_type_can_be_chosen(lines: Lines, emitter: Emitter) -> None:
    connect(TaglineMiddleware(app_of(ACCEPT, CLOSE), emitter=emitter, websocket_type="chat"))

    assert lines.records[0].type == "chat"


@pytest.mark.parametrize("ends", ["it closes", "the client leaves"])
def test_an_endpoint_of_starlette_has_its_route_and_no_error(
    ends: str, lines: Lines, emitter: Emitter
) -> None:
    fastapi = pytest.importorskip("fastapi")
    websockets = pytest.importorskip("starlette.websockets")
    app = fastapi.FastAPI()

    async def echo(websocket: Any) -> None:
        await websocket.accept()
        await websocket.send_text(await websocket.receive_text())
        if ends == "the client leaves":
            await websocket.receive_text()  # raises WebSocketDisconnect, which nobody catches
        await websocket.close()

    echo.__annotations__["websocket"] = websockets.WebSocket
    app.websocket("/echo/{room}")(echo)
    says = [{"type": "websocket.receive", "text": "hello"}, LEFT]
    server = Server([CONNECT, *says])
    try:
        asyncio.run(inside(app, emitter)(websocket("/echo/7"), server.receive, server.send))
    except websockets.WebSocketDisconnect:
        assert ends == "the client leaves"

    (record,) = lines.records
    fields = record.fields
    assert server.got[1]["text"] == "hello"
    assert (fields["route"], fields["status"], fields["received_count"]) == ("/echo/{room}", 101, 1)
    assert fields["close_code"] == (1000 if ends == "it closes" else 1001)
    assert "error" not in fields


def test_the_page_has_every_field(lines: Lines, emitter: Emitter) -> None:
    with pytest.raises(KeyError):
        connect(TaglineMiddleware(app_of(ACCEPT, KeyError("a")), emitter=emitter, client=lambda _: "acme"))
    connect(TaglineMiddleware(app_of(ACCEPT, CLOSE), emitter=emitter))

    written = {name for record in lines.records for name in record.fields}
    shared = {"route", "path", "client", "duration_ms", "correlation_id", "error", "error_type"}
    assert named("WebSockets") == written - shared
    assert "websocket_type" in inspect.signature(TaglineMiddleware).parameters
