"""The fault matrix: whatever fails, wherever in a batch and however long, each line is found exactly once.

Every case is a batch with a victim in it, something that goes wrong where the victim is, and how long that
goes on. Lambda's part is played by `tests.deliveries`: it cuts, tries again and gives up. Lines are counted
by identity, after each delivery and at the end. `docs/reference/failures.md` lists the same failures.
"""

import base64
import gzip
import json
import random
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from enum import StrEnum
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    EndpointConnectionError,
    ReadTimeoutError,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from tagline import Record, write

from consumers.accounts import accounting, compaction
from consumers.accounts.compaction import Day
from consumers.lines.extract import extract
from consumers.lines.ledger import Ledger
from consumers.lines.subscription import LogEvent
from consumers.rows import late_days, schema, table
from consumers.rows.handler import make_handler
from consumers.rows.store import Store
from consumers.rows.timestream.writer import Timestream
from tests.builders import (
    CONTROL,
    CONTROL_EVENT,
    GROUP,
    LOGGED,
    OWNER,
    Context,
    data,
    envelope,
    kinesis_record,
)
from tests.deliveries import SETTINGS, Deliveries, DiedError, KinesisRecord
from tests.twins import Bucket, Objects, TimestreamWrite, client_error, measure

ROOT = Path(__file__).parents[2]
FAILURES = ROOT / "docs" / "reference" / "failures.md"
TAG = "usage_record"
OWN = "/tagline/"
NOW_S = LOGGED / 1000 + 86_400  # All that is stored is of a day that is over.
DAY = date(2025, 11, 20)
RECORDS, LINES = 3, 35  # two requests to the store, the second of which begins inside a Kinesis record
VICTIM = "victim"

# More deliveries than those that a failure lasts which ends.
FEW_RETRIES = replace(SETTINGS, maximum_retry_attempts=4)


# --- what is in a batch -------------------------------------------------------------------------------------


# Each of its characters is escaped, and a name has at most 256 bytes.
UNMAPPABLE_TYPE = "/" * 100


def line(identity: str, seq: int, **fields: Any) -> str:
    record = Record(
        id=identity, timestamp=LOGGED, fields={"route": "/pets", **fields}, src="environment", seq=seq
    )
    return write(record)


@dataclass(frozen=True)
class Batch:
    """Kinesis records, and what was said in them that has to be found.

    Attributes:
        records: In stream order.
        said: For each, the identities of its lines: a record's `_id`, a line that is none, or a Kinesis
            record's data that cannot be decoded.
        position: The position of the record with the victim in it.
        victims: The identities of the lines that something happens to.
        refusals: What the store says of some of them, each time.
        invalid: Those for whose sake it refuses the whole request, each time.
    """

    records: list[KinesisRecord]
    said: list[list[str]]
    position: int = 0
    victims: frozenset[str] = frozenset()
    refusals: Mapping[str, str] = field(default_factory=dict)
    invalid: frozenset[str] = frozenset()

    def emitted(self) -> Counter[str]:
        return Counter(identity for said in self.said for identity in said)


def good(record: int, number: int) -> str:
    return line(f"{record}-{number}", record * LINES + number)


@cache
def neighbour(record: int) -> str:
    return data(envelope(*(good(record, number) for number in range(LINES))))


@cache
def twins_of_a_point() -> tuple[str, str]:
    """Return two identities whose records meet at one point."""
    seen: dict[int, str] = {}
    for number in range(100_000):
        identity = f"{VICTIM}-{number}"
        if other := seen.setdefault(table.offset(identity, 0), identity) != identity:
            return seen[table.offset(identity, 0)], identity
        assert not other
    raise AssertionError("no two meet")


@dataclass(frozen=True)
class Victim:
    """What stands at the place in question.

    Attributes:
        text: The line; none where it is the whole Kinesis record that is odd.
        data: That Kinesis record's data.
        refusal: What the store says of it, each time.
        invalid: Whether the store refuses the whole request for its sake, each time.
        meets: The identity of a record elsewhere in the batch that has the victim's point.
        dropped: Whether that Kinesis record has to be found nowhere.
        untrusted: Whether nothing on its line is believed, and so no number either.
    """

    text: Callable[[int], str] | None = None
    data: str = ""
    refusal: str = ""
    invalid: bool = False
    meets: str = ""
    dropped: bool = False
    untrusted: bool = False

    def batch(self, position: int, at: int) -> Batch:
        """Return a batch with this at a place: the Kinesis record's, and the line's in it."""
        datas, said, victims = [], [], frozenset[str]()
        for record in range(RECORDS):
            ids = [f"{record}-{number}" for number in range(LINES)]
            if record != position:
                if self.meets and record == (position + 2) % RECORDS:
                    ids[7] = self.meets
                    lines = [line(identity, record * LINES + n) for n, identity in enumerate(ids)]
                    datas.append(data(envelope(*lines)))
                else:
                    datas.append(neighbour(record))
                said.append(ids)
            elif self.text is None:
                datas.append(self.data)
                said.append([] if self.dropped else [self.data])
            else:
                lines = [good(record, number) for number in range(LINES)]
                lines[at] = self.text(record * LINES + at)
                ids[at] = identity_of(lines[at])
                victims |= {ids[at]}
                datas.append(data(envelope(*lines)))
                said.append(ids)
        return Batch(
            [kinesis_record(kept, number) for number, kept in enumerate(datas)],
            said,
            position,
            victims,
            {VICTIM: self.refusal} if self.refusal else {},
            frozenset([VICTIM] if self.invalid else []),
        )


def says(**fields: Any) -> Callable[[int], str]:
    return lambda seq: line(VICTIM, seq, **fields)


def health_check(**changes: Any) -> str:
    return data({**CONTROL, **changes})


A_RECORD = Victim(says())
LARGE = Victim(says(body="x" * 5_000))
LATE = Victim(
    says(),
    refusal="The record timestamp is outside the time range [2030-01-01T00:00:00.000Z, "
    "2030-01-02T00:00:00.000Z) of the memory store.",
)
FUTURE = Victim(
    says(),
    refusal="The record timestamp is outside the time range [2020-01-01T00:00:00.000Z, "
    "2020-01-02T00:00:00.000Z) of the data ingestion window.",
)
REFUSED = Victim(says(), refusal="The measure value type does not match the column's.")
CUT_OFF = neighbour(0)[: len(neighbour(0)) // 8 * 4]


# --- what goes wrong ----------------------------------------------------------------------------------------


class Retry(StrEnum):
    """How long something goes on, as the end of a sentence."""

    NOT_AT_ALL = "and nothing else fails"
    AT_ONCE = "and the next try is well"
    LATER = "and the fourth delivery is well"
    BISECTED = "until its Kinesis record is alone in a batch"
    NEVER = "until the batch is given up and replayed"


FAILS = (Retry.AT_ONCE, Retry.LATER, Retry.BISECTED, Retry.NEVER)


@dataclass(frozen=True)
class Failure:
    """What goes wrong.

    Attributes:
        name: It, as the beginning of a sentence.
        row: How its row in the page of failures begins.
        sees: The count in which one sees it.
        victim: What stands at the place where it happens.
        fails: What is asked for something at that moment: `store`, or a prefix in the bucket.
        effect: What happens then: is given what would have been done, and its argument.
        retries: How long it goes on.
    """

    name: str
    row: str
    sees: str
    victim: Victim = A_RECORD
    fails: str = "quarantine/"
    effect: Callable[..., Any] | None = None
    retries: Sequence[Retry] = FAILS


def refuses(error: Exception) -> Callable[..., Any]:
    """Return the effect that nothing is done and an error answered."""

    def effect(_do: Callable[[], Any], _life: "Life") -> Any:
        raise error

    return effect


def does_and_says(error: Exception) -> Callable[..., Any]:
    """Return the effect that it is done, and the answer is an error."""

    def effect(do: Callable[[], Any], _life: "Life") -> Any:
        with suppress(ClientError):  # Records were rejected, and nobody hears of it.
            do()
        raise error

    return effect


def cuts_the_answer(do: Callable[[], Any], _life: "Life") -> Any:
    do()
    return {}


def ends_the_time(_do: Callable[[], Any], life: "Life") -> Any:
    """Do nothing, until there is no time for anything else."""
    life.remaining_ms = 0
    raise ReadTimeoutError(endpoint_url=URL)


def ends_the_time_with_all_written(do: Callable[[], Any], life: "Life") -> Any:
    do()
    return ends_the_time(do, life)


def answers_nothing(_do: Callable[[], Any], _life: "Life") -> Any:
    return {}


URL = "https://ingest.timestream"
NOTHING_LISTED = client_error("RejectedRecordsException", 419, RejectedRecords=[])
TIMESTREAM, DENIES = "The store throttles", "The consumer may not write"
ROW_KEEPS, ROW_DIES = "S3 does not take what", "The function raises"
ROW_UNDECODABLE = "Kinesis data is not base64"


def wrong_line(name: str, row: str, sees: str, victim: Victim) -> Failure:
    """Return something that is wrong with the victim itself; what else can fail is to keep it."""
    return Failure(
        name, row, sees, victim, "quarantine/", refuses(OSError("no")), retries=(Retry.NOT_AT_ALL, *FAILS)
    )


MATRIX = [
    wrong_line("data is no base64", ROW_UNDECODABLE, "undecodable", Victim(data="####")),
    wrong_line("data is no gzip", ROW_UNDECODABLE, "undecodable", Victim(data="AAAA")),
    wrong_line("data is cut off", ROW_UNDECODABLE, "undecodable", Victim(data=CUT_OFF)),
    wrong_line(
        "data is no envelope",
        ROW_UNDECODABLE,
        "undecodable",
        Victim(data=data({"logEvents": "none"})),
    ),
    Failure(
        "CloudWatch checks the stream",
        "CloudWatch checks the stream",
        "control",
        Victim(data=health_check(), dropped=True),
        retries=(Retry.NOT_AT_ALL,),
    ),
    Failure(
        "a log group of the pipeline's own is subscribed",
        "A log group of the pipeline's own is subscribed",
        "recursion",
        Victim(data=data(envelope(says()(0), group=f"{OWN}stack/RowConsumer")), dropped=True),
        retries=(Retry.NOT_AT_ALL,),
    ),
    wrong_line(
        "a line has the tag and is no record",
        "A line has the tag and is not a record",
        "unparseable",
        Victim(lambda seq: says()(seq)[:-1]),  # cut, and its number can still be read
    ),
    wrong_line(
        "a line has the tag where it is not trusted",
        "A line has the tag behind text",
        "prefix",
        Victim(lambda seq: f"he wrote {says()(seq)}", untrusted=True),
    ),
    wrong_line(
        "a record does not fit into the table",
        "A record does not fit into the table",
        "invalid",
        Victim(
            lambda seq: write(Record(VICTIM, LOGGED, {}, UNMAPPABLE_TYPE, src="environment", seq=seq)),
        ),
    ),
    wrong_line("a record is late", "A record's time is before", "late", LATE),
    wrong_line("a record is in the future", "A record's time is after", "future", FUTURE),
    wrong_line("a record is refused", "A record does not fit into the table", "invalid", REFUSED),
    wrong_line(
        "a request is refused for a record",
        "A record does not fit into the table",
        "invalid",
        Victim(says(), invalid=True),
    ),
    Failure(
        "two records meet at one point",
        "Two different records meet at one point of the memory store",
        "",
        Victim(
            lambda seq: line(twins_of_a_point()[0], seq),
            meets=twins_of_a_point()[1],
        ),
        "store",
        does_and_says(ConnectionClosedError(endpoint_url=URL)),
        retries=(Retry.NOT_AT_ALL, *FAILS),
    ),
    *(
        Failure(f"the store {name}", row, "unwritten", A_RECORD, "store", effect)
        for name, row, effect in [
            ("throttles", TIMESTREAM, refuses(client_error("ThrottlingException"))),
            (
                "throttles for its magnetic part",
                TIMESTREAM,
                refuses(client_error("ThrottlingException", message="ActiveMagneticStorePartitions")),
            ),
            ("cannot be reached", TIMESTREAM, refuses(EndpointConnectionError(endpoint_url=URL))),
            ("times out with nothing written", TIMESTREAM, refuses(ReadTimeoutError(endpoint_url=URL))),
            ("times out with all written", TIMESTREAM, does_and_says(ReadTimeoutError(endpoint_url=URL))),
            ("answers 500", TIMESTREAM, refuses(client_error("InternalServerException", 500))),
            (
                "answers 503 with all written",
                TIMESTREAM,
                does_and_says(client_error("ServiceUnavailable", 503)),
            ),
            ("closes the connection", TIMESTREAM, does_and_says(ConnectionClosedError(endpoint_url=URL))),
            ("cuts the answer off", TIMESTREAM, cuts_the_answer),
            ("cuts the answer off with nothing written", TIMESTREAM, answers_nothing),
            ("refuses a request and does not say for which record", TIMESTREAM, refuses(NOTHING_LISTED)),
            ("is waited for until the time is over", TIMESTREAM, ends_the_time),
            ("writes all, and the time is over", TIMESTREAM, ends_the_time_with_all_written),
            ("denies", DENIES, refuses(client_error("AccessDeniedException"))),
            ("is gone", DENIES, refuses(client_error("ResourceNotFoundException"))),
        ]
    ),
    Failure("the function dies before it writes", ROW_DIES, "", A_RECORD, "store", refuses(DiedError())),
    Failure(
        "the function dies when it has written", ROW_DIES, "", A_RECORD, "store", does_and_says(DiedError())
    ),
    Failure(
        "the function dies when it has quarantined",
        ROW_DIES,
        "",
        LATE,
        "quarantine/",
        does_and_says(DiedError()),
    ),
    Failure(
        "the function dies when it has accounted",
        ROW_DIES,
        "",
        A_RECORD,
        "accounting/",
        does_and_says(DiedError()),
    ),
    Failure(
        "a row is larger than the store takes",
        "A row is larger than the store takes",
        "overflowed",
        LARGE,
        "overflow/",
        retries=(Retry.NOT_AT_ALL,),
    ),
    Failure("overflow cannot be written", ROW_KEEPS, "unwritten", LARGE, "overflow/", refuses(OSError("no"))),
    Failure(
        "overflow is written and nobody says so",
        ROW_KEEPS,
        "unwritten",
        LARGE,
        "overflow/",
        does_and_says(OSError("no")),
    ),
    Failure(
        "quarantine is written and nobody says so",
        ROW_KEEPS,
        "unwritten",
        LATE,
        "quarantine/",
        does_and_says(OSError("no")),
    ),
    Failure(
        "the exporter cannot be told of late days",
        "The marker of a late day",
        "",
        A_RECORD,
        "late/",
        refuses(OSError("no")),
    ),
    Failure(
        "accounting cannot be written",
        "Accounts cannot be written",
        "unaccounted",
        A_RECORD,
        "accounting/",
        refuses(OSError("no")),
    ),
]

# Rows of the page that no batch can show, and the test that does.
SHOWN_ELSEWHERE = {
    "A service never answers": (
        "tests/consumers/test_deadlines.py",
        "a_service_that_never_answers_takes_no_row_consumer_with_it",
    ),
    "Metrics, the summary line or the trace": (
        "tests/consumers/test_deadlines.py",
        "a_batch_that_cannot_be_reported_is_stored",
    ),
    "A record is of a time before 1970": (
        "tests/consumers/rows/test_handler.py",
        "a_time_that_no_store_can_hold_costs_one_line_and_no_request",
    ),
    "The store refuses a whole request": (
        "tests/consumers/rows/timestream/test_writer.py",
        "a_type_clash_among_three_thousand_lines_takes_few_requests",
    ),
    "An undeclared field is of another type": (
        "tests/consumers/rows/test_clashes.py",
        "a_field_of_another_type_than_its_column_goes_into_extra",
    ),
    "An older version of the consumer or of a schema": (
        "tests/consumers/rows/test_handler.py",
        "a_rollback_in_the_middle_of_a_batch_leaves_each_record_once",
    ),
    "The night's export of a day fails": (
        "tests/exporter/export/test_run.py",
        "a_day_that_was_not_written_is_written_by_the_next_night",
    ),
    "Rows came late to a day of which Timestream": (
        "tests/exporter/export/test_run.py",
        "late_rows_of_a_day_that_the_store_no_longer_has_whole_are_refused_by_name",
    ),
    "Timestream returns fewer rows of a day than it has counted": (
        "tests/exporter/export/test_balance.py",
        "a_day_of_which_the_store_lost_rows_on_the_way_is_not_committed",
    ),
    "A day is first exported after Timestream has dropped its first rows": (
        "tests/exporter/export/test_balance.py",
        "the_first_export_of_a_day_that_the_store_no_longer_has_whole_is_marked",
    ),
    "Two different records meet at one point of the magnetic store": (
        "tests/test_pipeline.py",
        "rows_that_meet_in_the_magnetic_store",
    ),
    "A report of the magnetic store cannot be read": (
        "tests/exporter/upkeep/test_rejected_rows.py",
        "a_report_that_cannot_be_read_stays",
    ),
    "That bucket cannot be written by Lambda": (
        "tests/cli/test_replay.py",
        "a_log_group_is_replayed_into_an_empty_table",
    ),
    "The consumer is slower than the lines come": (
        "tests/test_monitoring.py",
        "an_alarm_goes_on_by_its_fault",
    ),
    "Retries, or six hours of age": (
        "tests/consumers/test_fault_matrix.py",
        "every_line_is_found_exactly_once",  # the cases that go on until the batch is given up
    ),
    "Kinesis delivers a batch again": (
        "tests/consumers/test_fault_matrix.py",
        "whatever_fails_together_every_line_is_found_exactly_once",
    ),
    "CloudWatch disables a subscription": (
        "tests/cli/test_replay.py",
        "a_log_group_is_replayed_into_an_empty_table",
    ),
    "The Reconciler fails": (
        "tests/consumers/accounts/test_compaction.py",
        "an_object_that_is_no_account_is_named_and_not_left_out",
    ),
    "CloudWatch or the runtime loses a line": (
        "tests/consumers/test_faulty_pipeline.py",
        "lines_that_the_delivery_loses",
    ),
}


class Life:
    """One function after the other among twins, with what goes wrong and for how long.

    Attributes:
        failure: What goes wrong.
        remaining_ms: The time that the invocation has.
        deliveries: How many batches had the victim in them.
        struck: How often it went wrong.
    """

    def __init__(
        self,
        failure: Failure,
        batch: Batch,
        retry: Retry,
        *,
        threads: int = 1,
        plans: table.Plans = table.UNDECLARED,
    ) -> None:
        self.failure, self.batch, self.retry = failure, batch, retry
        self.deliveries = self.struck = self.size = self.remaining_ms = 0
        self.calm = self.here = False
        self.ledgers: list[Ledger] = []
        self.client: Any = self.new_client()
        self.objects = _Bucket(self)
        self._handler = make_handler(
            self.open_store(),
            self.objects,
            tag=TAG,
            own_log_groups=OWN,
            report=self.ledgers.append,
            plans=plans,
            threads=threads,
            clock=lambda: NOW_S,
        )
        self.mapping = Deliveries(self.handle, context=lambda: _Clock(self), after=self.look)

    def new_client(self) -> Any:
        """Return a client of the store, to which what goes wrong happens."""
        return _Store(self)

    def open_store(self) -> Store[Any]:
        """Return the store over the client."""
        return Timestream(self.client, "tagline", "records", sleep=self.sleep, jitter=lambda: 1.0)

    def times(self) -> Iterable[tuple[str, int]]:
        """Return the identity and the time in milliseconds of each stored row."""
        return [(measure(row, "_id"), int(row["Time"]) // 1_000_000) for row in self.client.points.values()]

    def whole_records(self) -> set[str]:
        """Return the objects that stored rows name."""
        return overflows(self.client.points.values())

    def handle(self, event: dict[str, Any], context: Context) -> dict[str, Any]:
        victim = self.batch.records[self.batch.position]
        self.size = len(event["Records"])
        self.here = victim in event["Records"]
        self.deliveries += self.here
        self.remaining_ms = 2_400  # a few tries, and then the end
        return self._handler(event, context)

    def sleep(self, seconds: float) -> None:
        self.remaining_ms -= int(seconds * 1000)

    def goes_wrong(self) -> bool:
        """Tell whether it goes wrong now, where the victim is."""
        going_on = (
            self.here
            and not self.calm
            and {
                Retry.NOT_AT_ALL: False,
                Retry.AT_ONCE: self.struck == 0,
                Retry.LATER: self.deliveries <= 3,
                Retry.BISECTED: self.size > 1,
                Retry.NEVER: True,
            }[self.retry]
        )
        self.struck += going_on
        return going_on

    def do(self, asked: str, what: Callable[[], Any]) -> Any:
        """Do what the store or the bucket is asked for, or what happens instead."""
        failure = self.failure
        if (
            failure.effect is not None
            and failure.fails in (asked, asked.partition("/")[0] + "/")
            and self.goes_wrong()
        ):
            return failure.effect(what, self)
        return what()

    def look(self, records: Sequence[KinesisRecord], failed_at: int | None) -> None:
        """See after each delivery that nothing is missing of what counts as done."""
        done = records if failed_at is None else records[:failed_at]
        found = self.found()
        for record in done:
            said = self.batch.said[self.batch.records.index(record)]
            assert [identity for identity in said if not found[identity]] == []
        assert self.whole_records() <= set(self.objects.under("overflow/"))
        if failed_at is None:
            assert self.days_of(done) <= {late_days.marker_day(key) for key in self.objects.under("late/")}
        # A line may be missing in the accounts, and none that is nowhere may be in them.
        assert sum(day.counts()["delivered"] for day in accounts(self.objects)) <= len(found)
        if self.ledgers:
            balance(self.ledgers[-1])

    def days_of(self, records: Sequence[KinesisRecord]) -> set[date]:
        """Return the days of the rows that records have in the store."""
        said = {each for record in records for each in self.batch.said[self.batch.records.index(record)]}
        return {
            datetime.fromtimestamp(milliseconds // 1000, UTC).date()
            for identity, milliseconds in self.times()
            if identity in said
        }

    def found(self) -> Counter[str]:
        """Return how often each thing that was said is in the store or in quarantine."""
        return Counter(self.client.ids()) + Counter(kept_identities(self.objects))

    def seen(self) -> Counter[str]:
        """Return what all batches counted together."""
        counts: Counter[str] = Counter()
        for ledger in self.ledgers:
            counts.update(ledger.counts())
            counts.update(ledger.quarantined)
        return counts

    def redeliver(self, chance: random.Random) -> None:
        """Deliver everything twice more, cut elsewhere each time, in any order."""
        deliveries = []
        for _ in range(2):
            cuts = sorted(chance.sample(range(1, RECORDS), 2))
            deliveries += [
                self.batch.records[start:end] for start, end in zip([0, *cuts], [*cuts, RECORDS], strict=True)
            ]
        chance.shuffle(deliveries)
        for records in deliveries:
            assert self.mapping.deliver(records) is None


class _Store(TimestreamWrite):
    def __init__(self, life: Life) -> None:
        super().__init__()
        self._life = life
        self.refusing.update(life.batch.refusals)

    def write_records(self, **request: Any) -> dict[str, Any]:
        life, write = self._life, super().write_records
        ids = {measure(record, "_id") for record in request["Records"]}
        if ids & life.batch.invalid:
            raise client_error("ValidationException", message="a request that nobody understands")
        asked = "store" if ids & life.batch.victims else "store, for others"
        answer: dict[str, Any] = life.do(asked, lambda: write(**request))
        return answer


class _Bucket(Objects):
    def __init__(self, life: Life) -> None:
        super().__init__()
        self._life = life

    def write(self, key: str, body: bytes) -> None:
        put = super().write
        self._life.do(key, lambda: put(key, body))


class _Clock(Context):
    def __init__(self, life: Life) -> None:
        super().__init__()
        self._life = life

    def get_remaining_time_in_millis(self) -> int:
        return self._life.remaining_ms


def kept_identities(objects: Objects) -> Iterable[str]:
    """Yield the identity of each line in quarantine."""
    for kept in objects.quarantined():
        if "data" in kept:
            yield kept["data"]
            continue
        yield identity_of(kept["message"])


@lru_cache(maxsize=4096)
def identity_of(text: str) -> str:
    """Return a record's identity; a line that is none is its own."""
    record = extract(LogEvent("0", LOGGED, text, GROUP, "stream", OWNER), TAG)
    return record.id if isinstance(record, Record) else text


def balance(ledger: Ledger) -> None:
    """See that the books balance: docs/reference/metrics.md."""
    ends = ledger.stored + ledger.duplicate + ledger.quarantined.total() + ledger.unwritten
    whole = sum(1 for _, event, _ in ledger.rejections() if event is None)
    assert ledger.received + whole == ends


def accounts(objects: Objects) -> list[Day]:
    """Return what became of the lines of each day that has accounts."""
    days = {
        day
        for key, body in objects.under(accounting.PREFIX).items()
        for day in accounting.from_json(body, key)
    }
    return list(compaction.reconcile(Bucket(objects), sorted(days)))


CASES = [
    pytest.param(
        failure,
        retry,
        position,
        at,
        id=f"{failure.name}, at the {line_name} line of the {record_name} Kinesis record, {retry}"
        if failure.victim.text
        else f"{failure.name}, in the {record_name} Kinesis record, {retry}",
    )
    for failure in MATRIX
    for retry in failure.retries
    for position, record_name in ((0, "first"), (RECORDS // 2, "middle"), (RECORDS - 1, "last"))
    for at, line_name in ((0, "first"), (LINES - 1, "last"))
    if failure.victim.text or at == 0
]


@pytest.mark.parametrize(("failure", "retry", "position", "at"), CASES)
def test_every_line_is_found_exactly_once(failure: Failure, retry: Retry, position: int, at: int) -> None:
    batch = failure.victim.batch(position, at)
    life = Life(failure, batch, retry, threads=1 if at else 3)

    life.mapping.run(batch.records, settings=FEW_RETRIES)

    assert (life.struck > 0) == (retry is not Retry.NOT_AT_ALL)
    assert bool(life.mapping.kept) == (retry is Retry.NEVER)
    if life.mapping.kept:
        # What is in other Kinesis records is found without a replay.
        others = Counter(identity for n, said in enumerate(batch.said) if n != position for identity in said)
        assert others - life.found() == Counter()
    life.calm = True
    life.mapping.replay()
    assert life.found() == batch.emitted()
    rows, kept = dict(life.client.points), sorted(kept_identities(life.objects))

    life.redeliver(random.Random(position * LINES + at))

    assert life.client.points == rows
    assert sorted(kept_identities(life.objects)) == kept
    assert len(life.objects.under("overflow/")) == (failure.victim is LARGE)
    assert overflows(rows.values()) == set(life.objects.under("overflow/"))
    assert {late_days.marker_day(key) for key in life.objects.under(late_days.PREFIX)} == {DAY}
    assert not failure.sees or retry is Retry.AT_ONCE or life.seen()[failure.sees] > 0
    (day,) = [day.counts() for day in accounts(life.objects)]
    assert (day["lost"], day["delivered"]) == (lost(failure, position, at), numbered(batch))
    assert day["quarantined"] == len(kept)


def overflows(rows: Iterable[dict[str, Any]]) -> set[str]:
    """Return the objects that rows name."""
    return {each["Value"] for row in rows for each in row["MeasureValues"] if each["Name"] == "_overflow"}


def numbered(batch: Batch) -> int:
    """Return how many lines came: a Kinesis record that cannot be read says none."""
    return sum(len(said) for said in batch.said if len(said) != 1)


def lost(failure: Failure, position: int, at: int) -> int:
    """Return how many numbers look lost: of what cannot be read, is another's, or is not trusted."""
    if failure.victim.untrusted:
        return int((position, at) not in {(0, 0), (RECORDS - 1, LINES - 1)})
    between = 0 < position < RECORDS - 1
    return LINES if failure.victim.text is None and between else 0


def test_every_failure_of_the_page_is_in_the_matrix_or_shown_elsewhere() -> None:
    page = FAILURES.read_text().partition("## A replay is wrong")[0]
    rows = re.findall(r"(?m)^\| (?!failure|---)([^|]+) \|[^|]+\|([^|]+)\|", page)
    failures = {row: [each for each in MATRIX if row.startswith(each.row)] for row, _ in rows}
    elsewhere = {row: [each for each in SHOWN_ELSEWHERE if row.startswith(each)] for row, _ in rows}

    assert [row for row in failures if not failures[row] and not elsewhere[row]] == []
    assert {each.row for each in MATRIX} - {
        each.row for found in failures.values() for each in found
    } == set()
    assert set(SHOWN_ELSEWHERE) == {each for found in elsewhere.values() for each in found}
    for row, seen in rows:
        names = {name.removeprefix("quarantined_") for name in re.findall(r"`(\w+)`", seen)}
        assert {each.sees for each in failures[row] if each.sees} <= names, row
    for file, name in SHOWN_ELSEWHERE.values():
        tests = re.findall(r"(?m)^def (test_\w+)", (ROOT / file).read_text())
        assert [test for test in tests if name in test], name


# --- many failures at once ----------------------------------------------------------------------------------


STORE_EFFECTS = [each.effect for each in MATRIX if each.effect and each.fails == "store"]
BUCKET_EFFECTS = [
    *(refuses(OSError("no")), does_and_says(OSError("no"))),
    *(refuses(DiedError()), does_and_says(DiedError())),
]


GROUPS = ("/aws/lambda/orders", "/aws/lambda/pets", "/ecs/reports")
OWNERS = ("123456789012", "210987654321")
MIDNIGHT = 1_763_596_800_000  # 2025-11-20
TIMES = (*[LOGGED] * 6, MIDNIGHT - 1, MIDNIGHT, LOGGED - 86_400_000)
LIMITED = schema.plans(
    schema.parse(
        {
            "api_request.toml": b"""
            revision = 3
            undeclared = "extra"
            dimensions.route = {values = ["/pets", "/files/*"], buckets = 3}
            dimensions.tenant = {bytes = 40}
            measures = {status = "BIGINT", item_count = "BIGINT"}
            """
        }
    )
)


class Anything:
    """Makes batches of anything, in which some lines are said twice.

    Attributes:
        fickle: The identities of lines of which the store may think otherwise the next time.
    """

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._numbers = 0
        self._seqs: Counter[tuple[str, str]] = Counter()
        self._group = ""
        self._good: list[tuple[str, str]] = []
        self._meeting = list(twins_of_a_point())
        self._refusals: dict[str, str] = {}
        self._invalid: set[str] = set()
        self.fickle: set[str] = set()

    def batch(self) -> Batch:
        records, said = [], []
        for record in range(self._chance.randint(1, 8)):
            body, ids = self._chance.choice([self._odd_record] + [self._record] * 5)(record)
            records.append(kinesis_record(body, record))
            said.append(ids)
        return Batch(records, said, 0, frozenset(), self._refusals, frozenset(self._invalid))

    def _odd_record(self, record: int) -> tuple[str, list[str]]:
        broken = f"no base64 {record}"
        own = data(envelope(line(f"own-{record}", 0), group=f"{OWN}stack/Function"))
        cut = data(envelope(f"{TAG} {record}" * 100))[:-8]
        return self._chance.choice([(broken, [broken]), (cut, [cut]), (health_check(), []), (own, [])])

    def _record(self, _record: int) -> tuple[str, list[str]]:
        chance = self._chance
        group, owner = chance.choice(GROUPS), chance.choice(OWNERS)
        lines = [self._line(f"{owner}:{group}") for _ in range(chance.randint(0, 40))]
        said = [identity_of(text) for text in lines]
        again = [text for where, text in self._good if where == f"{owner}:{group}"]
        if again and chance.random() < 0.5:
            lines.append(chance.choice(again))  # said before
        if chance.random() < 0.2:  # nobody's
            lines.insert(0, chance.choice(["START", f"about {TAG}s", 'meter_record_for_stream {"a": 1}']))
        whole = envelope(*lines, group=group)
        for event in whole["logEvents"]:
            # The same for a line that is said again: whatever its record's time, numbers count for this day.
            event["timestamp"] = TIMES[zlib.crc32(event["message"].encode()) % len(TIMES)]
        whole["owner"] = owner
        if chance.random() < 0.1:
            whole["logEvents"].insert(chance.randint(0, len(lines)), dict(CONTROL_EVENT))
        if chance.random() < 0.1:  # in two members, with spaces, and with padding
            text = json.dumps(whole).encode()
            halves = gzip.compress(text[: len(text) // 2]) + gzip.compress(text[len(text) // 2 :])
            return base64.b64encode(halves + b"\0" * 5).decode(), said
        return data(whole), said

    def _line(self, group: str) -> str:
        self._numbers += 1
        self._group = group
        identity, chance = f"r{self._numbers}", self._chance.random()
        if chance < 0.05:
            return self._say(identity, body="x" * 5_000)
        if chance < 0.1:
            return write(Record(identity, LOGGED, {}, UNMAPPABLE_TYPE, src="a", seq=self._number("a")))
        if chance < 0.15:
            return f'{TAG} {{"_src": "{identity}", "_seq": 7, "{identity}": '
        if chance < 0.2:
            self._refusals[identity] = self._chance.choice([LATE, FUTURE, REFUSED]).refusal
            self.fickle.add(identity)
        elif chance < 0.23:
            self._invalid.add(identity)
        elif chance < 0.3 and self._meeting:
            fields = {"route": "/pets"}
            return write(Record(self._meeting.pop(), LOGGED, fields, src="a", seq=self._number("a")))
        else:
            said = self._say(identity)
            if '"_seq"' in said:  # Without a number, it would count as another line.
                self._good.append((group, said))
            return said
        return self._say(identity)

    def _number(self, src: str) -> int:
        self._seqs[self._group, src] += 1
        return self._seqs[self._group, src]

    def _say(self, identity: str, **fields: Any) -> str:
        """Return a line of the emitter's, or of another logger's: without a number, and behind something."""
        chance = self._chance
        fields |= {
            "route": chance.choice(["/pets", "/files/1", "/x"]),
            "tenant": "t" * chance.choice([1, 60]),
        }
        if chance.random() < 0.2:
            said = json.dumps({"_tag": TAG, "_id": identity, **fields})
            return chance.choice(["", "2025-11-20T10:00:00Z\tid\tINFO\t"]) + said
        src = chance.choice("ab")
        return write(Record(identity, chance.choice(TIMES), fields, src=src, seq=self._number(src)))


class Storm(Life):
    """Anything goes wrong anywhere, until so many batches were delivered."""

    def __init__(
        self,
        anything: Anything,
        chance: random.Random,
        *,
        likely: float,
        threads: int,
        until: int,
        plans: table.Plans,
        fickle: bool,
    ) -> None:
        super().__init__(MATRIX[0], anything.batch(), Retry.NEVER, threads=threads, plans=plans)
        self._chance, self._likely, self._until = chance, likely, until
        self._fickle = sorted(anything.fickle) if fickle else []

    def handle(self, event: dict[str, Any], context: Context) -> dict[str, Any]:
        self._until -= 1
        self.calm = self.calm or self._until < 0
        if not self.calm:
            for identity in self._fickle:
                self.client.refusing.pop(identity, None)
                if self._chance.random() < 0.5:
                    self.client.refusing[identity] = self.batch.refusals[identity]
        return super().handle(event, context)

    def do(self, asked: str, what: Callable[[], Any]) -> Any:
        if self.calm or self._chance.random() > self._likely:
            return what()
        effects = STORE_EFFECTS if asked.startswith("store") else BUCKET_EFFECTS
        return self._chance.choice(effects)(what, self)


@given(
    st.integers(0, 2**32),
    st.sampled_from([0.05, 0.2, 0.5]),
    st.sampled_from([1, 1, 2, 4]),
    st.integers(1, 30),
    st.tuples(st.sampled_from([0, 1, 4, 10]), st.booleans()),
)
@settings(max_examples=40)
def test_whatever_fails_together_every_line_is_found_exactly_once_in_any_order(
    seed: int, likely: float, threads: int, until: int, mapping_: tuple[int, bool]
) -> None:
    # A seed, because chance is asked a thousand times: more than Hypothesis would choose one by one.
    chance = random.Random(seed)
    retries, bisects = mapping_
    anything = Anything(chance)
    fickle = chance.random() < 0.2
    plans = chance.choice([table.UNDECLARED, LIMITED])
    life = Storm(anything, chance, likely=likely, threads=threads, until=until, plans=plans, fickle=fickle)
    batch = life.batch
    lanes: list[list[KinesisRecord]] = [[], []]
    for record in batch.records:
        chance.choice(lanes).append(record)

    life.mapping.run(
        *lanes,
        settings=replace(
            SETTINGS, maximum_retry_attempts=retries, bisect=bisects, batch_size=chance.randint(1, 5)
        ),
        chance=chance,
        redelivered=0.2,
    )
    life.calm = True
    life.mapping.replay()

    # What the store took once and refused another time is in quarantine too: docs/reference/quarantine.md.
    changed = anything.fickle if fickle else set()
    assert {each for each, times in life.found().items() if times > 1} <= changed
    assert set(life.found()) == set(batch.emitted())
    rows, kept = dict(life.client.points), sorted(kept_identities(life.objects))
    if not fickle:
        for _ in range(2):
            life.mapping.run(batch.records, settings=replace(SETTINGS, batch_size=chance.randint(1, 5)))
    assert (life.client.points, sorted(kept_identities(life.objects))) == (rows, kept)
    assert overflows(rows.values()) <= set(life.objects.under("overflow/"))
    days = [day.counts() for day in accounts(life.objects)]
    assert [day["lost"] for day in days] == [0] * len(days)
    assert sum(day["delivered"] for day in days) == sum(
        len(said) for said in batch.said if said not in undecodable(batch)
    )
    assert fickle or sum(day["quarantined"] for day in days) == len(kept)


def undecodable(batch: Batch) -> list[list[str]]:
    """Return what was said in Kinesis records that cannot be read: themselves."""
    bodies = {record["kinesis"]["data"] for record in batch.records}
    return [said for said in batch.said if set(said) & bodies]
