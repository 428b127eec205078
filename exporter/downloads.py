"""Lambda entry: the download API. It answers at once, with a link to a zip that is yet to be made."""

from __future__ import annotations

import json
import os
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache
from http import HTTPStatus
from typing import Any

import boto3
from aws_lambda_powertools import Logger
from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response
from botocore.config import Config

from consumers.settings import read_settings
from exporter.bucket import Bucket, Objects, client_config
from exporter.jobs import Job, State, read_job, write_job, zip_key
from exporter.query import Days

Handler = Callable[[dict[str, Any], Any], dict[str, Any]]

PREPARING = "Your file is being prepared, use the link to download the file after a couple of minutes"

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


@dataclass(frozen=True, slots=True)
class Settings:
    """What the function's environment says; docs/reference/settings.md."""

    bucket: str
    download_queue_url: str
    download_link_seconds: int
    download_max_days: int
    bucket_acceleration: str


class InvalidParameterError(ValueError):
    """A query parameter that cannot be used; the message names its value and the limit."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


def asked_days(query: dict[str, str], *, today: date, max_days: int) -> Days:
    """Return the days that a query string asks for.

    Raises:
        InvalidParameterError: If a date is missing or none, is in the future, or the range is empty or longer
            than `max_days`.
    """
    first, last = (_day(query, name) for name in ("start_date", "end_date"))
    if last < first:
        raise InvalidParameterError("end_date", f"end_date {last} is before start_date {first}")
    if last > today:
        raise InvalidParameterError("end_date", f"end_date {last} is in the future: today is {today} (UTC)")
    days = Days(first, last)
    if len(days) > max_days:
        raise InvalidParameterError(
            "end_date", f"{first} to {last} are {len(days)} days; at most {max_days} can be asked for at once"
        )
    return days


def make_handler(
    objects: Objects,
    send: Callable[[str], None],
    *,
    link_seconds: int,
    max_days: int,
    now: Callable[[], datetime],
    new_id: Callable[[], str],
) -> Handler:
    """Return a Lambda handler for the download API.

    Args:
        objects: The lake's bucket, which also holds the zips.
        send: Puts a message on the download queue.
        link_seconds: How long a link is good for.
        max_days: How many days can be asked for at once.
        now: Gives the time.
        new_id: Gives 32 random hexadecimal digits.
    """
    app = APIGatewayHttpResolver()

    def described(job: Job) -> dict[str, Any]:
        """Return what every answer says of a job; the link is new each time."""
        expires_at = now() + timedelta(seconds=link_seconds)
        filename = f"usage_{job.days.first}_{job.days.last}.zip"
        return {
            "id": job.id,
            "status": job.state,
            "start_date": job.days.first.isoformat(),
            "end_date": job.days.last.isoformat(),
            "download_link": objects.link(zip_key(job.id), seconds=link_seconds, filename=filename),
            "expires_at": expires_at.isoformat(timespec="seconds").replace("+00:00", "Z"),
            "status_url": f"{_base_url(app.current_event.raw_event)}/downloads/{job.id}",
        }

    @app.get("/download/usage")
    def ask() -> Response[Any]:
        query = app.current_event.raw_event.get("queryStringParameters") or {}
        try:
            days = asked_days(query, today=now().date(), max_days=max_days)
        except InvalidParameterError as error:
            return _problem(HTTPStatus.BAD_REQUEST, str(error), field=error.field)
        job = Job(new_id(), days)
        write_job(objects, job)
        send(job.to_json())
        answer = {
            "result": "ok",
            "message": PREPARING,
            **described(job),
        }
        return _answer(HTTPStatus.ACCEPTED, answer)

    @app.get("/downloads/<job_id>")
    def status(job_id: str) -> Response[Any]:
        job = read_job(objects, job_id)
        if job is None:
            return _problem(
                HTTPStatus.NOT_FOUND, f"there is no download {job_id!r}; downloads are kept for one day"
            )
        answer = described(job)
        if job.state is not State.READY:
            del answer["download_link"], answer["expires_at"]
        if job.rows is not None:
            answer["rows"] = job.rows
        if job.reason is not None:
            answer["reason"] = job.reason
        return _answer(HTTPStatus.OK, answer)

    @app.not_found
    def unknown(_error: Exception) -> Response[Any]:
        return _problem(HTTPStatus.NOT_FOUND, f"there is no {app.current_event.path}")

    return app.resolve


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Answer a request to the download API."""
    return _live()(event, context)


@cache
def _live() -> Handler:
    settings = read_settings(Settings, os.environ)
    # The API's own time is short: a queue that does not answer is tried again by the caller.
    sqs = boto3.client("sqs", config=Config(connect_timeout=3, read_timeout=5))
    accelerate = settings.bucket_acceleration == "Enabled"
    bucket = Bucket(boto3.client("s3", config=client_config(accelerate=accelerate)), settings.bucket)

    def send(message: str) -> None:
        sqs.send_message(QueueUrl=settings.download_queue_url, MessageBody=message)
        Logger().info("asked", extra={"bytes": len(message)})

    return make_handler(
        bucket,
        send,
        link_seconds=settings.download_link_seconds,
        max_days=settings.download_max_days,
        now=lambda: datetime.now(UTC),
        new_id=lambda: uuid.uuid4().hex,
    )


def _day(query: dict[str, str], name: str) -> date:
    value = query.get(name)
    if not value:
        raise InvalidParameterError(name, f"{name} is missing: give a date such as {name}=2026-11-19")
    try:
        if _DATE.fullmatch(value):
            return date.fromisoformat(value)
    except ValueError:
        pass
    raise InvalidParameterError(name, f"{name} is {value[:40]!r}, not a date such as 2026-11-19")


def _base_url(event: dict[str, Any]) -> str:
    headers = event.get("headers") or {}
    host = headers.get("host") or event["requestContext"]["domainName"]
    return f"{headers.get('x-forwarded-proto', 'https')}://{host}"


def _answer(status: HTTPStatus, body: dict[str, Any]) -> Response[Any]:
    return Response(status, content_type="application/json", body=json.dumps(body))


def _problem(status: HTTPStatus, detail: str, *, field: str | None = None) -> Response[Any]:
    """Return an error as a problem document: https://www.rfc-editor.org/rfc/rfc9457."""
    body = {
        "type": "about:blank",
        "title": status.phrase,
        "status": status,
        "detail": detail,
        **({"field": field} if field else {}),
        "result": "error",
        "message": detail,
    }
    return Response(status, content_type="application/problem+json", body=json.dumps(body))
