"""Lambda entry: rows that the store did not keep are written again; days verified, clients forgotten."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

import boto3
from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit

from consumers.bucket import Bucket, Downloads, client_config
from consumers.deadlines import countdown
from consumers.errors import TaglineError
from consumers.rows.live import open_store
from consumers.rows.store import Store as WritingStore
from consumers.settings import read_settings
from exporter.lake.forgotten_list import ForgottenList, ReadKey, key_of_secret, no_key
from exporter.store import Store as AskingStore
from exporter.stores import store_of_function
from exporter.upkeep import forget
from exporter.upkeep.rejected_rows import Rewritten, rewrite_rejected
from exporter.upkeep.tasks import MAX_CONTINUATIONS, Done, Task, Tasks

Handler = Callable[[dict[str, Any], Any], dict[str, Any]]

# Seconds after which a waiting caller gets a task's progress.
_ANSWER_AFTER = 5.0
# What is left of the invocation, in seconds, when no more of a task is begun.
_LEAST_SECONDS = 60.0


class ReportsLeftError(TaglineError, RuntimeError):
    """Reports of rejected rows could not be dealt with; the message has the key of each, and why."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings in the function's environment; docs/reference/settings.md."""

    bucket: str
    forgotten_key_arn: str
    store: str


class TooLongError(TaglineError, RuntimeError):
    """A task is not done after so many invocations as one chain may have."""


def make_handler(
    store: WritingStore[Any],
    questions: AskingStore,
    objects: Downloads,
    *,
    report: Callable[[Rewritten], None],
    invoke: Callable[[str, dict[str, Any]], None],
    report_task: Callable[[Task, Done], None] = lambda _task, _done: None,
    read_key: ReadKey = no_key,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Handler:
    """Return a Lambda handler that writes rows again that the store did not keep, or does a task over days.

    Args:
        store: Where rows are written.
        questions: The same store, to be asked.
        objects: The bucket.
        report: Is given what was done.
        invoke: Invokes a function, by its name, with an event, without waiting for it.
        report_task: Is given what an invocation did of a task.
        read_key: Gives the key of the list of forgotten clients.
        now: Gives the time.
    """
    clients = ForgottenList(objects, read_key)

    def do_task(task: Task, context: Any) -> dict[str, Any]:
        _ensure_it_ends(task)
        began, remaining = time.monotonic(), countdown(context)

        def has_time() -> bool:
            is_due = task.wait and time.monotonic() - began > _ANSWER_AFTER
            return remaining() > _LEAST_SECONDS and not is_due

        done = Tasks(objects, questions, context.aws_request_id, now, read_key).do(task, has_time)
        report_task(task, done)
        if done.left and not task.wait:
            invoke(context.function_name, done.left.to_event())
        return done.to_answer()

    def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
        if event.get("task") in forget.LIST_TASKS:
            return forget.do_list_task(event, clients, now())
        if "task" in event:
            return do_task(Task.from_event(event, now()), context)
        done = rewrite_rejected(
            store,
            questions,
            objects,
            now=now(),
            remaining=countdown(context),
            invocation=context.aws_request_id,
        )
        report(done)
        forget.drop_expired(clients, questions.keeps_for, now())
        if done.left:
            raise ReportsLeftError("; ".join(done.left))
        return {"reports": done.reports, "stored": done.stored, "waiting": done.waiting}

    return handler


def _ensure_it_ends(task: Task) -> None:
    """Make sure that a chain of invocations ends.

    Raises:
        TooLongError: If it has become too long, and nobody waits for it.
    """
    if not task.wait and task.continuations > MAX_CONTINUATIONS:
        raise TooLongError(
            f"the task {task.name} is not done after {MAX_CONTINUATIONS} continuations: ask for fewer days, "
            "or use the command, which waits"
        )


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Write rows again that the store took and did not keep, or do the task that the event names."""
    return _from_environment()(event, context)


@cache
def _from_environment() -> Handler:
    settings = read_settings(Settings, os.environ)
    functions = boto3.client("lambda")
    return make_handler(
        open_store(settings.store, os.environ, 1),
        store_of_function(settings.store, os.environ, boto3.client),
        Bucket(boto3.client("s3", config=client_config()), settings.bucket),
        report=report_rewritten,
        report_task=report_task,
        read_key=key_of_secret(settings.forgotten_key_arn, boto3.client),
        invoke=lambda name, event: functions.invoke(
            FunctionName=name, InvocationType="Event", Payload=json.dumps(event).encode()
        ),
    )


def report_task(task: Task, done: Done) -> None:
    """Write a line for what became of each day, and one for the invocation; none names the client.

    Args:
        task: The task.
        done: What was done of it.
    """
    logger = Logger()
    for result in done.results:
        is_wrong = "failed" in result or result.get("problems")
        (logger.warning if is_wrong else logger.info)(task.name, extra=result)
    logger.info("task", extra={"task": task.name, "done": done.done, "total": done.total})


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
