"""The lake store's answers: each row once, whatever fragments and exported days it is in."""

import random
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.rows import late_days
from exporter.export.day import export_day
from exporter.lake.days import Day
from exporter.lake.forgotten import KEY as FORGOTTEN
from exporter.lake.forgotten import Forgotten
from exporter.lake.formats import Format
from exporter.store import Column, StoreError, whole
from exporter.stores.lake.questions import FRAGMENT_DAYS, LakeStore
from exporter.stores.lake.texts import number_text, texts
from tests.fragments import write_fragments
from tests.twins import FORGOTTEN_KEY, Bucket, read_key

DAY = date(2025, 11, 20)
NOW = datetime(2025, 11, 22, 0, 15, tzinfo=UTC)
COLUMNS = (Column("time", "timestamp"), Column("_id", "text"), Column("n", "number"), Column("note", "text"))


def record(number: int, *, day: date = DAY, **more: Any) -> dict[str, Any]:
    time = f"{day} {number // 60 % 24:02}:{number % 60:02}:00.000{number % 1_000_000:06}"
    return {
        "time": time,
        "_type": "api_request",
        "_id": f"id-{number:05}",
        "source": "/g",
        "route": "/pets",
        "client": f"client-{number % 3}",
        "n": float(number),
        **more,
    }


def store_of(bucket: Bucket, **more: Any) -> LakeStore:
    return LakeStore(bucket, read_key=read_key, **more)


def ids(store: LakeStore, day: date = DAY) -> list[str | None]:
    """Return the identities of a day's rows, from a store that has not been asked before."""
    return [row[1] for row in store.rows(whole(day), COLUMNS[:2]).rows]


def numbers(bucket: Bucket) -> list[tuple[str | None, ...]]:
    return [tuple(row[1:3]) for row in store_of(bucket).rows(whole(DAY), COLUMNS[:3]).rows]


def forget(bucket: Bucket, client: str) -> None:
    bucket[FORGOTTEN] = Forgotten(FORGOTTEN_KEY).having(client, NOW).to_json()


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_a_row_counts_once_in_whatever_batches_it_came_and_whenever_days_were_exported(
    data: st.DataObject,
) -> None:
    bucket = Bucket()
    rows = [record(number * 7) for number in range(data.draw(st.integers(1, 60)))]
    seen: set[str] = set()
    for _ in range(data.draw(st.integers(1, 4))):
        batch = data.draw(st.lists(st.sampled_from(rows), min_size=1, max_size=40))
        write_fragments(bucket, batch, {"n": "DOUBLE"} if data.draw(st.booleans()) else {})
        seen |= {row["_id"] for row in batch}
        what = data.draw(st.sampled_from(["nothing", "csv.gz", "parquet", "jsonl.gz", "fragments gone"]))
        if what == "fragments gone":
            export_day(Day(bucket, DAY, Format.PARQUET), store_of(bucket))
            bucket.delete(list(bucket.keys("store/")))
        elif what != "nothing":
            export_day(Day(bucket, DAY, Format(what)), store_of(bucket, piece_rows=7))
        store = store_of(bucket, piece_rows=data.draw(st.integers(5, 50)))

        assert ids(store) == sorted(seen)
        assert sum(store.tally(DAY).values()) == store.count() == len(seen)
        assert store.sources(DAY) == {"/g": len(seen)}


def test_two_records_of_one_identity_are_both_there_and_a_higher_version_takes_their_place() -> None:
    bucket = Bucket()
    write_fragments(bucket, [record(1), record(1, n=2.0)])
    write_fragments(bucket, [record(1)])
    assert sorted(numbers(bucket)) == [("id-00001", "1"), ("id-00001", "2")]

    write_fragments(bucket, [record(1, n=3.0)], version=100)
    assert numbers(bucket) == [("id-00001", "3")]

    write_fragments(bucket, [record(1, n=4.0)], version=99)
    assert numbers(bucket) == [("id-00001", "3")]


@pytest.mark.parametrize("kind", [Format.PARQUET, Format.CSV_GZ])
def test_a_record_that_comes_again_in_a_newer_version_takes_the_place_of_the_exported_one(
    kind: Format,
) -> None:
    bucket = Bucket()
    write_fragments(bucket, [record(1), record(2)])
    export_day(Day(bucket, DAY, kind), store_of(bucket))
    bucket.delete(list(bucket.keys("store/")))
    write_fragments(bucket, [record(1, n=7.0)], version=100)

    assert numbers(bucket) == [("id-00001", "7"), ("id-00002", "2")]


def test_a_day_that_is_exported_from_its_own_parts_again_keeps_its_revision() -> None:
    bucket = Bucket()
    odd: dict[str, Any] = {
        "n": 1e10,
        "ratio": 1e-7,
        "empty_count": 3,
        "ok": True,
        "note": 'a "quoted"\nline',
        "_empty": '["x"]',
    }
    write_fragments(bucket, [record(1, **odd), record(2, method="GET"), record(3, x="y", client=None)])
    for kind in Format:
        export_day(Day(bucket, DAY, kind), store_of(bucket))
    bucket.delete(list(bucket.keys("store/")))
    before = {key: body for key, body in bucket.items() if key.startswith("records/")}

    for kind in Format:
        export_day(Day(bucket, DAY, kind), store_of(bucket))

    assert {key: body for key, body in bucket.items() if key.startswith("records/")} == before


@given(
    st.lists(
        st.none()
        | st.floats(1e-4, 1e8).map(lambda number: round(number, 3))
        | st.floats(allow_nan=False, allow_infinity=False).map(lambda number: number + 0.0)
        | st.sampled_from([0.0, 1e-3, 9.999e-4, 9_999_999.0, 1e7, -1e7, 5e-324, 1.7e308])
    )
)
@settings(max_examples=100, deadline=None)
def test_numbers_together_are_printed_as_each_is(numbers: list[float | None]) -> None:
    each = [None if number is None else number_text(number) for number in numbers]

    assert texts(pa.array(numbers, pa.float64())) == each


def test_a_field_that_changes_its_type_keeps_the_first_one_and_other_values_are_in_extra() -> None:
    bucket = Bucket()
    write_fragments(bucket, [record(1, size=5.5), record(2, size="large", _extra='{"a":1}')])
    write_fragments(bucket, [record(3, size=7)])
    store = store_of(bucket)
    columns = {column.name: column for column in store.columns(DAY)}
    asked = (columns["size"], columns["_extra"])

    assert columns["size"].type == "number"
    assert [list(row) for row in store.rows(whole(DAY), asked).rows] == [
        ["5.5", None],
        [None, '{"a":1,"size":"large"}'],
        ["7", None],
    ]


def test_a_column_that_was_declared_later_holds_the_values_from_before() -> None:
    bucket = Bucket()
    write_fragments(bucket, [record(1, size=5.5)])
    write_fragments(bucket, [record(2, size=6.5)], {"size": "DOUBLE"})
    write_fragments(bucket, [record(3, size="large")], {"size": "VARCHAR"})
    store = store_of(bucket)
    columns = {column.name: column for column in store.columns(DAY)}

    assert [list(row) for row in store.rows(whole(DAY), (columns["size"], columns["_extra"])).rows] == [
        ["5.5", None],
        ["6.5", None],
        [None, '{"size":"large"}'],
    ]


def test_rows_of_forgotten_clients_are_in_no_answer_from_one_write_on() -> None:
    bucket = Bucket()
    write_fragments(bucket, [record(number) for number in range(9)])
    export_day(Day(bucket, DAY, Format.PARQUET), store_of(bucket))
    write_fragments(bucket, [record(9), record(10, client="other", _said='{"client":"client-0"}')])

    forget(bucket, "client-0")

    kept = [f"id-{number:05}" for number in range(9) if number % 3]
    assert ids(store_of(bucket)) == kept
    assert sum(store_of(bucket).tally(DAY).values()) == len(kept)


def test_pieces_are_cut_so_that_few_rows_are_in_memory_and_no_row_is_lost_at_their_ends() -> None:
    bucket = Bucket()
    rows = [
        record(1, time=f"{DAY} 10:00:{second:02}.{part:03}000000", _id=f"{second:02}.{part}")
        for second in range(60)
        for part in range(20)
    ]
    random.Random(1).shuffle(rows)
    for start in range(0, len(rows), 100):
        write_fragments(bucket, rows[start : start + 100])

    assert ids(store_of(bucket, piece_rows=50)) == ids(store_of(bucket))
    assert len(ids(store_of(bucket, piece_rows=50))) == 1_200


@pytest.mark.parametrize(
    ("hours", "objects", "since"),
    [
        (24, {}, None),
        (24 * 30, {}, None),
        (24 * 30, {late_days.marker_key(DAY, "nightly", "nightly"): 1}, None),
        (24 * 30, {late_days.marker_key(DAY, "nightly", "nightly"): 24 * 9}, "2025-12-12 00:00:00.000000000"),
        (24 * 30, {f"{late_days.GIVEN_UP}{DAY}": 1}, "2025-12-12 00:00:00.000000000"),
    ],
)
def test_a_day_has_lost_rows_only_if_its_export_was_due_before_its_fragments_were_deleted(
    hours: int, objects: Mapping[str, int], since: str | None
) -> None:
    now = datetime(2025, 11, 20, tzinfo=UTC) + timedelta(hours=hours)
    bucket = Bucket(dict.fromkeys(objects, b""))
    for key, age in objects.items():
        bucket.modified[key] = now - timedelta(hours=age)

    assert store_of(bucket).whole_since(DAY, now) == since


def test_a_day_that_was_exported_is_whole_although_its_fragments_are_gone() -> None:
    bucket = Bucket()
    write_fragments(bucket, [record(1)])
    export_day(Day(bucket, DAY, Format.PARQUET), store_of(bucket))
    bucket.delete(list(bucket.keys("store/")))
    late = late_days.marker_key(DAY, "batch", "delivery")
    bucket[late] = b""

    assert store_of(bucket).whole_since(DAY, NOW + timedelta(days=3 * FRAGMENT_DAYS)) is None
    assert ids(store_of(bucket)) == ["id-00001"]


DAMAGES: list[Callable[[bytes], bytes]] = [
    lambda body: body[:-10],
    lambda _: b"",
    lambda body: b"x" * len(body),
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_fragment_is_named(damage: Callable[[bytes], bytes]) -> None:
    bucket = Bucket()
    (key,) = write_fragments(bucket, [record(1)])
    bucket[key] = damage(bucket[key])

    with pytest.raises(StoreError, match=f"the fragment {key} is damaged"):
        store_of(bucket).tally(DAY)


def test_a_fragment_that_is_removed_while_it_is_read_is_named() -> None:
    bucket = Bucket()
    (key,) = write_fragments(bucket, [record(1)])
    store = store_of(bucket)
    store.columns(DAY)
    del bucket[key]

    with pytest.raises(StoreError, match=f"cannot read {key}"):
        list(store.rows(whole(DAY), COLUMNS[:2]).rows)
