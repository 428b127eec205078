"""Rows of minutes that have not changed come from the lake's own files: the store is asked for the others."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta

from botocore.exceptions import BotoCoreError, ClientError

from consumers.rows import late_days
from exporter.lake.days import Day
from exporter.lake.manifest import Manifest, Part
from exporter.store import (
    MINUTES,
    TIME,
    Span,
    Tally,
    Values,
    minute_ranges,
    minutes_of,
    places,
    slices,
)

# The consumer marks rows that it stores after their day. A batch that began before midnight marks none, and
# ends within the time-out of its function, two minutes.
_UNMARKED = timedelta(minutes=10)
# So many batches have changed most of a day; each marker is a request.
_MAX_MARKERS = 1_000

GetAll = Callable[[list[str]], Iterable[bytes | None]]


class UnusableFilesError(Exception):
    """A file of the lake is missing, archived or damaged; the message names it."""


@dataclass(frozen=True, slots=True)
class Unchanged:
    """What of a day the store is not asked for: the minutes that are in no marker.

    Attributes:
        day: The day in the format whose files are read instead.
        manifest: What names them.
        changed: The other minutes.
    """

    day: Day
    manifest: Manifest
    changed: frozenset[int]

    @property
    def hours(self) -> range:
        """The hours from the first minute that changed to the last."""
        return range(min(self.changed) // 60, max(self.changed) // 60 + 1)

    def spans(self, tally: Tally, limit: int) -> Iterator[tuple[Span, bool]]:
        """Yield the spans of the day in order, each with whether the store is asked for it.

        Args:
            tally: How many rows each minute has.
            limit: The most rows that the store is asked for at once.
        """
        day, end = self.day.date, 0
        for asked in minute_ranges(self.changed, tally, limit):
            if end < asked.start:
                yield minutes_of(day, range(end, asked.start)), False
            for span in slices(day, tally, limit, asked):
                yield span, True
            end = asked.stop
        if end < MINUTES:
            yield minutes_of(day, range(end, MINUTES)), False


def find_unchanged(
    days: Sequence[Day],
    manifests: Sequence[tuple[Manifest | None, str | None]],
    forgotten: str,
    get_all: GetAll,
) -> Unchanged | None:
    """Return what of a day need not be asked for, or None if the store is asked for the whole day.

    The markers name the minutes of all rows that were stored since the files were written, new rows and
    higher versions alike. That holds if

    - the store was asked for the files' rows when the day was over: earlier rows left no marker;
    - the files leave out no forgotten clients, whom the store still counts, and the list of them is the same;
    - the files have the values of rows as the store has them: text does, for all formats;
    - every marker names minutes: the schedule's do not, nor those of nights that failed;
    - the markers were there when the manifest was still the same: an export removes them after it commits.

    Args:
        days: The day in the formats that are written.
        manifests: What the lake has of each, with its tag.
        forgotten: The digest of the list of forgotten clients; empty without one.
        get_all: Gets objects by their keys, in order.
    """
    for day, (manifest, tag) in zip(days, manifests, strict=True):
        if (
            manifest is not None
            and manifest.parts
            and manifest.day_was_over
            and not manifest.forgotten
            and manifest.forgotten_list == forgotten
            and (day.kind.rules.rewritten or all(each.kind == day.kind for each in days))
        ):
            changed = _changed_minutes(day, get_all)
            if not changed or day.committed()[1] != tag:
                return None
            return Unchanged(day, manifest, changed)
    return None


def _changed_minutes(day: Day, get_all: GetAll) -> frozenset[int]:
    """Return the minutes that a day's markers name; none if one of them names none."""
    keys = list(day.objects.keys(f"{late_days.PREFIX}{day.date}/"))
    if len(keys) > _MAX_MARKERS:
        return frozenset()
    named = [late_days.marker_minutes(body or b"") for body in get_all(keys)]
    return frozenset().union(*(minutes or () for minutes in named)) if all(named) else frozenset()


def is_over(day: date, now: datetime) -> bool:
    """Tell whether a day is over, and with it the batches that mark none of its rows.

    Args:
        day: The day in UTC.
        now: The time.
    """
    return now >= datetime.combine(day, time(tzinfo=UTC)) + timedelta(days=1) + _UNMARKED


class KeptRows:
    """The rows of a day's files.

    Args:
        unchanged: The day.
        spans: Of which rows are wanted; files without any are not read.
    """

    def __init__(self, unchanged: Unchanged, spans: Sequence[Span]) -> None:
        self._day, self._manifest = unchanged.day, unchanged.manifest
        self._when = places(unchanged.manifest.columns)[TIME]
        self._pages = self._read(
            [
                part
                for part in unchanged.manifest.parts
                if any(part.first_time < span.end and part.last_time >= span.start for span in spans)
            ]
        )
        self._rest: list[Values] = []

    def pages(self, span: Span) -> Iterator[list[Values]]:
        """Yield the rows of a span, which is after those of earlier calls.

        Raises:
            UnusableFilesError: If a file cannot be read, or is not as the manifest describes it.
        """
        while page := self._rest or next(self._pages, []):
            first = bisect_left(page, span.start, key=self._time)
            end = bisect_left(page, span.end, key=self._time)
            self._rest = page[end:]
            if first < end:
                yield page[first:end]
            if self._rest:
                return

    def _time(self, row: Values) -> str:
        return row[self._when] or ""

    def _read(self, parts: Sequence[Part]) -> Iterator[list[Values]]:
        for part in parts:
            try:
                # Rows go into other files before the last of them is read.
                if not self._day.is_whole(part, lambda: None):
                    raise UnusableFilesError(part.key)
                for batch in self._day.rows(replace(self._manifest, parts=(part,))):
                    yield batch.rows
            except (ValueError, OSError, ClientError, BotoCoreError) as error:
                raise UnusableFilesError(f"{part.key}: {error}") from error
