"""The consumer of meters: each valid line ends in one file, whatever fails and however often it comes."""

import json
import random
import re
import time
from collections import Counter
from functools import partial
from typing import Any

import pytest
from botocore.exceptions import ReadTimeoutError
from hypothesis import given, settings
from hypothesis import strategies as st
from tagline import Record, write

from consumers.deadlines import Retry
from consumers.lines.ledger import Ledger
from consumers.meters.destinations import Api, Files
from consumers.meters.handler import WRITERS, Settings, handler, make_destination, make_handler, report_meters
from consumers.meters.search import Search
from consumers.settings import SettingsError, read_settings
from tests.builders import (
    CONTROL,
    CONTROL_EVENT,
    Context,
    data,
    envelope,
    kinesis_event,
    kinesis_record,
)
from tests.consumers.meters.meters import AGENT, METER_TAG, TAG, TIME, line, meter, needs_node, node
from tests.twins import IngestBucket, Objects, client_error

RETRY = Retry(sleep=lambda _: None, jitter=lambda: 0.0)
ALL_WELL: dict[str, Any] = {"batchItemFailures": []}
NO_TAG = f"{METER_TAG}: nothing"


class Consumer:
    """The handler among twins."""

    def __init__(self, *faults: Exception | None, failing: str | None = None, acl: str = "") -> None:
        self.bucket = IngestBucket(*faults)
        self.objects = Objects(failing=failing)
        self.ledgers: list[Ledger] = []
        self.handler = make_handler(
            Files(self.bucket, "ingest", "ingest/records/", acl=acl, retry=RETRY),
            self.objects,
            meter_tag=METER_TAG,
            tag=TAG,
            own_log_groups="/tagline/",
            report=self.ledgers.append,
        )

    def __call__(self, event: dict[str, Any], context: Context | None = None) -> dict[str, Any]:
        return self.handler(event, context or Context())

    def ids(self) -> list[str]:
        """Return the `uniqueId` of each record in each file, sorted."""
        return sorted(record["uniqueId"] for record in self.bucket.records())

    @property
    def counts(self) -> dict[str, int]:
        """Return what the last batch's ledger counted and is not zero."""
        return {name: count for name, count in self.ledgers[-1].counts().items() if count}


def failure(event: dict[str, Any], position: int) -> dict[str, Any]:
    return {
        "batchItemFailures": [{"itemIdentifier": event["Records"][position]["kinesis"]["sequenceNumber"]}]
    }


def test_the_meters_of_a_kinesis_record_become_one_file() -> None:
    consumer = Consumer()

    response = consumer(
        kinesis_event(data(envelope(line("a"), "START x", line("b"))), data(envelope(line("c"))))
    )

    assert response == ALL_WELL
    files = [json.loads(body) for body in consumer.bucket.objects.values()]
    assert sorted(files, key=len) == [[meter("c")], [meter("a"), meter("b")]]
    assert consumer.counts == {"records": 2, "received": 3, "ignored": 1, "stored": 3}
    for key in consumer.bucket.objects:
        assert re.fullmatch(r"ingest/records/2022-09-13/[0-9a-f]{40}\.json", key)
    expected = {"Bucket": "ingest", "ContentType": "application/json"}
    assert [{**call, "Key": ""} for call in consumer.bucket.calls] == [{**expected, "Key": ""}] * 2


def test_files_have_an_acl_only_where_one_is_asked_for() -> None:
    consumer = Consumer(acl="bucket-owner-full-control")

    consumer(kinesis_event(data(envelope(line("a")))))

    assert [call["ACL"] for call in consumer.bucket.calls] == ["bucket-owner-full-control"]


def test_tagged_records_are_meters_only_by_their_type() -> None:
    consumer = Consumer()
    tagged = [
        write(Record(id=identity, timestamp=TIME, type=kind, fields=meter(identity)))
        for identity, kind in [("a", "meter"), ("b", "api_request")]
    ]

    assert consumer(kinesis_event(data(envelope(*tagged)))) == ALL_WELL
    assert consumer.ids() == ["a"]
    assert consumer.counts == {"records": 1, "received": 1, "ignored": 1, "stored": 1}


def test_control_messages_and_the_pipelines_own_lines_are_counted_and_not_sent() -> None:
    consumer = Consumer()
    mixed = envelope(line("a"))
    mixed["logEvents"].append(CONTROL_EVENT)
    own = envelope(line("x"), line("y"), group="/tagline/prod/MeterConsumer")

    assert consumer(kinesis_event(data(CONTROL), data(mixed), data(own))) == ALL_WELL
    assert consumer.ids() == ["a"]
    assert consumer.counts == {"records": 3, "received": 1, "control": 2, "recursion": 2, "stored": 1}


def test_an_empty_batch_and_one_without_meters_write_nothing() -> None:
    consumer = Consumer()

    assert consumer({"Records": []}) == ALL_WELL
    assert consumer(kinesis_event(data(envelope("no tag")))) == ALL_WELL
    assert (consumer.bucket.objects, consumer.objects) == ({}, {})


def test_one_bad_line_costs_one_line() -> None:
    consumer = Consumer()
    bad = f"{METER_TAG} {{broken é"
    event = kinesis_event(
        data(envelope(line("a"), bad, line("x", meterValue="1"), line("b"))),
        "not base64",
        data(envelope(line("c"))),
    )

    assert consumer(event) == ALL_WELL
    assert consumer.ids() == ["a", "b", "c"]
    kept = {each["reason"]: each for each in consumer.objects.quarantined()}
    assert kept["meter_unparseable"]["message"] == bad
    assert kept["meter_invalid"]["detail"] == 'meterValue is "1", not a number'
    assert kept["meter_undecodable"]["data"] == "not base64"
    assert consumer.counts == {"records": 3, "received": 5, "stored": 3, "quarantined": 3}
    assert {key.split("/")[1] for key in consumer.objects} == set(kept)


def test_a_line_that_only_mentions_the_tag_is_counted_as_that() -> None:
    consumer = Consumer()

    assert (
        consumer(kinesis_event(data(envelope(f"no {METER_TAG} was found", "no tag", line("a"))))) == ALL_WELL
    )
    assert consumer.counts == {"records": 1, "received": 1, "mentioned": 1, "ignored": 1, "stored": 1}


def test_a_list_that_comes_twice_in_a_batch_is_written_once_and_counted_as_a_duplicate() -> None:
    consumer = Consumer()
    twice = data(envelope(line("a"), line("b")))
    others = [data(envelope(line(f"c{number}"))) for number in range(WRITERS)]

    assert consumer(kinesis_event(twice, twice, *others, twice)) == ALL_WELL
    assert len(consumer.bucket.calls) == 1 + WRITERS
    assert consumer.counts == {
        "records": 3 + WRITERS,
        "received": 6 + WRITERS,
        "stored": 2 + WRITERS,
        "duplicate": 4,
    }


def test_a_log_event_that_is_none_costs_itself() -> None:
    consumer = Consumer()
    said = envelope(line("a"), line("b"), '{"_tag":"usage_record","_type":"meter"}', line("c"))
    for event in said["logEvents"][1:3]:
        event["id"] = None

    assert consumer(kinesis_event(data(said))) == ALL_WELL
    assert consumer.ids() == ["a", "c"]
    assert consumer.counts == {"records": 1, "received": 2, "stored": 2, "quarantined": 2}


@needs_node
@given(st.randoms(use_true_random=False))
@settings(max_examples=10, deadline=None)
def test_a_file_is_byte_for_byte_what_the_seeds_agent_writes_of_the_same_lines(chance: random.Random) -> None:
    consumer = Consumer()
    event = kinesis_event(
        *(
            data(
                envelope(
                    *(spelled_somehow(chance, f"{record}-{number}") for number in range(chance.randint(1, 8)))
                )
            )
            for record in range(20)
        ),
        data(CONTROL),
    )

    assert consumer(event) == ALL_WELL
    assert consumer.counts["received"] == consumer.counts["stored"]
    *expected, control = node(AGENT, json.dumps(event))
    assert (control, Counter(expected)) == (
        "[]",
        Counter(map(bytes.decode, consumer.bucket.objects.values())),
    )


def spelled_somehow(chance: random.Random, unique_id: str) -> str:
    """Return a valid meter line: keys in any order, numbers and texts in any spelling."""
    number = chance.choice(
        ["1", "1.0", "-0", "-0.0", "1E3", "2.50e-9", "123456789012345680000", repr(chance.gauss(0, 1e9))]
    )
    text = chance.choice(["GET", "café \U0001f600", "\ud800", "\u2028\x7f", 'say "\\/"', "\t", ""])
    said = {
        **meter(unique_id),
        "dimensions": {"method": text, str(chance.randint(0, 99)): "index", "7": "seven", "__proto__": "p"},
        "more": [{"b": [1.0, None, True], "2": {}, "a": []}, "\u0000"],
    }
    members = list(said.items())
    chance.shuffle(members)
    spelled = json.dumps(
        dict(members), ensure_ascii=chance.random() < 0.5, indent=chance.choice([None, 2, 4])
    )
    spelled = spelled.replace('"meterValue": 1', f'"meterValue": {number}')
    spelled = spelled.replace(f"{TIME}", chance.choice([f"{TIME}", f"{TIME}.0", "1.663094105062e12"]))
    before = chance.choice(["", "INFO ", "2022-09-13T18:35:05.062Z\t025f281a-7b61\tINFO\t"])
    return (
        f"{before}{METER_TAG}{chance.choice([' ', chr(9), ':', ': '])}{spelled}{chance.choice(['', chr(10)])}"
    )


def records_of(count: int, chance: random.Random) -> list[dict[str, Any]]:
    """Return Kinesis records with `count` valid lines and three bad ones among them, several to a record."""
    messages = [line(f"m{number}") for number in range(count)]
    messages += [NO_TAG, line("x", meterValue=None), line("y", customerId=7), "noise"]
    chance.shuffle(messages)
    records: list[dict[str, Any]] = []
    while messages:
        size = chance.randint(1, 9)
        records.append(kinesis_record(data(envelope(*messages[:size])), len(records)))
        del messages[:size]
    return records


@given(st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_redelivered_shuffled_and_cut_otherwise_the_files_are_the_same_and_each_meter_is_in_one(
    chance: random.Random,
) -> None:
    once, often = Consumer(), Consumer()
    records = records_of(60, chance)

    once({"Records": records})
    deliveries = records * 3
    chance.shuffle(deliveries)
    while deliveries:
        size = chance.randint(1, 12)
        often({"Records": deliveries[:size]})
        del deliveries[:size]

    assert often.bucket.objects == once.bucket.objects
    assert dict(often.objects) == dict(once.objects)
    assert once.ids() == sorted(f"m{number}" for number in range(60))
    assert len(list(once.objects.quarantined())) == 3


def deliver(consumer: Consumer, records: list[dict[str, Any]], *, tries: int, bisect: bool) -> None:
    """Deliver a batch as Lambda does: again from the lowest failed number on, halved where it is first."""
    queue = [records]
    for _ in range(tries):
        if not queue:
            return
        batch = queue.pop(0)
        failures = consumer({"Records": batch})["batchItemFailures"]
        if failures:
            numbers = [record["kinesis"]["sequenceNumber"] for record in batch]
            at = numbers.index(failures[0]["itemIdentifier"])
            rest = batch[at:]
            halves = [rest[: len(rest) // 2], rest[len(rest) // 2 :]] if bisect and at == 0 else [rest]
            queue[:0] = [half for half in halves if half]
    pytest.fail("the batch never ends")


TRANSIENT = [
    client_error("SlowDown", 503),
    client_error("InternalError", 500),
    client_error("RequestTimeout", 400),
    client_error("TooManyRequestsException", 429),
    ReadTimeoutError(endpoint_url="https://s3"),
]
DENIED = [client_error("AccessDenied", 403), client_error("NoSuchBucket", 404), client_error("ExpiredToken")]


@pytest.mark.parametrize("fault", TRANSIENT, ids=str)
@pytest.mark.parametrize("times", [1, 3])
def test_what_can_pass_is_tried_again_in_the_same_invocation(fault: Exception, times: int) -> None:
    consumer = Consumer(*[fault] * times)

    assert consumer(kinesis_event(data(envelope(line("a"))))) == ALL_WELL
    assert consumer.ids() == ["a"]


@pytest.mark.parametrize("fault", DENIED, ids=str)
@pytest.mark.parametrize("position", [0, 1, 2 * WRITERS])
def test_what_another_try_cannot_mend_is_delivered_again_from_the_lowest_number_on(
    fault: Exception, position: int
) -> None:
    class Fails(IngestBucket):
        def put_object(self, **request: Any) -> dict[str, Any]:
            if down and f'"m{position}-' in request["Body"].decode():
                raise fault
            return super().put_object(**request)

    down, consumer = True, Consumer()
    bucket = Fails()
    consumer.handler = make_handler(
        Files(bucket, "ingest", "", acl="", retry=RETRY),
        consumer.objects,
        meter_tag=METER_TAG,
        tag=TAG,
        own_log_groups="",
        report=consumer.ledgers.append,
    )
    event = kinesis_event(
        *(data(envelope(line(f"m{number}-a"), line(f"m{number}-b"), NO_TAG)) for number in range(3 * WRITERS))
    )

    assert consumer(event) == failure(event, position)
    again = 3 * WRITERS - position  # Kinesis records that come again; what they reject is kept then
    counts = {
        "records": 3 * WRITERS,
        "received": 9 * WRITERS,
        "stored": 6 * WRITERS - 2,
        "quarantined": position,
        "unwritten": 2 + again,
    }
    assert consumer.counts == {name: count for name, count in counts.items() if count}
    assert len(list(consumer.objects.quarantined())) == position
    down = False
    assert consumer({"Records": event["Records"][position:]}) == ALL_WELL
    assert len(bucket.records()) == 6 * WRITERS
    assert len(bucket.objects) == len(list(consumer.objects.quarantined())) == 3 * WRITERS


def test_an_invocation_without_time_leaves_everything_to_the_next() -> None:
    consumer = Consumer()
    event = kinesis_event(data(envelope("no tag")), data(envelope(line("a"), NO_TAG)))

    assert consumer(event, Context(remaining_ms=1_000)) == failure(event, 1)
    assert (consumer.bucket.calls, consumer.counts["unwritten"]) == ([], 2)
    assert list(consumer.objects.quarantined()) == []


def test_retries_end_when_the_invocations_time_does() -> None:
    left = [10.0]
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        left[0] -= seconds

    class Clock(Context):
        def get_remaining_time_in_millis(self) -> int:
            return int(left[0] * 1_000)

    bucket = IngestBucket(*[client_error("SlowDown", 503)] * 1_000)
    retry = Retry(sleep=sleep, jitter=lambda: 1.0)
    ledgers: list[Ledger] = []
    run = make_handler(
        Files(bucket, "ingest", "", acl="", retry=retry),
        Objects(),
        meter_tag=METER_TAG,
        tag=TAG,
        own_log_groups="",
        report=ledgers.append,
    )
    event = kinesis_event(data(envelope(line("a"))))

    assert run(event, Clock()) == failure(event, 0)
    assert waits[:4] == [0.05, 0.1, 0.2, 0.4]
    assert left[0] > 2
    assert ledgers[0].unwritten == 1


def test_when_quarantine_cannot_be_written_nothing_is_dropped_to_make_progress() -> None:
    consumer = Consumer(failing="quarantine/")
    event = kinesis_event(data(envelope(line("a"))), data(envelope(NO_TAG, line("b"))))

    assert consumer(event) == failure(event, 1)
    assert consumer.counts == {"records": 2, "received": 3, "stored": 2, "unwritten": 1}
    consumer.objects.failing = None
    assert consumer({"Records": event["Records"][1:]}) == ALL_WELL
    assert consumer.ids() == ["a", "b"]
    assert len(list(consumer.objects.quarantined())) == 1


@given(
    st.randoms(use_true_random=False),
    st.lists(st.sampled_from([None, *TRANSIENT, *DENIED]), max_size=20),
    st.booleans(),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_whatever_fails_every_line_ends_exactly_once_in_a_file_or_in_quarantine(
    chance: random.Random, faults: list[Exception | None], bisect: bool, no_quarantine: bool
) -> None:
    consumer = Consumer(*faults, failing="quarantine/" if no_quarantine else None)
    records = records_of(80, chance)

    if no_quarantine:  # until the first answer
        consumer({"Records": records})
        consumer.objects.failing = None
    deliver(consumer, records, tries=200, bisect=bisect)

    assert Counter(consumer.ids()) == Counter(f"m{number}" for number in range(80))
    assert sorted(kept["reason"] for kept in consumer.objects.quarantined()) == [
        "meter_invalid",
        "meter_invalid",
        "meter_unparseable",
    ]


@given(st.lists(st.text(max_size=30) | st.builds(line, st.text(min_size=1, max_size=5)), max_size=10))
@settings(deadline=None)
def test_the_counts_of_a_batch_add_up(messages: list[str]) -> None:
    consumer = Consumer()

    consumer(kinesis_event(data(envelope(*messages))))

    ledger = consumer.ledgers[-1]
    assert ledger.received == ledger.stored + ledger.duplicate + ledger.quarantined.total() + ledger.unwritten
    assert ledger.received + ledger.ignored == len(messages)


def test_an_invocation_reports_counts_and_metrics_and_no_contents(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # A name of its own: the logger of a name writes to the stdout of its first use for ever.
    monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", f"tagline-{time.monotonic_ns()}")
    monkeypatch.setenv("POWERTOOLS_METRICS_NAMESPACE", "Tagline")
    consumer = Consumer()
    consumer(kinesis_event(data(envelope(line("hush"), f"{METER_TAG} hush", line(meterValue="hush")))))

    report_meters(consumer.ledgers[-1], store=Files.store)

    printed = capsys.readouterr().out
    assert "hush" not in printed
    summary, metrics = (json.loads(text) for text in printed.splitlines())
    expected = {"records": 1, "received": 3, "stored": 1, "quarantined": 2, "quarantined_meter_invalid": 1}
    assert {name: summary[name] for name in expected} == expected
    assert {name: metrics[name] for name in expected} == {
        name: [float(count)] for name, count in expected.items()
    }
    (directive,) = metrics["_aws"]["CloudWatchMetrics"]
    assert set(directive["Dimensions"][0]) == {"service", "stage", "store"}
    assert (metrics["stage"], metrics["store"]) == ("meters", "s3")


BASE = {
    "TAGLINE_TAG": TAG,
    "METER_TAG": METER_TAG,
    "BUCKET": "lake",
    "OWN_LOG_GROUPS": "/tagline/",
}
URL = {"METER_URL": "https://ingest.example.com/ingest"}
KEY = {"METER_API_KEY_ARN": "arn:aws:ssm:us-east-1:123456789012:parameter/key"}


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({}, "one of METER_BUCKET, METER_URL, SEARCH_URL has to be set, not none"),
        (
            {**URL, **KEY, "METER_BUCKET": "b"},
            "one of METER_BUCKET, METER_URL, SEARCH_URL has to be set, not METER_BUCKET, METER_URL",
        ),
        ({**KEY, "SEARCH_URL": "http://a"}, "SEARCH_URL is 'http://a', not https: the key would be readable"),
        *(
            (
                {**KEY, "METER_URL": url},
                f"METER_URL is {url!r}, not https: the key would be readable",
            )
            for url in (
                "http://127.0.0.1:80@a",
                "http://localhost.a/",
                "http://127.0.0.2",
                "HTTP://localhost",
            )
        ),
        (URL, "METER_API_KEY_ARN is not set"),
        ({**KEY, "METER_URL": "http://a"}, "METER_URL is 'http://a', not https: the key would be readable"),
    ],
)
def test_settings_that_name_no_one_destination_are_refused_by_name(
    environ: dict[str, str], message: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        make_destination(read_settings(Settings, {**BASE, **environ}))

    assert str(caught.value) == message


def test_the_settings_choose_the_destination() -> None:
    make = partial(read_settings, Settings)

    assert isinstance(make_destination(make({**BASE, **URL, **KEY})), Api)
    assert isinstance(make_destination(make({**BASE, **KEY, "SEARCH_URL": "https://es.example.com"})), Search)
    assert isinstance(make_destination(make({**BASE, "METER_BUCKET": "b"})), Files)
    assert make({**BASE, "METER_BUCKET": "b"}).meter_prefix == "ingest/records/"


def test_the_function_without_settings_says_all_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in BASE:
        monkeypatch.delenv(name, raising=False)

    with pytest.raises(
        SettingsError, match=r"TAGLINE_TAG is not set; METER_TAG is not set; BUCKET is not set"
    ):
        handler({"Records": []}, Context())


def test_a_batch_is_not_held_in_memory_as_a_whole() -> None:
    """No more Kinesis records are decoded than are written at once."""
    decoded: list[int] = []

    class Record(dict[str, Any]):
        def __getitem__(self, name: str) -> Any:
            if name == "kinesis":
                decoded.append(self["number"])
            return super().__getitem__(name)

    class Watches(IngestBucket):
        def put_object(self, **request: Any) -> dict[str, Any]:
            ahead.append(max(decoded) - len(self.calls))
            return super().put_object(**request)

    ahead: list[int] = []
    consumer = Consumer()
    bucket = Watches()
    run = make_handler(
        Files(bucket, "ingest", "", acl="", retry=RETRY),
        consumer.objects,
        meter_tag=METER_TAG,
        tag=TAG,
        own_log_groups="",
        report=lambda _: None,
    )
    records = [
        Record({**kinesis_record(data(envelope(line(f"{n}"))), n), "number": n}) for n in range(5 * WRITERS)
    ]

    assert run({"Records": records}, Context()) == ALL_WELL
    assert len(bucket.objects) == 5 * WRITERS
    assert max(ahead) < WRITERS
