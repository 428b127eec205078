"""The view over the lake store's rows, asked in SQL after every single change of an object or a table."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from itertools import groupby
from typing import Any

import boto3
import pytest
from moto import mock_aws
from onemachine.athena.queries import run

from consumers.rows import late_days
from consumers.rows.table import Type
from exporter.export.day import DayJob
from exporter.export.handler import make_handler
from exporter.lake.formats import Format
from exporter.lake.glue import Catalog
from exporter.stores.lake.questions import LakeStore
from exporter.stores.metered import Metered
from tests.builders import Context
from tests.exporter.export.test_hourly import DAY_OF_STEPS, at, ids_in_sql
from tests.exporter.export.test_hourly import night as at_night
from tests.exporter.stores.test_lake_readers import (
    DAY,
    FORMATS,
    NOW,
    KilledError,
    Watched,
    come_late,
    filled,
    forget,
    record,
)
from tests.fragments import write_fragments
from tests.twins import Bucket, read_key

DATABASE = "tagline_1"
DECLARED: Mapping[str, Type] = {"status": "DOUBLE", "declared_later": "VARCHAR"}
LATER = NOW + timedelta(minutes=10)


class Tables:
    """A client for Glue whose changes are changes of a bucket that is looked at."""

    def __init__(self, client: Any, bucket: Bucket) -> None:
        self._client = client
        self.bucket = bucket

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def create_table(self, **given: Any) -> None:
        self._client.create_table(**given)
        self._changed()

    def update_table(self, **given: Any) -> None:
        self._client.update_table(**given)
        self._changed()

    def _changed(self) -> None:
        if isinstance(self.bucket, Watched):
            self.bucket.changed()


@pytest.fixture(scope="module")
def service() -> Iterator[Any]:
    with mock_aws():
        yield boto3.client("glue", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x")


@pytest.fixture
def glue(service: Any) -> Iterator[Any]:
    service.create_database(DatabaseInput={"Name": DATABASE})
    yield service
    service.delete_database(Name=DATABASE)


class Reader:
    """Asks as Athena's users do.

    Attributes:
        read: The keys of what was read for the last question.
    """

    def __init__(self, glue: Any, bucket: Bucket, now: datetime = NOW) -> None:
        self._glue = glue
        self._bucket = bucket
        self._now = now
        self.read: list[str] = []

    def ask(self, sql: str) -> list[tuple[str | None, ...]]:
        self.read = []
        now = int(self._now.timestamp()) * 1_000_000_000
        return run(sql, DATABASE, table=self._table, files=_Files(self._bucket, self.read), now=now).rows

    def count(self) -> int:
        ((rows,),) = self.ask(f"SELECT count(*) FROM usage WHERE date = date '{DAY}'")
        return int(str(rows))

    def _table(self, database: str, name: str) -> Mapping[str, Any] | None:
        try:
            found: Mapping[str, Any] = self._glue.get_table(DatabaseName=database, Name=name)["Table"]
        except self._glue.exceptions.EntityNotFoundException:
            return None
        return found


class _Files:
    def __init__(self, bucket: Bucket, read: list[str]) -> None:
        self._bucket = bucket
        self._read = read

    def keys(self, _bucket: str, prefix: str) -> Sequence[str]:
        return list(self._bucket.keys(prefix))

    def read(self, _bucket: str, key: str) -> bytes:
        self._read.append(key)
        return self._bucket[key]


def describe(glue: Any, bucket: Bucket) -> None:
    Catalog(Tables(glue, bucket), DATABASE, bucket).describe_fragments(DECLARED)


def export(glue: Any, bucket: Bucket, now: datetime = NOW) -> None:
    """Export as the night does."""
    catalog = Catalog(Tables(glue, bucket), DATABASE, bucket)
    handler = make_handler(
        Metered(LakeStore(bucket, read_key=read_key), 10**12),
        bucket,
        invoke=lambda name, event: pytest.fail(f"{name} was invoked with {event}"),
        formats=FORMATS,
        job=DayJob(now=lambda: now, read_key=read_key),
        describe=catalog.describe,
        describe_fragments=partial(catalog.describe_fragments, DECLARED),
    )
    assert "failed" not in handler({"time": now.isoformat()}, Context(900_000))


def test_the_view_has_each_row_once_after_every_change(glue: Any) -> None:
    bucket = filled()
    describe(glue, bucket)
    counts: list[int] = []

    def seen(step: Callable[[Bucket], None]) -> list[int]:
        counts.clear()
        bucket.look = lambda _: counts.append(Reader(glue, bucket).count())
        step(bucket)
        bucket.look = None
        assert len(counts) > 1
        return [key for key, _ in groupby(counts)]

    assert Reader(glue, bucket).count() == 40
    assert seen(partial(export, glue)) == [40]
    assert seen(come_late) == [40]
    assert seen(partial(export, glue)) == [40, 50]
    assert seen(forget) == [50, 37]
    assert seen(partial(export, glue)) == [37]
    bucket.delete(list(bucket.keys("store/")))
    assert Reader(glue, bucket).count() == 37


def test_whatever_change_an_export_is_killed_after_the_view_has_each_row_once(
    service: Any, glue: Any
) -> None:
    described = filled()
    describe(glue, described)
    first = service.get_table(DatabaseName=DATABASE, Name="usage")["Table"]["ViewOriginalText"]
    whole_step = Watched(described)
    whole_step.look = lambda _: None
    export(glue, whole_step)
    assert service.get_table(DatabaseName=DATABASE, Name="usage")["Table"]["ViewOriginalText"] != first
    for kill_at in range(1, whole_step.changes + 1):
        service.delete_database(Name=DATABASE)
        service.create_database(DatabaseInput={"Name": DATABASE})
        killed = Watched(described)
        describe(glue, killed)
        killed.look, killed.kill_at = lambda _: None, kill_at
        with pytest.raises(KilledError):
            export(glue, killed)
        killed.look = None
        assert Reader(glue, killed).count() == 40
        export(glue, killed, LATER)
        assert Reader(glue, killed).count() == 40


def test_a_row_has_the_same_values_before_and_after_its_day_is_exported(glue: Any) -> None:
    rows = [
        {**record(1), "user-agent": 'a "b"', "size": 5, "is_new": True, "two.x20.words": "x"},
        {**record(2), "status": None, "ratio": 1e-7, "declared_later": "y"},
    ]
    bucket = Bucket()
    # Written before a column was declared, and after.
    write_fragments(bucket, rows[:1])
    write_fragments(bucket, rows[1:], DECLARED)
    export(glue, bucket)
    question = "SELECT * FROM usage ORDER BY _id"
    closed = Reader(glue, bucket).ask(question)
    assert len(closed) == 2
    assert Reader(glue, bucket).ask(
        "SELECT user_agent, size, is_new, two_x20_words FROM usage WHERE _id = 'id-00001'"
    ) == [('a "b"', "5", "true", "x")]

    bucket.delete(["lake/closed.json"])
    describe(glue, bucket)

    reader = Reader(glue, bucket)
    assert reader.ask(question) == closed
    assert all(key.startswith("store/") for key in reader.read)


def test_a_day_whose_export_failed_is_read_from_its_fragments_while_later_ones_are_closed(glue: Any) -> None:
    bucket = Bucket()
    for days in range(3):
        write_fragments(bucket, [{**record(1), "time": f"{DAY + timedelta(days=days)} 10:00:00.000000001"}])
    export(glue, bucket)
    export(glue, bucket, NOW + timedelta(days=2))
    bucket[late_days.marker_key(DAY + timedelta(days=1), "failed", "2025-11-22")] = b""
    describe(glue, bucket)

    reader = Reader(glue, bucket, NOW + timedelta(days=2))
    assert reader.ask("SELECT cast(date AS varchar), count(*) FROM usage GROUP BY 1 ORDER BY 1") == [
        (str(DAY + timedelta(days=days)), "1") for days in range(3)
    ]
    assert {key.split("/")[0] for key in reader.read} == {"records", "store"}


@pytest.mark.parametrize(
    ("condition", "days"),
    [
        ("", {0, 1, 2, 3}),
        ("WHERE date = date '2025-11-20'", {0}),
        ("WHERE date >= date '2025-11-21' AND client = 'client-1'", {1, 2, 3}),
        ("WHERE date BETWEEN date '2025-11-21' AND date '2025-11-22' OR date = date '2025-11-20'", {0, 1, 2}),
        ("WHERE date IN (date '2025-11-20', date '2025-11-22')", {0, 2}),
        ("WHERE date >= current_date - INTERVAL '1' DAY", {2, 3}),
        ("WHERE date > date '2025-11-23'", set()),
    ],
)
def test_only_the_files_of_the_days_that_a_query_asks_for_are_read(
    glue: Any, condition: str, days: set[int]
) -> None:
    bucket = Bucket()
    for number in range(4):
        write_fragments(bucket, [{**record(1), "time": f"{DAY + timedelta(days=number)} 10:00:00.000000001"}])
    for night in range(2):
        export(glue, bucket, NOW + timedelta(days=night))
    reader = Reader(glue, bucket, NOW + timedelta(days=2))

    reader.ask(f"SELECT route, count(*) FROM usage {condition} GROUP BY route")

    # A closed day's list and its part; a fragment of another.
    assert len(reader.read) == sum(2 if number < 2 else 1 for number in days)
    assert {bool(f"{DAY + timedelta(days=number)}" in "".join(reader.read)) for number in days} <= {True}


def test_the_view_reads_closed_hours_from_parts_and_the_others_from_fragments(glue: Any) -> None:
    bucket = Bucket()
    for _, step in DAY_OF_STEPS[:3]:
        step(bucket)
    catalog = Catalog(glue, DATABASE, bucket)
    catalog.describe(Format.PARQUET)
    catalog.describe_fragments({})
    reader = Reader(glue, bucket)

    # The late rows of the second hour are in no part yet.
    assert reader.count() == len(ids_in_sql(bucket)) == 16
    assert {key.split("/")[0] for key in reader.read} == {"records", "store"}
    at(4)(bucket)
    assert reader.count() == 18
    catalog.describe_fragments({})
    assert reader.count() == 18

    at_night()(bucket)
    assert reader.count() == 18
    catalog.describe_fragments({})
    bucket.delete(list(bucket.keys("store/")))
    assert reader.count() == 18


def test_what_is_no_view_of_prestos_is_refused(service: Any, glue: Any) -> None:
    service.create_table(
        DatabaseName=DATABASE,
        TableInput={"Name": "odd", "TableType": "VIRTUAL_VIEW", "ViewOriginalText": "SELECT 1"},
    )
    with pytest.raises(Exception, match="INVALID_VIEW: odd"):
        Reader(glue, Bucket()).ask("SELECT * FROM odd")
