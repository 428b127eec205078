"""Lambda entry: the API of usage. It reads what the roll-up has written, and never asks a store."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from http import HTTPStatus
from typing import Any

import boto3
from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from consumers.bucket import Bucket, Downloads, client_config
from consumers.settings import read_settings
from exporter.downloads.links import Signer
from exporter.downloads.parameters import ForbiddenError
from exporter.downloads.service import Links
from exporter.problems import NO_STORE, answer_errors, problem
from exporter.usage import health, stored
from exporter.usage.page import Pipeline, render
from exporter.usage.prometheus import exposition
from exporter.usage_api.answers import Answers, NoNumbersError
from exporter.usage_api.openapi import PARAMETERS
from exporter.usage_api.parameters import client_of, parse

Handler = Callable[[dict[str, Any], Any], dict[str, Any]]

# For so many seconds, the health found is returned again: probes come often.
_HEALTH_KEPT_S = 10
# A caller may keep an answer for so long before it asks again, with the answer's ETag.
_KEPT = "private, max-age=60"


@dataclass(frozen=True, slots=True)
class Settings:
    """The function's environment; docs/reference/settings.md."""

    bucket: str
    usage_link_role: str
    usage_link_seconds: int
    alarm_prefix: str
    usage_tenant_claim: str = ""
    usage_admin_scope: str = ""


@dataclass(frozen=True, slots=True)
class UsageApi:
    """What the API answers with.

    Attributes:
        objects: The bucket.
        links: Makes links to the page.
        link_seconds: Seconds for which a link is valid.
        alarms: Returns the states of our alarms by name; None if they cannot be read.
        now: Gives the time.
    """

    objects: Downloads
    links: Links
    link_seconds: int
    alarms: Callable[[], Mapping[str, str] | None]
    now: Callable[[], datetime]
    _found: list[tuple[datetime, health.Facts]] = field(default_factory=list)

    def page_key(self, tenant: str | None) -> str | None:
        """Return the key of the page; a tenant's is made if it is not there. None if there are no numbers."""
        if tenant is None:
            return stored.PAGE if self.objects.has(stored.PAGE) else None
        there = stored.days_there(self.objects)
        if not there:
            return None
        days = {day: there[day] for day in sorted(there)[-stored.SHOWN_DAYS :]}
        named = json.dumps([tenant, *days.values()])
        key = f"{stored.TENANT_PAGES}{hashlib.sha256(named.encode()).hexdigest()[:32]}.html"
        if not self.objects.has(key):
            by_hour = {day for day in days if day > max(days) - timedelta(days=14)}
            rollups = Answers(self.objects).rollups(days, by_hour, tenant)
            page = render(rollups, Pipeline(self.now()), title=f"API usage of {tenant}")
            self.objects.put(key, [page.encode()], "text/html; charset=utf-8")
        return key

    def facts(self) -> health.Facts:
        """Return what is known of the health, at most a few seconds old."""
        now = self.now()
        if self._found and timedelta() <= now - self._found[0][0] < timedelta(seconds=_HEALTH_KEPT_S):
            return self._found[0][1]
        began, error, through = time.perf_counter(), "", None
        try:
            body = self.objects.get(stored.view_key("summary", "24h"))
            if body is not None:
                through = datetime.fromisoformat(json.loads(gzip.decompress(body))["data_through"])
        except (BotoCoreError, ClientError, OSError) as failure:
            error = f"{type(failure).__name__}: {failure}"
        taken = None if error else (time.perf_counter() - began) * 1_000
        facts = health.Facts(now, taken, error, through, self.alarms())
        self._found[:] = [(now, facts)]
        return facts


def make_handler(api: UsageApi, *, tenant_claim: str = "", admin_scope: str = "") -> Handler:
    """Return a Lambda handler for the API of usage.

    Args:
        api: What it answers with.
        tenant_claim: The claim of a token that names the client whose numbers a caller may have; `*` for all,
            empty if requests are signed.
        admin_scope: A token with this scope gives all numbers.
    """
    app = APIGatewayHttpResolver()
    answers = Answers(api.objects)

    def tenant() -> str | None:
        return client_of(app.current_event.raw_event, tenant_claim, admin_scope)

    def ask() -> Response[Any]:
        event = app.current_event.raw_event
        headers, path = event.get("headers") or {}, event["rawPath"]
        whose = tenant()
        question = parse(path, event.get("queryStringParameters") or {}, headers.get("accept", ""), whose)
        answer = answers.answer(question, whose)
        known = {
            "ETag": f'"{answer.tag}"',
            "Cache-Control": _KEPT,
            "Vary": "Accept, Accept-Encoding, Authorization",
        }
        if answer.tag in headers.get("if-none-match", ""):
            return Response(HTTPStatus.NOT_MODIFIED, body="", headers=known)
        kind = "text/csv; charset=utf-8" if question.csv else "application/json"
        response: Response[Any] = Response(HTTPStatus.OK, content_type=kind, headers=known)
        if "gzip" in headers.get("accept-encoding", ""):
            response.headers["Content-Encoding"] = "gzip"
            response.body = base64.b64encode(answer.body()).decode()
            response.base64_encoded = True
        else:
            response.body = gzip.decompress(answer.body()).decode()
        return response

    for path in PARAMETERS.keys() - {"/dashboard"}:
        app.get(path)(ask)
    _link_page(app, api, tenant)
    _tell_metrics(app, api, tenant)
    _tell_health(app, api)
    answer_errors(app)

    def nothing(_error: NoNumbersError) -> Response[Any]:
        return problem(HTTPStatus.NOT_FOUND, "there are no numbers yet: the roll-up writes them every hour")

    app.exception_handler(NoNumbersError)(nothing)
    return app.resolve


def _link_page(app: APIGatewayHttpResolver, api: UsageApi, tenant: Callable[[], str | None]) -> None:
    @app.get("/dashboard")
    def dashboard() -> Response[Any]:
        parse("/dashboard", app.current_event.raw_event.get("queryStringParameters") or {})
        key = api.page_key(tenant())
        if key is None:
            raise NoNumbersError
        link = api.links.link(key, seconds=api.link_seconds, filename=None)
        until = f"{link.expires_at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
        body = {"result": "ok", "dashboard_link": link.url, "expires_at": until}
        return Response(
            HTTPStatus.OK, content_type="application/json", body=json.dumps(body), headers=dict(NO_STORE)
        )


def _tell_metrics(app: APIGatewayHttpResolver, api: UsageApi, tenant: Callable[[], str | None]) -> None:
    @app.get("/metrics")
    def metrics() -> Response[Any]:
        if tenant() is not None:
            raise ForbiddenError("the counters are those of all clients: ask for /usage, which has yours")
        counters, _ = stored.read_counters(api.objects)
        if counters is None:
            raise NoNumbersError
        accept = (app.current_event.raw_event.get("headers") or {}).get("accept", "")
        body, kind = exposition(counters, accept)
        return Response(HTTPStatus.OK, content_type=kind, body=body.decode(), headers=dict(NO_STORE))


def _tell_health(app: APIGatewayHttpResolver, api: UsageApi) -> None:
    def told(found: list[health.Finding], *, details: bool) -> Response[Any]:
        accept = (app.current_event.raw_event.get("headers") or {}).get("accept", "")
        reply = health.answer(found, api.now(), accept=accept, details=details)
        headers: dict[str, str | list[str]] = {"Cache-Control": f"max-age={_HEALTH_KEPT_S}"}
        return Response(
            reply.status_code, content_type=reply.content_type, body=json.dumps(reply.body), headers=headers
        )

    @app.get("/health")
    def status() -> Response[Any]:
        return told(health.findings(api.facts()), details=False)

    @app.get("/health/details")
    def details() -> Response[Any]:
        return told(health.findings(api.facts()), details=True)

    @app.get("/health/live")
    def live() -> Response[Any]:
        return told([], details=False)

    @app.get("/health/ready")
    def ready() -> Response[Any]:
        return told(health.ready(api.facts()), details=False)


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Answer a request to the API of usage."""
    return _from_environment()(event, context)


@cache
def _from_environment() -> Handler:
    settings = read_settings(Settings, os.environ)
    quick = Config(connect_timeout=3, read_timeout=5, max_pool_connections=stored.READERS)
    sts, cloudwatch = boto3.client("sts", config=quick), boto3.client("cloudwatch", config=quick)

    def assume() -> Mapping[str, Any]:
        answer = sts.assume_role(RoleArn=settings.usage_link_role, RoleSessionName="usage-links")
        credentials: Mapping[str, Any] = answer["Credentials"]
        return credentials

    def client(credentials: Mapping[str, Any]) -> Any:
        return boto3.client(
            "s3",
            config=client_config(),
            aws_access_key_id=credentials["AccessKeyId"],
            aws_secret_access_key=credentials["SecretAccessKey"],
            aws_session_token=credentials["SessionToken"],
        )

    def alarms() -> Mapping[str, str] | None:
        try:
            pages = cloudwatch.get_paginator("describe_alarms").paginate(
                AlarmNamePrefix=settings.alarm_prefix, AlarmTypes=["CompositeAlarm"]
            )
            found = [alarm for page in pages for alarm in page["CompositeAlarms"]]
        except (BotoCoreError, ClientError):
            return None
        return {alarm["AlarmName"]: alarm["StateValue"] for alarm in found}

    def now() -> datetime:
        return datetime.now(UTC)

    objects = Bucket(boto3.client("s3", config=client_config().merge(quick)), settings.bucket)
    signer = Signer(assume, client, settings.bucket, now)
    api = UsageApi(objects, signer, settings.usage_link_seconds, alarms, now)
    return make_handler(api, tenant_claim=settings.usage_tenant_claim, admin_scope=settings.usage_admin_scope)
