"""The API of usage answers from roll-ups alone: the right numbers, to whom they belong, in every form."""

from __future__ import annotations

import base64
import csv
import gzip
import io
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.downloads.parameters import InvalidParameterError
from exporter.usage import stored
from exporter.usage.questions import PRESETS
from exporter.usage_api.handler import UsageApi, make_handler
from exporter.usage_api.openapi import PARAMETERS
from exporter.usage_api.parameters import parse
from tests.builders import Context, http_event
from tests.exporter.usage.usage_lake import Lake, keep
from tests.exporter.usage.usage_rows import START, row, traffic
from tests.twins import Links

DAYS = 16
TODAY = START + timedelta(days=DAYS)
LAST = f"{TODAY - timedelta(days=1):%Y-%m-%d}"


ROWS = [each for day in traffic(DAYS, routes=9, clients=5, requests=60) for each in day]
ROWS += [row(TODAY + timedelta(hours=hour), "/live", "client-1") for hour in range(6)]


class Api:
    """The API over a lake among twins."""

    def __init__(self, lake: Lake, claims: dict[str, Any] | None = None, *, claim: str = "") -> None:
        self.lake, self.claims = lake, claims
        self.alarms: Mapping[str, str] | None = {"stack-Lost": "OK"}
        api = UsageApi(lake.bucket, Links(lambda: lake.now), 600, lambda: self.alarms, lambda: lake.now)
        self.handler = make_handler(api, tenant_claim=claim, admin_scope="tagline/admin")

    def call(self, path: str, query: dict[str, str] | None = None, **headers: str) -> dict[str, Any]:
        event = http_event(f"GET {path}", path, query)
        event["headers"] |= {name.replace("_", "-"): value for name, value in headers.items()}
        if self.claims is not None:
            event["requestContext"]["authorizer"] = {"jwt": {"claims": self.claims, "scopes": None}}
        answer: dict[str, Any] = self.handler(event, Context())
        if answer.get("isBase64Encoded"):
            answer["body"] = gzip.decompress(base64.b64decode(answer["body"])).decode()
        return answer

    def ask(self, path: str, **query: str) -> Any:
        answer = self.call(path, {name.rstrip("_"): value for name, value in query.items()})
        assert answer["statusCode"] == 200, answer
        return json.loads(answer["body"])


def tenant(lake: Lake, name: str, scope: str = "tagline/downloads") -> Api:
    return Api(lake, {"client_id": name, "scope": scope}, claim="client_id")


@pytest.fixture(scope="module")
def lake() -> Lake:
    """Return a lake of days, with today's rows in the store, all rolled up."""
    lake = Lake(ROWS, TODAY + timedelta(hours=8))
    lake.export(*range(DAYS))
    lake.roll()
    return lake


def count(first: str, last: str = "9", *, client: str | None = None, route: str | None = None) -> int:
    """Return how many rows there are from a time up to another."""
    return sum(
        first <= str(each[0]) < last and client in (None, each[4]) and route in (None, each[3])
        for each in ROWS
    )


# --- the numbers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "first", "last"),
    [
        ({"range": "24h"}, "2026-11-16 08", "9"),
        ({}, "2026-11-11", "9"),
        ({"range": "90d"}, "2026-11-01", "9"),
        ({"from": "2026-11-03", "to": "2026-11-05"}, "2026-11-03", "2026-11-06"),
        ({"from": "2026-11-03T05Z", "to": "2026-11-05T07:00:00Z"}, "2026-11-03 05", "2026-11-05 07"),
        ({"from": "2026-11-03T05Z", "to": "2026-11-14T07Z"}, "2026-11-03 05", "2026-11-14 07"),
    ],
)
def test_every_answer_about_a_range_counts_the_same_rows(
    query: dict[str, str], first: str, last: str, lake: Lake
) -> None:
    api, expected = Api(lake), count(first, last)

    assert api.ask("/usage", **query)["total"]["requests"] == expected > 0
    for path in ("series", "routes", "clients"):
        assert sum(each["requests"] for each in api.ask(f"/usage/{path}", **query)[path]) == expected
    for name in ("routes", "clients"):
        (one, *_) = api.ask(f"/usage/{name}", **query, sort="p95_ms", limit="1")[name]
        key = (
            {"method": one["method"], "route": one["route"]}
            if name == "routes"
            else {"client": one["client"]}
        )
        alone = api.ask(f"/usage/{name[:-1]}", **query, **key)
        assert (
            alone["total"]["requests"] == one["requests"] == sum(each["requests"] for each in alone["series"])
        )
        assert api.ask("/usage", **query, **key)["total"] == alone["total"]


def test_a_range_is_compared_with_as_much_of_the_time_before_as_of_it_is_over(lake: Lake) -> None:
    week = Api(lake).ask("/usage")

    assert week["compared"] == {
        "from": "2026-11-11T00:00:00Z",
        "to": "2026-11-17T00:00:00Z",
        "previous_from": "2026-11-04T00:00:00Z",
        "previous_to": "2026-11-10T00:00:00Z",
    }
    assert week["previous"]["requests"] == count("2026-11-04", "2026-11-10")
    assert week["data_through"] == "2026-11-17T07:55:00Z"
    (last,) = [each for each in Api(lake).ask("/usage/series")["series"] if not each["complete"]][:1]
    assert last["start"] == "2026-11-17T06:00:00Z"
    day = Api(lake).ask("/usage", range="24h")
    assert day["previous"]["requests"] == count("2026-11-15 08", "2026-11-16 07")


def test_the_seeds_question_is_answered_in_its_form(lake: Lake) -> None:
    answer = Api(lake).ask("/api/analytics/usage", days="3")

    assert (answer["period_days"], list(answer["usage_by_date"])) == (
        3,
        ["2026-11-17", "2026-11-16", "2026-11-15"],
    )
    assert answer["usage_by_date"]["2026-11-17"] == {"/live:GET": 6}
    assert sum(answer["usage_by_date"][LAST].values()) == count(LAST, "2026-11-17")


@pytest.mark.parametrize("path", ["/usage", "/usage/series", "/usage/routes", "/usage/clients"])
def test_csv_has_the_rows_of_the_json(path: str, lake: Lake) -> None:
    api = Api(lake)
    for answer in (api.call(path, {"format": "csv"}), api.call(path, accept="text/csv")):
        assert answer["headers"]["Content-Type"] == "text/csv; charset=utf-8"
        read = list(csv.DictReader(io.StringIO(answer["body"])))
    shown = api.ask(path)
    rows = [shown["total"]] if path == "/usage" else shown[path.rpartition("/")[2]]
    assert [int(each["requests"]) for each in read] == [each["requests"] for each in rows]


def test_text_of_callers_is_text_in_every_form() -> None:
    names = ["<script>", '"><img onerror=x>', "=cmd()", "é" * 300, "__proto__", "\u202e"]
    lake = Lake([row(START, name, name) for name in names], START + timedelta(hours=2))
    lake.roll()
    api = Api(lake)

    assert {each["client"] for each in api.ask("/usage/clients")["clients"]} == set(names)
    for name in names:
        assert api.ask("/usage/client", client=name)["total"]["requests"] == 1
        assert api.ask("/usage/routes", search=name.upper())["routes"][0]["route"] == name
    sheet = list(csv.reader(io.StringIO(api.call("/usage/routes", {"format": "csv"})["body"])))
    assert "'=cmd()" in {cells[1] for cells in sheet}
    page = lake.bucket[stored.PAGE].decode()
    assert "<img onerror" not in page


# --- what it costs ----------------------------------------------------------------------------------------


def views() -> Iterator[tuple[str, dict[str, str]]]:
    """Yield different questions: paths, ranges, filters, orders and formats."""
    days = [{"from": f"2026-11-{number:02}", "to": "2026-11-16"} for number in range(1, 17)]
    route = {"method": ROWS[0][2] or "", "route": ROWS[0][3] or ""}
    filters: list[dict[str, str]] = [{}, {"client": "client-1"}, route]
    for range_ in (*({"range": name} for name in PRESETS), *days):
        yield "/usage/route", range_ | route
        yield "/usage/client", range_ | {"client": "client-1"}
        for only in filters:
            yield "/usage", range_ | only
            yield "/usage/series", range_ | only | {"format": "csv"}
        for name in ("routes", "clients"):
            yield f"/usage/{name}", range_ | {"sort": "p95_ms", "search": "1"}
            yield f"/usage/{name}", range_ | {"format": "csv", "limit": "3"}
    for number in range(1, 91):
        yield "/api/analytics/usage", {"days": str(number)}
    for path in ("/dashboard", "/metrics", "/health", "/health/details"):
        yield path, {}


def test_no_view_asks_the_store_and_a_range_by_name_reads_one_object(lake: Lake) -> None:
    api, asked = Api(lake), len(lake.store.asked)
    lake.bucket.read_keys.clear()
    for range_ in PRESETS:
        for path in ("/usage", "/usage/series", "/usage/routes", "/usage/clients"):
            api.ask(path, range=range_)
    assert len(lake.bucket.read_keys) == len(PRESETS) * 4

    different = {(path, *sorted(query.items())) for path, query in views()}
    answers = [api.call(path, query)["statusCode"] for path, query in views()]

    assert answers == [200] * len(different)
    assert len(different) >= 200
    assert len(lake.store.asked) == asked


@pytest.mark.parametrize("query", [{}, {"from": "2026-11-03", "to": "2026-11-05"}])
def test_an_answer_is_sent_again_only_when_its_numbers_have_changed(query: dict[str, str]) -> None:
    lake = Lake([row(START + timedelta(days=3))], START + timedelta(days=8))
    lake.export(*range(8))
    lake.roll()
    api = Api(lake)
    first = api.call("/usage", query)
    tag = first["headers"]["ETag"]

    unchanged = api.call("/usage", query, if_none_match=tag)
    assert (unchanged["statusCode"], unchanged["body"], unchanged["headers"]["ETag"]) == (304, "", tag)
    assert api.call("/usage", query, accept_encoding="br, gzip")["body"] == first["body"]

    keep(lake.store, [row(START + timedelta(days=3))])
    lake.export(3)
    lake.roll()

    changed = api.call("/usage", query, if_none_match=tag)
    assert json.loads(changed["body"])["total"]["requests"] == 2


# --- who may ask ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("query", [{}, {"range": "24h"}, {"from": "2026-11-03", "to": "2026-11-12"}])
def test_a_tenant_gets_its_own_numbers_in_every_answer(query: dict[str, str], lake: Lake) -> None:
    own, other, everyone = tenant(lake, "client-1"), tenant(lake, "client-2"), Api(lake)
    mine = everyone.ask("/usage/client", client="client-1", **query)
    assert mine["total"]["requests"] > 0
    for path in PARAMETERS.keys() - {"/usage/route", "/api/analytics/usage"}:
        body = own.call(path, query if path != "/dashboard" else None)["body"]
        assert "client-2" not in body, path
    assert own.ask("/usage", **query)["total"] == mine["total"]
    assert own.ask("/usage/series", **query)["series"] == mine["series"]
    (only,) = own.ask("/usage/clients", **query)["clients"]
    assert (only["client"], only["requests"]) == ("client-1", mine["total"]["requests"])
    rows = own.ask("/usage/routes", **query)["routes"]
    assert {(each["method"], each["route"], each["requests"]) for each in rows} == {
        (each["method"], each["route"], each["requests"]) for each in mine["routes"]
    }
    assert {name for each in rows for name in each} == {
        "method",
        "route",
        "requests",
        "previous_requests",
        "change",
    }
    assert "completeness" not in own.ask("/usage", **query)
    tags = {each.call("/usage", query)["headers"]["ETag"] for each in (own, other, everyone)}
    assert len(tags) == 3


def test_a_tenants_page_has_its_own_rows_and_is_made_once(lake: Lake) -> None:
    own = tenant(lake, "client-1")

    links = [own.ask("/dashboard")["dashboard_link"] for _ in range(2)]

    assert links[0] == links[1]
    page = lake.bucket[links[0].partition("https://bucket/")[2].partition("?")[0]].decode()
    assert "client-1" in page
    assert "client-2" not in page
    assert f"{count('2026-11-11', client='client-1'):,}</span>" in page
    everyone = Api(lake).ask("/dashboard")
    assert everyone["dashboard_link"].startswith(f"https://bucket/{stored.PAGE}")
    assert everyone["expires_at"] == "2026-11-17T08:10:00Z"


def test_an_administrator_gets_all_and_a_token_without_the_claim_nothing(lake: Lake) -> None:
    admin = tenant(lake, "client-1", scope="openid tagline/admin")
    assert admin.ask("/usage") == Api(lake).ask("/usage")
    assert admin.call("/metrics")["statusCode"] == 200

    nobody = Api(lake, {"scope": "tagline/downloads"}, claim="client_id")
    for path in (*PARAMETERS, "/metrics"):
        answer = nobody.call(path)
        assert (answer["statusCode"], "client_id" in answer["body"]) == (403, True), path


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/usage", {"client": "client-2"}),
        ("/usage", {"route": "/live"}),
        ("/usage/series", {"method": "GET"}),
        ("/usage/route", {"method": "GET", "route": "/live"}),
        ("/usage/client", {"client": "client-2"}),
        ("/metrics", {}),
    ],
)
def test_a_tenant_is_refused_the_numbers_of_others(path: str, query: dict[str, str], lake: Lake) -> None:
    answer = tenant(lake, "client-1").call(path, query)

    assert answer["statusCode"] == 403
    assert json.loads(answer["body"])["title"] == "Forbidden"


# --- what is refused --------------------------------------------------------------------------------------

LONG = "x" * 2_001
REFUSED: list[tuple[str, dict[str, str], str, str]] = [
    ("/usage", {"from": "2026-01-01' OR 1", "to": "2026-01-02"}, "from", "not a day such as"),
    ("/usage", {"from": "2026-11-03"}, "to", "to is missing"),
    ("/usage", {"to": "2026-11-03"}, "from", "from is missing"),
    ("/usage", {"from": "2026-11-03", "to": "2026-11-02"}, "to", "not after from"),
    ("/usage", {"from": "2026-02-30", "to": "2026-11-02"}, "from", "not a day"),
    ("/usage", {"from": "2026-11-03T05:30Z", "to": "2026-11-04"}, "from", "an hour such as"),
    ("/usage", {"from": "2025-01-01", "to": "2026-11-04"}, "to", "at most 400"),
    ("/usage", {"from": "2025-01-01", "to": "2026-11-04", "range": "7d"}, "range", "together with from"),
    ("/usage", {"range": "8d"}, "range", "not one of 24h, 7d, 30d, 90d"),
    ("/usage", {"route": "/a", "client": "b"}, "client", "give method and route, or client"),
    ("/usage", {"client": LONG}, "client", "2001 characters"),
    ("/usage", {"client": ""}, "client", "0 characters"),
    ("/usage", {"sort": "requests"}, "sort", "the parameters are range"),
    ("/usage/series", {"interval": "hour", "range": "90d"}, "interval", "at most 31"),
    ("/usage/series", {"interval": "hour", "range": "30d", "route": "/a"}, "interval", "at most 7"),
    ("/usage/series", {"interval": "minute"}, "interval", "not one of hour, day"),
    ("/usage/routes", {"limit": "1001"}, "limit", "from 1 to 1000"),
    ("/usage/routes", {"limit": "-1"}, "limit", "from 1 to 1000"),
    ("/usage/routes", {"sort": "__proto__"}, "sort", "not one of requests"),
    ("/usage/route", {"route": "/a"}, "method", "method is missing"),
    ("/usage/client", {}, "client", "client is missing"),
    ("/api/analytics/usage", {"days": "91"}, "days", "from 1 to 90"),
    ("/api/analytics/usage", {"days": "²"}, "days", "from 1 to 90"),
    ("/dashboard", {"client": "x"}, "client", "there are no parameters"),
]


@pytest.mark.parametrize(("path", "query", "field", "reason"), REFUSED)
def test_what_cannot_be_answered_is_a_problem_that_names_the_parameter(
    path: str, query: dict[str, str], field: str, reason: str, lake: Lake
) -> None:
    answer = Api(lake).call(path, query)

    problem = json.loads(answer["body"])
    assert (answer["statusCode"], problem["field"]) == (400, field)
    assert reason in problem["detail"]
    assert answer["headers"]["Content-Type"] == "application/problem+json"


@given(
    path=st.sampled_from(sorted(PARAMETERS)),
    query=st.dictionaries(
        st.sampled_from(sorted({name for names in PARAMETERS.values() for name in names})),
        st.text(max_size=12)
        | st.sampled_from(["7d", "hour", "2026-11-03", "1", "csv", "p95_ms", "0999-01-01", "9999-12-31"]),
        max_size=4,
    ),
)
def test_any_query_is_a_question_or_a_problem(path: str, query: dict[str, str]) -> None:
    with suppress(InvalidParameterError):
        question = parse(path, query)
        assert question.start is None or question.end is None or question.start < question.end
        assert question.range in (*PRESETS, None)


def test_before_the_first_roll_up_there_are_no_numbers() -> None:
    api = Api(Lake())
    for path in (*(PARAMETERS.keys() - {"/usage/route", "/usage/client"}), "/metrics"):
        answer = api.call(path)
        assert (answer["statusCode"], "every hour" in answer["body"]) == (404, True), path


# --- health and metrics -----------------------------------------------------------------------------------


def test_the_health_is_told_in_words_to_all_and_in_full_to_those_who_may_know(lake: Lake) -> None:
    api = Api(lake)

    status = json.loads(api.call("/health")["body"])
    details = json.loads(api.call("/health/details")["body"])

    assert (status["status"], "checks" in status) == ("healthy", False)
    assert set(details["checks"]) == {"bucket:response_time", "usage:data_age", "stack-Lost:alarm"}
    for path in ("/health/live", "/health/ready"):
        assert json.loads(api.call(path)["body"])["status"] == "healthy"


def test_the_health_follows_the_bucket_the_data_and_the_alarms() -> None:
    lake = Lake(now=TODAY)
    lake.roll()
    api = Api(lake)

    def status(path: str = "/health") -> tuple[int, str]:
        lake.now += timedelta(seconds=11)
        answer = api.call(path)
        return answer["statusCode"], json.loads(answer["body"])["status"]

    assert status() == (200, "healthy")
    lake.now += timedelta(hours=3)
    assert status() == (200, "warning")
    lake.now += timedelta(hours=3)
    assert status() == (503, "critical")
    lake.roll()
    api.alarms = {"stack-Lost": "ALARM"}
    assert status() == (503, "unhealthy")
    api.alarms = None
    assert status() == (200, "warning")

    def broken(_key: str) -> bytes:
        raise OSError("no route to host")

    lake.bucket.get = broken  # type: ignore[method-assign,assignment]
    assert status() == (503, "critical")
    assert status("/health/ready") == (503, "critical")
    assert status("/health/live") == (200, "healthy")


def test_the_counters_are_those_of_the_roll_up_in_the_form_that_a_scrape_asks_for(lake: Lake) -> None:
    text = Api(lake).call("/metrics")["body"]
    openmetrics = Api(lake).call("/metrics", accept="application/openmetrics-text; version=1.0.0")

    counted = [line for line in text.splitlines() if line.startswith("api_requests_total{")]
    assert sum(float(line.rpartition(" ")[2]) for line in counted) == len(ROWS)
    assert openmetrics["headers"]["Content-Type"].startswith("application/openmetrics-text")
    assert openmetrics["body"].endswith("# EOF\n")
