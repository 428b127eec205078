"""Lambda entry: the worker that makes the zips of downloads, one for each SQS message."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

import boto3
from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from isal import isal_zlib

from consumers.bucket import Bucket, Downloads, UploadGoneError, client_config
from consumers.documents import NewerDocumentError
from consumers.settings import read_settings
from exporter.downloads.jobs import Job, State, id_of_message, message_of
from exporter.downloads.stored_jobs import abandon_zip, read_job
from exporter.zips.making import Budget, Lease, TakenOverError, make_zip
from exporter.zips.packing import UnavailableError

Handler = Callable[[dict[str, Any], Any], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Settings:
    """The function's environment; docs/reference/settings.md."""

    bucket: str
    download_queue_url: str


def make_handler(
    objects: Downloads,
    *,
    send: Callable[[str], None],
    report: Callable[[Job], None],
    budget: Callable[[Callable[[], float]], Budget] = Budget,
) -> Handler:
    """Return a Lambda handler that makes the zips of a batch of SQS messages.

    Args:
        objects: The lake's bucket, which also holds the zips.
        send: Puts a message on the queue, so that another invocation resumes a job.
        report: Receives each job when it ends or is left to another invocation.
        budget: Makes the budget of an invocation, from a function that gives the seconds that are left.
    """

    def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
        def left_s() -> float:
            return float(context.get_remaining_time_in_millis()) / 1000

        failures = []
        for message in event["Records"]:
            outcome = process_job(id_of_message(message["body"]), objects, budget(left_s))
            if outcome.job is not None:
                report(outcome.job)
                if outcome.job.state is State.RUNNING:
                    send(message_of(outcome.job))
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
    """

    job: Job | None
    again: bool = False


def process_job(job_id: str, objects: Downloads, budget: Budget) -> Processed:
    """Make the zip of a job, or write the reason into the job why it cannot be made.

    Args:
        job_id: The job's id.
        objects: The lake's bucket, which also holds the zips.
        budget: The invocation's budget.

    Raises:
        NewerDocumentError: If a newer Tagline wrote the job in a format that this one does not read.
    """
    job = read_job(objects, job_id)
    # SQS delivers at least once, and a deleted job is no longer wanted.
    if job is None or job.state.has_zip:
        return Processed(None)
    lease = Lease(job, objects)
    try:
        return _processed(lease, budget)
    except TakenOverError:
        now = read_job(objects, job.id)
        if now is None or now.state.has_zip:
            abandon_zip(job.id, objects)
            return Processed(None)
        # If the other worker does not finish, there is still this message.
        return Processed(None, again=True)


def _processed(lease: Lease, budget: Budget) -> Processed:
    try:
        return Processed(_made(lease, budget))
    except (ClientError, BotoCoreError, ValueError, OSError) as error:
        lease.check()
        with suppress(ClientError, BotoCoreError, NewerDocumentError):  # the same error may occur here
            abandon_zip(lease.job.id, lease.objects)
        failed = lease.update(State.FAILED, reason=_reason(error), changed_at=int(budget.now()))
        return Processed(failed, again=not (isinstance(error, UnavailableError) or _is_archived(error)))


def _made(lease: Lease, budget: Budget) -> Job:
    try:
        return make_zip(lease, budget)
    except UploadGoneError:
        # Another worker did that, and has then written the job. If not, the zip is begun again.
        lease.check()
        abandon_zip(lease.job.id, lease.objects)
        return make_zip(lease, budget)


def _is_archived(error: Exception) -> bool:
    return isinstance(error, ClientError) and error.response["Error"]["Code"] == "InvalidObjectState"


def _reason(error: Exception) -> str:
    """Return why a zip could not be made, for the user who requested it."""
    if _is_archived(error):
        return "some of these days are in the archive and have to be restored first"
    if isinstance(error, ClientError) and error.response["Error"]["Code"] in (
        "NoSuchKey",
        "PreconditionFailed",
    ):
        return "some of these days were exported anew meanwhile: ask again"
    return str(error) if isinstance(error, UnavailableError) else f"{type(error).__name__}: {error}"


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
        send=lambda message: sqs.send_message(QueueUrl=settings.download_queue_url, MessageBody=message),
        report=_report,
    )


def _report(job: Job) -> None:
    Logger().info(
        "zip",
        extra={
            "job": job.id,
            "state": job.state,
            "rows": job.rows,
            "reason": job.reason,
            "bytes": job.done_bytes,
        },
    )
    metrics = Metrics()
    metrics.add_metric(name=f"zips_{job.state}", unit=MetricUnit.Count, value=1)
    metrics.flush_metrics()
