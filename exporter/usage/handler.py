"""Lambda entry: numbers of hours and days for the usage page and its API, and of the last minutes."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache, partial
from typing import Any, Final

import boto3
from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit

from consumers.accounts.compaction import UnreadableAccountError, recent_minutes, reconcile
from consumers.bucket import Bucket, Objects, client_config
from consumers.settings import read_settings
from exporter.stores import store_of_function
from exporter.usage.position import StreamPosition, position_of
from exporter.usage.roller import Rolled, Roller, RollUpError
from exporter.usage.rollup import Completeness

# The event's key with which the schedule asks for the last minutes alone.
LAST_MINUTES: Final = "last_minutes"

# CloudWatch keeps minutes for 15 days; Kinesis keeps records for less.
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/cloudwatch_concepts.html#metrics-retention
_METRICS_KEPT = timedelta(days=14)

Handler = Callable[[dict[str, Any], Any], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings in the function's environment; docs/reference/settings.md."""

    bucket: str
    usage_type: str
    store: str
    stream_name: str
    consumer_name: str


def make_handler(roller: Roller, *, report: Callable[[Rolled], None]) -> Handler:
    """Return a Lambda handler that rolls up what has changed.

    Args:
        roller: Rolls days up.
        report: Is given what was done.
    """

    def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
        if event.get(LAST_MINUTES):
            return {"requests": roller.show_last_minutes()}
        done = roller.run(lambda: context.get_remaining_time_in_millis() / 1000)
        report(done)
        if done.failed:
            raise RollUpError("; ".join(f"{day}: {reason}" for day, reason in done.failed.items()))
        return {"days": done.days, "left": done.left}

    return handler


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Roll up the days that have changed."""
    return _from_environment()(event, context)


@cache
def _from_environment() -> Handler:
    settings = read_settings(Settings, os.environ)
    objects = Bucket(boto3.client("s3", config=client_config()), settings.bucket)
    roller = Roller(
        store_of_function(settings.store, os.environ, boto3.client),
        objects,
        settings.usage_type,
        lambda: datetime.now(UTC),
        lambda days: completeness_of(objects, days),
        lambda first: recent_minutes(objects, first).counts,
        partial(
            position_in_stream,
            boto3.client("cloudwatch"),
            stream=settings.stream_name,
            consumer=settings.consumer_name,
        ),
    )
    return make_handler(roller, report=report_rolled)


def position_in_stream(
    cloudwatch: Any, since: datetime, now: datetime, *, stream: str, consumer: str
) -> StreamPosition:
    """Return how far the consumer has read the stream, from what CloudWatch has measured.

    Args:
        cloudwatch: A boto3 client of CloudWatch.
        since: Until when it had read all.
        now: The time.
        stream: The stream's name.
        consumer: The consumer's name.
    """
    of_stream = ("AWS/Kinesis", "IncomingRecords", "StreamName", stream)
    of_consumer = ("AWS/Lambda", "IteratorAge", "FunctionName", consumer)
    asked = {
        "arrivals": (of_stream, "Sum"),
        "least": (of_consumer, "Minimum"),
        "most": (of_consumer, "Maximum"),
    }
    pages = cloudwatch.get_paginator("get_metric_data").paginate(
        StartTime=max(since, now - _METRICS_KEPT),
        EndTime=now,
        MetricDataQueries=[
            {
                "Id": name,
                "MetricStat": {
                    "Metric": {
                        "Namespace": namespace,
                        "MetricName": metric,
                        "Dimensions": [{"Name": dimension, "Value": value}],
                    },
                    "Period": 60,
                    "Stat": statistic,
                },
            }
            for name, ((namespace, metric, dimension, value), statistic) in asked.items()
        ],
    )
    found: dict[str, dict[datetime, float]] = {name: {} for name in asked}
    for page in pages:
        for result in page["MetricDataResults"]:
            found[result["Id"]].update(zip(result["Timestamps"], result["Values"], strict=True))
    ages = {minute: (found["least"][minute], most) for minute, most in found["most"].items()}
    return position_of(found["arrivals"], ages, since, now)


def completeness_of(objects: Objects, days: Collection[date]) -> Mapping[date, Completeness]:
    """Return what the consumers' accounts have of days: lines that did not arrive, or were not stored.

    If an account cannot be read, nobody knows what was lost; the Reconciler names it and has an alarm.
    """
    try:
        counts = {day.day: day.counts() for day in reconcile(objects, days)}
    except UnreadableAccountError:
        return dict.fromkeys(days, Completeness(None))
    return {day: Completeness(count["lost"], count["quarantined"]) for day, count in counts.items()}


def report_rolled(done: Rolled) -> None:
    """Write the invocation's summary line and its metrics."""
    through = None if done.data_through is None else done.data_through.isoformat()
    extra = {"days": done.days, "failed": done.failed, "left": done.left, "data_through": through}
    Logger().info("rolled up", extra=extra)
    metrics = Metrics()
    metrics.add_dimension(name="stage", value="usage")
    for name, count in {"usage_days": len(done.days), "usage_failed": len(done.failed)}.items():
        metrics.add_metric(name=name, unit=MetricUnit.Count, value=count)
    if done.data_through is not None:
        age_s = max(0.0, (datetime.now(UTC) - done.data_through).total_seconds())
        metrics.add_metric(name="usage_age_s", unit=MetricUnit.Seconds, value=age_s)
    metrics.flush_metrics()
