"""A day with very many rows is written hour by hour, while it lasts; only changed hours are written again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from exporter.export.day import DayJob, Export, NewColumnsError, OutOfTimeError, export_formats
from exporter.lake.closed import close_hours
from exporter.lake.days import Day
from exporter.lake.hours import HoursOfDay, window
from exporter.lake.locks import OvertakenError
from exporter.lake.manifest import Manifest
from exporter.store import Hour, Store

# A day with more rows is written hour by hour: one invocation writes about twice as many in its 15 minutes.
LARGE_ROWS: Final = 20_000_000
_HOURS: Final = 24


def is_by_hours(hours: dict[int, Hour], known: Manifest | None, limit: int = LARGE_ROWS) -> bool:
    """Tell whether a day is written hour by hour.

    Args:
        hours: What the store has of it.
        known: What the lake has of it; None for nothing.
        limit: The most rows of a day that is written at once.
    """
    return max(sum(hour.rows for hour in hours.values()), known.rows if known else 0) > limit


def write_hours(
    days: Sequence[Day], store: Store, job: DayJob, until: int = _HOURS
) -> list[Exception | None]:
    """Write the hours of a day that have changed, one after the other, in several formats.

    SQL reads the hours from parts as soon as all formats have them, the fragments' readers as before.

    Args:
        days: The same day in each format. The caller has their locks.
        store: The store that has the rows.
        job: How the day is written.
        until: How many of the day's first hours are over.

    Returns:
        What stopped each format; None for one that is done.

    Raises:
        OutOfTimeError: If the invocation ends before that: called again, it resumes.
    """
    hours = {hour: each.made_of for hour, each in store.hours(days[0].date).items() if hour < until}
    stopped: dict[Day, Exception] = {}
    written = [HoursOfDay(day) for day in days]
    for each in written:
        each.begin()
    got_on = False
    while changed := [
        (hour, each) for each in written if each not in stopped for hour in _changed(hours, each.manifest())
    ]:
        first = min(hour for hour, _ in changed)
        writing = [each for hour, each in changed if hour == first]
        span = window([each.manifest() for each in writing], first)
        try:
            outcomes = _write(writing, store, job, hours, span)
        except OutOfTimeError as error:
            raise OutOfTimeError(got_on=got_on or error.got_on) from None
        failed = zip(writing, outcomes, strict=True)
        stopped |= {each: outcome for each, outcome in failed if isinstance(outcome, Exception)}
        got_on = True
    for each in written:
        each.list_files(job.now())  # a run that was killed may not have
    if not stopped and written[0].is_new():
        close_hours(days[0].objects, days[0].date, until)
    return [stopped.get(each) for each in written]


def _changed(hours: dict[int, str], known: Manifest | None) -> list[int]:
    """Return the hours that are made of something else than what is written of them."""
    before = known.hours if known else {}
    return [hour for hour, made_of in hours.items() if before.get(hour) != made_of]


def _write(
    days: Sequence[Day], store: Store, job: DayJob, hours: dict[int, str], span: range
) -> list[Export | Exception]:
    """Write some hours, or all up to now if they have columns that the others were written without."""
    try:
        return export_formats(days, store.within(span), _job_of(job, hours, span))
    except NewColumnsError:
        span = range(max(*hours, *span) + 1)
        return export_formats(days, store.within(span), _job_of(job, hours, span))


def _job_of(job: DayJob, hours: dict[int, str], span: range) -> DayJob:
    return replace(job, hours={hour: hours.get(hour, "") for hour in span})


def commit_hours(day: Day, store: Store, job: DayJob) -> Export | OvertakenError:
    """Commit a day whose hours are all written; return the error if another attempt has committed the day."""
    known, tag = day.committed()
    hours = HoursOfDay(day).manifest()
    assert hours is not None
    partial_since = known.partial_since if known else store.whole_since(day.date, job.now())
    manifest = replace(hours, partial_since=partial_since)
    if known is None:
        manifest = replace(manifest, revision=1)
    elif (known.parts, known.columns) == (manifest.parts, manifest.columns):
        manifest = replace(manifest, revision=known.revision)
    else:
        manifest = replace(manifest, revision=known.revision + 1)
        day.retire([part for part in known.parts if part not in manifest.parts], job.now())
    try:
        day.commit(manifest, tag, job.now())
    except OvertakenError as error:
        return error
    day.tidy(job.now())
    return Export(manifest, kept=False)
