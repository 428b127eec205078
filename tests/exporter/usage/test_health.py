"""The worst finding is the answer's status, in both forms, and details are for those who may have them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from exporter.usage.health import HEALTH_JSON, Facts, Status, answer, findings, ready

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
ALARMS = {"ConsumerErrors": "OK", "DeadLetters": "INSUFFICIENT_DATA"}


def facts(
    *,
    bucket_ms: float | None = 12.34,
    age: timedelta | None = timedelta(minutes=30),
    alarms: dict[str, str] | None = ALARMS,
) -> Facts:
    """Return facts of a healthy system, but for what is given."""
    through = None if age is None else NOW - age
    return Facts(NOW, bucket_ms, "" if bucket_ms else "AccessDenied", through, alarms)


@pytest.mark.parametrize(
    ("known", "status", "draft", "code", "name"),
    [
        (facts(), "healthy", "pass", 200, None),
        (facts(bucket_ms=None), "critical", "fail", 503, "bucket:response_time"),
        (facts(age=None), "warning", "warn", 200, "usage:data_age"),
        (facts(age=timedelta(hours=2)), "healthy", "pass", 200, None),
        (facts(age=timedelta(hours=2, seconds=1)), "warning", "warn", 200, "usage:data_age"),
        (facts(age=timedelta(hours=4, seconds=1)), "critical", "fail", 503, "usage:data_age"),
        (facts(age=timedelta(seconds=-5)), "healthy", "pass", 200, None),
        (facts(alarms=None), "warning", "warn", 200, "alarms:state"),
        (facts(alarms={"DeadLetters": "ALARM"}), "unhealthy", "fail", 503, "DeadLetters:alarm"),
        (facts(alarms={"own WARNING usage": "ALARM"}), "warning", "warn", 200, "own WARNING usage:alarm"),
        (
            facts(alarms={"DeadLetters": "ALARM"}, bucket_ms=None),
            "critical",
            "fail",
            503,
            "bucket:response_time",
        ),
    ],
)
def test_the_worst_finding_is_the_status(
    known: Facts, status: str, draft: str, code: int, name: str | None
) -> None:
    found = findings(known)

    plain = answer(found, NOW, details=True)
    other = answer(found, NOW, accept=f"{HEALTH_JSON}, */*", details=True)

    assert (plain.status_code, plain.body["status"], plain.content_type) == (code, status, "application/json")
    assert (other.status_code, other.body["status"], other.content_type) == (code, draft, HEALTH_JSON)
    assert list(plain.body) == ["status", "timestamp", "checks"]
    assert list(other.body) == ["status", "checks"]
    worse = {check for check, each in plain.body["checks"].items() if "error" in each}
    assert worse == {check for check, (each,) in other.body["checks"].items() if "output" in each}
    assert (name in worse) if name else worse == set()
    json.dumps((plain.body, other.body), allow_nan=False)


def test_the_seeds_rule_for_the_overall_status_gives_the_same() -> None:
    order = ["healthy", "warning", "unhealthy", "critical"]
    for known in (facts(), facts(bucket_ms=None), facts(age=None), facts(alarms={"A": "ALARM"})):
        body = answer(findings(known), NOW, details=True).body
        assert body["status"] == max((each["status"] for each in body["checks"].values()), key=order.index)


def test_without_details_only_the_status_is_told() -> None:
    found = findings(facts(alarms={"DeadLetters": "ALARM"}))

    assert answer(found, NOW).body == {"status": "unhealthy", "timestamp": "2026-11-29T12:00:00Z"}
    assert answer(found, NOW, accept=HEALTH_JSON).body == {"status": "fail"}


def test_values_have_their_units() -> None:
    found = findings(facts())

    plain, draft = (
        answer(found, NOW, details=True).body,
        answer(found, NOW, accept=HEALTH_JSON, details=True).body,
    )
    assert plain["checks"]["bucket:response_time"] == {"status": "healthy", "ms": 12.3}
    assert draft["checks"]["usage:data_age"] == [
        {"status": "pass", "time": "2026-11-29T12:00:00Z", "observedValue": 1_800, "observedUnit": "s"}
    ]
    assert plain["checks"]["DeadLetters:alarm"]["value"] == "INSUFFICIENT_DATA"


def test_alive_needs_nothing_and_ready_needs_the_bucket() -> None:
    assert answer([], NOW).status_code == 200
    assert answer(ready(facts(age=None, alarms={"A": "ALARM"})), NOW).body["status"] == "healthy"
    assert answer(ready(facts(bucket_ms=None)), NOW).status_code == 503


def test_a_state_that_cloudwatch_does_not_have_is_an_error() -> None:
    with pytest.raises(ValueError, match="'RED'"):
        findings(facts(alarms={"DeadLetters": "RED"}))


def test_statuses_are_in_order() -> None:
    assert sorted(Status) == [Status.HEALTHY, Status.WARNING, Status.UNHEALTHY, Status.CRITICAL]
