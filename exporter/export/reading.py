"""The rows of a day, read from the store for its files, and held against the store's own count."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from consumers.errors import TaglineError
from consumers.rows.table import OVERFLOW, SAID
from exporter.export.kept_rows import KeptRows, Unchanged
from exporter.lake.batch import Batch
from exporter.lake.days import Day
from exporter.lake.forgotten import CLIENT, Forgotten, forgotten_until, is_before
from exporter.lake.overflow import is_whole_record
from exporter.store import (
    MINUTES,
    SLICE_ROWS,
    TIME,
    Column,
    Span,
    Store,
    Tally,
    Values,
    minute,
    minutes_of,
    places,
    slices,
)

# How many minutes an error message names.
_NAMED = 5


class RowsMissingError(TaglineError, RuntimeError):
    """The store returned fewer rows than it had counted; the message names the minutes."""


@dataclass(frozen=True, slots=True)
class Source:
    """The rows of a day before any is read.

    Attributes:
        day: The day in one of its formats.
        store: The store that has the rows.
        tally: How many rows each minute has.
        there: The columns that the store has for the day.
        forgotten: The clients whose rows are left out; None for no client.
        slice_rows: The most rows that the store is asked for at once.
        unchanged: What the store is not asked for, because the lake has it; None for nothing.
    """

    day: Day
    store: Store
    tally: Tally
    there: tuple[Column, ...]
    forgotten: Forgotten | None
    slice_rows: int = SLICE_ROWS
    unchanged: Unchanged | None = None

    def spans(self) -> Iterable[tuple[Span, bool]]:
        """Return the spans of the day in order, each with whether the store is asked for it."""
        if self.unchanged is not None:
            # The tally may be of the hours that changed alone, and empty if all their rows are forgotten.
            return self.unchanged.spans(self.tally, self.slice_rows)
        if not self.tally:
            return ()
        return ((span, True) for span in slices(self.day.date, self.tally, self.slice_rows))

    def count_until(self, time: str) -> int:
        """Return how many rows there are up to the end of a time's minute."""
        last = minute(time)
        return sum(count for each, count in self.tally.items() if each <= last)


class Reading:
    """One pass over a day's rows, from the beginning of a minute on.

    It counts per minute what it reads and what it leaves out: `left_out` and `check` compare with the store's
    tally. Pages may be read in another thread, ahead of what is written.

    Args:
        source: The rows.
        columns: The columns of the files.
        after: The time of the last row that is written; the pass begins with that row's minute.
        skip: How many rows of that minute are written.
    """

    def __init__(self, source: Source, columns: tuple[Column, ...], after: str = "", skip: int = 0) -> None:
        self._source = source
        self._columns = columns
        self._first = minute(after) if after else 0
        self._skip = skip
        self._read = [0] * MINUTES
        self._left_out = [0] * MINUTES

    def pages(self) -> Iterator[list[Values]]:
        """Yield the rows that are not written yet, in the order of the files' columns."""
        source = self._source
        has = {column.name for column in source.there}
        asked = tuple(column for column in self._columns if column.name in has)
        start, skip = minutes_of(source.day.date, range(self._first, MINUTES)).start, self._skip
        spans = [
            (Span(max(span.start, start), span.end), is_asked)
            for span, is_asked in source.spans()
            if span.end > start
        ]
        of_files = [span for span, is_asked in spans if not is_asked]
        kept = KeptRows(source.unchanged, of_files) if source.unchanged else None
        for span, is_asked in spans:
            if kept is not None and not is_asked:
                pages = kept.pages(span)
            else:
                pages = source.store.rows(span, asked).pages
                if asked != self._columns:
                    pages = _widened(pages, asked, self._columns)
            pages = self._counted(pages)
            if source.forgotten is not None:
                pages = self._without(source.forgotten, pages)
            for page in pages:
                yield page[skip:] if skip else page
                skip -= min(skip, len(page))

    def left_out(self, first: int, until: int = MINUTES) -> int:
        """Return how many rows of forgotten clients were left out, from a minute of the day up to another."""
        return sum(self._left_out[first:until])

    def check(self, until: int = MINUTES) -> None:
        """Compare what was read with the tally, before a minute of the day.

        A row that came since the tally was taken is one more, which is not a fault.

        Raises:
            RowsMissingError: If the store returned fewer rows of a minute than it had counted.
        """
        tally = self._source.tally
        missing = {
            each: tally[each] - self._read[each]
            for each in sorted(tally)
            if self._first <= each < until and self._read[each] < tally[each]
        }
        if missing:
            named = ", ".join(f"{each // 60:02}:{each % 60:02}" for each in list(missing)[:_NAMED])
            raise RowsMissingError(
                f"the store returned {sum(missing.values()):,} rows fewer than it had counted, in "
                f"{len(missing):,} minutes ({named}{', ...' if len(missing) > _NAMED else ''}): the day is "
                "not committed; export it again"
            )

    def _counted(self, pages: Iterable[list[Values]]) -> Iterator[list[Values]]:
        when = places(self._columns)[TIME]
        for page in pages:
            count_minutes(page, when, self._read)
            yield page

    def _without(self, forgotten: Forgotten, pages: Iterable[list[Values]]) -> Iterator[list[Values]]:
        """Yield the rows of clients that are not forgotten; whole records of the others are removed."""
        place = places(self._columns)
        client, said, overflow = (place.get(name) for name in (CLIENT, SAID, OVERFLOW))
        assert client is not None
        until_of = forgotten_until(forgotten)
        when = place[TIME]
        for page in pages:
            kept: list[Values] = []
            removed: list[Values] = []
            for row in page:
                until = until_of(row[client], None if said is None else row[said])
                is_removed = until > 0 and is_before(row[when], until)
                (removed if is_removed else kept).append(row)
            count_minutes(removed, when, self._left_out)
            if overflow is not None:
                keys = [key for row in removed if is_whole_record(key := row[overflow])]
                self._source.day.objects.delete(keys)
            yield kept


def count_minutes(rows: list[Values], when: int, counts: list[int]) -> None:
    """Add to each minute's count how many of these rows it has.

    Args:
        rows: Rows in order of time.
        when: The place of the time.
        counts: A count for each minute of the day.
    """
    start = 0
    while start < len(rows):
        first = rows[start][when] or ""
        end = _end_of_minute(rows, when, start)
        counts[minute(first)] += end - start
        start = end


def rows_of_last_minute(rows: list[Values], when: int) -> int:
    """Return how many of these rows, which are in order of time, are of the same minute as the last one."""
    last = (rows[-1][when] or "")[:16]
    if (rows[0][when] or "")[:16] == last:
        return len(rows)
    return len(rows) - bisect_left(rows, last, key=lambda row: (row[when] or "")[:16])


def _end_of_minute(rows: list[Values], when: int, start: int) -> int:
    """Return where the minute of a row ends."""
    prefix = (rows[start][when] or "")[:16]
    if (rows[-1][when] or "")[:16] == prefix:
        return len(rows)
    return bisect_right(rows, prefix, lo=start, key=lambda row: (row[when] or "")[:16])


def _widened(
    pages: Iterable[list[Values]], has: tuple[Column, ...], wanted: tuple[Column, ...]
) -> Iterator[list[Values]]:
    """Yield rows with a place for columns that the store does not have."""
    place_of = places(has)
    taken = [place_of.get(column.name) for column in wanted]
    for page in pages:
        yield [[None if place is None else row[place] for place in taken] for row in page]


class Position:
    """How far rows have been passed on: the last row's time, and how many rows of its minute.

    Args:
        columns: The columns of the rows.
        time: The time of the last row that is written.
        at_minute: How many rows of its minute are written.
        rows: How many rows are written.
    """

    def __init__(
        self, columns: tuple[Column, ...], time: str = "", at_minute: int = 0, rows: int = 0
    ) -> None:
        self.time, self.at_minute, self.rows = time, at_minute, rows
        self._when = places(columns).get(TIME, 0)

    def passing(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Yield batches, and keep where they end."""
        for batch in batches:
            last = batch.rows[-1][self._when] or ""
            at_minute = rows_of_last_minute(batch.rows, self._when)
            if at_minute == len(batch.rows) and last[:16] == self.time[:16]:
                at_minute += self.at_minute
            self.time, self.at_minute = last, at_minute
            self.rows += len(batch.rows)
            yield batch
