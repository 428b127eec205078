"""A part of the pipeline stops: what `/health`, the page and the alarms show, until it runs again."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests
from onemachine.pipeline import App, Pipeline
from tagline import Record, write

from cli.apps import ROOT
from cli.target import target_of
from consumers.lines.subscription import encode
from tests.builders import envelope

TIMEOUT_S = 60
START = datetime(2026, 11, 18, 9, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
def pipeline() -> Iterator[Pipeline]:
    """Return a pipeline that has run for an hour and is healthy."""
    parameters = {"Store": "lake", "BatchWindowSeconds": "0"}
    app = App("tagline", ROOT / "template.yml", parameters)
    with Pipeline([app], in_process=True, now=START) as pipeline:
        run(pipeline, HOUR)
        yield pipeline


def run(pipeline: Pipeline, length: timedelta, step: timedelta = HOUR / 2) -> int:
    """Let time pass with a request in each step; return how many there were."""
    end, sent = pipeline.clock.now() + length, 0
    while pipeline.clock.now() < end:
        now_ms = int(pipeline.clock.now().timestamp() * 1_000)
        fields = {"method": "GET", "route": "/pets", "client": "acme", "status": 200, "duration_ms": 10.5}
        line = write(
            Record(f"r{now_ms}", now_ms, fields, type="api_request", src="shop", seq=now_ms // 1_000)
        )
        pipeline.client("kinesis").put_record(
            StreamName=pipeline.outputs["tagline"]["StreamName"],
            Data=encode(envelope(line)),
            PartitionKey="a",
        )
        pipeline.settle()
        sent += 1
        pipeline.advance(step)
        pipeline.settle()
    return sent


def health(pipeline: Pipeline) -> tuple[int, str, set[str]]:
    """Return the status code, the status, and the names of what is not healthy."""
    url = target_of(pipeline).outputs["DownloadUrl"] + "/health"
    told = requests.get(url, timeout=TIMEOUT_S)
    details = requests.get(url + "/details", timeout=TIMEOUT_S).json()
    assert details["status"] == told.json()["status"]
    unwell = {name for name, check in details["checks"].items() if check["status"] != "healthy"}
    return told.status_code, told.json()["status"], unwell


def page(pipeline: Pipeline) -> dict[str, str]:
    """Return what the page shows of the pipeline, by its terms."""
    link = requests.get(target_of(pipeline).outputs["DownloadUrl"] + "/dashboard", timeout=TIMEOUT_S).json()
    shown = requests.get(link["dashboard_link"], timeout=TIMEOUT_S).text
    return dict(re.findall(r'<dt>(?:<a[^>]*>)?([^<]+)(?:</a>)?</dt><dd><span class="value">([^<]*)', shown))


def usage(pipeline: Pipeline) -> dict[str, Any]:
    answer: dict[str, Any] = requests.get(
        target_of(pipeline).outputs["DownloadUrl"] + "/usage", timeout=TIMEOUT_S
    ).json()
    return answer


def switch_mapping(pipeline: Pipeline, function: str, *, on: bool) -> None:
    functions = pipeline.client("lambda")
    (mapping,) = functions.list_event_source_mappings(FunctionName=f"tagline-{function}")[
        "EventSourceMappings"
    ]
    functions.update_event_source_mapping(UUID=mapping["UUID"], Enabled=on)


def switch_schedules(pipeline: Pipeline, function: str, *, on: bool) -> None:
    schedules = pipeline.client("scheduler")
    for each in schedules.list_schedules()["Schedules"]:
        if each["Target"]["Arn"].endswith(f":tagline-{function}"):
            known = schedules.get_schedule(Name=each["Name"])
            kept = {
                name: known[name] for name in ("Name", "ScheduleExpression", "FlexibleTimeWindow", "Target")
            }
            schedules.update_schedule(**kept, State="ENABLED" if on else "DISABLED")


def test_a_stopped_consumer(pipeline: Pipeline) -> None:
    assert health(pipeline) == (200, "healthy", set())
    assert page(pipeline)["Behind the stream"] == "less than a minute"
    stopped = pipeline.clock.now()
    switch_mapping(pipeline, "RowConsumer", on=False)

    sent = run(pipeline, HOUR / 3, step=timedelta(minutes=3))
    assert health(pipeline) == (503, "unhealthy", {"tagline CRITICAL collection:alarm"})

    sent += run(pipeline, 2 * HOUR)
    through = datetime.fromisoformat(usage(pipeline)["data_through"])
    assert stopped - timedelta(minutes=6) <= through <= stopped
    assert page(pipeline)["Behind the stream"] == "2 hours"
    sent += run(pipeline, 2 * HOUR)
    code, status, unwell = health(pipeline)
    assert (code, status) == (503, "critical")
    assert "usage:data_age" in unwell

    switch_mapping(pipeline, "RowConsumer", on=True)
    sent += run(pipeline, HOUR)
    assert health(pipeline)[2] <= {"tagline WARNING usage:alarm", "tagline CRITICAL usage:alarm"}
    sent += run(pipeline, 2 * HOUR)
    assert health(pipeline) == (200, "healthy", set())
    assert page(pipeline)["Behind the stream"] == "less than a minute"
    assert usage(pipeline)["total"]["requests"] == 2 + sent


def test_a_stopped_roll_up(pipeline: Pipeline) -> None:
    before = page(pipeline)
    switch_schedules(pipeline, "UsageRoller", on=False)

    run(pipeline, 2.5 * HOUR)
    assert health(pipeline) == (200, "warning", {"usage:data_age"})
    run(pipeline, 2 * HOUR)
    code, status, unwell = health(pipeline)
    assert (code, status, unwell) == (503, "critical", {"usage:data_age", "tagline CRITICAL usage:alarm"})
    assert page(pipeline) == before, "it has the time until which it is complete, and when it was written"

    switch_schedules(pipeline, "UsageRoller", on=True)
    run(pipeline, 5 * HOUR, step=HOUR)
    assert health(pipeline) == (200, "healthy", set())


def test_a_stopped_reconciler(pipeline: Pipeline) -> None:
    alarm = "tagline CRITICAL collection:alarm"
    # Three days of the others would take a minute.
    for other in ("UsageRoller", "DailyExporter", "Upkeep"):
        switch_schedules(pipeline, other, on=False)
    switch_schedules(pipeline, "Reconciler", on=False)

    run(pipeline, 49 * HOUR, step=7 * HOUR)
    code, _, unwell = health(pipeline)
    assert (code, alarm in unwell) == (503, True)

    switch_schedules(pipeline, "Reconciler", on=True)
    run(pipeline, 28 * HOUR, step=7 * HOUR)
    assert alarm not in health(pipeline)[2]
