"""Settings of a pipeline that let lines be lost, late or unwatched, each with its fix."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from onemachine.filter_pattern import InvalidPatternError, matches

from cli.doctor.finding import Finding
from cli.doctor.glue import tables
from cli.doctor.search_cluster import search_cluster
from cli.subscriptions import OWN_GROUPS, account_policies
from cli.target import Target
from consumers.lines import quarantine
from exporter.store import StoreError

RUNBOOK = "docs/runbook.md"
FAILED_BATCHES = "aws/lambda/"
# A stream has to keep lines for longer than somebody takes to come and repair the consumer.
LEAST_RETENTION_HOURS = 48
# AWS gives new accounts 10; the pipeline's functions run beside yours.
LEAST_CONCURRENCY = 100
CLOCK_OFF_S = 60
# Keys that AWS manages, by their aliases.
AWS_KEYS = "alias/aws/"
# A line on stdout without a level counts as INFO; a function that keeps less drops records.
DROPPING_LEVELS = ("WARN", "ERROR", "FATAL")
FUNCTIONS = (
    *("RowConsumerName", "DailyExporterName", "ReconcilerName", "UpkeepName", "UsageRollerName"),
    *("UsageApiName", "DownloadApiName", "DownloadWorkerName", "MeterConsumerName"),
)
# What reads the stream; the second is there if there are meters or documents.
CONSUMERS = ("RowConsumerName", "MeterConsumerName")

Check = Callable[[Target], Iterator[Finding]]


def examine(target: Target, checks: Iterable[Check]) -> Iterator[Finding]:
    """Yield what checks find; one that may not ask its service is a finding itself."""
    for check in checks:
        try:
            yield from check(target)
        except (BotoCoreError, ClientError) as error:
            name = check.__name__.replace("_", " ")
            yield Finding(name, f"cannot be checked: {error}", "use credentials that may read it")


def all_checks(target: Target) -> tuple[Check, ...]:
    """Return the checks of a pipeline: on one machine no account has functions to be looked at."""
    everywhere = (log_groups, stream, store, tables, bucket, search_cluster, alerts, tags, clock)
    return (*everywhere, functions, senders) if target.endpoint is None else everywhere


# ---- Lines -> stream ---------------------------------------------------------------------------------------


def log_groups(target: Target) -> Iterator[Finding]:
    """Look at the subscriptions into the stream: which there are, and what they select."""
    arn = target.outputs["StreamArn"]
    subscribed = 0
    for group, found in _subscriptions(target):
        ours = [each for each in found if each["destinationArn"] == arn]
        subscribed += bool(ours)
        if ours and group.startswith(OWN_GROUPS):
            problem = f"{group} is the pipeline's own log group and is subscribed: it feeds itself"
            yield Finding("log groups", problem, "delete its subscription")
        if len(ours) > 1:
            problem = f"{group} has {len(ours)} subscriptions into the stream: each line comes as often"
            yield Finding("log groups", problem, f"delete all but one: {_names(ours)}")
        for each in ours:
            yield from _subscription(target, group, each)
    if not subscribed and not list(account_policies(target)):
        problem = "no log group is subscribed to the stream"
        yield Finding("log groups", problem, "tagline subscribe, or the parameter LogGroups")


def _subscription(target: Target, group: str, found: Mapping[str, Any]) -> Iterator[Finding]:
    name, pattern = found["filterName"], found["filterPattern"]
    try:
        selects = matches(pattern, f'{{"_tag": "{target.tag}"}}')
    except InvalidPatternError:
        selects = False
    if not selects:
        problem = f"the filter {name} of {group} selects no records: its pattern is {pattern!r}"
        yield Finding("log groups", problem, f'its pattern has to be: "{target.tag}"')
    if found.get("distribution", "ByLogStream") == "ByLogStream":
        problem = f"the filter {name} of {group} puts all lines of a log stream into one shard"
        yield Finding("log groups", problem, "its distribution has to be Random")
    role = target.outputs.get("SubscriptionRoleArn")
    if role and found.get("roleArn") != role:
        problem = f"the filter {name} of {group} has the role {found.get('roleArn')}"
        yield Finding("log groups", problem, f"give it the stack's: {role}")


def _subscriptions(target: Target) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    logs = target.client("logs")
    for page in logs.get_paginator("describe_log_groups").paginate():
        for group in page["logGroups"]:
            name = group["logGroupName"]
            yield name, logs.describe_subscription_filters(logGroupName=name)["subscriptionFilters"]


def _names(found: Iterable[Mapping[str, Any]]) -> str:
    return ", ".join(sorted(each["filterName"] for each in found))


def stream(target: Target) -> Iterator[Finding]:
    """Look at the stream."""
    name = target.outputs["StreamName"]
    found = target.client("kinesis").describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]
    if found["StreamStatus"] not in {"ACTIVE", "UPDATING"}:
        yield Finding("stream", f"{name} is {found['StreamStatus']}", "wait, or deploy the stack again")
    hours = found["RetentionPeriodHours"]
    if hours < LEAST_RETENTION_HOURS:
        problem = f"{name} keeps records for {hours} hours: a longer failure of the consumer loses lines"
        yield Finding("stream", problem, f"set StreamRetentionHours to {LEAST_RETENTION_HOURS} or more")
    key = found.get("KeyId", AWS_KEYS)
    if not key.startswith(AWS_KEYS):
        state = target.client("kms").describe_key(KeyId=key)["KeyMetadata"]["KeyState"]
        if state != "Enabled":
            problem = f"the key {key} is {state}: what it encrypts can be neither written nor read"
            yield Finding("key", problem, "aws kms enable-key, or aws kms cancel-key-deletion first")


# ---- Store, bucket, alerts ---------------------------------------------------------------------------------


def store(target: Target) -> Iterator[Finding]:
    """Ask the store something."""
    try:
        target.store().days()
    except StoreError as error:
        fix = "docs/how-to/choose-a-store.md has which accounts may use which store"
        yield Finding("store", f"the store does not answer: {error}", fix)


def bucket(target: Target) -> Iterator[Finding]:
    """Look for what waits in the bucket for somebody."""
    objects = target.bucket()
    if next(iter(objects.keys(FAILED_BATCHES)), None):
        problem = "batches that the consumer gave up are in the bucket"
        yield Finding("bucket", problem, f"tagline replay failed; {RUNBOOK}#failedbatches")
    if next(iter(objects.keys(quarantine.PREFIX)), None):
        problem = "lines are in quarantine"
        yield Finding("bucket", problem, f"tagline quarantine ls; {RUNBOOK}#quarantined")


def alerts(target: Target) -> Iterator[Finding]:
    """Look whether alarms would reach somebody, and at those that are on."""
    topic = target.outputs["AlertTopic"]
    sns = target.client("sns")
    pages = sns.get_paginator("list_subscriptions_by_topic").paginate(TopicArn=topic)
    found = [each["SubscriptionArn"] for page in pages for each in page["Subscriptions"]]
    if not found:
        yield Finding(
            "alerts",
            "nobody is notified of alarms",
            "set the parameter AlertEmail, or subscribe to the topic",
        )
    elif all(arn == "PendingConfirmation" for arn in found):
        problem = "nobody is notified of alarms: no subscription to the topic is confirmed"
        yield Finding("alerts", problem, "confirm it with the link in the mail, or send that mail again")
    if "alias/aws/sns" in sns.get_topic_attributes(TopicArn=topic)["Attributes"].get("KmsMasterKeyId", ""):
        problem = "the topic is encrypted with AWS's own key, so that CloudWatch cannot publish to it"
        yield Finding("alerts", problem, "use a key of yours, or none")
    yield from _alarms(target, topic)


def _alarms(target: Target, topic: str) -> Iterator[Finding]:
    pages = (
        target.client("cloudwatch").get_paginator("describe_alarms").paginate(AlarmTypes=["CompositeAlarm"])
    )
    ours = [each for page in pages for each in page["CompositeAlarms"] if topic in each["AlarmActions"]]
    if not ours:
        yield Finding("alerts", "no alarm publishes to the topic", "deploy this version's template")
    for alarm in ours:
        if not alarm["ActionsEnabled"]:
            problem = f"the alarm {alarm['AlarmName']} tells nobody: its actions are disabled"
            yield Finding("alerts", problem, "aws cloudwatch enable-alarm-actions")
        if alarm["StateValue"] == "ALARM":
            problem = f"the alarm {alarm['AlarmName']} is on: {alarm['StateReason']}"
            yield Finding("alerts", problem, RUNBOOK)


def tags(target: Target) -> Iterator[Finding]:
    """Look whether records and meter records can be distinguished."""
    if target.meter_tag and (target.tag in target.meter_tag or target.meter_tag in target.tag):
        problem = f"the tags {target.tag} and {target.meter_tag} contain each other"
        yield Finding("tags", problem, "choose other values for Tag and MeterTag")


def clock(target: Target) -> Iterator[Finding]:
    """Compare this machine's clock with AWS's."""
    name = target.outputs["StreamName"]
    answer = target.client("kinesis").describe_stream_summary(StreamName=name)
    date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    if date is None:
        return
    off = (target.now() - parsedate_to_datetime(date)).total_seconds()
    if abs(off) > CLOCK_OFF_S:
        problem = f"this machine's clock is {abs(off):.0f} s {'ahead' if off > 0 else 'behind'}"
        yield Finding("clock", problem, "set it by NTP: signatures and the times of records depend on it")


# ---- Functions ---------------------------------------------------------------------------------------------


def functions(target: Target) -> Iterator[Finding]:
    """Look at the pipeline's functions, and at what calls the consumer."""
    client = target.client("lambda")
    for output in FUNCTIONS:
        if (name := target.outputs.get(output)) is None:
            continue
        found = client.get_function_configuration(FunctionName=name)
        if found.get("State", "Active") not in {"Active", "Inactive"}:
            problem = f"{name} is {found['State']}: {found.get('StateReason', '')}"
            yield Finding("functions", problem, "deploy the stack again")
        if client.get_function_concurrency(FunctionName=name).get("ReservedConcurrentExecutions") == 0:
            problem = f"{name} is never run: its reserved concurrency is 0"
            yield Finding("functions", problem, "remove its reserved concurrency")
    for output in CONSUMERS:
        if (consumer := target.outputs.get(output)) is None:
            continue
        mappings = client.list_event_source_mappings(FunctionName=consumer)["EventSourceMappings"]
        if not mappings:
            yield Finding("functions", f"nothing calls {consumer}", "deploy the stack again")
        for mapping in mappings:
            yield from _mapping(consumer, mapping)
    limit = client.get_account_settings()["AccountLimit"]["ConcurrentExecutions"]
    if limit < LEAST_CONCURRENCY:
        problem = f"the account runs at most {limit} functions at once, and the pipeline's beside yours"
        yield Finding("functions", problem, "ask for more: Service Quotas, Lambda, Concurrent executions")


def _mapping(consumer: str, mapping: Mapping[str, Any]) -> Iterator[Finding]:
    if mapping["State"] in {"Disabled", "Disabling"}:
        yield Finding("functions", f"{consumer} is given no lines: its mapping is disabled", "enable it")
    if mapping.get("FilterCriteria", {}).get("Filters"):
        problem = f"the mapping of {consumer} has a filter, and drops the packed lines of CloudWatch Logs"
        yield Finding("functions", problem, "remove its FilterCriteria")
    if not mapping.get("DestinationConfig", {}).get("OnFailure", {}).get("Destination"):
        problem = f"what {consumer} gives up is not kept: its mapping has no destination on failure"
        yield Finding("functions", problem, "deploy this version's template")
    if "ReportBatchItemFailures" not in mapping.get("FunctionResponseTypes", []):
        problem = f"the mapping of {consumer} ignores which lines failed: whole batches are taken for stored"
        yield Finding("functions", problem, "its FunctionResponseTypes need ReportBatchItemFailures")
    if (result := mapping.get("LastProcessingResult", "")).startswith("PROBLEM"):
        yield Finding("functions", f"the last batch of {consumer} failed: {result}", f"{RUNBOOK}#consumerlag")


def senders(target: Target) -> Iterator[Finding]:
    """Look at the account's functions that write records: whether their log groups let them through."""
    client, logs = target.client("lambda"), target.client("logs")
    arn = target.outputs["StreamArn"]
    classes = {
        group["logGroupName"]: group.get("logGroupClass", "STANDARD")
        for page in logs.get_paginator("describe_log_groups").paginate()
        for group in page["logGroups"]
    }
    for page in client.get_paginator("list_functions").paginate():
        for function in page["Functions"]:
            tag = function.get("Environment", {}).get("Variables", {}).get("TAGLINE_TAG")
            if tag is None:
                continue
            logging = function.get("LoggingConfig", {})
            name = function["FunctionName"]
            group = logging.get("LogGroup", f"/aws/lambda/{name}")
            if group not in classes:
                continue
            found = logs.describe_subscription_filters(logGroupName=group)["subscriptionFilters"]
            is_ours = any(each["destinationArn"] == arn for each in found)
            if tag == target.tag:
                yield from _sender(name, group, classes[group], logging, is_ours=is_ours)
            elif is_ours:
                problem = f"{name} writes the tag {tag}, and the stack collects {target.tag}"
                yield Finding("senders", problem, f"set its TAGLINE_TAG to {target.tag}")


def _sender(
    name: str, group: str, group_class: str, logging: Mapping[str, Any], *, is_ours: bool
) -> Iterator[Finding]:
    if group_class != "STANDARD":
        problem = f"{name} writes to {group}, whose class {group_class} cannot be subscribed"
        yield Finding("senders", problem, "let it write to a log group of the class STANDARD")
    elif not is_ours:
        problem = f"{name} writes records, and its log group {group} is not subscribed"
        yield Finding("senders", problem, f"tagline subscribe {group}, or the parameter LogGroups")
    level = logging.get("ApplicationLogLevel", "INFO")
    if logging.get("LogFormat") == "JSON" and level in DROPPING_LEVELS:
        problem = f"{name} keeps lines of the level {level} and above: records count as INFO and are dropped"
        yield Finding("senders", problem, "set its ApplicationLogLevel to INFO")
