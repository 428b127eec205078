"""What CloudWatch Logs puts into Kinesis: gzip of one JSON envelope with the events of one log stream.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/SubscriptionFilters.html
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# A Kinesis record is at most 10 MiB, and log text seldom shrinks more than 30 times: what inflates to more
# than this is no envelope of CloudWatch's, and would not fit into the function's memory.
# https://docs.aws.amazon.com/streams/latest/dev/large-records.html
MAX_INFLATED_BYTES = 64 * 1024 * 1024

_GZIP = 31  # zlib's window bits for "gzip, largest window"


class UndecodableError(ValueError):
    """Kinesis data that is no envelope; the message says at which step it failed."""


@dataclass(frozen=True, slots=True)
class LogEvent:
    """One line as CloudWatch Logs delivered it.

    Attributes:
        id: Unique per log event, the same in every delivery of it.
        timestamp: Milliseconds since 1970.
        message: The line; platform lines keep their newline.
        log_group: Where it was written.
        log_stream: The execution environment that wrote it.
        owner: The account's id.
    """

    id: str
    timestamp: int
    message: str
    log_group: str
    log_stream: str
    owner: str


@dataclass(frozen=True, slots=True)
class Envelope:
    """The events of one Kinesis record, and how many messages of CloudWatch's own were among them."""

    log_group: str
    events: tuple[LogEvent, ...]
    control: int


def decode(data: str | bytes) -> Envelope:
    """Return the envelope in a Kinesis record's data.

    A health check of CloudWatch's is told event by event, by its empty id, because an envelope of type
    CONTROL_MESSAGE has been seen that held real events as well.

    Args:
        data: Base64 text, as Lambda gives it, or the bytes themselves, as Kinesis does.

    Raises:
        UndecodableError: If the data is not base64, not gzip to its end, or not an envelope.
    """
    try:
        packed = base64.b64decode(data, validate=True) if isinstance(data, str) else data
        envelope = json.loads(_inflate(packed))
        events = tuple(_event(envelope, event) for event in envelope["logEvents"] if event["id"])
        return Envelope(str(envelope["logGroup"]), events, len(envelope["logEvents"]) - len(events))
    except UndecodableError:
        raise
    except KeyError as error:
        raise UndecodableError(f"not an envelope of CloudWatch Logs: no {error}") from None
    except (ValueError, TypeError, RecursionError, zlib.error) as error:
        raise UndecodableError(f"{type(error).__name__}: {error}") from None


def _event(envelope: dict[str, Any], event: dict[str, Any]) -> LogEvent:
    identity, timestamp, message = event["id"], event["timestamp"], event["message"]
    if not (isinstance(identity, str) and isinstance(timestamp, int) and isinstance(message, str)):
        raise UndecodableError("an event's id, timestamp or message is of the wrong type")
    return LogEvent(
        identity,
        timestamp,
        message,
        str(envelope["logGroup"]),
        str(envelope["logStream"]),
        str(envelope["owner"]),
    )


def encode(envelope: Mapping[str, object]) -> bytes:
    """Return an envelope's JSON as the bytes that CloudWatch Logs puts into Kinesis."""
    packer = zlib.compressobj(6, zlib.DEFLATED, _GZIP)
    text = json.dumps(envelope, separators=(",", ":")).encode()
    return packer.compress(text) + packer.flush()


def _inflate(data: bytes) -> bytes:
    """Return what is in all members of a gzip; one that ends early or grows too large is an error."""
    pieces: list[bytes] = []
    room = MAX_INFLATED_BYTES
    while data or not pieces:
        member = zlib.decompressobj(_GZIP)
        piece = member.decompress(data, room + 1)
        room -= len(piece)
        if room < 0:
            raise UndecodableError(f"inflates to more than {MAX_INFLATED_BYTES:,} bytes")
        if not member.eof:
            raise UndecodableError("gzip ends early")
        pieces.append(piece)
        data = member.unused_data.lstrip(b"\0")
    return b"".join(pieces)
