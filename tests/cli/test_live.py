"""The live view of `tagline up`: what is printed of requests, lines and faults, and what is counted."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import requests
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


TEMPLATE = """
Transform: AWS::Serverless-2016-10-31
Resources:
  Orders:
    Type: AWS::Serverless::Function
    Properties:
      Handler: orders.handler
      Runtime: python3.13
      CodeUri: .
      Events: {Any: {Type: HttpApi, Properties: {Method: GET, Path: "/{order+}"}}}
"""
CODE = """
import boto3
from tagline import Emitter

emitter = Emitter()


@emitter.handler
def handler(event, context):
    boto3.client("sqs")
    if event["rawPath"] == "/fails":
        raise ValueError("boom")
    return {"statusCode": 200, "body": "first"}
"""


def environment() -> dict[str, str]:
    """Return the variables of a developer who has set none for AWS."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return {**own, "COLUMNS": "120", "NO_COLOR": "1"}


class Up:
    """`tagline up` in a folder: what it prints, line by line."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tagline_pipeline", "up", *options],
            cwd=folder,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.watchdog = threading.Timer(300, self.process.kill)
        self.watchdog.start()

    def until(self, text: str) -> str:
        """Return the lines up to the first that has a text."""
        assert self.process.stdout is not None
        lines = ""
        for line in self.process.stdout:
            lines += line
            if text in line:
                return lines
        pytest.fail(f"no {text!r} in {lines}")

    def end(self) -> str:
        self.process.send_signal(signal.SIGINT)
        rest, _ = self.process.communicate()
        return rest


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    (tmp_path / "template.yml").write_text(TEMPLATE)
    (tmp_path / "orders.py").write_text(CODE)
    running = Up(tmp_path, "--template", "template.yml", "--in-process")
    try:
        yield running
    finally:
        running.watchdog.cancel()
        running.process.kill()
        running.process.wait()
        assert running.process.stdout is not None
        running.process.stdout.close()


def answer(url: str) -> tuple[int, str]:
    response = requests.get(url, timeout=60)
    return response.status_code, response.text


def test_the_view_of_a_pipeline_that_runs(up: Up) -> None:
    (url,) = re.findall(r"(http://127\.0\.0\.1:\d+) +ServerlessHttpApi of your template", up.until("Stop it"))

    assert answer(f"{url}/a") == (200, "first")
    up.until("record   app-Orders: api_request method=GET route=/{order+} status=200")
    assert answer(f"{url}/fails")[0] == 500
    up.until("error    app-Orders: [ERROR] ValueError: boom")
    up.until('raise ValueError("boom")')

    (up.folder / "orders.py").write_text(CODE.replace("first", "second, and longer"))
    up.until("orders.py changed; functions start again with it")
    assert answer(f"{url}/a") == (200, "second, and longer")

    output = "hello\n" + '{"_tag": "usage_record", "route": "/fed"}\n{"_tag": "usage_record", "route": \n'
    subprocess.run(
        [sys.executable, "-m", "tagline_pipeline", "feed", "--lines", "-"],
        cwd=up.folder,
        env=environment(),
        input=output,
        text=True,
        check=True,
    )
    up.until("line     app-Orders: hello")
    up.until("record   app-Orders: api_request route=/fed")
    up.until("rejected app-Orders: unparseable: ")

    rest = up.end()
    assert "3 requests, 1 failed request, 4 records, 1 rejected line, 1 error" in rest
    page = up.folder / ".tagline" / "report.html"
    assert f"Usage page, for your browser: {page}" in rest
    assert "<title>" in page.read_text()
    assert "Traceback" not in rest
