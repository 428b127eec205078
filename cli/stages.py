"""What each stage of the pipeline has, counted at that stage and nowhere else."""

from __future__ import annotations

import csv
import io
import sys
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import tagline

from cli.deployment import Deployment
from consumers import quarantine
from consumers.extract import extract
from consumers.subscription import LogEvent, decode
from exporter import archive
from exporter.archive import Manifest
from exporter.query import Days


@dataclass(frozen=True, slots=True)
class Count:
    """What a stage has.

    Attributes:
        records: How many.
        bytes: How much, as the stage keeps it.
    """

    records: int
    bytes: int


def emitted(deployment: Deployment) -> Count:
    """Count the lines of records, and the bytes of those that CloudWatch Logs has.

    An emitter numbers its lines from 0: its highest number tells how many it wrote, also if some are missing.
    Lines of other loggers have no numbers, and are counted one by one.
    """
    highest: dict[str | None, int] = {}
    unnumbered = size = 0
    for event in _logged(deployment):
        record = extract(LogEvent("-", 0, event, "", "", ""), tagline.DEFAULT_TAG)
        if not isinstance(record, tagline.Record):
            continue
        size += len(event)
        if record.seq is None:
            unnumbered += 1
        else:
            highest[record.src] = max(highest.get(record.src, -1), record.seq)
    return Count(sum(highest.values()) + len(highest) + unnumbered, size)


def delivered(deployment: Deployment) -> Count:
    """Count the tagged lines in the stream, and the bytes of the Kinesis records that hold them."""
    seen: set[str] = set()
    size = 0
    for data in _streamed(deployment):
        size += len(data)
        events = decode(data).events
        seen.update(event.id for event in events if extract(event, tagline.DEFAULT_TAG) is not None)
    return Count(len(seen), size)


def stored(deployment: Deployment) -> int:
    """Count the rows in the table."""
    return int(next(iter(ask(deployment, f"SELECT count(*) FROM {deployment.table}")[1]))[0] or 0)  # noqa: S608


def quarantined(deployment: Deployment) -> dict[str, Count]:
    """Count the lines in quarantine, by the reason that their keys name."""
    s3 = deployment.client("s3")
    counts: dict[str, Count] = {}
    for key in _keys(s3, deployment.outputs["Bucket"], quarantine.PREFIX):
        body = s3.get_object(Bucket=deployment.outputs["Bucket"], Key=key)["Body"].read()
        reason = key.removeprefix(quarantine.PREFIX).partition("/")[0]
        before = counts.get(reason, Count(0, 0))
        counts[reason] = Count(before.records + body.count(b"\n"), before.bytes + len(body))
    return counts


def total(counts: Iterable[Count]) -> Count:
    """Return the sum of counts."""
    all_counts = list(counts)
    return Count(sum(each.records for each in all_counts), sum(each.bytes for each in all_counts))


def exported(deployment: Deployment, days: Days) -> Count:
    """Count the rows that the manifests of days name, and the bytes of their files."""
    s3 = deployment.client("s3")
    bucket = deployment.outputs["Bucket"]
    records = size = 0
    for day in days:
        for key in _keys(s3, bucket, archive.folder(day)):
            if key.endswith(archive.MANIFEST):
                manifest = Manifest.from_json(s3.get_object(Bucket=bucket, Key=key)["Body"].read())
                records += manifest.rows
                size += manifest.size
    return Count(records, size)


def downloaded(path: Path) -> Count:
    """Count the rows in a zip, read with the standard library, and its bytes."""
    csv.field_size_limit(sys.maxsize)  # by itself 128 KiB, and lines may be longer
    with zipfile.ZipFile(path) as zipped:
        names = [name for name in zipped.namelist() if name.endswith(".csv")]
        records = sum(
            1 for name in names for _ in csv.DictReader(io.TextIOWrapper(zipped.open(name), "utf-8"))
        )
    return Count(records, path.stat().st_size)


def days_stored(deployment: Deployment) -> Days | None:
    """Return the days from the earliest row to the latest, or None where there is no row."""
    sql = f"SELECT min(time), max(time) FROM {deployment.table}"  # noqa: S608 - no value of a user's
    first, last = next(iter(ask(deployment, sql)[1]))
    if first is None or last is None:
        return None
    return Days(date.fromisoformat(first[:10]), date.fromisoformat(last[:10]))


def collected_groups(deployment: Deployment) -> list[str]:
    """Return the log groups whose lines are collected: those that have a subscription into the stream."""
    logs = deployment.client("logs")
    pages = logs.get_paginator("describe_log_groups").paginate()
    names = [group["logGroupName"] for page in pages for group in page["logGroups"]]
    return [
        name for name in names if logs.describe_subscription_filters(logGroupName=name)["subscriptionFilters"]
    ]


def ask(deployment: Deployment, sql: str) -> tuple[list[str], Iterator[list[str | None]]]:
    """Ask the store a question: the columns' names, and the rows, which are read as they are used."""
    pages = iter(deployment.client("timestream-query").get_paginator("query").paginate(QueryString=sql))
    first = next(pages)
    names = [info.get("Name", "") for info in first["ColumnInfo"]]

    def rows() -> Iterator[list[str | None]]:
        page = first
        while page is not None:
            for row in page["Rows"]:
                yield [datum.get("ScalarValue") for datum in row["Data"]]
            page = next(pages, None)

    return names, rows()


def _logged(deployment: Deployment) -> Iterator[str]:
    paginator = deployment.client("logs").get_paginator("filter_log_events")
    for group in collected_groups(deployment):
        for page in paginator.paginate(logGroupName=group, filterPattern=f'"{tagline.DEFAULT_TAG}"'):
            yield from (event["message"] for event in page["events"])


def _streamed(deployment: Deployment) -> Iterator[bytes]:
    kinesis = deployment.client("kinesis")
    stream = deployment.outputs["StreamName"]
    for shard in kinesis.list_shards(StreamName=stream)["Shards"]:
        iterator = kinesis.get_shard_iterator(
            StreamName=stream, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        while iterator:
            page = kinesis.get_records(ShardIterator=iterator)
            yield from (record["Data"] for record in page["Records"])
            iterator = page.get("NextShardIterator") if page["MillisBehindLatest"] else None


def _keys(s3: Any, bucket: str, prefix: str) -> Iterator[str]:
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        yield from (item["Key"] for item in page.get("Contents", []))
