"""The questions that docs/how-to/query-in-athena.md asks the view, over real fragments and exported days."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import date, datetime, timedelta
from math import ceil
from pathlib import Path
from typing import Any

import pytest

from tests.exporter.stores.test_lake_readers import NOW
from tests.exporter.stores.test_lake_view import DECLARED, Reader, export, glue, service
from tests.fragments import write_fragments
from tests.twins import Bucket

__all__ = ["glue", "service"]  # fixtures
PAGE = (Path(__file__).parents[3] / "docs" / "how-to" / "query-in-athena.md").read_text()
QUESTIONS = dict(re.findall(r"### (.+)\n[^#]*?```sql\n([^`]+)```", PAGE))
# The days are exported in the night after them; now is noon.
TODAY = NOW.date()
YESTERDAY, WEEK_AGO = TODAY - timedelta(days=1), TODAY - timedelta(days=7)
ROUTES, STATUSES, PLANS = ("/pets", "/pets/{id}", "/orders"), (200, 200, 404, 429, 503), ("free", "paid")
Row = dict[str, Any]


def made(number: int, day: date) -> Row:
    return {
        "time": f"{day} {number % 12:02}:{number % 60:02}:00.{number:03}000000",
        "_type": "api_request",
        "_id": f"{day}-{number:03}",
        "source": "/g",
        "route": ROUTES[number % 3],
        "client": f"client-{number % 4}" if day != TODAY or number % 7 else "client-new",
        "status": float(STATUSES[number % 5]),
        "duration_ms": float(number * 37 % 101),
        "response_bytes": 100.0 + number,
        "request_id": f"r-{number}",
        "correlation_id": f"order-{number % 20}",
        "plan": PLANS[number % 2],
    }


ROWS = [
    made(number, day)
    for day, count in ((WEEK_AGO, 20), (YESTERDAY, 45), (TODAY, 60))
    for number in range(count)
]


def of(*days: date) -> list[Row]:
    return [row for row in ROWS if date.fromisoformat(row["time"][:10]) in days]


def grouped(rows: Sequence[Row], key: Callable[[Row], Any]) -> list[tuple[Any, list[Row]]]:
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return sorted(groups.items())


def p95(rows: Sequence[Row]) -> float:
    durations = sorted(row["duration_ms"] for row in rows)
    return float(durations[ceil(0.95 * len(durations)) - 1])


def failed(rows: Sequence[Row]) -> int:
    return sum(row["status"] >= 500 for row in rows)


def route(row: Row) -> str:
    return str(row["route"])


def client(row: Row) -> str:
    return str(row["client"])


def day(row: Row) -> str:
    return str(row["time"][:10])


def limited(rows: Sequence[Row]) -> int:
    return sum(row["status"] == 429 for row in rows)


RECENT = of(YESTERDAY, TODAY)
ANSWERS: dict[str, list[tuple[Any, ...]]] = {
    "How often was each route called today, how often did it fail, how long did it take?": sorted(
        ((name, len(rows), failed(rows), p95(rows)) for name, rows in grouped(of(TODAY), route)),
        key=lambda row: (-row[1], row[0]),
    ),
    "How many requests were there in each hour since yesterday?": [
        (f"{hour}:00:00.000", len(rows)) for hour, rows in grouped(RECENT, lambda row: row["time"][:13])
    ],
    "What did each client use this month?": [
        (name, len(rows), sum(row["response_bytes"] for row in rows)) for name, rows in grouped(ROWS, client)
    ],
    "Which part of the requests failed, day by day?": [
        (name, 100 * failed(rows) / len(rows)) for name, rows in grouped(ROWS, day)
    ],
    "Which requests of today took longest?": [
        (row["time"][:23], row["route"], row["client"], row["duration_ms"], row["request_id"])
        for row in sorted(of(TODAY), key=lambda row: (-row["duration_ms"], row["time"]))[:20]
    ],
    "What happened under one correlation id?": [
        (row["time"][:23], row["_type"], row["route"], row["status"])
        for row in sorted(RECENT, key=lambda row: str(row["time"]))
        if row["correlation_id"] == "order-17"
    ],
    "Which clients are new this week?": [("client-new", str(TODAY))],
    "Which clients were rate-limited?": sorted(
        ((name, limited(rows), len(rows)) for name, rows in grouped(RECENT, client) if limited(rows)),
        key=lambda row: (-row[1], row[0]),
    ),
    "How does today compare with the same day a week ago?": [
        (name, sum(day(row) == str(TODAY) for row in rows), sum(day(row) == str(WEEK_AGO) for row in rows))
        for name, rows in grouped(of(TODAY, WEEK_AGO), route)
    ],
    "How many requests had each value of one of your fields?": [
        (plan, count)
        for plan, count in sorted(
            Counter(row["plan"] for row in RECENT).items(), key=lambda each: (-each[1], each[0])
        )
    ],
}


@pytest.fixture
def reader(glue: Any) -> Reader:
    bucket = Bucket()
    for numbered in (WEEK_AGO, YESTERDAY):
        write_fragments(bucket, of(numbered), DECLARED)
        night = datetime.combine(numbered + timedelta(days=1), NOW.timetz())
        export(glue, bucket, night)
    for _ in range(2):  # delivered twice
        write_fragments(bucket, of(TODAY), DECLARED)
    return Reader(glue, bucket, NOW + timedelta(hours=12))


def test_the_page_has_ten_questions_and_each_has_an_answer() -> None:
    assert QUESTIONS.keys() == ANSWERS.keys()
    assert len(QUESTIONS) == 10
    assert all(len(answer) > 0 for answer in ANSWERS.values())


def test_each_question_has_the_answer_that_its_rows_give(reader: Reader) -> None:
    for title, sql in QUESTIONS.items():
        found = reader.ask(sql)
        assert found == [tuple(map(str, row)) for row in ANSWERS[title]], title
