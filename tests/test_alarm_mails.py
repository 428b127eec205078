"""A whole pipeline, and the mails of its alarms: traffic and faults go in, mails come out."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests as http
from onemachine.faults import Fault, Kind
from onemachine.pipeline import App, Pipeline
from tagline import Record, write

from cli.apps import ROOT
from exporter.lake.manifest import folder
from monitoring.alarms import ALARMS

FILES = ("alarm_mails", "meter_alarm_mails")
GROUP = "/aws/lambda/shop"
SHOP = f"Resources:\n  Lines: {{Type: AWS::Logs::LogGroup, Properties: {{LogGroupName: {GROUP}}}}}\n"
# The pipeline's clock: no test depends on the time at which it runs.
BEGIN = datetime(2027, 3, 1, 10, 0, 5, tzinfo=UTC)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


@contextmanager
def deployed(folder: Path, resources: str, **parameters: str) -> Iterator[Pipeline]:
    """Run a shop's resources and this project's stack, without its schedules."""
    path = folder / "template.yml"
    path.write_text(resources)
    parameters |= {
        "LogGroups": GROUP,
        "BatchWindowSeconds": "0",
        "AlertEmail": "ops@example.com",
        "StreamMode": "PROVISIONED",
        "ShardCount": "1",
    }
    apps = [App("shop", path), App("tagline", ROOT / "template.yml", parameters)]
    with Pipeline(apps, now=BEGIN) as pipeline:
        pipeline.client("logs").create_log_stream(logGroupName=GROUP, logStreamName="one")
        enable_schedules(pipeline, "DISABLED")
        yield pipeline


def go_to_ten(pipeline: Pipeline) -> None:
    """Put the clock to ten in the morning, so much later that no alarm looks at what was before."""
    day = pipeline.clock.now() + timedelta(days=4)
    pipeline.advance(day.replace(hour=10, minute=0, second=5, microsecond=0) - pipeline.clock.now())
    assert on(pipeline) == set()


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    with deployed(
        tmp_path_factory.mktemp("shop"), SHOP, Store="lake", ApiReservedConcurrency="1"
    ) as pipeline:
        yield pipeline


@pytest.fixture
def pipeline(shop: Pipeline) -> Pipeline:
    go_to_ten(shop)
    return shop


def enable_schedules(pipeline: Pipeline, state: str, function: str = "") -> None:
    """Enable or disable the schedules of a function, or all."""
    schedules = pipeline.client("scheduler")
    for schedule in schedules.list_schedules()["Schedules"]:
        known = schedules.get_schedule(Name=schedule["Name"])
        if known["Target"]["Arn"].endswith(function):
            kept = ("Name", "ScheduleExpression", "FlexibleTimeWindow", "Target")
            schedules.update_schedule(**{each: known[each] for each in kept}, State=state)


def enable_mapping(pipeline: Pipeline, function: str, *, enabled: bool) -> None:
    functions = pipeline.client("lambda")
    (mapping,) = functions.list_event_source_mappings(FunctionName=function)["EventSourceMappings"]
    functions.update_event_source_mapping(UUID=mapping["UUID"], Enabled=enabled)


def put(pipeline: Pipeline, *messages: str, group: str = GROUP) -> None:
    """Write lines into a log group, now."""
    now_ms = int(pipeline.clock.now().timestamp() * 1000)
    pipeline.client("logs").put_log_events(
        logGroupName=group,
        logStreamName="one",
        logEvents=[{"timestamp": now_ms, "message": message} for message in messages],
    )


def say(pipeline: Pipeline, *messages: str, group: str = GROUP) -> None:
    """Write lines into a log group, now, and wait for what comes of them."""
    put(pipeline, *messages, group=group)
    pipeline.settle()


def until(happened: Callable[[], object]) -> None:
    """Wait for an event: a minute is more than any machine needs."""
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def was_measured(pipeline: Pipeline, function: str, metric: str, since: datetime) -> bool:
    """Tell whether a metric of Lambda's has data of a function since a time."""
    found = pipeline.client("cloudwatch").get_metric_statistics(
        Namespace="AWS/Lambda",
        MetricName=metric,
        Dimensions=[{"Name": "FunctionName", "Value": function}],
        StartTime=since,
        EndTime=pipeline.clock.now() + MINUTE,
        Period=60,
        Statistics=["SampleCount"],
    )
    return bool(found["Datapoints"])


def on(pipeline: Pipeline) -> set[str]:
    """Return the alarms that are on, without the composite ones."""
    alarms = pipeline.client("cloudwatch").describe_alarms(StateValue="ALARM", AlarmTypes=["MetricAlarm"])
    return {alarm["AlarmName"] for alarm in alarms["MetricAlarms"]}


def composite_of(name: str) -> tuple[str, set[str]]:
    """Return the composite alarm of a row with a severity, and the names of its alarms."""
    for row in ALARMS:
        for severity in row.thresholds:
            if name == f"{row.name}{severity.title()}":
                alarms = {f"tagline-{each}" for each in row.logical_ids(severity)}
                return f"tagline {severity.upper()} {row.group}", alarms
    raise KeyError(name)


@dataclass
class Watched:
    """What is seen of an alarm from now on.

    Attributes:
        pipeline: The pipeline.
        name: The alarm's row and severity.
        seen: The alarms that were on after a step.
    """

    pipeline: Pipeline
    name: str
    seen: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._before = len(self.pipeline.services.outbox.mails())
        self._began = self.pipeline.clock.now().replace(microsecond=0)

    def go_to(self, after: timedelta) -> None:
        """Put the clock to a time after the beginning: how quick this machine is does not show."""
        self.pipeline.functions.flush()  # Metrics are lines of functions, too.
        self.pipeline.advance(self._began + after - self.pipeline.clock.now())
        self.seen |= on(self.pipeline)

    def check(self, *also: str) -> None:
        """Hold that it went on and off again, with a mail each, and what else sent mails."""
        composite, alarms = composite_of(self.name)
        assert alarms <= self.seen
        assert not alarms & on(self.pipeline)
        sent = self.pipeline.services.outbox.mails()[self._before :]
        assert {mail.to for mail in sent} == {"ops@example.com"}
        subjects = [mail.subject.partition('" in ')[0].replace('"', "") for mail in sent]
        of_it = [subject for subject in subjects if subject.endswith(composite)]
        assert of_it == [f"ALARM: {composite}", f"OK: {composite}"]
        assert {subject.partition(": ")[2] for subject in subjects} <= {composite, *also}
        first = next(mail for mail in sent if composite in mail.subject)
        assert "docs/runbook.md" in first.body


# ---- The requests of the shop ------------------------------------------------------------------------------

Lines = Callable[[Pipeline, int], list[str]]


def requests(count: int, status: int = 200, duration_ms: float = 20.5, client: str = "ada") -> Lines:
    def lines(pipeline: Pipeline, first: int) -> list[str]:
        at_ms = int(pipeline.clock.now().timestamp() * 1000)
        fields = {"route": "/pets", "method": "GET", "client": client, "status": status}
        fields["duration_ms"] = duration_ms
        src = f"shop-{at_ms // 86_400_000}"
        return [
            write(Record(f"{at_ms:024x}{number:08x}", at_ms, fields, type="api_request", src=src, seq=number))
            for number in range(first, first + count)
        ]

    return lines


def text(message: str, count: int = 1) -> Lines:
    return lambda _pipeline, _first: [message] * count


@dataclass(frozen=True)
class Traffic:
    """Lines that are written several times.

    Attributes:
        lines: The lines.
        step: How far apart.
        times: How often.
        before: Lines half an hour before.
        also: Other composite alarms of the same fault.
    """

    lines: Sequence[Lines]
    step: timedelta = 5 * MINUTE
    times: int = 3
    before: Sequence[Lines] = ()
    also: Sequence[str] = ()


TIMED_OUT = "2027-03-01T10:00:00.000Z 6f2b Task timed out after 3.00 seconds"
STARTED = "START RequestId: 6f2b Version: $LATEST"
UNREADABLE = '{"_tag": "usage_record", "status": '
TRAFFIC = {
    # With as many good ones before that the error budget lasts.
    "ErrorRateWarning": Traffic([requests(56), requests(4, 500)], before=[requests(900)]),
    "ErrorRateCritical": Traffic([requests(86), requests(14, 503)], also=["tagline WARNING requests"]),
    "ResponseTimeWarning": Traffic([requests(60, 200, 1_500)], times=4),
    "ResponseTimeCritical": Traffic([requests(60, 200, 6_000)], times=4),
    "RequestsPerMinuteWarning": Traffic([requests(1_000)], MINUTE, 4),
    "RequestsPerMinuteCritical": Traffic([requests(2_000)], MINUTE, 4),
    "BurnFastCritical": Traffic([requests(98), requests(2, 500)], also=["tagline WARNING requests"]),
    "BurnSlowWarning": Traffic([requests(198), requests(2, 502)], 30 * MINUTE),
    "RateLimitedWarning": Traffic([requests(100, 429)]),
    "RateLimitedCritical": Traffic([requests(1_000, 429)]),
    "AuthFailuresWarning": Traffic([requests(50, 401), requests(50, 403)]),
    "AuthFailuresCritical": Traffic([requests(500, 401), requests(500, 403)]),
    "TimeOutsWarning": Traffic([text(TIMED_OUT, 5)]),
    "NoRecordsCritical": Traffic([text(STARTED)]),
    "QuarantinedWarning": Traffic([text(UNREADABLE)], times=1),
    "QuarantinedCritical": Traffic([text(UNREADABLE, 100)], times=1),
}


@pytest.mark.parametrize("name", TRAFFIC)
def test_lines_turn_an_alarm_on_with_one_mail_and_its_end_is_another(name: str, pipeline: Pipeline) -> None:
    case, alarm, written = TRAFFIC[name], Watched(pipeline, name), 0

    def write_all(parts: Sequence[Lines]) -> None:
        nonlocal written
        lines: list[str] = []
        for part in parts:
            lines += part(pipeline, written + len(lines))
        written += len(lines)
        say(pipeline, *lines)

    if case.before:
        write_all(case.before)
    for place in range(case.times):
        alarm.go_to(30 * MINUTE + place * case.step)
        write_all(case.lines)
    alarm.go_to(31 * MINUTE + (case.times - 1) * case.step)
    if name.startswith("ResponseTime"):  # Few values leave an alarm of a percentile as it is.
        alarm.go_to(HOUR)
        write_all([requests(200)])
    alarm.go_to(48 * HOUR)
    alarm.check(*case.also)


# ---- Faults ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("ReconcilerErrorWarning", "Reconciler"),
        ("ExporterErrorWarning", "DailyExporter"),
        ("UpkeepErrorWarning", "Upkeep"),
        ("DownloadApiErrorCritical", "DownloadApi"),
        ("DownloadWorkerErrorWarning", "DownloadWorker"),
        ("UsageRollerErrorWarning", "UsageRoller"),
        ("UsageApiErrorWarning", "UsageApi"),
    ],
)
def test_a_function_that_fails_is_one_mail(name: str, function: str, pipeline: Pipeline) -> None:
    alarm = Watched(pipeline, name)
    assert pipeline.functions.invoke(f"tagline-{function}", b'"nothing"').error
    alarm.go_to(MINUTE)
    alarm.go_to(HOUR)
    alarm.check()


def test_a_consumer_that_is_stopped_is_one_mail(pipeline: Pipeline) -> None:
    alarm = Watched(pipeline, "ConsumerStoppedCritical")
    enable_mapping(pipeline, "tagline-RowConsumer", enabled=False)
    for place in range(4):
        alarm.go_to(place * 5 * MINUTE)
        say(pipeline, *requests(1)(pipeline, place))
    alarm.go_to(16 * MINUTE)
    enable_mapping(pipeline, "tagline-RowConsumer", enabled=True)
    pipeline.settle()
    alarm.go_to(2 * HOUR)
    alarm.check()


def expire(alarm: Watched, function: str, line: str, refusals: int) -> None:
    """Let a line wait for a function until it is too old, and the bucket refuse to keep it so often."""
    refusal, pipeline = Fault(Kind.DENY, service="s3", operation="PUT", times=refusals), alarm.pipeline
    enable_mapping(pipeline, function, enabled=False)
    say(pipeline, line)
    alarm.go_to(7 * HOUR)
    pipeline.services.faults.add(refusal)
    enable_mapping(pipeline, function, enabled=True)
    pipeline.settle()
    assert pipeline.services.faults.clear() == {refusal: refusals}
    alarm.go_to(7 * HOUR + MINUTE)
    alarm.go_to(9 * HOUR)


def lag(alarm: Watched, function: str, lines: Callable[[], str], minutes: int) -> None:
    """Let a line wait for a function for minutes, and come again and again in the next three."""
    pipeline, functions = alarm.pipeline, ["tagline-RowConsumer", function]
    for each in functions:
        enable_mapping(pipeline, each, enabled=False)
    for mapping in pipeline.mappings:
        mapping.redeliver(sys.maxsize)
    say(pipeline, lines())
    for minute in range(minutes, minutes + 3):
        alarm.go_to(minute * MINUTE)
        enable_mapping(pipeline, function, enabled=True)
        until(partial(was_measured, pipeline, function, "IteratorAge", pipeline.clock.now()))
    for mapping in pipeline.mappings:
        mapping.redeliver(0)
    for each in functions:
        enable_mapping(pipeline, each, enabled=True)
    pipeline.settle()
    say(pipeline, lines())
    alarm.go_to((minutes + 4) * MINUTE)
    alarm.go_to(2 * HOUR)


@pytest.mark.parametrize(("name", "refusals"), [("FailedBatchesCritical", 0), ("DroppedBatchesCritical", 1)])
def test_lines_that_no_consumer_took_for_six_hours_are_one_mail(
    name: str, refusals: int, pipeline: Pipeline
) -> None:
    alarm = Watched(pipeline, name)
    expire(alarm, "tagline-RowConsumer", requests(1)(pipeline, 0)[0], refusals)
    alarm.check()


@pytest.mark.parametrize(
    ("name", "minutes", "also"),
    [("ConsumerLagWarning", 6, []), ("ConsumerLagCritical", 11, ["tagline WARNING collection"])],
)
def test_old_records_that_come_again_and_again_are_one_mail(
    name: str, minutes: int, also: list[str], pipeline: Pipeline
) -> None:
    alarm = Watched(pipeline, name)
    lag(alarm, "tagline-RowConsumer", lambda: requests(1)(pipeline, 0)[0], minutes)
    alarm.check(*also)


def test_a_log_group_of_the_pipeline_itself_that_is_subscribed_is_one_mail(pipeline: Pipeline) -> None:
    alarm, own = Watched(pipeline, "RecursionWarning"), "/tagline/tagline/Upkeep"
    logs = pipeline.client("logs")
    (known,) = logs.describe_subscription_filters(logGroupName=GROUP)["subscriptionFilters"]
    kept = {each: known[each] for each in ("filterPattern", "destinationArn", "roleArn")}
    logs.put_subscription_filter(logGroupName=own, filterName="own", **kept)
    logs.create_log_stream(logGroupName=own, logStreamName="one")
    say(pipeline, *requests(1)(pipeline, 0), group=own)
    logs.delete_subscription_filter(logGroupName=own, filterName="own")
    alarm.go_to(MINUTE)
    alarm.go_to(HOUR)
    alarm.check()


def test_lines_that_are_lost_on_the_way_are_one_mail(pipeline: Pipeline) -> None:
    alarm = Watched(pipeline, "LostCritical")
    for day, lost in enumerate((2, 0)):
        alarm.go_to(day * 24 * HOUR)
        lines = requests(10)(pipeline, 0)
        say(pipeline, *lines[: 8 - lost], *lines[8:])
        asked = f'{{"day": "{pipeline.clock.now().date()}"}}'.encode()
        assert pipeline.functions.invoke("tagline-Reconciler", asked).error is None
        alarm.go_to(day * 24 * HOUR + MINUTE)
    alarm.check()


@pytest.mark.parametrize(
    ("name", "function", "step", "also"),
    [
        ("UsageMissingCritical", "UsageRoller", HOUR, []),
        ("ReconcileMissingCritical", "Reconciler", 12 * HOUR, ["tagline CRITICAL export"]),
        ("ExportMissingCritical", "DailyExporter", 12 * HOUR, ["tagline CRITICAL collection"]),
    ],
)
def test_a_schedule_that_is_off_is_one_mail(
    name: str, function: str, step: timedelta, also: list[str], pipeline: Pipeline
) -> None:
    alarm = Watched(pipeline, name)
    for place in range(4):
        alarm.go_to(place * step)
        say(pipeline, *requests(1)(pipeline, place))
    alarm.go_to(3 * step + MINUTE)
    enable_schedules(pipeline, "ENABLED", function)
    alarm.go_to(5 * step)
    enable_schedules(pipeline, "DISABLED", function)
    alarm.go_to(5 * step + MINUTE)
    alarm.go_to(5 * step + 6 * 24 * HOUR)
    alarm.check(*also)


@pytest.mark.parametrize(("name", "hours"), [("FreshnessWarning", 3), ("FreshnessCritical", 5)])
def test_numbers_that_are_old_are_one_mail(name: str, hours: int, pipeline: Pipeline) -> None:
    alarm, s3 = Watched(pipeline, name), pipeline.client("s3")
    # No numbers are there of a month ago, when another test made some.
    bucket = pipeline.outputs["tagline"]["Bucket"]
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix="usage/"):
        for each in page.get("Contents", []):
            s3.delete_object(Bucket=bucket, Key=each["Key"])
    say(pipeline, *requests(1)(pipeline, 0))
    alarm.go_to(HOUR)
    enable_mapping(pipeline, "tagline-RowConsumer", enabled=False)
    say(pipeline, *requests(1)(pipeline, 1))
    alarm.go_to((1 + hours) * HOUR)
    assert pipeline.functions.invoke("tagline-UsageRoller", b"{}").error is None
    alarm.go_to((1 + hours) * HOUR + MINUTE)
    enable_mapping(pipeline, "tagline-RowConsumer", enabled=True)
    pipeline.settle()
    alarm.go_to((2 + hours) * HOUR)
    assert pipeline.functions.invoke("tagline-UsageRoller", b"{}").error is None
    alarm.go_to(24 * HOUR)
    alarm.check()


def test_a_zip_that_cannot_be_made_is_one_mail(pipeline: Pipeline) -> None:
    alarm, sqs = Watched(pipeline, "DownloadDeadLettersCritical"), pipeline.client("sqs")

    def messages(queue: str) -> int:
        """Return how many messages wait in a queue."""
        found = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["ApproximateNumberOfMessages"])
        return int(found["Attributes"]["ApproximateNumberOfMessages"])

    queue, dead = (
        sqs.get_queue_url(QueueName=f"tagline-{name}")["QueueUrl"]
        for name in ("DownloadQueue", "DownloadDeadLetters")
    )
    sqs.send_message(QueueUrl=queue, MessageBody="nothing")
    hours = 0
    while not messages(dead):
        while messages(queue):  # Until the worker has it.
            time.sleep(0.05)
        hours += 3
        assert hours < 30
        alarm.go_to(hours * HOUR)
    alarm.go_to(hours * HOUR + 10 * MINUTE)
    sqs.purge_queue(QueueUrl=dead)
    pipeline.settle()
    alarm.go_to((hours + 2) * HOUR)
    alarm.check("tagline WARNING downloads")


def lake_keys(pipeline: Pipeline, prefix: str) -> list[str]:
    s3, bucket = pipeline.client("s3"), pipeline.outputs["tagline"]["Bucket"]
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    return [each["Key"] for page in pages for each in page.get("Contents", [])]


@contextmanager
def damaged(pipeline: Pipeline, key: str) -> Iterator[None]:
    """Change the last byte of an object of the lake until the end."""
    s3, where = pipeline.client("s3"), {"Bucket": pipeline.outputs["tagline"]["Bucket"], "Key": key}
    body = s3.get_object(**where)["Body"].read()
    s3.put_object(**where, Body=body[:-1] + bytes([body[-1] ^ 0xFF]))
    try:
        yield
    finally:
        s3.put_object(**where, Body=body)


def run(pipeline: Pipeline, function: str, **event: object) -> dict[str, Any]:
    answer: dict[str, Any] = pipeline.invoke(f"tagline-{function}", event)
    return answer


def test_a_day_that_cannot_be_exported_is_one_mail(pipeline: Pipeline) -> None:
    alarm, day = Watched(pipeline, "ExportFailedCritical"), pipeline.clock.now().date()
    say(pipeline, *requests(1)(pipeline, 0))
    alarm.go_to(24 * HOUR)
    (fragment,) = lake_keys(pipeline, f"store/day={day}/")
    with damaged(pipeline, fragment):
        assert list(run(pipeline, "DailyExporter")["failed"]) == [day.isoformat()]
    alarm.go_to(24 * HOUR + 3 * MINUTE)
    assert "failed" not in run(pipeline, "DailyExporter")
    alarm.go_to(26 * HOUR)
    alarm.check()


def test_a_zip_of_a_damaged_file_is_one_mail(pipeline: Pipeline) -> None:
    alarm, day = Watched(pipeline, "DownloadIncidentCritical"), pipeline.clock.now().date()
    days = {"start_date": day.isoformat(), "end_date": day.isoformat()}
    say(pipeline, *requests(9)(pipeline, 0))
    alarm.go_to(24 * HOUR)
    run(pipeline, "DailyExporter", day=day.isoformat())
    (part,) = (key for key in lake_keys(pipeline, folder(day)) if key.endswith(".csv.gz"))
    url = f"{pipeline.outputs['tagline']['DownloadUrl']}/downloads"

    def status() -> str:
        return str(http.get(asked["status_url"], timeout=60).json()["status"])

    began = pipeline.clock.now()
    with damaged(pipeline, part):
        asked = http.post(url, json={**days, "format": "csv"}, timeout=60).json()
        until(lambda: status() == "failed")
    until(lambda: was_measured(pipeline, "tagline-DownloadWorker", "Invocations", began))
    alarm.go_to(24 * HOUR + 3 * MINUTE)
    alarm.go_to(27 * HOUR)
    until(lambda: status() == "ready")
    alarm.go_to(29 * HOUR)
    alarm.check()


def test_a_function_of_which_too_many_run_is_one_mail(pipeline: Pipeline) -> None:
    alarm, url = Watched(pipeline, "ThrottledWarning"), pipeline.outputs["tagline"]["DownloadUrl"]

    def is_refused(_: int) -> bool:
        return http.get(f"{url}/openapi.json", timeout=60).status_code == 503

    for place in range(3):
        alarm.go_to(place * 5 * MINUTE)
        with ThreadPoolExecutor(4) as callers:
            until(lambda: any(callers.map(is_refused, range(4))))
    alarm.go_to(16 * MINUTE)
    alarm.go_to(2 * HOUR)
    alarm.check()


def test_a_schedule_that_could_start_no_function_is_one_mail(pipeline: Pipeline) -> None:
    alarm, sqs = Watched(pipeline, "ScheduleDeadLettersCritical"), pipeline.client("sqs")
    queue = sqs.get_queue_url(QueueName="tagline-ScheduleDeadLetters")["QueueUrl"]
    sqs.send_message(QueueUrl=queue, MessageBody="{}")
    alarm.go_to(10 * MINUTE)
    sqs.purge_queue(QueueUrl=queue)
    alarm.go_to(HOUR)
    alarm.check()


def test_the_stack_s_alarms_are_all_evaluated_here(shop: Pipeline) -> None:
    assert [each for each in shop.not_run if "CloudWatch" in each] == []
    assert Path(ROOT / "docs" / "runbook.md").is_file()


def test_each_row_of_the_table_is_driven() -> None:
    texts = "".join(Path(__file__).with_name(f"test_{name}.py").read_text() for name in FILES)
    names = [f"{alarm.name}{severity.title()}" for alarm in ALARMS for severity in alarm.thresholds]
    assert [name for name in names if f'"{name}"' not in texts] == []
