"""What security reviews ask of the template: keys, roles, versions, deletion, what older stacks have left."""

import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
import tagline
from cfnlint.schema import PROVIDER_SCHEMA_MANAGER
from onemachine.pipeline import App, Pipeline
from onemachine.template.event_sources import queue_mappings
from onemachine.template.functions import functions
from onemachine.template.resolution import resolve
from onemachine.template.sam import translate
from onemachine.template.stack import Stack
from tagline import Record, write

from consumers.lines.subscription import encode
from consumers.rows.registry import STORES
from exporter.stores import store_of_stack
from tests.builders import envelope

TEMPLATE = Path(__file__).parents[1] / "template.yml"
KEY = "arn:aws:kms:us-east-1:123456789012:key/11111111-2222-3333-4444-555555555555"
BOUNDARY = "arn:aws:iam::123456789012:policy/bounds"
# So that every resource is there.
ALL = {
    "LogGroups": "/aws/lambda/shop",
    "MeterBucket": "ingest",
    "AlertEmail": "ops@example.com",
    "ExportFormats": "csv.gz,parquet",
}
# Properties that name a key, and why they are not set.
NO_KEY_NEEDED = {
    "AWS::Lambda::EventSourceMapping.KmsKeyArn": "encrypts filter criteria, which no mapping has",
    "AWS::Lambda::Function.Code.SourceKMSKeyArn": "the bucket of artifacts is the deployment's",
    "AWS::Scheduler::Schedule.KmsKeyArn": "a schedule's payload is a word of the template",
    "AWS::SQS::Queue.KmsDataKeyReusePeriodSeconds": "a time; the service's is good",
}
# https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-attribute-deletionpolicy.html
HOLDS_DATA = {
    "AWS::S3::Bucket",
    "AWS::SQS::Queue",
    "AWS::Kinesis::Stream",
    "AWS::Logs::LogGroup",
    "AWS::Glue::Database",
    "AWS::SecretsManager::Secret",
    "AWS::Timestream::Database",
    "AWS::Timestream::Table",
}
# The services that hold data, and how KMS names them.
HOLDERS = ("s3", "kinesis", "sqs", "sns", "secretsmanager", "timestream")
READS = re.compile(
    r"s3:GetObject|kinesis:GetRecords|sqs:ReceiveMessage|secretsmanager:GetSecretValue|timestream:Select"
)
WRITES = re.compile(r"s3:PutObject|kinesis:PutRecord|sqs:SendMessage|sns:Publish|timestream:WriteRecords")


@pytest.fixture(scope="module")
def template() -> dict[str, Any]:
    return translate(TEMPLATE)


def stack_of(template: Mapping[str, Any], store: str, **parameters: str) -> Stack:
    given = {**ALL, "Store": store, **parameters}
    return resolve(template, given, stack_name="tagline", endpoint="http://127.0.0.1:5000")


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


# ---- The customer's key ------------------------------------------------------------------------------------


def key_properties(type_: str) -> Iterator[tuple[str, ...]]:
    """Yield the paths of the properties that are named after KMS in CloudFormation's schema of a type."""
    schema = PROVIDER_SCHEMA_MANAGER.get_resource_schema("us-east-1", type_).schema

    def walk(node: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        if len(path) > 8:  # A type that refers to itself.
            return
        if "$ref" in node:
            node = schema["definitions"][node["$ref"].rpartition("/")[2]]
        for part in (node, *node.get("anyOf", ()), *node.get("oneOf", ())):
            for name, inner in part.get("properties", {}).items():
                if "kms" in name.lower():
                    yield (*path, name)
                yield from walk(inner, (*path, name))
            if "items" in part:
                yield from walk(part["items"], path)

    yield from walk(schema, ())


def values(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield a resource's properties and all that is in them, each with its path without indexes."""
    yield path, node
    if isinstance(node, Mapping):
        for name, part in node.items():
            yield from values(part, (*path, name))
    elif isinstance(node, list):
        for part in node:
            yield from values(part, path)


@pytest.mark.parametrize("store", STORES)
def test_with_a_key_everything_that_can_be_encrypted_is(store: str, template: dict[str, Any]) -> None:
    stack = stack_of(template, store, KmsKeyArn=KEY)
    missing = set()
    for resource in stack.resources.values():
        found = list(values(resource.properties))
        there = {path for path, _ in found}
        keys = {path for path, value in found if value == KEY}
        missing |= {
            ".".join((resource.type, *path))
            for path in set(key_properties(resource.type)) - keys
            if path[:-1] in there  # What it belongs to is there.
        }
    assert missing - NO_KEY_NEEDED.keys() == set()
    (stream,) = stack.of_type("AWS::Kinesis::Stream")
    assert stream.properties["StreamEncryption"] == {"EncryptionType": "KMS", "KeyId": KEY}
    assert not any("SqsManagedSseEnabled" in queue.properties for queue in stack.of_type("AWS::SQS::Queue"))
    (bucket,) = stack.of_type("AWS::S3::Bucket")
    (rule,) = bucket.properties["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert rule == {
        "BucketKeyEnabled": True,
        "ServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": KEY},
    }
    (group,) = stack.of_type("AWS::Athena::WorkGroup")
    answers = group.properties["WorkGroupConfiguration"]["ResultConfiguration"]
    assert answers["EncryptionConfiguration"] == {"EncryptionOption": "SSE_KMS", "KmsKey": KEY}
    for table in stack.of_type("AWS::Timestream::Table"):
        reports = table.properties["MagneticStoreWriteProperties"]["MagneticStoreRejectedDataLocation"]
        assert reports["S3Configuration"]["EncryptionOption"] == "SSE_KMS"


@pytest.mark.parametrize("store", STORES)
def test_without_a_key_none_is_named_and_no_role_may_use_one(store: str, template: dict[str, Any]) -> None:
    stack = stack_of(template, store)
    text = json.dumps([resource.properties for resource in stack.resources.values()])
    assert "UseKey" not in text
    assert "KmsKeyId" not in text
    assert "aws:kms" not in text
    assert text.count("SSE_KMS") == 0


@pytest.mark.parametrize("store", STORES)
def test_each_role_may_use_the_key_for_what_it_reads_and_writes_and_nothing_else(
    store: str, template: dict[str, Any]
) -> None:
    stack = stack_of(template, store, KmsKeyArn=KEY)
    found, expected = {}, {}
    for role in stack.of_type("AWS::IAM::Role"):
        statements = [
            each for policy in role.properties["Policies"] for each in policy["PolicyDocument"]["Statement"]
        ]
        actions = {action for each in statements for action in listed(each["Action"])}
        (use,) = [each for each in statements if each.get("Sid") == "UseKey"]
        assert use["Resource"] == KEY
        assert list(use["Condition"]) == ["StringLike"]
        found[role.logical_id] = (
            set(listed(use["Action"])),
            set(listed(use["Condition"]["StringLike"]["kms:ViaService"])),
        )
        reads = {action for action in actions if READS.fullmatch(action)}
        writes = {action for action in actions if WRITES.fullmatch(action)}
        services = {action.partition(":")[0] for action in reads | writes} & set(HOLDERS)
        # Objects that are written in parts, and messages, are decrypted by who writes them.
        decrypts = reads or {action for action in writes if not action.startswith("kinesis:")}
        expected[role.logical_id] = (
            {*(["kms:Decrypt"] if decrypts else []), *(["kms:GenerateDataKey"] if writes else [])},
            {f"{service}.us-east-1.*" for service in services},
        )
    assert found == expected


# ---- Roles -------------------------------------------------------------------------------------------------


def test_every_role_has_the_path_and_the_boundary(template: dict[str, Any]) -> None:
    bounded = stack_of(template, "lake", RolePath="/team/tagline/", PermissionsBoundaryArn=BOUNDARY)
    roles = bounded.of_type("AWS::IAM::Role")
    assert len(roles) > 10
    assert {(each.properties["Path"], each.properties["PermissionsBoundary"]) for each in roles} == {
        ("/team/tagline/", BOUNDARY)
    }
    plain = stack_of(template, "lake").of_type("AWS::IAM::Role")
    assert {(each.properties["Path"], each.properties.get("PermissionsBoundary")) for each in plain} == {
        ("/", None)
    }


# ---- The bucket --------------------------------------------------------------------------------------------


def test_the_bucket_keeps_versions_and_has_an_access_log_if_it_is_asked_to(template: dict[str, Any]) -> None:
    (plain,) = stack_of(template, "lake").of_type("AWS::S3::Bucket")
    assert not plain.properties.keys() & {"VersioningConfiguration", "LoggingConfiguration", "BucketName"}
    asked = {"BucketVersioning": "Enabled", "AccessLogBucket": "access-logs"}
    (bucket,) = stack_of(template, "lake", **asked).of_type("AWS::S3::Bucket")
    assert bucket.properties["VersioningConfiguration"] == {"Status": "Enabled"}
    assert bucket.properties["LoggingConfiguration"] == {
        "DestinationBucketName": "access-logs",
        "LogFilePrefix": "tagline/",
    }


# ---- Concurrency -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameter", "names"),
    [
        ("ConsumerReservedConcurrency", {"RowConsumer"}),
        ("MeterReservedConcurrency", {"MeterConsumer"}),
        ("ApiReservedConcurrency", {"DownloadApi", "UsageApi"}),
    ],
)
def test_concurrency_is_reserved_where_it_is_asked_for(
    parameter: str, names: set[str], template: dict[str, Any]
) -> None:
    def reserved(stack: Stack) -> dict[str, int]:
        return {
            spec.logical_id: spec.reserved_concurrency
            for spec in functions(stack)
            if spec.reserved_concurrency is not None
        }

    assert reserved(stack_of(template, "lake")) == {}
    assert reserved(stack_of(template, "lake", **{parameter: "7"})) == dict.fromkeys(names, 7)


def test_so_many_zips_are_made_at_once_as_the_parameter_says(template: dict[str, Any]) -> None:
    (worker,) = queue_mappings(stack_of(template, "lake", DownloadConcurrency="7"))

    assert worker.maximum_concurrency == 7


# ---- Version, tags, deletion -------------------------------------------------------------------------------


def test_functions_and_an_output_name_the_version(template: dict[str, Any]) -> None:
    stack = stack_of(template, "lake")
    assert stack.outputs()["Version"] == tagline.__version__
    tags = [
        {tag["Key"]: tag["Value"] for tag in function.properties["Tags"]}
        for function in stack.of_type("AWS::Lambda::Function")
    ]
    assert {each["tagline-version"] for each in tags} == {tagline.__version__}


def test_whatever_holds_data_says_what_becomes_of_it(template: dict[str, Any]) -> None:
    resources = {
        name: each for name, each in template["Resources"].items() if not name.startswith("Fn::ForEach")
    }
    policies = {
        name: (each.get("DeletionPolicy"), each.get("UpdateReplacePolicy"))
        for name, each in resources.items()
        if each["Type"] in HOLDS_DATA
    }
    kept = {"Bucket", "Database", "Table", "ForgottenKey"}
    assert policies == {
        name: ("RetainExceptOnCreate", "Retain")
        if name in kept
        else ("Retain", "Retain")
        if name == "DownloadAuditLogs"
        else ("Delete", "Delete")
        for name in policies
    }
    assert len(policies) > 15


# ---- What an older stack has left --------------------------------------------------------------------------

DAY = datetime(2026, 1, 14, 12, tzinfo=UTC)
TIMEOUT_S = 60


def test_names_of_what_is_kept_can_be_given(template: dict[str, Any]) -> None:
    names = {"BucketName": "old", "TimestreamDatabaseName": "olddb", "TimestreamTableName": "rows"}
    stack = stack_of(template, "timestream", **names)
    found = {name: stack.resources[name].name for name in ("Bucket", "Database", "Table")}
    assert found == {"Bucket": "old", "Database": "olddb", "Table": "rows"}
    environment = next(each for each in functions(stack) if each.logical_id == "RowConsumer").environment
    assert environment["BUCKET"] == "old"
    assert (environment["TIMESTREAM_DATABASE"], environment["TIMESTREAM_TABLE"]) == ("olddb", "rows")
    secret = "arn:aws:secretsmanager:us-east-1:123456789012:secret:old-AbCdEf"
    adopted = stack_of(template, "lake", ForgottenKeySecretArn=secret)
    assert adopted.of_type("AWS::SecretsManager::Secret") == []
    assert adopted.outputs()["ForgottenKeyArn"] == secret
    given = {
        environment["FORGOTTEN_KEY_ARN"]
        for environment in (each.environment for each in functions(adopted))
        if "FORGOTTEN_KEY_ARN" in environment
    }
    assert given == {secret}


@pytest.mark.parametrize("store", STORES)
def test_a_new_stack_serves_what_an_older_one_has_left(store: str) -> None:
    quick = {"Store": store, "BatchWindowSeconds": "0"}
    secret = "arn:aws:secretsmanager:us-east-1:123456789012:secret:old-ForgottenKey"
    left = {"BucketName": "old-bucket", "ForgottenKeySecretArn": secret}
    if store == "timestream":
        left |= {"TimestreamDatabaseName": "old-Database", "TimestreamTableName": "old-Table"}
    apps = [App("old", TEMPLATE, quick), App("new", TEMPLATE, {**quick, **left})]
    with Pipeline(apps, in_process=True, now=DAY + timedelta(days=1)) as pipeline:
        old, new = pipeline.outputs["old"], pipeline.outputs["new"]
        assert new["Bucket"] == old["Bucket"]
        for outputs, identity in ((old, "a"), (new, "b")):
            line = write(Record(identity, int(DAY.timestamp() * 1000), {"route": "/"}, "api_request"))
            pipeline.client("kinesis").put_record(
                StreamName=outputs["StreamName"], PartitionKey="a", Data=encode(envelope(line))
            )
        pipeline.settle()
        assert store_of_stack(store, new, pipeline.client).count() == 2
        day = str(DAY.date())
        pipeline.client("lambda").invoke(
            FunctionName=old["DailyExporterName"], Payload=json.dumps({"day": day}).encode()
        )
        asked = f"{new['DownloadUrl']}/download/usage?start_date={day}&end_date={day}"
        assert requests.get(asked, timeout=TIMEOUT_S).status_code == 202
        pipeline.settle()
        answer = requests.get(asked, timeout=TIMEOUT_S).json()
        assert requests.get(answer["download_link"], timeout=TIMEOUT_S).ok


# ---- Statements --------------------------------------------------------------------------------------------

VERSION = "2012-10-17"
# Meters by the API, whose key is a secret, and to a bucket of another account.
BY_API = {
    "MeterBucket": "",
    "MeterUrl": "https://ingest.example.com/ingest",
    "MeterApiKeyArn": "arn:aws:secretsmanager:us-east-1:123456789012:secret:ingest-Ab12Cd",
}
BY_ANOTHER_ROLE = {"MeterRoleArn": "arn:aws:iam::210987654321:role/ingest"}
OWN_LOG = ["logs:CreateLogStream", "logs:PutLogEvents"]
TRACE = ["xray:PutTraceSegments", "xray:PutTelemetryRecords"]
READ_STREAM = {f"kinesis:{name}" for name in ("DescribeStream", "DescribeStreamSummary", "GetRecords")}
READ_STREAM |= {"kinesis:GetShardIterator", "kinesis:ListShards"}


def documents(stack: Stack) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield all policy documents, each with the name of what has it."""
    for role in stack.of_type("AWS::IAM::Role"):
        yield role.logical_id, role.properties["AssumeRolePolicyDocument"]
        yield from ((role.logical_id, policy["PolicyDocument"]) for policy in role.properties["Policies"])
    for type_ in ("AWS::IAM::Policy", "AWS::S3::BucketPolicy"):
        for policy in stack.of_type(type_):
            yield policy.logical_id, policy.properties["PolicyDocument"]


@pytest.mark.parametrize("meters", [BY_API, BY_ANOTHER_ROLE], ids=["API", "role"])
@pytest.mark.parametrize("store", STORES)
def test_every_statement_is_whole_and_allows_but_for_connections_without_tls(
    store: str, meters: Mapping[str, str], template: dict[str, Any]
) -> None:
    for name, document in documents(stack_of(template, store, KmsKeyArn=KEY, **meters)):
        assert document.keys() == {"Version", "Statement"}, name
        assert document["Version"] == VERSION
        for statement in document["Statement"]:
            assert statement["Effect"] == ("Deny" if name == "BucketPolicy" else "Allow"), (name, statement)
            whom = {"Principal"} if "Principal" in statement else {"Resource"}
            assert statement.keys() >= {"Effect", "Action", *whom}, (name, statement)


@pytest.mark.parametrize("store", STORES)
def test_a_functions_role_is_lambdas_and_writes_its_own_log_and_traces(
    store: str, template: dict[str, Any]
) -> None:
    stack = stack_of(template, store)
    for function in stack.of_type("AWS::Lambda::Function"):
        role = stack.resources[f"{function.logical_id}Role"]
        assert function.properties["Role"] == role.attributes["Arn"]
        (trust,) = role.properties["AssumeRolePolicyDocument"]["Statement"]
        assert (trust["Principal"], trust["Action"]) == (
            {"Service": "lambda.amazonaws.com"},
            "sts:AssumeRole",
        )
        statements = role.properties["Policies"][0]["PolicyDocument"]["Statement"]
        log = stack.resources[f"{function.logical_id}Logs"]
        assert function.properties["LoggingConfig"] == {"LogFormat": "JSON", "LogGroup": log.name}
        assert function.properties["TracingConfig"] == {"Mode": "Active"}
        assert log.name == f"/tagline/tagline/{function.logical_id}"
        assert log.properties["RetentionInDays"] == 30
        own = {each["Sid"]: (each["Action"], each["Resource"]) for each in statements}
        assert own["WriteOwnLogs"] == (OWN_LOG, log.attributes["Arn"])
        assert own["Trace"] == (TRACE, "*")
        if function.logical_id in {"RowConsumer", "MeterConsumer"}:
            actions, stream = own["ReadStream"]
            assert (set(actions), stream) == (READ_STREAM, stack.resources["Stream"].attributes["Arn"])
    (policy,) = stack.of_type("AWS::S3::BucketPolicy")
    assert policy.properties["Bucket"] == stack.resources["Bucket"].name


def test_both_apis_may_be_their_roles_for_links_and_no_other(template: dict[str, Any]) -> None:
    stack = stack_of(template, "lake")
    assumed = {
        tuple(policy.properties["Roles"]): statement["Resource"]
        for policy in stack.of_type("AWS::IAM::Policy")
        for statement in policy.properties["PolicyDocument"]["Statement"]
        if statement["Action"] == "sts:AssumeRole"
    }
    assert assumed == {
        (stack.resources[f"{api}ApiRole"].physical_id,): stack.resources[f"{api}LinkRole"].attributes["Arn"]
        for api in ("Download", "Usage")
    }


# ---- Schedules and questions -------------------------------------------------------------------------------


@pytest.mark.parametrize("store", STORES)
def test_each_schedule_tries_again_for_a_time_and_keeps_what_failed(
    store: str, template: dict[str, Any]
) -> None:
    stack = stack_of(template, store)
    (role,) = (each for each in stack.of_type("AWS::IAM::Role") if each.logical_id == "ScheduleRole")
    found = stack.of_type("AWS::Scheduler::Schedule")
    assert len(found) >= 6
    for each in found:
        target = each.properties["Target"]
        assert target["RoleArn"] == role.attributes["Arn"], each.logical_id
        assert target["DeadLetterConfig"] == {"Arn": stack.resources["ScheduleDeadLetters"].attributes["Arn"]}
        policy = target["RetryPolicy"]
        # Those that come again within minutes are not tried again.
        if policy != {"MaximumRetryAttempts": 0}:
            assert 1 <= policy["MaximumRetryAttempts"] <= 5
            assert 60 <= policy["MaximumEventAgeInSeconds"] <= 21600


@pytest.mark.parametrize("store", STORES)
def test_questions_to_the_lake_are_limited_counted_and_deleted_with_the_stack(
    store: str, template: dict[str, Any]
) -> None:
    stack = stack_of(template, store)
    (group,) = stack.of_type("AWS::Athena::WorkGroup")
    # https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-athena-workgroup.html
    assert group.properties["RecursiveDeleteOption"] is True
    settings = group.properties["WorkGroupConfiguration"]
    assert settings["EnforceWorkGroupConfiguration"] is True
    assert settings["PublishCloudWatchMetricsEnabled"] is True
    assert int(settings["BytesScannedCutoffPerQuery"]) >= 10_000_000
    (database,) = stack.of_type("AWS::Glue::Database")
    assert database.properties["DatabaseInput"]["Name"] == database.physical_id
    questions = stack.of_type("AWS::Athena::NamedQuery")
    assert {each.logical_id for each in questions} == {
        "RequestsByRouteInLake",
        "RequestsByClientInLake",
        "ErrorRateInLake",
    }
    for each in questions:
        assert each.properties["WorkGroup"] == group.physical_id
        assert each.properties["Database"] == database.physical_id


def test_metric_filters_count_what_the_alarms_ask_for(template: dict[str, Any]) -> None:
    record = '($._tag = "usage_record") && ($._type = "api_request")'
    found = {
        each.properties["MetricTransformations"][0]["MetricName"]: (
            each.properties["FilterPattern"],
            each.properties["MetricTransformations"][0]["MetricValue"],
            each.properties["LogGroupName"],
            each.properties["MetricTransformations"][0]["MetricNamespace"],
        )
        for each in stack_of(template, "lake").of_type("AWS::Logs::MetricFilter")
    }
    where = ("/aws/lambda/shop", "Tagline/tagline")
    assert found == {
        name: (pattern, value, *where)
        for name, pattern, value in [
            ("requests", f"{{ {record} }}", "1"),
            ("bad", f"{{ {record} && ($.status >= 500) }}", "1"),
            ("rate_limited", f"{{ {record} && ($.status = 429) }}", "1"),
            ("auth_failures", f"{{ {record} && (($.status = 401) || ($.status = 403)) }}", "1"),
            ("duration_ms", f"{{ {record} && ($.duration_ms >= 0) }}", "$.duration_ms"),
            ("invocations", '?"START RequestId" ?"platform.start"', "1"),
            ("timeouts", '?"Task timed out" ?"Sandbox.Timedout"', "1"),
        ]
    }
