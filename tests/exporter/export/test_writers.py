"""Several writers of one day: at whichever call one is preempted, the day is whole and no row is lost."""

import gzip
import hashlib
import json
import random
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from itertools import takewhile
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
from exporter.lake.forgotten_list import ForgottenList
from exporter.lake.formats import Format
from exporter.lake.locks import LEASE
from exporter.lake.manifest import MANIFEST
from exporter.store import Answer, Column, Span, Tally
from exporter.stores.metered import Metered
from exporter.upkeep import forget
from exporter.upkeep.verify import verify_day
from tests.builders import Context
from tests.exporter.export.test_export import COLUMNS, DAY, FOLDER, NOW, made
from tests.twins import Bucket, Rows, forget_client, read_key

TIMEOUT = 60
JOB = DayJob(size=1, slice_rows=1_200, read_key=read_key)


@dataclass
class Step:
    """What a writer did in one go: a call, and what follows it up to the next.

    Attributes:
        writer: Whose it is.
        keys: What it read or wrote; of a listing the prefix, with a star behind it.
        writes: Whether it wrote.
        sees_time: Whether it looked at the clock.
    """

    writer: int
    keys: tuple[str, ...]
    writes: bool
    sees_time: bool = False

    def commutes(self, others: "Iterable[Step]") -> bool:
        """Tell whether it is all the same if it comes before or after others."""
        return not any(
            _meets(mine, theirs)
            for other in others
            if self.writes or other.writes
            for mine in self.keys
            for theirs in other.keys
        )


def _meets(mine: str, theirs: str) -> bool:
    if mine.endswith("*") or theirs.endswith("*"):
        mine, theirs = mine.rstrip("*"), theirs.rstrip("*")
        return mine.startswith(theirs) or theirs.startswith(mine)
    return mine == theirs


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
        self.steps: list[Step] = []
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

    def time(self, number: int) -> datetime:
        """Return the time; a writer looks at the clock."""
        mine = [step for step in self.steps[-1:] if step.writer == number]
        for step in mine:
            step.sees_time = True
        return self.now

    def call(self, number: int, *keys: str, writes: bool = False) -> None:
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
        self.steps.append(Step(number, keys, writes))

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

    def _call(self, *keys: str, writes: bool = False) -> Shared:
        self._turns.call(self._number, *keys, writes=writes)
        return self._shared

    def put(self, key: str, chunks: Iterable[bytes], content_type: str) -> None:
        body = b"".join(chunks)
        self._call(key, writes=True).put(key, [body], content_type)
        self._shared.written(key, self._turns.now)

    def get(self, key: str) -> bytes | None:  # type: ignore[override]  # no default here
        return self._call(key).get(key)

    def stream(self, key: str) -> Iterator[bytes]:
        return iter(list(self._call(key).stream(key)))

    def listed(self, prefix: str) -> Iterator[Listed]:
        return self._call(f"{prefix}*").listed(prefix)

    def delete(self, keys: Iterable[str]) -> None:
        if keys := list(keys):
            self._call(*keys, writes=True).delete(keys)
            self._shared.check()

    def read(self, key: str) -> tuple[bytes, str] | None:
        return self._call(key).read(key)

    def replace(self, key: str, body: bytes, tag: str | None) -> bool:
        is_written = self._call(key, writes=True).replace(key, body, tag)
        if is_written:
            self._shared.written(key, self._turns.now)
        return is_written

    def remove(self, key: str, tag: str) -> bool:
        return self._call(key, writes=True).remove(key, tag)


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
        job = replace(JOB, now=lambda: self.turns.time(number))
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
        self.turns.call(number, "*", writes=True)  # all of it may depend on the store's rows
        # Before the first part ends, or after it.
        self.rows.keep(made(2_001 + number, client="c", hour=9 + 2 * (number % 2)))
        bucket.put(late_days.marker_key(DAY, "batch", "another"), [], "text/plain")

    def erase(self, number: int, client: str = "a") -> None:
        bucket = View(self.shared, self.turns, number)
        day = Day(bucket, DAY, Format.CSV_GZ)
        client_hash = forget_client(client, bucket, self.turns.time(number)).hash_of(client)
        if not day.take("erasure", self.turns.time(number)):
            return
        try:
            found = forget.find(client, day, lambda: self.turns.time(number))
        except ClientError:  # another erasure has removed the files: the command has to be repeated
            return
        if found.rows:
            forget.forget(client, client_hash, found, day, lambda: self.turns.time(number))
        else:
            day.clear(self.turns.time(number))
        day.release()
        self.erased |= client == "a"

    def erase_another(self, number: int) -> None:
        # The manifest has no rows of this client; files that it does not name may have some.
        self.erase(number, "another")

    def verify(self, number: int) -> None:
        day = Day(View(self.shared, self.turns, number), DAY, Format.CSV_GZ)
        # A file of a writer that was overtaken is nobody's until its time is over.
        problems = verify_day(day, self.turns.time(number))
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
        forgotten = ForgottenList(self.shared, read_key).read()
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
) -> list[Step]:
    """Let writers meet, check what is left, and return the steps that they made."""
    lake = Lake.prepared(switches, has_late_row=has_late_row, is_begun="continue_export" in names)
    failures = lake.run(*names)
    steps = lake.turns.steps
    lake.check(failures)
    return steps


def meetings(
    names: tuple[str, ...], seconds: float
) -> Iterator[tuple[dict[int, tuple[int, float]], list[Step]]]:
    """Yield all interleavings of two writers with one or two preemptions that are not the same as another.

    Two are the same if only steps have changed places that do not touch the same objects, and do not look at
    the clock while it is put forward. Which those are follows from the steps of the one that is run.

    Yields:
        The calls before which the other has its turn, and the steps that were made.
    """
    same: set[tuple[int, int]] = set()
    first = 0
    while True:
        first += 1
        steps = meet(names, {first: (1, seconds)})
        if any(step.writer for step in steps[: first - 1]) or steps[first - 1].writer == 0:
            return  # the first writer was done before
        yield {first: (1, seconds)}, steps
        for count in range(1, len(list(takewhile(lambda step: step.writer == 1, steps[first - 1 :])))):
            if (first, count) in same:
                continue
            switches = {first: (1, seconds), first + 1 + count: (0, seconds)}
            steps = meet(names, switches)
            yield switches, steps
            between, after = steps[first - 1 :][:count], steps[first - 1 + count :]
            assert {step.writer for step in between} == {1}
            others = list(takewhile(lambda step: step.writer == 0, after))
            last = after[len(others) :]
            same |= {(first + more, count) for more in _moves(others, between, seconds)}
            same |= {(first, count + more) for more in _moves(last, others, seconds)}


def _moves(steps: list[Step], others: list[Step], seconds: float) -> Iterator[int]:
    """Yield how many of the first steps could as well have been made on the other side of others."""
    for number, step in enumerate(steps, 1):
        if (seconds and step.sees_time) or not step.commutes(others):
            return
        yield number


@pytest.mark.parametrize("names", MEETINGS, ids="+".join)
@pytest.mark.parametrize("seconds", [0, EXPIRED], ids=["while the lock is held", "when the lease has ended"])
def test_two_writers_preempt_each_other_once_at_any_calls(names: tuple[str, ...], seconds: float) -> None:
    last_calls = [max(switches) for switches, _ in meetings(names, seconds)]

    assert len(last_calls) > 30


def test_steps_change_places_unless_they_touch_the_same_objects() -> None:
    read, listing = Step(0, ("lake/a",), writes=False), Step(0, ("lake/*",), writes=False)
    writes = {key: Step(1, (key,), writes=True) for key in ("lake/a", "lake/b", "records/a")}

    assert {key for key, write in writes.items() if not read.commutes([write])} == {"lake/a"}
    assert {key for key, write in writes.items() if not listing.commutes([write])} == {"lake/a", "lake/b"}
    assert read.commutes([listing, Step(1, ("lake/a",), writes=False)])
    assert not writes["lake/b"].commutes([read, writes["lake/b"]])


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
