"""An access log's lines become requests to say again."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.access_log import Request, UnreadableLineError, parse, requests, route, shift

COMMON = '192.0.2.7 - frank [10/Oct/2000:13:55:36 -0700] "GET /apache_pb.gif HTTP/1.0" 200 2326'
COMBINED = COMMON + ' "http://www.example.com/start.html" "Mozilla/4.08 [en] (Win98; I ;Nav)"'


def fields(line: str) -> dict[str, Any]:
    return parse(line, 1).fields


def test_the_common_format_is_read() -> None:
    # The example of https://httpd.apache.org/docs/2.4/logs.html#common, with another address.
    request = parse(COMMON, 1)

    assert request.time == datetime(2000, 10, 10, 20, 55, 36, tzinfo=UTC)
    assert request.fields == {
        "client": "192.0.2.7",
        "method": "GET",
        "route": "/apache_pb.gif",
        "path": "/apache_pb.gif",
        "status": 200,
        "bytes": 2326,
    }


def test_the_combined_format_adds_referrer_and_user_agent() -> None:
    assert fields(COMBINED)["referrer"] == "http://www.example.com/start.html"
    assert fields(COMBINED)["user_agent"] == "Mozilla/4.08 [en] (Win98; I ;Nav)"


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        (COMBINED.replace("2326", "-"), "bytes", None),
        (COMBINED.replace('"http://www.example.com/start.html"', '"-"'), "referrer", None),
        (
            COMBINED.replace("Win98", 'a \\"quoted\\" one'),
            "user_agent",
            'Mozilla/4.08 [en] (a "quoted" one; I ;Nav)',
        ),
        (COMBINED[:-1], "user_agent", "Mozilla/4.08 [en] (Win98; I ;Nav)"),
        (COMBINED + ' "extra" 0.003', "user_agent", "Mozilla/4.08 [en] (Win98; I ;Nav)"),
        (COMBINED.replace("frank", "a b"), "client", "192.0.2.7"),
        (COMBINED.replace("192.0.2.7", "2001:db8::1"), "client", "2001:db8::1"),
        (COMMON.replace("GET /apache_pb.gif HTTP/1.0", "-"), "method", None),
        (COMMON.replace("GET /apache_pb.gif HTTP/1.0", "\\x16\\x03"), "path", "\\x16\\x03"),
        (COMMON.replace("GET /apache_pb.gif HTTP/1.0", "\\x16\\x03"), "route", "unreadable"),
        (COMMON.replace("HTTP/1.0", ""), "path", "/apache_pb.gif "),
        (COMMON.replace("/apache_pb.gif", "/a b"), "path", "/a b"),
    ],
)
def test_the_oddities_of_real_logs_are_read(line: str, name: str, value: Any) -> None:
    assert fields(line).get(name) == value


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", "/"),
        ("/a", "/a"),
        ("/a/", "/a/"),
        ("/a/b/c", "/a/*"),
        ("/a?b=/c", "/a"),
        ("//x", "/x"),
        ("*", "/*"),
    ],
)
def test_a_route_is_the_first_part_of_a_path(path: str, expected: str) -> None:
    assert route(path) == expected


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("hello", "not in common or combined format"),
        (COMMON.replace("200 2326", "OK"), "not in common or combined format"),
        (
            COMMON.replace("10/Oct/2000:13:55:36 -0700", "2000-10-10T13:55:36Z"),
            "the time is '2000-10-10T13:55:36Z'",
        ),
        (COMMON.replace("10/Oct", "32/Oct"), "the time is '32/Oct/2000:13:55:36 -0700'"),
    ],
)
def test_what_is_no_access_log_line_is_refused(line: str, reason: str) -> None:
    with pytest.raises(UnreadableLineError, match=reason):
        parse(line, 1)


def test_lines_are_numbered_and_bad_ones_do_not_stop_the_others() -> None:
    found = dict(requests([COMMON, "hello", "", "\n", COMBINED]))

    assert list(found) == [1, 2, 5]
    assert [isinstance(each, Request) for each in found.values()] == [True, False, True]


def test_the_identity_follows_the_line_and_its_number() -> None:
    assert parse(COMMON, 1).id == parse(COMMON + "\r\n", 1).id
    assert parse(COMMON, 1).id != parse(COMMON, 2).id
    assert parse(COMMON, 1).id != parse(COMBINED, 1).id


@given(st.datetimes(timezones=st.just(UTC)), st.dates(date(2001, 1, 1)))
def test_times_are_moved_by_whole_days_so_that_the_last_is_yesterday(last: datetime, today: date) -> None:
    moved = shift(last, today)

    assert moved % timedelta(days=1) == timedelta()
    assert last.date() + moved == today - timedelta(days=1)


@given(st.text())
def test_no_line_raises_anything_else(line: str) -> None:
    for _, found in requests([line]):
        assert isinstance(found, (Request, UnreadableLineError))
