"""The ASGI middleware: against the specification first, then inside the real frameworks.

Messages and their meaning are those of https://asgi.readthedocs.io/en/latest/specs/www.html and
https://asgi.readthedocs.io/en/latest/extensions.html. The frameworks are driven as a server drives them; what
is not installed is left out.
"""

import asyncio
import inspect
import io
import json
import re
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tagline import MAX_CORRELATION_ID, Emitter, Record, add, read
from tagline.asgi import DEFAULT_SKIP, UNMATCHED, TaglineMiddleware

from tests.builders import Context, http_event

Message = MutableMapping[str, Any]

START: Message = {"type": "http.response.start", "status": 200, "headers": []}
END: Message = {"type": "http.response.body", "body": b"{}"}
REQUEST: Message = {"type": "http.request", "body": b""}
GONE: Message = {"type": "http.disconnect"}


class Lines(io.StringIO):
    """A stdout that can be read as records at any time."""

    @property
    def records(self) -> list[Record]:
        return [read(line) for line in self.getvalue().splitlines()]

    @property
    def requests(self) -> list[Record]:
        # A machine that is slow enough makes any end of a request look like work in the background.
        return [record for record in self.records if record.type == "api_request"]

    @property
    def fields(self) -> dict[str, Any]:
        (record,) = self.requests
        return dict(record.fields)


@dataclass
class Server:
    """The side of a server: what it tells the application, and what it was told."""

    says: Sequence[Message] = field(default_factory=lambda: [REQUEST])
    got: list[Message] = field(default_factory=list)
    gone_after: int = 1_000_000
    asked: int = 0

    async def receive(self) -> Message:
        self.asked += 1
        if self.asked > len(self.says):  # A connection that stays open, and says no more.
            await asyncio.get_running_loop().create_future()
        return self.says[self.asked - 1]

    async def send(self, message: Message) -> None:
        if len(self.got) >= self.gone_after:
            raise OSError("the client is gone")
        self.got.append(message)

    @property
    def status(self) -> int:
        status: int = self.got[0]["status"]
        return status

    @property
    def headers(self) -> dict[str, str]:
        return {bytes(name).decode(): bytes(value).decode() for name, value in self.got[0]["headers"]}

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.got[1:])


@pytest.fixture
def lines() -> Lines:
    return Lines()


@pytest.fixture
def emitter(lines: Lines) -> Emitter:
    return Emitter(stream=lines)


def scope(path: str = "/pets/7", method: str = "GET", **more: Any) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(b"host", b"127.0.0.1:8000")],
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 8000),
        **more,
    }


def app_of(*messages: Message) -> Any:
    """Return an application that sends some messages."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        for message in messages:
            await send(dict(message))

    return app


def ask(app: Any, request: dict[str, Any] | None = None, server: Server | None = None) -> Server:
    """Send one request."""
    server = server or Server()
    asyncio.run(app(scope() if request is None else request, server.receive, server.send))
    return server


# --- what a record says -----------------------------------------------------------------------------------


def test_a_request_leaves_one_record_that_says_what_it_was(lines: Lines, emitter: Emitter) -> None:
    server = ask(TaglineMiddleware(app_of(START, END), emitter=emitter), scope(method="POST"))

    fields = lines.fields
    assert fields.pop("duration_ms") >= 0
    assert fields.pop("correlation_id") == server.headers["x-correlation-id"]
    assert fields == {
        "method": "POST",
        "route": UNMATCHED,
        "path": "/pets/7",
        "status": 200,
        "request_bytes": 0,
        "response_bytes": 2,
    }


def test_what_the_application_adds_is_in_the_record_and_wins(lines: Lines, emitter: Emitter) -> None:
    async def app(scope: Any, _receive: Any, send: Any) -> None:
        add(pet="7", route="/its-own")
        scope["tagline"]["from_scope"] = True
        await send(START)
        await send(END)

    ask(TaglineMiddleware(app, emitter=emitter))

    assert (lines.fields["pet"], lines.fields["route"], lines.fields["from_scope"]) == ("7", "/its-own", True)


def test_client_and_route_are_asked_for_when_the_response_is_complete(lines: Lines, emitter: Emitter) -> None:
    async def app(scope: Any, _receive: Any, send: Any) -> None:
        scope["user"] = "acme"  # as an authentication middleware does
        await send(START)
        await send(END)

    ask(
        TaglineMiddleware(
            app, emitter=emitter, client=lambda scope: scope["user"], route=lambda _: "/pets/{id}"
        )
    )

    assert (lines.fields["client"], lines.fields["route"]) == ("acme", "/pets/{id}")


def test_what_the_developer_gave_may_fail_and_the_request_does_not(lines: Lines, emitter: Emitter) -> None:
    def failing(_scope: Any) -> str:
        raise KeyError("user")

    server = ask(TaglineMiddleware(app_of(START, END), emitter=emitter, client=failing, route=failing))

    assert server.status == 200
    assert "client" not in lines.fields
    assert lines.fields["route"] == UNMATCHED


def test_a_stream_that_is_broken_costs_the_record_and_not_the_request() -> None:
    class Broken(io.StringIO):
        def write(self, text: str, /) -> int:
            raise OSError(text)

    assert ask(TaglineMiddleware(app_of(START, END), emitter=Emitter(stream=Broken()))).body == b"{}"


@pytest.mark.parametrize("path", DEFAULT_SKIP)
def test_health_checks_leave_no_record(path: str, lines: Lines, emitter: Emitter) -> None:
    server = ask(TaglineMiddleware(app_of(START, END), emitter=emitter), scope(path))

    assert server.got == [START, END]
    assert lines.records == []


def test_the_skipped_paths_can_be_chosen(lines: Lines, emitter: Emitter) -> None:
    app = TaglineMiddleware(app_of(START, END), emitter=emitter, skip=["/internal"])
    ask(app, scope("/internal"))
    ask(app, scope("/health"))

    assert lines.fields["path"] == "/health"


@pytest.mark.parametrize("kind", ["lifespan", "other"])
def test_what_is_not_http_passes_through_untouched(kind: str, lines: Lines, emitter: Emitter) -> None:
    seen: list[Any] = []

    async def app(*arguments: Any) -> None:
        seen.extend(arguments)

    server = Server()
    request: dict[str, Any] = {"type": kind}
    receive, send = server.receive, server.send
    asyncio.run(TaglineMiddleware(app, emitter=emitter)(request, receive, send))

    assert all(was is gave for was, gave in zip(seen, (request, receive, send), strict=True))
    assert request == {"type": kind}
    assert lines.records == []


def test_a_middleware_inside_another_leaves_the_record_to_it(lines: Lines, emitter: Emitter) -> None:
    inner = TaglineMiddleware(app_of(START, END), emitter=emitter)
    ask(TaglineMiddleware(inner, emitter=emitter))

    assert len(lines.requests) == 1


# --- sizes and passing on ---------------------------------------------------------------------------------


@given(
    asked=st.lists(st.binary(max_size=20), min_size=1, max_size=5),
    answered=st.lists(st.binary(max_size=20), min_size=1, max_size=5),
)
def test_bodies_pass_part_by_part_as_they_are_and_are_counted(
    asked: list[bytes], answered: list[bytes]
) -> None:
    lines = Lines()
    said = [
        {"type": "http.request", "body": part, "more_body": number < len(asked)}
        for number, part in enumerate(asked, 1)
    ]
    answer: list[Message] = [
        {"type": "http.response.body", "body": part, "more_body": number < len(answered)}
        for number, part in enumerate(answered, 1)
    ]
    server = Server(says=said)
    heard: list[Message] = []

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        heard.extend([await receive() for _ in said])
        await send(START)
        for number, message in enumerate(answer, 1):
            await send(message)
            assert server.got[1:] == answer[:number]  # It is out before the next part is made.

    ask(TaglineMiddleware(app, emitter=Emitter(stream=lines), correlation_response_header=None), None, server)

    assert heard == said
    assert server.got == [START, *answer]
    assert lines.fields["request_bytes"] == sum(map(len, asked))
    assert lines.fields["response_bytes"] == sum(map(len, answered))


@pytest.mark.parametrize(
    ("headers", "version", "size"),
    [
        ([], "1.1", 0),  # RFC 9112, 6.3: without either header there is no body
        ([(b"Content-Length", b"1000")], "1.1", 1000),
        ([(b"content-length", b"many")], "1.1", None),
        ([(b"content-length", b"9" * 5_000)], "1.1", None),  # more digits than Python reads
        ([(b"transfer-encoding", b"chunked")], "1.1", None),
        ([], "2", None),
        ([(b"content-length", b"5")], "2", 5),
    ],
)
def test_a_body_that_nobody_read_has_the_size_that_was_announced_or_none(
    headers: Any, version: str, size: int | None, lines: Lines, emitter: Emitter
) -> None:
    request = scope(method="POST", headers=headers, http_version=version)
    ask(TaglineMiddleware(app_of(START, END), emitter=emitter), request)

    assert lines.fields.get("request_bytes") == size
    assert lines.fields["status"] == 200


PART: Message = {"type": "http.response.body", "body": b"1234", "more_body": True}


@pytest.mark.parametrize(
    ("method", "messages", "size"),
    [
        ("GET", [START, PART, END], 6),
        ("HEAD", [START, END], 0),  # servers send no body: RFC 9110, 9.3.2
        ("GET", [{**START, "trailers": True}, END, {"type": "http.response.trailers", "headers": []}], 2),
        ("GET", [START, {"type": "http.response.pathsend", "path": "/srv/file"}], None),
        ("GET", [START, {"type": "http.response.zerocopysend", "file": 3}], None),
        ("GET", [{"type": "http.response.debug", "info": {}}, START, END], 2),
    ],
)
def test_a_response_is_counted_where_its_bytes_can_be_seen(
    method: str, messages: list[Message], size: int | None, lines: Lines, emitter: Emitter
) -> None:
    when: list[int] = []

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)
            when.append(len(lines.requests))

    ask(TaglineMiddleware(app, emitter=emitter), scope(method=method))

    assert lines.fields.get("response_bytes") == size
    assert "incomplete" not in lines.fields
    # The record is written after the last message and not before.
    assert when == [0] * (len(messages) - 1) + [1]


# --- background work --------------------------------------------------------------------------------------


def going_on(work: Callable[[], Any]) -> Any:
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send(START)
        await send(END)
        await work()

    return app


def test_the_record_is_written_before_the_work_in_the_background(lines: Lines, emitter: Emitter) -> None:
    async def work() -> None:
        assert len(lines.records) == 1
        add(too="late")

    ask(TaglineMiddleware(going_on(work), emitter=emitter, background_from_ms=float("inf")))

    assert "too" not in lines.fields


def test_long_work_in_the_background_leaves_a_record_of_its_own(lines: Lines, emitter: Emitter) -> None:
    ask(
        TaglineMiddleware(
            going_on(lambda: asyncio.sleep(0)),
            emitter=emitter,
            background_from_ms=0,
            background_type="afterwards",
        )
    )

    request, background = lines.records
    assert (request.type, background.type) == ("api_request", "afterwards")
    fields = dict(background.fields)
    assert fields.pop("duration_ms") >= 0
    assert fields == {name: request.fields[name] for name in ("method", "route", "correlation_id")}


def test_a_record_of_work_in_the_background_has_lambdas_request_id(lines: Lines, emitter: Emitter) -> None:
    app = TaglineMiddleware(app_of(START, END), emitter=emitter, background_from_ms=0)
    ask(app, {**scope(), "aws.context": Context()})

    request, background = lines.records
    assert background.type == "background_task"
    assert background.fields["request_id"] == request.fields["request_id"] == REQUEST_ID


def test_work_in_the_background_that_fails_leaves_a_record_and_its_exception_goes_on(
    lines: Lines, emitter: Emitter
) -> None:
    async def work() -> None:
        raise ValueError("no mail today")

    with pytest.raises(ValueError, match="no mail today"):
        ask(TaglineMiddleware(going_on(work), emitter=emitter, background_from_ms=float("inf")))

    request, background = lines.records
    assert (request.fields["status"], "error_type" in request.fields) == (200, False)
    assert (background.type, background.fields["error_type"]) == ("background_task", "ValueError")
    assert background.fields["error"] == "no mail today"


def test_a_response_sent_by_a_task_of_its_own_is_recorded_once_and_its_time_is_its_own(
    lines: Lines, emitter: Emitter
) -> None:
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        async def stream() -> None:
            add(streamed=True)
            await send(START)
            await send(END)

        await asyncio.create_task(stream())
        await asyncio.sleep(0.02)

    ask(TaglineMiddleware(app, emitter=emitter, background_from_ms=10))

    request, background = lines.records
    assert (request.type, request.fields["streamed"]) == ("api_request", True)
    assert background.fields["duration_ms"] >= 10


# --- what goes wrong --------------------------------------------------------------------------------------


class RefusedError(Exception):
    pass


def refuse() -> None:
    raise RefusedError("no")


@dataclass(frozen=True)
class Failure:
    """An application that raises after it sent something, and what the record of it has."""

    error: BaseException
    sent: list[Message]
    status: int | None
    incomplete: bool | None = None
    scope: dict[str, Any] = field(default_factory=dict)


UNDER_MANGUM = {"aws.context": Context()}


@pytest.mark.parametrize(
    "failure",
    [
        Failure(RefusedError("no"), [], 500),
        Failure(RefusedError("no"), [START, PART], 200, incomplete=True),  # it is on its way already
        Failure(RefusedError("no"), [START, PART], 500, incomplete=True, scope=UNDER_MANGUM),  # it is not
        Failure(asyncio.CancelledError("no"), [], None),  # the client got nothing
        Failure(asyncio.CancelledError("no"), [START], 200, incomplete=True),
        Failure(asyncio.CancelledError("no"), [], 500, scope=UNDER_MANGUM),
    ],
)
def test_an_exception_goes_on_and_the_record_has_its_type(
    failure: Failure, lines: Lines, emitter: Emitter
) -> None:
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        for message in failure.sent:
            await send(message)
        raise failure.error

    with pytest.raises(type(failure.error)) as raised:
        ask(TaglineMiddleware(app, emitter=emitter), scope(**failure.scope))

    if isinstance(failure.error, Exception):  # asyncio.run makes a new CancelledError
        assert raised.value is failure.error
    fields = lines.fields
    assert (fields["error_type"], fields["error"]) == (type(failure.error).__name__, "no")
    assert (fields.get("status"), fields.get("incomplete")) == (failure.status, failure.incomplete)


def test_an_exception_that_is_answered_with_a_5xx_is_in_the_record(lines: Lines, emitter: Emitter) -> None:
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        try:
            refuse()
        except RefusedError:
            await send({**START, "status": 503})
            await send(END)

    ask(TaglineMiddleware(app, emitter=emitter))

    assert (lines.fields["status"], lines.fields["error_type"]) == (503, "RefusedError")


def test_an_exception_that_is_answered_and_goes_on_is_recorded_once(lines: Lines, emitter: Emitter) -> None:
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        try:
            refuse()
        except RefusedError:  # as Starlette's ServerErrorMiddleware does
            await send({**START, "status": 500})
            await send(END)
            raise

    with pytest.raises(RefusedError):
        ask(TaglineMiddleware(app, emitter=emitter))

    assert (lines.fields["status"], lines.fields["error_type"]) == (500, "RefusedError")


@pytest.mark.parametrize("status", [200, 404])
def test_an_exception_that_was_dealt_with_is_no_error(status: int, lines: Lines, emitter: Emitter) -> None:
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        try:
            refuse()
        except RefusedError:
            await send({**START, "status": status})
            await send(END)

    ask(TaglineMiddleware(app, emitter=emitter))

    assert "error_type" not in lines.fields


def test_an_exception_that_the_server_is_handling_is_not_the_applications(
    lines: Lines, emitter: Emitter
) -> None:
    try:
        refuse()
    except RefusedError:
        ask(TaglineMiddleware(app_of({**START, "status": 500}, END), emitter=emitter))

    assert "error_type" not in lines.fields


@pytest.mark.parametrize(
    ("sent", "status", "incomplete"), [([], 500, None), ([START], 200, True), ([START, PART], 200, True)]
)
def test_an_application_that_says_too_little_is_told_from_one_that_is_done(
    sent: list[Message], status: int, incomplete: bool | None, lines: Lines, emitter: Emitter
) -> None:
    ask(TaglineMiddleware(app_of(*sent), emitter=emitter))

    assert (lines.fields["status"], lines.fields.get("incomplete")) == (status, incomplete)


def test_a_client_that_leaves_before_the_end_is_seen(lines: Lines, emitter: Emitter) -> None:
    async def app(_scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(PART)
        assert await receive() == GONE

    ask(TaglineMiddleware(app, emitter=emitter), None, Server(says=[GONE]))

    fields = lines.fields
    assert (fields["disconnected"], fields["incomplete"], fields["status"]) == (True, True, 200)
    assert fields["response_bytes"] == 4


def test_a_client_that_leaves_before_an_answer_has_no_status(lines: Lines, emitter: Emitter) -> None:
    async def app(_scope: Any, receive: Any, _send: Any) -> None:
        assert await receive() == GONE

    ask(TaglineMiddleware(app, emitter=emitter), None, Server(says=[GONE]))

    assert lines.fields["disconnected"] is True
    assert "status" not in lines.fields


def test_a_server_that_can_send_no_more_says_that_the_client_left(lines: Lines, emitter: Emitter) -> None:
    with pytest.raises(OSError, match="gone"):  # since version 2.4 of the specification
        ask(TaglineMiddleware(app_of(START, PART, END), emitter=emitter), None, Server(gone_after=2))

    assert (lines.fields["disconnected"], lines.fields["status"]) == (True, 200)


def test_a_client_that_leaves_after_the_end_is_no_news(lines: Lines, emitter: Emitter) -> None:
    async def app(_scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(END)
        await receive()

    ask(TaglineMiddleware(app, emitter=emitter), None, Server(says=[GONE]))

    assert "disconnected" not in lines.fields


def test_an_application_that_is_closed_from_elsewhere_ends_quietly(emitter: Emitter) -> None:
    async def app(_scope: Any, receive: Any, _send: Any) -> None:
        await receive()

    async def begin() -> Any:
        server = Server(says=[])
        request = TaglineMiddleware(app, emitter=emitter)(scope(), server.receive, server.send)
        request.send(None)
        return request

    asyncio.run(begin()).close()


# --- correlation ------------------------------------------------------------------------------------------

REQUEST_ID = Context().aws_request_id


@pytest.mark.parametrize(
    ("headers", "taken"),
    [
        ([(b"x-correlation-id", b"abc")], "abc"),
        ([(b"X-Correlation-Id", b"abc")], "abc"),
        ([(b"x-request-id", b"def")], "def"),
        ([(b"x-request-id", b"def"), (b"x-correlation-id", b"abc")], "abc"),
        ([(b"x-correlation-id", b""), (b"x-request-id", b"def")], "def"),
        ([(b"x-correlation-id", b"a" * MAX_CORRELATION_ID)], "a" * MAX_CORRELATION_ID),
        ([(b"x-correlation-id", b"a" * (MAX_CORRELATION_ID + 1))], REQUEST_ID),
        ([(b"x-correlation-id", b"abc\r\nset-cookie: a=b")], REQUEST_ID),
        ([(b"x-correlation-id", b"\xe9")], REQUEST_ID),
        ([(b"x-correlation-id", b"two words")], REQUEST_ID),
        ([], REQUEST_ID),
    ],
)
def test_the_correlation_id_is_taken_from_the_request_and_handed_on(
    headers: Any, taken: str, lines: Lines, emitter: Emitter
) -> None:
    request = scope(headers=headers) | UNDER_MANGUM
    server = ask(TaglineMiddleware(app_of(START, END), emitter=emitter), request)

    assert server.headers == {"x-correlation-id": taken}
    assert lines.fields["correlation_id"] == taken
    assert request["state"]["correlation_id"] == taken


def test_a_request_without_one_and_without_lambda_gets_a_random_one(lines: Lines, emitter: Emitter) -> None:
    app = TaglineMiddleware(app_of(START, END), emitter=emitter)
    servers = [ask(app), ask(app)]

    ids = [record.fields["correlation_id"] for record in lines.requests]
    assert ids == [server.headers["x-correlation-id"] for server in servers]
    assert len(set(ids)) == 2


def test_the_headers_names_can_be_chosen(lines: Lines, emitter: Emitter) -> None:
    app = TaglineMiddleware(
        app_of(START, END),
        emitter=emitter,
        correlation_headers=["X-Trace"],
        correlation_response_header="X-Trace-Out",
    )
    server = ask(app, scope(headers=[(b"x-trace", b"abc"), (b"x-correlation-id", b"no")]))

    assert server.headers == {"x-trace-out": "abc"}
    assert lines.fields["correlation_id"] == "abc"


def test_the_applications_own_header_is_left_and_its_message_is_not_touched(emitter: Emitter) -> None:
    own: Message = {**START, "headers": [(b"X-Correlation-Id", b"own")]}
    assert ask(TaglineMiddleware(app_of(own, END), emitter=emitter)).got[0] == own

    shared: Message = {**START, "headers": []}

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send(shared)
        await send(END)

    ask(TaglineMiddleware(app, emitter=emitter))
    assert shared == START


# --- many at once -----------------------------------------------------------------------------------------


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=4), min_size=2, max_size=12))
def test_requests_at_the_same_time_are_never_mixed(waits: list[list[int]]) -> None:
    lines = Lines()

    async def app(scope: Any, _receive: Any, send: Any) -> None:
        number = int(scope["path"][1:])
        for step, turns in enumerate(waits[number]):
            for _ in range(turns):
                await asyncio.sleep(0)
            add({f"step_{step}": number})
        await send({**START, "status": 200 + number})
        await asyncio.sleep(0)
        await send({"type": "http.response.body", "body": b"x" * number})

    async def all_of_them() -> None:
        middleware = TaglineMiddleware(
            app, emitter=Emitter(stream=lines), client=lambda scope: str(scope["path"])
        )
        servers = [Server() for _ in waits]
        await asyncio.gather(
            *(
                middleware(scope(f"/{number}"), server.receive, server.send)
                for number, server in enumerate(servers)
            )
        )

    asyncio.run(all_of_them())

    by_path = {record.fields["path"]: record.fields for record in lines.requests}
    assert len(lines.requests) == len(by_path) == len(waits)
    for number, steps in enumerate(waits):
        fields = by_path[f"/{number}"]
        assert (fields["status"], fields["response_bytes"]) == (200 + number, number)
        assert fields["client"] == f"/{number}"
        assert {name: fields[name] for name in fields if name.startswith("step_")} == {
            f"step_{step}": number for step in range(len(steps))
        }


def test_threads_of_a_request_reach_its_record(lines: Lines, emitter: Emitter) -> None:
    async def app(scope: Any, _receive: Any, send: Any) -> None:
        await asyncio.gather(*(asyncio.to_thread(add, {f"{scope['path']}{n}": n}) for n in range(3)))
        await send(START)
        await send(END)

    async def both() -> None:
        middleware = TaglineMiddleware(app, emitter=emitter)
        servers = Server(), Server()
        await asyncio.gather(
            *(middleware(scope(path), s.receive, s.send) for path, s in zip("ab", servers, strict=True))
        )

    asyncio.run(both())

    for record in lines.requests:
        path = record.fields["path"]
        assert {name for name in record.fields if name[0] in "ab"} == {f"{path}{n}" for n in range(3)}


# --- validation, as FastAPI answers it --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "body", "count"),
    [
        (422, b'{"detail":[{"loc":["body","name"]},{"loc":["body","kind"]}]}', 2),
        (422, b'{"detail":"Unprocessable Entity"}', None),
        (422, b'{"errors":[]}', None),
        (422, b"\xff", None),
        (400, b'{"detail":[{}]}', None),
    ],
)
def test_the_errors_of_a_422_are_counted_from_its_body_where_nothing_else_tells(
    status: int, body: bytes, count: int | None, lines: Lines, emitter: Emitter
) -> None:
    ask(TaglineMiddleware(app_of({**START, "status": status}, {**END, "body": body}), emitter=emitter))

    assert lines.fields.get("validation_error_count") == count


# --- the page ---------------------------------------------------------------------------------------------

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "fastapi.md"


def named(heading: str) -> set[str]:
    """Return the names that a section's table begins its rows with."""
    _, _, section = PAGE.read_text().partition(f"## {heading}\n")
    rows = re.findall(r"^\| (`.*?) \|", section.partition("\n## ")[0], re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`(\w+)`", row)}


def test_the_page_has_every_field_and_every_setting(
    monkeypatch: pytest.MonkeyPatch, lines: Lines, emitter: Emitter
) -> None:
    monkeypatch.setenv("_X_AMZN_TRACE_ID", "Root=1-5759e988-bd862e3fe1be46a994272793")
    invalid = app_of({**START, "status": 422}, {**END, "body": b'{"detail":[{}]}'})
    context = Context(function_version="7")
    ask(
        TaglineMiddleware(invalid, emitter=emitter, client=lambda _: "acme"),
        {**scope(), "aws.context": context},
    )
    with pytest.raises(RefusedError):
        ask(TaglineMiddleware(failing_after(START, GONE), emitter=emitter), None, Server([GONE]))

    assert named("The record") == {name for record in lines.records for name in record.fields}
    assert named("Settings") == set(inspect.signature(TaglineMiddleware).parameters) - {"app"}


def failing_after(*messages: Message) -> Any:
    """Return an application that sends some messages, reads one, and raises."""

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(messages[0])
        refuse()

    return app


# --- odd headers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("response_header", [None, "x-correlation-id"])
@pytest.mark.parametrize("kind", [list, iter, tuple, lambda headers: (header for header in headers)])
@pytest.mark.parametrize("own", [False, True], ids=["without an id", "with an id of its own"])
def test_headers_of_any_iterable_reach_the_client(
    own: bool, kind: Any, response_header: str | None, lines: Lines, emitter: Emitter
) -> None:
    """https://asgi.readthedocs.io/en/latest/specs/www.html: an iterable of pairs; it can be read once."""
    headers = [(b"content-type", b"text/plain"), (b"set-cookie", b"a=b")]
    headers += [(b"X-Correlation-Id", b"own")] if own else []
    app = app_of({**START, "headers": kind(headers)}, END)
    server = ask(TaglineMiddleware(app, emitter=emitter, correlation_response_header=response_header))

    got = list(server.got[0]["headers"])
    assert got[: len(headers)] == headers
    assert len(got) - len(headers) == (1 if response_header and not own else 0)
    assert lines.fields["status"] == 200


def test_headers_that_are_text_cost_no_request(lines: Lines, emitter: Emitter) -> None:
    """Not by the specification, but h11 sends them."""
    server = ask(
        TaglineMiddleware(
            app_of({**START, "headers": [("content-type", "text/plain")]}, END), emitter=emitter
        )
    )

    assert server.got[0]["headers"][0] == ("content-type", "text/plain")
    assert lines.fields["status"] == 200


@pytest.mark.parametrize("headers", [[("content-length", "7")], [(7, 7)], [(b"a",)], 7, [None]])
def test_an_odd_request_header_costs_no_other_field(headers: Any, lines: Lines, emitter: Emitter) -> None:
    ask(TaglineMiddleware(app_of(START, END), emitter=emitter), scope(headers=headers))

    fields = lines.fields
    assert (fields["method"], fields["path"], fields["status"]) == ("GET", "/pets/7", 200)
    assert (fields["route"], fields["response_bytes"]) == (UNMATCHED, 2)


# --- the frameworks ---------------------------------------------------------------------------------------


def outside(app: Any, emitter: Emitter) -> Any:
    return TaglineMiddleware(app, emitter=emitter, background_from_ms=10)


def inside(app: Any, emitter: Emitter) -> Any:
    app.add_middleware(TaglineMiddleware, emitter=emitter, background_from_ms=10)
    return app


PLACES = pytest.mark.parametrize("place", [outside, inside])


def fail() -> None:
    raise KeyError("missing_key")


def fastapi_app() -> Any:
    fastapi = pytest.importorskip("fastapi")
    staticfiles = pytest.importorskip("starlette.staticfiles")
    routing = pytest.importorskip("starlette.routing")
    responses = pytest.importorskip("starlette.responses")

    def pet(pet_id: str) -> dict[str, str]:
        add(pet=pet_id)
        return {"id": pet_id}

    async def plain(request: Any) -> Any:
        return responses.JSONResponse(dict(request.path_params))

    def hidden(_pet_id: str) -> None:
        raise fastapi.HTTPException(404, "Pet not found")

    deeper = fastapi.APIRouter(prefix="/toys")
    deeper.get("/{toy_id}")(lambda toy_id: {"id": toy_id})
    router = fastapi.APIRouter(prefix="/pets")
    router.get("/{pet_id}")(pet)
    router.include_router(deeper, prefix="/{pet_id}")

    part = fastapi.FastAPI(openapi_url=None)
    part.get("/pets/{pet_id}")(pet)
    part.include_router(router, prefix="/included")

    app = fastapi.FastAPI()
    app.get("/")(lambda: "Hello World")
    app.get("/one/{pet_id}")(pet)
    app.get("/gone/{_pet_id}")(hidden)
    app.include_router(router)
    app.include_router(router, prefix="/v2")
    app.add_route("/plain/{rest:path}", plain)
    app.mount("/part", part)
    app.mount("/tenants/{tenant}/part", part)
    app.mount("/starlette", routing.Router([routing.Route("/{name}", plain)]))
    app.mount("/static", staticfiles.StaticFiles(directory="docs"))
    return app


ROUTES = [
    ("GET", "/", 200, "/"),
    ("GET", "/one/7", 200, "/one/{pet_id}"),
    ("GET", "/gone/7", 404, "/gone/{_pet_id}"),
    ("GET", "/pets/7", 200, "/pets/{pet_id}"),
    ("GET", "/v2/pets/7", 200, "/v2/pets/{pet_id}"),
    ("GET", "/pets/7/toys/8", 200, "/pets/{pet_id}/toys/{toy_id}"),
    ("GET", "/v2/pets/7/toys/8", 200, "/v2/pets/{pet_id}/toys/{toy_id}"),
    ("GET", "/plain/a/b", 200, "/plain/{rest:path}"),
    ("GET", "/part/pets/7", 200, "/part/pets/{pet_id}"),
    ("GET", "/part/included/pets/7", 200, "/part/included/pets/{pet_id}"),
    ("GET", "/tenants/7/part/pets/7", 200, "/tenants/{tenant}/part/pets/{pet_id}"),
    ("GET", "/tenants/7/part/included/pets/7", 200, "/tenants/{tenant}/part/included/pets/{pet_id}"),
    ("GET", "/starlette/7", 200, "/starlette/{name}"),
    ("GET", "/static/index.md", 200, "/static/{path}"),
    ("GET", "/static/missing", 404, "/static/{path}"),
    ("POST", "/one/7", 405, "/one/{pet_id}"),
    ("GET", "/wp-login.php", 404, UNMATCHED),
    ("GET", "/part/wp-login.php", 404, UNMATCHED),
    ("GET", "/openapi.json", 200, "/openapi.json"),
]


@PLACES
@pytest.mark.parametrize("request_and_route", ROUTES, ids=lambda case: " ".join(map(str, case[:2])))
def test_fastapis_routes_are_told_by_their_templates(
    request_and_route: tuple[str, str, int, str], place: Any, lines: Lines, emitter: Emitter
) -> None:
    method, path, status, route = request_and_route
    server = ask(place(fastapi_app(), emitter), scope(path, method))

    assert server.status == status
    fields = lines.fields
    assert (fields["status"], fields["route"], fields["path"]) == (status, route, path)
    assert fields["response_bytes"] == len(server.body)


@PLACES
@pytest.mark.parametrize(
    "request_and_route",
    [
        ("/pets/7", "", "/pets/{pet_id}"),
        ("/stage/pets/7", "/stage", "/pets/{pet_id}"),  # a server's prefix is in both, by the specification
        ("/v1/acme/pets/7", "", "/v1/{tenant}/pets/{pet_id}"),
        ("/stage/v1/acme/pets/7", "/stage", "/v1/{tenant}/pets/{pet_id}"),
        ("/v1/acme/nothing", "", UNMATCHED),
        ("/nothing", "", UNMATCHED),
    ],
)
def test_starlettes_routes_are_told_by_their_templates(
    request_and_route: tuple[str, str, str], place: Any, lines: Lines, emitter: Emitter
) -> None:
    path, root_path, route = request_and_route
    starlette = pytest.importorskip("starlette")
    routing = pytest.importorskip("starlette.routing")
    responses = pytest.importorskip("starlette.responses")
    applications = pytest.importorskip("starlette.applications")
    if root_path and tuple(map(int, starlette.__version__.split(".")[:2])) < (0, 33):
        pytest.skip("this Starlette expects the path without the root path")

    async def pet(_request: Any) -> Any:
        return responses.Response("{}")

    pets = routing.Route("/pets/{pet_id}", pet)
    tenant = routing.Mount("/{tenant}", routes=[pets])
    app = applications.Starlette(routes=[pets, routing.Mount("/v1", routes=[tenant])])
    ask(place(app, emitter), scope(path, root_path=root_path))

    assert lines.fields["route"] == route


@PLACES
@pytest.mark.parametrize("between", [False, True], ids=["alone", "with BaseHTTPMiddleware between"])
@pytest.mark.parametrize(
    "body_and_count", [(b"{}", 2), (b'{"name": "Tom"}', 1), (b'{"name": [], "kind": []}', 2)]
)
def test_fastapis_validation_errors_are_counted(
    body_and_count: tuple[bytes, int], between: bool, place: Any, lines: Lines, emitter: Emitter
) -> None:
    body, count = body_and_count
    fastapi = pytest.importorskip("fastapi")
    pydantic = pytest.importorskip("pydantic")
    model = pydantic.create_model("Pet", name=(str, ...), kind=(str, ...))
    app = fastapi.FastAPI()

    def create(pet: Any) -> Any:
        return pet

    create.__annotations__ = {"pet": model}
    app.post("/pets")(create)
    if between:

        async def nothing(request: Any, call_next: Any) -> Any:
            return await call_next(request)

        app.middleware("http")(nothing)

    request = scope("/pets", "POST", headers=[(b"content-type", b"application/json")])
    said = [{"type": "http.request", "body": body}]
    server = ask(place(app, emitter), request, Server(said))

    assert server.status == 422
    fields = lines.fields
    assert (fields["status"], fields["validation_error_count"]) == (422, count)
    assert fields["request_bytes"] == len(body)
    assert "error_type" not in fields


def test_validation_errors_that_an_own_handler_answers_are_counted(lines: Lines, emitter: Emitter) -> None:
    fastapi = pytest.importorskip("fastapi")
    exceptions = pytest.importorskip("fastapi.exceptions")
    responses = pytest.importorskip("starlette.responses")
    app = fastapi.FastAPI()

    def counted(number: int) -> int:
        return number

    app.get("/")(counted)
    app.add_exception_handler(
        exceptions.RequestValidationError,
        lambda _request, _error: responses.PlainTextResponse("no", status_code=400),
    )
    ask(inside(app, emitter), scope("/"))

    assert (lines.fields["status"], lines.fields["validation_error_count"]) == (400, 1)


@PLACES
@pytest.mark.parametrize("handled", [False, True], ids=["unhandled", "with a handler for Exception"])
def test_an_unhandled_exception_is_a_500_with_its_type(
    handled: bool, place: Any, lines: Lines, emitter: Emitter
) -> None:
    fastapi = pytest.importorskip("fastapi")
    responses = pytest.importorskip("starlette.responses")
    app = fastapi.FastAPI()

    app.get("/fail")(fail)

    if handled:
        app.add_exception_handler(
            Exception, lambda _request, _error: responses.JSONResponse({}, status_code=500)
        )
    server = Server()
    with pytest.raises(KeyError):  # Starlette raises it in any case, for the server to log.
        ask(place(app, emitter), scope("/fail"), server)

    assert server.status == 500
    fields = lines.fields
    assert (fields["status"], fields["error_type"], fields["route"]) == (500, "KeyError", "/fail")
    assert fields["response_bytes"] == (len(server.body) if place is outside else 0)


@PLACES
@pytest.mark.parametrize("version", ["2.0", "2.4"])  # before 2.4, Starlette sends streams from another task
def test_starlettes_streams_are_counted_and_their_background_tasks_are_apart(
    version: str, place: Any, lines: Lines, emitter: Emitter
) -> None:
    fastapi = pytest.importorskip("fastapi")
    responses = pytest.importorskip("starlette.responses")
    background = pytest.importorskip("starlette.background")
    app = fastapi.FastAPI()

    async def afterwards() -> None:
        await asyncio.sleep(0.02)

    async def stream() -> Any:
        async def parts() -> Any:
            for part in (b"one", b"two", b"three"):
                yield part

        return responses.StreamingResponse(parts(), background=background.BackgroundTask(afterwards))

    app.get("/stream")(stream)
    server = ask(place(app, emitter), scope("/stream", asgi={"version": "3.0", "spec_version": version}))

    assert server.body == b"onetwothree"
    request, after = lines.records
    assert (request.type, request.fields["response_bytes"]) == ("api_request", 11)
    assert (after.type, after.fields["route"]) == ("background_task", "/stream")
    assert after.fields["duration_ms"] >= 10
    assert after.fields["correlation_id"] == request.fields["correlation_id"]


def test_a_stream_that_breaks_keeps_the_status_that_was_sent(lines: Lines, emitter: Emitter) -> None:
    fastapi = pytest.importorskip("fastapi")
    responses = pytest.importorskip("starlette.responses")
    app = fastapi.FastAPI()

    async def stream() -> Any:
        async def parts() -> Any:
            yield b"one"
            raise RefusedError("no more")

        return responses.StreamingResponse(parts())

    app.get("/stream")(stream)
    with pytest.raises(RefusedError):
        ask(inside(app, emitter), scope("/stream"))

    fields = lines.fields
    assert (fields["status"], fields["incomplete"], fields["error_type"]) == (200, True, "RefusedError")
    assert fields["response_bytes"] == 3


# --- Mangum -----------------------------------------------------------------------------------------------


@pytest.fixture
def loop() -> Iterator[None]:
    """Give Mangum the event loop of the thread, as a Lambda environment has it."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    asyncio.set_event_loop(None)
    loop.close()


@pytest.mark.usefixtures("loop")
def test_under_mangum_the_record_has_lambdas_context(lines: Lines, emitter: Emitter) -> None:
    mangum = pytest.importorskip("mangum")
    handler = mangum.Mangum(inside(fastapi_app(), emitter), lifespan="off")

    answer = handler(http_event("GET /{proxy+}", "/one/7"), Context())

    assert (answer["statusCode"], json.loads(answer["body"])) == (200, {"id": "7"})
    fields = lines.fields
    assert (fields["request_id"], fields["function_name"]) == (REQUEST_ID, Context().function_name)
    assert (fields["route"], fields["pet"]) == ("/one/{pet_id}", "7")
    assert fields["correlation_id"] == REQUEST_ID == answer["headers"]["x-correlation-id"]


@pytest.mark.usefixtures("loop")
@PLACES
def test_under_mangum_a_failure_is_the_500_that_the_client_gets(
    place: Any, lines: Lines, emitter: Emitter
) -> None:
    mangum = pytest.importorskip("mangum")
    app = fastapi_app()

    app.get("/fail")(fail)

    handler = mangum.Mangum(place(app, emitter), lifespan="auto")

    assert handler(http_event("GET /{proxy+}", "/fail"), Context())["statusCode"] == 500
    assert (lines.fields["status"], lines.fields["error_type"]) == (500, "KeyError")


@pytest.mark.parametrize("hook", ["client", "route"])
def test_a_function_for_a_field_that_raises_is_told(hook: str, lines: Lines) -> None:
    told: list[BaseException] = []
    emitter = Emitter(stream=lines, on_error=told.append)

    def broken(_request: Any) -> str:
        raise KeyError(hook)

    hooks: dict[str, Any] = {hook: broken}
    ask(TaglineMiddleware(app_of(START, END), emitter=emitter, **hooks))

    assert (lines.fields["status"], hook in lines.fields) == (200, hook == "route")
    assert emitter.errors == len(told) > 0
    assert {repr(error) for error in told} == {repr(KeyError(hook))}
