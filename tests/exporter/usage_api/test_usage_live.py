"""Usage as it is deployed, on one machine: page, answers, lake and zip have the same numbers."""

from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess
import zipfile
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from rich.console import Console
from rich.progress import Progress
from tagline import Record, write

from cli import replay as replaying
from cli.download import fetch_zip
from cli.lake import do_task
from cli.quarantine import EVER, list_objects
from cli.target import Target, target_of
from consumers.lines import quarantine
from consumers.lines.extract import Rejected
from consumers.lines.subscription import LogEvent, encode
from exporter.lake.days import Day
from exporter.lake.formats import Format
from exporter.store import Days
from local.pipeline import ROOT, Pipeline
from local.template import http_routes, resolve, translate
from tests.builders import GROUP, data, envelope, kinesis_event
from tests.exporter.usage.test_prometheus_scrapes import PROMETHEUS, scraping, wait_for

TIMEOUT_S = 60
# So long ago that midnight, which may pass meanwhile, changes nothing.
DAY = datetime.now(UTC).date() - timedelta(days=2)
NOON = datetime(DAY.year, DAY.month, DAY.day, 12, tzinfo=UTC)


def quiet() -> Progress:
    return Progress(console=Console(file=io.StringIO()))


def lines(first: int, count: int, client: str = "acme", noon: datetime = NOON) -> list[str]:
    """Return lines of requests of the day, or after another time, each with its identity."""
    return [
        write(
            Record(
                id=f"r{number}",
                timestamp=int((noon + timedelta(seconds=number)).timestamp() * 1_000),
                src=f"s{client}",
                seq=number,
                type="api_request",
                fields={
                    "method": "GET",
                    "route": f"/pets/{number % 3}",
                    "client": client,
                    "status": (200, 404, 500)[number % 3],
                    "duration_ms": 10.5 + number,
                },
            )
        )
        for number in range(first, first + count)
    ]


def deliver(pipeline: Pipeline, *sent: str) -> None:
    stream = pipeline.outputs["tagline"]["StreamName"]
    packed = encode(envelope(*sent))
    pipeline.client("kinesis").put_record(StreamName=stream, Data=packed, PartitionKey="a")
    pipeline.settle()


def replay(where: Target, *quarantined: str) -> None:
    """Replay lines that are in quarantine, some of which have come already."""
    (record,) = kinesis_event(data(envelope(*quarantined)))["Records"]
    events = [LogEvent(f"e{at}", 0, text, GROUP, "stream", "1") for at, text in enumerate(quarantined)]
    rejected = quarantine.lines(record, [(event, Rejected("late", "")) for event in events])
    where.bucket().put(quarantine.object_key("late", record), [rejected], "application/json")
    outcome = replaying.ReplayOutcome()
    listed = list_objects(where, EVER, ["late"])
    items = replaying.from_quarantine(where, list(listed), outcome)
    replaying.send_items(where, items, outcome, lambda _: None)
    assert (outcome.items, outcome.failed) == (1, {})


def refresh(where: Target) -> None:
    where.invoke("DailyExporterName", {"day": str(DAY)})
    where.invoke("UsageRollerName", {})


def get(where: Target, path: str, **query: str) -> Any:
    response = requests.get(where.outputs["DownloadUrl"] + path, params=query, timeout=TIMEOUT_S)
    assert response.status_code == 200, response.text
    return response.json()


def counts(where: Target, tmp_path: Path, day: date = DAY) -> dict[str, int]:
    """Return how many requests of the day each of the ways to look at them has."""
    with quiet() as bars:
        fetch_zip(where, Days(day, day), tmp_path / "usage.zip", bars)
    with zipfile.ZipFile(tmp_path / "usage.zip") as zipped:
        files = [name for name in zipped.namelist() if name.endswith(".csv")]
        rows = [row for name in files for row in csv.DictReader(io.TextIOWrapper(zipped.open(name), "utf-8"))]
    manifest = Day(where.bucket(), day, Format.CSV_GZ).manifest()
    link = get(where, "/dashboard")["dashboard_link"]
    page = requests.get(link, timeout=TIMEOUT_S)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    # The ranges in their order: a day, 7 days, and longer ones.
    shown = re.findall(r'href="#request">Requests</a></dt><dd><span class="value">([0-9,]+)<', page.text)
    assert manifest is not None
    assert manifest.types is not None
    one_day = {"from": str(day), "to": str(day)}
    return {
        "zip": len(rows),
        "manifest": manifest.types["api_request"],
        "usage": get(where, "/usage", **one_day)["total"]["requests"],
        "routes": sum(row["requests"] for row in get(where, "/usage/routes", **one_day)["routes"]),
        "7 days": get(where, "/usage")["total"]["requests"],
        "by date": sum(get(where, "/api/analytics/usage")["usage_by_date"][str(day)].values()),
        "page": int(shown[1].replace(",", "")),
    }


def test_page_answers_manifest_and_zip_have_one_number_whatever_happens(
    tagline: Pipeline, tmp_path: Path
) -> None:
    where, delivered = target_of(tagline), lines(0, 9)

    deliver(tagline, *delivered)
    refresh(where)
    assert set(counts(where, tmp_path).values()) == {9}

    deliver(tagline, *reversed(delivered))  # again, in other batches
    deliver(tagline, *delivered[3:5])
    refresh(where)
    assert set(counts(where, tmp_path).values()) == {9}

    deliver(tagline, *lines(0, 5, client="late"))
    refresh(where)
    late = counts(where, tmp_path)
    assert set(late.values()) == {14}

    replay(where, *lines(0, 9), *lines(0, 3, client="replayed"))
    refresh(where)
    assert set(counts(where, tmp_path).values()) == {17}

    with quiet() as bars:
        list(do_task(where, "forget", Days(DAY, DAY), bars, "late"))
        list(do_task(where, "forget", Days(DAY, DAY), bars, "replayed"))
    refresh(where)
    assert set(counts(where, tmp_path).values()) == {9}
    assert [row["client"] for row in get(where, "/usage/clients")["clients"]] == ["acme"]
    counted = requests.get(where.outputs["DownloadUrl"] + "/metrics", timeout=TIMEOUT_S).text
    totals = [float(each) for each in re.findall(r"^api_requests_total\{.*\} (\S+)$", counted, re.MULTILINE)]
    # A counter never goes back, also when rows are erased.
    assert sum(totals) == 17


@pytest.mark.skipif(PROMETHEUS is None, reason="Debian's prometheus is not installed")
def test_a_prometheus_scrapes_the_route_while_traffic_runs_and_sees_no_counter_go_back(
    tagline: Pipeline, tmp_path: Path
) -> None:
    where = target_of(tagline)
    with scraping(where.outputs["DownloadUrl"].partition("://")[2], tmp_path) as ask:
        for sent, client in ((9, "acme"), (14, "late")):
            deliver(tagline, *lines(0, 9 if client == "acme" else 5, client=client))
            refresh(where)
            wait_for(ask, "sum(api_requests_total)", sent)
        with quiet() as bars:
            list(do_task(where, "forget", Days(DAY, DAY), bars, "late"))
        refresh(where)
        assert get(where, "/usage")["total"]["requests"] == 9
        deliver(tagline, *lines(0, 20, client="next"))
        refresh(where)

        # The forgotten requests stay counted; of the new ones, those beyond the highest count are added.
        wait_for(ask, "sum(api_request_duration_seconds_count)", 29)
        for metric in ("api_requests_total", "api_errors_total", "api_request_duration_seconds_bucket"):
            assert (ask(f"sum(resets({metric}[5m]))") or 0) == 0


def test_the_numbers_go_over_the_wire_packed_and_once(tagline: Pipeline) -> None:
    where = target_of(tagline)
    deliver(tagline, *lines(0, 3))
    where.invoke("UsageRollerName", {})
    url = where.outputs["DownloadUrl"] + "/usage/series"

    first = requests.get(url, timeout=TIMEOUT_S)
    again = requests.get(url, headers={"If-None-Match": first.headers["etag"]}, timeout=TIMEOUT_S)

    assert first.headers["content-encoding"] == "gzip"
    assert sum(part["requests"] for part in first.json()["series"]) == 3
    assert (again.status_code, again.content) == (304, b"")
    assert get(where, "/health")["status"] == "healthy"


def test_the_last_minutes_come_from_the_accounts_before_and_after_they_are_merged(tagline: Pipeline) -> None:
    where = target_of(tagline)
    where.invoke("UsageRollerName", {})
    assert get(where, "/usage")["live"] is None
    deliver(tagline, *lines(0, 9, noon=datetime.now(UTC) - timedelta(seconds=10)))

    for merge in (False, True):
        if merge:
            where.invoke("ReconcilerName", {"compact": True})
        assert where.invoke("UsageRollerName", {"last_minutes": True}) == {"requests": 9}
    answer = get(where, "/usage")
    live = answer["live"]
    assert (live["total"]["requests"], live["total"]["client_errors"], live["total"]["failures"]) == (9, 3, 3)
    assert {(row["method"], row["route"], row["requests"]) for row in live["routes"]} == {
        ("GET", f"/pets/{number}", 3) for number in range(3)
    }
    assert answer["total"]["requests"] == 0, "they are not among the others before a roll-up"
    page = requests.get(get(where, "/dashboard")["dashboard_link"], timeout=TIMEOUT_S)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "9 requests, 3 with 4xx, 3 failed" in page.text
    where.invoke("UsageRollerName", {})
    assert get(where, "/usage")["total"]["requests"] == 9


def test_the_configuration_for_prometheus_scrapes_a_route_with_the_scope_that_it_asks_for() -> None:
    (scrape,) = yaml.safe_load((ROOT / "docs" / "examples" / "prometheus.yml").read_text())["scrape_configs"]
    given = {"JwtIssuer": "https://id.example.com", "JwtAudience": "app", "TenantClaim": "client_id"}
    given |= {"Store": "timestream"}
    stack = resolve(translate(ROOT / "template.yml"), given, stack_name="tagline", endpoint="")

    (route,) = [each for each in http_routes(stack) if each.path == scrape["metrics_path"]]

    assert set(scrape["oauth2"]["scopes"]) <= set(route.scopes)
    if (promtool := shutil.which("promtool")) is not None:
        path = ROOT / "docs" / "examples" / "prometheus.yml"
        done = subprocess.run(
            [promtool, "check", "config", "--syntax-only", path], capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr
