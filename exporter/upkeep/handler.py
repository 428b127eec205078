"""Lambda entry: what has to be done now and then, so that store and lake stay whole."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

import boto3
from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit

from consumers.bucket import Bucket, Objects, client_config
from consumers.deadlines import countdown
from consumers.errors import TaglineError
from consumers.rows.live import open_store
from consumers.rows.store import Store as WritingStore
from consumers.settings import read_settings
from exporter.store import Store as AskingStore
from exporter.stores import store_of_function
from exporter.upkeep.rejected_rows import Rewritten, rewrite_rejected

Handler = Callable[[dict[str, Any], Any], dict[str, Any]]


class ReportsLeftError(TaglineError, RuntimeError):
    """Reports of rejected rows could not be dealt with; the message has the key of each, and why."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings in the function's environment; docs/reference/settings.md."""

    bucket: str
    store: str


def make_handler(
    store: WritingStore[Any],
    questions: AskingStore,
    objects: Objects,
    *,
    report: Callable[[Rewritten], None],
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Handler:
    """Return a Lambda handler that writes rows again that the store took and did not keep.

    Args:
        store: Where rows are written.
        questions: The same store, to be asked.
        objects: The bucket.
        report: Is given what was done.
        now: Gives the time.
    """

    def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:  # noqa: ARG001 - a schedule has no question
        done = rewrite_rejected(
            store,
            questions,
            objects,
            now=now(),
            remaining=countdown(context),
            invocation=context.aws_request_id,
        )
        report(done)
        if done.left:
            raise ReportsLeftError("; ".join(done.left))
        return {"reports": done.reports, "stored": done.stored, "waiting": done.waiting}

    return handler


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Write rows again that the store took and did not keep."""
    return _from_environment()(event, context)


@cache
def _from_environment() -> Handler:
    settings = read_settings(Settings, os.environ)
    return make_handler(
        open_store(settings.store, os.environ, 1),
        store_of_function(settings.store, os.environ, boto3.client),
        Bucket(boto3.client("s3", config=client_config()), settings.bucket),
        report=report_rewritten,
    )


def report_rewritten(done: Rewritten) -> None:
    """Write the invocation's summary line and its metrics.

    Args:
        done: What was done.
    """
    counts = {
        "reports": done.reports,
        "rewritten": done.stored,
        "present": done.present,
        "waiting": done.waiting,
        "reports_left": len(done.left),
    }
    Logger().info("upkeep", extra=counts)
    metrics = Metrics()
    metrics.add_dimension(name="stage", value="upkeep")
    for name, value in counts.items():
        metrics.add_metric(name=name, unit=MetricUnit.Count, value=value)
    metrics.flush_metrics()
