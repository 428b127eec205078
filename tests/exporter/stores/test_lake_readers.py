"""Readers of the lake store, asked after every single change of the bucket while others write it."""

import gzip
import json
import re
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, timedelta
from io import BytesIO
from itertools import groupby
from typing import Any

import pyarrow.parquet as pq
import pytest

from consumers.rows import late_days
from exporter.export.day import DayJob
from exporter.export.handler import make_handler
from exporter.lake.closed import closed
from exporter.lake.days import Day
from exporter.lake.formats import Format
from exporter.store import Column, whole
from exporter.stores.lake.questions import LakeStore
from exporter.stores.metered import Metered
from exporter.upkeep.tasks import Task, Tasks
from tests.builders import Context
from tests.fragments import write_fragments
from tests.twins import Bucket, read_key

DAY = date(2025, 11, 20)
NOW = datetime(2025, 11, 21, 0, 15, tzinfo=UTC)
# The export adds Parquet to these.
FORMATS = (Format.CSV_GZ,)
ROWS = 40
# The keys that only writers read.
OF_WRITERS = re.compile(r"^lake/locks/|/_progress\.json$")


class KilledError(BaseException):
    """The process is gone."""


class Watched(Bucket):
    """A bucket that is looked at after every change of one object.

    Attributes:
        look: Is called after each change.
        changes: How many there were.
        kill_at: The change after which the writer is killed; None for never.
    """

    look: Callable[["Watched"], None] | None = None
    changes = 0
    kill_at: int | None = None

    def __setitem__(self, key: str, body: bytes) -> None:
        super().__setitem__(key, body)
        self.changed()

    def __delitem__(self, key: str) -> None:
        super().__delitem__(key)
        self.changed()

    def delete(self, keys: Iterable[str]) -> None:
        for key in list(keys):
            if key in self:
                del self[key]

    def changed(self) -> None:
        """Have it looked at, as after a change."""
        if self.look is None:
            return
        look, self.look = self.look, None
        look(self)
        self.look = look
        self.changes += 1
        if self.changes == self.kill_at:
            self.look = None
            raise KilledError


def record(number: int) -> dict[str, Any]:
    return {
        "time": f"{DAY} {number % 2:02}:{number:02}:00.000{number:06}",
        "_type": "api_request",
        "_id": f"id-{number:05}",
        "source": "/g",
        "route": "/pets",
        "client": f"client-{number % 4}",
        "status": 200.0,
        "note": f"note {number}",
    }


def count(bucket: Bucket) -> int:
    """Count a day as the asking port does, in each of its ways."""
    store = LakeStore(bucket, read_key=read_key)
    counts = {
        store.count(),
        sum(store.tally(DAY).values()),
        sum(store.sources(DAY).values()),
        sum(1 for _ in store.rows(whole(DAY), (Column("_id", "text"),)).rows),
    }
    assert len(counts) == 1
    return counts.pop()


def count_in_sql(bucket: Bucket) -> int:
    """Count a day as SQL over the tables does: a closed day by its parts, another by its fragments."""
    if any(DAY in list(days) for days in closed(bucket).days):
        manifest = Day(bucket, DAY, Format.PARQUET).manifest()
        assert manifest is not None
        return manifest.rows
    fragments = Bucket({key: body for key, body in bucket.items() if key.startswith("store/")})
    return LakeStore(fragments, read_key=read_key).count()


def export(bucket: Bucket, now: datetime = NOW) -> None:
    """Export as the night does."""
    handler = make_handler(
        Metered(LakeStore(bucket, read_key=read_key), 10**12),
        bucket,
        invoke=lambda name, event: pytest.fail(f"{name} was invoked with {event}"),
        formats=FORMATS,
        job=DayJob(size=1, now=lambda: now, read_key=read_key),
    )
    answer = handler({"time": now.isoformat()}, Context(900_000))
    assert "failed" not in answer, json.dumps(answer)


def forget(bucket: Bucket, now: datetime = NOW) -> None:
    tasks = Tasks(bucket, LakeStore(bucket, read_key=read_key), "run", lambda: now, read_key)
    event = {"task": "forget", "from": str(DAY), "to": str(DAY), "client": "client-1"}
    tasks.do(Task.from_event(event, now), lambda: True)


def come_late(bucket: Bucket) -> None:
    """Write rows as the consumer does for a day that is over: copies, and ten new ones; then the marker."""
    write_fragments(bucket, map(record, range(35, 45)))
    write_fragments(bucket, map(record, range(40, 50)))
    bucket[late_days.marker_key(DAY, "batch", "delivery")] = b""


def filled() -> Watched:
    bucket = Watched()
    write_fragments(bucket, map(record, range(25)))
    write_fragments(bucket, map(record, range(20, ROWS)))
    return bucket


def test_no_change_of_an_export_an_erasure_or_of_late_rows_shows_a_wrong_count() -> None:
    bucket = filled()
    counts: list[tuple[int, int]] = []

    def look(_: Watched) -> None:
        counts.append((count(bucket), count_in_sql(bucket)))

    def seen(step: Callable[[Bucket], None]) -> tuple[list[int], list[int]]:
        """Return the counts that readers see during a step, by the port and in SQL, equal neighbours once."""
        counts.clear()
        bucket.look = look
        step(bucket)
        bucket.look = None
        assert len(counts) > 1
        return tuple([key for key, _ in groupby(each)] for each in zip(*counts, strict=True))  # type: ignore[return-value]

    assert seen(export) == ([40], [40])
    # Each hour's fragment adds its rows to what the port counts; SQL has them with the next export.
    assert seen(come_late) == ([42, 45, 47, 50], [40])
    assert seen(export) == ([50], [40, 50])
    # A write of the list of forgotten clients takes all their rows away; SQL follows with the day's manifest.
    assert seen(forget) == ([37], [50, 37])
    assert seen(export) == ([37], [37])


@pytest.mark.parametrize(
    ("before", "step", "counts"),
    [
        ([], export, {40}),
        ([export, come_late], export, {50}),
        ([export, come_late, export], forget, {50, 37}),
        ([export, forget, come_late], export, {37}),
    ],
    ids=["an export", "an export of late rows", "an erasure", "an export after an erasure"],
)
def test_whatever_is_killed_and_done_again_no_change_shows_a_wrong_count(
    before: list[Callable[[Bucket], None]], step: Callable[..., None], counts: set[int]
) -> None:
    bucket = filled()
    for each in before:
        each(bucket)
    whole_step = Watched(bucket)
    whole_step.look = lambda _: None
    step(whole_step)
    final = count(whole_step)
    known: dict[frozenset[tuple[str, bytes]], int] = {}

    def look(bucket: Watched) -> None:
        # Readers look at neither locks nor progress; most other states come again with each kill.
        state = frozenset((key, body) for key, body in bucket.items() if not OF_WRITERS.search(key))
        if state not in known:
            known[state] = LakeStore(bucket, read_key=read_key).count()
        assert known[state] in counts

    for kill_at in range(1, whole_step.changes + 1):
        killed = Watched(bucket)
        killed.look, killed.kill_at = lambda _: None, kill_at
        with pytest.raises(KilledError):
            step(killed)
        look(killed)
        killed.look = look
        # A killed run keeps the day's lock for three minutes.
        step(killed, NOW + timedelta(minutes=10))
        assert LakeStore(killed, read_key=read_key).count() == count_in_sql(killed) == final
    assert whole_step.changes > 5


def test_what_comes_again_of_a_forgotten_client_is_gone_after_the_next_night() -> None:
    bucket = filled()
    export(bucket)
    forget(bucket)
    assert b"client-1" not in b"".join(bodies(bucket))

    come_late(bucket)
    assert b"client-1" in b"".join(bodies(bucket))
    assert count(bucket) == 37

    export(bucket)
    assert b"client-1" not in b"".join(bodies(bucket))
    assert count(bucket) == 37


def bodies(bucket: Bucket) -> list[bytes]:
    """Return the columns of clients in all fragments, and the texts of the days."""
    fragments = [
        json.dumps(pq.read_table(BytesIO(body))["client"].to_pylist()).encode()
        for key, body in bucket.items()
        if key.startswith("store/")
    ]
    return fragments + [gzip.decompress(body) for key, body in bucket.items() if key.endswith(".csv.gz")]
