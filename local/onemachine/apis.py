"""The HTTP and REST APIs of a stack, each served on a port of this machine."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

from onemachine.access_logs import Access, AccessLog
from onemachine.authorizers import ApiKeyAuthorizer, IamAuthorizer, JwtAuthorizer, read_keys
from onemachine.functions import Invoke
from onemachine.http_api import Authorizer, AuthorizerSpec, HttpApi, Route, Throttle
from onemachine.http_messages import Response
from onemachine.rest_api import Authorize, Method, RestApi
from onemachine.rest_authorizers import LambdaAuthorizer, of_user_pool, signed
from onemachine.signatures import Keys
from onemachine.template.http_apis import HttpApiSpec, http_apis
from onemachine.template.rest_apis import (
    RestApiSpec,
    RestAuthorizerSpec,
    RestMethodSpec,
    rest_apis,
    usage_plans,
)
from onemachine.template.stack import Stack, TemplateError
from onemachine.usage_plans import UsagePlans

# https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-execution-service-limits-table.html
_REST_TIMEOUT_S = 29.0


@dataclass(frozen=True, slots=True)
class ApiServers:
    """Starts what a stack's templates have of APIs.

    Attributes:
        invoke: Calls a function by its name.
        functions: The names of the functions that run; routes to others are left out.
        next_port: Gives the port of the next API; 0 for a free one.
        keys: The key pairs of signed requests.
        api_key: What lets a request through in place of a signature; None if nobody is asked.
        is_throttled: Whether APIs take no more requests than their stages allow.
        issuers: Where the keys of issuers are; see `authorizers.read_keys`.
        ship: Puts a line into a log group: its name, milliseconds, text.
        observe: Called with each request and the API's logical id; None for nobody.
    """

    invoke: Invoke
    functions: Collection[str]
    next_port: Callable[[], int]
    keys: Keys
    api_key: str | None
    is_throttled: bool
    issuers: Mapping[str, str]
    ship: Callable[[str, int, str], None]
    observe: Callable[[str, Access], None] | None

    def servers(self, stack: Stack) -> Iterator[tuple[str, str, HttpApi]]:
        """Yield a stack's APIs, not started: the logical id, the path of the stage, the server.

        An API of which a second stage is served has it in its name, as `Api/v2`.

        Raises:
            TemplateError: One has what is not served on one machine.
        """
        for http in http_apis(stack):
            yield http.api, "", self._http(http)
        plans = UsagePlans(usage_plans(stack), self.api_key, limits=self.is_throttled)
        seen: set[str] = set()
        for rest in rest_apis(stack):
            name = f"{rest.api}/{rest.stage}" if rest.api in seen else rest.api
            seen.add(rest.api)
            yield name, f"/{rest.stage}", self._rest(rest, plans)

    def _http(self, spec: HttpApiSpec) -> HttpApi:
        routes = [
            replace(route, authorizer=self._authorizer(cast("AuthorizerSpec | None", route.authorizer)))
            for route in spec.routes
            if route.function in self.functions
        ]
        return HttpApi(
            routes,
            self.invoke,
            cors=spec.cors,
            **self._settings(spec.api, "$default", spec.access_log),
            **self._throttles(spec.throttle, spec.route_throttles),
        )

    def _rest(self, spec: RestApiSpec, plans: UsagePlans) -> RestApi:
        methods = [
            self._method(each)
            for each in spec.methods
            if not each.function or each.function in self.functions
        ]
        return RestApi(
            methods,
            self.invoke,
            stage=spec.stage,
            binary=spec.binary,
            gateway_responses=spec.gateway_responses,
            admit=None if self.api_key is None else plans.admit,
            keys_of_authorizers=spec.keys_of_authorizers,
            timeout_s=_REST_TIMEOUT_S,
            **self._settings(spec.api, spec.stage, spec.access_log),
            **self._throttles(spec.throttle, spec.method_throttles),
        )

    def _settings(self, api: str, stage: str, log: tuple[str, str] | None) -> dict[str, Any]:
        return {
            "port": self.next_port(),
            "api_id": api,
            "access_log": self._access_log(log, api, stage),
            "observe": functools.partial(self.observe, api) if self.observe else None,
        }

    def _throttles(
        self, whole: tuple[float, int] | None, single: Mapping[str, tuple[float, int]]
    ) -> dict[str, Any]:
        if not self.is_throttled:
            return {}
        return {
            "throttle": Throttle(*whole) if whole else None,
            "route_throttles": {key: Throttle(*limits) for key, limits in single.items()},
        }

    def _access_log(self, log: tuple[str, str] | None, api: str, stage: str) -> AccessLog | None:
        if log is None:
            return None
        arn, line = log
        group = arn.partition(":log-group:")[2].removesuffix(":*")
        return AccessLog(line, functools.partial(self.ship, group), api, stage)

    def _authorizer(self, spec: AuthorizerSpec | None) -> Authorizer | None:
        if spec is None or self.api_key is None:
            return None
        if spec.kind == "iam":
            return ApiKeyAuthorizer(self.api_key, IamAuthorizer(self.keys))
        return self._tokens(spec.issuer, spec.audience, spec.identity_source)

    def _tokens(self, issuer: str, audience: tuple[str, ...] | None, source: str) -> JwtAuthorizer:
        place = self.issuers.get(issuer, issuer)
        return JwtAuthorizer(issuer, audience, functools.partial(read_keys, place), source)

    def _method(self, spec: RestMethodSpec) -> Method:
        route = Route(spec.method, spec.path, spec.function, timeout_s=spec.timeout_s)
        if not spec.function:
            return Method(route, fixed=Response(spec.status, [*spec.headers.items()], b""))
        check = None if spec.validator is None else spec.validator.check
        return Method(route, self._authorize(spec.authorizer), spec.asks_key, check)

    def _authorize(self, spec: RestAuthorizerSpec | None) -> Authorize | None:
        if spec is None or self.api_key is None:
            return None
        if spec.kind == "iam":
            return signed(ApiKeyAuthorizer(self.api_key, IamAuthorizer(self.keys)))
        if spec.kind == "cognito":
            header = spec.sources[0].rpartition(".")[2]
            return of_user_pool(
                self._tokens(spec.issuer, None, f"$request.header.{header}"), header, spec.scopes
            )
        if spec.function not in self.functions:
            raise TemplateError(f"the authorizer {spec.function} does not run here")
        return LambdaAuthorizer(
            spec.function, self.invoke, spec.sources, spec.kind == "token", spec.expression
        )
