"""What each stage of the pipeline has, counted at that stage; the store counts its own rows."""

from __future__ import annotations

import csv
import io
import sys
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import tagline

from cli.target import Target
from consumers.lines import quarantine
from consumers.lines.extract import extract
from consumers.lines.subscription import LogEvent, log_event, pieces
from exporter.lake import manifest as archive
from exporter.lake.manifest import Manifest
from exporter.store import Days


@dataclass(frozen=True, slots=True)
class Count:
    """What a stage has.

    Attributes:
        records: How many.
        bytes: How much, as the stage keeps it.
    """

    records: int
    bytes: int


def emitted(target: Target) -> Count:
    """Count the lines of records, and the bytes of those that CloudWatch Logs has.

    An emitter numbers its lines from 0: its highest number tells how many it wrote, also if some are missing.
    Lines of other loggers have no numbers, and are counted one by one.
    """
    highest: dict[str | None, int] = {}
    unnumbered = size = 0
    for event in _logged(target):
        record = extract(LogEvent("-", 0, event, "", "", ""), tagline.DEFAULT_TAG)
        if not isinstance(record, tagline.Record):
            continue
        size += len(event)
        if record.seq is None:
            unnumbered += 1
        else:
            highest[record.src] = max(highest.get(record.src, -1), record.seq)
    return Count(sum(highest.values()) + len(highest) + unnumbered, size)


def delivered(target: Target) -> Count:
    """Count the tagged lines in the stream, and the bytes of the Kinesis records that hold them."""
    seen: set[str] = set()
    size = 0
    for data in streamed(target):
        size += len(data)
        events = [
            event
            for piece in pieces(data)
            for raw in piece.log_events
            if isinstance(event := log_event(raw, piece), LogEvent)
        ]
        seen.update(event.id for event in events if extract(event, tagline.DEFAULT_TAG) is not None)
    return Count(len(seen), size)


def quarantined(target: Target) -> dict[str, Count]:
    """Count the lines in quarantine, by the reason that their keys name."""
    bucket = target.bucket()
    counts: dict[str, Count] = {}
    for key in bucket.keys(quarantine.PREFIX):
        body = bucket.get(key) or b""
        reason = key.removeprefix(quarantine.PREFIX).partition("/")[0]
        before = counts.get(reason, Count(0, 0))
        counts[reason] = Count(before.records + body.count(b"\n"), before.bytes + len(body))
    return counts


def total(counts: Iterable[Count]) -> Count:
    """Return the sum of counts."""
    all_counts = list(counts)
    return Count(sum(each.records for each in all_counts), sum(each.bytes for each in all_counts))


def exported(target: Target, days: Days) -> Count:
    """Count the rows that the manifests of days name, and the bytes of their files."""
    bucket = target.bucket()
    records = size = 0
    for day in days:
        for key in bucket.keys(archive.folder(day)):
            if key.endswith(archive.MANIFEST) and (body := bucket.get(key)):
                manifest = Manifest.from_json(body)
                records += manifest.rows
                size += manifest.size
    return Count(records, size)


def downloaded(path: Path) -> Count:
    """Count the rows in a zip, read with the standard library, and its bytes."""
    csv.field_size_limit(sys.maxsize)  # the default is 128 KiB, and lines may be longer
    with zipfile.ZipFile(path) as zipped:
        names = [name for name in zipped.namelist() if name.endswith(".csv")]
        records = sum(
            1 for name in names for _ in csv.DictReader(io.TextIOWrapper(zipped.open(name), "utf-8"))
        )
    return Count(records, path.stat().st_size)


def collected_groups(target: Target) -> list[str]:
    """Return the log groups whose lines are collected: those that have a subscription into the stream."""
    logs = target.client("logs")
    pages = logs.get_paginator("describe_log_groups").paginate()
    names = [group["logGroupName"] for page in pages for group in page["logGroups"]]
    return [
        name for name in names if logs.describe_subscription_filters(logGroupName=name)["subscriptionFilters"]
    ]


def _logged(target: Target) -> Iterator[str]:
    paginator = target.client("logs").get_paginator("filter_log_events")
    for group in collected_groups(target):
        for page in paginator.paginate(logGroupName=group, filterPattern=f'"{tagline.DEFAULT_TAG}"'):
            yield from (event["message"] for event in page["events"])


def streamed(target: Target, since: datetime | None = None) -> Iterator[bytes]:
    """Yield the data of the stream's records, shard by shard: all, or those that came since a time."""
    kinesis = target.client("kinesis")
    stream = target.outputs["StreamName"]
    begin: dict[str, Any] = {"ShardIteratorType": "TRIM_HORIZON"}
    if since is not None:
        begin = {"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": since}
    for shard in kinesis.list_shards(StreamName=stream)["Shards"]:
        iterator = kinesis.get_shard_iterator(StreamName=stream, ShardId=shard["ShardId"], **begin)[
            "ShardIterator"
        ]
        while iterator:
            page = kinesis.get_records(ShardIterator=iterator)
            yield from (record["Data"] for record in page["Records"])
            iterator = page.get("NextShardIterator") if page["MillisBehindLatest"] else None
