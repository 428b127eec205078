"""The lake held against its manifests, and against the store."""

from datetime import date

import pytest

from exporter import lake
from exporter.archive import Manifest
from exporter.export import Job, export_day
from exporter.part_files import Format
from exporter.query import Values
from exporter.verify import verify_day
from tests.twins import Bucket, Rows

DAY = date(2025, 11, 20)
COLUMNS = {"time": "TIMESTAMP", "_id": "VARCHAR", "note": "VARCHAR"}
KEYS = [f"records/year=2025/month=11/day=20/part-0000{number}.csv.gz" for number in range(3)]


def rows(count: int) -> Rows:
    made: list[Values] = [
        (f"2025-11-20 10:{number // 60 % 60:02}:{number % 60:02}.000000000", f"r{number}", "é,\n")
        for number in range(count)
    ]
    return Rows(COLUMNS, made)


def exported(kind: Format = Format.CSV_GZ, count: int = 2_500) -> Bucket:
    bucket = Bucket()
    export_day(DAY, rows(count), bucket, Job(kind, size=1_000))
    return bucket


@pytest.mark.parametrize("kind", Format)
@pytest.mark.parametrize("count", [0, 1, 2_500])
def test_a_day_as_it_was_written_has_nothing_wrong(kind: Format, count: int) -> None:
    assert list(verify_day(DAY, kind, exported(kind, count), rows(count))) == []


def test_a_day_that_was_never_exported_is_named() -> None:
    assert list(verify_day(DAY, Format.CSV_GZ, Bucket())) == [
        "there is no manifest: the day was never exported"
    ]


def test_a_part_that_is_gone_is_named_and_the_others_are_read() -> None:
    bucket = exported()
    del bucket[KEYS[1]]

    assert list(verify_day(DAY, Format.CSV_GZ, bucket)) == ["part-00001.csv.gz is not there"]


@pytest.mark.parametrize("kind", Format)
def test_a_part_that_was_changed_is_named_by_its_checksum(kind: Format) -> None:
    bucket = exported(kind)
    (key, *_) = [key for key in bucket if "part-00001" in key]
    bucket[key] = bucket[key][:-30] + bytes(30)

    problems = list(verify_day(DAY, kind, bucket))

    assert problems
    assert "with the checksum" in problems[0]
    assert all(problem.startswith("part-00001") for problem in problems)


def test_parts_that_changed_places_are_out_of_order() -> None:
    bucket = exported()
    manifest = lake.read_manifest(bucket, DAY, Format.CSV_GZ)
    assert manifest is not None
    first, second, third = manifest.parts
    changed = Manifest(DAY, 1, manifest.columns, (second, first, third))
    lake.write_manifest(bucket, changed)

    (problem,) = verify_day(DAY, Format.CSV_GZ, bucket)

    assert problem.startswith("part-00000.csv.gz: a row of 2025-11-20 10:00:00.000000000 comes after one of")


@pytest.mark.parametrize("count", [2_499, 2_501])
def test_a_store_that_has_other_rows_is_named_with_both_counts(count: int) -> None:
    (problem,) = verify_day(DAY, Format.CSV_GZ, exported(), rows(count))

    assert problem.startswith(f"the store has {count:,} rows, the lake 2,500")
