"""The sizes of a pipeline's lines and rows, measured where it keeps them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from itertools import islice

import tagline

from cli.cost.flow import Sizes
from cli.stages import exported, streamed
from cli.target import Target
from consumers.lines.extract import extract
from consumers.lines.subscription import LogEvent, log_event, pieces
from consumers.rows.lake.fragments import day_folder, parse_fragment
from consumers.rows.table import UNDECLARED, Row, UnmappableError, row
from exporter.store import Days

# A sample is enough: lines of one API are alike.
MOST_RECORDS, MOST_FRAGMENTS = 1_000, 5_000
_BACK = timedelta(hours=24)


def measured_sizes(target: Target) -> tuple[Sizes, list[str]]:
    """Return what a pipeline's lines and rows of the last day are like, and the names of what was measured.

    Args:
        target: The pipeline. What it has none of yet keeps its default.
    """
    sizes, names = Sizes(), []
    records = [
        (len(data), list(_events(data)))
        for data in islice(streamed(target, target.now() - _BACK), MOST_RECORDS)
    ]
    records = [(size, events) for size, events in records if events]
    if records:
        events = [event for _, each in records for event in each]
        packed = sum(size for size, _ in records) - len(records) * sizes.envelope
        sizes = replace(
            sizes,
            line=sum(len(event.message.encode()) for event in events) / len(events),
            lines_per_record=len(events) / len(records),
            packed_line=max(1.0, packed / len(events)),
        )
        names += ["line", "lines_per_record", "packed_line"]
        if rows := [found for event in events if (found := _row(event, target)) is not None]:
            sizes = replace(sizes, metered_row=sum(map(metered_bytes, rows)) / len(rows))
            names.append("metered_row")
    files, rows_there, size = _fragments(target)
    if files:
        sizes = replace(sizes, fragment_row=max(1.0, (size - files * sizes.fragment) / rows_there))
        names.append("fragment_row")
    today = target.now().date()
    count = exported(target, Days(today - timedelta(days=7), today))
    if count.records:
        sizes = replace(sizes, exported_row=count.bytes / count.records)
        names.append("exported_row")
    return sizes, names


def metered_bytes(found: Row) -> int:
    """Return a row's size as a database counts it: eight bytes of time, and its names and values."""
    names = [*found.dimensions.items(), *((name, each.value) for name, each in found.measures.items())]
    return 8 + len(found.type) + sum(len(name) + _value_bytes(value) for name, value in names)


def _value_bytes(value: object) -> int:
    if isinstance(value, str):
        return len(value.encode())
    return 1 if isinstance(value, bool) else 8


def _row(event: LogEvent, target: Target) -> Row | None:
    record = extract(event, target.tag, target.prefix)
    try:
        return row(record, event.log_group, UNDECLARED) if isinstance(record, tagline.Record) else None
    except UnmappableError:
        return None


def _events(data: bytes) -> Iterator[LogEvent]:
    for piece in pieces(data):
        for raw in piece.log_events:
            if isinstance(event := log_event(raw, piece), LogEvent):
                yield event


def _fragments(target: Target) -> tuple[int, int, int]:
    """Return the number of the lake store's files of a week, of their rows, and of their bytes."""
    today = target.now().date()
    listed = (
        each
        for back in range(8)
        for each in target.bucket().listed(day_folder(today - timedelta(days=back)))
        if each.key.endswith(".parquet")
    )
    files = list(islice(listed, MOST_FRAGMENTS))
    return len(files), sum(parse_fragment(each.key).rows for each in files), sum(each.size for each in files)
