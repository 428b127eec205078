"""Lambda entry: decode -> extract -> row -> store, rejected lines to quarantine, a partial batch response."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache, partial
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import boto3

from consumers.accounts import accounting
from consumers.accounts.minutes import BatchMinutes
from consumers.bucket import Bucket, consumer_config
from consumers.deadlines import ANSWER, END, LAST, RESERVE, countdown
from consumers.lines import quarantine, telemetry
from consumers.lines.batch import Line, tagged_lines, take_lines
from consumers.lines.extract import Rejected
from consumers.lines.ledger import Ledger
from consumers.lines.places import place_of_arn
from consumers.lines.prefix import check_prefix
from consumers.lines.telemetry import STAGES, Timings
from consumers.outcomes import Duplicate, Outcome, Refused, Stored, all_stored
from consumers.rows import late_days, schema, table
from consumers.rows.clashes import Clashes
from consumers.rows.live import open_store
from consumers.rows.packing import Packing, write_large_records
from consumers.rows.store import Packed, Store, Traffic
from consumers.sending import MAX_THREADS, THREADS, Pool, garbage_collection_paused, write
from consumers.settings import SettingsError, read_settings
from consumers.workers import TimedWriter, Workers

Handler = Callable[[dict[str, Any], Any], dict[str, Any]]

# The dimension `stage` of the metrics.
STAGE: Final = "consumer"
# Lines that are read before they are mapped, and mapped before they are sent: few enough to be in the
# processor's cache still, enough that looking at the clock between the stages costs nothing.
CHUNK: Final = 100
_SECONDS_PER_DAY = 86_400


@dataclass(frozen=True, slots=True)
class Settings:
    """The function's settings from its environment, beside those of the store; docs/reference/settings.md."""

    tagline_tag: str
    bucket: str
    own_log_groups: str
    store: str
    schemas: str = "schemas"
    tagline_prefix: str = ""
    usage_type: str = "api_request"
    write_threads: int = THREADS


def make_handler(
    store: Store[Packed],
    objects: quarantine.ObjectWriter,
    *,
    tag: str,
    own_log_groups: str,
    report: Callable[[Ledger], None],
    plans: table.Plans = table.UNDECLARED,
    threads: int = 1,
    clock: Callable[[], float] = time.time,
    timings: Timings | None = None,
    prefix: str = "",
    usage_type: str = "api_request",
) -> Handler:
    """Return a Lambda handler that stores the tagged lines of a Kinesis batch.

    Args:
        store: Where rows are written.
        objects: Where rejected lines, and records too large for a row, are kept.
        tag: The token that marks a line.
        own_log_groups: How the names of the pipeline's own log groups begin; lines from there are dropped.
        report: Is given the batch's ledger at its end.
        plans: What is declared of records.
        threads: Requests to the store, or to the bucket, at the same time.
        clock: Gives the seconds since 1970.
        timings: Records how long each stage takes, and the log groups.
        prefix: The setting TAGLINE_PREFIX: what may be before a record, beside the runtimes' prefixes.
        usage_type: The `_type` of the records that are counted by minute.
    """
    timings, packer, clashes = timings or Timings(), store.packer(plans), Clashes(plans)
    # A store that does not answer keeps all of its threads busy: the bucket has others.
    senders, keepers, report = Pool(threads), Workers(threads), telemetry.BestEffort(report)

    @garbage_collection_paused()
    def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
        nonlocal senders, keepers
        remaining = countdown(context)
        senders, keepers = senders.renewed(), keepers.renewed()
        timings.begin()
        ledger = Ledger(event["Records"], place_of_arn(context.invoked_function_arn))
        accounts, minutes = accounting.BatchAccounts(tag, prefix), BatchMinutes(usage_type, clock())
        minutes_late, on_time = set[int](), begin_of_on_time(clock(), store.late_after)
        until_answer = partial(keepers.at_once, lambda: remaining() - ANSWER)
        keep = partial(write_large_records, ledger, objects, until_answer)
        packing = Packing(packer, clashes, ledger, accounts, minutes, keep, tag, prefix)
        lines = tagged_lines(ledger, tag, own_log_groups, prefix)
        requests = store.requests(read(ledger, lines, packing, remaining, timings))
        for rows, outcomes in write(store, requests, remaining, senders, timings, replace=packing.replace):
            minutes_late |= record_outcomes(ledger, rows, outcomes, on_time)
        ledger.write_seconds = timings.seconds["write"]
        with timings.stage("quarantine"):
            in_time = partial(keepers.at_once, lambda: remaining() - END)
            ledger.keep(objects, in_time, lambda: remaining() <= LAST)
            timed = TimedWriter(objects.write, keepers, remaining)
            mark_late_days(ledger, minutes_late, timed, context.aws_request_id)
            accounting.write(accounts, ledger, timed, minutes)
        report(ledger)
        return ledger.response()

    return handler


def begin_of_on_time(now: float, late_after: float) -> float:
    """Return the time before which rows are late, in milliseconds since 1970.

    Args:
        now: Seconds since 1970.
        late_after: The age in seconds from which the export of a day may not see them.
    """
    return 1_000 * max(now - late_after, now // _SECONDS_PER_DAY * _SECONDS_PER_DAY)


def read(
    ledger: Ledger,
    lines: Iterator[Line],
    packing: Packing[Packed],
    remaining: Callable[[], float],
    timings: Timings,
) -> Iterator[tuple[Line, Packed]]:
    """Yield each line with its row; when time is over, the next line fails, and with it all that follow."""
    while True:
        over = remaining() <= RESERVE
        with timings.stage("decode"):
            chunk = take_lines(lines, 1 if over else CHUNK)
        timings.log_groups.update([line.origin[0] for line in chunk])
        if over:
            for line in chunk:
                ledger.fail(line.position)
        if over or not chunk:
            return
        with timings.stage("map"):
            rows = packing.pack(chunk)
        yield from rows


def record_outcomes(
    ledger: Ledger, rows: list[tuple[Line, Packed]], outcomes: list[Outcome], on_time: float
) -> set[int]:
    """Record the outcomes of rows in the ledger; return the minutes of late ones that the store has.

    Duplicates count as well: the delivery that stored the row may have failed before it marked the day.

    Args:
        ledger: The batch's ledger.
        rows: Lines, each with its row.
        outcomes: The outcome of each row.
        on_time: Rows before this are late, in milliseconds since 1970.

    Returns:
        Minutes since 1970.
    """
    if all_stored(outcomes):
        ledger.stored += len(rows)
        return {row.time // late_days.MINUTE_MS for _, row in rows if row.time < on_time}
    late: set[int] = set()
    for (line, row), outcome in zip(rows, outcomes, strict=True):
        if isinstance(outcome, Stored):
            ledger.stored += 1
        elif isinstance(outcome, Duplicate):
            ledger.duplicate += 1
        elif isinstance(outcome, Refused):
            ledger.reject(line.position, line.event, Rejected(outcome.reason, outcome.detail))
        else:
            ledger.fail(line.position)
        if isinstance(outcome, Stored | Duplicate) and row.time < on_time:
            late.add(row.time // late_days.MINUTE_MS)
    return late


def mark_late_days(
    ledger: Ledger, minutes: Iterable[int], objects: quarantine.ObjectWriter, delivery: str
) -> None:
    """Write a marker for each day that received rows late. If one cannot be written, the batch fails.

    Args:
        ledger: The batch's ledger.
        minutes: Minutes since 1970.
        objects: Where the exporter looks for markers.
        delivery: The invocation's request id.
    """
    for day, of_day in groupby(sorted(minutes), key=lambda each: each // late_days.DAY_MINUTES):
        when = date.fromordinal(day + date(1970, 1, 1).toordinal())
        body = late_days.marker_body(each % late_days.DAY_MINUTES for each in of_day)
        try:
            objects.write(late_days.marker_key(when, quarantine.name(ledger.records[0]), delivery), body)
        except OSError:
            # The rows are stored, and would be missing in the lake. The next delivery marks the day.
            ledger.fail(0, lines=0)


def report_rows(
    ledger: Ledger, store: str, timings: Timings | None = None, traffic: Traffic | None = None
) -> None:
    """Write the invocation's summary line and its metrics.

    Args:
        ledger: The batch's ledger.
        store: The store's kind.
        timings: How long the stages took.
        traffic: What was sent to the store.
    """
    timings, traffic = timings or Timings(), traffic or Traffic()
    telemetry.report_batch(
        ledger,
        {"stage": STAGE, "store": store},
        ledger.counts()
        | {"requests": traffic.requests, "retries": traffic.retries, "throttled": traffic.throttled},
        sizes={"bytes_out": traffic.bytes},
        times={f"{stage}_ms": timings.seconds[stage] * 1000 for stage in STAGES if stage != "write"},
        fields={"log_groups": len(timings.log_groups)},
    )


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Store the tagged lines of a Kinesis batch."""
    return _handler_of_environment()(event, context)


@cache
def _handler_of_environment() -> Handler:
    return from_environment(os.environ)


def from_environment(environ: Mapping[str, str]) -> Handler:
    """Return the handler that the environment describes.

    Args:
        environ: The environment.

    Raises:
        SettingsError: If a setting is missing or wrong.
    """
    settings = read_settings(Settings, environ)
    threads = settings.write_threads
    if not 1 <= threads <= MAX_THREADS:
        raise SettingsError(f"WRITE_THREADS is {threads}, not from 1 to {MAX_THREADS}")
    store = open_store(settings.store, environ, threads)
    timings = Timings()

    def report(ledger: Ledger) -> None:
        report_rows(ledger, store.kind, timings, store.traffic())
        telemetry.trace_batch(ledger, timings, environ)

    s3 = boto3.client("s3", config=consumer_config(threads))
    return make_handler(
        store,
        Bucket(s3, settings.bucket),
        tag=settings.tagline_tag,
        own_log_groups=settings.own_log_groups,
        report=report,
        # Beside the code, wherever that was unpacked.
        plans=schema.load_schemas(Path(__file__).parents[2] / settings.schemas),
        threads=threads,
        timings=timings,
        prefix=check_prefix(settings.tagline_prefix),
        usage_type=settings.usage_type,
    )
