"""A Kinesis batch read line by line: decode -> extract, with an entry in the books for everything else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tagline import Record

from consumers.extract import Rejected, read_line, record_of
from consumers.ledger import Ledger
from consumers.subscription import LogEvent, Malformed, Piece, UndecodableError, log_event, pieces


class Line:
    """A record, with the log event that said it and the place in the batch of its Kinesis record.

    No dataclass, because a frozen one takes four times as long to make.
    """

    __slots__ = ("_line", "_record", "_tag", "event", "position")

    def __init__(self, position: int, event: LogEvent, line: dict[str, Any], tag: str) -> None:
        self.position = position
        self.event = event
        self._line = line
        self._tag = tag

    @property
    def record(self) -> Record:
        """What the line says; made when it is first asked for."""
        try:
            return self._record
        except AttributeError:
            self._record: Record = record_of(self._line, self.event, self._tag)
            return self._record


def tagged_lines(ledger: Ledger, tag: str, own_log_groups: str) -> Iterator[Line]:
    """Yield the records of a batch in stream order; what cannot be read is rejected in the ledger.

    What is in memory at a time is one piece of one Kinesis record, as long as no lines are kept.

    Args:
        ledger: The batch's books.
        tag: The token that marks a line.
        own_log_groups: How the names of the pipeline's own log groups begin. Their lines are dropped: storing
            them would write more of them, without end.
    """
    for position, record in enumerate(ledger.records):
        try:
            envelope = pieces(record["kinesis"]["data"])
        except UndecodableError as error:
            ledger.reject(position, None, Rejected("undecodable", str(error)))
            continue
        for piece in envelope:
            if own_log_groups and piece.log_group.startswith(own_log_groups):
                ledger.recursion += len(piece.log_events)
            else:
                yield from _lines(ledger, tag, position, piece)


def _lines(ledger: Ledger, tag: str, position: int, piece: Piece) -> Iterator[Line]:
    """Yield the records of a piece. Every statement here is paid for by each log event."""
    log_group, log_stream, owner, log_events = piece
    for raw in log_events:
        try:
            message = raw["message"]
            if tag not in message and raw["id"] and message.__class__ is str:
                ledger.ignored += 1
                continue
            identity, timestamp = raw["id"], raw["timestamp"]
            if not identity or not (
                identity.__class__ is message.__class__ is str and timestamp.__class__ is int
            ):
                raise TypeError  # noqa: TRY301 - one way out, to where odd events are looked at
        except (TypeError, LookupError):
            _enter_odd(ledger, tag, position, log_event(raw, piece))
            continue
        line = read_line(message, tag)
        if line is None:
            ledger.ignored += 1
            continue
        ledger.received += 1
        # What LogEvent(...) does, without its arguments being named first.
        event = tuple.__new__(LogEvent, (identity, timestamp, message, log_group, log_stream, owner))
        if isinstance(line, dict):
            yield Line(position, event, line, tag)
        else:
            ledger.reject(position, event, line)


def _enter_odd(ledger: Ledger, tag: str, position: int, read: LogEvent | Malformed | None) -> None:
    """Enter what is no usual log event: a message of CloudWatch's own, or a malformed one."""
    if read is None:
        ledger.control += 1
    elif isinstance(read, LogEvent) or tag not in read.event.message:
        ledger.ignored += 1
    else:
        ledger.reject(position, read.event, Rejected("undecodable", read.problem))
