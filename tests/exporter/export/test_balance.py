"""What is read of the store is held against what the store has counted, and what it still keeps."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import date, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.export.day import DayJob, OutOfTimeError, RowsGoneError, export_day, export_formats
from exporter.export.reading import RowsMissingError, count_minutes, rows_of_last_minute
from exporter.lake.days import Day
from exporter.lake.forgotten import KEY as FORGOTTEN
from exporter.lake.forgotten import Forgotten
from exporter.lake.formats import Format
from exporter.store import Answer, Column, Span, Values, minute
from exporter.upkeep.verify import verify_day
from tests.exporter.export.test_export import COLUMNS, DAY, NOW, SMALL, exported, made, many, read, store
from tests.twins import FORGOTTEN_KEY, Bucket, Rows


class Losing(Rows):
    """A store that loses rows of its answers: those for which this is true."""

    lost: Callable[[Values], bool] = staticmethod(lambda _row: False)

    def rows(self, span: Span, columns: tuple[Column, ...]) -> Answer:
        answer = super().rows(span, columns)
        return Answer(answer.columns, ([row for row in page if not self.lost(row)] for page in answer.pages))


@pytest.mark.parametrize("forgotten", [None, "somebody", "c1"])
def test_a_day_of_which_the_store_lost_rows_on_the_way_is_not_committed(forgotten: str | None) -> None:
    bucket = Bucket()
    if forgotten:
        bucket[FORGOTTEN] = Forgotten(FORGOTTEN_KEY).having(forgotten, NOW).to_json()
    rows = Losing(COLUMNS, [made(number, client=f"c{number % 2}") for number in range(40)])
    rows.lost = lambda row: "10:07" <= row[0][11:16] < "10:09"  # type: ignore[index]

    with pytest.raises(
        RowsMissingError,
        match=r"returned 2 rows fewer than it had counted, in 2 minutes \(10:07, 10:08\): the",
    ):
        exported(DAY, rows, bucket)
    assert Day(bucket, DAY, Format.CSV_GZ).manifest() is None

    rows.lost = lambda _row: False
    manifest = exported(DAY, rows, bucket).manifest
    assert (manifest.rows, manifest.forgotten) == ((20, 20) if forgotten == "c1" else (40, 0))


def test_rows_that_are_lost_behind_a_part_are_read_by_the_next_attempt() -> None:
    # The minutes of a part that is kept have been compared; the loss is found only after it.
    bucket = Bucket()
    rows = Losing(COLUMNS, many())
    rows.lost = lambda row: row[0][11:16] == "10:58"  # type: ignore[index]
    with pytest.raises(RowsMissingError, match=r"\(10:58\)"):
        exported(DAY, rows, bucket, SMALL)
    progress, _ = Day(bucket, DAY, Format.CSV_GZ).progress()
    assert progress is not None
    assert "10:00" < progress.time[11:16] < "10:58"

    rows.lost = lambda _row: False
    exported(DAY, rows, bucket, SMALL)
    assert len({row["_id"] for row in read(bucket)}) == 4_000


def test_what_is_left_out_is_counted_across_continuations() -> None:
    bucket = Bucket({FORGOTTEN: Forgotten(FORGOTTEN_KEY).having("c1", NOW).to_json()})
    rows = store(*(made(number, client=f"c{number % 3}") for number in range(6_000)))

    outcomes = 0
    while True:
        outcomes += 1
        try:
            manifest = exported(DAY, rows, bucket, replace(SMALL, seconds_left=lambda: 1.0)).manifest
            break
        except OutOfTimeError:
            continue

    assert outcomes > 2
    assert (manifest.rows, manifest.forgotten) == (4_000, 2_000)
    assert list(verify_day(Day(bucket, DAY, Format.CSV_GZ), NOW, rows)) == []


def test_a_row_that_came_since_the_tally_is_no_fault() -> None:
    class Growing(Rows):
        def rows(self, span: Span, columns: tuple[Column, ...]) -> Answer:
            self.keep(made(100, hour=11))
            return super().rows(span, columns)

    assert exported(DAY, Growing(COLUMNS, [made(1)]), Bucket()).manifest.rows == 2


TIMES = st.lists(st.integers(0, 24 * 60 - 1), min_size=1, max_size=50).map(sorted)


@given(TIMES)
def test_minutes_are_counted_as_one_by_one(minutes: list[int]) -> None:
    rows: list[Values] = [[f"2025-11-20 {each // 60:02}:{each % 60:02}:00.000000000"] for each in minutes]
    counts = [0] * 24 * 60

    count_minutes(rows, 0, counts)

    assert counts == [minutes.count(each) for each in range(24 * 60)]
    assert rows_of_last_minute(rows, 0) == counts[minutes[-1]]
    assert all(minute(one[0] or "") <= minute(other[0] or "") for one, other in pairwise(rows))


# --- a day at the edge of the store's retention -----------------------------------------------------------


def edge() -> tuple[Rows, DayJob]:
    """Return a store that has dropped the first 15 hours of a day, and the time."""
    now = datetime.fromisoformat("2025-11-27T16:00:00+00:00")
    kept_for = timedelta(days=7, hours=1)
    rows = store(*(made(number, hour=hour) for hour in range(24) for number in range(10)))
    rows.kept = [row for row in rows.kept if str(row[0]) >= "2025-11-20 15:00"]
    rows.keeps_for = kept_for
    return rows, DayJob(now=lambda: now)


def test_the_first_export_of_a_day_that_the_store_no_longer_has_whole_is_marked() -> None:
    rows, job = edge()
    bucket = Bucket()

    manifest = exported(DAY, rows, bucket, job).manifest

    assert manifest.partial_since == "2025-11-20 15:00:00.000000000"
    assert Day(bucket, DAY, Format.CSV_GZ).manifest() == manifest
    assert list(verify_day(Day(bucket, DAY, Format.CSV_GZ), job.now(), rows)) == [
        f"the day is partial: the store had dropped rows before {manifest.partial_since} when it was exported"
    ]
    again = exported(DAY, rows, bucket, job)
    assert again.kept
    assert again.manifest == manifest


def test_a_day_that_the_store_has_whole_is_not_marked_and_compared_with_it() -> None:
    rows, job = edge()
    bucket = Bucket()
    later = date(2025, 11, 21)
    rows.keep(made(1, later), made(2, later))

    assert exported(later, rows, bucket, job).manifest.partial_since is None
    rows.keep(made(3, later))
    (problem,) = verify_day(Day(bucket, later, Format.CSV_GZ), job.now(), rows)
    assert problem.startswith("the store has 3 rows, the lake 2 ")


def test_rows_that_the_lake_lacks_of_a_day_at_the_edge_are_refused_by_name() -> None:
    # The day was exported by hand before it was over, and no night has come since.
    rows, job = edge()
    bucket = Bucket()
    exported(DAY, store(made(1, hour=0), made(2, hour=1)), bucket)
    before = dict(bucket)

    with pytest.raises(RowsGoneError, match=r"has 90 rows of this day, the lake 2, .* remove the day's"):
        exported(DAY, rows, bucket, job)
    assert dict(bucket) == before


def test_a_store_with_more_rows_but_not_the_first_ones_is_refused_by_name() -> None:
    bucket = Bucket()
    exported(DAY, store(made(1), made(2)), bucket)

    with pytest.raises(RowsGoneError, match="has 3 rows of this day, the lake 2"):
        exported(DAY, store(made(2), made(3), made(4)), bucket)


# --- all formats in one pass ------------------------------------------------------------------------------


def contents(bucket: Bucket, kind: Format) -> list[Values]:
    day = Day(bucket, DAY, kind)
    manifest = day.manifest()
    assert manifest is not None
    return [row for batch in day.rows(manifest) for row in batch.rows]


def test_the_store_is_asked_once_for_all_formats() -> None:
    one, all_ = store(*many()), store(*many())
    exported(DAY, one, Bucket(), SMALL)
    bucket = Bucket()

    outcomes = export_formats([Day(bucket, DAY, kind) for kind in Format], all_, SMALL)

    assert [outcome.manifest.format for outcome in outcomes if not isinstance(outcome, Exception)] == list(
        Format
    )
    assert len(all_.asked) == len(one.asked)
    for kind in Format:
        alone = Bucket()
        export_day(Day(alone, DAY, kind), store(*many()), SMALL)
        assert contents(bucket, kind) == contents(alone, kind)
        assert list(verify_day(Day(bucket, DAY, kind), NOW, all_)) == []


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4))
@settings(deadline=None, max_examples=5)
def test_formats_that_are_interrupted_at_different_parts_have_each_row_once(interruptions: list[int]) -> None:
    bucket, rows = Bucket(), store(*many())
    days = [Day(bucket, DAY, kind) for kind in (Format.CSV_GZ, Format.JSONL_GZ)]
    undisturbed = Bucket()
    export_formats([Day(undisturbed, DAY, day.kind) for day in days], rows, SMALL)
    # In JSON, rows take more than in CSV: parts end at other rows.
    job = replace(SMALL, size=100_000)

    for count in interruptions:
        times = iter([900.0] * count)
        try:
            export_formats(days, rows, replace(job, seconds_left=lambda times=times: next(times, 1.0)))  # type: ignore[misc]
        except OutOfTimeError:
            continue
    for outcome in export_formats(days, rows, job):
        assert not isinstance(outcome, Exception)

    for day in days:
        assert contents(bucket, day.kind) == contents(undisturbed, day.kind)
        assert list(verify_day(day, NOW, rows)) == []


def test_a_format_that_fails_does_not_stop_the_others_and_only_it_is_written_again() -> None:
    class Failing(Bucket):
        fails = True

        def put(self, key: str, chunks: Iterable[bytes], content_type: str) -> None:
            if self.fails and key.endswith(".parquet"):
                raise OSError("no")
            super().put(key, chunks, content_type)

    bucket = Failing()
    days = [Day(bucket, DAY, kind) for kind in (Format.CSV_GZ, Format.PARQUET)]

    csv, parquet = export_formats(days, store(*many()), SMALL)

    assert not isinstance(csv, Exception)
    assert isinstance(parquet, OSError)
    assert list(verify_day(days[0], NOW, store(*many()))) == []
    assert days[1].manifest() is None
