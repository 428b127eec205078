"""The HTTP APIs of a stack: their routes, authorizers and stages."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from onemachine.http_api import AuthorizerSpec, Cors, Route
from onemachine.template.stack import Resource, Stack, TemplateError, function_name, refuse, text_of


@dataclass(frozen=True)
class HttpApiSpec:
    """An HTTP API.

    Attributes:
        api: Its logical id.
        routes: Its routes.
        cors: Its CORS configuration, if it has one.
        throttle: Requests per second, and at once, if its stage limits them.
        route_throttles: The same of routes that have their own limits, by the route's key.
        access_log: The ARN of the log group that has a line for each request, and the line's format.
    """

    api: str
    routes: tuple[Route, ...]
    cors: Cors | None
    throttle: tuple[float, int] | None
    route_throttles: Mapping[str, tuple[float, int]] = field(default_factory=dict)
    access_log: tuple[str, str] | None = None


def http_routes(stack: Stack) -> list[Route]:
    """List the routes of a stack's HTTP APIs.

    Args:
        stack: The stack.

    Returns:
        The routes, API by API.

    Raises:
        TemplateError: As of `http_apis`.
    """
    return [route for api in http_apis(stack) for route in api.routes]


def http_apis(stack: Stack) -> list[HttpApiSpec]:
    """List a stack's HTTP APIs, from the OpenAPI documents that the SAM transform made.

    Args:
        stack: The stack.

    Returns:
        The APIs.

    Raises:
        TemplateError: An API has what is not served on one machine: stage variables, a named stage, a Lambda
            authorizer, integrations that are no functions.
    """
    stages = {stage.properties["ApiId"]: stage for stage in stack.of_type("AWS::ApiGatewayV2::Stage")}
    specs = []
    for api in stack.of_type("AWS::ApiGatewayV2::Api"):
        if "Body" not in api.properties:
            raise TemplateError(f"{api.logical_id}: only APIs of AWS::Serverless::HttpApi are served here")
        body = api.properties["Body"]
        stage = stages.get(api.physical_id)
        specs.append(
            HttpApiSpec(
                api=api.logical_id,
                routes=tuple(
                    _http_route(api, body, path, verb, operation)
                    for path, verbs in body["paths"].items()
                    for verb, operation in verbs.items()
                ),
                cors=_cors(body.get("x-amazon-apigateway-cors")),
                throttle=_throttle(stage) if stage else None,
                route_throttles=_route_throttles(stage) if stage else {},
                access_log=_access_log(stage) if stage else None,
            )
        )
    return specs


def _access_log(stage: Resource) -> tuple[str, str] | None:
    given = stage.properties.get("AccessLogSettings")
    return None if given is None else (str(given["DestinationArn"]), str(given["Format"]))


def _http_route(
    api: Resource, body: Mapping[str, Any], path: str, verb: str, operation: Mapping[str, Any]
) -> Route:
    where = f"{api.logical_id}, {verb} {path}"
    integration = operation["x-amazon-apigateway-integration"]
    uri = str(integration.get("uri", ""))
    if integration.get("type", "").lower() != "aws_proxy" or "/functions/" not in uri:
        raise TemplateError(f"{where}: only integrations with functions are served here")
    payload = str(integration.get("payloadFormatVersion"))
    if payload not in {"1.0", "2.0"}:
        raise TemplateError(f"{where}: PayloadFormatVersion has to be '2.0' or '1.0'")
    authorizer, scopes = _authorizer(where, body, operation)
    return Route(
        method="ANY" if verb == "x-amazon-apigateway-any-method" else verb.upper(),
        path=path,
        function=function_of(uri),
        authorizer=authorizer,
        scopes=scopes,
        payload=payload,
        timeout_s=timeout_of(integration),
    )


def function_of(uri: str) -> str:
    """Return the name of the function in an integration's address."""
    return function_name(uri.split("/functions/")[1].split("/invocations", maxsplit=1)[0])


def timeout_of(integration: Mapping[str, Any]) -> float | None:
    """Return how long a client waits for an integration at most, in seconds; None if it has no limit."""
    return int(integration["timeoutInMillis"]) / 1000 if "timeoutInMillis" in integration else None


def _authorizer(
    where: str, body: Mapping[str, Any], operation: Mapping[str, Any]
) -> tuple[AuthorizerSpec | None, tuple[str, ...]]:
    schemes = body.get("components", {}).get("securitySchemes", {})
    required = [pair for each in operation.get("security", []) for pair in each.items() if pair[0] != "NONE"]
    if not required:
        return None, ()
    name, scopes = required[0]
    scheme = schemes.get(name, {})
    if scheme.get("x-amazon-apigateway-authtype") == "awsSigv4":
        return AuthorizerSpec("iam"), ()
    settings = scheme.get("x-amazon-apigateway-authorizer", {})
    if settings.get("type") != "jwt":
        raise TemplateError(f"{where}: authorizer {name} is neither AWS_IAM nor of JSON Web Tokens")
    tokens = settings["jwtConfiguration"]
    sources = settings.get("identitySource", "$request.header.Authorization")
    source = sources[0] if isinstance(sources, list) else sources
    audience = tokens.get("audience", [])
    audience = [audience] if isinstance(audience, str) else audience
    return AuthorizerSpec("jwt", tokens["issuer"], tuple(audience), source), tuple(scopes)


def _cors(configuration: Mapping[str, Any] | None) -> Cors | None:
    if configuration is None:
        return None
    age = configuration.get("maxAge")
    return Cors(
        origins=tuple(configuration.get("allowOrigins", ())),
        methods=tuple(configuration.get("allowMethods", ())),
        headers=tuple(configuration.get("allowHeaders", ())),
        exposed=tuple(configuration.get("exposeHeaders", ())),
        max_age_s=None if age is None else int(age),
        credentials=text_of(configuration.get("allowCredentials", False)) == "true",
    )


def _throttle(stage: Resource) -> tuple[float, int] | None:
    properties = stage.properties
    refuse(stage, properties, {"StageVariables"}, "give functions environment variables instead")
    if properties.get("StageName") != "$default":
        raise TemplateError(f"{stage.logical_id}: only the stage $default is served here")
    return throttling_limits(properties.get("DefaultRouteSettings", {}))


def _route_throttles(stage: Resource) -> dict[str, tuple[float, int]]:
    found = {
        key: throttling_limits(settings)
        for key, settings in stage.properties.get("RouteSettings", {}).items()
    }
    return {key: limits for key, limits in found.items() if limits is not None}


def throttling_limits(settings: Mapping[str, Any]) -> tuple[float, int] | None:
    """Return the requests per second and at once of a stage's settings; None if they do not limit them."""
    if "ThrottlingRateLimit" not in settings or "ThrottlingBurstLimit" not in settings:
        return None
    return float(settings["ThrottlingRateLimit"]), int(settings["ThrottlingBurstLimit"])
