"""REST APIs as API Gateway serves them: events, answers, and what API Gateway refuses itself."""

import base64
import contextlib
import json
import socket
import threading
import urllib.request
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta, timezone
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
import time_machine
from onemachine.apis import ApiServers
from onemachine.functions import Invoke, Result
from onemachine.http_api import HttpApi, Route
from onemachine.http_messages import Request, Response
from onemachine.pipeline import App, Pipeline
from onemachine.request_validators import RequestValidator
from onemachine.rest_api import GatewayError, Method
from onemachine.services import KEYS
from onemachine.template.resolution import resolve
from onemachine.template.sam import translate
from onemachine.template.stack import TemplateError
from onemachine.usage_plans import Quota, UsagePlan, UsagePlans

KEY = "the-key"
TEMPLATE = """
Transform: AWS::Serverless-2016-10-31
Globals:
  Api:
    Cors: {AllowOrigin: "'https://example.com'", AllowHeaders: "'x-a'"}
    BinaryMediaTypes: [image~1*]
Resources:
  Pets:
    Type: AWS::Serverless::Function
    Properties:
      CodeUri: .
      Handler: pets.handler
      Runtime: python3.13
      Events:
        Get: {Type: Api, Properties: {Method: get, Path: "/pets/{id}"}}
        Post: {Type: Api, Properties: {Method: post, Path: /pets}}
        All: {Type: Api, Properties: {Method: any, Path: "/{proxy+}", RestApiId: !Ref Own}}
        Keyed:
          Type: Api
          Properties: {Method: get, Path: /keyed, RestApiId: !Ref Own, Auth: {ApiKeyRequired: true}}
        Signed:
          Type: Api
          Properties: {Method: get, Path: /signed, RestApiId: !Ref Own, Auth: {Authorizer: AWS_IAM}}
        Token:
          Type: Api
          Properties: {Method: get, Path: /token, RestApiId: !Ref Own, Auth: {Authorizer: Tokens}}
        Asked:
          Type: Api
          Properties: {Method: get, Path: /asked, RestApiId: !Ref Own, Auth: {Authorizer: Requests}}
        Pool:
          Type: Api
          Properties: {Method: get, Path: /pool, RestApiId: !Ref Own, Auth: {Authorizer: Pool}}
        Old: {Type: HttpApi, Properties: {Method: get, Path: "/old/{id}", PayloadFormatVersion: "1.0"}}
  Decides:
    Type: AWS::Serverless::Function
    Properties: {CodeUri: ., Handler: a.b, Runtime: python3.13}
  Own:
    Type: AWS::Serverless::Api
    Properties:
      StageName: v1
      MethodSettings:
        - {HttpMethod: "*", ResourcePath: "/*", ThrottlingRateLimit: 1, ThrottlingBurstLimit: 3}
        - {HttpMethod: GET, ResourcePath: /keyed, ThrottlingRateLimit: 1, ThrottlingBurstLimit: 1}
      GatewayResponses:
        DEFAULT_4XX:
          ResponseParameters: {Headers: {X-Own: "'yes'"}}
        UNAUTHORIZED:
          StatusCode: 418
          ResponseTemplates: {application/json: '{"why":$context.error.messageString}'}
      Auth:
        Authorizers:
          Tokens: {FunctionArn: !GetAtt Decides.Arn, Identity: {ValidationExpression: "t-.*"}}
          Requests:
            FunctionArn: !GetAtt Decides.Arn
            FunctionPayloadType: REQUEST
            Identity: {QueryStrings: [q]}
          Pool: {UserPoolArn: "arn:aws:cognito-idp:us-east-1:123456789012:userpool/us-east-1_abc"}
Outputs:
  Url: {Value: !Sub "https://${ServerlessRestApi}.execute-api.${AWS::Region}.amazonaws.com/Prod/pets/"}
"""


class Functions:
    """Two functions: one that answers, and one that decides; `events` are what they got."""

    def __init__(self) -> None:
        self.answer: Any = {"statusCode": 200, "body": "ok"}
        self.policy: Any = None
        self.raises: str | None = None
        self.events: list[dict[str, Any]] = []

    def __call__(self, name: str, payload: bytes) -> Result:
        self.events.append(json.loads(payload))
        if name.endswith("Decides"):
            if self.raises is not None:
                return Result(json.dumps({"errorMessage": self.raises}).encode(), "Unhandled", "id")
            return Result(json.dumps(self.policy).encode(), None, "id")
        return Result(json.dumps(self.answer).encode(), None, "id")


@pytest.fixture
def functions() -> Functions:
    return Functions()


Serve = Callable[..., HttpApi]


def serving(
    template: str, functions: Invoke, folder: Path, *, asks: bool = True, throttles: bool = False
) -> dict[str, HttpApi]:
    """Return the APIs of a template by name."""
    path = folder / "template.yml"
    path.write_text(template)
    stack = resolve(translate(path), {}, stack_name="app", endpoint="http://127.0.0.1:5000")
    servers = ApiServers(
        invoke=functions,
        functions={"app-Pets", "app-Decides"},
        next_port=lambda: 0,
        keys=KEYS,
        api_key=KEY if asks else None,
        is_throttled=throttles,
        issuers={},
        ship=lambda *_: None,
        observe=None,
    )
    return {name: api for name, _, api in servers.servers(stack)}


@pytest.fixture
def serve(functions: Functions, tmp_path: Path) -> Serve:
    """Return a function that gives an API of the template."""
    return lambda name, **options: serving(TEMPLATE, functions, tmp_path, **options)[name]


def asked(method: str, target: str, headers: Mapping[str, str] | None = None, body: bytes = b"") -> Request:
    return Request(method, target, [("Host", "127.0.0.1:1"), *(headers or {}).items()], body, "192.0.2.7")


def shown(response: Response) -> tuple[int, Any]:
    return response.status, json.loads(response.body)


def test_a_function_gets_an_event_of_format_1(serve: Serve, functions: Functions) -> None:
    request = Request(
        "GET",
        "/Prod/pets/a%20b?x=1&x=2&y=",
        [("Host", "127.0.0.1:80"), ("X-Two", "1"), ("X-Two", "2"), ("User-Agent", "u")],
        b"",
        "192.0.2.7",
    )

    assert serve("ServerlessRestApi").answer(request).body == b"ok"

    (event,) = functions.events
    context = event.pop("requestContext")
    assert {name: value for name, value in event.items() if "eaders" not in name} == {
        "resource": "/pets/{id}",
        "path": "/pets/a b",
        "httpMethod": "GET",
        "queryStringParameters": {"x": "2", "y": ""},
        "multiValueQueryStringParameters": {"x": ["1", "2"], "y": [""]},
        "pathParameters": {"id": "a b"},
        "stageVariables": None,
        "body": None,
        "isBase64Encoded": False,
    }
    assert event["headers"]["X-Two"] == "2"
    assert event["multiValueHeaders"]["X-Two"] == ["1", "2"]
    assert event["headers"]["X-Forwarded-For"] == "192.0.2.7"
    assert (context["stage"], context["path"]) == ("Prod", "/Prod/pets/a b")
    assert (context["resourcePath"], context["authorizer"]) == ("/pets/{id}", None)
    assert (context["identity"]["sourceIp"], context["identity"]["userAgent"]) == ("192.0.2.7", "u")


def test_an_http_api_may_ask_for_format_1(serve: Serve, functions: Functions) -> None:
    functions.answer = {"statusCode": 201, "multiValueHeaders": {"X-A": ["1", "2"]}, "body": "made"}

    response = serve("ServerlessHttpApi").answer(asked("GET", "/old/7", {"X-B": "3"}))

    assert (response.status, response.body) == (201, b"made")
    assert [value for name, value in response.headers if name == "x-a"] == ["1", "2"]
    (event,) = functions.events
    assert (event["version"], event["resource"], event["path"]) == ("1.0", "/old/{id}", "/old/7")
    assert (event["headers"]["X-B"], event["requestContext"]["stage"]) == ("3", "$default")
    functions.answer = {"made": True}
    assert shown(serve("ServerlessHttpApi").answer(asked("GET", "/old/7"))) == (
        500,
        {"message": "Internal Server Error"},
    )


@pytest.mark.parametrize(
    ("method", "target", "message"),
    [
        ("GET", "/Prod/cats", "Missing Authentication Token"),
        ("DELETE", "/Prod/pets/1", "Missing Authentication Token"),
        ("GET", "/pets/1", "Forbidden"),
        ("GET", "/Test/pets/1", "Forbidden"),
    ],
)
def test_what_has_no_method_is_forbidden(method: str, target: str, message: str, serve: Serve) -> None:
    assert shown(serve("ServerlessRestApi").answer(asked(method, target))) == (403, {"message": message})


def test_the_path_chooses_the_resource_and_no_other_is_tried(serve: Serve, functions: Functions) -> None:
    own = serve("Own", asks=False)

    assert own.answer(asked("POST", "/v1/elsewhere/x")).status == 200
    assert shown(own.answer(asked("POST", "/v1/keyed"))) == (403, {"message": "Missing Authentication Token"})
    assert len(functions.events) == 1


@pytest.mark.parametrize(
    "answer",
    [None, "text", {"body": "no status"}, {"statusCode": 200, "body": {"an": "object"}}, {"statusCode": 99}],
)
def test_an_answer_that_is_not_of_the_format_is_a_bad_gateway(
    answer: Any, serve: Serve, functions: Functions
) -> None:
    functions.answer = answer

    assert shown(serve("ServerlessRestApi").answer(asked("GET", "/Prod/pets/1"))) == (
        502,
        {"message": "Internal server error"},
    )


@pytest.mark.parametrize(
    ("accepted", "body"), [("image/png", b"\x00\xff"), ("text/html, image/png", b"AP8="), ("*/*", b"AP8=")]
)
def test_binary_bodies_are_base64_for_functions(
    accepted: str, body: bytes, serve: Serve, functions: Functions
) -> None:
    functions.answer = {"statusCode": 200, "body": "AP8=", "isBase64Encoded": True}
    request = asked("POST", "/Prod/pets", {"Content-Type": "image/png", "Accept": accepted}, b"\x00\xff")

    assert serve("ServerlessRestApi").answer(request).body == body

    (event,) = functions.events
    assert (base64.b64decode(event["body"]), event["isBase64Encoded"]) == (b"\x00\xff", True)


def test_other_origins_are_answered_without_a_function(serve: Serve, functions: Functions) -> None:
    response = serve("ServerlessRestApi").answer(
        asked("OPTIONS", "/Prod/pets", {"Origin": "https://example.com"})
    )

    headers = {name.lower(): value for name, value in response.headers}
    assert response.status == 200
    assert headers["access-control-allow-origin"] == "https://example.com"
    assert headers["access-control-allow-headers"] == "x-a"
    assert functions.events == []


@pytest.mark.parametrize(("key", "status"), [(KEY, 200), ("other", 403), (None, 403)])
def test_a_method_may_ask_for_a_key(key: str | None, status: int, serve: Serve) -> None:
    response = serve("Own").answer(asked("GET", "/v1/keyed", {"X-Api-Key": key} if key else {}))

    assert response.status == status
    if status != 200:
        assert json.loads(response.body) == {"message": "Forbidden"}
        assert ("x-own", "yes") in response.headers


def test_what_is_not_signed_is_forbidden(serve: Serve) -> None:
    own = serve("Own")

    assert shown(own.answer(asked("GET", "/v1/signed"))) == (403, {"message": "Missing Authentication Token"})
    wrong = own.answer(asked("GET", "/v1/signed", {"Authorization": "AWS4-HMAC-SHA256 Credential=x"}))
    assert (wrong.status, dict(wrong.headers)["x-amzn-errortype"]) == (403, "InvalidSignatureException")
    assert own.answer(asked("GET", "/v1/signed", {"X-Api-Key": KEY})).status == 200


def test_requests_over_the_limit_are_refused_by_method(serve: Serve) -> None:
    own = serve("Own", throttles=True)

    statuses = [own.answer(asked("GET", "/v1/any")).status for _ in range(4)]
    keyed = [own.answer(asked("GET", "/v1/keyed", {"X-Api-Key": KEY})) for _ in range(2)]

    assert statuses == [200, 200, 200, 429]
    assert keyed[0].status == 200
    assert shown(keyed[1]) == (429, {"message": "Too Many Requests"})


def policy(effect: str, resource: str = "*") -> dict[str, Any]:
    statement = {"Action": "execute-api:Invoke", "Effect": effect, "Resource": resource}
    return {
        "principalId": "user-1",
        "policyDocument": {"Version": "2012-10-17", "Statement": [statement]},
        "context": {"plan": "gold", "seats": 3},
    }


@pytest.mark.parametrize(
    ("given", "status", "body"),
    [
        (policy("Allow"), 200, None),
        (policy("Allow", "arn:aws:execute-api:us-east-1:123456789012:Own/v1/GET/tok*"), 200, None),
        (
            policy("Allow", "arn:aws:execute-api:us-east-1:123456789012:Own/v1/POST/*"),
            403,
            {"Message": "User is not authorized to access this resource"},
        ),
        (
            policy("Deny"),
            403,
            {"Message": "User is not authorized to access this resource with an explicit deny"},
        ),
        ({"principalId": "user-1"}, 500, {"message": None}),
        ({**policy("Allow"), "context": {"a": [1]}}, 500, {"message": None}),
    ],
)
def test_a_function_decides_by_its_policy(
    given: Any, status: int, body: Any, serve: Serve, functions: Functions
) -> None:
    functions.policy = given

    response = serve("Own").answer(asked("GET", "/v1/token", {"Authorization": "t-1"}))

    assert response.status == status
    assert functions.events[0] == {
        "type": "TOKEN",
        "methodArn": "arn:aws:execute-api:us-east-1:123456789012:Own/v1/GET/token",
        "authorizationToken": "t-1",
    }
    if body is None:
        authorizer = functions.events[1]["requestContext"]["authorizer"]
        assert (authorizer["principalId"], authorizer["plan"], authorizer["seats"]) == ("user-1", "gold", "3")
    else:
        assert json.loads(response.body) == body


def test_a_function_that_raises_unauthorized_and_a_missing_token_are_401(
    serve: Serve, functions: Functions
) -> None:
    own = serve("Own")
    functions.raises = "Unauthorized"
    refused = own.answer(asked("GET", "/v1/token", {"Authorization": "t-1"}))
    functions.raises = "another"
    failed = own.answer(asked("GET", "/v1/token", {"Authorization": "t-1"}))
    asked_before = len(functions.events)
    missing = [own.answer(asked("GET", "/v1/token", headers)) for headers in ({}, {"Authorization": "x"})]
    missing += [own.answer(asked("GET", "/v1/asked")), own.answer(asked("GET", "/v1/pool"))]

    # The template answers 401 with a status and a body of its choice.
    assert {shown(each) == (418, {"why": "Unauthorized"}) for each in (refused, *missing)} == {True}
    assert failed.status == 500
    assert len(functions.events) == asked_before


def test_a_function_may_look_at_the_whole_request(serve: Serve, functions: Functions) -> None:
    functions.policy = policy("Allow")

    assert serve("Own").answer(asked("GET", "/v1/asked?q=1")).status == 200

    event = functions.events[0]
    assert (event["type"], event["queryStringParameters"], event["path"]) == ("REQUEST", {"q": "1"}, "/asked")
    assert event["requestContext"]["stage"] == "v1"


def test_nobody_is_asked_without_enforcement(serve: Serve, functions: Functions) -> None:
    own = serve("Own", asks=False)

    for path in ("keyed", "signed", "token", "asked", "pool"):
        assert own.answer(asked("GET", f"/v1/{path}")).status == 200
    assert len(functions.events) == 5


def test_an_output_has_the_address_on_this_machine(tmp_path: Path) -> None:
    path = tmp_path / "template.yml"
    path.write_text(TEMPLATE)
    stack = resolve(translate(path), {}, stack_name="app", endpoint="http://127.0.0.1:5000")

    assert stack.outputs({"ServerlessRestApi": "http://127.0.0.1:1"}) == {
        "Url": "http://127.0.0.1:1/Prod/pets/"
    }


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as opened:
        sockets = [opened.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]


def test_it_is_served_at_the_port_that_is_given_and_at_its_output(tmp_path: Path) -> None:
    (tmp_path / "template.yml").write_text(TEMPLATE)
    code = (
        "def handler(event, _):\n    return {'statusCode': 200, 'body': event['requestContext']['stage']}\n"
    )
    (tmp_path / "pets.py").write_text(code)
    with contextlib.ExitStack() as running:
        # Another program may take a port in between: others are tried.
        for _ in range(10):
            ports = free_ports(4)
            with contextlib.suppress(OSError):
                pipeline = Pipeline([App("app", tmp_path / "template.yml")], in_process=True, ports=ports)
                running.enter_context(pipeline)
                break
        url = pipeline.outputs["app"]["Url"]
        with urllib.request.urlopen(f"{url}7") as response:
            body = response.read()

    assert body == b"Prod"
    assert pipeline.services.endpoint == f"http://127.0.0.1:{ports[0]}"
    assert pipeline.addresses["app"] == {
        name: f"http://127.0.0.1:{port}"
        for name, port in zip(["ServerlessHttpApi", "Own", "ServerlessRestApi"], ports[1:], strict=True)
    }
    assert url == f"{pipeline.addresses['app']['ServerlessRestApi']}/Prod/pets/"
    assert pipeline.not_run == []


def test_a_rest_api_without_a_document_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "template.yml"
    path.write_text("""
Resources:
  Plain: {Type: AWS::ApiGateway::RestApi, Properties: {Name: plain}}
  Stage:
    Type: AWS::ApiGateway::Stage
    Properties: {RestApiId: !Ref Plain, StageName: v1}
""")
    stack = resolve(translate(path), {}, stack_name="app", endpoint="http://127.0.0.1:5000")
    servers = ApiServers(Functions(), (), lambda: 0, KEYS, None, False, {}, lambda *_: None, None)

    with pytest.raises(TemplateError, match="Plain: only REST APIs of AWS::Serverless::Api"):
        list(servers.servers(stack))


LIMITED = """
Transform: AWS::Serverless-2016-10-31
Resources:
  Pets:
    Type: AWS::Serverless::Function
    Properties:
      CodeUri: .
      Handler: pets.handler
      Runtime: python3.13
      Events:
        Get:
          Type: Api
          Properties: {Method: get, Path: /pets, RestApiId: !Ref Api, Auth: {ApiKeyRequired: true}}
        One:
          Type: Api
          Properties: {Method: get, Path: "/pets/{id}", RestApiId: !Ref Api, Auth: {ApiKeyRequired: true}}
        Other:
          Type: Api
          Properties: {Method: get, Path: /other, RestApiId: !Ref Unplanned, Auth: {ApiKeyRequired: true}}
        Add:
          Type: Api
          Properties:
            Method: post
            Path: "/pets/{id}"
            RestApiId: !Ref Api
            TimeoutInMillis: 20000
            RequestModel: {Model: pet, Required: true, ValidateBody: true, ValidateParameters: true}
            RequestParameters:
              - method.request.header.X-Shop: {Required: true}
              - method.request.querystring.q: {Required: true}
              - method.request.querystring.other
  Api:
    Type: AWS::Serverless::Api
    Properties:
      StageName: v1
      Models:
        pet:
          type: object
          required: [name]
          properties:
            name: {type: string, pattern: "^(a*)*b$"}
            kind: {$ref: "#/definitions/kind"}
        kind: {type: string, enum: [cat, dog]}
      GatewayResponses:
        BAD_REQUEST_BODY:
          ResponseTemplates: {application/json: '{"why":"$context.error.validationErrorString"}'}
  Unplanned: {Type: AWS::Serverless::Api, Properties: {StageName: v1}}
  Gold: {Type: AWS::ApiGateway::ApiKey, Properties: {Enabled: true, Value: gold-key-of-the-template}}
  Silver: {Type: AWS::ApiGateway::ApiKey, Properties: {Enabled: true}}
  Disabled: {Type: AWS::ApiGateway::ApiKey, Properties: {Enabled: false, Value: disabled-key-of-the-template}}
  Stray: {Type: AWS::ApiGateway::ApiKey, Properties: {Enabled: true, Value: stray-key-of-the-template}}
  Plan:
    Type: AWS::ApiGateway::UsagePlan
    Properties:
      ApiStages: [{ApiId: !Ref Api, Stage: v1, Throttle: {"/pets/{id}/GET": {RateLimit: 1, BurstLimit: 1}}}]
      Throttle: {RateLimit: 1, BurstLimit: 3}
      Quota: {Limit: 5, Period: WEEK, Offset: 1}
  GoldInPlan:
    Type: AWS::ApiGateway::UsagePlanKey
    Properties: {KeyId: !Ref Gold, KeyType: API_KEY, UsagePlanId: !Ref Plan}
  SilverInPlan:
    Type: AWS::ApiGateway::UsagePlanKey
    Properties: {KeyId: !Ref Silver, KeyType: API_KEY, UsagePlanId: !Ref Plan}
  DisabledInPlan:
    Type: AWS::ApiGateway::UsagePlanKey
    Properties: {KeyId: !Ref Disabled, KeyType: API_KEY, UsagePlanId: !Ref Plan}
"""
GOLD = "gold-key-of-the-template"


@pytest.fixture
def limited(functions: Functions, tmp_path: Path) -> Serve:
    return lambda name, **options: serving(LIMITED, functions, tmp_path, **options)[name]


@pytest.mark.parametrize(
    ("key", "status"),
    [
        (GOLD, 200),
        (KEY, 200),  # stands for Silver, to which the template gives no value
        (None, 403),
        ("", 403),
        ("another", 403),
        ("disabled-key-of-the-template", 403),
        ("stray-key-of-the-template", 403),
    ],
)
def test_only_the_keys_of_a_usage_plan_are_let_through(
    key: str | None, status: int, limited: Serve, functions: Functions
) -> None:
    response = limited("Api").answer(asked("GET", "/v1/pets", {} if key is None else {"X-Api-Key": key}))

    assert response.status == status
    if status == 403:
        assert json.loads(response.body) == {"message": "Forbidden"}
        assert ("x-amzn-errortype", "ForbiddenException") in response.headers
    else:
        identity = functions.events[0]["requestContext"]["identity"]
        assert identity["apiKey"] == key
        assert len(identity["apiKeyId"]) == 10


def test_an_api_in_no_usage_plan_takes_the_key_of_this_machine(limited: Serve) -> None:
    api = limited("Unplanned")

    assert [api.answer(asked("GET", "/v1/other", {"X-Api-Key": key})).status for key in (KEY, GOLD, "")] == [
        200,
        403,
        403,
    ]


def test_a_key_is_throttled_by_its_plan_and_its_method(limited: Serve) -> None:
    api = limited("Api", throttles=True)

    def statuses(path: str, key: str, times: int) -> list[int]:
        return [api.answer(asked("GET", path, {"X-Api-Key": key})).status for _ in range(times)]

    assert statuses("/v1/pets/1", GOLD, 2) == [200, 429]
    assert statuses("/v1/pets", GOLD, 4) == [200, 200, 200, 429]
    assert statuses("/v1/pets", KEY, 1) == [200]
    refused = api.answer(asked("GET", "/v1/pets", {"X-Api-Key": GOLD}))
    assert shown(refused) == (429, {"message": "Too Many Requests"})
    assert ("x-amzn-errortype", "TooManyRequestsException") in refused.headers


def test_a_quota_holds_for_each_key_and_period() -> None:
    stage, method = ("Api", "v1"), Method(Route("GET", "/pets", "pets"))
    keys = {"gold": "id-1", "silver": "id-2"}
    plans = UsagePlans([UsagePlan(frozenset([stage]), keys, quota=Quota(3, "WEEK", 1))], None)

    def taken(key: str, day: int) -> str:
        try:
            return plans.admit(key, stage, method, datetime(2026, 11, day, 23, 59, tzinfo=UTC)) or ""
        except GatewayError as error:
            return error.answer.message or ""

    # The first period has one request less. 2026-11-22 and 2026-11-29 are Sundays.
    assert [taken("gold", 27), taken("gold", 28), taken("gold", 28)] == ["id-1", "id-1", "Limit Exceeded"]
    assert taken("silver", 28) == "id-2"
    assert [taken("gold", 29) for _ in range(4)] == ["id-1", "id-1", "id-1", "Limit Exceeded"]


@pytest.mark.parametrize(
    ("period", "began"),
    [("DAY", date(2026, 12, 2)), ("WEEK", date(2026, 11, 29)), ("MONTH", date(2026, 12, 1))],
)
def test_a_period_begins_at_midnight_in_utc(period: str, began: date) -> None:
    tokyo = timezone(timedelta(hours=9))

    assert Quota(1, period).began(datetime(2026, 12, 3, 8, 59, tzinfo=tokyo)) == began


def test_a_quota_that_is_used_up_is_429(functions: Functions, tmp_path: Path) -> None:
    template = LIMITED.replace("BurstLimit: 3", "BurstLimit: 100")
    api = serving(template, functions, tmp_path, throttles=True)["Api"]
    with time_machine.travel(datetime(2026, 11, 25, tzinfo=UTC)):
        answers = [api.answer(asked("GET", "/v1/pets", {"X-Api-Key": GOLD})) for _ in range(5)]

    assert [each.status for each in answers] == [200, 200, 200, 200, 429]
    assert shown(answers[-1]) == (429, {"message": "Limit Exceeded"})
    assert ("x-amzn-errortype", "LimitExceededException") in answers[-1].headers


VALID = {"name": "aab", "kind": "cat"}


@pytest.mark.parametrize(
    ("target", "body", "answer"),
    [
        ("/v1/pets/1?q=1", VALID, None),
        ("/v1/pets/1", VALID, {"message": "Missing required request parameters: [q]"}),
        ("/v1/pets/1?q=", VALID, {"message": "Missing required request parameters: [q]"}),
        ("/v1/pets/1?q=1", {}, {"why": "['name' is a required property]"}),
        ("/v1/pets/1?q=1", {**VALID, "kind": "cow"}, {"why": "['cow' is not one of ['cat', 'dog']]"}),
    ],
)
def test_requests_are_validated(
    target: str, body: Any, answer: Any, limited: Serve, functions: Functions
) -> None:
    response = limited("Api").answer(asked("POST", target, {"X-Shop": "a"}, json.dumps(body).encode()))

    assert response.status == (400 if answer else 200)
    assert len(functions.events) == (not answer)
    if answer:
        assert json.loads(response.body) == answer
        assert ("x-amzn-errortype", "BadRequestException") in response.headers


def test_all_missing_parameters_are_named_and_a_body_of_another_type_has_no_model(limited: Serve) -> None:
    api = limited("Api")
    text = {"X-Shop": "a", "Content-Type": "text/plain"}

    assert shown(api.answer(asked("POST", "/v1/pets/1", {}, b"{}"))) == (
        400,
        {"message": "Missing required request parameters: [X-Shop, q]"},
    )
    assert api.answer(asked("POST", "/v1/pets/1?q=1", text, b"{}")).status == 200


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 100_000])
def test_a_body_that_is_no_json_is_a_bad_request(body: bytes, limited: Serve) -> None:
    response = limited("Api").answer(asked("POST", "/v1/pets/1?q=1", {"X-Shop": "a"}, body))

    assert (response.status, dict(response.headers)["x-amzn-errortype"]) == (400, "BadRequestException")


def test_the_pattern_of_a_model_is_read_in_linear_time(limited: Serve) -> None:
    # Python's engine would try 2 ** 400 ways.
    body = json.dumps({"name": "a" * 400}).encode()

    assert limited("Api").answer(asked("POST", "/v1/pets/1?q=1", {"X-Shop": "a"}, body)).status == 400


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"type": "nothing"}, "'nothing' is not valid"),
        ({"properties": {"a": {"pattern": "(?=b)"}}}, "invalid perl operator"),
        ({"patternProperties": {"a": {}}}, "patternProperties is not followed"),
        ({"items": [{"$ref": "#/definitions/none"}]}, "#/definitions/none is not in the API's document"),
    ],
)
def test_a_model_that_cannot_be_followed_is_refused(schema: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        RequestValidator((), schema)


def test_a_function_that_takes_too_long_is_504(tmp_path: Path) -> None:
    done = threading.Event()

    def slow(_name: str, _payload: bytes) -> Result:
        done.wait(60)
        return Result(b"null", None, "id")

    api = serving(LIMITED.replace("20000", "50"), slow, tmp_path)["Api"]
    response = api.answer(asked("POST", "/v1/pets/1?q=1", {"X-Shop": "a"}, json.dumps(VALID).encode()))
    done.set()
    api.stop()

    assert shown(response) == (504, {"message": "Endpoint request timed out"})


def test_a_body_of_more_than_10_mb_is_413(limited: Serve) -> None:
    api = limited("Api")
    with contextlib.closing(HTTPConnection("127.0.0.1", api.start(), timeout=60)) as connection:
        connection.putrequest("POST", "/v1/pets/1")
        connection.putheader("Content-Length", str(10 * 1024 * 1024 + 1))
        connection.endheaders()
        response = connection.getresponse()
        answer = response.status, json.loads(response.read()), response.headers["x-amzn-errortype"]
    api.stop()

    assert answer == (413, {"message": "Request Too Long"}, "RequestEntityTooLargeException")


def test_an_authorizer_may_give_the_key(functions: Functions, tmp_path: Path) -> None:
    template = TEMPLATE.replace("StageName: v1", "StageName: v1\n      ApiKeySourceType: AUTHORIZER").replace(
        "Auth: {Authorizer: Tokens}", "Auth: {Authorizer: Tokens, ApiKeyRequired: true}"
    )
    own = serving(template, functions, tmp_path)["Own"]
    statuses = []
    for key in ({}, {"usageIdentifierKey": "other"}, {"usageIdentifierKey": KEY}):
        functions.policy = {**policy("Allow"), **key}
        statuses.append(own.answer(asked("GET", "/v1/token", {"Authorization": "t-1"})).status)

    assert statuses == [403, 403, 200]
    assert "usageIdentifierKey" not in functions.events[-1]["requestContext"]["authorizer"]


def test_the_expression_of_a_token_is_read_in_linear_time(functions: Functions, tmp_path: Path) -> None:
    own = serving(TEMPLATE.replace('"t-.*"', '"(a*)*b"'), functions, tmp_path)["Own"]

    assert own.answer(asked("GET", "/v1/token", {"Authorization": "a" * 400})).status == 418
    functions.policy = policy("Allow")
    assert own.answer(asked("GET", "/v1/token", {"Authorization": "aab"})).status == 200
    with pytest.raises(TemplateError, match=r"ValidationExpression \(\?=t\) of Tokens"):
        serving(TEMPLATE.replace('"t-.*"', '"(?=t)"'), functions, tmp_path)
