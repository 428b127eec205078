"""One record, followed from its log group through the stream into the store."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from tagline import Record, write

from cli.stages import collected_groups
from cli.subscriptions import OWN_GROUPS
from cli.target import Target
from consumers.lines.subscription import pieces
from exporter.store import minute_of

TYPE = "doctor"
POLL_S = 1.0


@dataclass(frozen=True, slots=True)
class Hop:
    """A place on the record's way.

    Attributes:
        place: Where it has to come.
        seconds: How long after it was written it was found there; None if it was not, in the time to wait.
    """

    place: str
    seconds: float | None


def follow(target: Target, wait_s: float, sleep: Callable[[float], None] = time.sleep) -> Iterator[Hop]:
    """Write a record of the type `doctor` to a collected log group, and yield the places where it comes.

    The first place at which it does not come is the last one.

    Args:
        target: The pipeline.
        wait_s: How long to wait at most for it at each place, in seconds.
        sleep: Waits between two looks.
    """
    group = next((name for name in collected_groups(target) if not name.startswith(OWN_GROUPS)), None)
    if group is None:
        yield Hop("a log group that is collected", None)
        return
    began = time.monotonic()
    now = target.now()
    at_ms = int(now.timestamp() * 1000)
    identity = uuid4().hex
    line = write(Record(identity, at_ms, {"client": TYPE}, type=TYPE, tag=target.tag))
    logs = target.client("logs")
    log_stream = f"tagline-doctor/{identity}"
    logs.create_log_stream(logGroupName=group, logStreamName=log_stream)
    logs.put_log_events(
        logGroupName=group, logStreamName=log_stream, logEvents=[{"timestamp": at_ms, "message": line}]
    )
    yield Hop(f"log group {group}", time.monotonic() - began)
    reader = _Stream(target, now - timedelta(minutes=1))
    for place, has_come in (
        (f"stream {target.outputs['StreamName']}", lambda: reader.has(identity)),
        ("store", lambda: _is_stored(target, identity, now)),
    ):
        seconds = _waited(has_come, began, wait_s, sleep)
        yield Hop(place, seconds)
        if seconds is None:
            return


def _waited(
    has_come: Callable[[], bool], began: float, wait_s: float, sleep: Callable[[float], None]
) -> float | None:
    until = time.monotonic() + wait_s
    while not has_come():
        if time.monotonic() > until:
            return None
        sleep(POLL_S)
    return time.monotonic() - began


class _Stream:
    """What comes into the stream from a time on, each record read once."""

    def __init__(self, target: Target, since: datetime) -> None:
        self._kinesis = target.client("kinesis")
        name = target.outputs["StreamName"]
        self._iterators: dict[str, str | None] = {
            shard["ShardId"]: self._kinesis.get_shard_iterator(
                StreamName=name,
                ShardId=shard["ShardId"],
                ShardIteratorType="AT_TIMESTAMP",
                Timestamp=since,
            )["ShardIterator"]
            for shard in self._kinesis.list_shards(StreamName=name)["Shards"]
        }

    def has(self, identity: str) -> bool:
        """Read on, and tell whether a record's line is in what was read."""
        found = False
        for shard, iterator in self._iterators.items():
            if iterator is None:
                continue
            page = self._kinesis.get_records(ShardIterator=iterator)
            self._iterators[shard] = page.get("NextShardIterator")
            found = found or any(
                identity in str(event)
                for record in page["Records"]
                for piece in pieces(record["Data"])
                for event in piece.log_events
            )
        return found


def _is_stored(target: Target, identity: str, at: datetime) -> bool:
    store, day = target.store(), at.astimezone(UTC).date()
    columns = tuple(column for column in store.columns(day) if column.name == "_id")
    if not columns:  # The first row of a table makes its columns.
        return False
    minute = minute_of(day, at.hour * 60 + at.minute)
    return any(identity in row for row in store.rows(minute, columns).rows)
