"""The lists of files that Athena reads, as days get older."""

from datetime import UTC, date, datetime, timedelta

import pytest

from exporter.export.day import DayJob, export_day
from exporter.lake.athena import ARCHIVED_AFTER, days_to_list, list_key
from exporter.lake.days import Day
from exporter.lake.formats import Format
from exporter.lake.manifest import folder
from exporter.upkeep.verify import verify_day
from tests.exporter.export.test_export import DAY, exported, made, store
from tests.twins import Bucket

KEY = list_key(DAY, Format.CSV_GZ)
PART = f"{folder(DAY)}part-00000.csv.gz"
WRITTEN = datetime(2025, 11, 21, 0, 15, tzinfo=UTC)
NAMED = f"s3://bucket/{PART}\n"
REFUSED = (
    f"s3://bucket/records/tables/csv.gz/date={DAY}/"
    "files-are-in-the-archive--restore-them-then-export-the-day-again\n"
)
ARCHIVED = WRITTEN + ARCHIVED_AFTER


@pytest.fixture
def bucket() -> Bucket:
    bucket = Bucket()
    exported(DAY, store(made(1)), bucket)
    bucket.modified[PART] = WRITTEN
    bucket.sizes[PART] = 1 << 20
    return bucket


def listed(bucket: Bucket, now: datetime) -> str:
    """Correct the lists as the nightly run does, and return the day's."""
    for kind, day in days_to_list(bucket, now):
        Day(bucket, day, kind).list_files(now)
    assert list(days_to_list(bucket, now)) == []
    assert not [
        problem for problem in verify_day(Day(bucket, DAY, Format.CSV_GZ), now) if "Athena" in problem
    ]
    return bucket[KEY].decode()


def test_a_days_files_are_listed_until_two_days_before_the_lifecycle_moves_them(bucket: Bucket) -> None:
    assert listed(bucket, ARCHIVED - timedelta(days=2, minutes=1)) == NAMED
    assert listed(bucket, ARCHIVED - timedelta(days=2)) == REFUSED
    bucket.archived.add(PART)
    assert listed(bucket, ARCHIVED + timedelta(days=1)) == REFUSED


def test_files_that_are_too_small_for_the_archive_stay_listed(bucket: Bucket) -> None:
    bucket.sizes[PART] = 128 * 1024 - 1

    assert listed(bucket, ARCHIVED + timedelta(days=100)) == NAMED


def test_files_that_were_archived_by_another_rule_are_refused(bucket: Bucket) -> None:
    bucket.sizes[PART] = 1
    bucket.archived.add(PART)

    assert listed(bucket, ARCHIVED) == REFUSED


def test_restored_files_are_listed_until_two_days_before_the_restore_ends(bucket: Bucket) -> None:
    later = ARCHIVED + timedelta(days=50)
    assert listed(bucket, later) == REFUSED

    bucket.restored[PART] = later + timedelta(days=7)
    assert listed(bucket, later) == NAMED
    assert listed(bucket, later + timedelta(days=4)) == NAMED
    assert listed(bucket, later + timedelta(days=5)) == REFUSED


def test_an_archived_day_that_is_exported_again_is_listed_at_once(bucket: Bucket) -> None:
    later = ARCHIVED + timedelta(days=50)
    assert listed(bucket, later) == REFUSED
    bucket.restored[PART] = later + timedelta(days=7)
    rows = store(made(1))
    rows.keeps_for = timedelta(days=7)

    export = export_day(Day(bucket, DAY, Format.CSV_GZ), rows, DayJob(now=lambda: later))

    assert (export.kept, bucket[KEY].decode()) == (True, NAMED)


def test_days_without_a_list_get_one_and_folders_without_a_manifest_do_not(bucket: Bucket) -> None:
    del bucket[KEY]
    bucket[f"{folder(date(2025, 11, 19))}part-00000.csv.gz"] = b""

    assert list(days_to_list(bucket, WRITTEN)) == [(Format.CSV_GZ, DAY)]
    assert listed(bucket, WRITTEN) == NAMED
