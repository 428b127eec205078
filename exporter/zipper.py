"""Lambda entry: a range of days of the lake becomes a zip. Parts are read, zipped and written as a stream."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import boto3
from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit
from botocore.exceptions import BotoCoreError, ClientError

from consumers.settings import read_settings
from exporter import archive
from exporter.archive import Manifest, Member
from exporter.bucket import Bucket, Objects, client_config
from exporter.jobs import Job, State, read_job, write_job, zip_key

Handler = Callable[[dict[str, Any], Any], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Settings:
    """What the function's environment says; docs/reference/settings.md."""

    bucket: str


def make_zip(job: Job, objects: Objects) -> int:
    """Write the zip of a job and return how many rows are in it.

    It holds the parts of each exported day as `<day>-part-<n>.csv`, and at its end `manifest.json`. Doing it
    again for the same files makes the same bytes at the same key.
    """
    manifests = [
        Manifest.from_json(document)
        for day in job.days
        if (document := objects.get(archive.folder(day) + archive.MANIFEST)) is not None
    ]
    objects.put(zip_key(job.id), archive.zipped(_members(job, manifests, objects)), "application/zip")
    return sum(manifest.rows for manifest in manifests)


def _members(job: Job, manifests: list[Manifest], objects: Objects) -> Iterator[Member]:
    files: list[dict[str, Any]] = []
    for manifest in manifests:
        for part in manifest.parts:
            name = f"{manifest.day}-{part.key.rsplit('/', 1)[-1].removesuffix('.gz')}"
            sha256 = hashlib.sha256()
            text = archive.inflated(objects.stream(part.key))
            yield Member(name, manifest.day, _hashed(text, sha256.update))
            files.append({"name": name, "rows": part.rows, "sha256": sha256.hexdigest()})
    exported = {manifest.day for manifest in manifests}
    document = {
        "start_date": job.days.first.isoformat(),
        "end_date": job.days.last.isoformat(),
        "rows": sum(manifest.rows for manifest in manifests),
        "days": [
            {"day": manifest.day.isoformat(), "rows": manifest.rows, "revision": manifest.revision}
            for manifest in manifests
        ],
        "days_not_exported": [day.isoformat() for day in job.days if day not in exported],
        "files": files,
    }
    yield Member("manifest.json", job.days.last, [json.dumps(document, indent=1).encode() + b"\n"])


def _hashed(chunks: Iterable[bytes], update: Callable[[bytes], None]) -> Iterator[bytes]:
    for chunk in chunks:
        update(chunk)
        yield chunk


def make_handler(objects: Objects, *, report: Callable[[Job], None]) -> Handler:
    """Return a Lambda handler that makes the zips that a batch of SQS messages asks for.

    Args:
        objects: The lake's bucket, which also holds the zips.
        report: Is given each job as it ends.
    """

    def handler(event: dict[str, Any], _context: Any) -> dict[str, Any]:
        failures = []
        for message in event["Records"]:
            asked = Job.from_json(message["body"])
            job = read_job(objects, asked.id) or asked
            if job.state is State.READY:
                continue  # SQS delivers at least once
            try:
                write_job(objects, job.becoming(State.RUNNING))
                job = job.becoming(State.READY, rows=make_zip(job, objects))
            except (ClientError, BotoCoreError, ValueError, OSError) as error:
                job = job.becoming(State.FAILED, reason=_reason(error))
                failures.append({"itemIdentifier": message["messageId"]})
            write_job(objects, job)
            report(job)
        return {"batchItemFailures": failures}

    return handler


def _reason(error: Exception) -> str:
    """Return why a zip could not be made, for the one who asked for it."""
    if isinstance(error, ClientError) and error.response["Error"]["Code"] == "InvalidObjectState":
        return "some of these days are in the archive and have to be restored first"
    return f"{type(error).__name__}: {error}"


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Make the zips that a batch of messages asks for."""
    return _live()(event, context)


@cache
def _live() -> Handler:
    settings = read_settings(Settings, os.environ)
    return make_handler(
        Bucket(boto3.client("s3", config=client_config()), settings.bucket),
        report=_report,
    )


def _report(job: Job) -> None:
    Logger().info("zip", extra={"job": job.id, "state": job.state, "rows": job.rows, "reason": job.reason})
    metrics = Metrics()
    metrics.add_metric(name=f"zips_{job.state}", unit=MetricUnit.Count, value=1)
    metrics.flush_metrics()
