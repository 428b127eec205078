"""Replay: sources become Kinesis events, and what comes of them is right however often that is done."""

import base64
import gzip
import json
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tagline import Record, write

from consumers import replay
from consumers.lines import quarantine
from consumers.lines.extract import Rejected
from consumers.lines.ledger import Ledger
from consumers.lines.subscription import LogEvent
from consumers.replay import BusyError, FailedError, UnreadableSourceError
from consumers.rows.handler import make_handler
from consumers.rows.store import Store
from consumers.rows.timestream.writer import Timestream
from tests.builders import (
    ARRIVED,
    CONTROL,
    GROUP,
    LOGGED,
    OWNER,
    STREAM_ARN,
    Context,
    data,
    envelope,
    kinesis_event,
    kinesis_record,
    log_events,
)
from tests.consumers.meters.meters import METER_TAG
from tests.consumers.meters.meters import line as meter_line
from tests.row_store import MemoryStore
from tests.twins import Objects, TimestreamWrite

TAG = "usage_record"
GROUP_ARN = f"arn:aws:logs:us-east-1:{OWNER}:log-group:{GROUP}"


def line(identity: str, **fields: Any) -> str:
    return write(Record(id=identity, timestamp=LOGGED, fields={"route": "/pets", **fields}))


class Consumer:
    """The handler over a store and a bucket, and `tagline replay` in a few lines."""

    def __init__(self, store: Store[Any]) -> None:
        self.objects = Objects()
        self.handler = make_handler(
            store, self.objects, tag=TAG, own_log_groups="/tagline/", report=lambda _: None
        )

    def __call__(self, records: list[dict[str, Any]]) -> dict[str, Any]:
        return self.handler({"Records": records}, Context())

    def replay(self, keys: Sequence[str]) -> None:
        for key in keys:
            for batch in replay.batches(replay.from_quarantine(key, self.objects[key])):
                assert replay.send(batch, self, never) == []
            self.objects[f"replayed/{key}"] = self.objects.pop(key)

    def kept(self) -> list[str]:
        return sorted(key for key in self.objects if key.startswith("quarantine/"))

    def kept_ids(self) -> list[str]:
        return sorted(json.loads(kept["message"])["_id"] for kept in self.objects.quarantined())


def never(_fruitless: int) -> None:
    raise AssertionError("the function takes what it is given")


# --- sources become events --------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(st.text("0123456789", min_size=1), st.text(st.characters(), max_size=50)),
        min_size=1,
        max_size=6,
    )
)
def test_the_decoder_reads_the_very_events_that_were_quarantined(said: list[tuple[str, str]]) -> None:
    events = [LogEvent(identity, LOGGED, text, GROUP, "stream", OWNER) for identity, text in said]
    record = kinesis_record("", 3)
    rejected = Rejected("invalid", "why")
    body = quarantine.lines(record, [(each, rejected) for each in events])

    (made,) = replay.from_quarantine(quarantine.object_key("invalid", record), body)

    assert log_events(made["kinesis"]["data"]) == events
    assert made["kinesis"]["approximateArrivalTimestamp"] == ARRIVED
    assert made["kinesis"]["sequenceNumber"] == record["kinesis"]["sequenceNumber"]
    assert made["eventSourceARN"] == STREAM_ARN
    assert set(made) == set(record)
    assert set(made["kinesis"]) == set(record["kinesis"])


@given(st.binary(max_size=50))
def test_undecodable_data_is_sent_as_it_came(raw: bytes) -> None:
    text = base64.b64encode(raw).decode()
    record = kinesis_record(text, 1)
    body = quarantine.lines(record, [(None, Rejected("undecodable", "why"))])

    (made,) = replay.from_quarantine(quarantine.object_key("undecodable", record), body)

    assert made["kinesis"]["data"] == text


def test_an_object_without_arrivals_is_replayed_on_the_day_that_its_key_says() -> None:
    record = kinesis_record("", 1)
    event = LogEvent("1", LOGGED, "x", GROUP, "stream", OWNER)
    kept = json.loads(quarantine.lines(record, [(event, Rejected("late", ""))]))
    del kept["arrived"]
    key = quarantine.object_key("late", record)

    (made,) = replay.from_quarantine(key, json.dumps(kept).encode())

    assert quarantine.parse_key(quarantine.object_key("late", made)).day == quarantine.parse_key(key).day


def test_a_malformed_event_without_an_id_is_sent_with_one_and_not_taken_for_a_health_check() -> None:
    record = kinesis_record("", 1)
    events = [LogEvent("", LOGGED, text, GROUP, "stream", OWNER) for text in ("a", "b")]
    body = quarantine.lines(record, [(each, Rejected("undecodable", "")) for each in events])

    (made,) = replay.from_quarantine(quarantine.object_key("undecodable", record), body)

    read = [event for event in log_events(made["kinesis"]["data"]) if isinstance(event, LogEvent)]
    assert [event.message for event in read] == ["a", "b"]
    assert len({event.id for event in read}) == 2
    assert len({kept.identity for kept in quarantine.read(body)}) == 2


def test_lines_of_several_log_groups_in_one_object_keep_their_log_groups() -> None:
    record = kinesis_record("", 1)
    events = [LogEvent(str(n), LOGGED, "x", f"/group/{n % 2}", "stream", OWNER) for n in range(4)]
    rejections: list[tuple[LogEvent | None, Rejected]] = [(each, Rejected("late", "")) for each in events]

    made = replay.from_quarantine(quarantine.object_key("late", record), quarantine.lines(record, rejections))

    assert [event for each in made for event in log_events(each["kinesis"]["data"])] == events
    assert len({each["eventID"] for each in made}) == len(made)


def test_a_large_object_is_cut_into_events_that_lambda_takes() -> None:
    noise = random.Random(1)
    record = kinesis_record("", 1)
    texts = [noise.randbytes(450_000).hex() for _ in range(12)]  # gzip halves hex, base64 adds a third
    events = [LogEvent(str(n), LOGGED, text, GROUP, "stream", OWNER) for n, text in enumerate(texts)]
    body = quarantine.lines(record, [(each, Rejected("invalid", "")) for each in events])

    cut = list(replay.batches(replay.from_quarantine(quarantine.object_key("invalid", record), body)))

    assert len(cut) > 1
    assert all(len(json.dumps({"Records": batch})) <= replay.MAX_EVENT_BYTES + 20 for batch in cut)
    read = [event for batch in cut for each in batch for event in log_events(each["kinesis"]["data"])]
    assert len(read) == len(events)
    assert set(read) == set(events)


def test_a_record_that_is_larger_than_an_event_is_refused_by_name() -> None:
    record = kinesis_record("x" * replay.MAX_EVENT_BYTES, 1)

    with pytest.raises(
        UnreadableSourceError, match=r"shardId-.* has 6,\d{3},\d{3} bytes, more than the 6,000,000"
    ):
        list(replay.batches([record]))


# https://docs.aws.amazon.com/lambda/latest/dg/kinesis-on-failure-destination.html
GIVEN_UP: dict[str, Any] = {
    "requestContext": {
        "requestId": "c9b8fa9f-5a7f-xmpl-af9c-0c604cde93a5",
        "functionArn": "arn:aws:lambda:us-east-2:123456789012:function:myfunction",
        "condition": "RetryAttemptsExhausted",
        "approximateInvokeCount": 1,
    },
    "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"},
    "version": "1.0",
    "timestamp": "2019-11-14T00:38:06.021Z",
    "KinesisBatchInfo": {
        "shardId": "shardId-000000000001",
        "startSequenceNumber": "49601189658422359378836298521827638475320189012309704722",
        "endSequenceNumber": "49601189658422359378836298522902373528957594348623495186",
        "approximateArrivalOfFirstRecord": "2019-11-14T00:38:04.835Z",
        "approximateArrivalOfLastRecord": "2019-11-14T00:38:05.580Z",
        "batchSize": 500,
        "streamArn": "arn:aws:kinesis:us-east-2:123456789012:stream/mystream",
    },
}


@pytest.mark.parametrize("version", ["", ":$LATEST", ":live"])
def test_a_batch_that_lambda_gave_up_is_the_event_that_it_was(version: str) -> None:
    event = kinesis_event(data(envelope(line("a"))), "undecodable")
    document = {**GIVEN_UP, "payload": json.dumps(event)}
    document["requestContext"] = {**GIVEN_UP["requestContext"]}
    document["requestContext"]["functionArn"] += version

    batch = replay.from_failed_batch(json.dumps(document).encode())

    assert batch == replay.FailedBatch("myfunction", event["Records"])


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (b"no JSON", "JSONDecodeError"),
        (b"[]", "TypeError"),
        (json.dumps(GIVEN_UP).encode(), "KeyError: 'payload'"),  # what a queue or a topic gets
        (json.dumps({**GIVEN_UP, "payload": "{"}).encode(), "JSONDecodeError"),
        (json.dumps({**GIVEN_UP, "payload": '{"Records": [{"body": "of SQS"}]}'}).encode(), "KeyError"),
        (json.dumps({**GIVEN_UP, "requestContext": {"functionArn": "x"}, "payload": "{}"}).encode(), "Key"),
    ],
)
def test_what_is_no_such_batch_is_refused_with_what_is_wrong(document: bytes, said: str) -> None:
    with pytest.raises(UnreadableSourceError, match=said):
        replay.from_failed_batch(document)


def test_a_line_of_a_log_group_is_a_kinesis_record_named_after_it() -> None:
    events = [LogEvent(str(10**55 + n), LOGGED, line(str(n)), GROUP, "stream", OWNER) for n in range(2)]
    other = events[0]._replace(log_group="/other")

    made = [replay.from_log_event(each, LOGGED + 900, GROUP_ARN) for each in (*events, other)]

    assert [log_events(each["kinesis"]["data"]) for each in made] == [[each] for each in (*events, other)]
    assert len({quarantine.object_key("late", each) for each in made}) == 3
    assert made[0] == replay.from_log_event(events[0], LOGGED + 900, GROUP_ARN)
    genuine, written = kinesis_record("", 0), envelope("")
    assert made[0].keys() == genuine.keys()
    assert made[0]["kinesis"].keys() == genuine["kinesis"].keys()
    assert made[0]["kinesis"]["kinesisSchemaVersion"] == genuine["kinesis"]["kinesisSchemaVersion"]
    sent = json.loads(gzip.decompress(base64.b64decode(made[0]["kinesis"]["data"])))
    assert sent.keys() == written.keys()
    assert sent["messageType"] == written["messageType"]
    assert made[0]["awsRegion"] == "us-east-1"


# --- the conversation with the function -------------------------------------------------------------------


@given(st.permutations(list(range(8))), st.data())
def test_what_is_left_unwritten_is_everything_from_the_lowest_sequence_number_on(
    numbers: list[int], drawn: st.DataObject
) -> None:
    ((*records,),) = replay.batches([kinesis_record("", number) for number in numbers])
    failed = drawn.draw(st.sets(st.sampled_from(range(8))))
    answer = {
        "batchItemFailures": [
            {"itemIdentifier": records[number]["kinesis"]["sequenceNumber"]} for number in failed
        ]
    }

    assert replay.unwritten(answer, records) == (records[min(failed) :] if failed else [])


@pytest.mark.parametrize("answer", [None, {}, {"batchItemFailures": []}, {"batchItemFailures": None}, ""])
def test_an_answer_without_failures_is_success(answer: Any) -> None:
    """https://docs.aws.amazon.com/lambda/latest/dg/services-kinesis-batchfailurereporting.html."""
    assert replay.unwritten(answer, [kinesis_record("", 1)]) == []


@pytest.mark.parametrize("identifier", ["", None, "1"])
def test_an_answer_that_names_no_record_of_the_event_is_failure_of_all(identifier: str | None) -> None:
    """https://docs.aws.amazon.com/lambda/latest/dg/services-kinesis-batchfailurereporting.html."""
    records = [kinesis_record("", 1), kinesis_record("", 2)]

    assert replay.unwritten({"batchItemFailures": [{"itemIdentifier": identifier}]}, records) == records


@settings(deadline=None)
@given(st.integers(1, 20), st.sets(st.integers(0, 19)), st.integers())
def test_a_function_that_fails_on_some_records_gets_all_others(
    count: int, poison: set[int], seed: int
) -> None:
    chance = random.Random(seed)
    records = [kinesis_record("", number) for number in range(count)]
    bad = {records[number]["eventID"] for number in poison if number < count}
    taken: Counter[str] = Counter()

    def invoke(some: list[dict[str, Any]]) -> Any:
        if chance.random() < 0.2:
            raise BusyError("throttled")
        if bad & {record["eventID"] for record in some}:
            raise FailedError("Runtime.ExitError")
        stop = chance.randrange(len(some) + 1)
        taken.update(record["eventID"] for record in some[:stop])
        if stop == len(some):
            return {"batchItemFailures": []}
        return {"batchItemFailures": [{"itemIdentifier": some[stop]["kinesis"]["sequenceNumber"]}]}

    left = replay.send(records, invoke, lambda _: None)

    assert {record["eventID"] for record in left} == bad
    assert taken == Counter({record["eventID"] for record in records} - bad)


def test_tries_in_a_row_without_progress_are_counted_until_there_is_some() -> None:
    records = [kinesis_record("", number) for number in range(2)]
    answers = iter([0, 0, 1, 1, None])
    waits: list[int] = []

    def invoke(_some: list[dict[str, Any]]) -> Any:
        number = next(answers)
        if number is None:
            return None
        return {"batchItemFailures": [{"itemIdentifier": records[number]["kinesis"]["sequenceNumber"]}]}

    assert replay.send(records, invoke, waits.append) == []
    assert waits == [1, 2, 1]


def test_a_dry_run_counts_by_the_decoder_and_its_reasons() -> None:
    records = kinesis_event(
        data(CONTROL),
        data(envelope(line("a"), line("b"), "START x", "usage_record {broken")),
        data(envelope("usage_record x", group="/tagline/prod/RowConsumer")),
        "undecodable!",
    )["Records"]

    assert replay.preview(records, TAG, "/tagline/") == {
        "readable": 2,
        "ignored": 1,
        "unparseable": 1,
        "recursion": 1,
        "undecodable": 1,
    }


def test_a_dry_run_of_what_the_meter_consumer_gets_counts_by_its_decoder() -> None:
    records = kinesis_event(
        data(envelope(meter_line("a"), meter_line("b"), meter_line("c", meterValue="1"), "START x")),
        data(envelope(meter_line("d"), f"{METER_TAG}: none")),
        "undecodable!",
    )["Records"]

    assert replay.preview(records, TAG, "/tagline/", meter_tag=METER_TAG) == {
        "readable": 3,
        "ignored": 1,
        "meter_invalid": 1,
        "meter_unparseable": 1,
        "meter_undecodable": 1,
    }


# --- what comes of it -------------------------------------------------------------------------------------


def test_a_replay_never_writes_over_what_else_is_kept_of_the_same_kinesis_record() -> None:
    store = MemoryStore()
    consumer = Consumer(store)
    store.refused = {"a": "late", "b": "invalid"}
    consumer(kinesis_event(data(envelope(line("a"), line("b"))))["Records"])
    (late,) = [key for key in consumer.kept() if "/late/" in key]

    store.refused["a"] = "invalid"  # as b is already, of the same Kinesis record
    consumer.replay([late])

    assert consumer.kept_ids() == ["a", "b"]


def test_an_object_that_is_replayed_again_and_again_stays_one() -> None:
    store = MemoryStore()
    consumer = Consumer(store)
    store.refused = {"a": "late"}
    consumer(kinesis_event(data(envelope(line("a"))))["Records"])

    for _ in range(5):
        consumer.replay(consumer.kept())

    assert consumer.kept_ids() == ["a"]
    assert all(key.count(".") == 2 for key in consumer.kept())  # names do not grow


def test_lines_without_an_id_are_the_same_records_again() -> None:
    client = TimestreamWrite()
    consumer = Consumer(Timestream(client, "tagline", "records", sleep=lambda _: None, jitter=lambda: 0.0))
    said = '{"_tag": "usage_record", "_type": "api_request", "route": "/pets"}'
    event = kinesis_event(data(envelope(said, ids=["9" * 56])))
    consumer(event["Records"])
    (stored,) = client.ids()
    from_logs = replay.from_log_event(
        LogEvent("9" * 56, LOGGED, said, GROUP, envelope()["logStream"], OWNER), LOGGED, GROUP_ARN
    )

    consumer([from_logs])
    document = {**GIVEN_UP, "payload": json.dumps(event)}
    consumer(replay.from_failed_batch(json.dumps(document).encode()).records)

    assert client.ids() == [stored]


def test_the_ledger_of_a_replay_names_the_lowest_sequence_number() -> None:
    """Events made of several objects are in the order of numbers, as the answer is read."""
    records = [kinesis_record("", number) for number in (5, 3, 9)]
    (batch,) = replay.batches(records)
    ledger = Ledger(batch)
    ledger.fail(2)
    ledger.fail(1)

    assert replay.unwritten(ledger.response(), batch) == [records[0], records[2]]
