"""A client's rows leave the lake."""

import csv
import gzip
import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta

import pytest

from exporter.export.day import DayJob, OutOfTimeError, export_day
from exporter.lake.days import Day
from exporter.lake.forgotten import Forgotten
from exporter.lake.formats import Format
from exporter.lake.manifest import Manifest
from exporter.store import Type, Values
from exporter.upkeep import forget
from exporter.upkeep.forget import Found
from exporter.upkeep.verify import verify_day
from tests.twins import Bucket, Rows

DAY = date(2025, 11, 20)
NOW = datetime(2025, 12, 1, tzinfo=UTC)
COLUMNS: dict[str, Type] = {
    "time": "timestamp",
    "_id": "text",
    "client": "text",
    "note": "text",
    "_overflow": "text",
}


def rows(count: int = 2_500) -> Rows:
    made: list[Values] = [
        (
            f"2025-11-20 10:{number // 60 % 60:02}:{number % 60:02}.000000000",
            f"r{number}",
            [None, "acme", "other"][number % 3],
            "é,\n",
            f"overflow/2025-11-20/{number}.json" if number < 6 else None,
        )
        for number in range(count)
    ]
    return Rows(COLUMNS, made)


def exported(kind: Format = Format.CSV_GZ) -> Bucket:
    bucket = Bucket({f"overflow/2025-11-20/{number}.json": b"{}" for number in range(6)})
    export_day(Day(bucket, DAY, kind), rows(), DayJob(size=1_000))
    return bucket


def csv_day(bucket: Bucket) -> Day:
    return Day(bucket, DAY, Format.CSV_GZ)


def clients(bucket: Bucket, kind: Format) -> Counter[str | None]:
    manifest = Day(bucket, DAY, kind).manifest()
    assert manifest is not None
    place = [column.name for column in manifest.columns].index("client")
    return Counter(
        row[place]
        for part in manifest.parts
        for batch in kind.read(bucket.stream(part.key), manifest.columns)
        for row in batch.rows
    )


def erased(bucket: Bucket, client: str = "acme", kind: Format = Format.CSV_GZ) -> tuple[Found, Manifest]:
    found = forget.find(client, Day(bucket, DAY, kind), lambda: NOW)
    assert found is not None
    forget.remember_to_forget(client, bucket, NOW)
    return found, forget.forget(client, found, Day(bucket, DAY, kind), lambda: NOW)


def test_what_there_is_of_a_client_is_found_without_a_change() -> None:
    bucket = exported()
    before = dict(bucket)

    assert forget.find("acme", csv_day(bucket), lambda: NOW) == Found(
        DAY, Format.CSV_GZ, 1, 833, ("overflow/2025-11-20/1.json", "overflow/2025-11-20/4.json")
    )
    assert forget.find("nobody", csv_day(bucket), lambda: NOW) is None
    assert forget.find("acme", Day(bucket, date(2025, 11, 21), Format.CSV_GZ), lambda: NOW) is None
    assert dict(bucket) == before


@pytest.mark.parametrize("kind", Format)
def test_a_clients_rows_are_gone_and_all_others_are_as_they_were(kind: Format) -> None:
    bucket = exported(kind)
    before = clients(bucket, kind)

    _, manifest = erased(bucket, kind=kind)

    del before["acme"]
    assert clients(bucket, kind) == before
    assert (manifest.revision, manifest.rows, manifest.forgotten) == (2, 1_667, 833)
    assert list(verify_day(Day(bucket, DAY, kind), NOW, rows())) == []


def test_nothing_in_the_bucket_says_who_it_was() -> None:
    bucket = exported()

    found, _ = erased(bucket)
    forgotten = csv_day(bucket).forgotten()
    assert forgotten is not None
    key = forget.write_audit(forgotten.hash_of("acme"), found, bucket, NOW)

    for name, body in bucket.items():
        assert b"acme" not in (gzip.decompress(body) if name.endswith(".gz") else body), name
        assert "acme" not in name
    assert sorted(bucket.keys("overflow/")) == [
        f"overflow/2025-11-20/{number}.json" for number in (0, 2, 3, 5)
    ]
    assert json.loads(bucket[key]) == {
        "format_version": 1,
        "time": "2025-12-01T00:00:00+00:00",
        "client_hash": forgotten.hash_of("acme"),
        "rows": 833,
        "overflow_objects": 2,
        "days": [
            {"day": "2025-11-20", "format": "csv.gz", "rows": 833, "overflow_objects": 2, "revision": 2}
        ],
    }


def test_an_export_does_not_bring_back_who_was_forgotten() -> None:
    bucket = exported()
    _, manifest = erased(bucket)

    again = export_day(csv_day(bucket), rows(), DayJob(size=1_000)).manifest
    more = export_day(csv_day(bucket), rows(2_502), DayJob(size=1_000)).manifest

    # Parts are cut elsewhere than when rows were taken out of them, so the day may have another revision.
    assert (again.rows, again.forgotten) == (manifest.rows, manifest.forgotten)
    assert (more.rows, more.forgotten) == (1_668, 834)
    assert clients(bucket, Format.CSV_GZ)["acme"] == 0


def test_a_second_client_is_forgotten_beside_the_first() -> None:
    bucket = exported()

    erased(bucket)
    _, manifest = erased(bucket, "other")

    assert clients(bucket, Format.CSV_GZ) == {"": 834} or clients(bucket, Format.CSV_GZ) == {None: 834}
    assert manifest.forgotten == 1_666
    assert list(verify_day(csv_day(bucket), NOW, rows())) == []


def test_a_row_that_names_another_key_removes_nothing_but_whole_records() -> None:
    store = rows(2)
    store.kept[1] = (*store.kept[1][:4], "lake/columns.json")
    bucket = Bucket()
    export_day(csv_day(bucket), store)

    found, _ = erased(bucket)

    assert found.overflow == ()
    assert "lake/columns.json" in bucket


def test_what_others_read_of_the_day_is_right_after_each_step() -> None:
    class Watched(Bucket):
        def delete(self, keys: object) -> None:
            super().delete(keys)  # type: ignore[arg-type]  # as it was given
            manifest = csv_day(self).manifest()
            assert manifest is not None
            for part in manifest.parts:
                text = gzip.decompress(self[part.key]).decode()
                assert len(list(csv.reader(io.StringIO(text, newline="")))) == part.rows + 1

    erased(Watched(exported()))


class Killed(BaseException):
    """The process ends here."""


class Dying(Bucket):
    """A bucket whose user is killed after some operations that change it."""

    def __init__(self, kept: Mapping[str, bytes], left: int) -> None:
        super().__init__(kept)
        self.left = left

    def put(self, key: str, chunks: Iterable[bytes], content_type: str) -> None:
        self._count()
        super().put(key, chunks, content_type)

    def delete(self, keys: Iterable[str]) -> None:
        for key in list(keys):
            self._count()
            super().delete([key])

    def replace(self, key: str, body: bytes, tag: str | None) -> bool:
        self._count()
        return super().replace(key, body, tag)

    def _count(self) -> None:
        if not self.left:
            raise Killed
        self.left -= 1


@pytest.mark.parametrize("operations", range(9))
def test_killed_at_any_point_and_done_again_nothing_of_the_client_is_left(operations: int) -> None:
    bucket = exported()
    forget.remember_to_forget("acme", bucket, NOW)
    bucket = Dying(bucket, operations)
    found = forget.find("acme", csv_day(bucket), lambda: NOW)
    assert found is not None
    with pytest.raises(Killed):
        forget.forget("acme", found, csv_day(bucket), lambda: NOW)

    bucket = Bucket(bucket)
    again = forget.find("acme", csv_day(bucket), lambda: NOW)
    if again is None:
        csv_day(bucket).clear(NOW)
    else:
        forget.forget("acme", again, csv_day(bucket), lambda: NOW)

    left = [gzip.decompress(body) for key, body in bucket.items() if key.endswith(".gz")]
    assert not any(b"acme" in text for text in left)
    assert len(list(bucket.keys("overflow/"))) == 4
    assert list(verify_day(csv_day(bucket), NOW, rows())) == []


def test_files_of_a_client_that_no_manifest_names_are_removed() -> None:
    # A day's first export that has run out of time, and nobody has gone on with it.
    bucket = Bucket()
    with pytest.raises(OutOfTimeError):
        export_day(csv_day(bucket), rows(), DayJob(size=1_000, seconds_left=iter([900.0, 1.0]).__next__))
    assert any("part-" in key for key in bucket)

    assert forget.find("acme", csv_day(bucket), lambda: NOW) is None
    csv_day(bucket).clear(NOW)

    assert not any("day=20" in key for key in bucket)


def test_rows_that_name_the_client_beside_the_column_are_theirs() -> None:
    # A schema that bounds a dimension's values: docs/reference/schema.md
    store = Rows(
        COLUMNS | {"_said": "text"},
        [
            ("2025-11-20 10:00:00.000000000", "r0", "other", None, None, '{"client":"acme"}'),
            ("2025-11-20 10:00:01.000000000", "r1", "other", None, None, '{"client":"acme-2"}'),
            ("2025-11-20 10:00:02.000000000", "r2", "acme", None, None, None),
        ],
    )
    bucket = Bucket()
    export_day(csv_day(bucket), store)

    found, manifest = erased(bucket)

    assert (found.rows, manifest.rows) == (2, 1)
    assert list(verify_day(csv_day(bucket), NOW, store)) == []


def test_two_who_are_forgotten_at_the_same_time_are_both_kept() -> None:
    class Racing(Bucket):
        def replace(self, key: str, body: bytes, tag: str | None) -> bool:
            if not self.raced:
                self.raced = True
                forget.remember_to_forget("theirs", self, NOW)
            return super().replace(key, body, tag)

        raced = False

    bucket = Racing()
    forget.remember_to_forget("ours", bucket, NOW)

    forgotten = csv_day(bucket).forgotten()
    assert forgotten is not None
    assert [bool(forgotten.until(client)) for client in ("ours", "theirs", "others")] == [True, True, False]


def test_rows_that_come_after_the_erasure_are_kept() -> None:
    erased_at = datetime(2025, 11, 20, 10, 0, 30, 250_000, tzinfo=UTC)
    times = ("10:00:30.249999999", "10:00:30.250000000", "10:00:30.250001000", "10:00:31.000000000")
    bounded = Rows(
        COLUMNS | {"_said": "text"},
        [
            *((f"2025-11-20 {time}", "r", "acme", None, None, None) for time in times),
            ("2025-11-20 10:00:40.000000000", "r", "other", None, None, '{"client":"acme"}'),
        ],
    )
    bucket = Bucket()
    forget.remember_to_forget("acme", bucket, erased_at)

    manifest = export_day(csv_day(bucket), bounded).manifest

    assert (manifest.rows, manifest.forgotten) == (3, 2)
    assert list(verify_day(csv_day(bucket), NOW, bounded)) == []
    # Who is erased again is erased up to then; an older time takes nothing back.
    forget.remember_to_forget("acme", bucket, NOW)
    forget.remember_to_forget("acme", bucket, erased_at)
    assert export_day(csv_day(bucket), bounded).manifest.rows == 0


def test_an_erasure_that_is_undone_brings_back_what_the_store_has() -> None:
    bucket = exported()
    erased(bucket)
    (listed,) = forget.listed(bucket)

    assert forget.undo("nobody", bucket, NOW) is None
    key = forget.undo("acme", bucket, NOW)

    assert key is not None
    assert json.loads(bucket[key]) == {
        "format_version": 1,
        "time": "2025-12-01T00:00:00+00:00",
        "client_hash": listed["client_hash"],
        "undone": True,
    }
    assert forget.listed(bucket) == []
    assert forget.undo("acme", bucket, NOW) is None
    again = export_day(csv_day(bucket), rows(), DayJob(size=1_000)).manifest
    assert (again.rows, again.forgotten) == (2_500, 0)
    assert clients(bucket, Format.CSV_GZ)["acme"] == 833


def test_a_client_is_dropped_when_the_store_can_have_no_row_of_theirs() -> None:
    bucket = Bucket()
    forget.drop_expired(bucket, timedelta(days=7), NOW)
    assert bucket == {}
    forget.remember_to_forget("early", bucket, NOW)
    forget.remember_to_forget("late", bucket, NOW + timedelta(days=1))

    forget.drop_expired(bucket, None, NOW + timedelta(days=900))
    forget.drop_expired(bucket, timedelta(days=7), NOW + timedelta(days=7))
    assert len(forget.listed(bucket)) == 2
    forget.drop_expired(bucket, timedelta(days=7), NOW + timedelta(days=7, seconds=1))

    assert [each["erased"] for each in forget.listed(bucket)] == ["2025-12-02T00:00:00+00:00"]


def test_clients_of_an_earlier_release_are_forgotten_for_rows_of_any_time_until_they_expire() -> None:
    client_hash = Forgotten("ab" * 32).hash_of("acme")
    document = {"format_version": 1, "key": "ab" * 32, "clients": [client_hash]}
    bucket = Bucket({"lake/forgotten.json": json.dumps(document).encode()})

    assert forget.listed(bucket) == [{"client_hash": client_hash, "erased": None}]
    assert export_day(csv_day(bucket), rows(), DayJob(size=1_000)).manifest.forgotten == 833
    forget.drop_expired(bucket, timedelta(days=7), NOW)
    assert forget.listed(bucket) == [{"client_hash": client_hash, "erased": NOW.isoformat()}]
    forget.drop_expired(bucket, timedelta(days=7), NOW + timedelta(days=8))
    assert forget.listed(bucket) == []
