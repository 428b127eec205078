"""Usage as it is deployed, on one machine: page, answers, lake and zip have the same numbers.

The checks that usage has to pass, by the numbers of the reference from which it was built:

1. All numbers are one, for any day and filter, after replays, redeliveries, late rows and an erasure:
   usage_api/test_usage_live.py::test_page_answers_manifest_and_zip_have_one_number_whatever_happens
2. Percentiles of 720 hours are within 2.2 %, and the mean of hourly percentiles is not:
   usage/test_buckets.py::test_percentiles_of_720_merged_hours_are_within_the_error_bound
   usage/test_buckets.py::test_the_mean_of_hourly_percentiles_is_beyond_the_error_bound
3. Three engines have the same buckets: usage/test_three_engines.py::test_three_engines_count_the_same
4. No view asks a store, and none may:
   usage_api/test_usage_api.py::test_no_view_asks_the_store_and_a_range_by_name_reads_one_object
   ../test_template.py::test_the_api_of_usage_can_ask_no_store_and_write_no_number
5. Speed is measured by `python -m benchmarks usage`; what has not changed is not sent again:
   usage_api/test_usage_api.py::test_an_answer_is_sent_again_only_when_its_numbers_have_changed
7. Late rows raise numbers, an erasure lowers them, counters never go back:
   usage/test_roller.py::test_late_rows_and_an_erasure_revise_a_day_once_the_lake_has_changed
   usage/test_roller.py::test_the_counters_go_up_with_late_rows_and_stay_when_rows_are_erased
8. A real Prometheus scrapes while traffic runs, and promtool finds nothing:
   usage_api/test_usage_live.py::test_a_prometheus_scrapes_the_route_while_traffic_runs_and_sees_no_counter_go_back
   usage/test_prometheus_scrapes.py::test_promtool_finds_nothing_to_complain_of
9. What the gateway refuses is counted, and does not lower the availability:
   ../test_gateway_records.py::test_what_never_reaches_a_handler_is_counted_and_no_caller_writes_a_field
   ../test_gateway_records.py::test_what_the_gateway_refuses_is_counted_and_does_not_lower_the_availability
   usage/test_rollup.py::test_each_status_counts_as_defined
11. The page passes axe in every mode, keeps its policy, and draws what it counts:
   usage/test_page_in_browser.py::test_no_rule_of_axe_is_broken
   usage/test_page_in_browser.py::test_without_script_the_ranges_can_be_chosen
   usage/test_page_in_browser.py::test_the_bars_are_drawn_as_high_as_the_requests
12. Text of callers is text:
   usage/test_page.py::test_hostile_text_is_text
   usage_api/test_usage_api.py::test_text_of_callers_is_text_in_every_form
   usage_api/test_usage_api.py::test_what_cannot_be_answered_is_a_problem_that_names_the_parameter
13. A tenant gets its own numbers only:
   usage_api/test_usage_api.py::test_a_tenant_gets_its_own_numbers_in_every_answer
   usage_api/test_usage_api.py::test_a_tenant_is_refused_the_numbers_of_others
   downloads/test_downloads_callers.py::test_a_program_that_reads_the_description_finds_nothing_wrong_with_the_api
14. The health follows what it stands for, when consumer, roll-up, Reconciler or the bucket stop:
   usage_api/test_stopped.py::test_a_stopped_consumer
   usage_api/test_stopped.py::test_a_stopped_roll_up
   usage_api/test_stopped.py::test_a_stopped_reconciler
   usage_api/test_usage_api.py::test_the_health_follows_the_bucket_the_data_and_the_alarms
   usage/test_health.py::test_the_seeds_rule_for_the_overall_status_gives_the_same
"""

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
from onemachine.pipeline import Pipeline
from onemachine.template.http_apis import http_routes
from onemachine.template.resolution import resolve
from onemachine.template.sam import translate
from rich.console import Console
from rich.progress import Progress
from tagline import Record, write

from cli import replay as replaying
from cli.apps import ROOT
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
from tests.builders import GROUP, data, envelope, kinesis_event
from tests.exporter.usage.test_prometheus_scrapes import PROMETHEUS, scraping, wait_for

TIMEOUT_S = 60
# So long ago that midnight, which may pass meanwhile, changes nothing.
DAY = datetime.now(UTC).date() - timedelta(days=2)
NOON = datetime(DAY.year, DAY.month, DAY.day, 12, tzinfo=UTC)
ONE_DAY = Days(DAY, DAY)


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


def refresh(where: Target, day: date = DAY) -> None:
    where.invoke("DailyExporterName", {"day": str(day)})
    where.invoke("UsageRollerName", {})


def get(where: Target, path: str, **query: str) -> Any:
    response = requests.get(where.outputs["DownloadUrl"] + path, params=query, timeout=TIMEOUT_S)
    assert response.status_code == 200, response.text
    return response.json()


def rows_in_zip(where: Target, days: Days, folder: Path) -> list[dict[str, str]]:
    with quiet() as bars:
        fetch_zip(where, days, folder / "usage.zip", bars)
    with zipfile.ZipFile(folder / "usage.zip") as zipped:
        files = [name for name in zipped.namelist() if name.endswith(".csv")]
        return [row for name in files for row in csv.DictReader(io.TextIOWrapper(zipped.open(name), "utf-8"))]


def counts(where: Target, tmp_path: Path, days: Days = ONE_DAY) -> dict[str, int]:
    """Return how many requests of days each of the ways to look at them has, and hold each filter.

    The page and the answer without a range have all of the last 7 days.
    """
    rows = rows_in_zip(where, days, tmp_path)
    manifests = [Day(where.bucket(), day, Format.CSV_GZ).manifest() for day in days]
    given = {"from": str(days.first), "to": str(days.last)}
    by_date = get(where, "/api/analytics/usage")["usage_by_date"]
    hold_filters(where, rows, given)
    return {
        "zip": len(rows),
        "manifest": sum(each.types["api_request"] for each in manifests if each and each.types),
        "usage": get(where, "/usage", **given)["total"]["requests"],
        "routes": sum(row["requests"] for row in get(where, "/usage/routes", **given)["routes"]),
        "7 days": get(where, "/usage")["total"]["requests"],
        "by date": sum(sum(by_date[str(day)].values()) for day in days),
        "page": hold_page(where),
    }


def hold_filters(where: Target, rows: list[dict[str, str]], given: dict[str, str]) -> None:
    """Compare the answers about each client, route and class of statuses with the rows of the zip."""
    filters: list[dict[str, str]] = [{}]
    filters += [{"client": client} for client in {row["client"] for row in rows}]
    filters += [{"method": "GET", "route": route} for route in {row["route"] for row in rows}]
    for only in filters:
        statuses = [row["status"][0] for row in rows if only.items() <= row.items()]
        total = get(where, "/usage", **given, **only)["total"]
        found = (total["requests"], total["client_errors"], total["failures"])
        assert found == (len(statuses), statuses.count("4"), statuses.count("5")), only


def hold_page(where: Target) -> int:
    """Return the page's requests of 7 days; each of its tables has the rows of the answers."""
    page = requests.get(get(where, "/dashboard")["dashboard_link"], timeout=TIMEOUT_S)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    for kind, key in (("routes", "route"), ("clients", "client")):
        table = page.text.partition(f'id="{kind}-7d"')[2].partition("</table>")[0]
        answer = get(where, f"/usage/{kind}")[kind]
        assert re.findall(r"<bdi>([^<]*)</bdi><td>([0-9,]+)", table) == [
            (row[key], f"{row['requests']:,}") for row in answer
        ]
    # The ranges in their order: a day, 7 days, and longer ones.
    shown = re.findall(r'href="#request">Requests</a></dt><dd><span class="value">([0-9,]+)<', page.text)
    return int(shown[1].replace(",", ""))


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

    before = DAY - timedelta(days=1)
    deliver(tagline, *lines(20, 4, client="before", noon=NOON - timedelta(days=1)))
    refresh(where, before)
    other = counts(where, tmp_path, Days(before, before))
    assert (other.pop("page"), other.pop("7 days"), set(other.values())) == (13, 13, {4})
    assert set(counts(where, tmp_path, Days(before, DAY)).values()) == {13}


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
    # An hour is rolled up from its sixth minute on.
    tagline.advance(timedelta(minutes=10))
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


def test_the_checks_above_are_tests() -> None:
    found = re.findall(r"(\S+\.py)::(\w+)", __doc__ or "")

    assert len(found) == (__doc__ or "").count("::") > 20
    for path, name in found:
        source = (ROOT / "tests" / "exporter" / path).resolve().read_text(encoding="utf-8")
        assert f"\ndef {name}(" in source, f"{path}::{name}"
