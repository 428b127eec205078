"""The hours of a day that are written before the day is: readers of days do not look for their manifest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import groupby

from exporter.lake.batch import Batch
from exporter.lake.days import Day
from exporter.lake.manifest import HOURS, Manifest, Part
from exporter.store import TIME, Column, Values, places


class HoursOfDay(Day):
    """The hours of a day in one format; the day's lock is theirs.

    Args:
        day: The day.
    """

    _document = HOURS

    def __init__(self, day: Day) -> None:
        super().__init__(day.objects, day.date, day.kind)
        self.lease = day.lease
        self._day = day

    def begin(self) -> None:
        """Begin with the files of a day that is exported already."""
        found = self._day.document()
        if found is not None and self.document() is None:
            self.objects.replace(self._folder + HOURS, found, None)

    def is_new(self) -> bool:
        """Tell whether the day was never exported: these hours are what the tables have of it."""
        return self._day.document() is None

    def list_files(self, now: datetime) -> None:
        """Write the file list that the tables read, unless the whole day has one."""
        if self.is_new():
            super().list_files(now)

    def drop_hours(self) -> None:
        """Keep the manifest of hours: it is what is committed here."""


def written_of(day: Day) -> Day:
    """Return the hours of a day that is not written itself, or else the day.

    What reads only needs no lock: a manifest that is replaced meanwhile has another tag.
    """
    hours = HoursOfDay(day)
    return hours if hours.is_new() and hours.document() is not None else day


def window(manifests: Iterable[Manifest | None], hour: int) -> range:
    """Return the hours that are written with an hour: those of all files that have rows of it, too.

    Args:
        manifests: The day's in each format; None for a format without files.
        hour: From 0 to 23.
    """
    spans = [hours_of_part(part) for manifest in manifests if manifest for part in manifest.parts]
    first, last = hour, hour
    while touching := [
        span
        for span in spans
        if span[0] <= last and span[1] >= first and not first <= span[0] <= span[1] <= last
    ]:
        first = min(first, *(span[0] for span in touching))
        last = max(last, *(span[1] for span in touching))
    return range(first, last + 1)


def hours_of_batches(batches: Iterable[Batch], columns: Iterable[Column]) -> Iterator[Iterator[Batch]]:
    """Yield the batches of each hour; a batch of several hours is cut.

    Args:
        batches: The rows by time.
        columns: Their columns.
    """
    when = places(columns)[TIME]

    def hour(row: Values) -> str:
        return (row[when] or "")[:13]

    def cut() -> Iterator[Batch]:
        for batch in batches:
            if hour(batch.rows[0]) == hour(batch.rows[-1]):
                yield batch
            else:
                yield from (Batch(list(rows), batch.empties) for _, rows in groupby(batch.rows, key=hour))

    return (run for _, run in groupby(cut(), key=lambda batch: hour(batch.rows[0])))


def hours_of_part(part: Part) -> tuple[int, int]:
    """Return the hours of a part's first and last row, from 0 to 23."""
    return int(part.first_time[11:13]), int(part.last_time[11:13])
