"""Lambda entry: the worker that makes the zips of downloads, one for each SQS message."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

import boto3
from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit
from botocore.config import Config
from isal import isal_zlib

from consumers.bucket import Bucket, Downloads, UploadGoneError, client_config
from consumers.settings import read_settings
from exporter.downloads.jobs import Job, State, id_of_message, message_of
from exporter.downloads.stored_jobs import abandon_zip, find_job, read_job
from exporter.zips.failures import failure_of
from exporter.zips.making import Budget, Lease, TakenOverError, make_zip

Handler = Callable[[dict[str, Any], Any], dict[str, Any]]

# An error of S3 that passes is tried again after this time, and so often in a row without progress.
RETRY_AFTER_S = 60
MAX_RETRIES = 5


@dataclass(frozen=True, slots=True)
class Settings:
    """The function's environment; docs/reference/settings.md."""

    bucket: str
    download_queue_url: str


def make_handler(
    objects: Downloads,
    *,
    send: Callable[[str, int], None],
    report: Callable[[Job, Exception | None], None],
    budget: Callable[[Callable[[], float]], Budget] = Budget,
) -> Handler:
    """Return a Lambda handler that makes the zips of a batch of SQS messages.

    Args:
        objects: The lake's bucket, which also holds the zips.
        send: Puts a message on the queue, so that another invocation resumes a job after so many seconds.
        report: Receives each job when it ends or is left to another invocation, and the error that ended it.
        budget: Makes the budget of an invocation, from a function that gives the seconds that are left.
    """

    def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
        def left_s() -> float:
            return float(context.get_remaining_time_in_millis()) / 1000

        failures = []
        for message in event["Records"]:
            outcome = process_job(id_of_message(message["body"]), objects, budget(left_s))
            if outcome.job is not None:
                report(outcome.job, outcome.error)
                if outcome.job.state is State.RUNNING:
                    send(message_of(outcome.job), 0 if outcome.error is None else RETRY_AFTER_S)
            if outcome.again:
                failures.append({"itemIdentifier": message["messageId"]})
        return {"batchItemFailures": failures}

    return handler


@dataclass(frozen=True, slots=True)
class Processed:
    """The outcome of a message.

    Attributes:
        job: The job as it is now; None if there was nothing to do.
        again: Whether SQS is to deliver the message again.
        error: What ended or interrupted it.
    """

    job: Job | None
    again: bool = False
    error: Exception | None = None


def process_job(job_id: str, objects: Downloads, budget: Budget) -> Processed:
    """Make the zip of a job, or write the reason into the job why it cannot be made.

    Every exception ends the job as failed, except a transient one: the zip is then resumed.

    Args:
        job_id: The job's id.
        objects: The lake's bucket, which also holds the zips.
        budget: The invocation's budget.

    Raises:
        NewerDocumentError: If a newer Tagline wrote the job in a format that this one does not read.
    """
    found = find_job(objects, job_id)
    # SQS delivers at least once, and a deleted job is no longer wanted.
    if found is None or found.job.state.has_zip:
        return Processed(None)
    if found.job.worker and not found.job.is_stuck(budget.now()):
        # A worker makes this zip. If it does not finish, there is still this message.
        return Processed(None, again=True)
    try:
        return _processed(Lease(found, objects, budget.now, uuid.uuid4().hex), budget)
    except TakenOverError:
        now = read_job(objects, job_id)
        if now is None or now.state.has_zip:
            abandon_zip(job_id, objects)
            return Processed(None)
        # If the other worker does not finish, there is still this message.
        return Processed(None, again=True)


def _processed(lease: Lease, budget: Budget) -> Processed:
    try:
        return Processed(_made(lease, budget))
    except TakenOverError:
        raise
    except Exception as error:  # noqa: BLE001 - a job that no worker ends would be running for ever
        failure = failure_of(error)
        retries = lease.job.retries + 1
        if failure.passes and retries <= MAX_RETRIES:
            return Processed(lease.end(State.RUNNING, retries=retries), error=error)
        lease.check()
        with suppress(Exception):  # the same error may occur here
            abandon_zip(lease.job.id, lease.objects)
        incident = uuid.uuid4().hex[:12] if failure.is_ours else None
        failed = lease.end(State.FAILED, reason=failure.reason, incident=incident, retries=0)
        return Processed(failed, again=failure.again, error=error)


def _made(lease: Lease, budget: Budget) -> Job:
    try:
        return make_zip(lease, budget)
    except UploadGoneError:
        # Another worker did that, and has then written the job. If not, the zip is begun again.
        lease.check()
        abandon_zip(lease.job.id, lease.objects)
        return make_zip(lease, budget)


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Make the zips of a batch of messages."""
    return _from_environment()(event, context)


@cache
def _from_environment() -> Handler:
    settings = read_settings(Settings, os.environ)
    sqs = boto3.client("sqs")
    # A call that is not answered is given up well within the margin.
    config = client_config().merge(
        Config(connect_timeout=5, read_timeout=15, retries={"mode": "standard", "total_max_attempts": 5})
    )
    return make_handler(
        Bucket(boto3.client("s3", config=config), settings.bucket, isal_zlib.crc32),
        send=lambda message, delay_s: sqs.send_message(
            QueueUrl=settings.download_queue_url, MessageBody=message, DelaySeconds=delay_s
        ),
        report=_report,
    )


def _report(job: Job, error: Exception | None) -> None:
    log = Logger().info if job.incident is None else Logger().error
    log(
        "zip",
        exc_info=error,
        extra={
            "job": job.id,
            "state": job.state,
            "rows": job.rows,
            "reason": job.reason,
            "incident": job.incident,
            "bytes": job.done_bytes,
        },
    )
    metrics = Metrics()
    metrics.add_metric(name=f"zips_{job.state}", unit=MetricUnit.Count, value=1)
    metrics.add_metric(name="zip_incidents", unit=MetricUnit.Count, value=int(job.incident is not None))
    metrics.flush_metrics()
