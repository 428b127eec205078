"""A day in one format, and two attempts to write it."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from exporter.lake.batch import Batch
from exporter.lake.days import Day
from exporter.lake.formats import Format
from exporter.lake.locks import LEASE, OvertakenError
from exporter.lake.manifest import Manifest
from exporter.lake.progress import Progress
from exporter.store import FIRST_COLUMNS, Values
from tests.twins import Bucket

DAY = date(2025, 11, 20)
NOW = datetime(2025, 12, 1, tzinfo=UTC)
ROW: Values = ["2025-11-20 10:00:00.000000000", "job", "r1", "/g", None, None, None]


def begun(day: Day) -> tuple[Progress, str]:
    """Return an attempt's progress with one part, and its tag."""
    (part,) = day.write(iter([Batch([ROW])]), FIRST_COLUMNS, 1)
    progress = Progress("", 1, FIRST_COLUMNS, (part,), str(ROW[0]), 1, 1, attempt=day.attempt)
    return progress, day.write_progress(progress, None)


@pytest.mark.parametrize("has_resumed", [False, True], ids=["nobody", "another"])
def test_an_attempt_discards_its_files_unless_another_has_resumed_from_there(has_resumed: bool) -> None:
    day = Day(Bucket(), DAY, Format.CSV_GZ)
    progress, tag = begun(day)
    found, found_tag = day.progress()
    assert found == progress

    if has_resumed:
        day.write_progress(replace(progress, attempt="another"), found_tag)
    day.discard(progress, tag)

    assert day.keys() >= {part.key for part in progress.parts} if has_resumed else not day.keys()


def test_progress_is_stored_by_one_attempt_at_a_time() -> None:
    day = Day(Bucket(), DAY, Format.CSV_GZ)
    progress, tag = begun(day)
    day.write_progress(replace(progress, attempt="another"), tag)

    with pytest.raises(OvertakenError, match="another run writes 2025-11-20 in"):
        day.write_progress(progress, tag)
    assert day.progress()[0] == replace(progress, attempt="another")


def test_of_two_commits_on_one_manifest_the_second_has_no_effect() -> None:
    bucket = Bucket()
    day, other = (Day(bucket, DAY, Format.CSV_GZ) for _ in range(2))
    assert day.take("one", NOW)
    assert other.take("two", NOW + LEASE)
    manifests = [
        Manifest(DAY, 1, FIRST_COLUMNS, tuple(each.write(iter([Batch([ROW] * rows)]), FIRST_COLUMNS, 1)))
        for each, rows in ((day, 1), (other, 2))
    ]
    assert manifests[0].parts[0].key != manifests[1].parts[0].key

    other.commit(manifests[1], None, NOW + LEASE)
    day.lease = None  # suspended after its last look at the lock
    with pytest.raises(OvertakenError, match="another run has written 2025-11-20 in"):
        day.commit(manifests[0], None, NOW + LEASE)

    assert day.manifest() == manifests[1]
    assert manifests[1].parts[0].key in bucket


def test_the_lock_is_checked_before_the_commit() -> None:
    day = Day(Bucket(), DAY, Format.CSV_GZ)
    assert day.take("one", NOW)
    later = NOW + LEASE
    assert Day(day.objects, DAY, Format.CSV_GZ).take("two", later)

    with pytest.raises(OvertakenError, match="another run has taken the lock"):
        day.commit(Manifest(DAY, 1, FIRST_COLUMNS), None, later)
    assert day.manifest() is None


def test_files_that_nothing_names_are_left_to_their_attempt_for_six_hours() -> None:
    bucket = Bucket()
    day = Day(bucket, DAY, Format.CSV_GZ)
    (part,) = day.write(iter([Batch([ROW])]), FIRST_COLUMNS, 1)
    bucket.modified[part.key] = NOW

    day.tidy(NOW + timedelta(hours=5, minutes=59))
    assert day.unnamed() == [part.key]
    day.tidy(NOW + timedelta(hours=6))
    assert not bucket
