"""Days of the store become files in the lake."""

import csv
import gzip
import io
import json
import random
import threading
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from consumers.rows import late_days
from consumers.settings import SettingsError
from exporter.export.handler import (
    DaysFailedError,
    Export,
    Job,
    OutOfTimeError,
    Run,
    StuckError,
    ahead,
    days_of,
    export_day,
    formats,
    make_handler,
)
from exporter.lake import days as lake
from exporter.lake import manifest as archive
from exporter.lake.forgotten import KEY as FORGOTTEN
from exporter.lake.forgotten import Forgotten
from exporter.store import FIRST, Column, Days, Type, Values
from exporter.stores.metered import Metered
from tests.builders import Context
from tests.twins import Bucket, Rows, client_error

DAY = date(2025, 11, 20)
FOLDER = "records/year=2025/month=11/day=20/"
NOW = datetime(2025, 12, 1, 0, 15, tzinfo=UTC)
COLUMNS: dict[str, Type] = {
    "time": "timestamp",
    "_type": "text",
    "year": "text",
    "status": "number",
    "source": "text",
    "_id": "text",
    "client": "text",
}


def made(
    number: int, day: date = DAY, status: str | None = "200", client: str | None = None, hour: int = 10
) -> Values:
    time = f"{day} {hour:02}:{number % 60:02}:00.{number // 60:09}"
    return (time, "api_request", f"{day:%Y}", status, "/g", f"r{number:05}", client)


def store(*rows: Values) -> Rows:
    return Rows(COLUMNS, list(rows))


def read(bucket: Bucket, day: date = DAY) -> list[dict[str, str]]:
    """Return a day's rows as a reader of the lake sees them: by its manifest."""
    manifest = lake.read_manifest(bucket, day, Format.CSV_GZ)
    assert manifest is not None
    rows: list[dict[str, str]] = []
    for part in manifest.parts:
        rows += csv.DictReader(io.StringIO(gzip.decompress(bucket[part.key]).decode()))
    return rows


def test_a_day_is_written_as_parts_and_a_manifest() -> None:
    bucket = Bucket()

    export = export_day(DAY, store(made(1), made(2, status=None), made(3, date(2025, 11, 21))), bucket)

    assert set(bucket.lake()) == {FOLDER + "part-00000.csv.gz", FOLDER + "_manifest.json"}
    nothing = dict.fromkeys(("route", "method", "client"), "")
    assert read(bucket) == [
        {
            "time": f"2025-11-20 10:0{number}:00.000000000",
            "_type": "api_request",
            "_id": f"r0000{number}",
            "source": "/g",
            "status": status,
            **nothing,
        }
        for number, status in ((1, "200"), (2, ""))
    ]
    assert list(read(bucket)[0]) == [*FIRST, "status"]
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


SMALL = Job(size=30_000, slice_rows=700)


def many(count: int = 4_000) -> list[Values]:
    return [made(number) for number in range(count)]


def test_a_large_day_is_asked_for_in_slices_and_written_in_parts() -> None:
    bucket, rows = Bucket(), store(*many())

    export = export_day(DAY, rows, bucket, SMALL)

    assert [part.rows for part in export.manifest.parts] == [1_000, 1_000, 1_000, 1_000]
    assert [row["_id"] for row in read(bucket)] == [row[5] for row in sorted(many(), key=str)]
    assert len(rows.asked) == 6
    assert rows.asked[0].start == "2025-11-20 00:00:00.000000000"
    assert rows.asked[-1].end == "2025-11-21 00:00:00.000000000"


def test_while_an_item_is_used_the_next_one_is_made_and_no_other() -> None:
    made: list[int] = []
    is_made = [threading.Event() for _ in range(5)]

    def items() -> Iterator[int]:
        for number in range(4):
            made.append(number)
            is_made[number].set()
            yield number

    for number in ahead(items()):
        if number < 3:
            assert is_made[number + 1].wait(60)
        assert made == list(range(min(number + 2, 4)))


def test_what_fails_ahead_fails_in_its_place() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OutOfTimeError(got_on=True)

    coming = ahead(items())

    assert next(coming) == 1
    with pytest.raises(OutOfTimeError):
        next(coming)


def test_who_leaves_does_not_wait_for_what_is_on_its_way() -> None:
    asked, go_on = threading.Event(), threading.Event()

    def items() -> Iterator[int]:
        yield 1
        asked.set()
        assert go_on.wait(60)
        yield 2

    coming = ahead(items())
    assert next(coming) == 1
    assert asked.wait(60)

    coming.close()  # type: ignore[attr-defined] # it is a generator; waiting here would be for ever

    go_on.set()


@pytest.mark.parametrize("kind", Format)
def test_every_format_has_a_folder_and_a_manifest_of_its_own(kind: Format) -> None:
    bucket = Bucket()

    export = export_day(DAY, store(*map(made, range(9))), bucket, Job(kind))

    assert (export.manifest.format, export.manifest.rows) == (kind, 9)
    assert lake.read_manifest(bucket, DAY, kind) == export.manifest
    assert [part.key for part in export.manifest.parts] == [archive.part_key(DAY, 0, 1, kind)]


def test_athena_is_told_the_names_of_the_committed_files_alone() -> None:
    bucket = Bucket()
    key = "records/tables/csv.gz/year=2025/month=11/day=20/symlink.txt"

    export_day(DAY, store(made(1)), bucket)
    assert bucket[key].decode() == f"s3://bucket/{FOLDER}part-00000.csv.gz\n"
    export_day(DAY, store(made(1), made(2)), bucket)
    assert bucket[key].decode() == f"s3://bucket/{FOLDER}part-00000-r2.csv.gz\n"


@pytest.mark.parametrize("kind", [Format.CSV, Format.CSV_GZ])
def test_athena_is_told_of_no_csv_that_it_would_misread(kind: Format) -> None:
    bucket = Bucket()
    key = lake.table_key(DAY, kind)

    export_day(DAY, store(made(1), made(2, client="two\nlines")), bucket, Job(kind))
    assert bucket[key].decode() == (
        f"s3://bucket/records/tables/{kind}/year=2025/month=11/day=20/"
        "values-have-line-ends--ask-the-table-records-over-parquet\n"
    )
    export_day(DAY, store(made(1), made(2, client="two\nlines")), bucket, Job(Format.PARQUET))
    assert bucket[lake.table_key(DAY, Format.PARQUET)].decode().endswith("part-00000.parquet\n")


@pytest.mark.parametrize("damage", [None, b"", b"another"], ids=["gone", "empty", "changed"])
def test_a_part_that_is_not_as_its_manifest_says_is_written_again(damage: bytes | None) -> None:
    bucket = Bucket()
    rows = store(made(1), made(2))
    export_day(DAY, rows, bucket)
    del bucket[FOLDER + "part-00000.csv.gz"]
    if damage is not None:
        bucket[FOLDER + "part-00000.csv.gz"] = damage

    manifest = export_day(DAY, rows, bucket).manifest

    assert manifest.revision == 2
    assert len(read(bucket)) == 2


def test_a_part_in_the_archive_is_left_there() -> None:
    # https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html: InvalidObjectState
    class Archived(Bucket):
        def stream(self, key: str) -> Iterator[bytes]:
            raise client_error("InvalidObjectState", 403, message=key)

    bucket = Archived()
    rows = store(made(1), made(2))
    first = export_day(DAY, rows, bucket).manifest

    assert export_day(DAY, rows, bucket).manifest == first


def test_the_manifest_of_a_day_that_stays_the_same_is_not_written_again() -> None:
    # It would live longer than the files that it names: lifecycle rules go by an object's age.
    class Watched(Bucket):
        def put(self, key: str, chunks: Iterable[bytes], content_type: str) -> None:
            super().put(key, chunks, content_type)
            written.append(key)

    written: list[str] = []
    bucket = Watched()
    export_day(DAY, store(made(1)), bucket)
    export_day(DAY, store(made(1)), bucket)

    assert written.count(FOLDER + "_manifest.json") == 1


# --- revisions --------------------------------------------------------------------------------------------


def test_late_rows_make_the_next_revision_beside_the_one_before() -> None:
    bucket = Bucket()

    export_day(DAY, store(made(1)), bucket)
    before = bucket[FOLDER + "part-00000.csv.gz"]
    export = export_day(DAY, store(made(1), made(2)), bucket)

    assert (export.manifest.revision, export.manifest.rows) == (2, 2)
    # Whoever has read the manifest before can still read what it names.
    assert bucket[FOLDER + "part-00000.csv.gz"] == before
    assert len(read(bucket)) == 2


def test_replaced_parts_are_removed_when_their_time_of_grace_is_over() -> None:
    bucket, rows = Bucket(), store(made(1), made(2))
    export_day(DAY, store(made(1)), bucket, Job(now=lambda: NOW))
    export_day(DAY, rows, bucket, Job(now=lambda: NOW))

    export_day(DAY, rows, bucket, Job(now=lambda: NOW + lake.GRACE - timedelta(seconds=1)))
    assert FOLDER + "part-00000.csv.gz" in bucket
    export_day(DAY, rows, bucket, Job(now=lambda: NOW + lake.GRACE))
    assert set(bucket.lake()) == {FOLDER + "part-00000-r2.csv.gz", FOLDER + "_manifest.json"}
    assert not list(lake.replaced_days(bucket))


def test_what_was_never_committed_is_removed_at_once() -> None:
    bucket = Bucket({FOLDER + "part-00007.csv.gz": b"old", "records/year=2025/month=11/day=21/x": b"other"})

    export_day(DAY, store(made(1)), bucket)

    assert FOLDER + "part-00007.csv.gz" not in bucket
    assert "records/year=2025/month=11/day=21/x" in bucket


def test_a_day_without_rows_has_a_manifest_that_says_so() -> None:
    bucket = Bucket()

    export_day(DAY, store(), bucket)

    assert list(bucket) == [FOLDER + "_manifest.json"]
    assert json.loads(bucket[FOLDER + "_manifest.json"])["rows"] == 0


NASTY = [
    *("a,b", 'say "hi"', '"', '""', "'", "a\nb", "a\r\nb", "a\rb", " a ", "\t", "\\", "NULL", "NaN", "=1+1"),
    *(
        "\ufeff",
        "\u2028",
        "\u202e",
        "\x00",
        "\x1b",
        "\x7f",
        "é",
        "e\u0301",
        "日本",
        "🦄",
        "\U0010ffff",
        "x" * 3_000,
    ),
]


@pytest.mark.parametrize("kind", Format)
@pytest.mark.parametrize("clients", [NASTY, ["one row"]], ids=["nasty", "one row"])
def test_a_day_of_one_row_or_of_nasty_ones_comes_back_as_it_was(kind: Format, clients: list[str]) -> None:
    bucket = Bucket()
    rows = [made(number, client=client) for number, client in enumerate(clients)]

    export_day(DAY, store(*rows), bucket, Job(kind))

    manifest = lake.read_manifest(bucket, DAY, kind)
    assert manifest is not None
    names = [column.name for column in manifest.columns]
    read = [
        (row[names.index("_id")], row[names.index("client")])
        for part in manifest.parts
        for batch in kind.read([bucket[part.key]], manifest.columns)
        for row in batch.rows
    ]
    assert read == [(row[5], row[6]) for row in rows]


@pytest.mark.parametrize(
    "left", [[made(2)], [made(2), made(3), made(4)]], ids=["fewer rows", "more rows, without the first"]
)
def test_a_day_that_the_store_has_forgotten_stays_in_the_lake(left: list[Values]) -> None:
    bucket = Bucket()
    export_day(DAY, store(made(1), made(2)), bucket)
    before = dict(bucket)

    export = export_day(DAY, store(*left), bucket)

    assert export.kept
    assert export.manifest.rows == 2
    assert dict(bucket) == before


# --- a change of the schema -------------------------------------------------------------------------------


def test_a_day_across_a_change_of_the_schema_has_the_new_columns_last() -> None:
    bucket = Bucket()
    export_day(DAY, store(made(1)), bucket)
    wider: dict[str, Type] = {**COLUMNS, "agent": "text", "bytes_count": "integer"}
    rows = Rows(wider, [(*made(1), None, None), (*made(2), "curl", "7")])

    export = export_day(DAY, rows, bucket)

    names = [column.name for column in export.manifest.columns]
    assert names == [*FIRST, "status", "agent", "bytes_count"]
    assert [(row["_id"], row["status"], row["agent"], row["bytes_count"]) for row in read(bucket)] == [
        ("r00001", "200", "", ""),
        ("r00002", "200", "curl", "7"),
    ]


def test_a_column_whose_type_has_changed_with_a_new_table_has_in_each_day_the_type_of_its_values() -> None:
    bucket = Bucket()
    export_day(date(2025, 11, 19), store(made(1, date(2025, 11, 19))), bucket, Job(Format.JSONL_GZ))
    rows = Rows(COLUMNS | {"status": "text"}, [made(1, status="fine")])

    for kind in (Format.JSONL_GZ, Format.PARQUET):
        manifest = export_day(DAY, rows, bucket, Job(kind)).manifest
        (batch,) = kind.read(bucket.stream(manifest.parts[0].key), manifest.columns)
        assert batch.rows[0][-1] == "fine"
        assert manifest.columns[-1] == Column("status", "text")


def test_columns_that_other_days_have_brought_do_not_change_a_day_that_is_written_again() -> None:
    bucket = Bucket()
    export_day(DAY, store(made(1)), bucket)
    before = bucket.lake()
    wider: dict[str, Type] = {**COLUMNS, "agent": "text"}
    other = (*made(2, date(2025, 11, 21)), "curl")
    rows = Rows(wider, [(*made(1), None), other])

    export_day(date(2025, 11, 21), rows, bucket)
    export = export_day(DAY, rows, bucket)

    assert export.manifest.revision == 1
    assert {key: body for key, body in bucket.lake().items() if "day=20" in key} == before


def test_a_column_that_the_store_no_longer_has_keeps_its_place() -> None:
    bucket = Bucket()
    wider: dict[str, Type] = {**COLUMNS, "agent": "text"}
    export_day(DAY, Rows(wider, [(*made(1), "curl")]), bucket)

    export = export_day(date(2025, 11, 21), store(made(2, date(2025, 11, 21))), bucket)

    assert [column.name for column in export.manifest.columns] == [*FIRST, "agent", "status"]
    assert [row["agent"] for row in read(bucket, date(2025, 11, 21))] == [""]


def test_two_runs_that_bring_columns_at_the_same_time_lose_none() -> None:
    class Racing(Bucket):
        def replace(self, key: str, body: bytes, tag: str | None) -> bool:
            if key == lake.COLUMNS and not self.raced:
                self.raced = True
                lake.lake_columns(self, [Column("theirs", "text")])
            return super().replace(key, body, tag)

        raced = False

    columns = lake.lake_columns(Racing(), [Column("ours", "text")])

    assert [column.name for column in columns] == [*FIRST, "theirs", "ours"]


# --- clients to be forgotten ------------------------------------------------------------------------------


def test_a_client_that_is_to_be_forgotten_does_not_come_back_from_the_store() -> None:
    forgotten = Forgotten("ab" * 32).having("c1")
    bucket = Bucket({FORGOTTEN: forgotten.to_json()})
    rows = store(made(1, client="c1"), made(2, client="c2"), made(3))

    export = export_day(DAY, rows, bucket)

    assert [row["client"] for row in read(bucket)] == ["c2", ""]
    assert export.manifest.forgotten == 1
    before = dict(bucket)
    assert not export_day(DAY, rows, bucket).kept
    assert dict(bucket) == before
    assert b"c1" not in forgotten.to_json()


def test_a_client_that_is_forgotten_while_a_day_is_written_is_not_in_it() -> None:
    bucket, rows = Bucket(), store(*(made(number, client=f"c{number % 2}") for number in range(4_000)))
    with pytest.raises(OutOfTimeError):
        export_day(DAY, rows, bucket, replace(SMALL, seconds_left=iter([900.0, 900.0, 1.0]).__next__))

    bucket[FORGOTTEN] = Forgotten("ab" * 32).having("c1").to_json()
    export_day(DAY, rows, bucket, SMALL)

    assert {row["client"] for row in read(bucket)} == {"c0"}
    parts = [gzip.decompress(body) for key, body in bucket.lake().items() if "part-" in key]
    assert not any(b"c1" in text for text in parts)


def test_a_forgotten_client_that_the_column_does_not_name_is_left_out_with_its_whole_records() -> None:
    # A schema that bounds a dimension's values lets the column say `other`, and `_said` what the record said.
    columns = COLUMNS | {"_said": "text", "_overflow": "text"}
    rows = Rows(
        columns,
        [
            (*made(1, client="other"), '{"client":"c1"}', "overflow/2025-11-20/1.json"),
            (*made(2, client="other"), '{"client":"c2"}', "overflow/2025-11-20/2.json"),
            (*made(3, client="other"), '{"client":"c', None),
            (*made(4, client="c1"), None, "lake/columns.json"),
            (*made(5, client="other"), '{"route":"/c1"}', None),
        ],
    )
    bucket = Bucket({FORGOTTEN: Forgotten("ab" * 32).having("c1").to_json()})
    bucket |= {f"overflow/2025-11-20/{number}.json": b"" for number in (1, 2)}

    export_day(DAY, rows, bucket)

    assert [row["_id"] for row in read(bucket)] == ["r00002", "r00003", "r00005"]
    assert list(bucket.keys("overflow/")) == ["overflow/2025-11-20/2.json"]
    assert lake.COLUMNS in bucket


# --- interruptions ----------------------------------------------------------------------------------------


class Killed(BaseException):
    """The process ends here."""


class Dying(Bucket):
    """A bucket whose user is killed at the nth operation, in the middle of what it writes."""

    def __init__(self, kept: dict[str, bytes], operations: int) -> None:
        super().__init__(kept)
        self.left = operations

    def _count(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Killed

    def put(self, key: str, chunks: Iterable[bytes], content_type: str) -> None:
        def counted() -> Iterator[bytes]:
            for chunk in chunks:
                self._count()
                yield chunk

        super().put(key, counted(), content_type)
        self._count()

    def delete(self, keys: Iterable[str]) -> None:
        for key in list(keys):
            self._count()
            super().delete([key])

    def replace(self, key: str, body: bytes, tag: str | None) -> bool:
        self._count()
        return super().replace(key, body, tag)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("late", [False, True], ids=["first time", "late rows"])
def test_killed_at_any_point_and_run_again_it_leaves_the_same_bytes(seed: int, late: bool) -> None:
    chance = random.Random(seed)
    kept: dict[str, bytes] = {}
    if late:
        begun = Bucket()
        export_day(DAY, store(*many(1_500)), begun, replace(SMALL, now=lambda: NOW))
        kept = dict(begun)
    rows = store(*many())
    job = replace(SMALL, now=lambda: NOW)
    undisturbed = Bucket(kept)
    export_day(DAY, rows, undisturbed, job)

    deaths = 0
    while True:
        bucket = Dying(kept, chance.randrange(1, 40 if deaths else 16))
        try:
            export_day(DAY, rows, bucket, job)
            break
        except Killed:
            deaths += 1
            kept = dict(bucket)

    assert deaths
    assert bucket.lake() == undisturbed.lake()


def test_a_manifest_names_only_what_is_there_whenever_it_is_looked_at() -> None:
    class Watched(Bucket):
        def put(self, key: str, chunks: Any, content_type: str) -> None:
            super().put(key, chunks, content_type)
            self._look()

        def delete(self, keys: Iterable[str]) -> None:
            super().delete(keys)
            self._look()

        def _look(self) -> None:
            manifest = lake.read_manifest(self, DAY, Format.CSV_GZ)
            for part in manifest.parts if manifest else ():
                assert len(self[part.key]) == part.bytes

    bucket = Watched()
    for count in (1_500, 4_000, 4_000, 4_001):
        export_day(DAY, store(*many(count)), bucket, SMALL)


def test_an_invocation_that_runs_out_of_time_is_continued_behind_its_last_part() -> None:
    bucket, rows = Bucket(), store(*many())
    undisturbed = Bucket()
    export_day(DAY, rows, undisturbed, SMALL)

    with pytest.raises(OutOfTimeError):
        export_day(DAY, rows, bucket, replace(SMALL, seconds_left=iter([900.0, 900.0, 1.0]).__next__))
    progress = lake.read_progress(bucket, DAY, Format.CSV_GZ)
    assert progress is not None
    assert len(progress.parts) == 3
    assert lake.read_manifest(bucket, DAY, Format.CSV_GZ) is None
    rows.asked.clear()
    export_day(DAY, rows, bucket, SMALL)

    assert rows.asked[0].start == progress.time
    assert bucket.lake() == undisturbed.lake()


@pytest.mark.parametrize("order", ["", "late rows"])
def test_what_came_before_the_place_where_a_day_stands_is_not_left_out(order: str) -> None:
    bucket, rows = Bucket(), store(*many())
    with pytest.raises(OutOfTimeError):
        export_day(DAY, rows, bucket, replace(SMALL, seconds_left=iter([900.0, 900.0, 1.0]).__next__))
    rows.keep(made(1, hour=9))

    export = export_day(DAY, rows, bucket, replace(SMALL, order=order))

    assert export.manifest.rows == 4_001
    assert sum(1 for row in read(bucket)) == 4_001


def test_rows_of_one_time_at_the_end_of_a_part_are_neither_lost_nor_doubled() -> None:
    same = [(*made(7)[:5], f"r{number:05}", None) for number in range(3_500)]
    bucket, rows = Bucket(), store(*same)

    for _ in range(2):
        with pytest.raises(OutOfTimeError):
            export_day(DAY, rows, bucket, replace(SMALL, seconds_left=iter([900.0, 1.0]).__next__))
    export_day(DAY, rows, bucket, SMALL)

    assert [row["_id"] for row in read(bucket)] == [row[5] for row in same]


# --- what an event asks for -------------------------------------------------------------------------------


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
    assert days_of(event, NOW) == Days(date.fromisoformat(first), date.fromisoformat(last))


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ({"day": "yesterday"}, "day is 'yesterday', not a date"),
        ({"day": 7}, "day is 7, not a date"),
        ({"from": "2025-11-18"}, "to is None, not a date"),
        ({"from": "2025-11-18", "to": "2025-11-17"}, "is before the first"),
        ({"day": "2025-12-02"}, "day is 2025-12-02, which is after today, 2025-12-01 in UTC"),
        ({"from": "2025-11-18", "to": "2052-11-19"}, "to is 2052-11-19, which is after today"),
    ],
)
def test_an_event_that_names_no_days_is_refused(event: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        days_of(event, datetime(2025, 12, 1, tzinfo=UTC))


def test_formats_are_listed_with_commas_and_others_refused_by_name() -> None:
    assert formats("parquet, csv.gz") == (Format.PARQUET, Format.CSV_GZ)
    with pytest.raises(
        SettingsError, match=r"EXPORT_FORMATS is 'orc': .* there are csv, csv.gz, jsonl.gz, parquet"
    ):
        formats("orc")


# --- the function -----------------------------------------------------------------------------------------


class Function:
    """The handler over twins; what it calls itself with is kept."""

    def __init__(self, rows: Rows, bucket: Bucket | None = None, **more: Any) -> None:
        self.bucket = Bucket() if bucket is None else bucket
        self.reported: list[Export] = []
        self.called: list[tuple[str, dict[str, Any]]] = []
        self.described: list[tuple[Format, list[str]]] = []
        self.now = NOW
        self._handler = make_handler(
            Metered(rows),
            self.bucket,
            now=lambda: self.now,
            report=self.reported.append,
            go_on=lambda name, event: self.called.append((name, event)),
            describe=lambda kind, columns: self.described.append((kind, [column.name for column in columns])),
            **{"size": SMALL.size, "slice_rows": SMALL.slice_rows, **more},
        )

    def __call__(self, event: dict[str, Any], context: Any = None) -> dict[str, Any]:
        answer: dict[str, Any] = self._handler(json.loads(json.dumps(event)), context or Context(900_000))
        return answer


def test_the_handler_exports_a_range_day_by_day_and_says_what_it_did() -> None:
    function = Function(store(made(1), made(2), made(3, date(2025, 11, 21))))

    days = function({"from": "2025-11-20", "to": "2025-11-22"})["days"]

    assert [(day["day"], day["rows"], day["parts"], day["format"]) for day in days] == [
        ("2025-11-20", 2, 1, "csv.gz"),
        ("2025-11-21", 1, 1, "csv.gz"),
        ("2025-11-22", 0, 0, "csv.gz"),
    ]
    assert [export.manifest.rows for export in function.reported] == [2, 1, 0]
    assert function.described == [(Format.CSV_GZ, [*FIRST, "status"])]
    assert not any("locks/" in key for key in function.bucket)


def test_all_formats_are_written() -> None:
    function = Function(store(made(1)), kinds=(Format.CSV_GZ, Format.PARQUET))

    days = function({"day": "2025-11-20"})["days"]

    assert [day["format"] for day in days] == ["csv.gz", "parquet"]


def late(
    day: str, batch: str = "shardId-000000000000:49590338271490256608559692538361571095921575989136588898"
) -> str:
    return late_days.key(date.fromisoformat(day), batch, "c6af9ac6-7b61-11e6-9a41-93e8deadbeef")


def test_the_daily_run_writes_the_days_again_that_rows_came_to_late() -> None:
    function = Function(store(made(1), made(2, date(2025, 11, 30))))
    function({"day": "2025-11-20"})
    function = Function(store(made(1), made(3), made(2, date(2025, 11, 30))), function.bucket)
    function.bucket |= {late("2025-11-20"): b"", late("2025-11-20", "other"): b"", late("2025-12-01"): b""}

    days = function({"time": "2025-12-01T00:15:00Z"})["days"]

    assert [(day["day"], day["rows"], day["revision"]) for day in days] == [
        ("2025-11-30", 1, 1),
        ("2025-11-20", 2, 2),
    ]
    # Today is not over: it is written tomorrow.
    assert list(function.bucket.keys("late/")) == [late("2025-12-01")]


def test_rows_that_come_late_while_a_day_is_written_are_for_the_next_run() -> None:
    class Meanwhile(Rows):
        bucket: Bucket

        def tally(self, day: date) -> dict[int, int]:
            self.bucket[late("2025-11-20", "meanwhile")] = b""
            return super().tally(day)

    rows = Meanwhile(COLUMNS, [made(1)])
    rows.bucket = Bucket({late("2025-11-20"): b""})
    function = Function(rows, rows.bucket)

    function({"day": "2025-11-20"})

    assert list(rows.bucket.keys("late/")) == [late("2025-11-20", "meanwhile")]


@pytest.mark.parametrize(("hours", "left"), [(6, True), (7, False)])
def test_word_of_late_rows_is_kept_until_they_can_be_asked_for(hours: int, left: bool) -> None:
    # "Writes to the magnetic store will not be immediately available to query. They will be available within
    # 6 hours": https://docs.aws.amazon.com/timestream/latest/developerguide/data-ingest.html
    function = Function(store(made(1)))
    function.bucket[late("2025-11-20")] = b""
    function.bucket.modified[late("2025-11-20")] = NOW - timedelta(hours=hours)

    for asked in ({}, {"day": "2025-11-20"}):
        days = function(asked)["days"]
        assert "2025-11-20" in [day["day"] for day in days]
        assert (late("2025-11-20") in function.bucket) is left
        function.bucket.setdefault(late("2025-11-20"), b"")


def test_what_somebody_else_has_put_beside_the_late_days_stops_no_export() -> None:
    function = Function(store(made(1)))
    function.bucket |= {"late/": b"", "late/notes.txt": b"", late("2025-11-20"): b""}

    assert [day["day"] for day in function({})["days"]] == ["2025-11-30", "2025-11-20"]
    assert sorted(function.bucket.keys("late/")) == ["late/", "late/notes.txt"]


def test_many_words_of_one_day_do_not_keep_those_of_another_from_being_answered() -> None:
    function = Function(store(made(1), made(2, date(2025, 11, 21))))
    function.bucket |= {late("2025-11-20", f"batch-{number}"): b"" for number in range(1_200)}
    function.bucket |= {late("2025-11-21"): b""}

    days = function({})["days"]

    assert [day["day"] for day in days] == ["2025-11-30", "2025-11-20", "2025-11-21"]
    assert late("2025-11-21") not in function.bucket
    assert 0 < len(list(function.bucket.keys("late/"))) < 1_200


def test_a_day_that_was_not_written_is_written_by_the_next_night() -> None:
    class Failing(Rows):
        fails = True

        def tally(self, day: date) -> dict[int, int]:
            if self.fails:
                raise OSError("no")
            return super().tally(day)

    rows = Failing(COLUMNS, [made(1, date(2025, 11, 30))])
    function = Function(rows)
    with pytest.raises(DaysFailedError):
        function({})

    rows.fails = False
    function.now += timedelta(days=1)
    days = function({})["days"]

    assert [(day["day"], day["rows"]) for day in days] == [("2025-12-01", 0), ("2025-11-30", 1)]
    assert list(function.bucket.keys("late/")) == []


@pytest.mark.parametrize(("kept", "written"), [(10, False), (11, True), (None, True)])
def test_a_day_that_the_store_has_forgotten_before_it_was_written_is_no_day_without_rows(
    kept: int | None, written: bool
) -> None:
    rows = store()
    rows.keeps_for = None if kept is None else timedelta(days=kept)
    function = Function(rows)

    if written:
        assert function({"day": "2025-11-20"})["days"][0]["rows"] == 0
    else:
        with pytest.raises(
            DaysFailedError, match="RowsGoneError: the store has no rows of it, and keeps them"
        ):
            function({"day": "2025-11-20"})
        assert lake.read_manifest(function.bucket, DAY, Format.CSV_GZ) is None


@pytest.mark.parametrize(
    "exported",
    [[made(1), made(2), made(3)], [made(1)], []],
    ids=["fewer rows", "more rows", "never exported"],
)
def test_late_rows_of_a_day_that_the_store_no_longer_has_whole_are_refused_by_name(
    exported: list[Values],
) -> None:
    function = Function(store(*exported))
    if exported:
        function({"day": "2025-11-20"})
    before = dict(function.bucket)
    # All but what came late is gone: Timestream forgets the oldest rows first.
    late_rows = [made(50), made(51)] if exported else []
    function = Function(store(*late_rows), function.bucket)
    function.bucket[late("2025-11-20")] = b""

    with pytest.raises(
        DaysFailedError, match=r"2025-11-20: RowsGoneError: rows came late, as 1 objects under"
    ):
        function({"day": "2025-11-20"})

    assert function.bucket == before | {late("2025-11-20"): b""}


def test_a_day_that_fails_keeps_its_late_rows_and_does_not_keep_the_others_from_being_written() -> None:
    class Failing(Bucket):
        def put(self, key: str, chunks: Iterable[bytes], content_type: str) -> None:
            if "day=20/part" in key:
                raise OSError("no")
            super().put(key, chunks, content_type)

    bucket = Failing({late("2025-11-20"): b"", late("2025-11-21"): b""})
    function = Function(store(made(1), made(2, date(2025, 11, 21))), bucket)

    with pytest.raises(DaysFailedError, match=r"2025-11-20: OSError: no"):
        function({})

    assert list(bucket.keys("late/")) == [late("2025-11-20")]
    assert [str(export.manifest.day) for export in function.reported] == ["2025-11-30", "2025-11-21"]


def test_replaced_files_of_other_days_are_removed_by_the_daily_run() -> None:
    function = Function(store(made(1)))
    function({"day": "2025-11-20"})
    function = Function(store(made(1), made(2)), function.bucket)
    function({"day": "2025-11-20"})
    assert FOLDER + "part-00000.csv.gz" in function.bucket

    function.now = NOW + timedelta(days=1)
    function({})

    assert FOLDER + "part-00000.csv.gz" not in function.bucket
    assert len(read(function.bucket)) == 2


@pytest.mark.parametrize("wait", [False, True], ids=["by itself", "by the caller"])
def test_a_range_that_takes_longer_than_an_invocation_is_continued_with_the_same_result(wait: bool) -> None:
    rows = store(*many(), *(made(number, date(2025, 11, 21)) for number in range(3_000)))
    undisturbed = Function(rows)
    undisturbed({"from": "2025-11-20", "to": "2025-11-21"})
    function = Function(rows)

    event: dict[str, Any] = {"from": "2025-11-20", "to": "2025-11-21", "wait": wait}
    told: list[dict[str, Any]] = []
    invocations = 0
    while True:
        invocations += 1
        answer = function(event, Ticking(calls=6))
        told += answer["days"]
        if "continues" not in answer:
            break
        assert [name for name, _ in function.called] == [] if wait else ["function"]
        event = answer["continues"]
        assert wait or function.called.pop()[1] == event

    assert invocations > 2
    assert [(day["day"], day["rows"]) for day in told] == [("2025-11-20", 4_000), ("2025-11-21", 3_000)]
    assert function.bucket.lake() == undisturbed.bucket.lake()


class Ticking(Context):
    """An invocation whose time is over after so many looks at it."""

    def __init__(self, calls: int, request_id: str = "c6af9ac6") -> None:
        super().__init__(aws_request_id=request_id)
        self.calls = calls

    def get_remaining_time_in_millis(self) -> int:
        self.calls -= 1
        return 900_000 if self.calls > 0 else 5_000


def test_a_day_of_which_no_part_fits_into_an_invocation_is_given_up_by_name() -> None:
    function = Function(store(*many()), size=10**9)
    answer = function({"day": "2025-11-20", "wait": True}, Ticking(calls=3))

    with pytest.raises(StuckError, match="2025-11-20: not one part was written in a whole invocation"):
        function(answer["continues"], Ticking(calls=3))


def test_a_chain_of_invocations_has_an_end() -> None:
    run = Run("c6af9ac6", (DAY,), continuations=12, waited_for=True)

    with pytest.raises(StuckError, match="not done after 12 continuations; what is written is kept"):
        Function(store(*many()))(run.to_event(), Ticking(calls=4))


def test_a_run_survives_its_event() -> None:
    run = Run("id", (DAY, date(2025, 11, 21)), {"2025-11-20": ["late/x"]}, True, 3, False)

    assert Run.from_event(json.loads(json.dumps(run.to_event()))) == run


# --- locks ------------------------------------------------------------------------------------------------


def test_two_runs_of_one_day_do_not_meet() -> None:
    inner: list[dict[str, Any]] = []

    class Meeting(Rows):
        def tally(self, day: date) -> dict[int, int]:
            if not inner:
                inner.append({})
                inner[0] = other({"day": "2025-11-20"}, Context(900_000, "another"))
            return super().tally(day)

    rows = Meeting(COLUMNS, [made(1)])
    function = Function(rows)
    other = Function(rows, function.bucket)
    function.bucket[late("2025-11-20")] = b""

    answer = function({"day": "2025-11-20"})

    assert inner == [{"days": [{"day": "2025-11-20", "format": "csv.gz", "locked": True}]}]
    assert answer["days"][0]["rows"] == 1
    assert not any("locks/" in key for key in function.bucket)


@pytest.mark.parametrize(
    ("run", "seconds", "taken"),
    [("other", 0, False), ("other", 899, False), ("other", 900, True), ("first", 0, True)],
)
def test_a_lock_is_its_runs_until_the_run_can_no_longer_live(run: str, seconds: int, taken: bool) -> None:
    bucket = Bucket()
    assert lake.lock(bucket, DAY, Format.CSV_GZ, "first", NOW, NOW + timedelta(seconds=900))

    now = NOW + timedelta(seconds=seconds)
    assert lake.lock(bucket, DAY, Format.CSV_GZ, run, now, now + timedelta(seconds=900)) is taken


def test_of_two_that_take_a_lock_at_the_same_time_one_gets_it() -> None:
    class Racing(Bucket):
        def read(self, key: str) -> tuple[bytes, str] | None:
            found = super().read(key)
            if not self.raced:
                self.raced = True
                assert lake.lock(self, DAY, Format.CSV_GZ, "quicker", NOW, NOW + timedelta(seconds=9))
            return found

        raced = False

    assert not lake.lock(Racing(), DAY, Format.CSV_GZ, "slower", NOW, NOW + timedelta(seconds=9))


def test_only_its_own_run_gives_a_lock_back() -> None:
    bucket = Bucket()
    lake.lock(bucket, DAY, Format.CSV_GZ, "first", NOW, NOW + timedelta(seconds=9))

    lake.unlock(bucket, DAY, Format.CSV_GZ, "other")
    assert bucket
    lake.unlock(bucket, DAY, Format.CSV_GZ, "first")
    assert not bucket
