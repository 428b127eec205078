"""The templates held against the code, and against what the design demands of them."""

import importlib
import io
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import tagline
from cfnlint.api import ManualArgs, lint
from onemachine.functions import Function
from onemachine.http_api import AuthorizerSpec, Route
from onemachine.schedules import Schedule
from onemachine.template.event_sources import event_source_mappings, queue_mappings, stream_mappings
from onemachine.template.functions import functions
from onemachine.template.http_apis import http_routes
from onemachine.template.resolution import resolve
from onemachine.template.sam import translate
from onemachine.template.schedules import schedules
from onemachine.template.stack import ParameterError, Stack, TemplateError

from benchmarks import export
from consumers.accounts.handler import COMPACT
from consumers.rows.registry import STORES
from consumers.rows.timestream.writer import Timestream
from exporter.export.run import HOURLY
from exporter.lake.athena import ARCHIVED_AFTER
from exporter.lake.formats import Format
from exporter.lake.manifest import beginning
from exporter.usage.handler import LAST_MINUTES
from exporter.usage_api.openapi import PARAMETERS
from tests import function_settings

ROOT = Path(__file__).parents[1]
TEMPLATES = {
    "pipeline": ROOT / "template.yml",
    "examples": ROOT / "examples" / "template.yml",
    "pets": ROOT / "examples" / "pets_api" / "template.yml",
    "pets_rest": ROOT / "examples" / "pets_api" / "template-rest.yml",
}
LOG_GROUPS = [f"/aws/lambda/shop-{number}" for number in range(1, 7)]

HANDLERS = {
    "RowConsumer": "consumers.rows.handler.handler",
    "DailyExporter": "exporter.export.handler.handler",
    "Reconciler": "consumers.accounts.handler.handler",
    "Upkeep": "exporter.upkeep.handler.handler",
    "UsageRoller": "exporter.usage.handler.handler",
    "UsageApi": "exporter.usage_api.handler.handler",
    "DownloadApi": "exporter.downloads.handler.handler",
    "DownloadWorker": "exporter.zips.handler.handler",
}
EXAMPLE_HANDLERS = {
    "SampleApi": "sample_api.handler",
    "AccessLogReplay": "access_log_replay.handler",
    "Orders": "orders.handler",
}

AUDIT = tomllib.loads((Path(__file__).parent / "audit.toml").read_text())
LINT_IGNORED = {check for exception in AUDIT["exception"] for check in exception["checks"]}

LAKE_FORMATS = (Format.CSV_GZ, Format.CSV, Format.JSONL_GZ, Format.PARQUET)
CONSUMER_PREFIXES = ("quarantine", "overflow", "accounting", "late", "aws/lambda")

WILDCARD_RESOURCE_NEEDED = {
    "timestream:DescribeEndpoints": "knows no resources, and each SDK call is preceded by it",
    "cloudwatch:DescribeAlarms": "tells of composite alarms only who may ask about all alarms",
    "cloudwatch:GetMetricData": "knows no resources",
    "xray:PutTraceSegments": "knows no resources",
    "xray:PutTelemetryRecords": "knows no resources",
}


@pytest.fixture(scope="module")
def translated() -> dict[str, dict[str, Any]]:
    return {name: translate(path) for name, path in TEMPLATES.items()}


@pytest.fixture(scope="module")
def template(translated: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return translated["pipeline"]


@pytest.fixture(scope="module")
def stack(template: dict[str, Any]) -> Stack:
    return stack_of(template, LogGroups="/aws/lambda/shop")


@pytest.fixture(scope="module")
def examples(translated: dict[str, dict[str, Any]]) -> Stack:
    return stack_of(translated["examples"])


def stack_of(template: Mapping[str, Any], **parameters: str) -> Stack:
    store = {"Store": "timestream"} if "Store" in template["Parameters"] else {}
    return resolve(template, {**store, **parameters}, stack_name="tagline", endpoint="http://127.0.0.1:5000")


def declared(template: Mapping[str, Any]) -> dict[str, Any]:
    """Return the resources that the template declares one by one, not by a loop."""
    resources: dict[str, Any] = template["Resources"]
    return {key: value for key, value in resources.items() if not key.startswith("Fn::ForEach")}


def function(stack: Stack, logical_id: str) -> Function:
    (found,) = [spec for spec in functions(stack) if spec.logical_id == logical_id]
    return found


def statements(stack: Stack, role: str) -> list[dict[str, Any]]:
    properties = stack.resources[role].properties
    return [
        statement for policy in properties["Policies"] for statement in policy["PolicyDocument"]["Statement"]
    ]


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def allowed_resources(stack: Stack, role: str, action: str) -> list[str]:
    return [
        resource
        for statement in statements(stack, role)
        if action in listed(statement["Action"])
        for resource in listed(statement["Resource"])
    ]


# ---- The files ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_template_passes_cfn_lint_as_cloudformation_will_see_it(
    name: str, translated: dict[str, dict[str, Any]]
) -> None:
    # cfn-lint does not expand SAM, so what the transform makes of the template is what is worth checking.
    matches = lint(
        json.dumps(translated[name], indent=1), config=ManualArgs(regions=["us-east-1", "eu-west-1"])
    )
    assert [str(match) for match in matches if match.rule.id not in LINT_IGNORED] == []


@pytest.mark.parametrize("path", TEMPLATES.values(), ids=TEMPLATES)
def test_the_template_has_no_yaml_aliases(path: Path) -> None:
    # CloudFormation does not read them:
    # https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/template-formats.html
    assert re.findall(r"(?m)^[^#\n]*[:-] [&*][A-Za-z].*$", path.read_text()) == []


def test_every_parameter_is_in_exactly_one_group_in_the_same_order(
    template: dict[str, Any],
) -> None:
    groups = template["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
    assert [name for group in groups for name in group["Parameters"]] == list(template["Parameters"])
    labels = [group["Label"]["default"] for group in groups]
    assert len(set(labels)) == len(labels)


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_parameter_and_output_is_described(name: str, translated: dict[str, dict[str, Any]]) -> None:
    for section in ("Parameters", "Outputs"):
        assert [key for key, value in translated[name][section].items() if not value.get("Description")] == []


def test_the_page_of_parameters_lists_every_parameter_and_output(template: dict[str, Any]) -> None:
    rows = re.findall(
        r"(?m)^\| `(\w+)` \| (.*?) \|", (ROOT / "docs" / "reference" / "parameters.md").read_text()
    )
    parameters = {name: cell for name, cell in rows if name in template["Parameters"]}
    defaults = {
        name: "required"
        if "Default" not in parameter
        else f"`{parameter['Default']}`"
        if parameter["Default"] != ""
        else "empty"
        for name, parameter in template["Parameters"].items()
    }
    assert list(parameters.items()) == list(defaults.items())
    assert [name for name, _ in rows if name not in parameters] == list(template["Outputs"])


def test_the_sam_configuration_builds_in_the_source_tree() -> None:
    # Otherwise the whole repository is copied, virtual environment and all, once for each function.
    configuration = tomllib.loads((ROOT / "samconfig.toml").read_text())["default"]
    assert configuration["build"]["parameters"]["build_in_source"] is True
    assert configuration["deploy"]["parameters"]["capabilities"] == "CAPABILITY_IAM"


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_function_and_layer_has_a_build_rule(name: str, translated: dict[str, dict[str, Any]]) -> None:
    built = [spec.logical_id for spec in functions(stack_of(translated[name]))]
    built += ["EmitterLayer"] if name == "pipeline" else []
    makefile = (TEMPLATES[name].parent / "Makefile").read_text()
    assert [logical_id for logical_id in built if not re.search(rf"(?m)^build-{logical_id}:", makefile)] == []


# ---- The code ----------------------------------------------------------------------------------------------


def test_the_functions_are_those_that_the_design_names(stack: Stack, examples: Stack) -> None:
    assert {spec.logical_id: spec.handler for spec in functions(stack)} == HANDLERS
    assert {spec.logical_id: spec.handler for spec in functions(examples)} == EXAMPLE_HANDLERS
    assert {str(spec.code) for spec in (*functions(stack), *functions(examples))} == {"."}


@pytest.mark.parametrize("handler", HANDLERS.values(), ids=HANDLERS)
def test_a_handler_can_be_imported(handler: str) -> None:
    module, _, attribute = handler.rpartition(".")
    assert callable(getattr(importlib.import_module(module), attribute))


@pytest.mark.parametrize("handler", EXAMPLE_HANDLERS.values(), ids=EXAMPLE_HANDLERS)
def test_an_example_handler_can_be_imported(handler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "examples")
    module, _, attribute = handler.rpartition(".")
    assert callable(getattr(importlib.import_module(module), attribute))


@pytest.mark.parametrize("logical_id", HANDLERS)
def test_the_environment_is_exactly_what_the_settings_read(logical_id: str, stack: Stack) -> None:
    environment = function(stack, logical_id).environment
    own = {name for name in environment if not name.startswith(("POWERTOOLS_", "MALLOC_"))}
    assert own == function_settings.variables(HANDLERS[logical_id])
    assert environment["POWERTOOLS_METRICS_NAMESPACE"] == "Tagline"
    assert environment["POWERTOOLS_SERVICE_NAME"]


def test_the_exports_memory_is_measured_with_the_functions_allocator(stack: Stack) -> None:
    environment = function(stack, "DailyExporter").environment
    allocator = {name: value for name, value in environment.items() if name.startswith("MALLOC_")}
    assert allocator == export.ALLOCATOR != {}


def test_the_default_tag_is_the_emitters(template: dict[str, Any], examples: Stack) -> None:
    assert template["Parameters"]["Tag"]["Default"] == tagline.DEFAULT_TAG
    assert {tuple(spec.environment.items()) for spec in functions(examples)} == {
        (("TAGLINE_TAG", tagline.DEFAULT_TAG),)
    }


@pytest.mark.parametrize("tag", [tagline.DEFAULT_TAG, "my-team.usage_2"])
def test_the_filter_pattern_finds_the_emitters_lines_and_no_others(
    tag: str, template: dict[str, Any]
) -> None:
    matches = importlib.import_module("onemachine.filter_pattern").matches
    stack = stack_of(template, LogGroups="/aws/lambda/shop", Tag=tag)
    pattern = stack.resources["Subscriptionawslambdashop"].properties["FilterPattern"]
    stream = io.StringIO()
    tagline.Emitter(tag=tag, stream=stream).emit({"route": "/orders"})
    assert matches(pattern, stream.getvalue())
    assert not matches(pattern, "START RequestId: 025f281a-0000-0000-0000-000000000000 Version: $LATEST\n")
    assert function(stack, "RowConsumer").environment["TAGLINE_TAG"] == tag


# ---- Lines -------------------------------------------------------------------------------------------------


def test_each_named_log_group_is_subscribed_and_no_other(template: dict[str, Any]) -> None:
    subscriptions = stack_of(template, LogGroups=", ".join(LOG_GROUPS)).of_type(
        "AWS::Logs::SubscriptionFilter"
    )
    assert [each.properties["LogGroupName"] for each in subscriptions] == LOG_GROUPS
    assert {each.properties["Distribution"] for each in subscriptions} == {"Random"}
    assert {each.properties["FilterPattern"] for each in subscriptions} == {'"usage_record"'}
    assert stack_of(template).of_type("AWS::Logs::SubscriptionFilter") == []


def test_two_log_groups_whose_names_differ_in_punctuation_alone_are_refused(template: dict[str, Any]) -> None:
    # CloudFormation makes one logical id of both, too.
    with pytest.raises(TemplateError, match=r"'/a/b\.c' makes Subscriptionabc, which exists already"):
        stack_of(template, LogGroups="/a/b-c,/a/b.c")


@pytest.mark.parametrize("others", ["", "/aws/lambda/shop,"])
def test_the_pipelines_own_log_groups_cannot_be_subscribed(
    others: str, template: dict[str, Any], stack: Stack
) -> None:
    own = [group.name for group in stack.of_type("AWS::Logs::LogGroup")]
    for group in [*own, "/tagline/another-stack/DailyExporter"]:
        with pytest.raises(ParameterError, match=f"parameter LogGroups = '{group}' .* the pipeline's own"):
            stack_of(template, LogGroups=others + group)
    stack_of(template, LogGroups=f"{others}/aws/lambda/tagline/")


def test_the_traces_of_all_functions_are_a_group(stack: Stack) -> None:
    (group,) = stack.of_type("AWS::XRay::Group")

    found = re.findall(r'service\("([^"]+)"\)', group.properties["FilterExpression"])
    assert sorted(found) == sorted(spec.name for spec in functions(stack))
    assert len(group.properties["GroupName"]) <= 32
    assert group.properties["FilterExpression"].count(" OR ") == len(found) - 1


@pytest.mark.parametrize("meters", [{}, {"MeterBucket": "meters"}])
@pytest.mark.parametrize("groups", ["", "/aws/lambda/a,/aws/lambda/b"])
def test_new_log_groups_are_collected_but_for_the_pipelines_own_and_those_that_are(
    groups: str, meters: dict[str, str], template: dict[str, Any], stack: Stack
) -> None:
    assert list(stack.of_type("AWS::Logs::AccountPolicy")) == []
    found = stack_of(template, NewLogGroups="true", LogGroups=groups, **meters)
    (policy,) = found.of_type("AWS::Logs::AccountPolicy")

    document = json.loads(policy.properties["PolicyDocument"])
    for each in found.of_type("AWS::Logs::SubscriptionFilter"):
        filters = {name: each.properties[name] for name in ("DestinationArn", "RoleArn", "FilterPattern")}
        assert document == {**filters, "Distribution": "Random"}
    criteria = policy.properties["SelectionCriteria"]
    left_out = set(json.loads(criteria.removeprefix("LogGroupName NOT IN ")))
    own = {group.name for group in found.of_type("AWS::Logs::LogGroup")}
    assert left_out >= own | {each for each in groups.split(",") if each}
    assert "" not in left_out


def test_every_function_writes_to_its_own_log_group_which_expires(template: dict[str, Any]) -> None:
    stack = stack_of(template, LogRetentionDays="7")
    retention = {
        group.name: group.properties["RetentionInDays"] for group in stack.of_type("AWS::Logs::LogGroup")
    }
    assert {spec.log_group for spec in functions(stack)} == {f"/tagline/tagline/{name}" for name in HANDLERS}
    audit = stack.resources["DownloadAuditLogs"].name
    assert retention == {
        **dict.fromkeys([f"/tagline/tagline/{name}" for name in [*HANDLERS, "DownloadHttpApi"]], 7),
        audit: 400,
    }
    assert {spec.log_format for spec in functions(stack)} == {"JSON"}


def test_the_consumer_knows_all_of_the_pipelines_log_groups(stack: Stack) -> None:
    prefix = function(stack, "RowConsumer").environment["OWN_LOG_GROUPS"]
    assert prefix == "/tagline/tagline/"
    groups = [group.name for group in stack.of_type("AWS::Logs::LogGroup")]
    assert [group for group in groups if not group.startswith(prefix)] == []


def test_cloudwatch_logs_may_put_to_the_stream_for_this_account_only(stack: Stack) -> None:
    (trust,) = stack.resources["SubscriptionRole"].properties["AssumeRolePolicyDocument"]["Statement"]
    assert trust["Principal"] == {"Service": "logs.amazonaws.com"}
    assert trust["Condition"] == {
        "StringLike": {"aws:SourceArn": "arn:aws:logs:us-east-1:123456789012:*"},
        "StringEquals": {"aws:SourceAccount": "123456789012"},
    }
    assert statements(stack, "SubscriptionRole") == [
        {
            "Effect": "Allow",
            "Action": "kinesis:PutRecord",
            "Resource": stack.resources["Stream"].attributes["Arn"],
        }
    ]


@pytest.mark.parametrize(
    ("parameters", "shards"),
    [({}, None), ({"ShardCount": "4"}, None), ({"StreamMode": "PROVISIONED", "ShardCount": "4"}, 4)],
)
def test_a_stream_has_a_number_of_shards_only_when_provisioned(
    parameters: dict[str, str], shards: int | None, template: dict[str, Any]
) -> None:
    stream = stack_of(template, **parameters).resources["Stream"].properties
    assert stream.get("ShardCount") == shards
    assert stream["RetentionPeriodHours"] == 168
    assert stream["StreamEncryption"] == {"EncryptionType": "KMS", "KeyId": "alias/aws/kinesis"}


# ---- Rows --------------------------------------------------------------------------------------------------


MAPPING = "AWS::Lambda::EventSourceMapping"


def test_both_event_sources_take_partial_failures(stack: Stack) -> None:
    mappings = {each.function: each for each in event_source_mappings(stack)}
    assert list(mappings) == ["tagline-RowConsumer", "tagline-DownloadWorker"]
    assert {mapping.report_batch_item_failures for mapping in mappings.values()} == {True}


def test_a_bad_batch_cannot_block_its_shard(template: dict[str, Any], stack: Stack) -> None:
    (consumer,) = stream_mappings(stack)
    assert consumer.stream_arn == stack.resources["Stream"].attributes["Arn"]
    assert consumer.bisect
    assert 0 <= consumer.maximum_retry_attempts < 100
    assert 60 <= consumer.maximum_record_age_s <= 24 * 3600
    assert consumer.starting_position == "TRIM_HORIZON"
    # The records are gzip, and a filter on data drops what is not JSON.
    assert not any("FilterCriteria" in each.properties for each in stack.of_type(MAPPING))
    assert consumer.on_failure_arn == stack.resources["Bucket"].attributes["Arn"]
    # Lambda writes failed batches with the function's role, under this prefix, and asks for ListBucket.
    bucket = stack.resources["Bucket"].attributes["Arn"]
    assert f"{bucket}/aws/lambda/*" in allowed_resources(stack, "RowConsumerRole", "s3:PutObject")
    assert allowed_resources(stack, "RowConsumerRole", "s3:ListBucket") == [bucket]
    (tuned,) = stream_mappings(
        stack_of(template, BatchSize="9", BatchWindowSeconds="0", ParallelizationFactor="2")
    )
    assert (tuned.batch_size, tuned.window_s, tuned.parallelization_factor) == (9, 0, 2)


def test_what_is_written_late_goes_to_the_magnetic_store_unless_it_is_turned_off(
    template: dict[str, Any],
) -> None:
    for parameters, expected in [({}, True), ({"EnableMagneticStoreWrites": "false"}, False)]:
        table = stack_of(template, **parameters).resources["Table"].properties
        assert table["MagneticStoreWriteProperties"]["EnableMagneticStoreWrites"] is expected
        assert table["MagneticStoreWriteProperties"]["MagneticStoreRejectedDataLocation"] == {
            "S3Configuration": {
                "BucketName": "tagline-bucket",
                "ObjectKeyPrefix": "timestream-rejected/",
                "EncryptionOption": "SSE_S3",
            }
        }
        assert table["RetentionProperties"] == {
            "MemoryStoreRetentionPeriodInHours": 1,
            "MagneticStoreRetentionPeriodInDays": 7,
        }


def test_what_holds_records_outlives_the_stack(template: dict[str, Any]) -> None:
    kept = {
        logical_id
        for logical_id, resource in declared(template).items()
        if (resource.get("DeletionPolicy"), resource.get("UpdateReplacePolicy"))
        == ("RetainExceptOnCreate", "Retain")
    }
    assert kept == {"Bucket", "BucketPolicy", "Database", "ForgottenKey", "Table"}


# ---- Stores ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lake_stack(template: dict[str, Any]) -> Stack:
    return stack_of(template, Store="lake", LogGroups="/aws/lambda/shop")


def test_the_store_has_no_default_because_only_its_owner_knows_the_account(template: dict[str, Any]) -> None:
    with pytest.raises(ParameterError, match="parameter Store"):
        resolve(template, {}, stack_name="tagline", endpoint="http://127.0.0.1:5000")


def test_with_the_lake_nothing_of_timestream_is_created_or_allowed(lake_stack: Stack) -> None:
    for resource in lake_stack.resources.values():
        assert "timestream" not in json.dumps([resource.type, resource.properties]).lower(), (
            resource.logical_id
        )
    assert [name for name in lake_stack.outputs() if "Timestream" in name] == []


def test_with_timestream_no_fragments_may_be_written_or_read(stack: Stack, lake_stack: Stack) -> None:
    fragments = f"{stack.resources['Bucket'].attributes['Arn']}/store/*"
    for role, action in [
        ("RowConsumerRole", "s3:PutObject"),
        ("DailyExporterRole", "s3:GetObject"),
        ("UpkeepRole", "s3:GetObject"),
        ("UsageRollerRole", "s3:GetObject"),
    ]:
        assert fragments in allowed_resources(lake_stack, role, action)
        assert fragments not in allowed_resources(stack, role, action)


@pytest.mark.parametrize(("store", "size", "window_s"), [("timestream", 500, 5), ("lake", 10_000, 60)])
def test_batches_have_the_size_that_suits_the_store_unless_one_is_given(
    store: str, size: int, window_s: int, template: dict[str, Any]
) -> None:
    (consumer,) = stream_mappings(stack_of(template, Store=store))
    assert (consumer.batch_size, consumer.window_s) == (size, window_s)
    (given,) = stream_mappings(stack_of(template, Store=store, BatchSize="7", BatchWindowSeconds="0"))
    assert (given.batch_size, given.window_s) == (7, 0)


# ---- Meters ------------------------------------------------------------------------------------------------

METERS = "consumers.meters.handler"
API_KEY = "arn:aws:secretsmanager:us-east-1:123456789012:secret:ingest-Ab12Cd"
INGEST_ROLE = "arn:aws:iam::999988887777:role/ingest"
# Each way to switch meters on, and what its role may do beyond what they all may.
METERED = {
    "bucket": ({"MeterBucket": "ingest"}, {"s3:PutObject": ["arn:aws:s3:::ingest/ingest/records/*"]}),
    "bucket with an ACL": (
        {"MeterBucket": "ingest", "MeterPrefix": "in/", "MeterObjectAcl": "bucket-owner-full-control"},
        {
            "s3:PutObject": ["arn:aws:s3:::ingest/in/*"],
            "s3:PutObjectAcl": ["arn:aws:s3:::ingest/in/*"],
        },
    ),
    "bucket by a role": (
        {"MeterBucket": "ingest", "MeterRoleArn": INGEST_ROLE},
        {"sts:AssumeRole": [INGEST_ROLE]},
    ),
    "api": (
        {"MeterUrl": "https://ingest.example.com/ingest", "MeterApiKeyArn": API_KEY},
        {
            "secretsmanager:GetSecretValue": [API_KEY],
            "ssm:GetParameter": [API_KEY],
            # Of this secret or parameter alone: the condition of each statement.
            "kms:Decrypt": ["arn:aws:kms:*:*:key/*"] * 2,
        },
    ),
}
METERED["search"] = ({"SearchUrl": "https://es.example.com", "MeterApiKeyArn": API_KEY}, METERED["api"][1])


def test_without_a_destination_nothing_of_meters_is_deployed(template: dict[str, Any], stack: Stack) -> None:
    assert [logical_id for logical_id in stack.resources if "Meter" in logical_id] == []
    assert [name for name in stack.outputs() if "Meter" in name] == []
    on = stack_of(template, LogGroups="/aws/lambda/shop", MeterBucket="ingest")
    assert set(on.resources) - set(stack.resources) == {
        "DroppedMeterBatchesCriticalAlarm",
        "FailedMeterBatchesCriticalAlarm",
        "MeterConsumer",
        "MeterConsumerLines",
        "MeterConsumerLogs",
        "MeterConsumerRole",
        "MeterLagCriticalAlarm",
        "MeterLagWarningAlarm",
    }


@pytest.mark.parametrize("way", METERED)
def test_the_consumer_of_meters_has_its_settings_and_may_do_what_it_has_to(
    way: str, template: dict[str, Any]
) -> None:
    parameters, allowed = METERED[way]
    stack = stack_of(template, **parameters)
    spec = function(stack, "MeterConsumer")
    assert (spec.handler, spec.log_group) == (f"{METERS}.handler", "/tagline/tagline/MeterConsumer")
    own = {name for name in spec.environment if not name.startswith("POWERTOOLS_")}
    assert own == function_settings.variables(f"{METERS}.handler")
    bucket, role = stack.resources["Bucket"].attributes["Arn"], "MeterConsumerRole"
    kept = ("quarantine/meter_*", "aws/lambda/*")
    everyone = {"s3:PutObject": [f"{bucket}/{prefix}" for prefix in kept], "s3:ListBucket": [bucket]}
    granted = {
        action
        for statement in statements(stack, role)
        for action in listed(statement["Action"])
        if not action.startswith(("logs:", "xray:", "kinesis:"))
    }
    assert granted == set(everyone) | set(allowed)
    decrypts = [each["Condition"] for each in statements(stack, role) if each["Action"] == "kms:Decrypt"]
    contexts = ("SecretARN", "PARAMETER_ARN") if decrypts else ()
    assert decrypts == [{"StringEquals": {f"kms:EncryptionContext:{name}": API_KEY}} for name in contexts]
    for action in granted:
        expected = everyone.get(action, []) + allowed.get(action, [])
        assert allowed_resources(stack, role, action) == expected


def test_the_consumer_of_meters_reads_the_stream_beside_the_other_with_settings_of_its_own(
    template: dict[str, Any],
) -> None:
    stack = stack_of(
        template, MeterBucket="ingest", MeterBatchSize="7", MeterBatchWindowSeconds="0", BatchSize="9"
    )
    rows, meters = (
        mapping
        for mapping in stream_mappings(stack)
        if mapping.stream_arn == stack.resources["Stream"].attributes["Arn"]
    )
    assert (rows.function, rows.batch_size) == ("tagline-RowConsumer", 9)
    assert (meters.function, meters.batch_size, meters.window_s) == ("tagline-MeterConsumer", 7, 0)
    assert meters.report_batch_item_failures
    assert meters.bisect
    assert meters.maximum_retry_attempts == rows.maximum_retry_attempts
    assert meters.maximum_record_age_s == rows.maximum_record_age_s
    assert meters.starting_position == "TRIM_HORIZON"
    assert meters.on_failure_arn == stack.resources["Bucket"].attributes["Arn"]
    assert not any("FilterCriteria" in each.properties for each in stack.of_type(MAPPING))
    alarm = stack.resources["MeterLagCriticalAlarm"]
    assert alarm.properties["Dimensions"] == [{"Name": "FunctionName", "Value": "tagline-MeterConsumer"}]


def test_the_filters_take_both_tags_where_meters_are_switched_on(template: dict[str, Any]) -> None:
    matches = importlib.import_module("onemachine.filter_pattern").matches
    groups = ",".join(LOG_GROUPS)
    stack = stack_of(template, LogGroups=groups, MeterBucket="ingest", Tag="my-tag", MeterTag="meter.v1")
    (pattern,) = {each.properties["FilterPattern"] for each in stack.of_type("AWS::Logs::SubscriptionFilter")}
    assert pattern == '?"my-tag" ?"meter.v1"'
    assert [
        matches(pattern, text) for text in ('{"_tag":"my-tag"}', 'INFO meter.v1 {"a":1}', "meter v1")
    ] == [
        True,
        True,
        False,
    ]
    search = stack_of(template, LogGroups=groups, **METERED["search"][0])
    (pattern,) = {
        each.properties["FilterPattern"] for each in search.of_type("AWS::Logs::SubscriptionFilter")
    }
    assert pattern == '"usage_record"'
    environment = function(stack, "MeterConsumer").environment
    assert (environment["TAGLINE_TAG"], environment["METER_TAG"]) == ("my-tag", "meter.v1")


def test_a_deployment_with_two_destinations_or_without_a_key_is_refused_by_cloudformation(
    template: dict[str, Any],
) -> None:
    def empty(parameter: str) -> dict[str, Any]:
        return {"Fn::Equals": [{"Ref": parameter}, ""]}

    rules = template["Rules"]
    one, other = rules["MetersHaveOneDestination"]["Assertions"]
    (key,) = rules["MeterUrlHasAKey"]["Assertions"]
    assert one["Assert"] == {"Fn::Or": [empty("MeterBucket"), empty("MeterUrl")]}
    no_meters = {"Fn::And": [empty("MeterBucket"), empty("MeterUrl")]}
    assert other["Assert"] == {"Fn::Or": [empty("SearchUrl"), no_meters]}
    assert rules["MeterUrlHasAKey"]["RuleCondition"] == {"Fn::Not": [empty("MeterUrl")]}
    assert rules["SearchUrlHasAKey"]["RuleCondition"] == {"Fn::Not": [empty("SearchUrl")]}
    assert key["Assert"] == {"Fn::Not": [empty("MeterApiKeyArn")]}
    assert rules["SearchUrlHasAKey"]["Assertions"][0]["Assert"] == key["Assert"]


# https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/intrinsic-function-reference-rules.html
RULE_FUNCTIONS = {
    *("Ref", "Fn::And", "Fn::Contains", "Fn::EachMemberEquals", "Fn::EachMemberIn", "Fn::Equals", "Fn::Not"),
    *("Fn::Or", "Fn::RefAll", "Fn::ValueOf", "Fn::ValueOfAll"),
}


def test_rules_have_only_functions_that_cloudformation_takes_there(template: dict[str, Any]) -> None:
    used = set(re.findall(r'"(Ref|Fn::\w+)":', json.dumps(template["Rules"])))

    assert {"Fn::Or", "Fn::Not", "Ref"} <= used <= RULE_FUNCTIONS


# ---- The emitter's layer -----------------------------------------------------------------------------------


def test_the_emitter_is_a_layer_whose_versions_stay(template: dict[str, Any]) -> None:
    # Functions keep a version that is deleted, but can no longer be configured with it:
    # https://docs.aws.amazon.com/lambda/latest/dg/creating-deleting-layers.html
    (layer,) = [one for one in declared(template).values() if one["Type"] == "AWS::Lambda::LayerVersion"]
    oldest = tomllib.loads((ROOT / "emitter" / "pyproject.toml").read_text())["project"]["requires-python"]
    runtimes = layer["Properties"]["CompatibleRuntimes"]

    assert layer["DeletionPolicy"] == "Retain"
    assert f">={runtimes[0].removeprefix('python')}" == oldest
    assert runtimes == [f"python3.{minor}" for minor in range(9, 9 + len(runtimes))]
    assert layer["Properties"]["CompatibleArchitectures"] == ["x86_64", "arm64"]


def test_no_function_of_the_pipeline_needs_the_layer(template: dict[str, Any]) -> None:
    resources = declared(template).values()
    assert not [one for one in resources if "Layers" in one.get("Properties", {})]


# ---- Lake --------------------------------------------------------------------------------------------------


def test_the_bucket_deletes_and_moves_what_the_design_says(stack: Stack) -> None:
    rules = stack.resources["Bucket"].properties["LifecycleConfiguration"]["Rules"]
    assert {rule["Status"] for rule in rules} == {"Enabled"}
    by_prefix = {
        rule.get("Prefix", rule["Id"]): {
            key: value for key, value in rule.items() if key not in {"Id", "Status", "Prefix"}
        }
        for rule in rules
    }
    year = {"ExpirationInDays": 365}
    assert by_prefix == {
        "tmp/": {"ExpirationInDays": 1},
        "athena/": {"ExpirationInDays": 1},
        "records/": {
            "Transitions": [
                {"StorageClass": "STANDARD_IA", "TransitionInDays": 60},
                {"StorageClass": "GLACIER", "TransitionInDays": ARCHIVED_AFTER.days},
            ],
            "ExpirationInDays": 365,
        },
        "unfinished-uploads": {"AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1}},
        "replaced-versions": {
            "NoncurrentVersionExpiration": {"NoncurrentDays": 30},
            "ExpiredObjectDeleteMarker": True,
        },
        "quarantine/": year,
        "overflow/": year,
        "accounting/": year,
        "timestream-rejected/": year,
        "late/": year,
        "usage/": {"ExpirationInDays": 400},
        "aws/lambda/": year,
        "replayed/": {"ExpirationInDays": 30},
    }


def test_the_bucket_is_private_encrypted_and_answers_over_tls_only(stack: Stack) -> None:
    bucket = stack.resources["Bucket"]
    arn = bucket.attributes["Arn"]
    assert set(bucket.properties["PublicAccessBlockConfiguration"].values()) == {True}
    assert len(bucket.properties["PublicAccessBlockConfiguration"]) == 4
    assert bucket.properties["OwnershipControls"] == {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
    assert bucket.properties["BucketEncryption"]["ServerSideEncryptionConfiguration"] == [
        {"ServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
    ]
    (policy,) = stack.of_type("AWS::S3::BucketPolicy")
    assert policy.properties["PolicyDocument"]["Statement"] == [
        {
            "Sid": "TlsOnly",
            "Effect": "Deny",
            "Principal": "*",
            "Action": "s3:*",
            "Resource": [arn, f"{arn}/*"],
            "Condition": {"Bool": {"aws:SecureTransport": "false"}},
        }
    ]


@pytest.mark.parametrize("status", ["Enabled", "Suspended"])
def test_links_are_accelerated_if_the_bucket_is(status: str, template: dict[str, Any]) -> None:
    stack = stack_of(template, BucketAcceleration=status)
    bucket = stack.resources["Bucket"]
    assert bucket.properties["AccelerateConfiguration"] == {"AccelerationStatus": status}
    assert function(stack, "DownloadApi").environment["BUCKET_ACCELERATION"] == status
    # A name with dots has no accelerated address, so none is given and CloudFormation makes one without.
    assert "BucketName" not in bucket.properties


def schedule(stack: Stack, function: str) -> Schedule:
    (found,) = [each for each in schedules(stack) if each.function == f"tagline-{function}"]
    return found


def test_the_export_runs_daily_in_utc_and_its_failures_are_told(stack: Stack) -> None:
    daily, _ = (each for each in schedules(stack) if each.function == "tagline-DailyExporter")
    assert (daily.function, daily.expression) == ("tagline-DailyExporter", "cron(15 0 * * ? *)")
    assert (daily.timezone, daily.enabled) == ("UTC", True)
    target = stack.resources[daily.logical_id].properties["Target"]
    assert target["DeadLetterConfig"] == {"Arn": stack.resources["ScheduleDeadLetters"].attributes["Arn"]}
    assert set(target["RetryPolicy"]) == {"MaximumRetryAttempts", "MaximumEventAgeInSeconds"}
    (invocation,) = stack.of_type("AWS::Lambda::EventInvokeConfig")
    assert invocation.properties["FunctionName"] == "tagline-DailyExporter"
    assert invocation.properties["DestinationConfig"]["OnFailure"] == {
        "Destination": stack.resources["Alerts"].physical_id
    }


@pytest.mark.parametrize(("store", "enabled"), [("lake", True), ("timestream", False)])
def test_hours_of_large_days_are_written_every_hour_by_the_lake_store_only(
    store: str, enabled: bool, template: dict[str, Any]
) -> None:
    stack = stack_of(template, Store=store)
    _, hourly = (each for each in schedules(stack) if each.function == "tagline-DailyExporter")
    assert (hourly.expression, hourly.timezone) == ("cron(15 1-23 * * ? *)", "UTC")
    assert (hourly.payload, hourly.enabled) == (json.dumps({HOURLY: True}).encode(), enabled)


def test_a_day_is_reconciled_when_none_of_its_batches_is_tried_any_more(stack: Stack) -> None:
    daily, hourly = (each for each in schedules(stack) if each.function == "tagline-Reconciler")
    assert (hourly.expression, hourly.payload) == ("cron(20 * * * ? *)", json.dumps({COMPACT: True}).encode())
    assert daily.expression == "cron(45 6 * * ? *)"
    assert (daily.timezone, daily.enabled) == ("UTC", True)
    after_midnight = 6 * 3600 + 45 * 60
    assert {
        mapping.maximum_record_age_s < after_midnight
        for mapping in stream_mappings(stack)
        if mapping.stream_arn == stack.resources["Stream"].attributes["Arn"]
    } == {True}
    target = stack.resources[daily.logical_id].properties["Target"]
    assert target["DeadLetterConfig"] == {"Arn": stack.resources["ScheduleDeadLetters"].attributes["Arn"]}


def test_rejected_rows_are_written_again_four_times_a_day_from_where_the_table_reports_them(
    stack: Stack,
) -> None:
    upkeep = schedule(stack, "Upkeep")
    assert (upkeep.expression, upkeep.timezone) == ("cron(30 5,11,17,23 * * ? *)", "UTC")
    target = stack.resources[upkeep.logical_id].properties["Target"]
    assert target["DeadLetterConfig"] == {"Arn": stack.resources["ScheduleDeadLetters"].attributes["Arn"]}
    writes = stack.resources["Table"].properties["MagneticStoreWriteProperties"]
    place = writes["MagneticStoreRejectedDataLocation"]["S3Configuration"]
    assert place["BucketName"] == stack.resources["Bucket"].physical_id
    assert place["ObjectKeyPrefix"] == Timestream.reports


def test_the_alarm_of_lost_lines_takes_a_day_that_is_reconciled_twice_as_once(stack: Stack) -> None:
    alarm = stack.resources["LostCriticalAlarm"].properties
    assert (alarm["Namespace"], alarm["MetricName"], alarm["Statistic"]) == ("Tagline", "lost", "Maximum")
    assert (alarm["ComparisonOperator"], float(alarm["Threshold"])) == ("GreaterThanOrEqualToThreshold", 1)
    # Other than with notBreaching, it does not end by itself before the next run.
    assert alarm["TreatMissingData"] == "ignore"
    assert {each["Name"]: each["Value"] for each in alarm["Dimensions"]} == {
        "service": function(stack, "Reconciler").environment["POWERTOOLS_SERVICE_NAME"],
        "stage": "reconcile",
    }


# ---- Downloads ---------------------------------------------------------------------------------------------


ROUTES = [
    ("GET", "/download/usage"),
    ("POST", "/downloads"),
    ("GET", "/downloads/{id}"),
    ("DELETE", "/downloads/{id}"),
    ("GET", "/openapi.json"),
]
USAGE_ROUTES = [*PARAMETERS, "/metrics", "/health/details"]
# A probe cannot sign: it is told the status only.
OPEN_ROUTES = ["/health", "/health/live", "/health/ready"]


def test_every_route_of_the_api_asks_for_a_signature(stack: Stack) -> None:
    iam = AuthorizerSpec("iam")
    downloads = [Route(*route, "tagline-DownloadApi", iam) for route in ROUTES]
    usage = [Route("GET", path, "tagline-UsageApi", iam) for path in USAGE_ROUTES]
    probes = [Route("GET", path, "tagline-UsageApi") for path in OPEN_ROUTES]
    assert http_routes(stack) == [*downloads, *usage, *probes]
    body = stack.resources["DownloadHttpApi"].properties["Body"]
    assert body["components"]["securitySchemes"]["AWS_IAM"]["x-amazon-apigateway-authtype"] == "awsSigv4"
    for path, operations in body["paths"].items():
        if path in OPEN_ROUTES:
            continue
        assert [operation["security"] for operation in operations.values()] == [
            [{"AWS_IAM": []}] for _ in operations
        ]


def test_every_route_of_the_api_asks_for_a_token_with_a_scope_where_there_is_an_issuer(
    template: dict[str, Any],
) -> None:
    given = {"JwtIssuer": "https://id.example.com", "JwtAudience": "app", "JwtScope": "usage/read"}
    stack = stack_of(template, TenantClaim="client_id", **given)
    tokens = AuthorizerSpec("jwt", "https://id.example.com", ("app",))
    downloads = [Route(*route, "tagline-DownloadApi", tokens, ("usage/read",)) for route in ROUTES]
    scopes = ("usage/read", "tagline/admin")
    usage = [Route("GET", path, "tagline-UsageApi", tokens, scopes) for path in USAGE_ROUTES]
    probes = [Route("GET", path, "tagline-UsageApi") for path in OPEN_ROUTES]
    assert http_routes(stack) == [*downloads, *usage, *probes]
    assert function(stack, "UsageApi").environment["USAGE_ADMIN_SCOPE"] == "tagline/admin"
    assert function(stack, "UsageApi").environment["USAGE_TENANT_CLAIM"] == "client_id"
    variables = function(stack, "DownloadApi").environment
    assert variables["DOWNLOAD_TENANT_CLAIM"] == "client_id"
    # What the API says of itself is what API Gateway asks for.
    routes = {(tokens.issuer, route.scopes) for route in downloads}
    assert routes == {(variables["DOWNLOAD_TOKEN_ISSUER"], (variables["DOWNLOAD_TOKEN_SCOPE"],))}


def test_tenants_have_tokens_and_tokens_are_for_somebody(template: dict[str, Any]) -> None:
    # CloudFormation refuses a deployment that breaks a rule; nothing else sees a claim that no one checks.
    rules = {
        rule["RuleCondition"]["Fn::Not"][0]["Fn::Equals"][0]["Ref"]: [
            each["Assert"]["Fn::Not"][0]["Fn::Equals"][0]["Ref"] for each in rule["Assertions"]
        ]
        for rule in (template["Rules"][name] for name in ("TokensAreForSomebody", "TenantsHaveTokens"))
    }
    assert rules == {"JwtIssuer": ["JwtAudience", "TenantClaim"], "TenantClaim": ["JwtIssuer"]}


def test_links_are_signed_by_a_role_that_can_fetch_zips_and_nothing_else(stack: Stack) -> None:
    role = stack.resources["DownloadLinkRole"]
    (trust,) = role.properties["AssumeRolePolicyDocument"]["Statement"]
    assert trust["Principal"] == {"AWS": stack.resources["DownloadApiRole"].attributes["Arn"]}
    assert function(stack, "DownloadApi").environment["DOWNLOAD_LINK_ROLE"] == role.attributes["Arn"]
    actions = [action for each in statements(stack, "DownloadLinkRole") for action in listed(each["Action"])]
    assert actions == ["s3:GetObject", "s3:ListBucket"]
    # A role that a role assumes is good for an hour: a link cannot be longer.
    assert int(function(stack, "DownloadApi").environment["DOWNLOAD_LINK_SECONDS"]) <= 3600


def test_the_api_is_throttled_and_logs_each_request(stack: Stack) -> None:
    (stage,) = stack.of_type("AWS::ApiGatewayV2::Stage")
    assert stage.properties["DefaultRouteSettings"] == {"ThrottlingRateLimit": 10, "ThrottlingBurstLimit": 20}
    (worker,) = queue_mappings(stack)
    assert worker.maximum_concurrency == 5, "other functions keep the rest of the account's concurrency"
    access_log = stage.properties["AccessLogSettings"]
    assert access_log["DestinationArn"] == stack.resources["DownloadHttpApiLogs"].attributes["Arn"]
    assert json.loads(access_log["Format"])["route"] == "$context.routeKey"


def test_the_audit_log_of_downloads_outlives_the_stack(template: dict[str, Any]) -> None:
    stack = stack_of(template, AuditRetentionDays="3653")
    group = stack.resources["DownloadAuditLogs"]

    assert group.properties["RetentionInDays"] == 3653
    assert function(stack, "DownloadApi").environment["DOWNLOAD_AUDIT_LOG_GROUP"] == group.name
    assert stack.outputs()["DownloadAuditLogGroup"] == group.name
    declared = template["Resources"]["DownloadAuditLogs"]
    assert (declared["DeletionPolicy"], declared["UpdateReplacePolicy"]) == ("Retain", "Retain")
    # A stack of the same name that is created again must not ask for a name that is taken.
    assert json.dumps(declared["Properties"]["LogGroupName"]).count("AWS::StackId") == 1


def test_a_zip_in_the_making_is_not_started_a_second_time(stack: Stack) -> None:
    # https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-configure.html
    (worker,) = queue_mappings(stack)
    queue = stack.resources["DownloadQueue"].properties
    timeout = function(stack, "DownloadWorker").timeout_s
    assert queue["VisibilityTimeout"] >= 6 * timeout + worker.window_s
    assert worker.queue_arn == stack.resources["DownloadQueue"].attributes["Arn"]
    assert queue["RedrivePolicy"] == {
        "deadLetterTargetArn": stack.resources["DownloadDeadLetters"].attributes["Arn"],
        "maxReceiveCount": 3,
    }


def test_every_queue_is_encrypted(stack: Stack) -> None:
    assert {queue.properties["SqsManagedSseEnabled"] for queue in stack.of_type("AWS::SQS::Queue")} == {True}


# ---- Permissions -------------------------------------------------------------------------------------------


def role_of(stack: Stack, logical_id: str) -> str:
    role: str = stack.resources[logical_id].properties["Role"]
    return role.rpartition("/")[2]


def test_every_function_has_a_role_of_its_own(stack: Stack, examples: Stack) -> None:
    for each in (stack, examples):
        roles = [role_of(each, spec.logical_id) for spec in functions(each)]
        assert roles == [f"tagline-{spec.logical_id}Role" for spec in functions(each)]


def all_statements(stack: Stack) -> Iterator[tuple[str, dict[str, Any]]]:
    for role in stack.of_type("AWS::IAM::Role"):
        assert "ManagedPolicyArns" not in role.properties, "the template says all that a role may do"
        for statement in statements(stack, role.logical_id):
            yield role.logical_id, statement


def test_no_role_may_do_more_than_its_statements_name(stack: Stack, examples: Stack) -> None:
    for role, statement in [*all_statements(stack), *all_statements(examples)]:
        actions = listed(statement["Action"])
        assert [action for action in actions if "*" in action] == [], role
        if "*" in listed(statement["Resource"]):
            assert [action for action in actions if action not in WILDCARD_RESOURCE_NEEDED] == [], role


@pytest.mark.parametrize(
    ("role", "action", "resources"),
    [
        ("RowConsumerRole", "timestream:WriteRecords", ["{table}"]),
        (
            "RowConsumerRole",
            "s3:PutObject",
            [f"{{bucket}}/{prefix}/*" for prefix in CONSUMER_PREFIXES],
        ),
        ("RowConsumerRole", "s3:GetObject", []),
        ("RowConsumerRole", "timestream:Select", []),
        ("DailyExporterRole", "timestream:Select", ["{table}"]),
        ("DailyExporterRole", "timestream:WriteRecords", []),
        (
            "DailyExporterRole",
            "s3:GetObject",
            [
                "{bucket}/records/*",
                "{bucket}/lake/locks/*",
                "{bucket}/lake/replaced/*",
                "{bucket}/lake/columns.json",
                "{bucket}/late/*",
                "{bucket}/lake/forgotten.json",
                "{bucket}/overflow/*",
            ],
        ),
        (
            "DailyExporterRole",
            "s3:PutObject",
            [
                "{bucket}/records/*",
                "{bucket}/lake/locks/*",
                "{bucket}/lake/replaced/*",
                "{bucket}/lake/columns.json",
                "{bucket}/late/*/nightly.nightly",
                "{bucket}/late/*/failed.*",
                "{bucket}/late/given-up/*",
            ],
        ),
        (
            "DailyExporterRole",
            "s3:DeleteObject",
            [
                "{bucket}/records/*",
                "{bucket}/lake/locks/*",
                "{bucket}/lake/replaced/*",
                "{bucket}/late/*",
                "{bucket}/overflow/*",
            ],
        ),
        (
            "DownloadApiRole",
            "s3:GetObject",
            ["{bucket}/tmp/*.json", "{bucket}/tmp/*.zip", "{bucket}/records/*/_manifest.json"],
        ),
        (
            "DownloadApiRole",
            "s3:DeleteObject",
            ["{bucket}/tmp/*.json", "{bucket}/tmp/*.tail", "{bucket}/tmp/*.zip", "{bucket}/tmp/active/*"],
        ),
        ("DownloadLinkRole", "s3:GetObject", ["{bucket}/tmp/*.zip"]),
        ("DownloadApiRole", "s3:PutObject", ["{bucket}/tmp/*.json", "{bucket}/tmp/active/*"]),
        ("DownloadApiRole", "sqs:SendMessage", ["{queue}"]),
        (
            "DownloadWorkerRole",
            "s3:GetObject",
            [
                *(f"{{bucket}}/{beginning(kind)}*" for kind in LAKE_FORMATS),
                "{bucket}/tmp/*.json",
                "{bucket}/tmp/*.tail",
            ],
        ),
        (
            "DownloadWorkerRole",
            "s3:PutObject",
            ["{bucket}/tmp/*.json", "{bucket}/tmp/*.tail", "{bucket}/tmp/*.zip"],
        ),
        (
            "DownloadWorkerRole",
            "s3:DeleteObject",
            ["{bucket}/tmp/*.json", "{bucket}/tmp/*.tail", "{bucket}/tmp/active/*"],
        ),
        ("DownloadWorkerRole", "sqs:SendMessage", ["{queue}"]),
        ("DownloadWorkerRole", "sqs:ReceiveMessage", ["{queue}"]),
        ("ScheduleRole", "lambda:InvokeFunction", ["{exporter}", "{reconciler}", "{upkeep}", "{roller}"]),
        ("UsageRollerRole", "timestream:Select", ["{table}"]),
        ("UsageRollerRole", "timestream:WriteRecords", []),
        (
            "UsageRollerRole",
            "s3:GetObject",
            ["{bucket}/records/*", "{bucket}/accounting/*", "{bucket}/tmp/minutes/*", "{bucket}/usage/*"],
        ),
        ("UsageRollerRole", "s3:PutObject", ["{bucket}/usage/*"]),
        ("UsageRollerRole", "s3:DeleteObject", []),
        ("UsageApiRole", "s3:GetObject", ["{bucket}/usage/*", "{bucket}/tmp/usage/*"]),
        ("UsageApiRole", "s3:PutObject", ["{bucket}/tmp/usage/*"]),
        ("UsageLinkRole", "s3:GetObject", ["{bucket}/usage/page.html", "{bucket}/tmp/usage/*"]),
        ("UpkeepRole", "timestream:WriteRecords", ["{table}"]),
        ("UpkeepRole", "timestream:Select", ["{table}"]),
        ("ReconcilerRole", "s3:GetObject", ["{bucket}/accounting/*", "{bucket}/tmp/minutes/*"]),
        ("ReconcilerRole", "s3:PutObject", ["{bucket}/accounting/*", "{bucket}/tmp/minutes/*"]),
        ("ReconcilerRole", "s3:DeleteObject", ["{bucket}/accounting/batches/*"]),
        ("ReconcilerRole", "timestream:Select", []),
    ],
)
def test_a_role_reaches_its_part_of_the_data_and_no_other(
    role: str, action: str, resources: list[str], stack: Stack
) -> None:
    arns = {
        "table": stack.resources["Table"].attributes["Arn"],
        "bucket": stack.resources["Bucket"].attributes["Arn"],
        "queue": stack.resources["DownloadQueue"].attributes["Arn"],
        "exporter": stack.resources["DailyExporter"].attributes["Arn"],
        "reconciler": stack.resources["Reconciler"].attributes["Arn"],
        "upkeep": stack.resources["Upkeep"].attributes["Arn"],
        "roller": stack.resources["UsageRoller"].attributes["Arn"],
    }
    assert allowed_resources(stack, role, action) == [resource.format_map(arns) for resource in resources]


def test_the_roller_reads_the_rows_of_the_lake_their_columns_and_who_is_forgotten(lake_stack: Stack) -> None:
    bucket = lake_stack.resources["Bucket"].attributes["Arn"]
    parts = ["records/*", "accounting/*", "tmp/minutes/*", "usage/*"]
    rows = ["store/*", "lake/columns.json", "lake/forgotten.json"]
    found = allowed_resources(lake_stack, "UsageRollerRole", "s3:GetObject")
    assert sorted(found) == sorted(f"{bucket}/{part}" for part in [*parts, *rows])


def test_the_api_of_usage_can_ask_no_store_and_write_no_number(stack: Stack) -> None:
    actions = {action for each in statements(stack, "UsageApiRole") for action in listed(each["Action"])}
    assert {action.partition(":")[0] for action in actions} == {"logs", "xray", "s3", "cloudwatch"}
    assert {action for action in actions if action.startswith("s3:")} == {
        "s3:GetObject",
        "s3:PutObject",
        "s3:ListBucket",
    }
    assert not [name for name in function(stack, "UsageApi").environment if "STORE" in name]
    (trust,) = stack.resources["UsageLinkRole"].properties["AssumeRolePolicyDocument"]["Statement"]
    assert trust["Principal"] == {"AWS": stack.resources["UsageApiRole"].attributes["Arn"]}
    found = [each for each in schedules(stack) if each.function == "tagline-UsageRoller"]
    # Neither runs when the other does, or when the accounts are merged.
    assert {(each.expression, each.payload, each.timezone) for each in found} == {
        ("cron(7 * * * ? *)", b"", "UTC"),
        ("cron(2/10 * * * ? *)", json.dumps({LAST_MINUTES: True}).encode(), "UTC"),
    }


# ---- Alerts and questions ----------------------------------------------------------------------------------


def test_an_alarms_mail_leads_to_the_log_with_the_exceptions_trace(template: dict[str, Any]) -> None:
    stack = stack_of(template, MeterBucket="ingest")
    groups = {group.name for group in stack.of_type("AWS::Logs::LogGroup")}
    without_log = set()
    for alarm in stack.of_type("AWS::CloudWatch::Alarm"):
        description = alarm.properties["AlarmDescription"]
        assert re.search(r" docs/runbook\.md#[a-z]+( https:|$)", description)
        assert len(description) <= 1024, "CloudWatch takes no more"
        _, _, group = description.partition("#logsV2:log-groups/log-group/")
        if group:
            assert group.replace("$252F", "/") in groups, alarm.logical_id
        else:
            without_log.add(alarm.logical_id)
    # A queue has no log, and any function may be throttled: the runbook says what to do.
    assert without_log == {
        "DownloadDeadLettersCriticalAlarm",
        "ScheduleDeadLettersCriticalAlarm",
        "ThrottledWarningAlarm",
    }


def test_only_its_own_queue_and_account_reach_what_is_for_failures(stack: Stack) -> None:
    queue = stack.resources["ScheduleDeadLetters"].properties
    assert queue["RedriveAllowPolicy"] == {"redrivePermission": "denyAll"}
    (trust,) = stack.resources["ScheduleRole"].properties["AssumeRolePolicyDocument"]["Statement"]
    assert trust["Condition"]["StringEquals"] == {
        "aws:SourceAccount": "123456789012",
        "aws:SourceArn": "arn:aws:scheduler:us-east-1:123456789012:schedule-group/default",
    }


def test_the_metrics_of_two_stacks_are_told_apart(template: dict[str, Any]) -> None:
    for name in ("one", "two"):
        stack = resolve(
            template, {"MeterBucket": "ingest", "Store": "timestream"}, stack_name=name, endpoint=""
        )
        # An alarm of other dimensions than the metric's stays silent.
        store = function(stack, "RowConsumer").environment["STORE"]
        assert {spec.environment["POWERTOOLS_SERVICE_NAME"] for spec in functions(stack)} == {name}
        # Those of the consumers say the store as well.
        more = {"consumer": {"store": store}, "meters": {"store": "s3"}}
        ours = [
            metric
            for alarm in stack.of_type("AWS::CloudWatch::Alarm")
            for query in alarm.properties.get("Metrics", [{"MetricStat": {"Metric": alarm.properties}}])
            for metric in [query.get("MetricStat", {}).get("Metric", {})]
            if metric.get("Namespace") == "Tagline"
        ]
        assert {alarm["MetricName"] for alarm in ours} >= {"recursion", "lost"}
        for alarm in ours:
            dimensions = {each["Name"]: each["Value"] for each in alarm["Dimensions"]}
            stage = {"stage": dimensions["stage"]} if "stage" in dimensions else {}
            store_of_stage = more.get(dimensions.get("stage", ""), {})
            of_format = {"format": "csv.gz"} if dimensions.keys() & {"format"} else {}
            expected = {"service": name, **stage, **store_of_stage, **of_format}
            assert dimensions == expected, alarm["MetricName"]


def test_someone_is_told_by_email_only_if_there_is_an_address(template: dict[str, Any]) -> None:
    (mail,) = stack_of(template, AlertEmail="ops@example.com").of_type("AWS::SNS::Subscription")
    assert (mail.properties["Protocol"], mail.properties["Endpoint"]) == ("email", "ops@example.com")
    assert stack_of(template).of_type("AWS::SNS::Subscription") == []


def test_saved_queries_ask_the_collected_log_groups(template: dict[str, Any]) -> None:
    some = stack_of(template, LogGroups="/two,/five", Tag="my-tag").of_type("AWS::Logs::QueryDefinition")
    none = stack_of(template).of_type("AWS::Logs::QueryDefinition")
    assert {tuple(query.properties["LogGroupNames"]) for query in some} == {("/two", "/five")}
    assert [query for query in none if "LogGroupNames" in query.properties] == []
    assert [query.name for query in some] == [
        "tagline/requests and errors by route",
        "tagline/requests and errors by client",
        "tagline/errors by type",
        "tagline/latency percentiles by route",
        "tagline/slowest requests",
        "tagline/one request by id",
        "tagline/rate-limited clients",
        "tagline/one correlation id",
        "tagline/around a time",
        "tagline/error lines",
    ]
    # These are also about lines that are no records; all other questions are about records of one type.
    untagged = [
        query.name
        for query in some
        if 'filter _tag = "my-tag" and _type = "api_request"' not in query.properties["QueryString"]
    ]
    assert untagged == [
        "tagline/one request by id",
        "tagline/one correlation id",
        "tagline/around a time",
        "tagline/error lines",
    ]


# ---- Parameters and outputs --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameter", "allowed", "refused"),
    [
        ("Tag", ["a", "a" * 100, "my-team.usage_2"], ["", "a" * 101, 'a"b', "two words", "$x"]),
        (
            "LogGroups",
            ["", "a" * 240, "/aws/lambda/x", "/aws/lambda/x, a.b#c-d_e"],
            ["a" * 241, "two words", "a*", "/aws/lambda/x,a*"],
        ),
        ("MeterTag", ["a", "a" * 100, "meter.v2"], ["", "a" * 101, 'a"b', "two words"]),
        ("MeterBucket", ["", "abc", "a" * 63, "183-amberflo"], ["ab", "a" * 64, "Upper", "a/b"]),
        ("MeterPrefix", ["ingest/records/", "a/", "a" * 199 + "/"], ["", "/", "a", "a//", "a" * 200 + "/"]),
        ("MeterBucketRegion", ["", "us-west-2", "us-gov-east-1"], ["west", "us-west-2a", "US-WEST-2"]),
        ("MeterRoleArn", ["", INGEST_ROLE], ["ingest", "arn:aws:iam::1:role/x", INGEST_ROLE + "*"]),
        ("MeterExternalId", ["", "ab", "a" * 1224], ["a", "a" * 1225, "two words"]),
        ("MeterObjectAcl", ["", "bucket-owner-full-control"], ["public-read", "private"]),
        (
            "MeterUrl",
            ["", "https://a.example.com/ingest"],
            ["http://a.example.com", "a.example.com", "https://"],
        ),
        (
            "MeterApiKeyArn",
            ["", API_KEY, "arn:aws:ssm:eu-west-1:123456789012:parameter/ingest/key"],
            ["key", API_KEY[:-6] + "*", "arn:aws:s3:::bucket/key", "arn:aws:ssm:eu-west-1:1:parameter/key"],
        ),
        ("MeterBatchSize", ["1", "10000"], ["0", "10001"]),
        ("MeterBatchWindowSeconds", ["0", "300"], ["-1", "301"]),
        ("ShardCount", ["1", "200"], ["0", "201"]),
        ("StreamRetentionHours", ["24", "8760"], ["23", "8761"]),
        ("BatchSize", ["0", "10000"], ["-1", "10001"]),
        ("BatchWindowSeconds", ["-1", "300"], ["-2", "301"]),
        ("ParallelizationFactor", ["1", "10"], ["0", "11"]),
        ("ConsumerMemoryMB", ["256", "10240"], ["255", "10241"]),
        ("MemoryStoreHours", ["1", "8766"], ["0", "8767"]),
        ("MagneticStoreDays", ["1", "73000"], ["0", "73001"]),
        (
            "ExportFormats",
            ["csv.gz", "parquet,csv.gz", "csv", "jsonl.gz"],
            ["", "csv.gz,", "orc", "csvxgz", "csv.gz, parquet"],
        ),
        ("ExportMaxScannedGB", ["1", "1000000"], ["0", "1000001"]),
        ("AthenaScanLimitBytes", ["10000000"], ["9999999"]),
        ("LakeDays", ["91", "36500"], ["90", "36501"]),
        ("DownloadLinkSeconds", ["60", "3600"], ["59", "3601"]),
        ("DownloadsPerSecond", ["1", "10000"], ["0", "10001"]),
        ("DownloadsBurst", ["1", "5000"], ["0", "5001"]),
        ("JwtIssuer", ["", "https://id.example.com/x"], ["http://id.example.com", "https://a b"]),
        ("JwtScope", ["tagline/downloads"], ["", "two words"]),
        ("JwtAdminScope", ["tagline/admin"], ["", "two words"]),
        ("UsageType", ["api_request", "gateway_request"], ["", "two words", "x" * 257]),
        ("TenantClaim", ["", "custom:client", "https://a.example/client"], ["two words", "x" * 201]),
        ("DownloadMaxDays", ["1", "3660"], ["0", "3661"]),
        ("Store", list(STORES), ["", "Timestream", "Lake"]),
        ("LogRetentionDays", ["1", "3653"], ["0", "2"]),
        ("BucketAcceleration", ["Enabled", "Suspended"], ["enabled", ""]),
        ("AlertEmail", ["", "a@example.com"], ["nobody", "a@b@c"]),
        ("ConsumerReservedConcurrency", ["0", "2000"], ["-1", "2001"]),
        ("MeterReservedConcurrency", ["0", "2000"], ["-1", "2001"]),
        ("ApiReservedConcurrency", ["0", "1000"], ["-1", "1001"]),
        (
            "KmsKeyArn",
            ["", "arn:aws:kms:eu-west-1:123456789012:key/mrk-1"],
            ["alias/x", "arn:aws:kms:eu-west-1:123456789012:alias/x"],
        ),
        ("BucketVersioning", ["Enabled", "Suspended"], ["", "Disabled"]),
        ("AccessLogBucket", ["", "abc"], ["ab", "a/b"]),
        ("RolePath", ["/", "/a/", "/a/b/"], ["", "a", "/a", "a/", "//"]),
        (
            "PermissionsBoundaryArn",
            ["", "arn:aws:iam::123456789012:policy/a/b"],
            ["arn:aws:iam::123456789012:role/x", "bounds"],
        ),
        ("BucketName", ["", "abc", "a" * 63], ["a.b", "ab", "A"]),
        ("TimestreamDatabaseName", ["", "abc", "a" * 256], ["ab", "a b"]),
        ("TimestreamTableName", ["", "abc", "a" * 256], ["ab", "a b"]),
        ("ForgottenKeySecretArn", ["", API_KEY], ["key", API_KEY + "*"]),
    ],
)
def test_a_parameter_is_taken_at_its_limit_and_refused_past_it(
    parameter: str, allowed: list[str], refused: list[str], template: dict[str, Any]
) -> None:
    for value in allowed:
        stack_of(template, **{parameter: value})
    for value in refused:
        with pytest.raises(ParameterError, match=f"parameter {parameter} = "):
            stack_of(template, **{parameter: value})


def test_the_stores_are_those_of_the_registry(template: dict[str, Any]) -> None:
    assert tuple(template["Parameters"]["Store"]["AllowedValues"]) == STORES
    for store in STORES:
        assert callable(importlib.import_module(f"consumers.rows.{store}.live").from_environment)
        assert callable(importlib.import_module(f"exporter.stores.{store}").from_environment)
        assert callable(importlib.import_module(f"exporter.stores.{store}").of_stack)


def test_the_formats_of_the_export_are_those_of_the_lake(template: dict[str, Any]) -> None:
    parameter = template["Parameters"]["ExportFormats"]
    one, others = parameter["AllowedPattern"].strip("^$").split(")(,")

    listed_there = one.strip("()").replace("\\.", ".").split("|")
    assert sorted(listed_there) == sorted(Format)
    assert others == f"{one}))*"
    assert all(kind in re.split(", ", parameter["ConstraintDescription"]) for kind in Format)
    stack_of(template, ExportFormats=",".join(Format))


@pytest.mark.parametrize("name", ["MeterUrl", "SearchUrl"])
def test_keys_are_sent_encrypted_or_to_this_machine(name: str, template: dict[str, Any]) -> None:
    pattern = template["Parameters"][name]["AllowedPattern"]
    addresses = [
        "https://a.example.com/x",
        "http://127.0.0.1:9200",
        "http://localhost",
        "http://localhost/a?b",
    ]
    for taken in ["", *addresses]:
        assert re.search(pattern, taken), taken
    for refused in [
        "http://a.example.com",
        "http://localhost:1@a",
        "http://127.0.0.1.a/",
        "https://",
        "https://a b",
    ]:
        assert not re.search(pattern, refused), refused


def test_a_subscription_filter_of_another_stack_is_given_outputs_of_this_one(
    template: dict[str, Any],
) -> None:
    page = (ROOT / "docs" / "deploy.md").read_text()
    filter_ = page[page.index("  Type: AWS::Logs::SubscriptionFilter") :].partition("```")[0]

    taken = dict(re.findall(r"(DestinationArn|RoleArn): !Ref (\w+)", filter_))
    assert taken.keys() == {"DestinationArn", "RoleArn"}
    assert set(taken.values()) <= template["Outputs"].keys()


def test_outputs_say_where_everything_is(stack: Stack) -> None:
    assert stack.outputs({"DownloadHttpApi": "http://127.0.0.1:8080"}) == {
        "StreamName": "tagline-Stream",
        "StreamArn": stack.resources["Stream"].attributes["Arn"],
        "SubscriptionRoleArn": stack.resources["SubscriptionRole"].attributes["Arn"],
        "Bucket": "tagline-bucket",
        "StoreName": "timestream",
        "TimestreamDatabase": "tagline-Database",
        "TimestreamTable": "tagline-Table",
        "LakeDatabase": stack.resources["LakeDatabase"].name,
        "LakeWorkGroup": "tagline-lake",
        "ForgottenKeyArn": "arn:aws:secretsmanager:us-east-1:123456789012:secret:tagline-ForgottenKey",
        "DownloadUrl": "http://127.0.0.1:8080",
        "DownloadQueueUrl": "http://127.0.0.1:5000/123456789012/tagline-DownloadQueue",
        "AlertTopic": "arn:aws:sns:us-east-1:123456789012:tagline-Alerts",
        "RowConsumerName": "tagline-RowConsumer",
        "DailyExporterName": "tagline-DailyExporter",
        "ReconcilerName": "tagline-Reconciler",
        "UpkeepName": "tagline-Upkeep",
        "UsageRollerName": "tagline-UsageRoller",
        "UsageApiName": "tagline-UsageApi",
        "DownloadApiName": "tagline-DownloadApi",
        "DownloadAuditLogGroup": stack.resources["DownloadAuditLogs"].name,
        "DownloadWorkerName": "tagline-DownloadWorker",
        "Version": tagline.__version__,
        "EmitterLayerArn": "arn:aws:lambda:us-east-1:123456789012:layer:tagline-emitter:1",
    }


# ---- The sample application --------------------------------------------------------------------------------


def test_the_sample_application_answers_any_request_and_the_others_are_invoked_directly(
    examples: Stack,
) -> None:
    assert {(route.method, route.path, route.function) for route in http_routes(examples)} == {
        ("ANY", "/", "tagline-SampleApi"),
        ("ANY", "/{proxy+}", "tagline-SampleApi"),
    }
    assert (event_source_mappings(examples), schedules(examples)) == ([], [])
    assert {spec.log_format for spec in functions(examples)} == {"Text"}


def test_the_pipeline_collects_the_sample_applications_log_groups(
    examples: Stack, template: dict[str, Any]
) -> None:
    outputs = examples.outputs({"SampleHttpApi": "http://127.0.0.1:8081"})
    assert outputs == {
        "SampleApiUrl": "http://127.0.0.1:8081",
        "SampleApiName": "tagline-SampleApi",
        "AccessLogReplayName": "tagline-AccessLogReplay",
        "OrdersName": "tagline-Orders",
        "SampleApiLogGroup": "/aws/lambda/tagline-SampleApi",
        "AccessLogReplayLogGroup": "/aws/lambda/tagline-AccessLogReplay",
        "OrdersLogGroup": "/aws/lambda/tagline-Orders",
    }
    groups = [outputs[f"{name}LogGroup"] for name in EXAMPLE_HANDLERS]
    assert groups == [group.name for group in examples.of_type("AWS::Logs::LogGroup")]
    subscribed = stack_of(template, LogGroups=",".join(groups))
    assert len(subscribed.of_type("AWS::Logs::SubscriptionFilter")) == 3
