"""What was rejected, given up or never delivered, as Kinesis events for a consumer: pure.

A replay calls the consumer's own function with events made here: the deployed code decodes, maps, writes
and rejects as it does with what comes from the stream. What makes it safe to do again, from anywhere:

- Lines keep CloudWatch's event ids, so a record without an `_id` is the same record, at the same point.
- A Kinesis record made here is named after what it was made of (`eventID`), so whatever is rejected once more
  is written to the same object each time, and never over an object that holds something else.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from consumers.errors import TaglineError
from consumers.lines import quarantine
from consumers.lines.batch import tagged_lines
from consumers.lines.ledger import Ledger
from consumers.lines.places import place_of_arn
from consumers.lines.subscription import LogEvent, encode
from consumers.meters.meter import read_units

# A function that is called takes at most 6 MB; what is left out is room for the names around the records.
# https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
MAX_EVENT_BYTES = 6_000_000
# Messages of one envelope: in base64 they fit into an event even if gzip makes nothing of them shorter.
MAX_ENVELOPE_BYTES = 4_000_000

KinesisRecord = dict[str, Any]


class UnreadableSourceError(TaglineError, ValueError):
    """What is to be replayed cannot be read; the message has the reason."""


class FailedError(TaglineError):
    """A function was called and failed: it raised, or ran out of time or memory."""


class BusyError(TaglineError):
    """A function could not be called, or its answer was lost; calling it again can help."""


@dataclass(frozen=True, slots=True)
class FailedBatch:
    """A batch that a function failed on to the end.

    Attributes:
        function: The function's name.
        records: The batch's Kinesis records, as they were delivered.
    """

    function: str
    records: list[KinesisRecord]


def from_quarantine(key: str, body: bytes) -> list[KinesisRecord]:
    """Return an object of quarantine as Kinesis records.

    Args:
        key: The object's key. The records are named after it: `<original record>.<digest of the key>-<n>`.
        body: The object.

    Raises:
        consumers.lines.quarantine.UnreadableQuarantineError: If a consumer has not written it.
    """
    where = quarantine.parse_key(key)
    name = f"{where.name.partition('.')[0]}.{_digest(key)}"
    records: list[KinesisRecord] = []
    for kept in _enveloped(body):
        first = kept[0]
        arrived = first.arrived
        if arrived is None:  # Midnight leaves the day in the key as it is.
            arrived = float((where.day.toordinal() - 719_163) * 86_400)
        data = first.data
        if data is None:
            events = [line.event for line in kept if line.event is not None]
            data = _envelope(events)
        event_id = f"{name}-{len(records)}"
        records.append(_record(event_id, first.sequence_number, data, arrived, first.stream))
    return records


def from_failed_batch(body: bytes) -> FailedBatch:
    """Return what Lambda has put into a bucket when it gave a batch up.

    Args:
        body: The object: the invocation's description, with the event as text in `payload`.
            https://docs.aws.amazon.com/lambda/latest/dg/kinesis-on-failure-destination.html

    Raises:
        UnreadableSourceError: If it is not a failed batch, or has no payload (only a bucket gets one).
    """
    try:
        document = json.loads(body)
        arn = document["requestContext"]["functionArn"]
        payload = document["payload"]
        records = json.loads(payload)["Records"]
        function = arn.split(":")[6]  # What follows it is a version.
        for record in records:
            quarantine.object_key("", record)
            str(record["kinesis"]["sequenceNumber"] + record["kinesis"]["data"])
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise UnreadableSourceError(
            f"not a batch that Lambda gave up: {type(error).__name__}: {error}"
        ) from None
    return FailedBatch(function, records)


def from_log_event(event: LogEvent, ingested: int, arn: str) -> KinesisRecord:
    """Return a line of a log group as a separate Kinesis record, named after it.

    A record for each line costs some hundred bytes a line, and buys that a line that is rejected is kept
    under the same name, whatever else was read with it.

    Args:
        event: The line.
        ingested: When CloudWatch took it in, in milliseconds since 1970: the day of its quarantine.
        arn: The log group's ARN, which is kept in quarantine as where the line came from.
    """
    name = f"logs-{_digest(event.log_group)}-{event.id}"
    return _record(name, event.id, _envelope([event], place_of_arn(arn).region), ingested / 1000, arn)


def batches(records: Iterable[KinesisRecord]) -> Iterator[list[KinesisRecord]]:
    """Cut records into events of at most `MAX_EVENT_BYTES`, each in the order of its sequence numbers.

    Lambda's answer names the lowest sequence number that is to come again: order by place and order by number
    have to be the same.

    Raises:
        UnreadableSourceError: If a record alone is too large.
    """
    batch: list[KinesisRecord] = []
    size = 0
    for record in records:
        more = size_of(record)
        if more > MAX_EVENT_BYTES:
            raise UnreadableSourceError(
                f"{record['eventID']} has {more:,} bytes, more than the {MAX_EVENT_BYTES:,} of an event"
            )
        if batch and size + more > MAX_EVENT_BYTES:
            yield in_order(batch)
            batch, size = [], 0
        batch.append(record)
        size += more
    if batch:
        yield in_order(batch)


def size_of(record: KinesisRecord) -> int:
    """Return how many bytes of an event a record takes."""
    return len(json.dumps(record)) + 2  # ", " before the next one


def in_order(records: Iterable[KinesisRecord]) -> list[KinesisRecord]:
    """Return records in the order of their sequence numbers."""

    def number(record: KinesisRecord) -> tuple[int, str]:
        digits = str(record["kinesis"]["sequenceNumber"])
        return len(digits), digits

    return sorted(records, key=number)


def unwritten(answer: Any, records: Sequence[KinesisRecord]) -> list[KinesisRecord]:
    """Return the records of an event that have to be sent again, by the function's answer.

    From the lowest that the answer names to the last; all of them where it names one that was not sent.
    https://docs.aws.amazon.com/lambda/latest/dg/services-kinesis-batchfailurereporting.html
    """
    failures = answer.get("batchItemFailures") if isinstance(answer, dict) else None
    if not failures:
        return []
    numbers = [str(record["kinesis"]["sequenceNumber"]) for record in records]
    named = [str(failure.get("itemIdentifier")) for failure in failures]
    lowest = min(numbers.index(number) if number in numbers else 0 for number in named)
    return list(records[lowest:])


def preview(
    records: list[KinesisRecord], tag: str, own_log_groups: str, *, meter_tag: str = "", prefix: str = ""
) -> Counter[str]:
    """Count what the decoder makes of records, without storing anything.

    Args:
        records: The Kinesis records.
        tag: The token that marks a line.
        own_log_groups: How the names of the pipeline's own log groups begin.
        meter_tag: The token before a meter record, for what the meter consumer gets.
        prefix: The setting TAGLINE_PREFIX.

    Returns:
        `readable` lines, which the store may still refuse; by its reason what would be rejected again; lines
        that only `mentioned` the tag or are `ignored`, and those that are dropped as `recursion`.
    """
    ledger = Ledger(records)
    if meter_tag:
        units = read_units(ledger, meter_tag, tag, own_log_groups, prefix)
        readable = sum(len(unit.meters) for unit in units)
    else:
        readable = sum(1 for _ in tagged_lines(ledger, tag, own_log_groups, prefix))
    ledger.keep(_Nowhere())
    counts = {
        "readable": readable,
        "mentioned": ledger.mentioned.total(),
        "ignored": ledger.ignored,
        "recursion": ledger.recursion,
    }
    return Counter({name: count for name, count in counts.items() if count}) + ledger.quarantined


def send(
    records: list[KinesisRecord], invoke: Callable[[list[KinesisRecord]], Any], wait: Callable[[int], None]
) -> list[KinesisRecord]:
    """Give records to a function until it has taken them, and return those that fail on their own.

    What the function leaves unwritten is given to it again. Where it fails as a whole, the halves are tried:
    one bad record costs one record.

    Args:
        records: One event's.
        invoke: Calls the function with records and returns its answer; FailedError where it fails.
        wait: Is called before a further try that follows one without any progress, with how many of those
            there were in a row; raises what ends the replay.
    """
    pending = records
    fruitless = 0
    while pending:
        try:
            left = unwritten(invoke(pending), pending)
        except FailedError:
            if len(pending) == 1:
                return pending
            middle = len(pending) // 2
            return send(pending[:middle], invoke, wait) + send(pending[middle:], invoke, wait)
        except BusyError:
            left = pending
        fruitless = fruitless + 1 if len(left) == len(pending) else 0
        pending = left
        if fruitless:
            wait(fruitless)
    return []


class _Nowhere:
    """A bucket that keeps nothing."""

    def write(self, key: str, body: bytes) -> None:
        """Drop an object."""


def _enveloped(body: bytes) -> Iterator[list[quarantine.Kept]]:
    """Yield the lines of an object, those together that fit one envelope."""
    together: list[quarantine.Kept] = []
    size = 0
    for kept in quarantine.read(body):
        if kept.event is None:
            yield [kept]
            continue
        more = len(json.dumps(kept.event.message))
        if together and (size + more > MAX_ENVELOPE_BYTES or _origin(kept) != _origin(together[0])):
            yield together
            together, size = [], 0
        together.append(kept)
        size += more
    if together:
        yield together


def _origin(kept: quarantine.Kept) -> tuple[str, ...]:
    event = kept.event
    assert event is not None
    return kept.sequence_number, event.owner, event.log_group, event.log_stream


def _envelope(events: Sequence[LogEvent], region: str = "") -> str:
    first = events[0]
    # Quarantine keeps the region in the log group's name.
    name = f"tagline replay@{region}" if region else "tagline replay"
    envelope = {
        "messageType": "DATA_MESSAGE",
        "owner": first.owner,
        "logGroup": first.log_group,
        "logStream": first.log_stream,
        "subscriptionFilters": [name],
        "logEvents": [
            {"id": event.id or _made_up(event), "timestamp": event.timestamp, "message": event.message}
            for event in events
        ],
    }
    return base64.b64encode(encode(envelope)).decode()


def _record(event_id: str, sequence_number: str, data: str, arrived: float, stream: str) -> KinesisRecord:
    """Return a record as it stands in Lambda's event.

    https://docs.aws.amazon.com/lambda/latest/dg/with-kinesis.html
    """
    return {
        "kinesis": {
            "kinesisSchemaVersion": "1.0",
            "partitionKey": "replay",
            "sequenceNumber": sequence_number,
            "data": data,
            "approximateArrivalTimestamp": arrived,
        },
        "eventSource": "aws:kinesis",
        "eventVersion": "1.0",
        "eventID": event_id,
        "eventName": "aws:kinesis:record",
        "invokeIdentityArn": "",
        "awsRegion": (stream.split(":") + [""] * 4)[3],
        "eventSourceARN": stream,
    }


def _made_up(event: LogEvent) -> str:
    """Return an id for a malformed event without one: an empty one would be taken for CloudWatch's own."""
    return f"malformed-{_digest(json.dumps([event.log_group, event.timestamp, event.message]))}"


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
