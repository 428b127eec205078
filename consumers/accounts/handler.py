"""Lambda entry: accounts of batches are merged every hour, and every day's lost lines are counted."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final

import boto3
from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit
from botocore.config import Config

from consumers.accounts.compaction import READERS, Day, compact, reconcile
from consumers.asked_days import days_of
from consumers.bucket import Bucket, Objects
from consumers.settings import read_settings

Handler = Callable[[dict[str, Any], Any], dict[str, Any]]

# The event's key with which the hourly schedule asks for merging alone.
COMPACT: Final = "compact"
# What is kept of an invocation's time, in seconds: to write what was merged, and to reconcile.
KEPT_SECONDS: Final = 120
# Log groups that the summary line names.
MAX_NAMED: Final = 20


@dataclass(frozen=True, slots=True)
class Settings:
    """The function's settings from its environment; docs/reference/settings.md."""

    bucket: str


def make_handler(
    objects: Objects,
    *,
    now: Callable[[], datetime],
    report: Callable[[Day], None],
    report_compaction: Callable[[Mapping[str, int]], None] = lambda _counts: None,
) -> Handler:
    """Return a Lambda handler that merges the accounts of batches, and reconciles days.

    If time runs out, `continues` in its answer is the event for the remaining days.

    Args:
        objects: Where the consumers write their accounts.
        now: Gives the time.
        report: Is given what became of each day.
        report_compaction: Is given how many documents were merged.
    """

    def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
        def is_over() -> bool:
            return bool(context.get_remaining_time_in_millis() < KEPT_SECONDS * 1000)

        at = now()
        days = [] if event.get(COMPACT) else days_of(event, at)
        report_compaction(compact(objects, at, is_over))
        done = []
        for day in reconcile(objects, days):
            report(day)
            done.append({"day": day.day.isoformat(), **day.counts()})
            if is_over():
                break
        left = days[len(done) :]
        more = {"continues": {"from": left[0].isoformat(), "to": left[-1].isoformat()}} if left else {}
        return {"days": done, **more}

    return handler


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Merge the accounts of batches; reconcile the day before the schedule's, or days that are asked for."""
    return _from_environment()(event, context)


@cache
def _from_environment() -> Handler:
    settings = read_settings(Settings, os.environ)
    s3 = boto3.client("s3", config=Config(max_pool_connections=READERS))
    return make_handler(
        Bucket(s3, settings.bucket),
        now=lambda: datetime.now(UTC),
        report=report_day,
        report_compaction=lambda counts: Logger().info("compacted", extra=dict(counts)),
    )


def report_day(result: Day) -> None:
    """Write a day's one summary line, and its metrics.

    The metrics are totals, not what has been added: a day that is reconciled again counts
    nothing twice where the Maximum is looked at. Log groups are no dimension, because an account may have any
    number of them and each would be four metrics more; the line names those that lines are missing of.
    """
    counts = result.counts()
    reasons: Counter[str] = Counter()
    for totals in result.groups.values():
        reasons.update(totals.quarantined)
    missing = {group: totals.lost for group, totals in result.groups.items() if totals.lost}
    worst = sorted(missing, key=lambda group: (-missing[group], group))[:MAX_NAMED]
    Logger().info(
        "reconciled",
        extra={
            "day": result.day.isoformat(),
            **counts,
            "reasons": dict(sorted(reasons.items())),
            "log_groups": len(result.groups),
            "lost_of": {group: missing[group] for group in worst},
        },
    )
    metrics = Metrics()
    metrics.add_dimension(name="stage", value="reconcile")
    metrics.add_metadata(key="day", value=result.day.isoformat())
    for name, count in counts.items():
        metrics.add_metric(name=name, unit=MetricUnit.Count, value=count)
    metrics.flush_metrics()
