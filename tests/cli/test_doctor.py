"""`tagline doctor`: misconfigurations, each found with its fix, and a record that is followed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from typing import Any

import botocore.session
import pytest
from botocore.exceptions import ClientError
from botocore.validate import ParamValidator
from onemachine.pipeline import Pipeline
from typer.testing import CliRunner

from cli import target as targets
from cli.apps import tagline_with_samples
from cli.doctor.canary import follow
from cli.doctor.checks import all_checks, examine
from cli.doctor.finding import Finding
from cli.main import app
from cli.subscriptions import account_policies
from cli.target import Target, target_of
from exporter.store import StoreError

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
STREAM = "arn:aws:kinesis:us-east-1:123456789012:stream/lines"
TOPIC = "arn:aws:sns:us-east-1:123456789012:alerts"
ROLE = "arn:aws:iam::123456789012:role/subscriptions"
KEY = "arn:aws:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
FUNCTION = {"State": "Active", "FunctionName": "tagline-RowConsumer"}
SESSION = botocore.session.get_session()

# What AWS answers for a stack in which nothing is wrong, by service and operation.
HEALTHY: dict[str, dict[str, Any]] = {
    "logs": {
        "DescribeAccountPolicies": {"accountPolicies": []},
        "DescribeLogGroups": {
            "logGroups": [{"logGroupName": "/aws/lambda/shop", "logGroupClass": "STANDARD"}]
        },
        "DescribeSubscriptionFilters": {
            "subscriptionFilters": [
                {
                    "filterName": "tagline",
                    "filterPattern": '"usage_record"',
                    "destinationArn": STREAM,
                    "roleArn": ROLE,
                    "distribution": "Random",
                }
            ]
        },
    },
    "kinesis": {
        "DescribeStreamSummary": {
            "StreamDescriptionSummary": {
                "StreamName": "lines",
                "StreamARN": STREAM,
                "StreamStatus": "ACTIVE",
                "EncryptionType": "KMS",
                "KeyId": KEY,
                "RetentionPeriodHours": 168,
                "StreamCreationTimestamp": NOW,
                "EnhancedMonitoring": [],
                "OpenShardCount": 1,
            },
            "ResponseMetadata": {"HTTPHeaders": {"date": "Mon, 30 Nov 2026 12:00:01 GMT"}},
        }
    },
    "kms": {"DescribeKey": {"KeyMetadata": {"KeyId": KEY, "KeyState": "Enabled"}}},
    "glue": {
        "GetTables": {
            "TableList": [
                {"Name": "records", "StorageDescriptor": {"Location": "s3://lake-bucket/records/"}},
                {"Name": "view", "StorageDescriptor": {"Location": ""}},
            ]
        }
    },
    "sns": {
        "ListSubscriptionsByTopic": {
            "Subscriptions": [{"SubscriptionArn": f"{TOPIC}:1", "Protocol": "email"}]
        },
        "GetTopicAttributes": {"Attributes": {"TopicArn": TOPIC}},
    },
    "cloudwatch": {
        "DescribeAlarms": {
            "CompositeAlarms": [
                {
                    "AlarmName": "tagline CRITICAL export",
                    "AlarmActions": [TOPIC],
                    "ActionsEnabled": True,
                    "StateValue": "OK",
                    "StateReason": "In ALARM: ",
                }
            ]
        }
    },
    "lambda": {
        "GetFunctionConfiguration": FUNCTION,
        "GetFunctionConcurrency": {},
        "ListEventSourceMappings": {
            "EventSourceMappings": [
                {
                    "State": "Enabled",
                    "DestinationConfig": {"OnFailure": {"Destination": "arn:aws:s3:::bucket"}},
                    "FunctionResponseTypes": ["ReportBatchItemFailures"],
                    "LastProcessingResult": "OK",
                }
            ]
        },
        "GetAccountSettings": {"AccountLimit": {"ConcurrentExecutions": 1000}},
        "ListFunctions": {
            "Functions": [
                {
                    "FunctionName": "shop",
                    "Environment": {"Variables": {"TAGLINE_TAG": "usage_record"}},
                    "LoggingConfig": {"LogFormat": "JSON", "ApplicationLogLevel": "INFO"},
                },
                {"FunctionName": "another"},
            ]
        },
    },
}


class Client:
    """Answers like a service; each answer is held against botocore's model of it."""

    def __init__(self, service: str, answers: Mapping[str, Any]) -> None:
        self._model = SESSION.get_service_model(service)
        self._answers = answers

    def __getattr__(self, method: str) -> Callable[..., Any]:
        operation = "".join(word.title() for word in method.split("_"))

        def answer(**asked: Any) -> Any:
            model = self._model.operation_model(operation)
            ParamValidator().validate(asked, model.input_shape)
            found = self._answers[operation]
            if isinstance(found, Exception):
                raise found
            body = {name: value for name, value in found.items() if name != "ResponseMetadata"}
            problems = ParamValidator().validate(body, model.output_shape)
            assert not problems.has_errors(), problems.generate_report()
            return found

        return answer

    def get_paginator(self, method: str) -> Any:
        pages = self

        class Paginator:
            def paginate(self, **asked: Any) -> Iterator[Any]:
                yield getattr(pages, method)(**asked)

        return Paginator()


class Twin(Target):
    """A stack whose services answer from a mapping."""

    answers: Mapping[str, Mapping[str, Any]]
    keys: tuple[str, ...] = ()
    store_error: str = ""

    def __init__(
        self, answers: Mapping[str, Mapping[str, Any]], more: Mapping[str, str] | None = None, **marks: str
    ) -> None:
        outputs = {
            "StreamArn": STREAM,
            "StreamName": "lines",
            "SubscriptionRoleArn": ROLE,
            "AlertTopic": TOPIC,
            "Bucket": "lake-bucket",
            "LakeDatabase": "tagline_1",
            "RowConsumerName": "tagline-RowConsumer",
            **(more or {}),
        }
        super().__init__(None, outputs, {}, **marks)
        object.__setattr__(self, "answers", answers)

    def now(self) -> datetime:
        return NOW

    def client(self, service: str) -> Any:
        return Client(service, self.answers[service])

    def bucket(self) -> Any:
        twin = self

        class Objects:
            def keys(self, prefix: str) -> Iterator[str]:
                return (key for key in twin.keys if key.startswith(prefix))

        return Objects()

    def store(self) -> Any:
        twin = self

        class Store:
            def days(self) -> None:
                if twin.store_error:
                    raise StoreError(twin.store_error)

        return Store()


def findings(twin: Target) -> list[Finding]:
    return list(examine(twin, all_checks(twin)))


def at(*path: str | int, value: Any) -> Callable[[dict[str, Any]], None]:
    """Return a change of the answers: what is at a path gets a value, or is taken away if that is None."""

    def change(answers: dict[str, Any]) -> None:
        place: Any = answers
        for step in path[:-1]:
            place = place[step]
        if value is None:
            del place[path[-1]]
        else:
            place[path[-1]] = value

    return change


FILTER = ("logs", "DescribeSubscriptionFilters", "subscriptionFilters")
SUMMARY = ("kinesis", "DescribeStreamSummary", "StreamDescriptionSummary")
MAPPING = ("lambda", "ListEventSourceMappings", "EventSourceMappings")
ALARM = ("cloudwatch", "DescribeAlarms", "CompositeAlarms")
SENDER = ("lambda", "ListFunctions", "Functions", 0)
HEALTHY_FILTER = HEALTHY["logs"]["DescribeSubscriptionFilters"]["subscriptionFilters"][0]
# Each misconfiguration, a part of the problem that is found and a part of its fix.
SEEDED: list[tuple[Callable[[dict[str, Any]], None], str, str]] = [
    (at(*FILTER, value=[]), "no log group is subscribed", "LogGroups"),
    (
        at("logs", "DescribeLogGroups", "logGroups", 0, "logGroupName", value="/tagline/tagline/RowConsumer"),
        "feeds itself",
        "delete its subscription",
    ),
    (at(*FILTER, 0, "filterPattern", value='"other"'), "selects no records", '"usage_record"'),
    (at(*FILTER, 0, "filterPattern", value="{ $.a = "), "selects no records", '"usage_record"'),
    (
        at(*FILTER, value=[HEALTHY_FILTER, {**HEALTHY_FILTER, "filterName": "b"}]),
        "2 subscriptions",
        "all but one",
    ),
    (at(*FILTER, 0, "distribution", value="ByLogStream"), "into one shard", "Random"),
    (at(*FILTER, 0, "roleArn", value=f"{ROLE}2"), "has the role", ROLE),
    (at(*SUMMARY, "StreamStatus", value="DELETING"), "lines is DELETING", "deploy"),
    (at(*SUMMARY, "RetentionPeriodHours", value=24), "for 24 hours", "StreamRetentionHours"),
    (
        at(
            "kinesis",
            "DescribeStreamSummary",
            "ResponseMetadata",
            "HTTPHeaders",
            "date",
            value="Mon, 30 Nov 2026 11:00:00 GMT",
        ),
        "3600 s ahead",
        "NTP",
    ),
    (
        at("kms", "DescribeKey", "KeyMetadata", "KeyState", value="PendingDeletion"),
        "is PendingDeletion",
        "cancel-key-deletion",
    ),
    (
        at(
            "glue",
            "GetTables",
            value=ClientError({"Error": {"Code": "EntityNotFoundException"}}, "GetTables"),
        ),
        "tagline_1 of the lake's tables is not there",
        "deploy",
    ),
    (
        at("glue", "GetTables", "TableList", 0, "StorageDescriptor", "Location", value="s3://other/records/"),
        "records of tagline_1 reads s3://other/records/",
        "delete it",
    ),
    (at("sns", "ListSubscriptionsByTopic", "Subscriptions", value=[]), "nobody is notified", "AlertEmail"),
    (
        at(
            "sns",
            "ListSubscriptionsByTopic",
            "Subscriptions",
            0,
            "SubscriptionArn",
            value="PendingConfirmation",
        ),
        "no subscription to the topic is confirmed",
        "confirm it",
    ),
    (
        at("sns", "GetTopicAttributes", "Attributes", "KmsMasterKeyId", value="alias/aws/sns"),
        "cannot publish",
        "key of yours",
    ),
    (at(*ALARM, value=[]), "no alarm publishes", "deploy"),
    (at(*ALARM, 0, "ActionsEnabled", value=False), "actions are disabled", "enable-alarm-actions"),
    (at(*ALARM, 0, "StateValue", value="ALARM"), "export is on", "docs/runbook.md"),
    (at("lambda", "GetFunctionConfiguration", "State", value="Failed"), "is Failed", "deploy"),
    (
        at("lambda", "GetFunctionConcurrency", "ReservedConcurrentExecutions", value=0),
        "never run",
        "reserved",
    ),
    (at(*MAPPING, value=[]), "nothing calls", "deploy"),
    (at(*MAPPING, 0, "State", value="Disabled"), "mapping is disabled", "enable it"),
    (
        at(*MAPPING, 0, "FilterCriteria", value={"Filters": [{"Pattern": "{}"}]}),
        "has a filter",
        "FilterCriteria",
    ),
    (at(*MAPPING, 0, "DestinationConfig", value=None), "no destination on failure", "template"),
    (
        at(*MAPPING, 0, "FunctionResponseTypes", value=[]),
        "ignores which lines failed",
        "ReportBatchItemFailures",
    ),
    (
        at(*MAPPING, 0, "LastProcessingResult", value="PROBLEM: Function call failed"),
        "last batch",
        "consumerlag",
    ),
    (
        at("lambda", "GetAccountSettings", "AccountLimit", "ConcurrentExecutions", value=10),
        "at most 10",
        "Quotas",
    ),
    (
        at("logs", "DescribeLogGroups", "logGroups", 0, "logGroupClass", value="INFREQUENT_ACCESS"),
        "cannot be subscribed",
        "STANDARD",
    ),
    (at(*FILTER, 0, "destinationArn", value=f"{STREAM}2"), "shop is not subscribed", "LogGroups"),
    (at(*SENDER, "LoggingConfig", "ApplicationLogLevel", value="WARN"), "are dropped", "INFO"),
    (
        at(*SENDER, "Environment", "Variables", "TAGLINE_TAG", value="other"),
        "writes the tag other",
        "usage_record",
    ),
    (
        at(
            "sns",
            "GetTopicAttributes",
            value=ClientError({"Error": {"Code": "AccessDenied"}}, "GetTopicAttributes"),
        ),
        "cannot be checked",
        "credentials",
    ),
]


def test_a_stack_in_order_has_no_finding() -> None:
    assert findings(Twin(HEALTHY)) == []


def test_an_account_level_policy_collects_as_well() -> None:
    answers = deepcopy(HEALTHY)
    answers["logs"]["DescribeSubscriptionFilters"] = {"subscriptionFilters": []}
    document = {"DestinationArn": STREAM, "FilterPattern": '"usage_record"'}
    policy = {
        "policyName": "tagline-new-log-groups",
        "policyType": "SUBSCRIPTION_FILTER_POLICY",
        "policyDocument": json.dumps(document),
        "selectionCriteria": 'LogGroupName NOT IN ["a"]',
    }
    problem = "no log group is subscribed to the stream"
    assert problem in {each.problem for each in findings(Twin(answers))}

    answers["logs"]["DescribeAccountPolicies"] = {"accountPolicies": [policy]}
    assert problem not in {each.problem for each in findings(Twin(answers))}
    (found,) = account_policies(Twin(answers))
    assert (found.group, found.name) == ('all, LogGroupName NOT IN ["a"]', "tagline-new-log-groups")


@pytest.mark.parametrize(("change", "problem", "fix"), SEEDED, ids=[problem for _, problem, _ in SEEDED])
def test_each_misconfiguration_is_found_with_its_fix(
    change: Callable[[dict[str, Any]], None], problem: str, fix: str
) -> None:
    answers = deepcopy(HEALTHY)
    change(answers)

    assert [each for each in findings(Twin(answers)) if problem in each.problem and fix in each.fix]


def test_what_waits_in_the_bucket_and_a_store_that_does_not_answer_are_found() -> None:
    twin = Twin(HEALTHY)
    object.__setattr__(twin, "keys", ("aws/lambda/a", "quarantine/late/b"))
    object.__setattr__(twin, "store_error", "AccessDeniedException: only existing customers")
    problems = {each.problem: each.fix for each in findings(twin)}
    assert set(problems) == {
        "batches that the consumer gave up are in the bucket",
        "lines are in quarantine",
        "the store does not answer: AccessDeniedException: only existing customers",
    }


def test_tags_that_contain_each_other_are_found() -> None:
    answers = deepcopy(HEALTHY)
    (found,) = findings(Twin(answers, meter_tag="usage_record_meter"))
    assert (found.check, "MeterTag" in found.fix) == ("tags", True)


@pytest.mark.parametrize(
    ("settings", "problem", "fix"),
    [
        # Nothing listens there.
        (
            {"SEARCH_URL": "http://127.0.0.1:1"},
            "http://127.0.0.1:1 does not answer this machine",
            "SearchUrl",
        ),
        ({"METER_URL": "http://127.0.0.1:1"}, "", ""),
    ],
)
def test_a_search_cluster_is_asked_if_there_is_one(settings: dict[str, str], problem: str, fix: str) -> None:
    answers = deepcopy(HEALTHY)
    environment = {"METER_API_KEY_ARN": f"arn:aws:secretsmanager:us-east-1:{'1' * 12}:secret:key", **settings}
    answers["lambda"]["GetFunctionConfiguration"] = {**FUNCTION, "Environment": {"Variables": environment}}
    answers["secretsmanager"] = {"GetSecretValue": {"SecretString": "ApiKey secret"}}
    twin = Twin(answers, {"MeterConsumerName": "tagline-MeterConsumer"})

    found = findings(twin)

    assert [problem in each.problem and fix in each.fix for each in found] == ([True] if problem else [])


def test_the_consumer_of_meters_is_looked_at_too() -> None:
    answers = deepcopy(HEALTHY)
    at(*MAPPING, 0, "State", value="Disabled")(answers)
    twin = Twin(answers, {"MeterConsumerName": "tagline-MeterConsumer"})

    disabled = [each.problem for each in findings(twin) if "mapping is disabled" in each.problem]

    assert [problem.split()[0] for problem in disabled] == ["tagline-RowConsumer", "tagline-MeterConsumer"]


# ---- The pipeline that runs here ---------------------------------------------------------------------------


@pytest.mark.tagline(apps=tagline_with_samples())
def test_a_record_is_followed_into_the_store(tagline: Pipeline) -> None:
    target = target_of(tagline)
    hops = list(follow(target, 60))
    assert [hop.place.split()[0] for hop in hops] == ["log", "stream", "store"]
    times = [hop.seconds for hop in hops]
    assert None not in times
    assert times == sorted(times, key=lambda each: each or 0)
    # Its row is no request of the API.
    assert target.store().count() == 1
    assert [each.problem for each in findings(target)] == ["nobody is notified of alarms"]


@pytest.mark.tagline(apps=tagline_with_samples(store="lake"), processes=True)
def test_the_command_prints_findings_and_hops_and_says_by_its_status_whether_all_is_well(
    tagline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = target_of(tagline)
    monkeypatch.setattr(targets, "running_target", lambda: target)
    done = CliRunner().invoke(app, ["doctor", "--json", "--wait", "60"])
    printed = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [line["place"].split()[0] for line in printed if "place" in line] == ["log", "stream", "store"]
    assert [line["check"] for line in printed if "check" in line] == ["alerts"]
    assert done.exit_code == 1

    topic = target.outputs["AlertTopic"]
    target.client("sns").subscribe(TopicArn=topic, Protocol="email", Endpoint="ops@example.com")
    well = CliRunner().invoke(app, ["doctor", "--no-canary"])
    assert (well.exit_code, "the settings are in order" in well.stdout) == (0, True), well.stdout


@pytest.mark.tagline(apps=tagline_with_samples())
def test_a_record_that_does_not_come_is_said_where(tagline: Pipeline) -> None:
    target = target_of(tagline)
    logs = target.client("logs")
    for group in [each["logGroupName"] for each in logs.describe_log_groups()["logGroups"]]:
        for found in logs.describe_subscription_filters(logGroupName=group)["subscriptionFilters"]:
            logs.put_subscription_filter(
                **{name: found[name] for name in ("logGroupName", "filterName", "destinationArn", "roleArn")},
                filterPattern='"other"',
            )
    hops = list(follow(target, 0))
    assert [(hop.place.split()[0], hop.seconds is None) for hop in hops] == [("log", False), ("stream", True)]
    assert timedelta() <= timedelta(seconds=hops[0].seconds or 0)
