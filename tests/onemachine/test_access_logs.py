"""Access logs are written as the template says, with values as they are."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from onemachine.access_logs import Access, AccessLog
from onemachine.functions import Result
from onemachine.http_api import HttpApi, Route, Throttle
from onemachine.http_messages import Request

AT = datetime(2026, 11, 20, 10, 0, 1, 500_000, tzinfo=UTC)
ACCESS = Access(AT, "GET /a/{id}", "GET", "/a/1", "HTTP/1.1", "192.0.2.1", 'a "b"', "api", 200, 7, 12)


@pytest.mark.parametrize(
    ("template", "line"),
    [
        ("$context.status $context.routeKey", "200 GET /a/{id}"),
        ("[$context.requestTime]", "[20/Nov/2026:10:00:01 +0000]"),
        ("$context.requestTimeEpoch.$context.responseLatency", "1795168801500.12"),
        ("$context.identity.userAgent|$context.identity.sourceIp", 'a "b"|192.0.2.1'),
        ("$context.integrationErrorMessage,$context.error.messageString", "-,-"),
        ("no $variable ${context.status}", "no $variable ${context.status}"),
    ],
)
def test_a_line_is_the_format_with_the_values_of_the_request(template: str, line: str) -> None:
    written: list[tuple[int, str]] = []

    AccessLog(template, lambda at_ms, text: written.append((at_ms, text)), "api-id").write(ACCESS)

    assert written == [(1_795_168_801_512, line)]


def test_each_answer_leaves_a_line_also_those_that_no_function_gives() -> None:
    lines: list[str] = []
    api = HttpApi(
        [Route("GET", "/ok", "echo"), Route("ANY", "/fails/{id}", "fails")],
        lambda name, _payload: Result(b"{}", None if name == "echo" else "Unhandled", "id"),
        access_log=AccessLog(
            '{"key":"$context.routeKey","status":$context.status,"id":"$context.extendedRequestId"}',
            lambda _at_ms, text: lines.append(text),
            "api-id",
        ),
        throttle=Throttle(0.0, 2),
    )

    for method, path in [("GET", "/ok"), ("POST", "/fails/1"), ("GET", "/ok"), ("GET", "/none")]:
        api.answer(Request(method, path, [], b"", "192.0.2.1"))
    api.stop()

    read = [json.loads(line) for line in lines]
    assert [(each["key"], each["status"]) for each in read] == [
        ("GET /ok", 200),
        ("ANY /fails/{id}", 500),
        ("GET /ok", 429),
        ("-", 404),
    ]
    assert len({each["id"] for each in read}) == 4


def test_a_line_that_cannot_be_written_costs_nobody_an_answer() -> None:
    def fail(_at_ms: int, _text: str) -> None:
        raise ConnectionError("no log group")

    api = HttpApi(
        [Route("GET", "/ok", "echo")],
        lambda _name, _payload: Result(b"{}", None, "id"),
        access_log=AccessLog("$context.status", fail, "api-id"),
    )
    assert api.answer(Request("GET", "/ok", [], b"", "192.0.2.1")).status == 200
    api.stop()
