"""Lambda entry: the download API. It answers at once, with a link to a zip that is yet to be made."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache
from http import HTTPStatus
from typing import Any, Protocol

import boto3
from aws_lambda_powertools import Logger
from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response
from botocore.config import Config

from consumers.bucket import Bucket, Downloads, client_config
from consumers.settings import read_settings
from exporter.downloads import openapi
from exporter.downloads.jobs import (
    Format,
    Job,
    Request,
    State,
    drop,
    job_id,
    manifests_of,
    message_of,
    read_job,
    write_job,
    zip_key,
)
from exporter.downloads.links import Link, Signer
from exporter.store import Days

Handler = Callable[[dict[str, Any], Any], dict[str, Any]]

PREPARING = "Your file is being prepared, use the link to download the file after a couple of minutes"
PREPARED = "Your file is ready, use the link to download the file"

# A zip is there for a day, by the bucket's lifecycle. One that is nearly gone is made again.
KEPT = timedelta(days=1)
NEARLY_GONE = timedelta(hours=2)
# A job that does not get on is asked for again: a message may be lost with its invocation, and what is
# delivered once too often changes nothing.
WAITS = {State.QUEUED: timedelta(minutes=1), State.RUNNING: timedelta(minutes=5)}

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_SHOWN = 40


@dataclass(frozen=True, slots=True)
class Settings:
    """What the function's environment says; docs/reference/settings.md."""

    bucket: str
    download_queue_url: str
    download_link_role: str
    download_link_seconds: int
    download_max_days: int
    bucket_acceleration: str
    download_tenant_claim: str = ""
    download_token_issuer: str = ""
    download_token_scope: str = ""


class InvalidParameterError(ValueError):
    """A parameter that cannot be used; the message names its value and the limit."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class ForbiddenError(Exception):
    """A caller may not have what they ask for; the message says why."""


class Links(Protocol):
    """Makes links: `consumers.bucket.Signer`."""

    def link(self, key: str, *, seconds: int, filename: str) -> Link:
        """Return a link that is good for so many seconds, or less if it says so."""


# --- what is asked for ------------------------------------------------------------------------------------


def asked_request(given: Mapping[str, Any], *, tenant: str | None, today: date, max_days: int) -> Request:
    """Return what is asked for.

    Args:
        given: The parameters.
        tenant: The client that the caller is; None for a caller that may have all rows.
        today: The day in UTC.
        max_days: How many days can be asked for at once.

    Raises:
        InvalidParameterError: If a parameter is missing, unknown or cannot be used.
        ForbiddenError: If another client's rows are asked for.
    """
    for name in given:
        if name not in openapi.PARAMETERS:
            known = ", ".join(openapi.PARAMETERS)
            raise InvalidParameterError(
                str(name)[:_SHOWN], f"{str(name)[:_SHOWN]!r} is no parameter; there are {known}"
            )
    client, route = _text(given, "client"), _text(given, "route")
    if tenant is not None and client not in (None, tenant):
        raise ForbiddenError(f"client is {client!r}, and you may have the rows of {tenant!r} only")
    return Request(
        asked_days(given, today=today, max_days=max_days),
        _format(given),
        _columns(given),
        client if tenant is None else None,
        route,
        tenant,
    )


def asked_days(given: Mapping[str, Any], *, today: date, max_days: int) -> Days:
    """Return the days that are asked for.

    Raises:
        InvalidParameterError: If a date is missing or none, is in the future, or the range is empty or longer
            than `max_days`.
    """
    first, last = (_day(given, name) for name in ("start_date", "end_date"))
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


def _day(given: Mapping[str, Any], name: str) -> date:
    value = given.get(name)
    if not value:
        raise InvalidParameterError(name, f"{name} is missing: give a date such as {name}=2026-11-19")
    try:
        if isinstance(value, str) and _DATE.fullmatch(value):
            return date.fromisoformat(value)
    except ValueError:
        pass
    raise InvalidParameterError(name, f"{name} is {str(value)[:_SHOWN]!r}, not a date such as 2026-11-19")


def _format(given: Mapping[str, Any]) -> Format:
    value = given.get("format", Format.CSV)
    try:
        return Format(value)
    except ValueError:
        raise InvalidParameterError(
            "format", f"format is {str(value)[:_SHOWN]!r}, not one of {', '.join(Format)}"
        ) from None


def _text(given: Mapping[str, Any], name: str) -> str | None:
    if name not in given:
        return None
    value = given[name]
    if not _is_text(value):
        raise InvalidParameterError(
            name, f"{name} is {str(value)[:_SHOWN]!r}, not a text of 1 to {openapi.MAX_VALUE} characters"
        )
    return str(value)


def _columns(given: Mapping[str, Any]) -> tuple[str, ...]:
    if "columns" not in given:
        return ()
    value = given["columns"]
    if not isinstance(value, list) or not 0 < len(value) <= openapi.MAX_COLUMNS:
        raise InvalidParameterError(
            "columns", f"columns is no list of 1 to {openapi.MAX_COLUMNS} names of columns"
        )
    for name in value:
        if not _is_text(name):
            raise InvalidParameterError(
                "columns",
                f"columns has {str(name)[:_SHOWN]!r}, not a name of 1 to {openapi.MAX_VALUE} characters",
            )
    if len(set(value)) < len(value):
        twice = next(name for name in value if value.count(name) > 1)
        raise InvalidParameterError("columns", f"columns has {twice[:_SHOWN]!r} twice")
    return tuple(value)


def _is_text(value: Any) -> bool:
    # Half a character of two is no text in UTF-8, and so in no row.
    whole = isinstance(value, str) and not re.search("[\ud800-\udfff]", value)
    return whole and 0 < len(value) <= openapi.MAX_VALUE


def tenant_of(event: Mapping[str, Any], claim: str) -> str | None:
    """Return the client that a caller is, by a claim of their token.

    Args:
        event: The request's event.
        claim: The claim's name; empty where callers may have all rows.

    Raises:
        ForbiddenError: If there is no such claim, or it is no text that a row could have.
    """
    if not claim:
        return None
    authorizer = event["requestContext"].get("authorizer") or {}
    tenant: str | None = authorizer.get("jwt", {}).get("claims", {}).get(claim)
    if not _is_text(tenant):
        raise ForbiddenError(
            f"your token has no claim {claim!r} of 1 to {openapi.MAX_VALUE} characters,"
            " which says whose rows you may have"
        )
    return tenant


# --- the API ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Desk:
    """Where downloads are asked for.

    Attributes:
        objects: The lake's bucket, which also holds the zips.
        links: Makes links to them.
        send: Puts a message on the download queue.
        link_seconds: How long a link is to be good for.
        now: Gives the time.
    """

    objects: Downloads
    links: Links
    send: Callable[[str], None]
    link_seconds: int
    now: Callable[[], datetime]

    def ask(self, request: Request) -> Job:
        """Return the download for a request: the one that there is for the same, or a new one."""
        identity = job_id(request, manifests_of(request.days, self.objects))
        job = read_job(self.objects, identity)
        if job is not None and (job.state in WAITS or self._has_zip(job)):
            return self.getting_on(job)
        return self._send(Job(identity, request))

    def find(self, identity: str, tenant: str | None) -> Job | None:
        """Return a download by its id, if it is of this tenant."""
        job = read_job(self.objects, identity)
        return job if job is not None and job.request.tenant == tenant else None

    def getting_on(self, job: Job) -> Job:
        """Return a download as it is now, asked for once more if it does not get on by itself."""
        waits = WAITS.get(job.state)
        return job if waits is None or self.now() - _changed(job) < waits else self._send(job)

    def drop(self, job: Job) -> None:
        """Delete a download, finished or not."""
        drop(job.id, self.objects)

    def link(self, job: Job) -> Link:
        """Return a new link to a download's zip, and when it really ends."""
        return self.links.link(zip_key(job.id), seconds=self._seconds(job), filename=job.request.filename)

    def _seconds(self, job: Job) -> int:
        if not job.state.has_zip:
            return self.link_seconds
        return max(1, min(self.link_seconds, int(self._left(job).total_seconds())))

    def _has_zip(self, job: Job) -> bool:
        """Return whether there is a zip that will be there for a while."""
        return job.state.has_zip and self._left(job) > NEARLY_GONE and self.objects.has(zip_key(job.id))

    def _left(self, job: Job) -> timedelta:
        """Return for how long a zip is still there."""
        return datetime.fromtimestamp(job.kept_from, UTC) + KEPT - self.now()

    def _send(self, job: Job) -> Job:
        job = job.becoming(job.state, changed_at=int(self.now().timestamp()))
        write_job(self.objects, job)
        self.send(message_of(job))
        return job


def make_handler(
    desk: Desk, *, max_days: int, tenant_claim: str = "", tokens: openapi.Tokens | None = None
) -> Handler:
    """Return a Lambda handler for the download API.

    Args:
        desk: Where downloads are asked for.
        max_days: How many days can be asked for at once.
        tenant_claim: The claim of a token that says whose rows its bearer may have; empty for all.
        tokens: The tokens that API Gateway asks callers for; None where it asks for signatures.
    """
    app = APIGatewayHttpResolver()
    _refuse(app)

    def tenant() -> str | None:
        return tenant_of(app.current_event.raw_event, tenant_claim)

    _answer_requests(app, desk, tenant, max_days)
    _describe(app, openapi.document(max_days, tokens))
    _answer_about_downloads(app, desk, tenant)
    return app.resolve


def _answer_requests(
    app: APIGatewayHttpResolver, desk: Desk, tenant: Callable[[], str | None], max_days: int
) -> None:
    def asked(given: Mapping[str, Any]) -> Response[Any]:
        request = asked_request(given, tenant=tenant(), today=desk.now().date(), max_days=max_days)
        job = desk.ask(request)
        done = job.state.has_zip
        said = {"result": "ok", "message": PREPARED if done else PREPARING}
        answer = {
            **said,
            **_described(job, _base_url(app.current_event.raw_event)),
            **_linked(desk.link(job)),
        }
        return _answer(HTTPStatus.OK if done else HTTPStatus.ACCEPTED, answer)

    @app.get("/download/usage")
    def ask() -> Response[Any]:
        query = app.current_event.raw_event.get("queryStringParameters") or {}
        for name in query:
            if name not in openapi.DATES:
                raise InvalidParameterError(
                    name[:_SHOWN],
                    f"{name[:_SHOWN]!r} is no parameter here; POST /downloads takes more than dates",
                )
        return asked(query)

    @app.post("/downloads")
    def ask_for_part() -> Response[Any]:
        return asked(_body(app.current_event.raw_event))


def _describe(app: APIGatewayHttpResolver, document: dict[str, Any]) -> None:
    body = json.dumps(document)

    @app.get("/openapi.json")
    def description() -> Response[Any]:
        return Response(HTTPStatus.OK, content_type="application/json", body=body)


def _answer_about_downloads(
    app: APIGatewayHttpResolver, desk: Desk, tenant: Callable[[], str | None]
) -> None:
    @app.get("/downloads/<identity>")
    def status(identity: str) -> Response[Any]:
        job = desk.find(identity, tenant())
        if job is None:
            return _no_download(identity)
        job = desk.getting_on(job)
        answer = _described(job, _base_url(app.current_event.raw_event))
        return _answer(HTTPStatus.OK, {**answer, **(_linked(desk.link(job)) if job.state.has_zip else {})})

    @app.delete("/downloads/<identity>")
    def drop(identity: str) -> Response[Any]:
        job = desk.find(identity, tenant())
        if job is None:
            return _no_download(identity)
        desk.drop(job)
        return Response(HTTPStatus.NO_CONTENT, body="")


def _refuse(app: APIGatewayHttpResolver) -> None:
    def unknown(_error: Exception) -> Response[Any]:
        return _problem(HTTPStatus.NOT_FOUND, f"there is no {app.current_event.path}")

    def invalid(error: InvalidParameterError) -> Response[Any]:
        return _problem(HTTPStatus.BAD_REQUEST, str(error), field=error.field)

    def forbidden(error: ForbiddenError) -> Response[Any]:
        return _problem(HTTPStatus.FORBIDDEN, str(error))

    app.not_found(unknown)
    app.exception_handler(InvalidParameterError)(invalid)
    app.exception_handler(ForbiddenError)(forbidden)


def _described(job: Job, base_url: str) -> dict[str, Any]:
    """Return what every answer says of a job."""
    request = job.request
    described = {
        "id": job.id,
        "status": job.state,
        "start_date": request.days.first.isoformat(),
        "end_date": request.days.last.isoformat(),
        "format": request.format,
        "columns": list(request.columns) or None,
        "client": request.client if request.tenant is None else request.tenant,
        "route": request.route,
        "progress": None
        if job.total_bytes is None
        else {"done_bytes": job.done_bytes, "total_bytes": job.total_bytes},
        "rows": job.rows,
        "reason": job.reason,
        "status_url": f"{base_url}/downloads/{job.id}",
    }
    return {name: value for name, value in described.items() if value is not None}


def _linked(link: Link) -> dict[str, str]:
    expires_at = link.expires_at.astimezone(UTC)
    return {"download_link": link.url, "expires_at": f"{expires_at:%Y-%m-%dT%H:%M:%SZ}"}


def _changed(job: Job) -> datetime:
    return datetime.fromtimestamp(job.changed_at, UTC)


def _body(event: Mapping[str, Any]) -> dict[str, Any]:
    text = event.get("body") or ""
    try:
        read = json.loads(
            base64.b64decode(text) if event.get("isBase64Encoded") else text, object_pairs_hook=_once
        )
    except InvalidParameterError:
        raise
    except (ValueError, RecursionError):
        raise InvalidParameterError("body", "the body is no JSON") from None
    if not isinstance(read, dict):
        raise InvalidParameterError("body", "the body is no JSON object")
    return read


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of a body. Of a name that is in it twice, the first would be overlooked."""
    read = dict(pairs)
    if len(read) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)[:_SHOWN]
        raise InvalidParameterError(twice, f"{twice!r} is there twice")
    return read


def _base_url(event: dict[str, Any]) -> str:
    headers = event.get("headers") or {}
    host = headers.get("host") or event["requestContext"]["domainName"]
    return f"{headers.get('x-forwarded-proto', 'https')}://{host}"


def _answer(status: HTTPStatus, body: dict[str, Any]) -> Response[Any]:
    return Response(status, content_type="application/json", body=json.dumps(body))


def _no_download(identity: str) -> Response[Any]:
    return _problem(
        HTTPStatus.NOT_FOUND, f"there is no download {identity[:_SHOWN]!r}; downloads are kept for one day"
    )


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


# --- live -------------------------------------------------------------------------------------------------


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Answer a request to the download API."""
    return _live()(event, context)


@cache
def _live() -> Handler:
    settings = read_settings(Settings, os.environ)
    # The API's own time is short: what does not answer is tried again by the caller.
    quick = Config(connect_timeout=3, read_timeout=5)
    sqs, sts = boto3.client("sqs", config=quick), boto3.client("sts", config=quick)
    links = client_config(accelerate=settings.bucket_acceleration == "Enabled")

    def send(message: str) -> None:
        sqs.send_message(QueueUrl=settings.download_queue_url, MessageBody=message)
        Logger().info("asked", extra={"bytes": len(message)})

    def assume() -> Mapping[str, Any]:
        answer = sts.assume_role(RoleArn=settings.download_link_role, RoleSessionName="download-links")
        credentials: Mapping[str, Any] = answer["Credentials"]
        return credentials

    def client(credentials: Mapping[str, Any]) -> Any:
        return boto3.client(
            "s3",
            config=links,
            aws_access_key_id=credentials["AccessKeyId"],
            aws_secret_access_key=credentials["SecretAccessKey"],
            aws_session_token=credentials["SessionToken"],
        )

    def now() -> datetime:
        return datetime.now(UTC)

    objects = Bucket(boto3.client("s3", config=client_config().merge(quick)), settings.bucket)
    desk = Desk(
        objects, Signer(assume, client, settings.bucket, now), send, settings.download_link_seconds, now
    )
    issuer = settings.download_token_issuer
    return make_handler(
        desk,
        max_days=settings.download_max_days,
        tenant_claim=settings.download_tenant_claim,
        tokens=openapi.Tokens(issuer, settings.download_token_scope) if issuer else None,
    )
