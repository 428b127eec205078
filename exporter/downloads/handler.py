"""Lambda entry: the download API. It answers at once, with a link to a zip that is made afterwards."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from http import HTTPStatus
from typing import Any

import boto3
from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response
from botocore.config import Config

from consumers.bucket import Bucket, client_config
from consumers.settings import read_settings
from exporter.downloads import openapi
from exporter.downloads.audit import Action, AuditLog, audit_line
from exporter.downloads.jobs import STUCK_AFTER, Job, Request
from exporter.downloads.limits import LOOK_AFTER_S, DownloadLimits, RefusedError
from exporter.downloads.links import Link, Signer
from exporter.downloads.parameters import (
    InvalidParameterError,
    parse_request,
    shown,
    tenant_of,
)
from exporter.downloads.service import DownloadService
from exporter.lake.formats import ZipFormat
from exporter.problems import NO_STORE, answer_errors, problem

Handler = Callable[[dict[str, Any], Any], dict[str, Any]]

PREPARING = "Your file is being prepared, use the link to download the file after a couple of minutes"
PREPARED = "Your file is ready, use the link to download the file"


@dataclass(frozen=True, slots=True)
class Settings:
    """The function's environment; docs/reference/settings.md."""

    bucket: str
    download_queue_url: str
    download_link_role: str
    download_link_seconds: int
    download_max_days: int
    bucket_acceleration: str
    download_max_gb: int
    download_max_in_progress: int
    download_audit_log_group: str
    download_tenant_claim: str = ""
    download_tenant_columns: str = ""
    download_token_issuer: str = ""
    download_token_scope: str = ""


# --- the API ----------------------------------------------------------------------------------------------

# What is before the API's paths: a stage's name, or the path to which a custom domain maps the API.
# https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-mappings.html
_BASE_PATH = re.compile(r"^/.+?(?=/(?:downloads?/|downloads$|openapi\.json$))")


def make_handler(
    service: DownloadService,
    audit: Callable[[Mapping[str, Any]], None],
    *,
    max_days: int,
    tenant_claim: str = "",
    tenant_columns: tuple[str, ...] = (),
    tokens: openapi.Tokens | None = None,
) -> Handler:
    """Return a Lambda handler for the download API.

    Args:
        service: The downloads.
        audit: Writes an audit line. A request whose line cannot be written gets no link.
        max_days: The longest range of one request, in days.
        tenant_claim: The claim of a token that names the client whose rows a caller may have; `*` for all,
            empty if requests are signed.
        tenant_columns: The columns that such a caller may have; empty for all.
        tokens: The tokens that API Gateway requires of callers; None if it requires signatures.
    """
    app = APIGatewayHttpResolver(strip_prefixes=[_BASE_PATH])
    answer_errors(app)

    def refused(error: RefusedError) -> Response[Any]:
        days = [day.isoformat() for day in error.days]
        return problem(error.status, str(error), retry_after_s=error.retry_after_s, days=days)

    app.exception_handler(RefusedError)(refused)

    def tenant() -> str | None:
        return tenant_of(app.current_event.raw_event, tenant_claim)

    def parse(given: Mapping[str, Any]) -> Request:
        return parse_request(
            given,
            tenant=tenant(),
            today=service.now().date(),
            max_days=max_days,
            tenant_columns=tenant_columns,
        )

    def record(action: Action, job: Job, link: Link | None = None) -> None:
        audit(audit_line(action, app.current_event.raw_event, job, service.now(), link))

    _answer_requests(app, service, parse, record)
    _describe(app, openapi.document(max_days, tokens))
    _answer_about_downloads(app, service, tenant, record)
    return app.resolve


def _answer_requests(
    app: APIGatewayHttpResolver,
    service: DownloadService,
    parse: Callable[[Mapping[str, Any]], Request],
    record: Callable[[Action, Job, Link], None],
) -> None:
    def requested(given: Mapping[str, Any]) -> Response[Any]:
        job = service.request(parse(given))
        link = service.link(job)
        record(Action.REQUEST, job, link)
        done = job.state.has_zip
        answer = {
            "result": "ok",
            "message": PREPARED if done else PREPARING,
            **_described(job, _base_url(app.current_event.raw_event)),
            **_linked(link),
        }
        return _answer(HTTPStatus.OK if done else HTTPStatus.ACCEPTED, answer, _pause(job))

    @app.get("/download/usage")
    def request_days() -> Response[Any]:
        query = app.current_event.raw_event.get("queryStringParameters") or {}
        for name in query:
            if name not in openapi.DATES:
                raise InvalidParameterError(
                    shown(name),
                    f"{shown(name)!r} is not a parameter here; POST /downloads takes more than dates",
                )
        return requested(query)

    @app.post("/downloads")
    def request_part() -> Response[Any]:
        return requested(_body(app.current_event.raw_event))


def _describe(app: APIGatewayHttpResolver, document: dict[str, Any]) -> None:
    body = json.dumps(document)

    @app.get("/openapi.json")
    def description() -> Response[Any]:
        return Response(HTTPStatus.OK, content_type="application/json", body=body)


def _answer_about_downloads(
    app: APIGatewayHttpResolver,
    service: DownloadService,
    tenant: Callable[[], str | None],
    record: Callable[[Action, Job, Link | None], None],
) -> None:
    @app.get("/downloads/<identity>")
    def status(identity: str) -> Response[Any]:
        job = service.look(identity, tenant())
        if job is None:
            return _no_download(identity)
        answer = _described(job, _base_url(app.current_event.raw_event))
        if job.state.has_zip:
            link = service.link(job)
            record(Action.LINK, job, link)
            answer |= _linked(link)
        return _answer(HTTPStatus.OK, answer, _pause(job))

    @app.delete("/downloads/<identity>")
    def delete(identity: str) -> Response[Any]:
        found = service.find(identity, tenant())
        if found is None:
            return _no_download(identity)
        record(Action.DELETE, found.job, None)
        service.delete(found.job)
        return Response(HTTPStatus.NO_CONTENT, body="", headers=dict(NO_STORE))


def _described(job: Job, base_url: str) -> dict[str, Any]:
    """Return the fields that every answer about a job has."""
    request = job.request
    described = {
        "id": job.id,
        "status": job.state,
        "start_date": request.days.first.isoformat(),
        "end_date": request.days.last.isoformat(),
        "format": request.format,
        "cells": request.cells if request.format in (ZipFormat.CSV, ZipFormat.ANY) else None,
        "columns": list(request.columns) or None,
        "client": request.client if request.tenant is None else request.tenant,
        "route": request.route,
        # A share: the size of the days is that of everybody's records, not a tenant's to know.
        "progress": None if job.total_bytes is None else round(job.done_bytes / max(1, job.total_bytes), 2),
        "rows": job.rows,
        "reason": job.reason,
        "incident": job.incident,
        "status_url": f"{base_url}/downloads/{job.id}",
    }
    return {name: value for name, value in described.items() if value is not None}


def _linked(link: Link) -> dict[str, str]:
    expires_at = link.expires_at.astimezone(UTC)
    return {"download_link": link.url, "expires_at": f"{expires_at:%Y-%m-%dT%H:%M:%SZ}"}


def _body(event: Mapping[str, Any]) -> dict[str, Any]:
    text = event.get("body") or ""
    try:
        read = json.loads(
            base64.b64decode(text) if event.get("isBase64Encoded") else text, object_pairs_hook=_once
        )
    except InvalidParameterError:
        raise
    except (ValueError, RecursionError):
        raise InvalidParameterError("body", "the body is not JSON") from None
    if not isinstance(read, dict):
        raise InvalidParameterError("body", "the body is not a JSON object")
    return read


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of a body; a name that occurs twice is refused, because one value would be ignored."""
    read = dict(pairs)
    if len(read) < len(pairs):
        names = [name for name, _ in pairs]
        twice = shown(next(name for name in names if names.count(name) > 1))
        raise InvalidParameterError(twice, f"the body has {twice!r} twice")
    return read


def _base_url(event: dict[str, Any]) -> str:
    headers = event.get("headers") or {}
    host = headers.get("host") or event["requestContext"]["domainName"]
    found = _BASE_PATH.match(event["rawPath"])
    return f"{headers.get('x-forwarded-proto', 'https')}://{host}{found[0] if found else ''}"


def _pause(job: Job) -> dict[str, str | list[str]]:
    """Return the header with the time to look again at a job that is in progress."""
    return {"Retry-After": str(LOOK_AFTER_S)} if job.state in STUCK_AFTER else {}


def _answer(
    status: HTTPStatus, body: dict[str, Any], headers: Mapping[str, str | list[str]]
) -> Response[Any]:
    return Response(
        status, content_type="application/json", body=json.dumps(body), headers={**NO_STORE, **headers}
    )


def _no_download(identity: str) -> Response[Any]:
    return problem(
        HTTPStatus.NOT_FOUND,
        f"download {shown(identity)!r} does not exist: downloads are kept for one day, so ask again",
    )


# --- the function -----------------------------------------------------------------------------------------


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Answer a request to the download API."""
    return _from_environment()(event, context)


@cache
def _from_environment() -> Handler:
    settings = read_settings(Settings, os.environ)
    # An answer is due within seconds: if AWS does not answer in time, the caller tries again.
    quick = Config(connect_timeout=3, read_timeout=5)
    sqs, sts = boto3.client("sqs", config=quick), boto3.client("sts", config=quick)
    links = client_config(accelerate=settings.bucket_acceleration == "Enabled")

    def send(message: str) -> None:
        sqs.send_message(QueueUrl=settings.download_queue_url, MessageBody=message)

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
    signer = Signer(assume, client, settings.bucket, now)
    limits = DownloadLimits(settings.download_max_gb * 10**9, settings.download_max_in_progress)
    service = DownloadService(objects, signer, send, settings.download_link_seconds, now, limits)
    audit = AuditLog(boto3.client("logs", config=quick), settings.download_audit_log_group)
    issuer = settings.download_token_issuer
    return make_handler(
        service,
        audit.write,
        max_days=settings.download_max_days,
        tenant_claim=settings.download_tenant_claim,
        tenant_columns=tuple(filter(None, settings.download_tenant_columns.split(","))),
        tokens=openapi.Tokens(issuer, settings.download_token_scope) if issuer else None,
    )
