"""CloudFormation's part, on templates small enough to work out by hand."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from onemachine.http_api import Route
from onemachine.template.event_sources import queue_mappings, stream_mappings
from onemachine.template.functions import functions
from onemachine.template.http_apis import http_routes
from onemachine.template.resolution import resolve
from onemachine.template.sam import LOCAL_CODE_BUCKET, translate
from onemachine.template.schedules import schedules
from onemachine.template.stack import ParameterError, Stack, TemplateError, UnresolvableError

ACCOUNT = "123456789012"
ENDPOINT = "http://127.0.0.1:5000"


def stack_of(template: dict[str, Any], **parameters: str) -> Stack:
    return resolve(template, parameters, stack_name="Shop", endpoint=ENDPOINT)


def resolved(value: Any, **template: Any) -> Any:
    """Gives what a property of a parameter store entry, beside a few other resources, becomes."""
    resources = {
        "Entry": {"Type": "AWS::SSM::Parameter", "Properties": {"Value": value}},
        "Queue": {"Type": "AWS::SQS::Queue"},
        "Off": {"Type": "AWS::SQS::Queue", "Condition": "No"},
    }
    parameters = {
        "Mode": {"Type": "String", "Default": "fast"},
        "Size": {"Type": "Number", "Default": 3},
    }
    conditions = {
        "Yes": {"Fn::Equals": [{"Ref": "Mode"}, "fast"]},
        "No": {"Fn::Not": [{"Condition": "Yes"}]},
        "Both": {"Fn::And": [{"Condition": "Yes"}, {"Condition": "No"}]},
        "Either": {"Fn::Or": [{"Condition": "Yes"}, {"Condition": "No"}]},
        "SizeIsThree": {"Fn::Equals": [{"Ref": "Size"}, "3"]},
    }
    template = {"Resources": resources, "Parameters": parameters, "Conditions": conditions, **template}
    return stack_of(template).resources["Entry"].properties.get("Value", "no value")


def if_(condition: str, then: Any = "then", otherwise: Any = "otherwise") -> dict[str, Any]:
    return {"Fn::If": [condition, then, otherwise]}


NO_VALUE = {"Ref": "AWS::NoValue"}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("text", "text"),
        (7, 7),
        (True, True),
        ({"Ref": "Mode"}, "fast"),
        ({"Ref": "Size"}, 3),
        ({"Ref": "AWS::Region"}, "us-east-1"),
        ({"Ref": "AWS::AccountId"}, ACCOUNT),
        ({"Ref": "AWS::StackName"}, "Shop"),
        ({"Ref": "AWS::Partition"}, "aws"),
        ({"Ref": "AWS::URLSuffix"}, "amazonaws.com"),
        ({"Ref": "Queue"}, f"{ENDPOINT}/{ACCOUNT}/Shop-Queue"),
        ({"Fn::GetAtt": ["Queue", "Arn"]}, f"arn:aws:sqs:us-east-1:{ACCOUNT}:Shop-Queue"),
        ({"Fn::GetAtt": "Queue.QueueName"}, "Shop-Queue"),
        ({"Fn::Sub": "${Mode}/${Size}/${Queue.QueueName}"}, "fast/3/Shop-Queue"),
        ({"Fn::Sub": "${!Mode} ${AWS::Region}"}, "${Mode} us-east-1"),
        ({"Fn::Sub": ["${Mine}-${Mode}", {"Mine": {"Ref": "Size"}}]}, "3-fast"),
        ({"Fn::Join": ["-", ["a", {"Ref": "Size"}, {"Ref": "Mode"}]]}, "a-3-fast"),
        ({"Fn::Join": [",", [True, if_("No", "x", NO_VALUE), "b"]]}, "true,b"),
        ({"Fn::Split": [",", "a,b"]}, ["a", "b"]),
        ({"Fn::Select": [1, {"Fn::Split": [":", "a:b:c"]}]}, "b"),
        ({"Fn::Select": ["0", ["first", "second"]]}, "first"),
        (if_("Yes"), "then"),
        (if_("No"), "otherwise"),
        (if_("Both"), "otherwise"),
        (if_("Either"), "then"),
        (if_("SizeIsThree"), "then"),
        (if_("Yes", {"Ref": "Size"}), 3),
        (if_("Yes", NO_VALUE), "no value"),
        ([1, if_("Yes", NO_VALUE), 2], [1, 2]),
        ({"kept": 1, "left out": NO_VALUE}, {"kept": 1}),
        ({"deep": [{"er": {"Ref": "Mode"}}]}, {"deep": [{"er": "fast"}]}),
        # A policy's Condition, and a map with a Ref beside another key, are no intrinsic functions.
        ({"Condition": {"Bool": {"aws:SecureTransport": "false"}}}, ...),
        ({"Condition": "Yes"}, ...),
        ({"Ref": "Mode", "other": 1}, ...),
    ],
)
def test_a_value_is_what_cloudformation_puts_in_its_place(value: Any, expected: Any) -> None:
    assert resolved(value) == (value if expected is ... else expected)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(alphabet="abcXYZ.-"), inner),
    )
)
def test_what_has_no_intrinsic_function_stays_as_it_is(value: Any) -> None:
    assert resolved(value) == value


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        ({"Ref": "Nothing"}, ["Entry.Value, Ref", "Nothing"]),
        ({"Ref": "Off"}, ["Entry.Value, Ref", "Off", "condition No"]),
        ({"Fn::GetAtt": ["Nothing", "Arn"]}, ["Entry.Value, Fn::GetAtt", "Nothing"]),
        ({"Fn::GetAtt": ["Queue", "Colour"]}, ["Entry.Value, Fn::GetAtt", "AWS::SQS::Queue Queue", "Colour"]),
        ({"Fn::Sub": "${Nothing}"}, ["Entry.Value, Fn::Sub", "Nothing"]),
        ([{"Fn::Sub": "${Off.Arn}"}], ["Entry.Value[0], Fn::Sub", "Off"]),
        ({"Fn::Base64": "x"}, ["Entry.Value", "Fn::Base64 is not supported"]),
        ({"Fn::If": ["Nothing", 1, 2]}, ["Entry.Value, Fn::If", "condition Nothing is not in the template"]),
        ({"Fn::Select": [2, ["a", "b"]]}, ["Entry.Value, Fn::Select", "item 2 is outside of a list of 2"]),
        ({"Fn::Not": ["perhaps"]}, ["Entry.Value, Fn::Not", "'perhaps' is neither true nor false"]),
    ],
)
def test_what_cannot_be_resolved_is_named_with_its_place(value: Any, parts: list[str]) -> None:
    with pytest.raises(UnresolvableError) as failure:
        resolved(value)
    assert [part for part in parts if part not in str(failure.value)] == []


def test_a_name_that_depends_on_itself_is_refused() -> None:
    queue = {"Type": "AWS::SQS::Queue", "Properties": {"QueueName": {"Fn::Sub": "x-${Queue.QueueName}"}}}
    with pytest.raises(UnresolvableError, match=r"Queue\.QueueName: the name depends on itself"):
        stack_of({"Resources": {"Queue": queue}})


@pytest.mark.parametrize(
    ("resource_type", "properties", "ref", "attribute", "value"),
    [
        ("S3::Bucket", {}, "shop-it", "Arn", "arn:aws:s3:::shop-it"),
        (
            "S3::Bucket",
            {"BucketName": "mine"},
            "mine",
            "RegionalDomainName",
            "mine.s3.us-east-1.amazonaws.com",
        ),
        ("Kinesis::Stream", {}, "Shop-It", "Arn", f"arn:aws:kinesis:us-east-1:{ACCOUNT}:stream/Shop-It"),
        ("Lambda::Function", {}, "Shop-It", "Arn", f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:Shop-It"),
        ("IAM::Role", {}, "Shop-It", "Arn", f"arn:aws:iam::{ACCOUNT}:role/Shop-It"),
        (
            "Logs::LogGroup",
            {"LogGroupName": "/a"},
            "/a",
            "Arn",
            f"arn:aws:logs:us-east-1:{ACCOUNT}:log-group:/a:*",
        ),
        ("SNS::Topic", {}, f"arn:aws:sns:us-east-1:{ACCOUNT}:Shop-It", "TopicName", "Shop-It"),
        (
            "SQS::Queue",
            {"QueueName": "q"},
            f"{ENDPOINT}/{ACCOUNT}/q",
            "Arn",
            f"arn:aws:sqs:us-east-1:{ACCOUNT}:q",
        ),
        (
            "Timestream::Database",
            {},
            "Shop-It",
            "Arn",
            f"arn:aws:timestream:us-east-1:{ACCOUNT}:database/Shop-It",
        ),
        ("Timestream::Table", {"DatabaseName": "d"}, "d|Shop-It", "Name", "Shop-It"),
        (
            "Timestream::Table",
            {"DatabaseName": "d", "TableName": "t"},
            "d|t",
            "Arn",
            f"arn:aws:timestream:us-east-1:{ACCOUNT}:database/d/table/t",
        ),
    ],
)
def test_names_and_arns_have_the_form_that_aws_gives(
    resource_type: str, properties: dict[str, str], ref: str, attribute: str, value: str
) -> None:
    resource = stack_of(
        {"Resources": {"It": {"Type": f"AWS::{resource_type}", "Properties": properties}}}
    ).resources["It"]
    assert (resource.physical_id, resource.attributes[attribute]) == (ref, value)


def test_a_resource_whose_condition_is_false_is_left_out() -> None:
    template = {
        "Parameters": {"Email": {"Type": "String", "Default": ""}},
        "Conditions": {"HasEmail": {"Fn::Not": [{"Fn::Equals": [{"Ref": "Email"}, ""]}]}},
        "Resources": {
            "Topic": {"Type": "AWS::SNS::Topic"},
            "Mail": {"Type": "AWS::SNS::Subscription", "Condition": "HasEmail"},
        },
        "Outputs": {"Address": {"Value": {"Ref": "Email"}, "Condition": "HasEmail"}},
    }
    silent, told = stack_of(template), stack_of(template, Email="a@example.com")
    assert (list(silent.resources), silent.outputs()) == (["Topic"], {})
    assert (list(told.resources), told.outputs()) == (["Topic", "Mail"], {"Address": "a@example.com"})
    assert [topic.logical_id for topic in told.of_type("AWS::SNS::Topic")] == ["Topic"]


def looped(collection: Any, **template: Any) -> dict[str, Any]:
    body = {"Type": "AWS::SQS::Queue", "Properties": {"QueueName": {"Ref": "Word"}, "T": ["q-${Word}", 3]}}
    return {
        "Parameters": {"Words": {"Type": "CommaDelimitedList", "Default": "", "AllowedPattern": "[a-z-]*"}},
        "Resources": {"Fn::ForEach::Queues": ["Word", collection, {"Queue&{Word}": body}]},
        **template,
    }


@pytest.mark.parametrize(
    ("collection", "words", "expected"),
    [
        (["a", "b"], "", {"Queuea": "a", "Queueb": "b"}),
        ([], "", {}),
        ({"Ref": "Words"}, "my-own, z", {"Queuemyown": "my-own", "Queuez": "z"}),
        # CloudFormation goes around once for an empty parameter:
        # https://github.com/aws-cloudformation/cfn-language-discussion/issues/154
        ({"Ref": "Words"}, "", {"Queue": ""}),
    ],
)
def test_a_loop_makes_a_resource_of_each_member(
    collection: Any, words: str, expected: dict[str, str]
) -> None:
    made = stack_of(looped(collection), Words=words).resources

    assert {name: queue.properties["QueueName"] for name, queue in made.items()} == expected
    assert [queue.properties["T"] for queue in made.values()] == [
        [f"q-{word}", 3] for word in expected.values()
    ]


def test_a_loop_over_no_list_is_refused() -> None:
    with pytest.raises(UnresolvableError, match="Fn::ForEach::Queues needs a list"):
        stack_of(looped({"Ref": "AWS::Region"}))


def test_two_members_that_make_one_logical_id_are_refused() -> None:
    with pytest.raises(TemplateError, match="'a-b' makes Queueab, which exists already"):
        stack_of(looped({"Ref": "Words"}), Words="ab,a-b")


def test_each_member_of_a_list_is_held_to_the_pattern() -> None:
    with pytest.raises(ParameterError, match="parameter Words = 'B' does not match"):
        stack_of(looped({"Ref": "Words"}), Words="a,B")


@pytest.mark.parametrize(
    ("transform", "key", "kind", "complaint"),
    [
        ("AWS::Serverless-2016-10-31", "Queue${Word}", "AWS::SQS::Queue", "needs Transform"),
        (
            ["AWS::LanguageExtensions"],
            "F${Word}",
            "AWS::Serverless::Function",
            "a loop here can make neither",
        ),
        (["AWS::LanguageExtensions"], "Fn::ForEach::Inner", "", "a loop here can make neither"),
    ],
)
def test_loops_that_cannot_be_translated_are_refused(
    transform: Any, key: str, kind: str, complaint: str, tmp_path: Path
) -> None:
    body = {"Type": kind} if kind else ["Other", ["x"], {}]
    loop = ["Word", ["a"], {key: body}]
    path = tmp_path / "template.yml"
    path.write_text(yaml.safe_dump({"Transform": transform, "Resources": {"Fn::ForEach::Outer": loop}}))

    with pytest.raises(TemplateError, match=complaint):
        translate(path)


@pytest.mark.parametrize(
    ("declaration", "allowed", "refused", "constraint"),
    [
        ({"Type": "Number", "MinValue": 60}, "60", "59", "below MinValue 60"),
        ({"Type": "Number", "MaxValue": 60}, "60", "61", "above MaxValue 60"),
        ({"Type": "Number"}, "-1.5", "many", "not a number"),
        ({"Type": "Number", "AllowedValues": [1, 3]}, "3", "2", "not one of 1, 3"),
        ({"Type": "String", "AllowedValues": ["on", "off"]}, "on", "On", "not one of on, off"),
        ({"Type": "String", "AllowedPattern": "a+"}, "aa", "aab", "does not match AllowedPattern a+"),
        ({"Type": "String", "MinLength": 2}, "ab", "a", "below MinLength 2"),
        ({"Type": "String", "MaxLength": 2}, "ab", "abc", "above MaxLength 2"),
    ],
)
def test_a_parameter_is_held_to_its_constraint(
    declaration: dict[str, Any], allowed: str, refused: str, constraint: str
) -> None:
    template = {"Parameters": {"P": {**declaration, "ConstraintDescription": "see there"}}, "Resources": {}}
    stack_of(template, P=allowed)
    with pytest.raises(ParameterError) as failure:
        stack_of(template, P=refused)
    assert f"parameter P = '{refused}' " in str(failure.value)
    assert f"{constraint}: see there" in str(failure.value)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, "parameter Given has no default and was not given"),
        ({"Given": "x", "Gievn": "y"}, "parameter Gievn is unknown; the template has Given"),
    ],
)
def test_a_parameter_that_is_missing_or_unknown_is_named(parameters: dict[str, str], message: str) -> None:
    template: dict[str, Any] = {"Parameters": {"Given": {"Type": "String"}}, "Resources": {}}
    with pytest.raises(ParameterError, match=message):
        stack_of(template, **parameters)


SAM = """
Transform: AWS::Serverless-2016-10-31
Parameters:
  Batch: {Type: Number, Default: 10}
Resources:
  Stream: {Type: AWS::Kinesis::Stream}
  Queue: {Type: AWS::SQS::Queue}
  First: {Type: AWS::Serverless::HttpApi}
  Second: {Type: AWS::Serverless::HttpApi}
  Role: {Type: AWS::IAM::Role}
  Worker:
    Type: AWS::Serverless::Function
    Properties:
      CodeUri: src/worker
      Handler: worker.handler
      Runtime: python3.13
      Role: !GetAtt Role.Arn
      Environment: {Variables: {BATCH: !Ref Batch, SWITCH: true, STREAM: !Ref Stream}}
      Events:
        Records:
          Type: Kinesis
          Properties: {Stream: !GetAtt Stream.Arn, StartingPosition: LATEST, BatchSize: !Ref Batch}
        Messages: {Type: SQS, Properties: {Queue: !GetAtt Queue.Arn}}
        Hourly: {Type: Schedule, Properties: {Schedule: rate(1 hour), Input: '{"a": 1}'}}
        Nightly:
          Type: ScheduleV2
          Properties:
            OmitName: true
            ScheduleExpression: cron(5 3 * * ? *)
            ScheduleExpressionTimezone: Europe/Berlin
            State: DISABLED
        One: {Type: HttpApi, Properties: {ApiId: !Ref First, Method: POST, Path: /orders}}
        Two: {Type: HttpApi, Properties: {ApiId: !Ref Second, Method: ANY, Path: '/{proxy+}'}}
Outputs:
  Addresses: {Value: !Sub '${First.ApiEndpoint}/orders ${Second.ApiEndpoint}/'}
"""


@pytest.fixture(scope="module")
def sam(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("sam") / "template.yml"
    path.write_text(SAM)
    return translate(path)


def test_the_transform_needs_no_region_in_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    monkeypatch.delenv("AWS_REGION", raising=False)
    path = tmp_path / "template.yml"
    path.write_text(SAM)
    worker = translate(path)["Resources"]["Worker"]
    assert worker["Type"] == "AWS::Lambda::Function"
    assert worker["Properties"]["Code"] == {"S3Bucket": LOCAL_CODE_BUCKET, "S3Key": "src/worker"}


def test_the_transform_leaves_parameters_open(sam: dict[str, Any]) -> None:
    assert sam["Resources"]["WorkerRecords"]["Properties"]["BatchSize"] == {"Ref": "Batch"}
    (records,) = stream_mappings(stack_of(sam, Batch="77"))
    (messages,) = queue_mappings(stack_of(sam, Batch="77"))
    assert (records.batch_size, messages.batch_size) == (77, 10)


def test_a_function_has_what_lambda_takes_where_the_template_is_silent(sam: dict[str, Any]) -> None:
    (worker,) = functions(stack_of(sam))
    assert (worker.name, worker.handler, str(worker.code)) == ("Shop-Worker", "worker.handler", "src/worker")
    assert (worker.memory_mb, worker.timeout_s) == (128, 3)
    assert (worker.log_group, worker.log_format) == ("/aws/lambda/Shop-Worker", "Text")
    assert worker.environment == {"BATCH": "10", "SWITCH": "true", "STREAM": "Shop-Stream"}


def test_event_source_mappings_have_what_lambda_takes_where_the_template_is_silent(
    sam: dict[str, Any],
) -> None:
    (records,) = stream_mappings(stack_of(sam))
    (messages,) = queue_mappings(stack_of(sam))
    assert (records.stream_arn, records.function) == (
        f"arn:aws:kinesis:us-east-1:{ACCOUNT}:stream/Shop-Stream",
        "Shop-Worker",
    )
    assert (messages.queue_arn, messages.queue_url, messages.function) == (
        f"arn:aws:sqs:us-east-1:{ACCOUNT}:Shop-Queue",
        f"{ENDPOINT}/{ACCOUNT}/Shop-Queue",
        "Shop-Worker",
    )
    assert records.starting_position == "LATEST"
    assert (records.maximum_retry_attempts, records.maximum_record_age_s) == (-1, -1)
    assert (records.bisect, records.report_batch_item_failures, records.enabled) == (False, False, True)
    assert (records.window_s, records.parallelization_factor, records.on_failure_arn) == (0, 1, None)
    assert records.mapping_id != messages.mapping_id


def test_a_mapping_of_another_source_is_refused(sam: dict[str, Any]) -> None:
    mapping = {
        **sam["Resources"]["WorkerRecords"]["Properties"],
        "EventSourceArn": "arn:aws:kafka:us-east-1:1:c/x",
    }
    resources = {
        **sam["Resources"],
        "WorkerRecords": {"Type": "AWS::Lambda::EventSourceMapping", "Properties": mapping},
    }
    with pytest.raises(TemplateError, match="WorkerRecords: arn:aws:kafka:us-east-1:1:c/x is neither"):
        stream_mappings(stack_of({**sam, "Resources": resources}))


def test_schedules_are_found_whichever_service_keeps_them(sam: dict[str, Any]) -> None:
    nightly, hourly = schedules(stack_of(sam))
    assert (nightly.function, hourly.function) == ("Shop-Worker", "Shop-Worker")
    assert (nightly.expression, nightly.timezone) == ("cron(5 3 * * ? *)", "Europe/Berlin")
    assert (nightly.enabled, nightly.payload) == (False, b"")
    assert (hourly.expression, hourly.timezone) == ("rate(1 hour)", "UTC")
    assert (hourly.enabled, hourly.payload) == (True, b'{"a": 1}')


def test_routes_are_found_for_each_api(sam: dict[str, Any]) -> None:
    assert http_routes(stack_of(sam)) == [
        Route("POST", "/orders", "Shop-Worker"),
        Route("ANY", "/{proxy+}", "Shop-Worker"),
    ]


def test_outputs_have_the_local_address_of_an_api_that_is_served_here(sam: dict[str, Any]) -> None:
    stack = stack_of(sam)
    public = stack.outputs()["Addresses"].split()
    assert [address.split(".", 1)[1] for address in public] == [
        "execute-api.us-east-1.amazonaws.com/orders",
        "execute-api.us-east-1.amazonaws.com/",
    ]
    served = stack.outputs({"First": "http://127.0.0.1:1/", "Second": "http://127.0.0.1:2"})
    assert served["Addresses"] == "http://127.0.0.1:1/orders http://127.0.0.1:2/"


def test_the_same_template_gives_the_same_stack(sam: dict[str, Any]) -> None:
    assert stack_of(sam) == stack_of(sam)


def test_two_stacks_share_no_name(sam: dict[str, Any]) -> None:
    names = [
        {
            resource.name
            for resource in resolve(sam, {}, stack_name=name, endpoint=ENDPOINT).resources.values()
        }
        for name in ("one", "two")
    ]
    assert names[0] & names[1] == set()
