"""Several writers of one day: at whichever call one is preempted, the day is whole and no row is lost."""

import gzip
import hashlib
import json
import os
import random
import re
import secrets
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import partial
from typing import Any

import pytest

from consumers.rows import late_days
from exporter.export import day as day_module
from exporter.export import whole_rows
from exporter.export.day import DayJob
from exporter.export.handler import make_handler
from exporter.export.run import Run
from exporter.lake import days as days_module
from exporter.lake.athena import file_list_problems
from exporter.lake.days import GRACE, Day
from exporter.lake.forgotten_list import ForgottenList
from exporter.lake.formats import Format
from exporter.lake.locks import LEASE
from exporter.lake.manifest import MANIFEST
from exporter.store import Answer, Column, Days, Span, Tally, Values, minute
from exporter.stores.metered import Metered
from exporter.upkeep.tasks import FORGET, Task, Tasks
from exporter.upkeep.verify import verify_day
from tests.builders import Context
from tests.exporter.export.test_export import COLUMNS, DAY, FOLDER, NOW, made
from tests.exporter.preemptions import Choice, OneThread, Shared, Tokens, Turns, View, interleavings
from tests.twins import Bucket, Rows, read_key

JOB = DayJob(size=1, slice_rows=1_200, read_key=read_key)


class Waiting(Rows):
    """The store as one writer has it: it answers when it is the writer's turn."""

    def __init__(self, shared: Rows, turns: Turns, number: int) -> None:
        super().__init__(COLUMNS, [])
        self.kept = shared.kept
        self._turns, self._number = turns, number

    def _wait(self) -> None:
        self._turns.wait(self._number)
        self._turns.answered(self._number, len(self.kept))

    def tally(self, day: date) -> Tally:
        self._wait()
        return super().tally(day)

    def columns(self, day: date) -> tuple[Column, ...]:
        self._wait()
        return super().columns(day)

    def rows(self, span: Span, columns: tuple[Column, ...]) -> Answer:
        self._wait()
        answer = super().rows(span, columns)
        return Answer(answer.columns, iter(list(answer.pages)))


def check_files(bucket: Bucket, key: str = FOLDER + MANIFEST) -> None:
    """The files of a committed manifest are there, each as the manifest describes it."""
    if key in {"", FOLDER + MANIFEST} and FOLDER + MANIFEST in bucket:
        for part in json.loads(bucket[FOLDER + MANIFEST])["parts"]:
            assert hashlib.sha256(bucket[part["key"]]).hexdigest() == part["sha256"]


MARKER = late_days.marker_key(DAY, "batch", "delivery")
EXPORT = {"day": DAY.isoformat()}
EXPIRED = LEASE.total_seconds() + 1
# The clients of a day's rows: with three rows a part, it has two parts, or one.
CLIENTS, FEW = "acca", "ac"
PREPARED: dict[tuple[bool, bool, str], tuple[dict[str, bytes], dict[str, Any]]] = {}


@pytest.fixture(autouse=True)
def _short_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    # A part ends with a batch: so a day of a few rows has several parts.
    monkeypatch.setattr(whole_rows, "BATCH_ROWS", 3)
    monkeypatch.setattr(secrets, "token_hex", Tokens().token_hex)


@pytest.fixture
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing depends on which of a writer's threads is quicker: the same choices make the same calls."""

    def fan_out(items: Iterator[Any], consumers: list[Callable[[Iterator[Any]], object]]) -> list[Any]:
        (consumer,) = consumers
        future = OneThread().submit(consumer, items)
        return [future.exception() or future.result()]

    monkeypatch.setattr(day_module, "ThreadPoolExecutor", OneThread)
    monkeypatch.setattr(day_module, "fan_out", fan_out)
    monkeypatch.setattr(day_module, "ahead", iter)
    monkeypatch.setattr(days_module, "ahead", iter)


class Lake:
    """A day that was exported and got a late row since, and those who write it."""

    def __init__(self, turns: Turns, *names: str, has_late_row: bool = True, clients: str = CLIENTS) -> None:
        is_begun = "continue_export" in names
        bucket, self.continuation = prepared(has_late_row=has_late_row, is_begun=is_begun, clients=clients)
        self.rows = kept_rows(has_late_row=has_late_row, clients=clients)
        self.shared = Shared(bucket, lambda key: check_files(self.shared, key))
        self.shared.modified = dict.fromkeys(bucket, NOW)
        self.turns = turns
        self.erased = False
        self.names = names

    def writers(self) -> list[Callable[[], object]]:
        return [partial(getattr(self, name), number) for number, name in enumerate(self.names)]

    def state(self) -> Hashable:
        return self.shared.state(), tuple(self.rows.kept), self.erased

    def export(self, number: int, event: dict[str, Any] | None = None) -> None:
        Exporter(self.shared, self.rows, self.turns, number)(event or EXPORT)

    def night(self, number: int) -> None:
        """Export only what the markers name that are there by now, and remove them."""
        markers = sorted(View(self.shared, self.turns, number).keys(late_days.PREFIX))
        run = Run(f"request-{number}", (DAY,), {str(DAY): markers}, nightly=True)
        self.export(number, run.to_event())

    def continue_export(self, number: int) -> None:
        self.export(number, self.continuation)

    def receive_late_row(self, number: int) -> None:
        bucket = View(self.shared, self.turns, number)
        self.turns.call(number)
        # Before the first part ends, or after it.
        row = made(2_001 + number, client="c", hour=9 + 2 * (number % 2))
        self.rows.keep(row)
        bucket.put(late_days.marker_key(DAY, "batch", "another"), [marker_of(row)], "text/plain")

    def erase(self, number: int, client: str = "a") -> None:
        failures = erase(View(self.shared, self.turns, number), self.rows, self.turns, number, client)
        # The days that the command names have to be erased again.
        assert all(re.search("another run|NoSuchKey", failure) for failure in failures)
        self.erased |= client == "a" and not failures

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
        check_files(self.shared)
        manifest = Day(self.shared, DAY, Format.CSV_GZ).manifest()
        assert manifest is not None
        ids = self.ids()
        assert len(set(ids)) == len(ids)
        if not list(self.shared.keys(late_days.PREFIX)):
            assert {row[5] for row in self.rows.kept if row[6] == "c"} <= set(ids)
        if self.erased:
            assert not {row[5] for row in self.rows.kept if row[6] == "a"} & set(ids)
        if not self.turns.kills:
            assert list(file_list_problems(self.shared, manifest, self.turns.now)) == []
        night = NOW + timedelta(days=1) + GRACE
        Exporter(self.shared, self.rows, Turns(night, name="night")).alone({})
        forgotten = ForgottenList(self.shared, read_key).read()
        if forgotten and forgotten.until("a") and not self.erased:
            # The command named the day, or was killed.
            turns = Turns(night, name="again")
            view = View(self.shared, turns, 0)
            named: list[str] = []
            assert turns.run([lambda: named.extend(erase(view, self.rows, turns, 0, "a"))]) == [None]
            assert named == []
        day = Day(self.shared, DAY, Format.CSV_GZ)
        wanted = {row[5] for row in self.rows.kept if forgotten is None or not forgotten.until(str(row[6]))}
        assert set(self.ids()) == wanted
        assert list(self.shared.keys(late_days.PREFIX)) == []
        self.rows.keeps_for = None
        assert list(verify_day(day, night, self.rows)) == []


LATE_ROW = made(2_000, client="c")


def marker_of(row: Values) -> bytes:
    return late_days.marker_body([minute(str(row[0]))])


def kept_rows(*, has_late_row: bool, clients: str) -> Rows:
    """Return the store's rows."""
    rows = Rows(COLUMNS, [made(number, client=client) for number, client in enumerate(clients)])
    if has_late_row:
        rows.keep(LATE_ROW)
    return rows


@dataclass(frozen=True)
class Exporter:
    """The export's function, as a writer.

    Attributes:
        shared: The bucket.
        rows: The store's rows.
        turns: The turns that it takes.
        number: Which writer it is.
    """

    shared: Shared
    rows: Rows
    turns: Turns
    number: int = 0

    def __call__(self, event: dict[str, Any], seconds: Iterator[float] | None = None) -> dict[str, Any]:
        """Export what an event asks for, and return the event that continues it, if the time is over."""
        continuation: dict[str, Any] = {}
        handler = make_handler(
            Metered(Waiting(self.rows, self.turns, self.number)),
            View(self.shared, self.turns, self.number),
            invoke=lambda _name, event: continuation.update(event),
            job=replace(JOB, now=partial(self.turns.time, self.number)),
        )
        context = Context(900_000, f"request-{self.number}")
        if seconds is not None:
            context.get_remaining_time_in_millis = lambda: int(next(seconds, 1.0) * 1_000)  # type: ignore[method-assign]
        handler(json.loads(json.dumps(event)), context)
        return continuation

    def alone(self, event: dict[str, Any], seconds: Iterator[float] | None = None) -> dict[str, Any]:
        """Do it undisturbed."""
        continuation: dict[str, Any] = {}
        assert self.turns.run([lambda: continuation.update(self(event, seconds))]) == [None]
        return continuation


def erase(bucket: Bucket, rows: Rows, turns: Turns, number: int, client: str) -> list[str]:
    """Erase a client from the day, as a writer, and return why that failed."""
    now = partial(turns.time, number)
    tasks = Tasks(bucket, Waiting(rows, turns, number), f"upkeep-{number}", now, read_key)
    done = tasks.do(Task(FORGET, Days(DAY, DAY), client, began=now().isoformat()), lambda: True)
    assert done.left is None
    return [str(result["failed"]) for result in done.results if "failed" in result]


def prepared(*, has_late_row: bool, is_begun: bool, clients: str) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Return a day that was exported once, and whose next export may have run out of time."""
    if (has_late_row, is_begun, clients) not in PREPARED:
        shared, continuation = Shared({}), dict[str, Any]()
        Exporter(shared, kept_rows(has_late_row=False, clients=clients), Turns(NOW, name="before")).alone(
            EXPORT
        )
        if has_late_row:
            shared[MARKER] = marker_of(LATE_ROW)
        if is_begun:
            rows = kept_rows(has_late_row=has_late_row, clients=clients)
            turns = Turns(NOW, name="begun")
            continuation = Exporter(shared, rows, turns).alone(EXPORT, iter([900.0, 900.0]))
            assert continuation
        PREPARED[has_late_row, is_begun, clients] = dict(shared), continuation
    return PREPARED[has_late_row, is_begun, clients]


WRITERS = ["export", "night", "continue_export", "erase", "erase_another", "receive_late_row", "verify"]
PAIRS = [
    ("export", "export"),
    ("continue_export", "continue_export"),
    ("export", "erase"),
    ("continue_export", "erase"),
    ("export", "erase_another"),
    ("continue_export", "erase_another"),
    ("erase", "erase"),
    ("export", "receive_late_row"),
    ("export", "night"),
    ("night", "erase"),
    ("night", "receive_late_row"),
    ("verify", "export"),
    ("verify", "erase"),
]
THREE = [
    ("export", "export", "erase"),
    ("export", "erase", "receive_late_row"),
    ("continue_export", "continue_export", "receive_late_row"),
    ("continue_export", "erase", "verify"),
]
TIMES = pytest.mark.parametrize(
    "seconds", [0, EXPIRED], ids=["while the lock is held", "when the lease has ended"]
)


def check_all(names: tuple[str, ...], seconds: float, *, clients: str, takes_long: bool) -> None:
    """Run writers in all interleavings of two preemptions.

    After leases, another writer goes on where it would give up: what takes minutes then is tried with one
    preemption, and with two by `make interleavings`.
    """
    preemptions = 1 if takes_long and seconds and not os.environ.get("INTERLEAVINGS") else 2

    runs = list(
        interleavings(
            lambda turns: Lake(turns, *names, clients=clients), NOW, preemptions=preemptions, seconds=seconds
        )
    )

    assert {len(choices) for choices in runs} >= set(range(preemptions + 1))


@TIMES
@pytest.mark.parametrize("names", PAIRS, ids="+".join)
@pytest.mark.usefixtures("_one_thread")
def test_two_writers_in_all_interleavings_of_two_preemptions(names: tuple[str, ...], seconds: float) -> None:
    check_all(names, seconds, clients=FEW if "night" in names else CLIENTS, takes_long="night" in names)


@TIMES
@pytest.mark.parametrize("names", THREE, ids="+".join)
@pytest.mark.usefixtures("_one_thread")
def test_three_writers_in_all_interleavings_of_two_preemptions(
    names: tuple[str, ...], seconds: float
) -> None:
    # The second part of a day adds calls, and ten times as many runs, but no other kind of call.
    clients = FEW if seconds and "continue_export" not in names else CLIENTS

    check_all(names, seconds, clients=clients, takes_long=True)


@TIMES
@pytest.mark.parametrize("names", [("export", "erase"), ("continue_export", "export")], ids="+".join)
@pytest.mark.usefixtures("_one_thread")
def test_killed_at_any_call_beside_another_writer_the_day_is_whole(
    names: tuple[str, ...], seconds: float
) -> None:
    runs = list(
        interleavings(lambda turns: Lake(turns, *names), NOW, preemptions=1, kills=1, seconds=seconds)
    )

    assert sum(choice.kills for choices in runs for choice in choices.values()) > 100


@pytest.mark.parametrize("seed", range(4))
def test_two_or_three_writers_meet_at_random(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(250):
        names = tuple(chance.choices(WRITERS, k=chance.choice([2, 3])))
        choices = {
            chance.randrange(1, 40 * len(names)): Choice(
                chance.randrange(len(names)), chance.choice([0, EXPIRED])
            )
            for _ in range(chance.randrange(1, 6))
        }
        turns = Turns(NOW, choices)
        lake = Lake(turns, *names, has_late_row=chance.random() < 0.5)
        try:
            lake.check(turns.run(lake.writers()))
        except Exception as error:
            raise AssertionError(f"{names} with {choices}") from error
