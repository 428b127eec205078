"""Requests as events of payload format 1.0: those of REST APIs, and of HTTP APIs that ask for it.

https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html,
https://docs.aws.amazon.com/apigateway/latest/developerguide/set-up-lambda-proxy-integrations.html
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from os import urandom
from typing import Any
from urllib.parse import parse_qsl

from onemachine.functions import ACCOUNT_ID
from onemachine.http_messages import Request

_UNKNOWN_OF_CALLERS = (
    *("accessKey", "accountId", "caller", "cognitoAuthenticationProvider", "cognitoAuthenticationType"),
    *("cognitoIdentityId", "cognitoIdentityPoolId", "principalOrgId", "user", "userArn"),
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a request arrived.

    Attributes:
        api_id: The API's id.
        stage: The stage's name.
        resource: The path of the route or resource, such as `/pets/{id}`.
        path: The request's path below the stage, decoded.
        full_path: The same with the stage, as the client has it.
        parameters: The values of the path's parameters, decoded.
    """

    api_id: str
    stage: str
    resource: str
    path: str
    full_path: str
    parameters: Mapping[str, str]


def event_one(
    request: Request,
    place: Place,
    now: datetime,
    body: tuple[str | None, bool],
    authorized: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Write a request as an event of payload format 1.0, as REST APIs do: without its version.

    Args:
        request: The request.
        place: Where it arrived.
        now: The time.
        body: The body as text, and whether that is base64.
        authorized: The authorizer's answer about the caller.

    Returns:
        The event. Names of headers are those of the client; of repeated ones the last is in `headers`, and
        all are in `multiValueHeaders`. What is empty is null.
    """
    headers = _with_forwarding(request)
    query = parse_qsl(request.target.partition("?")[2], keep_blank_values=True)
    given = {name.lower(): value for name, value in headers}
    return {
        "resource": place.resource,
        "path": place.path,
        "httpMethod": request.method,
        "headers": dict(headers) or None,
        "multiValueHeaders": _all_values(headers) or None,
        "queryStringParameters": dict(query) or None,
        "multiValueQueryStringParameters": _all_values(query) or None,
        "pathParameters": dict(place.parameters) or None,
        "stageVariables": None,
        "requestContext": {
            "accountId": ACCOUNT_ID,
            "apiId": place.api_id,
            # A signed request's caller is in the identity.
            "authorizer": {name: value for name, value in (authorized or {}).items() if name != "iam"}
            or None,
            "domainName": given.get("host", ""),
            "domainPrefix": place.api_id,
            "extendedRequestId": urandom(12).hex(),
            "httpMethod": request.method,
            "identity": _identity(request, given, authorized),
            "path": place.full_path,
            "protocol": request.protocol,
            "requestId": str(uuid.uuid4()),
            "requestTime": now.astimezone(UTC).strftime("%d/%b/%Y:%H:%M:%S +0000"),
            "requestTimeEpoch": int(now.timestamp() * 1000),
            "resourceId": None,
            "resourcePath": place.resource,
            "stage": place.stage,
        },
        "body": body[0],
        "isBase64Encoded": body[1],
    }


def _identity(
    request: Request, given: Mapping[str, str], authorized: Mapping[str, Any] | None
) -> dict[str, Any]:
    return {
        **dict.fromkeys(_UNKNOWN_OF_CALLERS),
        **_caller(authorized),
        "apiKey": given.get("x-api-key"),
        "sourceIp": request.source_ip,
        "userAgent": given.get("user-agent"),
    }


def _caller(authorized: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Return what is known of a caller whose request is signed."""
    signed = (authorized or {}).get("iam")
    if signed is None:
        return {}
    return {
        "accessKey": signed["accessKey"],
        "accountId": signed["accountId"],
        "caller": signed["callerId"],
        "user": signed["userId"],
        "userArn": signed["userArn"],
    }


def _with_forwarding(request: Request) -> list[tuple[str, str]]:
    host = request.header("host") or ""
    forwarded = [value for name, value in request.headers if name.lower() == "x-forwarded-for"]
    kept = [(name, value) for name, value in request.headers if not name.lower().startswith("x-forwarded-")]
    trace = f"Root=1-{int(time.time()):08x}-{urandom(12).hex()}"
    has_trace = any(name.lower() == "x-amzn-trace-id" for name, _ in kept)
    return [
        *kept,
        *([] if has_trace else [("X-Amzn-Trace-Id", trace)]),
        ("X-Forwarded-For", ", ".join([*forwarded, request.source_ip])),
        ("X-Forwarded-Port", host.rpartition(":")[2]),
        ("X-Forwarded-Proto", "http"),
    ]


def _all_values(pairs: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    values: dict[str, list[str]] = {}
    for name, value in pairs:
        values.setdefault(name, []).append(value)
    return values
