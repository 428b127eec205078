"""Lambda entry: decode -> extract -> row -> write, rejected lines to quarantine, a partial batch response."""

from __future__ import annotations

import gc
import os
import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import boto3
from botocore.config import Config
from tagline import Record

from consumers.accounts import accounting
from consumers.lines import quarantine
from consumers.lines.batch import LAST, RESERVE, Line, tagged_lines
from consumers.lines.extract import Rejected
from consumers.lines.ledger import AtOnce, Ledger
from consumers.rows import late_days, schema, table
from consumers.rows.telemetry import Course, report_batch, trace_batch
from consumers.rows.timestream import mapping, writer
from consumers.settings import SettingsError, read_settings

Handler = Callable[[dict[str, Any], Any], dict[str, Any]]
Mapped = tuple[Line, mapping.Packed]
Whole = tuple[Line, Record, str]
"""A line whose record is too large for a row, with that record and its key in the bucket."""
Carrier = TypeVar("Carrier")

# Lines that are read before they are mapped, and mapped before they are sent: few enough to be in the
# processor's cache still, enough that looking at the clock between the stages costs nothing.
CHUNK = 100
# Requests to the store at the same time, where the setting says nothing.
THREADS = 8
# https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html: 1,024 threads and processes in all;
# beyond some dozens they only wait for the interpreter.
MAX_THREADS = 64
# How many are under way until the store has been waited for this long for one, in seconds.
FEW_AHEAD = 2
LONG_WAIT = 0.004
_SECONDS_PER_DAY = 86_400
# Rows that are too old for the memory store, which keeps at least an hour, can be asked for only hours after
# they were written. The night's export may not find them, so it is told of all that come this late:
# https://docs.aws.amazon.com/timestream/latest/developerguide/data-ingest.html
LATE_SECONDS = 45 * 60


class Pool(ThreadPoolExecutor):
    """Threads that send requests; they stay from one invocation to the next, asleep.

    Threads that have nothing to wait for only take turns, which costs: so a store that answers at once gets
    few requests at a time, and one that is waited for gets twice as many each time, up to all, and one less
    where the next answer is there already.

    Attributes:
        ahead: So many requests are under way at most.
        most: What this can become: two more than there are threads, so that none of them waits for the next
            request to be read.
    """

    def __init__(self, threads: int, clock: Callable[[], float] = time.perf_counter) -> None:
        super().__init__(threads, "write")
        self.ahead = FEW_AHEAD
        self.most = threads + 2
        self._clock = clock

    def result(
        self, future: Future[list[writer.Outcome]], timeout: float | None = None
    ) -> list[writer.Outcome]:
        """Return what became of a request, and have more of them under way if that took long.

        Args:
            future: The request.
            timeout: How long it is waited for, in seconds; None for as long as it takes.

        Raises:
            TimeoutError: If it takes longer.
        """
        if future.done():
            self.ahead = max(FEW_AHEAD, self.ahead - 1)
            return future.result()
        began = self._clock()
        outcomes = future.result(timeout)
        if self._clock() - began > LONG_WAIT:
            self.ahead = min(self.most, 2 * self.ahead)
        return outcomes


@dataclass(frozen=True, slots=True)
class Settings:
    """What the function's environment says; docs/reference/settings.md."""

    tagline_tag: str
    timestream_database: str
    timestream_table: str
    bucket: str
    own_log_groups: str
    schemas: str = "schemas"
    write_threads: int = THREADS
    store: str = "timestream"


def make_handler(
    store: writer.Store,
    objects: quarantine.Objects,
    *,
    tag: str,
    own_log_groups: str,
    report: Callable[[Ledger], None],
    plans: table.Plans = table.UNDECLARED,
    threads: int = 1,
    clock: Callable[[], float] = time.time,
    course: Course | None = None,
) -> Handler:
    """Return a Lambda handler that stores the tagged lines of a Kinesis batch.

    Args:
        store: Where rows go.
        objects: Where rejected lines, and records too large for a row, are kept.
        tag: The token that marks a line.
        own_log_groups: How the names of the pipeline's own log groups begin; lines from there are dropped.
        report: Is given the batch's ledger at its end.
        plans: What is declared of records.
        threads: Requests to the store, or to the bucket, at the same time.
        clock: Gives the seconds since 1970.
        course: Is told how long each stage takes, and which log groups there are.
    """
    course = course or Course()
    packer = mapping.Packer(plans)
    pool = Pool(threads) if threads > 1 else None
    at_once = map if pool is None else pool.map

    @uncollected()
    def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
        def remaining() -> float:
            return float(context.get_remaining_time_in_millis()) / 1000

        def is_late() -> bool:
            return remaining() <= LAST

        course.begin()
        ledger = Ledger(event["Records"])
        books = accounting.Books(tag)
        days: set[int] = set()
        now = clock()
        on_time = 1_000 * max(now - LATE_SECONDS, now // _SECONDS_PER_DAY * _SECONDS_PER_DAY)
        lines = tagged_lines(ledger, tag, own_log_groups)
        keep = partial(keep_whole, ledger, objects, at_once)
        rows = read(ledger, books, lines, keep, packer, remaining=remaining, course=course)
        for batch, outcomes in write(store, mapping.batches(rows), remaining, pool, course):
            for (line, row), outcome in zip(batch, outcomes, strict=True):
                if isinstance(outcome, writer.Stored):
                    ledger.stored += 1
                    if row.time < on_time:
                        days.add(row.time // table.DAY_MS)
                else:
                    enter(ledger, line, outcome)
        ledger.write_seconds = course.seconds["write"]
        with course.stage("quarantine"):
            ledger.keep(objects, at_once, is_late)
            tell_late_days(ledger, days, objects, context.aws_request_id)
            accounting.keep(books, ledger, objects)
        report(ledger)
        return ledger.response()

    return handler


@contextmanager
def uncollected() -> Iterator[None]:
    """Keep the garbage collector from looking through all lines of a batch: none of them is in a circle.

    What a request leaves in circles is three objects, which are collected after the batch.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def read(
    ledger: Ledger,
    books: accounting.Books,
    lines: Iterator[Line],
    keep: Callable[[list[Whole]], set[Line]],
    packer: mapping.Packer,
    *,
    remaining: Callable[[], float],
    course: Course,
) -> Iterator[Mapped]:
    """Yield each line with its row; when time is over, the next line fails, and with it all that follow."""
    while True:
        over = remaining() <= RESERVE
        with course.stage("decode"):
            chunk = list(islice(lines, 1 if over else CHUNK))
        course.log_groups.update([line.origin[0] for line in chunk])
        if over:
            for line in chunk:
                ledger.fail(line.position)
        if over or not chunk:
            return
        with course.stage("map"):
            large: list[Whole] = []
            rows = list(map_rows(ledger, books, chunk, large, packer))
            if large:
                lost = keep(large)
                rows = [row for row in rows if row[0] not in lost]
        yield from rows


def write(
    store: writer.Store,
    batches: Iterable[list[tuple[Carrier, mapping.Packed]]],
    remaining: Callable[[], float],
    pool: Pool | None,
    course: Course,
) -> Iterator[tuple[list[tuple[Carrier, mapping.Packed]], list[writer.Outcome]]]:
    """Yield each request's rows with what became of them, several requests at once, in their order.

    Args:
        store: Where rows go.
        batches: The requests' rows.
        remaining: Gives the seconds that are left.
        pool: Sends several at once; None for one after the other.
        course: Is told how long was waited.
    """

    def send(batch: list[tuple[Carrier, mapping.Packed]]) -> list[writer.Outcome]:
        return store.write([row for _, row in batch], remaining)

    if pool is None:
        for batch in batches:
            with course.stage("write"):
                outcomes = send(batch)
            yield batch, outcomes
        return

    def finished(
        batch: list[tuple[Carrier, mapping.Packed]], future: Future[list[writer.Outcome]]
    ) -> list[writer.Outcome]:
        with course.stage("write"):
            try:
                return pool.result(future, max(0.0, remaining() - LAST))
            except TimeoutError:
                # A request can take longer than is left, and must not take the invocation with it. Should its
                # rows be stored after all, they land on themselves when they come again.
                return [writer.Unwritten("no answer in time")] * len(batch)

    under_way: deque[tuple[list[tuple[Carrier, mapping.Packed]], Future[list[writer.Outcome]]]] = deque()
    try:
        for batch in batches:
            under_way.append((batch, pool.submit(send, batch)))
            if len(under_way) >= pool.ahead:
                oldest, future = under_way.popleft()
                yield oldest, finished(oldest, future)
        while under_way:
            oldest, future = under_way.popleft()
            yield oldest, finished(oldest, future)
    finally:
        wait([future for _, future in under_way])  # none is left behind by an invocation that ends early


def tell_late_days(ledger: Ledger, days: Iterable[int], objects: quarantine.Objects, delivery: str) -> None:
    """Leave word of the days that rows were stored of late; where that fails, the batch fails.

    Args:
        ledger: The batch's books.
        days: Days since 1970.
        objects: Where the exporter looks for it.
        delivery: The invocation's request id.
    """
    for day in sorted(days):
        when = date.fromordinal(day + date(1970, 1, 1).toordinal())
        try:
            objects.put(late_days.key(when, ledger.records[0]["eventID"], delivery), b"")
        except OSError:
            # The rows are stored, and would be missing in the lake. The next delivery tells of them again.
            ledger.fail(0, lines=0)


def map_rows(
    ledger: Ledger,
    books: accounting.Books,
    lines: Iterable[Line],
    large: list[Whole],
    packer: mapping.Packer,
) -> Iterator[Mapped]:
    """Yield each line with its row, and note it; `large` gets the records that their rows cannot hold."""
    for line in lines:
        source, said = line.origin[0], line.said
        packed = packer.pack_line(said, line.raw["message"], source)
        if packed is not None:
            books.note(line.position, source, packed.time, said["_src"], said["_seq"])
        else:
            record = line.record
            books.note(line.position, source, record.timestamp, record.src, record.seq)
            packed = map_unusual(ledger, line, large, packer)
        if packed is not None:
            line.forget()
            yield line, packed


def map_unusual(
    ledger: Ledger, line: Line, large: list[Whole], packer: mapping.Packer
) -> mapping.Packed | None:
    """Return a line's row, or None if there is none; `large` gets a record that is too large for it."""
    source = line.origin[0]
    try:
        row = table.row(line.record, source, packer.plans)
    except table.UnmappableError as error:
        ledger.reject(line.position, line.event, Rejected("invalid", str(error)))
        return None
    ledger.not_numbers += row.not_numbers
    ledger.extra += row.extra
    ledger.others += row.others
    packed = packer.pack(row)
    if mapping.fits(row, packed):
        return packed
    key = table.overflow_key(line.record, source)
    large.append((line, line.record, key))
    return packer.pack(mapping.fit(row, key))


def keep_whole(ledger: Ledger, objects: quarantine.Objects, at_once: AtOnce, large: list[Whole]) -> set[Line]:
    """Write the records that are too large for their rows; return the lines of those that cannot be kept.

    They fail. A row that names an object which is not there would be worse than none.
    """

    def put(whole: Whole) -> bool:
        _, record, key = whole
        try:
            objects.put(key, table.overflow_body(record))
        except OSError:
            return False
        return True

    lost = {line for (line, _, _), kept in zip(large, at_once(put, large), strict=True) if not kept}
    for line in lost:
        ledger.fail(line.position)
    ledger.overflowed += len(large) - len(lost)
    return lost


def enter(ledger: Ledger, line: Line, outcome: writer.Outcome) -> None:
    """Enter into the ledger what became of a line's row that was not stored by itself."""
    match outcome:
        case writer.Duplicate():
            ledger.duplicate += 1
        case writer.Refused(reason, detail):
            ledger.reject(line.position, line.event, Rejected(reason, detail))
        case writer.Unwritten():
            ledger.fail(line.position)


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Store the tagged lines of a Kinesis batch."""
    return _live()(event, context)


@cache
def _live() -> Handler:
    settings = read_settings(Settings, os.environ)
    if not 1 <= settings.write_threads <= MAX_THREADS:
        raise SettingsError(f"WRITE_THREADS is {settings.write_threads}, not from 1 to {MAX_THREADS}")
    store = writer.Timestream(
        write_client(settings.write_threads),
        settings.timestream_database,
        settings.timestream_table,
        sleep=time.sleep,
        jitter=random.random,
    )
    course = Course()

    def report(ledger: Ledger) -> None:
        report_batch(ledger, course, store.traffic())
        trace_batch(ledger, course, os.environ)

    return make_handler(
        store,
        quarantine.Bucket(
            boto3.client("s3", config=Config(max_pool_connections=max(10, settings.write_threads))),
            settings.bucket,
        ),
        tag=settings.tagline_tag,
        own_log_groups=settings.own_log_groups,
        report=report,
        # Beside the code, wherever that was unpacked.
        plans=schema.load(Path(__file__).parents[2] / settings.schemas),
        threads=settings.write_threads,
        course=course,
    )


def write_client(threads: int) -> Any:
    """Return a client for as many requests at the same time, from the environment."""
    return boto3.client(
        "timestream-write",
        config=Config(
            # The writer retries by itself, within the time that the invocation has left.
            retries={"total_max_attempts": 1},
            read_timeout=20,
            # Else threads close connections that others have to open again.
            max_pool_connections=max(10, threads),
            # The mapping makes what is sent and the service judges it: checking it here as well takes
            # half of the consumer's time.
            parameter_validation=False,
            # Else botocore puts one together, twice for every request.
            user_agent=f"Boto3/{boto3.__version__} Tagline",
        ),
    )
