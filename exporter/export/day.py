"""One day is written: rows of the store become part files, and a manifest that commits them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Any

from consumers.rows import late_days
from consumers.rows.table import OVERFLOW, SAID, UNDECLARED, Plans
from exporter.export.whole_rows import WholeRows
from exporter.lake.ahead import ahead
from exporter.lake.batch import Batch
from exporter.lake.columns import extend_lake_columns
from exporter.lake.days import Day
from exporter.lake.forgotten import CLIENT, Forgotten, clients_of
from exporter.lake.manifest import PART_BYTES, Manifest
from exporter.lake.overflow import is_whole_record
from exporter.lake.progress import Progress
from exporter.store import SLICE_ROWS, TIME, Column, Span, Store, Tally, Values, minute, places, slices
from exporter.stores.metered import Spent

# Whole records are fetched in parallel: each is a round trip.
_FETCHERS = 8
# How many clients are cached while a day is written without some of them.
_CLIENTS = 10_000
# The time that an invocation keeps to store how far it is and to call the next.
LEAST_SECONDS = 20.0
# The longest that an invocation can be.
MOST_SECONDS = 900.0


class OutOfTimeError(Exception):
    """The invocation has no time for another batch: the parts that it wrote are kept, and the next resumes.

    Attributes:
        got_on: Whether it wrote any part.
    """

    def __init__(self, *, got_on: bool = False) -> None:
        super().__init__("the invocation has no time left")
        self.got_on = got_on


class RowsGoneError(RuntimeError):
    """The store has dropped rows of a day that the lake does not have; the message tells what to do."""


@dataclass(frozen=True, slots=True)
class DayJob:
    """How a day is written.

    Attributes:
        size: Where a part is cut, in bytes before it is packed.
        slice_rows: The most rows that the store is asked for at once.
        plans: The declared schemas: a whole record becomes the row that the consumer would make.
        order: What the day is written for: progress that was made for another order is not resumed.
        late: How many markers there are of rows that came to the day late.
        seconds_left: How long this invocation has.
        now: Gives the time.
    """

    size: int = PART_BYTES
    slice_rows: int = SLICE_ROWS
    plans: Plans = UNDECLARED
    order: str = ""
    late: int = 0
    seconds_left: Callable[[], float] = lambda: MOST_SECONDS
    now: Callable[[], datetime] = lambda: datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Export:
    """What became of a day.

    Attributes:
        manifest: What the lake holds of the day now.
        kept: Whether that is what it held before, because the store has fewer rows than the lake by now.
        seconds: How long it took, in this invocation.
        spent: What its questions to the store cost, in this invocation.
    """

    manifest: Manifest
    kept: bool
    seconds: float = 0.0
    spent: Spent = field(default_factory=Spent)

    def summary(self) -> dict[str, Any]:
        """Return what the function answers and logs."""
        manifest = self.manifest
        return {
            "day": manifest.day.isoformat(),
            "format": manifest.format,
            "rows": manifest.rows,
            "bytes": manifest.size,
            "parts": len(manifest.parts),
            "revision": manifest.revision,
            "kept": self.kept,
            "seconds": round(self.seconds, 3),
            "questions": self.spent.questions,
            "scanned_bytes": self.spent.scanned,
            "metered_bytes": self.spent.billed,
        }


def export_day(day: Day, store: Store, job: DayJob | None = None) -> Export:
    """Write a day's rows to the lake. Doing it again changes nothing, unless there are other rows.

    The manifest is written last. A day of which the store has fewer rows than the lake stays as it is: the
    store drops rows older than its retention, the lake does not. The caller has the day's lock.

    Raises:
        OutOfTimeError: If the invocation ends before the day does: called again, it resumes.
        RowsGoneError: If rows came late to a day that the store no longer has whole, or the day is older than
            what the store keeps and the lake has nothing of it.
    """
    job = job or DayJob()
    began = time.monotonic()
    known, tally = day.manifest(), store.tally(day.date)
    kept = known if known is not None and _has_dropped_rows(tally, known) else None
    _check_that_rows_are_there(day.date, store, job, tally, known, is_kept=kept is not None)
    if kept is not None:
        manifest = kept
    else:
        there = store.columns(day.date) if tally else ()
        rows = _Rows(day, store, job, tally, there, day.forgotten())
        progress = _write_parts(rows, _begin(rows, known))
        manifest = _manifest_of(rows, progress, known)
        _commit(day, manifest, known, job.now())
    day.drop_progress()
    day.tidy(job.now())
    return Export(manifest, kept is not None, time.monotonic() - began)


def _has_dropped_rows(tally: Tally, known: Manifest) -> bool:
    """Tell whether the store has dropped rows that the lake has: it drops a day's earliest rows first."""
    if sum(tally.values()) < known.rows + known.forgotten:
        return True
    return bool(known.parts) and min(tally) > minute(known.parts[0].first_time)


def _check_that_rows_are_there(
    day: date, store: Store, job: DayJob, tally: Tally, known: Manifest | None, *, is_kept: bool
) -> None:
    """Make sure that the store has not dropped rows that the lake lacks.

    Raises:
        RowsGoneError: If it has.
    """
    if job.late and (is_kept or not tally):
        raise RowsGoneError(
            f"rows came late, as {job.late:,} objects under {late_days.PREFIX}{day}/ say, but the store has "
            "forgotten rows of the day: the lake keeps what it has. Ask the store for the late ones as long "
            "as it has them, and remove these objects"
        )
    keeps_for = store.keeps_for
    if known is not None or tally or keeps_for is None:
        return
    if day < (job.now() - keeps_for).date():
        raise RowsGoneError(
            f"the store has no rows for this day and keeps rows for {keeps_for / timedelta(days=1):g} days, "
            "so whether the day had any can no longer be determined"
        )


@dataclass(frozen=True, slots=True)
class _Rows:
    """The rows of a day, before any is read: when they are, and which of the files' columns they have."""

    day: Day
    store: Store
    job: DayJob
    tally: Tally
    there: tuple[Column, ...]
    forgotten: Forgotten | None

    @property
    def order(self) -> str:
        """What progress is made for: these late rows, without these clients."""
        return self.job.order + (self.forgotten.digest if self.forgotten else "")

    @property
    def count(self) -> int:
        """How many rows there are."""
        return sum(self.tally.values())

    def count_until(self, time: str) -> int:
        """Return how many rows there are up to the end of a time's minute."""
        last = minute(time)
        return sum(count for each, count in self.tally.items() if each <= last)


# --- where the parts begin --------------------------------------------------------------------------------


def _begin(rows: _Rows, known: Manifest | None) -> Progress:
    """Return where to resume: behind the last part, or at the first row if rows came before that."""
    columns = _columns(rows, known)
    revision = 1 if known is None else known.revision + 1
    found = rows.day.progress()
    if (
        found is not None
        and (found.order, found.revision, found.columns) == (rows.order, revision, columns)
        and (not found.time or rows.count_until(found.time) == found.rows_before)
    ):
        return found
    progress = Progress(rows.order, revision, columns)
    rows.day.write_progress(progress)
    rows.day.tidy(rows.job.now())
    return progress


def _columns(rows: _Rows, known: Manifest | None) -> tuple[Column, ...]:
    """Return the columns of a day's files: those that they have, and others up to the last in use.

    So a day that is written again is the same, even if other days have brought columns since.
    """
    if not rows.there:
        return known.columns if known else ()
    # A table that was created again may have other types than the lake: a day's files have their rows' types.
    types = {column.name: column.type for column in rows.there}
    columns = tuple(
        Column(name, types.get(name, type_))
        for name, type_ in extend_lake_columns(rows.day.objects, rows.there)
    )
    if known is None or not known.columns or known.columns != columns[: len(known.columns)]:
        return columns
    behind = [column.name for column in columns[len(known.columns) :]]
    asked = [name for name in behind if name in types]
    filled = rows.store.filled(rows.day.date, asked) if asked else set()
    last = max((number for number, name in enumerate(behind, 1) if name in filled), default=0)
    return columns[: len(known.columns) + last]


# --- the parts --------------------------------------------------------------------------------------------


def _write_parts(rows: _Rows, progress: Progress) -> Progress:
    """Write the parts that are missing, and return the progress that names all."""
    begun_with = len(progress.parts)
    try:
        for further in _further(rows, progress):
            progress = further
    except OutOfTimeError:
        progress = rows.day.progress() or progress
        raise OutOfTimeError(got_on=len(progress.parts) > begun_with) from None
    return progress


def _further(rows: _Rows, progress: Progress) -> Iterator[Progress]:
    """Write one part after the other, and yield how far the day is after each."""
    day, job = rows.day, rows.job
    with ThreadPoolExecutor(_FETCHERS) as pool:
        whole = WholeRows(progress.columns, lambda keys: pool.map(day.objects.get, keys), job.plans)
        position = _Position(progress)
        batches = position.passing(_timed(whole.batches(ahead(_pages(rows, progress))), job))
        for part in day.write(
            batches, progress.columns, progress.revision, size=job.size, first=len(progress.parts)
        ):
            progress = replace(
                progress,
                parts=(*progress.parts, part),
                time=position.time,
                at_time=position.at_time,
                rows_before=rows.count_until(position.time),
                restored=progress.restored + whole.restored,
                not_restored=progress.not_restored + whole.not_restored,
            )
            whole.restored = whole.not_restored = 0
            day.write_progress(progress)
            yield progress


def _pages(rows: _Rows, progress: Progress) -> Iterator[list[Values]]:
    """Yield the rows that are not in a part yet, in the order of the files' columns."""
    has = {column.name for column in rows.there}
    asked = tuple(column for column in progress.columns if column.name in has)
    skip = progress.at_time
    for span in slices(rows.day.date, rows.tally, rows.job.slice_rows) if rows.tally else ():
        if span.end <= progress.time:
            continue
        answer = rows.store.rows(Span(max(span.start, progress.time), span.end), asked)
        pages = answer.pages if asked == progress.columns else _widened(answer.pages, asked, progress.columns)
        if rows.forgotten is not None:
            pages = _without(rows.forgotten, pages, progress.columns, rows.day)
        for page in pages:
            yield page[skip:] if skip else page
            skip -= min(skip, len(page))


def _without(
    forgotten: Forgotten, pages: Iterable[list[Values]], columns: tuple[Column, ...], day: Day
) -> Iterator[list[Values]]:
    """Yield the rows of clients that are not forgotten; whole records of the others are removed."""
    client, said, overflow = (places(columns).get(name) for name in (CLIENT, SAID, OVERFLOW))
    assert client is not None

    @lru_cache(_CLIENTS)  # a hash for each client, not for each row
    def is_forgotten(client: str | None, said: str | None) -> bool:
        return forgotten.has_any(clients_of(client, said))

    for page in pages:
        left: list[Values] = []
        removed: list[str] = []
        for row in page:
            if not is_forgotten(row[client], None if said is None else row[said]):
                left.append(row)
            elif overflow is not None and is_whole_record(key := row[overflow]):
                removed.append(key)
        day.objects.delete(removed)
        yield left


def _widened(
    pages: Iterable[list[Values]], has: tuple[Column, ...], wanted: tuple[Column, ...]
) -> Iterator[list[Values]]:
    """Yield rows with a place for columns that the store does not have."""
    place_of = places(has)
    taken = [place_of.get(column.name) for column in wanted]
    for page in pages:
        yield [[None if place is None else row[place] for place in taken] for row in page]


def _timed(batches: Iterator[Batch], job: DayJob) -> Iterator[Batch]:
    """Yield batches as long as there is time.

    Raises:
        OutOfTimeError: If there is none for another batch.
    """
    for batch in batches:
        yield batch
        if job.seconds_left() < LEAST_SECONDS:
            raise OutOfTimeError


class _Position:
    """How far rows have been passed on: the last row's time, and how many rows have that time."""

    def __init__(self, progress: Progress) -> None:
        self.time, self.at_time = progress.time, progress.at_time
        self._when = places(progress.columns).get(TIME, 0)

    def passing(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Yield batches, and keep where they end."""
        for batch in batches:
            last = batch.rows[-1][self._when] or ""
            others = (number for number, row in enumerate(reversed(batch.rows)) if row[self._when] != last)
            at_time = next(others, len(batch.rows))
            if at_time == len(batch.rows) and last == self.time:
                at_time += self.at_time
            self.time, self.at_time = last, at_time
            yield batch


# --- the manifest -----------------------------------------------------------------------------------------


def _manifest_of(rows: _Rows, progress: Progress, known: Manifest | None) -> Manifest:
    """Return the manifest that names the parts; the known one's parts if these have the same rows."""
    manifest = Manifest(
        rows.day.date,
        progress.revision,
        progress.columns,
        progress.parts,
        rows.day.kind,
        restored=progress.restored,
        not_restored=progress.not_restored,
    )
    if rows.forgotten is not None:
        manifest = replace(manifest, forgotten=max(0, rows.count - manifest.rows))
    return manifest.succeeding(known, whole=lambda parts: all(map(rows.day.is_whole, parts)))


def _commit(day: Day, manifest: Manifest, known: Manifest | None, now: datetime) -> None:
    """Commit the manifest, unless the lake has it already."""
    if known is not None and manifest.revision != known.revision:
        day.retire(known.parts, now)
    if manifest != known:
        day.commit(manifest)
    else:
        day.list_files(manifest)
