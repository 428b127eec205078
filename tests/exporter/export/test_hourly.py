"""Days with very many rows, written hour by hour: readers after every change, kills, late rows, columns."""

import gzip
import io
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import groupby
from typing import Any

import pyarrow.parquet as pq
import pytest

from consumers.rows import late_days
from exporter.export.day import DayJob
from exporter.export.handler import make_handler
from exporter.export.run import FAILED, NIGHTLY
from exporter.lake.athena import list_key
from exporter.lake.closed import KEY, closed
from exporter.lake.days import Day
from exporter.lake.formats import Format
from exporter.lake.hours import HoursOfDay, hours_of_part, window
from exporter.lake.manifest import HOURS
from exporter.store import Column, whole
from exporter.stores.lake.questions import LakeStore
from exporter.stores.metered import Metered
from exporter.upkeep.tasks import Task, Tasks
from tests.builders import Context
from tests.exporter.stores.test_lake_readers import KilledError, Watched
from tests.fragments import write_fragments
from tests.twins import Bucket, read_key

DAY = date(2025, 11, 20)
LARGE = 5
Step = Callable[[Bucket], None]


def record(number: int, hour: int, **more: Any) -> dict[str, Any]:
    return {
        "time": f"{DAY} {hour:02}:{number % 60:02}:00.000{number:06}",
        "_type": "api_request",
        "_id": f"id-{number:05}",
        "source": "/g",
        "route": "/pets",
        "client": f"client-{number % 4}",
        "status": 200.0,
        **more,
    }


def rows(count: int, hour: int, first: int = 0, **more: Any) -> list[dict[str, Any]]:
    return [record(hour * 100 + number, hour, **more) for number in range(first, first + count)]


def arrive(*batches: list[dict[str, Any]]) -> Step:
    """Return what writes batches as the consumer does, each twice, and marks the day if it is over."""

    def step(bucket: Bucket) -> None:
        for batch in batches:
            write_fragments(bucket, batch)
            write_fragments(bucket, batch[:2])

    return step


def late(*batches: list[dict[str, Any]]) -> Step:
    def step(bucket: Bucket) -> None:
        arrive(*batches)(bucket)
        bucket[late_days.marker_key(DAY, "batch", "delivery")] = b""

    return step


def run(bucket: Bucket, event: dict[str, Any], now: datetime, large_rows: int = LARGE) -> dict[str, Any]:
    handler = make_handler(
        Metered(LakeStore(bucket, read_key=read_key), 10**12),
        bucket,
        invoke=lambda name, left: pytest.fail(f"{name} was invoked with {left}"),
        job=DayJob(size=1, now=lambda: now, read_key=read_key),
        large_rows=large_rows,
    )
    answer = handler(event, Context(900_000))
    assert "failed" not in answer, json.dumps(answer)
    return answer


def at(hour: int, **more: int) -> Step:
    """Return the run a quarter past an hour."""
    now = datetime(DAY.year, DAY.month, DAY.day, hour, 15, tzinfo=UTC) + timedelta(**more)
    return lambda bucket: void(run(bucket, {"hours": True}, now))


def night(nights: int = 1) -> Step:
    now = datetime(DAY.year, DAY.month, DAY.day, 0, 15, tzinfo=UTC) + timedelta(days=nights)
    return lambda bucket: void(run(bucket, {"time": now.isoformat()}, now))


def do_task(bucket: Bucket, name: str) -> dict[str, int]:
    """Return how many rows of a client are found or forgotten, by format."""
    now = datetime(DAY.year, DAY.month, DAY.day, 12, tzinfo=UTC)
    tasks = Tasks(bucket, LakeStore(bucket, read_key=read_key), name, lambda: now, read_key)
    event = {"task": name, "from": str(DAY), "to": str(DAY), "client": "client-1"}
    done = tasks.do(Task.from_event(event, now), lambda: True)
    assert not any("failed" in result for result in done.results)
    return {result["format"]: result["rows"] for result in done.results}


def void(_: object) -> None:
    """Do nothing."""


def count(bucket: Bucket) -> int:
    """Count the day as the asking port does."""
    store = LakeStore(bucket, read_key=read_key)
    counts = {
        sum(store.tally(DAY).values()),
        sum(1 for _ in store.rows(whole(DAY), (Column("_id", "text"),)).rows),
    }
    assert len(counts) == 1
    return counts.pop()


def ids_in_sql(bucket: Bucket) -> list[str]:
    """Return the identities of the day as SQL reads them: closed hours by the list, others by fragments."""
    boundary = closed(bucket)
    hours = 24 if boundary.has(DAY) else boundary.hours.get(DAY, 0)
    listed = (bucket.get(list_key(DAY, Format.PARQUET)) or b"").decode().split()
    found: list[str] = []
    for name in listed:
        table = pq.read_table(io.BytesIO(bucket[name[name.index("records/") :]]))
        times, ids = table["time"].to_pylist(), table["_id"].to_pylist()
        found += [each for time, each in zip(times, ids, strict=True) if time.hour < hours]
    fragments = Bucket({key: body for key, body in bucket.items() if key.startswith("store/")})
    open_hours = LakeStore(fragments, hours=range(hours, 24))
    return sorted(found + [str(row[0]) for row in open_hours.rows(whole(DAY), (Column("_id", "text"),)).rows])


def texts(bucket: Bucket) -> list[str]:
    """Return the lines of the exported day, without the headers of its files."""
    manifest = Day(bucket, DAY, Format.CSV_GZ).manifest()
    assert manifest is not None
    names = {column.name for column in manifest.columns}
    lines: list[str] = []
    for part in manifest.parts:
        head, *rest = gzip.decompress(bucket[part.key]).decode().splitlines()
        assert set(head.split(",")) == names
        lines += rest
    return lines


DAY_OF_STEPS: list[tuple[str, Step]] = [
    ("rows of four hours", arrive(rows(4, 0), rows(4, 1), rows(4, 2), rows(2, 3))),
    ("the third hour is over", at(3)),
    ("rows of the last hour, and late ones", arrive(rows(4, 3), rows(2, 1, 10))),
    ("the fourth hour is over", at(4)),
    ("a column that the day did not have", arrive(rows(3, 5, error="E1"))),
    ("the sixth hour is over", at(6)),
    ("rows until midnight", arrive(rows(3, 23))),
    ("the night", night()),
    ("late rows", late(rows(2, 2, 20), rows(1, 22))),
    ("the second night", night(2)),
]
# Rows that there are after each step.
COUNTS = [14, 14, 18, 18, 21, 21, 24, 24, 27, 27]


def test_no_change_of_hours_or_of_the_day_shows_a_wrong_count() -> None:
    bucket, numbers = Watched(), []
    for (name, step), expected in zip(DAY_OF_STEPS, COUNTS, strict=True):
        before = ids_in_sql(bucket) if bucket else []
        seen: list[tuple[int, int]] = []

        def look(_: Watched, seen: list[tuple[int, int]] = seen) -> None:
            seen.append((count(bucket), len(ids_in_sql(bucket))))

        bucket.look = None if name.startswith(("rows", "late", "a column")) else look
        step(bucket)
        bucket.look = None
        assert {port for port, _ in seen} <= {expected}, name
        # SQL has late rows of closed hours once the hour, or the day, is written again.
        changes = [sql for sql, _ in groupby(sql for _, sql in seen)]
        assert changes in ([], [expected], [len(before), expected]), name
        assert count(bucket) == expected
        numbers.append(len(set(ids_in_sql(bucket))))
        assert numbers[-1] == len(ids_in_sql(bucket))
    assert numbers == [14, 14, 16, 18, 21, 21, 24, 24, 24, 27]


def test_a_day_by_hours_has_the_rows_of_a_day_that_is_written_at_once() -> None:
    bucket, at_once = Bucket(), Bucket()
    for _, step in DAY_OF_STEPS:
        step(bucket)
    at_once |= {key: body for key, body in bucket.items() if key.startswith(("store/", "lake/columns"))}
    run(at_once, {"day": str(DAY)}, datetime(2025, 11, 22, tzinfo=UTC), large_rows=10**9)

    assert texts(bucket) == texts(at_once)
    assert not any(key.endswith(HOURS) for key in bucket)
    assert not list(bucket.keys("late/"))
    assert [days.first for days in closed(bucket).days] == [DAY]
    assert not closed(bucket).hours


def test_only_hours_that_changed_are_written_again() -> None:
    bucket = Bucket()
    for _, step in DAY_OF_STEPS[:8]:
        step(bucket)
    before = Day(bucket, DAY, Format.PARQUET).manifest()
    for _, step in DAY_OF_STEPS[8:]:
        step(bucket)
    after = Day(bucket, DAY, Format.PARQUET).manifest()

    assert before is not None
    assert after is not None
    assert (before.revision, after.revision) == (1, 2)
    assert {hours_of_part(part) for part in after.parts if part not in before.parts} == {(2, 2), (22, 22)}
    assert all(part in after.parts for part in before.parts if hours_of_part(part) != (2, 2))
    night(3)(bucket)
    assert Day(bucket, DAY, Format.PARQUET).manifest() == after


def test_the_hours_of_a_small_day_stay_open() -> None:
    bucket = Bucket()
    arrive(rows(LARGE - 2, 0))(bucket)
    there = set(bucket)

    at(3)(bucket)

    assert set(bucket) == there
    assert KEY not in bucket


def test_a_day_that_the_night_finds_locked_is_written_by_the_next_hour() -> None:
    bucket = Bucket()
    arrive(rows(4, 0), rows(4, 23))(bucket)
    midnight = datetime(DAY.year, DAY.month, DAY.day, tzinfo=UTC) + timedelta(days=1)
    writing = Day(bucket, DAY, Format.PARQUET)  # by the run of the day's last hour
    assert writing.take("the last hour's run", midnight + timedelta(minutes=15))

    night()(bucket)
    assert writing.manifest() is None
    arrive([record(2400, 0, time=f"{DAY + timedelta(days=1)} 00:30:00.000000000")])(bucket)
    assert writing.lease
    assert writing.take("the last hour's run", midnight + timedelta(minutes=75), writing.lease.token)
    at(1, days=1)(bucket)
    assert writing.manifest() is None, "the run still writes"
    writing.release()
    at(2, days=1)(bucket)

    for kind in (Format.CSV_GZ, Format.PARQUET):
        manifest = Day(bucket, DAY, kind).manifest()
        assert manifest is not None
        assert manifest.rows == 8
        assert not manifest.day_was_over, "most of its hours were written before"
    assert not list(bucket.keys(late_days.PREFIX))
    assert count(bucket) == 8
    assert Day(bucket, DAY + timedelta(days=1), Format.PARQUET).manifest() is None, "that day is not over"


def test_a_day_that_failed_is_for_the_next_night() -> None:
    bucket = Bucket()
    arrive(rows(2, 0))(bucket)
    for batch in (NIGHTLY, FAILED):
        bucket[late_days.marker_key(DAY, batch, "x")] = b""

    at(1, days=1)(bucket)

    assert Day(bucket, DAY, Format.PARQUET).manifest() is None
    night(2)(bucket)
    assert Day(bucket, DAY, Format.PARQUET).manifest() is not None


@pytest.mark.parametrize("place", [3, 5, 9], ids=lambda place: DAY_OF_STEPS[place][0])
def test_a_run_that_is_killed_anywhere_is_done_by_the_next(place: int) -> None:
    bucket = Bucket()
    for _, step in DAY_OF_STEPS[:place]:
        step(bucket)
    whole_step = Watched(bucket)
    whole_step.look = lambda _: None
    DAY_OF_STEPS[place][1](whole_step)
    for kill_at in range(1, whole_step.changes + 1):
        killed = Watched(bucket)
        killed.look, killed.kill_at = lambda _: None, kill_at
        with pytest.raises(KilledError):
            DAY_OF_STEPS[place][1](killed)
        killed.look = None
        assert count(killed) == COUNTS[place]
        assert len(set(ids_in_sql(killed))) == len(ids_in_sql(killed))
        # A killed run keeps the day's lock for three minutes.
        killed.delete(list(killed.keys("lake/locks/")))
        DAY_OF_STEPS[place][1](killed)
        assert ids_in_sql(killed) == ids_in_sql(whole_step)
        assert count(killed) == COUNTS[place]


def test_an_erasure_leaves_nothing_of_a_client_in_hours_that_are_written() -> None:
    bucket = Bucket()
    for _, step in DAY_OF_STEPS[:4]:
        step(bucket)
    assert closed(bucket).hours == {DAY: 4}
    left = [each for each in ids_in_sql(bucket) if int(each[3:]) % 4 != 1]

    hours = HoursOfDay(Day(bucket, DAY, Format.CSV_GZ)).manifest()
    assert hours is not None
    theirs = sum(gzip.decompress(bucket[part.key]).count(b"client-1") for part in hours.parts)
    assert theirs
    found = do_task(bucket, "find")
    forgotten = do_task(bucket, "forget")

    assert found == forgotten
    assert found.pop("store") == 2 * theirs  # each fragment has a copy
    assert found == dict.fromkeys([Format.CSV_GZ, Format.PARQUET], theirs)
    assert set(do_task(bucket, "find").values()) == {0}
    parts = [body for key, body in bucket.items() if "part-" in key and key.endswith("csv.gz")]
    assert len(parts) > 1
    assert not any(b"client-1" in gzip.decompress(body) for body in parts)
    assert ids_in_sql(bucket) == left
    at(6)(bucket)
    night()(bucket)
    assert ids_in_sql(bucket) == left
    assert not any("client-1" in line for line in texts(bucket))


def test_counts_of_hours_that_are_not_written_again_stay() -> None:
    bucket = Bucket()
    arrive(*(rows(4, hour) for hour in (0, 1, 2)))(bucket)
    run(bucket, {"day": str(DAY)}, datetime(2025, 11, 21, tzinfo=UTC), large_rows=10**9)
    forgotten = do_task(bucket, "forget")[Format.CSV_GZ]
    assert forgotten
    day = Day(bucket, DAY, Format.CSV_GZ)
    exported, tag = day.committed()
    assert exported is not None
    # Another store, which shortens rows, had the day before.
    day.commit(replace(exported, restored=3, not_restored=1), tag, datetime(2025, 11, 21, 1, tzinfo=UTC))

    late(rows(2, 9, 2))(bucket)
    night(2)(bucket)

    manifest = day.manifest()
    assert manifest is not None
    assert manifest.rows == exported.rows + 2
    assert (manifest.restored, manifest.not_restored, manifest.forgotten) == (3, 1, forgotten)


def test_hours_are_written_with_all_whose_files_they_share() -> None:
    bucket = Bucket()
    arrive(rows(3, 0), rows(3, 4), rows(3, 9))(bucket)
    run(bucket, {"day": str(DAY)}, datetime(2025, 11, 21, tzinfo=UTC), large_rows=10**9)
    manifest = Day(bucket, DAY, Format.PARQUET).manifest()
    assert manifest is not None
    first, last = hours_of_part(manifest.parts[0])

    assert window([manifest, None], first) == range(first, last + 1)
    assert window([None], 7) == range(7, 8)
