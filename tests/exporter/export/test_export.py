"""A day of the store becomes files in the lake."""

import csv
import gzip
import io
import json
import random
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from exporter.export.day import DayJob, Export, OutOfTimeError, export_day
from exporter.lake.athena import list_key
from exporter.lake.columns import KEY as COLUMNS_KEY
from exporter.lake.days import GRACE, Day, days_to_tidy
from exporter.lake.forgotten import KEY as FORGOTTEN
from exporter.lake.forgotten import Forgotten
from exporter.lake.formats import Format
from exporter.lake.manifest import part_key
from exporter.store import FIRST, Column, Store, Type, Values
from tests.twins import FORGOTTEN_KEY, Bucket, Rows, client_error, read_key

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


def exported(
    day: date, rows: Store, bucket: Bucket, job: DayJob | None = None, *, kind: Format = Format.CSV_GZ
) -> Export:
    """Export a day in a format."""
    return export_day(Day(bucket, day, kind), rows, job or DayJob(read_key=read_key))


def read(bucket: Bucket, day: date = DAY) -> list[dict[str, str]]:
    """Return a day's rows as a reader of the lake sees them: by its manifest."""
    manifest = Day(bucket, day, Format.CSV_GZ).manifest()
    assert manifest is not None
    rows: list[dict[str, str]] = []
    for part in manifest.parts:
        rows += csv.DictReader(io.StringIO(gzip.decompress(bucket[part.key]).decode()))
    return rows


def test_a_day_is_written_as_parts_and_a_manifest() -> None:
    bucket = Bucket()

    export = exported(DAY, store(made(1), made(2, status=None), made(3, date(2025, 11, 21))), bucket)

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

    exported(DAY, rows, bucket)
    first = dict(bucket)
    exported(DAY, rows, bucket)

    assert dict(bucket) == first


SMALL = DayJob(size=30_000, slice_rows=700, read_key=read_key)


def many(count: int = 4_000) -> list[Values]:
    return [made(number) for number in range(count)]


def test_a_large_day_is_asked_for_in_slices_and_written_in_parts() -> None:
    bucket, rows = Bucket(), store(*many())

    export = exported(DAY, rows, bucket, SMALL)

    assert [part.rows for part in export.manifest.parts] == [1_000, 1_000, 1_000, 1_000]
    assert [row["_id"] for row in read(bucket)] == [row[5] for row in sorted(many(), key=str)]
    assert len(rows.asked) == 6
    assert rows.asked[0].start == "2025-11-20 00:00:00.000000000"
    assert rows.asked[-1].end == "2025-11-21 00:00:00.000000000"


@pytest.mark.parametrize("kind", Format)
def test_every_format_has_a_folder_and_a_manifest_of_its_own(kind: Format) -> None:
    bucket = Bucket()

    export = exported(DAY, store(*map(made, range(9))), bucket, kind=kind)

    assert (export.manifest.format, export.manifest.rows) == (kind, 9)
    assert Day(bucket, DAY, kind).manifest() == export.manifest
    assert [part.key for part in export.manifest.parts] == [part_key(DAY, 0, 1, kind)]


def test_athena_is_told_the_names_of_the_committed_files_alone() -> None:
    bucket = Bucket()
    key = "records/tables/csv.gz/date=2025-11-20/symlink.txt"

    exported(DAY, store(made(1)), bucket)
    assert bucket[key].decode() == f"s3://bucket/{FOLDER}part-00000.csv.gz\n"
    exported(DAY, store(made(1), made(2)), bucket)
    assert bucket[key].decode() == f"s3://bucket/{FOLDER}part-00000-r2.csv.gz\n"


@pytest.mark.parametrize("kind", [Format.CSV, Format.CSV_GZ])
def test_athena_is_told_of_no_csv_that_it_would_misread(kind: Format) -> None:
    bucket = Bucket()
    key = list_key(DAY, kind)

    exported(DAY, store(made(1), made(2, client="two\nlines")), bucket, kind=kind)
    assert bucket[key].decode() == (
        f"s3://bucket/records/tables/{kind}/date=2025-11-20/"
        "values-have-line-ends--ask-the-table-records-over-parquet\n"
    )
    exported(DAY, store(made(1), made(2, client="two\nlines")), bucket, kind=Format.PARQUET)
    assert bucket[list_key(DAY, Format.PARQUET)].decode().endswith("part-00000.parquet\n")


@pytest.mark.parametrize("damage", [None, b"", b"another"], ids=["gone", "empty", "changed"])
def test_a_part_that_is_not_as_its_manifest_says_is_written_again(damage: bytes | None) -> None:
    bucket = Bucket()
    rows = store(made(1), made(2))
    exported(DAY, rows, bucket)
    del bucket[FOLDER + "part-00000.csv.gz"]
    if damage is not None:
        bucket[FOLDER + "part-00000.csv.gz"] = damage

    manifest = exported(DAY, rows, bucket).manifest

    assert manifest.revision == 2
    assert len(read(bucket)) == 2


def test_a_part_in_the_archive_is_left_there() -> None:
    # https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html: InvalidObjectState
    class Archived(Bucket):
        def stream(self, key: str) -> Iterator[bytes]:
            raise client_error("InvalidObjectState", 403, message=key)

    bucket = Archived()
    rows = store(made(1), made(2))
    first = exported(DAY, rows, bucket).manifest

    assert exported(DAY, rows, bucket).manifest == first


def test_the_manifest_of_a_day_that_stays_the_same_is_not_written_again() -> None:
    # It would live longer than the files that it names: lifecycle rules go by an object's age.
    class Watched(Bucket):
        def replace(self, key: str, body: bytes, tag: str | None) -> bool:
            written.append(key)
            return super().replace(key, body, tag)

    written: list[str] = []
    bucket = Watched()
    exported(DAY, store(made(1)), bucket)
    exported(DAY, store(made(1)), bucket)

    assert written.count(FOLDER + "_manifest.json") == 1


# --- revisions --------------------------------------------------------------------------------------------


def test_late_rows_make_the_next_revision_beside_the_one_before() -> None:
    bucket = Bucket()

    exported(DAY, store(made(1)), bucket)
    before = bucket[FOLDER + "part-00000.csv.gz"]
    export = exported(DAY, store(made(1), made(2)), bucket)

    assert (export.manifest.revision, export.manifest.rows) == (2, 2)
    # Whoever has read the manifest before can still read what it names.
    assert bucket[FOLDER + "part-00000.csv.gz"] == before
    assert len(read(bucket)) == 2


def test_replaced_parts_are_removed_when_their_time_of_grace_is_over() -> None:
    bucket, rows = Bucket(), store(made(1), made(2))
    exported(DAY, store(made(1)), bucket, DayJob(now=lambda: NOW))
    exported(DAY, rows, bucket, DayJob(now=lambda: NOW))

    exported(DAY, rows, bucket, DayJob(now=lambda: NOW + GRACE - timedelta(seconds=1)))
    assert FOLDER + "part-00000.csv.gz" in bucket
    exported(DAY, rows, bucket, DayJob(now=lambda: NOW + GRACE))
    assert set(bucket.lake()) == {FOLDER + "part-00000-r2.csv.gz", FOLDER + "_manifest.json"}
    assert not days_to_tidy(bucket)


def test_what_was_never_committed_is_removed_at_once() -> None:
    bucket = Bucket({FOLDER + "part-00007.csv.gz": b"old", "records/year=2025/month=11/day=21/x": b"other"})

    exported(DAY, store(made(1)), bucket)

    assert FOLDER + "part-00007.csv.gz" not in bucket
    assert "records/year=2025/month=11/day=21/x" in bucket


def test_a_day_without_rows_has_a_manifest_that_says_so() -> None:
    bucket = Bucket()

    exported(DAY, store(), bucket)

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

    exported(DAY, store(*rows), bucket, kind=kind)

    manifest = Day(bucket, DAY, kind).manifest()
    assert manifest is not None
    names = [column.name for column in manifest.columns]
    read = [
        (row[names.index("_id")], row[names.index("client")])
        for part in manifest.parts
        for batch in kind.read([bucket[part.key]], manifest.columns)
        for row in batch.rows
    ]
    assert read == [(row[5], row[6]) for row in rows]


@pytest.mark.parametrize("left", [[made(2)], [made(2), made(3)]], ids=["fewer rows", "not the first"])
def test_a_day_that_the_store_has_forgotten_stays_in_the_lake(left: list[Values]) -> None:
    bucket = Bucket()
    exported(DAY, store(made(1), made(2)), bucket)
    before = dict(bucket)

    export = exported(DAY, store(*left), bucket)

    assert export.kept
    assert export.manifest.rows == 2
    assert dict(bucket) == before


# --- a change of the schema -------------------------------------------------------------------------------


def test_a_day_across_a_change_of_the_schema_has_the_new_columns_last() -> None:
    bucket = Bucket()
    exported(DAY, store(made(1)), bucket)
    wider: dict[str, Type] = {**COLUMNS, "agent": "text", "bytes_count": "integer"}
    rows = Rows(wider, [(*made(1), None, None), (*made(2), "curl", "7")])

    export = exported(DAY, rows, bucket)

    names = [column.name for column in export.manifest.columns]
    assert names == [*FIRST, "status", "agent", "bytes_count"]
    assert [(row["_id"], row["status"], row["agent"], row["bytes_count"]) for row in read(bucket)] == [
        ("r00001", "200", "", ""),
        ("r00002", "200", "curl", "7"),
    ]


def test_a_column_whose_type_has_changed_with_a_new_table_has_in_each_day_the_type_of_its_values() -> None:
    bucket = Bucket()
    exported(date(2025, 11, 19), store(made(1, date(2025, 11, 19))), bucket, kind=Format.JSONL_GZ)
    rows = Rows(COLUMNS | {"status": "text"}, [made(1, status="fine")])

    for kind in (Format.JSONL_GZ, Format.PARQUET):
        manifest = exported(DAY, rows, bucket, kind=kind).manifest
        (batch,) = kind.read(bucket.stream(manifest.parts[0].key), manifest.columns)
        assert batch.rows[0][-1] == "fine"
        assert manifest.columns[-1] == Column("status", "text")


def test_columns_that_other_days_have_brought_do_not_change_a_day_that_is_written_again() -> None:
    bucket = Bucket()
    exported(DAY, store(made(1)), bucket)
    before = bucket.lake()
    wider: dict[str, Type] = {**COLUMNS, "agent": "text"}
    other = (*made(2, date(2025, 11, 21)), "curl")
    rows = Rows(wider, [(*made(1), None), other])

    exported(date(2025, 11, 21), rows, bucket)
    export = exported(DAY, rows, bucket)

    assert export.manifest.revision == 1
    assert {key: body for key, body in bucket.lake().items() if "day=20" in key} == before


def test_a_column_that_the_store_no_longer_has_keeps_its_place() -> None:
    bucket = Bucket()
    wider: dict[str, Type] = {**COLUMNS, "agent": "text"}
    exported(DAY, Rows(wider, [(*made(1), "curl")]), bucket)

    export = exported(date(2025, 11, 21), store(made(2, date(2025, 11, 21))), bucket)

    assert [column.name for column in export.manifest.columns] == [*FIRST, "agent", "status"]
    assert [row["agent"] for row in read(bucket, date(2025, 11, 21))] == [""]


# --- clients to be forgotten ------------------------------------------------------------------------------


def test_a_client_that_is_to_be_forgotten_does_not_come_back_from_the_store() -> None:
    forgotten = Forgotten(FORGOTTEN_KEY).having("c1", NOW)
    bucket = Bucket({FORGOTTEN: forgotten.to_json()})
    rows = store(made(1, client="c1"), made(2, client="c2"), made(3))

    export = exported(DAY, rows, bucket)

    assert [row["client"] for row in read(bucket)] == ["c2", ""]
    assert export.manifest.forgotten == 1
    before = dict(bucket)
    assert not exported(DAY, rows, bucket).kept
    assert dict(bucket) == before
    assert b"c1" not in forgotten.to_json()


def test_a_client_that_is_forgotten_while_a_day_is_written_is_not_in_it() -> None:
    bucket, rows = Bucket(), store(*(made(number, client=f"c{number % 2}") for number in range(4_000)))
    with pytest.raises(OutOfTimeError):
        exported(DAY, rows, bucket, replace(SMALL, seconds_left=iter([900.0, 900.0, 1.0]).__next__))

    bucket[FORGOTTEN] = Forgotten(FORGOTTEN_KEY).having("c1", NOW).to_json()
    exported(DAY, rows, bucket, SMALL)

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
    bucket = Bucket({FORGOTTEN: Forgotten(FORGOTTEN_KEY).having("c1", NOW).to_json()})
    bucket |= {f"overflow/2025-11-20/{number}.json": b"" for number in (1, 2)}

    exported(DAY, rows, bucket)

    assert [row["_id"] for row in read(bucket)] == ["r00002", "r00003", "r00005"]
    assert list(bucket.keys("overflow/")) == ["overflow/2025-11-20/2.json"]
    assert COLUMNS_KEY in bucket


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

    def remove(self, key: str, tag: str) -> bool:
        self._count()
        return super().remove(key, tag)

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
        exported(DAY, store(*many(1_500)), begun, replace(SMALL, now=lambda: NOW))
        kept = dict(begun)
    rows = store(*many())
    job = replace(SMALL, now=lambda: NOW)
    undisturbed = Bucket(kept)
    exported(DAY, rows, undisturbed, job)

    deaths = 0
    while True:
        bucket = Dying(kept, chance.randrange(1, 40 if deaths else 16))
        try:
            exported(DAY, rows, bucket, job)
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
            manifest = Day(self, DAY, Format.CSV_GZ).manifest()
            for part in manifest.parts if manifest else ():
                assert len(self[part.key]) == part.bytes

    bucket = Watched()
    for count in (1_500, 4_000, 4_000, 4_001):
        exported(DAY, store(*many(count)), bucket, SMALL)


def test_an_invocation_that_runs_out_of_time_is_continued_behind_its_last_part() -> None:
    bucket, rows = Bucket(), store(*many())
    undisturbed = Bucket()
    exported(DAY, rows, undisturbed, SMALL)

    with pytest.raises(OutOfTimeError):
        exported(DAY, rows, bucket, replace(SMALL, seconds_left=iter([900.0, 900.0, 1.0]).__next__))
    progress, _ = Day(bucket, DAY, Format.CSV_GZ).progress()
    assert progress is not None
    assert len(progress.parts) == 3
    assert Day(bucket, DAY, Format.CSV_GZ).manifest() is None
    rows.asked.clear()
    exported(DAY, rows, bucket, SMALL)

    assert rows.asked[0].start == progress.time[:16] + ":00.000000000"
    assert bucket.lake() == undisturbed.lake()


def test_reading_unchanged_parts_again_ends_in_time_too() -> None:
    bucket, rows = Bucket(), store(*many())
    exported(DAY, rows, bucket, SMALL)
    committed = Day(bucket, DAY, Format.CSV_GZ).document()
    looks = 0

    def seconds_left() -> float:
        nonlocal looks
        looks += 1
        # After the four batches of rows, the parts are read; one is longer than two pieces of it.
        return 900.0 if looks <= 6 else 1.0

    with pytest.raises(OutOfTimeError) as caught:
        exported(DAY, rows, bucket, replace(SMALL, seconds_left=seconds_left))
    assert caught.value.got_on
    assert looks == 7
    assert Day(bucket, DAY, Format.CSV_GZ).document() == committed

    rows.asked.clear()
    assert exported(DAY, rows, bucket, SMALL).manifest.revision == 1
    assert len(rows.asked) == 1
    assert Day(bucket, DAY, Format.CSV_GZ).document() == committed


@pytest.mark.parametrize("order", ["", "late rows"])
def test_what_came_before_the_place_where_a_day_stands_is_not_left_out(order: str) -> None:
    bucket, rows = Bucket(), store(*many())
    with pytest.raises(OutOfTimeError):
        exported(DAY, rows, bucket, replace(SMALL, seconds_left=iter([900.0, 900.0, 1.0]).__next__))
    rows.keep(made(1, hour=9))

    export = exported(DAY, rows, bucket, replace(SMALL, order=order))

    assert export.manifest.rows == 4_001
    assert sum(1 for row in read(bucket)) == 4_001


def test_rows_of_one_time_at_the_end_of_a_part_are_neither_lost_nor_doubled() -> None:
    same = [(*made(7)[:5], f"r{number:05}", None) for number in range(3_500)]
    bucket, rows = Bucket(), store(*same)

    for _ in range(2):
        with pytest.raises(OutOfTimeError):
            exported(DAY, rows, bucket, replace(SMALL, seconds_left=iter([900.0, 1.0]).__next__))
    exported(DAY, rows, bucket, SMALL)

    assert [row["_id"] for row in read(bucket)] == [row[5] for row in same]
