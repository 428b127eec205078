"""The requests of an access log: each line's, or why it has none."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import islice
from typing import Any

from cli.access_logs.files import MAX_LINE, DamagedFileError
from cli.access_logs.formats import Format, UnreadableLineError, detect, unwrap

# Lines from which the format is detected.
SAMPLE = 1_000


@dataclass(frozen=True, slots=True)
class Request:
    """A request of an access log.

    Attributes:
        id: Derived from the line and its number: the same line of the same file has the same.
        time: When it came.
        fields: The fields of its record.
    """

    id: str
    time: datetime
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A line without a request.

    Attributes:
        number: The line's number, from 1.
        reason: What is wrong.
    """

    number: int
    reason: str


def format_of(lines: Iterable[str]) -> tuple[Format, str] | None:
    """Return the format of a log and what people call it, from the first lines that have any format.

    Args:
        lines: The log's lines; as many are read as are needed.
    """
    rest = iter(lines)
    while sample := list(islice(_before_damage(rest), SAMPLE)):
        unwrapped = [unwrap(line) for line in sample]
        found = detect(line for _, line in unwrapped)
        if found:
            collectors = {collector for collector, _ in unwrapped if collector}
            behind = f", behind {' and '.join(sorted(collectors))} prefix" if collectors else ""
            return found, found.name + behind
    return None


def read_requests(lines: Iterable[str], format_: Format) -> Iterator[Request | Unreadable]:
    """Yield the request of each line, or why it has none; empty lines and comments are passed over."""
    number = 0
    try:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                fields = format_.read(_short(unwrap(line)[1]))
            except UnreadableLineError as error:
                yield Unreadable(number, str(error))
                continue
            if fields is not None:
                yield Request(
                    id=hashlib.sha256(f"{number}\0{line}".encode("utf-8", "replace")).hexdigest()[:32],
                    time=fields.pop("time"),
                    fields={name: value for name, value in fields.items() if value is not None},
                )
    except DamagedFileError as error:
        yield Unreadable(number + 1, str(error))


def shift(last: datetime, today: date) -> timedelta:
    """Return the whole days by which to move times so that the last falls on the day before today."""
    return today - timedelta(days=1) - last.astimezone(UTC).date()


def _short(line: str) -> str:
    if len(line) > MAX_LINE:
        raise UnreadableLineError(f"longer than {MAX_LINE:,} characters")
    return line


def _before_damage(lines: Iterator[str]) -> Iterator[str]:
    try:
        yield from lines
    except DamagedFileError:
        return
