"""The export's function: the days that an event asks for are written, by as many invocations as it takes."""

import json
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest

from consumers.rows import late_days
from consumers.settings import SettingsError
from exporter.export.day import DayJob, Export
from exporter.export.handler import DaysFailedError, make_handler, parse_formats, report_exported
from exporter.export.run import Run, StuckError, run_of
from exporter.lake.days import Day
from exporter.lake.formats import Format
from exporter.lake.locks import LEASE
from exporter.store import Values
from exporter.stores.metered import Metered
from tests.builders import Context
from tests.exporter.export.test_export import (
    COLUMNS,
    DAY,
    FOLDER,
    NOW,
    SMALL,
    exported,
    made,
    many,
    read,
    store,
)
from tests.twins import Bucket, Rows, forget_client, read_key


def test_formats_are_listed_with_commas_and_others_refused_by_name() -> None:
    assert parse_formats("parquet, csv.gz") == (Format.PARQUET, Format.CSV_GZ)
    with pytest.raises(
        SettingsError, match=rf"EXPORT_FORMATS is 'orc': .* there are {re.escape(', '.join(Format))}"
    ):
        parse_formats("orc")


def test_the_metrics_of_a_day_are_gauges_of_each_format(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POWERTOOLS_METRICS_NAMESPACE", "Tagline")
    monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", f"tagline-{time.monotonic_ns()}")
    rows = store(*(made(number, client="ac"[number % 2]) for number in range(10)))
    job = replace(SMALL, read_key=read_key)
    function = Function(rows, job=job, formats=(Format.CSV_GZ, Format.PARQUET))
    function({"day": "2025-11-20"})
    function({"day": "2025-11-20"})
    forget_client("a", function.bucket, NOW)
    rows.keep(made(10, client="c"))
    function({"day": "2025-11-20"})

    for export in function.reported:
        report_exported(export)

    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if "_aws" in line]
    assert {tuple(line["_aws"]["CloudWatchMetrics"][0]["Dimensions"][0]) for line in lines} == {
        ("format", "service")
    }
    told = [
        (line["format"], *line["exported_rows"], *line["exported_forgotten"])
        for line in sorted(lines, key=lambda line: str(line["format"]))
    ]
    # Ten rows count as ten, in however many formats and nights they are exported.
    assert told == [
        ("csv.gz", 10, 0),
        ("csv.gz", 10, 0),
        ("csv.gz", 6, 5),
        ("parquet", 10, 0),
        ("parquet", 10, 0),
        ("parquet", 6, 5),
    ]


# --- the function -----------------------------------------------------------------------------------------


class Function:
    """The handler over twins; what it calls itself with is kept."""

    def __init__(
        self,
        rows: Rows,
        bucket: Bucket | None = None,
        job: DayJob = SMALL,
        formats: tuple[Format, ...] = (Format.CSV_GZ,),
        max_scanned: int = 10**12,
        *,
        describe: Callable[[Format], None] | None = None,
        lake_days: int | None = None,
    ) -> None:
        self.bucket = Bucket() if bucket is None else bucket
        self.reported: list[Export] = []
        self.failures: list[tuple[str, str, bool]] = []
        self.errors: list[Exception] = []
        self.called: list[tuple[str, dict[str, Any]]] = []
        self.described: list[Format] = []
        self.now = NOW
        self._handler = make_handler(
            Metered(rows, max_scanned),
            self.bucket,
            job=replace(job, now=lambda: self.now),
            report=self.reported.append,
            report_error=lambda _, error: self.errors.append(error),
            report_failure=lambda *failure: self.failures.append(failure),
            invoke=lambda name, event: self.called.append((name, event)),
            describe=describe or self.described.append,
            lake_days=lake_days,
            formats=formats,
        )

    def __call__(self, event: dict[str, Any], context: Any = None) -> dict[str, Any]:
        answer: dict[str, Any] = self._handler(json.loads(json.dumps(event)), context or Context(900_000))
        return answer


def test_the_handler_exports_a_range_day_by_day_and_says_what_it_did() -> None:
    function = Function(store(made(1), made(2), made(3, date(2025, 11, 21))))

    days = function({"from": "2025-11-20", "to": "2025-11-22"})["days"]

    assert [(day["day"], day["rows"], day["parts"], day["format"]) for day in days] == [
        ("2025-11-20", 2, 1, "csv.gz"),
        ("2025-11-21", 1, 1, "csv.gz"),
        ("2025-11-22", 0, 0, "csv.gz"),
    ]
    assert [export.manifest.rows for export in function.reported] == [2, 1, 0]
    assert function.described == [Format.CSV_GZ]
    assert not any("locks/" in key for key in function.bucket)


def test_all_formats_are_written() -> None:
    function = Function(store(made(1)), formats=(Format.CSV_GZ, Format.PARQUET))

    days = function({"day": "2025-11-20"})["days"]

    assert [day["format"] for day in days] == ["csv.gz", "parquet"]


def test_a_day_whose_manifest_somebody_removed_is_written_under_new_names() -> None:
    function = Function(store(made(1)))
    function({"day": "2025-11-20"})
    manifest = Day(function.bucket, DAY, Format.CSV_GZ).manifest()
    assert manifest is not None
    key = next(key for key in function.bucket if key.endswith("_manifest.json"))
    function.bucket[key] = b"damaged"
    with pytest.raises(DaysFailedError, match=r"csv\.gz: JSONDecodeError"):
        function({"day": "2025-11-20"})

    del function.bucket[key]
    function({"day": "2025-11-20"})

    again = Day(function.bucket, DAY, Format.CSV_GZ).manifest()
    assert again is not None
    assert again.revision == manifest.revision
    assert {part.key for part in again.parts}.isdisjoint(part.key for part in manifest.parts)


def late(
    day: str, batch: str = "shardId-000000000000:49590338271490256608559692538361571095921575989136588898"
) -> str:
    return late_days.marker_key(date.fromisoformat(day), batch, "c6af9ac6-7b61-11e6-9a41-93e8deadbeef")


def test_the_daily_run_writes_the_days_again_that_rows_came_to_late() -> None:
    function = Function(store(made(1), made(2, date(2025, 11, 30))))
    function({"day": "2025-11-20"})
    function = Function(store(made(1), made(3), made(2, date(2025, 11, 30))), function.bucket)
    function.bucket |= {late("2025-11-20"): b"", late("2025-11-20", "other"): b"", late("2025-12-01"): b""}

    days = function({"time": "2025-12-01T00:15:00Z"})["days"]

    assert [(day["day"], day["rows"], day["revision"]) for day in days] == [
        ("2025-11-30", 1, 1),
        ("2025-11-20", 2, 2),
    ]
    # Today is not over: it is written tomorrow.
    assert list(function.bucket.keys("late/")) == [late("2025-12-01")]


def test_rows_that_come_late_while_a_day_is_written_are_for_the_next_run() -> None:
    class Meanwhile(Rows):
        bucket: Bucket

        def tally(self, day: date) -> dict[int, int]:
            self.bucket[late("2025-11-20", "meanwhile")] = b""
            return super().tally(day)

    rows = Meanwhile(COLUMNS, [made(1)])
    rows.bucket = Bucket({late("2025-11-20"): b""})
    function = Function(rows, rows.bucket)

    function({"day": "2025-11-20"})

    assert list(rows.bucket.keys("late/")) == [late("2025-11-20", "meanwhile")]


@pytest.mark.parametrize(("hours", "left"), [(6, True), (7, False)])
def test_word_of_late_rows_is_kept_until_they_can_be_asked_for(hours: int, left: bool) -> None:
    # "Writes to the magnetic store will not be immediately available to query. They will be available within
    # 6 hours": https://docs.aws.amazon.com/timestream/latest/developerguide/data-ingest.html
    function = Function(store(made(1)))
    function.bucket[late("2025-11-20")] = b""
    function.bucket.modified[late("2025-11-20")] = NOW - timedelta(hours=hours)

    for asked in ({}, {"day": "2025-11-20"}):
        days = function(asked)["days"]
        assert "2025-11-20" in [day["day"] for day in days]
        assert (late("2025-11-20") in function.bucket) is left
        function.bucket.setdefault(late("2025-11-20"), b"")


def test_what_somebody_else_has_put_beside_the_late_days_stops_no_export() -> None:
    function = Function(store(made(1)))
    function.bucket |= {"late/": b"", "late/notes.txt": b"", late("2025-11-20"): b""}

    assert [day["day"] for day in function({})["days"]] == ["2025-11-30", "2025-11-20"]
    assert sorted(function.bucket.keys("late/")) == ["late/", "late/notes.txt"]


def test_many_words_of_one_day_do_not_keep_those_of_another_from_being_answered() -> None:
    function = Function(store(made(1), made(2, date(2025, 11, 21))))
    function.bucket |= {late("2025-11-20", f"batch-{number}"): b"" for number in range(1_200)}
    function.bucket |= {late("2025-11-21"): b""}

    days = function({})["days"]

    assert [day["day"] for day in days] == ["2025-11-30", "2025-11-20", "2025-11-21"]
    assert late("2025-11-21") not in function.bucket
    assert 0 < len(list(function.bucket.keys("late/"))) < 1_200


def test_a_day_that_was_not_written_is_written_by_the_next_night() -> None:
    class Failing(Rows):
        fails = True

        def tally(self, day: date) -> dict[int, int]:
            if self.fails:
                raise OSError("no")
            return super().tally(day)

    rows = Failing(COLUMNS, [made(1, date(2025, 11, 30))])
    function = Function(rows)
    assert function({})["failed"] == {"2025-11-30": "OSError: no"}

    rows.fails = False
    function.now += timedelta(days=1)
    days = function({})["days"]

    assert [(day["day"], day["rows"]) for day in days] == [("2025-12-01", 0), ("2025-11-30", 1)]
    assert list(function.bucket.keys("late/")) == []


@pytest.mark.parametrize(("kept", "written"), [(10, False), (11, False), (12, True), (None, True)])
def test_a_day_that_the_store_has_forgotten_before_it_was_written_is_no_day_without_rows(
    kept: int | None, written: bool
) -> None:
    rows = store()
    rows.keeps_for = None if kept is None else timedelta(days=kept)
    function = Function(rows)

    if written:
        assert function({"day": "2025-11-20"})["days"][0]["rows"] == 0
    else:
        with pytest.raises(
            DaysFailedError,
            match=r"csv.gz: RowsGoneError: the store has no rows for this day and keeps rows for 1[01] days",
        ):
            function({"day": "2025-11-20"})
        assert Day(function.bucket, DAY, Format.CSV_GZ).manifest() is None


@pytest.mark.parametrize(
    "exported",
    [[made(1), made(2), made(3)], [made(1)], []],
    ids=["fewer rows", "more rows", "never exported"],
)
def test_late_rows_of_a_day_that_the_store_no_longer_has_whole_are_refused_by_name(
    exported: list[Values],
) -> None:
    function = Function(store(*exported))
    if exported:
        function({"day": "2025-11-20"})
    before = dict(function.bucket)
    # All but what came late is gone: Timestream forgets the oldest rows first.
    late_rows = [made(50), made(51)] if exported else []
    function = Function(store(*late_rows), function.bucket)
    function.bucket[late("2025-11-20")] = b""

    with pytest.raises(
        DaysFailedError, match=r"2025-11-20: csv.gz: RowsGoneError: rows came late \(1 objects under"
    ):
        function({"day": "2025-11-20"})

    assert function.bucket == before | {late("2025-11-20"): b""}


def test_a_day_that_fails_keeps_its_late_rows_and_does_not_keep_the_others_from_being_written() -> None:
    class Failing(Bucket):
        def put(self, key: str, chunks: Iterable[bytes], content_type: str) -> None:
            if "day=20/part" in key:
                raise OSError("no")
            super().put(key, chunks, content_type)

    bucket = Failing({late("2025-11-20"): b"", late("2025-11-21"): b""})
    function = Function(store(made(1), made(2, date(2025, 11, 21))), bucket)

    assert function({})["failed"] == {"2025-11-20": "csv.gz: OSError: no"}

    assert list(bucket.keys("late/")) == [
        late("2025-11-20"),
        late_days.marker_key(DAY, "failed", "2025-12-01"),
    ]
    assert [str(export.manifest.day) for export in function.reported] == ["2025-11-30", "2025-11-21"]


def test_replaced_files_of_other_days_are_removed_by_the_daily_run() -> None:
    function = Function(store(made(1)))
    function({"day": "2025-11-20"})
    function = Function(store(made(1), made(2)), function.bucket)
    function({"day": "2025-11-20"})
    assert len(list(function.bucket.keys(FOLDER + "part-"))) == 2

    function.now = NOW + timedelta(days=1)
    function({})

    assert len(list(function.bucket.keys(FOLDER + "part-"))) == 1
    assert len(read(function.bucket)) == 2


def test_files_that_a_killed_run_left_are_removed_by_the_daily_run_although_nobody_exports_the_day() -> None:
    function = Function(store(made(1)))
    day = Day(function.bucket, date(2025, 11, 10), Format.CSV_GZ)
    assert day.take("killed", function.now)
    left = f"records/year=2025/month=11/day=10/part-00000-{day.attempt}.csv.gz"
    function.bucket[left] = b"half of it"
    function.bucket.modified[left] = function.now

    function({"time": "2025-12-01T00:15:00Z"})
    assert left in function.bucket, "it may still be committed"
    function.now += timedelta(days=1)
    function({"time": "2025-12-02T00:15:00Z"})

    assert left not in function.bucket
    assert not any("locks/" in key for key in function.bucket)


@pytest.mark.parametrize("wait", [False, True], ids=["by itself", "by the caller"])
def test_a_range_that_takes_longer_than_an_invocation_is_continued_with_the_same_result(wait: bool) -> None:
    rows = store(*many(), *(made(number, date(2025, 11, 21)) for number in range(3_000)))
    undisturbed = Function(rows)
    undisturbed({"from": "2025-11-20", "to": "2025-11-21"})
    function = Function(rows)

    event: dict[str, Any] = {"from": "2025-11-20", "to": "2025-11-21", "wait": wait}
    told: list[dict[str, Any]] = []
    invocations = 0
    while True:
        invocations += 1
        answer = function(event, Ticking(calls=5))
        told += answer["days"]
        if "continues" not in answer:
            break
        assert [name for name, _ in function.called] == [] if wait else ["function"]
        event = answer["continues"]
        assert wait or function.called.pop()[1] == event

    assert invocations > 2
    assert [(day["day"], day["rows"]) for day in told] == [("2025-11-20", 4_000), ("2025-11-21", 3_000)]
    assert contents(function.bucket) == contents(undisturbed.bucket)


def contents(bucket: Bucket) -> dict[str, list[bytes]]:
    """Return what a reader of the lake gets, by manifest: names of parts differ from attempt to attempt."""
    manifests = {
        key: json.loads(body) for key, body in bucket.lake().items() if key.endswith("_manifest.json")
    }
    return {key: [bucket[part["key"]] for part in each["parts"]] for key, each in manifests.items()}


class Ticking(Context):
    """An invocation whose time is over after so many looks at it."""

    def __init__(self, calls: int, request_id: str = "c6af9ac6") -> None:
        super().__init__(aws_request_id=request_id)
        self.calls = calls

    def get_remaining_time_in_millis(self) -> int:
        self.calls -= 1
        return 900_000 if self.calls > 0 else 5_000


def test_a_day_of_which_no_part_fits_into_an_invocation_is_given_up_by_name() -> None:
    function = Function(store(*many()), job=DayJob(size=10**9, slice_rows=700))
    answer = function({"day": "2025-11-20", "wait": True}, Ticking(calls=3))

    with pytest.raises(StuckError, match="2025-11-20: not one part was written in a whole invocation"):
        function(answer["continues"], Ticking(calls=3))


def test_a_chain_of_invocations_has_an_end() -> None:
    run = Run("c6af9ac6", (DAY,), continuations=12, waited_for=True)

    with pytest.raises(StuckError, match="not done after 12 continuations; what is written is kept"):
        Function(store(*many()))(run.to_event(), Ticking(calls=4))


def test_a_run_survives_its_event() -> None:
    run = Run("id", (DAY, date(2025, 11, 21)), {"2025-11-20": [late("2025-11-20")]}, True, 3, False)

    assert Run.from_event(json.loads(json.dumps(run.to_event()))) == run


@pytest.mark.parametrize(
    "key",
    [
        "lake/columns.json",
        "lake/audit/2025.json",
        f"{FOLDER}_manifest.json",
        "late/2025-11-21/nightly.nightly",
        "late/given-up/2025-11-20",
        "late/2025-11-20",
        "/late/2025-11-20/x",
    ],
)
def test_an_event_that_names_other_objects_than_markers_of_its_days_changes_nothing(key: str) -> None:
    function = Function(store(made(1)))
    function.bucket |= {key: b"{}", late("2025-11-20"): b""}
    before = dict(function.bucket)

    run = Run("id", (DAY,), {"2025-11-20": [late("2025-11-20"), key]})
    with pytest.raises(ValueError, match=r"marker|late/|unpack|isoformat"):
        function(run.to_event())

    assert function.bucket == before


def test_days_are_removed_by_their_date_however_young_their_files_are() -> None:
    formats = (Format.CSV_GZ, Format.PARQUET)
    function = Function(store(made(1), made(2, date(2025, 11, 21))), formats=formats, lake_days=11)
    function({"from": "2025-11-20", "to": "2025-11-21"})
    # Written again: the files are young, and older ones are in their time of grace.
    exported(DAY, store(made(1), made(3)), function.bucket)
    function.bucket[f"{FOLDER}part-00007.csv.gz"] = b"what an export left that was killed"

    def left() -> list[str]:
        return [key for key in function.bucket if "month=11/day=20/" in key or "2025-11-20" in key]

    function({})
    assert any(key.endswith("_manifest.json") for key in left()), "11 days are not over"
    function.now += timedelta(days=1)
    lock = Day(function.bucket, DAY, Format.PARQUET).lock
    assert lock.take("other", function.now)
    function({})
    assert any(key.endswith("_manifest.json") for key in left()), "another run writes the day"
    assert all("parquet" in key for key in left())
    function.now += LEASE
    function({})
    assert left() == []
    assert Day(function.bucket, date(2025, 11, 21), Format.PARQUET).manifest() is not None


# --- locks ------------------------------------------------------------------------------------------------


def test_two_runs_of_one_day_do_not_meet() -> None:
    inner: list[dict[str, Any]] = []

    class Meeting(Rows):
        def tally(self, day: date) -> dict[int, int]:
            if not inner:
                inner.append({})
                inner[0] = other({"day": "2025-11-20"}, Context(900_000, "another"))
            return super().tally(day)

    rows = Meeting(COLUMNS, [made(1)])
    function = Function(rows)
    other = Function(rows, function.bucket)
    function.bucket[late("2025-11-20")] = b""

    answer = function({"day": "2025-11-20"})

    assert inner == [{"days": [{"day": "2025-11-20", "format": "csv.gz", "locked": True}]}]
    assert answer["days"][0]["rows"] == 1
    assert not any("locks/" in key for key in function.bucket)


def test_a_continuation_that_is_delivered_twice_is_continued_once() -> None:
    function = Function(store(*many()))
    answer = function({"day": "2025-11-20", "wait": True}, Ticking(calls=4))
    inner: list[dict[str, Any]] = []

    class Meeting(Rows):
        def tally(self, day: date) -> dict[int, int]:
            if not inner:
                inner.append({})
                inner[0] = Function(store(*many()), function.bucket)(answer["continues"])
            return super().tally(day)

    days = Function(Meeting(COLUMNS, many()), function.bucket)(answer["continues"])["days"]

    assert inner == [{"days": [{"day": "2025-11-20", "format": "csv.gz", "locked": True}]}]
    assert [(day["rows"], day["revision"]) for day in days] == [(4_000, 1)]
    assert not any("locks/" in key for key in function.bucket)


# --- units of work: a day in a format ---------------------------------------------------------------------


@pytest.mark.parametrize("calls", [3, 4, 6, 9, 100])
@pytest.mark.parametrize("formats", [(Format.CSV_GZ, Format.JSONL_GZ), tuple(Format)], ids=["two", "all"])
def test_each_day_is_written_once_in_each_format_however_long_invocations_are(
    formats: tuple[Format, ...], calls: int
) -> None:
    rows = store(*many(2_500), *(made(number, date(2025, 11, 21)) for number in range(1_500)))
    function = Function(rows, formats=formats)
    event: dict[str, Any] | None = {"from": "2025-11-20", "to": "2025-11-21", "wait": True}

    done: list[tuple[str, str]] = []
    while event is not None:
        answer = function(event, Ticking(calls))
        done += [(day["day"], day["format"]) for day in answer["days"]]
        event = answer.get("continues")

    assert sorted(done) == sorted((f"2025-11-{day}", kind) for day in (20, 21) for kind in formats)
    for kind in formats:
        manifest = Day(function.bucket, DAY, kind).manifest()
        assert manifest is not None
        assert (manifest.rows, manifest.revision) == (2_500, 1)


def test_a_day_that_fails_does_not_make_the_night_repeat_the_others() -> None:
    rows = store(made(1, date(2025, 11, 30)))
    function = Function(rows)
    function.bucket[late("2025-11-20")] = b""

    answer = function({})  # an exception would make Lambda repeat the event

    assert [(day["day"], day["rows"]) for day in answer["days"]] == [("2025-11-30", 1)]
    assert list(answer["failed"]) == ["2025-11-20"]
    assert function.failures == [("2025-11-20", answer["failed"]["2025-11-20"], False)]
    (error,) = function.errors
    assert error.__cause__ is not None, "the log has the trace of what went wrong in the format"
    assert error.__cause__.__traceback__ is not None
    asked = len(rows.asked)
    function.now += timedelta(days=1)
    function({})
    assert len(rows.asked) == asked


def test_a_table_that_cannot_be_described_is_one_failure_among_the_others() -> None:
    described: list[Format] = []

    def describe(kind: Format) -> None:
        if kind is Format.PARQUET:
            raise ValueError("Glue says no")
        described.append(kind)

    formats = (Format.PARQUET, Format.CSV_GZ)
    function = Function(store(made(1, date(2025, 11, 30))), formats=formats, describe=describe)

    answer = function({})

    assert answer["failed"] == {"the table over parquet": "ValueError: Glue says no"}
    assert [day["rows"] for day in answer["days"]] == [1, 1]
    assert (described, list(function.bucket.keys("late/"))) == ([Format.CSV_GZ], [])
    assert function.failures == [("the table over parquet", "ValueError: Glue says no", False)]
    with pytest.raises(DaysFailedError, match=r"^the table over parquet: ValueError: Glue says no$"):
        function({"day": "2025-11-20"})


def test_a_day_that_nobody_can_write_is_given_up_after_seven_nights() -> None:
    function = Function(store())
    function.bucket[late("2025-11-20")] = b""

    for _ in range(10):
        function({})
        function.now += timedelta(days=1)

    assert [given_up for _, _, given_up in function.failures] == [False] * 6 + [True]
    assert list(function.bucket.keys("late/")) == ["late/given-up/2025-11-20"]
    assert b"RowsGoneError" in function.bucket["late/given-up/2025-11-20"]
    # Rows that come later ask for the day again.
    function.bucket[late("2025-11-20", "later")] = b""
    assert "failed" in function({})


def test_late_rows_of_more_days_than_an_event_can_carry_are_written_in_several_nights() -> None:
    days = [DAY - timedelta(days=number) for number in range(1_002)]
    bucket = Bucket({late(day.isoformat()): b"" for day in days})
    run = run_of({}, bucket, "id", NOW, timedelta(hours=7))

    assert len(run.late) == 1_000
    assert all(len(markers) == 1 for markers in run.late.values())
    assert len(run.days) == 1_000


def test_the_limit_of_what_the_store_reads_is_for_a_run_with_its_continuations() -> None:
    rows = store(*many())
    whole_day = Metered(rows)
    exported(DAY, whole_day, Bucket(), SMALL)
    function = Function(rows, max_scanned=whole_day.spent.scanned - 1)

    answer = function({"day": "2025-11-20", "wait": True}, Ticking(calls=4))
    assert 0 < answer["continues"]["run"]["scanned"] < whole_day.spent.scanned

    with pytest.raises(DaysFailedError, match=r"QuestionTooLargeError: .* raise EXPORT_MAX_SCANNED_GB"):
        function(answer["continues"])
