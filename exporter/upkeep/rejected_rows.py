"""Rows that the store took and then reported as not kept are written again, once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from itertools import groupby
from typing import Any, Final

from consumers.bucket import Objects
from consumers.outcomes import Duplicate, Stored
from consumers.rows import late_days
from consumers.rows.store import ReportedRow, UnreadableReportError
from consumers.rows.store import Store as WritingStore
from consumers.rows.table import ID, SOURCE
from exporter.store import FIRST_COLUMNS, TIME, TYPE, Span, places
from exporter.store import Store as AskingStore

# What is left of the invocation, in seconds, when no more reports are begun.
ENOUGH: Final = 30.0
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class Rewritten:
    """What became of the reports.

    Attributes:
        reports: Reports that are done, and removed.
        stored: Rows that were written again.
        present: Rows that the store had by then.
        waiting: Reports that are too young: the store may have rows that cannot be asked for yet.
        left: The keys of reports that stay, with why.
    """

    reports: int = 0
    stored: int = 0
    present: int = 0
    waiting: int = 0
    left: list[str] = field(default_factory=list)


def rewrite_rejected(
    store: WritingStore[Any],
    questions: AskingStore,
    objects: Objects,
    *,
    now: datetime,
    remaining: Callable[[], float],
    invocation: str,
) -> Rewritten:
    """Write the rows of all reports again that are old enough, and remove these reports.

    A report is read when every row of its time can be asked for. Rows that are there by then, because they
    were delivered again or a run before this one was ended, are left as they are.

    Args:
        store: Where rows are written.
        questions: The same store, to be asked.
        objects: The bucket with the reports; the marks of late days go there.
        now: The time.
        remaining: Gives the seconds that are left of the invocation.
        invocation: The invocation's request id.
    """
    done = Rewritten()
    if not store.reports:  # the store keeps what it takes
        return done
    for report in sorted(objects.listed(store.reports), key=lambda each: each.modified):
        if now - report.modified < questions.settles_after:
            done.waiting += 1
            continue
        if remaining() <= ENOUGH:
            done.left.append(f"{report.key}: no time left")
            continue
        try:
            rows = store.reported(objects.get(report.key) or b"")
        except UnreadableReportError as error:
            done.left.append(f"{report.key}: {error}")
            continue
        missing = [row for row in _each_once(rows) if not _is_stored(questions, row)]
        done.present += len(rows) - len(missing)
        problem = _write(store, missing, remaining, done)
        # Also the days of rows that are present: a run that was ended may not have marked them.
        for day, of_day in groupby(sorted(rows, key=_day), key=_day):
            body = late_days.marker_body(map(_minute, of_day))
            objects.put(late_days.marker_key(day, report.etag, invocation), [body], "application/json")
        if problem:
            done.left.append(f"{report.key}: {problem}")
        else:
            objects.delete([report.key])
            done.reports += 1
    return done


def _write(
    store: WritingStore[Any],
    rows: list[ReportedRow[Any]],
    remaining: Callable[[], float],
    done: Rewritten,
) -> str:
    """Write rows, and return what is wrong with one that is not stored; empty if all are."""
    problem = ""
    for request in store.requests((None, row.row) for row in rows):
        # Few and old: one at a time is what the magnetic store asks for, and shows which row is refused.
        for _, packed in request:
            (outcome,) = store.write([packed], remaining)
            if isinstance(outcome, Stored | Duplicate):
                done.stored += 1
            else:
                problem = f"{type(outcome).__name__}: {outcome.detail}"
    return problem


def _each_once(rows: Iterable[ReportedRow[Any]]) -> Iterator[ReportedRow[Any]]:
    """Yield each row once: a record that was delivered twice may be reported twice."""
    seen: set[tuple[str, ...]] = set()
    for row in rows:
        identity = (row.id, row.type, row.source, str(row.time))
        if identity not in seen:
            seen.add(identity)
            yield row


def _is_stored(store: AskingStore, row: ReportedRow[Any]) -> bool:
    """Return whether the store has a row of the same record."""
    start = _EPOCH + timedelta(milliseconds=row.time)
    columns = tuple(column for column in FIRST_COLUMNS if column.name in (TIME, TYPE, ID, SOURCE))
    answer = store.rows(Span(_text(start), _text(start + timedelta(milliseconds=1))), columns)
    at = places(columns)
    return any(
        (found[at[ID]], found[at[TYPE]], found[at[SOURCE]]) == (row.id, row.type, row.source)
        for found in answer.rows
    )


def _text(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S.%f}000"


def _minute(row: ReportedRow[Any]) -> int:
    return row.time // late_days.MINUTE_MS % late_days.DAY_MINUTES


def _day(row: ReportedRow[Any]) -> date:
    return (_EPOCH + timedelta(milliseconds=row.time)).date()
