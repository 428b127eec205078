"""Who may call a REST API: signed requests, tokens of Cognito, and what a function decides.

https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-control-access-to-api.html
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from onemachine import rest_api
from onemachine.authorizers import API_KEY_HEADER, InvalidTokenError, JwtAuthorizer
from onemachine.functions import ACCOUNT_ID, Invoke, Result
from onemachine.http_api import Authorizer, RefusedError
from onemachine.http_messages import Request
from onemachine.linear_regex import LinearRegex, quoted
from onemachine.payload_one import Place, event_one
from onemachine.rest_api import Authorize, GatewayError
from onemachine.template.stack import REGION


def signed(authorizer: Authorizer) -> Authorize:
    """Return what lets signed requests through: `authorizers.IamAuthorizer`, with a REST API's answers."""

    def authorize(request: Request, _: Place, now: datetime) -> Mapping[str, Any]:
        if request.header("authorization") is None and request.header(API_KEY_HEADER) is None:
            raise GatewayError(rest_api.MISSING_TOKEN)
        try:
            caller: Mapping[str, Any] = authorizer.authorize(request, (), now)
        except RefusedError as error:
            raise GatewayError(rest_api.INVALID_SIGNATURE) from error
        return caller

    return authorize


def of_user_pool(authorizer: JwtAuthorizer, header: str, scopes: Sequence[str]) -> Authorize:
    """Return what lets requests through that have a token of a Cognito user pool.

    Args:
        authorizer: Checks the tokens.
        header: The header that has them.
        scopes: What a token has to allow, one of them.
    """

    def authorize(request: Request, _: Place, now: datetime) -> Mapping[str, Any]:
        if not request.header(header.lower()):
            raise GatewayError(rest_api.UNAUTHORIZED)
        try:
            return {"claims": authorizer.authorize(request, scopes, now)["jwt"]["claims"]}
        except RefusedError as error:
            is_expired = isinstance(error.__cause__, InvalidTokenError) and "expired" in str(error.__cause__)
            raise GatewayError(rest_api.EXPIRED_TOKEN if is_expired else rest_api.UNAUTHORIZED) from error

    return authorize


@dataclass(frozen=True, slots=True)
class LambdaAuthorizer:
    """A function that lets requests through, or not, by the policy that it returns.

    https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-use-lambda-authorizer.html

    Attributes:
        function: Its name.
        invoke: Calls a function by its name.
        sources: What a request has to have, such as `method.request.header.Authorization`.
        of_token: Whether it gets the token alone (TOKEN) or the whole request (REQUEST).
        expression: What a token has to match; None for anything.
    """

    function: str
    invoke: Invoke
    sources: tuple[str, ...]
    of_token: bool
    expression: LinearRegex | None = None

    def __call__(self, request: Request, place: Place, now: datetime) -> Mapping[str, Any]:
        """Ask the function; see `Authorize`."""
        found = [
            place.stage if source == "context.stage" else rest_api.source_value(request, place, source)
            for source in self.sources
        ]
        if not all(found) or (self.expression is not None and not self.expression.is_in(found[0] or "")):
            raise GatewayError(rest_api.UNAUTHORIZED)
        path = place.path.removeprefix("/")
        arn = (
            f"arn:aws:execute-api:{REGION}:{ACCOUNT_ID}:{place.api_id}/{place.stage}/{request.method}/{path}"
        )
        if self.of_token:
            event = {"type": "TOKEN", "methodArn": arn, "authorizationToken": found[0]}
        else:
            event = {
                "type": "REQUEST",
                "methodArn": arn,
                **event_one(request, place, now, (None, False), None),
            }
            del event["body"], event["isBase64Encoded"]
        result = self.invoke(self.function, json.dumps(event).encode())
        return self._allowed(result, arn)

    def _allowed(self, result: Result, arn: str) -> Mapping[str, Any]:
        try:
            answer = json.loads(result.payload)
            if result.error:
                # What a function raises to refuse: https://docs.aws.amazon.com/apigateway/latest/developerguide/
                # apigateway-use-lambda-authorizer.html
                raise GatewayError(
                    rest_api.UNAUTHORIZED
                    if answer.get("errorMessage") == "Unauthorized"
                    else rest_api.AUTHORIZER_FAILED
                )
            effects = {
                statement["Effect"]
                for statement in answer["policyDocument"]["Statement"]
                if any(_matches(arn, resource) for resource in _listed(statement["Resource"]))
                and any(_matches("execute-api:Invoke", action) for action in _listed(statement["Action"]))
            }
            if "Deny" in effects:
                raise GatewayError(rest_api.EXPLICITLY_DENIED)
            if "Allow" not in effects:
                raise GatewayError(rest_api.ACCESS_DENIED)
            context = {name: _flat(value) for name, value in (answer.get("context") or {}).items()}
            key = {rest_api.USAGE_KEY: answer[rest_api.USAGE_KEY]} if rest_api.USAGE_KEY in answer else {}
            return {**context, **key, "principalId": str(answer["principalId"]), "integrationLatency": 0}
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise GatewayError(rest_api.AUTHORIZER_FAILED) from error


def _listed(value: Any) -> list[str]:
    return value if isinstance(value, list) else [value]


def _matches(text: str, pattern: str) -> bool:
    wild = "".join({"*": ".*", "?": "."}.get(each, quoted(each)) for each in pattern)
    return LinearRegex(f"(?i)^{wild}$", over_lines=True).is_in(text)


def _flat(value: Any) -> str:
    """Return a value of an authorizer's context: functions get it as a string."""
    if isinstance(value, dict | list):
        raise TypeError("a value of the context is an object or a list")
    return value if isinstance(value, str) else json.dumps(value)
