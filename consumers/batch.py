"""A Kinesis batch read line by line: decode -> extract, with an entry in the books for everything else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tagline import Record

from consumers.extract import Rejected, extract
from consumers.ledger import Ledger
from consumers.subscription import LogEvent, UndecodableError, decode


@dataclass(frozen=True, slots=True)
class Line:
    """A record, with the log event that said it and the place in the batch of its Kinesis record."""

    position: int
    event: LogEvent
    record: Record


def tagged_lines(ledger: Ledger, tag: str, own_log_groups: str) -> Iterator[Line]:
    """Yield the records of a batch in stream order; what cannot be read is rejected in the ledger.

    Args:
        ledger: The batch's books.
        tag: The token that marks a line.
        own_log_groups: How the names of the pipeline's own log groups begin. Their lines are dropped: storing
            them would write more of them, without end.
    """
    for position, record in enumerate(ledger.records):
        try:
            envelope = decode(record["kinesis"]["data"])
        except UndecodableError as error:
            ledger.reject(position, None, Rejected("undecodable", str(error)))
            continue
        ledger.control += envelope.control
        if own_log_groups and envelope.log_group.startswith(own_log_groups):
            ledger.recursion += len(envelope.events)
            continue
        for event in envelope.events:
            extracted = extract(event, tag)
            if extracted is None:
                ledger.ignored += 1
                continue
            ledger.received += 1
            if isinstance(extracted, Rejected):
                ledger.reject(position, event, extracted)
            else:
                yield Line(position, event, extracted)
