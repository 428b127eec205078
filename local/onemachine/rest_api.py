"""A REST API of API Gateway on one machine: one stage of it, with functions behind its methods.

What differs from an HTTP API: the stage is in the path, events have payload format 1.0, a function's answer
has to have a status, and the template can change what API Gateway itself answers (gateway responses).

https://docs.aws.amazon.com/apigateway/latest/developerguide/supported-gateway-response-types.html
"""

from __future__ import annotations

import base64
import fnmatch
import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs, unquote

from onemachine.authorizers import API_KEY_HEADER
from onemachine.functions import Invoke, Result, ThrottledError
from onemachine.http_api import HttpApi, Route, answer_headers, find_route
from onemachine.http_messages import Request, Response
from onemachine.payload_one import Place, event_one

logger = logging.getLogger(__name__)

_FALLBACKS = {4: "DEFAULT_4XX", 5: "DEFAULT_5XX"}


@dataclass(frozen=True, slots=True)
class GatewayAnswer:
    """What API Gateway answers itself: its type, status, message, kind of error, and what a body lacks."""

    type: str
    status: int
    message: str | None
    error: str
    details: str = ""


# Types and statuses: the page above. Messages: as the service gives them.
MISSING_TOKEN = GatewayAnswer(
    "MISSING_AUTHENTICATION_TOKEN", 403, "Missing Authentication Token", "MissingAuthenticationTokenException"
)
UNKNOWN_STAGE = GatewayAnswer("ACCESS_DENIED", 403, "Forbidden", "ForbiddenException")
INVALID_API_KEY = GatewayAnswer("INVALID_API_KEY", 403, "Forbidden", "ForbiddenException")
ACCESS_DENIED = GatewayAnswer(
    "ACCESS_DENIED", 403, "User is not authorized to access this resource", "AccessDeniedException"
)
EXPLICITLY_DENIED = replace(
    ACCESS_DENIED, message="User is not authorized to access this resource with an explicit deny"
)
INVALID_SIGNATURE = GatewayAnswer(
    "INVALID_SIGNATURE",
    403,
    "The request signature we calculated does not match the signature you provided. Check your AWS Secret "
    "Access Key and signing method. Consult the service documentation for details.",
    "InvalidSignatureException",
)
UNAUTHORIZED = GatewayAnswer("UNAUTHORIZED", 401, "Unauthorized", "UnauthorizedException")
EXPIRED_TOKEN = GatewayAnswer("EXPIRED_TOKEN", 401, "The incoming token has expired", "UnauthorizedException")
BAD_PARAMETERS = GatewayAnswer(
    "BAD_REQUEST_PARAMETERS", 400, "Missing required request parameters", "BadRequestException"
)
BAD_BODY = GatewayAnswer("BAD_REQUEST_BODY", 400, "Invalid request body", "BadRequestException")
QUOTA_EXCEEDED = GatewayAnswer("QUOTA_EXCEEDED", 429, "Limit Exceeded", "LimitExceededException")
THROTTLED = GatewayAnswer("THROTTLED", 429, "Too Many Requests", "TooManyRequestsException")
REQUEST_TOO_LARGE = GatewayAnswer(
    "REQUEST_TOO_LARGE", 413, "Request Too Long", "RequestEntityTooLargeException"
)
INTEGRATION_TIMEOUT = GatewayAnswer("INTEGRATION_TIMEOUT", 504, "Endpoint request timed out", "")
AUTHORIZER_FAILED = GatewayAnswer(
    "AUTHORIZER_CONFIGURATION_ERROR", 500, None, "AuthorizerConfigurationException"
)
FAILED = GatewayAnswer("DEFAULT_5XX", 500, "Internal server error", "InternalServerErrorException")
MALFORMED = GatewayAnswer("DEFAULT_5XX", 502, "Internal server error", "InternalServerErrorException")


class GatewayError(Exception):
    """API Gateway answers a request itself.

    Attributes:
        answer: What it answers.
    """

    def __init__(self, answer: GatewayAnswer) -> None:
        super().__init__(answer.type)
        self.answer = answer


@dataclass(frozen=True, slots=True)
class GatewayResponse:
    """How a template changes what API Gateway answers itself.

    Attributes:
        status: Another status; None leaves it.
        headers: More headers.
        template: The body for JSON, with variables such as `$context.error.message`; None leaves it.
    """

    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    template: str | None = None


Authorize = Callable[[Request, Place, datetime], Mapping[str, Any]]
"""Returns what the event has in `requestContext.authorizer`, or raises a GatewayError."""

Check = Callable[[Request, Place], None]
"""Raises a GatewayError for a request that is not as the method requires it."""

USAGE_KEY = "usageIdentifierKey"
"""What an authorizer's answer has the API key in, where authorizers give it."""


@dataclass(frozen=True, slots=True)
class Method:
    """A method of a resource.

    Attributes:
        route: The method, the resource's path and the function.
        authorize: What lets requests through; None for nothing.
        asks_key: Whether requests have to have an API key.
        check: Validates requests; None for all as they are.
        fixed: The response of an integration without a function (mock); None for a function's.
    """

    route: Route
    authorize: Authorize | None = None
    asks_key: bool = False
    check: Check | None = None
    fixed: Response | None = None


Admit = Callable[[str | None, tuple[str, str], Method, datetime], str | None]


class RestApi(HttpApi):
    """One stage of a REST API on a port of this machine.

    Args:
        methods: Its methods.
        invoke: Calls a function by its name.
        stage: The stage's name, with which paths begin.
        binary: The media types of bodies that functions get and give as base64, such as `image/*`.
        gateway_responses: What the template changes of API Gateway's own answers, by their type.
        admit: Counts a request with an API key for a stage and method at a time, and returns the key's id;
            see `UsagePlans.admit`. None if no method asks for a key.
        keys_of_authorizers: Whether authorizers give the API keys, and not the header `x-api-key`.
        settings: What all APIs have; see `HttpApi`.
    """

    def __init__(
        self,
        methods: Sequence[Method],
        invoke: Invoke,
        *,
        stage: str,
        binary: Sequence[str] = (),
        gateway_responses: Mapping[str, GatewayResponse] | None = None,
        admit: Admit | None = None,
        keys_of_authorizers: bool = False,
        **settings: Any,
    ) -> None:
        super().__init__([method.route for method in methods], invoke, **settings)
        self._methods = {(method.route.method, method.route.path): method for method in methods}
        self._stage = stage
        self._binary = [each.lower() for each in binary]
        self._gateway_responses = dict(gateway_responses or {})
        self._admit = admit
        self._keys_of_authorizers = keys_of_authorizers

    def find(self, request: Request) -> tuple[Route, dict[str, str]] | None:
        """Choose the resource by the path, and then its method: another resource is not tried."""
        path = self._below_stage(request)
        if path is None:
            return None
        resource = find_route([replace(route, method="ANY") for route in self.routes], "ANY", path)
        if resource is None:
            return None
        return find_route(
            [each for each in self.routes if each.path == resource[0].path], request.method, path
        )

    def routed(self, request: Request, found: tuple[Route, dict[str, str]] | None) -> Response:
        """Answer a request of a method, or of none."""
        try:
            return self._answered(request, found)
        except GatewayError as error:
            return self._own_answer(error.answer)
        except TimeoutError:
            return self._own_answer(INTEGRATION_TIMEOUT)
        except ThrottledError:
            return self._own_answer(FAILED)
        # The client must get an answer, and the service has one for everything that goes wrong behind it.
        except Exception:
            logger.exception("%s %s", request.method, request.target)
            return self._own_answer(FAILED)

    def too_large(self) -> Response:
        """Return the answer to a request of more than `MAX_REQUEST_BYTES`."""
        return self._own_answer(REQUEST_TOO_LARGE)

    def _below_stage(self, request: Request) -> str | None:
        path = request.target.partition("?")[0]
        if path == f"/{self._stage}":
            return "/"
        return path.removeprefix(f"/{self._stage}") if path.startswith(f"/{self._stage}/") else None

    def _answered(self, request: Request, found: tuple[Route, dict[str, str]] | None) -> Response:
        path = self._below_stage(request)
        if path is None:
            raise GatewayError(UNKNOWN_STAGE)
        if found is None:
            raise GatewayError(MISSING_TOKEN)
        route, parameters = found
        method = self._methods[route.method, route.path]
        place = Place(
            self.api_id,
            self._stage,
            route.path,
            unquote(path),
            unquote(request.target.partition("?")[0]),
            parameters,
        )
        now = self.clock()
        authorized = dict(method.authorize(request, place, now)) if method.authorize else None
        given = (authorized or {}).pop(USAGE_KEY, None)
        key = given if self._keys_of_authorizers else request.header(API_KEY_HEADER)
        asks = method.asks_key and self._admit is not None
        key_id = self._admit(key, (self.api_id, self._stage), method, now) if asks and self._admit else None
        if not self.has_room(route):
            raise GatewayError(THROTTLED)
        if method.check is not None:
            method.check(request, place)
        if method.fixed is not None:
            return method.fixed
        event = event_one(request, place, now, self._body(request), authorized)
        if asks:
            event["requestContext"]["identity"] |= {"apiKey": key, "apiKeyId": key_id}
        result = self.call(route, event)
        if result is None:
            raise GatewayError(REQUEST_TOO_LARGE)
        return self._response(request, result)

    def _is_binary(self, media_type: str) -> bool:
        kind = media_type.partition(";")[0].strip().lower()
        return any(fnmatch.fnmatchcase(kind, each) for each in self._binary)

    def _body(self, request: Request) -> tuple[str | None, bool]:
        if not request.body:
            return None, False
        if self._is_binary(request.header("content-type") or "application/json"):
            return base64.b64encode(request.body).decode("ascii"), True
        return request.body.decode("utf-8", "replace"), False

    def _response(self, request: Request, result: Result) -> Response:
        """Turn a function's answer into a response: it has to have a status, and strings."""
        try:
            if result.error:
                raise GatewayError(MALFORMED)
            answer = json.loads(result.payload)
            content = answer.get("body") or ""
            headers = answer_headers(answer)
            if "content-type" not in dict(headers):
                headers.append(("content-type", "application/json"))
            body = content.encode()
            # Base64 is decoded for clients that accept a binary type; the first of `Accept` counts.
            if answer.get("isBase64Encoded") and self._is_binary(
                (request.header("accept") or "*/*").partition(",")[0].partition(";")[0]
            ):
                body = base64.b64decode(content, validate=True)
            status = int(answer["statusCode"])
            if not 100 <= status <= 599:  # noqa: PLR2004 - what HTTP has
                raise GatewayError(MALFORMED)
            return Response(status, headers, body)
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise GatewayError(MALFORMED) from error

    def _own_answer(self, answer: GatewayAnswer) -> Response:
        fallback = self._gateway_responses.get(_FALLBACKS[answer.status // 100], GatewayResponse())
        given = self._gateway_responses.get(answer.type, fallback)
        headers = [
            ("content-type", "application/json"),
            *([("x-amzn-errortype", answer.error)] if answer.error else []),
            *((name.lower(), value) for name, value in given.headers.items()),
        ]
        # The service writes "Message" where an authorizer's policy denies.
        name = "Message" if answer.error == "AccessDeniedException" else "message"
        body = json.dumps({name: answer.message})
        if given.template is not None:
            values = {
                "error.messageString": json.dumps(answer.message),
                "error.message": answer.message or "",
                "error.responseType": answer.type,
                "error.validationErrorString": answer.details,
                "stage": self._stage,
            }
            body = re.sub(
                r"\$context\.([A-Za-z.]+)", lambda found: values.get(found[1].rstrip("."), ""), given.template
            )
        return Response(given.status or answer.status, headers, body.encode())


def source_value(request: Request, place: Place, source: str) -> str | None:
    """Return what a request has at a place such as `method.request.querystring.token`; None without it."""
    kind, _, name = source.removeprefix("method.request.").partition(".")
    if kind == "header":
        return request.header(name.lower())
    if kind == "querystring":
        return next(iter(parse_qs(request.target.partition("?")[2]).get(name, [])), None)
    return place.parameters.get(name) if kind == "path" else None
