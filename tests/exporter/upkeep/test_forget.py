"""A client's rows leave the lake."""

import csv
import gzip
import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from consumers.settings import SettingsError
from exporter.export.day import DayJob, OutOfTimeError, export_day
from exporter.lake.days import Day
from exporter.lake.forgotten import Forgotten, WrongKeyError
from exporter.lake.forgotten_list import ForgottenList
from exporter.lake.formats import Format
from exporter.lake.manifest import Manifest
from exporter.store import Type, Values
from exporter.upkeep import forget
from exporter.upkeep.forget import Found
from exporter.upkeep.verify import verify_day
from tests.twins import FORGOTTEN_KEY, Bucket, Rows, forget_client, read_key

DAY = date(2025, 11, 20)
NOW = datetime(2025, 12, 1, tzinfo=UTC)
JOB = DayJob(size=1_000, read_key=read_key)
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
    export_day(Day(bucket, DAY, kind), rows(), JOB)
    return bucket


def csv_day(bucket: Bucket) -> Day:
    return Day(bucket, DAY, Format.CSV_GZ)


def clients_of(bucket: Bucket) -> Forgotten:
    forgotten = ForgottenList(bucket, read_key).read()
    assert forgotten is not None
    return forgotten


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
    client_hash = forget_client(client, bucket, NOW).hash_of(client)
    manifest = forget.forget(client, client_hash, found, Day(bucket, DAY, kind), lambda: NOW)
    assert manifest is not None
    return found, manifest


def test_what_there_is_of_a_client_is_found_without_a_change() -> None:
    bucket = exported()
    before = dict(bucket)

    found = forget.find("acme", csv_day(bucket), lambda: NOW)
    tag = csv_day(bucket).committed()[1]
    assert found == Found(tag, 1, read=3, rows=833, whole_records=2, parts=(0, 1, 2), is_done=True)
    assert forget.find("nobody", csv_day(bucket), lambda: NOW).rows == 0
    never = Day(bucket, date(2025, 11, 21), Format.CSV_GZ)
    assert forget.find("acme", never, lambda: NOW) == Found(is_done=True)
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
    forgotten = clients_of(bucket)
    key = forget.write_audit(forgotten.hash_of("acme"), bucket, NOW, csv_day(bucket), found)

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

    again = export_day(csv_day(bucket), rows(), JOB).manifest
    more = export_day(csv_day(bucket), rows(2_502), JOB).manifest

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

    assert found.whole_records == 0
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


def erase_as_upkeep_does(bucket: Bucket, client: str = "acme") -> None:
    client_hash = clients_of(bucket).hash_of(client)
    day = csv_day(bucket)
    found = forget.find(client, day, lambda: NOW)
    if found.rows:
        forget.forget(client, client_hash, found, day, lambda: NOW)
    else:
        day.clear(NOW)


def test_killed_at_any_point_and_done_again_nothing_of_the_client_is_left() -> None:
    before = exported()
    forget_client("acme", before, NOW)
    for operations in range(100):
        bucket: Bucket = Dying(before, operations)
        try:
            erase_as_upkeep_does(bucket)
        except Killed:
            bucket = Bucket(bucket)
            erase_as_upkeep_does(bucket)
        else:
            break
        left = [gzip.decompress(body) for key, body in bucket.items() if key.endswith(".gz")]
        assert not any(b"acme" in text for text in left), operations
        assert len(list(bucket.keys("overflow/"))) == 4
        assert list(verify_day(csv_day(bucket), NOW, rows())) == []
    assert operations > 10


@pytest.mark.parametrize("kind", Format)
def test_only_parts_with_rows_of_the_client_are_written_again(kind: Format) -> None:
    store = rows(3_500)
    store.kept = [
        (*row[:2], "acme" if number < 10 or 1_000 <= number < 2_000 else "other", *row[3:])
        for number, row in enumerate(store.kept)
    ]
    bucket = Bucket()
    export_day(Day(bucket, DAY, kind), store, JOB)
    before = Day(bucket, DAY, kind).manifest()
    assert before is not None
    assert len(before.parts) == 4

    found, manifest = erased(bucket, kind=kind)

    assert (found.parts, manifest.rows, manifest.forgotten) == ((0, 1), 2_490, 1_010)
    # All rows of the second part were the client's.
    assert [part.rows for part in manifest.parts] == [990, 1_000, 500]
    assert manifest.parts[1:] == before.parts[2:]
    assert list(verify_day(Day(bucket, DAY, kind), NOW, store)) == []


def test_parts_that_were_written_before_a_kill_are_not_written_again() -> None:
    bucket = exported()
    client_hash = forget_client("acme", bucket, NOW).hash_of("acme")
    found = forget.find("acme", csv_day(bucket), lambda: NOW)
    assert (
        forget.forget("acme", client_hash, found, csv_day(bucket), lambda: NOW, has_time=lambda: False)
        is None
    )
    progress, _ = csv_day(bucket).progress()
    assert progress is not None
    (first,) = progress.parts

    manifest = forget.forget("acme", client_hash, found, csv_day(bucket), lambda: NOW)

    assert manifest is not None
    assert manifest.parts[0] == first
    assert csv_day(bucket).progress() == (None, None)


def test_files_of_a_client_that_no_manifest_names_are_removed() -> None:
    # A day's first export that has run out of time, and nobody has gone on with it.
    bucket = Bucket()
    with pytest.raises(OutOfTimeError):
        export_day(csv_day(bucket), rows(), replace(JOB, seconds_left=iter([900.0, 1.0]).__next__))
    assert any("part-" in key for key in bucket)

    assert forget.find("acme", csv_day(bucket), lambda: NOW) == Found(is_done=True)
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
                forget_client("theirs", self, NOW)
            return super().replace(key, body, tag)

        raced = False

    bucket = Racing()
    forget_client("ours", bucket, NOW)

    forgotten = clients_of(bucket)
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
    forget_client("acme", bucket, erased_at)

    manifest = export_day(csv_day(bucket), bounded, JOB).manifest

    assert (manifest.rows, manifest.forgotten) == (3, 2)
    assert list(verify_day(csv_day(bucket), NOW, bounded)) == []
    # Who is erased again is erased up to then; an older time takes nothing back.
    forget_client("acme", bucket, NOW)
    forget_client("acme", bucket, erased_at)
    assert export_day(csv_day(bucket), bounded, JOB).manifest.rows == 0


def test_an_erasure_that_is_undone_brings_back_what_the_store_has() -> None:
    bucket = exported()
    erased(bucket)
    (listed,) = forget.listed(ForgottenList(bucket, read_key))

    assert forget.undo("nobody", ForgottenList(bucket, read_key), NOW) is None
    key = forget.undo("acme", ForgottenList(bucket, read_key), NOW)

    assert key is not None
    assert json.loads(bucket[key]) == {
        "format_version": 1,
        "time": "2025-12-01T00:00:00+00:00",
        "client_hash": listed["client_hash"],
        "undone": True,
    }
    assert forget.listed(ForgottenList(bucket, read_key)) == []
    assert forget.undo("acme", ForgottenList(bucket, read_key), NOW) is None
    again = export_day(csv_day(bucket), rows(), JOB).manifest
    assert (again.rows, again.forgotten) == (2_500, 0)
    assert clients(bucket, Format.CSV_GZ)["acme"] == 833


def test_a_client_is_dropped_when_the_store_can_have_no_row_of_theirs() -> None:
    bucket = Bucket()
    forget.drop_expired(ForgottenList(bucket, read_key), timedelta(days=7), NOW)
    assert bucket == {}
    forget_client("early", bucket, NOW)
    forget_client("late", bucket, NOW + timedelta(days=1))

    forget.drop_expired(ForgottenList(bucket, read_key), None, NOW + timedelta(days=900))
    forget.drop_expired(ForgottenList(bucket, read_key), timedelta(days=7), NOW + timedelta(days=7))
    assert len(forget.listed(ForgottenList(bucket, read_key))) == 2
    forget.drop_expired(
        ForgottenList(bucket, read_key), timedelta(days=7), NOW + timedelta(days=7, seconds=1)
    )

    assert [each["erased"] for each in forget.listed(ForgottenList(bucket, read_key))] == [
        "2025-12-02T00:00:00+00:00"
    ]


OLD_KEY = b"\xab" * 32


def old_hash(client: str) -> str:
    """Return a client's hash as releases made it that kept the key in the document."""
    return hashlib.blake2b(client.encode(), digest_size=16, key=OLD_KEY).hexdigest()


@pytest.mark.parametrize(
    ("version", "entry", "erased_at"),
    [
        ({"format_version": 1}, old_hash("acme"), None),
        ({}, old_hash("acme"), None),
        (
            {"format_version": 2},
            {"client_hash": old_hash("acme"), "erased": NOW.isoformat()},
            NOW.isoformat(),
        ),
    ],
    ids=["version 1", "without a version", "version 2"],
)
def test_entries_of_an_earlier_release_count_and_are_hashed_with_the_secret_by_the_next_write(
    version: dict[str, int], entry: object, erased_at: str | None
) -> None:
    document = version | {"key": OLD_KEY.hex(), "clients": [entry]}
    bucket = Bucket({"lake/forgotten.json": json.dumps(document).encode()})
    forgotten_clients = ForgottenList(bucket, read_key)

    (listed,) = forget.listed(forgotten_clients)
    assert listed["erased"] == erased_at
    assert export_day(csv_day(bucket), rows(), JOB).manifest.forgotten == 833
    forget.drop_expired(forgotten_clients, None, NOW)

    written = json.loads(bucket["lake/forgotten.json"])
    assert (written["format_version"], "key" in written) == (3, False)
    assert old_hash("acme") not in bucket["lake/forgotten.json"].decode()
    assert forget.listed(forgotten_clients) == [listed]
    forget_client("another", bucket, NOW)
    assert [bool(clients_of(bucket).until(name)) for name in ("acme", "another", "other")] == [
        True,
        True,
        False,
    ]
    forget.drop_expired(forgotten_clients, timedelta(days=7), NOW)
    assert [each["erased"] for each in forget.listed(forgotten_clients)] == [NOW.isoformat()] * 2
    forget.drop_expired(forgotten_clients, timedelta(days=7), NOW + timedelta(days=8))
    assert forget.listed(forgotten_clients) == []


def test_who_reads_the_bucket_cannot_try_names() -> None:
    bucket = Bucket()
    forget_client("acme", bucket, NOW)

    document = json.loads(bucket["lake/forgotten.json"])

    (entry,) = document["clients"]
    known = [b"", *(str(value).encode() for value in document.values())]
    tried = [
        hashlib.blake2b(
            hashlib.blake2b(b"acme", digest_size=16, key=inner[:64]).hexdigest().encode(),
            digest_size=16,
            key=outer[:64],
        ).hexdigest()
        for inner in known
        for outer in known
    ]
    assert entry["client_hash"] not in [*tried, *map(old_hash, ["acme"])]
    assert entry["client_hash"] == Forgotten(FORGOTTEN_KEY).hash_of("acme")


def test_a_list_of_another_key_is_refused_instead_of_bringing_clients_back() -> None:
    bucket = exported()
    forget_client("acme", bucket, NOW)
    before = dict(bucket)

    with pytest.raises(WrongKeyError, match="restore the secret's version"):
        export_day(csv_day(bucket), rows(), replace(JOB, read_key=lambda: b"another"))
    with pytest.raises(SettingsError, match="set FORGOTTEN_KEY_ARN"):
        export_day(csv_day(bucket), rows(), DayJob(size=1_000))

    assert {key: bucket[key] for key in before} == before
