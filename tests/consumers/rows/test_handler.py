"""The consumer: every line of a batch ends as stored, duplicate, quarantined, or is delivered again."""

import gc
import json
import os
import random
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import Future
from datetime import date
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tagline import Record, read, write

from consumers.accounts import accounting
from consumers.lines import quarantine, subscription
from consumers.lines.ledger import Ledger
from consumers.lines.telemetry import STAGES, Timings
from consumers.rows import handler, late_days, schema
from consumers.rows.handler import make_handler
from consumers.rows.table import UNDECLARED, Plans
from consumers.rows.timestream.writer import Timestream
from consumers.sending import LONG_WAIT, Answer, Pool
from consumers.settings import SettingsError
from tests.builders import (
    CONTROL,
    CONTROL_EVENT,
    LOGGED,
    Context,
    data,
    envelope,
    kinesis_event,
    kinesis_record,
)
from tests.twins import Objects, TimestreamWrite, client_error, measure

TAG = "usage_record"


def line(identity: str, **fields: Any) -> str:
    return write(Record(id=identity, timestamp=LOGGED, fields={"route": "/pets", **fields}))


class Consumer:
    """The handler among twins."""

    def __init__(
        self,
        *faults: Exception | None,
        failing: str | None = None,
        threads: int = 1,
        later: float = 0.0,
        client: TimestreamWrite | None = None,
        objects: Objects | None = None,
        plans: Plans = UNDECLARED,
        timings: Timings | None = None,
    ) -> None:
        self.client = client or TimestreamWrite(*faults)
        self.objects = Objects(failing=failing) if objects is None else objects
        self.ledgers: list[Ledger] = []
        self.handler = make_handler(
            Timestream(self.client, "tagline", "records", sleep=lambda _: None, jitter=lambda: 0.0),
            self.objects,
            tag=TAG,
            own_log_groups="/tagline/",
            report=self.ledgers.append,
            plans=plans,
            threads=threads,
            clock=lambda: LOGGED / 1000 + later,
            timings=timings,
        )

    def __call__(self, event: dict[str, Any], context: Context | None = None) -> dict[str, Any]:
        return self.handler(event, context or Context())

    @property
    def counts(self) -> dict[str, int]:
        """Return what the last batch's ledger counted and is not zero."""
        return {name: count for name, count in self.ledgers[-1].counts().items() if count}


ALL_WELL: dict[str, Any] = {"batchItemFailures": []}


def test_the_tagged_lines_of_a_batch_are_stored() -> None:
    consumer = Consumer()

    response = consumer(kinesis_event(data(envelope(line("a"), "START x")), data(envelope(line("b")))))

    assert response == ALL_WELL
    assert consumer.client.ids() == ["a", "b"]
    assert consumer.counts == {"records": 2, "received": 2, "ignored": 1, "stored": 2}


def test_batches_are_filled_across_kinesis_records() -> None:
    consumer = Consumer()

    consumer(kinesis_event(*(data(envelope(line(f"{n}a"), line(f"{n}b"))) for n in range(75))))

    assert [len(request) for request in consumer.client.requests] == [100, 50]


def test_an_empty_batch_is_well() -> None:
    consumer = Consumer()

    assert consumer({"Records": []}) == ALL_WELL
    assert consumer.counts == {}


def test_control_messages_are_skipped_event_by_event_and_counted() -> None:
    consumer = Consumer()
    mixed = envelope(line("a"))
    mixed["logEvents"].append(CONTROL_EVENT)

    assert consumer(kinesis_event(data(CONTROL), data(mixed))) == ALL_WELL
    assert consumer.client.ids() == ["a"]
    assert consumer.counts == {"records": 2, "received": 1, "control": 2, "stored": 1}


def test_lines_of_the_pipelines_own_log_groups_are_dropped_and_counted() -> None:
    consumer = Consumer()

    consumer(kinesis_event(data(envelope(line("a"), line("b"), group="/tagline/prod/RowConsumer"))))

    assert consumer.client.points == {}
    assert consumer.counts == {"records": 1, "recursion": 2}


@pytest.mark.parametrize(
    "broken", [data(envelope(line("x")))[:-40], "not base64", data({"logEvents": "none"}), ""]
)
def test_data_that_cannot_be_decoded_is_kept_as_it_came_and_the_batch_goes_on(broken: str) -> None:
    consumer = Consumer()
    event = kinesis_event(data(envelope(line("a"))), broken, data(envelope(line("b"))))

    assert consumer(event) == ALL_WELL
    assert consumer.client.ids() == ["a", "b"]
    (kept,) = consumer.objects.quarantined()
    assert (kept["reason"], kept["data"]) == ("undecodable", broken)
    assert kept["sequence_number"] == event["Records"][1]["kinesis"]["sequenceNumber"]
    assert consumer.counts == {"records": 3, "received": 2, "stored": 2, "quarantined": 1}


def test_a_tagged_line_that_cannot_be_parsed_is_kept_whole_and_its_neighbours_are_stored() -> None:
    consumer = Consumer()
    bad = "usage_record this is no JSON é\n"

    assert consumer(kinesis_event(data(envelope(line("a"), bad, line("b"), ids=["1", "2", "3"])))) == ALL_WELL
    assert consumer.client.ids() == ["a", "b"]
    (kept,) = consumer.objects.quarantined()
    assert (kept["reason"], kept["message"], kept["event_id"]) == ("unparseable", bad, "2")
    assert (kept["log_group"], kept["timestamp"]) == ("/aws/lambda/orders", LOGGED)
    assert consumer.counts == {"records": 1, "received": 3, "stored": 2, "quarantined": 1}


def test_quarantine_is_filed_by_reason_and_by_the_day_of_arrival() -> None:
    consumer = Consumer()

    consumer(kinesis_event(data(envelope("usage_record ?"))))

    (key,) = (key for key in consumer.objects if not key.startswith("accounting/"))
    assert key == (
        "quarantine/unparseable/year=2025/month=11/day=20/"
        "shardId-000000000006-49590338271490256608559692538361571095921575989136588898.jsonl"
    )


def test_a_record_that_the_table_cannot_hold_is_kept() -> None:
    consumer = Consumer()

    consumer(kinesis_event(data(envelope(line("x" * 201), line("b", item_count="many")))))

    (kept,) = consumer.objects.quarantined()
    assert kept["reason"] == "invalid"
    assert kept["detail"] == f"_id is longer than 200 bytes: {'x' * 50!r}..."
    assert consumer.client.ids() == ["b"]


def test_a_row_that_timestream_refuses_is_kept_with_its_reason() -> None:
    consumer = Consumer()
    consumer.client.refusing["old"] = (
        "The record timestamp is outside the time range [2030-01-01T00:00:00.000Z, 2030-01-02T00:00:00.000Z) "
        "of the memory store."
    )

    assert consumer(kinesis_event(data(envelope(line("a"), line("old"))))) == ALL_WELL
    (kept,) = consumer.objects.quarantined()
    assert kept["reason"] == "late"
    assert "outside the time range" in kept["detail"]
    assert read(kept["message"]).id == "old"


def test_a_store_that_throttles_the_first_three_calls_gets_everything() -> None:
    consumer = Consumer(*[client_error("ThrottlingException")] * 3)

    assert consumer(kinesis_event(data(envelope(line("a"), line("b"))))) == ALL_WELL
    assert consumer.client.ids() == ["a", "b"]
    assert consumer.counts == {"records": 1, "received": 2, "stored": 2}


def test_what_stays_unwritten_is_delivered_again_from_the_lowest_number_on() -> None:
    event = kinesis_event(*[data(envelope(*[line(f"{n}-{i}") for i in range(50)])) for n in range(6)])
    down = [client_error("AccessDeniedException")]
    consumer = Consumer(None, *down, None)

    response = consumer(event)

    assert response == {
        "batchItemFailures": [{"itemIdentifier": event["Records"][2]["kinesis"]["sequenceNumber"]}]
    }
    assert consumer.counts == {"records": 6, "received": 300, "stored": 200, "unwritten": 100}
    assert consumer({"Records": event["Records"][2:]}) == ALL_WELL
    assert len(consumer.client.ids()) == 300


def test_an_invocation_without_time_leaves_everything_to_the_next() -> None:
    consumer = Consumer()
    event = kinesis_event(data(envelope("no tag")), data(envelope(line("a"))))

    response = consumer(event, Context(remaining_ms=1_000))

    assert response["batchItemFailures"] == [
        {"itemIdentifier": event["Records"][1]["kinesis"]["sequenceNumber"]}
    ]
    assert consumer.client.requests == []


def test_when_quarantine_cannot_be_written_nothing_is_dropped_to_make_progress() -> None:
    consumer = Consumer(failing="quarantine/")
    event = kinesis_event(data(envelope(line("a"))), data(envelope("usage_record ?", "usage_record !")))

    response = consumer(event)

    assert response["batchItemFailures"] == [
        {"itemIdentifier": event["Records"][1]["kinesis"]["sequenceNumber"]}
    ]
    assert consumer.counts == {"records": 2, "received": 3, "stored": 1, "unwritten": 2}
    consumer.objects.failing = None
    assert consumer({"Records": event["Records"][1:]}) == ALL_WELL
    assert len(list(consumer.objects.quarantined())) == 2


def test_a_delivery_that_gets_less_far_takes_nothing_out_of_quarantine() -> None:
    class Ends(Context):
        def get_remaining_time_in_millis(self) -> int:
            return 60_000 if next(asked) else 0

    asked = iter([True, *[False] * 100])
    consumer = Consumer()
    lines = [line(str(number)) for number in range(101)]  # one more than is read before the clock is asked
    event = kinesis_event(data(envelope("usage_record ?", *lines, "usage_record !")))
    assert consumer(event) == ALL_WELL
    kept = list(consumer.objects.quarantined())

    assert consumer(event, Ends())["batchItemFailures"] != []
    assert list(consumer.objects.quarantined()) == kept
    assert [each["message"] for each in kept] == ["usage_record ?", "usage_record !"]


def test_a_record_too_large_for_a_row_is_kept_whole_and_named_in_its_row() -> None:
    consumer = Consumer()
    body = "x" * 5_000

    assert consumer(kinesis_event(data(envelope(line("a", body=body))))) == ALL_WELL
    ((key, kept),) = ((key, kept) for key, kept in consumer.objects.items() if "accounting" not in key)
    assert read(kept.decode()).fields["body"] == body
    (record,) = consumer.client.points.values()
    assert {"Name": "_overflow", "Type": "VARCHAR", "Value": key} in record["MeasureValues"]
    assert consumer.counts == {"records": 1, "received": 1, "stored": 1, "overflowed": 1}


def test_a_row_is_not_written_before_its_overflow_is_kept() -> None:
    consumer = Consumer(failing="overflow/")

    response = consumer(kinesis_event(data(envelope(line("a", body="x" * 5_000), line("b")))))

    assert len(response["batchItemFailures"]) == 1
    assert consumer.client.ids() == ["b"]


def records_of(count: int, chance: random.Random) -> list[dict[str, Any]]:
    """Return Kinesis records with `count` good lines and some bad ones among them, several to a record."""
    messages = [line(f"r{number}") for number in range(count)] + ["usage_record ?", "noise"]
    chance.shuffle(messages)
    records: list[dict[str, Any]] = []
    while messages:
        size = chance.randint(1, 9)
        records.append(kinesis_record(data(envelope(*messages[:size])), len(records)))
        del messages[:size]
    return records


@given(st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_every_kinesis_record_twice_in_shuffled_batches_leaves_exactly_the_same_rows(
    chance: random.Random,
) -> None:
    once, twice = Consumer(), Consumer()
    records = records_of(60, chance)

    once({"Records": records})
    deliveries = records * 2
    chance.shuffle(deliveries)
    while deliveries:
        size = chance.randint(1, 12)
        twice({"Records": deliveries[:size]})
        del deliveries[:size]

    assert twice.client.points == once.client.points
    # Accounts are of batches, which are others here: they agree when they are merged (test_accounting.py).
    kept, expected = (
        {key: body for key, body in each.objects.items() if not key.startswith("accounting/")}
        for each in (twice, once)
    )
    assert kept == expected
    assert len(once.client.points) == 60


faults = st.sampled_from(
    [None, client_error("ThrottlingException"), client_error("AccessDeniedException"), client_error("X", 500)]
)


@given(st.randoms(use_true_random=False), st.lists(faults, max_size=8))
@settings(max_examples=50, deadline=None)
def test_whatever_fails_every_line_ends_exactly_once_in_the_store_or_in_quarantine(
    chance: random.Random, faults: list[Exception | None]
) -> None:
    consumer = Consumer(*faults)
    records = records_of(150, chance)

    rest = records
    for _ in range(20):
        failures = consumer({"Records": rest})["batchItemFailures"]
        if not failures:
            break
        numbers = [record["kinesis"]["sequenceNumber"] for record in rest]
        rest = rest[numbers.index(failures[0]["itemIdentifier"]) :]
    else:
        pytest.fail("the batch never ends")

    assert Counter(consumer.client.ids()) == Counter(f"r{number}" for number in range(150))
    assert [kept["message"] for kept in consumer.objects.quarantined()] == ["usage_record ?"]


def test_requests_are_under_way_at_the_same_time() -> None:
    consumer = Consumer(threads=4)
    together = threading.Barrier(2, timeout=30)
    alone = consumer.client.write_records
    consumer.client.write_records = lambda **request: (together.wait(), alone(**request))[1]  # type: ignore[method-assign]  # a slower twin

    assert consumer(kinesis_event(*(data(envelope(line(f"{n}"))) for n in range(800)))) == ALL_WELL
    assert len(consumer.client.points) == 800


def test_a_store_that_does_not_answer_in_time_takes_no_invocation_with_it() -> None:
    answered = threading.Event()

    class Hanging(TimestreamWrite):
        def write_records(self, **request: Any) -> dict[str, Any]:
            if "r150" in {measure(record, "_id") for record in request["Records"]}:
                assert answered.wait(timeout=30)
            return super().write_records(**request)

    consumer = Consumer(threads=4, client=Hanging())
    event = kinesis_event(*(data(envelope(line(f"r{n}"))) for n in range(300)))

    answer = consumer(event, Context(remaining_ms=2_500))
    answered.set()

    second_request = event["Records"][100]["kinesis"]["sequenceNumber"]
    assert answer == {"batchItemFailures": [{"itemIdentifier": second_request}]}
    assert consumer.counts == {"records": 300, "received": 300, "stored": 200, "unwritten": 100}
    assert consumer(event) == ALL_WELL
    assert len(consumer.client.points) == 300


@pytest.mark.parametrize(
    ("messages", "prefix"),
    [
        ([line(str(n), body="x" * 5_000) for n in range(80)], "overflow/"),
        (["usage_record {"] * 80, "quarantine/"),
    ],
    ids=["large records", "rejected lines"],
)
def test_what_goes_to_the_bucket_is_written_at_the_same_time(messages: list[str], prefix: str) -> None:
    """One after the other, the large lines of one Kinesis record could take longer than an invocation may."""

    class Together(Objects):
        def write(self, key: str, body: bytes) -> None:
            if key.startswith(prefix):
                together.wait()
            super().write(key, body)

    together = threading.Barrier(4, timeout=30)
    consumer = Consumer(threads=4, objects=Together())

    assert consumer(kinesis_event(*(data(envelope(message)) for message in messages))) == ALL_WELL
    assert len(consumer.objects.under(prefix)) == 80


def test_a_line_whose_record_cannot_be_kept_whole_fails_alone_among_those_written_with_it() -> None:
    class Picky(Objects):
        def write(self, key: str, body: bytes) -> None:
            if b'"r3"' in body:
                raise OSError
            super().write(key, body)

    consumer = Consumer(threads=4, objects=Picky())
    event = kinesis_event(*(data(envelope(line(f"r{n}", body="x" * 5_000))) for n in range(6)))

    answer = consumer(event)

    fourth = event["Records"][3]["kinesis"]["sequenceNumber"]
    assert answer == {"batchItemFailures": [{"itemIdentifier": fourth}]}
    assert consumer.client.ids() == ["r0", "r1", "r2", "r4", "r5"]
    assert consumer.counts == {"records": 6, "received": 6, "stored": 5, "overflowed": 5, "unwritten": 1}


def test_quarantine_that_takes_longer_than_is_left_goes_on_with_the_next_delivery() -> None:
    context = Context()

    class Slow(Objects):
        def write(self, key: str, body: bytes) -> None:
            context.remaining_ms -= 1_000
            super().write(key, body)

    consumer = Consumer(objects=Slow())
    rest = [kinesis_record(data(envelope("usage_record {")), number) for number in range(10)]
    done = []
    while rest:
        context.remaining_ms = 5_000
        (*failures,) = consumer({"Records": rest}, context)["batchItemFailures"]
        numbers = [record["kinesis"]["sequenceNumber"] for record in rest]
        left = len(numbers) - numbers.index(failures[0]["itemIdentifier"]) if failures else 0
        done.append(len(rest) - left)
        rest = rest[len(rest) - left :]

    assert done == [4, 4, 2]
    assert len(list(consumer.objects.quarantined())) == 10


class SlowAnswer(Future[Answer]):
    """What becomes of a request, so many seconds after it is asked for."""

    def __init__(self, clock: list[float], seconds: float) -> None:
        super().__init__()
        self._seconds = seconds
        self._clock = clock

    def done(self) -> bool:
        return not self._seconds

    def result(self, timeout: float | None = None) -> Answer:  # noqa: ARG002 - as its parent has it
        self._clock[0] += self._seconds
        return []


def test_a_store_that_is_waited_for_gets_more_requests_at_once_and_one_that_is_not_gets_fewer() -> None:
    clock = [0.0]
    slow, quick, there = (SlowAnswer(clock, seconds) for seconds in (LONG_WAIT * 2, LONG_WAIT / 2, 0))
    with Pool(4, lambda: clock[0]) as pool:
        under_way = []
        for answer in (quick, slow, quick, slow, slow, there, there, there, there, there):
            pool.answer_of(answer, 60.0)
            under_way.append(pool.ahead)

    assert under_way == [2, 4, 4, 6, 6, 5, 4, 3, 2, 2]


def test_when_an_earlier_request_fails_and_later_ones_are_stored_the_earlier_number_is_returned() -> None:
    class Refusing(TimestreamWrite):
        def write_records(self, **request: Any) -> dict[str, Any]:
            if "r250" in {measure(record, "_id") for record in request["Records"]}:
                raise client_error("AccessDeniedException")
            return super().write_records(**request)

    consumer = Consumer(threads=4, client=Refusing())
    event = kinesis_event(*(data(envelope(line(f"r{n}"))) for n in range(600)))

    response = consumer(event)

    assert response["batchItemFailures"] == [
        {"itemIdentifier": event["Records"][200]["kinesis"]["sequenceNumber"]}
    ]
    assert consumer.counts == {"records": 600, "received": 600, "stored": 500, "unwritten": 100}


class Waning(Context):
    """An invocation that is over after so many looks at its remaining time."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self.looks = looks

    def get_remaining_time_in_millis(self) -> int:
        self.looks -= 1
        return 60_000 if self.looks >= 0 else 0


@given(st.randoms(use_true_random=False), st.lists(st.integers(0, 12), min_size=1, max_size=6))
@settings(max_examples=30, deadline=None)
def test_nothing_before_the_number_that_is_returned_is_missing_whenever_time_runs_out(
    chance: random.Random, lives: list[int]
) -> None:
    # Several log groups, so that the rows of the seldom ones wait for others while later ones are sent.
    records = [
        kinesis_record(
            data(
                envelope(
                    *[line(f"{number}.{each}") for each in range(30)],
                    group=f"/g/{chance.choice([0] * 9 + [1, 2])}",
                )
            ),
            number,
        )
        for number in range(20)
    ]
    consumer = Consumer()

    rest = records
    for looks in [*lives, 10_000]:
        failures = consumer({"Records": rest}, Waning(looks))["batchItemFailures"]
        numbers = [record["kinesis"]["sequenceNumber"] for record in rest]
        rest = rest[numbers.index(failures[0]["itemIdentifier"]) :] if failures else []
        done = len(records) - len(rest)
        stored = set(consumer.client.ids())
        assert {f"{number}.{each}" for number in range(done) for each in range(30)} <= stored

    assert rest == []
    assert Counter(consumer.client.ids()) == Counter(
        f"{number}.{each}" for number in range(20) for each in range(30)
    )


@pytest.mark.parametrize("later", [86_400, 46 * 60], ids=["of a day that is over", "too old to be asked for"])
def test_the_days_that_rows_were_stored_of_late_are_told_to_the_exporter_once_per_batch(later: float) -> None:
    # The magnetic store's rows "will be available within 6 hours":
    # https://docs.aws.amazon.com/timestream/latest/developerguide/data-ingest.html
    consumer = Consumer(later=later)
    event = kinesis_event(data(envelope(line("a"), line("b"))), data(envelope(line("c"))))

    assert consumer(event) == ALL_WELL
    assert consumer.objects.under("late/") == {
        late_days.marker_key(
            date(2025, 11, 20), quarantine.name(event["Records"][0]), Context.aws_request_id
        ): late_days.marker_body([600])
    }


@pytest.mark.parametrize("later", [0, 44 * 60])
def test_rows_that_come_in_time_are_told_to_no_one(later: float) -> None:
    consumer = Consumer(later=later)

    consumer(kinesis_event(data(envelope(line("a")))))

    assert consumer.objects.under("late/") == {}


def test_a_day_of_which_every_row_was_refused_is_told_to_no_one() -> None:
    consumer = Consumer(later=86_400)
    consumer.client.refusing["a"] = "no"

    consumer(kinesis_event(data(envelope(line("a")))))

    assert [key for key in consumer.objects if key.startswith(late_days.PREFIX)] == []


def test_a_batch_whose_late_days_cannot_be_told_is_delivered_again_as_a_whole() -> None:
    consumer = Consumer(later=86_400, failing="late/")
    event = kinesis_event(data(envelope(line("a"))), data(envelope(line("b"))))

    response = consumer(event)

    assert response["batchItemFailures"] == [
        {"itemIdentifier": event["Records"][0]["kinesis"]["sequenceNumber"]}
    ]
    assert consumer.counts == {"records": 2, "received": 2, "stored": 2}
    consumer.objects.failing = None
    assert consumer(event) == ALL_WELL
    assert len(consumer.objects.under("late/")) == 1


@given(st.lists(st.text(max_size=30) | st.builds(line, st.text(min_size=1, max_size=5)), max_size=10))
@settings(deadline=None)
def test_the_counts_of_a_batch_add_up(messages: list[str]) -> None:
    consumer = Consumer()

    consumer(kinesis_event(data(envelope(*messages))))

    ledger = consumer.ledgers[-1]
    assert ledger.received == ledger.stored + ledger.duplicate + ledger.quarantined.total() + ledger.unwritten
    assert ledger.received + ledger.ignored == len(messages)


# docs/reference/decoding.md: what other loggers write says no type and no number, and often no identity.
@pytest.mark.parametrize(
    "message",
    [
        '{"_tag":"usage_record","status":200}',
        '{"_tag":"usage_record","_id":"a"}',
        '{"_tag":"usage_record","_type":"job"}',
        '{"_tag":"usage_record","_id":"a","_type":"job"}',
        '{"status":200,"_tag":"usage_record","_type":"job"}',
        '{"_tag":"usage_record","status":null}',
        '2026-11-20T10:00:00Z\tid\tINFO\t{"_tag":"usage_record","status":200}',
        'INFO usage_record {"status":200}',
        "usage_record {}",
        '{"timestamp":"2025-11-20T10:00:00Z","level":"INFO","message":{"_tag":"usage_record","status":200}}',
        '{"timestamp":"2025-11-20T10:00:00Z","level":"INFO","message":"usage_record {\\"status\\":200}"}',
        '{"level":"INFO","message":"called","service":"orders","_tag":"usage_record"}',
        '{"_aws":{"Timestamp":1763632800500,"CloudWatchMetrics":[]},"_tag":"usage_record","latency":7}',
    ],
)
def test_a_line_of_another_logger_is_stored_beside_the_emitters(message: str) -> None:
    consumer = Consumer()

    answer = consumer(kinesis_event(data(envelope(line("before"), message, line("after")))))

    assert answer == ALL_WELL
    assert consumer.counts == {"records": 1, "received": 3, "stored": 3}


@pytest.mark.parametrize(
    "change", [{"id": None}, {"id": 7}, {"timestamp": "1"}, {"message": ["usage_record"]}]
)
@pytest.mark.parametrize("message", ['{"_tag":"usage_record"}', line("a"), "usage_record {"])
def test_a_log_event_that_is_none_costs_itself_and_is_accounted_for(
    message: str, change: dict[str, Any]
) -> None:
    consumer = Consumer()
    said = envelope(line("before"), message, line("after"))
    said["logEvents"][1] |= change

    assert consumer(kinesis_event(data(said))) == ALL_WELL
    assert consumer.counts == {"records": 1, "received": 2, "stored": 2, "quarantined": 1}
    (totals,) = map(accounting.totals, consumer.objects.accounts().values())
    assert totals.quarantined == {"undecodable": 1}


KEYS = st.sampled_from(
    ["timestamp", "level", "_type", "_id", "_src", "_seq", "_trunc", "_aws", "route", "message"]
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("usage_record"),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(KEYS | st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["", "INFO ", "usage_record ", "{", '{"message":']),
            st.dictionaries(KEYS | st.text(max_size=5), ANYTHING, max_size=6),
            st.booleans(),
        ),
        max_size=6,
    )
)
def test_whatever_an_object_with_the_tag_says_it_fails_no_batch(
    said: list[tuple[str, dict[str, Any], bool]],
) -> None:
    consumer = Consumer()
    messages = [
        prefix
        + json.dumps({"_tag": "usage_record", **fields} if first else {**fields, "_tag": "usage_record"})
        for prefix, fields, first in said
    ]

    answer = consumer(kinesis_event(data(envelope(*messages, line("neighbour")))))

    ledger = consumer.ledgers[-1]
    assert answer == ALL_WELL
    assert ledger.received == ledger.stored + ledger.duplicate + ledger.quarantined.total()
    assert ledger.received + ledger.ignored == len(messages) + 1
    assert "neighbour" in consumer.client.ids()


def test_every_stage_of_a_batch_is_timed() -> None:
    timings = Timings()

    Consumer(timings=timings)(kinesis_event(data(envelope(line("a"), f"{TAG} {{"))))

    assert set(timings.began) == set(STAGES)


def test_quarantine_holds_the_original_bytes() -> None:
    consumer = Consumer()
    record = kinesis_record("####", 0)

    consumer({"Records": [record]})

    (body,) = (body for key, body in consumer.objects.items() if key.startswith("quarantine/"))
    kept = json.loads(body)
    with pytest.raises(subscription.UndecodableError):
        subscription.pieces(kept["data"])
    assert kept["data"] == "####"


ENVIRONMENT = {
    "TAGLINE_TAG": "x",
    "BUCKET": "x",
    "OWN_LOG_GROUPS": "x",
    "STORE": "timestream",
    "TIMESTREAM_DATABASE": "x",
    "TIMESTREAM_TABLE": "x",
}


@pytest.mark.parametrize("threads", ["0", "65"])
def test_a_number_of_threads_out_of_range_is_refused_by_name(threads: str) -> None:
    with pytest.raises(SettingsError, match=f"WRITE_THREADS is {threads}, not from 1 to 64"):
        handler.from_environment({**ENVIRONMENT, "WRITE_THREADS": threads})


def test_a_store_that_there_is_not_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(SettingsError, match="STORE is 'papyrus', not one of: lake, timestream"):
        handler.from_environment({**ENVIRONMENT, "STORE": "papyrus"})


@pytest.mark.parametrize(("store", "other"), [("timestream", "lake"), ("lake", "timestream")])
def test_an_environment_imports_only_its_own_store(store: str, other: str) -> None:
    program = "import sys; from consumers.rows import handler; print(*sys.modules)"
    path = os.pathsep.join(path for path in sys.path if path)
    environ = {**os.environ, "STORE": store, "PYTHONPATH": path}

    done = subprocess.run([sys.executable, "-c", program], env=environ, check=True, stdout=subprocess.PIPE)

    imported = done.stdout.decode().split()
    assert f"consumers.rows.{store}.writer" in imported
    assert f"consumers.rows.{other}.writer" not in imported


def test_the_garbage_collector_is_as_it_was_after_a_batch() -> None:
    class Watching(TimestreamWrite):
        def write_records(self, **request: Any) -> dict[str, Any]:
            collecting.append(gc.isenabled())
            return super().write_records(**request)

    collecting: list[bool] = []
    before = gc.isenabled()

    Consumer(client=Watching())(kinesis_event(data(envelope(line("a")))))

    assert collecting == [False]
    assert gc.isenabled() == before


def test_requests_are_counted_by_minute_whichever_way_their_lines_take() -> None:
    consumer = Consumer()

    def request(identity: str, type_: str = "api_request", **fields: Any) -> str:
        return write(Record(identity, LOGGED, {"method": "GET", "route": "/pets", **fields}, type_))

    plain = [request(f"p{number}", status=200) for number in range(3)]
    # A line with a long text, one with a nested value and one with a number that JSON readers round.
    slow = [request("s1", status=404, note="x" * 70_000), request("s2", status=500, more={"a": [1]})]
    slow.append(request("s3", status=200, exact=2**70))
    others = [request("o", "meter", status=200), request("", status=200), "usage_record"]

    consumer(kinesis_event(data(envelope(*plain)), data(envelope(*slow, *others))))

    (key,) = [key for key in consumer.objects if key.startswith(accounting.PREFIX)]
    found = json.loads(consumer.objects[key])["minutes"]
    counts = Counter[int]()
    for flat in found["records"].values():
        for place, requests in zip(flat[::2], flat[1::2], strict=True):
            minute, method, route, status = found["cells"][place]
            assert (minute, method, route) == (LOGGED // 60_000, "GET", "/pets")
            counts[status] += requests
    assert counts == {200: 4, 404: 1, 500: 1}
    assert len(found["records"]) == 2


def test_lines_that_are_numbered_and_lines_that_are_not_are_stored_and_accounted_for_alike() -> None:
    consumer = Consumer()
    numbered = [write(Record(f"n{seq}", LOGGED, {"status": 200}, src="s1", seq=seq)) for seq in (0, 1, 3)]

    consumer(kinesis_event(data(envelope(*numbered, line("plain", status=200)))))

    (key,) = [key for key in consumer.objects if key.startswith(accounting.PREFIX)]
    ((account,),) = (of.values() for of in accounting.from_json(consumer.objects[key], key).values())
    assert account.delivered == {"s1": ((0, 1), (3, 3))}
    assert {what: list(lines.values()) for what, lines in account.counts.items()} == {"unnumbered": [1]}
    assert sorted(consumer.client.ids()) == ["n0", "n1", "n3", "plain"]


def declared(revision: int) -> Plans:
    """Return what a schema of a revision declares: revision 2 has one measure more."""
    more = '[measures.attempts]\ntype = "BIGINT"\ndefault = -1\n' if revision > 1 else ""
    text = f'revision = {revision}\n[measures.status]\ntype = "BIGINT"\n{more}'
    return schema.plans(schema.parse({"api_request.toml": text.encode()}))


@pytest.mark.parametrize(
    ("newer", "older"),
    [(declared(2), declared(1)), (UNDECLARED, Plans(revisions=-1))],
    ids=["of a schema", "of the mapping"],
)
@pytest.mark.parametrize("stored_by_the_newer", [0, 1, 2, 3])
def test_a_rollback_in_the_middle_of_a_batch_leaves_each_record_once(
    newer: Plans, older: Plans, stored_by_the_newer: int
) -> None:
    batch = [data(envelope(*[line(f"{n}-{m}", status=n) for m in range(60)])) for n in range(3)]
    client, objects = TimestreamWrite(), Objects()

    if stored_by_the_newer:
        Consumer(client=client, objects=objects, plans=newer)(kinesis_event(*batch[:stored_by_the_newer]))
    rolled_back = Consumer(client=client, objects=objects, plans=older)
    responses = [rolled_back(kinesis_event(*batch)), rolled_back(kinesis_event(*batch[::-1]))]
    counts = [ledger.counts() for ledger in rolled_back.ledgers]
    Consumer(client=client, objects=objects, plans=newer)(kinesis_event(*batch))

    assert responses == [ALL_WELL, ALL_WELL]
    assert client.ids() == sorted(f"{n}-{m}" for n in range(3) for m in range(60))
    assert [count["duplicate"] for count in counts] == [60 * stored_by_the_newer] * 2
    assert [count["stored"] for count in counts] == [180 - 60 * stored_by_the_newer] * 2
    assert objects.under("quarantine/") == {}


def test_a_rollback_before_late_days_were_marked_still_marks_them() -> None:
    event = kinesis_event(data(envelope(line("a"))))
    client = TimestreamWrite()
    failed = Consumer(client=client, failing="late/", later=86_400, plans=declared(2))(event)
    rolled_back = Consumer(client=client, later=86_400, plans=declared(1))

    assert failed != ALL_WELL
    assert rolled_back(event) == ALL_WELL
    assert len(rolled_back.objects.under("late/2025-11-20/")) == 1


@pytest.mark.parametrize(
    "time",
    ["0001-01-01T00:00:00Z", "1969-12-31T23:59:59.999Z", "2262-04-11T00:00:00Z", "2500-01-01T00:00:00Z"],
)
def test_a_time_that_no_store_can_hold_costs_one_line_and_no_request(time: str) -> None:
    zero = [json.dumps({"_tag": TAG, "_id": f"z{n}", "_type": "x", "timestamp": time}) for n in range(400)]
    consumer = Consumer()

    assert consumer(kinesis_event(data(envelope(*zero, line("a"))))) == ALL_WELL

    assert len(consumer.client.requests) == 1
    assert consumer.client.ids() == ["a"]
    assert consumer.ledgers[-1].quarantined == {"invalid": 400}
