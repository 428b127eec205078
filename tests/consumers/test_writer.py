"""Rows into Timestream, an outcome for each."""

import random
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from botocore.exceptions import ConnectionClosedError, ParamValidationError, ReadTimeoutError
from hypothesis import given
from hypothesis import strategies as st
from tagline import Record, parse_timestamp

from consumers.table import Row, row
from consumers.timestream import writer
from consumers.timestream.mapping import offset
from consumers.timestream.writer import Duplicate, Outcome, Refused, Stored, Timestream, Unwritten
from tests.twins import TimestreamWrite, client_error

TIME = 1_431_857_103_000
WINDOW = (
    "The record timestamp is outside the time range [2015-05-17T09:05:03.000Z, 2015-05-17T10:20:03.000Z) "
    "of the memory store."
)


def rows(*ids: str) -> list[Row]:
    return [row(Record(id=identity, timestamp=TIME), "/aws/lambda/orders") for identity in ids]


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


def write(client: TimestreamWrite, batch: list[Row], clock: Clock | None = None) -> list[Outcome]:
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
    batch = [replace(each, time=when) for each in rows("a", "bad", "b")]

    assert write(client, batch) == [Stored(), Refused(word, reason), Stored()]
    assert client.ids() == ["a", "b"]


@pytest.mark.parametrize(
    "fault",
    [
        client_error("ThrottlingException"),
        client_error("InternalServerException", 500),
        client_error("SomethingNew", 503),
        ReadTimeoutError(endpoint_url="https://ingest"),
        ConnectionClosedError(endpoint_url="https://ingest"),
        client_error("RejectedRecordsException", 419),
    ],
    ids=["throttled", "server error", "unknown 5xx", "timeout", "connection cut", "unlisted rejections"],
)
def test_a_passing_fault_is_tried_again_after_longer_and_longer_waits(fault: Exception) -> None:
    client = TimestreamWrite(fault, fault, fault)
    clock = Clock()

    assert write(client, rows("a", "b"), clock) == [Stored(), Stored()]
    assert clock.naps == [0.05, 0.1, 0.2]


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
    client = TimestreamWrite(*[client_error("ThrottlingException")] * 1_000)
    clock = Clock(30.0)

    outcomes = write(client, rows("a", "b"), clock)

    assert [type(outcome) for outcome in outcomes] == [Unwritten, Unwritten]
    assert clock.left > writer.RESERVE
    assert max(clock.naps) == writer.LONGEST_WAIT


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
