"""A run: the days that an event asks for, written one by one, by as many invocations as it takes."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import date, datetime, timedelta
from typing import Any

from consumers.asked_days import BY_HAND, days_of
from consumers.bucket import Objects
from consumers.rows import late_days
from exporter.export.day import LEAST_SECONDS, DayJob, Export, OutOfTimeError, export_formats
from exporter.export.hourly import LARGE_ROWS, commit_hours, is_by_hours, write_hours
from exporter.lake.athena import days_to_list
from exporter.lake.closed import close_day
from exporter.lake.days import Day, dates_of_files, days_to_tidy
from exporter.lake.formats import Format
from exporter.lake.locks import OvertakenError
from exporter.store import Days
from exporter.stores.metered import Metered, Spent

# Lambda itself stops a chain of 16: https://docs.aws.amazon.com/lambda/latest/dg/invocation-recursion.html
MAX_CONTINUATIONS = 12
# A continuation carries late markers in its event, whose size is limited; the others are for the next run.
MAX_LATE_KEYS = 1_000
# The names of the markers that no late row has left: the schedule's, and one for each night that failed.
NIGHTLY, FAILED = "nightly", "failed"
# The key of the event by which the schedule asks for the hours of today that are over.
HOURLY = "hours"
# A day that failed on so many nights is given up.
NIGHTS = 7


# No day is older.
_EPOCH = date(1970, 1, 1)


class StuckError(RuntimeError):
    """A day does not get further, however often it is resumed; the message tells how far it is."""


@dataclass(frozen=True, slots=True)
class Run:
    """What is left to do, and as whom: an invocation hands it to the next as its event.

    Attributes:
        id: What locks call it: the request id of its first invocation.
        days: The days that are left; the first may be begun.
        late: The markers that ask for a day, by day: removed when it is written.
        nightly: Whether the schedule asked for it: days with replaced files are tidied up afterwards, and
            days that fail are tried again by the next night.
        continuations: How many invocations there were before.
        waited_for: Whether the caller invokes the function again, instead of the function itself.
        failed: Why days failed before, by day; the last invocation reports them.
        formats: The formats that are left of the first day; empty for all.
        leases: The tokens of the first day's locks, by format: the next invocation exchanges them.
        scanned: How many bytes the store has read for it.
        hourly: Whether only hours of a day are written that are over, if the day has very many rows. A day
            that a marker asks for is written whole.
    """

    id: str
    days: tuple[date, ...]
    late: Mapping[str, list[str]] = field(default_factory=dict)
    nightly: bool = False
    continuations: int = 0
    waited_for: bool = False
    failed: Mapping[str, str] = field(default_factory=dict)
    formats: tuple[str, ...] = ()
    leases: Mapping[str, str] = field(default_factory=dict)
    scanned: int = 0
    hourly: bool = False

    def to_event(self) -> dict[str, Any]:
        """Return the event that continues the run."""
        return {"run": asdict(self) | {"days": [day.isoformat() for day in self.days]}}

    @classmethod
    def from_event(cls, event: dict[str, Any]) -> Run:
        """Return the run that an event of `to_event` continues.

        Raises:
            ValueError: If the event names objects that are not markers of its days: a run removes them.
        """
        read = event["run"]
        days = tuple(date.fromisoformat(day) for day in read["days"])
        for day, markers in read["late"].items():
            for marker in markers:
                if late_days.marker_day(marker) != date.fromisoformat(day):
                    raise ValueError(
                        f"{marker!r} is not a marker of {day}: late markers are under late/{day}/"
                    )
        return cls(**read | {"days": days, "formats": tuple(read["formats"])})


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
    late = _late_markers(objects, now - settles_after)
    if HOURLY in event:
        missed = sorted(day for day, markers in late.items() if day < now.date() and _is_missed(markers))
        return Run(request_id, (*missed, now.date()), _markers(late, missed), hourly=True)
    days = tuple(days_of(event, now))
    by_hand = bool(BY_HAND & event.keys())
    if not by_hand:
        # Whatever becomes of this run, each night is asked for the day until it is written.
        marker = late_days.marker_key(days[0], NIGHTLY, NIGHTLY)
        objects.put(marker, [], "text/plain")
        late[days[0]].add(marker)
    # A day that is not over is written when it is.
    wanted = [day for day in sorted(late) if (day in days if by_hand else day <= days[-1])]
    wanted = wanted[-MAX_LATE_KEYS:]
    return Run(
        request_id,
        days if by_hand else (*days, *(day for day in wanted if day not in days)),
        _markers(late, wanted),
        nightly=not by_hand,
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


def _is_missed(markers: set[str]) -> bool:
    """Tell whether a night found a day locked: it asked for the day, and neither wrote it nor failed."""
    reasons = {_name(marker).partition(".")[0] for marker in markers}
    return NIGHTLY in reasons and FAILED not in reasons


def _markers(late: Mapping[date, set[str]], days: Sequence[date]) -> dict[str, list[str]]:
    """Return the markers of days, as many as a run takes."""
    share = MAX_LATE_KEYS // max(1, len(days))
    return {
        day.isoformat(): sorted(late[day], key=lambda key: (_is_of_rows(key), key))[:share] for day in days
    }


class _OutOfTimeError(Exception):
    """A day is not done: what is left of it, and whether anything of it was written."""

    def __init__(
        self, *, got_on: bool, formats: tuple[str, ...] = (), leases: Mapping[str, str] = {}
    ) -> None:
        super().__init__(formats)
        self.got_on, self.formats, self.leases = got_on, formats, leases


@dataclass(frozen=True, slots=True)
class Exporter:
    """Writes the days of runs.

    Attributes:
        store: The store that has the rows.
        objects: The lake's bucket.
        formats: The files' formats.
        job: How days are written.
        report: Is given what became of each day in each format.
        report_error: Is given each day that could not be written, with the exception.
        lake_days: For how many days after its date the lake keeps a day; None for ever.
        large_rows: The most rows of a day that is not written hour by hour.
    """

    store: Metered
    objects: Objects
    formats: tuple[Format, ...]
    job: DayJob
    report: Callable[[Export], None]
    report_error: Callable[[str, Exception], None]
    lake_days: int | None = None
    large_rows: int = LARGE_ROWS

    def write(self, run: Run, seconds_left: Callable[[], float], done: list[dict[str, Any]]) -> Run:
        """Write a run's days as long as there is time, and return what is left.

        Args:
            run: The run.
            seconds_left: How long the invocation has.
            done: Gets a summary of each day in each format.

        Raises:
            StuckError: If the run does not get further.
        """
        failed = dict(run.failed)
        for place, day in enumerate(run.days):
            left = run if place == 0 else replace(run, formats=(), leases={})
            try:
                if seconds_left() < LEAST_SECONDS:
                    raise _OutOfTimeError(got_on=False, formats=left.formats, leases=left.leases)  # noqa: TRY301
                self._write_day(day, left, seconds_left, done)
            except _OutOfTimeError as error:
                left = replace(
                    run,
                    days=run.days[place:],
                    continuations=run.continuations + 1,
                    failed=failed,
                    formats=error.formats,
                    leases=error.leases,
                    scanned=self.store.spent.scanned,
                )
                _ensure_it_ends(left, got_on=error.got_on or bool(done) or run.continuations == 0)
                return left
            except Exception as error:  # noqa: BLE001 - one day's failure is not the other days'
                is_named = isinstance(error, DayFailedError)
                failed[day.isoformat()] = str(error) if is_named else f"{type(error).__name__}: {error}"
                self.report_error(day.isoformat(), error)
        return replace(run, days=(), failed=failed, formats=(), leases={})

    def _write_day(
        self, date: date, run: Run, seconds_left: Callable[[], float], done: list[dict[str, Any]]
    ) -> None:
        """Write a day in the formats that are left, and remove the markers that asked for it.

        Raises:
            DayFailedError: If the day could not be written in a format.
        """
        markers = run.late.get(date.isoformat(), [])
        hourly = run.hourly and not markers
        late = sorted(marker for marker in markers if _is_of_rows(marker))
        job = replace(
            self.job,
            order=hashlib.blake2b("\n".join(late).encode(), digest_size=8).hexdigest(),
            late=len(late),
            # What a person asks for is read whole: it repairs what is wrong with a day.
            asks_for_changes=run.nightly,
            seconds_left=seconds_left,
        )
        days = [Day(self.objects, date, Format(kind)) for kind in run.formats or self.formats]
        taken = [day for day in days if day.take(run.id, job.now(), run.leases.get(day.kind))]
        outcomes = self._export(taken, days, job, done, hourly=hourly) if taken else []
        pairs = list(zip(taken, outcomes, strict=True))
        locked = [day for day in days if day not in taken]
        for day, outcome in pairs:
            if isinstance(outcome, OvertakenError):
                day.drop_attempt()
                locked.append(day)
        done += [{"day": date.isoformat(), "format": day.kind, "locked": True} for day in locked]
        failures = {
            day.kind: outcome
            for day, outcome in pairs
            if isinstance(outcome, Exception) and day not in locked
        }
        if failures:
            reasons = [f"{kind}: {type(error).__name__}: {error}" for kind, error in failures.items()]
            raise DayFailedError("; ".join(reasons)) from next(iter(failures.values()))
        if not locked and not hourly:
            if self.store.includes_exports and date < job.now().date():
                close_day(self.objects, date)
            self.store.erase(date)
            self.objects.delete(markers)

    def _export(
        self, taken: list[Day], days: list[Day], job: DayJob, done: list[dict[str, Any]], *, hourly: bool
    ) -> list[Export | Exception | None]:
        """Write a day in the formats whose lock was taken, and give the locks back unless time runs out."""
        before = replace(self.store.spent)
        kept: list[Day] = []
        try:
            outcomes = self._outcomes(taken, job, hourly=hourly)
        except OutOfTimeError as error:
            self._finish(error.done, before, done)
            written = {export.manifest.format for export in error.done}
            kept = [day for day in days if day.kind not in written]
            leases = {str(day.kind): day.lease.token for day in kept if day.lease}
            raise _OutOfTimeError(
                got_on=error.got_on, formats=tuple(day.kind for day in kept), leases=leases
            ) from None
        finally:
            for day in taken:
                if day not in kept:
                    day.release()
        self._finish([outcome for outcome in outcomes if isinstance(outcome, Export)], before, done)
        return outcomes

    def _outcomes(self, days: list[Day], job: DayJob, *, hourly: bool) -> list[Export | Exception | None]:
        """Write a day, or its hours that are over; return what became of each format, None for hours."""
        large = self.store.includes_exports and is_by_hours(
            self.store.hours(days[0].date), days[0].manifest(), self.large_rows
        )
        if not large:
            return [None] * len(days) if hourly else [*export_formats(days, self.store, job)]
        if hourly:
            return [*write_hours(days, self.store, job, job.now().hour)]
        stopped = write_hours(days, self.store, job)
        return [error or commit_hours(day, self.store, job) for day, error in zip(days, stopped, strict=True)]

    def _finish(self, exports: Sequence[Export], before: Spent, done: list[dict[str, Any]]) -> None:
        """Report what was written; what the store was asked for all formats counts for the first."""
        spent = self.store.spent.since(before)
        for export in exports:
            self.report(measured := replace(export, spent=spent))
            done.append(measured.summary())
            spent = Spent()

    def tidy_up(self, run: Run) -> None:
        """Remove replaced files of days that nobody has written since, and files that killed runs have left.

        Also correct the file lists of days whose files went into the archive or came back, and remove days
        that the lake has kept long enough. The lifecycle of the bucket goes by the age of files, which
        a late row or an erasure renews.
        """
        now = self.job.now()
        if self.lake_days is not None:
            self._remove_days(run, Days(_EPOCH, now.date() - timedelta(days=self.lake_days + 1)), now)
        for kind, listed in days_to_list(self.objects, now):
            Day(self.objects, listed, kind).list_files(now)
        for day in days_to_tidy(self.objects):
            now = self.job.now()
            if day.take(run.id, now):
                day.tidy(now)
                day.release()

    def _remove_days(self, run: Run, days: Days, now: datetime) -> None:
        for kind in Format:
            for old in dates_of_files(self.objects, days, kind):
                day = Day(self.objects, old, kind)
                if day.take(run.id, now):
                    day.remove(now)
                    day.release()

    def note_failures(self, run: Run) -> list[str]:
        """Have the next night try failed days again, and give up those that failed on `NIGHTS` nights.

        Returns:
            The days that are given up.
        """
        given_up: list[str] = []
        for day, reason in run.failed.items():
            markers = list(self.objects.keys(f"{late_days.PREFIX}{day}/"))
            tonight = late_days.marker_key(date.fromisoformat(day), FAILED, f"{self.job.now():%Y-%m-%d}")
            nights = {marker for marker in markers if _name(marker).startswith(f"{FAILED}.")} | {tonight}
            if len(nights) < NIGHTS:
                self.objects.put(tonight, [], "text/plain")
                continue
            self.objects.put(f"{late_days.GIVEN_UP}{day}", [reason.encode()], "text/plain")
            self.objects.delete(markers)
            given_up.append(day)
        return given_up


class DayFailedError(RuntimeError):
    """A day could not be written in some formats; the message names each with its reason."""


def _name(marker: str) -> str:
    return marker.rpartition("/")[2]


def _is_of_rows(marker: str) -> bool:
    """Tell whether a marker was left for late rows."""
    return not _name(marker).startswith((f"{NIGHTLY}.", f"{FAILED}."))


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
            "export the day again to resume"
        )
