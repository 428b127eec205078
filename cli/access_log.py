"""A web server's access log, common or combined format: its lines become requests to say again. Pure.

https://httpd.apache.org/docs/2.4/logs.html
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

_TEXT = r'(?:[^"\\]|\\.)*'  # between quotes, in which a quote is escaped
_LINE = re.compile(
    r"(?P<client>\S+) \S+ \S.*? \[(?P<time>[^\]]+)\] "
    rf'"(?P<request>{_TEXT})" (?P<status>\d{{3}}) (?P<bytes>\d+|-)'
    # Real logs hold lines whose last field was cut off, its quote with it.
    rf'(?: "(?P<referrer>{_TEXT})" "(?P<user_agent>{_TEXT})(?:"|$))?(?: .*)?'
)
_REQUEST = re.compile(r"(?P<method>[A-Z]+) (?P<path>\S.*?)(?: HTTP/[\d.]+)?")


class UnreadableLineError(ValueError):
    """A line that is no access log's."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request of an access log.

    Attributes:
        id: Derived from the line and its number: the same line of the same file has the same.
        time: When it came.
        fields: What the record of it says.
    """

    id: str
    time: datetime
    fields: dict[str, Any]


def parse(line: str, number: int) -> Request:
    """Return the request that a line tells of.

    Args:
        line: The line, with or without its end.
        number: Its number in the file, from 1.

    Raises:
        UnreadableLineError: If it is no line of an access log; the message says what is wrong.
    """
    line = line.rstrip("\r\n")
    found = _LINE.fullmatch(line)
    if found is None:
        raise UnreadableLineError("not in common or combined format")
    try:
        time = datetime.strptime(found["time"], "%d/%b/%Y:%H:%M:%S %z")
    except ValueError:
        problem = f"the time is {found['time']!r}, not like 17/May/2015:10:05:03 +0000"
        raise UnreadableLineError(problem) from None
    request = _REQUEST.fullmatch(_plain(found["request"]) or "")
    fields = {
        "client": found["client"],
        "method": request["method"] if request else None,
        "route": route(request["path"]) if request else "unreadable",
        "path": request["path"] if request else _plain(found["request"]),
        "status": int(found["status"]),
        "bytes": None if found["bytes"] == "-" else int(found["bytes"]),
        "referrer": _plain(found["referrer"]),
        "user_agent": _plain(found["user_agent"]),
    }
    return Request(
        id=hashlib.sha256(f"{number}\0{line}".encode("utf-8", "replace")).hexdigest()[:32],
        time=time.astimezone(UTC),
        fields={name: value for name, value in fields.items() if value is not None},
    )


def route(path: str) -> str:
    """Return what stands for a path in counts: its first part, as a log does not know the template."""
    path = path.split("?", 1)[0]
    first, slash, rest = path.lstrip("/").partition("/")
    return f"/{first}/*" if slash and rest else f"/{first}{slash}"


def requests(lines: Iterable[str]) -> Iterator[tuple[int, Request | UnreadableLineError]]:
    """Yield each line's number with its request, or with why there is none; empty lines are passed over."""
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                yield number, parse(line, number)
            except UnreadableLineError as error:
                yield number, error


def shift(last: datetime, today: date) -> timedelta:
    """Return the whole days by which to move times so that the last falls on the day before today."""
    return today - timedelta(days=1) - last.astimezone(UTC).date()


def _plain(text: str | None) -> str | None:
    """Return a quoted field as it was meant: `-` is nothing, and quotes are no longer escaped."""
    return None if text is None or text == "-" else text.replace('\\"', '"').replace("\\\\", "\\")
