"""The health of the API and its pipeline, from facts that the caller has collected. Pure.

One list of findings is written in two forms: the one that API guides show (`healthy`, `warning`, `unhealthy`,
`critical`), and `application/health+json`:
https://datatracker.ietf.org/doc/html/draft-inadarei-api-health-check-06
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from http import HTTPStatus
from typing import Any

HEALTH_JSON = "application/health+json"
# Numbers older than this are a warning, and twice as old are critical: the roll-up is written each hour.
DATA_AGE_WARNING = timedelta(hours=2)
DATA_AGE_CRITICAL = timedelta(hours=4)
# An alarm without data is not a failure: alarms for which silence is a failure are in ALARM then.
# What the names of alarms have that ask for a look, and do not wake anybody.
_WARNING = " WARNING "
_ALARM_STATES = {"OK", "ALARM", "INSUFFICIENT_DATA"}


class Status(IntEnum):
    """How healthy something is; the worst one is the whole's."""

    HEALTHY = 0
    WARNING = 1
    UNHEALTHY = 2
    CRITICAL = 3

    @property
    def in_draft(self) -> str:
        """The status as `application/health+json` has it."""
        return ("pass", "warn", "fail", "fail")[self]


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of one thing.

    Attributes:
        name: What was looked at: the component and what was measured, as in `usage:data_age`.
        status: How healthy it is.
        value: What was measured; None if nothing was.
        unit: The value's unit; empty without a unit.
        problem: What is wrong, and what to do; empty if nothing is.
    """

    name: str
    status: Status
    value: float | str | None = None
    unit: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known when somebody asks for the health.

    Attributes:
        now: The time, in UTC.
        bucket_ms: How long a read of the bucket took in milliseconds; None if it failed.
        bucket_error: Why it failed; empty if it did not.
        data_through: Until when the numbers are complete; None without numbers.
        alarms: The states of our alarms by name, as CloudWatch has them; None if they could not be read.
    """

    now: datetime
    bucket_ms: float | None
    bucket_error: str = ""
    data_through: datetime | None = None
    alarms: Mapping[str, str] | None = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer to a request for the health."""

    status_code: int
    content_type: str
    body: dict[str, Any]


def findings(facts: Facts) -> list[Finding]:
    """Return what follows from the facts: a read of the bucket, the age of the data, and each alarm."""
    return [_bucket(facts), _data_age(facts), *_alarms(facts)]


def ready(facts: Facts) -> list[Finding]:
    """Return what has to be well for requests to be answered: the bucket can be read."""
    return [_bucket(facts)]


def answer(found: Sequence[Finding], now: datetime, *, accept: str = "", details: bool = False) -> Reply:
    """Return the answer to a request.

    Args:
        found: What was found; nothing is healthy, as `/health/live` answers.
        now: The time, in UTC.
        accept: The request's `Accept` header: `application/health+json` asks for that form.
        details: Whether to return more than the status: what is checked shows how the system is built.
    """
    status = max((finding.status for finding in found), default=Status.HEALTHY)
    code = HTTPStatus.OK if status <= Status.WARNING else HTTPStatus.SERVICE_UNAVAILABLE
    time = f"{now.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    # The status is first: probes such as Route 53 read the first bytes only.
    if HEALTH_JSON in accept:
        draft: dict[str, Any] = {"status": status.in_draft}
        if details:
            draft["checks"] = {finding.name: [_in_draft(finding, time)] for finding in found}
        return Reply(code, HEALTH_JSON, draft)
    body: dict[str, Any] = {"status": status.name.lower(), "timestamp": time}
    if details:
        body["checks"] = {finding.name: _check(finding) for finding in found}
    return Reply(code, "application/json", body)


def _check(finding: Finding) -> dict[str, Any]:
    check: dict[str, Any] = {"status": finding.status.name.lower()}
    if finding.value is not None:
        check[finding.unit or "value"] = finding.value
    if finding.problem:
        check["error"] = finding.problem
    return check


def _in_draft(finding: Finding, time: str) -> dict[str, Any]:
    check: dict[str, Any] = {"status": finding.status.in_draft, "time": time}
    if finding.value is not None:
        check["observedValue"] = finding.value
    if finding.unit:
        check["observedUnit"] = finding.unit
    if finding.problem:
        check["output"] = finding.problem
    return check


def _bucket(facts: Facts) -> Finding:
    name = "bucket:response_time"
    if facts.bucket_ms is None:
        problem = f"the bucket cannot be read: {facts.bucket_error or 'no answer'}"
        return Finding(name, Status.CRITICAL, problem=problem)
    return Finding(name, Status.HEALTHY, round(facts.bucket_ms, 1), "ms")


def _data_age(facts: Facts) -> Finding:
    name = "usage:data_age"
    if facts.data_through is None:
        return Finding(name, Status.WARNING, problem="there are no numbers yet: wait for the first roll-up")
    age = max(timedelta(), facts.now - facts.data_through)
    status = Status.HEALTHY
    if age > DATA_AGE_WARNING:
        status = Status.CRITICAL if age > DATA_AGE_CRITICAL else Status.WARNING
    problem = ""
    if status > Status.HEALTHY:
        limit = DATA_AGE_WARNING.total_seconds()
        problem = f"the numbers are older than {limit:.0f} s: look at the logs of the roll-up"
    return Finding(name, status, int(age.total_seconds()), "s", problem)


def _alarms(facts: Facts) -> list[Finding]:
    if facts.alarms is None:
        return [Finding("alarms:state", Status.WARNING, problem="the states of the alarms cannot be read")]
    return [_alarm(name, state) for name, state in sorted(facts.alarms.items())]


def _alarm(name: str, state: str) -> Finding:
    if state not in _ALARM_STATES:
        raise ValueError(f"the alarm {name} has the state {state!r}, which CloudWatch does not have")
    if state != "ALARM":
        return Finding(f"{name}:alarm", Status.HEALTHY, state)
    status = Status.WARNING if _WARNING in name else Status.UNHEALTHY
    return Finding(f"{name}:alarm", status, state, problem=f"the alarm {name} is on: docs/runbook.md")
