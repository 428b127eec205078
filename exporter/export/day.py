"""One day is written in its formats, in one pass: rows of the store become part files and manifests."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from typing import Any, NamedTuple, TypeVar

from consumers.rows import late_days
from consumers.rows.table import UNDECLARED, Plans
from exporter.export.fan_out import fan_out
from exporter.export.kept_rows import Unchanged, UnusableFilesError, find_unchanged, is_over
from exporter.export.reading import Position, Reading, RowsMissingError, Source
from exporter.export.whole_rows import WholeRows
from exporter.lake.ahead import ahead
from exporter.lake.batch import Batch
from exporter.lake.columns import extend_lake_columns
from exporter.lake.days import Day
from exporter.lake.forgotten import Forgotten
from exporter.lake.forgotten_list import ForgottenList, ReadKey, no_key
from exporter.lake.formats import Format
from exporter.lake.hours import hours_of_batches, hours_of_part
from exporter.lake.manifest import PART_BYTES, Manifest, Part
from exporter.lake.progress import Progress
from exporter.store import SLICE_ROWS, Column, Store, Tally, minute
from exporter.stores.metered import Spent

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

# Whole records are fetched in parallel: each is a round trip.
_FETCHERS = 8
# botocore makes a parser for each answer of the store, which refers to itself. Among so many objects of
# imports, Python would collect them only after millions of rows: they are collected after so large a file.
_COLLECT_ROWS = 500_000
# The time that an invocation keeps to store how far it is and to call the next.
LEAST_SECONDS = 20.0
# The longest that an invocation can be.
MOST_SECONDS = 900.0


class OutOfTimeError(Exception):
    """The invocation has no time for another batch: the parts that it wrote are kept, and the next resumes.

    Attributes:
        got_on: Whether it wrote any part.
        done: The formats that were committed all the same.
    """

    def __init__(self, *, got_on: bool = False, done: Sequence[Export] = ()) -> None:
        super().__init__("the invocation has no time left")
        self.got_on = got_on
        self.done = done


class NewColumnsError(Exception):
    """Rows have columns that the day's other rows were written without: all have to be written together."""


# What shows that a day cannot be made of the lake's files and the store's changes.
_UNFIT = (NewColumnsError, RowsMissingError, UnusableFilesError)


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
        asks_for_changes: Whether the store is asked only for the minutes that the day's markers name.
        hours: Of a day that is written hour by hour, the hours that are written now, in a row, each with what
            it is made of; empty for a whole day.
        seconds_left: How long this invocation has.
        now: Gives the time.
        read_key: Gives the key of the list of forgotten clients.
    """

    size: int = PART_BYTES
    slice_rows: int = SLICE_ROWS
    plans: Plans = UNDECLARED
    order: str = ""
    late: int = 0
    asks_for_changes: bool = False
    hours: Mapping[int, str] = field(default_factory=dict)
    seconds_left: Callable[[], float] = lambda: MOST_SECONDS
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    read_key: ReadKey = no_key


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
    """Write a day in one format: `export_formats`, raising the exception of the one that fails."""
    (outcome,) = export_formats((day,), store, job or DayJob())
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def export_formats(days: Sequence[Day], store: Store, job: DayJob) -> list[Export | Exception]:
    """Write a day's rows to the lake in several formats.

    Doing it again changes nothing, unless there are other rows. If the store is asked only for changes, and
    they do not fit to what the lake has, it is asked for the whole day.

    The store is asked once for all formats. A format's manifest is written last. The store drops rows older
    than its retention, the lake does not: once the store no longer has the whole day, the lake keeps what it
    has. If the lake has nothing of such a day, what is left is written and marked with `partial_since`.

    Args:
        days: The same day in each format. The caller has their locks.
        store: The store that has the rows.
        job: How the day is written.

    Returns:
        What became of each format, or the exception that stopped it: it does not stop the others.

    Raises:
        OutOfTimeError: If the invocation ends before the day does: called again, it resumes.
    """
    began = time.monotonic()
    outcomes = _try_formats(days, store, job)
    failed = [day for day in days if isinstance(outcomes[day.kind], _UNFIT)]
    if failed and job.asks_for_changes:
        outcomes |= _try_formats(failed, store, replace(job, asks_for_changes=False))
    seconds = time.monotonic() - began
    in_order = [outcomes[day.kind] for day in days]
    return [each if isinstance(each, Exception) else replace(each, seconds=seconds) for each in in_order]


def _try_formats(days: Sequence[Day], store: Store, job: DayJob) -> dict[Format, Export | Exception]:
    """Write a day's rows in several formats, and return what became of each: see `export_formats`."""
    outcomes: dict[Format, Export | Exception] = {}
    writing: list[_Files] = []
    # Manifests are read before the store: rows that others commit meanwhile make this commit fail.
    read = _try_each(lambda day: _Files(day, *day.committed()), days)
    known = [files for files in read if isinstance(files, _Files)]
    forgotten = cache(ForgottenList(days[0].objects, job.read_key).read)
    is_day_over = is_over(days[0].date, job.now())
    unchanged = _unchanged(known, job, forgotten) if job.asks_for_changes else None
    if unchanged is not None and store.includes_exports:
        store = store.within(unchanged.hours)
    since = store.whole_since(days[0].date, job.now())
    tally = store.tally(days[0].date)
    found = _Found(tally, since, store, job, forgotten, unchanged, is_day_over=is_day_over)
    for day, files in zip(days, read, strict=True):
        try:
            if isinstance(files, Exception):
                raise files  # noqa: TRY301 - it is handled as those of the next lines
            if found.is_kept(files):
                outcomes[day.kind] = files.keep(job)
            else:
                writing.append(files)
        except Exception as error:  # noqa: BLE001 - one format's failure is not the others'
            outcomes[day.kind] = error
    for files, outcome in zip(writing, _write(writing, found) if writing else (), strict=True):
        outcomes[files.day.kind] = outcome
    if any(isinstance(outcome, OutOfTimeError) for outcome in outcomes.values()):
        done = [outcome for outcome in outcomes.values() if isinstance(outcome, Export)]
        raise OutOfTimeError(got_on=bool(done) or any(files.got_on for files in writing), done=done)
    return outcomes


def _unchanged(
    known: Sequence[_Files], job: DayJob, forgotten: Callable[[], Forgotten | None]
) -> Unchanged | None:
    """Return what of a day the store is not asked for; None for nothing, as where that has been tried."""
    clients = forgotten()
    order = _order(job, clients, is_day_over=True)
    if any((progress := files.day.progress()[0]) and progress.order == order for files in known):
        return None
    days = [files.day for files in known]
    manifests = [(files.known, files.tag) for files in known]
    with ThreadPoolExecutor(_FETCHERS) as pool:
        digest = clients.digest if clients else ""
        return find_unchanged(days, manifests, digest, lambda keys: pool.map(days[0].objects.get, keys))


def _order(
    job: DayJob, forgotten: Forgotten | None, unchanged: Unchanged | None = None, *, is_day_over: bool
) -> str:
    """Return what a day is written for: progress that was made for something else is not resumed."""
    parts = [f"{job.order}{dict(job.hours) or ''}", forgotten.digest if forgotten else ""]
    return " ".join([*parts, "over" if is_day_over else "", "changes" if unchanged else ""]).rstrip()


def _try_each(function: Callable[[_Item], _Result], items: Iterable[_Item]) -> list[_Result | Exception]:
    """Return what a function returns for each item, or raises: one format's failure is not the others'."""
    outcomes: list[_Result | Exception] = []
    for item in items:
        try:
            outcomes.append(function(item))
        except Exception as error:  # noqa: BLE001 - the caller reports it
            outcomes.append(error)
    return outcomes


@dataclass(frozen=True, slots=True)
class _Found:
    """What the store has of a day.

    Attributes:
        tally: How many rows each minute has.
        since: Since when it has all rows; None for the whole day.
        store: The store.
        job: How the day is written.
        forgotten: Gives the list of forgotten clients.
        unchanged: What the store is not asked for; None for nothing.
        is_day_over: Whether the day was over when the store was asked.
    """

    tally: Tally
    since: str | None
    store: Store
    job: DayJob
    forgotten: Callable[[], Forgotten | None]
    unchanged: Unchanged | None
    is_day_over: bool

    def is_kept(self, files: _Files) -> bool:
        """Tell whether the lake keeps what it has of a format, because the store no longer has it whole.

        Raises:
            RowsGoneError: If the store has dropped rows that the lake lacks, or may have.
        """
        known = files.known
        has_all = self.store.includes_exports
        is_kept = (
            known is not None and not has_all and (self.since is not None or self._has_dropped_rows(known))
        )
        if self.job.late and not has_all and (is_kept or not self.tally):
            raise RowsGoneError(
                f"rows came late ({self.job.late:,} objects under {late_days.PREFIX}{files.day.date}/), but "
                "the store has dropped rows of the day: the lake keeps what it has. Ask the store for the "
                "late rows as long as it has them, and remove these objects"
            )
        if is_kept and known is not None and sum(self.tally.values()) > known.rows + known.forgotten:
            raise RowsGoneError(
                f"the store has {sum(self.tally.values()):,} rows of this day, the lake {known.rows:,}, and "
                f"the store has dropped the rows before {self.since or 'its first one'}: the lake keeps what "
                "it has. To replace it with what the store has left, remove the day's _manifest.json and "
                "export it again"
            )
        keeps_for = self.store.keeps_for
        if known is None and not self.tally and self.since is not None and keeps_for is not None:
            raise RowsGoneError(
                f"the store has no rows for this day and keeps rows for {keeps_for.days:,} "
                "days, so whether the day had any can no longer be determined: export later days"
            )
        return is_kept

    def _has_dropped_rows(self, known: Manifest) -> bool:
        """Tell whether the store has dropped rows that the lake has: it drops a day's earliest rows first."""
        if sum(self.tally.values()) < known.rows + known.forgotten:
            return True
        return bool(known.parts) and min(self.tally) > minute(known.parts[0].first_time)


class _Rows(NamedTuple):
    """Rows on their way to the files, and how many rows were made whole up to their end."""

    batch: Batch
    restored: int
    not_restored: int


class _Files:
    """The files of a day in one format while they are written."""

    def __init__(self, day: Day, known: Manifest | None, tag: str | None) -> None:
        self.day, self.known, self.tag = day, known, tag
        self.got_on = False
        self.progress = Progress("", 0, ())
        self._progress_tag: str | None = None
        self._abandoned: tuple[Part, ...] = ()

    def parts(self, hours: Mapping[int, str]) -> tuple[list[Part], list[Part]]:
        """Return the known parts that are written again, and the others: all, or those of some hours."""
        known = self.known.parts if self.known else ()
        written = [part for part in known if not hours or hours_of_part(part)[0] in hours]
        return written, [part for part in known if part not in written]

    def keep(self, job: DayJob) -> Export:
        """Leave the day as it is."""
        assert self.known is not None
        self.day.drop_progress()
        self.day.list_files(job.now())
        self.day.tidy(job.now())
        return Export(self.known, kept=True)

    def begin(self, source: Source, columns: tuple[Column, ...], order: str) -> None:
        """Resume behind the last part, or begin at the first row if other rows came before that.

        Raises:
            OvertakenError: If another attempt resumes from there.
        """
        revision = 1 if self.known is None else self.known.revision + 1
        found, tag = self.day.progress()
        if (
            found is None
            or (found.order, found.revision, found.columns) != (order, revision, columns)
            or (found.time and source.count_until(found.time) != found.source_rows)
        ):
            self._abandoned = found.parts if found else ()
            found = Progress(order, revision, columns)
        self.progress = replace(found, attempt=self.day.attempt)
        self._progress_tag = self.day.write_progress(self.progress, tag)

    def write(self, items: Iterator[_Rows], reading: Reading, source: Source, job: DayJob, skip: int) -> None:
        """Write the parts that are missing.

        Args:
            items: The rows.
            reading: Where they come from.
            source: The same, before any was read.
            job: How the day is written.
            skip: How many of the first rows are in parts already.
        """
        begun = self.progress
        first = minute(begun.time) if begun.time else 0
        position = Position(begun.columns, begun.time, begun.at_minute)
        taken = _Taken(items, skip, lambda: self.day.renew(job.now()))
        runs = hours_of_batches(taken.batches(), begun.columns) if job.hours else [taken.batches()]
        for part in self._write(map(position.passing, runs), job.size):
            last = minute(position.time)
            reading.check(last)
            self.progress = replace(
                self.progress,
                parts=(*self.progress.parts, part),
                time=position.time,
                at_minute=position.at_minute,
                source_rows=source.count_until(position.time),
                restored=begun.restored + taken.restored,
                not_restored=begun.not_restored + taken.not_restored,
                forgotten=begun.forgotten + reading.left_out(first, last),
            )
            self._progress_tag = self.day.write_progress(self.progress, self._progress_tag)
            if part.rows >= _COLLECT_ROWS:
                gc.collect()
            self.got_on = True
        reading.check()
        self.progress = replace(self.progress, forgotten=begun.forgotten + reading.left_out(first))

    def _write(self, runs: Iterable[Iterator[Batch]], size: int) -> Iterator[Part]:
        """Write part files; no part has rows of two runs."""
        begun = self.progress
        for batches in runs:
            first = len(self.progress.parts)
            yield from self.day.write(batches, begun.columns, begun.revision, size=size, first=first)

    def commit(self, found: _Found) -> Export:
        """Commit the manifest that names the parts; the known one stays if it has the same rows.

        Raises:
            OutOfTimeError: If the invocation ends before the known parts are read.
            OvertakenError: If another attempt has committed the day.
        """
        made, job, forgotten = self.progress, found.job, found.forgotten()
        before, others = self.parts(job.hours)
        # A store that writes hours shortens no row: these counts are of rows that the files had before.
        counts = self.known if job.hours and self.known else made
        manifest = Manifest(
            self.day.date,
            made.revision,
            made.columns,
            made.parts,
            self.day.kind,
            restored=counts.restored,
            not_restored=counts.not_restored,
            forgotten=counts.forgotten,
            partial_since=found.since or (self.known.partial_since if self.known else None),
            day_was_over=found.is_day_over and not job.hours,
            forgotten_list=forgotten.digest if forgotten else "",
        )

        def are_whole(parts: Iterable[Part]) -> bool:
            return all(self.day.is_whole(part, lambda: _check_time(job)) for part in parts)

        known = self.known and replace(self.known, parts=tuple(before))
        manifest = manifest.succeeding(known, are_whole)
        if job.hours:
            parts = sorted((*others, *manifest.parts), key=lambda part: part.first_time)
            hours = {**(self.known.hours if self.known else {}), **job.hours}
            manifest = replace(manifest, parts=tuple(parts), hours=hours)
        if manifest == self.known:
            self.day.list_files(job.now())
            self.day.discard(made, self._progress_tag)
            if self._abandoned:
                self.day.retire(self._abandoned, job.now())  # who wrote them may yet commit them
        else:
            if self.known is not None and manifest.revision != self.known.revision:
                self.day.retire(before, job.now())
            self.day.commit(manifest, self.tag, job.now())
        self.day.tidy(job.now())
        return Export(manifest, kept=False)


class _Taken:
    """The items that files get: without the first ones, which are in parts already.

    Args:
        items: The items.
        skip: How many of the first rows are left out.
        renew: Is called before each item: it keeps the day's lock, or raises that another has it.
    """

    def __init__(self, items: Iterator[_Rows], skip: int, renew: Callable[[], None]) -> None:
        self._items, self._skip, self._renew = items, skip, renew
        self.restored = self.not_restored = 0

    def batches(self) -> Iterator[Batch]:
        """Yield the rows, and keep how many of them were made whole."""
        restored = not_restored = 0
        for item in self._items:
            self._renew()
            rows = item.batch.rows
            if self._skip >= len(rows):
                self._skip -= len(rows)
                restored, not_restored = item.restored, item.not_restored
                continue
            self.restored, self.not_restored = item.restored - restored, item.not_restored - not_restored
            yield Batch(rows[self._skip :], item.batch.empties) if self._skip else item.batch
            self._skip = 0


def _write(writing: list[_Files], found: _Found) -> list[Export | Exception]:
    """Write a day's rows in all formats that need it, and return what became of each."""
    first = writing[0].day
    there = found.store.columns(first.date) if found.tally else ()
    forgotten, job, unchanged = found.forgotten(), found.job, found.unchanged
    source = Source(first, found.store, found.tally, there, forgotten, job.slice_rows, unchanged)
    columns = _columns(source, [files.known for files in writing])
    if any(files.known and files.known.columns != columns and files.parts(job.hours)[1] for files in writing):
        raise NewColumnsError
    if unchanged is not None and unchanged.manifest.columns != columns:
        return [NewColumnsError()] * len(writing)
    order = _order(job, forgotten, unchanged, is_day_over=found.is_day_over)
    outcomes: dict[_Files, Export | Exception] = {}
    begun: list[_Files] = []
    for files, error in zip(
        writing, _try_each(lambda files: files.begin(source, columns, order), writing), strict=True
    ):
        if error is None:
            begun.append(files)
        else:
            outcomes[files] = error
    for files, error in zip(begun, _write_parts(begun, source, job) if begun else (), strict=True):
        outcomes[files] = error or _try_each(lambda files: files.commit(found), [files])[0]
    return [outcomes[files] for files in writing]


def _columns(source: Source, known: Sequence[Manifest | None]) -> tuple[Column, ...]:
    """Return the columns of a day's files: those that they have, and others up to the last in use.

    So a day that is written again is the same, even if other days have brought columns since. All formats
    have the same columns.
    """
    has = max((manifest.columns for manifest in known if manifest), key=len, default=())
    if not source.there:
        return has
    # A table that was created again may have other types than the lake: a day's files have their rows' types.
    types = {column.name: column.type for column in source.there}
    columns = tuple(
        Column(name, types.get(name, type_))
        for name, type_ in extend_lake_columns(source.day.objects, source.there)
    )
    if not has or has != columns[: len(has)]:
        return columns
    behind = [column.name for column in columns[len(has) :]]
    asked = [name for name in behind if name in types]
    filled = source.store.filled(source.day.date, asked) if asked else set()
    last = max((number for number, name in enumerate(behind, 1) if name in filled), default=0)
    return columns[: len(has) + last]


def _write_parts(writing: list[_Files], source: Source, job: DayJob) -> list[Exception | None]:
    """Write the parts that are missing of each format, side by side, and return what stopped each."""
    base = min((files.progress for files in writing), key=lambda progress: progress.rows)
    reading = Reading(source, base.columns, base.time, base.at_minute)
    with ThreadPoolExecutor(_FETCHERS) as pool:
        objects = source.day.objects
        whole = WholeRows(base.columns, lambda keys: pool.map(objects.get, keys), job.plans)
        items = _timed(whole, reading, job)

        def consumer(files: _Files) -> Callable[[Iterator[_Rows]], None]:
            return lambda items: files.write(items, reading, source, job, files.progress.rows - base.rows)

        return fan_out(items, [consumer(files) for files in writing])


def _timed(whole: WholeRows, reading: Reading, job: DayJob) -> Iterator[_Rows]:
    """Yield rows as long as there is time.

    Raises:
        OutOfTimeError: If the time left is too short for another batch.
    """
    for batch in whole.batches(ahead(reading.pages())):
        yield _Rows(batch, whole.restored, whole.not_restored)
        _check_time(job)


def _check_time(job: DayJob) -> None:
    """Make sure that there is time to go on.

    Raises:
        OutOfTimeError: If the invocation ends soon.
    """
    if job.seconds_left() < LEAST_SECONDS:
        raise OutOfTimeError
