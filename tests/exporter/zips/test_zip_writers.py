"""The download API and workers preempt each other, or are killed: one whole zip is left, or none."""

import secrets
import uuid
from collections.abc import Callable, Hashable
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from exporter.downloads import stored_jobs
from exporter.downloads.jobs import STUCK_AFTER, State, job_key, zip_key
from exporter.downloads.limits import DownloadLimits
from exporter.downloads.service import DownloadService
from exporter.downloads.stored_jobs import delete_jobs_of, read_job
from exporter.zips import making
from tests.exporter.preemptions import OneThread, Shared, Tokens, Turns, View, interleavings
from tests.exporter.zips.test_zipper import NOW, Hurried, Worker, job, lake, read
from tests.twins import Bucket, Links

REQUEST = job(1).request
STUCK = STUCK_AFTER[State.RUNNING].total_seconds() + 1


@pytest.fixture(autouse=True)
def _same_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same choices make the same calls."""
    tokens = Tokens()
    monkeypatch.setattr(secrets, "token_hex", tokens.token_hex)
    monkeypatch.setattr(uuid, "uuid4", tokens.uuid4)
    for module in (stored_jobs, making):
        monkeypatch.setattr(module, "ThreadPoolExecutor", OneThread)


class Downloads:
    """A download that was requested, its message, and those who change it."""

    def __init__(self, turns: Turns, *names: str) -> None:
        self.shared = Shared(lake(1, 2, 60))
        self.turns = turns
        self.names = names
        self.messages: list[str] = []
        self.deleted: set[str] = set()
        self.first = self._service(self.shared, lambda: NOW).request(REQUEST).id
        self.wanted = {self.first}
        (self.message,) = self.messages

    def writers(self) -> list[Callable[[], object]]:
        return [partial(getattr(self, name), number) for number, name in enumerate(self.names)]

    def state(self) -> Hashable:
        return self.shared.state(), tuple(self.messages), frozenset(self.deleted), frozenset(self.wanted)

    def work(self, number: int) -> None:
        # Each worker has the message: SQS delivers at least once.
        self._work(View(self.shared, self.turns, number), partial(self.turns.time, number), self.message)

    def look(self, number: int) -> None:
        self._service_of(number).look(self.first, None)

    def request(self, number: int) -> None:
        self.wanted.add(self._service_of(number).request(REQUEST).id)

    def delete(self, number: int) -> None:
        service = self._service_of(number)
        if (found := service.find(self.first, None)) is not None:
            service.delete(found.job)
            self.deleted.add(self.first)

    def erase(self, number: int) -> None:
        bucket = View(self.shared, self.turns, number)
        delete_jobs_of("acme", bucket)
        self.deleted.add(self.first)

    def _service_of(self, number: int) -> DownloadService:
        return self._service(View(self.shared, self.turns, number), partial(self.turns.time, number))

    def _service(self, bucket: Bucket, now: Callable[[], datetime]) -> DownloadService:
        return DownloadService(bucket, Links(now), self.messages.append, 600, now, DownloadLimits(1 << 40, 9))

    def _work(self, bucket: Bucket, now: Callable[[], datetime], message: str) -> None:
        budget = Hurried(10_000, part_bytes=2_500, publish_every=4)
        budget.now = lambda: now().timestamp()
        worker = Worker(bucket, budget)
        if worker.receive(message):
            self.messages.append(message)
        self.messages += worker.sent

    def check(self, failures: list[Exception | None]) -> None:
        """Once all messages are dealt with, there is one whole zip of each download that nobody deleted."""
        assert [failure for failure in failures if failure is not None] == []
        if self.turns.kills:
            self.again()
        now = self.turns.now
        for _ in range(20):
            if not self.messages:
                break
            self._work(
                self.shared, partial(datetime.fromtimestamp, now.timestamp(), UTC), self.messages.pop(0)
            )
            now += timedelta(seconds=STUCK)
        assert self.messages == []

        jobs, kept = self.kept()
        for identity in jobs:
            done = read_job(self.shared, identity)
            assert done is not None
            assert done.state is State.READY
            assert read(self.shared[zip_key(identity)])[1]["rows"] == done.rows == 120
        assert jobs >= self.wanted - self.deleted
        if self.turns.kills:
            return  # what is not deleted then is gone after a day
        assert sorted(kept) == sorted(key for each in jobs for key in (job_key(each), zip_key(each)))
        if "request" not in self.names:
            assert jobs == self.wanted - self.deleted
            assert self.shared.uploads == {}

    def again(self) -> None:
        """Do again what was killed."""
        if "erase" in self.names:
            delete_jobs_of("acme", self.shared)
            self.deleted.add(self.first)
            assert not [key for key in self.kept()[1] if self.first in key]
        if "delete" in self.names:
            self.deleted.add(self.first)
        self.messages.append(self.message)  # SQS delivers it again

    def kept(self) -> tuple[set[str], list[str]]:
        """Return the jobs that there are, and the keys of all that there is of any, without markers."""
        kept = [key for key in self.shared.keys("tmp/") if "/active/" not in key and ".deleted." not in key]
        ids = {key.removeprefix("tmp/").partition(".")[0] for key in kept}
        return {each for each in ids if job_key(each) in kept}, kept


TIMES = pytest.mark.parametrize("seconds", [0, STUCK], ids=["at once", "when the job is stuck"])
PAIRS: list[tuple[str, ...]] = [
    ("work", "work"),
    ("work", "look"),
    ("work", "request"),
    ("work", "delete"),
    ("work", "erase"),
    ("request", "request"),
    ("request", "delete"),
    ("look", "delete"),
]
THREE: list[tuple[str, ...]] = [
    ("work", "work", "delete"),
    ("work", "look", "delete"),
    ("work", "request", "delete"),
    ("request", "request", "erase"),
]


@TIMES
@pytest.mark.parametrize("names", PAIRS + THREE, ids="+".join)
def test_all_interleavings_of_two_preemptions_leave_one_whole_zip_or_none(
    names: tuple[str, ...], seconds: float
) -> None:
    runs = list(interleavings(lambda turns: Downloads(turns, *names), NOW, seconds=seconds))

    assert {len(choices) for choices in runs} >= {0, 1, 2}


@TIMES
@pytest.mark.parametrize("names", [pair for pair in PAIRS if "work" in pair], ids="+".join)
def test_killed_at_any_call_beside_another_one_whole_zip_or_none_is_left(
    names: tuple[str, ...], seconds: float
) -> None:
    runs = list(
        interleavings(lambda turns: Downloads(turns, *names), NOW, preemptions=1, kills=1, seconds=seconds)
    )

    killed = {choice.writer for choices in runs for choice in choices.values() if choice.kills}
    assert killed >= {0, 1}, "each was killed while the other was left"
