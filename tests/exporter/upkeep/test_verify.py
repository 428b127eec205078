"""The lake held against its manifests, and against the store."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.export.day import DayJob, export_day
from exporter.lake.athena import list_key
from exporter.lake.days import Day
from exporter.lake.formats import Format
from exporter.lake.manifest import Manifest
from exporter.store import Store, Type, Values
from exporter.upkeep.verify import verify_day
from tests.twins import Bucket, Rows

DAY = date(2025, 11, 20)
COLUMNS: dict[str, Type] = {"time": "timestamp", "_id": "text", "note": "text"}
NOW = datetime(2025, 12, 1, tzinfo=UTC)
FOLDER = "records/year=2025/month=11/day=20/"
KEYS = [f"{FOLDER}part-0000{number}.csv.gz" for number in range(3)]


def verified(day: Day, store: Store | None = None) -> Iterator[str]:
    return verify_day(day, NOW, store)


def rows(count: int) -> Rows:
    made: list[Values] = [
        (f"2025-11-20 10:{number // 60 % 60:02}:{number % 60:02}.000000000", f"r{number}", "é,\n")
        for number in range(count)
    ]
    return Rows(COLUMNS, made)


def exported(kind: Format = Format.CSV_GZ, count: int = 2_500) -> Bucket:
    bucket = Bucket()
    export_day(Day(bucket, DAY, kind), rows(count), DayJob(size=1_000))
    return bucket


@cache
def small(kind: Format) -> Bucket:
    return exported(kind, 40)


@pytest.mark.parametrize("kind", Format)
@pytest.mark.parametrize("count", [0, 1, 2_500])
def test_a_day_as_it_was_written_has_nothing_wrong(kind: Format, count: int) -> None:
    assert list(verified(Day(exported(kind, count), DAY, kind), rows(count))) == []


def test_a_day_that_was_never_exported_is_named() -> None:
    assert list(verified(Day(Bucket(), DAY, Format.CSV_GZ))) == [
        "there is no manifest: the day was never exported"
    ]


def test_a_part_that_is_gone_is_named_and_the_others_are_read() -> None:
    bucket = exported()
    del bucket[KEYS[1]]

    assert list(verified(Day(bucket, DAY, Format.CSV_GZ))) == ["part-00001.csv.gz is not there"]


@pytest.mark.parametrize("kind", Format)
def test_a_part_that_was_changed_is_named_by_its_checksum(kind: Format) -> None:
    bucket = exported(kind)
    (key, *_) = [key for key in bucket if "part-00001" in key]
    bucket[key] = bucket[key][:-30] + bytes(30)

    problems = list(verified(Day(bucket, DAY, kind)))

    assert problems
    assert "with the checksum" in problems[0]
    assert all(problem.startswith("part-00001") for problem in problems)


def changed(bucket: Bucket, old: str, new: str) -> None:
    key = FOLDER + "_manifest.json"
    text = bucket[key].decode()
    assert old in text
    bucket[key] = text.replace(old, new).encode()


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (
            lambda bucket: bucket.update({FOLDER + "part-00003.csv.gz": b""}),
            "part-00003.csv.gz is there, but",
        ),
        (
            lambda bucket: bucket.update({FOLDER + "_manifest.json": b"{"}),
            "the manifest cannot be read: JSON",
        ),
        (
            lambda bucket: bucket.update({FOLDER + "_manifest.json": b"[]"}),
            "the manifest cannot be read: ValueError: the manifest is not a JSON object",
        ),
        (
            lambda bucket: bucket.update({FOLDER + "_manifest.json": b"{}"}),
            "the manifest cannot be read: Key",
        ),
        (
            lambda bucket: changed(bucket, '"2025-11-20",', '"2025-11-21",'),
            "the manifest is of 2025-11-21 in csv",
        ),
        (lambda bucket: changed(bucket, '"csv.gz"', '"csv"'), "the manifest is of 2025-11-20 in csv"),
        (
            lambda bucket: changed(bucket, '"rows": 2500', '"rows": 2501'),
            "the manifest has 2501 rows, its parts 2500",
        ),
        (
            lambda bucket: changed(bucket, '"rows": 500', '"rows": 499'),
            "part-00002.csv.gz: 500 rows, not 499",
        ),
        (lambda bucket: bucket.pop(list_key(DAY, Format.CSV_GZ)), "Athena's list of files differs"),
    ],
    ids=[
        "a part more",
        "cut off",
        "a list",
        "empty",
        "another day",
        "another format",
        "sum",
        "count",
        "Athena",
    ],
)
def test_damage_beside_the_parts_is_named(damage: Callable[[Bucket], object], problem: str) -> None:
    bucket = exported()
    damage(bucket)

    assert any(found.startswith(problem) for found in verified(Day(bucket, DAY, Format.CSV_GZ), rows(2_500)))


def test_files_that_are_there_for_a_while_are_no_damage() -> None:
    bucket = exported()
    export_day(Day(bucket, DAY, Format.CSV_GZ), rows(2_501), DayJob(size=1_000))
    assert KEYS[0] in bucket
    assert list(verified(Day(bucket, DAY, Format.CSV_GZ))) == []

    # A run is at work, and has not said yet what it has written.
    bucket[FOLDER + "part-00000-r3.csv.gz"] = b""
    Day(bucket, DAY, Format.CSV_GZ).take("a run", NOW)
    assert list(verified(Day(bucket, DAY, Format.CSV_GZ))) == []


def test_rows_of_another_day_are_named() -> None:
    bucket = exported()
    folder = "records/year=2025/month=11/day=21/"
    for key in [*bucket.keys(FOLDER)]:
        bucket[key.replace(FOLDER, folder)] = bucket[key].replace(FOLDER.encode(), folder.encode())
    bucket[folder + "_manifest.json"] = bucket[folder + "_manifest.json"].replace(
        b'"2025-11-20"', b'"2025-11-21"'
    )

    problems = list(verified(Day(bucket, date(2025, 11, 21), Format.CSV_GZ)))

    assert "part-00000.csv.gz: a row of 2025-11-20 10:00:00.000000000 is of another day" in problems


@pytest.mark.parametrize("kind", Format)
@given(
    place=st.integers(min_value=0), damage=st.sampled_from(["flip", "cut", "insert"]), bit=st.integers(0, 7)
)
def test_a_part_of_which_one_bit_or_the_end_is_another_is_named(
    kind: Format, place: int, damage: str, bit: int
) -> None:
    bucket = Bucket(small(kind))
    (key, *_) = [key for key in bucket if "part-00000" in key]
    body = bytearray(bucket[key])
    place %= len(body)
    if damage == "flip":
        body[place] ^= 1 << bit
    elif damage == "cut":
        del body[place:]
    else:
        body.insert(place, bit)
    bucket[key] = bytes(body)

    problems = list(verified(Day(bucket, DAY, kind)))

    assert "with the checksum" in problems[0]
    assert all(problem.startswith("part-00000") for problem in problems)


def test_a_parquet_file_that_says_nonsense_of_itself_is_named() -> None:
    # Near its end stands what its columns are; pyarrow refuses some of what it could say as not implemented.
    bucket = Bucket(small(Format.PARQUET))
    (key,) = [key for key in bucket if key.endswith(".parquet")]
    whole = bucket[key]
    for place in range(-230, -160):
        for bit in range(8):
            body = bytearray(whole)
            body[place] ^= 1 << bit
            bucket[key] = bytes(body)
            assert "with the checksum" in next(verified(Day(bucket, DAY, Format.PARQUET)))


def test_parts_that_changed_places_are_out_of_order() -> None:
    bucket = exported()
    manifest, tag = Day(bucket, DAY, Format.CSV_GZ).committed()
    assert manifest is not None
    first, second, third = manifest.parts
    changed = Manifest(DAY, 1, manifest.columns, (second, first, third))
    Day(bucket, DAY, Format.CSV_GZ).commit(changed, tag, NOW)

    (problem,) = verified(Day(bucket, DAY, Format.CSV_GZ))

    assert problem.startswith("part-00000.csv.gz: a row of 2025-11-20 10:00:00.000000000 comes after one of")


@pytest.mark.parametrize("count", [2_499, 2_501])
def test_a_store_that_has_other_rows_is_named_with_both_counts(count: int) -> None:
    (problem,) = verified(Day(exported(), DAY, Format.CSV_GZ), rows(count))

    assert problem.startswith(f"the store has {count:,} rows, the lake 2,500")


def test_rows_by_type_are_counted_again() -> None:
    typed: list[Values] = [
        (f"2025-11-20 10:{number:02}:00.000000000", "job" if number % 3 else "api_request", None)
        for number in range(30)
    ]
    store = Rows({"time": "timestamp", "_type": "text", "_id": "text"}, typed)
    day = Day(Bucket(), DAY, Format.CSV_GZ)

    manifest = export_day(day, store).manifest

    assert manifest.types == {"api_request": 10, "job": 20}
    assert list(verified(day, store)) == []
    (part,) = manifest.parts
    day.commit(
        replace(manifest, parts=(replace(part, types={"api_request": 20, "job": 10}),)),
        day.committed()[1],
        NOW,
    )
    (problem,) = verified(day)
    assert problem == (
        "part-00000.csv.gz: rows by type are {'api_request': 10, 'job': 20}, "
        "not {'api_request': 20, 'job': 10}"
    )


@pytest.mark.parametrize("count", [0, 40])
def test_a_manifest_from_before_types_were_counted_is_not_damaged(count: int) -> None:
    bucket = exported(count=count)
    document = json.loads(bucket[FOLDER + "_manifest.json"])
    for each in (document, *document["parts"]):
        del each["types"]
    bucket[FOLDER + "_manifest.json"] = json.dumps(document).encode()

    assert list(verified(Day(bucket, DAY, Format.CSV_GZ))) == []
    # Exporting the day again leaves it: nothing in its files has changed.
    assert export_day(Day(bucket, DAY, Format.CSV_GZ), rows(count)).manifest.types == (
        {} if count == 0 else None
    )
