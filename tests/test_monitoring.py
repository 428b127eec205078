"""The table of alarms, what is written from it, and each alarm going on and off with one mail."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from onemachine.template.resolution import resolve
from onemachine.template.sam import translate
from onemachine.template.stack import Stack

from monitoring import cloudwatch, grafana
from monitoring.__main__ import ROOT, RULES, TEMPLATE, written
from monitoring.alarms import ALARMS, GROUPS, SEVERITIES
from monitoring.runbook import MissingHeadingError, filled
from tests.alarmed import Machine

PROMTOOL = shutil.which("promtool")
PARAMETERS = {
    "Store": "lake",
    "LogGroups": "/aws/lambda/shop",
    "MeterBucket": "ingest",
    "AlertEmail": "ops@example.com",
    "ExportFormats": "csv.gz,parquet",
}


@pytest.fixture(scope="module")
def stack() -> Stack:
    translated = translate(TEMPLATE)
    return resolve(translated, PARAMETERS, stack_name="tagline", endpoint="")


# ---- What is written ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", written(), ids=lambda path: path.name)
def test_what_comes_of_the_table_is_written(path: Path) -> None:
    assert path.read_text() == written()[path], "run make monitoring"


def test_the_panels_of_the_dashboard_have_the_thresholds_of_their_alarms() -> None:
    alarms = {alarm.name: alarm.thresholds for alarm in ALARMS}
    for panel, model in zip(grafana.PANELS, json.loads(grafana.dashboard())["panels"], strict=True):
        steps = model["fieldConfig"]["defaults"]["thresholds"]["steps"]
        assert [step["value"] for step in steps] == [None, *alarms.get(panel.alarm, {}).values()]
        assert (panel.alarm in alarms) == bool(panel.alarm)
        assert {target["datasource"]["uid"] for target in model["targets"]} == {"${datasource}"}
    metrics = set(re.findall(r"\b(?:api|tagline)_\w+", grafana.dashboard()))
    page = (ROOT / "docs/reference/usage.md").read_text()
    assert {
        metric.removesuffix("_bucket")
        for metric in metrics
        if f"`{metric.removesuffix('_bucket')}`" not in page
    } == set()


def test_a_runbook_without_a_heading_for_each_alarm_is_refused() -> None:
    page = (ROOT / cloudwatch.RUNBOOK).read_text()
    with pytest.raises(MissingHeadingError, match="Lost"):
        filled(page.replace("### Lost\n", "### Found\n"))
    assert filled(page) == page


def test_thresholds_are_in_the_template_s_mapping_alone(stack: Stack) -> None:
    text = TEMPLATE.read_text()
    alarms = text[text.index("  ErrorRateWarningAlarm:") : text.index("  RequestsWarningAlarm:")]
    assert set(re.findall(r"      Threshold: (!\w+)", alarms)) == {"!FindInMap"}
    thresholds = {
        resource.logical_id: float(resource.properties["Threshold"])
        for resource in stack.of_type("AWS::CloudWatch::Alarm")
    }
    assert thresholds == {
        name: value
        for alarm in ALARMS
        for severity, value in alarm.thresholds.items()
        for name in alarm.logical_ids(severity)
    }


def test_each_alarm_is_in_one_composite_alarm_and_only_these_send(stack: Stack) -> None:
    metric_alarms = stack.of_type("AWS::CloudWatch::Alarm")
    composites = stack.of_type("AWS::CloudWatch::CompositeAlarm")
    topic = [stack.resources["Alerts"].physical_id]

    assert not [each for each in metric_alarms if each.properties.keys() & {"AlarmActions", "OKActions"}]
    assert all(
        each.properties["AlarmActions"] == topic == each.properties["OKActions"] for each in composites
    )
    watched = [
        name
        for each in composites
        for name in re.findall(r'ALARM\("([^"]+)"\)', each.properties["AlarmRule"].partition(" AND NOT (")[0])
    ]
    assert sorted(watched) == sorted(each.name for each in metric_alarms)
    names = {each.name for each in composites}
    assert names <= {f"tagline {severity.upper()} {group}" for severity in SEVERITIES for group in GROUPS}
    # https://docs.aws.amazon.com/sns/latest/api/API_Publish.html: a subject has at most 100 characters
    assert max(len(f'ALARM: "{name}" in Asia Pacific (Melbourne)') for name in names) <= 100


def test_without_meters_and_log_groups_their_alarms_are_left_out_and_the_rules_stay_valid() -> None:
    translated = translate(TEMPLATE)
    bare = resolve(translated, {"Store": "lake"}, stack_name="tagline", endpoint="")
    left = {each.logical_id for each in bare.of_type("AWS::CloudWatch::Alarm")}
    assert left == {
        name
        for alarm in ALARMS
        if not alarm.condition
        for severity in alarm.thresholds
        for name in alarm.logical_ids(severity)
    }
    for each in bare.of_type("AWS::CloudWatch::CompositeAlarm"):
        assert set(re.findall(r'"tagline-(\w+)"', each.properties["AlarmRule"])) <= left


def test_the_dashboard_shows_the_metrics_of_the_alarms(stack: Stack) -> None:
    body = json.loads(stack.resources["Dashboard"].properties["DashboardBody"])
    graphs = [widget["properties"] for widget in body["widgets"] if widget["type"] == "metric"]
    shown = {
        tuple(part for part in line if isinstance(part, str)) for graph in graphs for line in graph["metrics"]
    }
    watched = {
        (metric["Namespace"], metric["MetricName"], *(part for each in named for part in each))
        for alarm in stack.of_type("AWS::CloudWatch::Alarm")
        for metric in metrics_of(alarm.properties)
        for named in [[(each["Name"], each["Value"]) for each in metric.get("Dimensions", [])]]
    }
    unmetered = {line for line in watched if "Meter" not in str(line) and line not in meter_mappings(stack)}
    assert shown - {()} == unmetered
    (alarms,) = [widget["properties"]["alarms"] for widget in body["widgets"] if widget["type"] == "alarm"]
    composites = stack.of_type("AWS::CloudWatch::CompositeAlarm")
    assert sorted(alarms) == sorted(each.attributes["Arn"] for each in composites)


def metrics_of(properties: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    if "Metrics" not in properties:
        return [properties]
    return [query["MetricStat"]["Metric"] for query in properties["Metrics"] if "MetricStat" in query]


def meter_mappings(stack: Stack) -> set[tuple[str, ...]]:
    uuid = stack.resources["MeterConsumerLines"].physical_id
    names = ("OnFailureDestinationDeliveredEventCount", "DroppedEventCount")
    return {("AWS/Lambda", name, "EventSourceMappingUUID", uuid) for name in names}


# ---- Each alarm, on and off --------------------------------------------------------------------------------

Record = Callable[..., None]
USAGE, OURS, LAMBDA = "Tagline/tagline", "Tagline", "AWS/Lambda"
CONSUMER = {"service": "tagline", "stage": "consumer", "store": "lake"}
FILES = {"service": "tagline", "format": "csv.gz"}
ROLLER = {"service": "tagline", "stage": "usage"}


def api(**counts: float) -> list[tuple[str, str, dict[str, str], float]]:
    return [(USAGE, name, {}, value) for name, value in counts.items()]


def function(name: str, metric: str, value: float = 1) -> list[tuple[str, str, dict[str, str], float]]:
    return [(LAMBDA, metric, {"FunctionName": f"tagline-{name}"}, value)]


def ours(name: str, value: float = 1, **dimensions: str) -> list[tuple[str, str, dict[str, str], float]]:
    return [(OURS, name, {"service": "tagline", **dimensions}, value)]


MAPPING = "mapping of "
# Of each alarm: how far apart, how often, and what CloudWatch is told then by functions and services.
DRIVES: dict[str, tuple[int, int, list[tuple[str, str, dict[str, str], float]]]] = {
    "ErrorRateWarning": (5, 3, api(requests=100, bad=7)),
    "ErrorRateCritical": (5, 3, api(requests=100, bad=12)),
    "ResponseTimeWarning": (5, 4, [(USAGE, "duration_ms", {}, 1500)] * 60),
    "ResponseTimeCritical": (5, 4, [(USAGE, "duration_ms", {}, 6000)] * 60),
    "RequestsPerMinuteWarning": (1, 4, api(requests=1_000)),
    "RequestsPerMinuteCritical": (1, 4, api(requests=2_000)),
    "BurnFastCritical": (5, 3, api(requests=1_000, bad=15)),
    "BurnSlowWarning": (30, 3, api(requests=1_000, bad=7)),
    "RateLimitedWarning": (5, 3, api(rate_limited=100)),
    "RateLimitedCritical": (5, 3, api(rate_limited=1_000)),
    "AuthFailuresWarning": (5, 3, api(auth_failures=100)),
    "AuthFailuresCritical": (5, 3, api(auth_failures=1_000)),
    "TimeOutsWarning": (5, 3, api(timeouts=5)),
    "NoRecordsCritical": (5, 4, api(invocations=1)),
    "ConsumerLagWarning": (1, 4, function("RowConsumer", "IteratorAge", 400_000)),
    "ConsumerLagCritical": (1, 4, function("RowConsumer", "IteratorAge", 700_000)),
    "MeterLagWarning": (1, 4, function("MeterConsumer", "IteratorAge", 400_000)),
    "MeterLagCritical": (1, 4, function("MeterConsumer", "IteratorAge", 700_000)),
    "FailedBatchesCritical": (
        1,
        1,
        [(LAMBDA, "OnFailureDestinationDeliveredEventCount", {MAPPING: "RowConsumerLines"}, 1)],
    ),
    "FailedMeterBatchesCritical": (
        1,
        1,
        [(LAMBDA, "OnFailureDestinationDeliveredEventCount", {MAPPING: "MeterConsumerLines"}, 1)],
    ),
    "DroppedBatchesCritical": (1, 1, [(LAMBDA, "DroppedEventCount", {MAPPING: "RowConsumerLines"}, 1)]),
    "DroppedMeterBatchesCritical": (
        1,
        1,
        [(LAMBDA, "DroppedEventCount", {MAPPING: "MeterConsumerLines"}, 1)],
    ),
    "QuarantinedWarning": (1, 1, ours("quarantined", 1, stage="consumer", store="lake")),
    "QuarantinedCritical": (1, 1, ours("quarantined", 100, stage="consumer", store="lake")),
    "ConsumerStoppedCritical": (
        5,
        4,
        [("AWS/Kinesis", "IncomingRecords", {"StreamName": "tagline-Stream"}, 1)],
    ),
    "LostCritical": (1, 1, ours("lost", 3, stage="reconcile")),
    "RecursionWarning": (1, 1, ours("recursion", 1, stage="consumer", store="lake")),
    "ReconcilerErrorWarning": (1, 1, function("Reconciler", "Errors")),
    "ReconcileMissingCritical": (12 * 60, 4, ours("received", 1, stage="consumer", store="lake")),
    "ThrottledWarning": (5, 3, function("DownloadApi", "Throttles")),
    "ExportMissingCritical": (12 * 60, 4, ours("received", 1, stage="consumer", store="lake")),
    "ExportFailedCritical": (1, 1, ours("exported_failed")),
    "RowsForgottenWarning": (1, 1, ours("exported_forgotten", format="csv.gz")),
    "ExporterErrorWarning": (1, 1, function("DailyExporter", "Errors")),
    "UpkeepErrorWarning": (1, 1, function("Upkeep", "Errors")),
    "DownloadApiErrorCritical": (1, 1, function("DownloadApi", "Errors")),
    "DownloadWorkerErrorWarning": (1, 1, function("DownloadWorker", "Errors")),
    "DownloadIncidentCritical": (1, 1, ours("zip_incidents")),
    "FreshnessWarning": (60, 1, ours("usage_age_s", 8_000, stage="usage")),
    "FreshnessCritical": (60, 1, ours("usage_age_s", 15_000, stage="usage")),
    "UsageMissingCritical": (60, 4, ours("received", 1, stage="consumer", store="lake")),
    "UsageRollerErrorWarning": (1, 1, function("UsageRoller", "Errors")),
    "UsageApiErrorWarning": (1, 1, function("UsageApi", "Errors")),
}
QUEUES = {"ScheduleDeadLettersCritical", "DownloadDeadLettersCritical"}
# What was told half an hour before.
BEFORE = {"ErrorRateWarning": api(requests=20_000)}
# What the same fault also is: when it is over, half an hour with errors is still there.
ALSO = {
    "BurnFastCritical": {"tagline WARNING requests"},
    "ErrorRateCritical": {"tagline WARNING requests"},
    "ExportMissingCritical": {"tagline CRITICAL usage", "tagline CRITICAL collection"},
    "ReconcileMissingCritical": {"tagline CRITICAL usage", "tagline CRITICAL export"},
}


def test_each_alarm_is_driven() -> None:
    names = {f"{alarm.name}{severity.title()}" for alarm in ALARMS for severity in alarm.thresholds}
    assert names == DRIVES.keys() | QUEUES


class Queue:
    """A queue with a message, until it is emptied."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.approximate_number_of_messages = 1


@pytest.fixture
def machine(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine(monkeypatch)
    for kind in ("AWS::CloudWatch::Alarm", "AWS::CloudWatch::CompositeAlarm"):
        for resource in stack.of_type(kind):
            machine.alarms.add(resource.name, resource.properties)
    machine.alarms.evaluate()
    assert {alarm.state_value for alarm in machine.backend.alarms.values()} <= {"OK", "INSUFFICIENT_DATA"}
    machine.sent.clear()
    return machine


def sent(machine: Machine) -> list[str]:
    """Return what was sent, as the state and the composite alarm's name."""
    return [subject.partition('" in ')[0].replace('"', "") for _, subject, _ in machine.sent]


def end_of(machine: Machine, name: str) -> None:
    """Let time pass until the data of a drive are out of every alarm's range, and tell what ends others."""
    machine.pass_minutes(4 * 24 * 60)
    if name == "LostCritical":
        machine.count("lost", 0, namespace=OURS, service="tagline", stage="reconcile")
    elif name.startswith("ResponseTime"):  # Few values leave it as it is.
        machine.count("duration_ms", *[100.0] * 200, namespace=USAGE)
    machine.pass_minutes(1)


@pytest.mark.parametrize("name", [*DRIVES, *QUEUES])
def test_an_alarm_goes_on_by_its_fault_with_one_mail_and_off_with_another(
    name: str, machine: Machine, stack: Stack
) -> None:
    row = next(alarm for alarm in ALARMS if name in {alarm.name + s.title() for s in alarm.thresholds})
    severity = name.removeprefix(row.name).lower()
    composite = f"tagline {severity.upper()} {row.group}"
    step, times, told = DRIVES.get(name, (1, 1, []))
    queue = Queue(f"tagline-{row.name}")
    if name in QUEUES:
        machine.queues[queue.name] = queue
    for namespace, metric, dimensions, value in BEFORE.get(name, []):
        machine.count(metric, value, namespace=namespace, **dimensions)
        machine.pass_minutes(30)
    on = set()
    for _ in range(times):
        for namespace, metric, dimensions, value in told:
            if MAPPING in dimensions:
                uuid = stack.resources[dimensions[MAPPING]].physical_id
                dimensions = {"EventSourceMappingUUID": uuid}  # noqa: PLW2901
            machine.count(metric, value, namespace=namespace, **dimensions)
        machine.pass_minutes(step)
        on |= {each for each, alarm in machine.backend.alarms.items() if alarm.state_value == "ALARM"}

    assert {f"tagline-{each}" for each in row.logical_ids(severity)} <= on
    queue.approximate_number_of_messages = 0
    end_of(machine, name)
    of_it = [text for text in sent(machine) if text.endswith(composite)]
    assert of_it == [f"ALARM: {composite}", f"OK: {composite}"]
    assert {text.partition(": ")[2] for text in sent(machine)} <= {composite} | ALSO.get(name, set())


# ---- Prometheus --------------------------------------------------------------------------------------------


@pytest.mark.skipif(PROMTOOL is None, reason="Debian's promtool is not installed")
def test_prometheus_fires_each_rule_at_its_threshold_and_no_other(tmp_path: Path) -> None:
    def failed(status: str) -> str:
        return f'api_requests_total{{status="{status}"}}'

    good = 'api_requests_total{status="200"}'
    # Alert, severity, value, and what grows by how much in half an hour. Windows are of three hours.
    through = "tagline_usage_data_through_timestamp_seconds"
    cases: list[tuple[str, str, str, dict[str, tuple[float, float]]]] = [
        ("ErrorRate", "warning", "7 %", {good: (0, 93), failed("500"): (0, 7)}),
        ("ErrorRate", "critical", "12 %", {good: (0, 88), failed("502"): (0, 12)}),
        ("RequestsPerMinute", "warning", "1.2k", {good: (0, 36_000)}),
        ("RequestsPerMinute", "critical", "2.4k", {good: (0, 72_000)}),
        ("RateLimited", "warning", "150", {good: (0, 9_000), failed("429"): (0, 900)}),
        ("AuthFailures", "critical", "1.5k", {good: (0, 9_000), failed("403"): (0, 9_000)}),
        ("Quarantined", "warning", "6", {"tagline_quarantined_total": (0, 1)}),
        ("Quarantined", "critical", "300", {"tagline_quarantined_total": (0, 50)}),
        ("Lost", "critical", "6", {"tagline_lost_total": (0, 1)}),
        ("Freshness", "warning", "9k s", {through: (-9_000, 1_800)}),
        ("Freshness", "critical", "20k s", {through: (-20_000, 1_800)}),
        ("", "", "", {good: (0, 900), failed("500"): (0, 9), through: (-3_600, 1_800)}),
        # Too few requests to say anything.
        ("", "", "", {failed("500"): (0, 5)}),
    ]
    rules = yaml.safe_load(RULES.read_text())["groups"][0]["rules"]
    tests = []
    for alert, severity, value, grows in cases:
        checks = []
        for rule in rules:
            check = {"eval_time": "10h", "alertname": rule["alert"], "exp_alerts": []}
            if rule["alert"] == f"Tagline{alert}":
                if rule["labels"]["severity"] != severity:
                    continue
                annotations = {**rule["annotations"], "description": f"{alert} is {value}"}
                check["exp_alerts"] = [{"exp_labels": {"severity": severity}, "exp_annotations": annotations}]
            checks.append(check)
        series = [
            {"series": name, "values": f"{first:g}+{more / 6:g}x130"} for name, (first, more) in grows.items()
        ]
        tests.append({"interval": "5m", "input_series": series, "alert_rule_test": checks})
    path = tmp_path / "alerts_test.yml"
    path.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "5m", "tests": tests}))
    assert PROMTOOL is not None
    for arguments in (["check", "rules", str(RULES)], ["test", "rules", str(path)]):
        done = subprocess.run([PROMTOOL, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
