"""The queries that the template saves, over lines that the emitter writes; rows are worked out by hand."""

import io
import re
from pathlib import Path
from typing import Any

import pytest
from onemachine.insights import Event, run
from onemachine.template.resolution import resolve
from onemachine.template.sam import translate
from tagline import Emitter

GROUP = "/aws/lambda/shop"
STREAM = "2026/11/19/[$LATEST]" + "0a" * 16
REQUEST = "f612fbaf-65ce-4fd2-8d1b-6718fcb0b269"
START = 1_795_082_400_000  # 2026-11-19T10:00:00Z

# second, id, fields
RECORDS: list[tuple[int, str, dict[str, Any]]] = [
    (0, "i0", {"route": "/carts", "method": "GET", "status": 200, "client": "acme", "duration_ms": 12.5}),
    (1, "i1", {"route": "/carts", "method": "GET", "status": 404, "client": "acme", "duration_ms": 3}),
    (2, "i2", {"route": "/carts", "method": "GET", "status": 503, "client": "beta", "duration_ms": 700.25}),
    (3, "i3", {"route": "/carts", "method": "GET", "status": 200, "client": "beta", "duration_ms": 40}),
    (4, "i4", {"route": "/orders", "method": "POST", "status": 201, "client": "acme", "duration_ms": 90}),
    (
        5,
        "i5",
        {
            "route": "/orders",
            "method": "POST",
            "status": 500,
            "client": "acme",
            "duration_ms": 95,
            "error_type": "KeyError",
            "error": "no stock",
            "request_id": REQUEST,
        },
    ),
    (6, "i6", {"client": "acme", "rows": 3}),
    (
        20,
        "i7",
        {
            "route": "/carts",
            "method": "GET",
            "status": 429,
            "client": "beta",
            "duration_ms": 1,
            "correlation_id": "order-17",
        },
    ),
]
PLATFORM = [
    (4_900, f"START RequestId: {REQUEST} Version: $LATEST"),
    (5_100, f"END RequestId: {REQUEST}"),
    (
        5_100,
        (
            f"REPORT RequestId: {REQUEST}\tDuration: 95.00 ms\tBilled Duration: 95 ms\tMemory Size: 128 MB\t"
            "Max Memory Used: 60 MB\t"
        ),
    ),
    (5_150, '{"level":"ERROR","message":"no stock","correlation_id":"order-17"}'),
    (5_160, "[ERROR] KeyError: no stock"),
    (5_200, '{"route": "/carts", "status": 500, "_tag": "somebody_elses"}'),
]


@pytest.fixture(scope="module")
def saved() -> dict[str, str]:
    template = translate(Path(__file__).parents[2] / "template.yml")
    parameters = {"LogGroups": GROUP, "Store": "timestream"}
    stack = resolve(template, parameters, stack_name="tagline", endpoint="http://127.0.0.1:1")
    definitions = stack.of_type("AWS::Logs::QueryDefinition")
    return {
        definition.properties["Name"].removeprefix("tagline/"): definition.properties["QueryString"]
        for definition in definitions
    }


@pytest.fixture(scope="module")
def events() -> list[Event]:
    written = []
    for second, identity, fields in RECORDS:
        line = io.StringIO()
        timestamp = START + second * 1000
        emitter = Emitter(stream=line)
        emitter.emit(fields, id=identity, timestamp=timestamp, type="job" if "rows" in fields else None)
        # A runtime may write its own words first; the fields are found behind them.
        prefix = f"2026-11-19T10:00:{second:02}.000Z\t{REQUEST[::-1]}\tINFO\t" if second % 2 else ""
        written.append((timestamp, prefix + line.getvalue().removesuffix("\n")))
    written += [(START + after_ms, message) for after_ms, message in PLATFORM]
    return [
        Event(timestamp, message, log_stream=STREAM, log_group=GROUP, pointer="p")
        for timestamp, message in sorted(written, key=lambda line: line[0])
    ]


def seconds(*numbers: int) -> list[dict[str, str]]:
    """Return the rows of these records by id, the slowest requests' columns."""
    shown = ("duration_ms", "status", "method", "route", "client", "request_id")
    return [
        {"@timestamp": f"2026-11-19 10:00:{second:02}.000"}
        | {name: str(fields[name]) for name in shown if name in fields}
        | {"_id": identity}
        for second, identity, fields in (RECORDS[number] for number in numbers)
    ]


EXPECTED: dict[str, list[dict[str, str]]] = {
    "requests and errors by route": [
        {
            "route": "/carts",
            "method": "GET",
            "requests": "5",
            "errors": "3",
            "server_errors": "1",
            "server_error_percent": "20",
        },
        {
            "route": "/orders",
            "method": "POST",
            "requests": "2",
            "errors": "1",
            "server_errors": "1",
            "server_error_percent": "50",
        },
    ],
    "requests and errors by client": [
        {
            "client": "acme",
            "requests": "4",
            "errors": "2",
            "server_errors": "1",
            "routes": "2",
            "last_seen": str(START + 5_000),
        },
        {
            "client": "beta",
            "requests": "3",
            "errors": "2",
            "server_errors": "1",
            "routes": "1",
            "last_seen": str(START + 20_000),
        },
    ],
    "errors by type": [
        {
            "error_type": "KeyError",
            "_type": "api_request",
            "route": "/orders",
            "errors": "1",
            "last_id": "i5",
            "last_request_id": REQUEST,
        },
    ],
    # /carts: 1, 3, 12.5, 40, 700.25; the mean is 151.35. /orders: 90, 95.
    "latency percentiles by route": [
        {
            "route": "/carts",
            "method": "GET",
            "requests": "5",
            "mean": "151.35",
            "p50": "12.5",
            "p90": "700.25",
            "p95": "700.25",
            "p99": "700.25",
            "slowest": "700.25",
        },
        {
            "route": "/orders",
            "method": "POST",
            "requests": "2",
            "mean": "92.5",
            "p50": "90",
            "p90": "95",
            "p95": "95",
            "p99": "95",
            "slowest": "95",
        },
    ],
    "slowest requests": seconds(2, 5, 4, 3, 0, 1, 7),
    "rate-limited clients": [
        {"client": "beta", "route": "/carts", "rate_limited": "1", "last_seen": str(START + 20_000)}
    ],
}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_saved_query_says_what_the_lines_say(name: str, saved: dict[str, str], events: list[Event]) -> None:
    found = run(saved[name], events).rows
    assert [{field: value for field, value in row if field != "@ptr"} for row in found] == EXPECTED[name]


def test_one_request_is_found_with_what_the_platform_wrote_of_it(
    saved: dict[str, str], events: list[Event]
) -> None:
    query = saved["one request by id"].replace("PUT THE ID HERE", REQUEST)
    found = [dict(row) for row in run(query, events).rows]
    assert [(row["@timestamp"][-6:], row.get("_type"), row["@message"][:6]) for row in found] == [
        ("04.900", None, "START "),
        ("05.000", "api_request", "2026-1"),
        ("05.100", None, "END Re"),
        ("05.100", None, "REPORT"),
    ]
    assert found[1]["error_type"] == "KeyError"
    assert found[1]["@log"] == f"123456789012:{GROUP}"
    assert found[1]["@logStream"] == STREAM


def shown(query: str, events: list[Event]) -> list[tuple[str, str]]:
    """Return the second of each row's time, and how its text begins."""
    rows = [dict(row) for row in run(query, events).rows]
    return [(row["@timestamp"][-6:], row.get("text", row.get("@message", ""))[:8]) for row in rows]


def test_lines_that_are_no_records_are_found_by_id_time_and_level(
    saved: dict[str, str], events: list[Event]
) -> None:
    correlated = saved["one correlation id"].replace("PUT THE ID HERE", "order-17")
    around = saved["around a time"].replace("1795082405000", str(START + 20_000))

    assert shown(correlated, events) == [("05.150", '{"level"'), ("20.000", '{"_tag":')]
    assert shown(around, events) == [("20.000", '{"_tag":')]
    assert len(shown(saved["around a time"], events)) == len(events) - 1
    assert shown(saved["error lines"], events) == [("05.160", "[ERROR] "), ("05.150", "no stock")]


def test_every_saved_query_is_tested_and_shown_in_the_how_to(saved: dict[str, str]) -> None:
    others = ("one request by id", "one correlation id", "around a time", "error lines")
    assert set(saved) == {*EXPECTED, *others}
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "ask-the-logs.md").read_text()
    assert re.findall(r"(?m)^\| `([^`]+)` \|", page) == list(saved)
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    assert _words(saved["requests and errors by route"].replace("my-tag", "usage_record")) in _words(readme)


def _words(text: str) -> str:
    return " ".join(text.split())
