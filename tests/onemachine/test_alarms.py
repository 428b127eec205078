"""Alarms on one machine: every minute of the clock they are evaluated, and a change of state is sent."""

import json
from datetime import timedelta
from typing import Any

import pytest

from tests.alarmed import Machine

TOPIC = "arn:aws:sns:us-east-1:123456789012:alerts"
SUM_OF_ERRORS = {
    "Namespace": "App",
    "MetricName": "errors",
    "Dimensions": [{"Name": "service", "Value": "shop"}],
    "Statistic": "Sum",
    "Period": 300,
    "EvaluationPeriods": 1,
    "Threshold": 2,
    "ComparisonOperator": "GreaterThanOrEqualToThreshold",
    "TreatMissingData": "notBreaching",
}


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


def test_an_alarm_goes_on_and_off_and_tells_each_of_it_once(machine: Machine) -> None:
    actions = {"AlarmActions": [TOPIC], "OKActions": [TOPIC], "AlarmDescription": "Errors. See the runbook."}
    machine.alarms.add("shop CRITICAL errors", {**SUM_OF_ERRORS, **actions})
    machine.alarms.evaluate()
    assert machine.state("shop CRITICAL errors") == "OK"
    machine.sent.clear()

    machine.count("errors", 1, service="shop")
    machine.count("errors", 1, service="others")
    machine.pass_minutes(1)
    assert machine.state("shop CRITICAL errors") == "OK"
    machine.count("errors", 1, 1, service="shop")
    machine.pass_minutes(1)
    assert machine.state("shop CRITICAL errors") == "ALARM"
    machine.pass_minutes(1)
    # While a data point is in its range of three periods, AWS looks at that one.
    machine.pass_minutes(24 * 60)

    assert machine.state("shop CRITICAL errors") == "OK"
    assert [(topic, subject) for topic, subject, _ in machine.sent] == [
        (TOPIC, 'ALARM: "shop CRITICAL errors" in US East (N. Virginia)'),
        (TOPIC, 'OK: "shop CRITICAL errors" in US East (N. Virginia)'),
    ]
    for_programs = json.loads(machine.sent[0][2]["default"])
    assert (for_programs["OldStateValue"], for_programs["NewStateValue"]) == ("OK", "ALARM")
    assert "See the runbook." in machine.sent[0][2]["email"]
    off = json.loads(machine.sent[1][2]["default"])
    assert off["StateChangeTime"].startswith("2026-11-29T12:1")


@pytest.mark.parametrize("step", [1, 2, 7, 60])
def test_how_far_the_clock_is_put_forward_at_once_changes_nothing(machine: Machine, step: int) -> None:
    machine.alarms.add("errors", {**SUM_OF_ERRORS, "AlarmActions": [TOPIC], "OKActions": [TOPIC]})
    machine.alarms.evaluate()
    machine.sent.clear()
    machine.count("errors", 5, service="shop")

    for _ in range(0, 60, step):
        machine.pass_minutes(step)

    times = [json.loads(message["default"])["StateChangeTime"][:16] for _, _, message in machine.sent]
    assert times == ["2026-11-29T12:01", "2026-11-29T12:16"]


def test_a_percentile_of_few_values_leaves_the_state_as_it_is(machine: Machine) -> None:
    slow = {
        **SUM_OF_ERRORS,
        "MetricName": "duration",
        "Dimensions": [],
        "ExtendedStatistic": "p95",
        "Threshold": 1000,
    }
    del slow["Statistic"]
    machine.alarms.add("waits", {**slow, "EvaluateLowSampleCountPercentile": "ignore"})
    machine.alarms.add("evaluates", slow)
    machine.alarms.evaluate()

    machine.count("duration", *[2000.0] * 199)
    machine.pass_minutes(1)
    assert (machine.state("waits"), machine.state("evaluates")) == ("INSUFFICIENT_DATA", "ALARM")
    machine.count("duration", 2000.0)
    machine.pass_minutes(1)
    assert (machine.state("waits"), machine.state("evaluates")) == ("ALARM", "ALARM")


def metric(name: str, statistic: str = "Sum") -> dict[str, Any]:
    stat = {"Metric": {"Namespace": "App", "MetricName": name}, "Period": 60, "Stat": statistic}
    return {"Id": name, "MetricStat": stat, "ReturnData": False}


def test_metric_math_is_computed_for_each_period(machine: Machine) -> None:
    rate = {"Id": "rate", "Expression": "IF(requests >= 50, share, 0)", "ReturnData": True}
    share = {"Id": "share", "Expression": "100 * bad / requests", "ReturnData": False}
    machine.alarms.add(
        "rate",
        {
            "Metrics": [rate, share, metric("requests"), metric("bad")],
            "EvaluationPeriods": 3,
            "DatapointsToAlarm": 2,
            "Threshold": 10,
            "ComparisonOperator": "GreaterThanThreshold",
            "TreatMissingData": "notBreaching",
        },
    )
    for requests, bad, expected in [(40, 40, "OK"), (100, 11, "OK"), (100, 12, "ALARM"), (100, 1, "ALARM")]:
        machine.count("requests", requests)
        machine.count("bad", bad)
        machine.pass_minutes(1)
        assert machine.state("rate") == expected
    machine.count("requests", 100)
    machine.pass_minutes(1)
    assert machine.state("rate") == "OK"


def test_a_composite_alarm_follows_others_and_sends_one_mail_for_all(machine: Machine) -> None:
    machine.alarms.add("any", {"AlarmRule": "ALARM(inner)", "AlarmActions": [TOPIC], "OKActions": [TOPIC]})
    machine.alarms.add("inner", {"AlarmRule": 'ALARM("one") OR ALARM("two")'})
    machine.alarms.add("one", SUM_OF_ERRORS)
    machine.alarms.add("two", {**SUM_OF_ERRORS, "Threshold": 3})
    machine.alarms.evaluate()
    assert machine.state("any") == "OK"
    machine.sent.clear()

    machine.count("errors", 2, service="shop")
    machine.pass_minutes(1)
    machine.count("errors", 2, service="shop")
    machine.pass_minutes(1)
    machine.pass_minutes(60)

    assert [subject.partition(":")[0] for _, subject, _ in machine.sent] == ["ALARM", "OK"]
    assert "inner" in json.loads(machine.sent[0][2]["default"])["NewStateReason"]


def test_a_queue_is_observed_while_the_clock_is_put_forward(machine: Machine) -> None:
    class Queue:
        name, approximate_number_of_messages = "dead", 1

    machine.alarms.add(
        "dead letters",
        {
            **SUM_OF_ERRORS,
            "Namespace": "AWS/SQS",
            "MetricName": "ApproximateNumberOfMessagesVisible",
            "Dimensions": [{"Name": "QueueName", "Value": "dead"}],
            "Statistic": "Maximum",
            "Threshold": 1,
            "AlarmActions": [TOPIC],
        },
    )
    machine.alarms.evaluate()
    machine.queues["dead"] = Queue()
    machine.pass_minutes(1)
    machine.pass_minutes(24 * 60)
    assert machine.state("dead letters") == "ALARM"
    assert len(machine.sent) == 1

    machine.queues["dead"].approximate_number_of_messages = 0
    machine.pass_minutes(60)
    assert machine.state("dead letters") == "OK"


@pytest.mark.parametrize(
    "change",
    [
        {"Period": 10},
        {"Metrics": [{"Id": "e", "Expression": "SUM(m)"}]},
        {"Metrics": [{"Id": "e", "Expression": "other", "ReturnData": False}, metric("errors")]},
        {"AlarmRule": "ALARM(one"},
    ],
)
def test_an_alarm_that_cannot_be_evaluated_here_is_refused(machine: Machine, change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"alarm|rule|metric math|expressions"):
        machine.alarms.add("some", {**SUM_OF_ERRORS, **change})


def test_the_clock_is_followed_without_being_asked(machine: Machine) -> None:
    machine.alarms.add("errors", {**SUM_OF_ERRORS, "AlarmActions": [TOPIC]})
    machine.alarms.start()
    try:
        machine.count("errors", 9, service="shop")
        machine.now += timedelta(minutes=1)
        assert machine.told.wait(60)
    finally:
        machine.alarms.stop()
    assert machine.state("errors") == "ALARM"
