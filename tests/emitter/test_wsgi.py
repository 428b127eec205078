"""The WSGI middleware: against PEP 3333, then inside the real frameworks and behind Lambda's adapters."""

import gc
import inspect
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from wsgiref.handlers import SimpleHandler
from wsgiref.util import FileWrapper, setup_testing_defaults
from wsgiref.validate import validator

import pytest
import tagline
from hypothesis import example, given
from hypothesis import strategies as st
from tagline import MAX_CORRELATION_ID, Emitter, add
from tagline.wsgi import DEFAULT_SKIP, UNMATCHED, TaglineMiddleware

from tests.builders import Context, http_event, rest_event
from tests.emitter.lines import Lines
from tests.emitter.pythons import EMITTER, pythons

Environ = dict[str, Any]
App = Callable[..., Iterable[bytes]]
TEXT = ("Content-Type", "text/plain")
PETS: dict[str, str] = {}


def environ(path: str = "/pets/7", method: str = "GET", **more: Any) -> Environ:
    made: Environ = {
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "REQUEST_METHOD": method,
        "QUERY_STRING": "",
        **more,
    }
    setup_testing_defaults(made)
    return made


class Server(SimpleHandler):
    """The reference server of the standard library, without what differs from run to run."""

    origin_server = False  # no Date
    os_environ: dict[str, str] = {}  # noqa: RUF012 - as its class has it

    def __init__(self, request: Environ) -> None:
        self.out, self.log = io.BytesIO(), io.StringIO()
        super().__init__(request["wsgi.input"], self.out, self.log, request)
        self.base_env = request

    def log_exception(self, exc_info: Any) -> None:
        self.log.write(repr(exc_info[1]))

    @property
    def answer(self) -> tuple[list[str], bytes]:
        head, _, body = self.out.getvalue().partition(b"\r\n\r\n")
        return head.decode("latin-1").split("\r\n"), body


def ask(app: App, request: Environ | None = None) -> Server:
    """Send one request."""
    server = Server(environ() if request is None else request)
    server.run(app)
    return server


def app_of(*parts: bytes, status: str = "200 OK", headers: Iterable[tuple[str, str]] = (TEXT,)) -> App:
    """Return an application with one answer."""

    def app(_environ: Environ, start_response: Any) -> Iterable[bytes]:
        start_response(status, list(headers))
        return list(parts)

    return app


# --- what a record says -----------------------------------------------------------------------------------


def test_a_request_leaves_one_record(lines: Lines, emitter: Emitter) -> None:
    request = environ(
        "/pets/7",
        "POST",
        QUERY_STRING="page=1",
        CONTENT_LENGTH="30",
        REMOTE_ADDR="203.0.113.195",
        HTTP_USER_AGENT="curl/8.5.0",
    )
    head, body = ask(TaglineMiddleware(app_of(b"{", b"}"), emitter=emitter), request).answer

    fields = lines.fields
    assert body == b"{}"
    assert fields.pop("duration_ms") >= 0
    assert f"x-correlation-id: {fields.pop('correlation_id')}" in head
    assert fields == {
        "method": "POST",
        "route": UNMATCHED,
        "path": "/pets/7",
        "status": 200,
        "client_ip": "203.0.113.195",
        "user_agent": "curl/8.5.0",
        "request_bytes": 30,
        "response_bytes": 2,
    }


def test_fields_that_the_application_adds_take_precedence(lines: Lines, emitter: Emitter) -> None:
    def app(environ: Environ, start_response: Any) -> Iterator[bytes]:
        add(pet="7", route="/its-own")
        environ["tagline.fields"]["from_environ"] = True
        start_response("200 OK", [TEXT])
        yield b"1"
        add(streamed=True)
        yield b"2"

    ask(TaglineMiddleware(app, emitter=emitter))

    names = ("pet", "route", "from_environ", "streamed")
    assert [lines.fields[name] for name in names] == ["7", "/its-own", True, True]
    assert add(late=True) is False  # nothing is collected any more


def test_client_and_route_are_asked_for_when_the_response_starts(lines: Lines, emitter: Emitter) -> None:
    def app(environ: Environ, start_response: Any) -> list[bytes]:
        environ["REMOTE_USER"] = "acme"  # as an authentication middleware does
        start_response("200 OK", [TEXT])
        return [b""]

    ask(
        TaglineMiddleware(
            app, emitter=emitter, client=lambda environ: environ["REMOTE_USER"], route=lambda _: "/pets/{id}"
        )
    )

    assert (lines.fields["client"], lines.fields["route"]) == ("acme", "/pets/{id}")


def test_client_and_route_are_known_for_a_response_that_never_started(lines: Lines, emitter: Emitter) -> None:
    request = environ()
    client, route = (lambda _: "acme"), (lambda _: "/pets")
    with pytest.raises(KeyError):
        TaglineMiddleware(failing_in_the_call, emitter=emitter, client=client, route=route)(
            request, lambda *_: lambda _: None
        )

    assert (lines.fields["client"], lines.fields["route"]) == ("acme", "/pets")
    assert set(request) & {"tagline.fields", "tagline.exchange"} == {"tagline.fields"}  # no cycle is left


def test_functions_of_the_developer_may_fail(lines: Lines, emitter: Emitter) -> None:
    def failing(_environ: Environ) -> str:
        raise KeyError("user")

    server = ask(TaglineMiddleware(app_of(b"1"), emitter=emitter, client=failing, route=failing))

    assert server.answer[1] == b"1"
    assert "client" not in lines.fields
    assert (lines.fields["route"], lines.fields["status"]) == (UNMATCHED, 200)


def test_a_broken_stream_costs_the_record_and_not_the_request() -> None:
    class Broken(io.StringIO):
        def write(self, text: str, /) -> int:
            raise OSError(text)

    assert ask(TaglineMiddleware(app_of(b"1"), emitter=Emitter(stream=Broken()))).answer[1] == b"1"


@pytest.mark.parametrize("path", DEFAULT_SKIP)
def test_health_checks_leave_no_record_and_no_header(path: str, lines: Lines, emitter: Emitter) -> None:
    head, _ = ask(TaglineMiddleware(app_of(b"1"), emitter=emitter), environ(path)).answer

    assert not any(line.startswith("x-correlation-id") for line in head)
    assert lines.records == []


def test_the_skipped_paths_can_be_chosen(lines: Lines, emitter: Emitter) -> None:
    app = TaglineMiddleware(app_of(b"1"), emitter=emitter, skip=["/internal"])
    ask(app, environ("/internal"))
    ask(app, environ("/health"))

    assert lines.fields["path"] == "/health"


def test_a_middleware_inside_another_leaves_the_record_to_it(lines: Lines, emitter: Emitter) -> None:
    ask(TaglineMiddleware(TaglineMiddleware(app_of(b"1"), emitter=emitter), emitter=emitter))

    assert len(lines.records) == 1


@pytest.mark.parametrize(
    ("script_name", "path_info", "path"),
    [
        ("", "/pets/7", "/pets/7"),
        ("/v1", "/pets/7", "/v1/pets/7"),
        ("", "/caf\xc3\xa9", "/café"),  # the environ's text is bytes in latin-1
        ("", "/\xff", "/\N{REPLACEMENT CHARACTER}"),
        ("", "", ""),
    ],
)
def test_the_path_is_what_the_client_asked_for(
    script_name: str, path_info: str, path: str, lines: Lines, emitter: Emitter
) -> None:
    request = environ(path_info)
    request.update(SCRIPT_NAME=script_name, PATH_INFO=path_info)
    ask(TaglineMiddleware(app_of(b""), emitter=emitter), request)

    assert lines.fields["path"] == path


@pytest.mark.parametrize(
    ("variables", "size"),
    [
        ({}, 0),
        ({"CONTENT_LENGTH": ""}, 0),
        ({"CONTENT_LENGTH": "1000"}, 1000),
        ({"CONTENT_LENGTH": "many"}, None),
        ({"CONTENT_LENGTH": "9" * 5_000}, None),  # more digits than Python reads
        ({"HTTP_TRANSFER_ENCODING": "chunked"}, None),
    ],
)
def test_the_request_has_the_size_that_was_announced(
    variables: Environ, size: int | None, lines: Lines, emitter: Emitter
) -> None:
    ask(TaglineMiddleware(app_of(b"1"), emitter=emitter), environ(method="POST", **variables))

    assert lines.fields.get("request_bytes") == size
    assert lines.fields["status"] == 200


def test_a_head_request_has_no_body(lines: Lines, emitter: Emitter) -> None:
    ask(TaglineMiddleware(app_of(b"1234"), emitter=emitter), environ(method="HEAD"))

    assert lines.fields["response_bytes"] == 0
    assert "incomplete" not in lines.fields


# --- the correlation id -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"HTTP_X_CORRELATION_ID": "order-4711"}, "order-4711"),
        ({"HTTP_X_REQUEST_ID": "r1"}, "r1"),
        ({"HTTP_X_REQUEST_ID": "r1", "HTTP_X_CORRELATION_ID": "order-4711"}, "order-4711"),
        ({"HTTP_X_CORRELATION_ID": "x" * MAX_CORRELATION_ID}, "x" * MAX_CORRELATION_ID),
        ({"HTTP_X_CORRELATION_ID": "x" * (MAX_CORRELATION_ID + 1)}, None),
        ({"HTTP_X_CORRELATION_ID": "two words"}, None),
        ({}, None),
    ],
)
def test_the_correlation_id_comes_in_and_goes_out(
    variables: Environ, expected: str | None, lines: Lines, emitter: Emitter
) -> None:
    head, _ = ask(TaglineMiddleware(app_of(b""), emitter=emitter), environ(**variables)).answer

    (sent,) = [line.partition(": ")[2] for line in head if line.startswith("x-correlation-id")]
    assert sent == lines.fields["correlation_id"]
    assert sent == expected if expected else len(sent) == 32


def test_the_headers_can_be_chosen_and_the_applications_own_stays(lines: Lines, emitter: Emitter) -> None:
    app = app_of(b"", headers=[TEXT, ("X-Request-ID", "its-own")])
    middleware = TaglineMiddleware(
        app, emitter=emitter, correlation_headers=["Trace"], correlation_response_header="x-request-id"
    )
    head, _ = ask(middleware, environ(HTTP_TRACE="t1")).answer

    assert [line for line in head if "equest" in line] == ["X-Request-ID: its-own"]
    assert lines.fields["correlation_id"] == "t1"


def test_no_header_if_none_is_wanted_and_the_applications_list_is_left_alone(emitter: Emitter) -> None:
    headers = [TEXT]

    def app(_environ: Environ, start_response: Any) -> list[bytes]:
        start_response("200 OK", headers)
        return [b"", b""]

    ask(TaglineMiddleware(app, emitter=emitter))
    assert headers == [TEXT]
    head, _ = ask(TaglineMiddleware(app, emitter=emitter, correlation_response_header=None)).answer
    assert head == ["Status: 200 OK", "Content-Type: text/plain"]


# --- errors -----------------------------------------------------------------------------------------------


def failing_in_the_call(_environ: Environ, _start_response: Any) -> Iterable[bytes]:
    raise KeyError("pet")


def failing_after_the_head(_environ: Environ, start_response: Any) -> Iterable[bytes]:
    start_response("201 Created", [TEXT])
    raise KeyError("pet")


def failing_in_the_body(_environ: Environ, start_response: Any) -> Iterator[bytes]:
    start_response("201 Created", [TEXT])
    yield b"1"
    raise KeyError("pet")


def failing_after_an_empty_part(_environ: Environ, start_response: Any) -> Iterator[bytes]:
    start_response("201 Created", [TEXT])
    yield b""
    raise KeyError("pet")


class FailingInClose:
    def __init__(self, _environ: Environ, start_response: Any) -> None:
        start_response("201 Created", [TEXT])

    def __iter__(self) -> Iterator[bytes]:
        return iter([b"1"])

    def close(self) -> None:
        raise KeyError("pet")


def answering_by_exc_info(_environ: Environ, start_response: Any) -> Iterable[bytes]:
    start_response("201 Created", [TEXT])
    try:
        PETS["pet"]
    except KeyError:
        start_response("503 Busy", [TEXT], sys.exc_info())
    return [b"later"]


def answering_while_handling(_environ: Environ, start_response: Any) -> Iterable[bytes]:
    try:
        PETS["pet"]
    except KeyError:
        start_response("503 Busy", [TEXT])
    return [b"later"]


@pytest.mark.parametrize(
    ("app", "status", "incomplete"),
    [
        (failing_in_the_call, 500, None),
        (failing_after_the_head, 500, None),  # nothing was sent: the server answers
        (failing_after_an_empty_part, 201, True),
        (failing_in_the_body, 201, True),
        (answering_by_exc_info, 503, None),
        (answering_while_handling, 503, None),
    ],
)
def test_an_error_is_in_the_record_with_the_status_that_the_client_got(
    app: App, status: int, incomplete: bool | None, lines: Lines, emitter: Emitter
) -> None:
    head, _ = ask(TaglineMiddleware(app, emitter=emitter)).answer

    assert head[0].startswith(f"Status: {status} ")
    fields = lines.fields
    assert (fields["status"], fields["error_type"], fields["error"]) == (status, "KeyError", "'pet'")
    assert fields.get("incomplete") == incomplete


def test_an_exception_propagates_to_the_server(emitter: Emitter) -> None:
    assert ask(TaglineMiddleware(failing_in_the_call, emitter=emitter)).log.getvalue() == "KeyError('pet')"


def test_an_error_in_close_propagates_after_the_record(lines: Lines, emitter: Emitter) -> None:
    server = ask(TaglineMiddleware(FailingInClose, emitter=emitter))

    assert server.log.getvalue() == "KeyError('pet')"
    assert (lines.fields["status"], lines.fields["response_bytes"]) == (201, 1)


def test_an_error_that_becomes_a_4xx_is_no_error_of_the_record(lines: Lines, emitter: Emitter) -> None:
    def app(_environ: Environ, start_response: Any) -> Iterable[bytes]:
        try:
            PETS["pet"]
        except KeyError:
            start_response("404 Not Found", [TEXT])
        return [b""]

    ask(TaglineMiddleware(app, emitter=emitter))

    assert lines.fields["status"] == 404
    assert "error" not in lines.fields


@pytest.mark.parametrize("ending", [SystemExit, KeyboardInterrupt])
def test_an_exception_that_ends_the_process_has_no_status(
    ending: type[BaseException], lines: Lines, emitter: Emitter
) -> None:
    def app(_environ: Environ, _start_response: Any) -> Iterable[bytes]:
        raise ending

    with pytest.raises(ending):
        TaglineMiddleware(app, emitter=emitter)(environ(), lambda *_: lambda _: None)

    assert "status" not in lines.fields
    assert lines.fields["error_type"] == ending.__name__


def test_an_application_that_never_starts_its_response_is_a_500(lines: Lines, emitter: Emitter) -> None:
    def app(_environ: Environ, _start_response: Any) -> Iterable[bytes]:
        return []

    head, _ = ask(TaglineMiddleware(app, emitter=emitter)).answer

    assert head[0].startswith("Status: 500 ")
    assert lines.fields["status"] == 500


@pytest.mark.parametrize(
    ("app", "more"),
    [
        (app_of(b"", status="404 Not Found"), {}),
        (failing_in_the_call, {"type": "KeyError", "message": "'pet'"}),
    ],
)
def test_error_details_are_masked(app: App, more: dict[str, str], lines: Lines, emitter: Emitter) -> None:
    request = environ(QUERY_STRING="page=1&token=s3cret", HTTP_COOKIE="s3cret", HTTP_ACCEPT="*/*")
    ask(TaglineMiddleware(app, emitter=emitter, error_details=True), request)

    details = lines.fields["error_details"]
    assert details.pop("headers") == {"accept": "*/*", "cookie": "***", "host": "127.0.0.1"}
    assert details == {"url": "/pets/7?page=1&token=***", **more}
    assert "s3cret" not in lines.getvalue()


def test_a_good_answer_has_no_error_details_and_by_default_none_has(lines: Lines, emitter: Emitter) -> None:
    ask(TaglineMiddleware(app_of(b""), emitter=emitter, error_details=True))
    ask(TaglineMiddleware(failing_in_the_call, emitter=emitter))

    assert len(lines.records) == 2
    assert not any("error_details" in record.fields for record in lines.records)


# --- the protocol -----------------------------------------------------------------------------------------


def test_the_record_is_written_after_the_last_part_and_not_before(lines: Lines, emitter: Emitter) -> None:
    when: list[int] = []

    def app(_environ: Environ, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [TEXT])
        for _ in range(3):
            when.append(len(lines.records))
            yield b"1"
        when.append(len(lines.records))

    ask(TaglineMiddleware(app, emitter=emitter))

    assert when == [0, 0, 0, 0]
    assert lines.fields["response_bytes"] == 3


def test_a_body_that_the_server_leaves_is_incomplete(lines: Lines, emitter: Emitter) -> None:
    body = TaglineMiddleware(app_of(b"1", b"2"), emitter=emitter)(environ(), lambda *_: lambda _: None)
    assert next(iter(body)) == b"1"
    body.close()  # type: ignore[attr-defined]

    assert (lines.fields["response_bytes"], lines.fields["incomplete"]) == (1, True)
    assert "error" not in lines.fields


def test_a_body_that_a_test_client_drops_leaves_its_record(lines: Lines, emitter: Emitter) -> None:
    TaglineMiddleware(app_of(b"1"), emitter=emitter)(environ(), lambda *_: lambda _: None)
    gc.collect()

    assert lines.fields["status"] == 200


@pytest.mark.parametrize(("announced", "size"), [([("Content-Length", "9")], 9), ([], None)])
def test_a_file_stays_the_servers_own_and_is_closed(
    announced: list[tuple[str, str]], size: int | None, tmp_path: Path, *, lines: Lines, emitter: Emitter
) -> None:
    (tmp_path / "pets.csv").write_bytes(b"name\nTom\n")
    file = (tmp_path / "pets.csv").open("rb")
    seen: list[object] = []

    class SendingFiles(Server):
        def sendfile(self) -> bool:
            seen.append(vars(self)["result"])
            assert lines.records == []
            return False

    def app(environ: Environ, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [TEXT, *announced])
        made: Iterable[bytes] = environ["wsgi.file_wrapper"](file)
        return made

    server = SendingFiles(environ())
    server.run(TaglineMiddleware(app, emitter=emitter))

    assert isinstance(seen[0], FileWrapper)
    assert server.answer[1] == b"name\nTom\n"
    assert file.closed
    assert (lines.fields["status"], lines.fields.get("response_bytes")) == (200, size)
    assert "incomplete" not in lines.fields


@dataclass(frozen=True)
class Script:
    """What an application does, step by step."""

    kind: str
    parts: list[bytes]
    written: list[bytes]
    status: str
    headers: list[tuple[str, str]]
    start: str
    fails: str
    closed: list[str] = field(default_factory=list, compare=False)

    def __call__(self, _environ: Environ, start_response: Any) -> Any:
        if self.fails == "call":
            raise ValueError("call")
        if self.start != "late":
            self.started(start_response)
        body = self.body(start_response)
        if self.kind == "generator":
            return body
        if self.kind == "object":
            return Closable(body, self)
        parts = list(body)
        return {"list": parts, "tuple": tuple(parts), "iterator": iter(parts)}[self.kind]

    def started(self, start_response: Any) -> None:
        if self.start == "never":
            return
        write = start_response(self.status, list(self.headers))
        for part in self.written:
            write(part)
        if self.start == "twice":
            start_response("202 Accepted", list(self.headers))  # the server refuses it
        if self.start == "exc_info":
            try:
                int("start")
            except ValueError:
                start_response("500 Oops", list(self.headers), sys.exc_info())

    def body(self, start_response: Any) -> Iterator[bytes]:
        if self.start == "late":
            self.started(start_response)
        for number, part in enumerate(self.parts):
            if self.fails == f"part {number}":
                raise ValueError(self.fails)
            yield part
        if self.fails == "end":
            raise ValueError("end")


class Closable:
    """A body with a close() of its own."""

    def __init__(self, parts: Iterator[bytes], script: Script) -> None:
        self._parts, self._script = parts, script

    def __iter__(self) -> Iterator[bytes]:
        return self._parts

    def close(self) -> None:
        self._script.closed.append("closed")
        if self._script.fails == "close":
            raise ValueError("close")


SCRIPTS = st.builds(
    Script,
    kind=st.sampled_from(["list", "tuple", "iterator", "generator", "object"]),
    parts=st.lists(st.binary(max_size=5), max_size=3),
    written=st.lists(st.binary(max_size=5), max_size=2),
    status=st.sampled_from(["200 OK", "404 Not Found", "500 Oops"]),
    headers=st.lists(st.sampled_from([TEXT, ("X-Pet", "7"), ("Set-Cookie", "a=1")]), unique=True),
    start=st.sampled_from(["call", "late", "never", "twice", "exc_info"]),
    fails=st.sampled_from(["", "", "call", "part 0", "part 1", "end", "close"]),
)


@example(Script("list", [b""], [], "200 OK", [], "never", ""))  # the server refuses the body
@example(Script("generator", [b"1", b"2"], [], "200 OK", [TEXT], "never", "part 1"))
@given(SCRIPTS)
def test_whatever_the_application_does_the_answer_is_the_same_and_one_line_is_written(script: Script) -> None:
    lines = Lines()
    middleware = TaglineMiddleware(script, emitter=Emitter(stream=lines), correlation_response_header=None)

    alone = ask(script)
    closed = list(script.closed)
    script.closed.clear()
    wrapped = ask(middleware)

    assert wrapped.out.getvalue() == alone.out.getvalue()
    assert wrapped.log.getvalue() == alone.log.getvalue()
    assert script.closed == closed
    (record,) = lines.records
    head, _ = alone.answer
    assert head[0].startswith(f"Status: {record.fields['status']} ")
    assert add(more=1) is False


@given(SCRIPTS)
def test_the_correlation_id_is_the_only_header_that_is_added(script: Script) -> None:
    lines = Lines()
    alone = ask(script)
    wrapped = ask(TaglineMiddleware(script, emitter=Emitter(stream=lines)))

    head, body = wrapped.answer
    ours = [line for line in head if line.startswith("x-correlation-id: ")]
    assert ([line for line in head if line not in ours], body) == alone.answer
    assert len(ours) <= 1


@given(SCRIPTS.filter(lambda script: script.start == "call" and not script.fails and not script.written))
def test_the_validator_of_the_standard_library_agrees_inside_and_outside(script: Script) -> None:
    lines = Lines()
    if TEXT not in script.headers:
        script.headers.append(TEXT)
    server = ask(validator(TaglineMiddleware(validator(script), emitter=Emitter(stream=lines))))

    assert server.log.getvalue() == ""
    assert server.answer[1] == b"".join(script.parts)
    assert lines.fields["response_bytes"] == sum(map(len, script.parts))


# --- every Python -----------------------------------------------------------------------------------------

OWN_SERVER = """
import io, sys, typing
from wsgiref.handlers import SimpleHandler
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator
from tagline import add
from tagline.wsgi import TaglineMiddleware


def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    add(pet="7")
    yield b"1"


environ = {"QUERY_STRING": ""}
setup_testing_defaults(environ)
handler = SimpleHandler(environ["wsgi.input"], io.BytesIO(), sys.stderr, environ)
handler.run(validator(TaglineMiddleware(app)))
assert typing.get_type_hints(TaglineMiddleware.__init__)["error_details"] is bool
"""


@pytest.mark.parametrize("version", pythons())
def test_it_runs_under_every_python(version: str) -> None:
    done = subprocess.run(
        [pythons()[version], "-W", "error", "-c", OWN_SERVER],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(EMITTER)},
    )

    assert done.stderr == ""
    fields = tagline.read(done.stdout).fields
    assert (fields["status"], fields["pet"], fields["response_bytes"]) == (200, "7", 1)


# --- the page ---------------------------------------------------------------------------------------------

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "flask-django.md"


def named(heading: str) -> set[str]:
    """Return the names that the table of a section of the page has in its first column."""
    _, _, section = PAGE.read_text().partition(f"## {heading}\n")
    rows = re.findall(r"^\| (`.*?) \|", section.split("\n## ")[0].split("\n### ")[0], re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`(\w+)`", row)}


def test_the_page_has_every_field_and_every_setting(lines: Lines, emitter: Emitter) -> None:
    middleware = TaglineMiddleware(
        failing_in_the_body, emitter=emitter, client=lambda _: "acme", error_details=True
    )
    ask(middleware, environ(HTTP_USER_AGENT="curl", REMOTE_ADDR="192.0.2.1"))
    failed = set(lines.fields)
    ask(TaglineMiddleware(failing_in_the_call, emitter=emitter, error_details=True))

    assert named("The record") == failed | set(lines.records[1].fields)
    assert named("Settings") == set(inspect.signature(TaglineMiddleware).parameters) - {"app"}
    details = set(lines.records[1].fields["error_details"])
    assert {"url", "headers", "type", "message"} == details
    assert all(f"`{name}`" in PAGE.read_text() for name in details)


# --- Flask ------------------------------------------------------------------------------------------------


@pytest.fixture
def flask_app(emitter: Emitter) -> Any:
    flask = pytest.importorskip("flask")
    app = flask.Flask(__name__)

    def pet(pet_id: int) -> dict[str, int]:
        add(pet=pet_id)
        return {"id": pet_id}

    def fail() -> str:
        raise KeyError("pet")

    def handled() -> str:
        raise ValueError("pet")

    def refuse(_error: ValueError) -> Any:
        return {"detail": "no such pet"}, 404

    def stream() -> Any:
        def parts() -> Iterator[str]:
            for number in range(3):
                add(part=number)
                yield str(number)

        return flask.Response(flask.stream_with_context(parts()))

    app.add_url_rule("/pets/<int:pet_id>", view_func=pet)
    app.add_url_rule("/fail", view_func=fail)
    app.add_url_rule("/handled", view_func=handled)
    app.add_url_rule("/stream", view_func=stream)
    app.register_error_handler(ValueError, refuse)
    app.wsgi_app = TaglineMiddleware(app.wsgi_app, emitter=emitter)
    return app


@pytest.mark.parametrize(
    ("path", "status", "route", "more"),
    [
        ("/pets/7", 200, "/pets/<int:pet_id>", {"pet": 7, "response_bytes": 9}),
        ("/pets/tom", 404, UNMATCHED, {}),
        ("/handled", 404, "/handled", {"response_bytes": 25}),
        ("/fail", 500, "/fail", {"error_type": "KeyError", "error": "'pet'"}),
        ("/stream", 200, "/stream", {"part": 2, "response_bytes": 3}),
        ("/static/none.css", 404, "/static/<path:filename>", {}),
    ],
)
def test_a_flask_request_has_its_route_and_its_error(
    path: str, status: int, route: str, more: dict[str, object], *, flask_app: Any, lines: Lines
) -> None:
    with flask_app.test_client() as client, client.get(path) as response:
        assert response.status_code == status
        assert response.headers["x-correlation-id"]
        response.get_data()

    fields = lines.fields
    assert (fields["status"], fields["route"], fields["path"]) == (status, route, path)
    assert {name: fields.get(name) for name in more} == more
    assert "error" in more or "error" not in fields


def test_a_flask_application_under_a_mount_has_the_mount_in_its_route(
    flask_app: Any, lines: Lines, emitter: Emitter
) -> None:
    dispatching = pytest.importorskip("werkzeug.middleware.dispatcher").DispatcherMiddleware
    app = dispatching(app_of(b"1"), {"/v1": flask_app})
    ask(TaglineMiddleware(app, emitter=emitter), environ("/v1/pets/7"))

    assert (lines.fields["path"], lines.fields["route"]) == ("/v1/pets/7", "/v1/pets/<int:pet_id>")


def test_flasks_debugger_that_lets_exceptions_through_changes_nothing(flask_app: Any, lines: Lines) -> None:
    flask_app.config["PROPAGATE_EXCEPTIONS"] = True
    with pytest.raises(KeyError):
        flask_app.test_client().get("/fail")

    assert (lines.fields["status"], lines.fields["error_type"]) == (500, "KeyError")


# --- Django -----------------------------------------------------------------------------------------------

DJANGO = """
import io, json, sys
from django.conf import settings

settings.configure(
    ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="x", LOGGING_CONFIG=None,
    MIDDLEWARE=["tagline.wsgi.django_route"],
)

from django.core.wsgi import get_wsgi_application
from django.http import Http404, JsonResponse, StreamingHttpResponse
from django.urls import include, path, re_path
from tagline import Emitter, add
from tagline.wsgi import TaglineMiddleware
from wsgiref.util import setup_testing_defaults


def pet(request, pet_id):
    add(pet=pet_id)
    return JsonResponse({"id": pet_id})


def fail(request):
    raise KeyError("pet")


def missing(request):
    raise Http404


def stream(request):
    return StreamingHttpResponse(str(number) for number in range(3))


urlpatterns = [
    path("pets/<int:pet_id>/", pet),
    path("v1/", include([path("fail", fail)])),
    re_path(r"^missing$", missing),
    path("stream", stream),
]

application = TaglineMiddleware(get_wsgi_application(), error_details=True)
for asked in sys.argv[1:]:
    environ = {"SCRIPT_NAME": "", "PATH_INFO": asked, "QUERY_STRING": ""}
    setup_testing_defaults(environ)
    body = application(environ, lambda *_: None)
    b"".join(body)
    body.close()
"""


def test_django_requests_have_their_routes_and_errors() -> None:
    pytest.importorskip("django")
    expected = {
        "/pets/7/": (200, "/pets/<int:pet_id>/", None),
        "/v1/fail": (500, "/v1/fail", "KeyError"),
        "/missing": (404, "/missing$", None),
        "/stream": (200, "/stream", None),
        "/none": (404, UNMATCHED, None),
    }
    done = subprocess.run(
        [sys.executable, "-c", DJANGO, *expected],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(tagline.__file__).parents[1])},
    )

    records = [tagline.read(line).fields for line in done.stdout.splitlines()]
    seen = {each["path"]: (each["status"], each["route"], each.get("error_type")) for each in records}
    assert seen == expected
    assert len(records) == len(expected)
    assert records[0]["pet"] == 7
    assert records[3]["response_bytes"] == 3
    assert records[1]["error_details"]["message"] == "'pet'"


# --- Bottle -----------------------------------------------------------------------------------------------


def test_bottle_requests_have_their_routes_and_errors(lines: Lines, emitter: Emitter) -> None:
    bottle = pytest.importorskip("bottle")
    app = bottle.Bottle()

    def pet(pet_id: int) -> dict[str, int]:
        return {"id": pet_id}

    def fail() -> str:
        raise KeyError("pet")

    app.route("/pets/<pet_id:int>", callback=pet)
    app.route("/fail", callback=fail)
    for path in ("/pets/7", "/fail", "/none"):
        ask(TaglineMiddleware(app, emitter=emitter), environ(path))

    assert [(each.fields["status"], each.fields["route"]) for each in lines.records] == [
        (200, "/pets/<pet_id:int>"),
        (500, "/fail"),
        (404, UNMATCHED),
    ]


# --- under Lambda -----------------------------------------------------------------------------------------

HTTP_2 = http_event("GET /{proxy+}", "/pets/7")
REST = rest_event("/{proxy+}", "/pets/7")


def apig_wsgi(app: App, event: dict[str, Any]) -> Any:
    return pytest.importorskip("apig_wsgi").make_lambda_handler(app)(event, Context())


def serverless_wsgi(app: App, event: dict[str, Any]) -> Any:
    return pytest.importorskip("serverless_wsgi").handle_request(app, event, Context())


@pytest.mark.parametrize("adapter", [apig_wsgi, serverless_wsgi])
@pytest.mark.parametrize("event", [HTTP_2, REST], ids=["2.0", "1.0"])
def test_behind_an_adapter_the_record_has_lambdas_ids(
    adapter: Callable[..., Any], event: dict[str, Any], flask_app: Any, lines: Lines
) -> None:
    answer = adapter(flask_app, event)

    fields = lines.fields
    assert (answer["statusCode"], json.loads(answer["body"])) == (200, {"id": 7})
    assert (fields["status"], fields["method"], fields["route"]) == (200, "GET", "/pets/<int:pet_id>")
    assert fields["path"].endswith("/pets/7")
    assert fields["request_id"] == fields["correlation_id"] == Context.aws_request_id
    assert fields["function_name"] == "function"
    assert "apig_wsgi" in adapter.__name__ or fields["client_ip"] == "192.0.2.1"


@pytest.mark.parametrize("adapter", [apig_wsgi, serverless_wsgi])
@pytest.mark.parametrize(("event", "status"), [(HTTP_2, 500), (REST, 502)], ids=["2.0", "1.0"])
@pytest.mark.parametrize("app", [failing_in_the_call, failing_in_the_body])
def test_an_exception_behind_an_adapter_has_the_status_that_the_gateway_answers(
    adapter: Callable[..., Any],
    event: dict[str, Any],
    status: int,
    app: App,
    *,
    lines: Lines,
    emitter: Emitter,
) -> None:
    """The adapters send nothing before the application is done; the exception is Lambda's function error."""
    with pytest.raises(KeyError):
        adapter(TaglineMiddleware(app, emitter=emitter), event)

    assert (lines.fields["status"], lines.fields["error_type"]) == (status, "KeyError")


@pytest.mark.parametrize("adapter", [apig_wsgi, serverless_wsgi])
def test_an_error_that_the_framework_answers_has_its_status_behind_an_adapter_as_well(
    adapter: Callable[..., Any], emitter: Emitter, lines: Lines
) -> None:
    """Not the gateway's, which is 502 only if the exception reaches Lambda."""
    flask = pytest.importorskip("flask")
    app = flask.Flask(__name__)
    app.add_url_rule("/pets/<int:pet_id>", view_func=lambda pet_id: {}[pet_id], endpoint="pet")
    app.wsgi_app = TaglineMiddleware(app.wsgi_app, emitter=emitter)

    answer = adapter(app, REST)

    assert answer["statusCode"] == lines.fields["status"] == 500
    assert lines.fields["error_type"] == "KeyError"


@pytest.mark.parametrize("hook", ["client", "route"])
def test_a_function_for_a_field_that_raises_is_told(hook: str, lines: Lines) -> None:
    told: list[BaseException] = []
    emitter = Emitter(stream=lines, on_error=told.append)

    def broken(_request: Any) -> str:
        raise KeyError(hook)

    hooks: dict[str, Any] = {hook: broken}
    ask(TaglineMiddleware(app_of(b"ok"), emitter=emitter, **hooks))

    assert (lines.fields["status"], hook in lines.fields) == (200, hook == "route")
    assert emitter.errors == len(told) > 0
    assert {repr(error) for error in told} == {repr(KeyError(hook))}
