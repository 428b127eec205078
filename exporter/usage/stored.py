"""Roll-ups in the bucket: for each day, the day's own and those of its hours; and answers that are ready.

The days of a week are in one object besides: a range of months is read with few requests.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import orjson

from consumers import documents
from consumers.bucket import Objects
from exporter.usage.prometheus import Counters
from exporter.usage.rollup import DETAILS, Limits, RollUp, bounded, merge, read

PREFIX = "usage/"
DAYS, HOURS, WEEKS = f"{PREFIX}days/", f"{PREFIX}hours/", f"{PREFIX}weeks/"
PAGE, COUNTERS = f"{PREFIX}page.html", f"{PREFIX}counters.json.gz"
# Pages of tenants, made on demand, are deleted after a day.
TENANT_PAGES = "tmp/usage/"
# The longest range that is ready, and the same time before it, in whole weeks.
SHOWN_DAYS = 182
# Objects that are read at the same time.
READERS = 16
_WEEK_VERSION = 1
_LEVEL = 6


def day_key(day: date) -> str:
    """Return the key of a day's roll-up."""
    return f"{DAYS}{day}.json.gz"


def hours_key(day: date) -> str:
    """Return the key of the roll-ups of a day's hours."""
    return f"{HOURS}{day}.jsonl.gz"


def week_key(day: date) -> str:
    """Return the key of the roll-ups of the days of a day's ISO week, in one object."""
    year, week, _ = day.isocalendar()
    return f"{WEEKS}{year}-W{week:02}"


def view_key(answer: str, range_: str) -> str:
    """Return the key of an answer that is ready.

    Args:
        answer: What is answered, such as `routes`.
        range_: A name of `PRESETS`.
    """
    return f"{PREFIX}views/{answer}-{range_}.json.gz"


def packed(body: bytes) -> bytes:
    """Return a body as it is kept: the same bytes are packed the same."""
    return gzip.compress(body, _LEVEL, mtime=0)


def days_there(objects: Objects) -> dict[date, str]:
    """Return the days that have a roll-up, each with the ETag of its document."""
    return {
        date.fromisoformat(each.key.removeprefix(DAYS).removesuffix(".json.gz")): each.etag
        for each in objects.listed(DAYS)
    }


def read_days(
    objects: Objects, there: Mapping[date, str], details: Collection[str] = DETAILS
) -> tuple[dict[date, RollUp], list[date]]:
    """Return the roll-ups of days, and the days that had to be read one by one.

    A week's object is read for all of its days. It is used for those that have not changed since.

    Args:
        objects: The bucket.
        there: The days, with what `days_there` returned for each. A day that is gone is left out.
        details: Which of `DETAILS` to read.

    Raises:
        NewerDocumentError: If a newer Tagline wrote one.
    """
    bodies: dict[date, bytes] = {}
    with ThreadPoolExecutor(READERS) as pool:
        for week in pool.map(objects.get, dict.fromkeys(map(week_key, there))):
            found = [] if week is None else _days_in_week(week)
            bodies |= {day: body for day, tag, body in found if there.get(day) == tag}
        alone = [day for day in there if day not in bodies]
        for day, single in zip(alone, pool.map(objects.get, map(day_key, alone)), strict=True):
            if single is not None:
                bodies[day] = single
    days = sorted(bodies)
    rollups = read((gzip.decompress(bodies[day]) for day in days), details)
    return dict(zip(days, rollups, strict=True)), alone


def _days_in_week(week: bytes) -> Iterator[tuple[date, str, bytes]]:
    """Yield the days of a week's object: a line with their ETags and sizes, then their own objects."""
    end = week.index(b"\n") + 1
    for day, tag, size in documents.load(week[:end], _WEEK_VERSION, "the week of roll-ups")["days"]:
        yield date.fromisoformat(day), tag, week[end : end + size]
        end += size


def write_weeks(objects: Objects, days: Iterable[date]) -> None:
    """Write the objects of the weeks in which days are. A day that changes meanwhile is for the next run."""
    for monday in sorted({day - timedelta(days=day.weekday()) for day in days}):
        week = [monday + timedelta(days=number) for number in range(7)]
        with ThreadPoolExecutor(READERS) as pool:
            found = zip(week, pool.map(objects.read, map(day_key, week)), strict=True)
            there = [(day, each[1].strip('"'), each[0]) for day, each in found if each is not None]
        head = {"days": [(str(day), tag, len(body)) for day, tag, body in there]}
        chunks = [orjson.dumps(documents.stamped(head, _WEEK_VERSION)), b"\n", *(body for *_, body in there)]
        objects.put(week_key(monday), chunks, "application/octet-stream")


def read_hours(
    objects: Objects, day: date, details: Collection[str] = DETAILS
) -> tuple[list[RollUp], str | None]:
    """Return the roll-ups of a day's hours and the tag that `write_day` compares; none and None without."""
    found = objects.read(hours_key(day))
    if found is None:
        return [], None
    return read(gzip.decompress(found[0]).splitlines(), details), found[1]


def write_day(
    objects: Objects, hours: Sequence[RollUp], known: RollUp | None, tag: str | None, source: str
) -> RollUp | None:
    """Write the roll-ups of a day's hours, and then the day's own.

    Args:
        objects: The bucket.
        hours: All of the day's hours that have begun.
        known: The day's roll-up that is there.
        tag: What `read_hours` returned.
        source: What the day is made of: the ETag of the lake's manifest, or empty.

    Returns:
        The day's roll-up; None if another has written the hours since.
    """
    start = hours[0].start
    body = b"\n".join(_limited(hour).to_json() for hour in hours)
    if not objects.replace(hours_key(start.date()), packed(body), tag):
        return None
    whole = replace(_limited(merge(hours)), end=start + timedelta(days=1), source=source)
    day = whole.succeeding(known)
    objects.put(day_key(start.date()), [packed(day.to_json())], "application/gzip")
    return day


def _limited(rollup: RollUp) -> RollUp:
    return replace(rollup, usage=bounded(rollup.usage, Limits()))


def write_views(objects: Objects, views: Mapping[tuple[str, str], bytes]) -> None:
    """Write answers that are ready, by their name and their range's."""
    for (answer, range_), body in views.items():
        objects.put(view_key(answer, range_), [packed(body)], "application/gzip")


def summary_in(view: bytes) -> dict[str, Any]:
    """Return the content of a summary that is ready, as it is kept."""
    read: dict[str, Any] = orjson.loads(gzip.decompress(view))
    return {"live": None, **read}


def change_view(objects: Objects, key: str, change: Callable[[bytes], bytes]) -> None:
    """Change an answer that is ready, unless it is not there or another changes it meanwhile."""
    found = objects.read(key)
    if found is not None:
        body = gzip.decompress(found[0])
        if (changed := change(body)) != body:
            objects.replace(key, packed(changed), found[1])


def change_page(objects: Objects, change: Callable[[str], str]) -> None:
    """Change the page, unless it is not there or another changes it meanwhile."""
    found = objects.read(PAGE)
    if found is not None:
        html = found[0].decode()
        if (changed := change(html)) != html:
            objects.replace(PAGE, changed.encode(), found[1])


def read_counters(objects: Objects) -> tuple[Counters | None, str | None]:
    """Return the counters and the tag that `write_counters` compares, None and None without any."""
    found = objects.read(COUNTERS)
    return (None, None) if found is None else (Counters.from_json(gzip.decompress(found[0])), found[1])


def write_counters(objects: Objects, counters: Counters, tag: str | None) -> bool:
    """Write the counters unless another has, and return whether they were written."""
    return objects.replace(COUNTERS, packed(counters.to_json()), tag)
