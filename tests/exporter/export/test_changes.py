"""A day that rows came to late is made of its files and of the minutes that changed."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.rows import late_days
from consumers.rows.table import REVISION
from exporter.export.day import DayJob, OutOfTimeError, export_day, export_formats
from exporter.export.handler import make_handler
from exporter.lake.days import Day
from exporter.lake.formats import Format
from exporter.lake.manifest import Manifest
from exporter.store import Days, Span, Type, Values, minute, minutes_of, whole
from exporter.stores.lake.questions import LakeStore
from exporter.stores.metered import Metered
from exporter.upkeep.tasks import FORGET, Task, Tasks
from tests.builders import Context
from tests.exporter.export.test_export import COLUMNS, DAY, SMALL, Dying, Killed, made
from tests.exporter.export.test_run import Function, Ticking
from tests.fragments import write_fragments
from tests.twins import Bucket, Rows, forget_client, read_key

FIRST_NIGHT = datetime(2025, 11, 21, 0, 15, tzinfo=UTC)
# Slices of 700 rows of a day with 2,400.
QUESTIONS = 4
TEXTS = (Format.CSV, Format.CSV_GZ, Format.JSONL_GZ)


class Lake:
    """A day in a store, the marks of those who write to it, and the nights of its export."""

    def __init__(
        self,
        rows: Sequence[Values],
        columns: dict[str, Type] = COLUMNS,
        formats: tuple[Format, ...] = (Format.CSV_GZ,),
        job: DayJob = SMALL,
    ) -> None:
        self.columns = columns
        self.rows = Rows(columns, rows)
        self.bucket = Bucket()
        self.formats = formats
        self.job = job
        self.now = FIRST_NIGHT
        self._names = count()

    def write(self, *rows: Values, marker: bytes | None = None) -> str:
        """Store rows, or higher versions of them, and mark the day as the consumer does."""
        for row in rows:
            self.rows.kept = [each for each in self.rows.kept if (each[0], each[5]) != (row[0], row[5])]
            self.rows.keep(row)
        key = late_days.marker_key(DAY, "batch", f"delivery-{next(self._names)}")
        minutes = (minute(str(row[0])) for row in rows)
        self.bucket[key] = late_days.marker_body(minutes) if marker is None else marker
        self.bucket.modified[key] = self.now
        return key

    def export(self, event: dict[str, Any], context: Any = None) -> list[Span]:
        """Export what an event asks for, and return the spans of the day that the store was asked for."""
        self.rows.asked.clear()
        function = Function(self.rows, self.bucket, self.job, self.formats)
        function.now = self.now
        answer = function(event, context)
        assert not function.failures, function.failures
        while "continues" in answer:
            answer = function(answer["continues"])
        return [span for span in self.rows.asked if whole(DAY).start <= span.start < whole(DAY).end]

    def night(self, context: Any = None) -> list[Span]:
        """Let a night pass, with its export."""
        self.now += timedelta(days=1)
        return self.export({"time": self.now.isoformat()}, context)

    def manifest(self, kind: Format | None = None) -> Manifest:
        manifest = Day(self.bucket, DAY, kind or self.formats[0]).manifest()
        assert manifest is not None
        return manifest

    def content(self) -> dict[Format, Any]:
        """What the files hold, and what the manifest counts."""
        return {
            kind: (
                [part.content for part in manifest.parts],
                manifest.columns,
                (manifest.restored, manifest.not_restored, manifest.forgotten, manifest.partial_since),
            )
            for kind in self.formats
            for manifest in [self.manifest(kind)]
        }

    def check(self) -> None:
        """The day is as an export makes it that reads all."""
        fresh = Lake(self.rows.kept, self.columns, self.formats, self.job)
        fresh.bucket |= {key: body for key, body in self.bucket.items() if not key.startswith("records/")}
        fresh.now = self.now
        fresh.export({"day": str(DAY)})
        assert self.content() == fresh.content()


def many() -> list[Values]:
    """Return 2,400 rows, of the minutes from 10:00 to 10:59."""
    return [made(number) for number in range(2_400)]


def at(clock: str) -> range:
    hour, minute = map(int, clock.split(":"))
    return range(hour * 60 + minute, hour * 60 + minute + 1)


def exported(**more: Any) -> Lake:
    """Return a day after its first night."""
    lake = Lake(many(), **more)
    assert len(lake.export({"time": FIRST_NIGHT.isoformat()})) == QUESTIONS
    return lake


def test_the_second_night_asks_for_the_minutes_that_changed_and_no_others() -> None:
    lake = exported()
    lake.write(made(4_003))
    lake.write(made(4_003), made(5_000, hour=23))

    asked = lake.night()

    assert asked == [minutes_of(DAY, at("10:43")), minutes_of(DAY, at("23:20"))]
    assert (lake.manifest().revision, lake.manifest().rows) == (2, 2_402)
    assert not list(lake.bucket.keys(late_days.PREFIX))
    lake.check()
    assert lake.night() == []


def test_young_markers_have_their_minutes_asked_for_again_when_the_rows_must_be_there() -> None:
    lake = exported()
    lake.now += timedelta(hours=23)
    lake.write(made(4_003))
    lake.now -= timedelta(hours=23)

    # An hour old: the store may not show the row yet.
    assert lake.night() == [minutes_of(DAY, at("10:43"))]
    assert lake.night() == [minutes_of(DAY, at("10:43"))]
    assert lake.night() == []


def test_a_higher_version_takes_the_place_of_a_row() -> None:
    lake = exported()
    lake.write(made(4, status="500"))

    assert lake.night() == [minutes_of(DAY, at("10:04"))]

    assert (lake.manifest().revision, lake.manifest().rows) == (2, 2_400)
    lake.check()


def test_a_minute_of_which_the_same_rows_came_again_leaves_the_files_as_they_are() -> None:
    lake = exported()
    before = dict(lake.bucket)
    lake.write(made(4))

    assert lake.night() == [minutes_of(DAY, at("10:04"))]

    assert {key: lake.bucket[key] for key in before} == before


def test_scattered_minutes_are_asked_for_in_few_questions() -> None:
    lake = exported()
    lake.write(*(made(number, status="500") for number in range(0, 60, 2)))

    asked = lake.night()

    assert QUESTIONS <= len(asked) <= 2 * QUESTIONS
    lake.check()


NO_CHANGE: Callable[[Lake], object] = lambda _: None  # noqa: E731


def without_field(lake: Lake) -> None:
    """Make the manifest one of an earlier release."""
    key = next(key for key in lake.bucket if key.endswith("day=20/_manifest.json"))
    read = json.loads(lake.bucket[key])
    del read["day_was_over"]
    lake.bucket[key] = json.dumps(read).encode()


def damage(lake: Lake) -> None:
    key = lake.manifest().parts[1].key
    lake.bucket[key] = lake.bucket[key][:-9] + bytes([lake.bucket[key][-9] ^ 1]) + lake.bucket[key][-8:]


def forget_nobody(lake: Lake) -> None:
    forget_client("nobody", lake.bucket, FIRST_NIGHT)


def mark_as(key: str) -> Callable[[Lake], object]:
    return lambda lake: lake.bucket.update({f"{late_days.PREFIX}{DAY}/{key}": b""})


@pytest.mark.parametrize(
    ("change", "marker"),
    [
        pytest.param(NO_CHANGE, b"", id="a marker of an earlier release"),
        pytest.param(NO_CHANGE, b"{}", id="a marker without minutes"),
        pytest.param(NO_CHANGE, b'{"minutes": []}', id="a marker of no minute"),
        pytest.param(NO_CHANGE, b'{"minutes": [1440]}', id="a minute that no day has"),
        pytest.param(NO_CHANGE, b'{"format_version": 2, "minutes": [643]}', id="a marker of a later release"),
        pytest.param(mark_as("nightly.nightly"), None, id="a night that found the day locked"),
        pytest.param(mark_as("failed.2025-11-22"), None, id="a night that failed"),
        pytest.param(
            lambda lake: [lake.write(made(4)) for _ in range(1_000)], None, id="markers of 1,001 batches"
        ),
        pytest.param(without_field, None, id="a manifest of an earlier release"),
        pytest.param(forget_nobody, None, id="an erasure since"),
        pytest.param(damage, None, id="a damaged file"),
        pytest.param(
            lambda lake: lake.bucket.delete([lake.manifest().parts[-1].key]), None, id="a file that is gone"
        ),
        pytest.param(
            lambda lake: lake.rows.keep(made(7_000)), None, id="a row without a marker in another minute"
        ),
    ],
)
def test_the_whole_day_is_asked_for_if_it_is_not_known_what_changed(
    change: Callable[[Lake], object], marker: bytes | None
) -> None:
    lake = exported()
    change(lake)
    lake.write(made(4_003), marker=marker)

    asked = lake.night()

    # What does not fit is found at the first minutes already, or only when the changed ones were asked for.
    assert [*map(str, asked[-QUESTIONS:])] == [*map(str, exported_spans(lake))]
    assert len(asked) <= QUESTIONS + 1
    lake.check()


def exported_spans(lake: Lake) -> list[Span]:
    return Lake(lake.rows.kept).export({"day": str(DAY)})


def test_a_file_that_only_its_checksum_shows_to_be_damaged_is_not_used() -> None:
    lake = exported(formats=(Format.CSV,))
    key = lake.manifest().parts[0].key
    lake.bucket[key] = lake.bucket[key].replace(b"r00004", b"r00005", 1)
    lake.write(made(4_003))

    assert len(lake.night()) == QUESTIONS
    lake.check()


def test_a_day_that_somebody_asks_for_is_asked_for_whole() -> None:
    lake = exported()
    lake.write(made(4_003))

    assert len(lake.export({"day": str(DAY)})) == QUESTIONS
    lake.check()


def test_a_day_that_was_exported_before_it_was_over_is_asked_for_whole() -> None:
    # The schedule was disabled that night: the day was only ever exported by hand, and got rows after that.
    lake = Lake(many()[:1_500])
    lake.now = datetime(2025, 11, 21, 0, 9, tzinfo=UTC)
    lake.export({"day": str(DAY)})
    lake.rows.keep(*many()[1_500:])
    lake.write(made(4_003))

    assert len(lake.night()) == QUESTIONS
    lake.check()


def test_what_was_read_before_the_day_was_over_is_read_again_after_it() -> None:
    # An export of today runs out of time, and goes on after midnight.
    lake = Lake(many())
    before = replace(SMALL, now=lambda: FIRST_NIGHT - timedelta(hours=1))
    after = replace(SMALL, now=lambda: FIRST_NIGHT)
    with pytest.raises(OutOfTimeError):
        export_day(
            Day(lake.bucket, DAY, Format.CSV_GZ),
            lake.rows,
            replace(before, seconds_left=iter([900.0, 900.0, 1.0]).__next__),
        )
    assert Day(lake.bucket, DAY, Format.CSV_GZ).progress()[0]
    lake.write(made(0, status="500"))
    lake.bucket.delete(list(lake.bucket.keys(late_days.PREFIX)))  # of the day itself: without a marker

    export_day(Day(lake.bucket, DAY, Format.CSV_GZ), lake.rows, after)

    assert lake.manifest().day_was_over
    lake.check()


def test_a_day_without_rows_of_forgotten_clients_is_asked_for_whole_while_the_store_has_them() -> None:
    lake = Lake([made(number, client=f"c{number % 9}") for number in range(2_400)])
    forget_client("c1", lake.bucket, FIRST_NIGHT)
    lake.export({"time": FIRST_NIGHT.isoformat()})
    assert lake.manifest().forgotten > 0
    lake.write(made(4_003, client="c2"))

    assert len(lake.night()) == QUESTIONS
    lake.check()


def test_a_new_column_has_the_whole_day_asked_for() -> None:
    lake = exported()
    lake.columns = {**COLUMNS, "zone": "text"}
    lake.rows = Rows(lake.columns, [(*row, None) for row in many()])
    lake.write((*made(4_003), "b"))

    assert len(lake.night()) == QUESTIONS

    assert lake.manifest().columns[-1].name == "zone"
    lake.check()


@pytest.mark.parametrize(
    "formats",
    [*((kind,) for kind in Format), (Format.PARQUET, Format.CSV_GZ), (Format.PARQUET, Format.JSONL_GZ)],
    ids="+".join,
)
def test_every_format_can_be_made_of_its_files_or_of_those_with_text(formats: tuple[Format, ...]) -> None:
    columns: dict[str, Type] = {
        **COLUMNS,
        "note": "text",
        "_empty": "text",
        "price": "number",
        "paid": "boolean",
        "count": "integer",
    }
    more: list[Values] = [
        (None, '["note"]', "1.0E-5", "true", "9007199254740993"),
        ('a "b",\r\nc', None, "NaN", "false", "-1"),
        ("NULL", None, "1234567.891", None, None),
        (None, None, None, None, None),
    ]
    rows = [(*made(number), *more[number % 4]) for number in range(2_500)]
    lake = Lake(rows, columns, formats, replace(SMALL, size=60_000))
    lake.export({"time": FIRST_NIGHT.isoformat()})
    lake.write((*made(3_003), *more[0]))

    assert lake.night() == [minutes_of(DAY, at("10:03"))]

    lake.check()


def test_another_format_is_made_of_the_store_alone_if_the_files_have_numbers_of_their_own() -> None:
    lake = exported(formats=(Format.PARQUET,))
    lake.formats = (Format.PARQUET, Format.CSV_GZ)
    lake.write(made(4_003))

    assert len(lake.night()) == QUESTIONS
    lake.check()


def test_a_format_that_is_new_is_made_of_the_files_of_another() -> None:
    lake = exported()
    lake.formats = (Format.JSONL_GZ, Format.CSV_GZ)
    lake.write(made(4_003))

    assert lake.night() == [minutes_of(DAY, at("10:43"))]
    lake.check()


def test_files_that_another_export_replaces_meanwhile_are_not_taken_for_what_was_there() -> None:
    lake = exported(formats=(Format.PARQUET, Format.CSV_GZ))
    # The same number of rows: only the markers tell.
    gone, kept = lake.write(made(3, status="500")), lake.write(made(9, status="500"))
    answered = [gone]

    class Meanwhile(Bucket):
        def read(self, key: str) -> tuple[bytes, str] | None:
            found = super().read(key)
            if key.endswith("year=2025/month=11/day=20/_manifest.json") and "parquet" not in key and answered:
                self.delete([answered.pop()])
                # The other export has written Parquet, and writes CSV right after this one looked.
                export_day(Day(self, DAY, Format.CSV_GZ), lake.rows, SMALL)
            return found

    export_day(Day(lake.bucket, DAY, Format.PARQUET), lake.rows, SMALL)
    lake.bucket = Meanwhile(lake.bucket)
    days = [Day(lake.bucket, DAY, kind) for kind in lake.formats]

    export_formats(days, lake.rows, replace(SMALL, asks_for_changes=True))

    assert [*lake.bucket.keys(late_days.PREFIX)] == [kept]
    lake.check()


@pytest.mark.parametrize("looks", range(2, 9))
def test_a_night_without_time_goes_on_behind_the_last_part(looks: int) -> None:
    lake = exported()
    lake.write(made(4_003), made(4_050))

    asked = lake.night(Ticking(looks))

    assert set(asked) == {minutes_of(DAY, at("10:43")), minutes_of(DAY, at("10:30"))}
    lake.check()


@pytest.mark.parametrize("looks", range(4, 9))
def test_a_whole_day_that_takes_two_invocations_is_not_begun_again_as_changes(looks: int) -> None:
    lake = exported()
    damage(lake)
    lake.write(made(4_003))

    # An invocation finds the damage, and asks for the whole day.
    asked = lake.night(Ticking(looks))

    assert [span.start for span in asked].count(whole(DAY).start) == 1
    assert asked[-1].end == whole(DAY).end
    lake.check()


# --- the lake store ---------------------------------------------------------------------------------------


class Streaming(Bucket):
    """A bucket that keeps which objects were read."""

    def __init__(self, content: Mapping[str, bytes]) -> None:
        super().__init__(content)
        self.read_keys: set[str] = set()

    def stream(self, key: str) -> Iterator[bytes]:
        self.read_keys.add(key)
        return super().stream(key)


class Fragments:
    """A day in the lake store: its late rows, its nights, and the erasures."""

    def __init__(self, bucket: Bucket, now: datetime = FIRST_NIGHT) -> None:
        self.bucket = bucket
        self.now = now
        self._names = count()

    def write(self, *rows: dict[str, Any]) -> None:
        write_fragments(self.bucket, rows)
        key = late_days.marker_key(DAY, "batch", f"delivery-{next(self._names)}")
        self.bucket[key] = late_days.marker_body(minute(row["time"]) for row in rows)

    def night(self) -> None:
        self.now += timedelta(days=1)
        export_of_fragments(self.bucket, self.now, {"time": self.now.isoformat()})

    def erase(self, client: str) -> None:
        store = LakeStore(self.bucket, read_key=read_key)
        task = Task(FORGET, Days(DAY, DAY), client, began=self.now.isoformat())
        done = Tasks(self.bucket, store, "upkeep", lambda: self.now, read_key).do(task, lambda: True)
        assert not any("failed" in result for result in done.results)

    def rows(self) -> list[int]:
        """Return how many rows each format has."""
        manifests = [Day(self.bucket, DAY, kind).manifest() for kind in (Format.CSV_GZ, Format.PARQUET)]
        return [manifest.rows for manifest in manifests if manifest]


def fragment_row(hour: int, number: int, status: float = 200.0) -> dict[str, Any]:
    return {
        "time": f"{DAY} {hour:02}:{number:02}:00.000000007",
        "_type": "api_request",
        "_id": f"id-{hour}-{number}",
        "source": "/g",
        "route": "/pets",
        "client": f"client-{number % 4}",
        "status": status,
    }


def export_of_fragments(bucket: Bucket, now: datetime, event: dict[str, Any]) -> None:
    handler = make_handler(
        Metered(LakeStore(bucket, read_key=read_key), 10**12),
        bucket,
        invoke=lambda name, left: pytest.fail(f"{name} was invoked with {left}"),
        job=DayJob(now=lambda: now, read_key=read_key),
    )
    answer = handler(event, Context(900_000))
    assert "failed" not in answer, answer


def test_of_the_lake_store_only_fragments_of_hours_that_changed_are_read() -> None:
    bucket = Bucket()
    for hour in range(24):
        write_fragments(bucket, [fragment_row(hour, number) for number in range(10)])
    export_of_fragments(bucket, FIRST_NIGHT, {"time": FIRST_NIGHT.isoformat()})
    late = [fragment_row(7, 30), fragment_row(9, 3, status=500.0)]
    late_keys = write_fragments(bucket, late[:1]) + write_fragments(bucket, late[1:], version=REVISION + 1)
    minutes = [minute(row["time"]) for row in late]
    bucket[late_days.marker_key(DAY, "batch", "delivery")] = late_days.marker_body(minutes)
    second = FIRST_NIGHT + timedelta(days=1)
    whole_day, changes = Streaming(bucket), Streaming(bucket)

    export_of_fragments(whole_day, second, {"day": str(DAY)})
    export_of_fragments(changes, second, {"time": second.isoformat()})

    def fragments(read: Streaming) -> list[str]:
        return sorted(key for key in read.read_keys if key.startswith("store/"))

    assert len(fragments(whole_day)) == 24 + len(late_keys)
    assert len(fragments(changes)) == 3 + len(late_keys)
    for kind in (Format.CSV_GZ, Format.PARQUET):
        ours, theirs = (Day(each, DAY, kind).manifest() for each in (changes, whole_day))
        assert ours is not None
        assert theirs is not None
        assert ours.rows == 241
        assert [part.content for part in ours.parts] == [part.content for part in theirs.parts]
        assert ours.columns == theirs.columns


@pytest.mark.parametrize("count", [0, 4])
def test_late_rows_of_forgotten_clients_alone_leave_the_day_as_it_is(count: int) -> None:
    bucket = Bucket()
    write_fragments(bucket, [fragment_row(3, 2 * number) for number in range(count)])
    forget_client("client-1", bucket, FIRST_NIGHT)
    export_of_fragments(bucket, FIRST_NIGHT, {"time": FIRST_NIGHT.isoformat()})
    before = Day(bucket, DAY, Format.CSV_GZ).manifest()
    late = fragment_row(9, 1)
    write_fragments(bucket, [late])
    bucket[late_days.marker_key(DAY, "batch", "delivery")] = late_days.marker_body([minute(late["time"])])
    second = FIRST_NIGHT + timedelta(days=1)

    export_of_fragments(bucket, second, {"time": second.isoformat()})

    assert before is not None
    assert before.rows == count
    assert Day(bucket, DAY, Format.CSV_GZ).manifest() == before


FRAGMENT_ROWS = st.builds(fragment_row, st.integers(0, 3), st.integers(0, 1), st.sampled_from([200.0, 500.0]))
FRAGMENT_STEPS = st.one_of(
    st.builds(
        lambda rows: lambda day: day.write(*rows),
        st.lists(FRAGMENT_ROWS, min_size=1, max_size=3, unique_by=lambda row: row["_id"]),
    ),
    st.just(Fragments.night),
    st.builds(lambda number: lambda day: day.erase(f"client-{number}"), st.integers(0, 1)),
)


@settings(deadline=None, max_examples=25)
@given(st.lists(FRAGMENT_ROWS, max_size=2), st.lists(FRAGMENT_STEPS, max_size=6))
def test_whatever_comes_late_or_is_erased_the_lake_has_the_rows_of_the_fragments(
    rows: list[dict[str, Any]], steps: list[Callable[[Fragments], None]]
) -> None:
    day = Fragments(Bucket())
    write_fragments(day.bucket, rows)
    day.erase("client-1")
    export_of_fragments(day.bucket, day.now, {"time": day.now.isoformat()})
    for step in (*steps, Fragments.night):
        step(day)
    left = {key: body for key, body in day.bucket.items() if not key.startswith(("records/", "late/"))}
    fresh = Fragments(Bucket(left), day.now)

    export_of_fragments(fresh.bucket, fresh.now, {"day": str(DAY)})

    assert day.rows() == fresh.rows()


# --- any sequence -----------------------------------------------------------------------------------------

CLIENTS = ("a", "b", "c")
NUMBERS = st.integers(0, 30)


def row_of(number: int, status: str) -> Values:
    return made(number, status=status, client=CLIENTS[number % 3], hour=number % 24)


WRITES = st.builds(
    lambda numbers, status: lambda lake: lake.write(*(row_of(number, status) for number in numbers)),
    st.lists(NUMBERS, min_size=1, max_size=4),
    st.sampled_from(["200", "500"]),
)
NIGHTS = st.builds(lambda: lambda lake: lake.night())
HANDS = st.builds(lambda: lambda lake: lake.export({"day": str(DAY)}))


def killed(night: int) -> Callable[[Lake], None]:
    """Return a night's export that is killed at one of its calls."""

    def step(lake: Lake) -> None:
        kept = lake.bucket
        lake.bucket = Dying(kept, night)
        lake.bucket.modified = kept.modified
        try:
            lake.night()
        except Killed:
            # The locks of a process that is gone end.
            lake.now += timedelta(hours=2)
        alive = Bucket(lake.bucket)
        alive.modified = kept.modified
        lake.bucket = alive

    return step


def erasure(client: str) -> Callable[[Lake], None]:
    def step(lake: Lake) -> None:
        tasks = Tasks(lake.bucket, lake.rows, "upkeep", lambda: lake.now, read_key)
        task = Task(FORGET, Days(DAY, DAY), client, began=lake.now.isoformat())
        done = tasks.do(task, lambda: True)
        assert not any("failed" in result for result in done.results)

    return step


STEPS = st.one_of(
    WRITES,
    WRITES,
    NIGHTS,
    HANDS,
    st.builds(killed, st.integers(0, 30)),
    st.builds(erasure, st.sampled_from(CLIENTS)),
)


@settings(deadline=None, max_examples=60)
@given(st.lists(STEPS, max_size=8))
def test_whatever_comes_late_is_erased_or_killed_the_day_is_as_if_it_was_read_whole(
    steps: list[Callable[[Lake], object]],
) -> None:
    lake = Lake(
        [row_of(number, "200") for number in range(20)],
        formats=(Format.CSV_GZ, Format.PARQUET),
        job=replace(SMALL, size=1, slice_rows=5),
    )
    lake.export({"time": FIRST_NIGHT.isoformat()})
    for step in steps:
        step(lake)
    lake.night()
    lake.night()
    assert not list(lake.bucket.keys(late_days.PREFIX))
    lake.check()
