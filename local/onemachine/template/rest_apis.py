"""The REST APIs of a template: their stages, methods, authorizers and changed answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from onemachine.http_api import Throttle
from onemachine.linear_regex import LinearRegex
from onemachine.request_validators import RequestValidator
from onemachine.rest_api import GatewayResponse
from onemachine.template.http_apis import function_of, throttling_limits, timeout_of
from onemachine.template.stack import Resource, Stack, TemplateError, text_of
from onemachine.usage_plans import Quota, UsagePlan

ANY_METHOD = "x-amazon-apigateway-any-method"
_VALIDATOR = "x-amazon-apigateway-request-validator"
_SOURCES = {
    "header": "method.request.header.{}",
    "query": "method.request.querystring.{}",
    "path": "method.request.path.{}",
}


@dataclass(frozen=True, slots=True)
class RestAuthorizerSpec:
    """What lets requests to a method through.

    Attributes:
        kind: `iam`, `cognito`, or of functions `token` or `request`.
        sources: What of a request it looks at, such as `method.request.header.Authorization`.
        function: The name of the function that decides.
        expression: What a token has to match, as a whole.
        issuer: The issuer of tokens.
        scopes: What a token has to allow, one of them.
    """

    kind: str
    sources: tuple[str, ...] = ()
    function: str = ""
    expression: LinearRegex | None = None
    issuer: str = ""
    scopes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RestMethodSpec:
    """A method of a resource.

    Attributes:
        method: Such as `GET`, or `ANY`.
        path: The resource's path.
        function: The name of the function that answers; empty for a fixed response.
        authorizer: What lets requests through; None for nothing.
        asks_key: Whether requests need an API key.
        validator: Validates requests; None for all as they are.
        timeout_s: The longest that a client waits for the function, in seconds; None for the API's.
        status: The status of a fixed response.
        headers: The headers of a fixed response.
    """

    method: str
    path: str
    function: str
    authorizer: RestAuthorizerSpec | None = None
    asks_key: bool = False
    validator: RequestValidator | None = None
    timeout_s: float | None = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RestApiSpec:
    """A stage of a REST API.

    Attributes:
        api: The API's logical id.
        stage: The stage's name.
        methods: Its methods.
        binary: Media types of bodies that are base64 for functions.
        throttle: Requests per second, and at once, if the stage limits them.
        method_throttles: The same of methods that have their own limits, by method and path.
        gateway_responses: What is changed of API Gateway's own answers, by their type.
        keys_of_authorizers: Whether authorizers give the API keys.
        access_log: The ARN of the log group that has a line for each request, and the line's format.
    """

    api: str
    stage: str
    methods: tuple[RestMethodSpec, ...]
    binary: tuple[str, ...]
    throttle: tuple[float, int] | None
    method_throttles: Mapping[str, tuple[float, int]]
    gateway_responses: Mapping[str, GatewayResponse]
    keys_of_authorizers: bool
    access_log: tuple[str, str] | None


def rest_apis(stack: Stack) -> Iterator[RestApiSpec]:
    """Yield the stages of a stack's REST APIs, from the OpenAPI documents that the SAM transform made.

    Raises:
        TemplateError: An API has what is not served on one machine: no document, or integrations that are
            neither functions nor mocks.
    """
    apis = {api.physical_id: api for api in stack.of_type("AWS::ApiGateway::RestApi")}
    for stage in stack.of_type("AWS::ApiGateway::Stage"):
        api = apis[stage.properties["RestApiId"]]
        if "Body" not in api.properties:
            raise TemplateError(f"{api.logical_id}: only REST APIs of AWS::Serverless::Api are served here")
        yield _rest_api(api, stage)


def _rest_api(api: Resource, stage: Resource) -> RestApiSpec:
    body = api.properties["Body"]
    limits = {
        _throttled(each): found
        for each in stage.properties.get("MethodSettings", [])
        if (found := throttling_limits(each)) is not None
    }
    log = stage.properties.get("AccessLogSetting")
    return RestApiSpec(
        api=api.logical_id,
        stage=stage.properties["StageName"],
        methods=tuple(
            _method(f"{api.logical_id}, {verb} {path}", body, path, verb, operation)
            for path, verbs in body["paths"].items()
            for verb, operation in verbs.items()
        ),
        binary=tuple(
            each.replace("~1", "/")
            for each in body.get(
                "x-amazon-apigateway-binary-media-types", api.properties.get("BinaryMediaTypes", ())
            )
        ),
        throttle=limits.pop("* /*", None),
        method_throttles=limits,
        gateway_responses={
            kind: GatewayResponse(
                int(given["statusCode"]) if "statusCode" in given else None,
                _fixed_headers(given.get("responseParameters") or {}, "gatewayresponse.header."),
                (given.get("responseTemplates") or {}).get("application/json"),
            )
            for kind, given in body.get("x-amazon-apigateway-gateway-responses", {}).items()
        },
        keys_of_authorizers=api.properties.get("ApiKeySourceType") == "AUTHORIZER",
        access_log=None if log is None else (str(log["DestinationArn"]), str(log["Format"])),
    )


def _throttled(settings: Mapping[str, Any]) -> str:
    """Return the method and path of a method's settings: `~1` is a slash in CloudFormation's."""
    path = str(settings.get("ResourcePath", "/*")).replace("~1", "/")
    path = f"/{path.lstrip('/')}"
    method = str(settings.get("HttpMethod", "*"))
    return f"{'ANY' if method == '*' and path != '/*' else method} {path}"


def _fixed_headers(parameters: Mapping[str, Any], prefix: str) -> dict[str, str]:
    """Return the headers whose values are constants, which are in single quotes."""
    return {
        name.removeprefix(prefix): str(value).strip("'")
        for name, value in parameters.items()
        if name.startswith(prefix) and str(value).startswith("'")
    }


def _method(
    where: str, body: Mapping[str, Any], path: str, verb: str, operation: Mapping[str, Any]
) -> RestMethodSpec:
    method = "ANY" if verb == ANY_METHOD else verb.upper()
    integration = operation["x-amazon-apigateway-integration"]
    kind = integration.get("type", "").lower()
    if kind == "mock":
        answer = integration.get("responses", {}).get("default", {})
        headers = _fixed_headers(answer.get("responseParameters", {}), "method.response.header.")
        return RestMethodSpec(method, path, "", status=int(answer.get("statusCode", 200)), headers=headers)
    uri = str(integration.get("uri", ""))
    if kind != "aws_proxy" or "/functions/" not in uri:
        raise TemplateError(f"{where}: only integrations with functions are served here")
    schemes = body.get("securityDefinitions", body.get("components", {}).get("securitySchemes", {}))
    required = {name: scopes for each in operation.get("security", []) for name, scopes in each.items()}
    asks_key = required.pop("api_key", None) is not None
    names = [name for name in required if name != "NONE"]
    authorizer = (
        _authorizer(where, names[0], schemes.get(names[0], {}), required[names[0]]) if names else None
    )
    try:
        validator = _validator(body, operation)
    except ValueError as error:
        raise TemplateError(f"{where}: the request validator: {error}") from error
    return RestMethodSpec(
        method, path, function_of(uri), authorizer, asks_key, validator, timeout_of(integration)
    )


def _validator(body: Mapping[str, Any], operation: Mapping[str, Any]) -> RequestValidator | None:
    """Return what validates a method's requests, or raise ValueError."""
    name = operation.get(_VALIDATOR, body.get(_VALIDATOR))
    if name is None:
        return None
    wanted = body.get(f"{_VALIDATOR}s", {}).get(name)
    if wanted is None:
        raise ValueError(f"{name} is not in the API's document")
    required: list[str] = []
    given: Mapping[str, Any] = operation.get("requestBody", {})
    schema = given.get("content", {}).get("application/json", {}).get("schema")
    for each in operation.get("parameters", ()):
        if each["in"] == "body":
            given, schema = each, each["schema"]
        elif each.get("required"):
            required.append(_SOURCES[each["in"]].format(each["name"]))
    if schema is not None:
        schema = {**{part: body[part] for part in ("definitions", "components") if part in body}, **schema}
    return RequestValidator(
        required if wanted.get("validateRequestParameters") else (),
        schema if wanted.get("validateRequestBody") else None,
        needs_body=bool(given.get("required")),
    )


def _authorizer(where: str, name: str, scheme: Mapping[str, Any], scopes: list[str]) -> RestAuthorizerSpec:
    if scheme.get("x-amazon-apigateway-authtype") == "awsSigv4":
        return RestAuthorizerSpec("iam")
    settings = scheme.get("x-amazon-apigateway-authorizer", {})
    kind = settings.get("type", "").lower()
    own_source = _SOURCES.get(scheme.get("in", ""), "{}").format(scheme.get("name", ""))
    if kind == "cognito_user_pools":
        region, pool = (
            settings["providerARNs"][0].split(":")[3],
            settings["providerARNs"][0].rpartition("/")[2],
        )
        issuer = f"https://cognito-idp.{region}.amazonaws.com/{pool}"
        return RestAuthorizerSpec(kind="cognito", sources=(own_source,), issuer=issuer, scopes=tuple(scopes))
    if kind not in {"token", "request"}:
        raise TemplateError(
            f"{where}: authorizer {name} is neither a signature's, Cognito's nor a function's"
        )
    listed = tuple(each.strip() for each in settings.get("identitySource", "").split(",") if each.strip())
    expression = settings.get("identityValidationExpression")
    try:
        whole = None if expression is None else LinearRegex(f"^(?:{expression})$")
    except ValueError as error:
        raise TemplateError(f"{where}: the ValidationExpression {expression} of {name}: {error}") from error
    sources = (own_source,) if kind == "token" else listed
    return RestAuthorizerSpec(kind, sources, function_of(settings["authorizerUri"]), whole)


def usage_plans(stack: Stack) -> list[UsagePlan]:
    """Return a stack's usage plans, each with its keys that are enabled.

    Args:
        stack: The stack.
    """
    keys = {key.physical_id: key for key in stack.of_type("AWS::ApiGateway::ApiKey")}
    apis = {api.physical_id: api.logical_id for api in stack.of_type("AWS::ApiGateway::RestApi")}
    found = []
    for plan in stack.of_type("AWS::ApiGateway::UsagePlan"):
        of_plan = [
            keys[each.properties["KeyId"]]
            for each in stack.of_type("AWS::ApiGateway::UsagePlanKey")
            if each.properties["UsagePlanId"] == plan.physical_id and each.properties["KeyId"] in keys
        ]
        stages = [
            ((apis.get(each["ApiId"], ""), each["Stage"]), each.get("Throttle", {}))
            for each in plan.properties.get("ApiStages", ())
        ]
        quota = plan.properties.get("Quota")
        found.append(
            UsagePlan(
                frozenset(stage for stage, _ in stages),
                {
                    key.properties.get("Value", ""): key.physical_id
                    for key in of_plan
                    if text_of(key.properties.get("Enabled", False)) == "true"
                },
                _throttle(plan.properties.get("Throttle", {})),
                {
                    (*stage, _method_and_path(method)): throttle
                    for stage, limits in stages
                    for method, settings in limits.items()
                    if (throttle := _throttle(settings))
                },
                quota and Quota(int(quota["Limit"]), quota["Period"], int(quota.get("Offset", 0))),
            )
        )
    return found


def _throttle(settings: Mapping[str, Any]) -> Throttle | None:
    """Return the limits of a usage plan; None if it has none."""
    if "RateLimit" not in settings or "BurstLimit" not in settings:
        return None
    return Throttle(float(settings["RateLimit"]), int(settings["BurstLimit"]))


def _method_and_path(text: str) -> str:
    """Return `GET /pets` for a usage plan's `/pets/GET`."""
    path, _, method = text.rpartition("/")
    return f"{method} {path or '/'}"
