"""A service that never answers costs no consumer more than its invocation's time, nor the next invocation."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tagline import Record, write

from consumers.accounts import accounting
from consumers.deadlines import ANSWER, LAST, RESERVE, Retry
from consumers.lines.ledger import Ledger
from consumers.meters import handler as meters
from consumers.meters.destinations import Api, Destination, Files
from consumers.meters.search import Search
from consumers.rows import handler as rows
from consumers.rows.timestream.writer import Timestream
from consumers.workers import Workers
from tests.builders import LOGGED, Context, data, envelope, kinesis_event
from tests.consumers.meters import meters as meter_lines
from tests.twins import IngestBucket, Objects, TimestreamWrite

ALL_WELL: dict[str, Any] = {"batchItemFailures": []}
TAG = "usage_record"
Handle = Callable[[dict[str, Any], Any], dict[str, Any]]


class Hangs:
    """Never answers its first call, while `over` is not set; answers all others at once."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self.called = threading.Event()
        self.began = 0.0

    def answer(self) -> None:
        if not self.called.is_set():
            self.began = time.monotonic()
            self.called.set()
            assert self.over.wait(60)


class Countdown(Context):
    """An invocation whose time begins to pass when a service hangs: a slow machine uses none of it before."""

    def __init__(self, seconds: float, hangs: Hangs) -> None:
        super().__init__()
        self.seconds = seconds
        self.hangs = hangs

    def get_remaining_time_in_millis(self) -> int:
        passed = time.monotonic() - self.hangs.began if self.hangs.called.is_set() else 0.0
        return int((self.seconds - passed) * 1_000)


class Standstill(Countdown):
    """The same, with a minute more once the service has hung for a moment."""

    def get_remaining_time_in_millis(self) -> int:
        hung = self.hangs.called.is_set() and time.monotonic() - self.hangs.began > 0.3
        return int((self.seconds + 60 * hung) * 1_000)


def until_it_hangs(hangs: Hangs, deliver: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the answer of the delivery in which the service hangs.

    On a busy machine a call may not begin within the time that the invocation has for it. It is then never
    begun, and the next delivery calls again.
    """
    for _ in range(60):
        response = deliver()
        if hangs.called.is_set():
            return response
    raise AssertionError("the service was never called")


@pytest.fixture
def hangs() -> Iterator[Hangs]:
    hangs = Hangs()
    yield hangs
    hangs.over.set()


class HangingBucket(Objects):
    """A bucket in which writing an object does not end, if its key begins as told."""

    def __init__(self, hangs: Hangs, prefix: str) -> None:
        super().__init__()
        self.hangs = hangs
        self.prefix = prefix

    def write(self, key: str, body: bytes) -> None:
        if key.startswith(self.prefix):
            self.hangs.answer()
        super().write(key, body)


class HangingStore(TimestreamWrite):
    def __init__(self, hangs: Hangs) -> None:
        super().__init__()
        self.hangs = hangs

    def write_records(self, **request: Any) -> dict[str, Any]:
        self.hangs.answer()
        return super().write_records(**request)


class SlowStore(TimestreamWrite):
    """Answers when an invocation has only so many seconds left."""

    def __init__(self, context: list[Countdown], left: float) -> None:
        super().__init__()
        self.context = context
        self.left = left

    def write_records(self, **request: Any) -> dict[str, Any]:
        self.context[-1].seconds = self.left
        return super().write_records(**request)


EVENT = kinesis_event(
    data(
        envelope(
            write(Record("small", LOGGED, {"route": "/"}, src="s", seq=0)),
            write(Record("large", LOGGED, {"note": "x" * 5_000}, src="s", seq=1)),
            f"{TAG} {{",
        )
    )
)


def row_consumer(store: TimestreamWrite, objects: Objects, threads: int, ledgers: list[Ledger]) -> Handle:
    return rows.make_handler(
        Timestream(store, "tagline", "records", sleep=lambda _: None, jitter=lambda: 0.0),
        objects,
        tag=TAG,
        own_log_groups="/tagline/",
        report=ledgers.append,
        threads=threads,
        clock=lambda: LOGGED / 1000 + 86_400,
    )


@pytest.mark.parametrize("threads", [1, 8])
@pytest.mark.parametrize("service", ["store", "overflow/", "quarantine/", "late/", accounting.PREFIX])
def test_a_service_that_never_answers_takes_no_row_consumer_with_it(
    service: str, threads: int, hangs: Hangs
) -> None:
    contexts: list[Countdown] = []
    store = SlowStore(contexts, LAST + 0.2 if service in ("late/", accounting.PREFIX) else RESERVE + 0.1)
    objects: Objects = HangingBucket(hangs, service)
    if service == "store":
        store, objects = HangingStore(hangs), Objects()  # type: ignore[assignment]  # another twin
    ledgers: list[Ledger] = []
    handle = row_consumer(store, objects, threads, ledgers)

    def deliver() -> dict[str, Any]:
        contexts.append(Countdown(RESERVE + 0.1, hangs))
        return handle(EVENT, contexts[-1])

    response = until_it_hangs(hangs, deliver)

    assert not hangs.over.is_set()
    assert response != ALL_WELL
    # The call is still under way, and keeps the next invocation from nothing.
    contexts.append(Standstill(60, hangs))
    if isinstance(store, SlowStore):
        store.left = 60
    assert handle(EVENT, contexts[-1]) == ALL_WELL
    assert not hangs.over.is_set()
    assert store.ids() == ["large", "small"]
    assert len(ledgers) == len(contexts)


@pytest.mark.parametrize("threads", [1, 8])
@pytest.mark.parametrize("service", ["bucket", "key", "search", "quarantine/"])
def test_a_service_that_never_answers_takes_no_meter_consumer_with_it(
    service: str, threads: int, hangs: Hangs
) -> None:
    class HangingIngest(IngestBucket):
        def put_object(self, **request: Any) -> dict[str, Any]:
            if service == "bucket":
                hangs.answer()
            return super().put_object(**request)

    def read_key() -> str:
        hangs.answer()
        return "secret"

    bucket = HangingIngest()
    retry = Retry(lambda _: None, lambda: 0.0)
    objects = HangingBucket(hangs, service)
    files = Files(bucket, "ingest", "", acl="", retry=retry)
    api = Api("https://127.0.0.1:9/", read_key, retry=retry)
    search = Search("https://127.0.0.1:9/", read_key, retry=retry)
    destinations: dict[str, Destination] = {"key": api, "search": search}
    ledgers: list[Ledger] = []
    handle = meters.make_handler(
        destinations.get(service, files),
        objects,
        meter_tag=meter_lines.METER_TAG,
        tag=TAG,
        own_log_groups="/tagline/",
        report=ledgers.append,
        threads=threads,
        documents=service == "search",
    )
    lines = (meter_lines.line("a"), f"{meter_lines.METER_TAG}: nothing")
    if service == "search":
        lines = (
            write(Record("a", meter_lines.TIME, {}, tag=TAG)),
            f'{{"_tag":"{TAG}","_id":"b","timestamp":0}}',
        )
    event = kinesis_event(data(envelope(*lines)))

    response = until_it_hangs(hangs, lambda: handle(event, Countdown(RESERVE + 0.1, hangs)))

    assert not hangs.over.is_set()
    assert response != ALL_WELL
    assert ledgers
    if service not in {"key", "search"}:
        assert handle(event, Standstill(60, hangs)) == ALL_WELL
        assert [record["uniqueId"] for record in bucket.records()] == ["a"]


@pytest.mark.parametrize("threads", [1, 8])
def test_what_the_store_refused_is_kept_while_it_does_not_answer_for_the_rest(
    threads: int, hangs: Hangs
) -> None:
    """A hanging store uses its own threads and its own part of the time: the quarantine gets on."""
    event = kinesis_event(
        data(envelope(f"{TAG} {{")), data(envelope(write(Record("a", LOGGED, {"route": "/"}))))
    )
    objects = Objects()
    handle = row_consumer(HangingStore(hangs), objects, threads, [])

    response = until_it_hangs(hangs, lambda: handle(event, Standstill(RESERVE + 0.1, hangs)))

    number = event["Records"][1]["kinesis"]["sequenceNumber"]
    assert response == {"batchItemFailures": [{"itemIdentifier": number}]}
    assert [kept["message"] for kept in objects.quarantined()] == [f"{TAG} {{"]


def test_a_call_that_is_not_begun_in_time_is_never_begun(hangs: Hangs) -> None:
    begun: list[str] = []

    def begin(item: str) -> bool:
        begun.append(item)
        return True

    workers = Workers(1)
    first = workers.submit(hangs.answer)
    assert hangs.called.wait(60)

    assert list(workers.at_once(lambda: 0.0, begin, ["a", "b"])) == [False] * 2
    assert not workers.left_behind
    assert workers.renewed() is workers
    hangs.over.set()
    first.result()
    workers.shutdown()

    assert begun == []


def test_the_shares_of_the_time_are_in_order() -> None:
    assert RESERVE > ANSWER > LAST


class Unreportable:
    """Raises in the first reports: a full disk, a library that is missing."""

    def __init__(self, *faults: BaseException) -> None:
        self.faults = list(faults)
        self.unreported: list[int] = []

    def __call__(self, ledger: Ledger) -> None:
        if self.faults:
            raise self.faults.pop(0)
        self.unreported.append(ledger.counts()["unreported"])


@pytest.mark.parametrize("consumer", ["rows", "meters"])
def test_a_batch_that_cannot_be_reported_is_stored_and_the_next_report_counts_it(
    consumer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    report = Unreportable(OSError("No space left on device"), ImportError("aws_xray_sdk"))
    store, bucket = TimestreamWrite(), IngestBucket()
    if consumer == "rows":
        port = Timestream(store, "tagline", "records", sleep=lambda _: None, jitter=lambda: 0.0)
        handle = rows.make_handler(
            port, Objects(), tag=TAG, own_log_groups="/tagline/", report=report, clock=lambda: LOGGED / 1000
        )
        event = kinesis_event(data(envelope(write(Record("a", LOGGED, {"route": "/"})))))
    else:
        files = Files(bucket, "ingest", "", acl="", retry=Retry(lambda _: None, lambda: 0.0))
        handle = meters.make_handler(
            files, Objects(), meter_tag=meter_lines.METER_TAG, tag=TAG, own_log_groups="/t/", report=report
        )
        event = kinesis_event(data(envelope(meter_lines.line("a"))))

    assert [handle(event, Context()) for _ in range(4)] == [ALL_WELL] * 4

    assert len(store.points) + len(bucket.objects) == 1
    assert report.unreported == [2, 0]
    assert "No space left on device" in capsys.readouterr().err
