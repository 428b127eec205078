"""One attempt at a time writes a day."""

from datetime import UTC, datetime, timedelta

import pytest

from exporter.lake.locks import LEASE, Lock, OvertakenError
from tests.twins import Bucket

KEY = "lake/locks/csv.gz/2025-11-20.json"
NOW = datetime(2025, 12, 1, 0, 15, tzinfo=UTC)


@pytest.mark.parametrize(("seconds", "is_taken"), [(0, False), (179, False), (180, True), (10_000, True)])
def test_a_lock_can_be_taken_when_its_lease_has_ended(seconds: int, is_taken: bool) -> None:
    lock = Lock(Bucket(), KEY)
    assert lock.take("first", NOW)

    now = NOW + timedelta(seconds=seconds)
    assert lock.is_held(now) is not is_taken
    assert (lock.take("first", now) is not None) is is_taken


def test_a_continuation_exchanges_the_token_and_a_second_delivery_of_it_gets_nothing() -> None:
    lock = Lock(Bucket(), KEY)
    first = lock.take("run", NOW)
    assert first

    continued = lock.take("run", NOW, first.token)

    assert continued
    assert lock.take("run", NOW, first.token) is None
    with pytest.raises(OvertakenError, match="another run has taken the lock lake"):
        first.confirm(NOW)
    continued.confirm(NOW)


def test_a_lease_is_renewed_before_it_ends_and_not_at_each_call() -> None:
    bucket = Bucket()
    lease = Lock(bucket, KEY).take("run", NOW)
    assert lease
    before = dict(bucket)

    lease.renew(NOW + timedelta(seconds=60))
    assert dict(bucket) == before
    lease.renew(NOW + timedelta(seconds=61))
    assert Lock(bucket, KEY).is_held(NOW + LEASE + timedelta(seconds=60))


def test_a_lease_that_has_ended_is_still_good_unless_another_has_taken_the_lock() -> None:
    lock = Lock(Bucket(), KEY)
    lease = lock.take("run", NOW)
    assert lease

    lease.renew(later := NOW + timedelta(hours=1))
    assert lock.take("other", later) is None
    assert lock.take("other", later + LEASE)
    with pytest.raises(OvertakenError):
        lease.renew(later + LEASE)


def test_of_two_that_take_a_lock_at_the_same_time_one_gets_it() -> None:
    class Racing(Bucket):
        def read(self, key: str) -> tuple[bytes, str] | None:
            found = super().read(key)
            if not self.raced:
                self.raced = True
                assert Lock(self, KEY).take("quicker", NOW)
            return found

        raced = False

    assert not Lock(Racing(), KEY).take("slower", NOW)


def test_only_its_own_lease_gives_a_lock_back() -> None:
    bucket = Bucket()
    lock = Lock(bucket, KEY)
    first = lock.take("first", NOW)
    other = lock.take("other", NOW + LEASE)
    assert first
    assert other

    first.release()
    assert bucket
    other.release()
    assert not bucket


def test_a_lock_of_an_older_version_is_held_until_its_time() -> None:
    document = b'{"format_version": 1, "run": "a", "until": "2025-12-01T00:20:00+00:00"}'
    lock = Lock(Bucket({KEY: document}), KEY)

    assert lock.take("b", NOW) is None
    assert lock.take("b", NOW + timedelta(minutes=5))
