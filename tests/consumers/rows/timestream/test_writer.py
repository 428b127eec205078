"""Rows into Timestream, an outcome for each."""

import random
import threading
from collections import Counter, deque
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from botocore.exceptions import ConnectionClosedError, ParamValidationError, ReadTimeoutError
from hypothesis import given, settings
from hypothesis import strategies as st
from tagline import Record, parse_timestamp

from consumers.deadlines import LONGEST_WAIT, RESERVE
from consumers.rows.store import Duplicate, Outcome, Refused, Stored, Traffic, Unwritten
from consumers.rows.table import UNDECLARED, offset, row
from consumers.rows.timestream.mapping import PackedRecord, RecordPacker
from consumers.rows.timestream.writer import Timestream
from tests.twins import TimestreamWrite, client_error, measure

TIME = 1_431_857_103_000
# https://docs.aws.amazon.com/timestream/latest/developerguide/troubleshoot-writethrottles.html
MAGNETIC = "Check the ActiveMagneticStorePartitions CloudWatch metric for this database"
WINDOW = (
    "The record timestamp is outside the time range [2015-05-17T09:05:03.000Z, 2015-05-17T10:20:03.000Z) "
    "of the memory store."
)


PACKER = RecordPacker()


def rows(*ids: str, time: int = TIME) -> list[PackedRecord]:
    records = [Record(id=identity, timestamp=time) for identity in ids]
    return [PACKER.record(row(record, "/aws/lambda/orders", UNDECLARED)) for record in records]


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self, seconds: float = 60.0) -> None:
        self.left = seconds
        self.naps: list[float] = []

    def remaining(self) -> float:
        return self.left

    def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.left -= seconds


def write(client: TimestreamWrite, batch: list[PackedRecord], clock: Clock | None = None) -> list[Outcome]:
    clock = clock or Clock()
    store = Timestream(client, "tagline", "records", sleep=clock.sleep, jitter=lambda: 1.0)
    return store.write(batch, clock.remaining)


def colliding(count: int) -> list[str]:
    """Return identities whose first points are one and the same."""
    seen: dict[int, list[str]] = {}
    number = 0
    while True:
        identity = f"id{number}"
        number += 1
        same = seen.setdefault(offset(identity, 0), [])
        same.append(identity)
        if len(same) == count:
            return same


def test_a_batch_is_written_in_one_request() -> None:
    client = TimestreamWrite()

    outcomes = write(client, rows(*map(str, range(100))))

    assert Counter(map(type, outcomes)) == {Stored: 100}
    assert len(client.requests) == 1
    assert len(client.points) == 100


def test_an_empty_batch_asks_nothing() -> None:
    client = TimestreamWrite()

    assert write(client, []) == []
    assert client.requests == []


def test_writing_again_leaves_the_same_rows() -> None:
    client = TimestreamWrite()
    batch = rows(*map(str, range(50)))

    write(client, batch)
    write(client, batch[::-1])

    assert len(client.points) == 50


def test_copies_in_one_batch_are_one_row() -> None:
    client = TimestreamWrite()

    assert write(client, rows("a", "b", "a", "a")) == [Stored(), Stored(), Duplicate(), Duplicate()]
    assert client.ids() == ["a", "b"]


def test_records_that_meet_at_one_point_are_all_stored_once_in_any_order() -> None:
    first, second, third = colliding(3)
    client = TimestreamWrite()

    assert write(client, rows(first, second, third)) == [Stored()] * 3
    for again in ([second, first], [third, second, first], [third], [first, third, third]):
        assert Unwritten not in map(type, write(client, rows(*again)))

    assert client.ids() == sorted([first, second, third])


@given(st.randoms(use_true_random=False), st.integers(1, 5))
def test_any_deliveries_of_crowded_records_leave_each_once(chance: random.Random, copies: int) -> None:
    ids = [*CROWD, "alone"]
    deliveries = ids * copies
    chance.shuffle(deliveries)
    client = TimestreamWrite()

    start = 0
    while start < len(deliveries):
        end = start + chance.randint(1, 6)
        outcomes = write(client, rows(*deliveries[start:end]))
        assert all(isinstance(outcome, (Stored, Duplicate)) for outcome in outcomes)
        start = end

    assert client.ids() == sorted(ids)


CROWD = [*colliding(3), "x", "y"]
THRONG = [*colliding(4), *colliding(5)[-1:], "z"]


class Interleaved(TimestreamWrite):
    """A store that several writers reach at once: between two records of a request, others' are stored."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self.chance = chance
        self.others: deque[Callable[[], None]] = deque()

    def write_records(self, **request: Any) -> dict[str, Any]:
        try:
            return super().write_records(**request)
        finally:
            if self.chance.random() < 0.2:  # what was stored stays, and its writer is not told
                raise ReadTimeoutError(endpoint_url="https://ingest")

    def _refusal(self, record: dict[str, Any]) -> str | None:
        while self.others and self.chance.random() < 0.3:
            self.others.popleft()()
        return super()._refusal(record)


@given(st.integers(0, 2**32), st.integers(1, 3))
@settings(max_examples=200, deadline=None)
def test_several_writers_at_once_in_any_order_leave_the_same_rows_as_ever_after(
    seed: int, copies: int
) -> None:
    chance = random.Random(seed)
    client = Interleaved(chance)
    store = Timestream(client, "tagline", "records", sleep=lambda _: None, jitter=lambda: 0.0)
    told: list[Outcome] = []

    def write_one(batch: list[PackedRecord]) -> None:
        told.extend(store.write(batch, lambda: 60.0))

    def deliver(deliveries: list[str]) -> None:
        chance.shuffle(deliveries)
        while deliveries:
            size = chance.randint(1, 5)
            batch = rows(*deliveries[:size])
            client.others.append(partial(write_one, batch))
            del deliveries[:size]
        while client.others:
            client.others.popleft()()

    deliver(THRONG * copies)
    once = dict(client.points)
    deliver(THRONG * 2)

    assert client.points == once
    assert client.ids() == sorted(THRONG)
    assert len(told) == len(THRONG) * (copies + 2)
    assert {type(outcome) for outcome in told} <= {Stored, Duplicate}


def test_a_record_with_no_free_point_is_refused_in_the_end() -> None:
    client = TimestreamWrite()
    client.refusing["a"] = "A record already exists with the same time, dimensions, ..."

    (outcome,) = write(client, rows("a"))

    assert outcome == Refused("invalid", "no free point in 32 attempts")
    assert len(client.requests) == 32


@pytest.mark.parametrize(
    ("reason", "time", "word"),
    [
        (WINDOW, "2015-05-17T09:05:02.999Z", "late"),
        (WINDOW, "2015-05-17T10:20:03.000Z", "future"),
        (
            "The record timestamp is outside the time range of the memory store.",
            "2015-05-17T10:05:03Z",
            "late",
        ),
        ("Multi measure names clash: status is DOUBLE", "2015-05-17T10:05:03Z", "invalid"),
    ],
)
def test_what_timestream_refuses_for_good_has_a_reason_and_its_neighbours_are_stored(
    reason: str, time: str, word: str
) -> None:
    client = TimestreamWrite()
    client.refusing["bad"] = reason
    when = parse_timestamp(time)
    assert when is not None
    batch = rows("a", "bad", "b", time=when)

    assert write(client, batch) == [Stored(), Refused(word, reason), Stored()]
    assert client.ids() == ["a", "b"]


@pytest.mark.parametrize(
    "fault",
    [
        client_error("ThrottlingException", 429, message=MAGNETIC),
        client_error("InternalServerException", 500),
        client_error("SomethingNew", 503),
        ReadTimeoutError(endpoint_url="https://ingest"),
        ConnectionClosedError(endpoint_url="https://ingest"),
        client_error("RejectedRecordsException", 419),
    ],
    ids=[
        "magnetic store throttles",
        "server error",
        "unknown 5xx",
        "timeout",
        "connection cut",
        "unlisted rejections",
    ],
)
def test_a_passing_fault_is_tried_again_after_longer_and_longer_waits(fault: Exception) -> None:
    client = TimestreamWrite(fault, fault, fault)
    clock = Clock()

    assert write(client, rows("a", "b"), clock) == [Stored(), Stored()]
    assert clock.naps == [0.05, 0.1, 0.2]


def test_while_the_memory_store_throttles_waits_stay_short_so_that_it_grows_with_what_it_is_sent() -> None:
    client = TimestreamWrite(*[client_error("ThrottlingException", 429)] * 5)
    clock = Clock()

    assert write(client, rows("a", "b"), clock) == [Stored(), Stored()]
    assert clock.naps == [0.05] * 5


def test_of_the_requests_that_the_magnetic_store_put_off_one_at_a_time_is_tried_again() -> None:
    class Throttling(TimestreamWrite):
        def __init__(self) -> None:
            super().__init__()
            self.first = threading.Barrier(4, timeout=30)
            self.begun: set[str] = set()
            self.inside = self.most = 0

        def write_records(self, **request: Any) -> dict[str, Any]:
            (identity,) = [measure(record, "_id") for record in request["Records"]]
            if identity not in self.begun:
                self.begun.add(identity)
                self.first.wait()  # all four are under way
                raise client_error("ThrottlingException", 429, message=MAGNETIC)
            self.inside += 1
            self.most = max(self.most, self.inside)
            threading.Event().wait(0.005)
            self.inside -= 1
            return super().write_records(**request)

    client = Throttling()
    store = Timestream(client, "tagline", "records", sleep=lambda _: None, jitter=lambda: 1.0)
    threads = [
        threading.Thread(target=store.write, args=(rows(identity), lambda: 60.0)) for identity in "abcd"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert client.ids() == ["a", "b", "c", "d"]
    assert client.most == 1


def test_what_went_to_the_store_is_counted_once() -> None:
    client = TimestreamWrite(client_error("ThrottlingException", 429), client_error("X", 500), None)
    store = Timestream(client, "tagline", "records", sleep=lambda _: None, jitter=lambda: 0.0)

    store.write(rows("a", "b"), lambda: 60.0)

    traffic = store.traffic()
    assert (traffic.requests, traffic.retries, traffic.throttled) == (3, 2, 1)
    assert traffic.bytes % 3 == 0
    assert traffic.bytes > 3 * 500
    assert store.traffic() == Traffic()


def test_a_cut_off_answer_counts_as_not_written_and_is_sent_again() -> None:
    class CutOff(TimestreamWrite):
        answers = 0

        def write_records(self, **request: Any) -> dict[str, Any]:
            self.answers += 1
            answer = super().write_records(**request)
            return {} if self.answers == 1 else answer

    client = CutOff()

    assert write(client, rows("a")) == [Stored()]
    assert len(client.requests) == 2
    assert client.ids() == ["a"]


def test_a_lasting_fault_ends_before_the_invocation_does() -> None:
    client = TimestreamWrite(*[client_error("ThrottlingException", 429, message=MAGNETIC)] * 1_000)
    clock = Clock(30.0)

    outcomes = write(client, rows("a", "b"), clock)

    assert [type(outcome) for outcome in outcomes] == [Unwritten, Unwritten]
    assert clock.left > RESERVE
    assert max(clock.naps) == LONGEST_WAIT


def test_without_time_nothing_is_begun() -> None:
    client = TimestreamWrite()

    (outcome,) = write(client, rows("a"), Clock(1.0))

    assert outcome == Unwritten("not tried: no time left")
    assert client.requests == []


@pytest.mark.parametrize("code", ["AccessDeniedException", "ResourceNotFoundException"])
def test_refused_access_is_not_the_records_fault(code: str) -> None:
    client = TimestreamWrite(client_error(code))

    outcomes = write(client, rows("a", "b"))

    assert [type(outcome) for outcome in outcomes] == [Unwritten, Unwritten]


@pytest.mark.parametrize("bad", range(5))
@pytest.mark.parametrize(
    "fault",
    [client_error("ValidationException"), ParamValidationError(report="min length: 1")],
    ids=["the service's", "the client's"],
)
def test_a_record_that_fails_its_whole_request_is_found_and_its_neighbours_are_stored(
    bad: int, fault: Exception
) -> None:
    class Judging(TimestreamWrite):
        def write_records(self, **request: Any) -> dict[str, Any]:
            if "bad" in str(request["Records"]):
                raise fault
            return super().write_records(**request)

    client = Judging()
    ids = ["a", "b", "c", "d", "e"]
    ids[bad] = "bad"

    outcomes = write(client, rows(*ids))

    assert [type(outcome) for outcome in outcomes] == [
        Refused if identity == "bad" else Stored for identity in ids
    ]
    assert client.ids() == sorted(set(ids) - {"bad"})
