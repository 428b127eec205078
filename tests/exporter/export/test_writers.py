"""Several writers of one day: at whichever call one is preempted, the day is whole and no row is lost."""

import gzip
import hashlib
import json
import os
import random
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from consumers.bucket import Listed
from consumers.rows import late_days
from exporter.export import whole_rows
from exporter.export.day import DayJob
from exporter.export.handler import make_handler
from exporter.lake.athena import file_list_problems
from exporter.lake.days import GRACE, Day
from exporter.lake.formats import Format
from exporter.lake.locks import LEASE
from exporter.lake.manifest import MANIFEST
from exporter.store import Answer, Column, Span, Tally
from exporter.stores.metered import Metered
from exporter.upkeep import forget
from exporter.upkeep.verify import verify_day
from tests.builders import Context
from tests.exporter.export.test_export import COLUMNS, DAY, FOLDER, NOW, made
from tests.twins import Bucket, Rows

TIMEOUT = 60
# Set WRITERS_STRIDE to 1 to try all interleavings with two preemptions.
STRIDE = int(os.environ.get("WRITERS_STRIDE", "41"))
JOB = DayJob(size=1, slice_rows=1_200)


class Turns:
    """Lets one writer run at a time, and another from certain calls on.

    Args:
        switches: Which writer goes on, by the number of the call before which it does, counted over all; and
            how many seconds pass meanwhile.
    """

    def __init__(self, switches: Mapping[int, tuple[int, float]]) -> None:
        self._switches = dict(switches)
        self._changed = threading.Condition()
        self._current, self._left = 0, set[int]()
        self.calls = 0
        self.now = NOW

    def run(self, writers: list[Callable[[], None]]) -> list[Exception | None]:
        """Run writers to their ends, and return what stopped each."""
        failures: list[Exception | None] = [None] * len(writers)
        self._left = set(range(len(writers)))

        def run(number: int) -> None:
            try:
                self.wait(number)
                writers[number]()
            except Exception as error:  # noqa: BLE001 - the test looks at it
                failures[number] = error
            finally:
                with self._changed:
                    self._left.discard(number)
                    self._next()

        threads = [threading.Thread(target=run, args=(number,)) for number in range(len(writers))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(TIMEOUT)
            assert not thread.is_alive()
        return failures

    def wait(self, number: int) -> None:
        """Wait until it is a writer's turn."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._current == number, TIMEOUT)

    def call(self, number: int) -> None:
        """Make a writer's call: before it, another may have its turn."""
        self.wait(number)
        with self._changed:
            self.calls += 1
            self.now += timedelta(milliseconds=100)
            if switch := self._switches.pop(self.calls, None):
                self._current = switch[0]
                self.now += timedelta(seconds=switch[1])
                self._next()
        self.wait(number)

    def _next(self) -> None:
        if self._current not in self._left and self._left:
            self._current = min(self._left)
        self._changed.notify_all()


class Shared(Bucket):
    """The bucket of all: it knows when objects were written, and that a manifest's files are always there."""

    def written(self, key: str, now: datetime) -> None:
        self.modified[key] = now
        if key == FOLDER + MANIFEST:
            self.check()

    def check(self) -> None:
        """The committed files are there, each as the manifest describes it."""
        if FOLDER + MANIFEST in self:
            for part in json.loads(self[FOLDER + MANIFEST])["parts"]:
                assert hashlib.sha256(self[part["key"]]).hexdigest() == part["sha256"]


class View(Bucket):
    """The bucket as one writer has it: each call may be preempted."""

    def __init__(self, shared: Shared, turns: Turns, number: int) -> None:
        super().__init__()
        self._shared, self._turns, self._number = shared, turns, number

    def _call(self) -> Shared:
        self._turns.call(self._number)
        return self._shared

    def put(self, key: str, chunks: Iterable[bytes], content_type: str) -> None:
        body = b"".join(chunks)
        self._call().put(key, [body], content_type)
        self._shared.written(key, self._turns.now)

    def get(self, key: str) -> bytes | None:  # type: ignore[override]  # no default here
        return self._call().get(key)

    def stream(self, key: str) -> Iterator[bytes]:
        return iter(list(self._call().stream(key)))

    def listed(self, prefix: str) -> Iterator[Listed]:
        return self._call().listed(prefix)

    def delete(self, keys: Iterable[str]) -> None:
        if keys := list(keys):
            self._call().delete(keys)
            self._shared.check()

    def read(self, key: str) -> tuple[bytes, str] | None:
        return self._call().read(key)

    def replace(self, key: str, body: bytes, tag: str | None) -> bool:
        is_written = self._call().replace(key, body, tag)
        if is_written:
            self._shared.written(key, self._turns.now)
        return is_written

    def remove(self, key: str, tag: str) -> bool:
        return self._call().remove(key, tag)


class Waiting(Rows):
    """The store as one writer has it: it answers when it is the writer's turn."""

    def __init__(self, shared: Rows, turns: Turns, number: int) -> None:
        super().__init__(COLUMNS, [])
        self.kept = shared.kept
        self._turns, self._number = turns, number

    def tally(self, day: date) -> Tally:
        self._turns.wait(self._number)
        return super().tally(day)

    def columns(self, day: date) -> tuple[Column, ...]:
        self._turns.wait(self._number)
        return super().columns(day)

    def rows(self, span: Span, columns: tuple[Column, ...]) -> Answer:
        self._turns.wait(self._number)
        return super().rows(span, columns)


MARKER = late_days.marker_key(DAY, "batch", "delivery")
EXPORT = {"day": DAY.isoformat()}
PREPARED: dict[tuple[bool, bool], tuple[dict[str, bytes], dict[str, Any]]] = {}


@pytest.fixture(autouse=True)
def _short_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    # A part ends with a batch: so a day of a few rows has several parts.
    monkeypatch.setattr(whole_rows, "BATCH_ROWS", 3)


class Lake:
    """A day that was exported and got a late row since, and those who write it."""

    def __init__(self, switches: Mapping[int, tuple[int, float]]) -> None:
        self.rows = Rows(COLUMNS, [made(number, client="ac"[number % 2]) for number in range(6)])
        self.shared = Shared()
        self.turns = Turns({})
        self.continuation: dict[str, Any] = {}
        self.erased = False
        self._switches = switches

    @classmethod
    def prepared(
        cls, switches: Mapping[int, tuple[int, float]], *, has_late_row: bool = True, is_begun: bool = False
    ) -> "Lake":
        """Return a day that was exported once, and whose next export may have run out of time."""
        lake = cls(switches)
        if (has_late_row, is_begun) not in PREPARED:
            before = cls({})
            before._prepare(has_late_row=has_late_row, is_begun=is_begun)
            PREPARED[has_late_row, is_begun] = dict(before.shared), before.continuation
        bucket, lake.continuation = PREPARED[has_late_row, is_begun]
        lake.shared.update(bucket)
        lake.shared.modified = dict.fromkeys(bucket, NOW)
        if has_late_row:
            lake.rows.keep(made(2_000, client="c"))
        return lake

    def _prepare(self, *, has_late_row: bool, is_begun: bool) -> None:
        assert self.turns.run([lambda: self.export(0)]) == [None]
        if has_late_row:
            self.rows.keep(made(2_000, client="c"))
            self.shared[MARKER] = b""
        if is_begun:
            self.turns = Turns({})
            assert self.turns.run([lambda: self.export(0, seconds=iter([900.0, 900.0]))]) == [None]
            assert self.continuation

    def run(self, *names: str) -> list[Exception | None]:
        begun = self.turns.now
        self.turns = Turns(self._switches)
        self.turns.now = begun
        writers = [self._writer(name, number) for number, name in enumerate(names)]
        return self.turns.run(writers)

    def _writer(self, name: str, number: int) -> Callable[[], None]:
        return lambda: getattr(self, name)(number)

    def export(self, number: int, event: dict[str, Any] | None = None, seconds: Any = None) -> None:
        job = DayJob(size=JOB.size, slice_rows=JOB.slice_rows, now=lambda: self.turns.now)
        handler = make_handler(
            Metered(Waiting(self.rows, self.turns, number)),
            View(self.shared, self.turns, number),
            invoke=lambda _name, event: self.continuation.update(event),
            job=job,
        )
        context = Context(900_000, f"request-{number}")
        if seconds is not None:
            context.get_remaining_time_in_millis = lambda: int(next(seconds, 1.0) * 1_000)  # type: ignore[method-assign]
        handler(json.loads(json.dumps(event or EXPORT)), context)

    def continue_export(self, number: int) -> None:
        self.export(number, self.continuation)

    def receive_late_row(self, number: int) -> None:
        bucket = View(self.shared, self.turns, number)
        self.turns.call(number)
        # Before the first part ends, or after it.
        self.rows.keep(made(2_001 + number, client="c", hour=9 + 2 * (number % 2)))
        bucket.put(late_days.marker_key(DAY, "batch", "another"), [], "text/plain")

    def erase(self, number: int, client: str = "a") -> None:
        day = Day(View(self.shared, self.turns, number), DAY, Format.CSV_GZ)
        forget.remember_to_forget(client, day.objects, self.turns.now)
        if not day.take("erasure", self.turns.now):
            return
        try:
            found = forget.find(client, day, lambda: self.turns.now)
        except ClientError:  # another erasure has removed the files: the command has to be repeated
            return
        if found is None:
            day.clear(self.turns.now)
        else:
            forget.forget(client, found, day, lambda: self.turns.now)
        day.release()
        self.erased |= client == "a"

    def erase_another(self, number: int) -> None:
        # The manifest has no rows of this client; files that it does not name may have some.
        self.erase(number, "another")

    def verify(self, number: int) -> None:
        day = Day(View(self.shared, self.turns, number), DAY, Format.CSV_GZ)
        # A file of a writer that was overtaken is nobody's until its time is over.
        problems = verify_day(day, self.turns.now)
        assert all("nothing names it" in each or "export the day" in each for each in problems)

    # --- what has to be -----------------------------------------------------------------------------------

    def ids(self) -> list[str]:
        manifest = Day(self.shared, DAY, Format.CSV_GZ).manifest()
        assert manifest is not None
        lines = [gzip.decompress(self.shared[part.key]).decode().splitlines()[1:] for part in manifest.parts]
        return [line.split(",")[2] for part in lines for line in part]

    def check(self, failures: list[Exception | None]) -> None:
        """Nothing is lost now, and one undisturbed night later everything is right."""
        assert [failure for failure in failures if failure and "another run" not in str(failure)] == []
        self.shared.check()
        manifest = Day(self.shared, DAY, Format.CSV_GZ).manifest()
        assert manifest is not None
        assert list(file_list_problems(self.shared, manifest, self.turns.now)) == []
        ids = self.ids()
        assert len(set(ids)) == len(ids)
        if not list(self.shared.keys(late_days.PREFIX)):
            assert {row[5] for row in self.rows.kept if row[6] == "c"} <= set(ids)
        if self.erased:
            assert not {row[5] for row in self.rows.kept if row[6] == "a"} & set(ids)
        self.turns = Turns({})
        self.turns.now = NOW + timedelta(days=1) + GRACE
        assert self.turns.run([lambda: self.export(0, {})]) == [None]
        day = Day(self.shared, DAY, Format.CSV_GZ)
        forgotten = day.forgotten()
        wanted = {row[5] for row in self.rows.kept if forgotten is None or not forgotten.until(str(row[6]))}
        assert set(self.ids()) == wanted
        assert list(self.shared.keys(late_days.PREFIX)) == []
        self.rows.keeps_for = None
        assert list(verify_day(day, self.turns.now, self.rows)) == []


WRITERS = ["export", "continue_export", "erase", "erase_another", "receive_late_row", "verify"]
MEETINGS = [
    ("export", "export"),
    ("continue_export", "continue_export"),
    ("export", "erase"),
    ("erase", "export"),
    ("continue_export", "erase"),
    ("export", "erase_another"),
    ("continue_export", "erase_another"),
    ("export", "receive_late_row"),
    ("verify", "export"),
    ("verify", "erase"),
]
EXPIRED = LEASE.total_seconds() + 1


def meet(
    names: tuple[str, ...], switches: Mapping[int, tuple[int, float]], *, has_late_row: bool = True
) -> int:
    """Let writers meet, check what is left, and return how many calls they made."""
    lake = Lake.prepared(switches, has_late_row=has_late_row, is_begun="continue_export" in names)
    failures = lake.run(*names)
    calls = lake.turns.calls
    lake.check(failures)
    return calls


@pytest.mark.parametrize("names", MEETINGS, ids="+".join)
@pytest.mark.parametrize("seconds", [0, EXPIRED], ids=["while the lock is held", "when the lease has ended"])
def test_one_writer_preempts_the_other_at_any_call(names: tuple[str, ...], seconds: float) -> None:
    calls = meet(names, {})
    assert calls > 30

    for call in range(1, calls + 1):
        meet(names, {call: (1, seconds)})


@pytest.mark.parametrize("names", MEETINGS, ids="+".join)
def test_each_writer_preempts_the_other_once_at_any_calls(names: tuple[str, ...]) -> None:
    # All pairs of calls take three minutes; this stride takes each call of either in some pairs.
    calls = meet(names, {})
    pairs = [(first, second) for first in range(1, calls) for second in range(first + 1, calls + 1)]

    for first, second in pairs[::STRIDE]:
        meet(names, {first: (1, EXPIRED), second: (0, EXPIRED)})


@pytest.mark.parametrize("seed", range(4))
def test_two_or_three_writers_meet_at_random(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(250):
        names = tuple(chance.choices(WRITERS, k=chance.choice([2, 3])))
        switches = {
            chance.randrange(1, 40 * len(names)): (chance.randrange(len(names)), chance.choice([0, EXPIRED]))
            for _ in range(chance.randrange(1, 6))
        }
        try:
            meet(names, switches, has_late_row=chance.random() < 0.5)
        except Exception as error:
            raise AssertionError(f"{names} with {switches}") from error
