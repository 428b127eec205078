"""What CloudWatch Logs puts into Kinesis: gzip of one JSON envelope with the events of one log stream.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/SubscriptionFilters.html
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import orjson
import pybase64
from isal import igzip_lib, isal_zlib

from consumers.errors import TaglineError
from consumers.lines.places import region_of_filters

# A Kinesis record is at most 10 MiB, and log text seldom shrinks more than 30 times. More than this is no
# envelope of CloudWatch's but a bomb, which would cost the invocation its time; not its memory, see `pieces`.
# https://docs.aws.amazon.com/streams/latest/dev/large-records.html
MAX_INFLATED_BYTES = 128 * 1024 * 1024

# An envelope that inflates to more than this is read in pieces of about this size.
PIECE_BYTES = 1024 * 1024

# What cannot be read in pieces is read whole up to this size: parsed, it takes up to thirty times as much.
# It is also the longest log event, and CloudWatch's are at most a megabyte.
MAX_WHOLE_BYTES = 8 * 1024 * 1024
# So many log events are given out at once.
MAX_PIECE_EVENTS = 10_000

_GZIP = 31  # zlib's window bits for "gzip, largest window"
_GzipError: type[Exception] = igzip_lib.IsalError  # type: ignore[assignment]  # its stub lacks the base
_MAGIC = b"\x1f\x8b"

# Inside a text of JSON a quote has a backslash before it, so neither of these can be part of one.
_OPENING = b'"logEvents":['
_BETWEEN = b'},{"id":'


class UndecodableError(TaglineError, ValueError):
    """Kinesis data that is not an envelope; the message names the step that failed."""


class LogEvent(NamedTuple):
    """One line as CloudWatch Logs delivered it; no dataclass, because a frozen one takes four times as long.

    Attributes:
        id: Unique per log event, the same in every delivery of it.
        timestamp: Milliseconds since 1970.
        message: The line; platform lines keep their newline.
        log_group: Where it was written; qualified as in `consumers.lines.places` once a consumer has read it.
        log_stream: The execution environment that wrote it.
        owner: The account's id.
    """

    id: str
    timestamp: int
    message: str
    log_group: str
    log_stream: str
    owner: str


class Piece(NamedTuple):
    """Some of an envelope's log events, in their order; most envelopes are one piece.

    Attributes:
        log_group: Where they were written.
        log_stream: The execution environment that wrote them.
        owner: The account's id.
        log_events: As the envelope has them: not looked at yet.
        region: The region that the subscription filter's name ends in; empty if it ends in none.
    """

    log_group: str
    log_stream: str
    owner: str
    log_events: list[Any]
    region: str = ""


class Malformed(NamedTuple):
    """A log event that cannot be read.

    Attributes:
        event: What could be read of it; its message is the whole of it, as JSON, if that is not text.
        problem: What is wrong with it.
    """

    event: LogEvent
    problem: str


def pieces(data: object) -> Iterator[Piece]:
    """Yield the log events in a Kinesis record's data, so that no more than a piece of them is in memory.

    An envelope that is not read to its good end yields nothing, so that nothing of it is stored that is also
    kept as undecodable: what is larger than a piece is inflated twice.

    Args:
        data: Base64 text, as Lambda gives it, or the bytes themselves, as Kinesis does. Data that is not gzip
            but begins with `{` is read as the envelope's JSON itself. Anything else is refused.

    Raises:
        UndecodableError: If the data is not base64, neither gzip to its end nor JSON, or not an envelope.
    """
    try:
        packed = _from_base64(data)
        if packed.startswith(b"{"):
            return _whole(packed)
        member = isal_zlib.decompressobj(_GZIP)
        text = member.decompress(packed, PIECE_BYTES)
        if member.eof and not member.unused_data:
            return _whole(text)
        del member, text
        try:
            for _ in _split(packed):
                pass
        except UndecodableError:
            raise
        except (ValueError, LookupError, TypeError, RecursionError, _GzipError):
            # Not written as CloudWatch Logs writes it, or not at all: read as a whole, it shows which.
            return _whole(_inflate_whole(packed))
        return _split(packed)
    except UndecodableError:
        raise
    except (LookupError, TypeError) as error:
        raise UndecodableError(
            f"not an envelope of CloudWatch Logs: {type(error).__name__}: {error}"
        ) from None
    except _GzipError as error:
        raise UndecodableError(f"not gzip: {error}") from None
    except (ValueError, RecursionError) as error:
        raise UndecodableError(f"{type(error).__name__}: {error}") from None


def log_event(raw: Any, piece: Piece) -> LogEvent | Malformed | None:
    """Return a log event with where it came from, or None for a message of CloudWatch's own.

    A health check is found by its empty id, event by event, because an envelope of type CONTROL_MESSAGE has
    been seen that held real events as well.
    """
    problem = ""
    raw = raw if isinstance(raw, dict) else {"": raw}
    identity, timestamp, message = raw.get("id"), raw.get("timestamp"), raw.get("message")
    if identity == "":
        return None
    if not isinstance(identity, str):
        problem = "a log event's id is not text"
    elif type(timestamp) is not int:
        problem = "a log event's timestamp is not a whole number"
    elif not isinstance(message, str):
        problem = "a log event's message is not text"
    else:
        return LogEvent(identity, timestamp, message, piece.log_group, piece.log_stream, piece.owner)
    event = LogEvent(
        identity if isinstance(identity, str) else "",
        timestamp if type(timestamp) is int else 0,
        message if isinstance(message, str) else json.dumps(raw.get("", raw)),
        *piece[:3],
    )
    return Malformed(event, problem)


def encode(envelope: Mapping[str, object]) -> bytes:
    """Return an envelope's JSON as the bytes that CloudWatch Logs puts into Kinesis."""
    packer = zlib.compressobj(6, zlib.DEFLATED, _GZIP)
    text = json.dumps(envelope, separators=(",", ":")).encode()
    return packer.compress(text) + packer.flush()


def _parse(text: bytes) -> Any:
    try:
        return orjson.loads(text)
    except ValueError:
        # What orjson refuses and the standard library takes: bytes that are not UTF-8, which become halves of
        # surrogate pairs, and NaN. They cost their own log event, not the envelope.
        return json.loads(text.decode("utf-8", "surrogateescape"))


def _piece(envelope: Any) -> Piece:
    log_events = envelope["logEvents"]
    if not isinstance(log_events, list):
        raise TypeError("logEvents is not a list")
    return Piece(
        str(envelope["logGroup"]),
        str(envelope["logStream"]),
        str(envelope["owner"]),
        log_events,
        region_of_filters(envelope.get("subscriptionFilters")),
    )


def _from_base64(data: object) -> bytes:
    if isinstance(data, str):
        return pybase64.b64decode(data, None, validate=True)
    if isinstance(data, bytes):
        return data
    raise UndecodableError(f"data is {str(data)[:100]}, not text")


def _whole(text: bytes) -> Iterator[Piece]:
    """Return the log events of an envelope's JSON."""
    piece = _piece(_parse(text))
    if len(piece.log_events) <= MAX_PIECE_EVENTS:
        return iter((piece,))
    starts = range(0, len(piece.log_events), MAX_PIECE_EVENTS)
    return (piece._replace(log_events=piece.log_events[start : start + MAX_PIECE_EVENTS]) for start in starts)


def _inflate_whole(packed: bytes) -> bytes:
    whole = bytearray()
    for text in _inflate(packed):
        whole += text
        if len(whole) > MAX_WHOLE_BYTES:
            raise UndecodableError(
                f"inflates to more than {MAX_WHOLE_BYTES:,} bytes that CloudWatch Logs has not written"
            )
    return bytes(whole)


def _inflate(packed: bytes) -> Iterator[bytes]:
    """Yield what is in all members of a gzip; one that ends early or grows too large is an error."""
    room = MAX_INFLATED_BYTES
    while True:
        member = isal_zlib.decompressobj(_GZIP)
        while not member.eof:
            text = member.decompress(packed, PIECE_BYTES)
            packed = member.unconsumed_tail
            room -= len(text)
            if room < 0:
                raise UndecodableError(f"inflates to more than {MAX_INFLATED_BYTES:,} bytes")
            if not text and not packed and not member.eof:
                raise UndecodableError("gzip ends early")
            yield text
        packed = member.unused_data.lstrip(b"\0")  # padding
        if not packed:
            return
        if not packed.startswith(_MAGIC):
            raise UndecodableError(f"{len(packed):,} bytes after the gzip's end are not gzip")


def _split(packed: bytes) -> Iterator[Piece]:
    """Yield an envelope's log events while it is inflated, if it is without space as CloudWatch's are."""
    texts = _inflate(packed)
    head, opening, rest = next(texts).partition(_OPENING)
    envelope = _parse(head + opening + b"]}")
    for text in texts:
        rest += text
        if len(rest) > MAX_WHOLE_BYTES:
            raise UndecodableError(
                f"{MAX_WHOLE_BYTES:,} bytes without a log event's end as CloudWatch Logs writes it"
            )
        end = rest.rfind(_BETWEEN)
        if end >= 0:
            envelope["logEvents"] = _parse(b"[" + rest[: end + 1] + b"]")
            yield _piece(envelope)
            rest = rest[end + 2 :]
    last = _parse(b"{" + _OPENING + rest)
    if "subscriptionFilters" in last:
        raise ValueError("subscriptionFilters behind the log events, which may be in another region")
    yield _piece({**envelope, **last})
