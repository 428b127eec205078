"""Rows that the magnetic store took and did not keep are written again, once."""

import json
import random
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tagline import Record

from consumers.outcomes import Stored
from consumers.rows.late_days import marker_day, marker_minutes
from consumers.rows.table import UNDECLARED, offset, row
from consumers.rows.timestream.mapping import PackedRecord, RecordPacker
from consumers.rows.timestream.writer import Timestream
from exporter.store import Answer, Column, Span, Values
from exporter.upkeep.handler import ReportsLeftError, make_handler
from exporter.upkeep.rejected_rows import Rewritten
from tests.builders import Context
from tests.twins import Bucket, TimestreamWrite, measure, merged

TIME = 1_763_632_800_123
DAY = date(2025, 11, 20)
START = datetime(2025, 11, 22, tzinfo=UTC)
HOUR = timedelta(hours=1)


class MagneticStore(TimestreamWrite):
    """A table whose magnetic store takes everything, and reports afterwards what it did not keep.

    Attributes:
        now: The time.
        since: When each point was written: it can be asked for six hours later.
        reports_equal: Whether a record that is there already is reported as well.
    """

    settles_after = timedelta(hours=7)

    keeps_for: timedelta | None = None

    def __init__(self, bucket: Bucket, *, reports_equal: bool = False) -> None:
        super().__init__()
        self.bucket = bucket
        self.now = START
        self.since: dict[Any, datetime] = {}
        self.reports_equal = reports_equal

    def write_records(self, **request: Any) -> dict[str, Any]:
        rejected = []
        for index, record in enumerate(records := merged(request)):
            before = set(self.points)
            reason = self.refusal(record)
            if reason is None and self.reports_equal and set(self.points) == before:
                reason = "The record is there already."
            self.since |= dict.fromkeys(set(self.points) - before, self.now)
            if reason:
                version = self._existing_version(record) or {"ExistingVersion": record["Version"]}
                rejected.append({"RecordIndex": index, "Reason": reason, **version, "Record": record})
        if rejected:
            key = f"timestream-rejected/tagline/records/{len(self.bucket)}-{self.now.isoformat()}.json"
            self.bucket[key] = json.dumps({"RejectedRecords": rejected}).encode()
            self.bucket.modified[key] = self.now
        return {"RecordsIngested": {"Total": len(records)}}

    def rows(self, span: Span, columns: tuple[Column, ...]) -> Answer:
        found: list[Values] = []
        for point, record in self.points.items():
            seconds, nanoseconds = divmod(int(record["Time"]), 10**9)
            time = f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}.{nanoseconds:09}"
            if span.start <= time < span.end and self.now - self.since[point] >= timedelta(hours=6):
                values = {"time": time, "_type": record["MeasureName"], "_id": measure(record, "_id")}
                values |= {each["Name"]: each["Value"] for each in record["Dimensions"]}
                found.append([values[column.name] for column in columns])
        return Answer(columns, iter([found]))


class Upkeep:
    """The function among twins."""

    def __init__(self, *, reports_equal: bool = False) -> None:
        self.bucket = Bucket()
        self.store = MagneticStore(self.bucket, reports_equal=reports_equal)
        self.port = Timestream(self.store, "tagline", "records", sleep=lambda _: None, jitter=lambda: 0.0)
        self.done: list[Rewritten] = []
        self.handler = make_handler(
            self.port,
            self.store,  # type: ignore[arg-type]  # only the questions that are asked
            self.bucket,
            report=self.done.append,
            invoke=lambda *_: None,
            now=lambda: self.store.now,
        )

    def deliver(self, *ids: str, version: int = 0) -> None:
        assert self.port.write(rows(*ids, version=version), lambda: 60.0) == [Stored()] * len(ids)

    def run(self, remaining_ms: int = 60_000) -> dict[str, Any]:
        return self.handler({}, Context(remaining_ms))

    def reports(self) -> list[str]:
        return [key for key in self.bucket if key.startswith("timestream-rejected/")]

    def marked(self) -> set[date]:
        return {marker_day(key) for key in self.bucket if key.startswith("late/")}


def rows(*ids: str, version: int = 0) -> list[PackedRecord]:
    made = [
        RecordPacker().record(row(Record(each, TIME, {"n": 1}, "order"), "/aws/lambda/o", UNDECLARED))
        for each in ids
    ]
    return [packed._replace(version=packed.version + version) for packed in made]


def meeting(count: int, since: int = 0) -> list[str]:
    """Return identities whose first points are one and the same."""
    found: dict[int, list[str]] = {}
    number = since
    while True:
        alike = found.setdefault(offset(f"r{number}", 0), [])
        alike.append(f"r{number}")
        if len(alike) == count:
            return alike
        number += 1


MEETING = meeting(3)


def test_rows_that_lost_their_point_are_written_at_the_next_one_and_their_day_is_exported_again() -> None:
    upkeep = Upkeep()
    upkeep.deliver(*MEETING, "alone")
    assert upkeep.store.ids() == sorted([MEETING[0], "alone"])

    upkeep.store.now += timedelta(hours=7)

    assert upkeep.run() == {"reports": 2, "stored": 2, "waiting": 0}
    assert upkeep.store.ids() == sorted([*MEETING, "alone"])
    assert upkeep.marked() == {DAY}
    assert {marker_minutes(body) for key, body in upkeep.bucket.items() if key.startswith("late/")} == {
        frozenset([TIME // 60_000 % 1_440])
    }
    assert upkeep.reports() == []


def test_a_report_waits_until_every_row_of_its_time_can_be_asked_for() -> None:
    upkeep = Upkeep()
    upkeep.deliver(*MEETING)
    upkeep.store.now += timedelta(hours=6, minutes=59)

    assert upkeep.run() == {"reports": 0, "stored": 0, "waiting": 2}

    assert len(upkeep.reports()) == 2
    assert upkeep.marked() == set()


def test_a_row_that_was_stored_under_a_higher_version_is_left_as_it_is() -> None:
    upkeep = Upkeep()
    upkeep.deliver("a", version=1)
    upkeep.deliver("a")
    upkeep.store.now += timedelta(hours=7)

    assert upkeep.run() == {"reports": 1, "stored": 0, "waiting": 0}
    assert upkeep.store.ids() == ["a"]


@given(st.integers(0, 2**32), st.booleans())
@settings(max_examples=40, deadline=None)
def test_whatever_is_delivered_again_and_whenever_upkeep_runs_each_record_is_there_once(
    seed: int, reports_equal: bool
) -> None:
    chance = random.Random(seed)
    upkeep = Upkeep(reports_equal=reports_equal)
    ids = [*MEETING, *CROWD, "alone"]
    for _ in range(chance.randint(5, 25)):
        upkeep.store.now += chance.randint(0, 3) * HOUR
        if chance.random() < 0.7:
            upkeep.deliver(*chance.sample(ids, chance.randint(1, 4)))
        else:
            upkeep.run()
    upkeep.deliver(*ids)
    for _ in range(12):
        upkeep.store.now += 8 * HOUR
        upkeep.run()

    assert upkeep.store.ids() == sorted(ids)
    assert upkeep.reports() == []
    assert upkeep.marked() <= {DAY}


CROWD = meeting(3, since=10_000)


def test_a_run_that_was_ended_in_the_middle_is_taken_up_by_the_next() -> None:
    class DiedError(BaseException):
        pass

    class Dying(Bucket):
        dies = True

        def put(self, key: str, chunks: Any, content_type: str) -> None:
            if self.dies:
                raise DiedError
            super().put(key, chunks, content_type)

    upkeep = Upkeep()
    upkeep.deliver(*MEETING)
    upkeep.store.now += timedelta(hours=7)
    dying = Dying(upkeep.bucket)
    dying.modified = upkeep.bucket.modified
    handler = make_handler(
        upkeep.port,
        upkeep.store,  # type: ignore[arg-type]  # only the questions that are asked
        dying,
        report=upkeep.done.append,
        invoke=lambda *_: None,
        now=lambda: upkeep.store.now,
    )
    with pytest.raises(DiedError):
        handler({}, Context())
    dying.dies = False
    upkeep.store.now += timedelta(hours=7)

    handler({}, Context())

    assert upkeep.store.ids() == sorted(MEETING)
    assert [key for key in dying if key.startswith("timestream-rejected/")] == []
    assert {marker_day(key) for key in dying if key.startswith("late/")} == {DAY}


def reports_of_others() -> Iterator[tuple[str, bytes]]:
    record = {
        "Dimensions": [{"Name": "source", "Value": "/g"}],
        "MeasureName": "order",
        "MeasureValues": [{"Name": "_id", "Type": "VARCHAR", "Value": "r1"}],
        "Time": str(TIME * 1_000_000),
        "TimeUnit": "NANOSECONDS",
        "Version": 3,
    }
    yield "no JSON", b"{"
    yield "another layout", b'{"records": []}'
    yield "a list", b"[]"
    for name in ("MeasureValues", "Time", "Dimensions"):
        rest = {key: value for key, value in record.items() if key != name}
        yield f"without {name}", json.dumps({"RejectedRecords": [{"Record": rest}]}).encode()
    yield "not the consumer's", json.dumps({"RejectedRecords": [{"Record": record}]}).encode()
    yield "empty", b""


@pytest.mark.parametrize("body", [pytest.param(body, id=name) for name, body in reports_of_others()])
def test_a_report_that_cannot_be_read_stays_is_named_and_stops_no_other(body: bytes) -> None:
    upkeep = Upkeep()
    upkeep.bucket["timestream-rejected/a.json"] = body
    upkeep.deliver(*MEETING)
    upkeep.store.now += timedelta(hours=7)

    with pytest.raises(ReportsLeftError, match=r"^timestream-rejected/a\.json: "):
        upkeep.run()

    assert upkeep.reports() == ["timestream-rejected/a.json"]
    assert upkeep.store.ids() == sorted(MEETING)
    assert len(upkeep.done[-1].left) == 1


def test_a_row_that_the_store_refuses_is_named_and_its_report_stays() -> None:
    upkeep = Upkeep()
    upkeep.deliver(*MEETING)
    upkeep.store.now += timedelta(hours=7)
    upkeep.port = Timestream(
        TimestreamWrite(window=(TIME + 1, TIME + 2)),
        "tagline",
        "records",
        sleep=lambda _: None,
        jitter=lambda: 0.0,
    )
    handler = make_handler(
        upkeep.port,
        upkeep.store,  # type: ignore[arg-type]  # only the questions that are asked
        upkeep.bucket,
        report=upkeep.done.append,
        invoke=lambda *_: None,
        now=lambda: upkeep.store.now,
    )

    with pytest.raises(ReportsLeftError, match="outside the time range"):
        handler({}, Context())

    assert len(upkeep.reports()) == 2


def test_without_time_no_report_is_begun() -> None:
    upkeep = Upkeep()
    upkeep.deliver(*MEETING)
    upkeep.store.now += timedelta(hours=7)

    with pytest.raises(ReportsLeftError, match="no time left"):
        upkeep.run(remaining_ms=30_000)

    assert len(upkeep.reports()) == 2
