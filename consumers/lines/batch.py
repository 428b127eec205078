"""A Kinesis batch read line by line: decode -> extract; everything else is counted in the ledger."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tagline import Record

from consumers.lines.extract import Rejected, parse_line, record_of
from consumers.lines.ledger import Ledger
from consumers.lines.subscription import LogEvent, Malformed, Piece, UndecodableError, log_event, pieces


class Line:
    """A line with a record: its log event, and the position in the batch of its Kinesis record.

    The event and the record are made on access. Not a dataclass and without a constructor, because calling
    either takes longer than setting the attributes.

    Attributes:
        position: The position of its Kinesis record.
        raw: The log event as the envelope has it.
        origin: Log group, log stream and owner.
        fields: The line's object, until the record is made of it.
    """

    __slots__ = ("_record", "fields", "origin", "position", "raw")

    position: int
    raw: dict[str, Any]
    origin: tuple[str, str, str]
    fields: dict[str, Any]

    @property
    def event(self) -> LogEvent:
        """The log event, whose message is the line."""
        raw = self.raw
        return LogEvent(raw["id"], raw["timestamp"], raw["message"], *self.origin)

    @property
    def record(self) -> Record:
        """The line's record."""
        try:
            return self._record
        except AttributeError:
            self._record: Record = record_of(self.fields, self.event)
            return self._record

    def forget(self) -> None:
        """Drop all but the log event: what was parsed takes more memory than the text."""
        self.fields = {}
        self._record = None  # type: ignore[assignment]  # it is not needed any more


def tagged_lines(ledger: Ledger, tag: str, own_log_groups: str, prefix: str = "") -> Iterator[Line]:
    """Yield the records of a batch in stream order; what cannot be read is rejected in the ledger.

    One piece of one Kinesis record is in memory at a time, if the caller keeps no lines.

    Args:
        ledger: The batch's ledger.
        tag: The token that marks a line.
        own_log_groups: How the names of the pipeline's own log groups begin. Their lines are dropped: storing
            them would write more of them, without end.
        prefix: The setting TAGLINE_PREFIX.
    """
    for position in range(len(ledger.records)):
        for piece in read_pieces(ledger, position, own_log_groups):
            yield from _lines(ledger, tag, prefix, position, piece)


def read_pieces(
    ledger: Ledger, position: int, own_log_groups: str, undecodable: str = "undecodable"
) -> Iterator[Piece]:
    """Yield the log events of a Kinesis record piece by piece; one that is not an envelope is rejected.

    Args:
        ledger: The batch's ledger.
        position: The Kinesis record's position in the batch.
        own_log_groups: How the names of the pipeline's own log groups begin; their lines are dropped.
        undecodable: The reason of Kinesis records that are not an envelope.
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


def _lines(ledger: Ledger, tag: str, prefix: str, position: int, piece: Piece) -> Iterator[Line]:
    """Yield the records of a piece."""
    origin, log_events = piece[:3], piece.log_events
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
            _count_unusual(ledger, tag, position, log_event(raw, piece))
            continue
        line = parse_line(message, tag, prefix)
        if line is None:
            ledger.mention(position, raw["timestamp"], piece.log_group)
            continue
        ledger.received += 1
        if isinstance(line, Rejected):
            ledger.reject(position, LogEvent(identity, raw["timestamp"], message, *origin), line)
        else:
            made = Line()
            made.position, made.raw, made.origin, made.fields = position, raw, origin, line
            yield made


def _is_ordinary(raw: Any, tag: str) -> bool:
    """Tell whether something is a log event without the tag, however odd its neighbours are."""
    message = raw.get("message") if isinstance(raw, dict) else None
    return isinstance(message, str) and tag not in message and bool(raw.get("id"))


def _count_unusual(ledger: Ledger, tag: str, position: int, read: LogEvent | Malformed | None) -> None:
    """Count a log event that is not a usual one: CloudWatch's own message, or malformed."""
    if read is None:
        ledger.control += 1
    elif isinstance(read, LogEvent) or tag not in read.event.message:
        ledger.ignored += 1
    else:
        ledger.reject(position, read.event, Rejected("undecodable", read.problem))
