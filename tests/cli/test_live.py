"""The live view of `tagline up`: what is printed of requests, lines and faults, and what is counted."""

from __future__ import annotations

import io
import json
import os
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from onemachine.access_logs import Access
from onemachine.faults import Kind
from tagline.record import Record

from cli.live import CodeWatch, LiveView
from cli.screen import Screen

GROUP, OWN = "/aws/lambda/app-Orders", "/aws/lambda/tagline-RowConsumer"
RECORD = Record(
    "1",
    0,
    {"route": "/a", "status": 200, "duration_ms": 3.5, "client": "\x1b[31mada"},
    "api_request",
    "usage_record",
).to_line()
TRACEBACK = "[ERROR] ValueError: boom\rTraceback (most recent call last):\r\xa0\xa0File a.py"
FAILED = json.dumps(
    {"level": "ERROR", "errorType": "E", "errorMessage": "no", "stackTrace": ["  File b.py\n"]}
)
LOGGED = json.dumps({"level": "ERROR", "message": "cannot", "exception": "Traceback ..."})

# A log group, an event in it, what is printed of it after the time, and what it counts as.
EVENTS: list[tuple[str, str, str | None, str | None]] = [
    (
        GROUP,
        RECORD,
        r"record   app-Orders: api_request route=/a status=200 duration_ms=3.5 client=\x1b[31mada",
        "record",
    ),
    (GROUP, "hello \x07there\n", r"line     app-Orders: hello \x07there", None),
    (GROUP, "[INFO]\tat 10\tid\thello", "line     app-Orders: [INFO]  at 10   id  hello", None),
    (GROUP, 'usage_record {"route": "/b"}', "record   app-Orders: api_request route=/b", "record"),
    (
        GROUP,
        'usage_record {"route": ',
        "rejected app-Orders: unparseable: not JSON: Expecting value: line 1 column 24 (char 23)",
        "rejected line",
    ),
    (GROUP, "[WARNING]\t2026-11-30T10:46:15.391Z\t\tLAMBDA_WARNING: Unhandled exception.", None, None),
    (GROUP, '{"a": 1}', 'line     app-Orders: {"a": 1}', None),
    (GROUP, "{not json", "line     app-Orders: {not json", None),
    (GROUP, "START RequestId: 1 Version: $LATEST", None, None),
    (GROUP, "REPORT RequestId: 1 Duration: 2 ms", None, None),
    (GROUP, '{"time": "now", "type": "platform.report", "record": {}}', None, None),
    (
        GROUP,
        TRACEBACK,
        "error    app-Orders: [ERROR] ValueError: boom\nTraceback (most recent call last):\n  File a.py",
        "error",
    ),
    (GROUP, FAILED, "error    app-Orders: E: no\n  File b.py", "error"),
    (GROUP, LOGGED, "error    app-Orders: cannot\nTraceback ...", "error"),
    (
        GROUP,
        "2026-11-20T10:00:00Z 1 Task timed out after 3.00 seconds",
        "error    app-Orders: 2026-11-20T10:00:00Z 1 Task timed out after 3.00 seconds",
        "error",
    ),
    (OWN, '{"level": "INFO", "message": "batch"}', None, None),
    (OWN, RECORD, None, None),
    (OWN, TRACEBACK.partition("\r")[0], "error    tagline-RowConsumer: [ERROR] ValueError: boom", "error"),
]


@pytest.fixture
def printed() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def view(printed: io.StringIO) -> LiveView:
    return LiveView("usage_record", [GROUP], screen=Screen(file=printed, width=40))


@pytest.mark.parametrize("event", EVENTS)
def test_lines_are_printed_as_people_read_them(
    view: LiveView, printed: io.StringIO, event: tuple[str, str, str | None, str | None]
) -> None:
    group, text, expected, counted = event
    view.lines(group, [text])
    view.close()

    assert printed.getvalue()[9:].rstrip("\n") == (expected or "")
    assert view.counts == ({counted: 1} if counted else {})


def access(status: int) -> Access:
    now = datetime(2026, 11, 20, tzinfo=UTC)
    return Access(now, "GET /a", "GET", "/a\x1b", "HTTP/1.1", "127.0.0.1", "", "", status, 2, 7)


def test_requests_faults_and_reloads_are_printed_and_counted(view: LiveView, printed: io.StringIO) -> None:
    for status in (200, 404, 502):
        view.request("Api", access(status))
    view.fault(Kind.THROTTLE, "s3 PUT")
    view.reloaded(Path("a.py"))
    view.close()

    assert [line[9:] for line in printed.getvalue().splitlines()] == [
        r"request  GET /a\x1b 200 7 ms Api",
        r"request  GET /a\x1b 404 7 ms Api",
        r"request  GET /a\x1b 502 7 ms Api",
        "fault    throttle s3 PUT",
        "reload   a.py changed; functions start again with it",
    ]
    assert view.summary() == "3 requests, 1 failed request, 0 records, 0 rejected lines, 0 errors"


class Terminal(io.StringIO):
    """A terminal that stands still until it is released, and is gone then."""

    def __init__(self) -> None:
        super().__init__()
        self.released = threading.Event()

    def write(self, text: str) -> int:
        self.released.wait(60)
        raise BrokenPipeError(text)


def test_a_terminal_that_stands_still_and_then_is_gone_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.live.MAX_WAITING", 2)
    monkeypatch.setattr("cli.live.CLOSE_WITHIN_S", 0.0)
    terminal = Terminal()
    view = LiveView("usage_record", [GROUP], screen=Screen(file=terminal))
    view.lines(GROUP, ["hello"] * 100)
    view.lines(GROUP, [RECORD])
    view.close()
    terminal.released.set()

    assert view.summary() == "0 requests, 0 failed requests, 1 record, 0 rejected lines, 0 errors"


def test_code_that_changes_is_seen_once(tmp_path: Path) -> None:
    code, text = tmp_path / "a.py", tmp_path / "notes.txt"
    code.write_text("")
    watch = CodeWatch([tmp_path])
    text.write_text("no code")
    assert watch.changed() is None
    os.utime(code, (1, 1))
    assert watch.changed() == code
    assert watch.changed() is None
    code.unlink()
    assert watch.changed() == code
