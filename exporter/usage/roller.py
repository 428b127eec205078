"""One run of the roll-up: days of the lake that have changed, hours of the store, and what is made of them.

A day that the lake has is rolled up from its files: they are what a download has, also after records came
late or were erased. The newest days, which the lake does not have yet, are rolled up from the store.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

from consumers.accounts.minutes import MinuteCell
from consumers.bucket import Listed, Objects
from exporter.downloads.stored_jobs import find_manifests
from exporter.lake.days import Day
from exporter.lake.formats import Format, ZipFormat
from exporter.lake.manifest import MANIFEST, Manifest, folder
from exporter.store import Days, Store
from exporter.usage import live, page, questions, stored, views
from exporter.usage.page import Pipeline, render
from exporter.usage.position import StreamPosition
from exporter.usage.prometheus import KEPT_DAYS as COUNTED_DAYS
from exporter.usage.prometheus import Counters
from exporter.usage.roll import roll_up_day, roll_up_files
from exporter.usage.rollup import Completeness, RollUp, check_total, merge

# For so many days there are roll-ups.
KEPT_DAYS = 400
# So many of the newest days are asked of the store until the lake has them, and are shown by the hour.
LIVE_DAYS = 3
# How long a record takes to the store, at most, unless the consumer is behind.
DELAY = timedelta(minutes=5)
# With less time than this left, in seconds, no further day is rolled up: the rest is for the next run.
LEAST_SECONDS = 120.0

_DAY = timedelta(days=1)


class RollUpError(RuntimeError):
    """Days that could not be rolled up; the message names each with its reason. The others were."""


@dataclass(slots=True)
class Rolled:
    """What a run did.

    Attributes:
        days: The days that were written.
        failed: Why days were not, by day.
        left: Days for which there was no time.
        data_through: Until when the numbers are complete; None without any.
    """

    days: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)
    data_through: datetime | None = None


@dataclass(frozen=True, slots=True)
class Roller:
    """Rolls days up and writes what is made of them.

    Attributes:
        store: Has the newest rows.
        objects: The lake's bucket.
        type: The `_type` of the records that count.
        now: Gives the time.
        completeness: Returns what is known of the lines of days that are not in the numbers.
        minutes: Returns the requests by minute of batches since a time, `consumers.accounts.minutes`.
        position: Returns how far the consumer has read at a time, if it had read all before another time.
    """

    store: Store
    objects: Objects
    type: str
    now: Callable[[], datetime]
    completeness: Callable[[Collection[date]], Mapping[date, Completeness]]
    minutes: Callable[[datetime], Mapping[MinuteCell, int]]
    position: Callable[[datetime, datetime], StreamPosition]

    def run(self, seconds_left: Callable[[], float]) -> Rolled:
        """Roll up what has changed, and write the page, the counters and the answers that are ready."""
        now = self.now().astimezone(UTC)
        today, done = now.date(), Rolled()
        kept = [today - number * _DAY for number in range(KEPT_DAYS)]
        there = stored.days_there(self.objects)
        known, apart = stored.read_days(self.objects, {day: there[day] for day in kept if day in there})
        # Until then the numbers are complete already.
        before = questions.data_through(known.values()) if known else now - _DAY
        position = self.position(before, now)
        through = max(before, position.through - DELAY)
        lake = _manifests(self.objects, Days(kept[-1], today))
        live = kept[:LIVE_DAYS]
        incomplete = self.completeness(live)
        for day in kept:
            of_lake = lake.get(day)
            if day not in live and self._is_done(known.get(day), of_lake):
                continue
            if seconds_left() < LEAST_SECONDS:
                done.left.append(str(day))
                continue
            try:
                after = self._roll(day, known.get(day), of_lake, through, incomplete.get(day))
            except Exception as error:  # noqa: BLE001 - one day's failure is not the other days'
                done.failed[str(day)] = f"{type(error).__name__}: {error}"
                continue
            if after is not None and after != known.get(day):
                known[day] = after
                done.days.append(str(day))
        if known:
            done.data_through = self._publish(known, lake, now, position.lag_s)
        stored.write_weeks(self.objects, {*apart, *map(date.fromisoformat, done.days)})
        return done

    def show_last_minutes(self) -> int:
        """Write the minutes that no roll-up has yet to the page and to the answers; return their requests.

        If another run writes meanwhile, its numbers stay.
        """
        now = self.now().astimezone(UTC)
        found = self.objects.get(stored.view_key("summary", "24h"))
        if found is None:
            return 0
        before = stored.summary_in(found)
        shown = self._last_minutes(datetime.fromisoformat(before["data_through"]), now)
        if shown is None and before["live"] is None:
            return 0
        for range_ in questions.PRESETS:
            key = stored.view_key("summary", range_)
            stored.change_view(self.objects, key, lambda body: views.summary_with_live(body, shown))
        stored.change_page(self.objects, lambda html: page.with_live(html, shown))
        return 0 if shown is None else int(shown["total"]["requests"])

    def _last_minutes(self, through: datetime, now: datetime) -> dict[str, Any] | None:
        first = live.since(through, now)
        return live.summarize(self.minutes(first), first, now)

    def _is_done(self, rollup: RollUp | None, manifest: Listed | None) -> bool:
        if manifest is None:
            # An unfinished day is finished from the store: runs and exports failed for days.
            return rollup is None or rollup.complete
        return rollup is not None and rollup.complete and self._is_made_of(rollup, manifest)

    def _is_made_of(self, rollup: RollUp, manifest: Listed) -> bool:
        return (rollup.source, rollup.type) == (manifest.etag, self.type)

    def _roll(
        self,
        day: date,
        before: RollUp | None,
        manifest: Listed | None,
        through: datetime,
        completeness: Completeness | None,
    ) -> RollUp | None:
        """Roll a day up and write it; return None if it has no hour yet, or another run has written it."""
        written, tag = stored.read_hours(self.objects, day)
        known = {hour.start: hour for hour in written}
        if manifest is None:
            hours = list(roll_up_day(self.store, day, self.type, through, known))
            if day <= self.now().astimezone(UTC).date() - LIVE_DAYS * _DAY:
                hours = [_kept(hour, known.get(hour.start)) for hour in hours]
        elif before is not None and self._is_made_of(before, manifest):
            hours = [replace(hour, data_through=min(hour.end, through)) for hour in written]
        else:
            hours = self._from_files(day, manifest, through)
        if not hours:
            return None
        if completeness is None:
            completeness = written[0].completeness if written else Completeness()
        # What is known of a whole day is with its first hour.
        hours[0] = replace(hours[0], completeness=completeness)
        hours = [hour.succeeding(known.get(hour.start)) for hour in hours]
        source = "" if manifest is None else manifest.etag
        if hours == written and before is not None and before.source == source:
            return before
        return stored.write_day(self.objects, hours, before, tag, source)

    def _from_files(self, day: date, found: Listed, through: datetime) -> list[RollUp]:
        kind = next(kind for kind in Format if found.key.startswith(folder(day, kind)))
        of_lake = Day(self.objects, day, kind)
        manifest = Manifest.from_json(self.objects.get(found.key) or b"")
        hours = list(roll_up_files(of_lake, manifest, self.type, found.etag, through))
        if manifest.types is not None:
            check_total(merge(hours), manifest.types)
        return hours

    def _publish(
        self,
        known: Mapping[date, RollUp],
        lake: Iterable[date],
        now: datetime,
        lag_s: float,
    ) -> datetime:
        """Write what is made of the roll-ups, and return until when they are complete."""
        shown = [day for day in sorted(known) if day > now.date() - stored.SHOWN_DAYS * _DAY] or [max(known)]
        # The shortest range ends where the numbers do, which is days ago if the consumer stopped then.
        end = questions.data_through(known[day] for day in shown).date()
        by_hour = [day for day in shown if day > end - LIVE_DAYS * _DAY]
        rollups = [known[day] for day in shown if day not in by_hour]
        for day in by_hour:
            rollups += stored.read_hours(self.objects, day)[0]
        exported = max((datetime(day.year, day.month, day.day, tzinfo=UTC) for day in lake), default=None)
        through = questions.data_through(rollups)
        last = self._last_minutes(through, now)
        html = page.with_live(render(rollups, Pipeline(now, lag_s, exported_through=exported)), last)
        self.objects.put(stored.PAGE, [html.encode()], "text/html; charset=utf-8")
        stored.write_views(self.objects, views.ready_answers(rollups, last))
        self._count([known[day] for day in shown[-COUNTED_DAYS:]], now)
        return through

    def _count(self, days: Sequence[RollUp], now: datetime) -> None:
        """Raise the counters. If another run does so meanwhile, it has counted the same."""
        found, tag = stored.read_counters(self.objects)
        counters = found or Counters(now)
        counters.add(days)
        stored.write_counters(self.objects, counters, tag)


def _manifests(objects: Objects, days: Days) -> dict[date, Listed]:
    """Return the manifest of each day that the lake has, in the format that is read the quickest.

    Days whose files are in the archive are left out: their roll-ups stay as they are.
    """
    by_key = {each.key: each for each in find_manifests(days, objects) if not each.is_archived}
    found: dict[date, Listed] = {}
    for day in days:
        for kind in ZipFormat.ANY.made_of:
            manifest = by_key.get(folder(day, kind) + MANIFEST)
            if manifest is not None:
                found[day] = manifest
                break
    return found


def _kept(hour: RollUp, known: RollUp | None) -> RollUp:
    """Return an hour of an old day; the known one if the store has none of its rows any more."""
    if known is None or known.type != hour.type or hour.usage.total.requests:
        return hour
    return replace(known, data_through=hour.data_through)
