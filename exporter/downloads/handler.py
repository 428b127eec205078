"""Lambda entry: the download API. It answers at once, with a link to a zip that is made afterwards."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from http import HTTPStatus
from typing import Any

import boto3
from aws_lambda_powertools import Logger
from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response
from botocore.config import Config

from consumers.bucket import Bucket, client_config
from consumers.documents import NewerDocumentError
from consumers.settings import read_settings
from exporter.downloads import openapi
from exporter.downloads.jobs import Job
from exporter.downloads.links import Link, Signer
from exporter.downloads.parameters import (
    ForbiddenError,
    InvalidParameterError,
    parse_request,
    shown,
    tenant_of,
)
from exporter.downloads.service import DownloadService

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
    download_tenant_claim: str = ""
    download_token_issuer: str = ""
    download_token_scope: str = ""


# --- the API ----------------------------------------------------------------------------------------------


def make_handler(
    service: DownloadService, *, max_days: int, tenant_claim: str = "", tokens: openapi.Tokens | None = None
) -> Handler:
    """Return a Lambda handler for the download API.

    Args:
        service: The downloads.
        max_days: The longest range of one request, in days.
        tenant_claim: The claim of a token that names the client whose rows a caller may have; empty for all.
        tokens: The tokens that API Gateway requires of callers; None if it requires signatures.
    """
    app = APIGatewayHttpResolver()
    _refuse(app)

    def tenant() -> str | None:
        return tenant_of(app.current_event.raw_event, tenant_claim)

    _answer_requests(app, service, tenant, max_days)
    _describe(app, openapi.document(max_days, tokens))
    _answer_about_downloads(app, service, tenant)
    return app.resolve


def _answer_requests(
    app: APIGatewayHttpResolver, service: DownloadService, tenant: Callable[[], str | None], max_days: int
) -> None:
    def requested(given: Mapping[str, Any]) -> Response[Any]:
        request = parse_request(given, tenant=tenant(), today=service.now().date(), max_days=max_days)
        job = service.request(request)
        done = job.state.has_zip
        answer = {
            "result": "ok",
            "message": PREPARED if done else PREPARING,
            **_described(job, _base_url(app.current_event.raw_event)),
            **_linked(service.link(job)),
        }
        return _answer(HTTPStatus.OK if done else HTTPStatus.ACCEPTED, answer)

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
    app: APIGatewayHttpResolver, service: DownloadService, tenant: Callable[[], str | None]
) -> None:
    @app.get("/downloads/<identity>")
    def status(identity: str) -> Response[Any]:
        job = service.look(identity, tenant())
        if job is None:
            return _no_download(identity)
        answer = _described(job, _base_url(app.current_event.raw_event))
        return _answer(HTTPStatus.OK, {**answer, **(_linked(service.link(job)) if job.state.has_zip else {})})

    @app.delete("/downloads/<identity>")
    def delete(identity: str) -> Response[Any]:
        if service.delete(identity, tenant()) is None:
            return _no_download(identity)
        return Response(HTTPStatus.NO_CONTENT, body="")


def _refuse(app: APIGatewayHttpResolver) -> None:
    def unknown(_error: Exception) -> Response[Any]:
        return _problem(HTTPStatus.NOT_FOUND, f"there is no {app.current_event.path}")

    def invalid(error: InvalidParameterError) -> Response[Any]:
        return _problem(HTTPStatus.BAD_REQUEST, str(error), field=error.field)

    def forbidden(error: ForbiddenError) -> Response[Any]:
        return _problem(HTTPStatus.FORBIDDEN, str(error))

    def newer(error: NewerDocumentError) -> Response[Any]:
        return _problem(HTTPStatus.INTERNAL_SERVER_ERROR, str(error))

    app.not_found(unknown)
    app.exception_handler(NewerDocumentError)(newer)
    app.exception_handler(InvalidParameterError)(invalid)
    app.exception_handler(ForbiddenError)(forbidden)


def _described(job: Job, base_url: str) -> dict[str, Any]:
    """Return the fields that every answer about a job has."""
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
    return f"{headers.get('x-forwarded-proto', 'https')}://{host}"


def _answer(status: HTTPStatus, body: dict[str, Any]) -> Response[Any]:
    return Response(status, content_type="application/json", body=json.dumps(body))


def _no_download(identity: str) -> Response[Any]:
    return _problem(
        HTTPStatus.NOT_FOUND, f"there is no download {shown(identity)!r}; downloads are kept for one day"
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
    signer = Signer(assume, client, settings.bucket, now)
    service = DownloadService(objects, signer, send, settings.download_link_seconds, now)
    issuer = settings.download_token_issuer
    return make_handler(
        service,
        max_days=settings.download_max_days,
        tenant_claim=settings.download_tenant_claim,
        tokens=openapi.Tokens(issuer, settings.download_token_scope) if issuer else None,
    )
