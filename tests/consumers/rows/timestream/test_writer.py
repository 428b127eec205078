"""Rows into Timestream, an outcome for each."""

import random
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from botocore.exceptions import ConnectionClosedError, ParamValidationError, ReadTimeoutError
from hypothesis import given, settings
from hypothesis import strategies as st
from tagline import Record, parse_timestamp

from consumers import sending
from consumers.deadlines import LONGEST_WAIT, RESERVE
from consumers.lines.telemetry import Timings
from consumers.outcomes import Duplicate, Outcome, Refused, Stored, Undecided, Unwritten
from consumers.rows.store import Traffic
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


def write(
    client: TimestreamWrite, batch: list[PackedRecord], clock: Clock | None = None
) -> list[Outcome | Undecided]:
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

    def refusal(self, record: dict[str, Any]) -> str | None:
        while self.others and self.chance.random() < 0.3:
            self.others.popleft()()
        return super().refusal(record)


@given(st.integers(0, 2**32), st.integers(1, 3))
@settings(max_examples=200, deadline=None)
def test_several_writers_at_once_in_any_order_leave_the_same_rows_as_ever_after(
    seed: int, copies: int
) -> None:
    chance = random.Random(seed)
    client = Interleaved(chance)
    store = Timestream(client, "tagline", "records", sleep=lambda _: None, jitter=lambda: 0.0)
    told: list[Outcome | Undecided] = []

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
        ("The table has 8192 measure names already, which is the limit.", "2015-05-17T10:05:03Z", "invalid"),
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
        client_error("429", 429),
        client_error("408", 408),
        client_error("503", 503),
        client_error("400", 400),
        client_error("", 403),
        ReadTimeoutError(endpoint_url="https://ingest"),
        ConnectionClosedError(endpoint_url="https://ingest"),
        client_error("RejectedRecordsException", 419),
    ],
    ids=[
        "magnetic store throttles",
        "server error",
        "unknown 5xx",
        "429 without a code",
        "408 without a code",
        "503 without a code",
        "a 400 that was cut off",
        "a 403 that was cut off",
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


class Judging(TimestreamWrite):
    """Refuses a whole request because of a record in it.

    Args:
        fault: What it raises.
        refuses: Whether a record is such a one.
    """

    def __init__(self, fault: Exception, refuses: Callable[[dict[str, Any]], bool]) -> None:
        super().__init__()
        self.fault = fault
        self.refuses = refuses
        self.refused = 0

    def write_records(self, **request: Any) -> dict[str, Any]:
        if any(map(self.refuses, request["Records"])):
            self.refused += 1
            raise self.fault
        return super().write_records(**request)


def send(
    client: TimestreamWrite, batch: list[PackedRecord], clock: Clock | None = None, threads: int = 8
) -> list[Outcome]:
    """Write rows as the handler does, and return their outcomes in their order."""
    clock = clock or Clock()
    store = Timestream(client, "tagline", "records", sleep=clock.sleep, jitter=lambda: 1.0)
    found: dict[int, Outcome] = {}
    with sending.Pool(threads) as pool:
        requests = store.requests(enumerate(batch))
        for carried, outcomes in sending.write(store, requests, clock.remaining, pool, Timings()):
            assert not any(place in found for place, _ in carried)
            found |= {place: outcome for (place, _), outcome in zip(carried, outcomes, strict=True)}
    return [found[place] for place in range(len(batch))]


REFUSED = client_error("ValidationException", message="the type of a measure does not fit")


@pytest.mark.parametrize("bad", range(5))
@pytest.mark.parametrize(
    "fault", [REFUSED, ParamValidationError(report="min length: 1")], ids=["the service's", "the client's"]
)
def test_a_record_that_fails_its_whole_request_is_found_and_its_neighbours_are_stored(
    bad: int, fault: Exception
) -> None:
    client = Judging(fault, lambda record: "bad" in str(record))
    ids = ["a", "b", "c", "d", "e"]
    ids[bad] = "bad"

    outcomes = send(client, rows(*ids))

    assert [type(outcome) for outcome in outcomes] == [
        Refused if identity == "bad" else Stored for identity in ids
    ]
    assert client.ids() == sorted(set(ids) - {"bad"})


def typed(number: int, **fields: Any) -> PackedRecord:
    """Return a row of a millisecond that no other number has."""
    record = Record(id=f"r{number:04}", timestamp=TIME + number, fields=fields)
    return PACKER.record(row(record, "/aws/lambda/orders", UNDECLARED))


def is_text(record: dict[str, Any]) -> bool:
    return any(item["Name"] == "n" and item["Type"] == "VARCHAR" for item in record["MeasureValues"])


@pytest.mark.parametrize(
    ("is_bad", "most"),
    [
        (lambda n: n == 1_500, 3),
        (lambda n: n % 100 == 50, 150),
        (lambda n: n % 2 == 0, 1_100),
        (lambda n: n < 1_500, 1_100),
        (lambda _: True, 2_100),
    ],
    ids=["one", "one of each request", "every other", "the first half", "all"],
)
def test_a_type_clash_among_three_thousand_lines_takes_few_requests(
    is_bad: Callable[[int], bool], most: int
) -> None:
    """At eight threads and 20 ms for a request, 3,200 of them take eight seconds."""
    batch = [typed(n, n="a text" if is_bad(n) else float(n)) for n in range(3_000)]
    client = Judging(REFUSED, is_text)

    outcomes = send(client, batch)

    assert [isinstance(outcome, Refused) for outcome in outcomes] == [is_bad(n) for n in range(3_000)]
    assert client.ids() == [f"r{n:04}" for n in range(3_000) if not is_bad(n)]
    assert client.refused + len(client.requests) <= 30 + most
    assert not any(isinstance(outcome, Unwritten) for outcome in outcomes)


@given(st.sets(st.integers(0, 299)), st.integers(1, 3))
@settings(max_examples=15, deadline=None)
def test_rows_of_one_kind_are_judged_one_by_one_while_others_of_the_kind_are_stored(
    bad: set[int], threads: int
) -> None:
    """A value that is refused says nothing of the values of other rows."""
    bad -= {100 * request + place for request in range(3) for place in range(0, 100, 10)}
    batch = [typed(n, n="bad" if n in bad else "good") for n in range(300)]
    client = Judging(REFUSED, lambda record: measure(record, "n") == "bad")

    outcomes = send(client, batch, threads=threads)

    assert [isinstance(outcome, Refused) for outcome in outcomes] == [n in bad for n in range(300)]


def test_a_kind_that_is_stored_again_is_no_longer_refused_without_asking() -> None:
    """Eight bad rows in a row do not cost the good ones that follow."""
    batch = [typed(n, n="bad" if n < 50 or n == 250 else "good") for n in range(300)]
    client = Judging(REFUSED, lambda record: measure(record, "n") == "bad")

    outcomes = send(client, batch, threads=1)

    assert [n for n, outcome in enumerate(outcomes) if isinstance(outcome, Refused)] == [*range(50), 250]


def test_rows_that_time_runs_out_for_are_unwritten_and_what_was_found_out_is_kept() -> None:
    clock = Clock(6.0)

    def refuses(record: dict[str, Any]) -> bool:
        clock.left -= 0.01
        return is_text(record)

    batch = [typed(n, n="a text" if n % 2 else float(n)) for n in range(400)]
    kinds = Counter(map(type, send(Judging(REFUSED, refuses), batch, clock, threads=1)))

    assert kinds[Unwritten] > 0
    assert kinds[Stored] + kinds[Refused] > 100


def test_no_request_is_under_way_once_a_batch_is_given_up() -> None:
    """What ends early, because its reader raises, waits for what it has sent."""
    may_end, ended = threading.Event(), []

    class Slow(TimestreamWrite):
        def write_records(self, **request: Any) -> dict[str, Any]:
            if measure(request["Records"][0], "_id") != "r0000":
                may_end.wait()
            answer = super().write_records(**request)
            ended.append(request)
            return answer

    store = Timestream(Slow(), "tagline", "records", sleep=lambda _: None, jitter=lambda: 1.0)
    sent = []

    def requests() -> Iterator[list[tuple[None, PackedRecord]]]:
        for number in range(8):
            sent.append(number)
            yield [(None, typed(number, n=1.0))]

    with sending.Pool(4) as pool:
        written = sending.write(store, requests(), lambda: 60.0, pool, Timings())
        next(written)
        closing = threading.Thread(target=written.close)
        closing.start()
        closing.join(0.1)
        waits = closing.is_alive()
        may_end.set()
        closing.join()

        assert waits
        assert len(ended) == len(sent) < 8
