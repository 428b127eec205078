"""A day of the store becomes files in the lake."""

import csv
import gzip
import io
import json
from datetime import UTC, date, datetime
from typing import Any

import pytest

from exporter.export import Export, days_of, export_day, make_handler
from exporter.query import Days, Values
from tests.twins import Bucket, Rows

DAY = date(2025, 11, 20)
FOLDER = "records/year=2025/month=11/day=20/"
COLUMNS = {
    "time": "TIMESTAMP",
    "_type": "VARCHAR",
    "year": "VARCHAR",
    "status": "DOUBLE",
    "source": "VARCHAR",
    "_id": "VARCHAR",
}


def made(number: int, day: date = DAY, status: str | None = "200.0") -> Values:
    return (f"{day} 10:{number % 60:02}:00.000000000", "api_request", f"{day:%Y}", status, "/g", f"r{number}")


def store(*rows: Values) -> Rows:
    return Rows(COLUMNS, list(rows))


def test_a_day_is_written_as_parts_and_a_manifest() -> None:
    bucket = Bucket()

    export = export_day(DAY, store(made(1), made(2, status=None), made(3, date(2025, 11, 21))), bucket)

    assert set(bucket) == {FOLDER + "part-00000.csv.gz", FOLDER + "_manifest.json"}
    text = gzip.decompress(bucket[FOLDER + "part-00000.csv.gz"]).decode()
    assert list(csv.DictReader(io.StringIO(text))) == [
        {
            "time": f"2025-11-20 10:0{number}:00.000000000",
            "_type": "api_request",
            "_id": f"r{number}",
            "source": "/g",
            "status": status,
        }
        for number, status in ((1, "200.0"), (2, ""))
    ]
    manifest = json.loads(bucket[FOLDER + "_manifest.json"])
    assert (manifest["rows"], manifest["revision"], manifest["day"]) == (2, 1, "2025-11-20")
    assert export.manifest.rows == 2


def test_exporting_again_leaves_the_same_bytes() -> None:
    bucket = Bucket()
    rows = store(*map(made, range(50)))

    export_day(DAY, rows, bucket)
    first = dict(bucket)
    export_day(DAY, rows, bucket)

    assert dict(bucket) == first


def test_late_rows_make_the_next_revision() -> None:
    bucket = Bucket()

    export_day(DAY, store(made(1)), bucket)
    export = export_day(DAY, store(made(1), made(2)), bucket)

    assert (export.manifest.revision, export.manifest.rows) == (2, 2)


def test_what_the_new_manifest_does_not_name_is_removed() -> None:
    bucket = Bucket({FOLDER + "part-00007.csv.gz": b"old", "records/year=2025/month=11/day=21/x": b"other"})

    export_day(DAY, store(made(1)), bucket)

    assert FOLDER + "part-00007.csv.gz" not in bucket
    assert "records/year=2025/month=11/day=21/x" in bucket


def test_a_day_without_rows_has_a_manifest_that_says_so() -> None:
    bucket = Bucket()

    export_day(DAY, store(), bucket)

    assert list(bucket) == [FOLDER + "_manifest.json"]
    assert json.loads(bucket[FOLDER + "_manifest.json"])["rows"] == 0


def test_a_day_that_the_store_has_forgotten_stays_in_the_lake() -> None:
    bucket = Bucket()
    export_day(DAY, store(made(1), made(2)), bucket)
    before = dict(bucket)

    export = export_day(DAY, store(made(2)), bucket)

    assert export.kept
    assert export.manifest.rows == 2
    assert dict(bucket) == before


def test_the_manifest_is_written_after_the_parts_it_names() -> None:
    class Ordered(Bucket):
        def put(self, key: str, chunks: Any, content_type: str) -> None:
            if key.endswith("_manifest.json"):
                assert FOLDER + "part-00000.csv.gz" in self
            super().put(key, chunks, content_type)

    export_day(DAY, store(made(1)), Ordered())


@pytest.mark.parametrize(
    ("event", "first", "last"),
    [
        ({"day": "2025-11-18"}, "2025-11-18", "2025-11-18"),
        ({"from": "2025-11-17", "to": "2025-11-18"}, "2025-11-17", "2025-11-18"),
        ({"time": "2025-11-20T00:15:00Z", "detail-type": "Scheduled Event"}, "2025-11-19", "2025-11-19"),
        ({"time": "2025-11-20T00:15:00+02:00"}, "2025-11-18", "2025-11-18"),
        ({}, "2025-11-30", "2025-11-30"),
    ],
)
def test_an_event_says_which_days(event: dict[str, Any], first: str, last: str) -> None:
    days = days_of(event, datetime(2025, 12, 1, 0, 15, tzinfo=UTC))

    assert days == Days(date.fromisoformat(first), date.fromisoformat(last))


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ({"day": "yesterday"}, "day is 'yesterday', not a date"),
        ({"day": 7}, "day is 7, not a date"),
        ({"from": "2025-11-18"}, "to is None, not a date"),
        ({"from": "2025-11-18", "to": "2025-11-17"}, "is before the first"),
    ],
)
def test_an_event_that_names_no_days_is_refused(event: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        days_of(event, datetime(2025, 12, 1, tzinfo=UTC))


def test_the_handler_exports_a_range_day_by_day_and_says_what_it_did() -> None:
    reported: list[Export] = []
    handler = make_handler(
        store(made(1), made(2), made(3, date(2025, 11, 21))),
        Bucket(),
        now=lambda: datetime(2025, 12, 1, tzinfo=UTC),
        report=reported.append,
    )

    days = handler({"from": "2025-11-20", "to": "2025-11-22"}, None)["days"]

    assert [(day["day"], day["rows"], day["parts"]) for day in days] == [
        ("2025-11-20", 2, 1),
        ("2025-11-21", 1, 1),
        ("2025-11-22", 0, 0),
    ]
    assert [export.manifest.rows for export in reported] == [2, 1, 0]
