"""Lambda entry: days of the store become files in the lake, and manifests that commit them."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, TypeVar

import boto3
from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit
from botocore.exceptions import ClientError

from consumers.bucket import Bucket, Objects, client_config
from consumers.rows import late_days, schema
from consumers.rows.table import OVERFLOW, SAID, UNDECLARED, Plans
from consumers.settings import SettingsError, read_settings
from exporter.export.whole_rows import WholeRows, is_whole_record
from exporter.lake import days as lake
from exporter.lake import manifest as archive
from exporter.lake.batch import Batch
from exporter.lake.days import Progress
from exporter.lake.files import parts
from exporter.lake.forgotten import CLIENT, Forgotten, clients_of
from exporter.lake.formats import Format
from exporter.lake.glue import Catalog
from exporter.lake.manifest import Manifest, Part
from exporter.store import (
    SLICE_ROWS,
    TIME,
    Column,
    Days,
    Span,
    Store,
    Tally,
    Values,
    minute,
    places,
    slices,
)
from exporter.stores import store_of_function
from exporter.stores.metered import Metered, Spent

Handler = Callable[[dict[str, Any], Any], dict[str, Any]]
Item = TypeVar("Item")

# Whole records are fetched side by side: each is a round trip.
_FETCHERS = 8
# How much of a file is made while what is before it is uploaded.
_PIECE_BYTES = 1 << 20
# How many clients are known by heart while a day is written without some of them.
_CLIENTS = 10_000
# What an invocation keeps to say how far it is and to call the next.
LEAST_SECONDS = 20.0
# How long an invocation can be, and a lock of one that tells no end.
MOST_SECONDS = 900.0
# Lambda itself stops a chain of 16: https://docs.aws.amazon.com/lambda/latest/dg/invocation-recursion.html
MAX_CONTINUATIONS = 12
# What a continuation carries of them has to fit into its event; the others are for the next run.
MAX_LATE_KEYS = 1_000
# The schedule's word for the day that it writes: taken away once the day is written, by whichever night.
NIGHTLY = "nightly"
_GB = 10**9


class OutOfTimeError(Exception):
    """The invocation has no time for another batch: what is done is kept, and the next one goes on.

    Attributes:
        got_on: Whether anything was done that is kept.
    """

    def __init__(self, *, got_on: bool = False) -> None:
        super().__init__("the invocation has no time left")
        self.got_on = got_on


class DaysFailedError(RuntimeError):
    """Days could not be written; the message names each with its reason. The others were."""


class RowsGoneError(RuntimeError):
    """The store has forgotten rows of a day that the lake does not have; the message says what to do."""


class StuckError(RuntimeError):
    """A day does not get further, however often it is taken up; the message says where it stands."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the function's environment says; docs/reference/settings.md."""

    bucket: str
    export_formats: str
    export_max_scanned_gb: int
    glue_database: str
    schemas: str = "schemas"
    store: str = "timestream"


@dataclass(frozen=True, slots=True)
class Export:
    """What became of a day.

    Attributes:
        manifest: What the lake holds of the day now.
        kept: Whether that is what it held before, because the store has fewer rows than the lake by now.
        seconds: How long it took, in this invocation.
        spent: What it asked of the store, in this invocation.
    """

    manifest: Manifest
    kept: bool
    seconds: float = 0.0
    spent: Spent = field(default_factory=Spent)


@dataclass(frozen=True, slots=True)
class Job:
    """How days are written.

    Attributes:
        kind: The files' format.
        size: Where a part is cut, in bytes before it is packed.
        slice_rows: The most rows that the store is asked for at once.
        order: What the day is written for: progress that was made for another order is not continued.
        late: How many words there are of rows that came to the day late.
        kept_for: How long the store keeps rows; None if it keeps all.
        seconds_left: How long this invocation has.
        now: Gives the time.
        plans: What is declared of records: a whole record becomes the row that the consumer would make.
    """

    kind: Format = Format.CSV_GZ
    size: int = archive.PART_BYTES
    slice_rows: int = SLICE_ROWS
    order: str = ""
    late: int = 0
    kept_for: timedelta | None = None
    seconds_left: Callable[[], float] = lambda: MOST_SECONDS
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    plans: Plans = UNDECLARED


def export_day(day: date, store: Store, objects: Objects, job: Job | None = None) -> Export:
    """Write a day's rows to the lake. Doing it again changes nothing, unless there are other rows.

    The manifest is written last. A day of which the store has fewer rows than the lake is left as it is: the
    store forgets what is older than its retention, the lake does not. The caller has the day's lock.

    Raises:
        OutOfTimeError: If the invocation ends before the day: called again, it goes on where it stands.
        RowsGoneError: If rows came late to a day that the store no longer has as a whole, or the day is older
            than what it keeps, and the lake has nothing of it.
    """
    job = job or Job()
    began = time.monotonic()
    known = lake.read_manifest(objects, day, job.kind)
    tally = store.tally(day)
    kept = known is not None and _has_forgotten(tally, known)
    if job.late and (kept or not tally):
        raise RowsGoneError(
            f"rows came late, as {job.late:,} objects under {late_days.PREFIX}{day}/ say, but the store has "
            "forgotten rows of the day: the lake keeps what it has. Ask the store for the late ones as long "
            "as it has them, and remove these objects"
        )
    if known is None and not tally and _is_beyond(day, job):
        raise RowsGoneError(
            f"the store has no rows of it, and keeps them for {job.kept_for}: what the day had, nobody knows"
        )
    if known is not None and kept:
        manifest = known
    else:
        there = store.columns(day) if tally else ()
        rows = _Rows(day, store, job, tally, there, lake.read_forgotten(objects))
        progress = _progress(rows, objects, known, _columns(rows, objects, known))
        manifest = _written(rows, objects, known, progress)
        if known is not None and manifest.revision != known.revision:
            lake.retire(objects, day, job.kind, (part.key for part in known.parts), job.now())
        if manifest != known:
            lake.write_manifest(objects, manifest)
        else:
            # As old as the parts that it names, so that they leave the lake together.
            lake.write_table(objects, manifest)
    objects.delete([archive.folder(day, job.kind) + lake.PROGRESS])
    lake.tidy(objects, day, job.kind, job.now())
    return Export(manifest, kept, time.monotonic() - began)


def _is_beyond(day: date, job: Job) -> bool:
    """Tell whether a whole day is older than what the store keeps."""
    return job.kept_for is not None and day < (job.now() - job.kept_for).date()


def _has_forgotten(tally: Tally, known: Manifest) -> bool:
    """Tell whether the store has forgotten rows that the lake has: it does so from the day's beginning on."""
    if sum(tally.values()) < known.rows + known.forgotten:
        return True
    return bool(known.parts) and min(tally) > minute(known.parts[0].first_time)


@dataclass(frozen=True, slots=True)
class _Rows:
    """Which rows a day has, before any is read: when, and in which of the files' columns."""

    day: date
    store: Store
    job: Job
    tally: Tally
    there: tuple[Column, ...]
    forgotten: Forgotten | None

    @property
    def order(self) -> str:
        """What progress was made for, if it is to be continued: these late rows, without these clients."""
        return self.job.order + (self.forgotten.digest if self.forgotten else "")


def _columns(rows: _Rows, objects: Objects, known: Manifest | None) -> tuple[Column, ...]:
    """Return the columns of a day's files: those that they have, and others up to the last in use.

    So a day that is written again is the same, even if other days have brought columns since.
    """
    if not rows.there:
        return known.columns if known else ()
    # A table that was made anew may have other types than the lake has known: a day's files say their own.
    types = {column.name: column.type for column in rows.there}
    columns = tuple(
        Column(name, types.get(name, type_)) for name, type_ in lake.lake_columns(objects, rows.there)
    )
    if known is None or not known.columns or known.columns != columns[: len(known.columns)]:
        return columns
    has = {column.name for column in rows.there}
    behind = [column.name for column in columns[len(known.columns) :]]
    asked = [name for name in behind if name in has]
    filled = rows.store.filled(rows.day, asked) if asked else set()
    last = max((number for number, name in enumerate(behind, 1) if name in filled), default=0)
    return columns[: len(known.columns) + last]


def _progress(rows: _Rows, objects: Objects, known: Manifest | None, columns: tuple[Column, ...]) -> Progress:
    """Return where to go on: behind the last part, or at the first row if others have come before its end."""
    day, job = rows.day, rows.job
    revision = 1 if known is None else known.revision + 1
    found = lake.read_progress(objects, day, job.kind)
    if (
        found is not None
        and (found.order, found.revision, found.columns) == (rows.order, revision, columns)
        and (not found.time or _rows_until(rows.tally, found.time) == found.rows_before)
    ):
        return found
    progress = Progress(rows.order, revision, columns)
    lake.write_progress(objects, day, job.kind, progress)
    lake.tidy(objects, day, job.kind, job.now())
    return progress


def _written(rows: _Rows, objects: Objects, known: Manifest | None, progress: Progress) -> Manifest:
    """Write the parts that are missing, and return the manifest that names all."""
    begun_with = len(progress.parts)
    try:
        for further in _further(rows, objects, progress):
            progress = further
    except OutOfTimeError:
        progress = lake.read_progress(objects, rows.day, rows.job.kind) or progress
        raise OutOfTimeError(got_on=len(progress.parts) > begun_with) from None
    manifest = Manifest(
        rows.day,
        progress.revision,
        progress.columns,
        progress.parts,
        rows.job.kind,
        restored=progress.restored,
        not_restored=progress.not_restored,
    )
    if rows.forgotten is not None:
        manifest = replace(manifest, forgotten=max(0, sum(rows.tally.values()) - manifest.rows))
    return manifest.succeeding(known, whole=lambda parts: all(_is_whole(part, objects) for part in parts))


def _is_whole(part: Part, objects: Objects) -> bool:
    """Tell whether a part is there as its manifest says, so that the same rows need not be written again."""
    sha256, size = hashlib.sha256(), 0
    try:
        for chunk in objects.stream(part.key):
            sha256.update(chunk)
            size += len(chunk)
    except ClientError as error:
        if error.response["Error"]["Code"] == "NoSuchKey":
            return False
        if error.response["Error"]["Code"] == "InvalidObjectState":
            return True  # in the archive, where nobody can change it
        raise
    return (size, sha256.hexdigest()) == (part.bytes, part.sha256)


def _further(rows: _Rows, objects: Objects, progress: Progress) -> Iterator[Progress]:
    """Write one part after the other, and yield how far the day is after each."""
    day, job, revision = rows.day, rows.job, progress.revision
    with ThreadPoolExecutor(_FETCHERS) as pool:
        whole = WholeRows(progress.columns, lambda keys: pool.map(objects.get, keys), job.plans)
        at = _Place(progress)
        for part in parts(
            at.passing(_timed(whole.batches(ahead(_pages(rows, progress, objects))), job)),
            progress.columns,
            lambda number: archive.part_key(day, number, revision, job.kind),
            job.kind,
            size=job.size,
            first=len(progress.parts),
        ):
            objects.put(part.key, ahead(_pieces(part.chunks())), part.content_type)
            progress = replace(
                progress,
                parts=(*progress.parts, part.summary()),
                time=at.time,
                at_time=at.at_time,
                rows_before=_rows_until(rows.tally, at.time),
                restored=progress.restored + whole.restored,
                not_restored=progress.not_restored + whole.not_restored,
            )
            whole.restored = whole.not_restored = 0
            lake.write_progress(objects, day, job.kind, progress)
            yield progress


def ahead(items: Iterable[Item]) -> Iterator[Item]:
    """Yield items; while one is used, the next is made in another thread.

    A function of one processor or less gains what it would have waited, for the store to answer and for S3 to
    take. One that is left early does not wait for what is on its way.
    """
    source = iter(items)
    thread = ThreadPoolExecutor(1)
    try:
        coming = thread.submit(next, source, None)
        while (item := coming.result()) is not None:
            coming = thread.submit(next, source, None)
            yield item
    finally:
        thread.shutdown(wait=False)


def _pieces(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield a file in pieces that take longer to make than it takes to upload what was made before."""
    piece = bytearray()
    for chunk in chunks:
        piece += chunk
        if len(piece) >= _PIECE_BYTES:
            yield bytes(piece)
            piece.clear()
    if piece:
        yield bytes(piece)


def _pages(rows: _Rows, progress: Progress, objects: Objects) -> Iterator[list[Values]]:
    """Yield the rows that are not in a part yet, in the order of the files' columns."""
    has = {column.name for column in rows.there}
    asked = tuple(column for column in progress.columns if column.name in has)
    skip = progress.at_time
    for span in slices(rows.day, rows.tally, rows.job.slice_rows) if rows.tally else ():
        if span.end <= progress.time:
            continue
        answer = rows.store.rows(Span(max(span.start, progress.time), span.end), asked)
        pages = answer.pages if asked == progress.columns else _widened(answer.pages, asked, progress.columns)
        if rows.forgotten is not None:
            pages = _remembered(pages, rows.forgotten, progress.columns, objects)
        for page in pages:
            yield page[skip:] if skip else page
            skip -= min(skip, len(page))


def _remembered(
    pages: Iterable[list[Values]], forgotten: Forgotten, columns: tuple[Column, ...], objects: Objects
) -> Iterator[list[Values]]:
    """Yield the rows of clients that are not to be forgotten; the others' whole records are removed."""
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
        objects.delete(removed)
        yield left


def _widened(
    pages: Iterable[list[Values]], has: tuple[Column, ...], wanted: tuple[Column, ...]
) -> Iterator[list[Values]]:
    """Yield rows with a place for columns that the store does not have."""
    names = [column.name for column in has]
    places = [names.index(column.name) if column.name in names else None for column in wanted]
    for page in pages:
        yield [[None if place is None else row[place] for place in places] for row in page]


def _timed(batches: Iterator[Batch], job: Job) -> Iterator[Batch]:
    for batch in batches:
        yield batch
        if job.seconds_left() < LEAST_SECONDS:
            raise OutOfTimeError


class _Place:
    """Where the rows are that have passed: the last one's time, and how many of them have that time."""

    def __init__(self, progress: Progress) -> None:
        self.time, self.at_time = progress.time, progress.at_time
        self._when = [column.name for column in progress.columns].index(TIME) if progress.columns else 0

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


def _rows_until(tally: Tally, time: str) -> int:
    """Return how many rows there are until a time's minute is over."""
    last = minute(time)
    return sum(count for each, count in tally.items() if each <= last)


# --- what an event asks for -------------------------------------------------------------------------------


BY_HAND = {"day", "from", "to"}


def days_of(event: dict[str, Any], now: datetime) -> Days:
    """Return the days that an event asks for: one or a range by hand, else the day before its time.

    Args:
        event: `{"day": ...}`, `{"from": ..., "to": ...}` (dates, both inclusive), or a schedule's event.
        now: The time, for an event that has none.

    Raises:
        ValueError: If a date is none or in the future, or the range ends before it begins.
    """
    if BY_HAND & event.keys():
        first, last = ("day", "day") if "day" in event else ("from", "to")
        days = Days(_date(first, event.get(first)), _date(last, event.get(last)))
        if days.last > (today := now.astimezone(UTC).date()):
            raise ValueError(f"{last} is {days.last}, which is after today, {today} in UTC")
        return days
    at = event.get("time")
    when = datetime.fromisoformat(at) if isinstance(at, str) else now
    yesterday = when.astimezone(UTC).date() - timedelta(days=1)
    return Days(yesterday, yesterday)


def _date(name: str, value: Any) -> date:
    try:
        return date.fromisoformat(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name} is {value!r}, not a date such as 2026-11-19") from None


def formats(value: str) -> tuple[Format, ...]:
    """Return the formats that a setting lists, with commas between.

    Raises:
        SettingsError: If one is none of them.
    """
    try:
        return tuple(Format(each.strip()) for each in value.split(","))
    except ValueError as error:
        raise SettingsError(f"EXPORT_FORMATS is {value!r}: {error}; there are {', '.join(Format)}") from None


@dataclass(frozen=True, slots=True)
class Run:
    """What is left to do, and as whom: an invocation hands it to the next as its event.

    Attributes:
        id: What locks know it by: the request id of its first invocation.
        days: The days that are left, the first one maybe begun.
        late: The words that ask for a day, by day: removed when it is written.
        replaced: Whether days with replaced files are to be tidied up afterwards.
        continuations: How many invocations there were before.
        waited_for: Whether the caller goes on by itself, instead of the function calling itself.
        failed: What went wrong with days before, said at the end.
    """

    id: str
    days: tuple[date, ...]
    late: Mapping[str, list[str]] = field(default_factory=dict)
    replaced: bool = False
    continuations: int = 0
    waited_for: bool = False
    failed: tuple[str, ...] = ()

    def to_event(self) -> dict[str, Any]:
        """Return the event that goes on with it."""
        return {"run": asdict(self) | {"days": [day.isoformat() for day in self.days]}}

    @classmethod
    def from_event(cls, event: dict[str, Any]) -> Run:
        """Return what an event of `to_event` goes on with."""
        read = event["run"]
        days = tuple(date.fromisoformat(day) for day in read["days"])
        return cls(**read | {"days": days, "failed": tuple(read["failed"])})


def run_of(
    event: dict[str, Any], objects: Objects, request_id: str, now: datetime, settles_after: timedelta
) -> Run:
    """Return what an event asks for. The schedule's asks also for the days to which rows came late.

    Raises:
        ValueError: As `days_of`.
    """
    if "run" in event:
        return Run.from_event(event)
    days = tuple(days_of(event, now))
    by_hand = bool(BY_HAND & event.keys())
    late = _words(objects, now - settles_after)
    if not by_hand:
        # Whatever becomes of this run: until the day is written, each night is asked for it.
        word = late_days.key(days[0], NIGHTLY, NIGHTLY)
        objects.put(word, [], "text/plain")
        late[days[0]].add(word)
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


def _words(objects: Objects, before: datetime) -> defaultdict[date, set[str]]:
    """Return the days that the store was written to late, each with the words that its export answers.

    A word of rows that the store may not answer with yet, written after `before`, is for the next run, too.
    """
    late: defaultdict[date, set[str]] = defaultdict(set)
    for found in objects.listed(late_days.PREFIX):
        with suppress(ValueError):  # what somebody else has put there
            words = late[late_days.day_of(found.key)]
            if found.modified <= before:
                words.add(found.key)
    return late


# --- the function -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Tools:
    """What days are written with; as in `make_handler`."""

    store: Metered
    objects: Objects
    now: Callable[[], datetime]
    report: Callable[[Export], None]
    kinds: tuple[Format, ...]
    size: int
    slice_rows: int
    plans: Plans
    kept_for: timedelta | None


def _write_day(
    tools: _Tools, day: date, run: Run, seconds_left: Callable[[], float], told: list[dict[str, Any]]
) -> None:
    """Write a day in all formats, and take away the words that asked for it."""
    objects, now = tools.objects, tools.now
    late = run.late.get(day.isoformat(), [])
    locked = False
    for kind in tools.kinds:
        if not lake.lock(objects, day, kind, run.id, now(), now() + timedelta(seconds=seconds_left())):
            locked = True
            told.append({"day": day.isoformat(), "format": kind, "locked": True})
            continue
        job = Job(
            kind,
            tools.size,
            tools.slice_rows,
            order=_order(late),
            late=sum(not word.endswith(NIGHTLY) for word in late),
            kept_for=tools.kept_for,
            seconds_left=seconds_left,
            now=now,
            plans=tools.plans,
        )
        try:
            before = replace(tools.store.spent)
            export = export_day(day, tools.store, objects, job)
            export = replace(export, spent=tools.store.spent.since(before))
        except OutOfTimeError:
            raise  # the day stays the run's
        except BaseException:
            lake.unlock(objects, day, kind, run.id)
            raise
        lake.unlock(objects, day, kind, run.id)
        tools.report(export)
        told.append(_told(export))
    if not locked:
        objects.delete(late)


def _write_days(
    tools: _Tools, run: Run, seconds_left: Callable[[], float], told: list[dict[str, Any]]
) -> Run:
    """Write days as long as there is time, and return what is left."""
    failed = list(run.failed)
    for place, day in enumerate(run.days):
        try:
            if seconds_left() < LEAST_SECONDS:
                raise OutOfTimeError  # noqa: TRY301 - a day is begun as it is gone on with
            _write_day(tools, day, run, seconds_left, told)
        except OutOfTimeError as error:
            left = replace(
                run, days=run.days[place:], continuations=run.continuations + 1, failed=tuple(failed)
            )
            _ensure_it_ends(left, got_on=error.got_on or bool(told) or run.continuations == 0)
            return left
        except Exception as error:  # noqa: BLE001 - one day's failure is not the other days'
            failed.append(f"{day}: {type(error).__name__}: {error}")
    return replace(run, days=(), failed=tuple(failed))


def make_handler(
    store: Metered,
    objects: Objects,
    *,
    now: Callable[[], datetime],
    report: Callable[[Export], None],
    go_on: Callable[[str, dict[str, Any]], None],
    describe: Callable[[Format, tuple[Column, ...]], None] = lambda _kind, _columns: None,
    kinds: tuple[Format, ...] = (Format.CSV_GZ,),
    size: int = archive.PART_BYTES,
    slice_rows: int = SLICE_ROWS,
    plans: Plans = UNDECLARED,
) -> Handler:
    """Return a Lambda handler that exports days.

    Args:
        store: Where the rows are.
        objects: The lake's bucket.
        now: Gives the time.
        report: Is given what became of each day.
        go_on: Calls a function, by its name, with an event, without waiting for it.
        describe: Is told the columns that the files of a format have by now.
        kinds: The files' formats; each is asked for by itself.
        size: Where a part is cut, in bytes before it is packed.
        slice_rows: The most rows that the store is asked for at once.
        plans: What is declared of records.
    """
    tools = _Tools(store, objects, now, report, kinds, size, slice_rows, plans, store.keeps_for)

    def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
        run = run_of(event, objects, context.aws_request_id, now(), store.settles_after)
        store.reset()  # a function's process lives longer than its invocation
        told: list[dict[str, Any]] = []
        left = _write_days(tools, run, lambda: context.get_remaining_time_in_millis() / 1000, told)
        if left.days:
            if not run.waited_for:
                go_on(context.function_name, left.to_event())
            return {"days": told, "continues": left.to_event()}
        if run.replaced:
            _tidy_up(objects, run, now)
        for kind in kinds:
            describe(kind, lake.known_columns(objects))
        if left.failed:
            raise DaysFailedError("; ".join(left.failed))
        return {"days": told}

    return handler


def _ensure_it_ends(left: Run, *, got_on: bool) -> None:
    """See to it that a chain of invocations has an end.

    Raises:
        StuckError: If it has become too long, or the last of it has done nothing that is kept.
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


def _tidy_up(objects: Objects, run: Run, now: Callable[[], datetime]) -> None:
    """Remove replaced files of days that no one has written since, where their time of grace is over."""
    for day, kind in list(lake.replaced_days(objects)):
        if lake.lock(objects, day, kind, run.id, now(), now() + timedelta(seconds=LEAST_SECONDS)):
            lake.tidy(objects, day, kind, now())
            lake.unlock(objects, day, kind, run.id)


def _order(late: list[str]) -> str:
    """Return what tells orders apart: the late rows that they are for."""
    return hashlib.blake2b("\n".join(sorted(late)).encode(), digest_size=8).hexdigest()


def _told(export: Export) -> dict[str, Any]:
    manifest = export.manifest
    return {
        "day": manifest.day.isoformat(),
        "format": manifest.format,
        "rows": manifest.rows,
        "bytes": manifest.size,
        "parts": len(manifest.parts),
        "revision": manifest.revision,
        "kept": export.kept,
        "seconds": round(export.seconds, 3),
        "questions": export.spent.questions,
        "scanned_bytes": export.spent.scanned,
        "metered_bytes": export.spent.billed,
    }


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Export the day before the schedule's, the days to which rows came late, or those that are asked for."""
    return _live()(event, context)


@cache
def _live() -> Handler:
    settings = read_settings(Settings, os.environ)
    functions = boto3.client("lambda")
    catalog = Catalog(boto3.client("glue"), settings.glue_database)
    return make_handler(
        Metered(
            store_of_function(settings.store, os.environ, boto3.client),
            settings.export_max_scanned_gb * _GB,
        ),
        Bucket(boto3.client("s3", config=client_config()), settings.bucket),
        now=lambda: datetime.now(UTC),
        report=_report,
        go_on=lambda name, event: functions.invoke(
            FunctionName=name, InvocationType="Event", Payload=json.dumps(event).encode()
        ),
        describe=catalog.describe,
        kinds=formats(settings.export_formats),
        # Beside the code, wherever that was unpacked.
        plans=schema.load(Path(__file__).parents[2] / settings.schemas),
    )


def _report(export: Export) -> None:
    manifest = export.manifest
    Logger().info("exported", extra=_told(export))
    metrics = Metrics()
    metrics.add_metric(name="exported_rows", unit=MetricUnit.Count, value=manifest.rows)
    metrics.add_metric(name="exported_bytes", unit=MetricUnit.Bytes, value=manifest.size)
    metrics.add_metric(name="exported_scanned_bytes", unit=MetricUnit.Bytes, value=export.spent.scanned)
    metrics.add_metric(name="exported_not_restored", unit=MetricUnit.Count, value=manifest.not_restored)
    metrics.flush_metrics()
