"""A run: the days that an event asks for, written one by one, by as many invocations as it takes."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import date, datetime, timedelta
from typing import Any

from consumers.asked_days import BY_HAND, days_of
from consumers.bucket import Objects
from consumers.rows import late_days
from exporter.export.day import LEAST_SECONDS, DayJob, Export, OutOfTimeError, export_day
from exporter.lake.days import Day, days_with_replaced_files
from exporter.lake.formats import Format
from exporter.stores.metered import Metered

# Lambda itself stops a chain of 16: https://docs.aws.amazon.com/lambda/latest/dg/invocation-recursion.html
MAX_CONTINUATIONS = 12
# A continuation carries late markers in its event, whose size is limited; the others are for the next run.
MAX_LATE_KEYS = 1_000
# The name of the schedule's marker: the night that writes the day removes it.
NIGHTLY = "nightly"


class StuckError(RuntimeError):
    """A day does not get further, however often it is resumed; the message tells how far it is."""


@dataclass(frozen=True, slots=True)
class Run:
    """What is left to do, and as whom: an invocation hands it to the next as its event.

    Attributes:
        id: What locks know it by: the request id of its first invocation.
        days: The days that are left; the first may be begun.
        late: The markers that ask for a day, by day: removed when it is written.
        replaced: Whether days with replaced files are tidied up afterwards.
        continuations: How many invocations there were before.
        waited_for: Whether the caller invokes the function again, instead of the function itself.
        failed: Which days failed before, and why; the last invocation raises it.
    """

    id: str
    days: tuple[date, ...]
    late: Mapping[str, list[str]] = field(default_factory=dict)
    replaced: bool = False
    continuations: int = 0
    waited_for: bool = False
    failed: tuple[str, ...] = ()

    def to_event(self) -> dict[str, Any]:
        """Return the event that continues the run."""
        return {"run": asdict(self) | {"days": [day.isoformat() for day in self.days]}}

    @classmethod
    def from_event(cls, event: dict[str, Any]) -> Run:
        """Return the run that an event of `to_event` continues."""
        read = event["run"]
        days = tuple(date.fromisoformat(day) for day in read["days"])
        return cls(**read | {"days": days, "failed": tuple(read["failed"])})


def run_of(
    event: dict[str, Any], objects: Objects, request_id: str, now: datetime, settles_after: timedelta
) -> Run:
    """Return what an event asks for. The schedule's event also asks for the days to which rows came late.

    Args:
        event: The function's event.
        objects: The bucket.
        request_id: The invocation's request id.
        now: The time.
        settles_after: How long after it was written a row can be asked for at the latest.

    Raises:
        ValueError: If the event's days cannot be read.
    """
    if "run" in event:
        return Run.from_event(event)
    days = tuple(days_of(event, now))
    by_hand = bool(BY_HAND & event.keys())
    late = _late_markers(objects, now - settles_after)
    if not by_hand:
        # Whatever becomes of this run, each night is asked for the day until it is written.
        marker = late_days.marker_key(days[0], NIGHTLY, NIGHTLY)
        objects.put(marker, [], "text/plain")
        late[days[0]].add(marker)
    # A day that is not over is written when it is.
    wanted = [day for day in sorted(late) if (day in days if by_hand else day <= days[-1])]
    share = MAX_LATE_KEYS // max(1, len(wanted))
    return Run(
        request_id,
        days if by_hand else (*days, *(day for day in wanted if day not in days)),
        {day.isoformat(): sorted(late[day])[:share] for day in wanted},
        replaced=not by_hand,
        waited_for=bool(event.get("wait")),
    )


def _late_markers(objects: Objects, before: datetime) -> defaultdict[date, set[str]]:
    """Return the days that the store was written to late, each with the markers that its export answers.

    The store may not answer yet with rows of a marker that was written after `before`: that is for the next
    run, too.
    """
    late: defaultdict[date, set[str]] = defaultdict(set)
    for found in objects.listed(late_days.PREFIX):
        with suppress(ValueError):  # an object that others have put there
            markers = late[late_days.marker_day(found.key)]
            if found.modified <= before:
                markers.add(found.key)
    return late


@dataclass(frozen=True, slots=True)
class Exporter:
    """Writes the days of runs.

    Attributes:
        store: The store that has the rows.
        objects: The lake's bucket.
        formats: The files' formats; the store is asked for each.
        job: How days are written.
        report: Is given what became of each day.
    """

    store: Metered
    objects: Objects
    formats: tuple[Format, ...]
    job: DayJob
    report: Callable[[Export], None]

    def write(self, run: Run, seconds_left: Callable[[], float], done: list[dict[str, Any]]) -> Run:
        """Write a run's days as long as there is time, and return what is left.

        Args:
            run: The run.
            seconds_left: How long the invocation has.
            done: Gets a summary of each day in each format.

        Raises:
            StuckError: If the run does not get further.
        """
        failed = list(run.failed)
        for place, day in enumerate(run.days):
            try:
                if seconds_left() < LEAST_SECONDS:
                    raise OutOfTimeError  # noqa: TRY301 - a day is begun as it is resumed
                self._write_day(day, run, seconds_left, done)
            except OutOfTimeError as error:
                left = replace(
                    run, days=run.days[place:], continuations=run.continuations + 1, failed=tuple(failed)
                )
                _ensure_it_ends(left, got_on=error.got_on or bool(done) or run.continuations == 0)
                return left
            except Exception as error:  # noqa: BLE001 - one day's failure is not the other days'
                failed.append(f"{day}: {type(error).__name__}: {error}")
        return replace(run, days=(), failed=tuple(failed))

    def _write_day(
        self, date: date, run: Run, seconds_left: Callable[[], float], done: list[dict[str, Any]]
    ) -> None:
        """Write a day in all formats, and remove the markers that asked for it."""
        markers = run.late.get(date.isoformat(), [])
        job = replace(
            self.job,
            order=hashlib.blake2b("\n".join(sorted(markers)).encode(), digest_size=8).hexdigest(),
            late=sum(not marker.endswith(NIGHTLY) for marker in markers),
            seconds_left=seconds_left,
        )
        is_locked = False
        for kind in self.formats:
            day, now = Day(self.objects, date, kind), job.now()
            if not day.lock.take(run.id, now, now + timedelta(seconds=seconds_left())):
                is_locked = True
                done.append({"day": date.isoformat(), "format": kind, "locked": True})
                continue
            before = replace(self.store.spent)
            try:
                export = export_day(day, self.store, job)
            except OutOfTimeError:
                raise  # the run keeps the day's lock
            except BaseException:
                day.lock.release(run.id)
                raise
            day.lock.release(run.id)
            export = replace(export, spent=self.store.spent.since(before))
            self.report(export)
            done.append(export.summary())
        if not is_locked:
            self.objects.delete(markers)

    def tidy_up(self, run: Run) -> None:
        """Remove replaced files of days that nobody has written since, if their time of grace is over."""
        for day in list(days_with_replaced_files(self.objects)):
            now = self.job.now()
            if day.lock.take(run.id, now, now + timedelta(seconds=LEAST_SECONDS)):
                day.tidy(now)
                day.lock.release(run.id)


def _ensure_it_ends(left: Run, *, got_on: bool) -> None:
    """Make sure that a chain of invocations ends.

    Raises:
        StuckError: If it has become too long, or its last invocation wrote nothing that is kept.
    """
    if not got_on:
        raise StuckError(
            f"{left.days[0]}: not one part was written in a whole invocation; give the function more memory"
        )
    if left.continuations > MAX_CONTINUATIONS:
        raise StuckError(
            f"{left.days[0]}: not done after {MAX_CONTINUATIONS} continuations; what is written is kept, "
            "export the day again to go on"
        )
