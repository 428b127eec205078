"""The queries that the template saves, over lines that the emitter writes; rows are worked out by hand."""

import io
from pathlib import Path
from typing import Any

import pytest
from tagline import Emitter

from local.insights import Event, run
from local.template import resolve, translate

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
    (5_200, '{"route": "/carts", "status": 500, "_tag": "somebody_elses"}'),
]


@pytest.fixture(scope="module")
def saved() -> dict[str, str]:
    template = translate(Path(__file__).parents[2] / "template.yml")
    stack = resolve(template, {"LogGroups": GROUP}, stack_name="tagline", endpoint="http://127.0.0.1:1")
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
        prefix = f"2026-11-19T10:00:0{second}.000Z\t{REQUEST[::-1]}\tINFO\t" if second % 2 else ""
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
        {"@timestamp": f"2026-11-19 10:00:0{second}.000"}
        | {name: str(fields[name]) for name in shown if name in fields}
        | {"_id": identity}
        for second, identity, fields in (RECORDS[number] for number in numbers)
    ]


EXPECTED: dict[str, list[dict[str, str]]] = {
    "requests and errors by route": [
        {
            "route": "/carts",
            "method": "GET",
            "requests": "4",
            "errors": "2",
            "server_errors": "1",
            "server_error_percent": "25",
        },
        {
            "route": "/orders",
            "method": "POST",
            "requests": "2",
            "errors": "1",
            "server_errors": "1",
            "server_error_percent": "50",
        },
        {"requests": "1", "errors": "0", "server_errors": "0", "server_error_percent": "0"},
    ],
    "requests and errors by client": [
        {
            "client": "acme",
            "requests": "5",
            "errors": "2",
            "server_errors": "1",
            "routes": "2",
            "last_seen": str(START + 6_000),
        },
        {
            "client": "beta",
            "requests": "2",
            "errors": "1",
            "server_errors": "1",
            "routes": "1",
            "last_seen": str(START + 3_000),
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
    # /carts: 3, 12.5, 40, 700.25; the mean is 188.9375. /orders: 90, 95.
    "latency percentiles by route": [
        {
            "route": "/carts",
            "method": "GET",
            "requests": "4",
            "mean": "188.9375",
            "p50": "12.5",
            "p90": "700.25",
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
            "p99": "95",
            "slowest": "95",
        },
    ],
    "slowest requests": seconds(2, 5, 4, 3, 0, 1),
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


def test_every_saved_query_is_tested(saved: dict[str, str]) -> None:
    assert set(saved) == {*EXPECTED, "one request by id"}
