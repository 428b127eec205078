"""Tasks over days, by the function: verified, searched, erased, by as many invocations as it takes."""

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from consumers.rows.timestream.writer import Timestream
from exporter.downloads.jobs import Job, Request, job_key
from exporter.export import whole_rows
from exporter.export.day import DayJob, export_day
from exporter.lake.days import Day
from exporter.lake.formats import Format
from exporter.store import Days, Type, Values
from exporter.stores.lake.questions import LakeStore
from exporter.upkeep.handler import TooLongError, make_handler
from exporter.upkeep.tasks import MAX_CONTINUATIONS, Task, Tasks
from tests.builders import Context
from tests.exporter.upkeep.test_rejected_rows import MagneticStore
from tests.fragments import write_fragments
from tests.twins import Bucket, Rows, read_key, write_job

NOW = datetime(2025, 12, 1, tzinfo=UTC)
FIRST = date(2025, 11, 18)
DAYS = [FIRST + timedelta(days=number) for number in range(4)]
COLUMNS: dict[str, Type] = {
    "time": "timestamp",
    "_type": "text",
    "_id": "text",
    "client": "text",
    "_overflow": "text",
}


def made(day: date, number: int) -> Values:
    client = ["acme", "other"][number % 2]
    overflow = f"overflow/{day}/{number}.json" if number < 2 else None
    return (f"{day} 10:{number // 60:02}:{number % 60:02}.000000000", "order", f"r{number}", client, overflow)


@pytest.fixture(autouse=True)
def _short_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    # A part ends with a batch: so a day of a few rows has several parts.
    monkeypatch.setattr(whole_rows, "BATCH_ROWS", 20)


class Function:
    """The function over a lake of some days.

    Attributes:
        invoked: The events that it invoked itself with.
    """

    def __init__(self, *days: date, kinds: tuple[Format, ...] = (Format.CSV_GZ,), rows: int = 60) -> None:
        self.bucket = Bucket()
        self.store = Rows(COLUMNS, [made(day, number) for day in days for number in range(rows)])
        self.invoked: list[dict[str, Any]] = []
        for day in days:
            for number in range(2):
                self.bucket[f"overflow/{day}/{number}.json"] = b"{}"
            for kind in kinds:
                export_day(
                    Day(self.bucket, day, kind),
                    self.store,
                    DayJob(size=1_000, slice_rows=20, read_key=read_key),
                )
        self.store.keeps_for = None

    def __call__(self, task: str, *, seconds: float = 900, **more: Any) -> dict[str, Any]:
        event = {"task": task, "from": str(DAYS[0]), "to": str(DAYS[-1]), **more}
        return self.run(event, seconds)

    def run(self, event: dict[str, Any], seconds: float = 900) -> dict[str, Any]:
        handler = make_handler(
            Timestream(MagneticStore(self.bucket), "t", "records", sleep=lambda _: None, jitter=lambda: 0.0),
            self.store,
            self.bucket,
            report=lambda _: None,
            report_task=lambda _task, _done: None,
            read_key=read_key,
            invoke=lambda _, event: self.invoked.append(json.loads(json.dumps(event))),
            now=lambda: NOW,
        )
        answer = handler(json.loads(json.dumps(event)), Context(int(seconds * 1000)))
        read: dict[str, Any] = json.loads(json.dumps(answer))
        return read

    def answers(self, task: str, seconds: float = 900, **more: Any) -> Iterator[dict[str, Any]]:
        """Yield the answers to a caller who waits until the task is done."""
        answer = self(task, seconds=seconds, wait=True, **more)
        yield answer
        while "continues" in answer:
            answer = self.run(answer["continues"], seconds)
            yield answer

    def clients(self) -> set[str | None]:
        found: set[str | None] = set()
        for day in DAYS:
            for kind in Format:
                lake_day = Day(self.bucket, day, kind)
                if manifest := lake_day.manifest():
                    place = [column.name for column in manifest.columns].index("client")
                    found |= {row[place] for batch in lake_day.rows(manifest) for row in batch.rows}
        return found


def test_clients_to_be_forgotten_are_listed_and_taken_back() -> None:
    function = Function(DAYS[1])
    list(function.answers("forget", client="acme"))

    (listed,) = function.run({"task": "list"})["clients"]
    undone = function.run({"task": "undo", "client": "acme"})

    assert listed["erased"] == NOW.isoformat()
    assert undone["audit"] in function.bucket
    assert function.run({"task": "undo", "client": "acme"}) == {"audit": None}
    assert function.run({"task": "list"}) == {"clients": []}


def test_the_schedule_drops_clients_of_whom_the_store_has_no_row_any_more() -> None:
    function = Function(DAYS[1])
    list(function.answers("forget", client="acme", began=(NOW - timedelta(days=8)).isoformat()))

    function.run({})
    assert len(function.run({"task": "list"})["clients"]) == 1
    function.store.keeps_for = timedelta(days=7)
    function.run({})
    assert function.run({"task": "list"}) == {"clients": []}


def test_days_are_verified_and_those_that_were_never_exported_are_ranges() -> None:
    function = Function(DAYS[1])

    answer = function("verify")

    assert (answer["done"], answer["total"]) == (1, 1)
    never = ["there is no manifest: the day was never exported"]
    assert answer["results"] == [
        {"day": "2025-11-18", "last_day": "2025-11-18", "format": "csv.gz", "problems": never},
        {"day": "2025-11-20", "last_day": "2025-11-21", "format": "csv.gz", "problems": never},
        {"day": "2025-11-19", "format": "csv.gz", "rows": 60, "problems": []},
    ]


def test_centuries_without_days_are_verified_with_one_listing_for_each_format() -> None:
    function = Function(DAYS[0])
    listings: list[str] = []
    listed = function.bucket.listed
    function.bucket.listed = lambda prefix: (listings.append(prefix), listed(prefix))[1]  # type: ignore[method-assign, func-returns-value]

    answer = function.run({"task": "verify", "from": "1900-01-01", "to": "2099-12-31"})

    found = [(result["day"], result.get("last_day"), len(result["problems"])) for result in answer["results"]]
    assert found == [
        ("1900-01-01", "2025-11-17", 1),
        ("2025-11-19", "2099-12-31", 1),
        ("2025-11-18", None, 0),
    ]
    assert len(listings) < 10


@pytest.mark.parametrize("kinds", [(Format.CSV_GZ,), (Format.CSV_GZ, Format.PARQUET)])
def test_a_task_whose_time_is_always_over_ends_with_the_same_results(kinds: tuple[Format, ...]) -> None:
    function = Function(*DAYS, kinds=kinds)
    key = next(key for key in function.bucket if "day=20/part-00002" in key)
    function.bucket[key] = function.bucket[key][:-9]
    at_once = function("verify")

    answers = list(function.answers("verify", seconds=1))

    assert len(answers) > len(DAYS) * len(kinds), "days of several parts take several invocations"
    assert [result for answer in answers for result in answer["results"]] == at_once["results"]
    assert [answer["done"] for answer in answers] == sorted(answer["done"] for answer in answers)
    assert {answer["total"] for answer in answers} == {len(DAYS) * len(kinds)}
    (wrong,) = [result for result in at_once["results"] if result["problems"]]
    assert wrong["problems"][0].startswith("part-00002")


def test_a_day_that_is_replaced_between_two_invocations_is_verified_from_its_beginning() -> None:
    function = Function(DAYS[0])
    day = Day(function.bucket, DAYS[0], Format.CSV_GZ)
    manifest = day.manifest()
    assert manifest is not None
    lost = function.bucket.pop(manifest.parts[0].key)
    begun = function("verify", seconds=1, wait=True)
    begun = function.run(begun["continues"], 1)
    assert begun["continues"]["verified"]["parts"] > 1

    function.bucket[manifest.parts[0].key] = lost
    function.store.keep(made(DAYS[0], 400))
    export_day(day, function.store, DayJob(size=1_000, slice_rows=20, read_key=read_key))
    answers = [begun]
    while "continues" in answers[-1]:
        answers.append(function.run(answers[-1]["continues"]))

    (result,) = answers[-1]["results"]
    assert (result["rows"], result["problems"]) == (61, [])


@pytest.mark.parametrize("seconds", [900, 1])
def test_a_client_is_found_and_then_forgotten_whatever_the_time(seconds: float) -> None:
    function = Function(*DAYS, kinds=(Format.CSV_GZ, Format.PARQUET))
    job = Job("0" * 32, Request(Days(DAYS[0], DAYS[0])))
    write_job(function.bucket, job)
    before = dict(function.bucket)

    found = list(function.answers("find", seconds, client="acme"))
    assert dict(function.bucket) == before
    forgotten = list(function.answers("forget", seconds, client="acme"))

    for answers in (found, forgotten):
        results = [result for answer in answers for result in answer["results"]]
        assert [(result["rows"], result["whole_records"]) for result in results] == [(30, 1)] * 8
    # A day has three parts: each is searched, and each is written again. Then come the days of the store.
    assert len(forgotten) == (1 if seconds == 900 else 8 * 6 + 3)
    assert function.clients() == {"other"}
    assert job_key(job.id) not in function.bucket
    assert not [key for key in function.bucket if key.startswith("overflow/") and key.endswith("/0.json")]
    (audit,) = [key for key in function.bucket if key.startswith("lake/audit/")]
    assert [answer.get("audit") for answer in forgotten][-1] == audit
    entry = json.loads(function.bucket[audit])
    assert (entry["rows"], entry["overflow_objects"], len(entry["days"])) == (240, 4, 8)
    assert "acme" not in function.bucket[audit].decode()
    assert [result["problems"] for result in function("verify")["results"]] == [[]] * 8


@pytest.mark.parametrize("is_late", [False, True])
def test_rows_in_fragments_are_counted_and_deleted_day_by_day_whatever_the_time(is_late: bool) -> None:
    bucket = Bucket()
    for day in DAYS[1:]:
        rows = [
            {"time": f"{day} 10:00:0{number}.000000000", "_id": f"{number}", "source": "/g", "client": client}
            for number, client in enumerate(("acme", "other", "acme"))
        ]
        write_fragments(bucket, rows)
    store = LakeStore(bucket, read_key=read_key)
    tasks = Tasks(bucket, store, "run", lambda: NOW, read_key)

    for name in ("find", "forget"):
        left: Task | None = Task(name, Days(DAYS[0], DAYS[-1]), "acme", began=NOW.isoformat())
        results, invocations = [], 0
        while left:
            done = tasks.do(
                Task.from_event(json.loads(json.dumps(left.to_event())), NOW), lambda: not is_late
            )
            results += done.results
            left, invocations = done.left, invocations + 1
        assert [(each["day"], each["format"], each["rows"]) for each in results] == [
            (str(day), "store", 2) for day in DAYS[1:]
        ]
        assert invocations == (len(DAYS) if is_late else 1)

    assert [sum(store.tally(day).values()) for day in DAYS] == [0, 1, 1, 1]


def test_what_an_ended_export_left_is_removed_and_days_without_files_are_not_looked_at() -> None:
    function = Function(DAYS[0])
    left = f"records/year=2025/month=11/day={DAYS[2]:%d}/part-00000-0123.csv.gz"
    function.bucket[left] = b"rows of acme, perhaps"

    answer = function("forget", client="acme")

    assert [result["day"] for result in answer["results"]] == [str(DAYS[0]), str(DAYS[2])]
    assert left not in function.bucket


def test_days_that_cannot_be_read_or_are_being_written_are_named_and_the_others_are_done() -> None:
    function = Function(*DAYS)
    other = Day(function.bucket, DAYS[1], Format.CSV_GZ)
    assert other.take("an export", NOW)
    # Nothing of this day is there yet: its export has begun a moment ago.
    assert Day(function.bucket, date(2025, 11, 25), Format.CSV_GZ).take("an export", NOW)
    manifest = Day(function.bucket, DAYS[2], Format.CSV_GZ).manifest()
    assert manifest is not None
    function.bucket[manifest.parts[0].key] = b"damaged"

    answer = function("forget", client="acme", to="2025-11-25")

    failed = {result["day"]: result["failed"] for result in answer["results"] if "failed" in result}
    assert list(failed) == [str(DAYS[1]), str(DAYS[2]), "2025-11-25"]
    assert "another run is writing the day" in failed[str(DAYS[1])]
    assert "ValueError" in failed[str(DAYS[2])]
    assert [result["rows"] for result in answer["results"] if "failed" not in result] == [30, 30]
    other.release()
    assert function("forget", client="acme")["results"][1]["rows"] == 30


def test_the_function_invokes_itself_if_nobody_waits_but_not_for_ever() -> None:
    function = Function(*DAYS, rows=20)

    answer = function("forget", client="acme", seconds=1)
    while "continues" in answer:
        assert function.invoked[-1] == answer["continues"]
        answer = function.run(function.invoked[-1], 1)

    assert len(function.invoked) == 7 + 3
    assert function.clients() == {"other"}
    assert len([key for key in function.bucket if key.startswith("lake/audit/")]) == 1
    event = {**function.invoked[-1], "continuations": MAX_CONTINUATIONS + 1}
    with pytest.raises(TooLongError, match="ask for fewer days"):
        function.run(event)
    assert function.run({**event, "wait": True})["done"] == len(DAYS)


def test_a_large_day_is_erased_part_by_part_and_the_lock_is_handed_over() -> None:
    function = Function(DAYS[0], rows=200)
    day = Day(function.bucket, DAYS[0], Format.CSV_GZ)
    answer = function("forget", client="acme", seconds=1, wait=True)
    events = []
    while "continues" in answer:
        events.append(answer["continues"])
        if events[-1]["in_store"] is None:
            assert not Day(function.bucket, DAYS[0], Format.CSV_GZ).take("an export", NOW)
        answer = function.run(events[-1], 1)

    manifest = day.manifest()
    assert manifest is not None
    assert (manifest.revision, manifest.rows, len(manifest.parts)) == (2, 100, 10)
    assert len(events) == 19 + 3
    assert function.clients() == {"other"}
    assert day.take("an export", NOW)
    day.release()
    # An event that Lambda delivers again finds nothing to do, or leaves the day to whom it belongs.
    for event in events[:19]:
        assert function.run(event)["results"] == [
            {"day": str(DAYS[0]), "format": "csv.gz", "rows": 0, "whole_records": 0}
        ]
    assert day.manifest() == manifest


def test_a_day_that_is_exported_while_it_is_erased_is_searched_again() -> None:
    function = Function(DAYS[0], rows=60)
    day = Day(function.bucket, DAYS[0], Format.CSV_GZ)
    answer = function("forget", client="acme", seconds=1, wait=True)
    for _ in range(3):
        answer = function.run(answer["continues"], 1)
    assert day.progress()[0] is not None
    # The next invocation comes so late that the lease has ended, and an export was quicker.
    function.store.keep(made(DAYS[0], 400))
    job = DayJob(size=1_000, slice_rows=20, now=lambda: NOW + timedelta(minutes=10), read_key=read_key)
    assert day.take("an export", NOW + timedelta(minutes=10))
    export_day(day, function.store, job)
    day.release()

    while "continues" in answer:
        answer = function.run(answer["continues"], 1)

    manifest = day.manifest()
    assert manifest is not None
    assert (manifest.rows, function.clients()) == (30, {"other"})
    assert function("verify")["results"][-1]["problems"] == []


@pytest.mark.parametrize(
    ("event", "problem"),
    [
        ({"task": "erase"}, "task is 'erase'; give verify, find or forget"),
        ({"task": "forget"}, "the task forget needs a client"),
        ({"task": "verify", "from": "2025-11-22"}, "is before the first"),
        ({"task": "verify", "to": "yesterday"}, "Invalid isoformat"),
        ({"task": "verify", "after": ["2025-11-20", "records/"]}, "'records/' is not a valid Format"),
    ],
)
def test_an_event_that_is_no_task_is_refused_with_what_is_wrong(event: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Function()(**event)
