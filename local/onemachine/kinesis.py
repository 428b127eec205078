"""Kinesis: moto's, made safe for several writers at once, and bounded.

moto numbers records without a lock (two writers can get one number, and one of their records is gone), reads
a shard from its first record each time, keeps records for ever, and counts only those that clients put.
"""

from __future__ import annotations

import threading
from itertools import takewhile
from typing import Any

from moto.core.utils import unix_time
from moto.kinesis.models import KinesisBackend, Record, Shard, Stream, kinesis_backends

from onemachine.faults import Kind
from onemachine.metrics import Metrics, Point
from onemachine.service import Client, ResourceType, Service
from onemachine.template.stack import Resource

# Sequence numbers of the service have 56 digits:
# https://docs.aws.amazon.com/kinesis/latest/APIReference/API_Record.html
FIRST_NUMBER = 49_590_338_271_490_256_608_559_692_538_361_571_095_921_575_989_136_588_898

# As a stream has it that nobody asked for more, in seconds.
# https://docs.aws.amazon.com/streams/latest/dev/kinesis-extended-retention.html
RETENTION_S = 24 * 3600
# What a shard keeps at most, in bytes; the service has no such limit, a machine does.
MAX_SHARD_BYTES = 128 * 1024 * 1024

_lock = threading.Lock()


def install() -> None:
    """Put this into moto. Doing it again changes nothing."""
    # moto looks these up when a call comes.
    methods = {
        "put_record": _put_record,
        "get_records": _get_records,
        "get_max_sequence_number": _last_number,
    }
    for name, method in methods.items():
        setattr(Shard, name, method)


_moto_put_record = Stream.put_record


def count_arrivals(metrics: Metrics) -> None:
    """Record the metric IncomingRecords of streams.

    https://docs.aws.amazon.com/streams/latest/dev/monitoring-with-cloudwatch.html

    Args:
        metrics: Takes it.
    """

    def put_record(stream: Any, *args: Any, **named: Any) -> tuple[str, str]:
        # Before the record is there: its reader may be quicker, and in the next minute.
        now_ms = metrics.clock() // 1_000_000
        done = _moto_put_record(stream, *args, **named)
        name = (("StreamName", stream.stream_name),)
        metrics.record(
            kinesis_backends[stream.account_id][stream.region],
            [Point("AWS/Kinesis", "IncomingRecords", name, now_ms, (1.0,), "Count")],
        )
        return done

    # moto's metrics are of the real time, and leave out what comes from log groups.
    for kind, name, method in (
        (KinesisBackend, "_send_stream_metrics", lambda *_args, **_named: None),
        (Stream, "put_record", put_record),
    ):
        setattr(kind, name, method)


def _put_record(shard: Any, partition_key: str, data: str, explicit_hash_key: str) -> str:
    with _lock:
        number = _last_number(shard) + 1
        record = Record(partition_key, data, number, explicit_hash_key)
        shard.records[number] = record
        shard.last_number = number
        shard.bytes = getattr(shard, "bytes", 0) + len(data)
        _trim(shard, record.created_at)
    return str(number)


def _get_records(shard: Any, after: str, limit: int | None) -> tuple[list[Record], int, int]:
    """Return the records after a number, the last one's number, and how far behind the last one is, in ms."""
    last = int(after)
    with _lock:
        newer = list(
            takewhile(lambda record: record.sequence_number > last, reversed(shard.records.values()))
        )
    newer.reverse()
    records = newer[:limit]
    if not records:
        return [], last, 0
    behind = newer[-1].created_at - records[-1].created_at if len(newer) > len(records) else 0.0
    # A reader that has not read the newest record is behind, even by less than a millisecond.
    milliseconds = max(1, int(behind * 1000)) if len(newer) > len(records) else 0
    return records, records[-1].sequence_number, milliseconds


def _last_number(shard: Any) -> int:
    return int(getattr(shard, "last_number", FIRST_NUMBER))


def _trim(shard: Any, now: float) -> None:
    while shard.records:
        oldest = next(iter(shard.records.values()))
        if shard.bytes <= MAX_SHARD_BYTES and now - unix_time(oldest.created_at_datetime) <= RETENTION_S:
            break
        shard.bytes -= len(oldest.data)
        del shard.records[oldest.sequence_number]


# https://docs.aws.amazon.com/kinesis/latest/APIReference/API_CreateStream.html
DEFAULT_RETENTION_HOURS = 24


def _create_stream(client: Client, resource: Resource) -> None:
    mode = resource.properties.get("StreamModeDetails", {"StreamMode": "PROVISIONED"})
    shards = resource.properties.get("ShardCount")
    kinesis = client("kinesis")
    kinesis.create_stream(
        StreamName=resource.name, StreamModeDetails=mode, **({"ShardCount": int(shards)} if shards else {})
    )
    hours = int(resource.properties.get("RetentionPeriodHours", DEFAULT_RETENTION_HOURS))
    if hours > DEFAULT_RETENTION_HOURS:
        kinesis.increase_stream_retention_period(StreamName=resource.name, RetentionPeriodHours=hours)


_STREAM = ResourceType(
    "AWS::Kinesis::Stream", "Name", arn="kinesis:{region}:{account}:stream/{name}", create=_create_stream
)
SERVICE = Service(
    "kinesis",
    (_STREAM,),
    install=lambda _: install(),
    errors={Kind.THROTTLE: ("400 Bad Request", "ProvisionedThroughputExceededException")},
)
