"""Rejected lines, kept whole in S3 with the reason: `quarantine/<reason>/year=/month=/day=/<record>.jsonl`.

One object holds what was rejected of one Kinesis record for one reason, and is named after that record, so
that a second delivery overwrites it with the same. A second delivery that ends otherwise, because the store
or the code changed in between, can leave an object of the first one behind: what is in quarantine is then a
line too many, never one too few, and `Kept.identity` tells that it is the same line.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from consumers.documents import VERSION, check_version
from consumers.errors import TaglineError
from consumers.lines.subscription import LogEvent

if TYPE_CHECKING:
    from collections.abc import Iterable

    from consumers.lines.extract import Rejected

PREFIX = "quarantine/"
FORMAT_VERSION: Final = 1

_KEY = re.compile(r"quarantine/([^/]+)/year=(\d{4})/month=(\d\d)/day=(\d\d)/([^/]+)\.jsonl")


class UnreadableQuarantineError(TaglineError, ValueError):
    """An object cannot be read as one that a consumer has written; the message has the line."""


class ObjectKey(NamedTuple):
    """The parts of an object's key.

    Attributes:
        reason: Why its lines were rejected.
        day: When their Kinesis record arrived, in UTC.
        name: The Kinesis record's `name`.
    """

    reason: str
    day: date
    name: str


class Kept(NamedTuple):
    """A line of an object.

    Attributes:
        reason: Why it was rejected.
        detail: The same for a person.
        sequence_number: The Kinesis record's.
        stream: The stream's ARN.
        arrived: When the Kinesis record arrived, in seconds since 1970; None where that was not kept.
        event: The log event; None where the whole Kinesis record was rejected.
        data: That record's data, as it came: base64; None where there is an event.
    """

    reason: str
    detail: str
    sequence_number: str
    stream: str
    arrived: float | None
    event: LogEvent | None
    data: str | None

    @property
    def identity(self) -> tuple[str, str]:
        """What two copies of it share: log group and event id, or stream and sequence number."""
        if self.event is None:
            return self.stream, self.sequence_number
        # A malformed event may have no id; then its text identifies it.
        return self.event.log_group, self.event.id or self.event.message


class ObjectWriter(Protocol):
    """What is needed of a bucket."""

    def write(self, key: str, body: bytes) -> None:
        """Write an object.

        Raises:
            OSError: If it is not known to be written.
        """


def object_key(reason: str, kinesis_record: dict[str, Any]) -> str:
    """Return the object's key for what one record of a Kinesis event holds.

    The day is the record's arrival, which no delivery changes.
    """
    arrived = datetime.fromtimestamp(float(kinesis_record["kinesis"]["approximateArrivalTimestamp"]), UTC)
    folder = f"{PREFIX}{reason}/year={arrived:%Y}/month={arrived:%m}/day={arrived:%d}/"
    return f"{folder}{name(kinesis_record)}.jsonl"


def name(kinesis_record: dict[str, Any]) -> str:
    """Return how a record of a Kinesis event is called in keys: shard and sequence number."""
    return str(kinesis_record["eventID"]).replace(":", "-")


def parse_key(key: str) -> ObjectKey:
    """Return the parts of a key.

    Raises:
        UnreadableQuarantineError: If `key` did not make it.
    """
    found = _KEY.fullmatch(key)
    if found is None:
        raise UnreadableQuarantineError(
            f"{key!r} is not quarantine/<reason>/year=/month=/day=/<record>.jsonl"
        )
    reason, year, month, day, record = found.groups()
    try:
        return ObjectKey(reason, date(int(year), int(month), int(day)), record)
    except ValueError as error:
        raise UnreadableQuarantineError(f"{key!r} names no day: {error}") from None


def lines(kinesis_record: dict[str, Any], rejections: Iterable[tuple[LogEvent | None, Rejected]]) -> bytes:
    """Return the object's body: one JSON line per rejection.

    Args:
        kinesis_record: The record of the Kinesis event that they came from.
        rejections: Each log event with why it was rejected; no event where the whole record was, whose data
            is then kept as it came (base64).
    """
    kinesis = kinesis_record["kinesis"]
    body = io.BytesIO()  # Line by line, because all of them together take several times as much as one copy.
    for event, rejected in rejections:
        line: dict[str, Any] = {
            VERSION: FORMAT_VERSION,
            "reason": rejected.reason,
            "detail": rejected.detail,
            "sequence_number": kinesis["sequenceNumber"],
            "stream": kinesis_record["eventSourceARN"],
            "arrived": kinesis["approximateArrivalTimestamp"],
        }
        if event is None:
            data = kinesis.get("data")
            line["data"] = data if isinstance(data, str) else ""  # `detail` has what it was instead
        else:
            line |= {
                "owner": event.owner,
                "log_group": event.log_group,
                "log_stream": event.log_stream,
                "event_id": event.id,
                "timestamp": event.timestamp,
                "message": event.message,
            }
        body.write(json.dumps(line).encode() + b"\n")
    return body.getvalue()


def read(body: bytes) -> Iterator[Kept]:
    """Yield the lines of an object: what `lines` has written, character by character.

    Args:
        body: The object, whole.

    Raises:
        UnreadableQuarantineError: If `lines` did not make a line; the message has its number.
    """
    for number, line in enumerate(body.splitlines(), 1):
        try:
            kept = json.loads(line)
            if not isinstance(kept, dict):
                raise TypeError("not an object")  # noqa: TRY301 - reported with its number
            check_version(kept, FORMAT_VERSION)
            event = None
            if "data" not in kept:
                if not (isinstance(kept["event_id"], str) and isinstance(kept["message"], str)):
                    raise TypeError("event_id or message is not a text")  # noqa: TRY301 - reported with its number
                event = LogEvent(
                    kept["event_id"],
                    kept["timestamp"],
                    kept["message"],
                    kept["log_group"],
                    kept["log_stream"],
                    kept["owner"],
                )
            yield Kept(
                kept["reason"],
                kept["detail"],
                kept["sequence_number"],
                kept["stream"],
                kept.get("arrived"),
                event,
                kept.get("data"),
            )
        except (ValueError, TypeError, KeyError) as error:
            problem = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise UnreadableQuarantineError(f"line {number}: {problem}") from None
