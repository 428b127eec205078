"""A Kinesis batch read line by line: decode -> extract, with an entry in the books for everything else."""

from __future__ import annotations

from collections.abc import Iterator
from gc import is_tracked
from typing import Any, Final

import orjson
from tagline import Record

from consumers.lines.extract import MAX_DEPTH, Rejected, is_deep, read_line, record_of
from consumers.lines.ledger import Ledger
from consumers.lines.subscription import LogEvent, Malformed, Piece, UndecodableError, log_event, pieces

# What is left of the invocation when nothing more is begun, in seconds.
RESERVE: Final = 2.0
# The same for what is quarantined, which comes last: the answer and the accounts take less.
LAST: Final = 1.0
# Waits between tries: a random part of a ceiling that doubles from the first to the second, in seconds.
# https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
FIRST_WAIT: Final = 0.05
LONGEST_WAIT: Final = 5.0


class Line:
    """A record, with the log event that said it and the place in the batch of its Kinesis record.

    Both are made when asked for. No dataclass and no constructor, because calling either takes longer than
    setting the attributes, and each line is paid for.

    Attributes:
        position: The place of its Kinesis record.
        raw: The log event as the envelope has it.
        origin: Log group, log stream and owner.
        said: The line's object, as long as nobody has asked for the record.
    """

    __slots__ = ("_record", "origin", "position", "raw", "said")

    position: int
    raw: dict[str, Any]
    origin: tuple[str, str, str]
    said: dict[str, Any]

    @property
    def event(self) -> LogEvent:
        """The log event, whose message is the line."""
        raw = self.raw
        return LogEvent(raw["id"], raw["timestamp"], raw["message"], *self.origin)

    @property
    def record(self) -> Record:
        """What the line says."""
        try:
            return self._record
        except AttributeError:
            self._record: Record = record_of(self.said, self.event)
            return self._record

    def forget(self) -> None:
        """Keep the log event alone: what was read of it takes more memory than its text."""
        self.said = {}
        self._record = None  # type: ignore[assignment]  # nobody asks for it any more


def tagged_lines(ledger: Ledger, tag: str, own_log_groups: str) -> Iterator[Line]:
    """Yield the records of a batch in stream order; what cannot be read is rejected in the ledger.

    What is in memory at a time is one piece of one Kinesis record, as long as no lines are kept.

    Args:
        ledger: The batch's books.
        tag: The token that marks a line.
        own_log_groups: How the names of the pipeline's own log groups begin. Their lines are dropped: storing
            them would write more of them, without end.
    """
    for position in range(len(ledger.records)):
        for piece in read_pieces(ledger, position, own_log_groups):
            yield from _lines(ledger, tag, position, piece)


def read_pieces(
    ledger: Ledger, position: int, own_log_groups: str, undecodable: str = "undecodable"
) -> Iterator[Piece]:
    """Yield the log events of a Kinesis record piece by piece; one that is no envelope is rejected.

    Args:
        ledger: The batch's books.
        position: The Kinesis record's place in the batch.
        own_log_groups: How the names of the pipeline's own log groups begin; their lines are dropped.
        undecodable: The reason of Kinesis records that are no envelope.
    """
    try:
        envelope = pieces(ledger.records[position]["kinesis"]["data"])
    except UndecodableError as error:
        ledger.reject(position, None, Rejected(undecodable, str(error)))
        return
    for piece in envelope:
        if own_log_groups and piece.log_group.startswith(own_log_groups):
            ledger.recursion += len(piece.log_events)
        else:
            yield piece


def _lines(ledger: Ledger, tag: str, position: int, piece: Piece) -> Iterator[Line]:
    """Yield the records of a piece: the emitter's own lines at once, all others by way of `read_line`.

    Both read a line alike, but this is paid for by every log event there is.
    """
    origin, log_events = piece[:3], piece.log_events
    loads = orjson.loads
    try:
        candidates = [raw for raw in log_events if raw["message"].find(tag) >= 0 or not raw["id"]]
    except (TypeError, LookupError, AttributeError):
        candidates = [raw for raw in log_events if not _is_ordinary(raw, tag)]
    ledger.ignored += len(log_events) - len(candidates)
    for raw in candidates:
        try:
            identity, message = raw["id"], raw["message"]
            if not identity or not (
                identity.__class__ is message.__class__ is str and raw["timestamp"].__class__ is int
            ):
                raise TypeError  # noqa: TRY301 - one way out, to where odd events are looked at
        except (TypeError, LookupError):
            _enter_odd(ledger, tag, position, log_event(raw, piece))
            continue
        try:
            line = loads(message)
            name, kind = line["_id"], line["_type"]
            if not (
                line["_tag"] == tag
                and name.__class__ is kind.__class__ is str
                and name
                and kind
                # Only a dict that holds other containers is looked after by the garbage collector.
                and not (is_tracked(line) and _may_be_deep(message) and is_deep(line))
            ):
                line = read_line(message, tag)
        except (ValueError, TypeError, LookupError):
            line = read_line(message, tag)
        if line is None:
            ledger.ignored += 1
            continue
        ledger.received += 1
        if line.__class__ is Rejected:
            ledger.reject(position, LogEvent(identity, raw["timestamp"], message, *origin), line)
        else:
            made = Line()
            made.position, made.raw, made.origin, made.said = position, raw, origin, line
            yield made


def _may_be_deep(message: str) -> bool:
    """Tell whether a text has brackets enough for it, sooner than `is_deep` can look at all values."""
    return message.count("{") + message.count("[") > MAX_DEPTH


def _is_ordinary(raw: Any, tag: str) -> bool:
    """Tell whether something is a log event without the tag, however odd its neighbours are."""
    message = raw.get("message") if isinstance(raw, dict) else None
    return isinstance(message, str) and tag not in message and bool(raw.get("id"))


def _enter_odd(ledger: Ledger, tag: str, position: int, read: LogEvent | Malformed | None) -> None:
    """Enter what is no usual log event: a message of CloudWatch's own, or a malformed one."""
    if read is None:
        ledger.control += 1
    elif isinstance(read, LogEvent) or tag not in read.event.message:
        ledger.ignored += 1
    else:
        ledger.reject(position, read.event, Rejected("undecodable", read.problem))
