"""Batches of lines, taken by what the consumer does around its store."""

from collections.abc import Iterator
from typing import Any

from tagline import Record, write

from consumers.accounts import accounting
from consumers.lines.batch import Line, tagged_lines
from consumers.lines.ledger import Ledger
from tests.builders import GROUP, LOGGED, envelope
from tests.twins import Objects

TAG = "usage_record"


def line(seq: int | None, *, src: str | None = "s1", timestamp: int = LOGGED, **fields: Any) -> str:
    return write(Record(f"{src}-{seq}", timestamp, fields, src=src, seq=seq))


def written(*lines: tuple[str, int], group: str = GROUP) -> dict[str, Any]:
    """Return the envelope of lines, each with the time at which it was written."""
    said = envelope(*(text for text, _ in lines), group=group)
    for event, (_, time) in zip(said["logEvents"], lines, strict=True):
        event["timestamp"] = time
    return said


def lines_of(ledger: Ledger) -> Iterator[Line]:
    return tagged_lines(ledger, TAG, "")


def note(batch: accounting.BatchAccounts, said: Line) -> None:
    record = said.record
    batch.add(said.position, said.origin[0], said.event.timestamp, record.src, record.seq)


def consume(event: dict[str, Any], objects: Objects, *, failing: int | None = None) -> Ledger:
    """Do with a batch what the handler does around its store, which takes everything."""
    ledger, batch = Ledger(event["Records"]), accounting.BatchAccounts(TAG)
    for each in lines_of(ledger):
        note(batch, each)
    if failing is not None:
        ledger.fail(failing)
    ledger.keep(objects)
    accounting.write(batch, ledger, objects)
    return ledger
