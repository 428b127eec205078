"""What every store of rows does, whichever it is: a store is one more line of `STORES`."""

import random
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import pytest
from botocore.exceptions import ReadTimeoutError
from hypothesis import given, settings
from hypothesis import strategies as st
from tagline import Record, write

from consumers.deadlines import RESERVE
from consumers.lines.extract import read_line
from consumers.lines.ledger import Ledger
from consumers.outcomes import Duplicate, Outcome, Refused, Stored, Undecided, Unwritten
from consumers.rows import registry
from consumers.rows.handler import make_handler
from consumers.rows.lake.writer import Lake
from consumers.rows.registry import LIMITS
from consumers.rows.store import Store, Traffic
from consumers.rows.table import (
    DAY_MS,
    OWN_MEASURES,
    UNDECLARED,
    Plans,
    Row,
    column_name,
    offset,
    overflow_key,
    row,
)
from consumers.rows.timestream.writer import Timestream
from tests.builders import GROUP, LOGGED, Context, data, envelope, kinesis_event
from tests.lake_fragments import TIMED_OUT, S3Write, slow_down
from tests.row_store import Fault, MemoryStore
from tests.twins import Objects, TimestreamWrite, client_error

WINDOW = (LOGGED - 3_600_000, LOGGED + 900_000)


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self, seconds: float = 60.0) -> None:
        self.left = seconds

    def remaining(self) -> float:
        return self.left

    def sleep(self, seconds: float) -> None:
        self.left -= seconds


@dataclass
class Subject:
    """A store, and what is in it.

    Attributes:
        store: The store.
        ids: Returns the identity of each of its rows, sorted.
        content: Returns all that it holds, to compare.
        window: The first millisecond that it takes, and the first that it does not.
    """

    store: Store[Any]
    ids: Callable[[], list[str]]
    content: Callable[[], Any]
    window: tuple[int, int] = WINDOW


class FaultyTimestreamWrite(TimestreamWrite):
    """A client to which the faults of the port happen."""

    def __init__(self, faults: Sequence[Fault | None]) -> None:
        super().__init__(window=WINDOW)
        self.coming = list(faults)
        self.lock = threading.Lock()

    def write_records(self, **request: Any) -> dict[str, Any]:
        with self.lock:
            fault = self.coming.pop(0) if self.coming else None
            if fault is Fault.THROTTLED:
                raise client_error("ThrottlingException", 429)
            if fault is Fault.DENIED:
                raise client_error("AccessDeniedException")
            try:
                return super().write_records(**request)
            finally:
                if fault is Fault.LOST_ANSWER:
                    raise ReadTimeoutError(endpoint_url="https://ingest")


def timestream(clock: Clock, *faults: Fault | None) -> Subject:
    client = FaultyTimestreamWrite(faults)
    store = Timestream(client, "tagline", "records", sleep=clock.sleep, jitter=lambda: 1.0)
    return Subject(store, client.ids, lambda: dict(client.points))


def memory(clock: Clock, *faults: Fault | None) -> Subject:
    store = MemoryStore(*faults, window=WINDOW, sleep=clock.sleep, latency=0.0001)
    return Subject(store, store.ids, lambda: dict(store.rows))


def lake(clock: Clock, *faults: Fault | None) -> Subject:
    coming, now = deque(faults), deque[Fault | None]()

    def before(_key: str) -> None:
        now.append(coming.popleft() if coming else None)
        if now[-1] is Fault.THROTTLED:
            raise slow_down()
        if now[-1] is Fault.DENIED:
            raise client_error("AccessDenied", 403)

    def after(_key: str) -> None:
        if now[-1] is Fault.LOST_ANSWER:
            raise TIMED_OUT

    client = S3Write(before, after)
    store = Lake(
        client, "lake", kept_days=365, clock=lambda: LOGGED / 1000, sleep=clock.sleep, jitter=lambda: 1.0
    )
    return Subject(store, client.ids, client.rows, ((LOGGED // DAY_MS - 365) * DAY_MS, LOGGED + 900_000))


Make = Callable[..., Subject]
STORES: list[Make] = [timestream, memory, lake]
of_every_store = pytest.mark.parametrize("make", STORES, ids=lambda make: make.__name__)
# The lake takes rows of any size, and its columns are made when it is read.
of_stores_with_columns = pytest.mark.parametrize("make", [timestream, memory], ids=lambda make: make.__name__)


def a_row(identity: str, *, time: int = LOGGED, plans: Plans = UNDECLARED, **fields: Any) -> Row:
    return row(Record(id=identity, timestamp=time, fields=fields), GROUP, plans)


def deliver(store: Store[Any], rows: Iterable[Row], clock: Clock | None = None) -> list[Outcome]:
    """Write rows as the handler does, and return the outcome of each, in their order."""
    clock, packer, rows = clock or Clock(), store.packer(UNDECLARED), list(rows)
    carried = [
        (index, packer.pack(each) or packer.pack_shortened(each, f"overflow/2025-11-20/{index}.json"))
        for index, each in enumerate(rows)
    ]
    outcomes: dict[int, Outcome] = {}
    for request in store.requests(carried):
        assert request
        written = store.write([packed for _, packed in request], clock.remaining)
        for (index, _), outcome in zip(request, written, strict=True):
            assert not isinstance(outcome, Undecided)
            outcomes[index] = outcome
    assert sorted(outcomes) == list(range(len(rows)))
    return [outcomes[index] for index in range(len(rows))]


def colliding(count: int) -> list[str]:
    """Return identities of different rows whose time in nanoseconds is the same."""
    seen: dict[int, list[str]] = {}
    for number in range(1_000_000):
        same = seen.setdefault(offset(f"id{number}", 0), [])
        same.append(f"id{number}")
        if len(same) == count:
            return same
    raise AssertionError("no identities collide")


CROWD = [*colliding(3), "x", "y"]


@of_every_store
def test_every_row_has_an_outcome_in_its_place_however_rows_are_cut_into_requests(make: Make) -> None:
    subject = make(Clock())
    late = subject.window[0] - 1
    rows = [
        a_row(f"r{number}", time=late if number % 7 == 3 else LOGGED, client=f"c{number % 5}")
        for number in range(1_000)
    ]

    outcomes = deliver(subject.store, rows)

    assert [type(outcome) for outcome in outcomes] == [
        Refused if number % 7 == 3 else Stored for number in range(1_000)
    ]
    assert subject.ids() == sorted(f"r{number}" for number in range(1_000) if number % 7 != 3)


@of_every_store
def test_no_rows_are_no_request(make: Make) -> None:
    subject = make(Clock())

    assert deliver(subject.store, []) == []
    assert subject.store.traffic() == Traffic()


@of_every_store
@given(st.randoms(use_true_random=False), st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_rows_that_are_delivered_again_in_any_order_and_any_batches_stay_the_same(
    make: Make, chance: random.Random, copies: int
) -> None:
    once, often = make(Clock()), make(Clock())
    deliveries = CROWD * copies
    deliver(once.store, map(a_row, CROWD))
    chance.shuffle(deliveries)

    while deliveries:
        size = chance.randint(1, 6)
        outcomes = deliver(often.store, map(a_row, deliveries[:size]))
        assert {type(outcome) for outcome in outcomes} <= {Stored, Duplicate}
        del deliveries[:size]
    stored = often.content()
    deliver(often.store, map(a_row, CROWD))

    assert often.ids() == once.ids() == sorted(CROWD)
    assert often.content() == stored


@of_every_store
def test_copies_in_one_request_are_one_row(make: Make) -> None:
    subject = make(Clock())

    outcomes = deliver(subject.store, map(a_row, ("a", "b", "a", "a")))

    assert outcomes == [Stored(), Stored(), Duplicate(), Duplicate()]
    assert subject.ids() == ["a", "b"]


@of_every_store
def test_a_row_of_a_higher_version_replaces_the_one_that_is_stored(make: Make) -> None:
    subject, expected = make(Clock()), make(Clock())
    newer = a_row("a", status=2, plans=Plans(revisions=1))

    deliver(subject.store, [a_row("a", status=1), a_row("b")])
    assert deliver(subject.store, [newer]) == [Stored()]
    deliver(expected.store, [newer, a_row("b")])

    assert subject.content() == expected.content()


@of_every_store
def test_a_row_of_a_lower_version_changes_nothing(make: Make) -> None:
    subject, expected = make(Clock()), make(Clock())
    newer = [a_row(name, status=2, plans=Plans(revisions=1)) for name in "ab"]

    deliver(subject.store, newer)
    outcomes = deliver(subject.store, [a_row("a", status=1), a_row("c"), a_row("b", status=2)])
    deliver(expected.store, [*newer, a_row("c")])

    assert outcomes[1] == Stored()
    # A store that does not look at what it has stores the row, and readers ignore it.
    assert {type(outcome) for outcome in outcomes} <= {Stored, Duplicate}
    assert subject.content() == expected.content()


@of_every_store
@pytest.mark.parametrize(("edge", "beyond", "reason"), [(0, -1, "late"), (1, 0, "future")])
def test_a_row_outside_the_window_has_a_reason_and_its_neighbours_are_stored(
    make: Make, edge: int, beyond: int, reason: str
) -> None:
    subject = make(Clock())
    see_refused(subject, a_row("bad", time=subject.window[edge] + beyond), reason)


@of_stores_with_columns
def test_a_row_with_a_value_of_another_type_than_the_column_is_invalid(make: Make) -> None:
    see_refused(make(Clock()), a_row("bad", status="a text"), "invalid")


def see_refused(subject: Subject, bad: Row, reason: str) -> None:
    """See that a row is refused for a reason, and its neighbours are stored."""
    deliver(subject.store, [a_row("first", status=200)])

    (before, refused, after) = deliver(subject.store, [a_row("a"), bad, a_row("b")])

    assert (before, after) == (Stored(), Stored())
    assert isinstance(refused, Refused)
    assert refused.reason == reason
    assert refused.detail
    assert subject.ids() == ["a", "b", "first"]


@of_every_store
def test_the_first_and_the_last_moment_of_the_window_are_taken(make: Make) -> None:
    subject = make(Clock())
    first, end = subject.window

    assert deliver(subject.store, [a_row("a", time=first), a_row("b", time=end - 1)]) == [Stored(), Stored()]
    assert subject.ids() == ["a", "b"]


@of_every_store
def test_a_store_that_throttles_for_a_while_gets_everything(make: Make) -> None:
    clock = Clock()
    subject = make(clock, *[Fault.THROTTLED] * 3)

    assert deliver(subject.store, map(a_row, "ab"), clock) == [Stored(), Stored()]
    traffic = subject.store.traffic()
    assert (traffic.requests, traffic.retries, traffic.throttled) == (4, 3, 3)
    assert traffic.bytes > 0
    assert subject.store.traffic() == Traffic()
    assert clock.left < 60.0


@of_every_store
def test_throttling_without_end_leaves_rows_unwritten_before_the_reserve_is_used(make: Make) -> None:
    clock = Clock(5.0)
    subject = make(clock, *[Fault.THROTTLED] * 1_000)

    outcomes = deliver(subject.store, map(a_row, "ab"), clock)

    assert [type(outcome) for outcome in outcomes] == [Unwritten, Unwritten]
    assert RESERVE <= clock.left < 5.0
    assert subject.ids() == []


@of_every_store
def test_without_time_nothing_is_begun(make: Make) -> None:
    subject = make(Clock())

    (outcome,) = deliver(subject.store, [a_row("a")], Clock(RESERVE))

    assert isinstance(outcome, Unwritten)
    assert subject.store.traffic() == Traffic()


@of_every_store
def test_rows_that_the_caller_may_not_write_are_unwritten_and_not_refused(make: Make) -> None:
    subject = make(Clock(), Fault.DENIED)

    outcomes = deliver(subject.store, map(a_row, "ab"))

    assert [type(outcome) for outcome in outcomes] == [Unwritten, Unwritten]
    assert subject.ids() == []


@of_every_store
@given(st.randoms(use_true_random=False), st.lists(st.sampled_from([None, *Fault]), max_size=12))
@settings(max_examples=60, deadline=None)
def test_whatever_fails_every_row_is_stored_exactly_once_in_the_end(
    make: Make, chance: random.Random, faults: list[Fault | None]
) -> None:
    clock = Clock(1e9)
    subject = make(clock, *faults)
    everything = [*CROWD, *(f"r{number}" for number in range(150))]
    pending = list(everything)

    for _ in range(len(faults) + 1):
        chance.shuffle(pending)
        outcomes = deliver(subject.store, map(a_row, pending), clock)
        assert not any(isinstance(outcome, Refused) for outcome in outcomes)
        stored = {each for each, outcome in zip(pending, outcomes, strict=True) if outcome == Stored()}
        assert stored <= set(subject.ids())
        pending = [each for each in pending if each not in stored]

    assert pending == []
    assert Counter(subject.ids()) == Counter(everything)


@of_every_store
def test_several_threads_write_at_once_and_nothing_is_lost_or_doubled(make: Make) -> None:
    subject = make(Clock())
    told: list[Outcome] = []
    ids = [f"r{number}" for number in range(200)]

    def work(mine: list[str]) -> None:
        told.extend(deliver(subject.store, map(a_row, mine)))

    threads = [
        threading.Thread(target=work, args=(ids[start:] + ids[:start],)) for start in (0, 50, 100, 150)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert Counter(map(type, told)) == {Stored: 800}
    assert subject.ids() == sorted(ids)


@of_stores_with_columns
def test_a_row_too_large_is_stored_shortened_and_names_the_whole_record(make: Make) -> None:
    subject = make(Clock())
    packer = subject.store.packer(UNDECLARED)
    record = Record(id="large", timestamp=LOGGED, fields={"body": "x" * 20_000, "note": "y" * 20_000})
    key = overflow_key(record, GROUP)
    large = row(record, GROUP, UNDECLARED)

    assert packer.pack(large) is None
    packed = packer.pack_shortened(large, key)
    assert packed.time == LOGGED
    assert subject.store.write([packed], lambda: 60.0) == [Stored()]
    assert subject.ids() == ["large"]
    assert key in str(subject.content())


FIELDS = st.dictionaries(
    st.sampled_from(["status", "ok", "route", "client", "latency", "note", "item_count", "context"]),
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.just({"a": [1]}),
    max_size=6,
)


@of_every_store
@given(FIELDS, st.booleans())
def test_a_line_that_is_packed_directly_is_what_its_row_is(
    make: Make, fields: dict[str, Any], numbered: bool
) -> None:
    packer = make(Clock()).store.packer(UNDECLARED)
    record = Record("r", LOGGED, fields, src="s" if numbered else None, seq=1 if numbered else None)
    message = write(record)
    line = read_line(message, record.tag)
    assert isinstance(line, dict)

    packed = packer.pack_line(line, message, GROUP)

    assert packed is None or packed == packer.pack(row(record, GROUP, UNDECLARED))


@of_every_store
@pytest.mark.parametrize("size", [1, LIMITS.measures - len(OWN_MEASURES)])
def test_a_row_at_the_limits_of_the_table_is_stored(make: Make, size: int) -> None:
    name = "n" * (LIMITS.name_bytes - 3)
    fields: dict[str, Any] = {f"{name}{number:03}": 1 for number in range(size)}
    assert {len(column_name(field)) for field in fields} == {LIMITS.name_bytes}

    assert deliver(make(Clock()).store, [a_row("a", **fields)]) == [Stored()]


def test_the_contract_holds_every_store_that_there_is() -> None:
    assert {make.__name__ for make in STORES} == {*registry.STORES, memory.__name__}


@pytest.mark.parametrize("name", registry.STORES)
def test_no_store_is_stricter_than_the_limits_of_a_row(name: str) -> None:
    limits = import_module(f"consumers.rows.{name}.limits").LIMITS
    assert limits.name_bytes >= LIMITS.name_bytes
    assert limits.dimension_name_bytes >= LIMITS.dimension_name_bytes
    assert limits.measures >= LIMITS.measures
    assert limits.table_measures >= LIMITS.table_measures
    assert limits.table_dimensions >= LIMITS.table_dimensions
    assert limits.series_bytes >= LIMITS.series_bytes
    assert limits.names <= LIMITS.names
    assert set(limits.prefixes) <= set(LIMITS.prefixes)


@of_every_store
def test_the_consumer_writes_to_any_store(make: Make) -> None:
    subject, ledgers = make(Clock(), Fault.THROTTLED), list[Ledger]()
    handle = make_handler(
        subject.store,
        Objects(),
        tag="usage_record",
        own_log_groups="/tagline/",
        report=ledgers.append,
        threads=4,
        clock=lambda: LOGGED / 1000,
    )
    lines = [write(Record(id=f"r{number}", timestamp=LOGGED, fields={"n": number})) for number in range(600)]

    answer = handle(
        kinesis_event(*(data(envelope(*lines[at : at + 10])) for at in range(0, 600, 10))), Context()
    )

    assert answer == {"batchItemFailures": []}
    assert subject.ids() == sorted(f"r{number}" for number in range(600))
    assert ledgers[0].stored == 600
