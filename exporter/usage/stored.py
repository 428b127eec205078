"""Roll-ups in the bucket: for each day, the day's own and those of its hours; and answers that are ready."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import orjson

from consumers.bucket import Objects
from exporter.usage.prometheus import Counters
from exporter.usage.rollup import DETAILS, Limits, RollUp, bounded, merge, read

PREFIX = "usage/"
DAYS, HOURS = f"{PREFIX}days/", f"{PREFIX}hours/"
PAGE, COUNTERS = f"{PREFIX}page.html", f"{PREFIX}counters.json.gz"
# Pages of tenants, made on demand, are deleted after a day.
TENANT_PAGES = "tmp/usage/"
# The longest range that is ready, and the same time before it, in whole weeks.
SHOWN_DAYS = 182
# Objects that are read at the same time.
READERS = 16
_LEVEL = 6


def day_key(day: date) -> str:
    """Return the key of a day's roll-up."""
    return f"{DAYS}{day}.json.gz"


def hours_key(day: date) -> str:
    """Return the key of the roll-ups of a day's hours."""
    return f"{HOURS}{day}.jsonl.gz"


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
    objects: Objects, days: Sequence[date], details: Collection[str] = DETAILS
) -> dict[date, RollUp]:
    """Return the roll-ups of days; a day without one is left out.

    Args:
        objects: The bucket.
        days: The days.
        details: Which of `DETAILS` to read.

    Raises:
        NewerDocumentError: If a newer Tagline wrote one.
    """
    with ThreadPoolExecutor(READERS) as pool:
        found = zip(days, pool.map(objects.get, map(day_key, days)), strict=True)
        bodies = {day: body for day, body in found if body is not None}
    return dict(zip(bodies, read(map(gzip.decompress, bodies.values()), details), strict=True))


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
