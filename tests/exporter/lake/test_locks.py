"""One run at a time writes a day."""

from datetime import UTC, datetime, timedelta

import pytest

from exporter.lake.locks import Lock
from tests.twins import Bucket

KEY = "lake/locks/csv.gz/2025-11-20.json"
NOW = datetime(2025, 12, 1, 0, 15, tzinfo=UTC)


@pytest.mark.parametrize(
    ("run", "seconds", "taken"),
    [("other", 0, False), ("other", 899, False), ("other", 900, True), ("first", 0, True)],
)
def test_a_lock_is_its_runs_until_the_run_can_no_longer_live(run: str, seconds: int, taken: bool) -> None:
    bucket = Bucket()
    assert Lock(bucket, KEY).take("first", NOW, NOW + timedelta(seconds=900))

    now = NOW + timedelta(seconds=seconds)
    assert Lock(bucket, KEY).take(run, now, now + timedelta(seconds=900)) is taken


def test_of_two_that_take_a_lock_at_the_same_time_one_gets_it() -> None:
    class Racing(Bucket):
        def read(self, key: str) -> tuple[bytes, str] | None:
            found = super().read(key)
            if not self.raced:
                self.raced = True
                assert Lock(self, KEY).take("quicker", NOW, NOW + timedelta(seconds=9))
            return found

        raced = False

    assert not Lock(Racing(), KEY).take("slower", NOW, NOW + timedelta(seconds=9))


def test_only_its_own_run_gives_a_lock_back() -> None:
    bucket = Bucket()
    Lock(bucket, KEY).take("first", NOW, NOW + timedelta(seconds=9))

    Lock(bucket, KEY).release("other")
    assert bucket
    Lock(bucket, KEY).release("first")
    assert not bucket
