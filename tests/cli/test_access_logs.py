"""An access log of any packing and format becomes requests, and what is none is named by its line."""

import bz2
import gzip
import io
import json
import lzma
import os
import sys
import threading
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.access_logs.files import MAX_LINE, open_log, read_lines
from cli.access_logs.formats import UnreadableLineError, formats, route_of, unwrap
from cli.access_logs.requests import Request, Unreadable, format_of, read_requests, shift
from cli.errors import CommandError
from cli.feed import open_access_log

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

COMMON = '192.0.2.7 - frank [10/Oct/2000:13:55:36 -0700] "GET /apache_pb.gif HTTP/1.0" 200 2326'
COMBINED = COMMON + ' "http://www.example.com/start.html" "Mozilla/4.08 [en] (Win98; I ;Nav)"'
ALB = (
    "http 2018-07-02T22:23:00.186641Z app/my-loadbalancer/50dc6c495c0c9188 192.168.131.39:2817 10.0.0.1:80 "
    '0.001 0.002 0.000 200 200 34 366 "GET http://www.example.com:80/a/b?c=d HTTP/1.1" "curl/7.46.0" - - '
    'arn:aws:elasticloadbalancing:us-east-2:123456789012:targetgroup/my-targets/73e2d6bc24d8a067 "Root=1" '
    '"-" "-" 0 2018-07-02T22:22:48.364000Z "forward" "-" "-" "10.0.0.1:80" "200" "-" "-"'
)
CLOUDFRONT = [
    "#Version: 1.0",
    (
        "#Fields: date time x-edge-location sc-bytes c-ip cs-method cs-uri-stem sc-status cs(User-Agent) "
        "cs-uri-query time-taken"
    ),
    (
        "2019-12-04\t21:02:31\tLAX1\t392\t192.0.2.100\tGET\t/index.html\t200\tMozilla/5.0%2520(Windows)"
        "\ta=b\t0.001"
    ),
]
GATEWAY = json.dumps(
    {
        "requestId": "x",
        "ip": "192.0.2.9",
        "requestTime": "09/Apr/2015:12:34:56 +0000",
        "httpMethod": "GET",
        "routeKey": "GET /pets/{id}",
        "path": "/pets/7",
        "status": "429",
        "protocol": "HTTP/1.1",
        "responseLength": "26",
        "responseLatency": "14",
    }
)


def requests(lines: list[str]) -> list[Request | Unreadable]:
    found = format_of(lines)
    assert found is not None
    return list(read_requests(lines, found[0]))


def fields(*lines: str) -> dict[str, Any]:
    (request,) = requests(list(lines))
    assert isinstance(request, Request), request
    return request.fields


def test_the_common_format_is_read() -> None:
    # The example of https://httpd.apache.org/docs/2.4/logs.html#common, with another address.
    (request,) = requests([COMMON])

    assert isinstance(request, Request)
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


def test_the_log_of_a_load_balancer_is_read() -> None:
    assert fields(ALB) == {
        "client": "192.168.131.39",
        "method": "GET",
        "route": "/a/*",
        "path": "/a/b?c=d",
        "status": 200,
        "bytes": 366,
        "user_agent": "curl/7.46.0",
        "duration_ms": 3.0,
    }


def test_a_duration_that_a_load_balancer_does_not_know_is_left_out() -> None:
    assert "duration_ms" not in fields(ALB.replace("0.001 0.002 0.000 200 200", "-1 -1 -1 502 -"))


def test_cloudfronts_log_is_read_by_its_columns() -> None:
    assert fields(*CLOUDFRONT) == {
        "client": "192.0.2.100",
        "method": "GET",
        "route": "/index.html",
        "path": "/index.html?a=b",
        "status": 200,
        "bytes": 392,
        "user_agent": "Mozilla/5.0 (Windows)",
        "duration_ms": 1.0,
    }


def test_the_log_of_api_gateway_has_the_route_itself() -> None:
    assert fields(GATEWAY) == {
        "client": "192.0.2.9",
        "method": "GET",
        "route": "/pets/{id}",
        "path": "/pets/7",
        "status": 429,
        "bytes": 26,
        "duration_ms": 14.0,
    }


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
        (COMBINED.replace(" 2326 ", " 2326 0.012 "), "referrer", "http://www.example.com/start.html"),
        (COMBINED.replace("frank", "a b"), "client", "192.0.2.7"),
        (COMBINED.replace("192.0.2.7", "2001:db8::1"), "client", "2001:db8::1"),
        (COMBINED.replace("192.0.2.7", "[2001:db8::1]"), "client", "2001:db8::1"),
        (COMBINED.replace("192.0.2.7", "203.0.113.7, 10.0.0.1"), "client", "203.0.113.7"),
        (COMBINED.replace("192.0.2.7", "shop.example.com:443 192.0.2.41"), "client", "192.0.2.41"),
        (COMBINED.replace("- frank", "-  - "), "client", "192.0.2.7"),
        (COMMON + " 12", "bytes", 2326),
        (f'"{COMBINED}"', "user_agent", "Mozilla/4.08 [en] (Win98; I ;Nav)"),
        (COMMON.replace("GET /apache_pb.gif HTTP/1.0", "-"), "method", None),
        (COMMON.replace("GET /apache_pb.gif HTTP/1.0", "\\x16\\x03"), "path", "\\x16\\x03"),
        (COMMON.replace("GET /apache_pb.gif HTTP/1.0", "\\x16\\x03"), "route", "unreadable"),
        (COMMON.replace("HTTP/1.0", ""), "path", "/apache_pb.gif "),
        (COMMON.replace("/apache_pb.gif", "/a b"), "path", "/a b"),
        (COMMON.replace("/apache_pb.gif", "/a?x=\\x22y\\x22"), "path", '/a?x="y"'),
        (COMMON.replace("/apache_pb.gif", "/\\xC3\\xA9"), "path", "/é"),
        (COMMON.replace("/apache_pb.gif", "/\\xff"), "path", "/\\xff"),
        (COMMON.replace("/apache_pb.gif", "/\\x1b[2J"), "path", "/\\x1b[2J"),
        (COMMON.replace("/apache_pb.gif", "http://a.example/b/c"), "route", "/b/*"),
        (COMMON.replace("/apache_pb.gif", "http://[/b"), "route", "unreadable"),
        (COMMON.replace("GET /apache_pb.gif", "VERSION-CONTROL /svn/a"), "method", "VERSION-CONTROL"),
        (COMMON.replace("GET /apache_pb.gif", "OPTIONS *"), "route", "*"),
    ],
)
def test_the_oddities_of_real_logs_are_read(line: str, name: str, value: Any) -> None:
    assert fields(line).get(name) == value


@pytest.mark.parametrize(
    ("prefix", "collector"),
    [
        ("Sep 15 16:13:46 web1 nginx[2869]: ", "syslog's"),
        ("<190>Sep  5 16:13:46 web1 nginx: ", "syslog's"),
        ("<34>1 2003-10-11T22:14:15.003Z web1 nginx - ID47 - ", "syslog (RFC 5424)'s"),
        ("2024-01-01T00:00:00.000001+00:00 web1 nginx: ", "rsyslog's"),
        ("2024-01-01T00:00:00.000000001Z stdout F ", "containerd's"),
        ("2024-01-01T00:00:00.000000001Z ", "Docker's"),
        ("web-1  | ", "Docker Compose's"),
        ("", None),
    ],
)
@pytest.mark.parametrize("line", [COMMON, COMBINED, COMBINED.replace("192.0.2.7", "a.example 192.0.2.7")])
def test_what_a_collector_wrote_before_a_line_is_left_out(
    prefix: str, collector: str | None, line: str
) -> None:
    assert unwrap(prefix + line) == (collector, line)
    assert fields(prefix + line) == fields(line)


def test_the_lines_of_dockers_files_are_read() -> None:
    line = json.dumps({"log": COMBINED + "\n", "stream": "stdout", "time": "2024-01-01T00:00:00Z"})

    assert fields(line.replace(": ", ":", 1)) == fields(COMBINED)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", "/"),
        ("/a", "/a"),
        ("/a/", "/a/"),
        ("/a/b/c", "/a/*"),
        ("/a?b=/c", "/a"),
        ("//x", "/x"),
        ("*", "*"),
    ],
)
def test_a_route_is_the_first_part_of_a_path(path: str, expected: str) -> None:
    assert route_of(path) == expected


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("hello", "not in common or combined format"),
        (COMMON.replace("200 2326", "OK"), "not in common or combined format"),
        (COMMON.replace("2326", "9" * 5000), "not in common or combined format"),
        (COMMON + ' "only one more"', "not in common or combined format"),
        (COMMON.replace("10/Oct/2000:13:55:36 -0700", "2000-10-10T13:55:36Z"), "the time is '2000-10-10T"),
        (COMMON.replace("10/Oct", "32/Oct"), "the time is '32/Oct/2000:13:55:36 -0700'"),
        (
            COMMON.replace("10/Oct/2000:13:55:36 -0700", "01/Jan/0001:00:00:00 +0100"),
            "outside of the calendar",
        ),
        (
            COMMON.replace("10/Oct/2000:13:55:36 -0700", "31/Dec/9999:23:59:59 -0100"),
            "outside of the calendar",
        ),
        (COMMON.replace("2000", "1960"), "before 1970"),
        (COMMON + "x" * MAX_LINE, "longer than 250,000 characters"),
        (ALB, "not in common or combined format"),
    ],
)
def test_a_line_of_no_or_another_format_is_named_and_never_half_read(line: str, reason: str) -> None:
    *read, last = requests([COMMON, COMBINED, line])

    assert len([each for each in read if isinstance(each, Request)]) == 2
    assert isinstance(last, Unreadable)
    assert last.number == 3
    assert reason in last.reason


def test_lines_are_numbered_and_empty_ones_and_comments_passed_over() -> None:
    found = requests([*CLOUDFRONT, "", "hello", CLOUDFRONT[-1]])

    assert [each.number for each in found if isinstance(each, Unreadable)] == [5]
    assert sum(isinstance(each, Request) for each in found) == 2


def test_the_format_is_that_of_the_first_lines_that_have_one() -> None:
    found = format_of(["hello"] * 2_500 + [f"web-1  | {COMMON}"])

    assert found is not None
    assert found[1] == "common or combined, behind Docker Compose's prefix"
    assert format_of(["hello"]) is None


def test_the_identity_follows_the_line_and_its_number() -> None:
    first, second, third = (
        each.id for each in requests([COMMON, COMMON, COMBINED]) if isinstance(each, Request)
    )
    (again,) = requests([COMMON])

    assert isinstance(again, Request)
    assert again.id == first
    assert len({first, second, third}) == 3


@given(st.datetimes(timezones=st.just(UTC)), st.dates(date(2001, 1, 1)))
def test_times_are_moved_by_whole_days_so_that_the_last_is_yesterday(last: datetime, today: date) -> None:
    moved = shift(last, today)

    assert moved % timedelta(days=1) == timedelta()
    assert last.date() + moved == today - timedelta(days=1)


PIECES = st.sampled_from(
    [COMMON, COMBINED, ALB, *CLOUDFRONT, GATEWAY, '{"log":', "#Fields:", '"', "\t", "[", "\\x"]
)


@given(st.lists(st.one_of(st.text(), PIECES)).map("".join))
def test_no_line_raises_anything_else(line: str) -> None:
    for each in formats():
        try:
            each.read(unwrap(line)[1])
        except UnreadableLineError:
            continue


TEXT = f"{COMMON}\n{COMBINED}\r\n"
PACKINGS: list[Callable[[bytes], bytes]] = [bytes, gzip.compress, bz2.compress, lzma.compress, zstd.compress]


@pytest.mark.parametrize("pack", PACKINGS, ids=["plain", "gzip", "bzip2", "xz", "zstd"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_packed_files_are_read_in_every_encoding(
    pack: Callable[[bytes], bytes], encoding: str, tmp_path: Path
) -> None:
    path = tmp_path / "access.log"
    path.write_bytes(pack(TEXT.encode(encoding)))

    with open_log(path) as file:
        assert [*read_lines(file)] == [*read_lines(file)] == [COMMON, COMBINED]


def test_a_pipe_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_text, args=(TEXT,))
    writer.start()
    with open_access_log(path) as log:
        assert (log.lines, len([*log.requests()])) == (2, 2)
    writer.join()


@pytest.mark.parametrize("device", ["/dev/full", "/dev/zero", "/dev/urandom"])
def test_a_device_without_an_end_is_refused(device: str) -> None:
    with pytest.raises(CommandError, match=f"{device} is a device"), open_log(Path(device)):
        pass


def test_standard_input_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(gzip.compress(TEXT.encode()))))

    with open_access_log(Path("-")) as log:
        assert log.lines == 2


def test_a_damaged_file_is_read_up_to_the_damage(tmp_path: Path) -> None:
    path = tmp_path / "access.log.gz"
    lines = [COMMON.replace("2326", str(number)) for number in range(50_000)]
    path.write_bytes(gzip.compress("\n".join(lines).encode())[:-1000])

    with open_access_log(path) as log:
        assert 0 < log.lines < 50_000
        assert "the packed file is damaged" in log.unreadable[-1].reason
        assert len([*log.requests()]) == log.lines


def test_the_rest_of_a_line_that_is_too_long_is_left_out() -> None:
    file = io.BytesIO(b"x" * (3 * MAX_LINE) + b"\n" + COMMON.encode())

    first, second = read_lines(file)
    assert (len(first), second) == (MAX_LINE + 1, COMMON)


@pytest.mark.parametrize(
    "content",
    [b"", b"hello\n", b"\x1f\x8b", b"\x00" * 100, gzip.compress(b"hello", mtime=0)],
    ids=["empty", "no request", "the beginning of gzip", "zeros", "no request in gzip"],
)
def test_a_file_without_requests_is_refused_with_the_formats(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "[b]log"
    path.write_bytes(content)

    with (
        pytest.raises(CommandError, match=r"\[b\]log has no line in a format that is known") as refused,
        open_access_log(path),
    ):
        pass
    assert "Application Load Balancer" in refused.value.advice


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(CommandError, match=r"cannot read .*none\.log: No such file"),
        open_access_log(tmp_path / "none.log"),
    ):
        pass
