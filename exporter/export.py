"""Lambda entry: a day of the store becomes files in the lake, and a manifest that commits them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache
from typing import Any

import boto3
from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit
from botocore.config import Config

from consumers.settings import read_settings
from exporter import archive
from exporter.archive import Manifest
from exporter.bucket import Bucket, Objects, client_config
from exporter.query import Answer, Days, Store, arranged
from exporter.timestream import READ_TIMEOUT, Timestream

Handler = Callable[[dict[str, Any], Any], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Settings:
    """What the function's environment says; docs/reference/settings.md."""

    timestream_database: str
    timestream_table: str
    bucket: str


@dataclass(frozen=True, slots=True)
class Export:
    """What became of a day.

    Attributes:
        manifest: What the lake holds of the day now.
        kept: Whether that is what it held before, because the store has fewer rows than the lake by now.
    """

    manifest: Manifest
    kept: bool


def export_day(day: date, store: Store, objects: Objects) -> Export:
    """Write a day's rows to the lake. Doing it again changes nothing, unless there are other rows.

    The manifest is written last. A day of which the store has fewer rows than the lake is left as it is: the
    store forgets what is older than its retention, the lake does not.
    """
    manifest_key = archive.folder(day) + archive.MANIFEST
    document = objects.get(manifest_key)
    known = None if document is None else Manifest.from_json(document)
    days = Days(day, day)
    count = store.count(days)
    if known is not None and count < known.rows:
        return Export(known, kept=True)
    # A table that was never written to has no columns to ask for.
    answer = arranged(store.rows(days)) if count else Answer((), iter(()))
    parts = []
    for part in archive.parts(day, answer):
        objects.put(part.key, part.chunks(), "application/gzip")
        parts.append(part.summary())
    manifest = Manifest(day, 1, answer.columns, tuple(parts)).succeeding(known)
    objects.put(manifest_key, [manifest.to_json()], "application/json")
    named = {manifest_key, *(part.key for part in parts)}
    objects.delete(key for key in objects.keys(archive.folder(day)) if key not in named)
    return Export(manifest, kept=False)


def days_of(event: dict[str, Any], now: datetime) -> Days:
    """Return the days that an event asks for: one or a range by hand, else the day before its time.

    Args:
        event: `{"day": ...}`, `{"from": ..., "to": ...}` (dates, both inclusive), or a schedule's event.
        now: The time, for an event that has none.

    Raises:
        ValueError: If a date is none, or the range ends before it begins.
    """
    if "day" in event:
        day = _date("day", event["day"])
        return Days(day, day)
    if "from" in event or "to" in event:
        return Days(_date("from", event.get("from")), _date("to", event.get("to")))
    time = event.get("time")
    at = datetime.fromisoformat(time) if isinstance(time, str) else now
    yesterday = at.astimezone(UTC).date() - timedelta(days=1)
    return Days(yesterday, yesterday)


def make_handler(
    store: Store, objects: Objects, *, now: Callable[[], datetime], report: Callable[[Export], None]
) -> Handler:
    """Return a Lambda handler that exports days.

    Args:
        store: Where the rows are.
        objects: The lake's bucket.
        now: Gives the time.
        report: Is given what became of each day.
    """

    def handler(event: dict[str, Any], _context: Any) -> dict[str, Any]:
        exported = []
        for day in days_of(event, now()):
            export = export_day(day, store, objects)
            report(export)
            exported.append(
                {
                    "day": day.isoformat(),
                    "rows": export.manifest.rows,
                    "bytes": export.manifest.size,
                    "parts": len(export.manifest.parts),
                    "revision": export.manifest.revision,
                    "kept": export.kept,
                }
            )
        return {"days": exported}

    return handler


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Export the day before the schedule's, or the days that are asked for."""
    return _live()(event, context)


@cache
def _live() -> Handler:
    settings = read_settings(Settings, os.environ)
    return make_handler(
        Timestream(
            boto3.client("timestream-query", config=Config(read_timeout=READ_TIMEOUT)),
            settings.timestream_database,
            settings.timestream_table,
        ),
        Bucket(boto3.client("s3", config=client_config()), settings.bucket),
        now=lambda: datetime.now(UTC),
        report=_report,
    )


def _report(export: Export) -> None:
    manifest = export.manifest
    Logger().info(
        "exported",
        extra={
            "day": manifest.day.isoformat(),
            "rows": manifest.rows,
            "bytes": manifest.size,
            "revision": manifest.revision,
            "kept": export.kept,
        },
    )
    metrics = Metrics()
    metrics.add_metric(name="exported_rows", unit=MetricUnit.Count, value=manifest.rows)
    metrics.add_metric(name="exported_bytes", unit=MetricUnit.Bytes, value=manifest.size)
    metrics.flush_metrics()


def _date(name: str, value: Any) -> date:
    try:
        return date.fromisoformat(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name} is {value!r}, not a date such as 2026-11-19") from None
