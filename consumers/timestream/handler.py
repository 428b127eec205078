"""Lambda entry: decode -> extract -> row -> write, rejected lines to quarantine, a partial batch response."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import boto3
from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit
from botocore.config import Config

from consumers import accounting, quarantine, schema, table
from consumers.batch import Line, tagged_lines
from consumers.extract import Rejected
from consumers.ledger import Ledger
from consumers.settings import read_settings
from consumers.timestream import mapping, writer

Handler = Callable[[dict[str, Any], Any], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Settings:
    """What the function's environment says; docs/reference/settings.md."""

    tagline_tag: str
    timestream_database: str
    timestream_table: str
    bucket: str
    own_log_groups: str
    schemas: str = "schemas"


def make_handler(
    store: writer.Store,
    objects: quarantine.Objects,
    *,
    tag: str,
    own_log_groups: str,
    report: Callable[[Ledger], None],
    plans: table.Plans = table.UNDECLARED,
) -> Handler:
    """Return a Lambda handler that stores the tagged lines of a Kinesis batch.

    Args:
        store: Where rows go.
        objects: Where rejected lines, and records too large for a row, are kept.
        tag: The token that marks a line.
        own_log_groups: How the names of the pipeline's own log groups begin; lines from there are dropped.
        report: Is given the batch's ledger at its end.
        plans: What is declared of records.
    """

    def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
        def remaining() -> float:
            return float(context.get_remaining_time_in_millis()) / 1000

        ledger = Ledger(event["Records"])
        books = accounting.Books(tag)
        lines = books.noted(tagged_lines(ledger, tag, own_log_groups))
        rows = map_rows(ledger, lines, objects, plans)
        while batch := list(islice(rows, writer.MAX_RECORDS)):
            before = remaining()
            outcomes = store.write([row for _, row in batch], remaining)
            ledger.write_seconds += before - remaining()
            for (line, _), outcome in zip(batch, outcomes, strict=True):
                enter(ledger, line, outcome)
        ledger.keep(objects)
        accounting.keep(books, ledger, objects)
        report(ledger)
        return ledger.response()

    return handler


def map_rows(
    ledger: Ledger,
    lines: Iterable[Line],
    objects: quarantine.Objects,
    plans: table.Plans = table.UNDECLARED,
) -> Iterator[tuple[Line, table.Row]]:
    """Yield each line with its row; a record too large for a row is kept whole before its row is yielded."""
    for line in lines:
        source = line.event.log_group
        try:
            row = table.row(line.record, source, plans)
        except table.UnmappableError as error:
            ledger.reject(line.position, line.event, Rejected("invalid", str(error)))
            continue
        ledger.not_numbers += row.not_numbers
        ledger.extra += row.extra
        ledger.others += row.others
        key = table.overflow_key(line.record, source)
        fitted = mapping.fit(row, key)
        if fitted is not row:
            try:
                objects.put(key, table.overflow_body(line.record))
            except OSError:
                ledger.fail(line.position)
                continue
            ledger.overflowed += 1
        yield line, fitted


def enter(ledger: Ledger, line: Line, outcome: writer.Outcome) -> None:
    """Enter into the ledger what became of a line's row."""
    match outcome:
        case writer.Stored():
            ledger.stored += 1
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
    return make_handler(
        writer.Timestream(
            boto3.client(
                "timestream-write",
                config=Config(
                    # The writer retries by itself, within the time that the invocation has left.
                    retries={"total_max_attempts": 1},
                    read_timeout=20,
                    # The mapping makes what is sent and the service judges it: checking it here as well takes
                    # half of the consumer's time.
                    parameter_validation=False,
                ),
            ),
            settings.timestream_database,
            settings.timestream_table,
            sleep=time.sleep,
            jitter=random.random,
        ),
        quarantine.Bucket(boto3.client("s3"), settings.bucket),
        tag=settings.tagline_tag,
        own_log_groups=settings.own_log_groups,
        report=report_batch,
        # Beside the code, wherever that was unpacked.
        plans=schema.load(Path(__file__).parents[2] / settings.schemas),
    )


def report_batch(ledger: Ledger) -> None:
    """Write the invocation's one summary line, and its metrics. No contents of records."""
    counts = ledger.counts()
    write_ms = round(ledger.write_seconds * 1000, 3)
    reasons = {f"quarantined_{reason}": count for reason, count in ledger.quarantined.items()}
    Logger().info("batch", extra={**counts, **reasons, "bytes": ledger.bytes(), "write_ms": write_ms})
    metrics = Metrics()
    for name, count in {**counts, **reasons}.items():
        metrics.add_metric(name=name, unit=MetricUnit.Count, value=count)
    metrics.add_metric(name="bytes", unit=MetricUnit.Bytes, value=ledger.bytes())
    metrics.add_metric(name="write_ms", unit=MetricUnit.Milliseconds, value=write_ms)
    arrivals = [record["kinesis"]["approximateArrivalTimestamp"] for record in ledger.records]
    if arrivals:
        age = (time.time() - min(arrivals)) * 1000
        metrics.add_metric(name="iterator_age", unit=MetricUnit.Milliseconds, value=age)
    metrics.flush_metrics()
