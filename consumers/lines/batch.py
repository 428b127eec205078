"""A Kinesis batch read line by line: decode -> extract; everything else is counted in the ledger."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

from isal import isal_zlib
from tagline import Record

from consumers.lines.extract import Rejected, has_unread_time, parse_line, record_of
from consumers.lines.ledger import Ledger
from consumers.lines.places import Place, qualify
from consumers.lines.subscription import LogEvent, Malformed, Piece, UndecodableError, log_event, pieces

# A line that waits for the store is compressed if it is longer than this.
LONG_LINE: Final = 32 * 1024
# Lines that are parsed at the same time have so many characters in all, unless it is a single line. What is
# parsed takes up to 30 times as much memory.
CHUNK_CHARACTERS: Final = 512 * 1024
# CloudWatch Logs takes no longer event; this is in characters, of which none has less than a byte.
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/cloudwatch_limits_cwl.html
MAX_LINE: Final = 1024 * 1024


class Line:
    """A line with a record: its log event, and the position in the batch of its Kinesis record.

    The event and the record are made on access. Not a dataclass and without a constructor, because calling
    either takes longer than setting the attributes.

    Attributes:
        position: The position of its Kinesis record.
        raw: The log event as the envelope has it.
        origin: Log group, qualified, log stream and owner.
        fields: The line's object, until the record is made of it.
        unread_time: Whether the line has a `timestamp` that cannot be read; known with `record`.
    """

    __slots__ = ("_packed", "_record", "fields", "origin", "position", "raw", "unread_time")

    position: int
    raw: dict[str, Any]
    origin: tuple[str, str, str]
    fields: dict[str, Any]
    unread_time: bool

    @property
    def event(self) -> LogEvent:
        """The log event, whose message is the line."""
        raw = self.raw
        message = raw["message"]
        if message is None:
            message = isal_zlib.decompress(self._packed).decode("utf-8", "surrogatepass")
        return LogEvent(raw["id"], raw["timestamp"], message, *self.origin)

    @property
    def record(self) -> Record:
        """The line's record."""
        try:
            return self._record
        except AttributeError:
            self.unread_time = has_unread_time(self.fields)
            self._record: Record = record_of(self.fields, self.event)
            return self._record

    def forget(self) -> None:
        """Drop all but the log event: what was parsed takes more memory than the text.

        A long text is compressed: thousands of lines wait for the store, and what a Kinesis record holds a
        thousand times its size of, compresses as well again.
        """
        self.fields = {}
        self._record = None  # type: ignore[assignment]  # it is not needed any more
        message = self.raw["message"]
        if len(message) > LONG_LINE:
            self._packed = isal_zlib.compress(message.encode("utf-8", "surrogatepass"), 1)
            self.raw = {**self.raw, "message": None}


TOO_LONG: Final = Rejected(
    "unparseable", f"longer than {MAX_LINE:,} characters, which CloudWatch Logs never sends"
)


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
        if ledger.failed is not None and ledger.is_given_up(position):
            return  # It is delivered again, and all that follow.


def take_lines(lines: Iterator[Line], count: int) -> list[Line]:
    """Return the next lines: so many, or fewer if they are long."""
    taken: list[Line] = []
    room = CHUNK_CHARACTERS
    for line in islice(lines, count):
        taken.append(line)
        room -= len(line.raw["message"])
        if room <= 0:
            break
    return taken


def read_pieces(
    ledger: Ledger, position: int, own_log_groups: str, undecodable: str = "undecodable"
) -> Iterator[Piece]:
    """Yield the log events of a Kinesis record piece by piece; one that is not an envelope is rejected.

    The names of log groups that are elsewhere than the ledger are qualified.

    Args:
        ledger: The batch's ledger.
        position: The Kinesis record's position in the batch.
        own_log_groups: How the names of the pipeline's own log groups begin; their lines are dropped.
        undecodable: The reason of Kinesis records that are not an envelope.
    """
    try:
        envelope = pieces(ledger.records[position]["kinesis"].get("data"))
    except UndecodableError as error:
        ledger.reject(position, None, Rejected(undecodable, str(error)))
        return
    for piece in envelope:
        if own_log_groups and piece.log_group.startswith(own_log_groups):
            ledger.recursion += len(piece.log_events)
            continue
        source = qualify(piece.log_group, Place(piece.owner, piece.region), ledger.place)
        yield piece if source == piece.log_group else piece._replace(log_group=source)
        ledger.limit_memory(position, undecodable)
        if ledger.is_given_up(position):
            return


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
        line = parse_line(message, tag, prefix) if len(message) <= MAX_LINE else TOO_LONG
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
