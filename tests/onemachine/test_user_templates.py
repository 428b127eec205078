"""A template of the user's own beside the pipeline's: what is run of it, and what is refused by name."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from onemachine.address import CREDENTIALS, client
from onemachine.http_api import AuthorizerSpec, Cors
from onemachine.pipeline import Pipeline, not_run
from onemachine.schedules import Schedule
from onemachine.sns import create_subscription
from onemachine.template.event_sources import stream_mappings
from onemachine.template.http_apis import http_apis
from onemachine.template.resolution import resolve
from onemachine.template.sam import translate
from onemachine.template.schedules import running_schedules, schedules
from onemachine.template.stack import Stack, TemplateError

from cli.apps import tagline_with_template

TEMPLATE = """
Transform: AWS::Serverless-2016-10-31
Globals: {Function: {Runtime: python3.13, CodeUri: src, Timeout: 10}}
Resources:
  Things:
    Type: AWS::DynamoDB::Table
    Properties:
      TableName: things
      BillingMode: PAY_PER_REQUEST
      AttributeDefinitions: [{AttributeName: id, AttributeType: S}]
      KeySchema: [{AttributeName: id, KeyType: HASH}]
  Files: {Type: AWS::EFS::FileSystem}
  Store:
    Type: AWS::S3::Bucket
    Properties:
      LifecycleConfiguration: {Rules: [{Id: all, Status: Enabled, ExpirationInDays: 7}]}
  Alerts: {Type: AWS::SNS::Topic}
  Mail:
    Type: AWS::SNS::Subscription
    Properties: {TopicArn: !Ref Alerts, Protocol: email, Endpoint: ops@example.com}
  Orders:
    Type: AWS::Serverless::Function
    Properties:
      Handler: orders.handler
      Policies:
        - {DynamoDBCrudPolicy: {TableName: !Ref Things}}
        - {Statement: [{Effect: Allow, Action: "dynamodb:*", Resource: !GetAtt Things.Arn}]}
      Layers: ["arn:aws:lambda:us-east-1:123456789012:layer:tools:1"]
      Events:
        Any:
          Type: HttpApi
          Properties: {Path: /orders, Method: GET, Auth: {Authorizer: AWS_IAM}, ApiId: !Ref Api}
  Api: {Type: AWS::Serverless::HttpApi, Properties: {Auth: {EnableIamAuthorizer: true}}}
  Fails:
    Type: AWS::Serverless::Function
    Properties:
      Handler: orders.fails
      LoggingConfig: {LogGroup: /shared, LogFormat: JSON, ApplicationLogLevel: ERROR, SystemLogLevel: WARN}
      EventInvokeConfig:
        MaximumRetryAttempts: 0
        DestinationConfig: {OnFailure: {Type: SNS, Destination: !Ref Alerts}}
  Never:
    Type: AWS::Serverless::Function
    Properties: {Handler: orders.handler, ReservedConcurrentExecutions: 0}
Outputs:
  Url: {Value: !GetAtt Api.ApiEndpoint}
"""

CODE = """
import tagline

emitter = tagline.Emitter()

def handler(event, context):
    emitter.emit({"route": "/orders", "method": "GET", "client": "ada", "status": 200})
    return {"statusCode": 200, "body": "taken"}

def fails(event, context):
    print('{"level": "INFO", "timestamp": "2026-11-20T09:00:00Z"}')
    raise ValueError("no")
"""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    (folder / "src").mkdir()
    (folder / "src" / "orders.py").write_text(CODE)
    (folder / "template.yml").write_text(TEMPLATE)
    return folder / "template.yml"


@pytest.fixture(scope="module")
def pipeline(path: Path) -> Iterator[Pipeline]:
    with Pipeline(tagline_with_template(path), enforce_auth=True) as pipeline:
        yield pipeline


def signed(url: str) -> urllib.request.Request:
    request = AWSRequest("GET", url)
    keys = Credentials(CREDENTIALS["AWS_ACCESS_KEY_ID"], CREDENTIALS["AWS_SECRET_ACCESS_KEY"])
    SigV4Auth(keys, "execute-api", "us-east-1").add_auth(request)
    return urllib.request.Request(url, headers=dict(request.headers.items()))


def test_what_an_own_function_says_is_stored(pipeline: Pipeline) -> None:
    url = f"{pipeline.outputs['app']['Url']}/orders"
    with urllib.request.urlopen(signed(url)) as response:
        assert response.read() == b"taken"
    pipeline.settle()
    outputs = pipeline.outputs["tagline"]
    table = f'"{outputs["TimestreamDatabase"]}"."{outputs["TimestreamTable"]}"'
    answer = pipeline.client("timestream-query").query(QueryString=f"SELECT route, source FROM {table}")
    rows = {tuple(datum["ScalarValue"] for datum in row["Data"]) for row in answer["Rows"]}
    assert rows == {("/orders", "/aws/lambda/app-Orders")}


def test_an_api_that_asks_for_a_signature_refuses_who_has_none(pipeline: Pipeline) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{pipeline.outputs['app']['Url']}/orders")
    with caught.value as error:
        assert (error.status, error.read()) == (403, b'{"message":"Forbidden"}')


def test_what_is_not_run_is_named(pipeline: Pipeline) -> None:
    assert pipeline.not_run == ["Files (AWS::EFS::FileSystem)", "the layers of Orders"]


def test_an_event_that_fails_is_told_by_e_mail(pipeline: Pipeline) -> None:
    functions = pipeline.client("lambda")
    answer = functions.invoke(FunctionName="app-Fails", InvocationType="Event", Payload=b'{"a": 1}')
    assert answer["StatusCode"] == 202
    pipeline.settle()
    mail = pipeline.services.outbox.mails()[-1]
    record = json.loads(mail.body)
    assert (mail.to, record["requestContext"]["condition"]) == ("ops@example.com", "RetriesExhausted")
    assert record["requestPayload"] == {"a": 1}


def test_levels_of_the_template_are_followed(pipeline: Pipeline) -> None:
    pipeline.client("lambda").invoke(FunctionName="app-Fails")
    pipeline.settle()
    events = pipeline.client("logs").filter_log_events(logGroupName="/shared")["events"]
    assert events
    assert {json.loads(event["message"])["level"] for event in events} == {"ERROR"}


def test_a_function_that_may_have_no_invocation_is_throttled(pipeline: Pipeline) -> None:
    once = client(pipeline.services.endpoint, "lambda", Config(retries={"total_max_attempts": 1}))
    with pytest.raises(once.exceptions.TooManyRequestsException, match="Rate Exceeded") as caught:
        once.invoke(FunctionName="app-Never")
    assert caught.value.response["Reason"] == "ReservedFunctionConcurrentInvocationLimitExceeded"


def test_the_tail_of_a_log_comes_back(pipeline: Pipeline) -> None:
    answer = pipeline.client("lambda").invoke(FunctionName="app-Orders", LogType="Tail")
    assert json.loads(answer["Payload"].read())["statusCode"] == 200
    assert "usage_record" in base64.b64decode(answer["LogResult"]).decode()


def test_the_control_plane_lists_what_runs(pipeline: Pipeline) -> None:
    service = pipeline.client("lambda")
    listed = service.list_functions()["Functions"]
    assert [each["FunctionName"] for each in listed] == pipeline.functions.names()

    fails = service.get_function(FunctionName="app-Fails")["Configuration"]
    again = service.get_function_configuration(FunctionName=fails["FunctionArn"])
    assert {name: again[name] for name in fails} == fails
    assert (fails["Handler"], fails["MemorySize"], fails["Timeout"]) == ("orders.fails", 128, 10)
    assert fails["LoggingConfig"] == {"LogFormat": "JSON", "LogGroup": "/shared"}

    consumer = pipeline.outputs["tagline"]["RowConsumerName"]
    (mapping,) = service.list_event_source_mappings(FunctionName=consumer)["EventSourceMappings"]
    assert (mapping["State"], mapping["EventSourceArn"].split(":")[2]) == ("Enabled", "kinesis")
    found = service.get_event_source_mapping(UUID=mapping["UUID"])
    assert {name: found[name] for name in mapping} == mapping


@pytest.mark.parametrize(
    ("operation", "arguments"),
    [
        ("get_function", {"FunctionName": "nobody"}),
        ("get_function_configuration", {"FunctionName": "nobody"}),
        ("get_event_source_mapping", {"UUID": "no" * 18}),
    ],
)
def test_what_lambda_does_not_have_is_not_found(
    pipeline: Pipeline, operation: str, arguments: dict[str, str]
) -> None:
    service = pipeline.client("lambda")
    with pytest.raises(service.exceptions.ResourceNotFoundException, match=r"not found: .*no"):
        getattr(service, operation)(**arguments)


# A call of each protocol that nothing stands for, and what a client reads of it.
UNKNOWN: list[tuple[str, str, dict[str, Any], str]] = [
    ("braket", "search_jobs", {"filters": []}, "nothing stands for POST /jobs of braket"),
    ("athena", "list_engine_versions", {}, "nothing stands for ListEngineVersions of athena"),
    ("elasticache", "describe_events", {}, "nothing stands for POST / of elasticache"),
    ("ec2", "describe_fast_launch_images", {}, "nothing stands for POST / of ec2"),
    ("route53", "list_cidr_collections", {}, "nothing stands for GET /2013-04-01/cidrcollection of route53"),
]


@pytest.mark.parametrize("call", UNKNOWN, ids=lambda call: call[0])
def test_what_nothing_stands_for_is_an_error_that_clients_read(
    pipeline: Pipeline, capfd: pytest.CaptureFixture[str], call: tuple[str, str, dict[str, Any], str]
) -> None:
    service, operation, arguments, complaint = call
    with pytest.raises(ClientError) as caught:
        getattr(pipeline.client(service), operation)(**arguments)

    error = caught.value.response["Error"]
    assert error["Code"] == "NotImplemented"
    assert error["Message"].startswith(complaint)
    assert "Traceback" not in "".join(capfd.readouterr())


def test_the_bucket_has_its_rules(pipeline: Pipeline) -> None:
    (rule,) = pipeline.client("s3").get_bucket_lifecycle_configuration(Bucket="app-store")["Rules"]
    assert (rule["ID"], rule["Expiration"]) == ("all", {"Days": 7})


def test_a_link_that_was_tampered_with_is_refused(pipeline: Pipeline) -> None:
    s3 = client(pipeline.services.endpoint, "s3", Config(signature_version="s3v4"))
    s3.put_object(Bucket="app-store", Key="a", Body=b"x")
    url = s3.generate_presigned_url("get_object", {"Bucket": "app-store", "Key": "a"}, ExpiresIn=60)
    with urllib.request.urlopen(url) as response:
        assert response.read() == b"x"
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(url.replace("Expires=60", "Expires=61"))
    with caught.value as error:
        assert b"<Code>SignatureDoesNotMatch</Code>" in error.read()


# --- refused ----------------------------------------------------------------------------------------------

FUNCTION = {"Handler": "a.b", "Runtime": "python3.13", "CodeUri": "src"}
STREAM = {"Stream": "arn:aws:kinesis:us-east-1:123456789012:stream/s", "StartingPosition": "LATEST"}
HTTP = {"Path": "/a", "Method": "GET"}


def function(event: tuple[str, dict[str, Any]] | None = None, **values: Any) -> dict[str, Any]:
    properties = {**FUNCTION, **values}
    if event:
        properties["Events"] = {"Event": {"Type": event[0], "Properties": event[1]}}
    return {"Type": "AWS::Serverless::Function", "Properties": properties}


def api(**properties: Any) -> dict[str, Any]:
    return {"Type": "AWS::Serverless::HttpApi", "Properties": properties}


ROUTE = function(("HttpApi", {**HTTP, "ApiId": {"Ref": "Api"}}))
LAMBDA_AUTHORIZER = {
    "Authorizers": {
        "Own": {
            "FunctionArn": "arn:aws:lambda:us-east-1:123456789012:function:f",
            "AuthorizerPayloadFormatVersion": "2.0",
        }
    },
    "DefaultAuthorizer": "Own",
}

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"F": function(DeadLetterQueue={"Type": "SQS", "TargetArn": "arn:aws:sqs:::q"})}, "F: DeadLetterConfig"),
    (
        {"F": function(("Kinesis", {**STREAM, "TumblingWindowInSeconds": 30}))},
        "FEvent: TumblingWindowInSeconds is not followed",
    ),
    (
        {"F": function(("Kinesis", {**STREAM, "FilterCriteria": {"Filters": [{"Pattern": "{}"}]}}))},
        "FEvent: FilterCriteria is not followed",
    ),
    (
        {"F": function(("EventBridgeRule", {"Pattern": {"source": ["aws.s3"]}}))},
        "FEvent: EventPattern is not followed",
    ),
    ({"F": ROUTE, "Api": api(StageVariables={"a": "b"})}, "StageVariables is not followed"),
    ({"F": ROUTE, "Api": api(StageName="prod")}, r"only the stage \$default"),
    ({"F": ROUTE, "Api": api(Auth=LAMBDA_AUTHORIZER)}, "authorizer Own is neither"),
    (
        {"F": function(("HttpApi", {**HTTP, "PayloadFormatVersion": "3.0"}))},
        r"PayloadFormatVersion has to be '2.0' or '1.0'",
    ),
]


def read(folder: Path, resources: dict[str, Any]) -> Stack:
    path = folder / "template.yml"
    (folder / "src").mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump({"Transform": "AWS::Serverless-2016-10-31", "Resources": resources}))
    app = tagline_with_template(path)[0]
    return resolve(translate(app.template), {}, stack_name="app", endpoint="http://127.0.0.1")


@pytest.mark.parametrize(("resources", "complaint"), REFUSED)
def test_what_cannot_be_run_is_refused_by_name(
    tmp_path: Path, resources: dict[str, Any], complaint: str
) -> None:
    def run() -> None:
        stack = read(tmp_path, resources)
        stream_mappings(stack)
        schedules(stack)
        http_apis(stack)

    with pytest.raises(TemplateError, match=complaint):
        run()


def test_functions_may_share_a_log_group(tmp_path: Path) -> None:
    shared = {f"F{n}": function(LoggingConfig={"LogGroup": "/all"}) for n in range(6)}
    read(tmp_path, shared)
    _, pipeline = tagline_with_template(tmp_path / "template.yml")
    assert pipeline.parameters["LogGroups"] == "/all"


def test_jwt_authorizers_cors_and_throttles_are_read(tmp_path: Path) -> None:
    tokens = {"issuer": "https://issuer.example.com", "audience": ["api"]}
    stack = read(
        tmp_path,
        {
            "F": ROUTE,
            "Api": api(
                Auth={
                    "Authorizers": {
                        "Tokens": {
                            "JwtConfiguration": tokens,
                            "IdentitySource": "$request.header.Authorization",
                            "AuthorizationScopes": ["orders"],
                        }
                    },
                    "DefaultAuthorizer": "Tokens",
                },
                CorsConfiguration={"AllowOrigins": ["https://a"], "AllowMethods": ["GET"], "MaxAge": 60},
                DefaultRouteSettings={"ThrottlingRateLimit": 10, "ThrottlingBurstLimit": 20},
            ),
        },
    )
    (spec,) = http_apis(stack)
    (route,) = spec.routes
    assert route.authorizer == AuthorizerSpec("jwt", "https://issuer.example.com", ("api",))
    assert route.scopes == ("orders",)
    assert spec.cors == Cors(("https://a",), ("GET",), (), (), 60, credentials=False)
    assert spec.throttle == (10.0, 20)
    assert not_run(stack) == []


def test_a_schedule_in_another_time_zone_is_refused(tmp_path: Path) -> None:
    schedule = {"ScheduleExpression": "rate(1 day)", "ScheduleExpressionTimezone": "Europe/Berlin"}
    with pytest.raises(TemplateError, match="FEvent: time zone Europe/Berlin is not followed"):
        running_schedules(read(tmp_path, {"F": function(("ScheduleV2", schedule))}))
    disabled = {**schedule, "State": "DISABLED"}
    assert running_schedules(read(tmp_path, {"F": function(("ScheduleV2", disabled))})) == []


def test_rules_are_schedules_too(tmp_path: Path) -> None:
    hourly = {"Schedule": "rate(1 hour)", "Input": "{}", "Name": "hourly"}
    assert running_schedules(read(tmp_path, {"F": function(("Schedule", hourly))})) == [
        Schedule("rate(1 hour)", "app-F", b"{}", "hourly", logical_id="FEvent")
    ]


def test_a_subscription_that_nothing_delivers_to_is_refused(tmp_path: Path) -> None:
    sms = {"TopicArn": "arn:aws:sns:us-east-1:123456789012:t", "Protocol": "sms", "Endpoint": "1"}
    sms_subscription = {"Type": "AWS::SNS::Subscription", "Properties": sms}
    stack = read(tmp_path, {"F": function(), "Sms": sms_subscription})
    with pytest.raises(TemplateError, match="Sms: topics deliver to email, email-json, sqs"):
        create_subscription(lambda _: None, stack.resources["Sms"])


def test_a_function_that_is_not_there_is_said_as_lambda_does(pipeline: Pipeline) -> None:
    with pytest.raises(ClientError, match="Function not found: arn:aws:lambda:us-east-1"):
        pipeline.client("lambda").invoke(FunctionName="nobody")
