"""A log event becomes a meter record, nothing of ours, or a rejection; records become an ingest file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, TypeGuard

from tagline import Record

from consumers.lines.batch import read_pieces
from consumers.lines.extract import Rejected, extract, find_object
from consumers.lines.ledger import Ledger
from consumers.lines.subscription import LogEvent, Malformed, log_event
from consumers.meters.javascript import stringify

TYPE: Final = "meter"
"""The type of tagged records that are meter records as well."""

# The ingest's own limits are not published. These are ours: what is beyond them is a mistake.
MAX_TEXT: Final = 1_024
MAX_DIMENSIONS: Final = 100
# Milliseconds of 2000-01-01 and 2100-01-01: seconds lie before, microseconds after.
FIRST_TIME, END_OF_TIME = 946_684_800_000, 4_102_444_800_000

# The meter records of one Kinesis record become one file. Those of several are in memory at the same time.
MAX_UNIT_CHARACTERS: Final = 32 * 1024 * 1024

_FIELDS = ("meterApiName", "customerId", "meterTimeInMillis", "meterValue", "uniqueId", "dimensions")


@dataclass(frozen=True, slots=True)
class Entry:
    """What is sent of a log event: a valid meter record, or a document for a search index.

    Attributes:
        time: Its time, in milliseconds since 1970.
        text: The meter record as JSON, as JavaScript writes it; or the document's two lines.
    """

    time: int
    text: str


@dataclass(frozen=True, slots=True)
class Unit:
    """The meter records of one Kinesis record: what is written, or not, as one.

    Attributes:
        position: The Kinesis record's place in the batch.
        events: The log events, in their order.
        meters: Their texts, in the same order.
    """

    position: int
    events: list[LogEvent] = field(default_factory=list)
    meters: list[Entry] = field(default_factory=list)

    def name(self) -> str:
        """Return what tells it from other lists of records."""
        return file_name(self.meters, file_body(self.meters))

    def size(self) -> int:
        """Return how many characters its records have."""
        return sum(len(meter.text) for meter in self.meters)


ExtractEntry = Callable[[LogEvent], Entry | Rejected | None]
"""Returns the entry of a log event."""


def read_units(
    ledger: Ledger, meter_tag: str, tag: str, own_log_groups: str, prefix: str = ""
) -> Iterator[Unit]:
    """Yield the meter records of a batch, Kinesis record by Kinesis record; others are noted in the ledger.

    Args:
        ledger: The batch's ledger.
        meter_tag: The token that stands right before a meter record.
        tag: The token that marks the pipeline's own records.
        own_log_groups: How the names of the pipeline's own log groups begin; lines from there are dropped.
        prefix: The setting TAGLINE_PREFIX.
    """
    return units_of(
        ledger, lambda event: extract_meter(event, meter_tag, tag, prefix), meter_tag, own_log_groups
    )


def units_of(ledger: Ledger, extract_entry: ExtractEntry, mark: str, own_log_groups: str) -> Iterator[Unit]:
    """Yield the entries of a batch, Kinesis record by Kinesis record; others are noted in the ledger.

    A unit has the entries of one Kinesis record, and never of two: batches are cut otherwise when they are
    delivered again, halved or from another beginning, and a record must not come into a second file.

    Args:
        ledger: The batch's ledger.
        extract_entry: Returns the entry of a log event, why it has none, or None for any other line.
        mark: Any other line with this token is counted as one that mentions it.
        own_log_groups: How the names of the pipeline's own log groups begin; lines from there are dropped.
    """
    for position in range(len(ledger.records)):
        unit = Unit(position)
        for piece in read_pieces(ledger, position, own_log_groups, "meter_undecodable"):
            for raw in piece.log_events:
                read = log_event(raw, piece)
                if read is None:
                    ledger.control += 1
                else:
                    event = read.event if isinstance(read, Malformed) else read
                    found = extract_entry(event)
                    if found is None and mark in event.message:
                        ledger.mention(position, event.timestamp, event.log_group)
                    else:
                        _enter(ledger, unit, read, found)
            if unit.size() > MAX_UNIT_CHARACTERS:
                problem = f"more than {MAX_UNIT_CHARACTERS:,} characters of meter records"
                ledger.reject_whole(position, Rejected("meter_undecodable", problem))
        if ledger.is_given_up(position):
            if ledger.failed is not None:
                return  # It is delivered again, and all that follow.
        elif unit.meters:
            yield unit


def take_units(units: Iterator[Unit], count: int) -> list[Unit]:
    """Return the next units: so many, or fewer if they are large."""
    taken: list[Unit] = []
    room = MAX_UNIT_CHARACTERS
    for unit in units:
        taken.append(unit)
        room -= unit.size()
        if len(taken) == count or room <= 0:
            break
    return taken


def _enter(ledger: Ledger, unit: Unit, read: LogEvent | Malformed, found: Entry | Rejected | None) -> None:
    """Enter a log event into its unit if it is a meter record, and else into the ledger."""
    if found is None:
        ledger.ignored += 1
    elif isinstance(read, Malformed):
        ledger.reject(unit.position, read.event, Rejected("meter_undecodable", read.problem))
    else:
        ledger.received += 1
        if isinstance(found, Rejected):
            ledger.reject(unit.position, read, found)
        else:
            unit.events.append(read)
            unit.meters.append(found)


def extract_meter(event: LogEvent, meter_tag: str, tag: str, prefix: str = "") -> Entry | Rejected | None:
    """Return the meter record on a log event's line.

    Read are an object marked with the meter tag, at the places where the records' consumer reads one; and
    tagged records of the type `meter`, of which only a meter's own fields are taken. A record without a
    `uniqueId` gets the tagged record's `_id`, or CloudWatch's event id: the same in every delivery.

    Args:
        event: The log event.
        meter_tag: The token that stands right before a meter record.
        tag: The token that marks the pipeline's own records.
        prefix: The setting TAGLINE_PREFIX.

    Returns:
        The record; None for any other line, also for a tagged line that cannot be read, which the records'
        consumer keeps; a rejection with reason `meter_unparseable`, `meter_prefix` or `meter_invalid`.
    """
    message = event.message
    said = find_object(message, meter_tag, prefix, _decode) if meter_tag in message else None
    if isinstance(said, Rejected):
        if said.reason == "prefix":
            return Rejected("meter_prefix", said.detail)
        return Rejected("meter_unparseable", said.detail)
    if said is not None:
        del said["_tag"]
    elif TYPE in message and tag in message:
        said = _of_record(extract(event, tag, prefix))
    if said is None:
        return None
    said.setdefault("uniqueId", event.id)
    try:
        return Entry(_checked(said), stringify(said))
    except ValueError as error:
        return Rejected("meter_invalid", str(error))


def file_body(meters: Sequence[Entry]) -> bytes:
    """Return an ingest file: the records as one JSON array, in their order."""
    return f"[{','.join(meter.text for meter in meters)}]".encode()


def file_name(meters: Sequence[Entry], body: bytes) -> str:
    """Return an ingest file's name: the day of its first record, and the SHA-1 of what is in it.

    Nothing but the content decides, so that the same list has the same name on whatever day it comes again.
    """
    day = datetime.fromtimestamp(meters[0].time / 1000, UTC)
    return f"{day:%Y-%m-%d}/{hashlib.sha1(body, usedforsecurity=False).hexdigest()}.json"


def _of_record(record: Record | Rejected | None) -> dict[str, Any] | None:
    if not isinstance(record, Record) or record.type != TYPE:
        return None
    said = {**record.fields}
    said.setdefault("meterTimeInMillis", record.timestamp)
    said.setdefault("uniqueId", record.id)
    return {name: said[name] for name in _FIELDS if name in said}


def _checked(said: dict[str, Any]) -> int:
    """Return a meter record's time.

    Raises:
        ValueError: If the record is not valid; the message names the field, its value and what is allowed.
    """
    for name in ("meterApiName", "customerId", "uniqueId"):
        _check_text(name, said)
    time, value = said.get("meterTimeInMillis"), said.get("meterValue")
    if not _is_number(time) or time != int(time) or not FIRST_TIME <= time < END_OF_TIME:
        raise ValueError(
            f"meterTimeInMillis is {_shown(said, 'meterTimeInMillis')}, not whole milliseconds from"
            f" {FIRST_TIME} (2000) to {END_OF_TIME} (2100)"
        )
    if not _is_number(value):
        raise ValueError(f"meterValue is {_shown(said, 'meterValue')}, not a number")
    _check_dimensions(said)
    return int(time)


def _check_dimensions(said: dict[str, Any]) -> None:
    dimensions = said.get("dimensions", {})
    if not isinstance(dimensions, dict) or len(dimensions) > MAX_DIMENSIONS:
        shown = f"{len(dimensions)} entries" if isinstance(dimensions, dict) else _shown(said, "dimensions")
        raise ValueError(f"dimensions is {shown}, not an object of at most {MAX_DIMENSIONS}")
    for name in dimensions:
        if not 0 < len(name) <= MAX_TEXT:
            raise ValueError(f"a dimension's name has {len(name)} characters, not 1 to {MAX_TEXT}")
        _check_text(name, dimensions, f"dimensions.{name[:80]}", least=0)


def _check_text(key: str, said: dict[str, Any], name: str = "", least: int = 1) -> None:
    value = said.get(key)
    if not isinstance(value, str) or not least <= len(value.strip()) <= len(value) <= MAX_TEXT:
        raise ValueError(
            f"{name or key} is {_shown(said, key)}, not a text of {least} to {MAX_TEXT} characters"
        )


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) != float("inf")


def _shown(said: dict[str, Any], key: str) -> str:
    """Return a value's text for an error message, cut if it is long."""
    if key not in said:
        return "missing"
    value = said[key]
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:80]}... ({len(text)} characters)"  # noqa: PLR2004 - a line's width


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")  # Python reads NaN and Infinity, JavaScript does not.


_decode = json.JSONDecoder(parse_constant=_no_constant).raw_decode
